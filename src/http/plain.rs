//! A request that is no upgrade, to the upstream and back. Bodies stream both ways.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::ext::on_informational;
use tokio::time::timeout;

use super::expect::{self, Gate};
use super::reject::Rejection;
use super::{FromClient, Front, ToClient, hop};
use crate::access_log::{Entry, Progress};
use crate::stall::Stalled;
use crate::upstream::{Endpoint, SendError};

/// Sends the request through the pool and passes the response on.
pub(super) async fn pass(
    request: Request<Incoming>,
    mut entry: Entry,
    front: &Front,
) -> Result<Response<ToClient>, (Rejection, Entry)> {
    let progress = Arc::clone(&entry.from_client);
    let gate = (expect::is_expected(request.headers()) && !request.body().is_end_stream())
        .then(Arc::<Gate>::default);
    let response = match send(request, gate.as_ref(), &progress, front).await {
        Ok(response) => response,
        Err(mut failed) => {
            if progress.overdue.load(Ordering::Relaxed) {
                failed.rejection = Rejection::SlowBody;
            }
            entry.upstream = failed.upstream;
            return Err((failed.rejection, entry));
        }
    };
    entry.upstream = response.extensions().get::<Endpoint>().map(|endpoint| endpoint.0);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err((Rejection::UnaskedUpgrade, entry));
    }
    if has_unknown_coding(&response) {
        return Err((Rejection::UnknownCoding, entry));
    }
    let mut response = pass_back(response, entry);
    if let Some(gate) = gate.filter(|gate| gate.is_shut()) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response.body_mut().then_give_up(gate);
    }
    Ok(response)
}

/// The upstream's response, made the client's.
pub(super) fn pass_back(response: Response<Incoming>, mut entry: Entry) -> Response<ToClient> {
    let (mut parts, body) = response.into_parts();
    entry.status = Some(parts.status.as_u16());
    hop::strip_response(parts.status, &mut parts.headers);
    // hyper writes each hop's own version; this one is what the client's side may use.
    parts.version = Version::HTTP_11;
    let stalled = parts.extensions.get::<Stalled>().cloned().unwrap_or_default();
    Response::from_parts(parts, ToClient::passed(body, entry, stalled))
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
) -> Result<Response<Incoming>, Failed> {
    let (mut parts, body) = request.into_parts();
    parts.version = Version::HTTP_11;
    let limit = front.config.response_head_timeout;
    if body.is_end_stream() {
        // Kept for a second try, where one is allowed.
        let again = is_safe_to_repeat(&parts.method).then(|| parts.clone());
        let first = Request::from_parts(parts, FromClient::none(Arc::clone(progress)));
        let error = match head(front.pool.send(first), progress, limit).await? {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        return match again {
            Some(parts) if error.is_stale_connection() => {
                let second = Request::from_parts(parts, FromClient::none(Arc::clone(progress)));
                Ok(head(front.pool.send(second), progress, limit).await??)
            }
            _ => Err(error.into()),
        };
    }

    let most = front.config.max_body_size;
    let body = FromClient::new(body, Arc::clone(progress), gate.cloned(), most, limit);
    let mut request = Request::from_parts(parts, body);
    let Some(gate) = gate else {
        return Ok(head(front.pool.send(request), progress, limit).await??);
    };
    let upstream_agrees = Arc::clone(gate);
    on_informational(&mut request, move |response| {
        if response.status() == StatusCode::CONTINUE {
            upstream_agrees.open();
        }
    });
    let mut response = pin!(head(front.pool.send(request), progress, limit));
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

/// Whether the body has a transfer coding besides chunked. None was asked for, since `TE` does not
/// pass, and the field that names it is this hop's: the client could not make sense of the body.
fn has_unknown_coding(response: &Response<Incoming>) -> bool {
    let mut codings = response.headers().get_all(TRANSFER_ENCODING).iter();
    codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

/// RFC 9110, section 9.2.1: methods that only ask. A request is never sent twice otherwise.
fn is_safe_to_repeat(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn reject(error: &SendError) -> Rejection {
    if let Some(fault) = error.connect_fault() {
        return Rejection::NoConnection { why: fault.reason(), text: fault.to_string() };
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
