//! How long a worker may wait for events, as far as its connections are concerned.

use std::time::{Duration, Instant};

use super::super::accept::Listening;
use super::Connections;
use crate::clock::until;

impl Connections {
    /// How long until something is to be done without an event, so long after the start of the count.
    pub(in crate::workers) fn timeout(&mut self, elapsed: Duration) -> Option<Duration> {
        self.due = None;
        if self.has_work() {
            return Some(Duration::ZERO);
        }
        let accept = self.listening.as_ref().and_then(Listening::paused_until);
        if self.all.is_empty() && self.links.deadline().is_none() && accept.is_none() {
            return None;
        }
        let now = self.start + elapsed;
        let wait = |deadline: Instant| deadline.saturating_duration_since(now);
        let due = if self.all.is_empty() { None } else { self.wheel.next_tick() };
        let due = due.map(|at| until(at, elapsed));
        let idle = self.links.deadline();
        let wait = [accept.map(wait), idle.map(wait), due].into_iter().flatten().min();
        self.due = wait.map(|wait| elapsed.saturating_add(wait));
        wait
    }

    /// Connections to the upstream that are idle.
    pub(in crate::workers) const fn idle_links(&self) -> usize {
        self.links.idle()
    }

    /// Whether somebody waits for a turn, or may be accepted.
    fn has_work(&self) -> bool {
        !self.ready.is_empty() || self.listening.as_ref().is_some_and(Listening::is_ready)
    }

    /// Whether there is something to do, so long after the start of the count.
    pub(in crate::workers) fn wants_turns(&self, elapsed: Duration) -> bool {
        self.has_work() || self.due.is_some_and(|due| due <= elapsed)
    }
}
