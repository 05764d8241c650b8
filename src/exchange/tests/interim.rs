//! Interim responses, and bodies that wait for one (RFC 9110, sections 10.1.1 and 15.2).

use std::time::Duration;

use super::{GET, OK, body, ends, shell};

const EXPECT: &str =
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

#[test]
fn body_waits_for_the_upstreams_100_which_passes() {
    for piece in [1, usize::MAX] {
        let mut shell = shell();
        shell.client.piece = piece;
        shell.client_sends(EXPECT);
        let head = shell.upstream_got(0);
        assert!(head.contains("Expect: 100-continue\r\n") && body(&head).is_empty());
        shell.link().piece = piece;
        shell.upstream_sends(CONTINUE);
        assert_eq!(shell.client_got(), CONTINUE);
        shell.client_sends("abc");
        assert_eq!(shell.upstream_got(0), "abc");
        shell.upstream_sends(OK);
        assert_eq!(shell.client_got(), OK);
        assert!(shell.idle().is_some());
    }
}

#[test]
fn body_that_comes_unasked_waits_too() {
    let mut shell = shell();
    shell.client_sends([EXPECT, "ab"].concat());
    shell.client_sends("c");
    assert!(body(&shell.upstream_got(0)).is_empty());
    shell.upstream_sends(CONTINUE);
    assert_eq!(shell.upstream_got(0), "abc");
}

#[test]
fn body_is_asked_for_after_a_second_and_the_upstreams_100_is_not_repeated() {
    let mut shell = shell();
    shell.client_sends([EXPECT, "abc"].concat());
    shell.upstream_got(0);
    shell.wait(Duration::from_millis(999));
    assert_eq!(shell.client_got(), "");
    shell.wait(Duration::from_millis(1));
    assert_eq!(shell.client_got(), CONTINUE);
    assert_eq!(shell.upstream_got(0), "abc");
    shell.upstream_sends(CONTINUE);
    assert_eq!(shell.client_got(), "");
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
}

#[test]
fn answer_instead_of_a_100_ends_the_connection_behind_it() {
    let mut shell = shell();
    shell.client_sends(EXPECT);
    shell.upstream_sends("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n");
    let answer = shell.client_got();
    assert!(answer.starts_with("HTTP/1.1 417 ") && answer.contains("\r\nConnection: close\r\n"));
    assert!(shell.client.is_told_end && shell.links[0].is_closed);
    // A body that comes all the same goes nowhere.
    shell.upstream_got(0);
    shell.client_sends("abc");
    assert_eq!(shell.upstream_got(0), "");
    assert_eq!(ends(&shell), ["417 upstream response complete"]);
}

#[test]
fn expectation_without_a_body_is_none() {
    let mut shell = shell();
    shell.client_sends("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n");
    shell.wait(Duration::from_secs(2));
    assert_eq!(shell.client_got(), "");
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
    assert!(shell.idle().is_some());
}

#[test]
fn http_10_expects_nothing() {
    let mut shell = shell();
    shell.client_sends("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc");
    let request = shell.upstream_got(0);
    assert!(body(&request) == "abc" && !request.contains("Expect"));
    shell.upstream_sends([CONTINUE, OK].concat());
    assert!(shell.client_got().starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn interim_responses_pass_and_the_last_one_is_logged() {
    for piece in [1, usize::MAX] {
        let mut shell = shell();
        shell.client_sends(GET);
        shell.link().piece = piece;
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
        shell.upstream_sends([hints, "HTTP/1.1 102 P\r\nConnection: x\r\nX: 1\r\n\r\n"].concat());
        assert_eq!(shell.client_got(), [hints, "HTTP/1.1 102 P\r\n\r\n"].concat());
        shell.upstream_sends(OK);
        assert_eq!(shell.client_got(), OK);
        assert_eq!(ends(&shell), ["200 upstream response complete"]);
    }
}

#[test]
fn http_10_gets_no_interim_response() {
    let mut shell = shell();
    shell.client_sends("GET / HTTP/1.0\r\n\r\n");
    shell.upstream_sends(["HTTP/1.1 103 Early Hints\r\n\r\n", OK].concat());
    let answer = shell.client_got();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("Connection: close\r\n"));
    assert!(shell.client.is_told_end);
}

#[test]
fn interim_response_alone_is_no_answer() {
    let mut shell = shell();
    shell.client_sends(GET);
    shell.upstream_sends("HTTP/1.1 103 Early Hints\r\n\r\n");
    shell.upstream_ends();
    let answers = shell.client_got();
    assert!(answers.contains("\r\n\r\nHTTP/1.1 502 "), "{answers}");
    assert_eq!(ends(&shell), ["502 upstream request closed"]);
}
