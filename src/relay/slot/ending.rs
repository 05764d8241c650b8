//! How a tunnel ends by us: a goodbye, then what waits goes out, then time to read it.
//!
//! A goodbye is a Close to the client, while all before the client's answer still passes. From closing
//! on nothing more passes; where a side breaks a rule, takes nothing or is gone, that comes first.

use std::time::Duration;

use mio::event::Event;
use socket2::SockRef;

use super::{Next, Slot};
use crate::end::{CloseCodes, End, Phase, Reason, Side};
use crate::relay::direction;
use crate::relay::options::Rulebook;
use crate::relay::wheel::is_reached;
use crate::tunnel::{Close, Course, Sink, Source, Tunnel, Wants};

/// An ending of our own that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) stage: Stage,
    /// How it ends, if all goes well.
    end: End,
    /// When this stage is over, unless it is said otherwise there.
    pub(super) until: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// A Close goes to the client, or went; the client's is waited for, and all before it passes.
    Goodbye,
    /// Nothing more passes; what waits goes out, as long as it moves.
    Closing,
    /// All is said; both sides have some time to read it, more where one that is refused still sends.
    Lingering,
}

impl Slot {
    /// Says goodbye to the client, and lets everything before its answer pass.
    pub(super) fn say_goodbye(&mut self, end: End, rulebook: &Rulebook, now: u32) {
        self.leaves = None;
        if !self.can_say_goodbye() {
            // Nobody could tell where. Both streams end, as they do when a process ends.
            return self.close(end, None, None, rulebook, now);
        }
        let until = rulebook.grace_until(now);
        self.ending = Some(Ending { stage: Stage::Goodbye, end, until });
        self.rearm = true;
        if self.tunnel.close.is_some() {
            // They are saying it already.
            return;
        }
        let code = rulebook.close_code;
        let close = Wants::Close { code, after_message: true, then: Course::Discards };
        let (flow, mut watch) = self.watched(Side::Upstream, rulebook, now);
        direction::want(flow, close, &mut watch);
    }

    /// Whether a side has done in the goodbye what leads on: the client answered our Close, so that
    /// both streams end, or one of them is gone.
    pub(super) fn see_answer(&mut self, rulebook: &Rulebook, now: u32) -> bool {
        let Some(Ending { stage: Stage::Goodbye, end, .. }) = self.ending else {
            return false;
        };
        let Tunnel { from_client, from_upstream, .. } = &self.tunnel;
        let is_out = from_upstream.course == Course::Discards;
        let is_answer =
            from_client.scanner.is_behind_close() || from_client.source == Source::Ended;
        if is_out && is_answer {
            // Behind our Close, an end is one, even where a message was given up.
            self.tunnel.from_upstream.course = Course::Finishes;
            self.close(end, None, None, rulebook, now);
            return true;
        }
        if from_client.source == Source::Reset {
            self.give_up(Side::Client, Reason::Reset, rulebook, now);
            return true;
        }
        let is_orphan = from_upstream.source == Source::Reset && !is_out;
        if is_orphan && matches!(from_upstream.wants, Wants::Close { .. }) {
            // The end of its message will not come.
            if !self.close_within_message(rulebook, now) {
                self.give_up(Side::Upstream, Reason::Reset, rulebook, now);
            }
            return true;
        }
        false
    }

    /// Whether the Close to the client went out where a frame ends, although its message has not.
    fn close_within_message(&mut self, rulebook: &Rulebook, now: u32) -> bool {
        let (flow, mut watch) = self.watched(Side::Upstream, rulebook, now);
        if let Wants::Close { code, after_message: true, then } = flow.wants {
            direction::want(flow, Wants::Close { code, after_message: false, then }, &mut watch);
            return flow.course != Course::Passes;
        }
        false
    }

    /// The grace is over. A message that has not ended is given up where a frame has, and the client
    /// gets the grace once more, or what the drain has left of its time.
    fn goodbye_is_over(&mut self, ending: Ending, rulebook: &Rulebook, now: u32) {
        if self.is_broken(Side::Client) {
            return self.give_up(Side::Client, Reason::Reset, rulebook, now);
        }
        if self.close_within_message(rulebook, now) {
            let until = rulebook.grace_until(now);
            if until != now {
                self.ending = Some(Ending { until, ..ending });
                return;
            }
        }
        // Who was to be drained was not; any other reason is still the reason.
        let end = match ending.end.why {
            Reason::Drained => {
                // A client that had said goodbye itself has nothing to answer.
                let by_client = self.tunnel.close.is_some_and(|close| close.by == Side::Client);
                let by = if by_client { Side::Upstream } else { Side::Elbows };
                End { by, why: Reason::Timeout, ..ending.end }
            }
            _ => ending.end,
        };
        if self.tunnel.from_upstream.course == Course::Discards {
            self.tunnel.from_upstream.course = Course::Finishes;
        }
        let code = Some(rulebook.close_code);
        self.close(end, code, code, rulebook, now);
    }

    /// Looks at one whose end is under way.
    pub(super) fn look_at_ending(&mut self, ending: Ending, rulebook: &Rulebook, now: u32) -> Next {
        let is_over = is_reached(ending.until, now);
        match ending.stage {
            Stage::Goodbye if is_over => self.goodbye_is_over(ending, rulebook, now),
            Stage::Closing => {
                let Some(side) = self.stalled(rulebook, now) else {
                    return Next::Wait;
                };
                if ending.end.why == Reason::Drained {
                    // Not all arrived.
                    let end = End::new(side, ending.end.during, Reason::Stalled);
                    self.tunnel.ended = Some(end);
                }
                return Next::End;
            }
            Stage::Lingering if is_over => {
                let Tunnel { from_client, from_upstream, .. } = &mut self.tunnel;
                // Whoever is refused what it sends is told so behind all that it had under way.
                let is_refused = matches!(ending.end.why, Reason::TooBig | Reason::Malformed);
                let still_send = [from_client, from_upstream]
                    .map(|flow| std::mem::take(&mut flow.has_come))
                    .contains(&true);
                if !is_refused || !still_send || is_reached(self.leaves_at, now) {
                    return Next::End;
                }
                let until = now.wrapping_add(rulebook.linger);
                self.ending = Some(Ending { until, ..ending });
            }
            Stage::Goodbye | Stage::Lingering => {}
        }
        Next::Wait
    }

    /// The last bytes have gone out: what is left is time to read them.
    pub(super) fn see_last_byte(&mut self, rulebook: &Rulebook, now: u32) {
        if let Some(ending) = &mut self.ending
            && ending.stage == Stage::Closing
            && !owes(&self.tunnel)
        {
            ending.stage = Stage::Lingering;
            ending.until = now.wrapping_add(rulebook.linger);
            self.leaves_at = now.wrapping_add(rulebook.longest_linger);
            self.rearm = true;
        }
    }

    /// `side` is gone, or might as well be: the other one gets a proper end.
    pub(super) fn give_up(&mut self, side: Side, why: Reason, rulebook: &Rulebook, now: u32) {
        let (from, into) = match side {
            Side::Upstream => (&mut self.tunnel.from_upstream, &mut self.tunnel.from_client),
            _ => (&mut self.tunnel.from_client, &mut self.tunnel.from_upstream),
        };
        from.source = Source::Reset;
        into.sink = Sink::Broken;
        into.waiting.clear();
        self.close_both(End::new(side, Phase::Relay, why), rulebook, now);
    }

    /// `side` sent what may not pass: it is told so, and the other one is told by a Close as well, which may
    /// stand between the frames of a message (RFC 6455, section 5.4).
    pub(super) fn refuse(&mut self, side: Side, why: Reason, rulebook: &Rulebook, now: u32) {
        let end = End::new(side, Phase::Relay, why);
        if let Some(code) = why.close_codes().to_it {
            // The one that tells the reason, whichever goes out first.
            self.tunnel.close.get_or_insert(Close { by: Side::Elbows, code });
        }
        self.close_both(end, rulebook, now);
        // Nothing of it may pass, even where no Close could go before.
        let from = match side {
            Side::Upstream => &mut self.tunnel.from_upstream,
            _ => &mut self.tunnel.from_client,
        };
        if from.course == Course::Passes {
            from.wants = Wants::Nothing;
            from.course = Course::Finishes;
        }
    }

    /// Ends both streams because of one side, with the codes that its reason has.
    pub(super) fn close_both(&mut self, end: End, rulebook: &Rulebook, now: u32) {
        let CloseCodes { to_it, to_other } = end.why.close_codes();
        match end.by {
            Side::Upstream => self.close(end, Some(to_other), to_it, rulebook, now),
            _ => self.close(end, to_it, Some(to_other), rulebook, now),
        }
    }

    /// Ends both streams, with a Close where a code is given and a boundary comes in time, and gives
    /// both sides some time to read it.
    fn close(
        &mut self,
        end: End,
        to_client: Option<u16>,
        to_upstream: Option<u16>,
        rulebook: &Rulebook,
        now: u32,
    ) {
        self.tunnel.ended = Some(end);
        self.ending = Some(Ending { stage: Stage::Closing, end, until: now });
        self.stalled = [now; 2];
        self.rearm = true;
        for (source, code) in [(Side::Upstream, to_client), (Side::Client, to_upstream)] {
            let (flow, mut watch) = self.watched(source, rulebook, now);
            let can_close = flow.scanner.is_on() && flow.scanner.close_code().is_none();
            match (flow.course, code) {
                (Course::Passes, Some(code)) if can_close => {
                    let then = Course::Finishes;
                    let close = Wants::Close { code, after_message: false, then };
                    direction::want(flow, close, &mut watch);
                }
                // Behind half a frame an end of the stream would look like the sender's.
                (Course::Passes, _) if flow.scanner.is_on() && !flow.ends_well() => {
                    flow.course = Course::Discards;
                }
                (Course::Passes, _) => flow.course = Course::Finishes,
                // A Close of ours went before.
                (Course::Discards, _) if !flow.scanner.in_message() => {
                    flow.course = Course::Finishes;
                }
                _ => {}
            }
        }
    }

    /// Whether an event of a tunnel in farewell says that there is nobody left to wait for. An end
    /// of the stream does not: a side that has nothing more to send may still read.
    pub(in crate::relay) fn is_farewell_done(&self, side: Side, event: &Event) -> bool {
        event.is_error() && self.survivor() == Some(side)
    }

    /// The tunnel, ready to be closed. After a reset, closing resets the other side, too; without
    /// one, the kernel sends what is left to send and the end of the stream.
    pub(in crate::relay) fn into_ended(mut self) -> Tunnel {
        if let Some(end @ End { why: Reason::Drained, .. }) = self.tunnel.ended
            && owes(&self.tunnel)
        {
            // The process ends before all has arrived.
            self.tunnel.ended = Some(End { why: Reason::PeriodOver, ..end });
        }
        if self.tunnel.ended.is_some() {
            // Where the end of a stream could not be told, it was cut.
            for (flow, socket) in [
                (&self.tunnel.from_client, &self.tunnel.upstream),
                (&self.tunnel.from_upstream, &self.tunnel.client),
            ] {
                if flow.sink != Sink::Ended {
                    drop(SockRef::from(socket).set_linger(Some(Duration::ZERO)));
                }
            }
            return self.tunnel;
        }
        if self.tunnel.end().why == Reason::Reset {
            for socket in [&self.tunnel.client, &self.tunnel.upstream] {
                // Fails only on what is no socket.
                drop(SockRef::from(socket).set_linger(Some(Duration::ZERO)));
            }
        }
        self.tunnel
    }
}

/// Bytes wait that are to arrive before the end of their stream does.
fn owes(tunnel: &Tunnel) -> bool {
    [&tunnel.from_client, &tunnel.from_upstream].iter().any(|flow| {
        flow.course == Course::Finishes && flow.sink == Sink::Open && !flow.waiting.is_empty()
    })
}
