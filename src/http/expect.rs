//! `Expect: 100-continue` (RFC 9110, section 10.1.1).
//!
//! The expectation goes to the upstream with the head, and the body is not asked for until the
//! upstream has said 100. hyper's server sends the client its 100 when the body is first read, so
//! holding the body back is all that is needed: the upstream decides, and the client learns of it.
//!
//! An upstream that answers for good without a 100 does without the body. The client is told to
//! close, since nobody can know whether it will send the body all the same.
//!
//! An upgrade with a body that expects is the exception: its body passes at once. HTTP/1.0 knows of no expectation, so
//! one there is none.

use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::header::EXPECT;
use http::{HeaderMap, Request, Version};

/// After this the body is sent anyway, as curl does: not every upstream knows of expectations.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Between a request body and the upstream: shut until the upstream has said 100.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: AtomicU8,
    waiting: AtomicWaker,
}

const SHUT: u8 = 0;
const OPEN: u8 = 1;
const GIVEN_UP: u8 = 2;

/// The body will never be asked for.
#[derive(Debug)]
pub(super) struct GivenUp;

impl Gate {
    /// The body may pass.
    pub(super) fn open(&self) {
        self.leave_shut(OPEN);
    }

    /// The body is not wanted, unless it passes already.
    pub(super) fn give_up(&self) {
        self.leave_shut(GIVEN_UP);
    }

    pub(super) fn is_shut(&self) -> bool {
        self.state.load(Ordering::Acquire) == SHUT
    }

    pub(super) fn poll_open(&self, cx: &Context<'_>) -> Poll<Result<(), GivenUp>> {
        // Registered before the look, so that a change in between is not missed.
        self.waiting.register(cx.waker());
        match self.state.load(Ordering::Acquire) {
            SHUT => Poll::Pending,
            OPEN => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err(GivenUp)),
        }
    }

    fn leave_shut(&self, state: u8) {
        let _ = self.state.compare_exchange(SHUT, state, Ordering::AcqRel, Ordering::Acquire);
        self.waiting.wake();
    }
}

/// Removes an expectation from a request of HTTP/1.0, for the upstream gets HTTP/1.1, where it has a meaning.
pub(super) fn ignore_in_http_10<B>(request: &mut Request<B>) {
    if request.version() == Version::HTTP_10 {
        request.headers_mut().remove(EXPECT);
    }
}

/// Whether a request with these fields waits for 100 before it sends its body.
pub(super) fn is_expected(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
