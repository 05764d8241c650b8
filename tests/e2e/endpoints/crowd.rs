//! Many clients with a WebSocket each, which come back when they are closed.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, handshake};
use crate::programs::wait_until;
use crate::web_socket::{CLOSE, PING, PONG, Peer, TEXT};

/// How often a busy client says something.
const BUSY: Duration = Duration::from_millis(20);

/// Clients; those whose number is a multiple of ten are busy, the others say nothing.
pub(super) struct Crowd(Arc<Shared>);

struct Shared {
    elbows: SocketAddr,
    /// Clients that have a WebSocket.
    open: AtomicUsize,
    closes: Mutex<Vec<Closed>>,
    /// Streams that ended without a Close.
    broken: AtomicUsize,
    is_over: AtomicBool,
}

/// A Close that a client got.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    pub(super) client: usize,
    pub(super) code: u16,
    pub(super) at: Instant,
}

/// Whether the client with this number is busy.
pub(super) const fn is_busy(number: usize) -> bool {
    number.is_multiple_of(10)
}

impl Crowd {
    /// So many come, and all have their WebSocket.
    pub(super) fn start(elbows: SocketAddr, clients: usize) -> Self {
        let shared = Arc::new(Shared {
            elbows,
            open: AtomicUsize::new(0),
            closes: Mutex::default(),
            broken: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        });
        for number in 1..=clients {
            let shared = Arc::clone(&shared);
            let thread = thread::Builder::new().stack_size(256 * 1024);
            thread.spawn(move || shared.be_a_client(number)).unwrap();
        }
        let crowd = Self(shared);
        crowd.wait_for(clients);
        crowd
    }

    /// Waits until so many clients have a WebSocket.
    pub(super) fn wait_for(&self, clients: usize) {
        wait_until("all clients have a WebSocket", || {
            self.0.open.load(Ordering::Relaxed) == clients
        });
    }

    /// The Closes so far.
    pub(super) fn closes(&self) -> Vec<Closed> {
        self.0.closes.lock().unwrap().clone()
    }

    /// The codes of the Closes so far.
    pub(super) fn codes(&self) -> BTreeSet<u16> {
        self.closes().iter().map(|close| close.code).collect()
    }

    /// WebSockets that ended without a Close so far.
    pub(super) fn broken(&self) -> usize {
        self.0.broken.load(Ordering::Relaxed)
    }

    /// Nobody comes back from now on.
    pub(super) fn stay_away(&self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }

    /// No Close comes for `time`.
    pub(super) fn is_left_alone_for(&self, time: Duration) {
        let before = self.closes().len();
        let until = Instant::now() + time;
        while Instant::now() < until {
            // The time in which nothing is to happen.
            thread::sleep(Duration::from_millis(20));
            assert_eq!(self.closes().len(), before, "nobody is to be closed");
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stay_away();
    }
}

impl Shared {
    fn be_a_client(&self, number: usize) {
        while !self.is_over.load(Ordering::Relaxed) {
            let mut client = Client::behind_balancer(self.elbows);
            client.send(handshake("/"));
            let status = client.read_response().status;
            assert_eq!(status, 101, "client {number}");
            self.open.fetch_add(1, Ordering::Relaxed);
            let code = self.until_closed(number, &mut Peer::client(client));
            self.open.fetch_sub(1, Ordering::Relaxed);
            match code {
                Some(code) => {
                    let close = Closed { client: number, code, at: Instant::now() };
                    self.closes.lock().unwrap().push(close);
                }
                None => {
                    self.broken.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Goes on until the end of the stream. The code of the Close, if one came.
    fn until_closed(&self, number: usize, peer: &mut Peer) -> Option<u16> {
        if is_busy(number) {
            peer.socket.set_read_timeout(Some(BUSY)).unwrap();
        }
        let mut code = None;
        loop {
            match peer.try_read_frame() {
                Ok(Some(frame)) if frame.opcode == CLOSE => {
                    code = frame.code();
                    peer.send_close(code.unwrap_or(1000));
                }
                Ok(Some(frame)) if frame.opcode == PING => peer.send_frame(PONG, frame.payload),
                Ok(Some(_)) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && !self.has_ended(code) => {
                    peer.send_frame(TEXT, "a word");
                }
                Ok(None) | Err(_) => return code,
            }
        }
    }

    fn has_ended(&self, code: Option<u16>) -> bool {
        code.is_some() || self.is_over.load(Ordering::Relaxed)
    }
}
