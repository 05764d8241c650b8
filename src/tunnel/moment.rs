//! What happens to a tunnel: events of its sockets, and what one direction means for the other.
//!
//! A socket is the source of one direction and the sink of the other. Where it breaks, the direction
//! into it is over at once; the direction out of it first passes on what had come before the fault,
//! since the last words of an application (its Close frame) often stand right before a reset: an
//! application that closes with bytes unread makes its kernel send one (RFC 2525, section 2.17).

use std::io::Read;

use super::close_handshake::CloseHandshake;
use super::flow::{self, Begun, Bulk, Context, EndWrite, Flow, Passage, Readiness, Stop};
use super::rules::Rulebook;
use super::times::{Leave, Mark};
use super::{Pair, Peer, Sink, Source, State};
use crate::clock::Now;
use crate::end::Reason;
use crate::websocket::keepalive::Secret;

/// A tunnel at one moment.
pub(crate) struct Moment<'m> {
    pub(crate) state: &'m mut State,
    pub(crate) local: &'m mut Local,
    pub(crate) rules: &'m Rulebook,
    pub(crate) now: Now,
}

/// What the worker of a tunnel knows of it, and another one finds out by itself.
#[derive(Debug, Default)]
pub(crate) struct Local {
    /// What each socket is ready for.
    pub(crate) ready: Pair<Readiness>,
    /// Its time in the wheel is to be set anew.
    pub(crate) rearm: bool,
}

/// What is to be done with a tunnel after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Wait for an event.
    Wait,
    /// Give it another turn.
    Again,
    /// It is over: end it.
    End,
    /// It is over, and one side is still there to get the last bytes.
    AwaitDelivery,
    /// A mistake of ours happened in it: cut it.
    Failed,
}

/// What the poll told of a socket.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // Each may come with any other.
pub(crate) struct SocketEvents {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// An urgent byte.
    pub(crate) priority: bool,
    pub(crate) read_closed: bool,
    pub(crate) error: bool,
}

/// How bytes get out of the two sockets of a tunnel and into them.
pub(crate) trait Transports {
    type Transport<'t>: Read + EndWrite
    where
        Self: 't;

    /// A way for much payload.
    type Bulk<'t>: Bulk
    where
        Self: 't;

    fn of(&self, peer: Peer) -> Self::Transport<'_>;

    fn bulk(&self, from: Peer) -> Self::Bulk<'_>;
}

impl Moment<'_> {
    /// Sets the times of a tunnel that has just opened, and looks at what was read before it did. A tunnel
    /// that another worker had goes on with the times that it has.
    pub(crate) fn begin(&mut self, secret: Secret) {
        let tick = self.now.tick;
        self.local.rearm = true;
        let state = &mut *self.state;
        if state.secret.is_none() {
            state.secret = Some(secret);
            state.client_alive.heard(tick);
            state.idle = Mark { since: tick, seen: 0 };
            state.stalled = Pair::of(|_| tick);
            let due = self.rules.lifetime.map(|longest| {
                (Leave::Aged, tick.wrapping_add(super::times::jittered(longest, secret)))
            });
            state.close_handshake = CloseHandshake::Open { due };
        }
        if self.rules.ping_upstream.is_some()
            && state.flows.client.scanner.is_on()
            && state.upstream_alive.is_none()
        {
            state.upstream_alive.get_or_insert_default().heard(tick);
        }
        // Both first: a Close stands behind what came early, at a boundary of it.
        let scanned = Peer::BOTH.map(|peer| {
            let (flow, mut context) = self.flow(peer);
            (peer, flow::scan_early(flow, &mut context))
        });
        for (peer, result) in scanned {
            if let Err(Stop::Refused(why)) = result {
                self.refuse(peer, why);
            }
        }
    }

    /// Remembers what the poll told of one socket.
    #[inline]
    pub(crate) fn note(&mut self, peer: Peer, events: SocketEvents) {
        let ready = &mut self.local.ready[peer];
        let is_last = events.read_closed || events.error;
        ready.readable |= is_last || events.readable;
        ready.read_on |= is_last || events.priority;
        ready.writable |= events.writable;
        if events.readable
            && let Some(alive) = self.state.alive(peer)
        {
            alive.heard(self.now.tick);
        }
        if events.error {
            self.broke(peer, false);
        }
    }

    /// Moves what can be moved, both ways.
    #[inline]
    pub(crate) fn turn(&mut self, transports: &impl Transports, buffer: &mut [u8]) -> Next {
        // Mostly one side has sent one small message, and nothing else is to be done.
        let passed = if self.local.ready.client.readable {
            self.pass_message(Peer::Client, transports, buffer)
        } else {
            self.pass_message(Peer::Upstream, transports, buffer)
        };
        match passed {
            Ok(()) => Next::Wait,
            Err(begun) => self.turn_both(begun, transports, buffer),
        }
    }

    /// Passes what `source` sends, where it is one small message and nothing else is to be done.
    #[inline(always)]
    #[allow(clippy::inline_always)] // Once for each side, which is known then.
    fn pass_message(
        &mut self,
        source: Peer,
        transports: &impl Transports,
        buffer: &mut [u8],
    ) -> Result<(), Option<(Peer, Begun)>> {
        let Self { state, local, rules, now: _ } = self;
        let (from, to) = local.ready.split(source);
        let (flow, back) = state.flows.split(source);
        let is_open = matches!(state.close_handshake, CloseHandshake::Open { .. });
        if !(is_open && back.is_quiet(*to) && flow.may_pass_message(*from, *to)) {
            return Err(None);
        }
        let (read, write) = (transports.of(source), transports.of(source.other()));
        flow.pass_message(read, from, write, to, buffer, &rules.frames)
            .map_err(|begun| Some((source, begun)))
    }

    /// [`Self::turn`], whatever there is to do.
    #[inline(never)]
    fn turn_both(
        &mut self,
        mut begun: Option<(Peer, Begun)>,
        transports: &impl Transports,
        buffer: &mut [u8],
    ) -> Next {
        loop {
            let is_ending = !matches!(self.state.close_handshake, CloseHandshake::Open { .. });
            if is_ending {
                // Once our Close is out, the client's is the last that it has to say.
                let flows = &mut self.state.flows;
                flows.client.ends_behind_close |= flows.upstream.passage == Passage::Discard;
            }
            let mut pass = |source| {
                let begun = begun.take_if(|(of, _)| *of == source).map(|(_, begun)| begun);
                self.pass(source, begun, transports, buffer)
            };
            let (forth, back) = (pass(Peer::Client), pass(Peer::Upstream));
            if is_ending {
                if self.see_answer() {
                    continue;
                }
                self.see_last_byte();
            }
            if forth == Stop::Waits && back == Stop::Waits {
                return self.next(Next::Wait);
            }
            self.note_first();
            let changed = [self.react(forth, Peer::Client), self.react(back, Peer::Upstream)];
            // A fault of one direction gives the other something to do: to read out what is left,
            // or to stop. Each side breaks once and is refused once, so that this ends.
            if changed.contains(&true) {
                continue;
            }
            let is_turn_over = forth == Stop::TurnOver || back == Stop::TurnOver;
            return self.next(if is_turn_over { Next::Again } else { Next::Wait });
        }
    }

    /// Passes what `source` sends.
    fn pass(
        &mut self,
        source: Peer,
        begun: Option<Begun>,
        transports: &impl Transports,
        buffer: &mut [u8],
    ) -> Stop {
        let Self { state, local, rules, now } = self;
        let Local { ready, rearm } = &mut **local;
        let (from, to) = ready.split(source);
        let bulk = &mut transports.bulk(source);
        let (flow, mut context) = state.flow(source, rules, *now, rearm, Some(bulk));
        let (read, write) = (transports.of(source), transports.of(source.other()));
        flow::pass(begun, flow, read, from, write, to, buffer, &mut context)
    }

    /// The flow from `source`, and what it has to know.
    pub(super) fn flow(&mut self, source: Peer) -> (&mut Flow, Context<'_>) {
        let rearm = &mut self.local.rearm;
        self.state.flow(source, self.rules, self.now, rearm, None)
    }

    /// Takes over what the direction from `source` found out. Whether that gives something to do.
    fn react(&mut self, stop: Stop, source: Peer) -> bool {
        match stop {
            Stop::Waits | Stop::Ended | Stop::TurnOver => return false,
            Stop::SourceBroke => self.broke(source, true),
            Stop::SinkBroke { told } => self.broke(source.other(), told),
            Stop::SourceGone => self.gone(source),
            Stop::SinkGone => self.gone(source.other()),
            Stop::Refused(why) => self.refuse(source, why),
        }
        true
    }

    /// The machine or the network of `side` is gone.
    fn gone(&mut self, side: Peer) {
        if self.state.is_closing() {
            self.broke(side, true);
        } else {
            self.give_up(side, Reason::Timeout);
        }
    }

    /// The connection of `side` is broken: nothing can be sent to it, and what it sent before is to
    /// be read to its end.
    fn broke(&mut self, side: Peer, told: bool) {
        let (from, into) = self.state.flows.split(side);
        if from.source == Source::Open {
            from.source = Source::Broken { told };
        }
        if into.sink == Sink::Open {
            into.sink_is_broken();
        }
        let ready = &mut self.local.ready[side];
        ready.readable = true;
        ready.read_on = true;
        self.note_first();
    }

    fn note_first(&mut self) {
        let State { flows, ended_first, .. } = &mut *self.state;
        if ended_first.is_none() {
            let ended = |peer: &Peer| flows[*peer].source != Source::Open;
            *ended_first = Peer::BOTH.into_iter().find(ended);
        }
    }

    /// What is next, where it would be `otherwise` if the tunnel were not over.
    fn next(&self, otherwise: Next) -> Next {
        let state = &*self.state;
        if !state.is_over() {
            return otherwise;
        }
        let told_both = state.flows.both().iter().all(|flow| flow.sink == Sink::Ended);
        let nobody_waits = told_both || state.survivor().is_none();
        if state.is_closing() || nobody_waits { Next::End } else { Next::AwaitDelivery }
    }
}
