//! What a request says of the endpoint that it belongs to (`STICKY`), and the cookie that has it say so.
//!
//! Pure. A value that is missing, empty or there twice says nothing, and neither does a cookie that elbows cannot have set.
//!
//! A cookie has a token and nothing else, 64 bits as hexadecimal digits: which endpoint it stands for is found by hashing, and so
//! there is no address in it, and no secret that several processes would have to share.

use super::forwarded;
use super::head::{Request, Target};
use crate::client::Client;
use crate::config::{Config, Sticky};
use crate::limits::Network;
use crate::upstream::Affinity;
use crate::upstream::sticky::hash;

/// What is known of who sends a request, as far as its endpoint and its cookie are concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visitor {
    pub(crate) affinity: Affinity,
    /// The client speaks TLS with the load balancer, or with what is in front of that.
    pub(crate) https: bool,
}

impl Visitor {
    /// Who sends the request with this head.
    pub(crate) fn of(head: &Request<'_>, client: &Client, config: &Config) -> Self {
        let affinity = affinity(head, client, &config.sticky);
        let https =
            affinity == Affinity::NewToken && forwarded::https(&head.fields, client, config);
        Self { affinity, https }
    }
}

fn affinity(head: &Request<'_>, client: &Client, sticky: &Sticky) -> Affinity {
    let by = |value: Option<&[u8]>| {
        let value = value.filter(|value| !value.is_empty());
        value.map_or(Affinity::None, |value| Affinity::Key(hash(value)))
    };
    match sticky {
        Sticky::Off => Affinity::None,
        Sticky::Cookie(name) => token(head, name).map_or(Affinity::NewToken, Affinity::Token),
        Sticky::Client => {
            let network = Network::from(client.address.ip().to_canonical());
            Affinity::Key(hash(&network.to_bytes()))
        }
        Sticky::Header(name) => by(only(values(head, name.as_bytes()))),
        Sticky::Query(name) => by(only(in_query(head, name.as_bytes()))),
        Sticky::Path => by(path(head).map(|(path, _)| path)),
    }
}

/// The one item, if there is one and no second.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next();
    if items.next().is_some() { None } else { first }
}

/// The values of all lines of this name.
fn values<'a>(head: &Request<'a>, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let lines = head.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
    lines.map(|field| field.value)
}

/// The path and the query, as they came; of `*` neither.
fn path<'a>(head: &Request<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let target = match head.target {
        Target::Origin(target) | Target::Absolute(_, target) => target,
        Target::Asterisk => return None,
    };
    let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    let (path, query) = target.split_at_checked(end)?;
    // An absolute form without a path means the root (RFC 9112, section 3.2.1).
    let path = if path.is_empty() { b"/" } else { path };
    Some((path, query.get(1..).unwrap_or_default()))
}

/// The values of this name in the query, as they came.
fn in_query<'a>(head: &Request<'a>, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let query = path(head).map(|(_, query)| query).unwrap_or_default();
    query.split(|byte| *byte == b'&').filter_map(|part| value_of(part, name))
}

/// What is behind `name=`.
fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    pair.strip_prefix(name)?.strip_prefix(b"=")
}

/// Digits of a token.
const DIGITS: usize = 16;

/// The token in the cookie of this name (RFC 6265, section 5.4).
fn token(head: &Request<'_>, name: &str) -> Option<u64> {
    let lines = head.fields.iter().filter(|field| field.is(b"cookie"));
    let cookies = lines.flat_map(|field| field.value.split(|byte| *byte == b';'));
    let named = cookies.filter_map(|pair| value_of(pair.trim_ascii(), name.as_bytes()));
    let digits: &[u8; DIGITS] = only(named)?.try_into().ok()?;
    digits.iter().try_fold(0, |token, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            // As they were written, and not otherwise.
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(token << 4 | u64::from(digit))
    })
}

/// The cookie that a response sets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetCookie<'a> {
    pub(crate) name: &'a str,
    pub(crate) token: u64,
    /// See [`Visitor::https`].
    pub(crate) https: bool,
}

impl SetCookie<'_> {
    /// Writes the field line. WebSockets that pages of other sites open are to be sticky, too: for those browsers send a
    /// cookie only with `SameSite=None`, which they take only with `Secure` (draft-ietf-httpbis-rfc6265bis, section
    /// 5.7). It gives nobody any right that another site could abuse.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let digits: [u8; DIGITS] = std::array::from_fn(|place| {
            let digit = self.token >> (4 * (DIGITS - 1 - place)) & 0xf;
            b"0123456789abcdef".get(usize::try_from(digit).unwrap_or(0)).copied().unwrap_or(b'0')
        });
        let name = self.name.as_bytes();
        // A name that promises TLS is refused without it, whatever is known here.
        let promises_tls = [&b"__Host-"[..], b"__Secure-"].iter().any(|prefix| {
            name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        });
        let same_site: &[u8] =
            if self.https || promises_tls { b"; Secure; SameSite=None" } else { b"; SameSite=Lax" };
        for part in
            [b"Set-Cookie: ", name, b"=", &digits, b"; Path=/; HttpOnly", same_site, b"\r\n"]
        {
            out.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests;
