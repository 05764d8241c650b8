//! In how many pieces a test sends: all at once, or byte by byte.
//!
//! A head that arrives whole and one that arrives byte by byte mean the same. So the tests of heads run both ways:
//! by themselves in one piece, and once more from the list `byte_by_byte!` of their module, in which each byte of
//! what a [`Client`](crate::client::Client), an [`Upstream`](crate::upstream::Upstream) or a
//! [`Peer`](crate::web_socket::Peer) of the test's own thread sends is a segment. `tests/house.rs` sees that each
//! test of such a module is in the list, or among those that say why they are not.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::Duration;

/// Of what is sent at once, so many bytes are sent one by one, and the rest together. Heads are shorter.
const MOST: usize = 1_024;

/// How long the reader has for each byte. Nobody tells when it has read one, so only time lets it do so.
const PAUSE: Duration = Duration::from_micros(20);

/// How bytes are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pieces {
    /// What is sent together arrives together, as far as the kernel has room.
    #[default]
    One,
    /// Each byte by itself.
    Bytes,
}

thread_local! {
    static OF_THIS_TEST: Cell<Pieces> = const { Cell::new(Pieces::One) };
}

impl Pieces {
    /// What the test on this thread sends by.
    pub fn of_this_test() -> Self {
        OF_THIS_TEST.get()
    }

    /// Sends `bytes`.
    pub fn send(self, mut socket: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        let (single, together) = match self {
            Self::One => (&[][..], bytes),
            Self::Bytes => bytes.split_at(bytes.len().min(MOST)),
        };
        for byte in single {
            socket.write_all(&[*byte])?;
            // Nobody tells that it was read.
            thread::sleep(PAUSE);
        }
        socket.write_all(together)
    }
}

/// The upstream's end of a connection: a socket whose sends are cut as the test's are. What is done with the socket
/// itself, or with a clone of it, is not cut.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    pieces: Pieces,
}

impl Socket {
    pub const fn new(stream: TcpStream, pieces: Pieces) -> Self {
        Self { stream, pieces }
    }

    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl Deref for Socket {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl DerefMut for Socket {
    fn deref_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Read for Socket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.read(bytes)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pieces.send(&self.stream, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Runs a test in which each byte is sent by itself.
pub fn byte_by_byte(test: fn()) {
    /// Where there is only one thread for tests, the next one runs on it.
    struct Restored;
    impl Drop for Restored {
        fn drop(&mut self) {
            OF_THIS_TEST.set(Pieces::One);
        }
    }
    let _restored = Restored;
    OF_THIS_TEST.set(Pieces::Bytes);
    test();
}

/// Runs the named tests of a module once more, byte by byte. Those behind `not` say why they do not.
macro_rules! byte_by_byte {
    ({ $($test:ident),* $(,)? } not { $($other:ident: $why:literal),* $(,)? }) => {
        mod byte_by_byte {
            $(
                #[test]
                fn $test() {
                    crate::pieces::byte_by_byte(super::$test);
                }
            )*
            // A name that is gone is a fault of the list.
            $(const _: (fn(), &str) = (super::$other, $why);)*
        }
    };
}

#[test]
fn each_byte_is_read_by_itself() {
    const BYTES: usize = 300;
    let read_by = |pieces: Pieces| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        sender.set_nodelay(true).unwrap();
        let (mut reader, _) = listener.accept().unwrap();
        let reading = thread::spawn(move || {
            let (mut reads, mut read) = (0, 0);
            while read < BYTES {
                read += reader.read(&mut [0; 1_024]).unwrap();
                reads += 1;
            }
            reads
        });
        pieces.send(&sender, &[b'x'; BYTES]).unwrap();
        reading.join().unwrap()
    };
    assert_eq!(read_by(Pieces::One), 1);
    // Nearly every byte on a machine that has time, fewer on one that has not.
    let reads = read_by(Pieces::Bytes);
    assert!(reads > BYTES / 10, "{reads}");
}
