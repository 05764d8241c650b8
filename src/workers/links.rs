//! Connections of one worker to the upstream: those of exchanges, and those that are idle between two of them.
//!
//! Each is registered with the poll once, under a token of its own, and stays so for whichever exchange has it. An
//! idle one is used again only after a look at the kernel: a byte or an end that is there was asked for by nobody.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::net::{RecvFlags, recv};
use slab::Slab;

use super::readiness::Ready;
use crate::socket;

/// How long an idle connection is kept: under the 5 s after which node's http server closes one,
/// the shortest keep-alive of the common application servers, so that we let go first.
const IDLE: Duration = Duration::from_secs(4);

/// Idle connections that a worker keeps at most.
const MOST_IDLE: usize = 64;

/// The links of one worker.
#[derive(Default)]
pub(super) struct Links {
    all: Slab<UpstreamSocket>,
    /// The last one that became idle is the last one here, and the first to be used again.
    idle: Vec<Idle>,
}

struct Idle {
    key: usize,
    since: Instant,
}

/// A connection to the upstream.
pub(super) struct UpstreamSocket {
    pub(super) socket: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) ready: Ready,
    /// The connection of a client that has it, or none where it is idle.
    pub(super) owner: Option<usize>,
}

impl Links {
    /// Begins a connection to `address` for the connection `owner`: mostly it is under way when this returns.
    ///
    /// # Errors
    /// The kernel refused at once.
    pub(super) fn connect(
        &mut self,
        address: SocketAddr,
        owner: usize,
        stall_timeout: Duration,
    ) -> io::Result<usize> {
        let socket = mio::net::TcpStream::connect(address)?.into();
        socket::tune(&socket, stall_timeout);
        // A write tells whether it is connected. Nothing is to be read before that.
        let mut ready = Ready::default();
        ready.writable = true;
        Ok(self.all.insert(UpstreamSocket { socket, address, ready, owner: Some(owner) }))
    }

    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut UpstreamSocket> {
        self.all.get_mut(key)
    }

    /// Takes an idle connection to `address` for the connection `owner`.
    pub(super) fn take(
        &mut self,
        address: SocketAddr,
        owner: usize,
        registry: &Registry,
    ) -> Option<usize> {
        loop {
            let is_there =
                |idle: &Idle| self.all.get(idle.key).is_some_and(|link| link.address == address);
            let place = self.idle.iter().rposition(is_there)?;
            let key = self.idle.remove(place).key;
            let link = self.all.get_mut(key)?;
            if is_silent(&link.socket) {
                link.owner = Some(owner);
                link.ready.writable = true;
                return Some(key);
            }
            self.close(key, registry);
        }
    }

    /// Keeps a connection for the next exchange.
    pub(super) fn keep(&mut self, key: usize, now: Instant, registry: &Registry) {
        let Some(link) = self.all.get_mut(key) else { return };
        link.owner = None;
        self.idle.push(Idle { key, since: now });
        if self.idle.len() > MOST_IDLE {
            let oldest = self.idle.remove(0);
            self.close(oldest.key, registry);
        }
    }

    /// Ends a connection.
    pub(super) fn close(&mut self, key: usize, registry: &Registry) {
        if let Some(link) = self.all.try_remove(key)
            && link.ready.is_registered()
        {
            // Fails only on what is not registered.
            drop(registry.deregister(&mut SourceFd(&link.socket.as_raw_fd())));
        }
        if self.all.is_empty() && self.all.capacity() > super::connections::KEPT {
            *self = Self::default();
        }
    }

    /// Takes a connection out, to be one side of a tunnel; whether the poll knows it.
    pub(super) fn take_out(&mut self, key: usize) -> Option<(TcpStream, bool)> {
        let link = self.all.try_remove(key)?;
        Some((link.socket, link.ready.is_registered()))
    }

    /// Something happened to an idle connection: it has ended, or sent what nobody asked for.
    pub(super) fn idle_woke(&mut self, key: usize, registry: &Registry) {
        self.idle.retain(|idle| idle.key != key);
        self.close(key, registry);
    }

    /// Ends those that have been idle for too long.
    pub(super) fn close_old(&mut self, now: Instant, registry: &Registry) {
        while let Some(Idle { key, since }) = self.idle.first()
            && *since + IDLE <= now
        {
            let key = *key;
            self.idle.remove(0);
            self.close(key, registry);
        }
    }

    /// How many are idle.
    pub(super) const fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Ends all that are idle.
    pub(super) fn close_idle(&mut self, registry: &Registry) {
        for Idle { key, .. } in std::mem::take(&mut self.idle) {
            self.close(key, registry);
        }
    }

    /// When the next one has been idle for too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.idle.first().map(|idle| idle.since + IDLE)
    }

    /// Has the poll tell of a connection, under this token.
    pub(super) fn register(
        &mut self,
        key: usize,
        token: Token,
        registry: &Registry,
    ) -> io::Result<()> {
        let Some(link) = self.all.get_mut(key) else { return Ok(()) };
        link.ready.register(link.socket.as_raw_fd(), token, registry, Interest::READABLE)
    }
}

/// Whether there is nothing to read, and no end.
fn is_silent(socket: &TcpStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let mut byte = [0_u8; 1];
    matches!(recv(socket, &mut byte, flags), Err(rustix::io::Errno::AGAIN))
}
