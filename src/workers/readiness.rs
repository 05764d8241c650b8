//! What a worker knows of a socket from events and from the results of its calls.
//!
//! The poll is edge-triggered: it tells a change once, and this remembers it.

use std::io;
use std::os::fd::RawFd;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

/// Whether a socket is worth a call.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // Each may come with any other.
pub(super) struct Ready {
    /// A read may give something.
    pub(super) readable: bool,
    /// A short read does not mean that the socket is drained: its end, or a fault, comes behind the bytes.
    pub(super) read_on: bool,
    /// A write may be taken.
    pub(super) writable: bool,
    /// The connection is broken.
    pub(super) broken: bool,
    /// What the poll tells of it.
    registered: Registered,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Registered {
    #[default]
    No,
    Reads,
    All,
}

impl Ready {
    /// A socket of which nothing is known yet, so that everything is worth a call.
    pub(super) const fn unknown() -> Self {
        Self {
            readable: true,
            read_on: false,
            writable: true,
            broken: false,
            registered: Registered::No,
        }
    }

    /// Takes note of an event.
    pub(super) fn note(&mut self, event: &Event) {
        let is_last = event.is_read_closed() || event.is_error();
        self.broken |= event.is_error();
        self.readable |= is_last || event.is_readable();
        self.read_on |= is_last;
        self.writable |= event.is_writable() || event.is_error();
    }

    /// A read gave so many bytes of as many as there was room for.
    pub(super) const fn has_read(&mut self, count: usize, room: usize) {
        if count < room && !self.read_on {
            self.readable = false;
        }
    }

    /// A read gave nothing for now.
    pub(super) const fn has_read_all(&mut self) {
        self.readable = false;
        self.read_on = false;
    }

    pub(super) const fn is_registered(self) -> bool {
        !matches!(self.registered, Registered::No)
    }

    /// Has the poll tell of the socket: of what can be read, and where a write was not taken, of room too.
    pub(super) fn register(
        &mut self,
        socket: RawFd,
        token: Token,
        registry: &Registry,
        reads: Interest,
    ) -> io::Result<()> {
        let (wanted, interest) = if self.writable && self.registered != Registered::All {
            (Registered::Reads, reads)
        } else {
            (Registered::All, reads.add(Interest::WRITABLE))
        };
        if wanted == self.registered {
            return Ok(());
        }
        let source = &mut SourceFd(&socket);
        if self.is_registered() {
            registry.reregister(source, token, interest)?;
        } else {
            registry.register(source, token, interest)?;
        }
        self.registered = wanted;
        Ok(())
    }
}
