//! The machine of a connection, in memory: each arm by a test that is named after its rule.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod closing;
mod draining;
mod identity;
mod own_answers;
mod turns;

use crate::fuzzing::shell::{Shell, config};

/// The shortest request.
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A short response.
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A connection with the usual settings and no PROXY header.
fn shell() -> Shell {
    Shell::new(config())
}

/// The ends in the log.
fn ends(shell: &Shell) -> Vec<String> {
    shell.log().into_iter().map(|logged| format!("{} {}", logged.status, logged.end)).collect()
}
