//! The way to zero: what a connection does when the process takes no more.

use super::{GET, OK, ends, shell};
use crate::drain::Stage;

#[test]
fn connection_without_a_request_ends_at_once() {
    let mut shell = shell();
    shell.drain(Stage::Finishing);
    assert_eq!((shell.over, shell.client_got().as_str()), (Some(false), ""));
    assert_eq!(shell.log(), []);
}

#[test]
fn request_that_has_begun_to_come_is_read_and_answered() {
    let mut shell = shell();
    let (start, end) = GET.split_at(8);
    shell.client_sends(start);
    shell.drain(Stage::Finishing);
    assert_eq!(shell.over, None);
    shell.client_sends(end);
    shell.upstream_sends(OK);
    let answer = shell.client_got();
    assert!(answer.contains("\r\nConnection: close\r\n") && answer.ends_with("ok"), "{answer}");
}

#[test]
fn request_under_way_is_answered_and_the_connection_closes_behind_it() {
    let mut shell = shell();
    shell.client_sends([GET, GET].concat());
    shell.drain(Stage::Finishing);
    shell.run();
    shell.upstream_sends(OK);
    let answer = shell.client_got();
    assert!(answer.contains("\r\nConnection: close\r\n") && answer.ends_with("ok"));
    assert!(shell.client.is_told_end && shell.links[0].is_closed);
    assert_eq!(shell.links[0].uses, 1, "nothing new begins");
    assert_eq!(ends(&shell), ["200 upstream response complete"]);
}

#[test]
fn answer_that_has_begun_is_finished() {
    let mut shell = shell();
    shell.client_sends(GET);
    shell.upstream_sends("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
    shell.drain(Stage::Finishing);
    shell.upstream_sends("k");
    assert!(shell.client_got().ends_with("\r\n\r\nok"));
    assert!(shell.client.is_told_end);
}

#[test]
fn answer_that_waits_is_taken_before_the_connection_ends() {
    let mut shell = shell();
    shell.client_sends(GET);
    shell.client.room = 0;
    shell.upstream_sends(OK);
    shell.drain(Stage::Finishing);
    shell.run();
    assert_eq!(shell.over, None);
    shell.client.room = usize::MAX;
    shell.wait(std::time::Duration::ZERO);
    assert_eq!(shell.client_got(), OK);
    assert_eq!(shell.over, Some(false));
}

#[test]
fn request_that_is_cut_is_logged_so() {
    let mut shell = shell();
    shell.client_sends(GET);
    shell.drain(Stage::Finishing);
    assert!(shell.drain(Stage::Over));
    assert_eq!(shell.over, Some(false));
    assert!(shell.links[0].is_closed);
    assert_eq!(ends(&shell), ["0 elbows drain period_over"]);

    let mut idle = super::shell();
    idle.client_sends(GET);
    idle.upstream_sends(OK);
    idle.log();
    assert!(!idle.drain(Stage::Over));
    assert_eq!((idle.over, idle.log()), (Some(false), vec![]));
}

/// A client that connected just before a new process took over is not refused.
#[test]
fn first_request_is_answered_where_a_new_process_has_taken_over() {
    let mut shell = shell();
    shell.drain(Stage::Yielding);
    shell.run();
    assert_eq!(shell.over, None);
    shell.client_sends(GET);
    shell.upstream_sends(OK);
    let answer = shell.client_got();
    assert!(answer.contains("\r\nConnection: close\r\n") && answer.ends_with("ok"), "{answer}");
    assert!(shell.client.is_told_end);
}

#[test]
fn idle_connection_ends_where_a_new_process_has_taken_over() {
    let mut shell = shell();
    shell.client_sends(GET);
    shell.upstream_sends(OK);
    shell.drain(Stage::Yielding);
    shell.run();
    assert_eq!(shell.over, Some(false));
}

#[test]
fn health_checks_succeed_where_a_new_process_has_taken_over() {
    let mut shell = shell();
    shell.drain(Stage::Yielding);
    shell.client_sends("GET /ping HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(shell.client_got().starts_with("HTTP/1.1 200 "));
}

#[test]
fn connection_is_kept_again_where_the_new_process_has_failed() {
    let mut shell = shell();
    shell.drain(Stage::Yielding);
    shell.drain(Stage::Serving);
    for _ in 0..2 {
        shell.client_sends(GET);
        shell.upstream_sends(OK);
        assert_eq!(shell.client_got(), OK);
    }
    assert_eq!(shell.over, None);
}
