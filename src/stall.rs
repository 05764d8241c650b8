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
    /// The kernel took bytes that it had not asked for, and may take more of which it will not tell.
    offers: bool,
}

impl StallWatch {
    /// Bytes may wait for `limit`; `stalled` tells that they did.
    pub(crate) const fn new(limit: Duration, stalled: Stalled) -> Self {
        Self { limit, stalled, over: None, offers: false }
    }

    /// What a write of `bytes` comes to: itself, or an error (`TimedOut`) when its time is over.
    ///
    /// The kernel says that there is room again when a third of its buffer is, which can be a megabyte:
    /// a slow reader needs longer for that. So before a side is given up, it is offered the bytes once
    /// more: it may have taken some. If it does take them, it is offered what follows as well, until it is full: its
    /// buffer may just have grown, and whoever fills that in small pieces, one each time, does not stall for long.
    pub(crate) fn watch(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
        socket: &TcpStream,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.over = None;
            self.offers = false;
            self.note(&written);
            return written;
        }
        if self.offers {
            if let Some(sent) = offer(socket, bytes).map(Poll::Ready) {
                self.note(&sent);
                return sent;
            }
            self.offers = false;
        }
        let limit = self.limit;
        let over = self.over.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(over.as_mut().poll(cx));
        self.over = None;
        if let Some(sent) = offer(socket, bytes).map(Poll::Ready) {
            self.offers = true;
            self.note(&sent);
            return sent;
        }
        self.stalled.0.store(true, Ordering::Relaxed);
        // A reset, so that what it got does not look like all there is (to HTTP/1.0 the end of the
        // connection is the end of the body), and the kernel keeps nothing for it.
        let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
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

/// Writes, whether or not the kernel has said that there is room. None: there is none.
fn offer(socket: &TcpStream, bytes: &[u8]) -> Option<io::Result<usize>> {
    match SockRef::from(socket).send(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        sent => Some(sent),
    }
}

/// The first of them that is not empty.
pub(crate) fn first_of<'a>(slices: &'a [IoSlice<'_>]) -> &'a [u8] {
    slices.iter().find(|slice| !slice.is_empty()).map_or(&[], |slice| slice)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::future::poll_fn;
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn room_that_the_kernel_does_not_tell_of_is_filled_before_a_side_is_given_up() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_reads_nothing, _) = listener.accept().await.unwrap();
        let stalled = Stalled::default();
        let mut watch = StallWatch::new(Duration::from_millis(20), stalled.clone());
        // Never is there room, as far as its user is told.
        let bytes = [7; 16 * 1024];
        let mut offer = |cx: &mut Context<'_>| watch.watch(cx, Poll::Pending, &socket, &bytes);
        assert!(poll_fn(&mut offer).await.unwrap() > 0, "it takes some when its time is over");
        // What follows is offered at once.
        let mut pieces = 0;
        while let Poll::Ready(sent) = poll_fn(|cx| Poll::Ready(offer(cx))).await {
            sent.unwrap();
            pieces += 1;
        }
        assert!(pieces > 3, "{pieces}: there was room for more");
        // The buffer may have grown by then.
        let error = loop {
            if let Err(error) = poll_fn(&mut offer).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(stalled.is_so());
    }
}
