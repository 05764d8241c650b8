//! What is asked of tunnels beside moving bytes, and the form in which workers use it.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{is_reached, ticks};
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

/// How long both sides have to read their last bytes once all is said, before the sockets close.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// The same while a side still sends what it is refused: a socket that closes with bytes unread is reset,
/// which would overtake the Close.
const LONGEST_LINGER: Duration = Duration::from_secs(30);

/// How long after the period and the grace of a drain a client has to answer a Close that went out at
/// the grace's end, into an unfinished message.
const LAST_ANSWER: Duration = Duration::from_millis(200);

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
