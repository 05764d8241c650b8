//! Health checks: the one path that elbows answers itself, without upstream, address or log line.

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};

use super::ToClient;
use super::head::{self, Target};
use crate::config::Config;

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
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{}",
        text.len(),
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

/// What the listener for health checks alone says to anything else.
pub(crate) fn not_found() -> Response<ToClient> {
    let mut response = Response::new(ToClient::own("only the health path is served here\n"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
