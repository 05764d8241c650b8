//! Exchanges, in memory: each arm by a test that is named after its rule.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod any_course;
mod early_answers;
mod ends;
mod interim;
mod links;
mod sticky;
mod times;
mod upgrades;

use crate::fuzzing::shell::{Shell, config};

/// The shortest request.
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A short response.
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A connection with the usual settings and no PROXY header.
fn shell() -> Shell {
    Shell::new(config())
}

/// A connection whose link to the upstream has been used before.
fn used_shell() -> Shell {
    let mut shell = shell();
    shell.client_sends(GET);
    shell.upstream_sends(OK);
    assert_eq!(shell.client_got(), OK);
    shell.upstream_got(0);
    assert_eq!(shell.log().len(), 1);
    shell
}

/// A request with a body of this length, without the body.
fn post(length: usize) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
}

/// The ends in the log.
fn ends(shell: &Shell) -> Vec<String> {
    shell.log().into_iter().map(|logged| format!("{} {}", logged.status, logged.end)).collect()
}

/// What is behind the first empty line.
fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").unwrap().1
}
