//! What requests say of where they belong, by each way, and the cookie.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use super::*;
use crate::config::Forwarded;
use crate::http::head::{HeadLimits, Reader};

fn client(address: &str) -> Client {
    let other = SocketAddr::from(([10, 0, 0, 9], 80));
    Client::new(SocketAddr::new(address.parse().unwrap(), 1234), other, other)
}

/// Of a request for `target` with these field lines.
fn affinity_of(target: &str, lines: &str, sticky: &Sticky) -> Affinity {
    let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let mut reader = Reader::default();
    let (head, _) = reader.request(text.as_bytes(), &HeadLimits::DEFAULT).unwrap().unwrap();
    affinity(&head, &client("203.0.113.7"), sticky)
}

fn key(value: &str) -> Affinity {
    Affinity::Key(hash(value.as_bytes()))
}

#[test]
fn cookie_counts_where_it_is_there_once_and_as_it_was_set() {
    let sticky = Sticky::Cookie("elbows".to_owned());
    let of = |lines: &str| affinity_of("/", lines, &sticky);
    let token = Affinity::Token(0x0123_4567_89ab_cdef);
    for lines in [
        "Cookie: elbows=0123456789abcdef\r\n",
        "cookie: a=b; elbows=0123456789abcdef; c=d\r\n",
        "Cookie: a=b\r\nCookie: elbows=0123456789abcdef\r\n",
        "Cookie: a=b;elbows=0123456789abcdef\r\n",
        "Cookie: Elbows=1; xelbows=2; elbows2=3; a=elbows=4; elbows=0123456789abcdef\r\n",
    ] {
        assert_eq!(of(lines), token, "{lines:?}");
    }
    let huge = format!("Cookie: elbows={}\r\n", "0".repeat(8_000));
    for lines in [
        "",
        "Cookie: \r\n",
        "Cookie: elbows\r\n",
        "Cookie: elbows=\r\n",
        "Cookie: elbows=0123456789abcde\r\n",
        "Cookie: elbows=0123456789abcdef0\r\n",
        "Cookie: elbows=0123456789ABCDEF\r\n",
        "Cookie: elbows=0123456789abcdeg\r\n",
        "Cookie: elbows=+123456789abcdef\r\n",
        "Cookie: elbows=\"0123456789abcdef\"\r\n",
        "Cookie: ELBOWS=0123456789abcdef\r\n",
        "Cookie: elbows =0123456789abcdef\r\n",
        "Cookie: elbows=10.0.0.1:3000\r\n",
        "Cookie: elbows=0123456789abcdef; elbows=0123456789abcdef\r\n",
        "Cookie: elbows=0123456789abcdef\r\nCookie: elbows=\r\n",
        "Cookie2: elbows=0123456789abcdef\r\n",
        huge.as_str(),
    ] {
        assert_eq!(of(lines), Affinity::NewToken, "{lines:?}");
    }
}

#[test]
fn field_counts_where_it_is_there_once() {
    let sticky = Sticky::Header("X-Room".to_owned());
    let of = |lines: &str| affinity_of("/", lines, &sticky);
    assert_eq!(of("x-rOOM:  green  \r\n"), key("green"));
    for lines in ["", "X-Room:\r\n", "X-Room: a\r\nX-Room: a\r\n", "X-Rooms: a\r\n"] {
        assert_eq!(of(lines), Affinity::None, "{lines:?}");
    }
}

#[test]
fn part_of_the_query_counts_as_it_stands() {
    let sticky = Sticky::Query("room".to_owned());
    let of = |target: &str| affinity_of(target, "", &sticky);
    for target in ["/?room=a", "/x?y&room=a&z=1", "http://h?room=a", "/?rooms=1&Room=2&room=a"] {
        assert_eq!(of(target), key("a"), "{target}");
    }
    assert_eq!(of("/?room=%61"), key("%61"));
    assert_eq!(of("/?room=a?b=c"), key("a?b=c"));
    for target in ["/", "/?", "/room=a", "/?room", "/?room=", "/?room=a&room=a", "/?a=room=a"] {
        assert_eq!(of(target), Affinity::None, "{target}");
    }
}

#[test]
fn path_counts_without_its_query() {
    let of = |target: &str| affinity_of(target, "", &Sticky::Path);
    assert_eq!(of("/a/b?c"), key("/a/b"));
    assert_eq!(of("http://h/a/b"), key("/a/b"));
    assert_eq!(of("http://h?x"), key("/"));
    assert_eq!(of("/a%2Fb"), key("/a%2Fb"));
}

#[test]
fn client_is_an_address_or_a_64() {
    let of = |address: &str| {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut reader = Reader::default();
        let (head, _) = reader.request(text, &HeadLimits::DEFAULT).unwrap().unwrap();
        affinity(&head, &client(address), &Sticky::Client)
    };
    assert_eq!(of("203.0.113.7"), of("::ffff:203.0.113.7"));
    assert_ne!(of("203.0.113.7"), of("203.0.113.8"));
    assert_eq!(of("2001:db8:1:2::3"), of("2001:db8:1:2:ffff::"));
    assert_ne!(of("2001:db8:1:2::3"), of("2001:db8:1:3::3"));
    assert!(matches!(of("203.0.113.7"), Affinity::Key(_)));
}

#[test]
fn nothing_counts_where_it_is_off() {
    let lines = "Cookie: elbows=0123456789abcdef\r\n";
    assert_eq!(affinity_of("/?room=a", lines, &Sticky::Off), Affinity::None);
}

fn set(name: &str, token: u64, https: bool) -> String {
    let mut out = Vec::new();
    SetCookie { name, token, https }.write(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn cookie_is_what_is_read_again() {
    for token in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
        let line = set("elbows", token, false);
        let value = line.strip_prefix("Set-Cookie: ").unwrap().split(';').next().unwrap();
        let lines = format!("Cookie: {value}\r\n");
        let sticky = Sticky::Cookie("elbows".to_owned());
        assert_eq!(affinity_of("/", &lines, &sticky), Affinity::Token(token), "{line}");
    }
}

#[test]
fn cookie_is_secure_where_the_connection_is_or_its_name_says_so() {
    let lax = "Set-Cookie: seat=00000000000000ff; Path=/; HttpOnly; SameSite=Lax\r\n";
    assert_eq!(set("seat", 255, false), lax);
    let secure = "; Path=/; HttpOnly; Secure; SameSite=None\r\n";
    assert!(set("seat", 255, true).ends_with(secure));
    for name in ["__Host-seat", "__secure-seat"] {
        assert!(set(name, 255, false).ends_with(secure), "{name}");
    }
    assert!(!set("__Hostseat", 255, false).contains("Secure"));
}

#[test]
fn outer_proxy_is_believed_of_tls_where_it_is_of_the_rest() {
    let listen_on = SocketAddr::from(([127, 0, 0, 1], 1));
    let config = Config {
        sticky: Sticky::Cookie("elbows".to_owned()),
        ..Config::for_destination(listen_on, "a", 80)
    };
    let append = Config { forwarded: Forwarded::Append, ..config.clone() };
    for (config, said, https, expected) in [
        (&config, "https", false, false),
        (&config, "http", true, true),
        (&append, "https", false, true),
        (&append, "HTTPS", false, true),
        (&append, "http", true, false),
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: {said}\r\n\r\n");
        let mut reader = Reader::default();
        let (head, _) = reader.request(text.as_bytes(), &HeadLimits::DEFAULT).unwrap().unwrap();
        let client = Client { https, ..client("203.0.113.7") };
        assert_eq!(Visitor::of(&head, &client, config).https, expected, "{said} {https}");
    }
}
