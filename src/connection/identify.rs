//! Who is it: the PROXY header at the start of a connection.
//!
//! Here the settings meet the parser: from whom a header is believed, and what a connection without one may do.

use std::net::SocketAddr;

use crate::client::Client;
use crate::config::{Config, ProxyProtocol, TlvHeader};
use crate::http::forwarded::tlv_headers;
use crate::proxy_protocol::{self, Addresses, Found, Header};

/// Bit 0 of the SSL TLV's client field: the client used TLS (PROXY protocol, section 2.2.6).
const CLIENT_USED_TLS: u8 = 0x01;

/// The port at which clients speak TLS to the balancer, where no TLV says so.
const HTTPS: u16 = 443;

/// The client that the first bytes of a connection speak for, and how many of them did. `None` asks for more.
///
/// `destination` is the socket's own address, which is only asked for where no header names one. `tlvs` are those that a
/// route wants to know.
pub(super) fn client(
    unread: &[u8],
    balancer: SocketAddr,
    destination: impl FnOnce() -> SocketAddr,
    config: &Config,
    tlvs: &[TlvHeader],
) -> Result<Option<(Client, usize)>, proxy_protocol::Fault> {
    let believed = match config.proxy_protocol {
        ProxyProtocol::Off => false,
        ProxyProtocol::Required | ProxyProtocol::Optional => config.trusts(balancer.ip()),
    };
    let (header, used) = if believed {
        match proxy_protocol::parse(unread)? {
            Some((Found::Header(header), used)) => (Some(header), used),
            Some((Found::Absent, _)) => (None, 0),
            None => return Ok(None),
        }
    } else {
        (None, 0)
    };
    let (address, destination) = match &header {
        Some(Header { addresses: Addresses::Inet { source, destination }, .. }) => {
            (*source, *destination)
        }
        _ => (balancer, canonical(destination())),
    };
    let mut client = Client::new(address, balancer, destination);
    client.identified = header.is_some() || config.proxy_protocol != ProxyProtocol::Required;
    if let Some(header) = &header {
        client.https = header
            .tlvs
            .ssl()
            .map_or(destination.port() == HTTPS, |ssl| ssl.client & CLIENT_USED_TLS != 0);
        client.tlv_headers = tlv_headers(&header.tlvs, tlvs);
    }
    Ok(Some((client, used)))
}

/// IPv4 clients of a dual-stack listener are IPv4 clients.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
