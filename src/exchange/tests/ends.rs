//! Bodies that end before their time, and how each side sees it (DESIGN: what came arrives first).

use super::{GET, OK, body, ends, post, shell};
use crate::fuzzing::decode;

#[test]
fn cut_response_is_delivered_in_full_and_then_the_cut_shows() {
    for together in [true, false] {
        for (head, came, delivered) in [
            ("Content-Length: 9", "abc", "abc"),
            ("Transfer-Encoding: chunked", "3\r\nabc\r\n4\r\nde", "3\r\nabc\r\n2\r\nde\r\n"),
        ] {
            let mut shell = shell();
            shell.client_sends(GET);
            let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
            if together {
                shell.link().sends(format!("{head}{came}").as_bytes());
            } else {
                for part in [head.as_str(), &came[..4.min(came.len())], &came[4.min(came.len())..]]
                {
                    shell.upstream_sends(part);
                }
            }
            shell.upstream_ends();
            let answer = shell.client_got();
            if together {
                let one = delivered.replace("3\r\nabc\r\n2\r\nde", "5\r\nabcde");
                assert_eq!(body(&answer), one);
            } else {
                assert!(!body(&answer).contains("0\r\n\r\n"));
            }
            // A short body tells: there is no need to reset.
            assert!(shell.client.is_told_end);
            assert_eq!(ends(&shell), ["200 upstream response closed"]);
        }
    }
}

#[test]
fn body_until_the_close_ends_well_with_an_end_and_badly_with_a_reset() {
    for is_broken in [true, false] {
        let mut shell = shell();
        shell.client_sends(GET);
        shell.upstream_sends("HTTP/1.1 200 OK\r\n\r\nabc");
        if is_broken {
            shell.link().breaks();
        } else {
            shell.link().ends();
        }
        shell.run();
        let decoded = decode::chunks(body(&shell.client_got()).as_bytes());
        assert_eq!((&decoded.data[..], decoded.is_whole), (&b"abc"[..], !is_broken));
        assert_eq!(shell.client.is_told_end, is_broken, "chunks leave the connection open");
        let end = if is_broken {
            "200 upstream response closed"
        } else {
            "200 upstream response complete"
        };
        assert_eq!(ends(&shell), [end]);
    }
}

#[test]
fn http_10_sees_a_cut_only_as_a_reset() {
    for (head, is_broken, rest) in [
        ("", false, "abc"),
        ("", true, "abc"),
        ("Transfer-Encoding: chunked\r\n", false, "3\r\nabc\r\n"),
        ("Transfer-Encoding: chunked\r\n", true, "3\r\nabc\r\n0\r\n\r\n"),
    ] {
        let mut shell = shell();
        shell.client_sends("GET / HTTP/1.0\r\n\r\n");
        let link = shell.link();
        link.sends(format!("HTTP/1.1 200 OK\r\n{head}\r\n{rest}").as_bytes());
        if is_broken {
            link.breaks();
        } else {
            link.ends();
        }
        shell.run();
        let answer = shell.client_got();
        assert_eq!(body(&answer), "abc");
        assert!(answer.contains("Connection: close\r\n") && !answer.contains("chunked"));
        let is_whole = rest.ends_with("0\r\n\r\n") || head.is_empty() && !is_broken;
        assert_eq!(shell.client.is_told_end, is_whole, "{head:?} {is_broken}");
        shell.wait(std::time::Duration::from_secs(2));
        assert_eq!(shell.over, Some(!is_whole));
    }
}

#[test]
fn broken_framing_of_a_response_is_a_cut_behind_what_came() {
    for piece in [1, usize::MAX] {
        let mut shell = shell();
        shell.client_sends(GET);
        shell.link().piece = piece;
        shell.upstream_sends("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxxx__");
        let decoded = decode::chunks(body(&shell.client_got()).as_bytes());
        assert_eq!((&decoded.data[..], decoded.is_whole), (&b"xxx"[..], false));
        assert!(shell.client.is_told_end && shell.links[0].is_closed);
        assert_eq!(ends(&shell), ["200 upstream response malformed"]);
    }
}

#[test]
fn response_that_breaks_a_rule_is_502() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "SSH-2.0-x\r\n",
    ] {
        for piece in [1, usize::MAX] {
            let mut shell = shell();
            shell.client_sends(GET);
            shell.link().piece = piece;
            shell.upstream_sends(response);
            assert!(shell.client_got().starts_with("HTTP/1.1 502 "), "{response:?}");
            assert_eq!(ends(&shell), ["502 upstream request malformed"]);
            assert!(shell.links[0].is_closed && !shell.client.is_told_end);
        }
    }
}

#[test]
fn request_body_that_is_cut_gets_400_and_ends_the_link() {
    for (head, came) in
        [("Content-Length: 9", "abc"), ("Transfer-Encoding: chunked", "3\r\nabc\r\n")]
    {
        let mut shell = shell();
        shell.client_sends(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n{came}"));
        shell.client_ends();
        assert!(shell.client_got().starts_with("HTTP/1.1 400 "));
        assert_eq!(body(&shell.upstream_got(0)), came);
        assert!(shell.links[0].is_closed);
        assert_eq!(shell.over, Some(false));
        assert_eq!(ends(&shell), ["400 client request closed"]);
    }
}

#[test]
fn what_came_of_a_cut_request_body_arrives_at_a_slow_upstream() {
    let mut shell = shell();
    shell.client_sends(post(9));
    shell.link().room = 0;
    shell.client_sends("abc");
    shell.client_ends();
    shell.links[0].peer.room = usize::MAX;
    shell.run();
    assert_eq!(body(&shell.upstream_got(0)), "abc");
    shell.wait(std::time::Duration::from_secs(120));
    assert_eq!(ends(&shell), ["400 client request closed"]);
}

#[test]
fn broken_framing_of_a_request_gets_400() {
    for piece in [1, usize::MAX] {
        let mut shell = shell();
        shell.client.piece = piece;
        shell.client_sends(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxxx__",
        );
        assert!(shell.client_got().starts_with("HTTP/1.1 400 "));
        assert!(shell.client.is_told_end);
        assert_eq!(ends(&shell), ["400 client request malformed"]);
    }
}

#[test]
fn request_body_that_becomes_too_long_gets_413() {
    let config =
        crate::config::Config { max_body_size: Some(4), ..crate::fuzzing::shell::config() };
    let mut shell = crate::fuzzing::shell::Shell::new(config);
    shell.client_sends(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nxxxx\r\n",
    );
    assert_eq!(shell.client_got(), "");
    shell.client_sends("1\r\nx\r\n0\r\n\r\n");
    assert!(shell.client_got().starts_with("HTTP/1.1 413 "));
    assert!(shell.links[0].is_closed && shell.client.is_told_end);
    assert_eq!(ends(&shell), ["413 client request too_big"]);
}

#[test]
fn client_that_leaves_is_logged_and_the_link_is_closed() {
    for (response, end) in [
        ("", "0 client request closed"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "200 client response closed"),
    ] {
        for is_broken in [true, false] {
            let mut shell = shell();
            shell.client_sends(GET);
            shell.upstream_sends(response);
            if is_broken {
                shell.client.breaks();
            } else {
                shell.client.ends();
            }
            shell.run();
            assert_eq!(shell.over, Some(false));
            assert!(shell.links[0].is_closed);
            assert_eq!(ends(&shell), [end]);
        }
    }
}

#[test]
fn client_that_takes_no_more_is_given_up() {
    let mut shell = shell();
    shell.client_sends(GET);
    shell.client.takes_nothing = true;
    shell.upstream_sends(OK);
    assert_eq!(shell.over, Some(false));

    let mut shell = super::shell();
    shell.client_sends(GET);
    shell.client.room = 0;
    shell.upstream_sends("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
    shell.wait(std::time::Duration::from_secs(60));
    assert_eq!(shell.over, Some(true));
    assert_eq!(ends(&shell), ["200 client response stalled"]);
}
