//! The server: listeners, front, relay, and the orders that end them.
//!
//! [`run`] takes everything that it needs as arguments (settings, bound listeners, orders), so that
//! tests and the demo run the very thing that the binary runs.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::access_log::AccessLog;
use crate::config::{Config, FrameCheck};
use crate::connection::direct::Porch;
use crate::drain::{Census, Drain, Stage};
use crate::end::{End, Phase, Reason, Side};
use crate::http::{Front, RequestIds, health};
use crate::limits::Limits;
use crate::listener;
use crate::metrics::Counters;
use crate::relay::{self, Relay};
use crate::socket;
use crate::summary::Summary;
use crate::upstream::Upstream;

/// How long tunnels whose client did not answer its Close, 0.2 s of it for a Close into a message that did
/// not end, have to tell the application: with the defaults, 9.3 s in all, under the 10 s of `docker stop`.
const LAST_CLOSES: Duration = Duration::from_millis(300);

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
    /// Drain and end; told a second time, end at once.
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
/// A listener or the relay could not be started. Once it serves, nothing is fatal.
pub async fn run(
    config: Config,
    listeners: Listeners,
    access_log: AccessLog,
    mut orders: mpsc::Receiver<Order>,
) -> io::Result<Outcome> {
    socket::tune(&listeners.main, config.stall_timeout);
    let listening_on = listeners.main.local_addr()?;
    let health = listeners.health.map(tokio::net::TcpListener::from_std).transpose()?;
    let (stage, drain) = Drain::new();
    let census = Census::default();
    let counters = Arc::<Counters>::default();
    let limits = Limits::new(&config);
    let relay = start_relay(&config, &access_log, &census, &limits, &drain, &counters)?;
    let upstream =
        Upstream::new(&config.destination(), config.connect_timeout, config.stall_timeout);
    let front = Arc::new(Front {
        pool: upstream.pool(),
        upstream,
        relay,
        access_log,
        counters,
        census,
        drain,
        limits,
        request_ids: RequestIds::new(),
        config,
    });

    tracing::info!("listening on {listening_on}, passing on to {}", front.config.destination());
    tokio::spawn(warn_if_unresolved(Arc::clone(&front)));
    front.relay.listen(listeners.main, Arc::new(Porch::new(Arc::clone(&front))));
    let checking = health.map(|health| tokio::spawn(serve_health(health, Arc::clone(&front))));

    let hurried = drain_when_told(&front, &stage, &mut orders).await;

    if let Some(checking) = checking {
        checking.abort();
    }
    front.relay.stop();
    tracing::info!("ended; {}", front.counters);
    Ok(Outcome { cut: front.counters.cut.get(), hurried })
}

fn start_relay(
    config: &Config,
    access_log: &AccessLog,
    census: &Census,
    limits: &Limits,
    drain: &Drain,
    counters: &Arc<Counters>,
) -> io::Result<Relay> {
    let (access_log, census, drain) = (access_log.clone(), census.clone(), drain.clone());
    let (limits, counters) = (limits.clone(), Arc::clone(counters));
    let options = relay::Options {
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
    Relay::start(config.threads, &options, move |tunnel, mut end| {
        if drain.is_finishing() && end.during == Phase::Relay {
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
        census.leave();
    })
}

/// Answers health checks on their own port, to the very end of the process.
async fn serve_health(listener: tokio::net::TcpListener, front: Arc<Front>) {
    listener::accept(&listener, &front.counters, |socket| {
        tokio::spawn(health::serve(socket, Arc::clone(&front)));
    })
    .await;
}

/// Containers start in any order: a name that does not resolve yet is worth a word, no more.
async fn warn_if_unresolved(front: Arc<Front>) {
    if let Err(fault) = front.upstream.addresses().await {
        tracing::warn!("{fault}; requests get 502 until it does");
    }
}

/// Follows orders until everything is over: the path drawn in [`crate::drain`]. Says whether a second
/// order ended it before its time.
async fn drain_when_told(
    front: &Front,
    stage: &watch::Sender<Stage>,
    orders: &mut mpsc::Receiver<Order>,
) -> bool {
    let mut summary = Summary::start();
    told_to_stop(front, orders, &mut summary).await;
    stage.send_replace(Stage::Leaving);
    let config = &front.config;
    tracing::info!(
        "draining {} open: health checks fail now, listeners close in {:?}, WebSockets get a Close \
         over {:?}, the rest is cut {:?} after that",
        front.census.open(),
        config.drain_delay,
        config.drain_period,
        config.drain_grace
    );
    let delay = tokio::time::sleep(config.drain_delay);
    let mut hurried = tokio::select! {
        () = delay => false,
        () = told_to_stop(front, orders, &mut summary) => true,
    };
    stage.send_replace(Stage::Finishing);
    front.relay.shut();
    if !hurried {
        front.relay.drain(config.drain_period);
        let grace = config.drain_grace.saturating_add(LAST_CLOSES);
        let longest = config.drain_period.saturating_add(grace);
        let finished = timeout(longest, front.census.empty());
        hurried = tokio::select! {
            _ = finished => false,
            () = told_to_stop(front, orders, &mut summary) => true,
        };
    }

    front.access_log.cut();
    stage.send_replace(Stage::Over);
    for tunnel in front.relay.take_all() {
        front.counters.cut.add(1);
        let end = End::new(Side::Elbows, Phase::Drain, Reason::PeriodOver);
        front.access_log.tunnel(&tunnel, end);
        front.limits.leave(tunnel.state.identity.client(), tunnel.state.identity.balancer());
        drop(tunnel);
        front.census.leave();
    }
    let _ = timeout(LAST_WORDS, front.census.empty()).await;
    hurried
}

/// Waits for [`Order::Stop`]; reports meanwhile. Orders that can no longer come mean the same.
async fn told_to_stop(front: &Front, orders: &mut mpsc::Receiver<Order>, summary: &mut Summary) {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Stop => return,
            Order::Report => summary.write(front),
        }
    }
}
