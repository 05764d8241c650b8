//! The form of lines, with what a client can put into them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use super::*;
use crate::end::{Phase, Reason};

fn line() -> Line<'static> {
    Line {
        time: &"1970-01-01T00:00:00.000Z",
        client: "203.0.113.7:51234".parse().unwrap(),
        balancer: "[2001:db8::5]:3321".parse().unwrap(),
        request: "GET /a\"b\\c\n HTTP/1.1",
        status: None,
        from_client: 1,
        from_upstream: 2,
        duration: Duration::from_micros(1_500_250),
        upstream: None,
        end: End::new(Side::Client, Phase::Request, Reason::Closed),
        request_id: "id",
        spoken: None,
        handoffs: None,
        handshake: None,
        trace_id: None,
        route: None,
    }
}

#[test]
fn text_is_one_line_whatever_the_client_sent() {
    let text = line().text();
    let (time, rest) = text.split_once(' ').unwrap();
    assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
    assert_eq!(
        rest,
        "client=203.0.113.7:51234 balancer=[2001:db8::5]:3321 \
         request=\"GET /a\\\"b\\\\c\\u000a HTTP/1.1\" status=- from_client=1 from_upstream=2 \
         duration=1.500 upstream=- by=client during=request why=closed request_id=id\n"
    );
}

fn tunnel_line() -> Line<'static> {
    let spoken = Spoken {
        messages_from_client: 3,
        messages_from_upstream: 4,
        payload_from_client: 50,
        payload_from_upstream: 60,
        close: Some((1001, Side::Elbows)),
        ping: Some((Duration::from_micros(312), Duration::from_millis(1500))),
    };
    Line { spoken: Some(spoken), handoffs: Some(2), ..line() }
}

#[test]
fn a_websocket_says_more() {
    let text = tunnel_line().text();
    let (_, more) = text.split_once(" request_id=id ").unwrap();
    assert_eq!(
        more,
        "messages_from_client=3 messages_from_upstream=4 payload_from_client=50 \
         payload_from_upstream=60 close_code=1001 close_by=elbows ping_rtt=0.000312 \
         ping_rtt_worst=1.500000 handoffs=2\n"
    );
    let value: serde_json::Value = serde_json::from_str(&tunnel_line().json()).unwrap();
    assert_eq!(value["messages_from_upstream"], 4);
    assert_eq!(value["close_by"], "elbows");
    assert_eq!(value["ping_rtt"], 0.000_312);
    assert_eq!(value["handoffs"], 2);
    let mut line = tunnel_line();
    let spoken = line.spoken.as_mut().unwrap();
    (spoken.close, spoken.ping) = (None, None);
    assert!(
        line.text().ends_with("close_code=- close_by=- ping_rtt=- ping_rtt_worst=- handoffs=2\n")
    );
    let value: serde_json::Value = serde_json::from_str(&line.json()).unwrap();
    assert_eq!(value["close_code"], serde_json::Value::Null);
}

/// A tunnel of another protocol has no frames, and moves all the same.
#[test]
fn each_tunnel_says_how_often_it_moved() {
    let line = Line { handoffs: Some(0), ..line() };
    assert!(line.text().ends_with(" request_id=id handoffs=0\n"));
    let value: serde_json::Value = serde_json::from_str(&line.json()).unwrap();
    assert_eq!(value["handoffs"], 0);
    assert_eq!(value["messages_from_client"], serde_json::Value::Null);
}

#[test]
fn query_is_hidden_and_nothing_else() {
    for (request, hidden) in [
        ("GET /ws?token=s3cret HTTP/1.1", "GET /ws?... HTTP/1.1"),
        ("GET /ws?a=b&c=d?e HTTP/1.1", "GET /ws?... HTTP/1.1"),
        ("GET /ws? HTTP/1.1", "GET /ws?... HTTP/1.1"),
        ("GET /ws?a b c HTTP/1.1", "GET /ws?... HTTP/1.1"),
        ("GET /ws?s3cret", "GET /ws?..."),
        ("GET /ws HTTP/1.1", "GET /ws HTTP/1.1"),
        ("?", "?..."),
        ("", ""),
    ] {
        let mut request = request.to_owned();
        hide_query(&mut request);
        assert_eq!(request, hidden);
    }
}

#[test]
fn long_line_is_cut_between_characters_and_shows_it() {
    for (request, shown) in [
        ("GET /abcd HTTP/1.1", "GET /ab..."),
        ("GET /abcde", "GET /abcde"),
        ("GET /abcdef", "GET /ab..."),
        ("GET /a\u{e9}\u{e9}\u{e9}", "GET /a..."),
        ("", ""),
    ] {
        let mut request = request.to_owned();
        request.reserve(1_000);
        cut(&mut request, 10);
        assert_eq!(request, shown);
        assert!(request.capacity() <= 10, "{}", request.capacity());
    }
}

#[test]
fn json_reads_as_what_the_client_sent() {
    let all: String = ('\0'..='\u{3000}').collect();
    for request in ["", "\"", "\\", "\\\"\u{1f600}", &all] {
        let text = Line { request, ..line() }.json();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["request"], request);
        assert!(!text.trim_end_matches('\n').contains(is_acted_on), "{text}");
    }
}

#[test]
fn json_is_one_object_a_line() {
    let text = line().json();
    assert_eq!(text.matches('\n').count(), 1);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["request"], "GET /a\"b\\c\n HTTP/1.1");
    assert_eq!(value["status"], serde_json::Value::Null);
    assert_eq!(value["duration"], 1.50025);
    assert_eq!(value["why"], "closed");
}

fn handshake() -> Handshake<'static> {
    Handshake {
        host: "app.example",
        user_agent: "Mozilla/5.0 (\"X\")\u{1b}[31m\n",
        subprotocol: "",
        trace_id: Some(TraceId(7_u128.to_be_bytes())),
    }
}

#[test]
fn a_tunnel_says_what_its_handshake_said() {
    let trace_id = handshake().trace_id;
    let line = Line { handshake: Some(handshake()), trace_id, ..tunnel_line() };
    let text = line.text();
    let (_, more) = text.split_once(" handoffs=2 ").unwrap();
    assert_eq!(
        more,
        "host=\"app.example\" user_agent=\"Mozilla/5.0 (\\\"X\\\")\\u001b[31m\\u000a\" subprotocol=- \
         trace_id=00000000000000000000000000000007\n"
    );
    let value: serde_json::Value = serde_json::from_str(&line.json()).unwrap();
    assert_eq!(value["host"], "app.example");
    assert_eq!(value["user_agent"], handshake().user_agent);
    assert_eq!(value["subprotocol"], serde_json::Value::Null);
    assert_eq!(value["trace_id"], "00000000000000000000000000000007");
}

#[test]
fn a_tunnel_that_opens_has_a_line_with_the_same_keys() {
    let opening = Opening {
        time: &"1970-01-01T00:00:00.000Z",
        client: line().client,
        balancer: line().balancer,
        request: "GET /ws HTTP/1.1",
        duration: Duration::from_micros(1_500_250),
        upstream: line().client,
        request_id: "id",
        handshake: Handshake { user_agent: "a", subprotocol: "chat", ..Handshake::default() },
        route: None,
    };
    assert_eq!(
        opening.text(),
        "1970-01-01T00:00:00.000Z event=open client=203.0.113.7:51234 balancer=[2001:db8::5]:3321 \
         request=\"GET /ws HTTP/1.1\" status=101 duration=1.500 upstream=203.0.113.7:51234 \
         request_id=id host=- user_agent=\"a\" subprotocol=\"chat\"\n"
    );
    let opened: serde_json::Value = serde_json::from_str(&opening.json()).unwrap();
    let ended =
        Line { handshake: Some(handshake()), trace_id: handshake().trace_id, ..tunnel_line() };
    let ended: serde_json::Value = serde_json::from_str(&ended.json()).unwrap();
    for (key, value) in opened.as_object().unwrap() {
        assert!(key == "event" || ended.get(key).is_some(), "{key}: {value}");
    }
    assert_eq!(opened["event"], "open");
    assert_eq!(opened["host"], serde_json::Value::Null);
}

#[test]
fn name_of_a_route_is_at_the_end_where_there_is_one() {
    let line = Line { route: Some("chat"), ..tunnel_line() };
    assert!(line.text().ends_with(" route=chat\n"), "{}", line.text());
    let value: serde_json::Value = serde_json::from_str(&line.json()).unwrap();
    assert_eq!(value["route"], "chat");
    assert!(!tunnel_line().text().contains("route="));
}
