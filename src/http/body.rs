//! Bodies on their way through: counted, never collected.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use super::expect::Gate;
use super::{forwarded, hop};
use crate::access_log::{Entry, Progress};
use crate::end::{End, Phase, Reason, Side};
use crate::metrics::Counters;
use crate::stall::Stalled;
use crate::upstream::Streamed;

/// Why a request body ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The client broke off, or broke a rule.
    #[error(transparent)]
    Client(hyper::Error),
    /// The upstream answered without asking for it.
    #[error("the upstream did not ask for the body")]
    NotAskedFor,
    /// It is longer than `MAX_BODY_SIZE`.
    #[error("longer than MAX_BODY_SIZE")]
    TooLong,
    /// The client stopped in the middle of it.
    #[error("the client stopped in the middle of its body")]
    Overdue,
}

/// The body of a request.
#[derive(Debug)]
pub(crate) struct FromClient {
    body: Option<Incoming>,
    progress: Arc<Progress>,
    gate: Option<Arc<Gate>>,
    most: u64,
    /// How long the client may send nothing.
    limit: Duration,
    /// Set while more is waited for.
    over: Option<Pin<Box<Sleep>>>,
}

impl FromClient {
    /// `body`, counted in `progress`, read only once `gate` is open, and broken off behind `most`
    /// bytes. A client that sends nothing of it for `limit` has lost it: an upstream that has answered
    /// already would wait for ever.
    pub(super) fn new(
        body: Incoming,
        progress: Arc<Progress>,
        gate: Option<Arc<Gate>>,
        most: Option<u64>,
        limit: Duration,
    ) -> Self {
        let most = most.unwrap_or(u64::MAX);
        Self { body: Some(body), progress, gate, most, limit, over: None }
    }

    /// The body of a request that has none.
    pub(super) fn none(progress: Arc<Progress>) -> Self {
        Self { body: None, progress, gate: None, most: u64::MAX, limit: Duration::ZERO, over: None }
    }
}

impl Default for FromClient {
    fn default() -> Self {
        Self::none(Arc::default())
    }
}

impl Body for FromClient {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if let Some(gate) = &this.gate
            && ready!(gate.poll_open(cx)).is_err()
        {
            return Poll::Ready(Some(Err(Fault::NotAskedFor)));
        }
        let polled = Pin::new(body).poll_frame(cx);
        this.progress.waits_for_client.store(polled.is_pending(), Ordering::Relaxed);
        let Poll::Ready(mut frame) = polled else {
            let limit = this.limit;
            let over = this.over.get_or_insert_with(|| Box::pin(sleep(limit)));
            ready!(over.as_mut().poll(cx));
            this.progress.overdue.store(true, Ordering::Relaxed);
            this.body = None;
            return Poll::Ready(Some(Err(Fault::Overdue)));
        };
        this.over = None;
        if let Some(Ok(frame)) = &mut frame {
            if let Some(data) = frame.data_ref() {
                let length = data.len() as u64;
                let before = this.progress.bytes.fetch_add(length, Ordering::Relaxed);
                if before.saturating_add(length) > this.most {
                    this.progress.is_over.store(true, Ordering::Relaxed);
                    return Poll::Ready(Some(Err(Fault::TooLong)));
                }
            } else if let Some(trailers) = frame.trailers_mut() {
                hop::strip_request(trailers);
                forwarded::clean_trailers(trailers);
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Fault::Client)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// The body of a response.
#[derive(Debug)]
pub(crate) enum ToClient {
    /// Our own words.
    Own(Full<Bytes>),
    /// The upstream's.
    Passed(Passed),
}

/// A response body on its way from the upstream, and the log line that it completes.
#[derive(Debug)]
pub(crate) struct Passed {
    body: Streamed<FromClient>,
    entry: Entry,
    /// Of a request whose body the upstream did not ask for: given up when the response is over, and
    /// not before, because that ends the upstream's connection.
    gate: Option<Arc<Gate>>,
    /// Whether the upstream takes nothing of the request while it sends this.
    upstream_stalled: Stalled,
    counters: Arc<Counters>,
}

impl ToClient {
    /// Our own words.
    pub(super) fn own(text: impl Into<Bytes>) -> Self {
        Self::Own(Full::new(text.into()))
    }

    /// The upstream's body. The log line is written when it has passed or was given up.
    pub(super) fn passed(
        body: Streamed<FromClient>,
        mut entry: Entry,
        upstream_stalled: Stalled,
        counters: Arc<Counters>,
    ) -> Self {
        entry.end = End::new(Side::Client, Phase::Response, Reason::Closed);
        Self::Passed(Passed { body, entry, gate: None, upstream_stalled, counters })
    }

    /// Gives `gate` up when the response is over.
    pub(super) fn then_give_up(&mut self, gate: Arc<Gate>) {
        if let Self::Passed(passed) = self {
            passed.gate = Some(gate);
        }
    }
}

impl Body for ToClient {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Own(own) => Pin::new(own).poll_frame(cx).map_err(|never| match never {}),
            Self::Passed(passed) => {
                let frame = ready!(Pin::new(&mut passed.body).poll_frame(cx));
                match &frame {
                    Some(Ok(frame)) => {
                        passed.entry.from_upstream += frame.data_ref().map_or(0, Bytes::len) as u64;
                    }
                    Some(Err(_)) if passed.entry.from_client.is_over() => {
                        passed.entry.end = End::new(Side::Client, Phase::Response, Reason::TooBig);
                    }
                    Some(Err(error)) => {
                        passed.entry.end = passed.broke_off(error);
                    }
                    None => passed.complete(),
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(own) => own.is_end_stream(),
            Self::Passed(passed) => passed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(own) => own.size_hint(),
            Self::Passed(passed) => passed.body.size_hint(),
        }
    }
}

impl Passed {
    /// The end of a body that stops before its time on the upstream's connection. That also ends when
    /// the request on it cannot go on.
    fn broke_off(&self, error: &hyper::Error) -> End {
        let (by, why) = if self.entry.from_client.overdue.load(Ordering::Relaxed) {
            (Side::Client, Reason::Timeout)
        } else if self.upstream_stalled.is_so() {
            (Side::Upstream, Reason::Stalled)
        } else if is_malformed(error) {
            self.counters.response_faults.malformed_chunks.add(1);
            tracing::debug!(request_id = self.entry.request_id, "bad response: {error}");
            (Side::Upstream, Reason::Malformed)
        } else {
            (Side::Upstream, Reason::Closed)
        };
        End::new(by, Phase::Response, why)
    }

    fn complete(&mut self) {
        self.entry.end = End::new(Side::Upstream, Phase::Response, Reason::Complete);
    }
}

/// Whether a response's body ends because its chunks are not what their grammar says: hyper's words for it.
fn is_malformed(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    source.is_some_and(|error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
    })
}

impl Drop for Passed {
    fn drop(&mut self) {
        // A body of known length is not asked again after its last byte.
        if self.body.is_end_stream() {
            self.complete();
        } else if self.entry.end.by == Side::Client && self.entry.client.stalled.is_so() {
            self.entry.end.why = Reason::Stalled;
        }
        if let Some(gate) = &self.gate {
            gate.give_up();
        }
    }
}
