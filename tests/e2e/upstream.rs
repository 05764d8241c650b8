//! An application that speaks bytes: a test says what it does with each connection.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::client::field;
use super::pieces::{Pieces, Socket};
use super::proxy::PATIENCE;

/// The answer to [`handshake`](super::client::handshake).
pub const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A listening application. It ends with the test process.
pub struct Upstream {
    pub address: SocketAddr,
    /// What the connections' functions returned.
    seen: Receiver<String>,
}

impl Upstream {
    /// Gives each connection, in a thread of its own, to `serve`; what it returns can be
    /// [seen](Upstream::seen).
    pub fn start(serve: impl Fn(Socket) -> String + Send + Sync + Clone + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = channel();
        let pieces = Pieces::of_this_test();
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.set_nodelay(true).unwrap();
                let socket = Socket::new(socket, pieces);
                let (serve, sender) = (serve.clone(), sender.clone());
                thread::spawn(move || {
                    let _ = sender.send(serve(socket));
                });
            }
        });
        Self { address, seen }
    }

    /// Answers each request head with `answer` and keeps the connection for the next; each head is
    /// seen. For requests without body.
    pub fn answering(answer: impl AsRef<[u8]>) -> Self {
        let answer = answer.as_ref().to_vec();
        let pieces = Pieces::of_this_test();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = channel();
        thread::spawn(move || {
            for mut socket in listener.incoming().map_while(Result::ok) {
                socket.set_nodelay(true).unwrap();
                let (answer, sender) = (answer.clone(), sender.clone());
                thread::spawn(move || {
                    while let Some(head) = try_read_head(&mut socket) {
                        let _ = sender.send(head);
                        if pieces.send(&socket, &answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// Opens a WebSocket for each connection and sends every byte back; each head is seen at its end.
    pub fn echo() -> Self {
        Self::start(|mut socket| {
            let head = read_head(&mut socket);
            socket.write_all(SWITCHING).unwrap();
            let mut sink = socket.try_clone().unwrap();
            let _ = std::io::copy(&mut socket, &mut sink);
            head
        })
    }

    /// The same for a protocol that is no WebSocket, asked for by [`other_handshake`].
    ///
    /// [`other_handshake`]: super::client::other_handshake
    pub fn other_echo() -> Self {
        Self::start(|mut socket| {
            let head = read_head(&mut socket);
            let switching =
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n";
            socket.write_all(switching).unwrap();
            let mut sink = socket.try_clone().unwrap();
            let _ = std::io::copy(&mut socket, &mut sink);
            head
        })
    }

    /// An address at which nobody listens.
    pub fn nobody() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, super::proxy::free_port()))
    }

    /// The next thing that was seen.
    pub fn seen(&self) -> String {
        self.seen.recv_timeout(PATIENCE).expect("the upstream sees something")
    }

    /// Nothing was seen so far.
    pub fn saw_nothing(&self) -> bool {
        self.seen.try_recv().is_err()
    }
}

/// An application whose connections are handed to the test, behind the request head.
pub fn handed_over() -> (SocketAddr, Receiver<(Socket, String)>) {
    handed_over_at(Ipv4Addr::LOCALHOST.into(), |_| true)
}

/// The same at another address, for those whose request head is wanted; the others get 404.
pub fn handed_over_at(
    address: IpAddr,
    is_wanted: impl Fn(&str) -> bool + Send + 'static,
) -> (SocketAddr, Receiver<(Socket, String)>) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, sockets) = channel();
    let pieces = Pieces::of_this_test();
    thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.set_write_timeout(Some(PATIENCE)).unwrap();
            socket.set_nodelay(true).unwrap();
            let head = read_head(&mut socket);
            if !is_wanted(&head) {
                let nothing =
                    "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = socket.write_all(nothing.as_bytes());
            } else if sender.send((Socket::new(socket, pieces), head)).is_err() {
                return;
            }
        }
    });
    (address, sockets)
}

/// A head, and nothing behind it.
pub fn read_head(socket: &mut TcpStream) -> String {
    try_read_head(socket).expect("a request head")
}

/// The same, or nothing where the connection ends before it.
pub fn try_read_head(socket: &mut TcpStream) -> Option<String> {
    let mut head: Vec<u8> = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        // Looked at first, so that what is behind the head stays where it is.
        let there = socket.peek(&mut buffer).ok().filter(|there| *there > 0)?;
        let before = head.len();
        head.extend_from_slice(&buffer[..there]);
        let from = before.saturating_sub(3);
        let end = head[from..].windows(4).position(|bytes| bytes == b"\r\n\r\n");
        head.truncate(end.map_or(head.len(), |end| from + end + 4));
        socket.read_exact(&mut buffer[..head.len() - before]).ok()?;
        if end.is_some() {
            return Some(String::from_utf8_lossy(&head).into_owned());
        }
    }
}

/// The body behind `head`, unchunked, with the trailer fields as they came.
pub fn read_body(socket: &mut TcpStream, head: &str) -> (Vec<u8>, String) {
    let mut body = Vec::new();
    if field(head, "transfer-encoding").is_none() {
        let length = field(head, "content-length").map_or(0, |length| length.parse().unwrap());
        body.resize(length, 0);
        socket.read_exact(&mut body).expect("the whole body");
        return (body, String::new());
    }
    loop {
        let size = usize::from_str_radix(read_line(socket).trim(), 16).expect("a chunk size");
        if size == 0 {
            break;
        }
        let start = body.len();
        body.resize(start + size, 0);
        socket.read_exact(&mut body[start..]).expect("the whole chunk");
        assert_eq!(read_line(socket), "\r\n");
    }
    let mut trailers = String::new();
    loop {
        match read_line(socket).as_str() {
            "\r\n" => return (body, trailers),
            line => trailers.push_str(line),
        }
    }
}

fn read_line(socket: &mut TcpStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\n") {
        socket.read_exact(&mut byte).expect("a line");
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("a line is text")
}
