//! The upstream's addresses, for all workers.
//!
//! Workers must not wait, so they are told what is known ([`Addresses::known`]); a task of the control plane asks the
//! system's resolver. An answer is used for five seconds, so that an application that moves is found. One question is
//! under way at a time, however many connections want the answer: getaddrinfo(3) blocks a thread and cannot be
//! called back, so that a resolver that hangs holds one thread.
//!
//! A resolver that fails is no reason to refuse anybody: the last good answer is used until there is a new one, and
//! the log says so. The rules are in [`answers`], and the order in which addresses are tried is in [`order`]; both are
//! pure.

mod answers;
mod order;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::lookup_host;
use tokio::runtime::Handle;
use tokio::time::timeout;

use self::answers::Answers;
use super::Fault;
use crate::config::Destination;
use crate::socket;
use crate::warnings::Recurring;

/// What the process knows of the upstream's addresses. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Addresses(Arc<Shared>);

/// What the name resolves to, as far as it is known at one moment.
#[derive(Clone, Debug)]
pub(crate) enum Resolution {
    /// In the order in which to try them.
    Addresses(Arc<[SocketAddr]>),
    /// The resolver is being asked; [`Addresses::when_known`] tells when it has answered.
    Pending,
    /// The name has none, and never had one that could be used meanwhile.
    Fault(Fault),
}

/// Asks the system.
pub(super) type Lookup =
    fn(String, u16) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Whoever waits for an answer is called once.
type Tell = Box<dyn FnOnce() + Send>;

struct Shared {
    host: String,
    port: u16,
    /// The name is an address, and there is nothing to ask.
    literal: Option<Arc<[SocketAddr]>>,
    lookup: Lookup,
    runtime: Handle,
    /// Held for moments, never across a question.
    state: Mutex<AddressState>,
    /// The [`fingerprint`] of the address that took a connection last and has not failed since; 0 if there is none.
    /// With it [`Addresses::reached`] takes no lock where nothing changes.
    good: AtomicU64,
}

struct AddressState {
    answers: Answers,
    waiting: Vec<Tell>,
    failing: Recurring,
}

impl fmt::Debug for Shared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Addresses")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Addresses {
    /// The addresses of `destination`; nothing is asked yet. Questions run on `runtime`.
    pub(crate) fn new(destination: &Destination, runtime: Handle) -> Self {
        Self::asking(destination, runtime, system_lookup)
    }

    /// The same, where `lookup` is asked.
    pub(crate) fn asking(destination: &Destination, runtime: Handle, lookup: Lookup) -> Self {
        let Destination { host, port } = destination;
        let address = host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, *port));
        Self(Arc::new(Shared {
            host: host.clone(),
            port: *port,
            literal: address.map(|address| Arc::from([address])),
            lookup,
            runtime,
            state: Mutex::new(AddressState {
                answers: Answers::new(too_slow(host)),
                waiting: Vec::new(),
                failing: Recurring::default(),
            }),
            good: AtomicU64::new(0),
        }))
    }

    /// What is known now. Begins a question where the last answer is too old. Never waits.
    pub(crate) fn known(&self, now: Instant) -> Resolution {
        if let Some(literal) = &self.0.literal {
            return Resolution::Addresses(Arc::clone(literal));
        }
        let (known, ask) = self.0.state().answers.known(now);
        if ask {
            self.0.runtime.spawn(ask_once(Arc::clone(&self.0)));
        }
        known
    }

    /// Calls `tell` once, from a thread of the runtime, as soon as [`Addresses::known`] says something else than
    /// [`Resolution::Pending`]: the question has been answered, or failed, or takes so long that the last good answer is
    /// used, or that there is none. Whoever has less time than that has a clock of their own.
    pub(crate) fn when_known(&self, tell: Tell) {
        let mut state = self.0.state();
        if self.0.literal.is_none() && state.answers.is_waited_for() {
            state.waiting.push(tell);
        } else {
            // It was answered between the two calls.
            drop(state);
            self.0.runtime.spawn(async move { tell() });
        }
    }

    /// The fault of a question that took longer than whoever waits for it has.
    pub(crate) fn too_slow(&self) -> Fault {
        too_slow(&self.0.host)
    }

    /// `address` did not take a connection. It is tried last for some time.
    pub(crate) fn failed(&self, address: SocketAddr, now: Instant) {
        if self.0.literal.is_some() {
            return;
        }
        let mut state = self.0.state();
        state.answers.failed(address, now);
        if self.0.good.load(Ordering::Relaxed) == fingerprint(address) {
            self.0.good.store(0, Ordering::Relaxed);
        }
    }

    /// `address` took a connection. Where another one has failed, it is tried first from now on.
    pub(crate) fn reached(&self, address: SocketAddr) {
        let mark = fingerprint(address);
        if self.0.literal.is_some() || self.0.good.load(Ordering::Relaxed) == mark {
            return;
        }
        let mut state = self.0.state();
        state.answers.reached(address);
        self.0.good.store(mark, Ordering::Relaxed);
    }
}

impl Shared {
    /// What is under this lock is whole after a panic too.
    fn state(&self) -> MutexGuard<'_, AddressState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls whoever need not wait any longer.
    fn tell_waiting(&self) {
        let waiting = {
            let mut state = self.state();
            if state.answers.is_waited_for() {
                return;
            }
            std::mem::take(&mut state.waiting)
        };
        for tell in waiting {
            tell();
        }
    }

    /// Says at most every ten seconds that the name does not resolve, and what that means.
    fn warn(&self, fault: &Fault, now: Instant) {
        let mut state = self.state();
        let meanwhile = if state.answers.has_good() {
            "the last good answer is used until it does"
        } else {
            "requests get 502 until it does"
        };
        if state.failing.count(now).is_some() {
            drop(state);
            tracing::warn!("{fault}; {meanwhile}");
        }
    }
}

/// One question, from beginning to end.
async fn ask_once(shared: Arc<Shared>) {
    let patience = shared.state().answers.patience();
    let mut question = pin!((shared.lookup)(shared.host.clone(), shared.port));
    let found = if let Ok(found) = timeout(patience, &mut question).await {
        found
    } else {
        let fault = shared.state().answers.late();
        shared.warn(&fault, Instant::now());
        shared.tell_waiting();
        question.await
    };
    let now = Instant::now();
    let found = found.and_then(once_each).map_err(|error| fault(&shared.host, error));
    shared.state().answers.answered(now, found.clone());
    match found {
        Err(fault) => shared.warn(&fault, now),
        Ok(_) if shared.state().failing.over() => tracing::info!("{} resolves again", shared.host),
        Ok(_) => {}
    }
    shared.tell_waiting();
}

/// The addresses of `destination` now, within `limit`.
pub(super) async fn once(
    destination: &Destination,
    limit: Duration,
) -> Result<Arc<[SocketAddr]>, Fault> {
    let Destination { host, port } = destination;
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Arc::from([SocketAddr::new(ip, *port)]));
    }
    match timeout(limit, system_lookup(host.clone(), *port)).await {
        Ok(found) => found.and_then(once_each).map_err(|error| fault(host, error)),
        Err(_) => Err(too_slow(host)),
    }
}

/// The fault of a question that came to `error`. That this machine has too little of something says nothing of the name.
fn fault(host: &str, error: io::Error) -> Fault {
    let host = host.to_owned();
    if socket::is_no_room(&error) {
        Fault::NoRoomToAsk { host, source: Arc::new(error) }
    } else {
        Fault::Unresolved { host, source: Arc::new(error) }
    }
}

/// The fault of a resolver that does not answer in time.
fn too_slow(host: &str) -> Fault {
    fault(host, io::Error::new(io::ErrorKind::TimedOut, "the resolver did not answer"))
}

/// What getaddrinfo(3) says, on a thread of the runtime.
pub(super) fn system_lookup(
    host: String,
    port: u16,
) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>> {
    Box::pin(async move {
        let found = lookup_host((host, port)).await;
        Ok(found.map_err(named)?.collect())
    })
}

/// The kernel's fault behind one of the resolver's. getaddrinfo(3) tells it (`EAI_SYSTEM`) or not:
/// glibc says of a file that it finds no descriptor for, or a question that it finds no socket for, also
/// that the name is not known, or to try again. So the kernel is asked for a socket then.
fn named(error: io::Error) -> io::Error {
    if error.raw_os_error().is_some() {
        return error;
    }
    match UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
        Err(refusal) if socket::is_no_room(&refusal) => refusal,
        _ => error,
    }
}

/// Each address once, and at least one.
pub(super) fn once_each(found: Vec<SocketAddr>) -> io::Result<Arc<[SocketAddr]>> {
    let mut addresses: Vec<SocketAddr> = Vec::with_capacity(found.len());
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    }
    Ok(addresses.into())
}

/// A number for an address that is never 0. Two IPv6 addresses may share one; then the order in which they are tried
/// is not the best.
fn fingerprint(address: SocketAddr) -> u64 {
    let ip = match address.ip() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => {
            let [high, low] = [ip.to_bits() >> 64, ip.to_bits() & u128::from(u64::MAX)];
            u64::try_from(high ^ low.rotate_left(17) & u128::from(u64::MAX)).unwrap_or_default()
        }
    };
    ip.rotate_left(16) ^ u64::from(address.port()) | 1 << 63
}
