//! Upstream connections for plain requests, kept alive between them.
//!
//! The pool is hyper-util's. What is ours: how a connection is made, which endpoint it goes to, and
//! whether a request may be sent a second time after its connection turned out to be dead.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Extensions, Request, Response, Uri};
use hyper::body::{Body, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tower_service::Service;

use super::{Fault, MAX_BUFFER, Upstream};
use crate::http::head;
use crate::stall::{StallWatch, Stalled, first_of};

/// How long an idle connection is kept: under the 5 s after which node's http server closes one,
/// the shortest keep-alive of the common application servers, so that we let go first.
const IDLE: Duration = Duration::from_secs(4);

/// Idle connections kept at most.
const MOST_IDLE: usize = 64;

/// The address that a response came from, in the response's extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoint(pub(crate) SocketAddr);

/// The pool. Clones share it.
#[derive(Debug)]
pub(crate) struct Pool<B> {
    client: Client<Connector, B>,
}

impl<B> Clone for Pool<B> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone() }
    }
}

/// Why a request got no response.
#[derive(Debug)]
pub(crate) struct SendError {
    error: legacy::Error,
}

impl<B> Pool<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(upstream: Upstream) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MOST_IDLE)
            .set_host(false)
            .http1_preserve_header_case(true)
            .http1_max_buf_size(MAX_BUFFER)
            .build(Connector { upstream });
        Self { client }
    }

    /// Sends a request in origin form and waits for the head of its response.
    pub(crate) async fn send(
        &self,
        mut request: Request<B>,
    ) -> Result<Response<Incoming>, SendError> {
        // The pool's key; it does not go on the wire.
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(http::uri::Scheme::HTTP);
        parts.authority = Some(http::uri::Authority::from_static("upstream"));
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        let response = self.client.request(request).await.map_err(|error| SendError { error })?;
        if let Some(used) = response.extensions().get::<Used>() {
            used.0.store(true, Ordering::Relaxed);
        }
        Ok(response)
    }
}

impl SendError {
    /// The fault of the connection, if there was none to send on.
    pub(crate) fn connect_fault(&self) -> Option<&Fault> {
        self.sources().find_map(|source| source.downcast_ref::<Fault>())
    }

    /// The address that it was sent to, or that was tried.
    pub(crate) fn endpoint(&self) -> Option<SocketAddr> {
        let mut extensions = Extensions::new();
        if let Some(connected) = self.error.connect_info() {
            connected.get_extras(&mut extensions);
        }
        let endpoint = extensions.get::<Endpoint>().map(|endpoint| endpoint.0);
        endpoint.or_else(|| self.connect_fault().and_then(Fault::address))
    }

    /// The connection had answered before, and closed without a byte of answer to this request: the
    /// upstream let go of it at the moment in which the request was sent. A request that is safe to
    /// repeat (RFC 9110, section 9.2.2) may be.
    pub(crate) fn is_stale_connection(&self) -> bool {
        let mut extensions = Extensions::new();
        if let Some(connected) = self.error.connect_info() {
            connected.get_extras(&mut extensions);
        }
        let used = extensions.get::<Used>().is_some_and(|used| used.0.load(Ordering::Relaxed));
        used && self.sources().any(|source| {
            source.downcast_ref::<hyper::Error>().is_some_and(|error| {
                error.is_incomplete_message() || error.is_canceled() || error.is_closed()
            }) || source.downcast_ref::<io::Error>().is_some_and(|error| {
                matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
            })
        })
    }

    /// The client's body broke off, and the request with it.
    pub(crate) fn is_client_body(&self) -> bool {
        self.sources()
            .any(|source| source.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_user))
    }

    /// The rule that the client's body breaks, if that is why it broke off.
    pub(crate) fn client_fault(&self) -> Option<head::Fault> {
        let error = self.sources().find_map(|source| source.downcast_ref::<io::Error>())?;
        error.get_ref()?.downcast_ref().copied()
    }

    /// The upstream took none of the request for too long.
    pub(crate) fn is_stalled(&self) -> bool {
        self.sources().any(|source| {
            source
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
        })
    }

    /// The response was there and was no HTTP.
    pub(crate) fn is_malformed_response(&self) -> bool {
        self.sources()
            .any(|source| source.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse))
    }

    fn sources(&self) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
        let first: &(dyn std::error::Error + 'static) = &self.error;
        std::iter::successors(Some(first), |error| error.source())
    }
}

impl std::fmt::Display for SendError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        for source in self.sources() {
            write!(out, "{separator}{source}")?;
            separator = ": ";
        }
        Ok(())
    }
}

/// Whether a connection has answered before.
#[derive(Clone, Debug, Default)]
struct Used(Arc<AtomicBool>);

/// Makes connections for the pool.
#[derive(Clone, Debug)]
struct Connector {
    upstream: Upstream,
}

impl Service<Uri> for Connector {
    type Response = PooledSocket;
    type Error = Fault;
    type Future = Pin<Box<dyn Future<Output = Result<PooledSocket, Fault>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let upstream = self.upstream.clone();
        Box::pin(async move {
            let (socket, address) = upstream.connect().await?;
            let stalled = Stalled::default();
            Ok(PooledSocket {
                stalls: StallWatch::new(upstream.stall_timeout, stalled.clone()),
                stalled,
                socket: TokioIo::new(socket),
                endpoint: Endpoint(address),
                used: Used::default(),
                deaf: false,
            })
        })
    }
}

/// A socket of the pool.
///
/// An upstream may answer and close before it has read the whole request (413, 401). The next write
/// then fails, and hyper would give up the connection with the answer still unread in it. So a write
/// that fails is not told: it stays pending, and reading tells what there is, the answer or the end.
#[derive(Debug)]
struct PooledSocket {
    socket: TokioIo<TcpStream>,
    endpoint: Endpoint,
    used: Used,
    /// A write failed; nothing more can be sent.
    deaf: bool,
    stalls: StallWatch,
    stalled: Stalled,
}

impl PooledSocket {
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
            tracing::debug!(upstream = %self.endpoint.0, "it reads no more: {error}");
            self.deaf = true;
            // The end of the connection wakes the reader, and with it the whole connection.
            return Poll::Pending;
        }
        polled
    }
}

impl Connection for PooledSocket {
    fn connected(&self) -> Connected {
        Connected::new().extra(self.endpoint).extra(self.used.clone()).extra(self.stalled.clone())
    }
}

impl Read for PooledSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.socket).poll_read(cx, buffer);
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
        let this = self.get_mut();
        if this.deaf {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.written(cx, polled, bytes)
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
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.deaf {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut this.socket).poll_write_vectored(cx, slices);
        this.written(cx, polled, first_of(slices))
    }
}
