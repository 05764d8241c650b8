//! The two ends of a flow, as whoever has the sockets gives them, and what a turn says of them.

use std::io::{self, Write};

use crate::end::Reason;
use crate::tunnel::waiting::Waiting;

/// What is known of a socket from events and from the results of earlier calls.
///
/// The poll is edge-triggered: it tells a change once, and this remembers it.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // Each may come with any other.
pub(crate) struct Readiness {
    /// A read may give something.
    pub(crate) readable: bool,
    /// A short read does not mean that the socket is drained: the end of the stream, a fault or
    /// what lies behind an urgent byte comes after it, and no event will tell.
    pub(crate) read_on: bool,
    /// A write may be taken.
    pub(crate) writable: bool,
    /// The last read gave many frames for its bytes: less is read at once.
    pub(crate) is_dense: bool,
}

/// Why a direction stopped for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Nothing can be done before the next event, or ever again.
    Waits,
    /// The sink has been told that no more will come.
    Ended,
    /// Its turn is over; there may be more.
    TurnOver,
    /// The source was reset.
    SourceBroke,
    /// The sink takes nothing any more. See [`Source::Broken`] for `told`.
    SinkBroke { told: bool },
    /// The source is gone: the kernel heard nothing of it for so long that it gave it up.
    SourceGone,
    /// The same of the sink.
    SinkGone,
    /// The source sent what is not passed on: a rule is broken or a limit exceeded.
    Refused(Reason),
}

/// A writer that can be told that no more will come.
pub(crate) trait EndWrite: Write {
    fn end(&mut self) -> io::Result<()>;
}

/// A way from a source to a sink for bytes that nobody has to look at.
pub(crate) trait Bulk {
    /// Moves up to `most` bytes once. What the sink does not take waits; nothing does before.
    ///
    /// # Errors
    /// What a read of the source would give, or [`io::ErrorKind::Unsupported`]: this way is closed.
    fn carry(&mut self, most: u64, waiting: &mut Waiting) -> io::Result<Carried>;
}

/// What a [`Bulk`] has done.
#[derive(Debug)]
pub(crate) struct Carried {
    /// Bytes that the source gave; 0 is the end of its stream.
    pub(crate) read: usize,
    /// How many of them the sink took. The others wait.
    pub(crate) taken: usize,
    /// The sink is broken.
    pub(crate) fault: Option<io::Error>,
}

/// The same from any source to any sink, by reading and writing: for tests.
#[cfg(any(test, fuzzing))]
pub(crate) struct ByHand<R, W> {
    pub(crate) from: R,
    pub(crate) into: W,
    /// What one call moves at most.
    pub(crate) most: usize,
}

#[cfg(any(test, fuzzing))]
impl<R: io::Read, W: Write> Bulk for ByHand<R, W> {
    fn carry(&mut self, most: u64, waiting: &mut Waiting) -> io::Result<Carried> {
        let mut bytes = vec![0; self.most.min(usize::try_from(most).unwrap_or(usize::MAX))];
        let read = self.from.read(&mut bytes)?;
        bytes.truncate(read);
        let mut carried = Carried { read, taken: 0, fault: None };
        while let Some(rest @ [_, ..]) = bytes.get(carried.taken..) {
            match self.into.write(rest) {
                Ok(taken) => {
                    let is_full = taken < rest.len();
                    carried.taken += taken;
                    if is_full {
                        break;
                    }
                }
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => break,
                Err(fault) => {
                    carried.fault = Some(fault);
                    return Ok(carried);
                }
            }
        }
        bytes.drain(..carried.taken);
        *waiting = bytes.into();
        Ok(carried)
    }
}
