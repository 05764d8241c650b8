//! The link to the upstream: which address, a fresh connection or one that was kept, and when a request is sent again.

use std::time::Duration;

use super::{GET, OK, body, ends, post, shell, used_shell};
use crate::fuzzing::shell::{Action, address};

#[test]
fn next_address_is_tried_where_one_refuses() {
    let mut shell = shell();
    shell.addresses = Some(vec![address(1), address(2)]);
    shell.refusing = vec![address(1)];
    shell.client_sends(GET);
    assert_eq!((shell.links.len(), shell.links[0].address), (1, address(2)));
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
}

#[test]
fn upstream_that_takes_no_connection_is_502() {
    let mut shell = shell();
    shell.addresses = Some(vec![address(1), address(2)]);
    shell.refusing = vec![address(1), address(2)];
    shell.client_sends(GET);
    assert!(shell.client_got().starts_with("HTTP/1.1 502 "));
    assert_eq!(ends(&shell), ["502 upstream request unreachable"]);
    // The fault is not the client's: it may ask again.
    shell.refusing.clear();
    shell.client_sends(GET);
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
}

#[test]
fn request_whose_body_was_not_read_is_refused_with_the_connection() {
    let mut shell = shell();
    shell.refusing = vec![address(1)];
    shell.client_sends(post(3));
    let answer = shell.client_got();
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("Connection: close\r\n"));
    assert!(shell.client.is_told_end);
}

#[test]
fn name_without_addresses_is_502_and_one_that_nobody_knows_in_time_is_504() {
    let mut shell = shell();
    shell.addresses = Some(vec![]);
    shell.client_sends(GET);
    assert!(shell.client_got().starts_with("HTTP/1.1 502 "));
    assert_eq!(ends(&shell), ["502 upstream request unresolved"]);

    let mut shell = super::shell();
    shell.addresses = None;
    shell.client_sends(GET);
    shell.wait(Duration::from_millis(4_999));
    assert_eq!(shell.client_got(), "");
    shell.wait(Duration::from_millis(1));
    let status = shell.client_got();
    assert!(status.starts_with("HTTP/1.1 50"), "{status}");
    assert_eq!(shell.log().len(), 1);
}

#[test]
fn addresses_share_the_time_to_connect() {
    let mut shell = shell();
    shell.addresses = Some(vec![address(1), address(2)]);
    shell.silent = vec![address(1)];
    shell.client_sends(GET);
    shell.wait(Duration::from_millis(2_499));
    assert_eq!(shell.links.len(), 1);
    shell.wait(Duration::from_millis(1));
    assert_eq!((shell.links.len(), shell.links[1].address), (2, address(2)));
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);

    let mut shell = super::shell();
    shell.silent = vec![address(1)];
    shell.client_sends(GET);
    shell.wait(Duration::from_millis(4_999));
    assert_eq!(shell.client_got(), "");
    shell.wait(Duration::from_millis(1));
    assert!(shell.client_got().starts_with("HTTP/1.1 504 "));
    assert_eq!(ends(&shell), ["504 upstream request timeout"]);
}

#[test]
fn body_that_came_meanwhile_goes_to_the_address_that_takes_it() {
    let mut shell = shell();
    shell.addresses = Some(vec![address(1), address(2)]);
    shell.silent = vec![address(1)];
    shell.client_sends([post(3).as_str(), "abc"].concat());
    shell.wait(Duration::from_secs(3));
    assert_eq!(body(&shell.upstream_got(1)), "abc");
}

#[test]
fn request_that_only_asks_is_sent_again_where_a_used_link_has_ended() {
    for method in ["GET", "HEAD", "OPTIONS"] {
        let mut shell = used_shell();
        shell.client_sends(GET.replace("GET", method));
        let first = shell.upstream_got(0);
        assert!(first.starts_with(method));
        shell.upstream_ends();
        assert!(shell.links[0].is_closed);
        assert_eq!(shell.upstream_got(1), first);
        shell.upstream_sends("HTTP/1.1 204 No\r\n\r\n");
        assert!(shell.client_got().starts_with("HTTP/1.1 204 "));
        assert_eq!(ends(&shell), ["204 upstream response complete"]);
    }
}

#[test]
fn request_that_only_asks_is_sent_again_where_a_used_link_breaks() {
    for in_writing in [true, false] {
        let mut shell = used_shell();
        if in_writing {
            shell.idle().unwrap().takes_nothing = true;
            shell.client_sends(GET);
        } else {
            shell.client_sends(GET);
            shell.link().breaks();
            shell.run();
        }
        assert_eq!(shell.links.len(), 2);
        shell.upstream_sends(OK);
        assert_eq!(shell.client_got(), OK);
    }
}

#[test]
fn request_that_is_sent_again_does_not_go_to_the_link_that_ended() {
    let mut shell = used_shell();
    shell.idle().unwrap().room = 7;
    shell.client_sends(GET);
    shell.link().room = usize::MAX;
    shell.link().ends();
    for action in [Action::ReadUpstream, Action::WriteUpstream] {
        shell.step(action);
    }
    assert_eq!(shell.upstream_got(0), "GET / H");
    shell.run();
    assert!(shell.upstream_got(1).starts_with(GET.trim_end()));
}

#[test]
fn request_is_not_sent_again_over_a_fresh_link_or_behind_a_byte_of_an_answer() {
    let mut shell = shell();
    shell.client_sends(GET);
    shell.upstream_ends();
    assert!(shell.client_got().starts_with("HTTP/1.1 502 "));
    assert_eq!((shell.links.len(), ends(&shell)), (1, vec!["502 upstream request closed".into()]));

    let mut shell = used_shell();
    shell.client_sends(GET);
    shell.upstream_sends("H");
    shell.upstream_ends();
    assert!(shell.client_got().starts_with("HTTP/1.1 502 "));
    assert_eq!(shell.links.len(), 1);

    // The second link was fresh.
    let mut shell = used_shell();
    shell.client_sends(GET);
    shell.upstream_ends();
    shell.upstream_ends();
    assert!(shell.client_got().starts_with("HTTP/1.1 502 "));
    assert_eq!(shell.links.len(), 2);
}

#[test]
fn request_that_may_have_been_read_is_not_sent_again() {
    for request in [post(3) + "abc", post(0), GET.replace("GET", "DELETE")] {
        let mut shell = used_shell();
        shell.client_sends(&request);
        assert!(!shell.upstream_got(0).is_empty());
        shell.upstream_ends();
        assert!(shell.client_got().starts_with("HTTP/1.1 502 "), "{request:?}");
        assert_eq!(shell.links.len(), 1);
    }
}

#[test]
fn request_that_was_provably_not_read_is_sent_again() {
    let mut shell = used_shell();
    shell.idle().unwrap().takes_nothing = true;
    shell.client_sends([post(3).as_str(), "abc"].concat());
    assert_eq!(shell.links.len(), 2);
    assert_eq!(body(&shell.upstream_got(1)), "abc");
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
}

#[test]
fn second_connection_has_the_whole_time_to_connect() {
    let mut shell = used_shell();
    shell.client_sends(GET);
    shell.silent = vec![address(1)];
    // The time of the first one does not count.
    shell.wait(Duration::from_secs(9));
    shell.upstream_ends();
    assert_eq!(shell.links.len(), 2);
    shell.wait(Duration::from_millis(4_999));
    assert_eq!(shell.client_got(), "");
    shell.link().room = usize::MAX;
    shell.run();
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
}

#[test]
fn idle_link_that_ended_or_sent_something_is_not_used() {
    for sends in [true, false] {
        let mut shell = used_shell();
        let idle = shell.idle().unwrap();
        if sends {
            idle.sends(OK.as_bytes());
        } else {
            idle.ends();
        }
        shell.client_sends(GET);
        assert_eq!(shell.links.len(), 2);
        assert_eq!(shell.client_got(), "", "what nobody asked for is not an answer");
        shell.upstream_sends(OK);
        assert_eq!(shell.client_got(), OK);
    }
}

/// A connection in front of three endpoints, and `UPSTREAM_TRIES`.
fn shell_of_three(tries: u32) -> crate::fuzzing::shell::Shell {
    let config = crate::config::Config { upstream_tries: tries, ..crate::fuzzing::shell::config() };
    let mut shell = crate::fuzzing::shell::Shell::new(config);
    shell.addresses = Some(vec![address(1), address(2), address(3)]);
    shell
}

#[test]
fn request_that_only_asks_goes_to_another_endpoint_where_one_closes_without_an_answer() {
    let handshake =
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    for (request, breaks) in [(GET, false), (GET, true), (handshake, false), (handshake, true)] {
        let mut shell = shell_of_three(2);
        shell.client_sends(request);
        let first = shell.upstream_got(0);
        if breaks {
            shell.link().breaks();
            shell.run();
        } else {
            shell.upstream_ends();
        }
        assert!(shell.links[0].is_closed);
        assert_eq!((shell.links.len(), shell.links[1].address), (2, address(2)));
        assert_eq!(shell.upstream_got(1), first, "the whole of it");
        shell.upstream_sends(OK);
        assert_eq!(shell.client_got(), OK);
        assert_eq!(ends(&shell), ["200 upstream response complete"]);
    }
}

#[test]
fn no_more_endpoints_are_asked_than_upstream_tries_says() {
    for (tries, asked) in [(1, 1), (2, 2), (3, 3), (10, 3)] {
        let mut shell = shell_of_three(tries);
        shell.client_sends(GET);
        for number in 0..asked {
            assert!(!shell.upstream_got(number).is_empty());
            shell.upstream_ends();
        }
        assert_eq!(shell.links.len(), asked);
        assert!(shell.client_got().starts_with("HTTP/1.1 502 "));
        assert_eq!(ends(&shell), ["502 upstream request closed"]);
    }
}

#[test]
fn one_that_takes_no_connection_is_no_try() {
    let mut shell = shell_of_three(2);
    shell.refusing = vec![address(2)];
    shell.client_sends(GET);
    shell.upstream_ends();
    assert_eq!((shell.links.len(), shell.links[1].address), (2, address(3)));
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
}

#[test]
fn what_may_have_been_done_and_what_was_answered_in_part_goes_nowhere_else() {
    for request in [post(3) + "abc", post(3), post(0), GET.replace("GET", "DELETE")] {
        let mut shell = shell_of_three(3);
        shell.client_sends(&request);
        assert!(!shell.upstream_got(0).is_empty());
        shell.upstream_ends();
        assert!(shell.client_got().starts_with("HTTP/1.1 502 "), "{request:?}");
        assert_eq!(shell.links.len(), 1);
    }
    for part in ["H", "HTTP/1.1 103 Early\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"]
    {
        let mut shell = shell_of_three(3);
        shell.client_sends(GET);
        shell.upstream_sends(part);
        shell.upstream_ends();
        assert_eq!(shell.links.len(), 1, "{part:?}");
    }
    // One that says nothing in its time has had it: nobody waits once more.
    let mut shell = shell_of_three(3);
    shell.client_sends(GET);
    shell.wait(Duration::from_secs(60));
    assert!(shell.client_got().starts_with("HTTP/1.1 504 "));
    assert_eq!(shell.links.len(), 1);
}

#[test]
fn link_that_was_kept_is_tried_afresh_before_another_endpoint_is() {
    let mut shell = shell_of_three(2);
    shell.client_sends(GET);
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
    shell.client_sends(GET);
    for expected in [1, 2] {
        shell.upstream_ends();
        assert_eq!(shell.links.last().unwrap().address, address(expected));
    }
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
    assert_eq!(shell.links.len(), 3);
}
