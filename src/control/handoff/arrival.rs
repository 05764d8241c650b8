//! What a process that starts finds: nobody, or a process that serves and would hand over.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{BUILD, receive, release, until};
use crate::handoff::message::{Hello, Offer, PROTOCOL, RefuseWhy};
use crate::handoff::socket::{self, Connection};
use crate::handoff::successor::Successor;
use crate::handoff::{Action, Machine, Outcome, Why};

/// What a process that starts finds.
pub(in crate::control) enum Arrival {
    /// Nobody serves: this process binds its listeners itself.
    Alone,
    /// The process that served has just ended, without a word.
    Bereft,
    /// A process serves, and would hand over.
    Offered(Box<Takeover>),
}

/// A handoff that has begun, before anything moves.
pub(in crate::control) struct Takeover {
    pub(super) connection: Connection,
    pub(super) machine: Successor,
    pub(in crate::control) offer: Offer,
    pub(super) begun: Instant,
}

impl Takeover {
    /// When ticks and stamps of this process are to begin to count: when those of the process that serves did.
    pub(in crate::control) fn start_of_count(&self) -> Instant {
        let start = Duration::from_nanos(self.offer.start);
        let age = socket::monotonic().saturating_sub(start);
        let now = Instant::now();
        now.checked_sub(age).unwrap_or(now)
    }
}

/// Why a process cannot take over, where another one serves.
#[derive(Debug, thiserror::Error)]
pub enum ArriveError {
    /// The process that serves does not hand over.
    #[error("the process that serves does not hand over: {}", .0.as_str())]
    Refused(RefusedBy),
    /// It does not answer.
    #[error("the process that serves does not answer at HANDOFF_SOCKET within a second")]
    Silent,
    /// It answers something else.
    #[error("what listens at HANDOFF_SOCKET answers what is no message of a handoff")]
    Malformed,
    /// The process that serves is another user's.
    #[error("the process that listens at HANDOFF_SOCKET is not of the same user")]
    OtherUser,
    /// The kernel refused.
    #[error("HANDOFF_SOCKET: {0}")]
    Kernel(#[from] io::Error),
}

/// Connects to the process that serves, if there is one, and asks it to hand over.
///
/// # Errors
/// Another process serves and nothing is handed over. Nothing has happened to it.
pub(in crate::control) async fn arrive(
    path: &Path,
    downgrade: bool,
) -> Result<Arrival, ArriveError> {
    let begun = Instant::now();
    let Some(socket) = socket::connect(path)? else { return Ok(Arrival::Alone) };
    let connection = Connection::new(socket)?;
    if !connection.is_same_user()? {
        return Err(ArriveError::OtherUser);
    }
    let hello = Hello {
        oldest: PROTOCOL,
        newest: PROTOCOL,
        build: BUILD.to_owned(),
        release: release(),
        downgrade,
        free_descriptors: socket::free_descriptors(),
    };
    let mut machine = Successor::new(hello, begun);
    loop {
        while let Some(action) = machine.next() {
            match action {
                Action::Send(message) => drop(connection.try_send(&message.to_bytes(), &[])),
                Action::Prepare(offer) => {
                    let takeover = Takeover { connection, machine, offer, begun };
                    return Ok(Arrival::Offered(Box::new(takeover)));
                }
                Action::Over(Outcome::Refused(why)) => {
                    return Err(ArriveError::Refused(RefusedBy(why)));
                }
                Action::Over(Outcome::Alone { .. }) => return Ok(Arrival::Bereft),
                Action::Over(Outcome::Kept(Why::Malformed)) => return Err(ArriveError::Malformed),
                Action::Over(_) => return Err(ArriveError::Silent),
                // Nothing else comes before an offer.
                _ => {}
            }
        }
        tokio::select! {
            received = receive(&connection) => match received {
                Some((message, _)) => match message {
                    Some(message) => machine.received(message, Instant::now()),
                    None => machine.malformed(Instant::now()),
                },
                None => machine.ended(),
            },
            () = until(machine.deadline()) => machine.time(Instant::now()),
        }
    }
}

/// Why the process that serves does not hand over.
#[derive(Clone, Copy, Debug)]
pub struct RefusedBy(RefuseWhy);

impl RefusedBy {
    /// The word, and what may be done.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self.0 {
            RefuseWhy::Busy => "busy: another process is taking over",
            RefuseWhy::Version => "version: it speaks another version of the handoff",
            RefuseWhy::Downgrade => {
                "downgrade: it is a later release; set HANDOFF_DOWNGRADE=on where this is meant"
            }
            RefuseWhy::Descriptors => {
                "descriptors: this process may open too few files for what it has (raise its limit)"
            }
            RefuseWhy::Draining => "draining: it is ending its connections",
            RefuseWhy::Other => "it is a later release, with a reason that this one does not know",
            RefuseWhy::NoHello => "no_hello: it did not understand what this process said",
        }
    }
}
