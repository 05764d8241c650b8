//! The listener, on its one worker: it accepts connections and gives each to the worker that has the fewest.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use mio::{Interest, Registry, Token};

use super::Door;
use crate::listener::Accepting;
use crate::metrics::Counters;

/// The token of the listener.
pub(super) const LISTENER: Token = Token(usize::MAX - 1);

pub(super) struct Listening {
    listener: mio::net::TcpListener,
    doors: Vec<Arc<Door>>,
    accepting: Accepting,
    /// There may be a connection to accept, for which no event will come.
    is_ready: bool,
    paused_until: Option<Instant>,
}

/// A connection that was accepted.
pub(super) struct NewConnection {
    pub(super) socket: TcpStream,
    pub(super) from: SocketAddr,
}

impl Listening {
    pub(super) fn new(listener: std::net::TcpListener, doors: Vec<Arc<Door>>) -> Self {
        let listener = mio::net::TcpListener::from_std(listener);
        let accepting = Accepting::default();
        Self { listener, doors, accepting, is_ready: true, paused_until: None }
    }

    pub(super) fn register(&mut self, registry: &Registry) -> io::Result<()> {
        registry.register(&mut self.listener, LISTENER, Interest::READABLE)
    }

    pub(super) fn deregister(mut self, registry: &Registry) {
        // Fails only on what is not registered.
        drop(registry.deregister(&mut self.listener));
    }

    /// The poll tells that there is a connection. A pause ends when it is over.
    pub(super) const fn woke(&mut self) {
        self.is_ready = self.paused_until.is_none();
    }

    /// The worker with the fewest connections.
    pub(super) fn door(&self) -> Option<&Arc<Door>> {
        if let [door] = self.doors.as_slice() {
            return Some(door);
        }
        let doors = self.doors.iter().filter(|door| !door.is_gone.load(Ordering::Relaxed));
        doors.min_by_key(|door| {
            door.open.load(Ordering::Relaxed) + door.connections.load(Ordering::Relaxed)
        })
    }

    /// Accepts a connection, if there is one.
    pub(super) fn accept(&mut self, counters: &Counters, now: Instant) -> Option<NewConnection> {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
            self.is_ready = true;
        }
        if !self.is_ready {
            return None;
        }
        match self.listener.accept() {
            Ok((socket, from)) => {
                self.accepting.accepted(counters);
                let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                Some(NewConnection { socket: socket.into(), from })
            }
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
                self.is_ready = false;
                None
            }
            Err(fault) => {
                if let Some(pause) = self.accepting.refused(&fault, counters) {
                    self.is_ready = false;
                    self.paused_until = Some(now + pause);
                }
                None
            }
        }
    }

    /// Whether there may be a connection to accept now.
    pub(super) const fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// When to go on accepting without an event.
    pub(super) const fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }
}
