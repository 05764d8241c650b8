//! How a tunnel ends where elbows ends it: the close handshake (RFC 6455, section 7).
//!
//! ```text
//!            drain, age, idle
//!   Open ──────────────────────▶ AwaitAnswer ─────────────────┐ the client answered, or its grace is over
//!    │                            a Close goes to the client, ▼
//!    │                            all before its answer passes
//!    └───────────────────────────────────────────────────▶ Flush ─────────────▶ Linger ──────▶ over
//!      a limit or a rule is broken, a side is gone,          nothing more        both have
//!      takes nothing, does not end; nobody knows where       passes; what        time to read
//!      a Close may stand                                     waits goes out
//! ```
//!
//! With `Flush` each side is told at once, whatever the other one does: by a Close where a frame has ended
//! and none was sent, and by the end of its stream. The same events lead from `AwaitAnswer` to `Flush`.

use super::flow::{self, OwnFrame, Passage};
use super::{Moment, Next, Pair, Peer, Source, State};
use crate::clock::is_reached;
use crate::encoding::{Encode, Reader, RecordFault, Writer};
use crate::end::{CloseCodes, End, Phase, Reason, Side};

use super::times::Leave;
use crate::websocket::frame::MAX_REASON;

/// The code of a Close to a client that is to come back and will find another endpoint ("service restart", IANA's registry
/// of close codes).
const SERVICE_RESTART: u16 = 1012;

/// How far the end of a tunnel has come, where elbows ends it. Times are ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseHandshake {
    /// The tunnel is open.
    Open {
        /// When it is to be closed, and why.
        due: Option<(Leave, u32)>,
    },
    /// A Close goes to the client, or went; the client's is waited for, and all before it passes.
    AwaitAnswer {
        /// How it ends, if all goes well.
        end: End,
        until: u32,
    },
    /// Nothing more passes; what waits goes out, as long as it moves.
    Flush { end: End },
    /// All is said; both sides have some time to read it, more where one that is refused still sends.
    Linger {
        end: End,
        until: u32,
        /// When it ends, whatever still comes.
        longest: u32,
    },
}

/// The first Close of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) by: Side,
    /// 1005 where it has none (RFC 6455, section 7.1.5).
    pub(crate) code: u16,
}

/// The reason of a Close that is to go to the client: hardly any tunnel has one, so that it takes no more than a pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CloseReason(String);

impl CloseReason {
    /// None where it says nothing.
    pub(super) fn new(reason: &str) -> Option<Box<Self>> {
        (!reason.is_empty()).then(|| Box::new(Self(reason.to_owned())))
    }

    pub(super) fn as_str(&self) -> &str {
        let Self(reason) = self;
        reason
    }
}

/// What no Close has room for does not go out.
impl Encode for Box<CloseReason> {
    fn write(&self, to: &mut Writer) {
        self.0.write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        let reason = String::read(from)?;
        if reason.len() > MAX_REASON {
            return Err(RecordFault::Malformed);
        }
        Ok(Self::new(CloseReason(reason)))
    }
}

impl CloseHandshake {
    /// How elbows is about to end the tunnel, or has.
    pub(crate) const fn aim(self) -> Option<End> {
        match self {
            Self::Open { .. } => None,
            Self::AwaitAnswer { end, .. } | Self::Flush { end } | Self::Linger { end, .. } => {
                Some(end)
            }
        }
    }

    /// How elbows ended the tunnel, once nothing more passes.
    pub(crate) const fn end(self) -> Option<End> {
        match self {
            Self::Open { .. } | Self::AwaitAnswer { .. } => None,
            Self::Flush { end } | Self::Linger { end, .. } => Some(end),
        }
    }
}

impl Moment<'_> {
    /// Sends the client a Close, and lets everything before its answer pass.
    pub(super) fn close_towards_client(&mut self, end: End) {
        self.close_towards_client_with(end, self.rules.close_code);
    }

    /// Ends it because somebody with the right to do so asked for it, with this code and reason. False: its end is under
    /// way already.
    pub(crate) fn close_by_order(&mut self, code: u16, reason: &str) -> bool {
        let is_open = matches!(self.state.close_handshake, CloseHandshake::Open { .. });
        if !is_open || self.state.close.is_some() {
            return false;
        }
        self.state.close_reason = CloseReason::new(reason);
        let end = End::new(Side::Elbows, Phase::Relay, Reason::Ordered);
        self.close_towards_client_with(end, code);
        true
    }

    /// Ends it because its client is to go to another endpoint. False: its end is under way already.
    pub(crate) fn close_for_endpoint(&mut self, why: Reason) -> bool {
        let is_open = matches!(self.state.close_handshake, CloseHandshake::Open { .. });
        if !is_open || self.state.close.is_some() {
            return false;
        }
        let end = End::new(Side::Elbows, Phase::Relay, why);
        self.close_towards_client_with(end, SERVICE_RESTART);
        true
    }

    fn close_towards_client_with(&mut self, end: End, code: u16) {
        if !self.state.can_send_close() {
            // Nobody could tell where. Both streams end, as they do when a process ends.
            return self.close(end, None, None);
        }
        let until = self.rules.grace_until(self.now.tick);
        self.state.close_handshake = CloseHandshake::AwaitAnswer { end, until };
        self.local.rearm = true;
        if self.state.close.is_some() {
            // They are closing already.
            return;
        }
        let close = OwnFrame::Close { code, after_message: true, then: Passage::Discard };
        let (flow, mut context) = self.flow(Peer::Upstream);
        flow::put_in(flow, close, &mut context);
    }

    /// Whether a side has done what leads on from `AwaitAnswer`: the client answered our Close, so that
    /// both streams end, or one of them is gone.
    pub(super) fn see_answer(&mut self) -> bool {
        let CloseHandshake::AwaitAnswer { end, .. } = self.state.close_handshake else {
            return false;
        };
        let Pair { client, upstream } = &mut self.state.flows;
        let is_out = upstream.passage == Passage::Discard;
        let is_answer = client.scanner.is_behind_close() || client.source == Source::Ended;
        if is_out && is_answer {
            // Behind our Close, an end is one, even where a message was given up.
            upstream.passage = Passage::Finish;
            self.close(end, None, None);
            return true;
        }
        if client.source == Source::Reset {
            self.give_up(Peer::Client, Reason::Reset);
            return true;
        }
        let is_orphan = upstream.source == Source::Reset && !is_out;
        if is_orphan && matches!(upstream.own_frame, OwnFrame::Close { .. }) {
            // The end of its message will not come.
            if !self.close_within_message() {
                self.give_up(Peer::Upstream, Reason::Reset);
            }
            return true;
        }
        false
    }

    /// Whether the Close to the client went out where a frame ends, although its message has not.
    fn close_within_message(&mut self) -> bool {
        let (flow, mut context) = self.flow(Peer::Upstream);
        if let OwnFrame::Close { code, after_message: true, then } = flow.own_frame {
            let close = OwnFrame::Close { code, after_message: false, then };
            flow::put_in(flow, close, &mut context);
            return flow.passage != Passage::Open;
        }
        false
    }

    /// The grace is over. A message that has not ended is given up where a frame has, and the client
    /// gets the grace once more, or what the drain has left of its time.
    fn grace_is_over(&mut self, end: End) {
        if self.state.is_broken(Peer::Client) {
            return self.give_up(Peer::Client, Reason::Reset);
        }
        if self.close_within_message() {
            let until = self.rules.grace_until(self.now.tick);
            if until != self.now.tick {
                self.state.close_handshake = CloseHandshake::AwaitAnswer { end, until };
                return;
            }
        }
        // Who was to be drained was not; any other reason is still the reason.
        let end = match end.why {
            Reason::Drained => {
                // A client that had sent a Close itself has nothing to answer.
                let by_client = self.state.close.is_some_and(|close| close.by == Side::Client);
                let by = if by_client { Side::Upstream } else { Side::Elbows };
                End { by, why: Reason::Timeout, ..end }
            }
            _ => end,
        };
        let upstream = &mut self.state.flows.upstream;
        if upstream.passage == Passage::Discard {
            upstream.passage = Passage::Finish;
        }
        let code = match self.state.flows.upstream.own_frame {
            OwnFrame::Close { code, .. } => code,
            _ => self.rules.close_code,
        };
        self.close(end, Some(code), Some(code));
    }

    /// Looks at a tunnel whose end is under way, because of time alone.
    pub(super) fn look_at_close_handshake(&mut self) -> Next {
        let now = self.now.tick;
        match self.state.close_handshake {
            CloseHandshake::AwaitAnswer { end, until } if is_reached(until, now) => {
                self.grace_is_over(end);
            }
            CloseHandshake::Open { .. } | CloseHandshake::AwaitAnswer { .. } => {}
            CloseHandshake::Flush { end } => {
                let Some(side) = self.stalled() else {
                    return Next::Wait;
                };
                if end.why == Reason::Drained {
                    // Not all arrived.
                    let end = End::new(side.into(), end.during, Reason::Stalled);
                    self.state.close_handshake = CloseHandshake::Flush { end };
                }
                return Next::End;
            }
            CloseHandshake::Linger { until, .. } if !is_reached(until, now) => {}
            CloseHandshake::Linger { end, longest, .. } => {
                // Whoever is refused what it sends is told so behind all that it had under way.
                let is_refused = matches!(end.why, Reason::TooBig | Reason::Malformed);
                let Pair { client, upstream } = &mut self.state.flows;
                let still_send = [client, upstream]
                    .map(|flow| std::mem::take(&mut flow.has_come))
                    .contains(&true);
                if !is_refused || !still_send || is_reached(longest, now) {
                    return Next::End;
                }
                let until = now.wrapping_add(self.rules.linger);
                self.state.close_handshake = CloseHandshake::Linger { end, until, longest };
            }
        }
        Next::Wait
    }

    /// The last bytes have gone out: what is left is time to read them.
    pub(super) fn see_last_byte(&mut self) {
        if let CloseHandshake::Flush { end } = self.state.close_handshake
            && !self.state.owes()
        {
            let after = |ticks| self.now.tick.wrapping_add(ticks);
            let (until, longest) = (after(self.rules.linger), after(self.rules.longest_linger));
            self.state.close_handshake = CloseHandshake::Linger { end, until, longest };
            self.local.rearm = true;
        }
    }

    /// `side` is gone, or might as well be: the other one gets a proper end.
    pub(super) fn give_up(&mut self, side: Peer, why: Reason) {
        let (from, into) = self.state.flows.split(side);
        from.source = Source::Reset;
        into.sink_is_broken();
        self.close_both(side, why);
    }

    /// `side` sent what may not pass: it is told so, and the other one is told by a Close as well, which may
    /// stand between the frames of a message (RFC 6455, section 5.4).
    pub(super) fn refuse(&mut self, side: Peer, why: Reason) {
        if let Some(code) = why.close_codes().to_it {
            // The one that tells the reason, whichever goes out first.
            self.state.close.get_or_insert(Close { by: Side::Elbows, code });
        }
        self.close_both(side, why);
        // Nothing of it may pass, even where no Close could go before.
        let from = &mut self.state.flows[side];
        if from.passage == Passage::Open {
            from.own_frame = OwnFrame::None;
            from.passage = Passage::Finish;
        }
    }

    /// Ends both streams because of `side`, with the codes that its reason has.
    pub(super) fn close_both(&mut self, side: Peer, why: Reason) {
        let CloseCodes { to_it, to_other } = why.close_codes();
        let end = End::new(side.into(), Phase::Relay, why);
        match side {
            Peer::Upstream => self.close(end, Some(to_other), to_it),
            Peer::Client => self.close(end, to_it, Some(to_other)),
        }
    }

    /// Ends both streams, with a Close where a code is given and a boundary comes in time, and gives
    /// both sides some time to read it.
    fn close(&mut self, end: End, to_client: Option<u16>, to_upstream: Option<u16>) {
        if end.why != Reason::Ordered {
            // Another Close goes out, which has nothing to do with the order.
            self.state.close_reason = None;
        }
        self.state.close_handshake = CloseHandshake::Flush { end };
        self.state.stalled = Pair::of(|_| self.now.tick);
        self.local.rearm = true;
        for (source, code) in [(Peer::Upstream, to_client), (Peer::Client, to_upstream)] {
            let (flow, mut context) = self.flow(source);
            let can_close = flow.scanner.is_on() && flow.scanner.close_code().is_none();
            match (flow.passage, code) {
                (Passage::Open, Some(code)) if can_close => {
                    let then = Passage::Finish;
                    let close = OwnFrame::Close { code, after_message: false, then };
                    flow::put_in(flow, close, &mut context);
                }
                // Behind half a frame an end of the stream would look like the sender's.
                (Passage::Open, _) if flow.scanner.is_on() && !flow.ends_well() => {
                    flow.passage = Passage::Discard;
                }
                (Passage::Open, _) => flow.passage = Passage::Finish,
                // A Close of ours went before.
                (Passage::Discard, _) if !flow.scanner.in_message() => {
                    flow.passage = Passage::Finish;
                }
                _ => {}
            }
        }
    }
}

impl State {
    /// Bytes wait that are to arrive before the end of their stream does.
    pub(super) fn owes(&self) -> bool {
        self.flows.both().iter().any(|flow| flow.owes())
    }

    /// The process, or the tunnel, is cut here: what was drained and has not arrived was not drained.
    pub(crate) fn cut(&mut self) {
        if let Some(end @ End { why: Reason::Drained, .. }) = self.close_handshake.end()
            && self.owes()
        {
            let end = End { why: Reason::PeriodOver, ..end };
            self.close_handshake = CloseHandshake::Flush { end };
        }
    }

    /// It ended in this way, whatever it was about to do.
    pub(crate) fn fail(&mut self, end: End) {
        self.close_handshake = CloseHandshake::Flush { end };
    }

    /// Whether the socket of each side is to be reset rather than closed: so that what was cut does not look
    /// complete. A socket that is closed sends what is left to send, and the end of its stream.
    pub(crate) fn is_to_be_reset(&self) -> Pair<bool> {
        if self.is_closing() {
            // Where the end of a stream could not be told, it was cut.
            return Pair::of(|peer| self.flows[peer.other()].sink != super::Sink::Ended);
        }
        let is_reset = self.end().why == Reason::Reset;
        Pair::of(|_| is_reset)
    }
}
