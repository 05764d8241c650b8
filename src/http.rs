//! One HTTP/1.1 request: what elbows does with it.
//!
//! Framing is hyper's job. What is decided here, in this order: is it a health check, may it pass,
//! is it an upgrade. Then [`plain`] or [`upgrade`] takes it to the upstream.

mod admission;
mod body;
mod expect;
pub(crate) mod forwarded;
mod front;
pub(crate) mod health;
mod hop;
mod plain;
pub(crate) mod reject;
mod upgrade;

use std::future::Future;
use std::sync::Arc;

use http::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;

pub(crate) use self::body::{FromClient, ToClient};
pub(crate) use self::forwarded::RequestIds;
pub(crate) use self::front::Front;
use self::reject::Rejection;
use crate::access_log::Entry;
use crate::client::Client;
use crate::end::Phase;

/// The longest path and query, in bytes. RFC 9110, section 4.1, asks for 8,000 at least; half of what
/// a whole head may take leaves room for the fields.
const LONGEST_TARGET: usize = 32 * 1024;

/// Answers one request of `client`.
///
/// Its log line is begun before the future is first polled: hyper drops it unpolled where the client
/// has left by then, and that request has a line too.
pub(crate) fn answer(
    request: Request<Incoming>,
    client: Arc<Client>,
    front: Arc<Front>,
) -> impl Future<Output = Response<ToClient>> {
    let entry = (!health::is_check(&request, &front.config)).then(|| {
        front.counters.requests.add(1);
        Entry::new(
            front.access_log.clone(),
            Arc::clone(&client),
            request_line(&request),
            forwarded::request_id(request.headers(), &front.request_ids),
        )
    });
    async move {
        match entry {
            Some(entry) => pass(request, entry, &client, &front).await,
            None => health::answer(front.drain.is_healthy()),
        }
    }
}

/// Passes a request on, or says why not.
async fn pass(
    mut request: Request<Incoming>,
    mut entry: Entry,
    client: &Client,
    front: &Arc<Front>,
) -> Response<ToClient> {
    if let Err(rejection) = check(&mut request, client) {
        return reject::answer(&rejection, entry, &front.counters);
    }
    let offer = wants_upgrade(&request);
    if offer.is_some() {
        entry.end.during = Phase::Handshake;
    }
    if let Err(rejection) = admission::check(&request, offer.is_some(), client, front) {
        return reject::answer(&rejection, entry, &front.counters);
    }
    hop::strip_request(request.headers_mut());
    if !request.body().is_end_stream() && request.body().size_hint().exact().is_none() {
        // hyper's client takes a GET without this to have no body, whatever its body says.
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
    forwarded::set(&mut request, client, &entry.request_id, &front.config);
    let sent = if let Some(offer) = offer {
        upgrade::pass(request, offer, entry, front).await
    } else {
        plain::pass(request, entry, front).await
    };
    match sent {
        Ok(response) => response,
        Err((_, entry)) if entry.from_client.is_over() => {
            reject::answer(&Rejection::LongBody, entry, &front.counters)
        }
        Err((rejection, entry)) => reject::answer(&rejection, entry, &front.counters),
    }
}

/// What may not pass is refused here; what has two forms is given its one form.
fn check(request: &mut Request<Incoming>, client: &Client) -> Result<(), Rejection> {
    if !client.identified {
        return Err(Rejection::NoProxyHeader);
    }
    if request.method() == Method::CONNECT {
        return Err(Rejection::Connect);
    }
    let chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    if !request.headers().get_all(TRANSFER_ENCODING).iter().all(chunked) {
        return Err(Rejection::TransferCoding);
    }
    check_host(request)?;
    origin_form(request)
}

/// RFC 9112, section 3.2: one `Host`, and none only in HTTP/1.0.
fn check_host(request: &mut Request<Incoming>) -> Result<(), Rejection> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        (Some(_), None) => Err(Rejection::BadHost),
        (None, _) if request.version() == Version::HTTP_10 => {
            // The upstream gets HTTP/1.1, which demands one; it is empty where there is no authority.
            request.headers_mut().insert(HOST, HeaderValue::from_static(""));
            Ok(())
        }
        (None, _) => Err(Rejection::NoHost),
        (Some(_), Some(_)) => Err(Rejection::SeveralHosts),
    }
}

/// Whether it can be a host and a port. Not what they are: that is for the upstream to judge. Only
/// what ends a host elsewhere in a URI, or separates two, is no part of one (RFC 3986, section 3.2).
fn is_host(host: &[u8]) -> bool {
    host.iter().all(|byte| byte.is_ascii_graphic() && !b"/?#@,\\\"<>".contains(byte))
}

/// The target in origin form, or `*` (RFC 9112, section 3.2). Of the absolute form, the authority
/// replaces `Host`.
fn origin_form(request: &mut Request<Incoming>) -> Result<(), Rejection> {
    let target = request.uri();
    let path_and_query = target.path_and_query().map_or("", |target| target.as_str());
    if path_and_query.len() > LONGEST_TARGET {
        return Err(Rejection::LongTarget);
    }
    let Some(authority) = target.authority() else {
        let asterisk = path_and_query == "*" && request.method() == Method::OPTIONS;
        let origin = path_and_query.starts_with('/');
        return if origin || asterisk { Ok(()) } else { Err(Rejection::BadTarget) };
    };
    // An authority alone is for CONNECT; a user's name has no place in a request (RFC 9110, 4.2.4).
    if target.scheme().is_none() || !is_host(authority.as_str().as_bytes()) {
        return Err(Rejection::BadTarget);
    }
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Rejection::BadTarget)?;
    request.headers_mut().insert(HOST, host);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = None;
    parts.authority = None;
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Rejection::BadTarget)?;
    Ok(())
}

/// The protocols that the client offers to change to, if it does (RFC 9110, section 7.8).
///
/// An offer of HTTP/1.0 is ignored, as the RFC demands. `h2c` is never passed on: what would be
/// spoken after it, nobody here could read.
fn wants_upgrade(request: &Request<Incoming>) -> Option<HeaderValue> {
    if request.version() != Version::HTTP_11 || !lists(request.headers(), "upgrade") {
        return None;
    }
    let h2c = |item: &&str| item.get(..3).is_some_and(|name| name.eq_ignore_ascii_case("h2c"));
    let offers: Vec<&str> = request
        .headers()
        .get_all(UPGRADE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .filter(|item| !item.is_empty() && !h2c(item))
        .collect();
    if offers.is_empty() {
        return None;
    }
    HeaderValue::from_str(&offers.join(", ")).ok()
}

/// Whether `Connection` lists `option`.
fn lists(headers: &HeaderMap, option: &str) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(option))
}

fn request_line(request: &Request<Incoming>) -> String {
    format!("{} {} {:?}", request.method(), request.uri(), request.version())
}
