//! One HTTP/1.1 request: what elbows does with it.
//!
//! What is no HTTP, or could be read in two ways, never comes so far: [`head`] and [`framing`] read a
//! client's bytes strictly, and `checked` stands between them and hyper. An upgrade goes its own way,
//! `upgrade`. All else comes here from hyper: a health check is answered, the rest goes to the upstream
//! by `plain`.

pub mod framing;
pub mod head;

mod admission;
mod body;
pub(crate) mod checked;
mod expect;
pub(crate) mod forwarded;
mod front;
pub(crate) mod health;
mod hop;
mod max_forwards;
mod plain;
pub(crate) mod reject;
mod replay;
pub(crate) mod upgrade;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::header::{HOST, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use http_body::Body;
use hyper::body::Incoming;

pub(crate) use self::body::{FromClient, ToClient};
pub(crate) use self::forwarded::RequestIds;
pub(crate) use self::front::Front;
use self::reject::Rejection;
use crate::access_log::Entry;
use crate::client::Client;
use crate::end::{End, Phase, Reason, Side};

/// Marks OPTIONS in absolute form without a path, which asks about the whole server (RFC 9112, section 3.2.4):
/// hyper gives the target a path all the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerWide;

/// Answers one request of `client`.
///
/// Its log line is begun before the future is first polled: hyper drops it unpolled where the client
/// has left by then, and that request has a line too.
pub(crate) fn answer(
    request: Request<Incoming>,
    client: Arc<Client>,
    front: Arc<Front>,
) -> Pin<Box<dyn Future<Output = Response<ToClient>> + Send>> {
    let entry = (!health::is_check(&request, &front.config)).then(|| {
        front.counters.requests.add(1);
        // Nobody else asks for it.
        let line = if front.access_log.is_open() { request_line(&request) } else { String::new() };
        Entry::new(
            front.access_log.clone(),
            Arc::clone(&client),
            line.into(),
            forwarded::request_id(request.headers(), &front.request_ids),
        )
    });
    // On the heap, where it stays: hyper and we move what is not there several times.
    Box::pin(async move {
        match entry {
            Some(entry) => pass(request, entry, &client, &front).await,
            None => health::answer(front.drain.is_healthy()),
        }
    })
}

/// Passes a request on, or says why not.
async fn pass(
    mut request: Request<Incoming>,
    mut entry: Entry,
    client: &Client,
    front: &Arc<Front>,
) -> Response<ToClient> {
    if !client.identified {
        return reject::answer(&Rejection::NoProxyHeader, entry, &front.counters);
    }
    if let Some(response) = max_forwards::count_down(&mut request) {
        entry.status = Some(response.status().as_u16());
        entry.end = End::new(Side::Elbows, Phase::Request, Reason::Complete);
        return response;
    }
    origin_form(&mut request);
    if let Err(rejection) = admission::body(&request, front) {
        return reject::answer(&rejection, entry, &front.counters);
    }
    expect::ignore_in_http_10(&mut request);
    hop::strip_request(request.headers_mut());
    if !request.body().is_end_stream() && request.body().size_hint().exact().is_none() {
        // hyper's client takes a GET without this to have no body, whatever its body says.
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
    forwarded::set(&mut request, client, &entry.request_id, &front.config);
    match plain::pass(request, entry, front).await {
        Ok(response) => response,
        Err((_, entry)) if entry.from_client.is_over() => {
            reject::answer(&Rejection::LongBody, entry, &front.counters)
        }
        Err((rejection, entry)) => reject::answer(&rejection, entry, &front.counters),
    }
}

/// The target in origin form, or `*` (RFC 9112, section 3.2). Of the absolute form, the authority
/// replaces `Host`; where there is neither, in HTTP/1.0, it is empty, for the upstream gets HTTP/1.1.
fn origin_form(request: &mut Request<Incoming>) {
    if let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = None;
        parts.authority = None;
        if request.extensions().get::<ServerWide>().is_some() {
            parts.path_and_query = Some(PathAndQuery::from_static("*"));
        }
        if let Ok(target) = Uri::from_parts(parts) {
            *request.uri_mut() = target;
        }
    }
    request.headers_mut().entry(HOST).or_insert(HeaderValue::from_static(""));
}

fn request_line<B>(request: &Request<B>) -> String {
    format!("{} {} {:?}", request.method(), request.uri(), request.version())
}
