//! How a connection ends: all that waits is taken, the client is told, and what it still sends is thrown away.

use std::time::Duration;

use super::{GET, OK, ends, shell};
use crate::connection::Lifecycle;

const CLOSE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

const UPLOAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";

/// Not whole.
const BAD: &str = "GET / HTTP/1.1\r\n\r\n";

#[test]
fn end_is_told_behind_the_last_byte() {
    let mut shell = shell();
    shell.client_sends(CLOSE);
    shell.client.room = 10;
    shell.upstream_sends(OK);
    assert!(!shell.client.is_told_end);
    shell.wait(Duration::from_secs(50));
    assert_eq!(shell.lifecycle(), Some(Lifecycle::Closing { ends_well: true }));
    shell.client.room = usize::MAX;
    shell.run();
    assert!(shell.client.is_told_end && shell.over.is_none());
    assert!(shell.client_got().contains("\r\nConnection: close\r\n"));
    shell.client_ends();
    assert_eq!(shell.over, Some(false));
}

#[test]
fn client_that_does_not_close_has_a_second() {
    let mut shell = shell();
    shell.client_sends(CLOSE);
    shell.upstream_sends(OK);
    shell.wait(Duration::from_millis(999));
    assert_eq!(shell.over, None);
    shell.wait(Duration::from_millis(1));
    assert_eq!(shell.over, Some(false));
}

#[test]
fn client_that_still_sends_is_read_for_thirty_seconds_at_most() {
    let mut shell = shell();
    shell.client_sends(UPLOAD);
    shell.upstream_sends("HTTP/1.1 403 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    shell.upstream_ends();
    assert!(shell.client.is_told_end);
    for _ in 0..33 {
        assert_eq!(shell.over, None);
        shell.client_sends("x".repeat(10_000));
        assert!(shell.client.is_read());
        shell.wait(Duration::from_millis(900));
    }
    shell.client_sends("x");
    shell.wait(Duration::from_millis(300));
    assert_eq!(shell.over, Some(false));
}

#[test]
fn answer_that_waits_survives_what_the_client_sends_and_its_end() {
    let mut shell = shell();
    shell.client.room = 0;
    shell.client_sends(BAD);
    shell.client_sends("x".repeat(200_000));
    shell.client_ends();
    assert_eq!(shell.over, None);
    shell.client.room = usize::MAX;
    shell.run();
    assert!(shell.client_got().starts_with("HTTP/1.1 400 "));
    assert_eq!(shell.over, Some(false));
}

#[test]
fn client_that_takes_nothing_of_its_answer_is_reset() {
    let mut shell = shell();
    shell.client_sends(CLOSE);
    shell.client.room = 0;
    shell.upstream_sends(OK);
    shell.wait(Duration::from_secs(59));
    assert_eq!(shell.over, None);
    shell.wait(Duration::from_secs(1));
    assert_eq!(shell.over, Some(true));
    assert_eq!(ends(&shell), ["200 upstream response complete"]);
}

#[test]
fn client_that_breaks_while_it_closes_is_let_go() {
    let mut shell = shell();
    shell.client_sends(CLOSE);
    shell.upstream_sends(OK);
    shell.client.breaks();
    shell.run();
    assert_eq!(shell.over, Some(false));
}

#[test]
fn nothing_is_answered_behind_the_last_request() {
    let mut shell = shell();
    shell.client_sends([CLOSE, GET].concat());
    shell.upstream_sends(OK);
    shell.client_sends(GET);
    assert_eq!(shell.links[0].uses, 1);
    assert_eq!(ends(&shell), ["200 upstream response complete"]);
}
