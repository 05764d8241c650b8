//! Handoff: live tunnels move to a new process, and none of them notices.
//!
//! The process that serves is the **predecessor**, the one that takes over is the **successor**. They talk over one
//! connection, on which each message is whole (`message`):
//!
//! ```text
//!  successor                                    predecessor
//!     │ HELLO ─────────────────────────────────────▶ │
//!     │ ◀──────────────────────────── OFFER, or REFUSE │  refused: nothing happened
//!     │ starts everything but listening                │
//!     │ PREPARED ──────────────────────────────────▶ │
//!     │ ◀──────────────── BATCH, with its descriptors │  takes tunnels out of its workers
//!     │ TAKEN ─────────────────────────────────────▶ │
//!     │ ◀───────────────────────────────────── YOURS │  closes its own descriptors of them
//!     │ its workers go on with them       … and so on │
//!     │ ◀───────────────── LISTENERS, COUNTERS, LIMITS │  stops accepting
//!     │ accepts                                        │
//!     │ LISTENING ─────────────────────────────────▶ │  ends what is no tunnel;
//!     │ ◀────────────────────────── BATCH … late ones │  what becomes a tunnel there comes late
//!     │ ◀─────────────────────────────────────── BYE │  and is gone
//! ```
//!
//! Whose a tunnel is follows from three rules. The successor touches a tunnel only once it was told YOURS, or when
//! the connection ends without an ABORT: then the predecessor is dead and nobody else has it. The predecessor takes
//! back only what it has not given by YOURS. And nobody who lives closes the connection without an ABORT or a BYE
//! before it. After an ABORT the successor gives (`giving`) back all that it has, in the same way, with what it
//! counted (COUNTERS, before its BYE), so that the predecessor goes on as if nothing had been.
//!
//! Whether a process that starts is wanted, or was only started again by its supervisor, nothing in HELLO tells: both
//! are the same release and the same settings, in the same place. So there is no rule for it here. A process whose
//! supervisor starts again whatever has ended does not end when it has handed over (`HANDOFF_STAY`, in `control`).
//!
//! `predecessor` and `successor` are machines without sockets and clocks: messages and time come in, `Action`s come
//! out. Who carries them out is `control::handoff`; the connection itself is `socket`.

pub(crate) mod giving;
pub(crate) mod message;
pub(crate) mod predecessor;
pub mod socket;
pub(crate) mod successor;
pub(crate) mod taking;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::config::{Config, Fault};
use message::{Counted, Message, Offer, Places, RefuseWhy};

/// How long the other side has to answer where it has nothing to do but to answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(1);

/// How long the successor has to start. Nothing stands still meanwhile.
pub(crate) const PREPARATION: Duration = Duration::from_secs(30);

/// Checks what the settings alone cannot tell of the handoff: whether a socket may be bound at `HANDOFF_SOCKET`.
///
/// # Errors
/// What is wrong with its directory.
pub fn check(config: &Config) -> Result<(), Fault> {
    let Some(path) = &config.handoff_socket else { return Ok(()) };
    socket::check(path).map_err(|fault| Fault::Invalid {
        variable: "HANDOFF_SOCKET",
        value: path.display().to_string(),
        rule: fault.to_string(),
    })
}

/// What one of the two machines wants to be done, in the order in which they say it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Send this, which has no descriptors.
    Send(Message),
    /// Take up to `most` tunnels out of the workers, as the batch with this number; to be answered by `collected`.
    Collect { number: u32, most: usize },
    /// Send BATCH with what was collected.
    SendBatch { number: u32 },
    /// Send YOURS: the batch is the other process's then, but for the tunnels with these numbers in it. Close the
    /// descriptors, and put those back, to stay here. Where it cannot be sent, put all of it back.
    Give { number: u32, refused: Vec<u16> },
    /// Put the whole batch back.
    PutBack { number: u32 },
    /// Look at the batch that came, whether it can be gone on with; to be answered by `checked`.
    Check { number: u32 },
    /// The batch is ours, but for what was refused: its tunnels go on here.
    Adopt { number: u32 },
    /// The batch is not ours: close the descriptors.
    Forget { number: u32 },
    /// Predecessor: say to the process before this one, where it still finishes, that the listeners go to another one.
    Announce,
    /// Predecessor: accept no more.
    StopListening,
    /// Predecessor: send LISTENERS with the descriptors, COUNTERS and LIMITS.
    SendListeners,
    /// Predecessor: accept again.
    ListenAgain,
    /// Predecessor: the successor listens. What is no tunnel ends here, when it is done.
    Leave,
    /// Predecessor: say how many connections are left that are no tunnels, by `looked`.
    Look,
    /// Send what was counted here: the predecessor since [`Action::SendListeners`], the successor all that did not
    /// come with COUNTERS.
    SendCounters,
    /// Successor: start everything but listening; to be answered by `prepared`.
    Prepare(Offer),
    /// Successor: listen on what came with LISTENERS; to be answered by `listening`.
    Listen(Places),
    /// Count this, too.
    Count(Vec<Counted>),
    /// Successor: go on with the limits that came.
    Limit,
    /// Nothing more comes.
    Over(Outcome),
}

/// One of the two processes, as a machine: what happens comes in, [`Action`]s come out.
pub(crate) trait Machine {
    /// What is to be done next.
    fn next(&mut self) -> Option<Action>;

    /// A message came.
    fn received(&mut self, message: Message, now: Instant);

    /// What came is no message.
    fn malformed(&mut self, now: Instant);

    /// The connection has ended: the other process is dead.
    fn ended(&mut self);

    /// What was to be sent could not be sent.
    fn cannot_send(&mut self, now: Instant);

    /// The batch with this number could not be sent: the kernel has no room for it.
    fn batch_not_sent(&mut self, number: u32, now: Instant);

    /// So many tunnels were taken out as the batch with this number; whether there may be more.
    fn collected(&mut self, number: u32, tunnels: usize, has_more: bool, now: Instant);

    /// The batch that came was looked at: the places of those that this process cannot go on with.
    fn checked(&mut self, number: u32, refused: Vec<u16>);

    /// Everything has started but listening.
    fn prepared(&mut self) {}

    /// So many connections are left that are no tunnels.
    fn looked(&mut self, _connections: usize, _now: Instant) {}

    /// Connections are accepted on the listeners that came; an error says why not.
    fn listening(&mut self, _result: Result<(), Why>) {}

    /// Successor: another process takes over from this one, while the predecessor still finishes.
    fn hands_on(&mut self) {}

    /// Successor: the other process does not take over, and this one serves on.
    fn serves_on(&mut self) {}

    /// Successor: this process is about to end, while the predecessor still finishes.
    fn leave(&mut self) {}

    /// The process is told to stop.
    fn stop(&mut self, now: Instant);

    /// It moves tunnels: what is told to stop may as well let it.
    fn is_moving(&self) -> bool {
        false
    }

    /// It waits for the other process, however long that takes.
    fn waits(&self) -> bool;

    /// This process serves, having taken over.
    fn is_serving(&self) -> bool {
        false
    }

    /// When to call [`Machine::time`].
    fn deadline(&self) -> Option<Instant>;

    /// Time has passed.
    fn time(&mut self, now: Instant);
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The successor serves now. The predecessor ends what is left and then itself.
    Done,
    /// The predecessor serves on, as if nothing had been. A successor ends itself.
    Kept(Why),
    /// The predecessor refused it: nothing happened.
    Refused(RefuseWhy),
    /// The predecessor is gone without a word, and the successor is alone; it has the listeners, or not.
    Alone { has_listeners: bool },
}

crate::words::words! {
    /// Why a handoff was given up.
    pub(crate) enum Why {
        /// The other process ended.
        Ended = "ended",
        /// The other process did not answer in time.
        Silence = "silence",
        /// The process was told to stop.
        Stopped = "stopped",
        /// The other process sent what the protocol does not allow.
        Malformed = "malformed",
        /// The listeners could not be taken over.
        CannotListen = "cannot_listen",
        /// There was no room to send them.
        NoRoom = "no_room",
        /// What a later version says.
        Other = "other",
    }
}

impl Outcome {
    /// Its word, for the log.
    pub(crate) const fn why(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Kept(why) => why.as_str(),
            Self::Refused(why) => why.as_str(),
            Self::Alone { .. } => Why::Ended.as_str(),
        }
    }
}

/// How many tunnels were given and adopted, and how many were refused and stayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) given: u64,
    pub(crate) adopted: u64,
    pub(crate) refused: u64,
}
