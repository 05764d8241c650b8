//! From when ticks and stamps are counted: one moment for the process, so that a tunnel can go from one worker to
//! another; and for all processes that it is handed to, so that its times go on there.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static START: OnceLock<Instant> = OnceLock::new();

/// Has ticks and stamps count from `start`, a moment of the process that hands its tunnels over. To be called before
/// there is a worker. False: it is too late, something has been counted already.
#[must_use]
pub fn count_from(start: Instant) -> bool {
    START.set(start).is_ok()
}

/// From when ticks and stamps count.
#[must_use]
pub fn start() -> Instant {
    *START.get_or_init(Instant::now)
}

/// Time since the start of the count.
pub(crate) fn elapsed() -> Duration {
    start().elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_does_not_begin_anew() {
        let begun = start();
        assert!(!count_from(begun + Duration::from_secs(1)));
        assert_eq!(start(), begun);
    }
}
