//! One direction of a tunnel: a source, a sink, and the bytes that wait between them.
//!
//! This file is the data; `ends` is what it needs of its two ends, `message` is the shortest way from the source to the
//! sink, `pass` every other one, and `frames` follows them and puts in what is ours.

mod ends;
mod frames;
mod message;
mod pass;

use super::waiting::Waiting;
use super::{Peer, Protocol};
use crate::websocket::scanner::Scanner;

#[cfg(any(test, fuzzing))]
pub(crate) use ends::ByHand;
pub(crate) use ends::{Bulk, Carried, EndWrite, Readiness, Stop};
pub(crate) use frames::{Context, put_in, scan_early};
pub(crate) use message::Begun;
pub(crate) use pass::{READ_BUFFER, pass};

/// One direction of a tunnel.
#[derive(Debug, Default, PartialEq)]
#[allow(clippy::struct_excessive_bools)] // Each may hold with any other.
pub struct Flow {
    /// Bytes read from the source that the sink has not taken yet. They go before anything else.
    pub waiting: Waiting,
    /// Bytes that the sink has taken.
    pub passed: u64,
    /// What can still come from the source.
    pub source: Source,
    /// What the sink can still take.
    pub sink: Sink,
    /// What waits was read before the tunnel opened, and its frames have not been followed.
    pub(super) is_unscanned: bool,
    /// Some of what waited was taken, since somebody last looked.
    pub(super) has_moved: bool,
    /// Bytes came that were thrown away, since somebody last looked.
    pub(super) has_come: bool,
    /// What the source sends behind its Close does not pass.
    pub(super) ends_behind_close: bool,
    /// The last frame had much payload: the next one may have, too.
    pub(super) is_bulk: bool,
    /// Follows the frames of what passes.
    pub(crate) scanner: Scanner,
    /// What becomes of what the source sends.
    pub(super) passage: Passage,
    /// What of ours is to be put in.
    pub(super) own_frame: OwnFrame,
    /// Bytes of ours that were put in; they are among those that pass.
    pub(super) own: u32,
}

/// What becomes of what the source sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Passage {
    /// It passes.
    #[default]
    Open,
    /// It is read and thrown away; what waits still goes out. The sink got a Close of ours.
    Discard,
    /// The same, and the sink is told that no more will come.
    Finish,
}

/// What of ours is to be put into a flow, as soon as it is where that may stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OwnFrame {
    /// Nothing.
    #[default]
    None,
    /// A Ping.
    Ping,
    /// A Close; nothing else passes behind it.
    Close {
        /// Its code.
        code: u16,
        /// It waits for the end of an unfinished message, not only of a frame.
        after_message: bool,
        /// What becomes of the flow behind it.
        then: Passage,
    },
}

/// The reading end of a direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Bytes may come.
    #[default]
    Open,
    /// The connection is broken. What came before that is still to be read.
    Broken {
        /// The kernel reports a reset once. It has done so, so that the end of the stream that it
        /// reports from now on is not one that the source sent.
        told: bool,
    },
    /// It has sent its last byte, and said so (FIN).
    Ended,
    /// It broke off without saying so (RST, or no answer). All that came before has been read.
    Reset,
}

/// The writing end of a direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sink {
    /// It may take bytes.
    #[default]
    Open,
    /// It has been told that no more will come (FIN).
    Ended,
    /// Its connection is broken: it takes nothing any more.
    Broken,
}

impl Flow {
    pub(super) fn new(protocol: Protocol, source: Peer, early: Vec<u8>) -> Self {
        let scanner = match protocol {
            Protocol::WebSocket => Scanner::new(source),
            Protocol::Other => Scanner::off(),
        };
        Self { waiting: early.into(), scanner, is_unscanned: true, ..Self::default() }
    }

    /// Bytes that came from the source and that the sink has taken: without ours.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.passed.saturating_sub(self.own.into())
    }

    /// What passed so far could be all: it ends with a whole message, or a Close.
    pub(super) fn ends_well(&self) -> bool {
        let is_whole = self.scanner.at_boundary() && !self.scanner.in_message();
        is_whole || self.scanner.is_behind_close()
    }

    /// Its sink is gone and it is read on, to see the source's Close.
    pub(super) fn awaits_close_only(&self) -> bool {
        self.ends_behind_close && self.sink == Sink::Broken
    }

    /// Bytes wait that are to arrive before the end of their stream does.
    pub(super) fn owes(&self) -> bool {
        self.passage == Passage::Finish && self.sink == Sink::Open && !self.waiting.is_empty()
    }

    /// Nothing more can go this way.
    #[must_use]
    pub fn is_over(&self) -> bool {
        if self.passage != Passage::Open {
            // Closing a socket with bytes unread resets it, and what was sent to it may be lost.
            return self.sink != Sink::Open && matches!(self.source, Source::Ended | Source::Reset);
        }
        self.sink != Sink::Open || (self.source == Source::Reset && self.waiting.is_empty())
    }

    /// Nothing can be sent this way any more, and what waits is lost.
    pub(super) fn sink_is_broken(&mut self) {
        self.sink = Sink::Broken;
        self.waiting.clear();
    }
}

impl Source {
    /// It stopped without an end of the stream.
    pub(super) const fn is_cut(self) -> bool {
        matches!(self, Self::Broken { .. } | Self::Reset)
    }
}
