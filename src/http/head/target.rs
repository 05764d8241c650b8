//! Request targets and hosts (RFC 9112, section 3.2; RFC 9110, sections 4.2 and 7.2).
//!
//! A target passes byte for byte, `//`, `..` and `%2F` included: what its path means is for the upstream
//! to say. What no target may hold is said where its bytes are read: controls, space, DEL and `#`.

use std::net::Ipv6Addr;

use super::bytes::end_of_host;

/// A request target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A path and perhaps a query, as it goes to the upstream.
    Origin(&'a [u8]),
    /// `*`, of OPTIONS.
    Asterisk,
    /// The absolute form: the authority, which replaces `Host`, and path and query as they came, which
    /// may be empty.
    Absolute(&'a [u8], &'a [u8]),
}

/// Takes a target apart; none if it has no form that is served here.
pub(super) fn parse(target: &[u8], is_options: bool) -> Option<Target<'_>> {
    if target.starts_with(b"/") {
        return Some(Target::Origin(target));
    }
    if target == b"*" {
        return is_options.then_some(Target::Asterisk);
    }
    let rest =
        without_scheme(target, b"http://").or_else(|| without_scheme(target, b"https://"))?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    // RFC 9110, section 4.2.1: an http URI with an empty host is invalid.
    let named = !authority.is_empty() && !authority.starts_with(b":");
    (named && is_host(authority)).then_some(Target::Absolute(authority, path))
}

fn without_scheme<'a>(target: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = target.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// Whether it can be a host and a port (RFC 3986, section 3.2; a comma would make two of it). Empty is
/// well-formed: of a target without authority.
#[must_use]
pub fn is_host(host: &[u8]) -> bool {
    let port = if let [b'[', rest @ ..] = host {
        let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
        let (Some(address), Some(port)) = (rest.get(..end), rest.get(end + 1..)) else {
            return false;
        };
        let address = std::str::from_utf8(address).ok().and_then(|text| text.parse().ok());
        if !address.is_some_and(|_: Ipv6Addr| true) {
            return false;
        }
        port
    } else {
        behind_name(host)
    };
    match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// What follows the name of a host, percent-encoded bytes included.
fn behind_name(mut host: &[u8]) -> &[u8] {
    loop {
        let end = end_of_host(host).unwrap_or(host.len());
        host = match host.get(end..) {
            Some([b'%', high, low, rest @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                rest
            }
            rest => return rest.unwrap_or_default(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::is_host;

    #[test]
    fn host_is_a_name_or_an_address_and_perhaps_a_port() {
        for host in [
            "",
            "a",
            "a:1",
            "a:",
            "a:65535",
            "Shop_1.Example",
            "%7e",
            "%7E%00:80",
            "[::1]",
            "[2001:DB8::1]:8080",
            "!$&'()*+;=-._~",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "a,b",
            "a b",
            "a/",
            "a?",
            "a#",
            "a@b",
            "a\\b",
            "a\"",
            "a<",
            "%",
            "%7",
            "%zz",
            "%7g",
            "a:b",
            "a:1:2",
            "a:123456",
            "a:+1",
            "[::1",
            "::1",
            "[a]",
            "[::1]a",
            "[fe80::1%eth0]",
            "\u{fc}",
            "a\0",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }
}
