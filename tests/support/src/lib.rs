//! What the tests of several modules and packages need, once: for `[dev-dependencies]`, and for programs that tests alone start.
//!
//! Nothing here knows elbows, so that the library's own tests can use it as well. Each module has its topic:
//! frames of WebSockets, lines of the log, what the kernel says of a process, and the list of tests that were left
//! out. A function that meets what it did not expect panics and says what that was: it is a part of a test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::must_use_candidate
)]

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

pub mod frames;
pub mod left_out;
pub mod log_line;
pub mod process;
pub mod times;

/// Appends a line to a list that several tests write at once: in one write, so that no two lines mix.
fn append(list: &Path, line: &str) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).open(list)?.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::{env, fs};

    use super::*;

    /// Set by the test that starts the other.
    const STARTED: &str = "TEST_SUPPORT_STARTED";

    /// Not a test but what the next one starts.
    #[test]
    fn test_that_is_left_out() {
        if env::var_os(STARTED).is_some() {
            times::count_this_test();
            left_out::left_out("it is too dark");
        }
    }

    #[test]
    fn what_is_left_out_is_in_the_list_and_what_took_time_in_the_other() {
        let (lists, pid) = (env::temp_dir(), std::process::id());
        let [unheld, took] =
            ["left-out", "times"].map(|name| lists.join(format!("test-support-{name}-{pid}")));
        let test = "tests::test_that_is_left_out";
        let ended = Command::new(env::current_exe().unwrap())
            .args(["--exact", test])
            .env(STARTED, "1")
            .env(left_out::LIST, &unheld)
            .env(times::LIST, &took)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(said.contains(&format!("left out: {test}: it is too dark")), "{ended:?}");
        let listed = [&unheld, &took].map(|list| fs::read_to_string(list).unwrap());
        for list in [unheld, took] {
            fs::remove_file(list).unwrap();
        }
        assert_eq!(listed[0], format!("{test}: it is too dark\n"));
        let (milliseconds, named) = listed[1].trim().split_once(' ').unwrap();
        assert_eq!((milliseconds.parse::<u64>().is_ok(), named), (true, test));
    }
}
