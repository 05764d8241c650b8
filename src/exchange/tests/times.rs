//! What happens where nothing happens.

use std::time::Duration;

use super::{GET, OK, ends, post, shell};

#[test]
fn upstream_that_does_not_answer_is_504() {
    let mut shell = shell();
    shell.client_sends(GET);
    shell.wait(Duration::from_millis(59_999));
    assert_eq!(shell.client_got(), "");
    shell.wait(Duration::from_millis(1));
    let answer = shell.client_got();
    assert!(answer.starts_with("HTTP/1.1 504 ") && !answer.contains("close"), "{answer}");
    assert_eq!(ends(&shell), ["504 upstream request timeout"]);
    assert!(shell.links[0].is_closed);
}

#[test]
fn response_that_has_begun_may_take_any_time() {
    let mut shell = shell();
    shell.client_sends(GET);
    shell.upstream_sends("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
    shell.wait(Duration::from_secs(24 * 3_600));
    shell.upstream_sends("k");
    assert!(shell.client_got().ends_with("ok"));
}

#[test]
fn client_that_stops_in_its_body_gets_408() {
    let mut shell = shell();
    shell.client_sends([post(100_000).as_str(), &"x".repeat(50_000)].concat());
    shell.wait(Duration::from_millis(59_999));
    assert_eq!(shell.client_got(), "");
    shell.wait(Duration::from_millis(1));
    assert!(shell.client_got().starts_with("HTTP/1.1 408 "));
    assert!(shell.client.is_told_end && shell.links[0].is_closed);
    assert_eq!(ends(&shell), ["408 client request timeout"]);
}

#[test]
fn body_in_drips_gets_408_and_a_slow_one_passes() {
    for (each, is_too_slow) in [(1, true), (1_000, false)] {
        let mut shell = shell();
        shell.client_sends(post(1_000_000));
        for _ in 0..30 {
            if shell.over.is_none() && !shell.client.is_told_end {
                shell.client_sends("x".repeat(each));
            }
            shell.wait(Duration::from_millis(900));
        }
        assert_eq!(shell.client_got().starts_with("HTTP/1.1 408 "), is_too_slow);
    }
}

#[test]
fn time_in_which_the_upstream_is_waited_for_is_not_the_clients() {
    let mut shell = shell();
    shell.client_sends([post(100_000).as_str(), "x"].concat());
    shell.link().room = 0;
    shell.client_sends("y");
    shell.wait(Duration::from_secs(50));
    shell.link().room = usize::MAX;
    shell.run();
    assert_eq!(shell.client_got(), "");
    shell.wait(Duration::from_secs(9));
    assert_eq!(shell.client_got(), "", "it had 50 s in which nobody read");
    shell.wait(Duration::from_secs(2));
    assert!(shell.client_got().starts_with("HTTP/1.1 408 "));
}

#[test]
fn upstream_that_takes_nothing_of_a_body_is_504() {
    let mut shell = shell();
    shell.client_sends(post(10));
    shell.link().room = 0;
    shell.client_sends("abc");
    shell.wait(Duration::from_secs(60));
    assert!(shell.client_got().starts_with("HTTP/1.1 504 "));
    assert!(shell.links[0].is_closed);
}

#[test]
fn answer_in_full_is_complete_although_the_body_never_ends() {
    let mut shell = shell();
    shell.client_sends(post(10));
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
    shell.wait(Duration::from_secs(61));
    assert!(shell.client.is_told_end);
    assert_eq!(ends(&shell), ["200 upstream response complete"]);
}

#[test]
fn answer_in_full_is_complete_although_the_upstream_takes_no_more() {
    let mut shell = shell();
    shell.client_sends(post(10));
    shell.link().room = 0;
    shell.client_sends("abc");
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
    shell.wait(Duration::from_secs(61));
    assert!(shell.client.is_told_end);
    assert_eq!(ends(&shell), ["200 upstream response complete"]);
}

#[test]
fn request_behind_a_body_that_goes_nowhere_has_its_turn() {
    let mut shell = shell();
    shell.client_sends(post(3));
    shell.link().room = 0;
    shell.client_sends(["abc", GET].concat());
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
    shell.wait(Duration::from_secs(3));
    assert_eq!(
        shell.links.len(),
        2,
        "the next request is asked without another byte of the client"
    );
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
}
