//! What the upstream is told about the client: forwarded headers, TLV headers, the request id.
//!
//! Set, not appended, by default: nothing in front of a layer-4 balancer can be believed. Whatever
//! the client sent under these names, in any spelling that a CGI-like application would read as
//! the same, is removed first.

use std::collections::hash_map::RandomState;
use std::fmt::Write;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{FORWARDED, HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Request};
use smallvec::SmallVec;

use super::head::Field;
use crate::client::Client;
use crate::config::{Config, Forwarded, TlvHeader};
use crate::proxy_protocol::Tlvs;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// No field at all, but `HTTP_PROXY` in a CGI program's environment (CVE-2016-5385): never passed.
const PROXY: HeaderName = HeaderName::from_static("proxy");

const ALPN: HeaderName = HeaderName::from_static("x-proxy-alpn");
const AUTHORITY: HeaderName = HeaderName::from_static("x-proxy-authority");
const UNIQUE_ID: HeaderName = HeaderName::from_static("x-proxy-unique-id");
const SSL_VERSION: HeaderName = HeaderName::from_static("x-proxy-ssl-version");
const SSL_CN: HeaderName = HeaderName::from_static("x-proxy-ssl-cn");
const SSL_CIPHER: HeaderName = HeaderName::from_static("x-proxy-ssl-cipher");
const AWS_VPC_ID: HeaderName = HeaderName::from_static("x-proxy-aws-vpce-id");
const AZURE_LINK_ID: HeaderName = HeaderName::from_static("x-proxy-azure-link-id");
const GCP_PSC_ID: HeaderName = HeaderName::from_static("x-proxy-gcp-psc-id");

/// TLV headers: always removed, since only a PROXY header can say these things.
const TLVS: [HeaderName; 9] = [
    ALPN,
    AUTHORITY,
    UNIQUE_ID,
    SSL_VERSION,
    SSL_CN,
    SSL_CIPHER,
    AWS_VPC_ID,
    AZURE_LINK_ID,
    GCP_PSC_ID,
];

const HTTP: HeaderValue = HeaderValue::from_static("http");
const HTTPS: HeaderValue = HeaderValue::from_static("https");

/// The longest request id that is taken over from a client.
const LONGEST_REQUEST_ID: usize = 128;

/// Field lines as they can be asked for.
pub(super) trait Lines {
    /// Gives `take` the value of each line of this name, in their order.
    fn each(&self, name: &HeaderName, take: &mut dyn FnMut(&[u8]));
}

impl Lines for HeaderMap {
    fn each(&self, name: &HeaderName, take: &mut dyn FnMut(&[u8])) {
        self.get_all(name).iter().for_each(|value| take(value.as_bytes()));
    }
}

impl Lines for [Field<'_>] {
    fn each(&self, name: &HeaderName, take: &mut dyn FnMut(&[u8])) {
        let lines = self.iter().filter(|field| field.is(name.as_str()));
        lines.for_each(|field| take(field.value));
    }
}

/// Says who the client is.
pub(super) fn set<B>(request: &mut Request<B>, client: &Client, request_id: &str, config: &Config) {
    let headers = request.headers_mut();
    let host = headers.get(HOST).cloned();
    let mut told: SmallVec<[(HeaderName, HeaderValue); 8]> = SmallVec::new();
    tell(headers, host.as_ref().map(Told::Value), client, request_id, config, |name, value| {
        told.push((name.clone(), value.into_value()));
    });
    let is_replaced = |name: &&HeaderName| is_replaced(name.as_str().as_bytes(), config);
    let gone: SmallVec<[HeaderName; 4]> = headers.keys().filter(is_replaced).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
    for (name, value) in told {
        headers.insert(name, value);
    }
}

/// The value of a field that is told.
#[derive(Clone, Copy)]
pub(super) enum Told<'a> {
    /// Words of this request.
    Bytes(&'a [u8]),
    /// What is at hand as a value.
    Value(&'a HeaderValue),
}

impl Told<'_> {
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Value(value) => value.as_bytes(),
        }
    }

    fn into_value(self) -> HeaderValue {
        match self {
            Self::Bytes(bytes) => value(bytes),
            Self::Value(value) => value.clone(),
        }
    }
}

/// Gives `tell` each field that says who the client is. `lines` are the client's own, and [`is_replaced`]
/// says which of them must not pass beside these.
pub(super) fn tell(
    lines: &(impl Lines + ?Sized),
    host: Option<Told<'_>>,
    client: &Client,
    request_id: &str,
    config: &Config,
    mut tell: impl FnMut(&HeaderName, Told<'_>),
) {
    let append = config.forwarded == Forwarded::Append;
    let mut list = Vec::new();
    // An element of a list field, after what all its lines say.
    let mut add =
        |name: &HeaderName, element: Told<'_>, tell: &mut dyn FnMut(&HeaderName, Told<'_>)| {
            if !append {
                return tell(name, element);
            }
            list.clear();
            lines.each(name, &mut |line| {
                list.extend_from_slice(line);
                list.extend_from_slice(b", ");
            });
            list.extend_from_slice(element.as_bytes());
            tell(name, Told::Bytes(&list));
        };
    let said = |name: &HeaderName| {
        let mut said = false;
        if append {
            lines.each(name, &mut |_| said = true);
        }
        said
    };

    let words = client.words();
    let proto = if client.https { &HTTPS } else { &HTTP };
    if config.forwarded_header {
        let host = host.as_ref().map(Told::as_bytes);
        let element = forwarded_element(client.address.ip(), client.https, host);
        add(&FORWARDED, Told::Bytes(element.as_bytes()), &mut tell);
    }
    add(&FOR, Told::Value(&words.ip), &mut tell);
    if !said(&REAL_IP) {
        tell(&REAL_IP, Told::Value(&words.ip));
    }
    if !said(&PROTO) {
        tell(&PROTO, Told::Value(proto));
    }
    if !said(&FORWARDED_PORT) {
        tell(&FORWARDED_PORT, Told::Value(&words.port));
    }
    if let Some(host) = host
        && !said(&FORWARDED_HOST)
    {
        tell(&FORWARDED_HOST, host);
    }
    for (name, value) in &client.tlv_headers {
        tell(name, Told::Value(value));
    }
    tell(&REQUEST_ID, Told::Bytes(request_id.as_bytes()));
}

/// Whether a client's field of this name must not pass: only we may say it, or say it anew.
pub(super) fn is_replaced(name: &[u8], config: &Config) -> bool {
    let append = config.forwarded == Forwarded::Append;
    match Ours::of(name) {
        None => false,
        // Of another spelling nobody knows who said it.
        Some((_, Spelling::Other) | (Ours::Never | Ours::Id, _)) => true,
        Some((Ours::Claim, _)) if !append => true,
        // These are said again as a list.
        Some((Ours::Claim, _)) => {
            let is = |ours: &HeaderName| name.eq_ignore_ascii_case(ours.as_str().as_bytes());
            is(&FOR) || config.forwarded_header && is(&FORWARDED)
        }
    }
}

/// Removes from a request's trailers what only we may say, in any spelling.
///
/// An upstream may merge trailers into the fields of the head (RFC 9110, section 6.5.2), so they are
/// cleaned as those are.
pub(super) fn clean_trailers(trailers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| Ours::of(name.as_str().as_bytes()).is_some())
        .cloned()
        .collect();
    for name in ours {
        trailers.remove(name);
    }
}

/// Whether it is a field that says who the client is.
pub(super) fn is_claim(name: &[u8]) -> bool {
    matches!(Ours::of(name), Some((Ours::Claim | Ours::Id, Spelling::Plain)))
}

/// Fields that are ours to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ours {
    /// Forwarded headers: replaced, or kept and added to, as `FORWARDED` says.
    Claim,
    /// Only a PROXY header can say it, or nobody.
    Never,
    /// The request id: taken over where it is fit.
    Id,
}

/// How a field is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// As everybody does.
    Plain,
    /// `X_Forwarded_For` and its like: servers that hand fields on as CGI variables (RFC 3875, section
    /// 4.1.18) have one sign for all that is no letter or digit.
    Other,
}

impl Ours {
    fn of(name: &[u8]) -> Option<(Self, Spelling)> {
        // Few fields begin so, and all of ours do.
        if !matches!(name.first(), Some(b'x' | b'X' | b'f' | b'F' | b'p' | b'P')) {
            return None;
        }
        let mut plain = [0; LONGEST];
        let mut spelling = Spelling::Plain;
        for (to, from) in plain.iter_mut().zip(name) {
            *to = from.to_ascii_lowercase();
            if !from.is_ascii_alphanumeric() {
                if *from != b'-' {
                    spelling = Spelling::Other;
                }
                *to = b'-';
            }
        }
        let plain = plain.get(..name.len()).unwrap_or(&plain);
        let is = |ours: &HeaderName| ours.as_str().as_bytes() == plain;
        // Whatever follows: applications know more of these than anybody has listed.
        let ours = if plain.starts_with(b"x-forwarded-") || is(&REAL_IP) || is(&FORWARDED) {
            Self::Claim
        } else if is(&REQUEST_ID) {
            Self::Id
        } else if is(&PROXY) || plain.starts_with(b"x-proxy-") && TLVS.iter().any(is) {
            Self::Never
        } else {
            return None;
        };
        Some((ours, spelling))
    }
}

/// Longer than any name of ours; of longer names the beginning tells.
const LONGEST: usize = 32;

/// The TLVs that `wanted` lists, as request headers.
pub(crate) fn tlv_headers(tlvs: &Tlvs, wanted: &[TlvHeader]) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for tlv in wanted {
        let mut add = |name: HeaderName, bytes: Option<&[u8]>| {
            if let Some(bytes) = bytes {
                headers.push((name, opaque_value(bytes)));
            }
        };
        match tlv {
            TlvHeader::Alpn => add(ALPN, tlvs.alpn()),
            TlvHeader::Authority => add(AUTHORITY, tlvs.authority().map(str::as_bytes)),
            TlvHeader::UniqueId => add(UNIQUE_ID, tlvs.unique_id()),
            TlvHeader::Ssl => {
                let ssl = tlvs.ssl();
                let text = |part: Option<Option<&'_ str>>| part.flatten().map(str::to_owned);
                for (name, part) in [
                    (SSL_VERSION, text(ssl.map(|ssl| ssl.version))),
                    (SSL_CN, text(ssl.map(|ssl| ssl.cn))),
                    (SSL_CIPHER, text(ssl.map(|ssl| ssl.cipher))),
                ] {
                    add(name, part.as_deref().map(str::as_bytes));
                }
            }
            TlvHeader::AwsVpceId => {
                add(AWS_VPC_ID, tlvs.aws_vpc_endpoint_id().map(str::as_bytes));
            }
            TlvHeader::AzureLinkId => {
                let id = tlvs.azure_link_id().map(|id| id.to_string());
                add(AZURE_LINK_ID, id.as_deref().map(str::as_bytes));
            }
            TlvHeader::GcpPscId => {
                let id = tlvs.gcp_psc_connection_id().map(|id| id.to_string());
                add(GCP_PSC_ID, id.as_deref().map(str::as_bytes));
            }
        }
    }
    headers
}

/// Makes request ids: random per process, counted in it.
#[derive(Debug)]
pub(crate) struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        // The standard library seeds its hash maps from the system's random source.
        let process = RandomState::new().build_hasher().finish();
        Self { process, next: AtomicU64::new(0) }
    }

    fn next(&self) -> String {
        const DIGITS: [char; 16] =
            ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
        let mut id = String::with_capacity(32);
        for half in [self.process, self.next.fetch_add(1, Ordering::Relaxed)] {
            for byte in half.to_be_bytes() {
                for digit in [byte >> 4, byte & 0xf] {
                    id.push(DIGITS.get(usize::from(digit)).copied().unwrap_or_default());
                }
            }
        }
        id
    }
}

/// The client's request id, where it is fit for a log, or a new one.
pub(super) fn request_id(lines: &(impl Lines + ?Sized), ids: &RequestIds) -> String {
    let mut first = None;
    lines.each(&REQUEST_ID, &mut |id| {
        if first.is_none() {
            let fit =
                (1..=LONGEST_REQUEST_ID).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
            first = Some(if fit { String::from_utf8(id.to_vec()).ok() } else { None });
        }
    });
    first.flatten().unwrap_or_else(|| ids.next())
}

/// RFC 7239, section 4: IPv6 and anything that is no token is quoted.
fn forwarded_element(address: IpAddr, https: bool, host: Option<&[u8]>) -> String {
    let mut element = match address {
        IpAddr::V4(ip) => format!("for={ip}"),
        IpAddr::V6(ip) => format!("for=\"[{ip}]\""),
    };
    if let Some(host) = host.and_then(|host| std::str::from_utf8(host).ok()) {
        // Writing to a string cannot fail.
        let _ = write!(element, ";host=\"{}\"", host.replace('\\', "\\\\").replace('"', "\\\""));
    }
    element.push_str(if https { ";proto=https" } else { ";proto=http" });
    element
}

/// Text of our own making as a field value.
fn value(bytes: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(bytes).unwrap_or_else(|_| opaque_value(bytes))
}

/// Any bytes as a field value: all but visible ASCII, and `%` itself, are percent-encoded, so that
/// the bytes can be had back.
fn opaque_value(bytes: &[u8]) -> HeaderValue {
    let mut encoded = String::with_capacity(bytes.len() * 3);
    for byte in bytes {
        if byte.is_ascii_graphic() && *byte != b'%' {
            encoded.push(char::from(*byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    HeaderValue::from_str(&encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::sync::OnceLock;

    use super::*;

    fn client(address: &str, https: bool) -> Client {
        Client {
            address: address.parse().unwrap(),
            balancer: "10.0.0.9:3321".parse().unwrap(),
            destination: "192.0.2.1:443".parse().unwrap(),
            identified: true,
            https,
            tlv_headers: vec![(UNIQUE_ID, HeaderValue::from_static("u-1"))],
            words: OnceLock::new(),
            seat: crate::limits::Seat::default(),
            stalled: crate::stall::Stalled::default(),
        }
    }

    fn config(forwarded: Forwarded, forwarded_header: bool) -> Config {
        let listen_on = "127.0.0.1:1".parse().unwrap();
        Config { forwarded, forwarded_header, ..Config::for_destination(listen_on, "localhost", 2) }
    }

    fn told(lines: &[(&str, &str)], client: &Client, config: &Config) -> Vec<String> {
        let mut request = Request::builder();
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        set(&mut request, client, "id-1", config);
        let mut lines: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn claims_of_the_client_are_replaced() {
        let lines = [
            ("host", "shop.example"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x_forwarded_for", "1.1.1.2"),
            ("X-Real-IP", "1.1.1.3"),
            ("x-forwarded-proto", "gopher"),
            ("forwarded", "for=1.1.1.4"),
            ("x-proxy-unique-id", "forged"),
            ("x-proxy-aws-vpce-id", "forged"),
            ("x_proxy_ssl-cn", "forged"),
            ("x_y", "stays"),
        ];
        assert_eq!(
            told(&lines, &client("203.0.113.7:50", true), &config(Forwarded::Set, false)),
            [
                "host: shop.example",
                "x-forwarded-for: 203.0.113.7",
                "x-forwarded-host: shop.example",
                "x-forwarded-port: 443",
                "x-forwarded-proto: https",
                "x-proxy-unique-id: u-1",
                "x-real-ip: 203.0.113.7",
                "x-request-id: id-1",
                "x_y: stays",
            ]
        );
    }

    #[test]
    fn append_keeps_what_the_trusted_proxy_said() {
        let lines = [
            ("host", "shop.example"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-real-ip", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
        ];
        let told =
            told(&lines, &client("[2001:db8::7]:50", false), &config(Forwarded::Append, true));
        assert_eq!(
            told,
            [
                "forwarded: for=\"[2001:db8::7]\";host=\"shop.example\";proto=http",
                "host: shop.example",
                "x-forwarded-for: 1.1.1.1, 2.2.2.2, 2001:db8::7",
                "x-forwarded-host: shop.example",
                "x-forwarded-port: 443",
                "x-forwarded-proto: https",
                "x-proxy-unique-id: u-1",
                "x-real-ip: 1.1.1.1",
                "x-request-id: id-1",
            ]
        );
    }

    #[test]
    fn request_id_is_the_clients_if_it_is_fit_and_new_otherwise() {
        let ids = RequestIds::new();
        let of = |id: &str| {
            let value = HeaderValue::from_str(id).unwrap();
            request_id(&HeaderMap::from_iter([(REQUEST_ID, value)]), &ids)
        };
        assert_eq!(of("abc-1"), "abc-1");
        let (long, space) = (of(&"x".repeat(129)), of("a b"));
        assert_eq!((long.len(), space.len()), (32, 32));
        assert_ne!(long, space);
        assert_eq!(request_id(&HeaderMap::new(), &ids).len(), 32);
    }

    #[test]
    fn bytes_that_no_field_may_hold_are_percent_encoded() {
        assert_eq!(opaque_value(b"a\n%\x00 b").to_str().unwrap(), "a%0A%25%00%20b");
        assert_eq!(opaque_value(b"a%0A").to_str().unwrap(), "a%250A");
    }
}
