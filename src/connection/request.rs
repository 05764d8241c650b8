//! A request of a connection, from its first byte until it is answered or an exchange: the head is read, and the
//! settings say whether it may pass.

use std::sync::Arc;

use bytes::BytesMut;

use super::closing::Linger;
use super::{Connection, ConnectionState, identify};
use crate::access_log::Entry;
use crate::config::{Config, MissingOrigin, TraceContext};
use crate::end::{End, Phase, Reason, Side};
use crate::exchange::Exchange;
use crate::http::affinity::Visitor;
use crate::http::head::{Fault, Framing, Request};
use crate::http::hop::ConnectionOptions;
use crate::http::own::{Form, Own};
use crate::http::reject::{From, Rejection};
use crate::http::request_id::RequestId;
use crate::http::trace_context::{self, Begun};
use crate::http::write::{self, Onward};
use crate::http::{health, max_forwards, upgrade};
use crate::proxy::Context;
use crate::routes::Unclear;

/// The longest request line that is waited for where a connection is over a limit.
const LONGEST_LINE: usize = 8 * 1024;

/// Room for the head that the upstream gets; most need no more.
const HEAD: usize = 1_024;

impl Connection {
    /// Finds out who it is; says how many bytes that took, or `None` for more.
    pub(super) fn identify(&mut self, bytes: &[u8], context: &Context<'_>) -> Option<usize> {
        let proxy = context.proxy;
        let found = identify::client(
            bytes,
            self.balancer,
            context.destination,
            &proxy.config,
            &proxy.routes.tlv_headers,
        );
        let (client, used) = match found {
            Ok(found) => found?,
            Err(fault) => {
                proxy.counters.proxy_faults.add(fault);
                proxy.warnings.proxy_header_refused(&fault, self.balancer, context.now);
                let rule = fault.as_str();
                tracing::debug!(balancer = %self.balancer, rule, "bad PROXY header: {fault}");
                self.state = ConnectionState::Over { with_reset: false };
                return Some(bytes.len());
            }
        };
        // Whoever is over a limit from the start has one time for all that it says.
        if self.over.is_none() {
            self.over = self.seat.of_client(client.address, self.balancer).err();
            self.since = context.now;
        }
        self.client = Some(Box::new(client));
        self.state =
            if self.over.is_some() { ConnectionState::Refused } else { ConnectionState::Head };
        Some(used)
    }

    /// Waits for the request line of a connection that is over a limit.
    pub(super) fn read_refused(&mut self, bytes: &[u8], context: &Context<'_>) -> Option<usize> {
        let is_whole = bytes.contains(&b'\n') || bytes.len() >= LONGEST_LINE;
        is_whole.then(|| {
            self.refuse_line(bytes, context);
            bytes.len()
        })
    }

    /// Refuses a connection that is over a limit, whatever it has said so far.
    pub(super) fn refuse(&mut self, context: &Context<'_>) {
        let bytes = std::mem::take(&mut self.unread);
        self.refuse_line(&bytes, context);
    }

    /// A health check is answered whatever the limits say: a balancer that takes an instance out because it is full
    /// sends its clients to the next one.
    fn refuse_line(&mut self, bytes: &[u8], context: &Context<'_>) {
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
        let form = Form { to_head: line.starts_with(b"HEAD "), is_http_10: false, keeps: false };
        if health::is_check_line(line, &context.proxy.config.health_path) {
            let own = health::answer(context.stage.is_healthy());
            return self.answer(&own, form, Linger::Short, context);
        }
        let Some(over) = self.over.take() else { return };
        context.proxy.counters.requests.add(1);
        let entry = Entry::new(&context.proxy.access_log, line, RequestId::none(), context.now);
        self.reject(&Rejection::Over(over), entry, form, false, context);
    }

    /// Reads a request head; says how many bytes that took, or `None` for more.
    pub(super) fn read_head(&mut self, bytes: &[u8], context: &Context<'_>) -> Option<usize> {
        let limits = context.proxy.head_limits();
        match self.reader.request(bytes, &limits) {
            Ok(None) => None,
            Ok(Some((head, used))) => {
                self.is_used = true;
                self.request(&head, context);
                Some(used)
            }
            Err(fault) => {
                self.refuse_head(&Rejection::BadHead(fault), bytes, context);
                Some(bytes.len())
            }
        }
    }

    /// The time for a head is over. An idle connection has asked nothing and is owed nothing.
    pub(super) fn head_is_late(&mut self, context: &Context<'_>) {
        if self.unread.is_empty() {
            self.state = ConnectionState::Over { with_reset: false };
            return;
        }
        let bytes = std::mem::take(&mut self.unread);
        self.refuse_head(&Rejection::SlowHead, &bytes, context);
    }

    /// Refuses a head of which `bytes` were read. Nothing behind it can be told apart.
    fn refuse_head(&mut self, rejection: &Rejection, bytes: &[u8], context: &Context<'_>) {
        // An empty line may come first (RFC 9112, section 2.2).
        let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        // Whole, or too long ever to be, and not what somebody took for HTTP.
        let is_long = matches!(rejection, Rejection::BadHead(Fault::LongTarget));
        let is_readable = (is_long || line.len() < bytes.len())
            && line.iter().all(|byte| matches!(byte, b' '..=b'~'));
        let line = if is_readable { line } else { b"" };
        let entry = Entry::new(&context.proxy.access_log, line, RequestId::none(), context.now);
        let form = Form { to_head: bytes.starts_with(b"HEAD "), is_http_10: false, keeps: false };
        self.reject(rejection, entry, form, false, context);
    }

    /// Deals with a request whose head is whole.
    fn request(&mut self, head: &Request<'_>, context: &Context<'_>) {
        let proxy = context.proxy;
        let options = ConnectionOptions::of(&head.fields);
        let form = Form::of(head, &options);
        let has_body = !head.framing.is_empty();
        if health::is_check(head, &proxy.config.health_path) {
            let own = health::answer(context.stage.is_healthy());
            let form = Form { keeps: form.keeps && !has_body, ..form };
            return self.answer(&own, form, Linger::Long, context);
        }
        proxy.counters.requests.add(1);
        let request_id = RequestId::of_request(&head.fields, context.ids);
        let mut entry = Entry::new(&proxy.access_log, head.line, request_id, context.now);
        let offer = upgrade::offer(head, &options);
        if offer.is_some() {
            entry.handshake(&proxy.access_log, head);
        }
        entry.trace_id = trace_context::trace_id(&head.fields, &options);
        let Some(client) = &self.client else { return };
        if !client.identified {
            let rejection = Rejection::NoProxyHeader;
            proxy.warnings.proxy_header_refused(&rejection, self.balancer, context.now);
            return self.reject(&rejection, entry, form, has_body, context);
        }
        if head.max_forwards == Some(0) {
            return self.answer_last(head, entry, form, context);
        }
        let route = match proxy.routes.pick(head, offer.is_some()) {
            Ok(Some(route)) => Arc::clone(route),
            Ok(None) => return self.reject(&Rejection::NoRoute, entry, form, has_body, context),
            Err(Unclear) => {
                return self.reject(&Rejection::UnclearPath, entry, form, has_body, context);
            }
        };
        let config = &*route.config;
        self.stall_timeout = Some(config.stall_timeout);
        entry.route.clone_from(&route.name);
        if let Err(rejection) = self.admit(head, offer.is_some(), config, context) {
            return self.reject(&rejection, entry, form, has_body, context);
        }
        let Some(client) = &self.client else { return };
        let begun = (config.trace_context == TraceContext::Make && entry.trace_id.is_none())
            .then(|| Begun::new(std::array::from_fn(|_| (context.random)())));
        if let Some(begun) = &begun {
            entry.trace_id = Some(begun.trace_id);
        }
        let onward = Onward {
            client,
            begun: begun.as_ref(),
            request_id: &entry.request_id,
            config,
            changes: &route.changes,
            offer: offer.as_deref(),
        };
        let mut out = context.spare.take();
        out.clear();
        out.reserve(HEAD);
        write::request(&mut out, head, &options, &onward);
        let visitor = Visitor::of(head, client, config);
        let exchange = Exchange::new(route, head, form, entry, offer, out, visitor, context);
        self.state = ConnectionState::Exchange(Box::new(exchange));
        self.since = context.now;
    }

    /// Holds a request against the settings of its route.
    fn admit(
        &self,
        head: &Request<'_>,
        is_handshake: bool,
        config: &Config,
        context: &Context<'_>,
    ) -> Result<(), Rejection> {
        if let (Some(most), Framing::Length(length)) = (config.max_body_size, head.framing)
            && length > most
        {
            return Err(Rejection::LongBody);
        }
        let Some(client) = self.client.as_ref().filter(|_| is_handshake) else { return Ok(()) };
        let limits = &context.proxy.limits;
        limits.handshake(client.address, self.balancer, context.now).map_err(Rejection::Over)?;
        // RFC 6455, sections 4.2.2 and 10.2. Several origins are none at all.
        let Some(allowed) = &config.allowed_origins else { return Ok(()) };
        let mut origins = head.fields.iter().filter(|field| field.is(b"origin"));
        let is_allowed = match (origins.next(), origins.next()) {
            (None, _) => config.missing_origin == MissingOrigin::Allow,
            (Some(origin), None) => allowed.allow(origin.value),
            (Some(_), Some(_)) => false,
        };
        if is_allowed { Ok(()) } else { Err(Rejection::Origin) }
    }

    /// Answers OPTIONS or TRACE that must not be passed on any further.
    fn answer_last(
        &mut self,
        head: &Request<'_>,
        mut entry: Entry,
        form: Form,
        context: &Context<'_>,
    ) {
        let text = max_forwards::reflection(head);
        entry.status = Some(200);
        self.log(&entry, End::new(Side::Elbows, Phase::Request, Reason::Complete), context);
        let own = Own {
            status: 200,
            content_type: if text.is_empty() { "" } else { "message/http" },
            retry_after: None,
            is_volatile: false,
            text: &text,
        };
        let form = Form { keeps: form.keeps && head.framing.is_empty(), ..form };
        self.answer(&own, form, Linger::Long, context);
    }

    /// Answers a request in the upstream's place. `is_body_open` tells that its body has not been read.
    pub(super) fn reject(
        &mut self,
        rejection: &Rejection,
        mut entry: Entry,
        form: Form,
        is_body_open: bool,
        context: &Context<'_>,
    ) {
        let client = self.client.as_ref().map_or(self.balancer, |client| client.address);
        rejection.note(&From { client, request_id: &entry.request_id }, context.proxy, context.now);
        entry.status = Some(rejection.status());
        self.log(&entry, rejection.end(entry.during), context);
        let keeps = form.keeps && !is_body_open && !rejection.closes();
        let form = Form { keeps, ..form };
        rejection.answer(|own| self.answer(own, form, Linger::of(rejection), context));
    }

    /// Answers a request, and ends the connection unless it goes on.
    fn answer(&mut self, own: &Own<'_>, form: Form, linger: Linger, context: &Context<'_>) {
        let keeps = form.keeps && !context.stage.is_finishing();
        own.write(self.to_client.end(), Form { keeps, ..form });
        self.since = context.now;
        if keeps {
            self.state = ConnectionState::Head;
        } else {
            self.close(linger, context);
        }
    }

    /// Forgets what the client sent, and what memory that took.
    pub(super) fn forget_unread(&mut self) {
        self.unread = BytesMut::new();
    }
}
