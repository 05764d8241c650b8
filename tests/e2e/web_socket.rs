//! WebSocket ends that speak frames: what each sends is exactly what a test says.
//!
//! One [`Peer`] is the client's end of a tunnel, another the application's. They answer nothing by
//! themselves, so that a test sees each frame that elbows puts in, and each that it should have kept.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub use test_support::frames::*;
pub use test_support::log_line::value;

use crate::client::{Client, field, handshake};
use crate::pieces::{Pieces, Socket};
use crate::proxy::{Elbows, PATIENCE};
use crate::upstream::handed_over_at;

/// One end of a tunnel.
pub struct Peer {
    pub socket: TcpStream,
    /// How what it sends is cut.
    pieces: Pieces,
    unread: Vec<u8>,
    is_client: bool,
}

impl Peer {
    /// The client's end, behind the 101.
    pub fn client(client: Client) -> Self {
        Self {
            unread: client.unread().to_vec(),
            socket: client.socket,
            pieces: client.pieces,
            is_client: true,
        }
    }

    /// Bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = self.pieces.send(&self.socket, bytes.as_ref());
        sent.expect("the connection takes bytes");
    }

    /// The bytes of a frame as this side sends it. `first` is FIN, RSV bits and opcode.
    pub fn frame(&self, first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
        let payload = payload.as_ref();
        if self.is_client { masked(first, payload) } else { unmasked(first, payload) }
    }

    /// A whole message, or a control frame.
    pub fn send_frame(&mut self, opcode: u8, payload: impl AsRef<[u8]>) {
        self.send(self.frame(0x80 | opcode, payload));
    }

    pub fn send_close(&mut self, code: u16) {
        self.send_frame(CLOSE, code.to_be_bytes());
    }

    /// The next frame, or nothing where the stream ends between frames.
    pub fn try_read_frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some((frame, used)) = decode(&self.unread) {
                assert_eq!(frame.is_masked, !self.is_client, "{frame:?} (RFC 6455, section 5.1)");
                self.unread.drain(..used);
                return Ok(Some(frame));
            }
            if self.fill()? == 0 {
                assert!(self.unread.is_empty(), "the stream ends inside {:?}", self.unread);
                return Ok(None);
            }
        }
    }

    /// The next frame.
    pub fn read_frame(&mut self) -> Frame {
        self.try_read_frame().expect("a frame").expect("a frame, not the end")
    }

    /// The next frame, which is `opcode` with `payload`.
    pub fn expect(&mut self, opcode: u8, payload: impl AsRef<[u8]>) {
        let frame = self.read_frame();
        assert_eq!(
            (frame.opcode, frame.payload.as_slice()),
            (opcode, payload.as_ref()),
            "{frame:?}"
        );
    }

    /// The next frame, which is a Close with `code`.
    pub fn expect_close(&mut self, code: u16) {
        let frame = self.read_frame();
        assert_eq!((frame.opcode, frame.code()), (CLOSE, Some(code)), "{frame:?}");
    }

    /// The next frame that is no Ping; Pings before it are answered and counted.
    pub fn read_answering(&mut self) -> (Frame, usize) {
        for pings in 0.. {
            let frame = self.read_frame();
            if frame.opcode != PING {
                return (frame, pings);
            }
            self.send_frame(PONG, frame.payload);
        }
        unreachable!("a test does not last so long")
    }

    /// Exactly `length` bytes.
    pub fn read_exact(&mut self, length: usize) -> Vec<u8> {
        while self.unread.len() < length {
            assert!(self.fill().expect("bytes come") > 0, "closed after {:?}", self.unread);
        }
        self.unread.drain(..length).collect()
    }

    /// The frames until the end of the stream, or until it breaks off.
    pub fn read_to_end(&mut self) -> (Vec<Frame>, io::Result<()>) {
        let mut frames = Vec::new();
        loop {
            match self.try_read_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, Ok(())),
                Err(error) => return (frames, Err(error)),
            }
        }
    }

    /// Nothing comes for `time`, not even the end.
    pub fn hears_nothing_for(&mut self, time: Duration) {
        assert_eq!(self.unread, b"");
        self.socket.set_read_timeout(Some(time)).unwrap();
        let heard = self.fill();
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let is_nothing =
            heard.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        assert!(is_nothing, "{heard:?}: {:?}", decode(&self.unread));
    }

    /// Sends nothing and takes everything for `time`, answering Pings, and says how many there were.
    pub fn only_answers_for(&mut self, time: Duration) -> usize {
        let end = Instant::now() + time;
        for pings in 0.. {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
                return pings;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            match self.try_read_frame() {
                Ok(Some(frame)) if frame.opcode == PING => self.send_frame(PONG, frame.payload),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
                    return pings;
                }
                other => panic!("{other:?} while only Pings may come"),
            }
        }
        unreachable!("a test does not last so long")
    }

    /// Nothing more will be sent.
    pub fn finish(&mut self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let read = self.socket.read(&mut buffer)?;
        self.unread.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

/// An application that hands each of its WebSockets to the test.
pub struct Tunnels {
    pub address: SocketAddr,
    sockets: Receiver<(Socket, String)>,
}

impl Tunnels {
    pub fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into())
    }

    /// The same at another address of this machine, or of the thread's network namespace.
    pub fn start_at(address: IpAddr) -> Self {
        // A browser looks for an icon too.
        let is_wanted = |head: &str| field(head, "sec-websocket-key").is_some();
        let (address, sockets) = handed_over_at(address, is_wanted);
        Self { address, sockets }
    }

    /// The application's end of the next tunnel, its handshake not answered yet.
    pub fn asked(&self) -> Asked {
        let (socket, head) = self.sockets.recv_timeout(PATIENCE).expect("a handshake comes");
        Asked { socket, head }
    }

    /// The same, where a handshake comes in this time.
    pub fn try_asked(&self, patience: Duration) -> Option<Asked> {
        let (socket, head) = self.sockets.recv_timeout(patience).ok()?;
        Some(Asked { socket, head })
    }

    /// The application's end of the next tunnel.
    pub fn accept(&self) -> Peer {
        self.asked().accept()
    }

    /// An open tunnel through `elbows`: the client's end and the application's.
    pub fn open(&self, elbows: &Elbows) -> (Peer, Peer) {
        self.open_at(elbows.address)
    }

    /// The same through whoever listens at `address`.
    pub fn open_at(&self, address: SocketAddr) -> (Peer, Peer) {
        let mut client = Client::behind_balancer(address);
        client.send(handshake("/ws"));
        let upstream = self.accept();
        assert_eq!(client.read_head().status, 101);
        (Peer::client(client), upstream)
    }
}

/// A handshake that waits for its answer.
pub struct Asked {
    socket: Socket,
    /// As the application got it.
    pub head: String,
}

impl Asked {
    /// Answers it with 101, without extensions.
    pub fn accept(self) -> Peer {
        self.accept_with(Vec::new())
    }

    /// The same, with the application's first bytes in the same write.
    pub fn accept_with(self, first: Vec<u8>) -> Peer {
        self.accept_as("", first)
    }

    /// The same, and this subprotocol is chosen.
    pub fn accept_protocol(self, subprotocol: &str) -> Peer {
        self.accept_as(&format!("Sec-WebSocket-Protocol: {subprotocol}\r\n"), Vec::new())
    }

    /// Answers it with these bytes, and ends.
    pub fn answer(mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).unwrap();
    }

    fn accept_as(mut self, fields: &str, first: Vec<u8>) -> Peer {
        let key = field(&self.head, "sec-websocket-key").expect("a key");
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{fields}\r\n"
        );
        self.socket.write_all(&[answer.into_bytes(), first].concat()).unwrap();
        let pieces = Pieces::of_this_test();
        Peer { socket: self.socket.into_stream(), pieces, unread: Vec::new(), is_client: false }
    }
}

/// Both ends of a tunnel say this to each other, as a text and as a binary message.
pub fn talk((client, application): &mut (Peer, Peer), payload: impl AsRef<[u8]>) {
    let payload = payload.as_ref();
    client.send_frame(TEXT, payload);
    application.expect(TEXT, payload);
    application.send_frame(BINARY, payload);
    client.expect(BINARY, payload);
}
