//! What elbows answers itself.

use std::time::Duration;

use clap::{Args as _, FromArgMatches as _};

use super::{GET, OK, ends, shell};
use crate::config::{Config, Settings, rate};
use crate::drain::Stage;
use crate::fuzzing::decode::{self, Ending};
use crate::fuzzing::shell::{Shell, config};

const PING: &str = "GET /ping HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn health_check_is_ok_and_the_connection_goes_on() {
    let mut shell = shell();
    shell.client_sends([PING, "HEAD /ping?x HTTP/1.1\r\nHost: a\r\n\r\n", GET].concat());
    let answers = decode::responses(&shell.client.received, &[false, true], Ending::Open);
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(|answer| answer.status() == 200 && answer.is_whole));
    assert_eq!((&answers[0].data[..], &answers[1].data[..]), (&b"ok"[..], &b""[..]));
    assert_eq!(answers[0].values("connection"), [] as [&str; 0]);
    assert_eq!((shell.links.len(), shell.log()), (1, vec![]));
}

#[test]
fn health_check_fails_while_elbows_leaves() {
    let mut shell = shell();
    shell.drain(Stage::Leaving);
    shell.client_sends([PING, GET].concat());
    assert!(shell.client_got().starts_with("HTTP/1.1 503 "));
    // Everything else is still served.
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
}

#[test]
fn health_check_with_a_body_ends_the_connection() {
    let mut shell = shell();
    shell.client_sends("GET /ping HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert!(shell.client_got().contains("\r\nConnection: close\r\n"));
    assert!(shell.client.is_told_end);
}

#[test]
fn connection_of_http_10_goes_on_where_it_asks_for_it() {
    let mut shell = shell();
    shell.client_sends("GET /ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(shell.client_got().contains("\r\nConnection: keep-alive\r\n"));
    assert!(!shell.client.is_told_end);
    shell.client_sends("GET /ping HTTP/1.0\r\n\r\n");
    assert!(shell.client_got().contains("\r\nConnection: close\r\n"));
    assert!(shell.client.is_told_end);
}

#[test]
fn bad_head_is_refused_at_the_byte_that_breaks_the_rule() {
    for (head, status, why) in [
        ("GET / HTTP/5.6", "505", "malformed"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\x01", "400", "malformed"),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "501", "refused"),
    ] {
        for piece in [1, usize::MAX] {
            let mut shell = shell();
            shell.client.piece = piece;
            shell.client_sends(head);
            let answer = shell.client_got();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}: {answer}");
            assert!(answer.contains("\r\nConnection: close\r\n"));
            assert!(shell.links.is_empty() && shell.client.is_told_end);
            assert_eq!(ends(&shell), [format!("{status} client request {why}")]);
        }
    }
}

#[test]
fn what_is_behind_a_bad_head_is_thrown_away() {
    let mut shell = shell();
    shell.client_sends(["GET / HTTP/1.1\r\n\r\n", GET].concat());
    shell.client_sends(GET);
    let answers = decode::responses(&shell.client.received, &[], Ending::Open);
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].status(), 400);
    assert!(shell.links.is_empty());
}

#[test]
fn unfinished_head_gets_408_and_an_idle_connection_nothing() {
    let mut shell = shell();
    shell.client_sends("GET / HTTP/1.1\r\nHo");
    shell.wait(Duration::from_secs(60));
    assert!(shell.client_got().starts_with("HTTP/1.1 408 "));
    assert_eq!(ends(&shell), ["408 client request timeout"]);

    let mut shell = super::shell();
    shell.client_sends(GET);
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
    shell.wait(Duration::from_millis(59_999));
    assert_eq!(shell.over, None);
    shell.wait(Duration::from_millis(1));
    assert_eq!((shell.over, shell.client_got().as_str()), (Some(false), ""));
}

#[test]
fn head_in_drips_has_no_more_time_than_one_in_a_piece() {
    let mut shell = shell();
    for byte in GET.as_bytes().iter().take(20) {
        shell.client_sends([*byte]);
        shell.wait(Duration::from_millis(2_900));
    }
    shell.wait(Duration::from_millis(1_999));
    assert_eq!(shell.client_got(), "");
    shell.wait(Duration::from_millis(1));
    assert!(shell.client_got().starts_with("HTTP/1.1 408 "));
}

#[test]
fn trace_that_may_go_no_further_is_reflected() {
    let mut shell = shell();
    let head = "TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nCookie: secret\r\n\r\n";
    shell.client_sends(head);
    let answers = decode::responses(&shell.client.received, &[false], Ending::Open);
    assert_eq!(answers[0].values("content-type"), ["message/http"]);
    let reflected = head.replace("Cookie: secret\r\n", "");
    assert_eq!(answers[0].data, reflected.as_bytes());
    assert_eq!(ends(&shell), ["200 elbows request complete"]);
    assert!(shell.links.is_empty() && !shell.client.is_told_end);
}

#[test]
fn body_that_says_it_is_too_long_is_refused_before_it_comes() {
    let mut shell = Shell::new(Config { max_body_size: Some(10), ..config() });
    shell.client_sends("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n");
    assert!(shell.client_got().starts_with("HTTP/1.1 413 "));
    assert!(shell.links.is_empty() && shell.client.is_told_end);
    assert_eq!(ends(&shell), ["413 client request too_big"]);
}

#[test]
fn origin_that_is_not_allowed_gets_403() {
    let typed = "elbows --listen-on 1 --destination-hostname a --destination-port 1 --allowed-origins https://good.example";
    let command = Settings::augment_args(clap::Command::new("elbows"));
    let typed = command.try_get_matches_from(typed.split(' ')).unwrap();
    let settings = Settings::from_arg_matches(&typed).unwrap();
    let allowed_origins = Config::from_settings(&settings).unwrap().allowed_origins;
    let mut shell = Shell::new(Config { allowed_origins, ..config() });
    let handshake = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    shell.client_sends([handshake, "Origin: https://bad.example\r\n\r\n"].concat());
    assert!(shell.client_got().starts_with("HTTP/1.1 403 "));
    assert_eq!(ends(&shell), ["403 client handshake refused"]);
    assert!(shell.links.is_empty() && shell.client.is_told_end);
}

#[test]
fn handshakes_above_the_rate_are_told_when_to_come_again() {
    let rate = rate::parse("1/min").unwrap();
    let mut shell = Shell::new(Config { handshake_rate_per_client: Some(rate), ..config() });
    let handshake =
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    shell.client_sends(handshake);
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
    shell.client_sends(handshake);
    let answer = shell.client_got();
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("\r\nRetry-After: 60\r\n"));
    assert!(shell.client.is_told_end);
    assert_eq!(ends(&shell)[1], "429 client handshake over_limit");
}

#[test]
fn refused_head_request_gets_no_text_behind_an_empty_line_either() {
    for start in ["", "\r\n"] {
        let mut shell = shell();
        shell.client_sends([start, "HEAD / HTTP/1.1\r\n\r\n"].concat());
        let answer = shell.client_got();
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert_eq!(shell.log()[0].request, "HEAD / HTTP/1.1");
    }
}
