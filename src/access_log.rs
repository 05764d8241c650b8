//! The access log: one line per request, and one per tunnel when it ends.
//!
//! Lines are formed where the end is known and written by a thread of their own
//! ([`crate::line_writer`]): neither the front nor the relay ever waits for whoever reads them.

mod line;

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use self::line::{Line, Spoken};
use crate::client::Client;
use crate::config::AccessLogFormat;
use crate::end::{End, Phase, Reason, Side};
use crate::line_writer::{self, Lines, Writer};
use crate::tunnel::{Identity, State, Tunnel};

/// The longest request line that is kept, and so written (`docs/operations.md` tells it). A tunnel keeps its own for as long as it is
/// open: a target of 32 KiB would be what an idle tunnel costs, many times over.
const LONGEST_LINE: usize = 1_024;

/// The access log. Clones write to the same one.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    json: bool,
    /// Request lines have their queries.
    queries: bool,
    lines: Lines,
    /// What is open is being cut: see [`AccessLog::cut`].
    cutting: AtomicBool,
}

/// How far a request body has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Bytes passed on.
    pub(crate) bytes: AtomicU64,
    /// More was asked for, and the client has not sent it yet.
    pub(crate) waits_for_client: AtomicBool,
    /// It is longer than `MAX_BODY_SIZE`.
    pub(crate) is_over: AtomicBool,
    /// It waited for too long: the client stopped in the middle of its body.
    pub(crate) overdue: AtomicBool,
}

impl Progress {
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

impl AccessLog {
    /// A log in the form `format`, with or without queries, to `out`, and its writer.
    ///
    /// # Errors
    /// The writer's thread could not be started.
    pub fn start(
        format: AccessLogFormat,
        queries: bool,
        out: impl Write + Send + 'static,
    ) -> io::Result<(Self, Writer)> {
        let json = match format {
            AccessLogFormat::Off => return Ok((Self(None), Writer::none())),
            AccessLogFormat::Json => true,
            AccessLogFormat::Text => false,
        };
        let (lines, writer) = line_writer::start("access-log", out)?;
        let open = Open { json, queries, lines, cutting: AtomicBool::new(false) };
        Ok((Self(Some(Arc::new(open))), writer))
    }

    /// Lines that were dropped because the reader was too slow, or gone.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |open| open.lines.dropped())
    }

    /// Whether lines are written at all.
    pub(crate) const fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// From now on, requests that are given up were cut by us and did not lose their client.
    pub(crate) fn cut(&self) {
        if let Some(open) = &self.0 {
            open.cutting.store(true, Ordering::Relaxed);
        }
    }

    /// Writes the line of a tunnel that has ended.
    pub(crate) fn tunnel(&self, tunnel: &Tunnel, end: End) {
        let Some(open) = &self.0 else { return };
        let state = &tunnel.state;
        let identity = &state.identity;
        open.write(&Line {
            client: identity.client(),
            balancer: identity.balancer(),
            request: identity.request_line(),
            status: Some(101),
            from_client: state.flows.client.delivered(),
            from_upstream: state.flows.upstream.delivered(),
            duration: identity.started().elapsed(),
            upstream: Some(identity.upstream()),
            end,
            request_id: identity.request_id(),
            spoken: state.is_websocket().then(|| Spoken::of(state)),
        });
    }
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
        let text = if self.json { line.json() } else { line.text() };
        self.lines.send(text.as_bytes());
    }
}

/// The line of one request, filled in as the request goes on.
///
/// It is written when the value is dropped, whatever the reason: a request whose future is dropped
/// because the client went away is logged as just that, since [`Entry::end`] starts so.
#[derive(Debug)]
pub(crate) struct Entry {
    log: AccessLog,
    logged: bool,
    pub(crate) client: Arc<Client>,
    pub(crate) request: String,
    pub(crate) status: Option<u16>,
    pub(crate) from_client: Arc<Progress>,
    pub(crate) from_upstream: u64,
    pub(crate) started: Instant,
    pub(crate) upstream: Option<SocketAddr>,
    pub(crate) end: End,
    pub(crate) request_id: String,
}

impl Entry {
    /// The entry of the request with the line `request`, of which no more is kept than will be logged.
    pub(crate) fn new(
        log: AccessLog,
        client: Arc<Client>,
        request: Cow<'_, str>,
        request_id: String,
    ) -> Self {
        let request = log.0.as_ref().map_or_else(String::new, |open| {
            let mut request = request.into_owned();
            if !open.queries {
                line::hide_query(&mut request);
            }
            line::cut(&mut request, LONGEST_LINE);
            request
        });
        Self {
            log,
            logged: true,
            client,
            request,
            status: None,
            from_client: Arc::default(),
            from_upstream: 0,
            started: Instant::now(),
            upstream: None,
            end: End::new(Side::Client, Phase::Request, Reason::Closed),
            request_id,
        }
    }

    /// Makes the request's identity that of its tunnel. The tunnel's end writes the line.
    pub(crate) fn into_identity(mut self, upstream: SocketAddr) -> Identity {
        self.logged = false;
        Identity::new(
            self.client.address,
            self.client.balancer,
            upstream,
            &self.request,
            &self.request_id,
            self.started,
        )
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.logged {
            return;
        }
        let Some(open) = &self.log.0 else { return };
        let given_up = self.end.by == Side::Client && self.end.why == Reason::Closed;
        if given_up && open.cutting.load(Ordering::Relaxed) {
            self.end = End::new(Side::Elbows, Phase::Drain, Reason::PeriodOver);
        }
        open.write(&Line {
            client: self.client.address,
            balancer: self.client.balancer,
            request: &self.request,
            status: self.status,
            from_client: self.from_client.bytes.load(Ordering::Relaxed),
            from_upstream: self.from_upstream,
            duration: self.started.elapsed(),
            upstream: self.upstream,
            end: self.end,
            request_id: &self.request_id,
            spoken: None,
        });
    }
}
