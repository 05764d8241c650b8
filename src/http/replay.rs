//! The answer to an upgrade that is not 101, read by hyper although it was not hyper that asked.
//!
//! hyper's client reads a response only to a request that it has sent. So it sends one, without body, and
//! what it writes goes nowhere: the upstream has had the request already.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::rt::{Read, ReadBufCursor, Write};

use crate::inbox::Inbox;
use crate::upstream::MAX_BUFFER;

/// Reads the response that `upstream` begins with, to a request of `method`.
///
/// # Errors
/// hyper finds that it is no HTTP, or cut.
pub(super) async fn response(
    upstream: Inbox,
    method: Method,
) -> Result<Response<Incoming>, hyper::Error> {
    let (mut sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .max_buf_size(MAX_BUFFER)
        .handshake(Asked { upstream, told: false, reader: None })
        .await?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    // Asked before the connection is first polled: unasked bytes are a fault to it.
    let response = sender.send_request(request);
    // Its end is told to whoever reads the response's body.
    tokio::spawn(connection);
    response.await
}

/// An upstream that has been asked.
struct Asked {
    upstream: Inbox,
    /// hyper thinks that it asked.
    told: bool,
    reader: Option<Waker>,
}

impl Asked {
    fn swallow(&mut self) {
        self.told = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Read for Asked {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.told {
            this.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut this.upstream).poll_read(cx, buffer)
    }
}

impl Write for Asked {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().swallow();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().upstream).poll_shutdown(cx)
    }
}
