//! The access log: one line per request, and one per tunnel when it ends, and if that is wanted when it opens.
//!
//! Lines are formed where the end is known and written by a thread of their own
//! ([`crate::line_writer`]): no worker ever waits for whoever reads them.

pub(crate) mod line;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use self::line::{Line, Opening, Spoken};
use crate::client::Client;
use crate::clock::Since;
use crate::config::{AccessLogFormat, Config};
use crate::end::{End, Phase};
use crate::http::head::Request;
use crate::http::request_id::RequestId;
use crate::http::trace_context::TraceId;
use crate::line_writer::{self, Lines, Writer};
use crate::metrics::labels::Method;
use crate::tunnel::{Handshake, Identity, State, Tunnel};
use crate::workers;

/// The longest request line that is kept, and so written (`docs/operations.md` tells it). A tunnel keeps its own for
/// as long as it is open: a target of 32 KiB would be what an idle tunnel costs, many times over.
const LONGEST_LINE: usize = 1_024;

/// The longest host and subprotocol that are kept: a name of the DNS has 253 bytes (RFC 1035, section 2.3.4).
const LONGEST_NAME: usize = 256;

/// The longest user agent that is kept. Those of browsers have some 120, those of apps in a phone up to 400.
const LONGEST_USER_AGENT: usize = 512;

/// The access log. Clones write to the same one.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    json: bool,
    /// Request lines have their queries.
    queries: bool,
    /// Tunnels have a line when they open.
    opens: bool,
    /// None: no line is written, and request lines are kept for whoever lists tunnels.
    lines: Option<Lines>,
}

impl AccessLog {
    /// The log that the settings ask for, to `out`, and its writer.
    ///
    /// # Errors
    /// The writer's thread could not be started.
    pub fn start(config: &Config, out: impl Write + Send + 'static) -> io::Result<(Self, Writer)> {
        let Config { access_log_query: queries, access_log_open: opens, .. } = *config;
        let json = match config.access_log {
            AccessLogFormat::Off => {
                // Whoever lists tunnels is told their requests.
                let is_kept = config.admin_listen_on.is_some();
                let open = Open { json: false, queries, opens: false, lines: None };
                return Ok((Self(is_kept.then(|| Arc::new(open))), Writer::none()));
            }
            AccessLogFormat::Json => true,
            AccessLogFormat::Text => false,
        };
        let (lines, writer) = line_writer::start("access-log", out)?;
        let open = Open { json, queries, opens, lines: Some(lines) };
        Ok((Self(Some(Arc::new(open))), writer))
    }

    /// A log as JSON, without a writer, whose lines a test takes.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn unwritten() -> (Self, Lines) {
        let lines = Lines::unwritten();
        let open = Open { json: true, queries: true, opens: false, lines: Some(lines.clone()) };
        (Self(Some(Arc::new(open))), lines)
    }

    /// Lines that were dropped because the reader was too slow, or gone.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().and_then(|open| open.lines.as_ref()).map_or(0, Lines::dropped)
    }

    /// Writes the line of a request of `client` that ended at `now`.
    pub(crate) fn request(&self, entry: &Entry, client: &Client, end: End, now: Instant) {
        let Some(open) = &self.0 else { return };
        open.write(&Line {
            time: &humantime::format_rfc3339_millis(SystemTime::now()),
            client: client.address,
            balancer: client.balancer,
            request: &entry.request,
            status: entry.status,
            from_client: entry.from_client,
            from_upstream: entry.from_upstream,
            duration: now.saturating_duration_since(entry.started),
            upstream: entry.upstream,
            end,
            request_id: &entry.request_id.text(),
            spoken: None,
            handoffs: None,
            handshake: None,
            trace_id: entry.trace_id,
            route: entry.route.as_deref(),
        });
    }

    /// Writes the line of a tunnel that opens, where that is wanted.
    pub(crate) fn opened(&self, identity: &Identity) {
        let Some(open) = self.0.as_ref().filter(|open| open.opens) else { return };
        let Some(lines) = &open.lines else { return };
        let line = Opening {
            time: &humantime::format_rfc3339_millis(SystemTime::now()),
            client: identity.client(),
            balancer: identity.balancer(),
            request: identity.request_line(),
            duration: identity.age(workers::elapsed()),
            upstream: identity.upstream(),
            request_id: &identity.request_id(),
            handshake: identity.handshake(),
            route: named(identity.route()),
        };
        let text = if open.json { line.json() } else { line.text() };
        lines.send(text.as_bytes());
    }

    /// Writes the line of a tunnel that has ended.
    pub(crate) fn tunnel(&self, tunnel: &Tunnel, end: End) {
        let Some(open) = &self.0 else { return };
        let state = &tunnel.state;
        let identity = &state.identity;
        let handshake = identity.handshake();
        open.write(&Line {
            time: &humantime::format_rfc3339_millis(SystemTime::now()),
            client: identity.client(),
            balancer: identity.balancer(),
            request: identity.request_line(),
            status: Some(101),
            from_client: state.flows.client.delivered(),
            from_upstream: state.flows.upstream.delivered(),
            duration: identity.age(workers::elapsed()),
            upstream: Some(identity.upstream()),
            end,
            request_id: &identity.request_id(),
            spoken: state.is_websocket().then(|| Spoken::of(state)),
            handoffs: Some(state.handoffs()),
            trace_id: handshake.trace_id,
            handshake: Some(handshake),
            route: named(identity.route()),
        });
    }
}

/// The name of a route, where it is not the default one.
fn named(route: &str) -> Option<&str> {
    (!route.is_empty()).then_some(route)
}

impl Spoken {
    fn of(state: &State) -> Self {
        let [client, upstream] = state.flows.both().map(|flow| flow.scanner.counts());
        Self {
            messages_from_client: client.messages,
            messages_from_upstream: upstream.messages,
            payload_from_client: client.payload,
            payload_from_upstream: upstream.payload,
            close: state.close(),
            ping: state.ping_round_trips(),
        }
    }
}

impl Open {
    fn write(&self, line: &Line<'_>) {
        let Some(lines) = &self.lines else { return };
        let text = if self.json { line.json() } else { line.text() };
        lines.send(text.as_bytes());
    }
}

/// The line of one request, filled in as the request goes on.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) request: String,
    pub(crate) status: Option<u16>,
    /// Bytes of its body.
    pub(crate) from_client: u64,
    /// Bytes of the response's body.
    pub(crate) from_upstream: u64,
    pub(crate) started: Instant,
    pub(crate) upstream: Option<SocketAddr>,
    /// The phase that it is in.
    pub(crate) during: Phase,
    pub(crate) request_id: RequestId,
    pub(crate) trace_id: Option<TraceId>,
    pub(crate) method: Method,
    /// The name of its route, where it is not the default one.
    pub(crate) route: Option<Arc<str>>,
    /// Of a handshake, where there is a log.
    handshake: Option<Box<Told>>,
}

/// What a handshake said, as far as it is kept.
#[derive(Debug)]
struct Told {
    host: String,
    user_agent: String,
    subprotocol: String,
}

impl Entry {
    /// The entry of a request that came at `now` with the line `request`, of which no more is kept than will be
    /// logged.
    pub(crate) fn new(
        log: &AccessLog,
        request: &[u8],
        request_id: RequestId,
        now: Instant,
    ) -> Self {
        let method = Method::of_line(request);
        let request = log.0.as_ref().map_or_else(String::new, |open| {
            let mut request = String::from_utf8_lossy(request).into_owned();
            if !open.queries {
                line::hide_query(&mut request);
            }
            line::cut(&mut request, LONGEST_LINE);
            request
        });
        Self {
            request,
            status: None,
            from_client: 0,
            from_upstream: 0,
            started: now,
            upstream: None,
            during: Phase::Request,
            request_id,
            trace_id: None,
            method,
            route: None,
            handshake: None,
        }
    }

    /// It is a handshake, with this head.
    pub(crate) fn handshake(&mut self, log: &AccessLog, head: &Request<'_>) {
        self.during = Phase::Handshake;
        if log.0.is_none() {
            return;
        }
        let user_agent = head.fields.iter().find(|field| field.is(b"user-agent"));
        let user_agent = user_agent.map(|field| field.value).unwrap_or_default();
        self.handshake = Some(Box::new(Told {
            host: kept(head.host.unwrap_or_default(), LONGEST_NAME),
            user_agent: kept(user_agent, LONGEST_USER_AGENT),
            subprotocol: String::new(),
        }));
    }

    /// The upstream has chosen this subprotocol.
    pub(crate) fn chosen(&mut self, subprotocol: &[u8]) {
        if let Some(told) = &mut self.handshake {
            told.subprotocol = kept(subprotocol, LONGEST_NAME);
        }
    }

    /// The identity of the request's tunnel, where the count began at `start`. The tunnel's end writes the line.
    pub(crate) fn identity(
        &self,
        client: &Client,
        upstream: SocketAddr,
        start: Instant,
    ) -> Identity {
        let said = self.handshake.as_deref().map_or_else(Handshake::default, |told| {
            let Told { host, user_agent, subprotocol } = told;
            Handshake { host, user_agent, subprotocol, trace_id: self.trace_id }
        });
        let addresses = [client.address, client.balancer, upstream];
        let started = Since::of(self.started, start);
        let route = self.route.as_deref().unwrap_or_default();
        Identity::of(addresses, &self.request, &self.request_id, started, &said, route)
    }
}

/// What a peer said, as text of no more than `longest` bytes.
fn kept(said: &[u8], longest: usize) -> String {
    let mut text = String::from_utf8_lossy(said).into_owned();
    line::cut(&mut text, longest);
    text
}
