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

use crate::client::Client;
use crate::config::{Config, Forwarded, TlvHeader};
use crate::proxy_protocol::Tlvs;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Forwarded headers: replaced, or kept and added to, as `FORWARDED` says.
const CLAIMS: [HeaderName; 6] = [FOR, PROTO, FORWARDED_PORT, FORWARDED_HOST, REAL_IP, FORWARDED];

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

/// The longest request id that is taken over from a client.
const LONGEST_REQUEST_ID: usize = 128;

/// Says who the client is.
pub(super) fn set<B>(request: &mut Request<B>, client: &Client, request_id: &str, config: &Config) {
    let headers = request.headers_mut();
    let append = config.forwarded == Forwarded::Append;
    remove_other_spellings(headers);
    for name in TLVS.iter().chain([&PROXY]) {
        headers.remove(name);
    }
    if !append {
        for name in &CLAIMS {
            headers.remove(name);
        }
    }

    let address = client.address.ip();
    let proto = HeaderValue::from_static(if client.https { "https" } else { "http" });
    let ip = value(address.to_string().as_bytes());
    let host = headers.get(HOST).cloned();
    if config.forwarded_header {
        let element = forwarded_element(address, &proto, host.as_ref());
        add(headers, FORWARDED, &element);
    }
    add(headers, FOR, &ip);
    if !append || !headers.contains_key(REAL_IP) {
        headers.insert(REAL_IP, ip);
    }
    if !append || !headers.contains_key(PROTO) {
        headers.insert(PROTO, proto);
    }
    if !append || !headers.contains_key(FORWARDED_PORT) {
        headers.insert(FORWARDED_PORT, HeaderValue::from(client.destination.port()));
    }
    if let Some(host) = host
        && (!append || !headers.contains_key(FORWARDED_HOST))
    {
        headers.insert(FORWARDED_HOST, host);
    }
    for (name, value) in &client.tlv_headers {
        headers.insert(name, value.clone());
    }
    headers.insert(REQUEST_ID, value(request_id.as_bytes()));
}

/// Removes from a request's trailers what only we may say, in any spelling.
///
/// An upstream may merge trailers into the fields of the head (RFC 9110, section 6.5.2), so they are
/// cleaned as those are.
pub(super) fn clean_trailers(trailers: &mut HeaderMap) {
    remove_other_spellings(trailers);
    for name in CLAIMS.iter().chain(&TLVS).chain([&REQUEST_ID, &PROXY]) {
        trailers.remove(name);
    }
}

/// Whether it is a field that says who the client is.
pub(super) fn is_claim(name: &HeaderName) -> bool {
    CLAIMS.contains(name) || name == REQUEST_ID
}

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
        format!("{:016x}{:016x}", self.process, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// The client's request id, where it is fit for a log, or a new one.
pub(super) fn request_id(headers: &HeaderMap, ids: &RequestIds) -> String {
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| (1..=LONGEST_REQUEST_ID).contains(&id.len()))
        .filter(|id| id.bytes().all(|byte| byte.is_ascii_graphic()))
        .map_or_else(|| ids.next(), str::to_owned)
}

/// Adds an element to a list field, after what all its lines say.
fn add(headers: &mut HeaderMap, name: HeaderName, element: &HeaderValue) {
    let mut list = Vec::new();
    for line in headers.get_all(&name) {
        list.extend_from_slice(line.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(element.as_bytes());
    headers.insert(name, value(&list));
}

/// RFC 7239, section 4: IPv6 and anything that is no token is quoted.
fn forwarded_element(
    address: IpAddr,
    proto: &HeaderValue,
    host: Option<&HeaderValue>,
) -> HeaderValue {
    let mut element = match address {
        IpAddr::V4(ip) => format!("for={ip}"),
        IpAddr::V6(ip) => format!("for=\"[{ip}]\""),
    };
    if let Some(host) = host.and_then(|host| host.to_str().ok()) {
        // Writing to a string cannot fail.
        let _ = write!(element, ";host=\"{}\"", host.replace('\\', "\\\\").replace('"', "\\\""));
    }
    if let Ok(proto) = proto.to_str() {
        let _ = write!(element, ";proto={proto}");
    }
    value(element.as_bytes())
}

/// `X_Forwarded_For` and its like: servers that hand fields on as CGI variables (RFC 3875, section
/// 4.1.18) read `_` and `-` as the same.
fn remove_other_spellings(headers: &mut HeaderMap) {
    let others: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().contains('_'))
        .filter(|name| {
            let plain = name.as_str().replace('_', "-");
            CLAIMS.iter().chain(&TLVS).chain([&REQUEST_ID]).any(|ours| ours.as_str() == plain)
        })
        .cloned()
        .collect();
    for name in others {
        headers.remove(name);
    }
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

    use super::*;

    fn client(address: &str, https: bool) -> Client {
        Client {
            address: address.parse().unwrap(),
            balancer: "10.0.0.9:3321".parse().unwrap(),
            destination: "192.0.2.1:443".parse().unwrap(),
            identified: true,
            https,
            tlv_headers: vec![(UNIQUE_ID, HeaderValue::from_static("u-1"))],
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
            let headers = [(REQUEST_ID, HeaderValue::from_str(id).unwrap())].into_iter().collect();
            request_id(&headers, &ids)
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
