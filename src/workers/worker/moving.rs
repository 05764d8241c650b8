//! How tunnels come to a worker from elsewhere, and are taken out of it to go on elsewhere.

use rustix::io::ioctl_fionread;

use super::registration::deregister;
use super::{NewTunnel, Slot, Worker, guarded};
use crate::handoff::socket::monotonic;
use crate::tunnel::{Peer, SocketEvents, Tunnel};
use crate::workers::handoff::{Batch, Request, Taken};
use crate::workers::slot::Mark;

/// Places that are looked at for one request: some 100 microseconds where all have tunnels that stay.
const LOOKED_AT: usize = 1_024;

/// Where the search for tunnels that can be taken goes on.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    next: usize,
    /// Places in a row that had none.
    in_vain: usize,
}

impl Worker {
    /// Takes a tunnel in; one that `stays` is not given to another process.
    pub(super) fn adopt(&mut self, tunnel: Tunnel, stays: bool) {
        let key = self.register_anew(tunnel);
        if let Some(slot) = key.and_then(|key| self.slots.get_mut(key)) {
            slot.marks.put(Mark::Stays, stays);
        }
    }

    fn register_anew(&mut self, mut tunnel: Tunnel) -> Option<usize> {
        tunnel.state.identity.settle();
        let opened = NewTunnel { tunnel, hears_client: false, hears_upstream: false };
        let key = self.take_in(opened, Slot::begin)?;
        if let Some(slot) = self.slots.get_mut(key) {
            slot.marks.put(Mark::HasCopies, true);
        }
        self.look_soon(key);
        Some(key)
    }

    /// Has what is due by time looked at in the next tick, behind the events that say what has come: it may have become
    /// due while nobody had the tunnel, and how long a look can wait counts anew in each process.
    fn look_soon(&mut self, key: usize) {
        if self.slots.contains(key) {
            self.wheel.insert(key, self.now.tick.wrapping_add(1));
        }
    }

    /// Takes in tunnels of another process, each with a turn at once: what came while nobody had them waits no longer
    /// than it has to.
    pub(super) fn resume(&mut self, batch: Batch) {
        tracing::debug!(tunnels = batch.tunnels.len(), "tunnels of another process came");
        let mut pauses = Vec::with_capacity(batch.tunnels.len());
        for tunnel in batch.tunnels {
            let Some(key) = self.register_anew(tunnel) else { continue };
            let Some(slot) = self.slots.get_mut(key) else { continue };
            let (kernel, buffer) = (&self.kernel, &mut self.buffer);
            let (rulebook, now) = (self.rulebooks.of(slot.route), self.now);
            for peer in Peer::BOTH {
                let socket = match peer {
                    Peer::Client => &slot.tunnel.client,
                    Peer::Upstream => &slot.tunnel.upstream,
                };
                // A sign of life. The turn reads it, so that no event tells of it any more.
                let has_come = ioctl_fionread(socket).is_ok_and(|bytes| bytes > 0);
                let events = SocketEvents { readable: has_come, ..SocketEvents::default() };
                slot.at(rulebook, now).note(peer, events);
                // Nobody knows, and a call tells.
                slot.local.ready[peer].readable = true;
                slot.local.ready[peer].writable = true;
            }
            let next = guarded(|| slot.turn(kernel, buffer, rulebook, now));
            let pause = monotonic().saturating_sub(batch.frozen_at);
            pauses.push(u32::try_from(pause.as_micros()).unwrap_or(u32::MAX));
            self.follow(key, next);
            self.look_soon(key);
        }
        // Nobody may want to know.
        drop(batch.pauses.try_send(pauses));
    }

    /// Answers a request for tunnels.
    pub(super) fn take(&mut self, request: Request) {
        let Request { most, answer, home } = request;
        let frozen_at = monotonic();
        let mut tunnels = Vec::new();
        let has_more = self.search(most, &mut tunnels);
        if !tunnels.is_empty() {
            tracing::debug!(tunnels = tunnels.len(), "tunnels were taken out for another process");
        }
        // Where nobody waits any more they come back.
        drop(answer.send(Taken::new(tunnels, frozen_at, has_more, home)));
    }

    /// Takes tunnels out, up to `most`. Whether there may be more.
    fn search(&mut self, most: usize, taken: &mut Vec<Tunnel>) -> bool {
        for _ in 0..LOOKED_AT {
            if taken.len() >= most {
                return true;
            }
            if self.cursor.in_vain >= self.reach {
                // All the way round. A tunnel that opens from now on is found the next time.
                self.cursor.in_vain = 0;
                return false;
            }
            let key = self.cursor.next;
            self.cursor.next = if key + 1 < self.reach { key + 1 } else { 0 };
            self.cursor.in_vain += 1;
            if self.slots.get(key).is_some_and(Slot::can_move)
                && let Some(slot) = self.remove(key)
            {
                self.cursor.in_vain = 0;
                deregister(self.poll.registry(), &slot.tunnel);
                taken.push(slot.tunnel);
            }
        }
        true
    }
}
