//! A client that speaks bytes: what it sends is exactly what a test says.

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::pieces::Pieces;
use super::proxy::{Elbows, PATIENCE};

/// The client's address in PROXY headers of tests.
pub const CLIENT: &str = "203.0.113.7";

/// A PROXY header, version 1, of [`CLIENT`] at a balancer's port 80.
pub const PROXY_V1: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 51234 80\r\n";

/// A connection.
#[derive(Debug)]
pub struct Client {
    pub socket: TcpStream,
    /// How what it sends is cut.
    pub pieces: Pieces,
    /// Read and not used yet.
    unread: Vec<u8>,
}

/// A response, its body unchunked.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Status line and fields as they came.
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a field; the name in any case.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    /// A connection without PROXY header.
    pub fn plain(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("elbows listens");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, pieces: Pieces::of_this_test(), unread: Vec::new() }
    }

    /// A connection that begins with [`PROXY_V1`].
    pub fn behind_balancer(address: SocketAddr) -> Self {
        let mut client = Self::plain(address);
        client.send(PROXY_V1);
        client
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the connection takes bytes");
    }

    /// Fails where the connection takes no bytes any more.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.pieces.send(&self.socket, bytes.as_ref())
    }

    /// Nothing more will be sent.
    pub fn finish(&mut self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// Exactly `length` bytes.
    pub fn read_exact(&mut self, length: usize) -> Vec<u8> {
        while self.unread.len() < length {
            assert!(self.fill().expect("bytes come") > 0, "closed after {:?}", self.unread);
        }
        self.unread.drain(..length).collect()
    }

    /// Up to and with `end`.
    pub fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|bytes| bytes == end) {
                return self.unread.drain(..at + end.len()).collect();
            }
            let read = self.fill().expect("bytes come");
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// Everything until the end of the stream, or the error that it ended with.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.unread))
    }

    /// What was read behind what was asked for.
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// A response head: status line and fields.
    pub fn read_head(&mut self) -> Response {
        let head = String::from_utf8(self.read_until(b"\r\n\r\n")).expect("a head is text");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Response {
            status: status.unwrap_or_else(|| panic!("no status in {head:?}")),
            head,
            body: Vec::new(),
        }
    }

    /// A response to a request that is not `HEAD`.
    pub fn read_response(&mut self) -> Response {
        let mut response = self.read_head();
        let length = response.field("content-length").map(|length| length.parse().unwrap());
        if response.field("transfer-encoding").is_some() {
            loop {
                let line = self.read_until(b"\r\n");
                let size = std::str::from_utf8(&line).unwrap().trim();
                let size = usize::from_str_radix(size, 16).expect("a chunk size");
                let chunk = self.read_exact(size);
                self.read_until(b"\r\n");
                if size == 0 {
                    return response;
                }
                response.body.extend(chunk);
            }
        }
        response.body = match length {
            Some(length) => self.read_exact(length),
            None if matches!(response.status, 100..200 | 204 | 304) => Vec::new(),
            None => self.read_to_end().expect("the end of the body"),
        };
        response
    }

    /// One request without body, and its response.
    pub fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n"));
        self.read_response()
    }

    /// An open tunnel through `elbows` to an application that echoes.
    pub fn tunnel(elbows: &Elbows) -> Self {
        let mut client = Self::behind_balancer(elbows.address);
        client.send(handshake("/ws"));
        assert_eq!(client.read_response().status, 101);
        client.echoes();
        client
    }

    /// The same without frames, through [`Upstream::other_echo`](super::upstream::Upstream::other_echo).
    pub fn other_tunnel(elbows: &Elbows) -> Self {
        let mut client = Self::behind_balancer(elbows.address);
        client.send(other_handshake("/ws"));
        assert_eq!(client.read_response().status, 101);
        client.echoes();
        client
    }

    /// What it says comes back.
    pub fn echoes(&mut self) {
        self.send(b"hello");
        assert_eq!(self.read_exact(5), b"hello");
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let read = self.socket.read(&mut buffer)?;
        self.unread.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

/// The value of a field in a head; the name in any case.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// A handshake with the key of RFC 6455, section 1.3.
pub fn handshake(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// The same for a protocol that is no WebSocket.
pub fn other_handshake(target: &str) -> String {
    handshake(target).replace("websocket", "foo")
}
