//! What is asked of tunnels beside moving bytes, and the form in which workers use it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{is_reached, ticks};
use crate::config::{Config, FrameCheck};
use crate::metrics::Counters;
use crate::metrics::worker::WorkerMetrics;
use crate::upstream::Loads;
use crate::websocket::keepalive::Times;
use crate::websocket::scanner::Rules;

/// What is asked of tunnels. The default follows frames and lets everything pass.
#[derive(Clone, Debug)]
pub struct Options {
    /// A stream that breaks a rule of RFC 6455 is ended with 1002; otherwise it is only counted.
    pub strict: bool,
    /// Bytes of payload in one data frame at most.
    pub max_frame_size: Option<u64>,
    /// Bytes of payload in one message at most, over all its frames, as on the wire.
    pub max_message_size: Option<u64>,
    /// A client from which nothing came for so long gets a Ping.
    pub ping_interval: Option<Duration>,
    /// The same for the upstream.
    pub ping_upstream_interval: Option<Duration>,
    /// How long after a Ping something has to come from the side that got it, and how long a side whose
    /// other one has ended may do nothing.
    pub pong_timeout: Duration,
    /// A tunnel in which no data passed for so long ends (no byte, where there are no frames).
    pub idle_timeout: Option<Duration>,
    /// A tunnel ends at this age, or up to a tenth earlier, so that tunnels of one age spread.
    pub max_lifetime: Option<Duration>,
    /// A side that takes no byte for so long while some wait is given up.
    pub stall_timeout: Duration,
    /// The code of Close frames where elbows ends a tunnel of its own accord.
    pub close_code: u16,
    /// How long a client has to answer such a Close, and a message to end before it.
    pub grace: Duration,
    /// Where broken rules are counted.
    pub counters: Arc<Counters>,
    /// Where the tunnels of each endpoint are counted.
    pub loads: Loads,
    /// Somebody may ask how long workers' rounds take.
    pub times_rounds: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            strict: false,
            max_frame_size: None,
            max_message_size: None,
            ping_interval: None,
            ping_upstream_interval: None,
            pong_timeout: Duration::from_secs(20),
            idle_timeout: None,
            max_lifetime: None,
            stall_timeout: Duration::from_secs(60),
            close_code: 1001,
            grace: Duration::from_secs(2),
            counters: Arc::default(),
            loads: Loads::default(),
            times_rounds: false,
        }
    }
}

impl Options {
    /// What the settings of a route ask. Counters and loads are to be added.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
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
            ..Self::default()
        }
    }
}

/// How long both sides have to read their last bytes once all is said, before the sockets close.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// The same while a side still sends what it is refused: a socket that closes with bytes unread is reset,
/// which would overtake the Close.
const LONGEST_LINGER: Duration = Duration::from_secs(30);

/// How long after the period and the grace of a drain a client has to answer a Close that went out at
/// the grace's end, into an unfinished message.
const LAST_ANSWER: Duration = Duration::from_millis(200);

/// The rules of each route, on one worker.
#[derive(Debug)]
pub(crate) struct Rulebooks {
    default: Rulebook,
    named: Vec<Rulebook>,
    /// By the names of their routes.
    numbers: HashMap<Box<str>, RouteNumber>,
}

/// Which rules a tunnel has on its worker: those of the default route, or of one that has a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteNumber(u16);

impl Rulebooks {
    /// Those of the default route, which is the only one.
    pub(crate) fn new(default: Rulebook) -> Self {
        Self { default, named: Vec::new(), numbers: HashMap::new() }
    }

    /// From now on there are these routes beside the default one. They are there before a tunnel has one of them.
    pub(crate) fn add<'a>(&mut self, routes: impl Iterator<Item = (&'a str, &'a Config)>) {
        for (name, config) in routes {
            // A file with so many routes is refused.
            let Ok(number) = u16::try_from(self.named.len() + 1) else { return };
            self.named.push(self.default.with_settings(config));
            self.numbers.insert(name.into(), RouteNumber(number));
        }
    }

    /// The number of the route with this name; that of the default route where there is none, or the name is empty.
    pub(crate) fn number(&self, name: &str) -> RouteNumber {
        if name.is_empty() {
            return RouteNumber::default();
        }
        self.numbers.get(name).copied().unwrap_or_default()
    }

    /// The rules of a route.
    #[inline]
    pub(crate) fn of(&self, RouteNumber(number): RouteNumber) -> &Rulebook {
        if number == 0 {
            return &self.default;
        }
        self.named.get(usize::from(number) - 1).unwrap_or(&self.default)
    }

    /// Those of the default route.
    pub(crate) const fn default(&self) -> &Rulebook {
        &self.default
    }

    /// A drain over `period` ticks begins at tick `now`.
    pub(crate) fn drains(&mut self, period: u32, now: u32) {
        for rulebook in self.named.iter_mut().chain([&mut self.default]) {
            rulebook.drains(period, now);
        }
    }
}

/// Options as they are used. Times are in ticks.
#[derive(Clone, Debug)]
pub(crate) struct Rulebook {
    pub(crate) frames: Rules,
    pub(crate) ping_client: Option<Times>,
    pub(crate) ping_upstream: Option<Times>,
    pub(crate) idle: Option<u32>,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) stall: u32,
    pub(crate) close_code: u16,
    pub(crate) grace: u32,
    pub(crate) linger: u32,
    pub(crate) longest_linger: u32,
    /// How long a side that has ended, or has sent its Close, waits for the other.
    pub(crate) pong: u32,
    /// The same where it is the end of its stream alone, without a Close.
    pub(crate) half_open: Option<u32>,
    /// When all close handshakes are over, once there is a drain.
    closed_by: Option<u32>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) times_rounds: bool,
    /// Those of the worker that has these rules.
    pub(crate) metrics: Arc<WorkerMetrics>,
}

impl Rulebook {
    pub(crate) fn new(options: &Options) -> Self {
        let times = |interval: Option<Duration>| {
            interval.map(|interval| Times::new(interval, options.pong_timeout))
        };
        Self {
            frames: Rules::new(options.max_frame_size, options.max_message_size, options.strict),
            ping_client: times(options.ping_interval),
            ping_upstream: times(options.ping_upstream_interval),
            idle: options.idle_timeout.map(ticks),
            lifetime: options.max_lifetime,
            stall: ticks(options.stall_timeout),
            close_code: options.close_code,
            grace: ticks(options.grace),
            linger: ticks(LINGER),
            longest_linger: ticks(LONGEST_LINGER),
            pong: ticks(options.pong_timeout),
            half_open: options
                .ping_interval
                .map(|interval| ticks(interval.saturating_add(options.pong_timeout))),
            closed_by: None,
            counters: Arc::clone(&options.counters),
            times_rounds: options.times_rounds,
            metrics: Arc::default(),
        }
    }
}

impl Rulebook {
    /// The same, with what their worker counts with.
    pub(crate) fn with(self, metrics: Arc<WorkerMetrics>) -> Self {
        Self { metrics, ..self }
    }

    /// The same on another route, which has these settings.
    fn with_settings(&self, config: &Config) -> Self {
        Self {
            closed_by: self.closed_by,
            counters: Arc::clone(&self.counters),
            times_rounds: self.times_rounds,
            metrics: Arc::clone(&self.metrics),
            ..Self::new(&Options::of(config))
        }
    }

    /// A drain over `period` ticks begins at tick `now`.
    pub(crate) fn drains(&mut self, period: u32, now: u32) {
        let time = period.saturating_add(self.grace).saturating_add(ticks(LAST_ANSWER));
        self.closed_by = Some(now.wrapping_add(time));
    }

    /// When a close handshake that begins at tick `now` is over, at the latest.
    pub(crate) fn grace_until(&self, now: u32) -> u32 {
        let until = now.wrapping_add(self.grace);
        match self.closed_by {
            Some(closed_by) if is_reached(closed_by, now) => now,
            Some(closed_by) if is_reached(closed_by, until) => closed_by,
            _ => until,
        }
    }
}
