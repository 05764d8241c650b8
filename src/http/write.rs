//! Heads as they go out: line for line what came, without what speaks of one connection, and with what elbows
//! has to say itself (RFC 9110, section 7.6; RFC 9112, sections 3 and 4).

use super::affinity::SetCookie;
use super::changes::without_prefix;
use super::forwarded::{self, Words};
use super::head::{Framing, Request, Response, Target, Version};
use super::hop::{self, ConnectionOptions};
use super::request_id::RequestId;
use super::trace_context::{self, Begun};
use crate::client::Client;
use crate::config::Config;
use crate::config::routing::HeadChanges;

/// Writes one field line.
pub(crate) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// A number as decimal digits.
pub(crate) fn number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        if let Some(place) = digits.get_mut(at) {
            #[allow(clippy::cast_possible_truncation)] // Less than ten.
            let digit = (left % 10) as u8;
            *place = b'0' + digit;
        }
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

/// What a request head needs on its way to the upstream beside itself.
pub(crate) struct Onward<'a> {
    pub(crate) client: &'a Client,
    pub(crate) request_id: &'a RequestId,
    pub(crate) config: &'a Config,
    /// What its route changes.
    pub(crate) changes: &'a HeadChanges,
    /// The protocols that are offered, where it is a handshake.
    pub(crate) offer: Option<&'a [u8]>,
    /// The trace that begins with it, where elbows has it begin.
    pub(crate) begun: Option<&'a Begun>,
}

/// Writes the head of a request as the upstream gets it.
pub(crate) fn request(
    out: &mut Vec<u8>,
    head: &Request<'_>,
    options: &ConnectionOptions,
    onward: &Onward<'_>,
) {
    let Onward { client, request_id, config, changes, offer, begun } = *onward;
    // RFC 9112, section 3.2: the authority of the absolute form replaces `Host`.
    let (host, target): (_, [&[u8]; 2]) = match head.target {
        Target::Origin(target) => (head.host, without_prefix(target, changes.strip)),
        Target::Asterisk => (head.host, [b"", b"*"]),
        Target::Absolute(host, path) if path.starts_with(b"/") => {
            (Some(host), without_prefix(path, changes.strip))
        }
        Target::Absolute(host, _) if head.is_server_wide() => (Some(host), [b"", b"*"]),
        Target::Absolute(host, path) => (Some(host), [b"/", path]),
    };
    for part in [head.method, b" ", target[0], target[1], b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    // HTTP/1.0 may come without a host, and the upstream gets HTTP/1.1, where it is required.
    if head.host.is_none() {
        line(out, b"Host", host.unwrap_or_default());
    }
    for (index, field) in head.fields.iter().enumerate() {
        if field.is(b"host") {
            line(out, field.name, host.unwrap_or_default());
        } else if options.is_hop_by_hop(index, field)
            || forwarded::is_replaced(field.name, config)
            || begun.is_some() && trace_context::is_context(field)
            || changes.replaces(field.name)
        {
        } else if field.is(b"content-length") {
            write_length(out, field.name, head.framing);
        } else if let Some(left) = head.max_forwards.filter(|_| field.is(b"max-forwards")) {
            out.extend_from_slice(field.name);
            out.extend_from_slice(b": ");
            number(out, left.saturating_sub(1));
            out.extend_from_slice(b"\r\n");
        } else if head.version == Version::Http10 && field.is(b"expect") {
            // RFC 9110, section 10.1.1: HTTP/1.0 knows of no expectation, and the upstream gets HTTP/1.1.
        } else {
            line(out, field.name, field.value);
        }
    }
    if head.framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if let Some(offer) = offer {
        out.extend_from_slice(b"Connection: Upgrade\r\n");
        line(out, b"Upgrade", offer);
    } else if hop::wants_trailers(&head.fields) {
        // Trailers do pass, so that it is said again (RFC 9110, section 10.1.4).
        out.extend_from_slice(b"Connection: TE\r\nTE: trailers\r\n");
    }
    for (name, value) in &changes.set {
        line(out, name.as_bytes(), value.as_bytes());
    }
    if let Some(begun) = begun {
        line(out, b"traceparent", begun.traceparent().as_bytes());
    }
    let words = Words { host, request_id };
    forwarded::write(out, &head.fields, &words, client, config);
    out.extend_from_slice(b"\r\n");
}

fn write_length(out: &mut Vec<u8>, name: &[u8], framing: Framing) {
    if let Framing::Length(length) = framing {
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        number(out, length);
        out.extend_from_slice(b"\r\n");
    }
}

/// How a response is framed for its client, and what the connection does behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ToClient {
    /// The client's connection ends behind it.
    pub(crate) closes: bool,
    /// The client spoke HTTP/1.0, whose connections end unless it is said that they do not.
    pub(crate) is_http_10: bool,
    /// The body is passed on in chunks.
    pub(crate) chunked: bool,
}

/// Writes the head of a response, or of an interim response, as the client gets it, with a cookie that elbows sets.
pub(crate) fn response(
    out: &mut Vec<u8>,
    head: &Response<'_>,
    how: ToClient,
    cookie: Option<SetCookie<'_>>,
) {
    status_line(out, head.status, head.reason);
    let options = ConnectionOptions::of(&head.fields);
    // 426 is about the upgrade, so its offer stays (RFC 9110, section 15.5.22).
    let offers = head.status == 426;
    let mut offer = None;
    // RFC 9110, section 8.6: interim responses and 204 have no length to tell of.
    let has_length = head.status >= 200 && head.status != 204;
    for (index, field) in head.fields.iter().enumerate() {
        if options.is_hop_by_hop(index, field) {
            if offers && offer.is_none() && field.is(b"upgrade") {
                offer = Some(field.value);
            }
        } else if field.is(b"content-length") {
            if has_length && !how.chunked {
                let digits = field.value;
                let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
                let zeros = zeros.min(digits.len().saturating_sub(1));
                line(out, field.name, digits.get(zeros..).unwrap_or_default());
            }
        } else {
            line(out, field.name, field.value);
        }
    }
    if how.chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if let Some(cookie) = cookie {
        cookie.write(out);
    }
    if let Some(offer) = offer {
        line(out, b"Upgrade", offer);
    }
    match (how.closes && head.status >= 200, offer) {
        (true, Some(_)) => out.extend_from_slice(b"Connection: close, Upgrade\r\n"),
        (true, None) => out.extend_from_slice(b"Connection: close\r\n"),
        (false, Some(_)) => out.extend_from_slice(b"Connection: Upgrade\r\n"),
        (false, None) if how.is_http_10 => {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        (false, None) => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Room for the head that the client gets; most need no more.
const TO_CLIENT: usize = 512;

fn status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    out.reserve(TO_CLIENT);
    out.extend_from_slice(b"HTTP/1.1 ");
    number(out, status.into());
    for part in [b" ", reason, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Writes a 101 as the client gets it, with the protocol that was chosen. RFC 6455, section 4.1, asks it to be
/// HTTP/1.1; the upstream's own may be 1.0. There is no body that a length could speak of (RFC 9112, section 6.3).
pub(crate) fn switching(
    out: &mut Vec<u8>,
    head: &Response<'_>,
    chosen: &[u8],
    cookie: Option<SetCookie<'_>>,
) {
    status_line(out, 101, head.reason);
    let options = ConnectionOptions::of(&head.fields);
    for (index, field) in head.fields.iter().enumerate() {
        if !options.is_hop_by_hop(index, field) && !field.is(b"content-length") {
            line(out, field.name, field.value);
        }
    }
    if let Some(cookie) = cookie {
        cookie.write(out);
    }
    out.extend_from_slice(b"Connection: Upgrade\r\n");
    line(out, b"Upgrade", chosen);
    out.extend_from_slice(b"\r\n");
}
