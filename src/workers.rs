//! The workers: threads that have all connections and tunnels of the process.
//!
//! One per core, each with its own poll, its own slabs of connections and tunnels, and one read buffer that they share. A
//! connection lives on the worker that it was given to at accept, from its first byte to its log line, so that moving
//! bytes takes no lock and no other thread; an idle tunnel is one slot of a slab. One task per tunnel would cost more of
//! both (`docs/architecture.md`). This file is the handle that control has: `worker` is a thread, `connections` are
//! what it has beside tunnels, `slot` is a tunnel on it. What happens to a connection is in
//! `connection`, and to a tunnel in [`tunnel`](crate::tunnel).

mod accept;
mod bulk;
mod connections;
pub mod handoff;
mod links;
pub(crate) mod looks;
mod origin;
pub(crate) mod quietest;
mod readiness;
mod room;
mod slot;
mod sockets;
mod turn;
mod user_agents;
mod wheel;
mod worker;

use std::io;
use std::mem;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::{Poll, Waker};
use tokio::sync::Notify;

use crate::drain::Stage;
use crate::end::{End, Phase, Reason, Side};
use crate::http::request_id::RequestIds;
use crate::metrics::worker::WorkerMetrics;
use crate::proxy::Proxy;
use crate::tunnel::Tunnel;
use crate::tunnel::rules::Rulebook;

use accept::{Listening, NewConnection};
use looks::Look;
use worker::Worker;

pub(crate) use origin::elapsed;
pub use origin::{count_from, start};

pub use crate::tunnel::Options;
pub use crate::websocket::count_messages;

/// The workers. A clone is another handle of the same threads.
///
/// The threads live until [`Workers::stop`]; tunnels go on when all handles are gone.
#[derive(Clone)]
pub struct Workers {
    shared: Arc<Shared>,
}

/// Where a tunnel was, or is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The number of its worker.
    pub worker: usize,
    /// Its place there.
    pub key: usize,
}

/// What is told of each tunnel that ended, on a worker's thread; where it was, if it was at a place.
type OnEnd = dyn Fn(Tunnel, End, Option<Position>) + Send + Sync;

struct Shared {
    doors: Vec<Arc<Door>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    on_end: Arc<OnEnd>,
    /// The thread that is asked next for tunnels.
    next: AtomicUsize,
    /// Told when a worker ends.
    gone: Arc<Notify>,
    /// Held by whoever has a worker look at its tunnels, until it has answered.
    asks: tokio::sync::Mutex<()>,
}

/// Tells that a worker has ended, whatever ended it.
struct Leaves(Arc<Notify>);

impl Drop for Leaves {
    fn drop(&mut self) {
        // Kept for whoever asks later.
        self.0.notify_one();
    }
}

/// The way into one thread.
struct Door {
    number: usize,
    inbox: Mutex<Inbox>,
    waker: Waker,
    /// Tunnels that went in and have neither ended nor been taken out.
    open: AtomicUsize,
    /// Connections there that are no tunnels.
    connections: AtomicUsize,
    /// Its thread is gone: no tunnel is sent there any more.
    is_gone: AtomicBool,
    /// What its thread counts.
    metrics: Arc<WorkerMetrics>,
}

/// What a thread is asked to do. It looks here only when it is woken, never for a message.
#[derive(Default)]
struct Inbox {
    orders: Vec<Order>,
    /// The thread is gone and nobody will look again.
    closed: bool,
}

// Nearly all are tunnels. A box for each would be freed, and its memory kept, by another thread than
// the one that took it.
#[allow(clippy::large_enum_variant)]
enum Order {
    Adopt {
        tunnel: Tunnel,
        stays: bool,
    },
    Resume(handoff::Batch),
    Take(handoff::Request),
    Enter(NewConnection),
    Serve(Arc<Proxy>, RequestIds),
    Listen(Box<Listening>),
    StopListening,
    /// The drain has come to this stage.
    Stage(Stage),
    /// The upstream's addresses are known, or cannot be, for which this connection waited.
    AddressesAreKnown {
        key: usize,
        number: u64,
    },
    TakeAll(mpsc::Sender<Vec<Tunnel>>),
    /// Somebody asks what there is.
    Look(Look),
    Drain(Duration),
    Stop,
}

/// The end of a tunnel that is still there, or comes, when the workers stop.
const STOPPED: End = End::new(Side::Elbows, Phase::Drain, Reason::PeriodOver);

impl Workers {
    /// Starts so many workers.
    ///
    /// `on_end` gets each tunnel that ended, whole and exactly once, on a worker's thread, where it
    /// must not block and must not call [`Workers::take_all`]. It drops the sockets before it returns, which closes
    /// them: until then the worker hears of them. If it panics, the tunnel closes and the thread goes on. It is told
    /// where the tunnel was, too.
    ///
    /// Fails when the system has no descriptor or no thread left.
    pub fn start(
        threads: NonZeroUsize,
        options: &Options,
        on_end: impl Fn(Tunnel, End, Option<Position>) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let on_end: Arc<OnEnd> = Arc::new(on_end);
        let rulebook = Rulebook::new(options);
        let mut doors = Vec::with_capacity(threads.get());
        let mut handles = Vec::with_capacity(threads.get());
        let gone = Arc::<Notify>::default();
        let mut start_one = |number: usize| -> io::Result<()> {
            let poll = Poll::new()?;
            let waker = Waker::new(poll.registry(), worker::WOKEN)?;
            let door = Arc::new(Door::new(number, waker));
            let (on_end, loads) = (Arc::clone(&on_end), options.loads.clone());
            let worker = Worker::new(poll, Arc::clone(&door), on_end, rulebook.clone(), loads);
            let handle = thread::Builder::new().name(format!("worker-{number}")).spawn({
                let gone = Leaves(Arc::clone(&gone));
                move || {
                    worker.run();
                    drop(gone);
                }
            })?;
            doors.push(door);
            handles.push(handle);
            Ok(())
        };
        let started = (0..threads.get()).try_for_each(&mut start_one);
        let workers = Self {
            shared: Arc::new(Shared {
                doors,
                threads: Mutex::new(handles),
                on_end,
                next: AtomicUsize::new(0),
                gone,
                asks: tokio::sync::Mutex::default(),
            }),
        };
        if let Err(fault) = started {
            workers.stop();
            return Err(fault);
        }
        Ok(workers)
    }

    /// Takes in a tunnel: the one door. It goes to the thread that has the fewest.
    ///
    /// Where it cannot be registered it ends at once (`by=elbows why=no_room`), and after
    /// [`Workers::stop`] too (`by=elbows during=drain why=period_over`, told on the caller's thread).
    pub fn adopt(&self, tunnel: Tunnel) {
        self.adopt_one(tunnel, false);
    }

    fn adopt_one(&self, tunnel: Tunnel, stays: bool) {
        let Some(door) = self.fewest() else {
            return (self.shared.on_end)(tunnel, STOPPED, None);
        };
        door.open.fetch_add(1, Ordering::Relaxed);
        if let Some(Order::Adopt { tunnel, .. }) = door.send(Order::Adopt { tunnel, stays }) {
            door.open.fetch_sub(1, Ordering::Relaxed);
            (self.shared.on_end)(tunnel, STOPPED, None);
        }
    }

    /// The thread that has the fewest tunnels.
    fn fewest(&self) -> Option<&Arc<Door>> {
        let doors = self.shared.doors.iter().filter(|door| !door.is_gone.load(Ordering::Relaxed));
        doors.min_by_key(|door| door.open.load(Ordering::Relaxed))
    }

    /// Serves connections, once there are any. `process` is a number that nobody can foresee; request ids begin with
    /// it.
    pub(crate) fn serve(&self, proxy: &Arc<Proxy>, process: u64) {
        for (number, door) in self.shared.doors.iter().enumerate() {
            drop(door.send(Order::Serve(Arc::clone(proxy), RequestIds::new(process, number))));
        }
    }

    /// Accepts connections from now on from `listener`, which is non-blocking, and from no other.
    pub(crate) fn listen(&self, listener: TcpListener) {
        let listening = Box::new(Listening::new(listener, self.shared.doors.clone()));
        let first = self.shared.doors.first();
        if first.is_none_or(|door| door.send(Order::Listen(listening)).is_some()) {
            tracing::error!("no worker is there to listen");
        }
    }

    /// Connections that are on the workers now and are no tunnels.
    #[must_use]
    pub fn connections(&self) -> usize {
        let connections = |door: &Arc<Door>| door.connections.load(Ordering::Relaxed);
        self.shared.doors.iter().map(connections).sum()
    }

    /// Tells all workers that the drain has come to `stage`. From [`Stage::Finishing`] on the listener is closed, and
    /// connections on which nothing is under way end; with [`Stage::Over`] all that are no tunnels are cut.
    pub(crate) fn stage(&self, stage: Stage) {
        for door in &self.shared.doors {
            // A thread that is gone has no connections.
            drop(door.send(Order::Stage(stage)));
        }
    }

    /// Tunnels that are on the workers now: adopted, not ended, not taken out.
    #[must_use]
    pub fn open(&self) -> usize {
        let open = |door: &Arc<Door>| door.open.load(Ordering::Relaxed);
        self.shared.doors.iter().map(open).sum()
    }

    /// Waits until a worker has ended, by a fault or by [`Workers::stop`].
    pub(crate) async fn worker_gone(&self) {
        self.shared.gone.notified().await;
    }

    /// Says goodbye to the client of each WebSocket tunnel with a Close, at moments that are spread
    /// evenly and at random over `period`; tunnels that are adopted from now on get it in the rest of
    /// the period, or at once. Each ends when its client has answered (`by=elbows why=drained`) or
    /// after [`Options::grace`] (`why=timeout`). Both streams of other
    /// tunnels end with the period (`why=period_over`).
    pub fn drain(&self, period: Duration) {
        for door in &self.shared.doors {
            // A thread that is gone has no tunnels.
            drop(door.send(Order::Drain(period)));
        }
    }

    /// Takes every tunnel out, whole: what waits, counters, half-closed and broken sides. Another
    /// process can [`Workers::adopt`] it and go on without a byte lost or doubled.
    ///
    /// A tunnel that is over and only waits for its last bytes to be acknowledged ends now instead.
    /// Blocks until each thread has looked up from its work; not to be called on a worker's thread.
    #[must_use = "a tunnel that is dropped is closed"]
    pub fn take_all(&self) -> Vec<Tunnel> {
        let (sender, receiver) = mpsc::channel();
        for door in &self.shared.doors {
            // A thread that is gone has no tunnels.
            drop(door.send(Order::TakeAll(sender.clone())));
        }
        drop(sender);
        receiver.into_iter().flatten().collect()
    }

    /// Ends the threads and waits for them. Tunnels that were not taken out before end
    /// (`by=elbows during=drain why=period_over`).
    pub fn stop(&self) {
        for door in &self.shared.doors {
            drop(door.send(Order::Stop));
        }
        let threads = mem::take(&mut *lock(&self.shared.threads));
        for handle in threads {
            let own = handle.thread().id() == thread::current().id();
            if !own && handle.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

impl Door {
    fn new(number: usize, waker: Waker) -> Self {
        Self {
            number,
            inbox: Mutex::default(),
            waker,
            open: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            is_gone: AtomicBool::new(false),
            metrics: Arc::default(),
        }
    }

    /// Gives the order back where the thread is gone.
    fn send(&self, order: Order) -> Option<Order> {
        let mut inbox = lock(&self.inbox);
        if inbox.closed {
            return Some(order);
        }
        let is_first = inbox.orders.is_empty();
        inbox.orders.push(order);
        drop(inbox);
        // Whoever put the first order in has woken the thread for those behind it, too.
        if is_first && let Err(fault) = self.waker.wake() {
            tracing::error!(%fault, "cannot wake a worker");
        }
        None
    }

    /// Gives the connection back where the thread is gone.
    fn welcome(&self, connection: NewConnection) -> Option<NewConnection> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        match self.send(Order::Enter(connection)) {
            Some(Order::Enter(connection)) => Some(connection),
            _ => None,
        }
    }

    fn take_orders(&self) -> Vec<Order> {
        mem::take(&mut lock(&self.inbox).orders)
    }

    /// Takes the last orders; none will be accepted after them.
    fn close(&self) -> Vec<Order> {
        let mut inbox = lock(&self.inbox);
        inbox.closed = true;
        mem::take(&mut inbox.orders)
    }
}

/// No invariant spans the lock, so that a panic elsewhere has not spoiled what is inside.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
