//! Writes PROXY headers: for tests and for the bench.
//!
//! Two addresses of different families become IPv6, the IPv4 one IPv4-mapped, because a header has one family. The
//! parser turns it back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{crc32c, tlv, v2};

/// A version 1 header.
#[must_use]
pub fn v1(source: SocketAddr, destination: SocketAddr) -> String {
    let (name, from, to): (_, IpAddr, IpAddr) = match family(source, destination) {
        Family::Inet(from, to) => ("TCP4", from.into(), to.into()),
        Family::Inet6(from, to) => ("TCP6", from.into(), to.into()),
    };
    format!("PROXY {name} {from} {to} {} {}\r\n", source.port(), destination.port())
}

/// A version 2 header for a client's TCP connection.
///
/// `tlvs` are types and values; with `crc32c` a checksum comes before them. A TLV for which the header (65,535 bytes
/// behind its fixed part) has no room is left out, as `HAProxy` does.
#[must_use]
pub fn v2(
    source: SocketAddr,
    destination: SocketAddr,
    tlvs: &[(u8, &[u8])],
    crc32c: bool,
) -> Vec<u8> {
    let mut block = Vec::new();
    let family = match family(source, destination) {
        Family::Inet(from, to) => {
            block.extend_from_slice(&from.octets());
            block.extend_from_slice(&to.octets());
            0x11
        }
        Family::Inet6(from, to) => {
            block.extend_from_slice(&from.octets());
            block.extend_from_slice(&to.octets());
            0x21
        }
    };
    block.extend_from_slice(&source.port().to_be_bytes());
    block.extend_from_slice(&destination.port().to_be_bytes());
    header(0x21, family, block, tlvs, crc32c)
}

/// A version 2 header for a connection of the load balancer's own, such as a health check.
#[must_use]
pub fn v2_local() -> Vec<u8> {
    header(0x20, 0x00, Vec::new(), &[], false)
}

enum Family {
    Inet(Ipv4Addr, Ipv4Addr),
    Inet6(Ipv6Addr, Ipv6Addr),
}

/// The family that can hold both addresses.
fn family(source: SocketAddr, destination: SocketAddr) -> Family {
    let inet6 = |address: IpAddr| match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Family::Inet(from, to),
        (from, to) => Family::Inet6(inet6(from), inet6(to)),
    }
}

fn header(
    command: u8,
    family: u8,
    mut block: Vec<u8>,
    tlvs: &[(u8, &[u8])],
    crc32c: bool,
) -> Vec<u8> {
    let checksum_at = crc32c.then_some(block.len() + tlv::TLV_HEAD);
    if crc32c {
        push(&mut block, tlv::CRC32C, &[0; 4]);
    }
    for (kind, value) in tlvs {
        push(&mut block, *kind, value);
    }
    let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
    let mut header = v2::SIGNATURE.to_vec();
    header.extend_from_slice(&[command, family]);
    header.extend_from_slice(&length.to_be_bytes());
    let fixed = header.len();
    header.append(&mut block);
    if let Some(at) = checksum_at {
        let checksum = crc32c::checksum(&[&header]);
        if let Some(place) = header.get_mut(fixed + at..fixed + at + 4) {
            place.copy_from_slice(&checksum.to_be_bytes());
        }
    }
    header
}

/// Appends a TLV if the header has room for it.
fn push(block: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let Ok(length) = u16::try_from(value.len()) else {
        return;
    };
    if block.len() + tlv::TLV_HEAD + value.len() > usize::from(u16::MAX) {
        return;
    }
    block.push(kind);
    block.extend_from_slice(&length.to_be_bytes());
    block.extend_from_slice(value);
}
