//! A socket in memory that behaves as the kernel's do, seen from its far side.

#![allow(clippy::indexing_slicing, clippy::panic)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Read, Write};

use bytes::BytesMut;

use crate::tunnel::flow::{ByHand, EndWrite};
use crate::tunnel::{Pair, Peer, SocketEvents, Transports};

/// Bytes that one call of the way for much payload moves at most.
pub(super) const BULK: usize = 48;

/// One socket, seen from the far side.
#[derive(Default)]
pub(super) struct Wire {
    /// What came and was not read. A read stops where one piece ends, as at an urgent byte.
    pub(super) arrived: RefCell<VecDeque<BytesMut>>,
    pub(super) has_ended: Cell<bool>,
    pub(super) reset: Cell<Reset>,
    pub(super) is_interrupted: Cell<bool>,
    pub(super) room: Cell<usize>,
    /// A write was not taken whole, so that the poll tells of room.
    pub(super) was_full: Cell<bool>,
    pub(super) taken: RefCell<Vec<u8>>,
    /// How often it was written to.
    pub(super) writes: Cell<usize>,
    /// Bytes that were read into the process, and not carried past it.
    pub(super) copied: Cell<usize>,
    /// Its end of the stream was told.
    pub(super) is_told: Cell<bool>,
    /// Something happened that the poll has not told.
    pub(super) has_events: Cell<bool>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Reset {
    #[default]
    No,
    Yes,
    /// The kernel reports it once.
    Reported,
}

impl Wire {
    pub(super) fn interrupt(&self) -> io::Result<()> {
        if self.is_interrupted.replace(false) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    }

    pub(super) fn is_reset(&self) -> bool {
        self.reset.get() != Reset::No
    }

    pub(super) fn can_send(&self) -> bool {
        !self.has_ended.get() && !self.is_reset()
    }

    pub(super) fn arrive(&self, bytes: &[u8], is_urgent: bool) {
        let mut arrived = self.arrived.borrow_mut();
        match arrived.back_mut() {
            Some(piece) if !is_urgent => piece.extend_from_slice(bytes),
            _ => arrived.push_back(bytes.into()),
        }
        self.has_events.set(true);
    }

    pub(super) fn make_room(&self, bytes: usize) {
        self.room.set(self.room.get().saturating_add(bytes));
        if bytes > 0 && self.was_full.replace(false) {
            self.has_events.set(true);
        }
    }

    /// What an edge-triggered poll tells, if something happened: all that holds now.
    pub(super) fn events(&self) -> Option<SocketEvents> {
        self.has_events.replace(false).then(|| {
            let arrived = self.arrived.borrow();
            // Whoever was told that there is no room is told when there is.
            self.was_full.set(self.was_full.get() || self.room.get() == 0);
            let is_last = self.has_ended.get() || self.is_reset();
            SocketEvents {
                readable: !arrived.is_empty() || is_last,
                writable: self.room.get() > 0 || self.is_reset(),
                priority: arrived.len() > 1,
                read_closed: is_last,
                error: self.reset.get() == Reset::Yes,
            }
        })
    }
}

impl Read for &Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupt()?;
        assert!(!buffer.is_empty(), "a read into nothing looks like the end");
        let mut arrived = self.arrived.borrow_mut();
        let Some(piece) = arrived.front_mut() else {
            if self.reset.get() == Reset::Yes {
                self.reset.set(Reset::Reported);
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if self.has_ended.get() || self.is_reset() {
                return Ok(0);
            }
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let taken = piece.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&piece.split_to(taken));
        if buffer.len() != BULK {
            self.copied.set(self.copied.get() + taken);
        }
        if piece.is_empty() {
            arrived.pop_front();
        }
        Ok(taken)
    }
}

impl Write for &Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.interrupt()?;
        assert!(!bytes.is_empty(), "nothing is written");
        self.writes.set(self.writes.get() + 1);
        assert!(!self.is_told.get(), "written to behind the end of the stream");
        match self.reset.get() {
            Reset::No => {}
            Reset::Yes => {
                self.reset.set(Reset::Reported);
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Reset::Reported => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        let taken = bytes.len().min(self.room.get());
        self.was_full.set(taken < bytes.len());
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room.set(self.room.get() - taken);
        self.taken.borrow_mut().extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl EndWrite for &Wire {
    fn end(&mut self) -> io::Result<()> {
        assert!(!self.is_told.replace(true), "its end is told twice");
        if self.is_reset() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok(())
    }
}

/// Both sockets of a tunnel.
pub(super) type Wires = Pair<Wire>;

impl Transports for Wires {
    type Transport<'t> = &'t Wire;
    type Bulk<'t> = ByHand<&'t Wire, &'t Wire>;

    fn of(&self, peer: Peer) -> &Wire {
        &self[peer]
    }

    fn bulk(&self, from: Peer) -> Self::Bulk<'_> {
        ByHand { from: &self[from], into: &self[from.other()], most: BULK }
    }
}
