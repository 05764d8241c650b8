//! Panics: mistakes of elbows itself. Each ends the one connection or task in which it happened, is counted, and is
//! told in the log.
//!
//! Lints keep the usual causes out (`unwrap`, unchecked indices, `panic!`), so that none is expected.
//! Where one happens all the same, the worker catches it around the turn of a connection or of a tunnel, and tokio
//! around a task of control: a request to the admin or the health port, a question to the resolver, a handoff. What is
//! here is only the telling, by a hook that knows of each of them wherever it is caught: the hook of the standard
//! library would wait for whoever reads standard error.

use std::panic;
use std::thread;

use crate::metrics::Counter;

static PANICS: Counter = Counter::new();

/// From now on panics are counted and logged, wherever in the process they happen.
pub fn install() {
    panic::set_hook(Box::new(|panic| {
        PANICS.add(1);
        let thread = thread::current();
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            "a mistake of elbows, please report it: panic in thread {} at {place}: {}",
            thread.name().unwrap_or("without name"),
            text.unwrap_or("no text"),
        );
    }));
}

/// How many there were, with those of the processes before this one.
#[must_use]
pub fn count() -> u64 {
    PANICS.get()
}

/// How many there were in this process.
#[must_use]
pub fn here() -> u64 {
    PANICS.here()
}

/// Adds those of another process.
pub(crate) fn add_elsewhere(number: u64) {
    PANICS.add_elsewhere(number);
}
