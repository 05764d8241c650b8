//! What is answered when a request is not passed on, or its response is not to be had.
//!
//! Every status of our own is chosen here and nowhere else. Each answer is one line of plain text;
//! the reason in detail is in the log.

use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use super::head::Fault;
use super::{Front, ToClient};
use crate::access_log::Entry;
use crate::client::Client;
use crate::end::{End, Phase, Reason, Side};
use crate::metrics::Counters;
use crate::upstream;

/// Why elbows answers in the upstream's place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Rejection {
    /// `PROXY_PROTOCOL=required`, and the connection began without.
    #[error("PROXY header required")]
    NoProxyHeader,
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
    /// The upstream's answer is no HTTP.
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
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::NoResponse => StatusCode::GATEWAY_TIMEOUT,
            Self::Connection(_) | Self::NoConnection { .. } => match self.why() {
                Reason::Timeout => StatusCode::GATEWAY_TIMEOUT,
                Reason::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::BAD_GATEWAY,
            },
            Self::UpstreamClosed(_) | Self::MalformedResponse(_) | Self::UnaskedUpgrade => {
                StatusCode::BAD_GATEWAY
            }
        }
    }

    const fn by(&self) -> Side {
        match self {
            Self::NoProxyHeader | Self::BadBody(_) | Self::SlowBody | Self::CutBody => Side::Client,
            Self::Connection(_) | Self::NoConnection { .. } => match self.why() {
                Reason::NoRoom => Side::Elbows,
                _ => Side::Upstream,
            },
            Self::NoResponse
            | Self::UpstreamClosed(_)
            | Self::MalformedResponse(_)
            | Self::UnaskedUpgrade => Side::Upstream,
        }
    }

    const fn why(&self) -> Reason {
        match self {
            Self::NoProxyHeader => Reason::NoProxyHeader,
            Self::BadBody(_) | Self::MalformedResponse(_) | Self::UnaskedUpgrade => {
                Reason::Malformed
            }
            Self::SlowBody | Self::NoResponse => Reason::Timeout,
            Self::CutBody | Self::UpstreamClosed(_) => Reason::Closed,
            Self::Connection(fault) => fault.reason(),
            Self::NoConnection { why, .. } => *why,
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
    let status = rejection.status();
    entry.status = Some(status.as_u16());
    let during = entry.end.during;
    entry.end = End::new(rejection.by(), during, rejection.why());
    counters.rejected(status);
    match rejection.by() {
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
    let mut response = Response::new(ToClient::own(rejection.text()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if status.is_client_error() {
        // What follows on such a connection cannot be trusted to be what it seems.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
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

/// What is logged of a request line that is refused: a line and no more of it than this.
const LONGEST_LINE: usize = 1_024;

/// Refuses a head: counts it, writes its log line, and says what to answer. `head` is all that was read
/// of it; nothing behind it can be told apart, so the connection closes.
pub(crate) fn head(fault: Fault, head: &[u8], client: &Arc<Client>, front: &Front) -> String {
    tracing::debug!(client = %client.address, rule = fault.as_str(), "refused: {fault}");
    front.counters.http_faults.add(fault);
    front.counters.refused_heads.add(1);
    let status = status_of(fault);
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let readable = line.len() <= LONGEST_LINE
        && line.len() < head.len()
        && line.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let line = if readable { String::from_utf8_lossy(line).into_owned() } else { String::new() };
    let mut entry = Entry::new(front.access_log.clone(), Arc::clone(client), line, String::new());
    entry.status = Some(status.as_u16());
    let why = match status {
        StatusCode::NOT_IMPLEMENTED | StatusCode::URI_TOO_LONG => Reason::Refused,
        _ => Reason::Malformed,
    };
    entry.end = End::new(Side::Client, Phase::Request, why);
    // RFC 9110, section 9.3.2: no content where HEAD was asked.
    let text = if head.starts_with(b"HEAD ") { String::new() } else { format!("{fault}\n") };
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
    let status = if error.is_parse_too_large() { 431 } else { 400 };
    Some((status, End::new(Side::Client, Phase::Request, Reason::Malformed)))
}
