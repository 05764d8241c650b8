//! Heads of HTTP messages and PROXY headers, as far as two ends need them that know each other.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use ppp::v2;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The key of each handshake and its answer, of RFC 6455, section 1.3.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A head that is longer is none.
const LONGEST: usize = 16 * 1024;

/// Where balancers listen.
const BALANCER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 443);

/// The address of the client with this number: another one for each of 16 million.
pub(crate) fn client(number: u64) -> SocketAddrV4 {
    let [.., one, two, three] = number.to_be_bytes();
    SocketAddrV4::new(Ipv4Addr::new(10, one, two, three), 40_000)
}

/// The PROXY header of a client: version 1 or 2, by turns.
pub(crate) fn proxy_header(number: u64) -> io::Result<Vec<u8>> {
    let client = client(number);
    if (number / 2).is_multiple_of(2) {
        let [ip, at] = [client.ip(), BALANCER.ip()];
        let ports = format!("{} {}", client.port(), BALANCER.port());
        return Ok(format!("PROXY TCP4 {ip} {at} {ports}\r\n").into_bytes());
    }
    let addresses = v2::IPv4::new(*client.ip(), *BALANCER.ip(), client.port(), BALANCER.port());
    v2::Builder::with_addresses(
        v2::Version::Two | v2::Command::Proxy,
        v2::Protocol::Stream,
        addresses,
    )
    .build()
}

/// A handshake for `path`.
pub(crate) fn upgrade(path: &str, protocol: &str, fields: &str) -> String {
    let of_web_socket = if protocol == "websocket" {
        format!("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n")
    } else {
        String::new()
    };
    format!(
        "GET {path} HTTP/1.1\r\nHost: load.example\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\
         {of_web_socket}{fields}\r\n"
    )
}

/// A plain request.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: load.example\r\n\r\n")
}

/// The answer to [`upgrade`].
pub(crate) fn switching(protocol: &str) -> String {
    let accept = if protocol == "websocket" {
        format!("Sec-WebSocket-Accept: {ACCEPT}\r\n")
    } else {
        String::new()
    };
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n{accept}\r\n"
    )
}

/// The head of a response with so many bytes of body.
pub(crate) fn response(status: &str, length: u64) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n")
}

/// The value of a field.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The status of a response.
pub(crate) fn status(head: &str) -> Option<u16> {
    head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// The path of a request, and the number behind `?tunnel=`, if it has one.
pub(crate) fn path(head: &str) -> Option<(&str, Option<u64>)> {
    let target = head.split(' ').nth(1)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Some((path, number(query, "tunnel")))
}

/// The number of `name=` in a query.
pub(crate) fn number(query: &str, name: &str) -> Option<u64> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

/// Reads a head, and returns it and what came behind it; nothing where the stream ends in front of it. `unread` came
/// before.
pub(crate) async fn read_head(
    source: &mut (impl AsyncRead + Unpin),
    mut unread: Vec<u8>,
) -> io::Result<Option<(String, Vec<u8>)>> {
    loop {
        if let Some(at) = unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let rest = unread.split_off(at + 4);
            return match String::from_utf8(unread) {
                Ok(head) => Ok(Some((head, rest))),
                Err(_) => Err(io::Error::other("a head that is no text")),
            };
        }
        if unread.len() > LONGEST {
            return Err(io::Error::other("a head without an end"));
        }
        if source.read_buf(&mut unread).await? == 0 {
            return if unread.is_empty() {
                Ok(None)
            } else {
                Err(io::Error::other("the stream ends within a head"))
            };
        }
    }
}
