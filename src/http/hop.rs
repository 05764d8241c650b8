//! Hop-by-hop fields: those that speak of one connection and must not pass (RFC 9110, section 7.6.1).

#[allow(dead_code)] // The engine that calls it comes with the next commits.
mod listed;

use http::header::{
    CONNECTION, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, StatusCode};

#[allow(unused_imports)]
pub(crate) use self::listed::{Listed, wants_trailers};
use super::forwarded::is_claim;
use super::head::Field;

/// Always removed. `Proxy-Connection` is nobody's standard and everybody's bug (RFC 9112, C.2.2).
const ALWAYS: [HeaderName; 4] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
];

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// The names that `Connection` lists in these lines.
pub(super) fn listed<'a>(lines: &[Field<'a>]) -> impl Iterator<Item = &'a [u8]> {
    let lines = lines.iter().filter(|field| field.is("connection"));
    lines.flat_map(|line| items(line.value))
}

/// The items of a list. As bytes: one that is no text does not hide the others.
fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Whether a field speaks of this connection alone, `listed` being what `Connection` lists. Of an upgrade,
/// either way; what it changes to is said anew.
pub(super) fn is_hop_by_hop(name: &[u8], listed: &[&[u8]]) -> bool {
    let is = |ours: &&str| name.eq_ignore_ascii_case(ours.as_bytes());
    match name.len() {
        2 | 7 | 10 | 14 | 16..=19 if HOP_BY_HOP.iter().any(is) => true,
        _ => listed.iter().any(|listed| listed.eq_ignore_ascii_case(name)) && !is_end_to_end(name),
    }
}

/// All that [`strip_request`] and [`strip_response`] remove.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "te",
    "http2-settings",
    "proxy-authorization",
    "proxy-authenticate",
];

/// Removes them from a request.
///
/// `TE: trailers` is said again by us, since trailers do pass (RFC 9110, section 6.5.1).
pub(super) fn strip_request(headers: &mut HeaderMap) {
    if !has_any(headers) {
        return;
    }
    let trailers = headers
        .get_all(TE)
        .iter()
        .any(|value| items(value.as_bytes()).any(|item| item.eq_ignore_ascii_case(b"trailers")));
    strip(headers);
    headers.remove(UPGRADE);
    headers.remove(HTTP2_SETTINGS);
    headers.remove(PROXY_AUTHORIZATION);
    headers.remove(TE);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("TE"));
    }
}

/// Removes them from a response.
///
/// 101 and 426 are about the upgrade, so theirs stays (RFC 9110, sections 15.2.2 and 15.5.22).
pub(super) fn strip_response(status: StatusCode, headers: &mut HeaderMap) {
    if !has_any(headers) {
        return;
    }
    let upgrade = match status {
        StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED => headers.remove(UPGRADE),
        _ => None,
    };
    strip(headers);
    headers.remove(UPGRADE);
    headers.remove(PROXY_AUTHENTICATE);
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Whether any of them is there: mostly none is, and to look once costs less than to remove each.
fn has_any(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| is_hop_by_hop(name.as_str().as_bytes(), &[]))
}

fn strip(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| items(value.as_bytes()))
        .filter_map(|item| HeaderName::from_bytes(item).ok())
        .collect();
    for name in listed.iter().filter(|name| !is_end_to_end(name.as_str().as_bytes())) {
        headers.remove(name);
    }
    for name in &ALWAYS {
        headers.remove(name);
    }
}

/// Fields without which the message means something else. A client that lists one in `Connection`
/// would have us remove it behind the back of the upstream, so the listing is ignored.
fn is_end_to_end(name: &[u8]) -> bool {
    const WEBSOCKET: &[u8] = b"sec-websocket-";
    END_TO_END.iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()))
        || is_claim(name)
        || name.get(..WEBSOCKET.len()).is_some_and(|start| start.eq_ignore_ascii_case(WEBSOCKET))
}

const END_TO_END: [&str; 9] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "authorization",
    "cookie",
    "origin",
    "cache-control",
    "max-forwards",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn fields_listed_in_connection_do_not_pass() {
        let mut request = headers(&[
            ("connection", "close, X-Secret , te"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers, deflate"),
            ("upgrade", "websocket"),
            ("accept", "*/*"),
        ]);
        strip_request(&mut request);
        assert_eq!(
            request,
            headers(&[("accept", "*/*"), ("te", "trailers"), ("connection", "TE")])
        );
    }

    #[test]
    fn end_to_end_fields_stay_even_if_listed() {
        let mut request = headers(&[
            ("connection", "host, content-length, x-forwarded-for"),
            ("host", "a"),
            ("x-forwarded-for", "1.1.1.1"),
        ]);
        strip_request(&mut request);
        assert_eq!(request, headers(&[("host", "a"), ("x-forwarded-for", "1.1.1.1")]));
    }

    #[test]
    fn item_that_is_no_text_hides_no_other() {
        let hidden = |name, value| {
            let mut headers = headers(&[("x-secret", "1"), ("accept", "*/*")]);
            headers.insert(name, HeaderValue::from_bytes(value).unwrap());
            headers
        };
        let mut request = hidden(CONNECTION, b"x-secret, \xff");
        strip_request(&mut request);
        assert_eq!(request, headers(&[("accept", "*/*")]));
        let mut response = hidden(CONNECTION, b"\xff,X-Secret");
        strip_response(StatusCode::OK, &mut response);
        assert_eq!(response, headers(&[("accept", "*/*")]));
        let mut request = hidden(TE, b"\xff, trailers");
        strip_request(&mut request);
        assert_eq!(request.get(TE).unwrap(), "trailers");
    }

    #[test]
    fn upgrade_passes_in_101_and_426_alone() {
        for (status, stays) in [(101, true), (426, true), (200, false)] {
            let mut response = headers(&[("connection", "upgrade"), ("upgrade", "websocket")]);
            strip_response(StatusCode::from_u16(status).unwrap(), &mut response);
            assert_eq!(response.contains_key(UPGRADE), stays, "{status}");
            assert_eq!(response.contains_key(CONNECTION), stays, "{status}");
        }
    }
}
