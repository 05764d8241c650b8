//! A request that is no upgrade, to the upstream and back. Bodies stream both ways.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::ext::on_informational;
use tokio::time::timeout;

use super::expect::{self, Gate};
use super::head::{self, Fault};
use super::reject::Rejection;
use super::{FromClient, Front, ToClient, hop};
use crate::access_log::{Entry, Progress};
use crate::stall::Stalled;
use crate::upstream::{Answered, SendError, Streamed};

/// Sends the request through the pool and passes the response on.
pub(super) async fn pass(
    request: Request<Incoming>,
    mut entry: Entry,
    front: &Front,
) -> Result<Response<ToClient>, (Rejection, Entry)> {
    let progress = Arc::clone(&entry.from_client);
    let gate = (expect::is_expected(request.headers()) && !request.body().is_end_stream())
        .then(Arc::<Gate>::default);
    let Answered { response, endpoint, stalled } =
        match send(request, gate.as_ref(), &progress, front).await {
            Ok(answered) => answered,
            Err(mut failed) => {
                if progress.overdue.load(Ordering::Relaxed) {
                    failed.rejection = Rejection::SlowBody;
                }
                entry.upstream = failed.upstream;
                return Err((failed.rejection, entry));
            }
        };
    entry.upstream = Some(endpoint);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err((Rejection::UnaskedUpgrade, entry));
    }
    if let Err(rejection) = check(&response) {
        return Err((rejection, entry));
    }
    let mut response = pass_back(response, entry, stalled, front);
    if let Some(gate) = gate.filter(|gate| gate.is_shut()) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response.body_mut().then_give_up(gate);
    }
    Ok(response)
}

/// The upstream's response, made the client's.
pub(super) fn pass_back(
    response: Response<Streamed<FromClient>>,
    mut entry: Entry,
    upstream_stalled: Stalled,
    front: &Front,
) -> Response<ToClient> {
    let (mut parts, body) = response.into_parts();
    entry.status = Some(parts.status.as_u16());
    hop::strip_response(parts.status, &mut parts.headers);
    // hyper writes each hop's own version; this one is what the client's side may use.
    parts.version = Version::HTTP_11;
    if parts.status == StatusCode::NO_CONTENT {
        // RFC 9110, section 8.6: it has none to tell of.
        parts.headers.remove(CONTENT_LENGTH);
    }
    Response::from_parts(
        parts,
        ToClient::passed(body, entry, upstream_stalled, Arc::clone(&front.counters)),
    )
}

/// Refuses a response whose end could be read in two ways.
pub(super) fn check<B>(response: &Response<B>) -> Result<(), Rejection> {
    framing(response.headers()).map_err(Rejection::BadResponse)
}

/// Why there is no response, and where it was to come from, as far as that is known.
struct Failed {
    rejection: Rejection,
    upstream: Option<SocketAddr>,
}

impl From<Rejection> for Failed {
    fn from(rejection: Rejection) -> Self {
        Self { rejection, upstream: None }
    }
}

impl From<SendError> for Failed {
    fn from(error: SendError) -> Self {
        Self { rejection: reject(&error), upstream: error.endpoint() }
    }
}

async fn send(
    request: Request<Incoming>,
    gate: Option<&Arc<Gate>>,
    progress: &Arc<Progress>,
    front: &Front,
) -> Result<Answered<FromClient>, Failed> {
    let (mut parts, body) = request.into_parts();
    parts.version = Version::HTTP_11;
    let limit = front.config.response_head_timeout;
    if body.is_end_stream() {
        let is_safe = is_safe_to_repeat(&parts.method);
        let body = FromClient::none(Arc::clone(progress));
        let request = Box::new(Request::from_parts(parts, body));
        return Ok(head(front.pool.send(request, is_safe), progress, limit).await??);
    }

    // On the heap: it is rare, and large.
    Box::pin(send_with_body(parts, body, gate, progress, front)).await
}

async fn send_with_body(
    parts: Parts,
    body: Incoming,
    gate: Option<&Arc<Gate>>,
    progress: &Arc<Progress>,
    front: &Front,
) -> Result<Answered<FromClient>, Failed> {
    let limit = front.config.response_head_timeout;
    let most = front.config.max_body_size;
    let body = FromClient::new(body, Arc::clone(progress), gate.cloned(), most, limit);
    let mut request = Box::new(Request::from_parts(parts, body));
    let Some(gate) = gate else {
        return Ok(head(front.pool.send(request, false), progress, limit).await??);
    };
    let upstream_agrees = Arc::clone(gate);
    on_informational(&mut request, move |response| {
        if response.status() == StatusCode::CONTINUE {
            upstream_agrees.open();
        }
    });
    let mut response = pin!(head(front.pool.send(request, false), progress, limit));
    let answer = if let Ok(answer) = timeout(expect::PATIENCE.min(limit), &mut response).await {
        answer
    } else {
        gate.open();
        response.await
    };
    Ok(answer??)
}

/// Waits for a response head: `limit` from the request's last byte, or from the last one that moved.
pub(super) async fn head<T>(
    response: impl Future<Output = T>,
    progress: &Progress,
    limit: Duration,
) -> Result<T, Rejection> {
    let mut response = pin!(response);
    let mut seen = progress.bytes.load(Ordering::Relaxed);
    loop {
        if let Ok(answer) = timeout(limit, &mut response).await {
            return Ok(answer);
        }
        let now = progress.bytes.load(Ordering::Relaxed);
        if now == seen {
            let client = progress.waits_for_client.load(Ordering::Relaxed);
            return Err(if client { Rejection::SlowBody } else { Rejection::NoResponse });
        }
        seen = now;
    }
}

/// How long a response's body is must be said once (RFC 9112, section 6.3): hyper takes several lengths that
/// are alike, a length beside chunked, and codings before it. None of those was asked for, since `TE` does
/// not pass, and the client could not make sense of the body.
fn framing(headers: &HeaderMap) -> Result<(), Fault> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (lengths.next(), lengths.next(), codings.next(), codings.next()) {
        (None, None, None, None) => Ok(()),
        (Some(length), None, None, None) => head::content_length(length.as_bytes()).map(|_| ()),
        (None, None, Some(coding), None) => {
            head::transfer_coding(coding.as_bytes(), head::Version::Http11)
        }
        (_, _, Some(_), Some(_)) => Err(Fault::Coding),
        (_, Some(_), _, _) => Err(Fault::SeveralLengths),
        _ => Err(Fault::LengthAndCoding),
    }
}

/// RFC 9110, section 9.2.1: methods that only ask. A request is never sent twice otherwise.
fn is_safe_to_repeat(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn reject(error: &SendError) -> Rejection {
    if let Some(fault) = error.connect_fault() {
        return Rejection::NoConnection { why: fault.reason(), text: fault.to_string() };
    }
    if let Some(fault) = error.client_fault() {
        return Rejection::BadBody(fault);
    }
    if error.is_client_body() {
        return Rejection::CutBody;
    }
    if error.is_stalled() {
        return Rejection::NoResponse;
    }
    if error.is_malformed_response() {
        return Rejection::MalformedResponse(error.to_string());
    }
    Rejection::UpstreamClosed(error.to_string())
}
