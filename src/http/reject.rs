//! What is answered when a request is not passed on, or its response is not to be had.
//!
//! Every status of our own is chosen here and nowhere else. Each answer is one line of plain text;
//! the reason in detail is in the log.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use super::head::Fault;
use super::{Front, ToClient};
use crate::access_log::Entry;
use crate::client::Client;
use crate::end::{End, Phase, Reason, Side};
use crate::limits::Over;
use crate::metrics::Counters;
use crate::upstream;

/// Seconds until a client that found no room should try again. Connections last: at once is too soon.
const CROWDED: u64 = 5;

/// Why elbows answers in the upstream's place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Rejection {
    /// `PROXY_PROTOCOL=required`, and the connection began without.
    #[error("PROXY header required")]
    NoProxyHeader,
    /// A limit of connections or handshakes is reached.
    #[error("{}", over(*.0))]
    Over(Over),
    /// The page is not one of `ALLOWED_ORIGINS` (RFC 6455, section 10.2).
    #[error("origin not allowed")]
    Origin,
    /// Longer than `MAX_BODY_SIZE`.
    #[error("request body too long")]
    LongBody,
    /// The client stopped in the middle of its body.
    #[error("request body too slow")]
    SlowBody,
    /// The client's body breaks a rule.
    #[error("{0}")]
    BadBody(Fault),
    /// The client's body ended before its time.
    #[error("request body incomplete")]
    CutBody,
    /// There is no connection to the upstream.
    #[error(transparent)]
    Connection(upstream::Fault),
    /// The same, as a pooled request tells it.
    #[error("{text}")]
    NoConnection {
        /// Which fault of the connection.
        why: Reason,
        /// Its words.
        text: String,
    },
    /// No response head came in time.
    #[error("no response within RESPONSE_HEAD_TIMEOUT")]
    NoResponse,
    /// The upstream closed before it had answered.
    #[error("the upstream closed the connection without a response: {0}")]
    UpstreamClosed(String),
    /// The upstream's answer breaks a rule.
    #[error("the upstream's response breaks a rule: {0}")]
    BadResponse(Fault),
    /// The upstream's answer is no HTTP to hyper.
    #[error("the upstream's response is malformed: {0}")]
    MalformedResponse(String),
    /// The upstream changes to a protocol that nobody offered (RFC 9110, section 7.8).
    #[error("the upstream changed to a protocol that was not offered")]
    UnaskedUpgrade,
}

impl Rejection {
    const fn status(&self) -> StatusCode {
        match self {
            Self::NoProxyHeader | Self::BadBody(_) | Self::CutBody => StatusCode::BAD_REQUEST,
            Self::Over(Over::Connections) => StatusCode::SERVICE_UNAVAILABLE,
            // RFC 6585, section 4.
            Self::Over(Over::ConnectionsOfClient | Over::HandshakeRate(_)) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Origin => StatusCode::FORBIDDEN,
            Self::LongBody => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::NoResponse => StatusCode::GATEWAY_TIMEOUT,
            Self::Connection(_) | Self::NoConnection { .. } => match self.why() {
                Reason::Timeout => StatusCode::GATEWAY_TIMEOUT,
                Reason::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::BAD_GATEWAY,
            },
            Self::UpstreamClosed(_)
            | Self::BadResponse(_)
            | Self::MalformedResponse(_)
            | Self::UnaskedUpgrade => StatusCode::BAD_GATEWAY,
        }
    }

    const fn by(&self) -> Side {
        match self {
            Self::Over(Over::Connections) => Side::Elbows,
            Self::Over(Over::ConnectionsOfClient | Over::HandshakeRate(_))
            | Self::NoProxyHeader
            | Self::BadBody(_)
            | Self::Origin
            | Self::LongBody
            | Self::SlowBody
            | Self::CutBody => Side::Client,
            Self::Connection(_) | Self::NoConnection { .. } => match self.why() {
                Reason::NoRoom => Side::Elbows,
                _ => Side::Upstream,
            },
            Self::NoResponse
            | Self::UpstreamClosed(_)
            | Self::BadResponse(_)
            | Self::MalformedResponse(_)
            | Self::UnaskedUpgrade => Side::Upstream,
        }
    }

    const fn why(&self) -> Reason {
        match self {
            Self::NoProxyHeader => Reason::NoProxyHeader,
            Self::BadBody(_)
            | Self::BadResponse(_)
            | Self::MalformedResponse(_)
            | Self::UnaskedUpgrade => Reason::Malformed,
            Self::Origin => Reason::Refused,
            Self::Over(_) => Reason::OverLimit,
            Self::LongBody => Reason::TooBig,
            Self::SlowBody | Self::NoResponse => Reason::Timeout,
            Self::CutBody | Self::UpstreamClosed(_) => Reason::Closed,
            Self::Connection(fault) => fault.reason(),
            Self::NoConnection { why, .. } => *why,
        }
    }

    /// When the client should try again, in seconds, where that can help.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Over(Over::HandshakeRate(wait)) => {
                Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
            }
            Self::Over(_) => Some(CROWDED),
            _ => (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
        }
    }

    /// What the client is told: nothing about names and addresses behind elbows.
    fn text(&self) -> String {
        match self.status() {
            StatusCode::BAD_GATEWAY => String::from("upstream unavailable\n"),
            StatusCode::GATEWAY_TIMEOUT => String::from("upstream too slow\n"),
            StatusCode::SERVICE_UNAVAILABLE => String::from("no room for another connection\n"),
            _ => format!("{self}\n"),
        }
    }
}

/// The answer; the log line of the request is completed and written.
pub(crate) fn answer(
    rejection: &Rejection,
    mut entry: Entry,
    counters: &Counters,
) -> Response<ToClient> {
    let status = note(rejection, &mut entry, counters);
    drop(entry);
    let mut response = Response::new(ToClient::own(rejection.text()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if let Some(seconds) = rejection.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status.is_client_error() {
        // What follows on such a connection cannot be trusted to be what it seems.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// [`answer`], as it is on the wire where hyper has no part in it and the connection ends behind it.
pub(crate) fn words(
    rejection: &Rejection,
    mut entry: Entry,
    is_head: bool,
    counters: &Counters,
) -> String {
    let status = note(rejection, &mut entry, counters);
    let text = rejection.text();
    let retry_after = rejection
        .retry_after()
        .map_or_else(String::new, |seconds| format!("Retry-After: {seconds}\r\n"));
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n{retry_after}Content-Length: {}\r\n\
         Connection: close\r\n\r\n{}",
        text.len(),
        if is_head { "" } else { &text }
    )
}

/// Completes the log line, and counts and logs the rejection.
fn note(rejection: &Rejection, entry: &mut Entry, counters: &Counters) -> StatusCode {
    let status = rejection.status();
    entry.status = Some(status.as_u16());
    let during = entry.end.during;
    entry.end = End::new(rejection.by(), during, rejection.why());
    counters.rejected(status);
    match rejection {
        Rejection::Over(over) => counters.over(*over),
        Rejection::Origin => counters.refused_origins.add(1),
        Rejection::LongBody => counters.large_bodies.add(1),
        Rejection::BadResponse(fault) => counters.response_faults.by_rule.add(*fault),
        Rejection::MalformedResponse(_) => counters.response_faults.malformed.add(1),
        Rejection::UnaskedUpgrade => counters.response_faults.unasked_upgrades.add(1),
        _ => {}
    }
    match rejection.by() {
        // A limit does what it is for.
        Side::Elbows if matches!(rejection, Rejection::Over(_)) => {
            tracing::debug!(client = %entry.client.address, "{rejection}");
        }
        Side::Elbows => {
            counters.no_room.add(1);
            if counters.no_room_told.lets_through() {
                tracing::error!(request_id = entry.request_id, "{rejection}");
            }
        }
        // An operator wants to know, but a thousand requests to a dead upstream are no thousand
        // faults of this process.
        Side::Upstream => tracing::debug!(request_id = entry.request_id, "{rejection}"),
        Side::Client => tracing::debug!(client = %entry.client.address, "{rejection}"),
    }
    status
}

/// The limit, in the words that the client gets: nothing of numbers.
const fn over(over: Over) -> &'static str {
    match over {
        Over::Connections => "no room for another connection",
        Over::ConnectionsOfClient => "too many connections",
        Over::HandshakeRate(_) => "too many handshakes",
    }
}

/// The status of a head, or body, that breaks a rule.
const fn status_of(fault: Fault) -> StatusCode {
    match fault {
        Fault::LongTarget => StatusCode::URI_TOO_LONG,
        Fault::LongHead | Fault::ManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Fault::Connect | Fault::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
        Fault::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// Refuses a head: counts it, writes its log line, and says what to answer. `head` is all that was read
/// of it; nothing behind it can be told apart, so the connection closes.
pub(crate) fn head(fault: Fault, head: &[u8], client: &Arc<Client>, front: &Front) -> String {
    note_head(fault, client.address, front);
    let status = status_of(fault);
    let why = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Reason::TooBig,
        StatusCode::NOT_IMPLEMENTED | StatusCode::URI_TOO_LONG => Reason::Refused,
        _ => Reason::Malformed,
    };
    log_head(status, why, head, client, front);
    head_words(status, &format!("{fault}\n"), head)
}

/// The same of a head that did not come in time (RFC 9110, section 15.5.9).
pub(crate) fn slow_head(head: &[u8], client: &Arc<Client>, front: &Front) -> String {
    note_slow_head(client.address, front);
    log_head(StatusCode::REQUEST_TIMEOUT, Reason::Timeout, head, client, front);
    head_words(StatusCode::REQUEST_TIMEOUT, SLOW_HEAD, head)
}

/// [`head`] on the port for health checks, which has no lines in the access log.
pub(crate) fn check(fault: Fault, head: &[u8], from: SocketAddr, front: &Front) -> String {
    note_head(fault, from, front);
    head_words(status_of(fault), &format!("{fault}\n"), head)
}

/// [`slow_head`] there.
pub(crate) fn slow_check(head: &[u8], from: SocketAddr, front: &Front) -> String {
    note_slow_head(from, front);
    head_words(StatusCode::REQUEST_TIMEOUT, SLOW_HEAD, head)
}

const SLOW_HEAD: &str = "request head too slow\n";

fn note_head(fault: Fault, client: SocketAddr, front: &Front) {
    tracing::debug!(%client, rule = fault.as_str(), "refused: {fault}");
    front.counters.http_faults.add(fault);
    front.counters.refused_heads.add(1);
    if matches!(fault, Fault::LongHead | Fault::ManyFields) {
        front.counters.large_heads.add(1);
    }
}

fn note_slow_head(client: SocketAddr, front: &Front) {
    tracing::debug!(%client, "no whole head within REQUEST_HEAD_TIMEOUT");
    front.counters.slow_heads.add(1);
}

fn log_head(status: StatusCode, why: Reason, head: &[u8], client: &Arc<Client>, front: &Front) {
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    // Whole, and not what somebody took for HTTP.
    let readable = line.len() < head.len() && line.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let line = if readable { String::from_utf8_lossy(line) } else { Cow::default() };
    let mut entry = Entry::new(front.access_log.clone(), Arc::clone(client), line, String::new());
    entry.status = Some(status.as_u16());
    entry.end = End::new(Side::Client, Phase::Request, why);
}

fn head_words(status: StatusCode, text: &str, head: &[u8]) -> String {
    // RFC 9110, section 9.3.2: no content where HEAD was asked.
    let text = if head.starts_with(b"HEAD ") { "" } else { text };
    format!(
        "HTTP/1.1 {} {}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n\
         {text}",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        text.len()
    )
}

/// The end of a connection whose request head hyper refused, which we had let pass; and the status that it
/// answered.
pub(crate) fn connection_end(error: &hyper::Error) -> Option<(u16, End)> {
    if !error.is_parse() {
        // An idle connection whose time is over has asked nothing and is owed nothing.
        return None;
    }
    let (status, why) =
        if error.is_parse_too_large() { (431, Reason::TooBig) } else { (400, Reason::Malformed) };
    Some((status, End::new(Side::Client, Phase::Request, why)))
}
