//! What the upstream is told about the client: forwarded headers, TLV headers, the request's id.
//!
//! Set, not appended, by default: nothing in front of a layer-4 balancer can be believed. Whatever
//! the client sent under these names, in any spelling that a CGI-like application would read as
//! the same, is removed first.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::head::Field;
use super::request_id::{REQUEST_ID, RequestId};
use super::write::{self, line};
use crate::client::Client;
use crate::config::{Config, Forwarded, TlvHeader};
use crate::proxy_protocol::Tlvs;

const FOR: &str = "x-forwarded-for";
const PROTO: &str = "x-forwarded-proto";
const PORT: &str = "x-forwarded-port";
const HOST: &str = "x-forwarded-host";
const REAL_IP: &str = "x-real-ip";
const FORWARDED: &str = "forwarded";

/// No field at all, but `HTTP_PROXY` in a CGI program's environment (CVE-2016-5385): never passed.
const PROXY: &str = "proxy";

const ALPN: &str = "x-proxy-alpn";
const AUTHORITY: &str = "x-proxy-authority";
const UNIQUE_ID: &str = "x-proxy-unique-id";
const SSL_VERSION: &str = "x-proxy-ssl-version";
const SSL_CN: &str = "x-proxy-ssl-cn";
const SSL_CIPHER: &str = "x-proxy-ssl-cipher";
const AWS_VPC_ID: &str = "x-proxy-aws-vpce-id";
const AZURE_LINK_ID: &str = "x-proxy-azure-link-id";
const GCP_PSC_ID: &str = "x-proxy-gcp-psc-id";

/// TLV headers: always removed, since only a PROXY header can say these things.
const TLVS: [&str; 9] = [
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

/// What is said of a request beside its client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words<'a> {
    pub(crate) host: Option<&'a [u8]>,
    pub(crate) request_id: &'a RequestId,
}

/// The values of all lines of this name, in their order.
fn values<'a>(fields: &'a [Field<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let is_it = move |field: &&Field<'_>| field.name.eq_ignore_ascii_case(name.as_bytes());
    fields.iter().filter(is_it).map(|field| field.value)
}

/// Writes each field that says who the client is. `fields` are the client's own, and [`is_replaced`]
/// says which of them must not pass beside these.
pub(super) fn write(
    out: &mut Vec<u8>,
    fields: &[Field<'_>],
    words: &Words<'_>,
    client: &Client,
    config: &Config,
) {
    let append = config.forwarded == Forwarded::Append;
    // An element of a list field goes behind what all its lines say.
    let add = |out: &mut Vec<u8>, name: &str, element: &[u8]| {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        if append {
            for said in values(fields, name) {
                out.extend_from_slice(said);
                out.extend_from_slice(b", ");
            }
        }
        out.extend_from_slice(element);
        out.extend_from_slice(b"\r\n");
    };
    let is_said = |name: &str| append && values(fields, name).next().is_some();

    let ip = client.ip.as_bytes();
    if config.forwarded_header {
        let element = forwarded_element(client.address.ip(), client.https, words.host);
        add(out, FORWARDED, element.as_bytes());
    }
    add(out, FOR, ip);
    if !is_said(REAL_IP) {
        line(out, REAL_IP.as_bytes(), ip);
    }
    if !is_said(PROTO) {
        line(out, PROTO.as_bytes(), if client.https { b"https" } else { b"http" });
    }
    if !is_said(PORT) {
        out.extend_from_slice(PORT.as_bytes());
        out.extend_from_slice(b": ");
        write::number(out, client.destination.port().into());
        out.extend_from_slice(b"\r\n");
    }
    if let Some(host) = words.host
        && !is_said(HOST)
    {
        line(out, HOST.as_bytes(), host);
    }
    for (tlv, name, value) in &client.tlv_headers {
        if config.proxy_tlv_headers.contains(tlv) {
            line(out, name.as_bytes(), value.as_bytes());
        }
    }
    words.request_id.write(|id| line(out, REQUEST_ID, id));
}

/// Whether the client's own connection is TLS, as far as [`write`] tells the upstream so.
pub(super) fn https(fields: &[Field<'_>], client: &Client, config: &Config) -> bool {
    let said =
        if config.forwarded == Forwarded::Append { values(fields, PROTO).next() } else { None };
    said.map_or(client.https, |said| said.eq_ignore_ascii_case(b"https"))
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
            let is = |ours: &str| name.eq_ignore_ascii_case(ours.as_bytes());
            is(FOR) || config.forwarded_header && is(FORWARDED)
        }
    }
}

/// Whether only elbows may say a field of this name, in any spelling.
pub(super) fn is_ours_to_say(name: &[u8]) -> bool {
    Ours::of(name).is_some()
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
        let is = |ours: &str| ours.as_bytes() == plain;
        // Whatever follows: applications know more of these than anybody has listed.
        let ours = if plain.starts_with(b"x-forwarded-") || is(REAL_IP) || is(FORWARDED) {
            Self::Claim
        } else if REQUEST_ID == plain {
            Self::Id
        } else if is(PROXY) || plain.starts_with(b"x-proxy-") && TLVS.iter().any(|ours| is(ours)) {
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
pub(crate) fn tlv_headers(
    tlvs: &Tlvs,
    wanted: &[TlvHeader],
) -> Vec<(TlvHeader, &'static str, String)> {
    let mut headers = Vec::new();
    for tlv in wanted {
        let mut add = |name, bytes: Option<&[u8]>| {
            if let Some(bytes) = bytes {
                headers.push((*tlv, name, printable(bytes)));
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

/// Any bytes as a field value: all but visible ASCII, and `%` itself, are percent-encoded, so that
/// the bytes can be had back.
fn printable(bytes: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len() * 3);
    for byte in bytes {
        if byte.is_ascii_graphic() && *byte != b'%' {
            encoded.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
