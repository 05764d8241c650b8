//! The PROXY protocol, versions 1 and 2: the header that a load balancer puts in front of a connection to say who the
//! client is.
//!
//! Pure: bytes in, values out, no sockets. The parser keeps no state. It is called again with all bytes so far until it
//! has an answer; a header is short and comes in one segment, so this costs nothing in practice, and an answer can
//! never depend on how the bytes were split. It is strict, because the specification asks for it ("Any sequence which
//! does not exactly match the protocol must be discarded and cause the receiver to abort the connection").
//!
//! Source: `doc/proxy-protocol.txt` of `HAProxy` (haproxy.org), called "the specification" here.

mod crc32c;
pub mod encode;
mod tlv;
mod v1;
mod v2;

use std::net::SocketAddr;

use crate::words::words;

pub use tlv::{Ssl, Tlvs};
pub use v1::MAX_V1_HEADER;
pub use v2::{MAX_V2_HEADER, MAX_V2_LENGTH};

/// Finds the PROXY header that the bytes begin with.
///
/// `bytes` is everything received on the connection so far. The answer is one of:
///
/// * `Ok(None)`: it may still become a header; call again with more bytes. Never said of [`MAX_V2_HEADER`] bytes or
///   more.
/// * `Ok(Some((Found::Absent, 0)))`: these bytes do not begin a PROXY header, whatever follows. Said at the first byte
///   that differs from both signatures. An HTTP client that sends empty lines first is told apart at its fifth byte, or
///   earlier: no HTTP request has a NUL there.
/// * `Ok(Some((Found::Header(header), used)))`: the first `used` bytes are the header. What follows is content, even if
///   it looks like one more header.
/// * `Err(fault)`: it begins like a header and breaks a rule of it; the connection has to be closed.
///
/// # Errors
/// The first rule that is broken, as a [`Fault`]. Given more bytes, the answer stays the same.
pub fn parse(bytes: &[u8]) -> Result<Option<(Found, usize)>, Fault> {
    if let Some(line) = bytes.strip_prefix(v1::SIGNATURE) {
        return header(v1::parse(line)?);
    }
    if let Some(rest) = bytes.strip_prefix(v2::SIGNATURE) {
        return header(v2::parse(bytes, rest)?);
    }
    if v1::SIGNATURE.starts_with(bytes) || v2::SIGNATURE.starts_with(bytes) {
        return Ok(None);
    }
    Ok(Some((Found::Absent, 0)))
}

/// Wraps what the parser of a version found.
#[allow(clippy::unnecessary_wraps)] // The shape of `parse`, whose last step it is.
fn header(found: Option<(Header, usize)>) -> Result<Option<(Found, usize)>, Fault> {
    Ok(found.map(|(header, used)| (Found::Header(header), used)))
}

/// What a connection begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A complete and valid header.
    Header(Header),
    /// Something else. All bytes are content.
    Absent,
}

/// A PROXY header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The format in which it came.
    pub version: Version,
    /// Whose connection it is.
    pub addresses: Addresses,
    /// What the load balancer tells besides. Always empty in version 1.
    pub tlvs: Tlvs,
}

/// The format of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One line of text (specification, 2.1).
    V1,
    /// Binary (specification, 2.2).
    V2,
}

/// Whose connection the header speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// `LOCAL`: the load balancer opened the connection for itself, for example for a health check. The socket's
    /// addresses are the right ones.
    Local,
    /// The connection is relayed, and the header holds no inet address: `UNKNOWN` in version 1; `AF_UNSPEC`, `AF_UNIX`
    /// or an unspecified transport in version 2. The socket's addresses have to do.
    Unknown,
    /// The connection is relayed for this client.
    ///
    /// An IPv4-mapped IPv6 address (`::ffff:192.0.2.1`, RFC 4291 section 2.5.5.2) is given as the IPv4 address that it
    /// stands for. A load balancer that listens on `::` writes IPv4 clients so, and one client must have one spelling
    /// in logs, limits and trust rules. (As IPv6 they would all share one /64.)
    Inet {
        /// The client's address and port.
        source: SocketAddr,
        /// The address and port that the client connected to, at the load balancer.
        destination: SocketAddr,
    },
}

impl Addresses {
    /// Inet addresses in their one spelling.
    fn inet(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::Inet { source: canonical(source), destination: canonical(destination) }
    }
}

/// The address with an IPv4-mapped IPv6 address turned into IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

words! {
    /// The rule of the specification that a header breaks. Whoever sent it is wrong; the connection has to be closed.
    #[derive(Hash, thiserror::Error)]
    pub enum Fault {
        /// Version 1: neither `TCP4 `, `TCP6 ` nor `UNKNOWN` and the end of the word.
        #[error("the protocol of a version 1 header is not TCP4, TCP6 or UNKNOWN")]
        V1Protocol = "v1_protocol",
        /// Version 1: a CR without LF, or a LF without CR.
        #[error("the line of a version 1 header does not end with CR LF")]
        V1LineEnd = "v1_line_end",
        /// Version 1: longer than [`MAX_V1_HEADER`].
        #[error("a version 1 header is longer than 107 bytes")]
        V1TooLong = "v1_too_long",
        /// Version 1: not exactly two addresses and two ports, each behind exactly one space.
        #[error("a version 1 header does not hold two addresses and two ports, one space before each")]
        V1Fields = "v1_fields",
        /// Version 1: not an address, or one of the other family.
        #[error("an address in a version 1 header is not one of the announced family")]
        V1Address = "v1_address",
        /// Version 1: not a decimal number from 0 to 65535 without sign or leading zeros.
        #[error(
            "a port in a version 1 header is not a decimal number from 0 to 65535 without leading zeros"
        )]
        V1Port = "v1_port",
        /// Version 2: the signature is followed by another version than 2.
        #[error("the version behind the version 2 signature is not 2")]
        V2Version = "v2_version",
        /// Version 2: neither `LOCAL` nor `PROXY`.
        #[error("the command of a version 2 header is not LOCAL or PROXY")]
        V2Command = "v2_command",
        /// Version 2: an address family that is not assigned.
        #[error("the address family of a version 2 header is not assigned")]
        V2Family = "v2_family",
        /// Version 2: a transport protocol that is not assigned.
        #[error("the transport protocol of a version 2 header is not assigned")]
        V2Transport = "v2_transport",
        /// Version 2: longer than [`MAX_V2_LENGTH`], a limit of elbows.
        #[error("a version 2 header announces more than 4080 bytes")]
        V2TooLong = "v2_too_long",
        /// Version 2: the announced length does not hold the addresses of the family.
        #[error("a version 2 header is shorter than the addresses of its family")]
        V2AddressBlock = "v2_address_block",
        /// Version 2: a TLV goes over the end of what it is in.
        #[error("a TLV goes over the end of the header")]
        TlvOverrun = "tlv_overrun",
        /// Version 2: a TLV with one meaning comes twice.
        #[error("a TLV comes twice")]
        TlvRepeated = "tlv_repeated",
        /// Version 2: a `CRC32c` TLV that is not 4 bytes long.
        #[error("the CRC32c TLV is not 4 bytes long")]
        Crc32cLength = "crc32c_length",
        /// Version 2: the `CRC32c` TLV and the header differ.
        #[error("the CRC32c of the header is wrong")]
        Crc32cMismatch = "crc32c_mismatch",
        /// Version 2: a unique id of more than 128 bytes.
        #[error("the unique id is longer than 128 bytes")]
        UniqueIdTooLong = "unique_id_too_long",
        /// Version 2: a SSL TLV without room for its fixed fields.
        #[error("the SSL TLV is shorter than 5 bytes")]
        SslTooShort = "ssl_too_short",
    }
}
