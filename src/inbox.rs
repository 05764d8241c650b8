//! A socket and the bytes already read from it but not yet used.
//!
//! Whoever reads ahead (the PROXY header, a request head) leaves the rest here, and the next reader
//! gets it first. One inbox is passed from stage to stage, so that no byte of a connection is lost
//! between them.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

use crate::stall::{StallWatch, Stalled, first_of};

/// How long a connection that we end is read on, at most. A socket that is closed with bytes unread
/// resets the connection, and a reset can overtake the answer on its way to who still sends
/// (RFC 9112, section 9.6). Whoever has its answer closes; nobody else is worth more time.
const LINGER: Duration = Duration::from_secs(1);

/// The most that is read at once.
const ROOM: usize = 16 * 1024;

/// A socket and its unread bytes.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) socket: TokioIo<TcpStream>,
    /// Served before anything else is read.
    pub(crate) unread: BytesMut,
    /// Set when our end of the connection has been closed: until then the other is read on.
    closing: Option<Pin<Box<Sleep>>>,
    stalls: Option<StallWatch>,
}

impl Inbox {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self { socket: TokioIo::new(socket), unread: BytesMut::new(), closing: None, stalls: None }
    }

    /// From now on bytes wait for the other side for `limit` at most; `stalled` tells that they did.
    pub(crate) fn limit_stalls(&mut self, limit: Duration, stalled: Stalled) {
        self.stalls = Some(StallWatch::new(limit, stalled));
    }

    /// Reads what has come, behind what is unread: how many bytes, none at the end.
    pub(crate) async fn read(&mut self) -> std::io::Result<usize> {
        poll_fn(|cx| self.poll_some(cx)).await
    }

    /// The same, polled. Memory is taken for what has come and none while it is waited for. A message that
    /// came in one piece goes on in one: there are applications that take its first piece for all.
    pub(crate) fn poll_some(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let mut room = [MaybeUninit::uninit(); ROOM];
        let mut buffer = ReadBuf::uninit(&mut room);
        let read = Pin::new(self.socket.inner_mut()).poll_read(cx, &mut buffer);
        self.unread.extend_from_slice(buffer.filled());
        self.noted(read.map_ok(|()| buffer.filled().len()))
    }

    /// The same where much is to come.
    pub(crate) fn poll_much(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        // What room there is does, unless it is little.
        if self.unread.capacity() - self.unread.len() < ROOM / 4 {
            self.unread.reserve(ROOM);
        }
        let read = pin!(self.socket.inner_mut().read_buf(&mut self.unread)).poll(cx);
        self.noted(read)
    }

    fn noted<T>(&self, read: Poll<std::io::Result<T>>) -> Poll<std::io::Result<T>> {
        if let Some(stalls) = &self.stalls {
            stalls.note(&read);
        }
        read
    }

    /// Gives so many of the unread bytes to who asks.
    pub(crate) fn hand_out(&mut self, length: usize, buffer: &mut ReadBufCursor<'_>) {
        let length = length.min(self.unread.remaining());
        // Not split off: two parts of one buffer would have to know of each other.
        buffer.put_slice(self.unread.get(..length).unwrap_or_default());
        self.unread.advance(length);
        if self.unread.is_empty() {
            // Give the memory back: a connection lives longer than its first bytes.
            self.unread = BytesMut::new();
        }
    }

    /// Holds no more memory than what is unread needs.
    pub(crate) fn shrink(&mut self) {
        self.unread = BytesMut::from(self.unread.as_ref());
    }

    /// Sends the last words, and closes so that they arrive.
    pub(crate) async fn answer_and_close(mut self, words: &[u8]) {
        // Who has left gets no answer, and who takes nothing neither.
        let _ = timeout(LINGER, self.socket.inner_mut().write_all(words)).await;
        let _ = poll_fn(|cx| Pin::new(&mut self).poll_shutdown(cx)).await;
    }

    /// Makes the close a reset: the other side must not take what it got for all there is.
    pub(crate) fn close_with_reset(self) {
        // Fails only on what is no socket.
        let _ = SockRef::from(self.socket.inner()).set_linger(Some(Duration::ZERO));
    }

    fn watched(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<std::io::Result<usize>>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match &mut self.stalls {
            Some(stalls) => stalls.watch(cx, written, self.socket.inner(), bytes),
            None => written,
        }
    }

    /// Reads and forgets until the other side closes too, or [`LINGER`] is over.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let over = self.closing.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // Nobody looks at them, so that nobody need clear them first.
        let mut bytes = [MaybeUninit::uninit(); 4096];
        loop {
            let mut buffer = ReadBuf::uninit(&mut bytes);
            let read = ready!(Pin::new(self.socket.inner_mut()).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl Read for Inbox {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let inbox = self.get_mut();
        if inbox.unread.is_empty() {
            let read = Pin::new(&mut inbox.socket).poll_read(cx, buffer);
            if let Some(stalls) = &inbox.stalls {
                stalls.note(&read);
            }
            return read;
        }
        inbox.hand_out(buffer.remaining(), &mut buffer);
        Poll::Ready(Ok(()))
    }
}

impl Write for Inbox {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let inbox = self.get_mut();
        let written = Pin::new(&mut inbox.socket).poll_write(cx, bytes);
        inbox.watched(cx, written, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let inbox = self.get_mut();
        if inbox.closing.is_none() {
            ready!(Pin::new(&mut inbox.socket).poll_shutdown(cx))?;
        }
        inbox.poll_linger(cx).map(Ok)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let inbox = self.get_mut();
        let written = Pin::new(&mut inbox.socket).poll_write_vectored(cx, slices);
        inbox.watched(cx, written, first_of(slices))
    }
}
