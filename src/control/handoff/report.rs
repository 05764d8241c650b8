//! What the log says of a handoff.

use std::time::{Duration, Instant};

use super::{Conversation, Role, UNKNOWN};
use crate::handoff::message::PROTOCOL;
use crate::handoff::{Moved, Outcome, Why};

/// How long the other process says nothing until the log tells of it, and how often after that.
const SILENT: Duration = Duration::from_secs(2);
const STILL_SILENT: Duration = Duration::from_secs(10);

/// How long nothing has come of the other process.
pub(super) struct Silence {
    since: Instant,
    pub(super) tells_at: Instant,
}

impl Silence {
    /// It begins now.
    pub(super) fn new() -> Self {
        let since = Instant::now();
        Self { since, tells_at: since + SILENT }
    }
}

impl Conversation {
    /// Tells the log for whom it waits, where there is no limit to that.
    pub(super) fn tell_silence(&mut self) {
        self.silence.tells_at = Instant::now() + STILL_SILENT;
        let (build, seconds) = (&self.build, self.silence.since.elapsed().as_secs());
        match self.role {
            Role::Predecessor => {
                let process = self.connection.peer_pid().map_or_else(
                    || String::from("the new process, of another container,"),
                    |pid| format!("process {pid}"),
                );
                let Moved { given, adopted, .. } = self.batches.moved();
                let has = given.saturating_sub(adopted);
                tracing::warn!(
                    "handoff to=\"{build}\": {process} has said nothing for {seconds} s, and is waited for: it has {has} \
                     tunnels, which go on with it, or come back, or end with it where it is killed; nobody else takes over meanwhile"
                );
            }
            Role::Successor => tracing::warn!(
                "handoff from=\"{build}\": the process before has said nothing for {seconds} s, and is waited for"
            ),
        }
    }

    /// Tells the log how it ended.
    pub(in crate::control) async fn tell(&mut self, outcome: Option<Outcome>) {
        let Some(outcome) = outcome else { return };
        let took = self.took.unwrap_or_else(|| self.begun.elapsed()).as_secs_f64();
        let counters = &self.server.proxy.counters;
        let Moved { given, adopted, refused } = self.batches.moved();
        let build = &self.build;
        match (self.role, outcome) {
            (Role::Predecessor, Outcome::Done) => {
                tracing::info!(
                    "handoff to=\"{build}\" proto={PROTOCOL} moved={given} refused={refused} took={took:.2}s"
                );
            }
            (Role::Predecessor, Outcome::Refused(why)) => {
                counters.handoff_refused.add(1);
                let why = why.as_str();
                tracing::warn!("handoff to=\"{build}\" refused why={why}: this process serves on");
            }
            (Role::Predecessor, Outcome::Kept(Why::Ended)) if build == UNKNOWN => {
                tracing::debug!("whoever connected at HANDOFF_SOCKET said nothing");
            }
            (Role::Predecessor, Outcome::Kept(_) | Outcome::Alone { .. }) => {
                counters.handoff_aborted.add(1);
                let why = outcome.why();
                tracing::warn!(
                    "handoff to=\"{build}\" aborted why={why} given={given} back={adopted} took={took:.2}s: \
                     this process serves on with {} tunnels",
                    self.server.workers.open()
                );
            }
            (Role::Successor, Outcome::Done | Outcome::Alone { .. }) => {
                let pauses = self.batches.pauses().await;
                tracing::info!(
                    "handoff from=\"{build}\" proto={PROTOCOL} moved={adopted} refused={refused} took={took:.2}s {pauses}"
                );
                if matches!(outcome, Outcome::Alone { .. }) {
                    tracing::warn!("handoff: the process before ended in the middle of it");
                }
            }
            (Role::Successor, Outcome::Kept(_) | Outcome::Refused(_)) => {
                let why = outcome.why();
                tracing::warn!(
                    "handoff from=\"{build}\" aborted why={why} came={adopted} back={given} took={took:.2}s: the process before serves on"
                );
            }
        }
    }
}
