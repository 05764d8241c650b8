//! Origins that may open WebSockets, and whether one of them did. Pure.
//!
//! A browser says in `Origin` which page opens a WebSocket (RFC 6455, section 10.2), and sends the
//! user's cookies whichever page it is. An application that goes by cookies alone would serve a
//! stranger's page (cross-site WebSocket hijacking). Origins have one form (RFC 6454, section 6.2):
//! scheme, host, and the port where it is not the scheme's own.

use std::fmt;
use std::net::Ipv6Addr;

/// Origins that are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins(Vec<Pattern>);

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// `null`: a page without an origin that could be told (RFC 6454, section 4).
    Null,
    Of {
        /// In lower case; `None` means `https` and `http`.
        scheme: Option<String>,
        host: Host,
        /// `None`: the scheme's own.
        port: Option<u16>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// Lower case; of IPv6 the one spelling of RFC 5952, in brackets.
    Exactly(String),
    /// `*.` and this: every host below it, however deep, and not itself. Begins with the dot.
    Below(String),
}

impl Origins {
    /// Whether a handshake with this value of `Origin` may pass. A value that is not one origin in its
    /// one form may not, whatever is listed.
    #[must_use]
    pub fn allow(&self, origin: &[u8]) -> bool {
        if origin == b"null" {
            return self.0.contains(&Pattern::Null);
        }
        let Some((scheme, host, port)) = std::str::from_utf8(origin).ok().and_then(split) else {
            return false;
        };
        let Some(scheme) = scheme else { return false };
        let port = port.or_else(|| own_port(&scheme));
        self.0.iter().any(|pattern| pattern.takes(&scheme, &host, port))
    }
}

impl Pattern {
    fn takes(&self, scheme: &str, host: &str, port: Option<u16>) -> bool {
        let Self::Of { scheme: wanted_scheme, host: wanted_host, port: wanted_port } = self else {
            return false;
        };
        let is_scheme = match wanted_scheme {
            Some(wanted) => wanted == scheme,
            None => matches!(scheme, "https" | "http"),
        };
        let is_host = match wanted_host {
            Host::Exactly(wanted) => wanted == host,
            Host::Below(end) => {
                // An address has no names below it, and `.example.com` is no host.
                host.len() > end.len() && host.ends_with(end.as_str()) && !host.starts_with('.')
            }
        };
        is_scheme && is_host && wanted_port.or_else(|| own_port(scheme)) == port
    }
}

/// The port that a scheme stands for.
fn own_port(scheme: &str) -> Option<u16> {
    match scheme {
        "https" | "wss" => Some(443),
        "http" | "ws" => Some(80),
        _ => None,
    }
}

/// Reads a list: origins, origins whose host begins with `*.`, either of them without scheme, `null`.
/// An error is the first entry that is none of these.
pub(super) fn parse(items: &[&str]) -> Result<Origins, String> {
    let pattern = |item: &&str| pattern(item).ok_or_else(|| (*item).to_owned());
    items.iter().map(pattern).collect::<Result<_, _>>().map(Origins)
}

fn pattern(item: &str) -> Option<Pattern> {
    if item == "null" {
        return Some(Pattern::Null);
    }
    let without_star = item.replacen("*.", "", 1);
    let has_star = item.strip_prefix("*.").is_some() || item.contains("://*.");
    let (scheme, host, port) = split(if has_star { &without_star } else { item })?;
    let host = if has_star {
        // Below an address there is nothing.
        let is_name = !host.starts_with('[') && host.parse::<std::net::Ipv4Addr>().is_err();
        Host::Below(is_name.then(|| format!(".{host}"))?)
    } else {
        Host::Exactly(host)
    };
    Some(Pattern::Of { scheme, host, port })
}

/// Scheme, if there is one, host and port, in lower case.
fn split(text: &str) -> Option<(Option<String>, String, Option<u16>)> {
    let (scheme, authority) = match text.split_once("://") {
        Some((scheme, authority)) => (Some(scheme), authority),
        None => (None, text),
    };
    // RFC 3986, section 3.1.
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    if scheme.is_some_and(|scheme| !is_scheme(scheme)) {
        return None;
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let host = if let Some(address) = host.strip_prefix('[') {
        format!("[{}]", address.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?)
    } else {
        let is_host = !host.is_empty()
            && host
                .split('.')
                .rev()
                .skip(usize::from(host.ends_with('.')))
                .all(|label| !label.is_empty())
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        is_host.then(|| host.to_ascii_lowercase())?
    };
    let port = match port {
        // In its one form: `str::parse` would take a sign, and zeros in front.
        Some(port) => {
            let number = port.parse::<u16>().ok()?;
            Some((number.to_string() == port).then_some(number)?)
        }
        None => None,
    };
    Some((scheme.map(str::to_ascii_lowercase), host, port))
}

impl fmt::Display for Origins {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for pattern in &self.0 {
            write!(out, "{separator}{pattern}")?;
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Of { scheme, host, port } = self else { return write!(out, "null") };
        if let Some(scheme) = scheme {
            write!(out, "{scheme}://")?;
        }
        match host {
            Host::Exactly(host) => write!(out, "{host}")?,
            Host::Below(end) => write!(out, "*{end}")?,
        }
        port.map_or(Ok(()), |port| write!(out, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn allows(listed: &str, origin: &str) -> bool {
        parse(&listed.split(',').collect::<Vec<_>>()).unwrap().allow(origin.as_bytes())
    }

    #[test]
    fn an_origin_is_its_scheme_host_and_port() {
        for (listed, origin) in [
            ("https://a.example", "https://a.example"),
            ("https://a.example", "HTTPS://A.Example"),
            ("HTTPS://A.EXAMPLE", "https://a.example"),
            ("https://a.example", "https://a.example:443"),
            ("https://a.example:443", "https://a.example"),
            ("http://a.example", "http://a.example:80"),
            ("https://a.example:8443", "https://a.example:8443"),
            ("https://b.example,https://a.example", "https://a.example"),
            ("https://[2001:DB8:0::1]:8443", "https://[2001:db8::1]:8443"),
            ("http://192.0.2.1", "http://192.0.2.1"),
            ("a.example", "https://a.example"),
            ("a.example", "http://a.example"),
            ("a.example:8080", "http://a.example:8080"),
            ("localhost", "http://localhost"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("null", "null"),
        ] {
            assert!(allows(listed, origin), "{listed} {origin}");
        }
        for (listed, origin) in [
            ("https://a.example", "http://a.example"),
            ("https://a.example", "https://a.example:8443"),
            ("https://a.example:8443", "https://a.example"),
            ("https://a.example", "https://a.example."),
            ("https://a.example", "https://b.a.example"),
            ("https://a.example", "https://a.example.evil.example"),
            ("https://a.example", "https://evil-a.example"),
            ("https://a.example", "null"),
            ("a.example", "null"),
            ("a.example", "https://a.example:8080"),
            ("a.example", "https://a.example:80"),
            ("a.example", "chrome-extension://a.example"),
            ("null", "https://null"),
            ("null", "NULL"),
        ] {
            assert!(!allows(listed, origin), "{listed} {origin}");
        }
    }

    #[test]
    fn a_star_is_every_host_below_and_not_itself() {
        for origin in
            ["https://b.example.com", "https://c.b.example.com", "https://B.EXAMPLE.com:443"]
        {
            assert!(allows("https://*.example.com", origin), "{origin}");
            assert!(allows("*.example.com", origin), "{origin}");
        }
        assert!(allows("*.example.com", "http://b.example.com"));
        assert!(allows("https://*.example.com:8443", "https://b.example.com:8443"));
        for origin in [
            "https://example.com",
            "https://.example.com",
            "https://..example.com",
            "https://bexample.com",
            "https://b.example.com.evil.example",
            "https://b.example.com:8443",
            "https://evil.example/.example.com",
            "https://evil.example?.example.com",
            "https://evil.example#.example.com",
            "https://evil.example\\.example.com",
            "https://evil.example:1.example.com",
            "https://user@b.example.com",
            "https://b.example.com/",
            "ftp://b.example.com",
        ] {
            assert!(!allows("*.example.com", origin), "{origin}");
        }
        assert!(!allows("https://*.example.com", "http://b.example.com"));
    }

    #[test]
    fn what_is_not_one_origin_in_its_form_is_not_allowed() {
        for origin in [
            "",
            " ",
            "a.example",
            "//a.example",
            "https:a.example",
            "https://a.example/",
            "https://a.example https://a.example",
            "https://a.example,https://a.example",
            "https://a.example:",
            "https://a.example:+443",
            "https://a.example:0443",
            "https://a.example:99999",
            "https:///a.example",
            "https://a.example\t",
            "*.example",
            "https://*.example",
            "https://[2001:db8::1",
        ] {
            assert!(!allows("a.example,https://a.example,*.example", origin), "{origin:?}");
        }
        assert!(!parse(&["a.example"]).unwrap().allow(b"https://a.example\xff"));
    }

    #[test]
    fn what_is_listed_is_written_back_and_what_is_no_origin_is_named() {
        for listed in
            ["https://a.example:8443", "*.a.example", "https://*.a.example", "null", "a.example"]
        {
            assert_eq!(parse(&[listed]).unwrap().to_string(), listed);
        }
        for listed in [
            "",
            "*",
            "*.",
            "https://",
            "https://*",
            "https://a.*.example",
            "https://*.*.example",
            "https://a*.example",
            "https://a.example/",
            "https://a.example/path",
            "https://user@a.example",
            "https://bücher.example",
            "*.192.0.2.1",
            "https://*.[::1]",
            "https://a.example:x",
            "https://a.example:0443",
            "https://a..example",
            "-://a.example",
        ] {
            assert_eq!(parse(&["a.example", listed]), Err(listed.to_owned()), "{listed}");
        }
    }
}
