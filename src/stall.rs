//! How long bytes may wait for a side that takes none: `STALL_TIMEOUT`, for the sockets of the front.
//!
//! The relay has the same rule for tunnels. Here it sits where hyper writes: what cannot be written
//! starts a clock, what is written stops it.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// Whether a side took nothing for too long. Clones tell of the same side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stalled(Arc<AtomicBool>);

impl Stalled {
    pub(crate) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Watches the writes to one socket.
#[derive(Debug)]
pub(crate) struct StallWatch {
    limit: Duration,
    stalled: Stalled,
    /// Set while bytes wait.
    over: Option<Pin<Box<Sleep>>>,
}

impl StallWatch {
    /// Bytes may wait for `limit`; `stalled` tells that they did.
    pub(crate) const fn new(limit: Duration, stalled: Stalled) -> Self {
        Self { limit, stalled, over: None }
    }

    /// What a write of `bytes` comes to: itself, or an error (`TimedOut`) when its time is over.
    ///
    /// The kernel says that there is room again when a third of its buffer is, which can be a megabyte:
    /// a slow reader needs longer for that. So before a side is given up, it is offered the bytes once
    /// more: it may have taken some.
    pub(crate) fn watch(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
        socket: &TcpStream,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.over = None;
            self.note(&written);
            return written;
        }
        let limit = self.limit;
        let over = self.over.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(over.as_mut().poll(cx));
        self.over = None;
        match SockRef::from(socket).send(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.stalled.0.store(true, Ordering::Relaxed);
                // A reset, so that what it got does not look like all there is (to HTTP/1.0 the end of
                // the connection is the end of the body), and the kernel keeps nothing for it.
                let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            sent => Poll::Ready(sent),
        }
    }

    /// The kernel gives up a side as well: one that acknowledges nothing (see [`crate::socket::tune`]).
    pub(crate) fn note<T>(&self, done: &Poll<io::Result<T>>) {
        if let Poll::Ready(Err(error)) = done
            && error.kind() == io::ErrorKind::TimedOut
        {
            self.stalled.0.store(true, Ordering::Relaxed);
        }
    }
}

/// The first of them that is not empty.
pub(crate) fn first_of<'a>(slices: &'a [IoSlice<'_>]) -> &'a [u8] {
    slices.iter().find(|slice| !slice.is_empty()).map_or(&[], |slice| slice)
}
