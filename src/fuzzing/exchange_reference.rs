//! What has to come of one exchange, said of whole requests and whole responses: who gets which head, and which body.

use super::decode::{Ending, Message};
use super::http_reference::{self, Field, Verdict};
use super::messages::{Body, read_body};
use crate::http::head::{Framing, HeadLimits};

/// Who answers the first message of a client.
#[derive(Debug)]
pub(super) enum Answerer {
    /// Its head is not whole, or it is wrong and gets no more than a refusal.
    Nobody,
    /// Elbows itself. So long is the message, and another one may be behind it.
    Elbows { used: usize },
    /// The upstream, which gets this.
    Upstream(Request),
}

#[derive(Debug)]
pub(super) struct Request {
    method: String,
    target: String,
    pub(super) is_http_10: bool,
    fields: Vec<Field>,
    framing: Framing,
    pub(super) body: Body,
    /// Bytes of the message, as far as they came.
    pub(super) used: usize,
}

/// What an upstream says.
#[derive(Debug)]
pub(super) struct Response {
    /// Interim responses: the line and the fields.
    pub(super) interim: Vec<(String, Vec<Field>)>,
    pub(super) last: Last,
}

#[derive(Debug)]
pub(super) enum Last {
    /// Its head is not whole.
    Part,
    /// It breaks a rule.
    Wrong,
    /// 101, and what is behind it.
    Switching(Vec<u8>),
    Final {
        line: String,
        fields: Vec<Field>,
        framing: Framing,
        body: Body,
    },
}

fn values<'f>(fields: &'f [Field], name: &str) -> Vec<&'f [u8]> {
    let of_name = fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()));
    of_name.map(|(_, value)| &value[..]).collect()
}

fn items(fields: &[Field], name: &str) -> Vec<String> {
    let lists = values(fields, name).into_iter();
    let items = lists.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    items.map(|item| String::from_utf8_lossy(item).to_ascii_lowercase()).collect()
}

/// A name as a CGI variable has it, but for the case.
fn plain(name: &[u8]) -> String {
    let plain = |byte: &u8| if byte.is_ascii_alphanumeric() { char::from(*byte) } else { '-' };
    name.iter().map(plain).collect::<String>().to_ascii_lowercase()
}

/// Whether nobody but elbows may say a field of this name to an upstream.
pub(super) fn is_ours(name: &[u8]) -> bool {
    const OTHERS: [&str; 4] = ["x-real-ip", "forwarded", "x-request-id", "proxy"];
    const TLVS: [&str; 9] = [
        "alpn",
        "authority",
        "unique-id",
        "ssl-version",
        "ssl-cn",
        "ssl-cipher",
        "aws-vpce-id",
        "azure-link-id",
        "gcp-psc-id",
    ];
    let plain = plain(name);
    let is_tlv = |rest: &str| TLVS.contains(&rest);
    plain.starts_with("x-forwarded-")
        || OTHERS.contains(&plain.as_str())
        || plain.strip_prefix("x-proxy-").is_some_and(is_tlv)
}

fn is_always_hop_by_hop(name: &[u8]) -> bool {
    const NAMES: [&str; 9] = [
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
    NAMES.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

/// Whether a field speaks of one connection.
fn is_hop_by_hop(fields: &[Field], name: &[u8]) -> bool {
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
    let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
    // A claim of who the client is stays one, in its usual spelling.
    let is_claim =
        is_ours(name) && plain(name) == lower && lower != "proxy" && !lower.starts_with("x-proxy-");
    let stays = END_TO_END.contains(&&*lower) || lower.starts_with("sec-websocket-") || is_claim;
    is_always_hop_by_hop(name) || !stays && items(fields, "connection").contains(&lower)
}

/// What of trailers passes.
fn trailers(trailers: &[Field], is_request: bool) -> Vec<Field> {
    let passes = |(name, _): &&Field| !(is_always_hop_by_hop(name) || is_request && is_ours(name));
    trailers.iter().filter(passes).cloned().collect()
}

/// A number without zeros in front.
fn number(digits: &[u8]) -> Vec<u8> {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    digits[zeros.min(digits.len() - 1)..].to_vec()
}

impl Answerer {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let limits = HeadLimits::DEFAULT;
        let Verdict::Whole(head, used) = http_reference::request(bytes, &limits) else {
            return Self::Nobody;
        };
        let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        let line = String::from_utf8_lossy(line.split(|byte| *byte == b'\r').next().unwrap());
        let words: Vec<_> = line.split(' ').collect();
        let (method, target) = (words[0].to_owned(), words[1].to_owned());
        let path = match path_of(&target) {
            Some((_, path)) => path,
            None => &target,
        };
        let is_health = matches!(words[0], "GET" | "HEAD")
            && path.split('?').next().is_some_and(|path| path == "/ping");
        let is_counted = matches!(words[0], "OPTIONS" | "TRACE");
        let is_last = is_counted
            && values(&head.fields, "max-forwards").iter().any(|left| number(left) == b"0");
        let rest = &bytes[used..];
        let body = body(rest, head.framing);
        let used = used + body.used;
        if is_health || is_last {
            return Self::Elbows { used };
        }
        let is_http_10 = words[2] == "HTTP/1.0";
        let (fields, framing) = (head.fields, head.framing);
        Self::Upstream(Request { method, target, is_http_10, fields, framing, body, used })
    }
}

impl Answerer {
    /// Whether the first message of `bytes` that is for an upstream has a bad body: how much of it an upstream hears
    /// before its fault is nobody's promise.
    pub(super) fn is_bad(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Nobody => false,
            Self::Elbows { used } => Self::of(&bytes[*used..]).is_bad(&bytes[*used..]),
            Self::Upstream(request) => request.body.fault.is_some(),
        }
    }
}

/// How long the request that `bytes` begin with is, if its end is there.
pub(super) fn request_length(bytes: &[u8]) -> Option<usize> {
    let Verdict::Whole(head, used) = http_reference::request(bytes, &HeadLimits::DEFAULT) else {
        return None;
    };
    let body = body(&bytes[used..], head.framing);
    body.is_over.then_some(used + body.used)
}

/// The authority and the rest of a target in absolute form.
fn path_of(target: &str) -> Option<(&str, &str)> {
    let scheme = ["http://", "https://"].into_iter().find(|scheme| {
        target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    })?;
    let rest = &target[scheme.len()..];
    Some(rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())))
}

fn body(bytes: &[u8], framing: Framing) -> Body {
    let length = match framing {
        Framing::Absent => 0,
        Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
        Framing::Chunked => {
            return read_body(bytes, bytes.len(), bytes.len().max(1), &HeadLimits::DEFAULT);
        }
        Framing::UntilClose => usize::MAX,
    };
    let used = length.min(bytes.len());
    Body { data: bytes[..used].to_vec(), used, is_over: used == length, ..Body::default() }
}

impl Request {
    pub(super) fn to_head(&self) -> bool {
        self.method == "HEAD"
    }

    pub(super) fn expects(&self) -> bool {
        let is_expectation = |value: &&[u8]| value.eq_ignore_ascii_case(b"100-continue");
        !self.is_http_10
            && !matches!(self.framing, Framing::Absent | Framing::Length(0))
            && values(&self.fields, "expect").iter().any(is_expectation)
    }

    /// Whether it may ask for another protocol.
    pub(super) fn may_upgrade(&self) -> bool {
        !self.is_http_10
            && matches!(self.framing, Framing::Absent | Framing::Length(0))
            && items(&self.fields, "connection").contains(&String::from("upgrade"))
            && !items(&self.fields, "upgrade").is_empty()
    }

    fn wants_trailers(&self) -> bool {
        !self.is_http_10 && items(&self.fields, "te").contains(&String::from("trailers"))
    }

    /// The head is what the upstream has to get of it.
    pub(super) fn check_head(&self, message: &Message) {
        let (target, host) = match path_of(&self.target) {
            Some((host, path)) if path.starts_with('/') => (path.to_owned(), Some(host)),
            Some((host, "")) if self.method == "OPTIONS" => (String::from("*"), Some(host)),
            Some((host, path)) => (format!("/{path}"), Some(host)),
            None => (self.target.clone(), None),
        };
        assert_eq!(message.line, format!("{} {target} HTTP/1.1", self.method));
        let counts = matches!(self.method.as_str(), "OPTIONS" | "TRACE");
        let mut expected = Vec::new();
        for (name, value) in &self.fields {
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            let value = match host {
                _ if is_hop_by_hop(&self.fields, name) || is_ours(name) => continue,
                _ if is("expect") && self.is_http_10 => continue,
                Some(host) if is("host") => host.as_bytes().to_vec(),
                _ if is("content-length") => number(value),
                _ if is("max-forwards") && counts => {
                    let left = String::from_utf8(number(value)).unwrap().parse::<u64>();
                    left.map_or(None, |left| Some((left - 1).to_string().into_bytes()))
                        .unwrap_or_default()
                }
                _ => value.clone(),
            };
            expected.push((name.clone(), value));
        }
        if values(&self.fields, "host").is_empty() {
            let host = host.unwrap_or_default().as_bytes().to_vec();
            expected.insert(0, (b"Host".to_vec(), host));
        }
        let is_ours = |name: &[u8]| is_ours(name) || is_always_hop_by_hop(name);
        let got: Vec<_> =
            message.fields.iter().filter(|(name, _)| !is_ours(name)).cloned().collect();
        let lossy = |fields: &[Field]| -> Vec<String> {
            let text = |(name, value): &Field| {
                [String::from_utf8_lossy(name), String::from_utf8_lossy(value)].join(": ")
            };
            fields.iter().map(text).collect()
        };
        let is_long_count = |(name, value): &Field| {
            counts && name.eq_ignore_ascii_case(b"max-forwards") && value.is_empty()
        };
        if !expected.iter().any(is_long_count) {
            assert_eq!(lossy(&got), lossy(&expected));
        }
        assert_eq!(message.framing, self.framing);
        assert_eq!(message.values("x-forwarded-for"), ["10.0.0.9"]);
        assert_eq!(message.values("x-request-id").len(), 1);
    }

    /// The body is as much of the request's as came, or a part of that where `may_be_less`.
    pub(super) fn check_body(&self, message: &Message, may_be_less: bool) {
        if may_be_less {
            assert!(self.body.data.starts_with(&message.data));
            assert!(!message.is_whole || self.body.is_over && message.data == self.body.data);
        } else {
            assert!(message.data == self.body.data, "the upstream gets another body");
            assert_eq!(message.is_whole, self.body.is_over);
        }
        if message.is_whole {
            assert_eq!(message.trailers, trailers(&self.body.trailers, true));
        }
    }
}

impl Response {
    /// The response to `request` that these bytes begin with.
    pub(super) fn of(bytes: &[u8], request: &Request) -> Self {
        let mut interim = Vec::new();
        let mut rest = bytes;
        loop {
            let (head, used) = match http_reference::response(
                rest,
                &HeadLimits { head: 64 * 1024, ..HeadLimits::DEFAULT },
            ) {
                Verdict::Whole(head, used) => (head, used),
                Verdict::Part => return Self { interim, last: Last::Part },
                Verdict::Wrong => return Self { interim, last: Last::Wrong },
            };
            rest = &rest[used..];
            let reason = String::from_utf8_lossy(&head.reason);
            let line = format!("HTTP/1.1 {} {reason}", head.status);
            match head.status {
                101 => return Self { interim, last: Last::Switching(rest.to_vec()) },
                100..200 => interim.push((line, head.fields)),
                _ => {
                    let Some(framing) = head.framing else {
                        return Self { interim, last: Last::Wrong };
                    };
                    let framing = if request.to_head() { Framing::Absent } else { framing };
                    let body = body(rest, framing);
                    let last = Last::Final { line, fields: head.fields, framing, body };
                    return Self { interim, last };
                }
            }
        }
    }
}

/// The head is what the client has to get of this one, but for what says how the body is framed and whether the
/// connection goes on.
pub(super) fn check_fields(fields: &[Field], message: &Message) {
    let is_framing =
        |name: &[u8]| is_always_hop_by_hop(name) || name.eq_ignore_ascii_case(b"content-length");
    let passes = |(name, _): &&Field| !is_hop_by_hop(fields, name) && !is_framing(name);
    let expected: Vec<_> = fields.iter().filter(passes).collect();
    let got: Vec<_> = message.fields.iter().filter(|(name, _)| !is_framing(name)).collect();
    assert_eq!(got, expected);
}

/// The framing that the client of `request` gets.
pub(super) fn framing_for_client(framing: Framing, request: &Request) -> Framing {
    match framing {
        Framing::Chunked | Framing::UntilClose if request.is_http_10 => Framing::UntilClose,
        Framing::Chunked | Framing::UntilClose => Framing::Chunked,
        other => other,
    }
}

/// The trailers that the client of `request` gets.
pub(super) fn trailers_for_client(body: &Body, request: &Request) -> Vec<Field> {
    if request.wants_trailers() { trailers(&body.trailers, false) } else { Vec::new() }
}

/// What the head of an answer says of the connection is what happens to it.
pub(super) fn check_ending(message: &Message, request: &Request, ending: Ending) {
    let says = |word: &str| {
        let values = message.values("connection");
        let mut items = values.iter().flat_map(|value| value.split(','));
        items.any(|item| item.trim().eq_ignore_ascii_case(word))
    };
    let goes_on = if request.is_http_10 { says("keep-alive") } else { !says("close") };
    assert_eq!(goes_on, ending == Ending::Open, "{message:?}");
}
