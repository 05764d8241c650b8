//! Control: it starts the workers, and follows the orders that end them. It has one thread, on which
//! tokio runs signals, name resolution, the port for health checks and the handoff; it never touches a client's byte.
//!
//! ```text
//! start: nobody serves ─▶ listeners are bound ────────────────────┐
//!        somebody does ─▶ it offers ─▶ run: take over (`handoff`) ─┴▶ serve ─┬─ told to stop ─▶ drain ─▶ the end
//!                                                                           └─ handed over ─▶ finish ─▶ the end, or stay
//! ```
//!
//! [`run`] takes everything that it needs as arguments (settings, what it starts with, orders), so that
//! tests and the demo run the very thing that the binary runs.

mod activation;
mod admin;
mod checks;
mod handoff;
mod health;
mod listeners;
mod rebalancing;
mod server;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout;

use self::handoff::{Arrival, Before, Conversation, Event, Takeover};
use self::listeners::Added;
use self::server::Server;
use crate::access_log::AccessLog;
use crate::config::Config;
use crate::config::routing::Routing;
use crate::drain::Stage;
use crate::end::{End, Phase, Reason, Side};
use crate::handoff::{Outcome as HandoffOutcome, Why};
use crate::notify::Notify;
use crate::proxy::Proxy;
use crate::summary::Summary;
use crate::upstream;
use crate::workers;

pub use self::activation::{Activation, ActivationError};
pub use self::admin::check_admin;
pub use self::handoff::ArriveError;
pub use self::listeners::{AdminListener, BindError, Listeners};

/// How long tunnels whose client did not answer its Close, 0.2 s of it for a Close into a message that did
/// not end, have to tell the application: with the defaults, 9.3 s in all, under the 10 s of `docker stop`.
const LAST_CLOSES: Duration = Duration::from_millis(300);

/// Some supervisors send two signals for one stop (SIGTERM and SIGINT): a second order counts from so long after the
/// first.
const ONE_STOP: Duration = Duration::from_secs(1);

/// How long connections that are cut at the end get to write their log lines.
const LAST_WORDS: Duration = Duration::from_secs(1);

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

/// What a process starts with.
pub enum Start {
    /// Nobody serves: it listens here.
    Alone(Listeners),
    /// Another process serves, and hands over.
    Takeover(Box<TakeoverStart>),
}

/// A handoff that was offered, and the listeners that the settings add to those that are handed over.
pub struct TakeoverStart {
    takeover: Takeover,
    added: Added,
}

/// Why a process does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Another process serves, and does not hand over.
    #[error(transparent)]
    Arrive(#[from] ArriveError),
    /// There is no descriptor left to listen with.
    #[error("cannot listen: {0}")]
    Listen(#[from] io::Error),
    /// It was told to stop before it served.
    #[error("told to stop before it served")]
    Stopped,
}

impl Start {
    /// Asks the process that serves to hand over, where `HANDOFF_SOCKET` says how, and binds what is to be bound and was
    /// not passed. It is called on the runtime that [`run`] runs on.
    ///
    /// # Errors
    /// The process is not to start: nothing has happened to the one that serves.
    pub async fn new(
        config: &Config,
        activation: Activation,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Result<Self, StartError> {
        let stopped = async {
            // There is nothing to report yet.
            while orders.recv().await == Some(Order::Report) {}
        };
        tokio::select! {
            start = Self::take_or_bind(config, activation) => start,
            () = stopped => Err(StartError::Stopped),
        }
    }

    async fn take_or_bind(config: &Config, activation: Activation) -> Result<Self, StartError> {
        let arrival = match &config.handoff_socket {
            Some(path) => handoff::arrive(path, config.handoff_downgrade).await?,
            None => Arrival::Alone,
        };
        Ok(match arrival {
            Arrival::Alone => Self::Alone(Listeners::bind(config, activation)?),
            Arrival::Bereft => {
                Self::Alone(Listeners::bind_after_death(config, activation.into()).await?)
            }
            Arrival::Offered(takeover) => {
                let added = Added::bind(config, &takeover.offer.places, activation)?;
                Self::Takeover(Box::new(TakeoverStart { takeover: *takeover, added }))
            }
        })
    }
}

/// Serves until an order ends it, or another process has taken over.
///
/// # Errors
/// A listener or the workers could not be started, or a worker died: its connections are lost, and who asks for the
/// process's health would be told that all is well. Or a handoff was given up, and the process before serves on.
pub async fn run(
    config: Config,
    routing: &Routing,
    start: Start,
    access_log: AccessLog,
    orders: mpsc::Receiver<Order>,
    notify: Notify,
) -> io::Result<Outcome> {
    if let Start::Takeover(start) = &start {
        let is_first = workers::count_from(start.takeover.start_of_count());
        debug_assert!(is_first, "ticks count already");
    }
    let (sender, events) = mpsc::channel(1);
    let server = Server::start(config, routing, access_log, sender)?;
    tokio::spawn(server.proxy.warnings.clone().run());
    tokio::spawn(warn_if_unresolved(Arc::clone(&server.proxy)));
    for upstream in server.proxy.routes.upstreams() {
        tokio::spawn(checks::run(Arc::clone(&server), Arc::clone(upstream)));
    }
    if server.proxy.config.admin_listen_on.is_some() {
        tokio::spawn(admin::run_events(Arc::clone(&server)));
    }
    let orders = Orders {
        channel: orders,
        server: Arc::clone(&server),
        summary: Summary::start(),
        is_told_to_stop: false,
    };
    let mut control = Control { server: Arc::clone(&server), orders, events, notify };
    let hurried = tokio::select! {
        hurried = control.serve(start) => hurried,
        () = server.workers.worker_gone() => Err(io::Error::other("a worker died")),
    };

    server.stop_listening();
    server.workers.stop();
    tracing::info!("ended; {}", server.proxy.counters);
    Ok(Outcome { cut: server.proxy.counters.cut.get(), hurried: hurried? })
}

/// Containers start in any order: a name that does not resolve yet is worth a word, no more.
async fn warn_if_unresolved(proxy: Arc<Proxy>) {
    for group in proxy.routes.upstreams() {
        let config = &group.config;
        let (addresses, faults) =
            upstream::resolve(&config.destination(), config.connect_timeout).await;
        for fault in faults {
            tracing::warn!("{fault}; {}", upstream::meanwhile(!addresses.is_empty()));
        }
    }
}

/// What follows orders.
struct Control {
    server: Arc<Server>,
    orders: Orders,
    /// How handoffs to another process end.
    events: mpsc::Receiver<Event>,
    notify: Notify,
}

/// Why it serves no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It was told to stop, and listeners close after this.
    Stopped { delay: Duration },
    /// It was told so a second time.
    Hurried,
    /// Another process serves.
    HandedOver,
    /// The process before serves again.
    GaveBack(Why),
}

impl Control {
    /// Serves to the end. Says whether a second order ended it before its time.
    async fn serve(&mut self, start: Start) -> io::Result<bool> {
        let now = Instant::now;
        let delay = self.server.proxy.config.drain_delay;
        let drains_in = match start {
            Start::Alone(listeners) => {
                self.server.listen(listeners)?;
                None
            }
            Start::Takeover(start) => {
                let (offered, drains_in) = (now(), start.takeover.offer.drains_in);
                let (outcome, orders) = self.take_over(*start).await;
                match outcome {
                    HandoffOutcome::Done if orders > 0 => Some(delay),
                    HandoffOutcome::Done => drains_in
                        .map(|left| Duration::from_millis(left).saturating_sub(offered.elapsed())),
                    HandoffOutcome::Kept(Why::Stopped) if orders > 0 => {
                        return Ok(self.finish(false, now() + ONE_STOP).await);
                    }
                    outcome => return self.end_unused(outcome.why(), orders > 1).await,
                }
            }
        };
        self.notify.ready();
        tokio::spawn(rebalancing::run(Arc::clone(&self.server)));
        let ending = match drains_in {
            Some(delay) => Ending::Stopped { delay },
            None => self.until_told(delay).await,
        };
        Ok(match ending {
            Ending::Stopped { delay } => {
                self.notify.stopping("draining");
                self.drain(delay).await
            }
            Ending::HandedOver => {
                if !self.stays() {
                    self.notify.stopping("handed over");
                }
                let hurried = self.finish(false, now() + ONE_STOP).await;
                self.stay().await;
                hurried
            }
            Ending::Hurried => {
                self.notify.stopping("ending at once");
                self.finish(true, now() + ONE_STOP).await
            }
            Ending::GaveBack(why) => return self.end_unused(why.as_str(), false).await,
        })
    }

    /// Ends where the process before serves on.
    async fn end_unused(&mut self, why: &str, is_hurried: bool) -> io::Result<bool> {
        self.finish(is_hurried, Instant::now() + ONE_STOP).await;
        Err(io::Error::other(format!("the handoff was given up: {why}")))
    }

    /// Takes over from the process that serves: done once this one serves. Also, how often it was told to stop meanwhile.
    async fn take_over(&mut self, start: TakeoverStart) -> (HandoffOutcome, u32) {
        let TakeoverStart { takeover, added } = start;
        let server = Arc::clone(&self.server);
        let mut conversation = Conversation::take_over(takeover, added, Arc::clone(&server));
        let (mut orders, mut again) = (0, Instant::now());
        let outcome = {
            // One future from beginning to end: what it waits for is not to be lost.
            let serving = conversation.until_serving();
            tokio::pin!(serving);
            loop {
                tokio::select! {
                    outcome = &mut serving => break outcome,
                    () = self.orders.stop(again) => {
                        (orders, again) = (orders + 1, Instant::now() + ONE_STOP);
                        if orders > 1 {
                            // The process before does not answer: what came ends here.
                            break Some(HandoffOutcome::Kept(Why::Silence));
                        }
                        server.door.stop();
                    }
                }
            }
        };
        let outcome = match outcome {
            None => {
                // Tunnels that open late over there still come.
                server.before.send_replace(Before::Finishes);
                server.took_over.store(true, Ordering::Relaxed);
                tokio::spawn(conversation.rest());
                HandoffOutcome::Done
            }
            Some(HandoffOutcome::Alone { has_listeners }) => {
                let listens =
                    if has_listeners { Ok(()) } else { conversation.listen_alone().await };
                conversation.tell(outcome).await;
                match listens {
                    Ok(()) => HandoffOutcome::Done,
                    Err(error) => {
                        tracing::error!("{error}");
                        HandoffOutcome::Kept(Why::CannotListen)
                    }
                }
            }
            Some(outcome) => {
                conversation.tell(Some(outcome)).await;
                outcome
            }
        };
        (outcome, orders)
    }

    /// Waits until it is told to stop, or has handed over.
    async fn until_told(&mut self, delay: Duration) -> Ending {
        loop {
            tokio::select! {
                () = self.orders.stop(Instant::now()) => break,
                event = self.events.recv() => match event {
                    Some(Event::HandedOver) => return Ending::HandedOver,
                    Some(Event::GaveBack(why)) => return Ending::GaveBack(why),
                    Some(Event::Kept) | None => {}
                },
            }
        }
        // Where tunnels move already none is cut: that is worth waiting for.
        if self.server.door.stop() {
            tracing::info!(
                "told to stop while tunnels move to the new process: that is waited for"
            );
            let again = Instant::now() + ONE_STOP;
            tokio::select! {
                () = self.orders.stop(again) => return Ending::Hurried,
                () = self.server.door.takes_back() => {
                    tracing::info!("the handoff was given up, and what is left here is drained");
                }
                event = self.events.recv() => {
                    if event == Some(Event::HandedOver) {
                        return Ending::HandedOver;
                    }
                }
            }
        }
        Ending::Stopped { delay }
    }

    /// Whether it is to stay when it has handed over.
    fn stays(&self) -> bool {
        self.server.proxy.config.handoff_stay && !self.orders.is_told_to_stop
    }

    /// Where it is to stay, it waits until it is told to stop, if it was not: what has ended its supervisor might start
    /// again, and that would take the tunnels back.
    async fn stay(&mut self) {
        if !self.stays() {
            // Said before, unless the order has come since.
            return self.notify.stopping("handed over");
        }
        tracing::info!("handed over, and stays idle until it is told to stop (HANDOFF_STAY)");
        self.notify.status("handed over; idle until it is told to stop");
        self.orders.stop(Instant::now()).await;
        self.notify.stopping("told to stop");
    }

    /// The path drawn in [`crate::drain`]. Says whether a second order ended it before its time.
    async fn drain(&mut self, delay: Duration) -> bool {
        let again = Instant::now() + ONE_STOP;
        let Self { server, orders, events, .. } = self;
        let config = &server.proxy.config;
        server.leave_in(delay);
        tracing::info!(
            "draining {} open: health checks fail now, listeners close in {delay:?}, WebSockets get a Close \
             over {:?}, the rest is cut {:?} after that",
            server.proxy.limits.census().open(),
            config.drain_period,
            config.drain_grace
        );
        let until = tokio::time::sleep(delay);
        tokio::pin!(until);
        let hurried = loop {
            tokio::select! {
                () = &mut until => break false,
                () = orders.stop(again) => break true,
                event = events.recv() => {
                    if event == Some(Event::HandedOver) {
                        break false;
                    }
                }
            }
        };
        self.finish(hurried, again).await
    }

    /// Ends what is left: in the time that the settings give, or, where that is not to be waited for, at once.
    async fn finish(&mut self, mut hurried: bool, again: Instant) -> bool {
        let Self { server, orders, .. } = self;
        let Server { proxy, workers, .. } = &**server;
        let (config, census) = (&proxy.config, proxy.limits.census());
        server.leave_predecessor().await;
        server.finish();
        server.close_listeners();
        if !hurried {
            let period = server.period();
            workers.drain(period);
            let grace = config.drain_grace.saturating_add(LAST_CLOSES);
            let longest = period.saturating_add(grace);
            let finished = timeout(longest, census.empty());
            hurried = tokio::select! {
                _ = finished => false,
                () = orders.stop(again) => true,
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
            let state = &tunnel.state;
            proxy.counters.ends.count(end, state.close(), state.identity.age(workers::elapsed()));
            proxy.access_log.tunnel(&tunnel, end);
            let (client, balancer) =
                (tunnel.state.identity.client(), tunnel.state.identity.balancer());
            drop(tunnel);
            proxy.limits.leave(client, balancer);
        }
        let _ = timeout(LAST_WORDS, census.empty()).await;
        hurried
    }
}

/// Orders, and what answers those that only ask.
struct Orders {
    channel: mpsc::Receiver<Order>,
    server: Arc<Server>,
    summary: Summary,
    /// An [`Order::Stop`] has come, whether it counted or not.
    is_told_to_stop: bool,
}

impl Orders {
    /// Waits for an [`Order::Stop`] that does not come before `from`; reports meanwhile. Orders that can no longer come
    /// mean the same.
    async fn stop(&mut self, from: Instant) {
        while let Some(order) = self.channel.recv().await {
            match order {
                Order::Stop => {
                    self.is_told_to_stop = true;
                    if Instant::now() >= from {
                        return;
                    }
                }
                Order::Report => self.summary.write(&self.server.proxy, &self.server.workers),
            }
        }
    }
}
