//! How often a request may still be passed on (RFC 9110, section 7.6.2): OPTIONS and TRACE find out by it
//! who is on the way.
//!
//! Whoever passes such a request on counts it down, and answers it himself where it is 0. That it is one number
//! is a rule of heads ([`head`](super::head)). With other methods it means nothing and passes as it is.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, COOKIE, MAX_FORWARDS, PROXY_AUTHORIZATION,
};
use http::{HeaderValue, Method, Request, Response};
use http_body::Body;

use super::{ToClient, head};

/// Counts it down; at 0, the answer of who is the last on the way.
pub(super) fn count_down<B: Body>(request: &mut Request<B>) -> Option<Response<ToClient>> {
    if !matches!(*request.method(), Method::OPTIONS | Method::TRACE) {
        return None;
    }
    let number = request.headers().get(MAX_FORWARDS)?;
    let left = head::max_forwards(number.as_bytes()).ok()?;
    if left > 0 {
        request.headers_mut().insert(MAX_FORWARDS, HeaderValue::from(left - 1));
        return None;
    }
    // Of OPTIONS: what the application allows, only it could say.
    let text = if request.method() == Method::TRACE { reflection(request) } else { Vec::new() };
    let is_trace = !text.is_empty();
    let mut response = Response::new(ToClient::own(text));
    let headers = response.headers_mut();
    if is_trace {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("message/http"));
    }
    if !request.body().is_end_stream() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Some(response)
}

/// The request as it came, without what may be secret (RFC 9110, section 9.3.8).
fn reflection<B>(request: &Request<B>) -> Vec<u8> {
    let mut text = super::request_line(request).into_bytes();
    text.extend_from_slice(b"\r\n");
    for (name, value) in request.headers() {
        if ![AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE].contains(name) {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                text.extend_from_slice(part);
            }
        }
    }
    text.extend_from_slice(b"\r\n");
    text
}
