//! Who is at the other end: reads the PROXY header off a new connection.
//!
//! The parser is pure and lives in [`crate::proxy_protocol`]; here are the socket, the settings that
//! say whether and from whom a header is believed, and what a connection without one may do.

use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;

use tokio::io::AsyncReadExt;

use crate::client::Client;
use crate::config::{Config, ProxyProtocol};
use crate::http::forwarded::tlv_headers;
use crate::inbox::Inbox;
use crate::limits::Seat;
use crate::metrics::Counters;
use crate::proxy_protocol::{self, Addresses, Found, Header};
use crate::stall::Stalled;

/// Bit 0 of the SSL TLV's client field: the client used TLS (PROXY protocol, section 2.2.6).
const CLIENT_USED_TLS: u8 = 0x01;

/// The port at which clients speak TLS to the balancer, where no TLV says so.
const HTTPS: u16 = 443;

/// Room for the first read: a PROXY header with its TLVs, and mostly the request head behind it.
const FIRST_READ: usize = 1_024;

/// Why a connection has no client.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The PROXY header breaks a rule.
    #[error("bad PROXY header: {0}")]
    Header(#[from] proxy_protocol::Fault),
    /// The connection broke or ended in the middle of the header.
    #[error("no complete PROXY header: {0}")]
    Broken(#[from] io::Error),
    /// `PROXY_HEADER_TIMEOUT` passed.
    #[error("no complete PROXY header within PROXY_HEADER_TIMEOUT")]
    TooSlow,
}

impl Fault {
    /// Counts it and tells whoever listens closely. The balancer's fault, never ours.
    pub(super) fn note(&self, balancer: SocketAddr, counters: &Counters) {
        match self {
            Self::Header(fault) => counters.proxy_faults.add(*fault),
            Self::Broken(_) => counters.proxy_headers_cut.add(1),
            Self::TooSlow => counters.proxy_header_timeouts.add(1),
        }
        if let Self::Header(fault) = self {
            tracing::debug!(%balancer, rule = fault.as_str(), "{self}");
        } else {
            tracing::debug!(%balancer, "{self}");
        }
    }
}

/// Reads as far as the PROXY header goes; what was read behind it stays in `inbox`.
///
/// `None` means that the connection closed before its first byte.
pub(super) async fn identify(
    inbox: &mut Inbox,
    balancer: SocketAddr,
    config: &Config,
) -> Result<Option<Client>, Fault> {
    loop {
        let destination = || inbox.socket.inner().local_addr();
        if let Some((client, used)) = client(&inbox.unread, balancer, destination, config)? {
            let _ = inbox.unread.split_to(used);
            return Ok(Some(client));
        }
        // The parser's limit bounds what is read before it has an answer.
        inbox.unread.reserve(FIRST_READ);
        let read = inbox.socket.inner_mut().read_buf(&mut inbox.unread).await;
        match read {
            Ok(0) if inbox.unread.is_empty() => return Ok(None),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(_) => {}
            // A probe may end with a reset as well.
            Err(error) if inbox.unread.is_empty() => {
                tracing::trace!(%balancer, "closed before its first byte: {error}");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The client that the first bytes of a connection speak for, and how many of them did. `None` asks for more.
///
/// `destination` is the socket's own address, which is only asked for where no header names one.
pub(super) fn client(
    unread: &[u8],
    balancer: SocketAddr,
    destination: impl FnOnce() -> io::Result<SocketAddr>,
    config: &Config,
) -> Result<Option<(Client, usize)>, Fault> {
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
        _ => (balancer, canonical(destination()?)),
    };
    let mut client = Client {
        address,
        balancer,
        destination,
        identified: header.is_some() || config.proxy_protocol != ProxyProtocol::Required,
        https: false,
        tlv_headers: Vec::new(),
        words: OnceLock::new(),
        seat: Seat::default(),
        stalled: Stalled::default(),
    };
    if let Some(header) = &header {
        client.https = header
            .tlvs
            .ssl()
            .map_or(destination.port() == HTTPS, |ssl| ssl.client & CLIENT_USED_TLS != 0);
        client.tlv_headers = tlv_headers(&header.tlvs, &config.proxy_tlv_headers);
    }
    Ok(Some((client, used)))
}

/// IPv4 clients of a dual-stack listener are IPv4 clients.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
