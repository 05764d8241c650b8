//! The upstream's name, resolved anew for new connections.
//!
//! An answer is used for five seconds at most, so that a moved application is found; one question
//! is under way at a time, so that a thousand connections ask once. A question cannot be called back
//! (getaddrinfo(3) blocks a thread), so it outlives whoever asked it: a resolver that hangs holds one
//! thread, however many connections wait and give up.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::Fault;
use super::addresses::{Lookup, once_each, system_lookup};
use crate::config::Destination;
use crate::socket;

/// How long an answer is used.
const FRESH: Duration = Duration::from_secs(5);

/// How long a failure is: short, since an application that starts should be found at once, but not
/// nothing, since a failing resolver should not be asked by each connection in a row.
const FAILED: Duration = Duration::from_millis(500);

/// What the resolver said; an error can be told to many.
type Addresses = Result<Arc<[SocketAddr]>, Failure>;

/// An [`io::Error`] that can be told to many.
#[derive(Clone, Debug)]
struct Failure {
    kind: io::ErrorKind,
    words: String,
    /// It is that this machine has too little of something, and nothing is said of the name.
    is_no_room: bool,
}

#[derive(Debug)]
pub(super) struct Resolver {
    host: String,
    port: u16,
    /// The name is an address, and there is nothing to ask.
    literal: Option<Arc<[SocketAddr]>>,
    lookup: Lookup,
    /// Locked while a question is under way: everybody else waits for its answer.
    last: Arc<Mutex<Option<Answer>>>,
}

#[derive(Debug)]
struct Answer {
    at: Instant,
    addresses: Addresses,
}

impl Answer {
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < if self.addresses.is_ok() { FRESH } else { FAILED }
    }
}

impl Resolver {
    pub(super) fn new(destination: &Destination) -> Self {
        Self::asking(destination, system_lookup)
    }

    /// A resolver that asks `lookup`.
    pub(super) fn asking(destination: &Destination, lookup: Lookup) -> Self {
        let Destination { host, port, .. } = destination;
        let address = host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, *port));
        let literal = address.map(|address| Arc::from([address]));
        Self { host: host.clone(), port: *port, literal, lookup, last: Arc::default() }
    }

    pub(super) async fn addresses(&self) -> Result<Arc<[SocketAddr]>, Fault> {
        if let Some(literal) = &self.literal {
            return Ok(Arc::clone(literal));
        }
        self.answer().await.map_err(|Failure { kind, words, is_no_room }| {
            let source = Arc::new(io::Error::new(kind, words));
            if is_no_room {
                Fault::NoRoomToAsk { host: self.host.clone(), source }
            } else {
                self.unresolved(source)
            }
        })
    }

    /// The first address, where nobody need be asked or waited for.
    pub(super) fn at_hand(&self) -> Option<SocketAddr> {
        if let Some(literal) = &self.literal {
            return literal.first().copied();
        }
        let last = self.last.try_lock().ok()?;
        let answer = last.as_ref().filter(|answer| answer.is_fresh())?;
        answer.addresses.as_ref().ok()?.first().copied()
    }

    /// The fault of a resolver that did not answer in time.
    pub(super) fn too_slow(&self) -> Fault {
        self.unresolved(Arc::new(io::Error::new(
            io::ErrorKind::TimedOut,
            "the resolver did not answer",
        )))
    }

    /// The last answer, or a new one.
    async fn answer(&self) -> Addresses {
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if let Some(answer) = last.as_ref().filter(|answer| answer.is_fresh()) {
            return answer.addresses.clone();
        }
        let question = (self.lookup)(self.host.clone(), self.port);
        let asked = tokio::spawn(async move {
            let addresses = question.await.and_then(once_each).map_err(Failure::from);
            *last = Some(Answer { at: Instant::now(), addresses: addresses.clone() });
            addresses
        });
        asked.await.unwrap_or_else(|error| Err(io::Error::other(error.to_string()).into()))
    }

    fn unresolved(&self, source: Arc<io::Error>) -> Fault {
        Fault::Unresolved { host: self.host.clone(), source }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self {
            kind: error.kind(),
            words: error.to_string(),
            is_no_room: socket::is_no_room(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn app() -> Destination {
        Destination { host: String::from("app"), port: 45_490 }
    }

    async fn age(resolver: &Resolver, by: Duration) {
        resolver.last.lock().await.as_mut().unwrap().at -= by;
    }

    #[tokio::test]
    async fn answer_is_used_for_five_seconds_and_not_longer() {
        static LAST: AtomicU16 = AtomicU16::new(0);
        let resolver = Resolver::asking(&app(), |_, _| {
            let port = LAST.fetch_add(1, Ordering::Relaxed) + 1;
            Box::pin(async move { Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]) })
        });
        let port = async || resolver.addresses().await.unwrap()[0].port();
        let at_hand = || resolver.at_hand().map(|address| address.port());
        assert_eq!(at_hand(), None);
        assert_eq!((port().await, port().await), (1, 1));
        assert_eq!(at_hand(), Some(1));
        age(&resolver, Duration::from_secs(4)).await;
        assert_eq!((port().await, at_hand()), (1, Some(1)));
        age(&resolver, Duration::from_secs(1)).await;
        assert_eq!(at_hand(), None);
        assert_eq!((port().await, port().await), (2, 2));
    }

    #[tokio::test]
    async fn failure_is_used_for_a_moment_and_not_longer() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let resolver = Resolver::asking(&app(), |_, port| {
            let asked = ASKED.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                match asked {
                    0 => Err(io::Error::other("no such name")),
                    1 => Ok(Vec::new()),
                    _ => Ok(vec![SocketAddr::from(([127, 0, 0, 1], port)); 2]),
                }
            })
        });
        for words in
            ["app does not resolve: no such name", "app does not resolve: it has no address"]
        {
            for _ in 0..3 {
                assert_eq!(resolver.addresses().await.unwrap_err().to_string(), words);
            }
            age(&resolver, FAILED).await;
        }
        assert_eq!(resolver.addresses().await.unwrap().len(), 1);
        assert_eq!(ASKED.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn want_of_descriptors_says_nothing_of_the_name() {
        let resolver = Resolver::asking(&app(), |_, _| {
            Box::pin(async { Err(rustix::io::Errno::MFILE.into()) })
        });
        for _ in 0..2 {
            let fault = resolver.addresses().await.unwrap_err();
            assert_eq!(fault.reason(), crate::end::Reason::NoRoom, "{fault}");
            assert!(fault.to_string().starts_with("no room to resolve app: "), "{fault}");
        }
    }

    #[tokio::test]
    async fn one_question_is_under_way_however_many_wait_and_give_up() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let resolver = Resolver::asking(&app(), |_, _| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::pending())
        });
        for _ in 0..20 {
            assert!(timeout(Duration::from_millis(1), resolver.addresses()).await.is_err());
        }
        assert_eq!(ASKED.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn address_is_not_asked_for() {
        let destination = Destination { host: String::from("::1"), port: 9 };
        let resolver = Resolver::asking(&destination, |_, _| Box::pin(std::future::pending()));
        assert_eq!(*resolver.addresses().await.unwrap(), ["[::1]:9".parse().unwrap()]);
        assert_eq!(resolver.at_hand(), Some("[::1]:9".parse().unwrap()));
    }
}
