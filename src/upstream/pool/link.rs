//! One connection of the pool, and who drives it.
//!
//! To hyper, whoever sends a request and whoever drives the connection are two tasks that wake each other.
//! Here they are mostly one, and waking it from within itself would only make it run once more. So
//! what hyper wakes is a note ([`Driver`]), and the socket alone knows the task.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use http::{Method, Request};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use tokio::task::unconstrained;

use super::socket::PooledSocket;
use super::{Answered, SendError, Sendable, Store};
use crate::stall::{StallWatch, Stalled};
use crate::upstream::{MAX_BUFFER, Upstream};

/// A connection of hyper's and what it takes to use it.
#[derive(Debug)]
pub(super) struct Link<B: Body + 'static> {
    sender: http1::SendRequest<B>,
    /// Until it has ended.
    connection: Option<http1::Connection<PooledSocket, B>>,
    driver: Arc<Driver>,
    /// The driver, as hyper sees it.
    note: Waker,
    endpoint: SocketAddr,
    stalled: Stalled,
    has_answered: bool,
}

/// Who drives a connection.
#[derive(Debug)]
pub(super) struct Driver {
    /// The task.
    task: Mutex<Waker>,
    /// hyper wants to be driven again.
    again: AtomicBool,
    written: Mutex<Written>,
}

/// What the head of a request is, as hyper writes it.
#[derive(Debug)]
pub(super) enum Written {
    /// Nobody will ask.
    Passed,
    /// This, which was kept for a second try.
    Kept(Vec<u8>),
    /// This goes on the wire instead, or what is left of it.
    Replaced(Vec<u8>),
}

/// A head that was sent.
pub(super) struct Head {
    method: Method,
    bytes: Vec<u8>,
}

/// Room that a connection keeps for heads.
const ROOM_FOR_HEAD: usize = 2 * 1_024;

impl Driver {
    fn new() -> Self {
        Self {
            task: Mutex::new(Waker::noop().clone()),
            again: AtomicBool::new(false),
            written: Mutex::new(Written::Passed),
        }
    }

    pub(super) fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the head that is written next, or none.
    fn keep(&self, wanted: bool) {
        let mut written = self.written();
        match &mut *written {
            Written::Kept(bytes) if wanted => {
                bytes.clear();
                bytes.shrink_to(ROOM_FOR_HEAD);
            }
            _ if wanted => *written = Written::Kept(Vec::new()),
            _ => *written = Written::Passed,
        }
    }

    /// The head that was kept, if any of it was written.
    fn take_kept(&self) -> Option<Vec<u8>> {
        match std::mem::replace(&mut *self.written(), Written::Passed) {
            Written::Kept(bytes) if !bytes.is_empty() => Some(bytes),
            _ => None,
        }
    }

    /// The task that is to be woken.
    pub(super) fn task(&self) -> Waker {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, task: &Waker) {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).clone_from(task);
    }
}

impl Wake for Driver {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.again.store(true, Ordering::Relaxed);
    }
}

/// Why a request got no response.
pub(super) struct Refused<B> {
    pub(super) error: SendError,
    /// The request, if not a byte of it was sent.
    pub(super) request: Option<Box<Request<B>>>,
    /// Its head, if it was sent and may be sent again.
    pub(super) head: Option<Head>,
}

impl<B: Sendable> Link<B> {
    /// A fresh connection.
    pub(super) async fn open(upstream: &Upstream) -> Result<Box<Self>, SendError> {
        let (socket, endpoint) = upstream.connect().await?;
        let stalled = Stalled::default();
        let stalls = StallWatch::new(upstream.stall_timeout, stalled.clone());
        let driver = Arc::new(Driver::new());
        let io = PooledSocket::new(socket, endpoint, Arc::clone(&driver), stalls, stalled.clone());
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .max_buf_size(MAX_BUFFER)
            .handshake(io)
            .await
            .map_err(|error| SendError::Sent { error, endpoint, used: false })?;
        Ok(Box::new(Self {
            sender,
            connection: Some(connection),
            note: Waker::from(Arc::clone(&driver)),
            driver,
            endpoint,
            stalled,
            has_answered: false,
        }))
    }

    /// Whether it has answered before.
    pub(super) const fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Whether it can take a request now, as far as anybody has heard.
    pub(super) fn is_ready(&self) -> bool {
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Goes on with whatever there is to do, on behalf of the task of `cx`; complete when the connection has
    /// ended.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(()) };
        self.driver.change(cx.waker());
        self.driver.again.store(false, Ordering::Relaxed);
        // Not shut by hyper: it would flush first, to a socket that may take nothing more and be waited for.
        let ended = connection.poll_without_shutdown(&mut Context::from_waker(&self.note));
        if ended.is_pending() {
            if self.driver.again.load(Ordering::Relaxed) {
                // It did much at once and lets others go first.
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        // What it still owes is told now.
        self.connection = None;
        Poll::Ready(())
    }

    /// Sends again what was sent in vain. hyper reads a response only to a request of its own, so it writes
    /// one, and the socket replaces it.
    pub(super) async fn send_again(
        self: Box<Self>,
        head: Head,
        store: &Arc<Store<B>>,
    ) -> Result<Answered<B>, Refused<B>> {
        *self.driver.written() = Written::Replaced(head.bytes);
        let mut request = Box::new(Request::new(B::default()));
        *request.method_mut() = head.method;
        self.exchange(request, store).await
    }

    /// Sends a request and waits for the head of its response.
    pub(super) async fn send(
        self: Box<Self>,
        request: Box<Request<B>>,
        is_safe: bool,
        store: &Arc<Store<B>>,
    ) -> Result<Answered<B>, Refused<B>> {
        let is_kept = is_safe && self.has_answered;
        self.driver.keep(is_kept);
        let kept = is_kept.then(|| (request.method().clone(), Arc::clone(&self.driver)));
        let answered = self.exchange(request, store).await;
        answered.map_err(|refused| {
            let head =
                kept.and_then(|(method, driver)| Some(Head { method, bytes: driver.take_kept()? }));
            Refused { head, ..refused }
        })
    }

    async fn exchange(
        mut self: Box<Self>,
        request: Box<Request<B>>,
        store: &Arc<Store<B>>,
    ) -> Result<Answered<B>, Refused<B>> {
        let (endpoint, used, stalled) = (self.endpoint, self.has_answered, self.stalled.clone());
        let has_body = !request.body().is_end_stream();
        let response = self.sender.try_send_request(*request);
        // Nobody hears it ask for another turn, where its task has had many.
        let mut response = pin!(unconstrained(response));
        let mut link = Some(self);
        if has_body && let Some(link) = link.take() {
            tokio::spawn(link.drive_by_itself(Arc::clone(store)));
        }
        let answer = poll_fn(|cx| match &mut link {
            Some(link) => {
                // Whether or not it has ended: what there is to tell is told.
                let _ = link.drive(cx);
                // Nobody but the connection has an answer, so nobody else would wake us for it.
                response.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            }
            None => response.as_mut().poll(cx),
        });
        match answer.await {
            Ok(response) => {
                if let Some(link) = &mut link {
                    link.has_answered = true;
                }
                let lease = link.map(|link| Lease { link, store: Arc::clone(store) });
                let response = response.map(|body| Streamed { body: Some(body), lease });
                Ok(Answered { response, endpoint, stalled })
            }
            Err(mut error) => {
                let request = error.take_message().map(Box::new);
                let error = SendError::Sent { error: error.into_error(), endpoint, used };
                Err(Refused { error, request, head: None })
            }
        }
    }

    /// A task of its own, until the request and its response have passed.
    async fn drive_by_itself(mut self: Box<Self>, store: Arc<Store<B>>) {
        let is_ready = poll_fn(|cx| {
            self.driver.change(cx.waker());
            let Some(connection) = &mut self.connection else { return Poll::Ready(false) };
            // Body and response are in other hands, so here hyper's wakes are meant.
            if connection.poll_without_shutdown(cx).is_ready() {
                return Poll::Ready(false);
            }
            self.sender.poll_ready(cx).map(|ready| ready.is_ok())
        });
        if is_ready.await {
            self.has_answered = true;
            store.keep(self);
        }
    }
}

/// A connection that a response is read from; afterwards, it is kept.
#[derive(Debug)]
struct Lease<B: Sendable> {
    link: Box<Link<B>>,
    store: Arc<Store<B>>,
}

/// The body of a response.
#[derive(Debug)]
pub(crate) struct Streamed<B: Sendable> {
    /// Until this is dropped.
    body: Option<Incoming>,
    /// What is driven to get more of it; nobody's if something else drives it.
    lease: Option<Lease<B>>,
}

impl<B: Sendable> Streamed<B> {
    /// A body of a connection that somebody else drives.
    pub(crate) const fn driven(body: Incoming) -> Self {
        Self { body: Some(body), lease: None }
    }
}

impl<B: Sendable> Body for Streamed<B> {
    type Data = bytes::Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let Some(lease) = &mut this.lease else { return Pin::new(body).poll_frame(cx) };
        let quiet = &mut Context::from_waker(Waker::noop());
        // It also says that more is wanted, without which none is read.
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(quiet) {
            return Poll::Ready(frame);
        }
        let _ = lease.link.drive(cx);
        Pin::new(body).poll_frame(quiet)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B: Sendable> Drop for Streamed<B> {
    fn drop(&mut self) {
        self.body = None;
        let Some(Lease { mut link, store }) = self.lease.take() else { return };
        if !link.is_ready() {
            // It may have the end already, or it learns that nobody wants it and closes.
            let _ = link.drive(&mut Context::from_waker(Waker::noop()));
        }
        if link.is_ready() {
            store.keep(link);
        }
    }
}
