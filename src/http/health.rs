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

/// 200 `ok`, or 503 `draining` when this process wants no new connections.
pub(crate) fn answer(healthy: bool) -> Response<ToClient> {
    let (status, text) = if healthy {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    };
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
