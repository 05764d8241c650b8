//! What passes between client and upstream besides bodies: request and status line, fields, and what
//! elbows says about the client.

use std::io::Write;

use elbows::proxy_protocol::encode;

use crate::client::{Client, Response, field};
use crate::proxy::Elbows;
use crate::upstream::{Upstream, read_head};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What the upstream sees of `request`, sent by a client behind the balancer.
fn seen(request: &str, settings: &[(&str, &str)]) -> String {
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, settings);
    let mut client = Client::behind_balancer(elbows.address);
    client.send(request);
    assert_eq!(client.read_response().status, 200);
    upstream.seen()
}

/// What the client sees of `response`.
fn passed_back(response: &[u8]) -> Response {
    let upstream = Upstream::answering(response);
    let elbows = Elbows::start(upstream.address, &[]);
    Client::behind_balancer(elbows.address).get("/")
}

/// Every value of a field, in order.
fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .collect()
}

#[test]
fn forwarded_headers_are_set_and_claims_of_the_client_are_gone() {
    let head = seen(
        "GET / HTTP/1.1\r\nHost: Shop.Example:8080\r\nX-Forwarded-For: 1.1.1.1\r\n\
         X-Forwarded-For: 1.1.1.2\r\nX-Real-IP: 1.1.1.3\r\nX-Forwarded-Proto: gopher\r\n\
         X-Forwarded-Port: 1\r\nX-Forwarded-Host: evil.example\r\nForwarded: for=1.1.1.4\r\n\r\n",
        &[],
    );
    for (name, told) in [
        ("x-forwarded-for", "203.0.113.7"),
        ("x-real-ip", "203.0.113.7"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-port", "80"),
        ("x-forwarded-host", "Shop.Example:8080"),
        ("host", "Shop.Example:8080"),
    ] {
        assert_eq!(values(&head, name), [told], "{name} in {head}");
    }
    assert_eq!(field(&head, "forwarded"), None);
}

#[test]
fn forwarded_headers_are_appended_on_request() {
    let head = seen(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 1.1.1.2\r\n\
         X-Forwarded-Proto: https\r\nForwarded: for=1.1.1.4\r\n\r\n",
        &[("FORWARDED", "append"), ("FORWARDED_HEADER", "on"), ("TRUSTED_PROXIES", "127.0.0.0/8")],
    );
    assert_eq!(values(&head, "x-forwarded-for"), ["1.1.1.1, 1.1.1.2, 203.0.113.7"]);
    assert_eq!(values(&head, "x-forwarded-proto"), ["https"]);
    assert_eq!(values(&head, "forwarded"), ["for=1.1.1.4, for=203.0.113.7;host=\"a\";proto=http"]);
}

#[test]
fn tlvs_become_headers_and_forged_ones_never_pass() {
    let upstream = Upstream::answering(OK);
    let elbows =
        Elbows::start(upstream.address, &[("PROXY_TLV_HEADERS", "unique-id,aws-vpce-id,alpn")]);
    let source = "203.0.113.9:4000".parse().unwrap();
    let destination = "192.0.2.1:443".parse().unwrap();
    let mut client = Client::plain(elbows.address);
    let tlvs: [(u8, &[u8]); 3] =
        [(0x05, b"id\n7"), (0xEA, b"\x01vpce-08d2bf15fac5001c9"), (0x02, b"not.wanted")];
    client.send(encode::v2(source, destination, &tlvs, true));
    for _ in 0..2 {
        client.send(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Proxy-Unique-Id: forged\r\nX_Proxy_Unique_Id: forged\r\n\
             X-Proxy-Alpn: forged\r\nX-Proxy-Authority: forged\r\nx-proxy-ssl-cn: forged\r\n\r\n",
        );
        assert_eq!(client.read_response().status, 200);
        let head = upstream.seen();
        assert_eq!(values(&head, "x-proxy-unique-id"), ["id%0A7"], "{head}");
        assert_eq!(values(&head, "x-proxy-aws-vpce-id"), ["vpce-08d2bf15fac5001c9"]);
        assert_eq!(values(&head, "x-forwarded-proto"), ["https"]);
        assert!(!head.contains("forged") && !head.contains("not.wanted"), "{head}");
    }
}

#[test]
fn hop_by_hop_headers_of_a_request_do_not_pass() {
    let head = seen(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Secret,, x-other \r\n\
         Connection: X-Third\r\nX-Secret: 1\r\nX-Other: 1\r\nX-Third: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: websocket\r\nHTTP2-Settings: x\r\n\
         Proxy-Authorization: Basic x\r\nX-Stays: 1\r\n\r\n",
        &[],
    );
    for name in [
        "connection",
        "x-secret",
        "x-other",
        "x-third",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "http2-settings",
        "proxy-authorization",
    ] {
        assert_eq!(field(&head, name), None, "{name} in {head}");
    }
    assert_eq!(field(&head, "x-stays"), Some("1"));
}

#[test]
fn hop_by_hop_headers_of_a_response_do_not_pass() {
    let response = passed_back(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\n\
          Keep-Alive: timeout=5\r\nProxy-Connection: close\r\nUpgrade: h2c\r\n\
          Proxy-Authenticate: Basic\r\nX-Stays: 1\r\n\r\nok",
    );
    for name in [
        "connection",
        "x-secret",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "proxy-authenticate",
    ] {
        assert_eq!(response.field(name), None, "{name} in {}", response.head);
    }
    assert_eq!(response.field("x-stays"), Some("1"));
}

#[test]
fn request_id_is_made_where_absent_and_kept_where_fit() {
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, &[]);
    let mut client = Client::behind_balancer(elbows.address);
    client.get("/made");
    let made = field(&upstream.seen(), "x-request-id").expect("it is made").to_owned();
    assert!(elbows.access_log.wait_for("/made").contains(&made));

    client.send("GET /kept HTTP/1.1\r\nHost: a\r\nX-Request-Id: kept-1\r\n\r\n");
    client.read_response();
    assert_eq!(values(&upstream.seen(), "x-request-id"), ["kept-1"]);
    assert!(elbows.access_log.wait_for("/kept").contains("request_id=kept-1"));
}

#[test]
fn host_passes_byte_for_byte() {
    for host in ["ShOp.ExAmPlE:80", "[2001:DB8::1]:8080", "shop_1.example", ""] {
        let head = seen(&format!("GET / HTTP/1.1\r\nhOsT: {host}\r\n\r\n"), &[]);
        assert_eq!(values(&head, "host"), [host]);
        assert!(head.contains("hOsT:"), "{head}");
    }
}

#[test]
fn absolute_target_becomes_origin_form_and_its_authority_the_host() {
    let head = seen("GET http://Shop.Example:81/a%2Fb?c HTTP/1.1\r\nHost: other\r\n\r\n", &[]);
    assert!(head.starts_with("GET /a%2Fb?c HTTP/1.1\r\n"), "{head}");
    assert_eq!(values(&head, "host"), ["Shop.Example:81"]);
    let head = seen("GET http://shop.example?q HTTP/1.1\r\nHost: shop.example\r\n\r\n", &[]);
    assert!(head.starts_with("GET /?q HTTP/1.1\r\n"), "{head}");
}

#[test]
fn asterisk_passes_for_options() {
    let head = seen("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", &[]);
    assert!(head.starts_with("OPTIONS * HTTP/1.1\r\n"), "{head}");
}

#[test]
fn options_of_an_absolute_target_without_a_path_is_an_asterisk() {
    // RFC 9112, section 3.2.4.
    let offer = "Connection: Upgrade\r\nUpgrade: foo\r\n";
    for fields in ["", offer] {
        let options = |target| {
            seen(&format!("OPTIONS {target} HTTP/1.1\r\nHost: other\r\n{fields}\r\n"), &[])
        };
        let head = options("http://a.example:8001");
        assert!(head.starts_with("OPTIONS * HTTP/1.1\r\n"), "{head}");
        assert_eq!(values(&head, "host"), ["a.example:8001"]);
        for (target, path) in [("http://a.example:8001/", "/"), ("http://a.example:8001?q", "/?q")]
        {
            let head = options(target);
            assert!(head.starts_with(&format!("OPTIONS {path} HTTP/1.1\r\n")), "{head}");
        }
    }
}

#[test]
fn http_1_0_request_without_host_gets_an_empty_one() {
    // HTTP/1.1 towards the upstream demands one (RFC 9112, section 3.2).
    let head = seen("GET /old HTTP/1.0\r\n\r\n", &[]);
    assert!(head.starts_with("GET /old HTTP/1.1\r\n"), "{head}");
    assert_eq!(values(&head, "host"), [""]);
}

#[test]
fn names_keep_their_case_and_repeated_fields_their_order() {
    let head = seen(
        "GET / HTTP/1.1\r\nHost: a\r\nX-CamelCase: 1\r\nx-lower: 1\r\nCookie: b=1\r\nAccept: x\r\n\
         COOKIE: a=2\r\nCookie: c=3\r\n\r\n",
        &[],
    );
    assert!(
        head.contains("\r\nX-CamelCase: 1\r\n") && head.contains("\r\nx-lower: 1\r\n"),
        "{head}"
    );
    assert_eq!(values(&head, "cookie"), ["b=1", "a=2", "c=3"]);
    assert!(head.contains("\r\nCOOKIE: a=2\r\n"), "{head}");

    let response = passed_back(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: z=1; Path=/\r\nX-CamelCase: 1\r\nContent-Length: 0\r\n\
          set-cookie: a=2\r\nSET-COOKIE: m=3\r\n\r\n",
    );
    assert_eq!(values(&response.head, "set-cookie"), ["z=1; Path=/", "a=2", "m=3"]);
    assert!(response.head.contains("\r\nX-CamelCase: 1\r\n"), "{}", response.head);
}

#[test]
fn bytes_beyond_ascii_pass_in_values() {
    let upstream = Upstream::start(|mut socket| {
        let head = read_head(&mut socket);
        socket
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Back: \xe4\xff\r\n\r\n")
            .unwrap();
        head
    });
    let elbows = Elbows::start(upstream.address, &[]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Name: J\u{fc}rgen\r\nX-Tab: a\tb\r\n\r\n");
    let raw = client.read_until(b"\r\n\r\n");
    assert!(raw.windows(10).any(|bytes| bytes == b"X-Back: \xe4\xff"), "{raw:?}");
    let head = upstream.seen();
    assert_eq!(field(&head, "x-name"), Some("J\u{fc}rgen"));
    assert_eq!(field(&head, "x-tab"), Some("a\tb"));
}

#[test]
fn unusual_methods_pass() {
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, &[]);
    for method in ["PROPFIND", "M-SEARCH", "get", "QUERY", "A!#$%&'*+-.^_`|~1", "TRACE", "DELETE"] {
        let mut client = Client::behind_balancer(elbows.address);
        client.send(format!("{method} /m HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.read_response().status, 200);
        let head = upstream.seen();
        assert!(head.starts_with(&format!("{method} /m HTTP/1.1\r\n")), "{head}");
    }
}

#[test]
fn unusual_status_codes_and_reason_phrases_pass() {
    for line in
        ["200 All is well", "299 ", "599 Odd", "418 I'm a teapot", "404 Nicht da", "999 Beyond"]
    {
        let response =
            passed_back(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").as_bytes());
        assert!(response.head.starts_with(&format!("HTTP/1.1 {line}\r\n")), "{}", response.head);
    }
}

#[test]
fn interim_responses_pass_and_do_not_break_the_final_one() {
    const RESPONSES: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
          HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let upstream = Upstream::answering(RESPONSES);
    let elbows = Elbows::start(upstream.address, &[]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let early = client.read_head();
    assert_eq!(early.status, 103);
    assert_eq!(early.field("link"), Some("</a.css>; rel=preload"));
    assert_eq!(client.read_head().status, 102);
    let response = client.read_response();
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    assert_eq!(response.field("link"), None);
    // HTTP/1.0 knows of none (RFC 9110, section 15.2).
    let mut old = Client::behind_balancer(elbows.address);
    old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(old.read_response().status, 200);
}

#[test]
fn date_and_server_of_the_upstream_pass() {
    let response = passed_back(
        b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: app\r\n\
          Content-Length: 0\r\n\r\n",
    );
    assert_eq!(values(&response.head, "date"), ["Sun, 06 Nov 1994 08:49:37 GMT"]);
    assert_eq!(values(&response.head, "server"), ["app"]);
}

#[test]
fn trace_that_goes_no_further_is_shown_as_it_came_without_secrets() {
    let upstream = Upstream::answering(b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n");
    let elbows = Elbows::start(upstream.address, &[("PROXY_TLV_HEADERS", "all")]);
    let mut client = Client::behind_balancer(elbows.address);
    for _ in 0..2 {
        client.send(
            "TRACE /a?b HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nX: \t1 2\r\nCookie: secret=1\r\n\
             Authorization: Basic secret\r\nProxy-Authorization: Basic secret\r\n\r\n",
        );
        let response = client.read_response();
        assert_eq!(response.status, 200);
        assert_eq!(response.field("content-type"), Some("message/http"));
        assert_eq!(
            response.text(),
            "TRACE /a?b HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nX: 1 2\r\n\r\n"
        );
    }
    client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n");
    let response = client.read_response();
    assert_eq!((response.status, response.text().as_str()), (200, ""));
    assert!(upstream.saw_nothing());
    let line = elbows.access_log.wait_for("OPTIONS * HTTP/1.1");
    assert!(line.contains("status=200"), "{line}");
    assert!(line.contains("by=elbows during=request why=complete"), "{line}");
}

byte_by_byte!({
    forwarded_headers_are_set_and_claims_of_the_client_are_gone,
    forwarded_headers_are_appended_on_request,
    tlvs_become_headers_and_forged_ones_never_pass,
    hop_by_hop_headers_of_a_request_do_not_pass,
    hop_by_hop_headers_of_a_response_do_not_pass,
    request_id_is_made_where_absent_and_kept_where_fit,
    host_passes_byte_for_byte,
    absolute_target_becomes_origin_form_and_its_authority_the_host,
    asterisk_passes_for_options,
    options_of_an_absolute_target_without_a_path_is_an_asterisk,
    http_1_0_request_without_host_gets_an_empty_one,
    names_keep_their_case_and_repeated_fields_their_order,
    bytes_beyond_ascii_pass_in_values,
    unusual_methods_pass,
    unusual_status_codes_and_reason_phrases_pass,
    interim_responses_pass_and_do_not_break_the_final_one,
    date_and_server_of_the_upstream_pass,
    trace_that_goes_no_further_is_shown_as_it_came_without_secrets,
} not {});
