//! What the upstream is told about a client, written as it gets it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::config::routing::HeadChanges;
use crate::http::head::{HeadLimits, Reader};
use crate::http::hop::ConnectionOptions;
use crate::http::write::{Onward, request};

fn client(address: &str, https: bool) -> Client {
    let mut client = Client::new(
        address.parse().unwrap(),
        "10.0.0.9:3321".parse().unwrap(),
        "192.0.2.1:443".parse().unwrap(),
    );
    client.https = https;
    client.tlv_headers = vec![(TlvHeader::UniqueId, UNIQUE_ID, String::from("u-1"))];
    client
}

fn config(forwarded: Forwarded, forwarded_header: bool) -> Config {
    let listen_on = "127.0.0.1:1".parse().unwrap();
    let proxy_tlv_headers = vec![TlvHeader::UniqueId];
    Config {
        proxy_tlv_headers,
        forwarded,
        forwarded_header,
        ..Config::for_destination(listen_on, "localhost", 2)
    }
}

/// The fields that the upstream gets of a request with these, sorted.
fn fields_for_upstream(lines: &[(&str, &str)], client: &Client, config: &Config) -> Vec<String> {
    let mut head = String::from("GET / HTTP/1.1\r\n");
    for (name, value) in lines {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    head.push_str("\r\n");
    let limits = HeadLimits::DEFAULT;
    let mut reader = Reader::default();
    let (head, _) = reader.request(head.as_bytes(), &limits).unwrap().unwrap();
    let mut out = Vec::new();
    let request_id = &RequestId::from("id-1");
    let changes = &HeadChanges::default();
    let onward = Onward { client, request_id, config, changes, offer: None, begun: None };
    request(&mut out, &head, &ConnectionOptions::of(&head.fields), &onward);
    let text = String::from_utf8(out).unwrap();
    let mut lines: Vec<_> = text.trim_end().lines().skip(1).map(str::to_owned).collect();
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
        fields_for_upstream(
            &lines,
            &client("203.0.113.7:50", true),
            &config(Forwarded::Set, false)
        ),
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
    assert_eq!(
        fields_for_upstream(
            &lines,
            &client("[2001:db8::7]:50", false),
            &config(Forwarded::Append, true)
        ),
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
fn bytes_that_no_field_may_hold_are_percent_encoded() {
    assert_eq!(printable(b"a\n%\x00 b"), "a%0A%25%00%20b");
    assert_eq!(printable(b"a%0A"), "a%250A");
}
