//! What a connection does because of time alone: when it is looked at, and what is due then.

use std::time::{Duration, Instant};

use super::{Connection, MOST_UNREAD, Phase};
use crate::drain::Stage;
use crate::end::Reason;
use crate::proxy::Context;

/// How long a connection that is over a limit has to say what it wants. Most have said it with their first bytes.
pub(super) const REFUSED_PATIENCE: Duration = Duration::from_secs(1);

impl Connection {
    /// When there is something to do although nothing happens.
    pub(crate) fn deadline(&mut self, context: &Context<'_>) -> Option<Instant> {
        if self.leaves_nothing(context) {
            return Some(context.now);
        }
        let config = &context.proxy.config;
        let stalled = self.to_client.stalled_since(context.now).map(|at| at + config.stall_timeout);
        let phase = match &mut self.phase {
            Phase::Identify if self.over.is_some() => {
                Some(self.since + REFUSED_PATIENCE.min(config.proxy_header_timeout))
            }
            Phase::Identify => Some(self.since + config.proxy_header_timeout),
            Phase::Refused => Some(self.since + REFUSED_PATIENCE),
            // Who still takes an answer need not ask anything yet.
            Phase::Head if !self.to_client.is_empty() => None,
            Phase::Head => Some(self.since + config.request_head_timeout),
            Phase::Exchange(exchange) => exchange.deadline(context),
            Phase::Closing(closing) => closing.deadline(),
            Phase::Switching(_) | Phase::Over { .. } => None,
        };
        let full = self.full_since(context.now).map(|at| at + config.stall_timeout);
        [stalled, phase, full].into_iter().flatten().min()
    }

    /// Time has passed; what is due is done. Whoever calls it has offered the sockets what waits for them.
    pub(crate) fn time(&mut self, context: &Context<'_>) {
        let (config, now) = (&context.proxy.config, context.now);
        let is_due = |since: Instant, limit: Duration| since + limit <= now;
        if self.leaves_nothing(context) {
            self.phase = Phase::Over { with_reset: false };
            return;
        }
        if let Some(since) = self.to_client.stalled_since(now)
            && is_due(since, config.stall_timeout)
        {
            return self.client_broke(Reason::Stalled, context);
        }
        if let Some(since) = self.full_since(now)
            && is_due(since, config.stall_timeout)
        {
            return self.client_broke(Reason::Closed, context);
        }
        match &mut self.phase {
            Phase::Identify => {
                let limit = match self.over {
                    Some(_) => REFUSED_PATIENCE.min(config.proxy_header_timeout),
                    None => config.proxy_header_timeout,
                };
                if is_due(self.since, limit) {
                    context.proxy.counters.proxy_header_timeouts.add(1);
                    tracing::debug!(balancer = %self.balancer, "no complete PROXY header within PROXY_HEADER_TIMEOUT");
                    self.phase = Phase::Over { with_reset: false };
                }
            }
            // Whoever says nothing in time is told so all the same.
            Phase::Refused if is_due(self.since, REFUSED_PATIENCE) => self.refuse(context),
            Phase::Head
                if self.to_client.is_empty() && is_due(self.since, config.request_head_timeout) =>
            {
                self.head_is_late(context);
            }
            Phase::Exchange(exchange) => match exchange.time(self.to_client.end(), context) {
                Ok(()) => self.see_end_of_exchange(context),
                Err(stop) => self.stop(stop, context),
            },
            Phase::Closing(_) => self.see_end_of_closing(context),
            _ => {}
        }
    }

    /// Since when the client has sent as much behind its request as is kept. It is not read any more then, so that
    /// nobody would see that it has left.
    fn full_since(&mut self, now: Instant) -> Option<Instant> {
        let is_full = self.unread.len() >= MOST_UNREAD
            && matches!(&self.phase, Phase::Exchange(exchange) if exchange.is_request_over());
        if !is_full {
            self.full_since = None;
            return None;
        }
        Some(*self.full_since.get_or_insert(now))
    }

    /// Whether the process is ending and nothing has been asked here, so that nobody is owed an answer. What has begun is
    /// read and answered; so is, where a new process has taken over, the first request of a client that has connected
    /// before it did.
    fn leaves_nothing(&self, context: &Context<'_>) -> bool {
        context.stage.is_finishing()
            && (self.is_used || context.stage != Stage::Yielding)
            && matches!(self.phase, Phase::Identify | Phase::Head | Phase::Refused)
            && self.unread.is_empty()
            && self.to_client.is_empty()
    }
}
