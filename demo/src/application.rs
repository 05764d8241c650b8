//! The demo's application: what stands behind elbows in `elbows demo`, in `compose.yaml` and in
//! tests of the image.
//!
//! | path | answer |
//! |---|---|
//! | `/` | the page |
//! | `/whoami` | what the application saw of the client, as JSON ([`WhoAmI`]) |
//! | `/headers`, `/headers/…` | the request as it arrived: JSON lines, request line first |
//! | `/events` | server-sent events, one per second |
//! | `/ws/echo` | WebSocket: each message comes back, up to 1 MiB |
//! | `/ws/ticker` | WebSocket: simulated prices, each symbol four times per second |
//! | `/ws/whoami` | WebSocket: what `/whoami` says about the handshake, then Close 1000 |
//!
//! One task per connection, from its first byte to the end of its WebSocket, so that all of them
//! can be waited for. The handshake (RFC 6455, section 4.2) is checked here: whatever a client
//! sends gets a status, and never ends more than its own connection.
mod handshake;
mod prices;
mod sockets;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use self::prices::Market;
use self::sockets::Session;
use super::{Scene, Stop};

const PAGE: &str = include_str!("page.html");

/// The page brings everything with it and talks to nobody but us. `ws:` stands there for browsers
/// in which `'self'` does not cover a WebSocket.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
     script-src 'unsafe-inline'; img-src data:; connect-src 'self' ws: wss:";

/// How long a client may take with a request head, and a connection may wait for the next one.
/// Longer than elbows keeps an idle connection to an upstream, so that it is elbows who ends it.
const HEAD_LIMIT: Duration = Duration::from_secs(90);

/// How long connections may take to end after the application was told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// How long to wait after `accept` failed, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The time between two server-sent events.
const EVENT_PERIOD: Duration = Duration::from_secs(1);

/// What the application saw of the client that asked. A header that came more than once has its
/// values joined by `, `; one that did not come is `null`.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub struct WhoAmI {
    /// Whom the application takes for the client: the first address of `X-Forwarded-For`, or the
    /// other side of the socket if there is none.
    pub client: String,
    /// `X-Forwarded-For`.
    pub x_forwarded_for: Option<String>,
    /// `X-Real-IP`.
    pub x_real_ip: Option<String>,
    /// `X-Forwarded-Proto`.
    pub x_forwarded_proto: Option<String>,
    /// `X-Forwarded-Port`.
    pub x_forwarded_port: Option<String>,
    /// `X-Forwarded-Host`.
    pub x_forwarded_host: Option<String>,
    /// `X-Request-Id`.
    pub x_request_id: Option<String>,
    /// `Host`.
    pub host: Option<String>,
    /// The other side of the socket: where elbows connected from.
    pub peer: SocketAddr,
    /// Our side of the socket.
    pub application: SocketAddr,
    /// The application's clock, in milliseconds since 1970.
    pub now: f64,
}

/// [`WhoAmI`] as `/whoami` answers it: with who is where, if the application knows.
#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    who: WhoAmI,
    demo: Option<Scene>,
}

/// Serves `listener` until told to stop. Then each WebSocket gets Close 1001, event streams end, and
/// what is still open after two seconds is cut.
///
/// `scene` is for the page; `None` where the application runs alone and knows only its own side.
pub async fn serve(listener: TcpListener, scene: Option<Scene>, mut stop: Stop) {
    let market = Market::new();
    let mut connections = JoinSet::new();
    let open = async {
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((socket, peer)) => {
                        let peer = plain_family(peer);
                        let place = Place { peer, scene, market: market.clone(), stop: stop.clone() };
                        connections.spawn(connection(socket, place));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "application: accept");
                        // Nobody tells when there are descriptors again.
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                () = stop.asked() => break,
            }
        }
    };
    tokio::select! {
        () = open => {}
        () = market.trade() => {}
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(GRACE, all_ended).await;
}

/// What one connection needs to know.
struct Place {
    peer: SocketAddr,
    scene: Option<Scene>,
    market: Market,
    stop: Stop,
}

/// One connection: HTTP, and after an upgrade its WebSocket.
async fn connection(socket: TcpStream, place: Place) {
    let (peer, mut stop) = (place.peer, place.stop.clone());
    let ours = match socket.local_addr() {
        Ok(ours) if socket.set_nodelay(true).is_ok() => plain_family(ours),
        _ => return,
    };
    // The service leaves the WebSocket here. At most one request of a connection is upgraded.
    let upgraded = Mutex::new(None);
    let service = service_fn(|request| {
        let (response, session) = answer(request, &place, ours);
        if let (Some(session), Ok(mut upgraded)) = (session, upgraded.lock()) {
            *upgraded = Some(session);
        }
        async move { Ok::<_, Infallible>(response) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .half_close(true)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    let served = tokio::select! {
        served = &mut serving => served,
        () = stop.asked() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "application: connection ended");
        return;
    }
    let session: Option<Session> = upgraded.lock().ok().and_then(|mut left| left.take());
    if let Some(session) = session {
        session.run(&place.market, stop).await;
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The response to `request`, and the WebSocket that follows if the response is a 101.
fn answer(
    mut request: Request<Incoming>,
    place: &Place,
    ours: SocketAddr,
) -> (Response<Body>, Option<Session>) {
    let path = request.uri().path();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let open: Option<fn(WhoAmI) -> sockets::Kind> = match path {
        "/ws/echo" => Some(|_| sockets::Kind::Echo),
        "/ws/ticker" => Some(|_| sockets::Kind::Ticker),
        "/ws/whoami" => Some(|who| sockets::Kind::WhoAmI(Box::new(who))),
        _ => None,
    };
    if let Some(open) = open {
        let response = handshake::accept(&request).map(|sentence| whole(sentence.as_bytes()));
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return (response, None);
        }
        let who = who_am_i(request.headers(), place.peer, ours);
        let on = hyper::upgrade::on(&mut request);
        return (response, Some(Session::new(on, open(who))));
    }
    let response = match path {
        "/headers" => plain("application/x-ndjson", headers(&request)),
        _ if path.starts_with("/headers/") => plain("application/x-ndjson", headers(&request)),
        "/" | "/whoami" | "/events" if !is_read => {
            let mut response = status(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD here\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allowed);
            response
        }
        "/" => page(),
        "/whoami" => {
            let who = who_am_i(request.headers(), place.peer, ours);
            let answer = Answer { who, demo: place.scene };
            plain("application/json", json(&answer))
        }
        "/events" => events(place.stop.clone()),
        _ => status(StatusCode::NOT_FOUND, "no such path in the demo\n"),
    };
    (response, None)
}

/// A listener on `[::]` reports IPv4 addresses mapped into IPv6; people know them as IPv4.
const fn plain_family(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn page() -> Response<Body> {
    let mut response = plain("text/html; charset=utf-8", PAGE);
    let policy = HeaderValue::from_static(PAGE_POLICY);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    response
}

fn who_am_i(headers: &HeaderMap, peer: SocketAddr, application: SocketAddr) -> WhoAmI {
    let header = |name: &'static str| joined(headers, &HeaderName::from_static(name));
    let x_forwarded_for = header("x-forwarded-for");
    let first = x_forwarded_for.as_deref().and_then(|list| list.split(',').next());
    WhoAmI {
        client: first.map_or_else(|| peer.ip().to_string(), |first| first.trim().to_owned()),
        x_real_ip: header("x-real-ip"),
        x_forwarded_proto: header("x-forwarded-proto"),
        x_forwarded_port: header("x-forwarded-port"),
        x_forwarded_host: header("x-forwarded-host"),
        x_request_id: header("x-request-id"),
        host: joined(headers, &HOST),
        peer,
        application,
        now: now(),
        x_forwarded_for,
    }
}

/// All values of `name`, joined as RFC 9110, section 5.3 allows for lists.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<_> = headers.get_all(name).iter().map(text).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// A field value as text, byte for character, so that nothing of it is lost.
fn text(value: &HeaderValue) -> String {
    value.as_bytes().iter().copied().map(char::from).collect()
}

/// The request line, then one line per header field, in JSON.
fn headers(request: &Request<Incoming>) -> String {
    #[derive(Serialize)]
    struct RequestLine<'a> {
        method: &'a str,
        target: String,
        version: String,
    }
    #[derive(Serialize)]
    struct Field<'a> {
        name: &'a str,
        value: String,
    }
    let first = json(&RequestLine {
        method: request.method().as_str(),
        target: request.uri().to_string(),
        version: format!("{:?}", request.version()),
    });
    let fields = request
        .headers()
        .iter()
        .map(|(name, value)| json(&Field { name: name.as_str(), value: text(value) }));
    std::iter::once(first).chain(fields).collect()
}

/// Server-sent events, one per second and the first at once, until told to stop.
fn events(stop: Stop) -> Response<Body> {
    let mut clock = tokio::time::interval(EVENT_PERIOD);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stream =
        stream::unfold((clock, stop, 1_u64), |(mut clock, mut stop, sequence)| async move {
            tokio::select! {
                _ = clock.tick() => {}
                () = stop.asked() => return None,
            }
            let event =
                format!("id: {sequence}\ndata: {{\"sequence\":{sequence},\"sent\":{}}}\n\n", now());
            let frame = Frame::data(Bytes::from(event));
            Some((Ok::<_, Infallible>(frame), (clock, stop, sequence + 1)))
        });
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    never_cached(response)
}

fn status(status: StatusCode, sentence: &'static str) -> Response<Body> {
    let mut response = plain("text/plain", sentence);
    *response.status_mut() = status;
    response
}

fn plain(kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    never_cached(response)
}

/// All of it tells about this very request, so nothing between may keep it.
fn never_cached(mut response: Response<Body>) -> Response<Body> {
    let never = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, never);
    response
}

fn whole(body: &'static [u8]) -> Body {
    Full::new(Bytes::from_static(body)).boxed_unsync()
}

/// One line of JSON. Our own types hold nothing that has no JSON form.
fn json(value: &impl Serialize) -> String {
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

/// Milliseconds since 1970; a clock set before that reads 0.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64() * 1e3)
}
