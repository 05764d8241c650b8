//! What a tunnel does because of time alone: when it is looked at, and what is due then.
//!
//! Pings and what comes of no answer, a side that takes nothing, silence, age and the drain. Time
//! comes in as ticks, so that a test lets it pass.

use std::time::Duration;

use super::close_handshake::CloseHandshake;
use super::flow::{self, OwnFrame, Passage};
use super::{Flow, Moment, Next, Pair, Peer, Sink, Source, State};
use crate::clock::{is_reached, ticks};
use crate::end::{End, Phase, Reason, Side};
use crate::websocket::keepalive::{Due, Secret};

/// Why a tunnel is to be closed at a moment that is known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It is as old as the settings allow.
    Aged,
    /// The process drains.
    Drain,
}

/// What was seen of a count that grows, and since when it is so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(super) since: u32,
    pub(super) seen: u32,
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

impl State {
    /// A number that changes with each piece of data that passes.
    fn data(&self) -> u64 {
        let data = |flow: &Flow| {
            if !flow.scanner.is_on() {
                return flow.delivered();
            }
            let counts = flow.scanner.counts();
            // A frame that moves is no silence, and neither is an empty one.
            counts.data_frames.wrapping_add(counts.payload)
        };
        let [client, upstream] = self.flows.both().map(data);
        client.wrapping_add(upstream)
    }

    /// Ticks for which no data has passed, up to tick `now`: as far as is known from looks at it, which
    /// come some seconds apart.
    #[allow(clippy::cast_possible_truncation)] // Compared for change alone.
    pub(crate) fn idle_for(&self, now: u32) -> u32 {
        if self.data() as u32 == self.idle.seen { now.wrapping_sub(self.idle.since) } else { 0 }
    }
}

impl Moment<'_> {
    /// Has it get a Close at tick `at`, because its process drains, or end without one where nobody
    /// knows where a Close could stand. One that is on its way out goes on with that.
    pub(crate) fn drain_at(&mut self, at: u32) {
        let CloseHandshake::Open { due } = self.state.close_handshake else {
            return;
        };
        let due = match due {
            // Its age is no reason any more where all go now.
            Some((_, earlier)) if !is_reached(at, earlier) && self.state.can_send_close() => {
                (Leave::Drain, earlier)
            }
            Some(earlier) if !is_reached(at, earlier.1) => earlier,
            _ => (Leave::Drain, at),
        };
        self.state.close_handshake = CloseHandshake::Open { due: Some(due) };
        self.local.rearm = true;
    }

    /// The tick at which it is to be looked at next, because of time alone.
    pub(crate) fn next_look(&self) -> u32 {
        let (state, rules, now) = (&*self.state, self.rules, self.now.tick);
        let sooner = |one: u32, other: u32| if is_reached(one, other) { one } else { other };
        let stall_look = now.wrapping_add((rules.stall / 8).max(1));
        let mut at = stall_look;
        match state.close_handshake {
            CloseHandshake::Flush { .. } => return stall_look,
            CloseHandshake::AwaitAnswer { until, .. } | CloseHandshake::Linger { until, .. } => {
                return sooner(until, stall_look);
            }
            CloseHandshake::Open { due: Some((_, due)) } => at = sooner(at, due),
            CloseHandshake::Open { due: None } => {}
        }
        if let Some(longest) = self.longest_quiet() {
            at = sooner(at, now.wrapping_add((longest / 8).max(1)));
        }
        if let Some(idle) = rules.idle {
            at = sooner(at, now.wrapping_add((idle / 16).max(1)));
        }
        let Pair { client: forth, upstream: back } = &state.flows;
        let alive = [
            (back, forth, Some(&state.client_alive), rules.ping_client),
            (forth, back, state.upstream_alive.as_deref(), rules.ping_upstream),
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

    /// Does what is due now. A turn follows.
    pub(crate) fn look(&mut self) -> Next {
        self.local.rearm = true;
        let CloseHandshake::Open { due } = self.state.close_handshake else {
            return self.look_at_close_handshake();
        };
        let by_us = |why| End::new(Side::Elbows, Phase::Relay, why);
        if let Some((why, _)) = due.filter(|(_, at)| is_reached(*at, self.now.tick)) {
            let end = match why {
                Leave::Aged => by_us(Reason::Lifetime),
                Leave::Drain if self.state.can_send_close() => {
                    End::new(Side::Elbows, Phase::Drain, Reason::Drained)
                }
                Leave::Drain => End::new(Side::Elbows, Phase::Drain, Reason::PeriodOver),
            };
            self.close_towards_client(end);
        } else if self.is_idle() {
            self.close_towards_client(by_us(Reason::Idle));
        } else if let Some(side) = self.stalled() {
            self.give_up(side, Reason::Stalled);
        } else if let Some(side) = self.outstays() {
            self.close_both(side, Reason::Timeout);
        } else {
            self.keep_alive(Peer::Client);
            self.keep_alive(Peer::Upstream);
        }
        Next::Wait
    }

    /// How long no byte may pass, where a side has ended and the other has not: its Close, or the end
    /// of its stream, is to be answered.
    fn longest_quiet(&self) -> Option<u32> {
        let flows = self.state.flows.both();
        if !self.state.is_websocket() {
            None
        } else if flows.iter().any(|flow| flow.scanner.close_code().is_some()) {
            Some(self.rules.pong)
        } else if flows.iter().any(|flow| flow.source != Source::Open) {
            self.rules.half_open
        } else {
            None
        }
    }

    /// The side that does not end although the other one has.
    fn outstays(&mut self) -> Option<Peer> {
        let longest = self.longest_quiet()?;
        let (state, now) = (&mut *self.state, self.now.tick);
        let Pair { client, upstream } = &state.flows;
        state.idle.look(client.passed.wrapping_add(upstream.passed), now);
        let waits = Peer::BOTH.iter().any(|&source| {
            let flow = &state.flows[source];
            let (from, to) = (&self.local.ready[source], &self.local.ready[source.other()]);
            let is_held_up = flow.source == Source::Open && from.readable && !to.writable;
            !flow.waiting.is_empty() || is_held_up
        });
        // Whoever takes nothing that waits is stalled, which has its own time.
        if waits || !is_reached(state.idle.since.wrapping_add(longest), now) {
            return None;
        }
        let has_ended = |flow: &Flow| flow.source != Source::Open;
        let is_done = |flow: &Flow| has_ended(flow) || flow.scanner.close_code().is_some();
        let by_client =
            !is_done(client) || is_done(upstream) && has_ended(upstream) && !has_ended(client);
        Some(if by_client { Peer::Client } else { Peer::Upstream })
    }

    fn is_idle(&mut self) -> bool {
        if self.longest_quiet().is_some() {
            return false;
        }
        // Without a limit, too: whoever lists tunnels is told of it.
        let data = self.state.data();
        let idle = &mut self.state.idle;
        idle.look(data, self.now.tick);
        let since = idle.since;
        self.rules
            .idle
            .is_some_and(|longest| is_reached(since.wrapping_add(longest), self.now.tick))
    }

    /// The side that takes nothing while something waits for it.
    pub(super) fn stalled(&mut self) -> Option<Peer> {
        let now = self.now.tick;
        let mut given_up = None;
        for side in [Peer::Upstream, Peer::Client] {
            let flow = &mut self.state.flows[side.other()];
            let (to, from) = self.local.ready.split(side);
            let waits = !flow.waiting.is_empty() || from.readable;
            let has_moved = std::mem::take(&mut flow.has_moved);
            let since = &mut self.state.stalled[side];
            if flow.sink != Sink::Open || to.writable || !waits || has_moved {
                *since = now;
            }
            if is_reached(since.wrapping_add(self.rules.stall), now) {
                given_up.get_or_insert(side);
            }
            // The kernel tells of room when a third of its buffer is free, which takes a slow reader
            // longer than this. The turn that follows tries.
            to.writable |= waits;
        }
        given_up
    }

    /// Pings `side` if it has been silent, and gives it up if that had no effect.
    fn keep_alive(&mut self, side: Peer) {
        // What it sent and we have not read yet, since the other side is slow, is a sign of life.
        let from = &self.state.flows[side];
        let can_be_pinged = is_pinged(&self.state.flows[side.other()], from);
        let has_sent = from.source == Source::Open && self.local.ready[side].readable;
        let times = match side {
            Peer::Client => self.rules.ping_client,
            Peer::Upstream => self.rules.ping_upstream,
        };
        let now = self.now.tick;
        let (flow, mut context) = self.flow(side.other());
        let (Some(times), Some(alive)) = (times, context.sink_alive.as_mut()) else {
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
            Due::Ping => flow::put_in(flow, OwnFrame::Ping, &mut context),
            Due::End => {
                self.rules.metrics.pings_unanswered.add(1);
                self.give_up(side, Reason::Timeout);
            }
        }
    }
}

/// A share of `longest` between nine tenths and all of it, in ticks: tunnels of one age do not all end at
/// one moment.
pub(super) fn jittered(longest: Duration, secret: Secret) -> u32 {
    let share = secret.share() % 256;
    ticks(longest.saturating_sub(longest / 10 * share / 255))
}

/// Whether pings go `towards` a side, from which `from` comes: one that is to be put in already goes first,
/// and where pongs could not be told from others, or can no longer come, there are none.
fn is_pinged(towards: &Flow, from: &Flow) -> bool {
    towards.scanner.is_on()
        && towards.scanner.close_code().is_none()
        && towards.own_frame == OwnFrame::None
        && towards.sink == Sink::Open
        && towards.passage == Passage::Open
        && from.scanner.is_on()
        && from.source == Source::Open
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_of_one_moment_have_a_life_of_nine_tenths_and_more_each() {
        let longest = Duration::from_secs(1000);
        let mut ages: Vec<_> =
            (0..50).map(|number| jittered(longest, Secret::new(number + 1))).collect();
        ages.sort_unstable();
        assert!(
            ages.first() >= Some(&ticks(longest * 9 / 10)) && ages.last() <= Some(&ticks(longest))
        );
        ages.dedup();
        assert!(ages.len() > 25, "{ages:?}");
    }
}
