//! Each request at the admin port, and its answer.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;

use super::body::AnswerBody;
use super::events;
use super::page;
use super::places::Busy;
use super::summary::Summary;
use crate::admin::close::Close;
use crate::admin::fault::Fault;
use crate::admin::guard::Asker;
use crate::admin::json;
use crate::admin::query::{Query, parameters};
use crate::admin::view::{Id, View};
use crate::control::server::Server;
use crate::log;
use crate::metrics::process::Process;
use crate::metrics::text::Form;
use crate::upstream::EndpointState;
use crate::workers::looks::{Closed, NoAnswer};

const JSON: &str = "application/json";

/// A stream, of which a HEAD could tell nothing.
const EVENTS: &str = "/api/events";

/// What is answered, before it is HTTP.
enum Answer {
    Page,
    Text { content_type: &'static str, text: Vec<u8> },
    Json { status: u16, json: Vec<u8> },
    Events,
}

#[derive(Serialize)]
struct Live {
    live: bool,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    why: Option<String>,
}

#[derive(Serialize)]
#[allow(clippy::struct_field_names)] // The names of the answer.
struct Tunnels {
    tunnels: Vec<View>,
    matched: Option<usize>,
    open: usize,
    next: Option<String>,
}

#[derive(Serialize)]
struct Endpoints {
    endpoints: Vec<Endpoint>,
    fault: Option<String>,
}

#[derive(Serialize)]
struct Endpoint {
    address: std::net::SocketAddr,
    state: EndpointState,
    tunnels: u32,
    /// What the answer of the name server says of it, where one has it.
    weight: Option<u16>,
    priority: Option<u16>,
    /// The name of its upstream; none of the one that the variables name.
    upstream: Option<String>,
}

#[derive(Serialize)]
struct ClosedTunnel {
    id: Id,
    /// None of a tunnel that is no WebSocket: it ends without a Close.
    code: Option<u16>,
    reason: String,
}

#[derive(Serialize)]
struct Level {
    level: String,
}

impl Answer {
    fn json(status: u16, value: &impl Serialize) -> Result<Self, Fault> {
        let json = json::write(value).map_err(|error| Fault::new(500, error.to_string()))?;
        Ok(Self::Json { status, json: json.into_bytes() })
    }
}

impl From<NoAnswer> for Fault {
    fn from(NoAnswer { worker }: NoAnswer) -> Self {
        Self::new(503, format!("worker {worker} does not answer"))
    }
}

/// Answers a request.
pub(super) async fn answer(
    request: Request<Incoming>,
    is_local: bool,
    server: &Arc<Server>,
    busy: Busy,
) -> Result<Response<AnswerBody>, Infallible> {
    let is_head = request.method() == Method::HEAD;
    let answer = route(&request, is_local, server).await;
    let (mut allow, mut policy) = (None, None);
    let (status, content_type, bytes) = match answer {
        Ok(Answer::Events) if busy.follows() => {
            let events = events::follow(server);
            let mut response = Response::new(AnswerBody::events(events, busy));
            let fields = response.headers_mut();
            secure(fields);
            fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            return Ok(response);
        }
        Ok(Answer::Events) => {
            let fault = Fault::new(503, "as many follow events as there are places for");
            (fault.status, JSON, fault.json().into())
        }
        Ok(Answer::Page) => {
            policy = Some(page::POLICY.clone());
            (200, "text/html; charset=utf-8", page::PAGE.into())
        }
        Ok(Answer::Text { content_type, text }) => (200, content_type, text.into()),
        Ok(Answer::Json { status, json }) => (status, JSON, json.into()),
        Err(fault) => {
            allow = (fault.status == 405).then(|| allowed(request.uri().path()));
            (fault.status, JSON, fault.json().into())
        }
    };
    let bytes: Bytes = bytes;
    let length = bytes.len();
    let bytes = if is_head { Bytes::new() } else { bytes };
    let mut response = Response::new(AnswerBody::whole(bytes, busy));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    let fields = response.headers_mut();
    secure(fields);
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(policy) = policy {
        fields.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    if is_head {
        fields.insert(header::CONTENT_LENGTH, length.into());
    }
    if status == 401 {
        fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(allow) = allow {
        fields.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    Ok(response)
}

/// No answer is kept, taken for what it is not, or shown inside of another page.
fn secure(fields: &mut HeaderMap) {
    const ALL: [(HeaderName, &str); 4] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in ALL {
        fields.insert(name, HeaderValue::from_static(value));
    }
}

/// The methods of a path that is there.
fn allowed(path: &str) -> &'static str {
    match path {
        _ if is_change(path) => "POST",
        EVENTS => "GET",
        _ => "GET, HEAD",
    }
}

/// Whether it is asked for to change something.
fn is_change(path: &str) -> bool {
    path == "/api/log" || tunnel_to_close(path).is_some()
}

fn tunnel_to_close(path: &str) -> Option<&str> {
    path.strip_prefix("/api/tunnels/")?.strip_suffix("/close").filter(|id| !id.contains('/'))
}

/// Whether it is the place of a tunnel, which may be there or not.
fn is_tunnel(path: &str) -> bool {
    path.strip_prefix("/api/tunnels/").is_some_and(|id| !id.is_empty() && !id.contains('/'))
}

async fn route(
    request: &Request<Incoming>,
    is_local: bool,
    server: &Arc<Server>,
) -> Result<Answer, Fault> {
    let text =
        |name: &HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let asker = Asker {
        host: text(&header::HOST),
        origin: site(request.headers(), &header::ORIGIN),
        fetch_site: site(request.headers(), &HeaderName::from_static("sec-fetch-site")),
        authorization: text(&header::AUTHORIZATION),
        is_local,
    };
    asker.may_ask(server.proxy.config.admin_hosts.as_ref())?;
    let path = request.uri().path();
    if path.starts_with("/api/") {
        asker.is_of_this_site()?;
    }
    let query = request.uri().query().unwrap_or_default();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match path {
        _ if is_change(path) => {
            if request.method() != Method::POST {
                return Err(wrong_method(request.method(), path));
            }
            asker.may_change(server.proxy.config.admin_token.as_ref())?;
            match tunnel_to_close(path) {
                Some(id) => close(id, query, server).await,
                None => set_level(query),
            }
        }
        "/" if is_read => Ok(Answer::Page),
        "/metrics" if is_read => {
            let form = Form::wanted(text(&header::ACCEPT).unwrap_or_default());
            let text = server.scrape.metrics(server, form).await.into_bytes();
            Ok(Answer::Text { content_type: form.content_type(), text })
        }
        "/live" if is_read => Answer::json(200, &Live { live: true }),
        "/ready" if is_read => ready(server).await,
        "/api/summary" if is_read => Answer::json(200, &Summary::now(server).await),
        "/api/tunnels" if is_read => tunnels(query, server).await,
        "/api/endpoints" if is_read => endpoints(server),
        EVENTS if *request.method() == Method::GET => Ok(Answer::Events),
        _ if is_read && path.starts_with("/api/tunnels/") => tunnel(path, server).await,
        "/" | "/metrics" | "/live" | "/ready" | "/api/summary" | "/api/tunnels"
        | "/api/endpoints" | EVENTS => Err(wrong_method(request.method(), path)),
        _ if is_tunnel(path) => Err(wrong_method(request.method(), path)),
        _ => Err(Fault::new(
            404,
            format!(
                "{path:?}: nothing is there; there are /, /metrics, /live, /ready, /api/summary, /api/tunnels, \
                 /api/tunnels/ID, /api/tunnels/ID/close, /api/endpoints, /api/events and /api/log"
            ),
        )),
    }
}

/// One that is no text is none of ours.
fn site<'f>(fields: &'f HeaderMap, name: &HeaderName) -> Option<&'f str> {
    fields.get(name).map(|site| site.to_str().unwrap_or("?"))
}

fn wrong_method(method: &Method, path: &str) -> Fault {
    Fault::new(405, format!("{method} {path:?}: it takes {}", allowed(path)))
}

async fn ready(server: &Server) -> Result<Answer, Fault> {
    let why = if server.is_healthy.load(Ordering::Relaxed) {
        let mut stuck = None;
        for worker in 0..server.workers.count() {
            if let Err(NoAnswer { worker }) = server.workers.is_there(worker).await {
                stuck = Some(format!("worker {worker} does not answer"));
                break;
            }
        }
        stuck
    } else {
        Some(String::from("draining"))
    };
    let ready = Ready { ready: why.is_none(), why };
    Answer::json(if ready.ready { 200 } else { 503 }, &ready)
}

/// Names this process among those that answer here one after the other: when it started, and its pid.
static PROCESS: LazyLock<u64> = LazyLock::new(|| {
    let started = u64::try_from(Process::now().started.as_millis()).unwrap_or_default();
    started << 20 ^ u64::from(std::process::id())
});

async fn tunnels(query: &str, server: &Server) -> Result<Answer, Fault> {
    let query = Query::read(query)?;
    if query.process.is_some_and(|process| process != *PROCESS) {
        return Err(Fault::new(
            410,
            "cursor: another process told it, and tunnels have other places here; begin anew, without it",
        ));
    }
    let listed = server.workers.tunnels(query).await?;
    let tunnels = Tunnels {
        tunnels: listed.views,
        matched: listed.matched,
        open: server.workers.open(),
        next: listed.last.map(|place| place.cursor(*PROCESS)),
    };
    Answer::json(200, &tunnels)
}

fn id(text: &str) -> Result<Id, Fault> {
    Id::read(text).ok_or_else(|| not_there(text))
}

fn not_there(id: &str) -> Fault {
    Fault::new(
        404,
        format!("{id:?}: no tunnel has this id; it may have ended, or moved to another process"),
    )
}

async fn tunnel(path: &str, server: &Server) -> Result<Answer, Fault> {
    let text = path.strip_prefix("/api/tunnels/").unwrap_or_default();
    match server.workers.tunnel(id(text)?).await? {
        Some(view) => Answer::json(200, &view),
        None => Err(not_there(text)),
    }
}

async fn close(text: &str, query: &str, server: &Server) -> Result<Answer, Fault> {
    let close = Close::read(query, server.proxy.config.drain_close_code)?;
    let id = id(text)?;
    match server.workers.close(id, close.clone()).await? {
        Some(Closed::Begun { is_websocket: true }) => {
            tracing::info!(%id, code = close.code, reason = close.reason, "closing a tunnel, as the admin port was told");
            let Close { code, reason } = close;
            Answer::json(202, &ClosedTunnel { id, code: Some(code), reason })
        }
        Some(Closed::Begun { is_websocket: false }) => {
            tracing::info!(%id, "ending a tunnel that is no WebSocket, as the admin port was told");
            Answer::json(202, &ClosedTunnel { id, code: None, reason: String::new() })
        }
        Some(Closed::Already) => {
            Err(Fault::new(409, format!("{text:?}: the end of this tunnel is under way already")))
        }
        None => Err(not_there(text)),
    }
}

fn set_level(query: &str) -> Result<Answer, Fault> {
    let parameters = parameters(query)?;
    let [(name, value)] = parameters.as_slice() else {
        return Err(Fault::new(400, "give level, as level=debug or level=info,elbows=debug"));
    };
    if name != "level" {
        return Err(Fault::parameter(name, value, "no such parameter; there is level"));
    }
    log::set_level(value).map_err(|fault| Fault::parameter(name, value, &fault.to_string()))?;
    Answer::json(200, &Level { level: value.clone() })
}

fn endpoints(server: &Server) -> Result<Answer, Fault> {
    let (all, fault) = server.proxy.routes.endpoints(Instant::now());
    let endpoints = all.into_iter().map(|(upstream, one)| Endpoint {
        address: one.address,
        state: one.state,
        tunnels: one.tunnels,
        weight: one.share.map(|(weight, _)| weight),
        priority: one.share.map(|(_, priority)| priority),
        upstream: upstream.map(|name| String::from(&*name)),
    });
    let fault = fault.map(|fault| fault.to_string());
    Answer::json(200, &Endpoints { endpoints: endpoints.collect(), fault })
}
