//! A tunnel on its thread: the two directions, and what one means for the other.
//!
//! A socket is the source of one direction and the sink of the other. Where it breaks, the direction
//! into it is over at once; the direction out of it first passes on what had come before the fault,
//! since the last words of an application (its Close frame) often stand right before a reset: an
//! application that closes with bytes unread makes its kernel send one (RFC 2525, section 2.17).

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::event::Event;
use rustix::net::{SendFlags, send};
use socket2::SockRef;

use super::bulk::{Bulk, Pipe, Splice};
use super::direction::{self, EndWrite, Peer, Readiness, Stop, Watch};
use super::keepalive::{Due, Keepalive};
use super::options::{Rulebook, nonces, stamp};
use super::wheel::{is_reached, ticks};
use crate::end::{End, Phase, Reason, Side};
use crate::tunnel::{Course, Flow, Sink, Source, Tunnel, Wants};

/// One place in the slab. Small, since an idle tunnel is nothing but this.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) tunnel: Tunnel,
    /// It is over and waits for its last bytes to arrive: the number of its farewell.
    pub(super) farewell: Option<NonZeroU32>,
    /// It is on the list of those whose turn was over too early.
    pub(super) listed: bool,
    /// Its time in the wheel is to be set anew.
    pub(super) rearm: bool,
    client: Readiness,
    upstream: Readiness,
    ending: Option<Ending>,
    /// When it is to get a Close, and why: its age, or the drain.
    leaves_at: u32,
    leaves: Option<Leave>,
    /// Since when no data passed: counted in data frames, or bytes.
    idle: Mark,
    /// Since when the upstream, and the client, take nothing.
    stalled: [u32; 2],
}

/// An ending of our own that is under way.
#[derive(Clone, Copy, Debug)]
struct Ending {
    stage: Stage,
    /// How it ends, if all goes well.
    end: End,
    /// When this stage is over.
    until: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A Close goes to the client, or went; the client's is waited for, and all before it passes.
    Goodbye,
    /// Nothing more passes; both sides have some time to read what is on its way.
    Closing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    Aged,
    Drains,
}

/// An idle tunnel is its slot and its node in the wheel, and no more, but for a long text in its
/// identity. The budget for all of it is 512 bytes.
const _: () = assert!(size_of::<Slot>() <= 456);

/// What was seen of a count that grows, and since when it is so.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    since: u32,
    seen: u32,
}

impl Mark {
    /// Takes note of the count as it is now.
    fn look(&mut self, count: u64, now: u32) {
        #[allow(clippy::cast_possible_truncation)] // Compared for change alone.
        let count = count as u32;
        if count != self.seen {
            *self = Self { since: now, seen: count };
        }
    }
}

/// What is to be done with a slot after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait for an event.
    Wait,
    /// Give it another turn.
    Again,
    /// It is over: end it.
    End,
    /// It is over, and one side is still there to get the last bytes.
    Farewell,
    /// A mistake of ours happened in it: cut it.
    Failed,
}

/// What the poll told of a socket.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // Each may come with any other.
pub(super) struct News {
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// An urgent byte.
    pub(super) priority: bool,
    pub(super) read_closed: bool,
    pub(super) error: bool,
}

impl From<&Event> for News {
    #[inline]
    fn from(event: &Event) -> Self {
        Self {
            readable: event.is_readable(),
            writable: event.is_writable(),
            priority: event.is_priority(),
            read_closed: event.is_read_closed(),
            error: event.is_error(),
        }
    }
}

impl Slot {
    /// A place for a tunnel that comes at tick `now`. What was read before it opened is looked at.
    pub(super) fn new(mut tunnel: Tunnel, rulebook: &Rulebook, now: u32) -> Self {
        tunnel.client_alive.heard(now);
        if rulebook.ping_upstream.is_some() && tunnel.from_client.scanner.is_on() {
            tunnel.upstream_alive.get_or_insert_default().heard(now);
        }
        let mark = Mark { since: now, seen: 0 };
        let mut slot = Self {
            tunnel,
            farewell: None,
            listed: false,
            rearm: true,
            client: Readiness::default(),
            upstream: Readiness::default(),
            ending: None,
            leaves_at: 0,
            leaves: None,
            idle: mark,
            stalled: [now; 2],
        };
        if let Some(longest) = rulebook.lifetime {
            slot.leaves_at = now.wrapping_add(slot.jittered(longest));
            slot.leaves = Some(Leave::Aged);
        }
        // Both first: a Close stands behind what came early, at a boundary of it.
        let scanned = [Side::Client, Side::Upstream].map(|side| {
            let (flow, mut watch) = slot.watched(side, rulebook, now);
            (side, direction::scan_early(flow, &mut watch))
        });
        for (side, result) in scanned {
            if let Err(Stop::Refused(why)) = result {
                slot.refuse(side, why, rulebook, now);
            }
        }
        slot
    }

    /// Remembers what the poll told of one socket.
    pub(super) fn note(&mut self, side: Side, news: News, now: u32) {
        let ready = self.readiness(side);
        let is_last = news.read_closed || news.error;
        ready.readable |= is_last || news.readable;
        ready.read_on |= is_last || news.priority;
        ready.writable |= news.writable;
        if news.readable {
            match (side, &mut self.tunnel.upstream_alive) {
                (Side::Client, _) => self.tunnel.client_alive.heard(now),
                (_, Some(alive)) => alive.heard(now),
                (_, None) => {}
            }
        }
        if news.error {
            self.broke(side, false);
        }
    }

    /// Moves what can be moved, both ways.
    pub(super) fn turn(
        &mut self,
        sockets: &impl Sockets,
        buffer: &mut [u8],
        rulebook: &Rulebook,
        now: u32,
    ) -> Next {
        loop {
            if self.ending.is_some() {
                // Once our Close is out, the client's is the last that it has to say.
                let is_out = self.tunnel.from_upstream.course == Course::Discards;
                self.tunnel.from_client.ends_behind_close |= is_out;
            }
            let forth = self.pass_forth(sockets, buffer, rulebook, now);
            let back = self.pass_back(sockets, buffer, rulebook, now);
            if self.ending.is_some() && self.see_answer(rulebook, now) {
                continue;
            }
            if forth == Stop::Waits && back == Stop::Waits {
                return self.next(Next::Wait);
            }
            self.note_first();
            let changed = [
                self.react(forth, Side::Client, Side::Upstream, rulebook, now),
                self.react(back, Side::Upstream, Side::Client, rulebook, now),
            ];
            // A fault of one direction gives the other something to do: to read out what is left,
            // or to stop. Each side breaks once and is refused once, so that this ends.
            if changed.contains(&true) {
                continue;
            }
            let is_turn_over = forth == Stop::TurnOver || back == Stop::TurnOver;
            return self.next(if is_turn_over { Next::Again } else { Next::Wait });
        }
    }

    /// Passes what the client sends.
    #[inline]
    fn pass_forth(
        &mut self,
        sockets: &impl Sockets,
        buffer: &mut [u8],
        rulebook: &Rulebook,
        now: u32,
    ) -> Stop {
        let Self { tunnel, client: from, upstream: to, rearm, .. } = self;
        let (read, write) = (&tunnel.client, &tunnel.upstream);
        let (client, upstream, close) =
            (&mut tunnel.client_alive, tunnel.upstream_alive.as_deref_mut(), &mut tunnel.close);
        let bulk = &mut sockets.way((Side::Client, read), (Side::Upstream, write));
        let watch = move || Watch {
            rulebook,
            now,
            source: Peer::new(Side::Client, Some(client), read),
            sink: Peer::new(Side::Upstream, upstream, write),
            close,
            rearm,
            bulk: Some(bulk),
        };
        let flow = &mut tunnel.from_client;
        let read = sockets.reach(Side::Client, read);
        let write = sockets.reach(Side::Upstream, write);
        direction::pass(flow, read, from, write, to, buffer, &rulebook.rules, watch)
    }

    /// Passes what the upstream sends.
    #[inline]
    fn pass_back(
        &mut self,
        sockets: &impl Sockets,
        buffer: &mut [u8],
        rulebook: &Rulebook,
        now: u32,
    ) -> Stop {
        let Self { tunnel, client: to, upstream: from, rearm, .. } = self;
        let (read, write) = (&tunnel.upstream, &tunnel.client);
        let (client, upstream, close) =
            (&mut tunnel.client_alive, tunnel.upstream_alive.as_deref_mut(), &mut tunnel.close);
        let bulk = &mut sockets.way((Side::Upstream, read), (Side::Client, write));
        let watch = move || Watch {
            rulebook,
            now,
            source: Peer::new(Side::Upstream, upstream, read),
            sink: Peer::new(Side::Client, Some(client), write),
            close,
            rearm,
            bulk: Some(bulk),
        };
        let flow = &mut tunnel.from_upstream;
        let read = sockets.reach(Side::Upstream, read);
        let write = sockets.reach(Side::Client, write);
        direction::pass(flow, read, from, write, to, buffer, &rulebook.rules, watch)
    }

    /// The flow from `source`, and what it has to know.
    fn watched<'s>(
        &'s mut self,
        source: Side,
        rulebook: &'s Rulebook,
        now: u32,
    ) -> (&'s mut Flow, Watch<'s>) {
        let Self { tunnel, rearm, .. } = self;
        let client = Peer::new(Side::Client, Some(&mut tunnel.client_alive), &tunnel.client);
        let alive = tunnel.upstream_alive.as_deref_mut();
        let upstream = Peer::new(Side::Upstream, alive, &tunnel.upstream);
        let close = &mut tunnel.close;
        if source == Side::Upstream {
            let watch =
                Watch { rulebook, now, source: upstream, sink: client, close, rearm, bulk: None };
            return (&mut tunnel.from_upstream, watch);
        }
        let watch =
            Watch { rulebook, now, source: client, sink: upstream, close, rearm, bulk: None };
        (&mut tunnel.from_client, watch)
    }

    /// A share of `longest` between nine tenths and all of it, in ticks.
    fn jittered(&self, longest: Duration) -> u32 {
        let [random, ..] = nonces().mask(stream(&self.tunnel.client), stamp());
        ticks(longest.saturating_sub(longest / 10 * u32::from(random) / 255))
    }

    /// Has it get a Close at tick `at`, because the relay drains. One that has no frames, or is on
    /// its way out, gets none.
    pub(super) fn drain_at(&mut self, at: u32) {
        if self.can_say_goodbye() && self.ending.is_none() {
            let is_sooner = self.leaves.is_none() || is_reached(at, self.leaves_at);
            if is_sooner {
                self.leaves_at = at;
            }
            // Its age is no reason any more: all go now.
            self.leaves = Some(Leave::Drains);
            self.rearm = true;
        }
    }

    pub(super) fn can_say_goodbye(&self) -> bool {
        self.tunnel.from_upstream.scanner.is_on()
    }

    /// The last of it is on its way: nothing more passes.
    pub(super) fn is_closing(&self) -> bool {
        self.farewell.is_some() || self.tunnel.ended.is_some()
    }

    /// The tick at which it is to be looked at next, because of time alone.
    pub(super) fn next_look(&self, rulebook: &Rulebook, now: u32) -> u32 {
        let sooner = |one: u32, other: u32| if is_reached(one, other) { one } else { other };
        let stall_look = now.wrapping_add((rulebook.stall / 8).max(1));
        if let Some(ending) = self.ending {
            return sooner(ending.until, stall_look);
        }
        let mut at = stall_look;
        if let Some(idle) = rulebook.idle {
            at = sooner(at, now.wrapping_add((idle / 16).max(1)));
        }
        if self.leaves.is_some() {
            at = sooner(at, self.leaves_at);
        }
        let tunnel = &self.tunnel;
        let alive = [
            (&tunnel.from_upstream, Some(&tunnel.client_alive), rulebook.ping_client),
            (&tunnel.from_client, tunnel.upstream_alive.as_deref(), rulebook.ping_upstream),
        ];
        for (towards, alive, times) in alive {
            if let (Some(alive), Some(times)) = (alive, times)
                && is_pinged(towards)
                && let Due::At(due) = alive.due(now, times)
            {
                at = sooner(at, times.next_look(due, now));
            }
        }
        at
    }

    /// Does what is due at tick `now`. A turn follows.
    pub(super) fn look(&mut self, rulebook: &Rulebook, now: u32) -> Next {
        self.rearm = true;
        if let Some(ending) = self.ending {
            if !is_reached(ending.until, now) {
                return Next::Wait;
            }
            if ending.stage == Stage::Closing {
                return Next::End;
            }
            self.goodbye_is_over(ending, rulebook, now);
            return Next::Wait;
        }
        let by_us = |why| End::new(Side::Elbows, Phase::Relay, why);
        let leaves = self.leaves.filter(|_| is_reached(self.leaves_at, now));
        if let Some(why) = leaves {
            let end = match why {
                Leave::Aged => by_us(Reason::Lifetime),
                Leave::Drains => End::new(Side::Elbows, Phase::Drain, Reason::Drained),
            };
            self.say_goodbye(end, rulebook, now);
        } else if self.is_idle(rulebook, now) {
            self.say_goodbye(by_us(Reason::Idle), rulebook, now);
        } else if let Some(side) = self.stalled(rulebook, now) {
            self.give_up(side, Reason::Stalled, rulebook, now);
        } else {
            self.keep_alive(Side::Client, rulebook, now);
            self.keep_alive(Side::Upstream, rulebook, now);
        }
        Next::Wait
    }

    fn is_idle(&mut self, rulebook: &Rulebook, now: u32) -> bool {
        let Some(longest) = rulebook.idle else {
            return false;
        };
        let said = |flow: &Flow| {
            let has_frames = flow.scanner.is_on();
            if has_frames { flow.scanner.counts().data_frames } else { flow.delivered() }
        };
        let count = said(&self.tunnel.from_client).wrapping_add(said(&self.tunnel.from_upstream));
        self.idle.look(count, now);
        is_reached(self.idle.since.wrapping_add(longest), now)
    }

    /// The side that takes nothing while something waits for it.
    fn stalled(&mut self, rulebook: &Rulebook, now: u32) -> Option<Side> {
        let Self { tunnel, client, upstream, stalled: [by_upstream, by_client], .. } = self;
        for (side, flow, from, to, since) in [
            (Side::Upstream, &mut tunnel.from_client, &client, &upstream, by_upstream),
            (Side::Client, &mut tunnel.from_upstream, &upstream, &client, by_client),
        ] {
            let waits = !flow.waiting.is_empty() || from.readable;
            let has_moved = std::mem::take(&mut flow.has_moved);
            if flow.sink != Sink::Open || to.writable || !waits || has_moved {
                *since = now;
            }
            if is_reached(since.wrapping_add(rulebook.stall), now) {
                return Some(side);
            }
        }
        None
    }

    /// Pings `side` if it has been silent, and gives it up if that had no effect.
    fn keep_alive(&mut self, side: Side, rulebook: &Rulebook, now: u32) {
        // What it sent and we have not read yet, since the other side is slow, is a sign of life.
        let has_sent = self.readiness(side).readable;
        let (source, times) = match side {
            Side::Client => (Side::Upstream, rulebook.ping_client),
            _ => (Side::Client, rulebook.ping_upstream),
        };
        let (flow, mut watch) = self.watched(source, rulebook, now);
        let (Some(times), Some(alive)) = (times, watch.sink.alive.as_mut()) else {
            return;
        };
        if !is_pinged(flow) {
            return;
        }
        if has_sent {
            alive.heard(now);
        }
        match alive.due(now, times) {
            Due::At(_) => {}
            Due::Ping => direction::want(flow, Wants::Ping, &mut watch),
            Due::End => self.give_up(side, Reason::Timeout, rulebook, now),
        }
    }

    /// Says goodbye to the client, and lets everything before its answer pass.
    fn say_goodbye(&mut self, end: End, rulebook: &Rulebook, now: u32) {
        self.leaves = None;
        if !self.can_say_goodbye() {
            // Nobody could tell where. Both streams end, as they do when a process ends.
            return self.close(end, None, None, rulebook, now);
        }
        self.ending =
            Some(Ending { stage: Stage::Goodbye, end, until: now.wrapping_add(rulebook.grace) });
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

    /// Whether the client has answered our Close; both streams end then.
    fn see_answer(&mut self, rulebook: &Rulebook, now: u32) -> bool {
        let Some(Ending { stage: Stage::Goodbye, end, .. }) = self.ending else {
            return false;
        };
        let Tunnel { from_client, from_upstream, .. } = &self.tunnel;
        let is_answer =
            from_client.scanner.is_behind_close() || from_client.source == Source::Ended;
        let is_answered = from_upstream.course == Course::Discards && is_answer;
        if is_answered {
            self.close(end, None, None, rulebook, now);
        }
        is_answered
    }

    /// The grace is over. A message that has not ended is given up where a frame has, and the client
    /// gets the grace once more.
    fn goodbye_is_over(&mut self, ending: Ending, rulebook: &Rulebook, now: u32) {
        let (flow, mut watch) = self.watched(Side::Upstream, rulebook, now);
        if let Wants::Close { code, after_message: true, then } = flow.wants {
            direction::want(flow, Wants::Close { code, after_message: false, then }, &mut watch);
            if flow.course != Course::Passes {
                self.ending = Some(Ending { until: now.wrapping_add(rulebook.grace), ..ending });
                return;
            }
        }
        // Who was to be drained was not; any other reason is still the reason.
        let end = match ending.end.why {
            Reason::Drained => End { why: Reason::Timeout, ..ending.end },
            _ => ending.end,
        };
        self.close(end, None, Some(rulebook.close_code), rulebook, now);
    }

    /// `side` is gone, or might as well be: the other one gets a proper end.
    fn give_up(&mut self, side: Side, why: Reason, rulebook: &Rulebook, now: u32) {
        let (from, into) = match side {
            Side::Upstream => (&mut self.tunnel.from_upstream, &mut self.tunnel.from_client),
            _ => (&mut self.tunnel.from_client, &mut self.tunnel.from_upstream),
        };
        from.source = Source::Reset;
        into.sink = Sink::Broken;
        into.waiting.clear();
        let code = Some(AWAY);
        let end = End::new(side, Phase::Relay, why);
        match side {
            Side::Upstream => self.close(end, code, None, rulebook, now),
            _ => self.close(end, None, code, rulebook, now),
        }
    }

    /// `side` sent what may not pass: it is told so, and the other one gets a proper end.
    fn refuse(&mut self, side: Side, why: Reason, rulebook: &Rulebook, now: u32) {
        let code = if why == Reason::TooBig { TOO_BIG } else { PROTOCOL_ERROR };
        let end = End::new(side, Phase::Relay, why);
        let from = match side {
            Side::Upstream => &mut self.tunnel.from_upstream,
            _ => &mut self.tunnel.from_client,
        };
        if from.scanner.in_message() {
            // Half a message and a proper end would look like more than there is.
            from.course = Course::Discards;
        }
        match side {
            Side::Upstream => self.close(end, Some(AWAY), Some(code), rulebook, now),
            _ => self.close(end, Some(code), Some(AWAY), rulebook, now),
        }
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
        let until = now.wrapping_add(rulebook.linger);
        self.ending = Some(Ending { stage: Stage::Closing, end, until });
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
    pub(super) fn is_farewell_done(&self, side: Side, event: &Event) -> bool {
        event.is_error() && self.survivor() == Some(side)
    }

    /// The tunnel, ready to be closed. After a reset, closing resets the other side, too; without
    /// one, the kernel sends what is left to send and the end of the stream.
    pub(super) fn into_ended(self) -> Tunnel {
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

    /// Takes over what a direction found out. Whether that gives something to do.
    fn react(
        &mut self,
        stop: Stop,
        source: Side,
        sink: Side,
        rulebook: &Rulebook,
        now: u32,
    ) -> bool {
        match stop {
            Stop::Waits | Stop::Ended | Stop::TurnOver => return false,
            Stop::SourceBroke => self.broke(source, true),
            Stop::SinkBroke { told } => self.broke(sink, told),
            Stop::SourceGone => self.gone(source, rulebook, now),
            Stop::SinkGone => self.gone(sink, rulebook, now),
            Stop::Refused(why) => self.refuse(source, why, rulebook, now),
        }
        true
    }

    /// The machine or the network of `side` is gone.
    fn gone(&mut self, side: Side, rulebook: &Rulebook, now: u32) {
        if self.tunnel.ended.is_none() {
            self.give_up(side, Reason::Timeout, rulebook, now);
        } else {
            self.broke(side, true);
        }
    }

    /// The connection of `side` is broken: nothing can be sent to it, and what it sent before is to
    /// be read to its end.
    fn broke(&mut self, side: Side, told: bool) {
        let (from, into) = match side {
            Side::Upstream => (&mut self.tunnel.from_upstream, &mut self.tunnel.from_client),
            _ => (&mut self.tunnel.from_client, &mut self.tunnel.from_upstream),
        };
        if from.source == Source::Open {
            from.source = Source::Broken { told };
        }
        if into.sink == Sink::Open {
            into.sink = Sink::Broken;
            into.waiting.clear();
        }
        let ready = self.readiness(side);
        ready.readable = true;
        ready.read_on = true;
        self.note_first();
    }

    fn note_first(&mut self) {
        let (client, upstream) = (&mut self.tunnel.from_client, &mut self.tunnel.from_upstream);
        if client.ended_first || upstream.ended_first {
            return;
        }
        if client.source != Source::Open {
            client.ended_first = true;
        } else if upstream.source != Source::Open {
            upstream.ended_first = true;
        }
    }

    /// What is next, where it would be `otherwise` if the tunnel were not over.
    fn next(&self, otherwise: Next) -> Next {
        let Tunnel { from_client, from_upstream, .. } = &self.tunnel;
        if !self.tunnel.is_over() {
            return otherwise;
        }
        if self.tunnel.ended.is_some() {
            return Next::End;
        }
        let told_both = from_client.sink == Sink::Ended && from_upstream.sink == Sink::Ended;
        if told_both || self.survivor().is_none() { Next::End } else { Next::Farewell }
    }

    /// The side that still has a connection, where the other has not.
    fn survivor(&self) -> Option<Side> {
        match (self.is_broken(Side::Client), self.is_broken(Side::Upstream)) {
            (true, false) => Some(Side::Upstream),
            (false, true) => Some(Side::Client),
            _ => None,
        }
    }

    fn is_broken(&self, side: Side) -> bool {
        let into = match side {
            Side::Upstream => &self.tunnel.from_client,
            _ => &self.tunnel.from_upstream,
        };
        into.sink == Sink::Broken || self.from(side).source == Source::Reset
    }

    fn from(&self, side: Side) -> &Flow {
        match side {
            Side::Upstream => &self.tunnel.from_upstream,
            _ => &self.tunnel.from_client,
        }
    }

    fn readiness(&mut self, side: Side) -> &mut Readiness {
        match side {
            Side::Upstream => &mut self.upstream,
            _ => &mut self.client,
        }
    }
}

/// Close codes of RFC 6455, section 7.4.1.
const AWAY: u16 = 1001;
const PROTOCOL_ERROR: u16 = 1002;
const TOO_BIG: u16 = 1009;

impl<'w> Peer<'w> {
    fn new(side: Side, alive: Option<&'w mut Keepalive>, socket: &TcpStream) -> Self {
        Self { side, alive, stream: stream(socket) }
    }
}

/// The number of the stream of frames towards a socket: no other has it as long as it is open.
fn stream(socket: &TcpStream) -> u64 {
    socket.as_raw_fd().unsigned_abs().into()
}

/// Whether pings go this way: one that is wanted already goes first.
fn is_pinged(towards: &Flow) -> bool {
    towards.scanner.is_on()
        && towards.scanner.close_code().is_none()
        && towards.wants == Wants::Nothing
        && towards.sink == Sink::Open
        && towards.course == Course::Passes
}

/// How bytes get out of a socket and into it. A tunnel's state needs none to be tried: a schedule of
/// reads and writes in memory does (`relay/schedule.rs`).
pub(super) trait Sockets {
    type Reached<'s>: Read + EndWrite
    where
        Self: 's;

    /// A way for much payload.
    type Way<'s>: Bulk
    where
        Self: 's;

    fn reach<'s>(&'s self, side: Side, socket: &'s TcpStream) -> Self::Reached<'s>;

    fn way<'s>(&'s self, from: (Side, &'s TcpStream), into: (Side, &'s TcpStream))
    -> Self::Way<'s>;
}

/// The kernel's. One is shared by all tunnels of a thread.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    pipe: RefCell<Pipe>,
}

impl Sockets for Kernel {
    type Reached<'s> = Socket<'s>;
    type Way<'s> = Splice<'s>;

    #[inline]
    fn reach<'s>(&'s self, _: Side, socket: &'s TcpStream) -> Socket<'s> {
        Socket(socket)
    }

    #[inline]
    fn way<'s>(&'s self, from: (Side, &'s TcpStream), into: (Side, &'s TcpStream)) -> Splice<'s> {
        Splice { from: from.1, into: into.1, pipe: &self.pipe }
    }
}

/// A socket by bare system calls. The C library's `recv` and `send`, which std takes, are points of
/// cancellation: with threads they cost half as many instructions again as all else per message.
pub(super) struct Socket<'s>(&'s TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(self.0, buffer)?)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl EndWrite for Socket<'_> {
    fn end(&mut self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::os::fd::OwnedFd;
    use std::time::Instant;

    use super::*;
    use crate::relay::Options;
    use crate::tunnel::{Identity, Protocol};

    /// A kernel that refuses a write tells of a broken connection by an event, too. Where it does
    /// not, the tunnel ends all the same.
    #[test]
    fn a_write_fault_without_an_event_ends_the_tunnel() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (client, nowhere) = listener.accept().unwrap();
        far.write_all(b"no socket takes this").unwrap();
        let upstream = TcpStream::from(OwnedFd::from(File::open("/dev/null").unwrap()));
        let tunnel = Tunnel::new(
            Protocol::Other,
            (client, Vec::new()),
            (upstream, Vec::new()),
            identity(nowhere),
        );
        let rulebook = Rulebook::new(&Options::default());
        let mut slot = Slot::new(tunnel, &rulebook, 0);
        slot.client.readable = true;
        slot.client.writable = true;
        slot.upstream.writable = true;
        assert_eq!(slot.turn(&Kernel::default(), &mut [0; 64], &rulebook, 0), Next::Farewell);
        let end = slot.tunnel.end();
        assert_eq!((end.by, end.why), (Side::Upstream, Reason::Reset));
        assert_eq!(slot.survivor(), Some(Side::Client));
    }

    fn identity(address: SocketAddr) -> Identity {
        Identity::new(address, address, address, "GET / HTTP/1.1", "1", Instant::now())
    }
}
