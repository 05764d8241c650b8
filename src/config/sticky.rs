//! What keeps a client at the endpoint where it was: `STICKY`.

use std::fmt;

/// What of a request says which endpoint it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// Nothing.
    Off,
    /// A cookie of this name, which elbows sets.
    Cookie(String),
    /// The client's address, of IPv6 the first 64 bits.
    Client,
    /// The value of this header field.
    Header(String),
    /// The value of this part of the query.
    Query(String),
    /// The path without the query.
    Path,
}

/// The name of the cookie where none is given.
const COOKIE: &str = "elbows";

/// Longer names are a mistake, and each response would carry it.
const LONGEST: usize = 64;

impl Sticky {
    pub(super) const WORDS: &str =
        "off, cookie, cookie:NAME, client, header:NAME, query:NAME or path";

    /// Reads a value.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let token = |name: &str, of: &str| {
            is_name(name, is_token).then(|| name.to_owned()).ok_or_else(|| {
                format!(
                    "the name of a {of} is 1 to {LONGEST} letters, digits and !#$%&'*+-.^_`|~ (RFC 9110, \
                     section 5.6.2)"
                )
            })
        };
        match text.split_once(':') {
            None => match text {
                "off" => Ok(Self::Off),
                "cookie" => Ok(Self::Cookie(COOKIE.to_owned())),
                "client" => Ok(Self::Client),
                "path" => Ok(Self::Path),
                _ => Err(format!("must be {}", Self::WORDS)),
            },
            Some(("cookie", name)) => token(name, "cookie").map(Self::Cookie),
            Some(("header", name)) => token(name, "header field").map(Self::Header),
            Some(("query", name)) if is_name(name, is_in_query) => Ok(Self::Query(name.to_owned())),
            Some(("query", _)) => Err(format!(
                "the name of a part of the query is 1 to {LONGEST} visible characters of ASCII, as they stand in \
                 the URL, without #, & and ="
            )),
            Some(_) => Err(format!("must be {}", Self::WORDS)),
        }
    }
}

fn is_name(name: &str, is_fit: impl Fn(u8) -> bool) -> bool {
    (1..=LONGEST).contains(&name.len()) && name.bytes().all(is_fit)
}

/// RFC 9110, section 5.6.2; RFC 6265, section 4.1.1, has the same for cookies.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

const fn is_in_query(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'#' | b'&' | b'=')
}

impl fmt::Display for Sticky {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => out.write_str("off"),
            Self::Cookie(name) if name == COOKIE => out.write_str("cookie"),
            Self::Cookie(name) => write!(out, "cookie:{name}"),
            Self::Client => out.write_str("client"),
            Self::Header(name) => write!(out, "header:{name}"),
            Self::Query(name) => write!(out, "query:{name}"),
            Self::Path => out.write_str("path"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]

    use super::Sticky;

    #[test]
    fn values_are_read_and_written() {
        for (text, value) in [
            ("off", Sticky::Off),
            ("cookie", Sticky::Cookie("elbows".to_owned())),
            ("cookie:__Host-Seat", Sticky::Cookie("__Host-Seat".to_owned())),
            ("client", Sticky::Client),
            ("header:X-Room", Sticky::Header("X-Room".to_owned())),
            ("query:room[id]", Sticky::Query("room[id]".to_owned())),
            ("query:a:b", Sticky::Query("a:b".to_owned())),
            ("path", Sticky::Path),
        ] {
            assert_eq!(Sticky::read(text), Ok(value.clone()), "{text}");
            assert_eq!(value.to_string(), text);
        }
        assert_eq!(
            Sticky::read("cookie:elbows").map(|value| value.to_string()),
            Ok("cookie".to_owned())
        );
    }

    #[test]
    fn names_that_nobody_could_send_are_refused() {
        let long = format!("cookie:{}", "a".repeat(65));
        for (text, rule) in [
            ("", "must be off, cookie,"),
            ("Cookie", "must be off, cookie,"),
            ("path:x", "must be off, cookie,"),
            ("client:", "must be off, cookie,"),
            ("cookie:", "name of a cookie is 1 to 64"),
            ("cookie:a b", "name of a cookie"),
            ("cookie:a;b", "name of a cookie"),
            ("cookie:gr\u{fc}n", "name of a cookie"),
            (long.as_str(), "name of a cookie"),
            ("header:", "name of a header field"),
            ("header:X Room", "name of a header field"),
            ("header:X:", "name of a header field"),
            ("query:", "name of a part of the query"),
            ("query:a&b", "without #, & and ="),
            ("query:a b", "name of a part of the query"),
        ] {
            let fault = Sticky::read(text).expect_err(text);
            assert!(fault.contains(rule), "{text}: {fault}");
        }
    }
}
