//! What the drain does to the connections of a worker that are not tunnels.

use std::time::Instant;

use mio::Registry;

use super::{Connections, context, destination_of};
use crate::connection::Connection;
use crate::drain::Stage;
use crate::proxy::Context;

/// Connections that are still accepted when the listener closes.
const MOST_ACCEPTED: usize = 4_096;

impl Connections {
    /// The drain has come to a stage.
    pub(in crate::workers) fn drain(&mut self, stage: Stage, registry: &Registry, now: Instant) {
        self.stage = stage;
        if !stage.is_finishing() {
            return;
        }
        // Who has connected by now is served.
        for _ in 0..MOST_ACCEPTED {
            if !self.accept(now) {
                break;
            }
        }
        self.stop_listening(registry);
        self.links.close_idle(registry);
        let keys: Vec<_> = self.all.iter().map(|(key, _)| key).collect();
        for key in keys {
            if stage == Stage::Over {
                self.cut(key, registry, now);
            } else {
                // It has a turn: what has come is read, and what is idle ends.
                self.list(key);
            }
        }
    }

    /// Accepts nobody any more, and has no listener. Who has connected and not been accepted is for whoever has a copy of
    /// it.
    pub(in crate::workers) fn stop_listening(&mut self, registry: &Registry) {
        if let Some(listening) = self.listening.take() {
            listening.deregister(registry);
        }
    }

    fn cut(&mut self, key: usize, registry: &Registry, now: Instant) {
        let was_asked = self.tell(key, now, |connection, context| {
            let was_asked = connection.cut(context);
            if was_asked {
                context.proxy.counters.cut.add(1);
            }
            was_asked
        });
        if was_asked.is_some() {
            self.remove(key, false, registry);
        }
    }

    /// Tells a connection something.
    fn tell<R>(
        &mut self,
        key: usize,
        now: Instant,
        tell: impl FnOnce(&mut Connection, &Context<'_>) -> R,
    ) -> Option<R> {
        let (Some(place), Some(service)) = (self.all.get_mut(key), &self.service) else {
            return None;
        };
        let destination = destination_of(&place.socket);
        let context = context(service, self.stage, now, &self.spare, &destination);
        Some(tell(&mut place.connection, &context))
    }
}
