//! W3C Trace Context: what passes, what the log tells, and where a trace begins with elbows.

use std::collections::BTreeSet;

use serde_json::Value;
use test_support::log_line::value;

use crate::client::{Client, field, handshake};
use crate::proxy::Elbows;
use crate::upstream::{SWITCHING, Upstream};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// Field lines that are no trace.
const INVALID: [&str; 5] = [
    "traceparent: 00-00000000000000000000000000000000-00f067aa0ba902b7-01\r\n",
    "traceparent: ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
    "traceparent: 00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01\r\n",
    "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
     traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
    "",
];

/// A request with these lines and a `tracestate`, and what the upstream got of it.
fn sent(elbows: &Elbows, upstream: &Upstream, target: &str, lines: &str) -> String {
    let mut client = Client::behind_balancer(elbows.address);
    client.send(format!(
        "GET {target} HTTP/1.1\r\nHost: a\r\n{lines}TraceState: rojo=00f067aa0ba902b7,congo=t61\r\n\r\n"
    ));
    assert_eq!(client.read_response().status, 200);
    upstream.seen()
}

#[test]
fn a_trace_passes_untouched_and_its_id_is_in_the_log() {
    let upstream = Upstream::answering(OK);
    for mode in ["pass", "make"] {
        let elbows = Elbows::start(upstream.address, &[("TRACE_CONTEXT", mode)]);
        let seen = sent(&elbows, &upstream, "/a", &format!("TraceParent: {VALID}\r\n"));
        // As they came, and in their place.
        let both =
            format!("TraceParent: {VALID}\r\nTraceState: rojo=00f067aa0ba902b7,congo=t61\r\n");
        assert!(seen.contains(&both), "{seen}");
        assert_eq!(seen.to_ascii_lowercase().matches("traceparent").count(), 1, "{seen}");
        assert_eq!(value(&elbows.access_log.wait_for(" /a "), "trace_id"), ID);
        // What a later version has behind its flags is not looked at.
        let later = VALID.replacen("00-", "7f-", 1) + "-more";
        let seen = sent(&elbows, &upstream, "/b", &format!("traceparent: {later}\r\n"));
        assert!(seen.contains(&format!("traceparent: {later}\r\n")), "{seen}");
        assert_eq!(value(&elbows.access_log.wait_for(" /b "), "trace_id"), ID);
    }
}

#[test]
fn what_is_no_trace_passes_and_is_not_in_the_log() {
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, &[]);
    for (number, lines) in INVALID.iter().enumerate() {
        let seen = sent(&elbows, &upstream, &format!("/{number}"), lines);
        let with_state = format!("{lines}TraceState: rojo=00f067aa0ba902b7,congo=t61\r\n");
        assert!(seen.contains(&with_state), "{seen}");
        let line = elbows.access_log.wait_for(&format!(" /{number} "));
        assert!(!line.contains("trace_id"), "{line}");
    }
}

#[test]
fn a_trace_that_does_not_pass_is_not_in_the_log() {
    let upstream = Upstream::answering(OK);
    for (mode, made) in [("pass", false), ("make", true)] {
        let elbows = Elbows::start(upstream.address, &[("TRACE_CONTEXT", mode)]);
        let lines = format!("Connection: traceparent\r\ntraceparent: {VALID}\r\n");
        let seen = sent(&elbows, &upstream, "/a", &lines);
        let line = elbows.access_log.wait_for(" /a ");
        assert!(!seen.contains(ID) && !line.contains(ID), "{seen}\n{line}");
        assert_eq!((seen.contains("traceparent"), line.contains("trace_id")), (made, made));
    }
}

#[test]
fn a_trace_is_made_where_there_is_none() {
    let upstream = Upstream::answering(OK);
    let settings = [("TRACE_CONTEXT", "make"), ("ACCESS_LOG", "json")];
    let elbows = Elbows::start(upstream.address, &settings);
    let mut ids = BTreeSet::new();
    for (number, lines) in INVALID.iter().enumerate() {
        let seen = sent(&elbows, &upstream, &format!("/{number}"), lines);
        let lower = seen.to_ascii_lowercase();
        // What somebody else said of another trace goes with it.
        assert!(!lower.contains("tracestate"), "{seen}");
        assert_eq!(lower.matches("traceparent").count(), 1, "{seen}");
        let made = field(&seen, "traceparent").unwrap();
        let parts: Vec<_> = made.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
        assert_eq!((parts[0], parts[3]), ("00", "01"), "{made}");
        let line = elbows.access_log.wait_for(&format!(" /{number} "));
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["trace_id"], parts[1], "{line}");
        ids.extend([parts[1].to_owned(), parts[2].to_owned()]);
    }
    assert_eq!(ids.len(), 2 * INVALID.len(), "no two are the same: {ids:?}");
}

#[test]
fn a_tunnel_tells_its_trace_when_it_ends() {
    let upstream = Upstream::answering(SWITCHING);
    let elbows = Elbows::start(upstream.address, &[("TRACE_CONTEXT", "make")]);
    let traced =
        handshake("/b").replace("Upgrade\r\n", &format!("Upgrade\r\ntraceparent: {VALID}\r\n"));
    for (target, request) in [(" /a ", handshake("/a")), (" /b ", traced)] {
        let mut client = Client::behind_balancer(elbows.address);
        client.send(&request);
        assert_eq!(client.read_head().status, 101);
        let seen = upstream.seen();
        let told = field(&seen, "traceparent").unwrap().split('-').nth(1).unwrap().to_owned();
        drop(client);
        let line = elbows.access_log.wait_for(target);
        assert_eq!(value(&line, "trace_id"), told, "{line}");
        assert_eq!(told == ID, target == " /b ");
    }
}

byte_by_byte!({
    a_trace_passes_untouched_and_its_id_is_in_the_log,
    what_is_no_trace_passes_and_is_not_in_the_log,
    a_trace_that_does_not_pass_is_not_in_the_log,
    a_trace_is_made_where_there_is_none,
    a_tunnel_tells_its_trace_when_it_ends,
} not {});
