//! The heads of HTTP messages that both ends of the bench exchange. Both know what the other sends, so
//! that as little as possible is parsed.

use std::net::{IpAddr, SocketAddr};

use elbows::proxy_protocol::encode;

/// The key and its answer of RFC 6455, section 1.3. Each handshake uses them, so that the application
/// needs no SHA-1.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Bytes of the body of [`Path::Page`].
pub(crate) const PAGE: usize = 1024;

/// Bytes of the body of [`Path::LargePage`], and of that which is sent to [`Path::Upload`].
pub(crate) const LARGE: usize = 1024 * 1024;

/// What is asked of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// A WebSocket on which each message comes back.
    Echo,
    /// A WebSocket on which the application sends once a second.
    Push,
    /// A WebSocket whose messages the application does not look at.
    Sink,
    /// Plain HTTP: [`PAGE`] bytes.
    Page,
    /// Plain HTTP: [`LARGE`] bytes.
    LargePage,
    /// Plain HTTP: a body of [`LARGE`] bytes is taken.
    Upload,
    /// Plain HTTP: the client's address, as the application was told it.
    Client,
}

impl Path {
    const ALL: [Self; 7] = [
        Self::Echo,
        Self::Push,
        Self::Sink,
        Self::Page,
        Self::LargePage,
        Self::Upload,
        Self::Client,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Echo => "/echo",
            Self::Push => "/push",
            Self::Sink => "/sink",
            Self::Page => "/page",
            Self::LargePage => "/large-page",
            Self::Upload => "/upload",
            Self::Client => "/client",
        }
    }
}

/// The word of the `Upgrade` header that makes a WebSocket.
pub(crate) const WEBSOCKET: &str = "websocket";

/// A PROXY header as load balancers send it: version 1 for even connections, 2 for odd ones. The
/// client's address is one of those for documentation (RFC 5737).
pub(crate) fn proxy_header(connection: usize) -> Vec<u8> {
    proxy_header_of(7, connection)
}

/// The address of a client, by its last part.
pub(crate) fn address_of(client: u8) -> IpAddr {
    IpAddr::from([203, 0, 113, client])
}

/// The same of another client: the last part of its address.
pub(crate) fn proxy_header_of(client: u8, connection: usize) -> Vec<u8> {
    let port = 1024 + u16::try_from(connection % 60_000).unwrap_or_default();
    let source = SocketAddr::new(address_of(client), port);
    let destination = SocketAddr::from(([192, 0, 2, 1], 443));
    if connection.is_multiple_of(2) {
        encode::v1(source, destination).into_bytes()
    } else {
        encode::v2(source, destination, &[], false)
    }
}

/// A request for an upgrade to `protocol`, with the headers of a browser's.
pub(crate) fn upgrade(path: Path, protocol: &str) -> Vec<u8> {
    format!(
        "GET {} HTTP/1.1\r\nHost: bench.example\r\nConnection: Upgrade\r\nPragma: no-cache\r\n\
         Cache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nUpgrade: {protocol}\r\n\
         Origin: https://bench.example\r\nSec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate\r\n\
         Accept-Language: en\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
        path.as_str()
    )
    .into_bytes()
}

/// A request for a page.
pub(crate) fn get(path: Path) -> Vec<u8> {
    format!(
        "GET {} HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
         Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nAccept-Language: en\r\n\r\n",
        path.as_str()
    )
    .into_bytes()
}

/// A request with a body.
pub(crate) fn post() -> Vec<u8> {
    let mut request = format!(
        "POST {} HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
         Accept: */*\r\nContent-Type: application/octet-stream\r\nContent-Length: {LARGE}\r\n\r\n",
        Path::Upload.as_str()
    )
    .into_bytes();
    request.resize(request.len() + LARGE, b'u');
    request
}

/// The response that grants an upgrade to `protocol`.
pub(crate) fn switching(protocol: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: {protocol}\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )
    .into_bytes()
}

/// A response with so many bytes.
pub(crate) fn response(size: usize) -> Vec<u8> {
    response_with(&vec![b'x'; size])
}

/// A response with this body.
pub(crate) fn response_with(body: &[u8]) -> Vec<u8> {
    let size = body.len();
    let mut response =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\n\r\n")
            .into_bytes();
    response.extend_from_slice(body);
    response
}

/// What refuses everything else.
pub(crate) const BAD_REQUEST: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// The bytes of the head that `bytes` begin with, its empty line included, if it is whole.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) path: Path,
    /// The protocol of its upgrade.
    pub(crate) upgrade: Option<String>,
    /// Bytes of its body.
    pub(crate) body: usize,
    /// What it says of the client's address. Only of [`Path::Client`].
    pub(crate) client: Option<String>,
}

/// What a request head asks for.
pub(crate) fn request(head: &[u8]) -> Option<Request> {
    let (method, rest) = head.split_at_checked(head.iter().position(|byte| *byte == b' ')? + 1)?;
    let path = Path::ALL.into_iter().find(|path| {
        rest.strip_prefix(path.as_str().as_bytes()).is_some_and(|rest| rest.starts_with(b" "))
    })?;
    let expected: &[u8] = if path == Path::Upload { b"POST " } else { b"GET " };
    let upgrade = header(head, "upgrade");
    if method != expected || upgrade.is_some() && header(head, "sec-websocket-key") != Some(KEY) {
        return None;
    }
    let body = header(head, "content-length").map_or(Some(0), |text| text.parse().ok())?;
    let client = header(head, "x-forwarded-for").filter(|_| path == Path::Client);
    let [upgrade, client] = [upgrade, client].map(|value| value.map(str::to_owned));
    Some(Request { path, upgrade, body, client })
}

/// The status and the body's length that a response head announces.
pub(crate) fn status(head: &[u8]) -> Option<(u16, usize)> {
    let digits = head.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let status = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let body = header(head, "content-length").map_or(Some(0), |text| text.parse().ok())?;
    Some((status, body))
}

/// The value of a header.
fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value =
            value.strip_prefix(b":").filter(|_| found.eq_ignore_ascii_case(name.as_bytes()))?;
        std::str::from_utf8(value).ok().map(str::trim)
    })
}

#[cfg(test)]
mod tests {
    use super::{
        LARGE, PAGE, Path, Request, WEBSOCKET, get, length, post, request, response, status,
        switching, upgrade,
    };

    /// A request of this kind, with nothing further.
    fn plain(path: Path) -> Request {
        Request { path, upgrade: None, body: 0, client: None }
    }

    #[test]
    fn both_ends_understand_each_other() {
        let head = upgrade(Path::Push, WEBSOCKET);
        assert_eq!(length(&head), Some(head.len()));
        let upgrade = Some(WEBSOCKET.to_owned());
        assert_eq!(request(&head), Some(Request { upgrade, ..plain(Path::Push) }));
        for path in [Path::Page, Path::LargePage, Path::Client] {
            assert_eq!(request(&get(path)), Some(plain(path)));
        }
        let sent = post();
        assert_eq!(request(&sent), Some(Request { body: LARGE, ..plain(Path::Upload) }));
        assert_eq!(length(&sent).map(|head| sent.len() - head), Some(LARGE));
        assert_eq!(status(&switching(WEBSOCKET)), Some((101, 0)));
        assert_eq!(status(&response(PAGE)), Some((200, PAGE)));
    }

    #[test]
    fn client_is_read_where_it_is_asked_for() {
        let head = b"GET /client HTTP/1.1\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";
        let client = Some("203.0.113.9".to_owned());
        assert_eq!(request(head), Some(Request { client, ..plain(Path::Client) }));
    }

    #[test]
    fn unknown_path_is_refused() {
        assert_eq!(request(b"GET /echoes HTTP/1.1\r\n\r\n"), None);
        assert_eq!(request(b"GET /upload HTTP/1.1\r\n\r\n"), None);
    }
}
