//! The end of a connection: what waits is taken, our end is closed, and the client is read until it closes too.
//!
//! A socket that is closed with bytes unread resets the connection, and a reset can overtake the answer on its way
//! to a client that still sends (RFC 9112, section 9.6). Whoever has its answer closes; nobody else is worth more
//! than a bounded time.

use std::time::{Duration, Instant};

use crate::http::reject::Rejection;
use crate::limits::Over;

/// How long a client has to close once it has all, or to send more of what is thrown away.
const QUIET: Duration = Duration::from_secs(1);

/// How long a client may go on sending at the most.
const LONGEST: Duration = Duration::from_secs(30);

/// Bytes that are read of a client that was refused, and in how many pieces at the most.
const REFUSED_BYTES: usize = 64 * 1024;
const REFUSED_PIECES: u32 = 32;

/// How long a connection lingers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linger {
    /// One second.
    Short,
    /// One second, and little is read: what is refused must cost less than what is served.
    Refused,
    /// As long as the client goes on sending, within a limit: it may look for its answer only behind its body.
    Long,
    /// One second, then a reset: what the client has got must not look like all there is.
    ThenReset,
}

impl Linger {
    /// Where a request is answered in the upstream's place.
    pub(super) const fn of(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::Over(Over::HandshakeRate(_)) | Rejection::Origin => Self::Refused,
            Rejection::Over(_) => Self::Short,
            _ => Self::Long,
        }
    }
}

#[derive(Debug)]
pub(super) struct Closing {
    linger: Linger,
    /// When it is over, once the client has taken all.
    until: Option<Instant>,
    /// When it is over, whatever the client sends.
    longest: Option<Instant>,
    bytes: usize,
    pieces: u32,
    has_ended: bool,
}

impl Closing {
    pub(super) const fn new(linger: Linger) -> Self {
        Self { linger, until: None, longest: None, bytes: 0, pieces: 0, has_ended: false }
    }

    /// The client has taken all that waited for it.
    pub(super) fn all_is_taken(&mut self, now: Instant) {
        self.until.get_or_insert(now + QUIET);
        let longest = if self.linger == Linger::Long { LONGEST } else { QUIET };
        self.longest.get_or_insert(now + longest);
        if self.has_ended {
            self.client_ended(now);
        }
    }

    /// The client sent so many bytes, which nobody wants.
    pub(super) fn client_sent(&mut self, count: usize, now: Instant) {
        self.bytes = self.bytes.saturating_add(count);
        self.pieces = self.pieces.saturating_add(1);
        let is_too_much = self.bytes >= REFUSED_BYTES || self.pieces >= REFUSED_PIECES;
        match self.linger {
            Linger::Long if self.until.is_some() => self.until = Some(now + QUIET),
            Linger::Refused if is_too_much => self.until = Some(now),
            _ => {}
        }
    }

    /// The client will send no more: once it has all, there is nothing to wait for.
    pub(super) fn client_ended(&mut self, now: Instant) {
        self.has_ended = true;
        if self.until.is_some() && self.linger != Linger::ThenReset {
            self.until = Some(now);
        }
    }

    /// Whether the client is told that no more will come.
    pub(super) fn ends_well(&self) -> bool {
        self.linger != Linger::ThenReset
    }

    /// Whether the client is read on.
    pub(super) const fn reads(&self) -> bool {
        !self.has_ended
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.until, self.longest].into_iter().flatten().min()
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    pub(super) fn with_reset(&self) -> bool {
        !self.ends_well()
    }
}
