//! What happens to the sockets of a connection beside the bytes that its client sends.

use super::closing::Linger;
use super::{Connection, ConnectionState};
use crate::end::{End, Phase, Reason, Side};
use crate::exchange::Stop;
use crate::proxy::Context;

impl Connection {
    /// The client will send no more.
    pub(crate) fn client_ended(&mut self, context: &Context<'_>) {
        self.has_ended = true;
        match &mut self.state {
            ConnectionState::Identify | ConnectionState::Head | ConnectionState::Refused => {
                self.closed_early(context);
            }
            ConnectionState::Exchange(exchange) => {
                let stop = exchange.client_ended();
                self.stop(stop, context);
            }
            ConnectionState::Closing(closing) => {
                closing.client_ended(context.now);
                self.see_end_of_closing(context);
            }
            // A tunnel passes it on.
            ConnectionState::Switching(_) | ConnectionState::Over { .. } => {}
        }
    }

    /// The client's connection is broken, for this reason: nothing can be said to it any more.
    pub(crate) fn client_broke(&mut self, why: Reason, context: &Context<'_>) {
        self.has_ended = true;
        self.to_client.clear();
        match &mut self.state {
            ConnectionState::Identify | ConnectionState::Head | ConnectionState::Refused => {
                self.closed_early(context);
                self.state = ConnectionState::Over { with_reset: why == Reason::Stalled };
            }
            ConnectionState::Exchange(exchange) => {
                let stop = exchange.client_broke(why);
                self.stop(stop, context);
                self.state = ConnectionState::Over { with_reset: why == Reason::Stalled };
            }
            ConnectionState::Switching(_) => {
                let end = End::new(Side::Client, Phase::Handshake, why);
                self.end_of_switching(end, context);
            }
            ConnectionState::Closing(_) => {
                self.state = ConnectionState::Over { with_reset: why == Reason::Stalled };
            }
            ConnectionState::Over { .. } => {}
        }
    }

    /// It closed before it had said all that it began to say.
    pub(super) fn closed_early(&mut self, context: &Context<'_>) {
        let counters = &context.proxy.counters;
        match &self.state {
            // Not a byte, or nothing but a PROXY header: a TCP health check.
            ConnectionState::Identify if self.unread.is_empty() => counters.probes.add(1),
            ConnectionState::Identify => {
                counters.proxy_headers_cut.add(1);
                tracing::debug!(balancer = %self.balancer, "the PROXY header was cut");
            }
            _ if self.unread.is_empty() && !self.is_used => counters.probes.add(1),
            ConnectionState::Refused => return self.refuse(context),
            _ => {}
        }
        self.close(Linger::Short, context);
    }

    /// So many of those passed; `untaken` the upstream has still to take, unless it takes nothing any more.
    pub(crate) fn client_sent_unseen(
        &mut self,
        count: u64,
        untaken: &[u8],
        is_broken: bool,
        context: &Context<'_>,
    ) {
        let ConnectionState::Exchange(exchange) = &mut self.state else { return };
        let passed = exchange.client_sent_unseen(count, untaken, context);
        if is_broken {
            exchange.upstream_takes_nothing(context);
        }
        self.see(passed, context);
    }

    /// The client took so many bytes.
    pub(crate) fn client_took(&mut self, count: usize, context: &Context<'_>) {
        self.to_client.took(count, context.now);
        // Who takes what is sent to it is there.
        self.full_since = None;
        if !self.to_client.is_empty() {
            return;
        }
        if let ConnectionState::Closing(closing) = &mut self.state {
            closing.all_is_taken(context.now);
            self.see_end_of_closing(context);
        } else {
            if let ConnectionState::Head = self.state {
                self.since = context.now;
            }
            // The next request may have come meanwhile.
            self.read_on(context);
        }
    }

    /// The upstream sent these bytes.
    pub(crate) fn upstream_sent(&mut self, bytes: &[u8], context: &Context<'_>) {
        let ConnectionState::Exchange(exchange) = &mut self.state else { return };
        match exchange.upstream_sent(bytes, self.to_client.end(), context) {
            Ok(()) => self.see_end_of_exchange(context),
            Err(stop) => self.stop(stop, context),
        }
    }

    /// The upstream will send no more, or its connection is broken.
    pub(crate) fn upstream_ended(&mut self, is_broken: bool, context: &Context<'_>) {
        let ConnectionState::Exchange(exchange) = &mut self.state else { return };
        match exchange.upstream_ended(is_broken, self.to_client.end(), context) {
            Ok(()) => self.see_end_of_exchange(context),
            Err(stop) => self.stop(stop, context),
        }
    }

    /// So many bytes passed from the upstream to the client without a look at them; `untaken` the client has still to
    /// take.
    pub(crate) fn upstream_sent_unseen(
        &mut self,
        count: u64,
        untaken: &[u8],
        context: &Context<'_>,
    ) {
        let ConnectionState::Exchange(exchange) = &mut self.state else { return };
        let out = self.to_client.end();
        out.extend_from_slice(untaken);
        exchange.upstream_sent_unseen(count, out);
        self.see_end_of_exchange(context);
        if self.to_client.is_empty() {
            // The client has the whole response, and may have sent the next request meanwhile.
            self.read_on(context);
        }
    }

    /// What its exchange came to in a call that the worker made.
    pub(crate) fn see(&mut self, outcome: Result<(), Stop>, context: &Context<'_>) {
        match outcome {
            Ok(()) => self.see_end_of_exchange(context),
            Err(stop) => self.stop(stop, context),
        }
    }
}
