//! What the log says of a handoff.

use super::{Conversation, Role};
use crate::handoff::message::PROTOCOL;
use crate::handoff::{Moved, Outcome};

impl Conversation {
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
