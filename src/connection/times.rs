//! What a connection does because of time alone: when it is looked at, and what is due then.

use std::time::{Duration, Instant};

use super::{Connection, ConnectionState, MOST_UNREAD};
use crate::config::Config;
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
        let config = &*context.proxy.config;
        let stall_timeout = self.stall_timeout.unwrap_or(config.stall_timeout);
        let stalled = self.to_client.stalled_since(context.now).map(|at| at + stall_timeout);
        let own = match &mut self.state {
            ConnectionState::Identify => Some(self.since + self.time_to_identify(config)),
            ConnectionState::Refused => Some(self.since + REFUSED_PATIENCE),
            // Who still takes an answer need not ask anything yet.
            ConnectionState::Head if !self.to_client.is_empty() => None,
            ConnectionState::Head => Some(self.since + config.request_head_timeout),
            ConnectionState::Exchange(exchange) => exchange.deadline(context),
            ConnectionState::Closing(closing) => closing.deadline(),
            ConnectionState::Switching(_) | ConnectionState::Over { .. } => None,
        };
        let full = self.full_since(context.now).map(|at| at + stall_timeout);
        [stalled, own, full].into_iter().flatten().min()
    }

    /// Time has passed; what is due is done. Whoever calls it has offered the sockets what waits for them.
    pub(crate) fn time(&mut self, context: &Context<'_>) {
        let (config, now) = (&*context.proxy.config, context.now);
        let stall_timeout = self.stall_timeout.unwrap_or(config.stall_timeout);
        let is_due = |since: Instant, limit: Duration| since + limit <= now;
        if self.leaves_nothing(context) {
            self.state = ConnectionState::Over { with_reset: false };
            return;
        }
        if let Some(since) = self.to_client.stalled_since(now)
            && is_due(since, stall_timeout)
        {
            return self.client_broke(Reason::Stalled, context);
        }
        if let Some(since) = self.full_since(now)
            && is_due(since, stall_timeout)
        {
            return self.client_broke(Reason::Closed, context);
        }
        let time_to_identify = self.time_to_identify(config);
        match &mut self.state {
            ConnectionState::Identify if is_due(self.since, time_to_identify) => {
                context.proxy.counters.proxy_header_timeouts.add(1);
                tracing::debug!(balancer = %self.balancer, "no complete PROXY header within PROXY_HEADER_TIMEOUT");
                self.state = ConnectionState::Over { with_reset: false };
            }
            // Whoever says nothing in time is told so all the same.
            ConnectionState::Refused if is_due(self.since, REFUSED_PATIENCE) => {
                self.refuse(context);
            }
            ConnectionState::Head
                if self.to_client.is_empty() && is_due(self.since, config.request_head_timeout) =>
            {
                self.head_is_late(context);
            }
            ConnectionState::Exchange(exchange) => {
                match exchange.time(self.to_client.end(), context) {
                    Ok(()) => self.see_end_of_exchange(context),
                    Err(stop) => self.stop(stop, context),
                }
            }
            ConnectionState::Closing(_) => self.see_end_of_closing(context),
            _ => {}
        }
    }

    /// How long the PROXY header is waited for.
    fn time_to_identify(&self, config: &Config) -> Duration {
        match self.over {
            Some(_) => REFUSED_PATIENCE.min(config.proxy_header_timeout),
            None => config.proxy_header_timeout,
        }
    }

    /// Since when the client has sent as much behind its request as is kept. It is not read any more then, so that
    /// nobody would see that it has left.
    fn full_since(&mut self, now: Instant) -> Option<Instant> {
        let is_full = self.unread.len() >= MOST_UNREAD
            && matches!(&self.state, ConnectionState::Exchange(exchange) if exchange.is_request_over());
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
            && matches!(
                self.state,
                ConnectionState::Identify | ConnectionState::Head | ConnectionState::Refused
            )
            && self.unread.is_empty()
            && self.to_client.is_empty()
    }
}
