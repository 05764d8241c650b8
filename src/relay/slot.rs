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
use crate::end::{CloseCodes, End, Phase, Reason, Side};
use crate::tunnel::{Close, Course, Flow, Sink, Source, Tunnel, Wants};

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
    /// When it is to get a Close, and why: its age, or the drain. Behind its last byte: when it ends,
    /// whatever comes.
    leaves_at: u32,
    leaves: Option<Leave>,
    /// Since when no data passed; where one side has ended, since when no byte did.
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
    /// When this stage is over, unless it is said otherwise there.
    until: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A Close goes to the client, or went; the client's is waited for, and all before it passes.
    Goodbye,
    /// Nothing more passes; what waits goes out, as long as it moves.
    Closing,
    /// All is said; both sides have some time to read it, more where one that is refused still sends.
    Lingering,
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
    /// A place for a tunnel that comes at tick `now`.
    pub(super) fn place(tunnel: Tunnel, now: u32) -> Self {
        let mark = Mark { since: now, seen: 0 };
        Self {
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
        }
    }

    /// The same, begun.
    #[cfg(any(test, fuzzing))]
    pub(super) fn new(tunnel: Tunnel, rulebook: &Rulebook, now: u32) -> Self {
        let mut slot = Self::place(tunnel, now);
        slot.begin(rulebook, now);
        slot
    }

    /// Sets its times, and looks at what was read before the tunnel opened.
    pub(super) fn begin(&mut self, rulebook: &Rulebook, now: u32) {
        self.tunnel.client_alive.heard(now);
        if rulebook.ping_upstream.is_some() && self.tunnel.from_client.scanner.is_on() {
            self.tunnel.upstream_alive.get_or_insert_default().heard(now);
        }
        if let Some(longest) = rulebook.lifetime {
            self.leaves_at = now.wrapping_add(self.jittered(longest));
            self.leaves = Some(Leave::Aged);
        }
        // Both first: a Close stands behind what came early, at a boundary of it.
        let scanned = [Side::Client, Side::Upstream].map(|side| {
            let (flow, mut watch) = self.watched(side, rulebook, now);
            (side, direction::scan_early(flow, &mut watch))
        });
        for (side, result) in scanned {
            if let Err(Stop::Refused(why)) = result {
                self.refuse(side, why, rulebook, now);
            }
        }
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
            if self.ending.is_some() {
                if self.see_answer(rulebook, now) {
                    continue;
                }
                self.see_last_byte(rulebook, now);
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

    /// Has it get a Close at tick `at`, because the relay drains, or end without one where nobody
    /// knows where a Close could stand. One that is on its way out goes on with that.
    pub(super) fn drain_at(&mut self, at: u32) {
        if self.ending.is_some() {
            return;
        }
        let is_sooner = self.leaves.is_none() || is_reached(at, self.leaves_at);
        if is_sooner {
            self.leaves_at = at;
        }
        // Its age is no reason any more where all go now.
        if is_sooner || self.can_say_goodbye() {
            self.leaves = Some(Leave::Drains);
        }
        self.rearm = true;
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
        match self.ending {
            Some(Ending { stage: Stage::Closing, .. }) => return stall_look,
            Some(ending) => return sooner(ending.until, stall_look),
            None => {}
        }
        let mut at = stall_look;
        if let Some(longest) = self.longest_quiet(rulebook) {
            at = sooner(at, now.wrapping_add((longest / 8).max(1)));
        }
        if let Some(idle) = rulebook.idle {
            at = sooner(at, now.wrapping_add((idle / 16).max(1)));
        }
        if self.leaves.is_some() {
            at = sooner(at, self.leaves_at);
        }
        let tunnel = &self.tunnel;
        let (forth, back) = (&tunnel.from_client, &tunnel.from_upstream);
        let alive = [
            (back, forth, Some(&tunnel.client_alive), rulebook.ping_client),
            (forth, back, tunnel.upstream_alive.as_deref(), rulebook.ping_upstream),
        ];
        for (towards, from, alive, times) in alive {
            if let (Some(alive), Some(times)) = (alive, times)
                && is_pinged(towards, from)
            {
                if let Due::At(due) = alive.due(now, times) {
                    at = sooner(at, times.next_look(due, now));
                }
                if alive.is_silent() && !towards.waiting.is_empty() {
                    // Whether it moves decides.
                    at = sooner(at, now.wrapping_add(times.between_looks()));
                }
            }
        }
        at
    }

    /// Does what is due at tick `now`. A turn follows.
    pub(super) fn look(&mut self, rulebook: &Rulebook, now: u32) -> Next {
        self.rearm = true;
        if let Some(ending) = self.ending {
            return self.look_at_ending(ending, rulebook, now);
        }
        let by_us = |why| End::new(Side::Elbows, Phase::Relay, why);
        let leaves = self.leaves.filter(|_| is_reached(self.leaves_at, now));
        if let Some(why) = leaves {
            let end = match why {
                Leave::Aged => by_us(Reason::Lifetime),
                Leave::Drains if self.can_say_goodbye() => {
                    End::new(Side::Elbows, Phase::Drain, Reason::Drained)
                }
                Leave::Drains => End::new(Side::Elbows, Phase::Drain, Reason::PeriodOver),
            };
            self.say_goodbye(end, rulebook, now);
        } else if self.is_idle(rulebook, now) {
            self.say_goodbye(by_us(Reason::Idle), rulebook, now);
        } else if let Some(side) = self.stalled(rulebook, now) {
            self.give_up(side, Reason::Stalled, rulebook, now);
        } else if let Some(side) = self.outstays(rulebook, now) {
            let end = End::new(side, Phase::Relay, Reason::Timeout);
            self.close_both(end, rulebook, now);
        } else {
            self.keep_alive(Side::Client, rulebook, now);
            self.keep_alive(Side::Upstream, rulebook, now);
        }
        Next::Wait
    }

    /// Looks at one whose end is under way.
    fn look_at_ending(&mut self, ending: Ending, rulebook: &Rulebook, now: u32) -> Next {
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
    fn see_last_byte(&mut self, rulebook: &Rulebook, now: u32) {
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

    /// How long no byte may pass, where a side has ended and the other has not: its Close, or the end
    /// of its stream, is to be answered.
    fn longest_quiet(&self, rulebook: &Rulebook) -> Option<u32> {
        let Tunnel { from_client, from_upstream, .. } = &self.tunnel;
        let flows = [from_client, from_upstream];
        if !self.tunnel.is_websocket() {
            None
        } else if flows.iter().any(|flow| flow.scanner.close_code().is_some()) {
            Some(rulebook.pong)
        } else if flows.iter().any(|flow| flow.source != Source::Open) {
            rulebook.half_open
        } else {
            None
        }
    }

    /// The side that does not end although the other one has.
    fn outstays(&mut self, rulebook: &Rulebook, now: u32) -> Option<Side> {
        let longest = self.longest_quiet(rulebook)?;
        let Self { tunnel, client, upstream, idle, .. } = self;
        let (forth, back) = (&tunnel.from_client, &tunnel.from_upstream);
        idle.look(forth.passed.wrapping_add(back.passed), now);
        let waits = [(forth, &client, &upstream), (back, &upstream, &client)].iter().any(
            |(flow, from, to)| {
                let is_held_up = flow.source == Source::Open && from.readable && !to.writable;
                !flow.waiting.is_empty() || is_held_up
            },
        );
        // Whoever takes nothing that waits is stalled, which has its own time.
        if waits || !is_reached(idle.since.wrapping_add(longest), now) {
            return None;
        }
        let Tunnel { from_client, from_upstream, .. } = &self.tunnel;
        let has_ended = |flow: &Flow| flow.source != Source::Open;
        let is_done = |flow: &Flow| has_ended(flow) || flow.scanner.close_code().is_some();
        let by_client = !is_done(from_client)
            || is_done(from_upstream) && has_ended(from_upstream) && !has_ended(from_client);
        Some(if by_client { Side::Client } else { Side::Upstream })
    }

    fn is_idle(&mut self, rulebook: &Rulebook, now: u32) -> bool {
        let Some(longest) = rulebook.idle.filter(|_| self.longest_quiet(rulebook).is_none()) else {
            return false;
        };
        let said = |flow: &Flow| {
            let has_frames = flow.scanner.is_on();
            if !has_frames {
                return flow.delivered();
            }
            let counts = flow.scanner.counts();
            // A frame that moves is no silence, and neither is an empty one.
            counts.data_frames.wrapping_add(counts.payload)
        };
        let count = said(&self.tunnel.from_client).wrapping_add(said(&self.tunnel.from_upstream));
        self.idle.look(count, now);
        is_reached(self.idle.since.wrapping_add(longest), now)
    }

    /// The side that takes nothing while something waits for it.
    fn stalled(&mut self, rulebook: &Rulebook, now: u32) -> Option<Side> {
        let mut given_up = None;
        for (place, side) in [Side::Upstream, Side::Client].into_iter().enumerate() {
            let Self { tunnel, client, upstream, stalled, .. } = &mut *self;
            let (flow, from, to, alive) = if side == Side::Upstream {
                let alive = tunnel.upstream_alive.as_deref_mut();
                (&mut tunnel.from_client, client, upstream, alive)
            } else {
                (&mut tunnel.from_upstream, upstream, client, Some(&mut tunnel.client_alive))
            };
            let Some(since) = stalled.get_mut(place) else {
                continue;
            };
            let waits = !flow.waiting.is_empty() || from.readable;
            let has_moved = std::mem::take(&mut flow.has_moved);
            if has_moved && let Some(alive) = alive {
                // It takes what stands before a Ping: it is slow, and there.
                alive.put_off(now);
            }
            if flow.sink != Sink::Open || to.writable || !waits || has_moved {
                *since = now;
            }
            if is_reached(since.wrapping_add(rulebook.stall), now) {
                given_up.get_or_insert(side);
            }
            // The kernel tells of room when a third of its buffer is free, which takes a slow reader
            // longer than this. The turn that follows tries.
            to.writable |= waits;
        }
        given_up
    }

    /// Pings `side` if it has been silent, and gives it up if that had no effect.
    fn keep_alive(&mut self, side: Side, rulebook: &Rulebook, now: u32) {
        // What it sent and we have not read yet, since the other side is slow, is a sign of life.
        let from = self.from(side);
        let can_be_pinged = is_pinged(self.from(other(side)), from);
        let has_sent = from.source == Source::Open && self.readiness(side).readable;
        let (source, times) = match side {
            Side::Client => (Side::Upstream, rulebook.ping_client),
            _ => (Side::Client, rulebook.ping_upstream),
        };
        let (flow, mut watch) = self.watched(source, rulebook, now);
        let (Some(times), Some(alive)) = (times, watch.sink.alive.as_mut()) else {
            return;
        };
        if !can_be_pinged {
            return;
        }
        if has_sent {
            alive.heard(now);
        }
        match alive.due(now, times) {
            Due::At(_) => {}
            // One of ours may be among what waits.
            Due::Ping if alive.is_unanswered() && !flow.waiting.is_empty() => {}
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
    fn see_answer(&mut self, rulebook: &Rulebook, now: u32) -> bool {
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

    /// `side` is gone, or might as well be: the other one gets a proper end.
    fn give_up(&mut self, side: Side, why: Reason, rulebook: &Rulebook, now: u32) {
        let (from, into) = match side {
            Side::Upstream => (&mut self.tunnel.from_upstream, &mut self.tunnel.from_client),
            _ => (&mut self.tunnel.from_client, &mut self.tunnel.from_upstream),
        };
        from.source = Source::Reset;
        into.sink = Sink::Broken;
        into.waiting.clear();
        self.close_both(End::new(side, Phase::Relay, why), rulebook, now);
    }

    /// Ends both streams because of one side, with the codes that its reason has.
    fn close_both(&mut self, end: End, rulebook: &Rulebook, now: u32) {
        let CloseCodes { to_it, to_other } = end.why.close_codes();
        match end.by {
            Side::Upstream => self.close(end, Some(to_other), to_it, rulebook, now),
            _ => self.close(end, to_it, Some(to_other), rulebook, now),
        }
    }

    /// `side` sent what may not pass: it is told so, and the other one gets a proper end.
    fn refuse(&mut self, side: Side, why: Reason, rulebook: &Rulebook, now: u32) {
        let end = End::new(side, Phase::Relay, why);
        let from = match side {
            Side::Upstream => &mut self.tunnel.from_upstream,
            _ => &mut self.tunnel.from_client,
        };
        if from.scanner.in_message() {
            // Half a message and a proper end would look like more than there is.
            from.course = Course::Discards;
        }
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
    pub(super) fn is_farewell_done(&self, side: Side, event: &Event) -> bool {
        event.is_error() && self.survivor() == Some(side)
    }

    /// The tunnel, ready to be closed. After a reset, closing resets the other side, too; without
    /// one, the kernel sends what is left to send and the end of the stream.
    pub(super) fn into_ended(mut self) -> Tunnel {
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

impl<'w> Peer<'w> {
    fn new(side: Side, alive: Option<&'w mut Keepalive>, socket: &TcpStream) -> Self {
        Self { side, alive, stream: stream(socket) }
    }
}

/// The number of the stream of frames towards a socket: no other has it as long as it is open.
fn stream(socket: &TcpStream) -> u64 {
    socket.as_raw_fd().unsigned_abs().into()
}

const fn other(side: Side) -> Side {
    match side {
        Side::Upstream => Side::Client,
        _ => Side::Upstream,
    }
}

/// Whether pings go `towards` a side, from which `from` comes: one that is wanted already goes first,
/// and where pongs could not be told from others, or can no longer come, there are none.
fn is_pinged(towards: &Flow, from: &Flow) -> bool {
    towards.scanner.is_on()
        && towards.scanner.close_code().is_none()
        && towards.wants == Wants::Nothing
        && towards.sink == Sink::Open
        && towards.course == Course::Passes
        && from.scanner.is_on()
        && from.source == Source::Open
}

/// Bytes wait that are to arrive before the end of their stream does.
fn owes(tunnel: &Tunnel) -> bool {
    [&tunnel.from_client, &tunnel.from_upstream].iter().any(|flow| {
        flow.course == Course::Finishes && flow.sink == Sink::Open && !flow.waiting.is_empty()
    })
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

    #[test]
    fn tunnels_of_one_moment_have_a_life_of_nine_tenths_and_more_each() {
        let longest = Duration::from_secs(1000);
        let rulebook =
            Rulebook::new(&Options { max_lifetime: Some(longest), ..Options::default() });
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let no_socket = || TcpStream::from(OwnedFd::from(File::open("/dev/null").unwrap()));
        let mut ages: Vec<_> = (0..50)
            .map(|_| {
                let (client, upstream) = ((no_socket(), Vec::new()), (no_socket(), Vec::new()));
                let tunnel = Tunnel::new(Protocol::WebSocket, client, upstream, identity(nowhere));
                // A moment of its own, or all would have one number.
                let before = stamp();
                while stamp() == before {}
                Slot::new(tunnel, &rulebook, 0).leaves_at
            })
            .collect();
        ages.sort_unstable();
        assert!(
            ages.first() >= Some(&ticks(longest * 9 / 10)) && ages.last() <= Some(&ticks(longest))
        );
        ages.dedup();
        assert!(ages.len() > 25, "{ages:?}");
    }

    fn identity(address: SocketAddr) -> Identity {
        Identity::new(address, address, address, "GET / HTTP/1.1", "1", Instant::now())
    }
}
