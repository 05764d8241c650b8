//! Tests that cannot be held on this machine, or not in this run. None of them passes in silence.
//!
//! A test that finds that something is missing which only the machine can give (a kernel with Landlock, the right to
//! make namespaces), or time that was not given, says so here and ends. What `cargo xtask test` installs is never
//! such a thing: where that is missing, the test fails.

use std::env;
use std::io::{self, Write};
use std::thread;

use crate::append;

/// Names the file that collects what was left out; `cargo xtask test` sets it and lists it at its end.
pub const LIST: &str = "ELBOWS_TEST_LEFT_OUT";

/// Set where there is time: for tests that wait for minutes.
pub const LONG: &str = "ELBOWS_TEST_LONG";

/// Says that the test which calls this, or a part of it, is left out, and why.
pub fn left_out(why: &str) {
    let thread = thread::current();
    let line = format!("{}: {why}\n", thread.name().unwrap_or("a test"));
    // Written past libtest, which would show it only if the test failed.
    let _ = io::stderr().write_all(format!("left out: {line}").as_bytes());
    if let Some(list) = env::var_os(LIST) {
        append(list.as_ref(), &line).unwrap_or_else(|error| panic!("{}: {error}", list.display()));
    }
}

/// Whether there is time for a test that takes minutes. If not, it is left out.
pub fn is_long_run(takes: &str) -> bool {
    let is_long = env::var_os(LONG).is_some();
    if !is_long {
        left_out(&format!("it takes {takes}; `cargo xtask test --long` has the time"));
    }
    is_long
}
