//! Who is believed to be the client: PROXY headers from outside, whole, split, wrong and missing.
//!
//! The parser has tests of its own. Here is what a connection makes of its answers: whose address
//! arrives, what closes, what is counted, and what the application never hears of.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use elbows::proxy_protocol::encode;
use socket2::SockRef;

use crate::client::{CLIENT, Client, PROXY_V1, field, handshake};
use crate::proxy::Elbows;
use crate::upstream::Upstream;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const LOOPBACK: &str = "127.0.0.1";

/// Trust in the test's own address, which `optional` demands.
const TRUSTED: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.0/8");

/// NLB's TCP health check as captured: LOCAL with family INET, no addresses, a `CRC32c` TLV and a NOOP.
fn nlb_health_check() -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([0x20, 0x11, 0x00, 0x54, 0x03, 0x00, 0x04, 0xbc, 0xe5, 0x95, 0x1f]);
    bytes.extend([0x04, 0x00, 0x4a]);
    bytes.extend([0; 74]);
    bytes
}

/// A version 2 header of anything.
fn raw_v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, block].concat()
}

fn inet_v2(tlvs: &[(u8, &[u8])], crc32c: bool) -> Vec<u8> {
    let source = SocketAddr::new(CLIENT.parse().unwrap(), 51234);
    encode::v2(source, "192.0.2.1:80".parse().unwrap(), tlvs, crc32c)
}

/// Every kind of header, and the client that it speaks for.
fn headers() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let six = "[2001:db8::7]:51234".parse().unwrap();
    let at = "[2001:db8::1]:80".parse().unwrap();
    vec![
        ("v1 TCP4", PROXY_V1.to_vec(), CLIENT),
        ("v1 TCP6", encode::v1(six, at).into_bytes(), "2001:db8::7"),
        ("v1 UNKNOWN", b"PROXY UNKNOWN\r\n".to_vec(), LOOPBACK),
        ("v1 UNKNOWN with words", b"PROXY UNKNOWN ffff::1 ::2 1 2\r\n".to_vec(), LOOPBACK),
        ("v1 mapped", b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n".to_vec(), CLIENT),
        ("v2 INET", inet_v2(&[], false), CLIENT),
        ("v2 INET with TLVs", inet_v2(&[(2, b"a.example"), (4, &[0; 9])], true), CLIENT),
        ("v2 INET6", encode::v2(six, at, &[], true), "2001:db8::7"),
        ("v2 LOCAL", encode::v2_local(), LOOPBACK),
        ("v2 LOCAL of NLB", nlb_health_check(), LOOPBACK),
        ("v2 UNSPEC", raw_v2(0x21, 0x00, b"anything"), LOOPBACK),
        ("v2 UNIX", raw_v2(0x21, 0x31, &[b'/'; 216]), LOOPBACK),
    ]
}

/// Headers that break a rule, and the rule.
fn bad_headers() -> Vec<(Vec<u8>, &'static str)> {
    let inet = [203, 0, 113, 7, 192, 0, 2, 1, 1, 1, 0, 80];
    let with = |tlvs: &[u8]| raw_v2(0x21, 0x11, &[&inet, tlvs].concat());
    let mut wrong_sum = inet_v2(&[], true);
    *wrong_sum.last_mut().unwrap() ^= 1;
    vec![
        (b"PROXY TCP5 ".to_vec(), "v1_protocol"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n".to_vec(), "v1_line_end"),
        ([b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100]].concat(), "v1_too_long"),
        (b"PROXY TCP4 1.2.3.4\r\n".to_vec(), "v1_fields"),
        (b"PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n".to_vec(), "v1_address"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n".to_vec(), "v1_port"),
        ([SIGNATURE, &[0x11]].concat(), "v2_version"),
        ([SIGNATURE, &[0x22]].concat(), "v2_command"),
        ([SIGNATURE, &[0x21, 0x41]].concat(), "v2_family"),
        ([SIGNATURE, &[0x21, 0x13]].concat(), "v2_transport"),
        ([SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat(), "v2_too_long"),
        ([SIGNATURE, &[0x21, 0x11, 0, 11]].concat(), "v2_address_block"),
        (with(&[4, 0, 9, 0]), "tlv_overrun"),
        (with(&[2, 0, 1, b'a', 2, 0, 1, b'b']), "tlv_repeated"),
        (with(&[3, 0, 1, 0]), "crc32c_length"),
        (wrong_sum, "crc32c_mismatch"),
        (with(&[&[5, 0, 129], [b'u'; 129].as_slice()].concat()), "unique_id_too_long"),
        (with(&[0x20, 0, 1, 1]), "ssl_too_short"),
    ]
}

/// elbows ends the connection and says nothing.
fn closes_without_a_byte(client: &mut Client, what: &str) {
    let mut buffer = [0; 100];
    match client.socket.read(&mut buffer) {
        Ok(0) => {}
        // What was not read of it resets the connection.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        other => panic!("{what}: {other:?} {:?}", String::from_utf8_lossy(&buffer)),
    }
}

/// Closes with a reset.
fn reset(socket: TcpStream) {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
}

/// An application that must not be spoken to.
struct Untouched(TcpListener);

impl Untouched {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    fn heard_nothing(&self) -> bool {
        self.0.accept().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

#[test]
fn header_is_read_however_it_is_split() {
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, &[]);
    for (name, header, source) in headers() {
        let glued = [&header, REQUEST].concat();
        let mut byte_by_byte = Client::plain(elbows.address);
        for byte in &glued {
            byte_by_byte.send([*byte]);
        }
        assert_eq!(byte_by_byte.read_response().status, 200, "{name}, byte by byte");
        assert_eq!(field(&upstream.seen(), "x-forwarded-for"), Some(source), "{name}");
        for at in 0..=header.len() {
            let mut client = Client::plain(elbows.address);
            let (first, second) = glued.split_at(at);
            client.send(first);
            client.send(second);
            assert_eq!(client.read_response().status, 200, "{name}, split at {at}");
            assert_eq!(field(&upstream.seen(), "x-forwarded-for"), Some(source), "{name}, {at}");
        }
    }
}

#[test]
fn optional_takes_a_header_or_the_socket() {
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, &[("PROXY_PROTOCOL", "optional"), TRUSTED]);
    let without = ("none", Vec::new(), LOOPBACK);
    for (name, header, source) in headers().into_iter().chain([without]) {
        let mut client = Client::plain(elbows.address);
        client.send([&header, REQUEST].concat());
        assert_eq!(client.read_response().status, 200, "{name}");
        assert_eq!(field(&upstream.seen(), "x-forwarded-for"), Some(source), "{name}");
    }
}

#[test]
fn optional_and_required_refuse_a_bad_header_alike() {
    let upstream = Untouched::new();
    let elbows = Elbows::start(upstream.address(), &[("PROXY_PROTOCOL", "optional"), TRUSTED]);
    for (header, rule) in bad_headers() {
        let mut client = Client::plain(elbows.address);
        client.send(&header);
        closes_without_a_byte(&mut client, rule);
    }
    assert!(upstream.heard_nothing());
}

#[test]
fn off_makes_every_header_content() {
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, &[("PROXY_PROTOCOL", "off")]);
    header_is_content(&elbows, &upstream);
    assert_eq!(Client::plain(elbows.address).get("/").status, 200);
    assert_eq!(field(&upstream.seen(), "x-forwarded-for"), Some(LOOPBACK));
}

#[test]
fn untrusted_header_is_content() {
    let upstream = Upstream::answering(OK);
    let untrusted = ("TRUSTED_PROXIES", "192.0.2.0/24,2001:db8::/32");
    let elbows = Elbows::start(upstream.address, &[untrusted, ("PROXY_PROTOCOL", "optional")]);
    header_is_content(&elbows, &upstream);
    assert_eq!(Client::plain(elbows.address).get("/").status, 200);
    assert_eq!(field(&upstream.seen(), "x-forwarded-for"), Some(LOOPBACK));

    let elbows = Elbows::start(upstream.address, &[untrusted]);
    header_is_content(&elbows, &upstream);
    assert_eq!(Client::plain(elbows.address).get("/").status, 400);
    assert_eq!(Client::plain(elbows.address).get("/ping").status, 200);
    assert!(upstream.saw_nothing());
}

/// A header is the beginning of a bad request.
fn header_is_content(elbows: &Elbows, upstream: &Upstream) {
    for (name, header, _) in headers() {
        let mut client = Client::plain(elbows.address);
        client.send([&header, REQUEST].concat());
        assert_eq!(client.read_head().status, 400, "{name}");
    }
    assert!(upstream.saw_nothing());
}

#[test]
fn second_header_is_content() {
    let upstream = Untouched::new();
    let elbows = Elbows::start(upstream.address(), &[]);
    for first in [PROXY_V1.to_vec(), inet_v2(&[], true)] {
        for (name, second, _) in headers() {
            let mut client = Client::plain(elbows.address);
            client.send([&first, second.as_slice(), REQUEST].concat());
            assert_eq!(client.read_head().status, 400, "{name}");
        }
    }
    assert!(upstream.heard_nothing());
}

#[test]
fn bad_header_closes_without_a_byte_and_is_counted_by_rule() {
    let upstream = Untouched::new();
    let elbows = Elbows::start(upstream.address(), &[]);
    let rules: Vec<_> = bad_headers().iter().map(|(_, rule)| *rule).collect();
    let all: Vec<_> =
        elbows::proxy_protocol::Fault::ALL.iter().map(|fault| fault.as_str()).collect();
    assert_eq!(rules, all, "every rule has its header here");
    for (header, rule) in bad_headers() {
        let mut client = Client::plain(elbows.address);
        client.send(&header);
        closes_without_a_byte(&mut client, rule);
        let line = elbows.log.wait_for(&format!("rule=\"{rule}\""));
        assert!(line.contains("DEBUG") && line.contains("balancer=127.0.0.1:"), "{line}");
    }
    let counted = rules.iter().map(|rule| format!("{rule}:1")).collect::<Vec<_>>().join(",");
    elbows.wait_for_report(&format!("proxy_faults={counted}"));
    assert!(upstream.heard_nothing());
    assert_eq!(elbows.access_log.all(), Vec::<String>::new());
}

#[test]
fn probe_leaves_no_line_and_is_counted() {
    let upstream = Upstream::answering(OK);
    for settings in [[("PROXY_PROTOCOL", "required")], [("PROXY_PROTOCOL", "off")]] {
        let elbows = Elbows::start(upstream.address, &settings);
        // Waiting for the listener was one as well.
        elbows.wait_for_report("probes=1");
        for _ in 0..3 {
            drop(TcpStream::connect(elbows.address).unwrap());
            reset(TcpStream::connect(elbows.address).unwrap());
        }
        elbows.wait_for_report("probes=7");
        only_the_request_is_logged(&elbows);
    }
}

#[test]
fn probe_with_a_header_alone_is_one_too() {
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, &[]);
    elbows.wait_for_report("probes=1");
    for header in [nlb_health_check(), encode::v2_local(), PROXY_V1.to_vec()] {
        let mut socket = TcpStream::connect(elbows.address).unwrap();
        socket.write_all(&header).unwrap();
        drop(socket);
    }
    elbows.wait_for_report("probes=4");
    only_the_request_is_logged(&elbows);
}

/// A request now is the first line of the access log, and the log has no word of complaint.
fn only_the_request_is_logged(elbows: &Elbows) {
    let mut client = Client::plain(elbows.address);
    client.send(PROXY_V1);
    client.send(REQUEST);
    client.read_head();
    elbows.access_log.wait_for("client=");
    assert_eq!(elbows.access_log.all().len(), 1, "{:?}", elbows.access_log.all());
    let complaints: Vec<_> = elbows
        .log
        .all()
        .into_iter()
        .filter(|line| line.contains("ERROR") || line.contains("WARN"))
        .collect();
    assert_eq!(complaints, Vec::<String>::new());
}

#[test]
fn connection_that_ends_inside_its_header_is_counted() {
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, &[]);
    for (end, count) in [(PROXY_V1.len() - 1, 1), (1, 2), (20, 3)] {
        let mut client = Client::plain(elbows.address);
        client.send(&PROXY_V1[..end]);
        client.finish();
        closes_without_a_byte(&mut client, "cut header");
        elbows.wait_for_report(&format!("proxy_headers_cut={count}"));
    }
    only_the_request_is_logged(&elbows);
}

#[test]
fn nlb_health_check_may_be_followed_by_ping() {
    let elbows = Elbows::start(Upstream::nobody(), &[]);
    let mut client = Client::plain(elbows.address);
    client.send(nlb_health_check());
    assert_eq!(client.get("/ping").status, 200);
    assert_eq!(client.get("/ping").status, 200);
}

#[test]
fn header_has_its_time_from_accept_and_no_byte_extends_it() {
    let upstream = Untouched::new();
    let elbows = Elbows::start(upstream.address(), &[("PROXY_HEADER_TIMEOUT", "300ms")]);
    let mut silent = Client::plain(elbows.address);
    closes_without_a_byte(&mut silent, "silent");
    elbows.wait_for_report("proxy_header_timeouts=1");

    let start = Instant::now();
    let mut slow = Client::plain(elbows.address);
    let mut bytes = b"PROXY UNKNOWN ".iter().chain(std::iter::repeat(&b'x'));
    slow.socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    loop {
        let _ = slow.socket.write_all(&[*bytes.next().unwrap()]);
        match slow.socket.read(&mut [0; 1]) {
            Ok(0) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            other => panic!("{other:?}"),
        }
        assert!(start.elapsed() < Duration::from_secs(4), "bytes extend the time");
    }
    elbows.wait_for_report("proxy_header_timeouts=2");
    elbows.log.wait_for("within PROXY_HEADER_TIMEOUT");
    assert!(upstream.heard_nothing());
    assert_eq!(elbows.access_log.all(), Vec::<String>::new());
}

#[test]
fn announced_bytes_that_never_come_reserve_nothing_and_have_their_time() {
    let upstream = Untouched::new();
    let elbows = Elbows::start(upstream.address(), &[("PROXY_HEADER_TIMEOUT", "2s")]);
    // As many as a header may announce; one byte more is refused before it comes.
    let announcing = |length: u16| [SIGNATURE, &[0x21, 0x11], &length.to_be_bytes()].concat();
    elbows.wait_for_report("open=0");
    let before = elbows.memory("VmRSS");
    let mut waiting: Vec<_> = (0..1_000).map(|_| Client::plain(elbows.address)).collect();
    for client in &mut waiting {
        client.send(announcing(4_080));
    }
    elbows.wait_for_report("connections=1001");
    let each = elbows.memory("VmRSS").saturating_sub(before) * 1_024 / 1_000;
    assert!(each < 8 * 1_024, "{each} bytes a connection that announced 4,080");

    // A byte now and then does not help.
    let mut trickling = waiting.pop().unwrap();
    trickling.socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let start = Instant::now();
    while matches!(trickling.socket.read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    {
        let _ = trickling.socket.write_all(&[0]);
        assert!(start.elapsed() < Duration::from_secs(15), "bytes extend the time");
    }
    for client in &mut waiting {
        closes_without_a_byte(client, "announced and not sent");
    }
    elbows.wait_for_report("proxy_header_timeouts=1000");
    let mut longest = Client::plain(elbows.address);
    longest.send(announcing(65_535));
    closes_without_a_byte(&mut longest, "65,535 announced");
    elbows.wait_for_report("proxy_faults=v2_too_long:1");
    assert!(upstream.heard_nothing());
}

#[test]
fn tlvs_become_headers_on_request_alone() {
    let ssl = {
        let mut ssl = vec![0x01, 0, 0, 0, 0];
        for (kind, text) in [(0x21, "TLSv1.3"), (0x22, "client.example"), (0x23, "AES")] {
            ssl.extend([kind, 0, u8::try_from(text.len()).unwrap()]);
            ssl.extend(text.as_bytes());
        }
        ssl
    };
    let tlvs: [(u8, &[u8]); 7] = [
        (0x01, b"h2"),
        (0x02, b"shop.example"),
        (0x05, b"unique"),
        (0x20, &ssl),
        (0xEA, b"\x01vpce-08d2bf15fac5001c9"),
        (0xEE, &[1, 4, 3, 2, 1]),
        (0xE0, &[0, 0, 0, 0, 0, 0, 1, 2]),
    ];
    let expected = [
        ("x-proxy-alpn", "h2"),
        ("x-proxy-authority", "shop.example"),
        ("x-proxy-unique-id", "unique"),
        ("x-proxy-ssl-version", "TLSv1.3"),
        ("x-proxy-ssl-cn", "client.example"),
        ("x-proxy-ssl-cipher", "AES"),
        ("x-proxy-aws-vpce-id", "vpce-08d2bf15fac5001c9"),
        ("x-proxy-azure-link-id", "16909060"),
        ("x-proxy-gcp-psc-id", "258"),
    ];
    let forged: Vec<_> = expected.iter().map(|(name, _)| format!("{name}: forged\r\n")).collect();
    let forged = forged.concat();
    let request = format!("GET / HTTP/1.1\r\nHost: shop.example\r\n{forged}\r\n");
    let upstream = Upstream::answering(OK);
    for (wanted, seen) in [("all", 9), ("none", 0), ("unique-id,aws-vpce-id", 2), ("ssl", 3)] {
        let elbows = Elbows::start(upstream.address, &[("PROXY_TLV_HEADERS", wanted)]);
        let mut client = Client::plain(elbows.address);
        client.send(inet_v2(&tlvs, true));
        client.send(&request);
        assert_eq!(client.read_response().status, 200);
        let head = upstream.seen();
        assert!(!head.contains("forged"), "{wanted}: {head}");
        assert_eq!(field(&head, "x-forwarded-proto"), Some("https"), "{wanted}: {head}");
        let found: Vec<_> =
            expected.iter().filter(|(name, _)| field(&head, name).is_some()).collect();
        assert_eq!(found.len(), seen, "{wanted}: {head}");
        for (name, value) in found {
            assert_eq!(field(&head, name), Some(*value), "{wanted}: {head}");
        }
    }
}

#[test]
fn request_without_required_header_gets_400_and_the_upstream_never_hears() {
    let upstream = Untouched::new();
    let elbows = Elbows::start(upstream.address(), &[]);
    let posted = "POST /pay HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".to_owned();
    let asked = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
    let old = "GET / HTTP/1.0\r\n\r\n".to_owned();
    for request in [asked, handshake("/ws"), posted, old] {
        let mut client = Client::plain(elbows.address);
        client.send(&request);
        let response = client.read_response();
        assert_eq!(response.status, 400, "{request}");
        assert_eq!(response.text(), "PROXY header required\n");
        assert_eq!(response.field("connection"), Some("close"), "{request}");
        assert_eq!(client.read_to_end().unwrap_or_default(), b"");
    }
    elbows.wait_for_report("rejected_client=4");
    assert!(upstream.heard_nothing());
    elbows.access_log.wait_until("4 lines", |lines| (lines.len() == 4).then_some(()));
    let line = elbows.access_log.wait_for("/pay");
    assert!(line.contains("status=400 from_client=0"), "{line}");
    assert!(line.contains("by=client during=request why=no_proxy_header"), "{line}");
}

byte_by_byte!({
    optional_takes_a_header_or_the_socket,
    off_makes_every_header_content,
    untrusted_header_is_content,
    second_header_is_content,
    probe_leaves_no_line_and_is_counted,
    probe_with_a_header_alone_is_one_too,
    connection_that_ends_inside_its_header_is_counted,
    nlb_health_check_may_be_followed_by_ping,
    tlvs_become_headers_on_request_alone,
    request_without_required_header_gets_400_and_the_upstream_never_hears,
} not {
    header_is_read_however_it_is_split: "it splits at each place itself",
    bad_header_closes_without_a_byte_and_is_counted_by_rule: "a rule that is broken early ends the connection before the last byte could be sent",
    optional_and_required_refuse_a_bad_header_alike: "a rule that is broken early ends the connection before the last byte could be sent",
    announced_bytes_that_never_come_reserve_nothing_and_have_their_time: "it is about a thousand connections at once",
    header_has_its_time_from_accept_and_no_byte_extends_it: "it sends byte by byte itself, at its own pace",
});
