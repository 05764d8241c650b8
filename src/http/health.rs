//! Health checks: the one path that elbows answers itself, without upstream, address or log line.
//!
//! They come among all other requests, and on a port of their own (`HEALTH_LISTEN_ON`), where [`serve`] reads
//! them by the same rules and needs no more of HTTP than heads.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Buf;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::framing::follower::{Follower, Step};
use super::head::{self, Fault, Target, Version};
use super::{Front, ToClient, hop, reject};
use crate::config::Config;
use crate::inbox::Inbox;

/// Whether `request` is one: `GET` or `HEAD` on exactly `HEALTH_PATH`. A query does not matter.
pub(crate) fn is_check<B>(request: &Request<B>, config: &Config) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
        && request.uri().path() == config.health_path
}

/// The same of a head that was read strictly.
pub(super) fn is_check_of(head: &head::Request<'_>, config: &Config) -> bool {
    let (Target::Origin(target) | Target::Absolute(_, target)) = head.target else { return false };
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    matches!(head.method, b"GET" | b"HEAD") && path == config.health_path.as_bytes()
}

/// The same, of a request line that nobody has parsed, with its target in origin form.
pub(crate) fn is_check_line(line: &str, health_path: &str) -> bool {
    let mut words = line.split(' ');
    let (method, target) = (words.next(), words.next().unwrap_or_default());
    let version = words.next().unwrap_or_default();
    matches!(method, Some("GET" | "HEAD"))
        && target.split('?').next() == Some(health_path)
        && version.starts_with("HTTP/1.")
        && words.next().is_none()
}

/// [`answer`], as it is on the wire where the connection ends behind it.
pub(crate) fn words(healthy: bool, is_head: bool) -> String {
    let (status, text) = status_and_text(healthy);
    on_the_wire(status, "Cache-Control: no-store\r\n", text, is_head, true)
}

fn on_the_wire(
    status: StatusCode,
    fields: &str,
    text: &str,
    is_head: bool,
    closes: bool,
) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n{fields}Content-Length: {}\r\n{}\r\n{}",
        text.len(),
        if closes { "Connection: close\r\n" } else { "" },
        if is_head { "" } else { text }
    )
}

fn status_and_text(healthy: bool) -> (StatusCode, &'static str) {
    if healthy { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "draining\n") }
}

/// 200 `ok`, or 503 `draining` when this process wants no new connections.
pub(crate) fn answer(healthy: bool) -> Response<ToClient> {
    let (status, text) = status_and_text(healthy);
    let mut response = Response::new(ToClient::own(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Serves a connection of the port for health checks alone.
pub(crate) async fn serve(socket: TcpStream, front: Arc<Front>) {
    // One that has gone by now was a TCP check.
    let Ok(from) = socket.peer_addr() else { return front.counters.probes.add(1) };
    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
    let mut inbox = Inbox::new(socket);
    let mut follower = Follower::new(front.head_limits());
    let mut unused = true;
    let words = loop {
        let next = next(&mut inbox, &mut follower, &front);
        match timeout(front.config.request_head_timeout, next).await {
            Ok(Next::Check { words, closes: true }) => break words,
            Ok(Next::Check { words, .. }) => {
                let sent = inbox.socket.inner_mut().write_all(words.as_bytes());
                if !matches!(timeout(front.config.stall_timeout, sent).await, Ok(Ok(()))) {
                    return;
                }
                unused = false;
            }
            Ok(Next::Fault(fault)) => break reject::check(fault, &inbox.unread, from, &front),
            // Without a byte: a TCP health check.
            Ok(Next::Closed) if unused && inbox.unread.is_empty() => {
                return front.counters.probes.add(1);
            }
            Ok(Next::Closed) => return,
            // Nothing was asked: an idle connection.
            Err(_) if inbox.unread.is_empty() => return,
            Err(_) => break reject::slow_check(&inbox.unread, from, &front),
        }
    };
    inbox.answer_and_close(words.as_bytes()).await;
}

/// What a connection of the port for health checks asks next.
enum Next {
    /// A request that is well formed, and its answer.
    Check { words: String, closes: bool },
    /// One that breaks a rule.
    Fault(Fault),
    /// It closed.
    Closed,
}

/// Reads the next request.
async fn next(inbox: &mut Inbox, follower: &mut Follower, front: &Front) -> Next {
    loop {
        match follower.step(&inbox.unread) {
            Err(fault) => return Next::Fault(fault),
            Ok(Step::Head(head, used)) => {
                let closes = closes_behind(&head);
                let words = answer_to(&head, closes, front);
                follower.enter(head::Framing::Absent);
                inbox.unread.advance(used);
                return Next::Check { words, closes };
            }
            // Behind a body the connection ends, so that there is none to follow.
            Ok(Step::More | Step::Body(_)) => {}
        }
        match inbox.read().await {
            Ok(0) | Err(_) => return Next::Closed,
            Ok(_) => {}
        }
    }
}

/// Whether the connection ends behind the answer (RFC 9112, section 9.3); also where a body follows, which
/// nobody wants.
fn closes_behind(head: &head::Request<'_>) -> bool {
    head.version == Version::Http10
        || !head.framing.is_empty()
        || hop::listed(&head.fields).any(|name| name.eq_ignore_ascii_case(b"close"))
}

fn answer_to(head: &head::Request<'_>, closes: bool, front: &Front) -> String {
    let is_head = head.method == b"HEAD";
    if is_check_of(head, &front.config) {
        let (status, text) = status_and_text(front.drain.is_healthy());
        return on_the_wire(status, "Cache-Control: no-store\r\n", text, is_head, closes);
    }
    let text = "only the health path is served here\n";
    on_the_wire(StatusCode::NOT_FOUND, "", text, is_head, closes)
}
