//! The cookie that keeps a client at its endpoint: which responses set it.

use super::{GET, OK};
use crate::config::{Config, Sticky};
use crate::fuzzing::shell::{Shell, address, config};

const LINE: &str = "Set-Cookie: seat=0123456789abcdef; Path=/; HttpOnly; SameSite=Lax\r\n";

fn sticky_shell() -> Shell {
    Shell::new(Config { sticky: Sticky::Cookie("seat".to_owned()), ..config() })
}

#[test]
fn each_final_response_sets_it_where_the_request_brought_none() {
    for status in ["200 OK", "404 Not Found", "500 Oops"] {
        let mut shell = sticky_shell();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        for _ in 0..2 {
            shell.client_sends(GET);
            shell.upstream_sends(&answer);
            let expected = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n{LINE}\r\n");
            assert_eq!(shell.client_got(), expected);
        }
        shell.client_sends(
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b; seat=0000000000000007\r\n\r\n",
        );
        shell.upstream_sends(&answer);
        assert_eq!(shell.client_got(), answer);
        let last = shell.links.len() - 1;
        let passed = shell.upstream_got(last);
        assert!(passed.contains("\r\nCookie: a=b; seat=0000000000000007\r\n"), "{passed}");
    }
}

#[test]
fn cookie_of_the_application_stays_beside_it() {
    let mut shell = sticky_shell();
    shell.client_sends(GET);
    shell.upstream_sends("HTTP/1.1 204 No\r\nSet-Cookie: session=1\r\n\r\n");
    let expected = format!("HTTP/1.1 204 No\r\nSet-Cookie: session=1\r\n{LINE}\r\n");
    assert_eq!(shell.client_got(), expected);
}

#[test]
fn interim_response_does_not_set_it_and_a_101_does() {
    let mut shell = sticky_shell();
    shell.client_sends(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    shell.upstream_sends("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    assert_eq!(shell.client_got(), "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    shell.upstream_sends("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let expected =
        format!("HTTP/1.1 101 S\r\n{LINE}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(shell.client_got(), expected);
    assert!(shell.tunnel.is_some());
}

#[test]
fn answer_of_elbows_sets_none() {
    let mut shell = sticky_shell();
    shell.refusing = vec![address(1)];
    shell.client_sends(GET);
    let answer = shell.client_got();
    assert!(answer.starts_with("HTTP/1.1 502 ") && !answer.contains("Set-Cookie"), "{answer}");
    shell.client_sends("GET /ping HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = shell.client_got();
    assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("Set-Cookie"), "{answer}");
}

#[test]
fn no_other_way_sets_one() {
    for sticky in [Sticky::Off, Sticky::Client, Sticky::Path] {
        let mut shell = Shell::new(Config { sticky, ..config() });
        shell.client_sends(GET);
        shell.upstream_sends(OK);
        assert_eq!(shell.client_got(), OK);
    }
}
