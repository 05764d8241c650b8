//! The server's side of the opening handshake (RFC 6455, section 4.2), without sockets: a request
//! head in, a 101 or a refusal out.
//!
//! tungstenite has one of its own, but reads the request from the socket itself; here hyper has
//! read it, since the same port serves a page.

use http::header::{
    CONNECTION, HeaderMap, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The response to `request`: 101, or which rule of the handshake it breaks: 405 for another method
/// than GET, 426 where no upgrade to `websocket` version 13 is asked for, 400 for a key that is
/// not 16 bytes in base64.
///
/// No extension and no subprotocol is ever agreed on.
pub(super) fn accept<B>(request: &Request<B>) -> Response<&'static str> {
    let headers = request.headers();
    if request.method() != Method::GET {
        let refused = refusal(StatusCode::METHOD_NOT_ALLOWED, "a handshake is a GET\n");
        return with(refused, http::header::ALLOW, "GET");
    }
    // RFC 9110, section 7.8: Upgrade does not exist in HTTP/1.0.
    let asked = request.version() == Version::HTTP_11
        && has_token(headers, &UPGRADE, "websocket")
        && has_token(headers, &CONNECTION, "upgrade");
    if !asked {
        return upgrade_required("a WebSocket is here: upgrade to it\n");
    }
    if only(headers, &SEC_WEBSOCKET_VERSION) != Some(b"13") {
        let refused = upgrade_required("version 13 of the WebSocket protocol is here\n");
        return with(refused, SEC_WEBSOCKET_VERSION, "13");
    }
    let key = only(headers, &SEC_WEBSOCKET_KEY).filter(|key| is_nonce(key));
    let Some(key) = key else {
        let sentence = "Sec-WebSocket-Key has to be 16 bytes in base64, once\n";
        return refusal(StatusCode::BAD_REQUEST, sentence);
    };
    let Ok(proof) = HeaderValue::try_from(derive_accept_key(key)) else {
        return refusal(StatusCode::BAD_REQUEST, "unusable key\n");
    };
    let mut response = Response::new("");
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let mut response = with(response, CONNECTION, "Upgrade");
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, proof);
    with(response, UPGRADE, "websocket")
}

/// RFC 9110, section 15.5.22: a 426 says in Upgrade what to upgrade to.
fn upgrade_required(sentence: &'static str) -> Response<&'static str> {
    let refused = refusal(StatusCode::UPGRADE_REQUIRED, sentence);
    with(with(refused, UPGRADE, "websocket"), CONNECTION, "Upgrade")
}

fn refusal(status: StatusCode, sentence: &'static str) -> Response<&'static str> {
    let mut response = Response::new(sentence);
    *response.status_mut() = status;
    with(response, http::header::CONTENT_TYPE, "text/plain")
}

fn with<B>(mut response: Response<B>, name: HeaderName, value: &'static str) -> Response<B> {
    let value = HeaderValue::from_static(value);
    response.headers_mut().insert(name, value);
    response
}

/// Whether one of the fields `name`, each a list, has `token` in it. Case does not matter.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let fields = headers.get_all(name).iter();
    fields
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// The value of `name`, if the field came exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        _ => None,
    }
}

/// Whether `key` is 16 bytes in base64: 22 digits, and two fillers.
fn is_nonce(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    match key.strip_suffix(b"==") {
        Some(digits) => digits.len() == 22 && digits.iter().all(is_digit),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The example of RFC 6455, section 1.3.
    fn good() -> Request<()> {
        Request::get("/ws/echo")
            .header("Upgrade", "websocket")
            .header("Connection", "Upgrade")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("Sec-WebSocket-Version", "13")
            .body(())
            .unwrap()
    }

    fn changed(name: &'static str, value: &'static str) -> Request<()> {
        let mut request = good();
        let value = HeaderValue::from_static(value);
        request.headers_mut().insert(name, value);
        request
    }

    fn status(request: &Request<()>) -> u16 {
        accept(request).status().as_u16()
    }

    #[test]
    fn example_of_the_rfc_is_accepted() {
        let response = accept(&good());
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let proof = response.headers().get("sec-websocket-accept").unwrap();
        assert_eq!(proof, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn tokens_are_found_in_lists_whatever_their_case() {
        assert_eq!(status(&changed("connection", "keep-alive, UPGRADE")), 101);
        assert_eq!(status(&changed("upgrade", "h2c ,WebSocket")), 101);
    }

    #[test]
    fn no_upgrade_gets_426() {
        assert_eq!(status(&changed("upgrade", "websockets")), 426);
        assert_eq!(status(&changed("connection", "keep-alive")), 426);
        let mut old = good();
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(status(&old), 426);
    }

    #[test]
    fn other_version_gets_426_with_ours() {
        let response = accept(&changed("sec-websocket-version", "8"));
        assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED);
        assert_eq!(response.headers().get("sec-websocket-version").unwrap(), "13");
    }

    #[test]
    fn bad_key_gets_400() {
        for key in ["", "==", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25 ZQ=="] {
            assert_eq!(status(&changed("sec-websocket-key", key)), 400, "{key}");
        }
        let mut twice = good();
        let other = HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA==");
        twice.headers_mut().append("sec-websocket-key", other);
        assert_eq!(status(&twice), 400);
    }

    #[test]
    fn other_method_gets_405() {
        let mut post = good();
        *post.method_mut() = Method::POST;
        assert_eq!(status(&post), 405);
    }
}
