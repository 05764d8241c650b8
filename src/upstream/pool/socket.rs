//! A socket of the pool, as hyper reads and writes it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::link::{Driver, Written};
use crate::stall::{StallWatch, Stalled, first_of};

/// A socket of the pool.
///
/// An upstream may answer and close before it has read the whole request (413, 401). The next write
/// then fails, and hyper would give up the connection with the answer still unread in it. So a write
/// that fails is not told: it stays pending, and reading tells what there is, the answer or the end.
#[derive(Debug)]
pub(super) struct PooledSocket {
    socket: TokioIo<TcpStream>,
    endpoint: SocketAddr,
    /// Who is told of what the kernel has, whoever hyper would tell.
    driver: Arc<Driver>,
    /// A write failed; nothing more can be sent.
    deaf: bool,
    stalls: StallWatch,
    stalled: Stalled,
}

impl PooledSocket {
    pub(super) fn new(
        socket: TcpStream,
        endpoint: SocketAddr,
        driver: Arc<Driver>,
        stalls: StallWatch,
        stalled: Stalled,
    ) -> Self {
        Self { socket: TokioIo::new(socket), endpoint, driver, deaf: false, stalls, stalled }
    }

    fn write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.written(cx, polled, first_of(slices))
    }

    fn written(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = self.stalls.watch(cx, polled, self.socket.inner(), bytes);
        if self.stalled.is_so() {
            // It lives and does not read. What it may still say is not waited for.
            return polled;
        }
        if let Poll::Ready(Err(error)) = polled {
            tracing::debug!(upstream = %self.endpoint, "it reads no more: {error}");
            self.deaf = true;
            // The end of the connection wakes the reader, and with it the whole connection.
            return Poll::Pending;
        }
        polled
    }
}

impl Read for PooledSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let task = this.driver.task();
        let read = Pin::new(&mut this.socket).poll_read(&mut Context::from_waker(&task), buffer);
        this.stalls.note(&read);
        read
    }
}

impl Write for PooledSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.deaf {
            return Poll::Pending;
        }
        let driver = Arc::clone(&this.driver);
        let task = driver.task();
        let cx = &mut Context::from_waker(&task);
        let mut written = driver.written();
        match &mut *written {
            Written::Kept(head) if head.is_empty() => {
                // A head is written in one go; what the kernel does not take comes again.
                for slice in slices {
                    head.extend_from_slice(slice);
                }
            }
            Written::Replaced(head) => {
                while !head.is_empty() {
                    let count = ready!(this.write(cx, &[io::IoSlice::new(head)]))?;
                    head.drain(..count.min(head.len()));
                }
                *written = Written::Passed;
                return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
            }
            Written::Kept(_) | Written::Passed => {}
        }
        drop(written);
        this.write(cx, slices)
    }
}
