//! Control: it binds listeners, starts the workers, and follows the orders that end them. It has one thread, on which
//! tokio runs signals, name resolution and the port for health checks; it never touches a client's byte.
//!
//! [`run`] takes everything that it needs as arguments (settings, bound listeners, orders), so that
//! tests and the demo run the very thing that the binary runs.

mod health;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::access_log::AccessLog;
use crate::config::{Config, FrameCheck};
use crate::drain::Stage;
use crate::end::{End, Phase, Reason, Side};
use crate::limits::Limits;
use crate::listener;
use crate::metrics::Counters;
use crate::proxy::Proxy;
use crate::socket;
use crate::summary::Summary;
use crate::upstream::{self, Addresses};
use crate::warnings::Warnings;
use crate::workers::{self, Workers};

/// How long tunnels whose client did not answer its Close, 0.2 s of it for a Close into a message that did
/// not end, have to tell the application: with the defaults, 9.3 s in all, under the 10 s of `docker stop`.
const LAST_CLOSES: Duration = Duration::from_millis(300);

/// Some supervisors send two signals for one stop (SIGTERM and SIGINT): a second order counts from so long after the
/// first.
const ONE_STOP: Duration = Duration::from_secs(1);

/// How long connections that are cut at the end get to write their log lines.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The listeners, bound before [`run`].
#[derive(Debug)]
pub struct Listeners {
    /// Where load balancers connect.
    pub main: TcpListener,
    /// For health checks alone.
    pub health: Option<TcpListener>,
}

impl Listeners {
    /// Binds what the settings name.
    ///
    /// # Errors
    /// The variable, its value and what the kernel said.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        let bind = |variable, listen_on| {
            listener::bind(listen_on).map_err(|source| BindError {
                variable,
                value: listen_on.to_string(),
                source,
            })
        };
        Ok(Self {
            main: bind("LISTEN_ON", &config.listen_on)?,
            health: match &config.health_listen_on {
                Some(listen_on) => Some(bind("HEALTH_LISTEN_ON", listen_on)?),
                None => None,
            },
        })
    }
}

/// A listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("{variable}={value}: cannot listen there: {source}")]
pub struct BindError {
    variable: &'static str,
    value: String,
    source: io::Error,
}

/// What a running server can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Drain and end; told again a second or more later, end at once.
    Stop,
    /// Write a summary to the log.
    Report,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Connections with a request under way, and tunnels, that were cut.
    pub cut: u64,
    /// A second [`Order::Stop`] ended the drain before its time.
    pub hurried: bool,
}

/// Serves until an order ends it.
///
/// # Errors
/// A listener or the workers could not be started, or a worker died: its connections are lost, and who asks for the
/// process's health would be told that all is well.
pub async fn run(
    config: Config,
    listeners: Listeners,
    access_log: AccessLog,
    orders: mpsc::Receiver<Order>,
) -> io::Result<Outcome> {
    socket::tune(&listeners.main, config.stall_timeout);
    let listening_on = listeners.main.local_addr()?;
    let health = listeners.health.map(tokio::net::TcpListener::from_std).transpose()?;
    let counters = Arc::<Counters>::default();
    let limits = Limits::new(&config, Instant::now());
    let is_finishing = Arc::new(AtomicBool::new(false));
    let workers = start_workers(&config, &access_log, &limits, &is_finishing, &counters)?;
    let addresses = Addresses::new(&config.destination(), Handle::current());
    let warnings = Warnings::default();
    tokio::spawn(warnings.clone().run());
    let proxy = Arc::new(Proxy { config, access_log, counters, limits, addresses, warnings });

    tracing::info!("listening on {listening_on}, passing on to {}", proxy.config.destination());
    tokio::spawn(warn_if_unresolved(Arc::clone(&proxy)));
    let process = RandomState::new().hash_one(0);
    workers.serve(&proxy, process);
    workers.listen(listeners.main);
    let is_healthy = Arc::new(AtomicBool::new(true));
    let checking = health.map(|health| {
        tokio::spawn(health::serve(health, Arc::clone(&proxy), Arc::clone(&is_healthy)))
    });
    let mut control = Control {
        proxy: &proxy,
        workers: &workers,
        is_healthy,
        is_finishing,
        summary: Summary::start(),
        orders,
    };
    let hurried = tokio::select! {
        hurried = control.drain_when_told() => Ok(hurried),
        () = workers.worker_gone() => Err(io::Error::other("a worker died")),
    };

    if let Some(checking) = checking {
        checking.abort();
    }
    workers.stop();
    tracing::info!("ended; {}", proxy.counters);
    Ok(Outcome { cut: proxy.counters.cut.get(), hurried: hurried? })
}

fn start_workers(
    config: &Config,
    access_log: &AccessLog,
    limits: &Limits,
    is_finishing: &Arc<AtomicBool>,
    counters: &Arc<Counters>,
) -> io::Result<Workers> {
    let (access_log, is_finishing) = (access_log.clone(), Arc::clone(is_finishing));
    let (limits, counters) = (limits.clone(), Arc::clone(counters));
    let options = workers::Options {
        strict: config.frame_check == FrameCheck::Strict,
        max_frame_size: config.max_frame_size,
        max_message_size: config.max_message_size,
        ping_interval: config.ping_interval,
        ping_upstream_interval: config.ping_upstream_interval,
        pong_timeout: config.pong_timeout,
        idle_timeout: config.idle_timeout,
        max_lifetime: config.max_lifetime,
        stall_timeout: config.stall_timeout,
        close_code: config.drain_close_code,
        grace: config.drain_grace,
        counters: Arc::clone(&counters),
    };
    Workers::start(config.threads, &options, move |tunnel, mut end| {
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
        access_log.tunnel(&tunnel, end);
        let (client, balancer) = (tunnel.state.identity.client(), tunnel.state.identity.balancer());
        // The sockets close before the tunnel is counted out.
        drop(tunnel);
        limits.leave(client, balancer);
    })
}

/// Containers start in any order: a name that does not resolve yet is worth a word, no more.
async fn warn_if_unresolved(proxy: Arc<Proxy>) {
    let config = &proxy.config;
    if let Err(fault) = upstream::resolve(&config.destination(), config.connect_timeout).await {
        tracing::warn!("{fault}; requests get 502 until it does");
    }
}

/// What moves the drain, and is told to.
struct Control<'a> {
    proxy: &'a Proxy,
    workers: &'a Workers,
    /// What the port for health checks says.
    is_healthy: Arc<AtomicBool>,
    /// Tunnels that end from now on end in the drain.
    is_finishing: Arc<AtomicBool>,
    summary: Summary,
    orders: mpsc::Receiver<Order>,
}

impl Control<'_> {
    /// Follows orders until everything is over: the path drawn in [`crate::drain`]. Says whether a second
    /// order ended it before its time.
    async fn drain_when_told(&mut self) -> bool {
        self.told_to_stop(Instant::now()).await;
        let again = Instant::now() + ONE_STOP;
        let Self { proxy, workers, .. } = *self;
        let (config, census) = (&proxy.config, proxy.limits.census());
        self.is_healthy.store(false, Ordering::Relaxed);
        workers.stage(Stage::Leaving);
        tracing::info!(
            "draining {} open: health checks fail now, listeners close in {:?}, WebSockets get a Close \
             over {:?}, the rest is cut {:?} after that",
            census.open(),
            config.drain_delay,
            config.drain_period,
            config.drain_grace
        );
        let delay = tokio::time::sleep(config.drain_delay);
        let mut hurried = tokio::select! {
            () = delay => false,
            () = self.told_to_stop(again) => true,
        };
        self.is_finishing.store(true, Ordering::Relaxed);
        workers.stage(Stage::Finishing);
        if !hurried {
            workers.drain(config.drain_period);
            let grace = config.drain_grace.saturating_add(LAST_CLOSES);
            let longest = config.drain_period.saturating_add(grace);
            let finished = timeout(longest, census.empty());
            hurried = tokio::select! {
                _ = finished => false,
                () = self.told_to_stop(again) => true,
            };
        }

        if hurried {
            // Where no message is under way its client can be sent a Close.
            workers.drain(Duration::ZERO);
            let _ = timeout(LAST_CLOSES, census.empty()).await;
        }
        workers.stage(Stage::Over);
        for tunnel in workers.take_all() {
            proxy.counters.cut.add(1);
            let end = End::new(Side::Elbows, Phase::Drain, Reason::PeriodOver);
            proxy.access_log.tunnel(&tunnel, end);
            let (client, balancer) =
                (tunnel.state.identity.client(), tunnel.state.identity.balancer());
            drop(tunnel);
            proxy.limits.leave(client, balancer);
        }
        let _ = timeout(LAST_WORDS, census.empty()).await;
        hurried
    }

    /// Waits for an [`Order::Stop`] that does not come before `from`; reports meanwhile. Orders that can no longer come
    /// mean the same.
    async fn told_to_stop(&mut self, from: Instant) {
        while let Some(order) = self.orders.recv().await {
            match order {
                Order::Stop if Instant::now() >= from => return,
                Order::Stop => {}
                Order::Report => self.summary.write(self.proxy, self.workers),
            }
        }
    }
}
