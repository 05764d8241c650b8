//! A client's connection as it is given to hyper: only bytes that were checked pass.
//!
//! hyper reads heads leniently in places and owns the loop of a connection, so the check stands in front
//! of it: [`Follower`] follows the messages, one at a time, and hyper is given what cannot be read in
//! two ways. To hyper the connection is at its end where the next message is not for hyper, because it
//! breaks a rule or is an upgrade, or does not come for a while: hyper and its buffers hold much more than
//! [`Checked::hear`]. It then winds down and gives the connection back.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::framing::follower::{Follower, Step};
use super::head::{Fault, Framing, Limits, Request};
use super::{Front, ToClient, health, upgrade};
use crate::client::Client;
use crate::inbox::Inbox;

/// How long hyper keeps a connection on which nothing is under way.
const REST: Duration = Duration::from_secs(1);

/// The message that has begun to pass.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    /// It is not answered to its end.
    busy: AtomicBool,
    is_server_wide: AtomicBool,
}

impl UnderWay {
    /// Whether it asks [about the whole server](super::head::Request::is_server_wide).
    pub(crate) fn is_server_wide(&self) -> bool {
        self.is_server_wide.load(Ordering::Relaxed)
    }
}

/// A connection whose messages are checked as they pass.
#[allow(clippy::struct_excessive_bools)] // They are questions that do not exclude each other.
pub(crate) struct Checked {
    inbox: Inbox,
    follower: Follower,
    /// So many of the unread bytes are checked, and pass.
    passing: usize,
    under_way: Arc<UnderWay>,
    /// hyper holds no byte that the client's socket has not taken.
    flushed: bool,
    /// hyper asked for the next message while it was not its turn.
    waiting: bool,
    /// What is under way is a health check. It takes no time, and is answered also where its client says that nothing
    /// more will come: to hyper that is a client that has left.
    is_check: bool,
    /// The next message is not for hyper.
    held: bool,
    /// The last message was answered then, and none has begun to pass since.
    idle_since: Option<Instant>,
    /// Ends the rest. No message sets it anew: it is when it fires that somebody looks how long the rest was.
    rest: Option<Pin<Box<Sleep>>>,
    /// Set while as much is unread as may be.
    full: Option<Pin<Box<Sleep>>>,
    /// So many of the unread bytes are a head that was taken by [`Checked::hear`].
    taken: usize,
    /// The rule that the body under way breaks.
    fault: Option<Fault>,
    address: SocketAddr,
    /// Upgrades are not for hyper; without a PROXY header there are none.
    upgrades: bool,
    front: Arc<Front>,
}

/// What a connection asks next.
pub(crate) enum Heard<T> {
    /// Something for hyper, which finds its head unread.
    Request,
    /// Something else. Its head can be given to hyper after all.
    Other(T),
    /// Nothing that may pass.
    Fault(Fault),
    /// Its head has begun and was not whole in time.
    TooSlow,
    /// It closed; perhaps in the middle of a head.
    Closed,
}

impl Checked {
    pub(crate) fn new(inbox: Inbox, client: &Client, front: Arc<Front>) -> Self {
        Self {
            inbox,
            follower: Follower::new(front.head_limits()),
            passing: 0,
            under_way: Arc::default(),
            flushed: true,
            waiting: false,
            full: None,
            is_check: false,
            held: false,
            idle_since: None,
            rest: None,
            taken: 0,
            fault: None,
            address: client.address,
            upgrades: client.identified,
            front,
        }
    }

    /// Waits for a whole head, and gives it to `take`: what is taken is not for hyper.
    pub(crate) async fn hear<T>(
        &mut self,
        mut take: impl FnMut(&Request<'_>) -> Option<T>,
    ) -> Heard<T> {
        self.held = false;
        self.rest = None;
        loop {
            match self.follower.step(&self.inbox.unread) {
                Err(fault) => return Heard::Fault(fault),
                Ok(Step::Head(head, used)) => {
                    let framing = head.framing;
                    self.is_check = health::is_check_of(&head, &self.front.config);
                    self.under_way.is_server_wide.store(head.is_server_wide(), Ordering::Relaxed);
                    if let Some(other) = take(&head) {
                        self.follower.enter(framing);
                        self.taken = used;
                        return Heard::Other(other);
                    }
                    self.pass(framing, used);
                    return Heard::Request;
                }
                // A head comes first, so there is no body yet.
                Ok(Step::More | Step::Body(_)) => {}
            }
            match self.inbox.read().await {
                Ok(0) | Err(_) => return Heard::Closed,
                Ok(_) => {}
            }
        }
    }

    /// Reads on while something else is waited for, and completes when the client has left. What it sends
    /// meanwhile stays unread, and the socket is left alone when that is much.
    pub(crate) async fn left(&mut self) {
        while self.inbox.unread.len() < Limits::DEFAULT.head {
            match self.inbox.read().await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        std::future::pending::<()>().await;
    }

    /// Gives the head that was taken to hyper.
    pub(crate) fn give_back(&mut self) {
        self.pass(Framing::Absent, self.taken);
        self.taken = 0;
    }

    /// The connection as it is, behind what was taken of it.
    pub(crate) fn into_inbox(mut self) -> Inbox {
        self.inbox.unread.advance(self.taken.min(self.inbox.unread.len()));
        self.inbox
    }

    /// Whether not a byte of it is unread.
    pub(crate) fn is_unused(&self) -> bool {
        self.inbox.unread.is_empty()
    }

    /// Whether the next message is for [`Checked::hear`].
    pub(crate) const fn is_held(&self) -> bool {
        self.held
    }

    /// Since when nothing has been under way, if something was before.
    pub(crate) const fn idle_since(&self) -> Option<Instant> {
        self.idle_since
    }

    /// For who answers its requests.
    pub(crate) fn under_way(&self) -> Arc<UnderWay> {
        Arc::clone(&self.under_way)
    }

    fn pass(&mut self, framing: Framing, used: usize) {
        self.follower.enter(framing);
        self.passing = used;
        self.idle_since = None;
        self.full = None;
        self.under_way.busy.store(true, Ordering::Relaxed);
    }

    /// Whether everything that came was answered and is out.
    fn is_idle(&self) -> bool {
        let is_open = self.follower.is_at_head() && self.passing == 0;
        is_open && self.flushed && !self.under_way.busy.load(Ordering::Relaxed)
    }

    /// Whether an idle connection has been so for [`REST`]; if not, its task is woken then.
    fn has_rested(&mut self, cx: &mut Context<'_>) -> bool {
        let rest = self.front.config.request_head_timeout.min(REST);
        let until = *self.idle_since.get_or_insert_with(Instant::now) + rest;
        let timer = self.rest.get_or_insert_with(|| Box::pin(sleep_until(until)));
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= until {
                return true;
            }
            timer.as_mut().reset(until);
        }
        false
    }

    /// Whoever sends so much behind a message that is under way is not read any more, and nobody would see that
    /// it has left: it has its time.
    fn poll_full(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let limit = self.front.config.stall_timeout;
        let full = self.full.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(full.as_mut().poll(cx));
        tracing::debug!(client = %self.address, "much was sent behind a message that is under way");
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    /// Looks at what was read: whether something passes now.
    fn look(&mut self) -> Result<Look, Fault> {
        let is_answering =
            self.under_way.busy.load(Ordering::Relaxed) || self.is_check && !self.flushed;
        if self.held || self.follower.is_at_head() && is_answering {
            return Ok(Look::NotNow);
        }
        let step = self.follower.step(&self.inbox.unread);
        match step {
            Ok(Step::More) => Ok(Look::More),
            Ok(Step::Body(used)) => {
                self.passing = used;
                Ok(Look::Passes)
            }
            Ok(Step::Head(head, used)) => {
                let framing = head.framing;
                if self.upgrades && upgrade::is_asked_for(&head, &self.front.config) {
                    self.hold();
                    return Ok(Look::NotNow);
                }
                self.is_check = health::is_check_of(&head, &self.front.config);
                self.under_way.is_server_wide.store(head.is_server_wide(), Ordering::Relaxed);
                self.pass(framing, used);
                Ok(Look::Passes)
            }
            Err(_) if self.follower.is_at_head() => {
                self.hold();
                Ok(Look::NotNow)
            }
            Err(fault) => Err(fault),
        }
    }

    fn hold(&mut self) {
        self.held = true;
        self.follower.look_again();
    }

    /// Tells of a body that breaks a rule: its message ends here.
    fn broken(&mut self, fault: Fault) -> io::Error {
        if self.fault.is_none() {
            self.fault = Some(fault);
            self.front.counters.http_faults.add(fault);
            tracing::debug!(client = %self.address, rule = fault.as_str(), "bad body: {fault}");
        }
        io::Error::new(io::ErrorKind::InvalidData, fault)
    }
}

/// What came of a look.
enum Look {
    /// Bytes pass.
    Passes,
    /// More must be read.
    More,
    /// It is not hyper's, or not its turn.
    NotNow,
}

impl Read for Checked {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.passing > 0 {
                let length = this.passing.min(buffer.remaining());
                this.passing -= length;
                this.inbox.hand_out(length, &mut buffer);
                return Poll::Ready(Ok(()));
            }
            if let Some(fault) = this.fault {
                return Poll::Ready(Err(this.broken(fault)));
            }
            match this.look() {
                Ok(Look::Passes) => continue,
                Ok(Look::More) => {}
                Ok(Look::NotNow) => {
                    if this.held && this.flushed && !this.under_way.busy.load(Ordering::Relaxed) {
                        return Poll::Ready(Ok(()));
                    }
                    this.waiting = true;
                    // The socket is read on, to see whether the client has left, unless that changes nothing.
                    if this.is_check {
                        return Poll::Pending;
                    }
                    if this.inbox.unread.len() >= Limits::DEFAULT.head {
                        return this.poll_full(cx).map(Err);
                    }
                }
                Err(fault) => return Poll::Ready(Err(this.broken(fault))),
            }
            let read = if this.follower.is_at_head() {
                this.inbox.poll_some(cx)
            } else {
                this.inbox.poll_much(cx)
            };
            let Poll::Ready(read) = read else {
                if this.is_idle() && this.has_rested(cx) {
                    this.hold();
                    this.inbox.shrink();
                    return Poll::Ready(Ok(()));
                }
                return Poll::Pending;
            };
            if read? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Write for Checked {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.flushed = false;
        Pin::new(&mut this.inbox).poll_write(cx, bytes)
    }

    /// hyper flushes when the socket has taken all that it had.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.inbox).poll_flush(cx))?;
        this.flushed = true;
        if this.waiting && !this.under_way.busy.load(Ordering::Relaxed) {
            this.waiting = false;
            // It would not ask again by itself. Where nothing is unread, the socket wakes it, unless it was left alone.
            if this.is_check || !this.inbox.unread.is_empty() {
                cx.waker().wake_by_ref();
            }
        }
        if this.idle_since.is_none() && this.is_idle() {
            let _ = this.has_rested(cx);
        }
        Poll::Ready(Ok(()))
    }

    /// Of a connection that is given back nothing is shut.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.held && this.flushed && !this.under_way.busy.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        this.held = false;
        Pin::new(&mut this.inbox).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inbox.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.flushed = false;
        Pin::new(&mut this.inbox).poll_write_vectored(cx, slices)
    }
}

/// The body of an answer; when hyper is done with it, the next message may begin.
#[derive(Debug)]
pub(crate) struct Answer {
    body: ToClient,
    under_way: Arc<UnderWay>,
}

impl Answer {
    pub(crate) fn new(body: ToClient, under_way: Arc<UnderWay>) -> Self {
        Self { body, under_way }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.under_way.busy.store(false, Ordering::Relaxed);
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
