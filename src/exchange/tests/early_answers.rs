//! Answers that come before the request is whole.

use super::{OK, body, ends, post, shell};

const NO: &str = "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno";

#[test]
fn upload_goes_on_behind_the_answer_of_an_upstream_that_keeps_the_connection() {
    let mut shell = shell();
    shell.client_sends([post(6).as_str(), "abc"].concat());
    shell.upstream_sends(NO);
    assert_eq!(shell.client_got(), NO);
    assert!(!shell.client.is_told_end && ends(&shell).is_empty());
    shell.client_sends(["def", super::GET].concat());
    assert_eq!(ends(&shell), ["403 upstream response complete"]);
    assert_eq!(shell.links[0].uses, 2);
    assert!(body(&shell.upstream_got(0)).starts_with("abcdefGET "));
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
}

#[test]
fn upload_ends_behind_the_answer_of_an_upstream_that_closes() {
    let mut shell = shell();
    shell.client_sends([post(6).as_str(), "abc"].concat());
    shell.upstream_sends(NO.replace("No\r\n", "No\r\nConnection: close\r\n"));
    shell.upstream_ends();
    let answer = shell.client_got();
    assert!(answer.contains("\r\nConnection: close\r\n") && answer.ends_with("no"), "{answer}");
    assert!(shell.client.is_told_end && shell.links[0].is_closed);
    shell.client_sends("def");
    assert!(shell.over.is_none(), "the client may still be sending");
    shell.client_ends();
    assert_eq!(shell.over, Some(false));
    assert_eq!(ends(&shell), ["403 upstream response complete"]);
}

#[test]
fn upstream_that_takes_no_more_of_the_body_is_still_heard() {
    let mut shell = shell();
    shell.client_sends(post(6));
    shell.link().takes_nothing = true;
    shell.client_sends("abc");
    shell.upstream_sends(NO);
    let answer = shell.client_got();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("no"), "{answer}");
    // Nobody could tell the rest of the body from a next request.
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert!(shell.client.is_told_end && shell.links[0].is_closed);
}

#[test]
fn large_upload_to_an_upstream_that_does_not_read_is_not_kept() {
    let mut shell = shell();
    shell.client_sends(post(10_000_000));
    shell.link().room = 0;
    shell.client_sends("x".repeat(2_000_000));
    assert!(!shell.client.is_read());
    assert!(shell.most_waiting[1] <= 256 * 1024, "{:?}", shell.most_waiting);
    shell.upstream_sends(NO.replace("No\r\n", "No\r\nConnection: close\r\n"));
    shell.upstream_ends();
    assert!(shell.client_got().ends_with("no"));
    assert!(shell.client.is_told_end);
    assert!(shell.client.is_read(), "it looks for its answer behind its body");
}

#[test]
fn slow_upstream_of_a_long_upload_is_no_fault_of_the_client() {
    let mut shell = shell();
    shell.client_sends(post(10_000_000));
    shell.link().room = 0;
    shell.client_sends("x".repeat(1_000_000));
    for _ in 0..20 {
        assert_eq!(shell.log(), []);
        shell.link().room = 10_000;
        shell.run();
        shell.wait(std::time::Duration::from_secs(20));
        assert_eq!(shell.over, None, "bytes move all the time: {:?}", shell.log());
    }
    shell.link().room = usize::MAX;
    shell.client_sends("x".repeat(9_000_000));
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
    assert_eq!(body(&shell.upstream_got(0)).len(), 10_000_000);
}

#[test]
fn client_that_leaves_while_its_body_goes_nowhere_is_seen_to_leave() {
    let mut shell = shell();
    shell.client_sends(post(1_000_000));
    shell.link().takes_nothing = true;
    shell.client_sends("x".repeat(200_000));
    shell.upstream_sends("HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nn");
    shell.client_sends("x".repeat(200_000));
    assert!(shell.client.is_read());
    shell.client_ends();
    assert_eq!(shell.over, Some(false));
    assert_eq!(ends(&shell), ["403 client response closed"]);
}

#[test]
fn answer_beside_a_body_that_breaks_a_rule_is_taken_as_far_as_it_came() {
    let mut shell = shell();
    shell.client_sends("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    shell.client.room = 10;
    shell.upstream_sends(OK);
    shell.client_sends("zz\r\n");
    assert_eq!(ends(&shell), ["200 client response malformed"]);
    assert_eq!(shell.over, None, "the client still has to take what came");
    shell.client.room = usize::MAX;
    shell.run();
    assert!(shell.client_got().ends_with("\r\n\r\nok"));
    assert!(shell.client.is_told_end);
}
