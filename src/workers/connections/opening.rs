//! Connections that become tunnels.

use std::time::Instant;

use super::{Connections, NewTunnel, Place};
use crate::metrics::process::since_1970;
use crate::tunnel::{State, Tunnel};
use crate::workers::Position;

impl Connections {
    /// Makes a tunnel of a connection whose client has been told so.
    pub(super) fn switch(&mut self, key: usize, now: Instant) {
        let Some(place) = self.take_out(key) else { return };
        let Place { connection, socket, ready, link, .. } = place;
        let Some((switching, seat)) = connection.into_switching() else { return };
        let link = link.and_then(|link| self.links.take_out(link));
        let (Some((upstream, hears_upstream)), Some(address)) = (link, switching.upstream) else {
            return;
        };
        let entry = &switching.entry;
        if let Some(service) = &self.service {
            service.proxy.counters.tunnels.add(1);
            service.metrics.request(entry.method, entry.status);
            let time = now.saturating_duration_since(entry.started);
            service.metrics.handshake(time, entry.trace_id, since_1970);
        }
        let identity = entry.identity(&switching.client, address, self.start);
        if let Some(service) = &self.service {
            service.proxy.access_log.opened(&identity);
        }
        // The tunnel's end gives it up.
        seat.keep();
        let tunnel = Tunnel::new(
            switching.protocol,
            (socket, switching.client_early),
            (upstream, switching.upstream_early),
            identity,
        );
        let hears_client = ready.is_registered();
        self.opened.push(NewTunnel { tunnel, hears_client, hears_upstream });
    }

    /// A tunnel that opened.
    pub(in crate::workers) fn opened(&mut self) -> Option<NewTunnel> {
        self.opened.pop()
    }

    /// Tells those who follow of a tunnel that opened, once it has its place.
    pub(in crate::workers) fn tell_opened(&self, state: &State, at: Position) {
        if let Some(service) = &self.service {
            service.proxy.feed.opened(state, at);
        }
    }
}
