//! The far ends of sockets that are in memory.

use std::net::SocketAddr;

use bytes::BytesMut;

/// A side of the connection, seen from the far end of its socket.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // Each happens to a socket by itself.
pub(crate) struct Peer {
    /// What it sent and nobody has read.
    sent: BytesMut,
    /// It sends no more behind that.
    has_ended: bool,
    /// Behind what it sent, its connection is broken.
    is_broken: bool,
    /// Its end, or its break, was read.
    is_end_read: bool,
    /// The most that one read gives.
    pub(crate) piece: usize,
    /// So many bytes more it takes.
    pub(crate) room: usize,
    /// A write fails.
    pub(crate) takes_nothing: bool,
    /// What it was sent.
    pub(crate) received: Vec<u8>,
    /// It was told that no more comes.
    pub(crate) is_told_end: bool,
}

impl Peer {
    pub(super) fn new() -> Self {
        Self {
            sent: BytesMut::new(),
            has_ended: false,
            is_broken: false,
            is_end_read: false,
            piece: usize::MAX,
            room: usize::MAX,
            takes_nothing: false,
            received: Vec::new(),
            is_told_end: false,
        }
    }

    /// It sends this.
    pub(crate) fn sends(&mut self, bytes: &[u8]) {
        assert!(!self.has_ended && !self.is_broken, "it has ended");
        self.sent.extend_from_slice(bytes);
    }

    /// It sends no more.
    pub(crate) const fn ends(&mut self) {
        self.has_ended = true;
    }

    /// Its connection breaks.
    pub(crate) const fn breaks(&mut self) {
        self.is_broken = true;
    }

    /// Whether it sends no more.
    pub(crate) const fn has_ended(&self) -> bool {
        self.has_ended || self.is_broken
    }

    /// Whether all that it sent has been read.
    pub(crate) fn is_read(&self) -> bool {
        self.sent.is_empty()
    }

    /// Whether an idle link to it can be used: nothing has come over it, no end either.
    pub(crate) fn is_good(&self) -> bool {
        self.is_read() && !self.has_ended()
    }

    /// What it sent and nobody has read.
    pub(crate) fn unread(&self) -> Vec<u8> {
        self.sent.to_vec()
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Written {
        if self.takes_nothing {
            return Written::Fault;
        }
        let taken = bytes.len().min(self.room);
        self.room -= taken;
        self.received.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if taken == 0 { Written::Nothing } else { Written::Taken(taken) }
    }

    pub(super) fn read(&mut self, most: usize) -> Read {
        let count = self.piece.min(most).min(self.sent.len());
        if count > 0 {
            return Read::Bytes(self.sent.split_to(count));
        }
        if self.piece == 0 || self.is_end_read || !(self.has_ended || self.is_broken) {
            return Read::Nothing;
        }
        self.is_end_read = true;
        if self.is_broken { Read::Fault } else { Read::End }
    }
}

pub(super) enum Written {
    Taken(usize),
    Nothing,
    Fault,
}

pub(super) enum Read {
    Bytes(BytesMut),
    Nothing,
    End,
    Fault,
}

/// A connection to an upstream.
#[derive(Debug)]
pub(crate) struct UpstreamPeer {
    pub(crate) address: SocketAddr,
    pub(crate) peer: Peer,
    /// Exchanges that had it.
    pub(crate) uses: usize,
    /// It was closed by us.
    pub(crate) is_closed: bool,
}
