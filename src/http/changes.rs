//! What a route changes in the heads of requests: its prefix is left out of the path, fields are set and removed.

use super::forwarded;
use super::head::is_token;
use crate::config::routing::HeadChanges;

/// Fields that are of one connection, say how long a body is, or are the handshake's: a route may not change them.
const NEVER: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "max-forwards",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "traceparent",
    "tracestate",
];

/// What the names of the handshake's fields begin with (RFC 6455, section 11.3).
const OF_HANDSHAKES: &str = "sec-websocket-";

/// Whether it can be the name of a field (RFC 9110, section 5.1).
pub(crate) fn is_field_name(name: &str) -> bool {
    is_token(name.as_bytes())
}

/// Whether it can be the value of a field, in visible ASCII (RFC 9110, section 5.5).
pub(crate) fn is_field_value(value: &str) -> bool {
    value.trim_matches([' ', '\t']) == value
        && value.bytes().all(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t'))
}

/// Whether a route may set or remove a field of this name.
pub(crate) fn can_be_changed(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    can_be_asked_for(&name) && !name.starts_with(OF_HANDSHAKES)
}

/// Whether a route may ask for a field of this name. What a client says of itself is not believed, and what is of one
/// connection says nothing of the request.
pub(crate) fn can_be_asked_for(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !NEVER.contains(&name.as_str()) && !forwarded::is_ours_to_say(name.as_bytes())
}

/// What is left of a target without its first `strip` bytes: a slash, where it needs one, and the rest.
pub(super) fn without_prefix(target: &[u8], strip: usize) -> [&[u8]; 2] {
    match target.get(strip..) {
        Some(rest) if rest.starts_with(b"/") => [b"", rest],
        Some(rest) => [b"/", rest],
        // Its route has a shorter path than this.
        None => [b"", target],
    }
}

impl HeadChanges {
    /// Whether a client's field of this name must not pass. A name with another sign in the place of a letter, digit or
    /// dash is the same to applications that read fields as CGI variables (RFC 3875, section 4.1.18).
    pub(super) fn replaces(&self, name: &[u8]) -> bool {
        let is = |ours: &str| {
            let plain = |byte: u8| {
                if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
            };
            ours.len() == name.len()
                && ours.bytes().zip(name).all(|(ours, said)| plain(ours) == plain(*said))
        };
        self.set.iter().any(|(name, _)| is(name)) || self.remove.iter().any(|name| is(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_is_left_out_and_a_path_stays() {
        for (target, strip, left) in [
            ("/chat/room?x=1", 5, "/room?x=1"),
            ("/chat", 5, "/"),
            ("/chat?x", 5, "/?x"),
            ("/chat/", 5, "/"),
            ("/chat//a", 5, "//a"),
            ("/c", 5, "/c"),
        ] {
            assert_eq!(without_prefix(target.as_bytes(), strip).concat(), left.as_bytes());
        }
    }

    #[test]
    fn fields_of_every_spelling_are_replaced() {
        let changes = HeadChanges {
            set: vec![(String::from("X-Tenant"), String::from("blue"))],
            remove: vec![String::from("cookie")],
            ..HeadChanges::default()
        };
        for name in ["x-tenant", "X_Tenant", "X.TENANT", "Cookie"] {
            assert!(changes.replaces(name.as_bytes()), "{name}");
        }
        for name in ["x-tenants", "xtenant", "cookie2", "set-cookie"] {
            assert!(!changes.replaces(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn what_is_of_a_connection_is_no_routes_matter() {
        for name in ["Connection", "content-length", "X-Forwarded-For", "x_real_ip", "Host"] {
            assert!(!can_be_asked_for(name), "{name}");
        }
        assert!(can_be_asked_for("Sec-WebSocket-Protocol"));
        assert!(!can_be_changed("Sec-WebSocket-Protocol"));
        assert!(can_be_changed("Authorization"));
        assert!(is_field_value("a b"));
        for bad in [" a", "a\r\nb: c", "a\u{7f}", "ü"] {
            assert!(!is_field_value(bad), "{bad:?}");
        }
    }
}
