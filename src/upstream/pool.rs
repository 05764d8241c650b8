//! Upstream connections for plain requests, kept alive between them.
//!
//! HTTP on them is hyper's. What is ours: how a connection is made, who drives it ([`link`]), how long it is
//! kept, and whether a request may be sent a second time after its connection turned out to be dead.
//!
//! A request without a body is sent, and its response read, by the task that asks: nobody else is woken for
//! it. A request with one gets a task for its connection, so that the body goes on while the response waits
//! for its client.

mod error;
mod link;
mod socket;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Context;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Body;
use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval};

pub(crate) use self::error::SendError;
pub(crate) use self::link::Streamed;
use self::link::{Head, Link, Refused};
use super::Upstream;
use crate::stall::Stalled;

/// How long an idle connection is kept: under the 5 s after which node's http server closes one,
/// the shortest keep-alive of the common application servers, so that we let go first.
const IDLE: Duration = Duration::from_secs(4);

/// Idle connections kept at most.
const MOST_IDLE: usize = 64;

/// How often idle connections are looked after.
const LOOK: Duration = Duration::from_secs(1);

/// The pool. Clones share it.
#[derive(Debug)]
pub(crate) struct Pool<B: Sendable> {
    store: Arc<Store<B>>,
}

impl<B: Sendable> Clone for Pool<B> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store) }
    }
}

/// A response, and where it came from.
#[derive(Debug)]
pub(crate) struct Answered<B: Sendable> {
    pub(crate) response: Response<Streamed<B>>,
    pub(crate) endpoint: SocketAddr,
    /// Whether the endpoint takes nothing of the request while it sends this.
    pub(crate) stalled: Stalled,
}

/// What a body must be to be sent: hyper's words for it. The default is none at all.
pub(crate) trait Sendable:
    Body<Data: Send, Error: Into<BoxedError>> + Default + Send + Unpin + 'static
{
}

impl<B> Sendable for B where
    B: Body<Data: Send, Error: Into<BoxedError>> + Default + Send + Unpin + 'static
{
}

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

impl<B: Sendable> Pool<B> {
    pub(super) fn new(upstream: Upstream) -> Self {
        Self { store: Arc::new(Store { upstream, idle: Mutex::default() }) }
    }

    /// Sends a request in origin form and waits for the head of its response. One that is `safe` has no body
    /// and may be sent twice (RFC 9110, section 9.2.2). It comes in a box, since it is handed on several times.
    pub(crate) async fn send(
        &self,
        mut request: Box<Request<B>>,
        is_safe: bool,
    ) -> Result<Answered<B>, SendError> {
        loop {
            let link = match self.store.take() {
                Some(link) => link,
                // On the heap: it is rare, and large.
                None => Box::pin(Link::open(&self.store.upstream)).await?,
            };
            let has_answered = link.has_answered();
            match link.send(request, is_safe, &self.store).await {
                Ok(answered) => return Ok(answered),
                // Not a byte of it was sent: it had closed before.
                Err(Refused { request: Some(unsent), .. }) if has_answered => request = unsent,
                Err(Refused { error, head: Some(head), .. }) if error.is_stale_connection() => {
                    // On the heap: it is rare, and large.
                    return Box::pin(self.send_again(head)).await;
                }
                Err(refused) => return Err(refused.error),
            }
        }
    }
}

impl<B: Sendable> Pool<B> {
    /// Sends a head once more, on a connection that cannot be stale.
    async fn send_again(&self, head: Head) -> Result<Answered<B>, SendError> {
        let link = Link::open(&self.store.upstream).await?;
        link.send_again(head, &self.store).await.map_err(|refused| refused.error)
    }
}

/// Where idle connections are.
#[derive(Debug)]
struct Store<B: Sendable> {
    upstream: Upstream,
    idle: Mutex<Idle<B>>,
}

#[derive(Debug)]
struct Idle<B: Sendable> {
    /// The last one that became idle is the last one here, and the first to be used again.
    links: Vec<(Box<Link<B>>, Instant)>,
    /// A task looks after them.
    looked_after: bool,
}

impl<B: Sendable> Default for Idle<B> {
    fn default() -> Self {
        Self { links: Vec::new(), looked_after: false }
    }
}

impl<B: Sendable> Store<B> {
    fn idle(&self) -> MutexGuard<'_, Idle<B>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that was used before.
    fn take(&self) -> Option<Box<Link<B>>> {
        loop {
            let (link, since) = self.idle().links.pop()?;
            if link.is_ready() && since.elapsed() < IDLE {
                return Some(link);
            }
        }
    }

    /// Keeps a connection that is ready for the next request.
    fn keep(self: &Arc<Self>, link: Box<Link<B>>) {
        // Without a runtime there is no next request.
        let Ok(runtime) = Handle::try_current() else { return };
        let mut idle = self.idle();
        if idle.links.len() < MOST_IDLE {
            idle.links.push((link, Instant::now()));
            if !idle.looked_after {
                idle.looked_after = true;
                runtime.spawn(look_after(Arc::downgrade(self)));
            }
        }
    }

    /// Lets go of those whose time is over, or that the upstream has closed. Whether any are left.
    fn look(&self, cx: &mut Context<'_>) -> bool {
        let mut idle = self.idle();
        idle.links
            .retain_mut(|(link, since)| since.elapsed() < IDLE && link.drive(cx).is_pending());
        idle.looked_after = !idle.links.is_empty();
        idle.looked_after
    }
}

/// Looks after idle connections while there are any: now and then, and when one of them is heard of.
async fn look_after<B: Sendable>(store: Weak<Store<B>>) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    poll_fn(|cx| {
        while tick.poll_tick(cx).is_ready() {}
        match store.upgrade() {
            Some(store) if store.look(cx) => std::task::Poll::Pending,
            _ => std::task::Poll::Ready(()),
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Empty};

    use super::*;
    use crate::config::Destination;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    fn pool_before(listener: &TcpListener) -> Pool<Empty<Bytes>> {
        let destination = Destination {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port: listener.local_addr().unwrap().port(),
        };
        let limit = Duration::from_secs(10);
        Upstream::new(&destination, limit, limit).pool()
    }

    /// Takes a connection and answers so many requests on it.
    fn answer(listener: &TcpListener, requests: usize) -> TcpStream {
        let (mut socket, _) = listener.accept().unwrap();
        for _ in 0..requests {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            socket.write_all(OK).unwrap();
        }
        socket
    }

    async fn get(pool: &Pool<Empty<Bytes>>) -> Bytes {
        let answered = pool.send(Box::new(Request::new(Empty::new())), true).await.unwrap();
        answered.response.into_body().collect().await.unwrap().to_bytes()
    }

    fn idle(pool: &Pool<Empty<Bytes>>) -> usize {
        pool.store.idle().links.len()
    }

    #[tokio::test]
    async fn connection_is_used_again_as_soon_as_its_response_has_passed() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let pool = pool_before(&listener);
        let upstream = std::thread::spawn(move || answer(&listener, 3));
        for _ in 0..3 {
            assert_eq!(get(&pool).await, "ok");
            assert_eq!(idle(&pool), 1);
        }
        upstream.join().unwrap();
    }

    #[tokio::test]
    async fn connection_that_the_upstream_closes_leaves_the_pool() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let pool = pool_before(&listener);
        let upstream = std::thread::spawn(move || answer(&listener, 1));
        assert_eq!(get(&pool).await, "ok");
        assert_eq!(idle(&pool), 1);
        let closed = Instant::now();
        drop(upstream.join().unwrap());
        while idle(&pool) > 0 {
            assert!(closed.elapsed() < IDLE / 2, "it is kept");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn response_that_nobody_reads_to_its_end_takes_its_connection_along() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let pool = pool_before(&listener);
        let upstream = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok").unwrap();
            let mut rest = Vec::new();
            // A reset says the same.
            socket.read_to_end(&mut rest).unwrap_or_default();
        });
        let answered = pool.send(Box::new(Request::new(Empty::new())), true).await;
        drop(answered.unwrap());
        assert_eq!(idle(&pool), 0);
        upstream.join().unwrap();
    }
}
