//! How long each test took, for `cargo xtask test` to say which are the slowest: libtest does not tell.
//!
//! What nearly every test of a suite begins with calls [`count_this_test`]; the time ends with the test's thread.

use std::cell::OnceCell;
use std::env;
use std::thread;
use std::time::Instant;

use crate::append;

/// Names the file that collects the times, one line a test: milliseconds and name.
pub const LIST: &str = "ELBOWS_TEST_TIMES";

struct Started {
    at: Instant,
    test: String,
}

impl Drop for Started {
    fn drop(&mut self) {
        let Some(list) = env::var_os(LIST) else { return };
        let line = format!("{} {}\n", self.at.elapsed().as_millis(), self.test);
        // A time that cannot be kept is no fault of what was tested.
        let _ = append(list.as_ref(), &line);
    }
}

thread_local! {
    static STARTED: OnceCell<Started> = const { OnceCell::new() };
}

/// The time of the test on this thread counts from the first call to the end of the thread.
pub fn count_this_test() {
    // Threads that a test starts have no name, or one that is no path of modules.
    let current = thread::current();
    let Some(test) = current.name().filter(|name| name.contains("::")) else { return };
    STARTED.with(|started| {
        started.get_or_init(|| Started { at: Instant::now(), test: test.to_owned() });
    });
}
