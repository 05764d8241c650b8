//! Batches of tunnels on their way: those that this process gives, and those that it takes.

use std::collections::HashMap;
use std::fmt;
use std::future::pending;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{nanoseconds, send};
use crate::clock::Now;
use crate::control::Server;
use crate::handoff::Moved;
use crate::handoff::message::{Batch, Cookies, Message};
use crate::handoff::socket::{self, Connection};
use crate::tunnel::{State, Tunnel};
use crate::workers;

/// The most memory that the other process may hand over beside one message. What waits in both directions of a whole
/// batch is less.
pub(super) const MOST_MEMORY: usize = 64 << 20;

/// How long a batch waits at most for those before it: less than the other process waits for an answer.
const SETTLE: Duration = Duration::from_millis(250);

/// Bytes that say how long a record in the memory is.
const LENGTH: usize = 4;

/// Tunnels between the two processes.
pub(super) struct Batches {
    server: Arc<Server>,
    /// Taken out of the workers here, by the number of the batch.
    collected: HashMap<u32, OnTheirWay>,
    /// Come from the other process, by the number of the batch, without those that were refused.
    held: HashMap<u32, OnTheirWay>,
    /// The batch that came last, until it was looked at.
    unchecked: Option<Unchecked>,
    moved: Moved,
    /// Batches with which the workers have not gone on yet: how long tunnels stood still that came.
    resuming: JoinSet<Option<Vec<u32>>>,
    /// The same of the others, in microseconds.
    pauses: Vec<u32>,
    /// A worker has died, and its process ends.
    is_worker_gone: bool,
}

struct OnTheirWay {
    tunnels: Vec<Tunnel>,
    /// Since when nobody reads from them, by the machine's monotonic clock.
    frozen_at: Duration,
    /// The other process has said YOURS.
    is_given: bool,
}

struct Unchecked {
    batch: Batch,
    descriptors: Vec<OwnedFd>,
}

impl Batches {
    pub(super) fn new(server: &Arc<Server>) -> Self {
        Self {
            server: Arc::clone(server),
            collected: HashMap::new(),
            held: HashMap::new(),
            unchecked: None,
            moved: Moved::default(),
            resuming: JoinSet::new(),
            pauses: Vec::new(),
            is_worker_gone: false,
        }
    }

    /// What has moved so far.
    pub(super) const fn moved(&self) -> Moved {
        self.moved
    }

    /// Whether a worker has died, so that this process is about to end.
    pub(super) const fn is_worker_gone(&self) -> bool {
        self.is_worker_gone
    }

    /// Takes up to `most` tunnels out of the workers. How many there were, and whether there are more.
    pub(super) async fn collect(&mut self, number: u32, most: usize) -> (usize, bool) {
        let taken = self.server.workers.take(most).await;
        self.is_worker_gone |= taken.is_worker_gone();
        let frozen_at = taken.frozen_at();
        // From here on they do not go back by themselves: once they are sent they may be the other process's.
        let tunnels = taken.into_tunnels();
        let count = tunnels.len();
        if count > 0 {
            self.collected.insert(number, OnTheirWay { tunnels, frozen_at, is_given: false });
        }
        // The next worker may have some where this one has not.
        (count, count > 0)
    }

    /// Sends what was collected.
    ///
    /// # Errors
    /// There is no descriptor, no memory or no room for it.
    pub(super) async fn send(&self, number: u32, connection: &Connection) -> io::Result<()> {
        let Some(OnTheirWay { tunnels, frozen_at, .. }) = self.collected.get(&number) else {
            return Ok(());
        };
        let (now, elapsed) = now();
        let mut records = Vec::new();
        let mut cookies = Vec::new();
        let mut descriptors: Vec<BorrowedFd<'_>> = Vec::new();
        for tunnel in tunnels {
            let record = tunnel.state.to_bytes(now, elapsed);
            let length = u32::try_from(record.len()).map_err(io::Error::other)?;
            records.extend(length.to_be_bytes());
            records.extend(record);
            cookies.push(cookies_of(tunnel)?);
            descriptors.extend([tunnel.client.as_fd(), tunnel.upstream.as_fd()]);
        }
        let memory = socket::memfd_from(&records)?;
        descriptors.insert(0, memory.as_fd());
        let batch = Batch { number, frozen_at: nanoseconds(*frozen_at), cookies };
        send(connection, &Message::Batch(batch).to_bytes(), &descriptors).await
    }

    /// The batch is the other process's, but for the refused ones.
    pub(super) fn give(&mut self, number: u32, refused: &[u16]) {
        let Some(OnTheirWay { tunnels, .. }) = self.collected.remove(&number) else { return };
        let mut staying = Vec::new();
        let proxy = &self.server.proxy;
        for (place, tunnel) in (0_u16..).zip(tunnels) {
            if refused.contains(&place) {
                staying.push(tunnel);
                continue;
            }
            let identity = &tunnel.state.identity;
            let (client, balancer) = (identity.client(), identity.balancer());
            // Only close(2): whatever else is done to a socket is done to the other process's, too.
            drop(tunnel);
            proxy.limits.leave(client, balancer);
            proxy.counters.handed_out.add(1);
            self.moved.given += 1;
        }
        self.moved.refused += staying.len() as u64;
        self.server.workers.put_back(staying, true);
    }

    /// The batch goes on here, as if nothing had been.
    pub(super) fn put_back(&mut self, number: u32) {
        if let Some(OnTheirWay { tunnels, .. }) = self.collected.remove(&number) {
            self.server.workers.put_back(tunnels, false);
        }
    }

    /// BATCH came.
    pub(super) fn came(&mut self, batch: Batch, descriptors: Vec<OwnedFd>) {
        self.unchecked = Some(Unchecked { batch, descriptors });
    }

    /// Waits until the workers go on with what was adopted. Without it batches stand still in a queue here, as many as
    /// there are, where workers get less time than this thread; the other process would still serve them.
    pub(super) async fn settle(&mut self) {
        // A worker that stands still for longer is no reason to give up.
        let _ = timeout(SETTLE, self.all_resumed()).await;
        if self.is_worker_gone {
            // Nothing more is taken by a process that is about to end: what it has not taken is not lost.
            pending::<()>().await;
        }
    }

    async fn all_resumed(&mut self) {
        while let Some(some) = self.resuming.join_next().await {
            match some.unwrap_or_default() {
                Some(pauses) => self.pauses.extend(pauses),
                None => self.is_worker_gone = true,
            }
        }
    }

    /// Looks at the batch that came: the places of those that this process cannot go on with.
    pub(super) fn check(&mut self, number: u32) -> Vec<u16> {
        let Some(Unchecked { batch, descriptors }) = self.unchecked.take() else {
            return Vec::new();
        };
        let mut descriptors = descriptors.into_iter();
        let records = descriptors.next().ok_or(io::ErrorKind::UnexpectedEof.into());
        let records = records.and_then(|memory| socket::read_memfd(memory, MOST_MEMORY));
        let records = records.unwrap_or_else(|error| {
            tracing::error!(%error, "handoff: the records of a batch cannot be read");
            Vec::new()
        });
        let mut records = Records(&records);
        let mut tunnels = Vec::new();
        let mut refused = Vec::new();
        for (place, cookies) in (0_u16..).zip(batch.cookies) {
            // Where this process has no room for a descriptor those behind it are missing, too.
            let sockets = descriptors.next().zip(descriptors.next());
            match tunnel(records.next(), sockets, cookies) {
                Ok(tunnel) => tunnels.push(tunnel),
                Err(error) => {
                    tracing::error!(%error, "handoff: a tunnel is refused, and stays where it is");
                    refused.push(place);
                }
            }
        }
        self.moved.refused += refused.len() as u64;
        let frozen_at = Duration::from_nanos(batch.frozen_at);
        self.held.insert(number, OnTheirWay { tunnels, frozen_at, is_given: false });
        refused
    }

    /// YOURS came.
    pub(super) fn was_given(&mut self, number: u32) {
        if let Some(batch) = self.held.get_mut(&number) {
            batch.is_given = true;
        }
    }

    /// The batch is this process's.
    pub(super) fn adopt(&mut self, number: u32) {
        let Some(OnTheirWay { mut tunnels, frozen_at, .. }) = self.held.remove(&number) else {
            return;
        };
        let proxy = &self.server.proxy;
        for Tunnel { state, .. } in &mut tunnels {
            state.count_handoff();
            proxy.limits.adopt(state.identity.client(), state.identity.balancer());
            proxy.counters.handed_in.add(1);
        }
        self.moved.adopted += tunnels.len() as u64;
        self.resuming.spawn(self.server.workers.resume(tunnels, frozen_at));
    }

    /// The batch is the other process's.
    pub(super) fn forget(&mut self, number: u32) {
        self.held.remove(&number);
    }

    /// How long tunnels stood still that came.
    pub(super) async fn pauses(&mut self) -> Pauses {
        self.all_resumed().await;
        let mut all = mem::take(&mut self.pauses);
        all.sort_unstable();
        Pauses(all)
    }
}

/// The process ends in the middle of it, or has none of them any more. Where the conversation panics what is this
/// process's goes on here, and the rest stays with the other one.
impl Drop for Batches {
    fn drop(&mut self) {
        if thread::panicking() {
            for (_, OnTheirWay { tunnels, .. }) in self.collected.drain() {
                self.server.workers.put_back(tunnels, false);
            }
            self.held.retain(|_, batch| batch.is_given);
            let given: Vec<_> = self.held.keys().copied().collect();
            for number in given {
                self.adopt(number);
            }
        }
        let count = |batches: &HashMap<u32, OnTheirWay>| {
            batches.values().map(|batch| batch.tunnels.len()).sum::<usize>()
        };
        let (collected, held) = (count(&self.collected), count(&self.held));
        if collected > 0 {
            tracing::warn!(
                "handoff: this process ends while {collected} tunnels are on their way to the other one, which goes on \
                 with those that have arrived"
            );
        }
        if held > 0 {
            tracing::warn!(
                "handoff: this process ends with {held} tunnels that it had not been given: they stay with the other one"
            );
        }
    }
}

/// The tunnel of a record and two sockets, where all of them belong together.
fn tunnel(
    record: Option<&[u8]>,
    sockets: Option<(OwnedFd, OwnedFd)>,
    cookies: Cookies,
) -> Result<Tunnel, Fault> {
    let (client, upstream) = sockets.ok_or(Fault::NoDescriptor)?;
    let (now, elapsed) = now();
    let record = record.ok_or(Fault::NoRecord)?;
    let state = State::from_bytes(record, now, elapsed).map_err(Fault::Record)?;
    let tunnel = Tunnel { client: client.into(), upstream: upstream.into(), state };
    match cookies_of(&tunnel) {
        Ok(its) if its == cookies => Ok(tunnel),
        _ => Err(Fault::OtherSocket),
    }
}

/// Why a tunnel cannot be gone on with here.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("this process may not open so many files")]
    NoDescriptor,
    #[error("its record is missing")]
    NoRecord,
    #[error("{0}")]
    Record(crate::tunnel::RecordFault),
    #[error("the sockets are not those that the record is of")]
    OtherSocket,
}

fn cookies_of(tunnel: &Tunnel) -> io::Result<Cookies> {
    let client = socket::cookie(&tunnel.client)?;
    Ok(Cookies { client, upstream: socket::cookie(&tunnel.upstream)? })
}

/// Now, as ticks and stamps count, and how long after the start of the count that is.
fn now() -> (Now, Duration) {
    let elapsed = workers::elapsed();
    (Now::at(elapsed), elapsed)
}

/// Records, each behind its length.
struct Records<'b>(&'b [u8]);

impl<'b> Iterator for Records<'b> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        let (length, rest) = self.0.split_first_chunk::<LENGTH>()?;
        let (record, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        self.0 = rest;
        Some(record)
    }
}

/// Pauses in microseconds, sorted.
pub(super) struct Pauses(Vec<u32>);

impl Pauses {
    /// The one that so many of a thousand are no longer than.
    fn of_thousand(&self, share: usize) -> u32 {
        let last = self.0.len().saturating_sub(1);
        self.0.get(last * share / 1_000).copied().unwrap_or_default()
    }
}

impl fmt::Display for Pauses {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, share) in [("p50", 500), ("p99", 990), ("max", 1_000)] {
            let micros = self.of_thousand(share);
            let separator = if share == 500 { "" } else { " " };
            write!(out, "{separator}pause_{name}={}.{:03}ms", micros / 1_000, micros % 1_000)?;
        }
        Ok(())
    }
}
