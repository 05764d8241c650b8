//! The PROXY protocol parser, seen from outside.
//!
//! `v1`, `v2` and `tlvs`: one test per rule of the specification. `encode`: what we write. `properties`: what holds for
//! every input. `differential`: the same bytes through two other parsers, with every known difference by name.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod bytes;
mod differential;
mod encode;
mod properties;
mod strictness;
mod tlvs;
mod v1;
mod v2;

use std::net::SocketAddr;

use elbows::proxy_protocol::{Addresses, Fault, Found, Header, parse};

/// The header that all of `bytes` must be.
fn whole(bytes: &[u8]) -> Header {
    match parse(bytes) {
        Ok(Some((Found::Header(header), used))) => {
            assert_eq!(used, bytes.len(), "{bytes:?}");
            header
        }
        other => panic!("{other:?} for {}", bytes.escape_ascii()),
    }
}

#[track_caller]
fn refused(bytes: impl AsRef<[u8]>, fault: Fault) {
    let bytes = bytes.as_ref();
    assert_eq!(parse(bytes), Err(fault), "{}", bytes.escape_ascii());
}

#[track_caller]
fn waits(bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    assert_eq!(parse(bytes), Ok(None), "{}", bytes.escape_ascii());
}

#[track_caller]
fn absent(bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    assert_eq!(parse(bytes), Ok(Some((Found::Absent, 0))), "{}", bytes.escape_ascii());
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn inet(source: &str, destination: &str) -> Addresses {
    Addresses::Inet { source: address(source), destination: address(destination) }
}

#[test]
fn nothing_received_is_waited_for() {
    waits(b"");
}

#[test]
fn absent_is_said_at_the_first_byte_that_differs() {
    absent(b"G");
    absent(b"GET / HTTP/1.1\r\n");
    absent(b"proxy TCP4 ");
    absent(b" PROXY ");
    for signature in [&b"PROXY "[..], b"\r\n\r\n\0\r\nQUIT\n"] {
        for length in 0..signature.len() {
            waits(&signature[..length]);
            let mut differs = signature[..length].to_vec();
            differs.push(b'\t');
            absent(&differs);
        }
        waits(signature);
    }
}

#[test]
fn empty_lines_of_an_http_client_are_content() {
    waits(b"\r\n");
    absent(b"\r\nGET / HTTP/1.1\r\n");
    waits(b"\r\n\r\n");
    absent(b"\r\n\r\nGET / HTTP/1.1\r\n");
    absent(b"\r\n\r\n\r\nGET / HTTP/1.1\r\n");
}

#[test]
fn a_second_header_is_content() {
    let first = "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
    let second = "PROXY TCP4 203.0.113.9 192.0.2.2 3 4\r\n";
    let glued = [first, second].concat();
    let Ok(Some((Found::Header(header), used))) = parse(glued.as_bytes()) else { panic!() };
    assert_eq!(used, first.len());
    assert_eq!(header.addresses, inet("192.0.2.1:1", "192.0.2.2:2"));
}

#[test]
fn fault_names_are_distinct_and_in_the_order_of_their_index() {
    let mut names: Vec<_> = Fault::ALL.iter().map(|fault| fault.as_str()).collect();
    assert_eq!(names.len(), Fault::COUNT);
    for (index, fault) in Fault::ALL.iter().enumerate() {
        assert_eq!(fault.index(), index);
        assert!(
            fault.as_str().bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        );
        assert!(!fault.to_string().is_empty());
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Fault::COUNT);
}

#[test]
fn an_empty_set_of_tlvs_is_two_words() {
    assert_eq!(size_of::<elbows::proxy_protocol::Tlvs>(), 2 * size_of::<usize>());
}
