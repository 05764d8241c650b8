//! One request after the other: pipelining, and whose turn it is.

use std::time::Duration;

use super::{GET, OK, ends, shell};
use crate::connection::MOST_UNREAD;
use crate::fuzzing::decode;

#[test]
fn requests_in_one_piece_are_answered_in_their_order_over_one_link() {
    for piece in [1, 30, usize::MAX] {
        let mut shell = shell();
        shell.client.piece = piece;
        let get = |number: usize| format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n");
        shell.client_sends([get(0), get(1), get(2)].concat());
        for number in 0..3 {
            let requests = decode::requests(&shell.links[0].peer.received);
            assert_eq!(requests.len(), number + 1, "one at a time");
            assert_eq!(requests[number].line, format!("GET /{number} HTTP/1.1"));
            shell.upstream_sends(OK);
            assert_eq!(shell.client_got(), OK);
        }
        assert_eq!((shell.links.len(), shell.links[0].uses), (1, 3));
        assert_eq!(ends(&shell), ["200 upstream response complete"; 3]);
        shell.client_ends();
        assert_eq!(shell.over, Some(false));
    }
}

#[test]
fn next_request_waits_until_the_client_has_taken_the_answer() {
    let mut shell = shell();
    shell.client_sends([GET, GET].concat());
    shell.client.room = OK.len() - 1;
    shell.upstream_sends(OK);
    assert_eq!((shell.links.len(), shell.links[0].uses), (1, 1));
    shell.client.room = usize::MAX;
    shell.run();
    assert_eq!((shell.links.len(), shell.links[0].uses), (1, 2));
}

#[test]
fn client_that_takes_no_answer_is_not_read() {
    let mut shell = shell();
    shell.client_sends(GET);
    shell.client.room = 0;
    shell.upstream_sends(OK);
    shell.client_sends(GET);
    assert!(!shell.client.is_read());
    shell.wait(Duration::from_secs(60));
    // It has stalled: nothing but a reset tells that there was more.
    assert_eq!(shell.over, Some(true));
}

#[test]
fn no_more_is_kept_than_the_limit_while_a_request_is_answered() {
    let mut shell = shell();
    shell.client.piece = 1_000;
    let many = GET.repeat(2 * MOST_UNREAD / GET.len());
    shell.client_sends(&many);
    assert!(!shell.client.is_read());
    shell.client.ends();
    // Nobody can see that it has left.
    shell.wait(Duration::from_secs(59));
    assert_eq!(shell.over, None);
    shell.wait(Duration::from_secs(1));
    assert_eq!(shell.over, Some(false));
    assert_eq!(ends(&shell), ["0 client request closed"]);
}

#[test]
fn request_behind_a_response_that_passed_unseen_has_its_turn() {
    let mut shell = shell();
    shell.bulk = 1;
    shell.client_sends([GET, GET].concat());
    shell.upstream_sends("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na");
    shell.upstream_sends("bcd");
    assert!(shell.client_got().ends_with("\r\n\r\nabcd"));
    assert_eq!((shell.links.len(), shell.links[0].uses), (1, 2), "the second one begins");
}

#[test]
fn slow_reader_of_an_answer_has_the_time_that_it_needs() {
    let mut shell = shell();
    shell.client_sends(GET);
    shell.client.room = 0;
    let body = "x".repeat(100);
    shell.upstream_sends(format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{body}"));
    for _ in 0..10 {
        shell.wait(Duration::from_secs(30));
        assert_eq!(shell.over, None, "it takes some all the time");
        shell.client.room = 10;
        shell.run();
    }
    shell.client.room = usize::MAX;
    shell.run();
    assert!(shell.client_got().ends_with(&body));
    // The time for the next request begins now.
    shell.wait(Duration::from_secs(59));
    shell.client_sends(GET);
    assert_eq!(shell.links[0].uses, 2);
}

#[test]
fn link_is_closed_where_the_upstream_or_what_it_sent_unasked_says_so() {
    for (response, is_kept) in [
        (OK.to_owned(), true),
        (OK.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"), false),
        (OK.replace("1.1", "1.0"), false),
        (OK.replace("1.1", "1.0").replace("\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n"), true),
        (format!("{OK}HTTP/1.1 200 OK\r\n\r\n"), false),
    ] {
        let mut shell = shell();
        shell.client_sends(GET);
        shell.upstream_sends(&response);
        assert_eq!(shell.idle().is_some(), is_kept, "{response:?}");
        assert_eq!(shell.links[0].is_closed, !is_kept);
        shell.client_got();
        shell.client_sends(GET);
        assert_eq!(shell.links.len(), if is_kept { 1 } else { 2 });
        shell.upstream_sends(OK);
        assert_eq!(shell.client_got(), OK);
    }
}

#[test]
fn answers_of_elbows_itself_wait_for_each_other_too() {
    let mut shell = shell();
    shell.client.room = 0;
    shell.client_sends("GET /ping HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100));
    assert!(shell.most_waiting[0] < 300, "one of them waits: {:?}", shell.most_waiting);
    shell.client.room = usize::MAX;
    shell.run();
    assert_eq!(shell.client_got().matches("HTTP/1.1 200 OK\r\n").count(), 100);
}

#[test]
fn idle_connection_holds_no_memory_of_its_last_answer() {
    for request in [GET, "GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut shell = shell();
        shell.client_sends(request);
        if shell.links.len() == 1 {
            let body = "x".repeat(200_000);
            shell
                .upstream_sends(format!("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n{body}"));
            assert!(shell.client_got().ends_with(&body));
        }
        assert_eq!((shell.held_for_client(), shell.over), (0, None));
    }
}
