//! A request on its way to the upstream: its head, then its body as it comes.

use std::time::{Duration, Instant};

use super::response::Progress;
use crate::config::Config;
use crate::http::body::{Body, Sink, Trailers};
use crate::http::head::{Framing, Request, Version};
use crate::http::reject::Rejection;
use crate::outgoing::Outgoing;
use crate::proxy::Context;

/// After this a body that waits for a 100 of the upstream is asked for anyway, as curl does: not every upstream
/// knows of expectations (RFC 9110, section 10.1.1).
const EXPECTATION: Duration = Duration::from_secs(1);

/// So many bytes may wait for an upstream that has taken none yet, before the client is not read any more.
const MOST_BEHIND_HEAD: usize = 64 * 1024;

/// After this an upstream that has answered in full and takes nothing more of the request is taken at its word.
const ANSWERED: Duration = Duration::from_secs(2);

/// How long a body has before its rate is looked at.
const RATE_GRACE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct RequestFlow {
    pub(super) body: Body,
    /// What the upstream has not taken yet.
    pub(super) out: Outgoing,
    gate: Gate,
    /// When a byte of it last came or was taken.
    pub(super) moved: Instant,
    /// When its body began; later by the time in which it was the upstream that was waited for.
    began: Instant,
    /// Since when the upstream is waited for.
    held_since: Option<Instant>,
    /// What is still to come of it goes nowhere.
    given_up: bool,
    /// The upstream has taken a byte of it.
    is_sent: bool,
}

/// Between a body and the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    /// The client waits for a 100, until then.
    Shut {
        until: Instant,
    },
    /// Open, because elbows sent the 100 itself.
    OpenedByElbows,
}

/// Who did not do its part in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    Client,
    Upstream,
}

impl RequestFlow {
    /// The flow of the request with this head, which is in `out` as the upstream gets it. `config` has the settings of
    /// its route.
    pub(super) fn new(
        head: &Request<'_>,
        out: Vec<u8>,
        config: &Config,
        context: &Context<'_>,
    ) -> Self {
        let sink = if head.framing == Framing::Chunked { Sink::CHUNKED } else { Sink::Plain };
        let limits = context.proxy.head_limits();
        let body = Body::new(head.framing, sink, Trailers::OfRequest, limits);
        let expects = !body.is_over()
            && head.version == Version::Http11
            && head.fields.iter().any(|field| {
                field.is(b"expect") && field.value.eq_ignore_ascii_case(b"100-continue")
            });
        let now = context.now;
        let limit = EXPECTATION.min(config.response_head_timeout);
        let gate = if expects { Gate::Shut { until: now + limit } } else { Gate::Open };
        Self {
            body,
            out: Outgoing::kept(out),
            gate,
            moved: now,
            began: now,
            held_since: None,
            given_up: false,
            is_sent: false,
        }
    }

    pub(super) fn wants_body(&self) -> bool {
        !self.is_gate_shut() && !self.body.is_over() && !self.given_up && self.has_room()
    }

    /// Whether more of the body could pass, were it not for the upstream.
    pub(super) fn waits_for_room(&self) -> bool {
        !self.is_gate_shut() && !self.body.is_over() && !self.given_up && !self.has_room()
    }

    /// Whether more of the body may be put behind what waits: a part that came with the head goes out with it.
    fn has_room(&self) -> bool {
        self.out.is_empty() || !self.is_sent && self.out.waiting().len() < MOST_BEHIND_HEAD
    }

    /// Whether all of it has gone out, or goes nowhere.
    pub(super) fn is_over(&self) -> bool {
        self.given_up || self.body.is_over() && self.out.is_empty()
    }

    pub(super) const fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// Nothing more of it goes anywhere.
    pub(super) fn give_up(&mut self) {
        if !self.body.is_over() || !self.out.is_empty() {
            self.given_up = true;
            // Nobody is asked for it any more.
            self.gate = Gate::Open;
        }
        self.out.forget();
        self.out.clear();
    }

    /// The upstream has not taken a byte of it, and all that the client has sent of it is still here.
    pub(super) const fn is_unsent(&self) -> bool {
        !self.is_sent && !self.given_up
    }

    /// All of it is to be sent once more, on another connection.
    pub(super) const fn rewind(&mut self) {
        self.out.rewind();
        self.is_sent = false;
    }

    pub(super) const fn is_gate_shut(&self) -> bool {
        matches!(self.gate, Gate::Shut { .. })
    }

    /// The upstream asks for the body. Whether elbows had done so before.
    pub(super) fn open_gate(&mut self, now: Instant) -> bool {
        if self.is_gate_shut() {
            self.gate = Gate::Open;
            self.moved = now;
            self.began = now;
        }
        self.gate == Gate::OpenedByElbows
    }

    pub(super) fn client_sent(
        &mut self,
        bytes: &[u8],
        config: &Config,
        now: Instant,
    ) -> (usize, Result<(), Rejection>) {
        if self.given_up && !self.body.is_over() {
            return (bytes.len(), Ok(()));
        }
        if !self.wants_body() {
            return (0, Ok(()));
        }
        let before = self.body.data;
        let passed = self.body.pass(bytes, self.out.end());
        if self.body.data > before || self.body.is_over() {
            self.moved = now;
        }
        match (self.hold(config, now), passed) {
            (Err(rejection), _) => (0, Err(rejection)),
            (Ok(()), Ok(used)) => (used, Ok(())),
            (Ok(()), Err(fault)) => (0, Err(Rejection::BadBody(fault))),
        }
    }

    pub(super) fn sent_unseen(
        &mut self,
        count: u64,
        untaken: &[u8],
        config: &Config,
        now: Instant,
    ) -> Result<(), Rejection> {
        let out = self.out.end();
        out.extend_from_slice(untaken);
        self.body.passed_unseen(count, out);
        self.moved = now;
        self.hold(config, now)
    }

    /// Takes note of whether the upstream is waited for, and of how long the body is.
    fn hold(&mut self, config: &Config, now: Instant) -> Result<(), Rejection> {
        if !self.out.is_empty() {
            self.held_since.get_or_insert(now);
        }
        match config.max_body_size {
            Some(most) if self.body.data > most => Err(Rejection::LongBody),
            _ => Ok(()),
        }
    }

    pub(super) fn upstream_took(&mut self, count: usize, now: Instant) {
        self.is_sent |= count > 0;
        self.out.took(count, now);
        self.moved = now;
        if self.out.is_empty()
            && let Some(since) = self.held_since.take()
        {
            self.began += now.saturating_duration_since(since);
        }
    }

    /// Nobody but the client is waited for.
    fn waits_for_client(&self) -> bool {
        self.wants_body() && self.out.is_empty()
    }

    /// When the body will have been slower than `MIN_BODY_RATE`, if no more of it comes.
    fn too_slow_at(&self, config: &Config) -> Option<Instant> {
        let rate = config.min_body_rate?;
        let allowed = Duration::from_secs(self.body.data / rate.max(1));
        Some(self.began + RATE_GRACE.max(allowed))
    }

    /// When the upstream will have taken nothing of what waits for it for too long.
    fn stalled_at(&mut self, response: Progress, config: &Config, now: Instant) -> Option<Instant> {
        let limit = config.stall_timeout;
        let limit = if response == Progress::Over { limit.min(ANSWERED) } else { limit };
        Some(self.out.stalled_since(now)? + limit)
    }

    pub(super) fn deadline(
        &mut self,
        response: Progress,
        config: &Config,
        now: Instant,
    ) -> Option<Instant> {
        let has_begun = response != Progress::Awaited;
        let gate = match self.gate {
            Gate::Shut { until } if !has_begun => Some(until),
            _ => None,
        };
        let stalled = self.stalled_at(response, config, now);
        let client = self.waits_for_client();
        let moved = (!has_begun || client).then(|| self.moved + config.response_head_timeout);
        let rate = if client { self.too_slow_at(config) } else { None };
        [gate, stalled, moved, rate].into_iter().flatten().min()
    }

    /// Asks the client for its body where the upstream has not done so in its time.
    pub(super) fn ask_for_body_in_time(&mut self, out: &mut Vec<u8>, context: &Context<'_>) {
        if let Gate::Shut { until } = self.gate
            && until <= context.now
        {
            self.open_gate(context.now);
            self.gate = Gate::OpenedByElbows;
            out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }

    /// Who is late, if somebody is.
    pub(super) fn overdue(
        &mut self,
        response: Progress,
        config: &Config,
        now: Instant,
    ) -> Option<Late> {
        if self.stalled_at(response, config, now).is_some_and(|at| at <= now) {
            return Some(Late::Upstream);
        }
        if self.waits_for_client() {
            let is_slow = self.too_slow_at(config).is_some_and(|at| at <= now);
            let is_silent = self.moved + config.response_head_timeout <= now;
            return (is_slow || is_silent).then_some(Late::Client);
        }
        let is_silent =
            response == Progress::Awaited && self.moved + config.response_head_timeout <= now;
        is_silent.then_some(Late::Upstream)
    }
}
