//! Version 2, the binary header (specification, 2.2).
//!
//! The fixed part is judged as soon as each of its bytes is there, so that a header that cannot become valid is not
//! waited for. Nothing is reserved for the announced length, and a length over the limit is a fault at once.

use std::net::{IpAddr, SocketAddr};

use super::{Addresses, Fault, Header, Tlvs, Version, tlv};

/// The longest header in bytes that elbows accepts.
///
/// The format allows 65,551. The specification wants a header to fit into 536 bytes; TLVs of cloud vendors and of TLS
/// (names, ciphers) stay below 1 KiB; only a client certificate in full (`PP2_SUBTYPE_SSL_CLIENT_CERT`) needs 1 to 3
/// KiB. nginx reads 4,096 bytes too (`NGX_PROXY_PROTOCOL_MAX_HEADER`), `HAProxy` refuses a TLV over 1,024
/// (`HA_PP2_MAX_ALLOC`).
pub const MAX_V2_HEADER: usize = 4096;

/// The largest length in bytes that a header may announce: what follows the fixed part.
pub const MAX_V2_LENGTH: usize = MAX_V2_HEADER - FIXED;

/// What a header begins with.
pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The length in bytes of the fixed part: signature, version and command, family and transport, length.
const FIXED: usize = 16;

/// Parses a header. `rest` is what follows the signature in `bytes`.
pub(super) fn parse(bytes: &[u8], rest: &[u8]) -> Result<Option<(Header, usize)>, Fault> {
    let Some(&version_command) = rest.first() else {
        return Ok(None);
    };
    let command = Command::from_byte(version_command)?;
    let Some(&family_transport) = rest.get(1) else {
        return Ok(None);
    };
    let layout = match command {
        // "discard the protocol block including the family which is ignored": nothing of it is judged. NLB's health
        // check says family INET and sends no addresses.
        Command::Local => Layout::Skipped,
        Command::Proxy => Layout::from_byte(family_transport)?,
    };
    let Some(&[high, low]) = rest.get(2..4) else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_V2_LENGTH {
        return Err(Fault::V2TooLong);
    }
    if length < layout.address_block() {
        return Err(Fault::V2AddressBlock);
    }
    let used = FIXED + length;
    let Some(whole) = bytes.get(..used) else {
        return Ok(None);
    };
    let block = whole.get(FIXED..).unwrap_or_default();
    let (addresses, tlvs) = match command {
        Command::Local => (Addresses::Local, Tlvs::default()),
        Command::Proxy => layout.read(whole, block)?,
    };
    Ok(Some((Header { version: Version::V2, addresses, tlvs }, used)))
}

#[derive(Clone, Copy)]
enum Command {
    Local,
    Proxy,
}

impl Command {
    fn from_byte(byte: u8) -> Result<Self, Fault> {
        match (byte >> 4, byte & 0x0F) {
            (2, 0) => Ok(Self::Local),
            (2, 1) => Ok(Self::Proxy),
            (2, _) => Err(Fault::V2Command),
            _ => Err(Fault::V2Version),
        }
    }
}

/// What follows the fixed part.
#[derive(Clone, Copy)]
enum Layout {
    /// Bytes of unknown meaning.
    Skipped,
    Inet,
    Inet6,
    Unix,
}

impl Layout {
    /// The layout of a PROXY command's family and transport.
    ///
    /// With an unspecified family or transport the place where TLVs begin is unspecified too, so all is skipped, as
    /// nginx does. DGRAM counts as STREAM: it can only mean a balancer that turns QUIC into TCP, and the client's
    /// address is as good then ("The receiver must then use the information provided").
    fn from_byte(byte: u8) -> Result<Self, Fault> {
        let layout = match byte >> 4 {
            0 => Self::Skipped,
            1 => Self::Inet,
            2 => Self::Inet6,
            3 => Self::Unix,
            _ => return Err(Fault::V2Family),
        };
        match byte & 0x0F {
            0 => Ok(Self::Skipped),
            1 | 2 => Ok(layout),
            _ => Err(Fault::V2Transport),
        }
    }

    /// The length in bytes of the addresses and ports.
    const fn address_block(self) -> usize {
        match self {
            Self::Skipped => 0,
            Self::Inet => 2 * (4 + 2),
            Self::Inet6 => 2 * (16 + 2),
            Self::Unix => 2 * 108,
        }
    }

    /// Reads addresses and TLVs. `block` is what follows the fixed part in `whole`, and is long enough.
    fn read(self, whole: &[u8], block: &[u8]) -> Result<(Addresses, Tlvs), Fault> {
        let addresses = match self {
            Self::Skipped => return Ok((Addresses::Unknown, Tlvs::default())),
            Self::Inet => inet::<4>(block),
            Self::Inet6 => inet::<16>(block),
            Self::Unix => Some(Addresses::Unknown),
        };
        let addresses = addresses.ok_or(Fault::V2AddressBlock)?;
        let tlvs = tlv::parse(whole, FIXED + self.address_block())?;
        Ok((addresses, tlvs))
    }
}

/// Reads two addresses of `N` bytes and their ports, all in network byte order.
fn inet<const N: usize>(block: &[u8]) -> Option<Addresses>
where
    IpAddr: From<[u8; N]>,
{
    let (source, block) = block.split_first_chunk::<N>()?;
    let (destination, block) = block.split_first_chunk::<N>()?;
    let (source_port, block) = block.split_first_chunk()?;
    let (destination_port, _) = block.split_first_chunk()?;
    Some(Addresses::inet(
        SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes(*source_port)),
        SocketAddr::new(IpAddr::from(*destination), u16::from_be_bytes(*destination_port)),
    ))
}
