//! What a tunnel does because of time alone: when it is looked at, and what is due then.
//!
//! Pings and what comes of no answer, a side that takes nothing, silence, age and the drain. Time
//! comes in as ticks, so that a test lets it pass.

use std::time::Duration;

use super::ending::{Ending, Stage};
use super::{Next, Slot, other, stream};
use crate::end::{End, Phase, Reason, Side};
use crate::relay::direction;
use crate::relay::keepalive::Due;
use crate::relay::options::{Rulebook, nonces, stamp};
use crate::relay::wheel::{is_reached, ticks};
use crate::tunnel::{Course, Flow, Sink, Source, Tunnel, Wants};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    Aged,
    Drains,
}

/// What was seen of a count that grows, and since when it is so.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    pub(super) since: u32,
    pub(super) seen: u32,
}

impl Mark {
    /// Takes note of the count as it is now.
    pub(super) fn look(&mut self, count: u64, now: u32) {
        #[allow(clippy::cast_possible_truncation)] // Compared for change alone.
        let count = count as u32;
        if count != self.seen {
            *self = Self { since: now, seen: count };
        }
    }
}

impl Slot {
    /// Has it get a Close at tick `at`, because the relay drains, or end without one where nobody
    /// knows where a Close could stand. One that is on its way out goes on with that.
    pub(in crate::relay) fn drain_at(&mut self, at: u32) {
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

    /// The tick at which it is to be looked at next, because of time alone.
    pub(in crate::relay) fn next_look(&self, rulebook: &Rulebook, now: u32) -> u32 {
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
    pub(in crate::relay) fn look(&mut self, rulebook: &Rulebook, now: u32) -> Next {
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
    pub(super) fn stalled(&mut self, rulebook: &Rulebook, now: u32) -> Option<Side> {
        let mut given_up = None;
        for (place, side) in [Side::Upstream, Side::Client].into_iter().enumerate() {
            let Self { tunnel, client, upstream, stalled, .. } = &mut *self;
            let (flow, from, to) = if side == Side::Upstream {
                (&mut tunnel.from_client, client, upstream)
            } else {
                (&mut tunnel.from_upstream, upstream, client)
            };
            let Some(since) = stalled.get_mut(place) else {
                continue;
            };
            let waits = !flow.waiting.is_empty() || from.readable;
            let has_moved = std::mem::take(&mut flow.has_moved);
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

    /// A share of `longest` between nine tenths and all of it, in ticks.
    pub(super) fn jittered(&self, longest: Duration) -> u32 {
        let [random, ..] = nonces().mask(stream(&self.tunnel.client), stamp());
        ticks(longest.saturating_sub(longest / 10 * u32::from(random) / 255))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::net::{Ipv4Addr, SocketAddr, TcpStream};
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::relay::Options;
    use crate::relay::slot::tests::identity;
    use crate::tunnel::Protocol;

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
}
