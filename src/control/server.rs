//! The running process: what its connections share, its workers, and what it listens on.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::admin::{self, Scrape};
use super::handoff::{self, Before, Door, Event, Later};
use super::health;
use super::listeners::Listeners;
use crate::access_log::AccessLog;
use crate::config::Config;
use crate::config::routing::Routing;
use crate::drain::Stage;
use crate::end::{End, Phase, Reason, Side};
use crate::feed::Feed;
use crate::handoff::ANSWER;
use crate::limits::Limits;
use crate::metrics::Counters;
use crate::proxy::Proxy;
use crate::routes::Routes;
use crate::socket;
use crate::upstream::Loads;
use crate::warnings::Warnings;
use crate::workers::{self, Workers};

/// How long listening again waits for a descriptor.
const LISTEN_AGAIN: Duration = Duration::from_millis(200);

/// The running process.
pub(super) struct Server {
    pub(super) proxy: Arc<Proxy>,
    pub(super) workers: Workers,
    /// How successors come in.
    pub(super) door: Door,
    /// The process before this one: its late tunnels come here while it finishes.
    pub(super) before: watch::Sender<Before>,
    /// What it has to know meanwhile.
    pub(super) later: watch::Sender<Later>,
    /// Kept for a successor; workers and tasks have copies.
    listeners: Mutex<Option<Listeners>>,
    /// What accepts on the listeners that are control's.
    tasks: Mutex<Vec<AbortHandle>>,
    /// Tunnels are being evened out over their endpoints.
    pub(super) is_rebalancing: AtomicBool,
    /// It went on with what another process served before it.
    pub(super) took_over: AtomicBool,
    /// What the port for health checks says.
    pub(super) is_healthy: Arc<AtomicBool>,
    /// What the admin port reads.
    pub(super) scrape: Scrape,
    pub(super) started: Instant,
    /// Another process has the listeners and serves.
    pub(super) handed_on: watch::Sender<bool>,
    /// Tunnels that end from now on end in the drain.
    is_finishing: Arc<AtomicBool>,
    /// Since when another process has the listeners.
    made_way_at: Mutex<Option<Instant>>,
    /// When the listeners close, once the process is told to stop.
    leaves_at: Mutex<Option<Instant>>,
    events: mpsc::Sender<Event>,
}

impl Server {
    /// Starts everything but listening.
    pub(super) fn start(
        config: Config,
        routing: &Routing,
        access_log: AccessLog,
        events: mpsc::Sender<Event>,
    ) -> io::Result<Arc<Self>> {
        let counters = Arc::<Counters>::default();
        let config = Arc::new(config);
        let limits = Limits::new(&config, Instant::now());
        let is_finishing = Arc::new(AtomicBool::new(false));
        let feed = Feed::default();
        let loads = Loads::default();
        let workers =
            start_workers(&config, &access_log, &limits, &is_finishing, &counters, &loads, &feed)?;
        let routes = Arc::new(Routes::new(&config, routing, &loads, &Handle::current()));
        let warnings = Warnings::default();
        let proxy =
            Arc::new(Proxy { config, routes, access_log, counters, limits, warnings, feed });
        workers.serve(&proxy, RandomState::new().hash_one(0));
        Ok(Arc::new(Self {
            proxy,
            workers,
            door: Door::default(),
            before: watch::Sender::default(),
            later: watch::Sender::default(),
            listeners: Mutex::default(),
            tasks: Mutex::default(),
            is_rebalancing: AtomicBool::new(false),
            took_over: AtomicBool::new(false),
            is_healthy: Arc::new(AtomicBool::new(true)),
            scrape: Scrape::default(),
            started: Instant::now(),
            handed_on: watch::Sender::new(false),
            is_finishing,
            made_way_at: Mutex::default(),
            leaves_at: Mutex::default(),
            events,
        }))
    }

    /// Accepts connections on these.
    ///
    /// # Errors
    /// There is no descriptor left for it.
    pub(super) fn listen(self: &Arc<Self>, listeners: Listeners) -> io::Result<()> {
        socket::tune(&listeners.main, self.proxy.config.stall_timeout);
        let address = listeners.main.local_addr()?;
        *locked(&self.listeners) = Some(listeners);
        self.accept()?;
        if let Some(file) = &self.proxy.config.config_file {
            let routes = self.proxy.routes.named().count();
            tracing::info!("listening on {address}; {} has {routes} routes", file.display());
        } else {
            let destination = self.proxy.config.destination();
            tracing::info!("listening on {address}, passing on to {destination}");
        }
        Ok(())
    }

    /// Accepts connections again, after [`Server::stop_listening`]; where there is no descriptor for it, as soon as there is.
    pub(super) fn listen_again(self: &Arc<Self>) {
        self.handed_on.send_replace(false);
        // It may drain already, and be in the time before listeners close.
        let is_leaving = locked(&self.leaves_at).is_some();
        self.workers.stage(if is_leaving { Stage::Leaving } else { Stage::Serving });
        if let Err(error) = self.accept() {
            tracing::error!(%error, "cannot listen again yet");
            let server = Arc::clone(self);
            tokio::spawn(async move {
                sleep(LISTEN_AGAIN).await;
                server.stop_listening();
                server.listen_again();
            });
        }
    }

    /// Each listener is used by a copy of its descriptor: the other one is kept, to be handed over or used again.
    fn accept(self: &Arc<Self>) -> io::Result<()> {
        let listeners = self.listeners();
        let Some(listeners) = &*listeners else { return Ok(()) };
        self.workers.listen(listeners.main.try_clone()?);
        let mut tasks = locked(&self.tasks);
        if let Some(health) = &listeners.health {
            let health = tokio::net::TcpListener::from_std(health.try_clone()?)?;
            let (proxy, is_healthy) = (Arc::clone(&self.proxy), Arc::clone(&self.is_healthy));
            tasks.push(tokio::spawn(health::serve(health, proxy, is_healthy)).abort_handle());
        }
        if let Some(admin) = &listeners.admin {
            let serve = admin::serve(admin.try_clone()?, Arc::clone(self));
            let serve = async {
                if let Err(error) = serve.await {
                    tracing::error!(%error, "the admin port cannot be served");
                }
            };
            tasks.push(tokio::spawn(serve).abort_handle());
        }
        if let Some(handoff) = &listeners.handoff {
            let handoff = handoff.as_fd().try_clone_to_owned()?;
            let accept = handoff::accept(Arc::clone(self), handoff, self.events.clone());
            tasks.push(tokio::spawn(accept).abort_handle());
        }
        Ok(())
    }

    /// What it listens on, while it does.
    pub(super) fn listeners(&self) -> MutexGuard<'_, Option<Listeners>> {
        locked(&self.listeners)
    }

    /// Where control hears of handoffs.
    pub(super) const fn events(&self) -> &mpsc::Sender<Event> {
        &self.events
    }

    /// Accepts no more. Connections wait in the kernel for whoever has the listeners, too.
    pub(super) fn stop_listening(&self) {
        self.workers.stop_listening();
        for task in locked(&self.tasks).drain(..) {
            task.abort();
        }
    }

    /// Listeners will close after `delay`: health checks fail from now on.
    pub(super) fn leave_in(&self, delay: Duration) {
        *locked(&self.leaves_at) = Some(Instant::now() + delay);
        self.is_healthy.store(false, Ordering::Relaxed);
        self.workers.stage(Stage::Leaving);
    }

    /// Another process has the listeners. What is under way here may finish.
    pub(super) fn make_way(&self) {
        *locked(&self.made_way_at) = Some(Instant::now());
        self.workers.stage(Stage::Yielding);
        self.handed_on.send_replace(true);
    }

    /// Another process is about to take over. The one before this one, where it still finishes, hears so first: were this one
    /// killed in the middle, it would listen again beside the other.
    pub(super) async fn announce_successor(&self) {
        self.later.send_replace(Later::HandsOn);
        let mut before = self.before.subscribe();
        let told = before.wait_for(|before| *before != Before::Finishes);
        // One that does not read is no reason to wait for long.
        let _ = timeout(ANSWER, told).await;
    }

    /// The other process does not take over. The one before this one listens again where this one dies.
    pub(super) fn withdraw_successor(&self) {
        self.later.send_if_modified(|later| {
            let is_announced = *later == Later::HandsOn;
            if is_announced {
                *later = Later::Serves;
            }
            is_announced
        });
    }

    /// How long what is left here has until it is ended: since another process has the listeners, if one has.
    pub(super) fn period(&self) -> Duration {
        let since = locked(&self.made_way_at).map(|at| at.elapsed());
        self.proxy.config.drain_period.saturating_sub(since.unwrap_or_default())
    }

    /// Takes nothing more from the process before, which is told so where it still finishes.
    pub(super) async fn leave_predecessor(&self) {
        self.later.send_replace(Later::Leaves);
        let mut before = self.before.subscribe();
        let gone = before.wait_for(|before| *before == Before::Gone);
        // One that does not answer finds out by the end of the connection.
        let _ = timeout(ANSWER, gone).await;
    }

    /// What is under way may finish, and the rest ends.
    pub(super) fn finish(&self) {
        self.is_finishing.store(true, Ordering::Relaxed);
        self.is_healthy.store(false, Ordering::Relaxed);
        self.workers.stage(Stage::Finishing);
    }

    /// Nobody is accepted here any more, nor waits to be. Health checks are answered to the very end.
    pub(super) fn close_listeners(&self) {
        *locked(&self.listeners) = None;
    }

    /// In how many milliseconds the listeners close, where the process is told to stop. An error: connections are being
    /// ended already.
    pub(super) fn drains_in(&self, now: Instant) -> Result<Option<u64>, ()> {
        if self.is_finishing.load(Ordering::Relaxed) {
            return Err(());
        }
        let left = locked(&self.leaves_at).map(|at| at.saturating_duration_since(now));
        Ok(left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)))
    }
}

fn start_workers(
    config: &Config,
    access_log: &AccessLog,
    limits: &Limits,
    is_finishing: &Arc<AtomicBool>,
    counters: &Arc<Counters>,
    loads: &Loads,
    feed: &Feed,
) -> io::Result<Workers> {
    let feed = feed.clone();
    let (access_log, is_finishing) = (access_log.clone(), Arc::clone(is_finishing));
    let (limits, counters) = (limits.clone(), Arc::clone(counters));
    let options = workers::Options {
        counters: Arc::clone(&counters),
        loads: loads.clone(),
        times_rounds: config.admin_listen_on.is_some(),
        ..workers::Options::of(config)
    };
    Workers::start(config.threads, &options, move |tunnel, mut end, position| {
        if is_finishing.load(Ordering::Relaxed) && end.during == Phase::Relay {
            end.during = Phase::Drain;
        }
        match end {
            End { why: Reason::PeriodOver, .. } => counters.cut.add(1),
            End { why: Reason::Drained, .. } => counters.drained.add(1),
            End { by: Side::Elbows, during: Phase::Drain, why: Reason::Timeout } => {
                counters.unanswered.add(1);
            }
            _ => {}
        }
        let state = &tunnel.state;
        counters.ends.count(end, state.close(), state.identity.age(workers::elapsed()));
        feed.ended(state, end, position);
        access_log.tunnel(&tunnel, end);
        let (client, balancer) = (tunnel.state.identity.client(), tunnel.state.identity.balancer());
        // The sockets close before the tunnel is counted out.
        drop(tunnel);
        limits.leave(client, balancer);
    })
}

/// No invariant spans the lock.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
