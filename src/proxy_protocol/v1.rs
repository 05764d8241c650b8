//! Version 1, the line of text (specification, 2.1).
//!
//! The first broken rule counts, read from the left: the protocol's name, then the line's end, then the fields once the
//! line is complete ("The receiver must wait for the CRLF sequence before starting to decode the addresses"). So a
//! fault that is known early is told early, and more bytes do not change it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{FromStr, from_utf8};

use super::{Addresses, Fault, Header, Tlvs, Version};

/// The longest header in bytes, CR LF included (specification, 2.1: "worst case").
pub const MAX_V1_HEADER: usize = 107;

/// What a header begins with.
pub(super) const SIGNATURE: &[u8] = b"PROXY ";

const CRLF: usize = 2;

/// Parses what follows the signature. The length in the result includes the signature.
pub(super) fn parse(rest: &[u8]) -> Result<Option<(Header, usize)>, Fault> {
    let Some((protocol, rest)) = protocol(rest)? else {
        return Ok(None);
    };
    let before = SIGNATURE.len() + protocol.name().len();
    let Some(line) = line(rest, MAX_V1_HEADER - before)? else {
        return Ok(None);
    };
    let addresses = match protocol {
        Protocol::Tcp4 => inet::<Ipv4Addr>(line)?,
        Protocol::Tcp6 => inet::<Ipv6Addr>(line)?,
        // "the receiver must ignore anything presented before the CRLF"
        Protocol::Unknown => Addresses::Unknown,
    };
    let header = Header { version: Version::V1, addresses, tlvs: Tlvs::default() };
    Ok(Some((header, before + line.len() + CRLF)))
}

#[derive(Clone, Copy)]
enum Protocol {
    Tcp4,
    Tcp6,
    Unknown,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Tcp4, Self::Tcp6, Self::Unknown];

    /// The name, with the space that must follow it. `UNKNOWN` may also end the line.
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Tcp4 => b"TCP4 ",
            Self::Tcp6 => b"TCP6 ",
            Self::Unknown => b"UNKNOWN",
        }
    }
}

/// Splits off the protocol.
fn protocol(rest: &[u8]) -> Result<Option<(Protocol, &[u8])>, Fault> {
    for protocol in Protocol::ALL {
        if protocol.name().starts_with(rest) && rest.len() < protocol.name().len() {
            return Ok(None);
        }
        let Some(after) = rest.strip_prefix(protocol.name()) else {
            continue;
        };
        return match (protocol, after.first()) {
            (Protocol::Unknown, None) => Ok(None),
            // `UNKNOWNS` is another word, and what it says is not for us to guess.
            (Protocol::Unknown, Some(byte)) if !matches!(byte, b' ' | b'\r' | b'\n') => {
                Err(Fault::V1Protocol)
            }
            _ => Ok(Some((protocol, after))),
        };
    }
    Err(Fault::V1Protocol)
}

/// Finds the line's end, CR LF, which has to come within `room` bytes. Gives the line without it.
///
/// A CR or LF alone is a fault in the ignored part of `UNKNOWN` too: other readers end the line there, and then the
/// rest of it would be content to them.
fn line(rest: &[u8], room: usize) -> Result<Option<&[u8]>, Fault> {
    let text = room - CRLF;
    match rest.iter().take(room).position(|&byte| matches!(byte, b'\r' | b'\n')) {
        Some(end) if end <= text => match rest.get(end..) {
            Some([b'\r', b'\n', ..]) => Ok(rest.get(..end)),
            Some([b'\r']) => Ok(None),
            _ => Err(Fault::V1LineEnd),
        },
        Some(_) => Err(Fault::V1TooLong),
        None if rest.len() > text => Err(Fault::V1TooLong),
        None => Ok(None),
    }
}

/// Parses `source destination source-port destination-port`.
///
/// IPv6 has every text form of RFC 4291 section 2.2, as the specification describes it (hexadecimal in both cases, one
/// `::`, 128 bits). The form with a dotted end (`::ffff:192.0.2.1`) is one of them and has to be accepted: `inet_ntop`
/// makes it, so `HAProxy` and nginx send it for IPv4 clients of a socket on `::`. Zone ids are no part of it: `%eth0`
/// means something on one machine only. The parsers of the standard library accept exactly these forms, and no leading
/// zeros in IPv4.
fn inet<A: FromStr + Into<IpAddr>>(line: &[u8]) -> Result<Addresses, Fault> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mut field = || fields.next().filter(|field| !field.is_empty()).ok_or(Fault::V1Fields);
    let [source, destination, source_port, destination_port] =
        [field()?, field()?, field()?, field()?];
    if fields.next().is_some() {
        return Err(Fault::V1Fields);
    }
    Ok(Addresses::inet(
        SocketAddr::new(address::<A>(source)?, port(source_port)?),
        SocketAddr::new(address::<A>(destination)?, port(destination_port)?),
    ))
}

fn address<A: FromStr + Into<IpAddr>>(field: &[u8]) -> Result<IpAddr, Fault> {
    let text = from_utf8(field).map_err(|_| Fault::V1Address)?;
    let address: A = text.parse().map_err(|_| Fault::V1Address)?;
    Ok(address.into())
}

/// Parses a port. Stricter than `u16::from_str`, which takes `+80` and `080`.
fn port(field: &[u8]) -> Result<u16, Fault> {
    if !field.iter().all(u8::is_ascii_digit) || (field.starts_with(b"0") && field.len() > 1) {
        return Err(Fault::V1Port);
    }
    let text = from_utf8(field).map_err(|_| Fault::V1Port)?;
    text.parse().map_err(|_| Fault::V1Port)
}
