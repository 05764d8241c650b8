//! Health checks: the one path that elbows answers itself, without upstream, address or log line.

use super::head::{Request, Target};
use super::own::Own;

/// Whether a request is one: `GET` or `HEAD` on exactly `HEALTH_PATH`. A query does not matter.
pub(crate) fn is_check(head: &Request<'_>, health_path: &str) -> bool {
    let (Target::Origin(target) | Target::Absolute(_, target)) = head.target else { return false };
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    matches!(head.method, b"GET" | b"HEAD") && path == health_path.as_bytes()
}

/// The same, of a request line that is not part of a whole head yet, with its target in origin form.
pub(crate) fn is_check_line(line: &[u8], health_path: &str) -> bool {
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next(), words.next().unwrap_or_default());
    let version = words.next().unwrap_or_default();
    matches!(method, Some(b"GET" | b"HEAD"))
        && target.split(|byte| *byte == b'?').next() == Some(health_path.as_bytes())
        && version.starts_with(b"HTTP/1.")
        && words.next().is_none()
}

/// 200 `ok`, the two bytes that the older container sent, or 503 where this process wants no new connections.
pub(crate) const fn answer(is_healthy: bool) -> Own<'static> {
    let (status, text): (_, &[u8]) = if is_healthy { (200, b"ok") } else { (503, b"draining\n") };
    Own { status, content_type: "text/plain", retry_after: None, is_volatile: true, text }
}

/// The answer to anything else on a port that serves health checks alone.
pub(crate) const NOT_SERVED: Own<'static> = Own {
    status: 404,
    content_type: "text/plain",
    retry_after: None,
    is_volatile: false,
    text: b"only the health path is served here\n",
};
