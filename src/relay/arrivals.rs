//! Connections that are not tunnels yet, on the thread that will have them as tunnels.
//!
//! What a connection has to say before it is a tunnel is no matter of the relay: it is an [`Arrival`], which is
//! told when its sockets have something for it, and says what has become of it. It saves most handshakes
//! the way through another thread, and their sockets a second registration. Whoever
//! does not become a tunnel soon leaves: here is no place to wait.
//!
//! One thread has the listener, and gives arrivals to the thread with the fewest connections.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use slab::Slab;

use super::Door;
use crate::tunnel::Tunnel;

/// A connection that may become a tunnel.
pub(crate) trait Arrival: Send {
    /// Goes on as far as it can: it is new, or something happened to a socket that it listens to.
    /// `buffer` is for its reads; nothing stays in there.
    fn go_on(self: Box<Self>, ears: &Ears<'_>, buffer: &mut [u8]) -> Step;

    /// Leaves: its time here is over.
    fn leave(self: Box<Self>, ears: &Ears<'_>);
}

/// What has become of an arrival.
#[allow(clippy::large_enum_variant)] // It is taken apart at once.
pub(crate) enum Step {
    /// It waits for something to happen to a socket of its.
    Waits(Box<dyn Arrival>),
    /// It is a tunnel.
    Opened(Opened),
    /// It is over, or somebody else's.
    Gone,
}

/// A tunnel that opened here.
pub(crate) struct Opened {
    pub(crate) tunnel: Tunnel,
    /// Its arrival listens to its client.
    pub(crate) hears_client: bool,
    /// The same of its upstream.
    pub(crate) hears_upstream: bool,
}

/// Who makes arrivals of connections.
pub(crate) trait Reception: Send + Sync {
    /// A connection that was accepted, from this address; non-blocking.
    fn receive(&self, socket: TcpStream, from: SocketAddr) -> Box<dyn Arrival>;

    /// None was accepted; for so long accepting is to pause.
    fn refused(&self, fault: &io::Error) -> Option<Duration>;

    /// How long an arrival may stay.
    fn patience(&self) -> Duration;
}

/// The poll, as far as it is an arrival's.
pub(crate) struct Ears<'a> {
    registry: &'a Registry,
    token: Token,
}

impl Ears<'_> {
    /// Has the arrival go on whenever there is something to read from `socket`, and if `writes`, when it
    /// connects or takes bytes again.
    pub(crate) fn hear(&self, socket: &TcpStream, writes: bool) -> io::Result<()> {
        let interest = if writes { READABLE.add(Interest::WRITABLE) } else { READABLE };
        self.registry.register(&mut SourceFd(&socket.as_raw_fd()), self.token, interest)
    }

    /// Takes that back, before the socket goes to another poll.
    pub(crate) fn forget(&self, socket: &TcpStream) {
        // Fails only on what is not registered.
        drop(self.registry.deregister(&mut SourceFd(&socket.as_raw_fd())));
    }
}

/// Everything that there is to hear of a socket. An urgent byte stops a read short of what lies behind it;
/// its event says so.
pub(super) const ALL: Interest = READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);

const READABLE: Interest = Interest::READABLE;

/// The token of the listener.
const LISTENER: Token = Token(usize::MAX - 1);

/// Set in the token of an arrival, and in none of a tunnel.
const ARRIVAL: usize = 1 << (usize::BITS - 1);

/// What is kept of an array when nobody is in it any more.
const KEPT: usize = 256;

/// The arrivals of one thread.
pub(super) struct Arrivals {
    door: Arc<Door>,
    /// Empty for the moment in which it goes on.
    present: Slab<Place>,
    /// Those that something happened to, in its order.
    ready: VecDeque<usize>,
    /// When each has to leave, the earliest first; some are gone by now.
    due: VecDeque<Due>,
    came: u64,
    opened: Vec<Opened>,
    listening: Option<Listening>,
    /// Nobody may arrive any more.
    shut: bool,
}

struct Place {
    arrival: Option<Box<dyn Arrival>>,
    number: u64,
    /// It is among those that are ready.
    is_ready: bool,
}

/// The place may have another arrival by then: it is meant if it has the same number.
struct Due {
    at: Duration,
    key: usize,
    number: u64,
}

/// The listener, on its one thread.
pub(super) struct Listening {
    listener: mio::net::TcpListener,
    reception: Arc<dyn Reception>,
    doors: Vec<Arc<Door>>,
    /// There may be a connection to accept, for which no event will come.
    is_ready: bool,
    paused_until: Option<Duration>,
}

impl Listening {
    pub(super) fn new(
        listener: std::net::TcpListener,
        reception: Arc<dyn Reception>,
        doors: Vec<Arc<Door>>,
    ) -> Self {
        let listener = mio::net::TcpListener::from_std(listener);
        Self { listener, reception, doors, is_ready: true, paused_until: None }
    }

    /// The thread with the fewest connections.
    fn door(&self) -> Option<&Arc<Door>> {
        if let [door] = self.doors.as_slice() {
            return Some(door);
        }
        let doors = self.doors.iter().filter(|door| !door.is_gone.load(Ordering::Relaxed));
        doors.min_by_key(|door| {
            door.open.load(Ordering::Relaxed) + door.arriving.load(Ordering::Relaxed)
        })
    }
}

impl Arrivals {
    pub(super) fn new(door: Arc<Door>) -> Self {
        Self {
            door,
            present: Slab::new(),
            ready: VecDeque::new(),
            due: VecDeque::new(),
            came: 0,
            opened: Vec::new(),
            listening: None,
            shut: false,
        }
    }

    /// Begins to accept, on this thread.
    pub(super) fn listen(&mut self, mut listening: Listening, registry: &Registry) {
        if let Err(fault) = registry.register(&mut listening.listener, LISTENER, Interest::READABLE)
        {
            tracing::error!(%fault, "cannot listen");
            return;
        }
        self.listening = Some(listening);
    }

    /// Something happened to the listener or to a socket of an arrival.
    pub(super) fn note(&mut self, token: Token) {
        if token == LISTENER {
            if let Some(listening) = &mut self.listening {
                // A pause ends when it is over.
                listening.is_ready = listening.paused_until.is_none();
            }
        } else if token.0 & ARRIVAL != 0 {
            let key = token.0 & !ARRIVAL;
            if let Some(place) = self.present.get_mut(key)
                && !mem::replace(&mut place.is_ready, true)
            {
                self.ready.push_back(key);
            }
        }
    }

    /// Has those go on that are ready, accepts connections, and sends away those whose time is over. It is called
    /// after the events of a round, so that none of those is taken for one of a connection that comes in here.
    ///
    /// One of each a round, and as many more as take the time that tunnels took (`served`, by `clock`): a tunnel waits for
    /// no more than that, however many come, and they for no more than as long again, however busy the tunnels are. With
    /// four a round, the 99th percentile of messages beside a flood of refused handshakes was half as long again.
    pub(super) fn go_on(
        &mut self,
        served: Duration,
        registry: &Registry,
        clock: impl Fn() -> Duration,
        buffer: &mut [u8],
    ) {
        let begun = clock();
        let mut now = begun;
        loop {
            // Who was accepted comes to its end first; none is ready for ever.
            let accepted = self.ready.is_empty() && self.accept(registry, now);
            let stepped = self.step_of_next(registry, buffer);
            let left = self.send_away(registry, now);
            now = clock();
            if !(accepted || stepped || left) || now.saturating_sub(begun) >= served {
                return;
            }
        }
    }

    /// False if none is ready.
    fn step_of_next(&mut self, registry: &Registry, buffer: &mut [u8]) -> bool {
        while let Some(key) = self.ready.pop_front() {
            // Otherwise it has left, and perhaps another has its place.
            if let Some(place) = self.present.get_mut(key)
                && mem::take(&mut place.is_ready)
            {
                self.step(key, registry, buffer);
                return true;
            }
        }
        false
    }

    /// False if there was nobody.
    fn accept(&mut self, registry: &Registry, now: Duration) -> bool {
        let Some(mut listening) = self.listening.take() else { return false };
        let mut accepted = false;
        if listening.paused_until.is_some_and(|until| until <= now) {
            listening.paused_until = None;
            listening.is_ready = true;
        }
        if listening.is_ready {
            match listening.listener.accept() {
                Ok((socket, from)) => {
                    accepted = true;
                    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                    let arrival = listening.reception.receive(socket.into(), from);
                    let patience = listening.reception.patience();
                    let other = listening.door().filter(|door| !Arc::ptr_eq(door, &self.door));
                    let mine = match other {
                        None => Some(arrival),
                        Some(other) => other.welcome(arrival, patience),
                    };
                    if let Some(arrival) = mine {
                        self.door.arriving.fetch_add(1, Ordering::Relaxed);
                        self.enter(arrival, patience, registry, now);
                    }
                }
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
                    listening.is_ready = false;
                }
                Err(fault) => {
                    if let Some(pause) = listening.reception.refused(&fault) {
                        listening.is_ready = false;
                        listening.paused_until = Some(now + pause);
                    }
                }
            }
        }
        self.listening = Some(listening);
        accepted
    }

    /// Takes one in that is counted already.
    pub(super) fn enter(
        &mut self,
        arrival: Box<dyn Arrival>,
        patience: Duration,
        registry: &Registry,
        now: Duration,
    ) {
        self.came += 1;
        let number = self.came;
        let key = self.present.insert(Place { arrival: Some(arrival), number, is_ready: true });
        if self.shut {
            return self.leave(key, registry);
        }
        self.ready.push_back(key);
        self.due.push_back(Due { at: now + patience, key, number });
    }

    fn step(&mut self, key: usize, registry: &Registry, buffer: &mut [u8]) {
        let Some(place) = self.present.get_mut(key) else { return };
        let Some(arrival) = place.arrival.take() else { return };
        let ears = Ears { registry, token: Token(key | ARRIVAL) };
        // A panic in there is its own bad luck and must not be that of all others.
        let step = panic::catch_unwind(AssertUnwindSafe(|| arrival.go_on(&ears, buffer)));
        match step.unwrap_or(Step::Gone) {
            Step::Waits(arrival) => place.arrival = Some(arrival),
            Step::Opened(opened) => {
                self.opened.push(opened);
                drop(self.remove(key));
            }
            Step::Gone => drop(self.remove(key)),
        }
    }

    fn remove(&mut self, key: usize) -> Option<Box<dyn Arrival>> {
        let place = self.present.try_remove(key)?;
        self.door.arriving.fetch_sub(1, Ordering::Relaxed);
        place.arrival
    }

    fn leave(&mut self, key: usize, registry: &Registry) {
        let Some(arrival) = self.remove(key) else { return };
        let ears = Ears { registry, token: Token(key | ARRIVAL) };
        let _ = panic::catch_unwind(AssertUnwindSafe(|| arrival.leave(&ears)));
    }

    /// Sends one away whose time is over. False if there was nobody.
    fn send_away(&mut self, registry: &Registry, now: Duration) -> bool {
        while let Some(due) = self.due.front() {
            let (key, number) = (due.key, due.number);
            let is_here = self.present.get(key).is_some_and(|place| place.number == number);
            if is_here && now < due.at {
                return false;
            }
            self.due.pop_front();
            if is_here {
                self.leave(key, registry);
                return true;
            }
        }
        if self.due.capacity() > KEPT {
            self.due = VecDeque::new();
            self.ready = VecDeque::new();
            self.present = Slab::new();
        }
        false
    }

    /// Accepts nobody any more, and sends away all that are here.
    pub(super) fn shut(&mut self, registry: &Registry) {
        self.shut = true;
        if let Some(mut listening) = self.listening.take() {
            drop(registry.deregister(&mut listening.listener));
        }
        let keys: Vec<_> = self.present.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.leave(key, registry);
        }
        self.due = VecDeque::new();
        self.ready = VecDeque::new();
    }

    /// Those that became tunnels.
    pub(super) fn opened(&mut self) -> Option<Opened> {
        self.opened.pop()
    }

    /// How long until something is to be done without an event.
    pub(super) fn timeout(&self, now: Duration) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let accept = self.listening.as_ref().and_then(|listening| match listening.paused_until {
            Some(until) => Some(until.saturating_sub(now)),
            None => listening.is_ready.then_some(Duration::ZERO),
        });
        let due = self.due.front().map(|due| due.at.saturating_sub(now));
        [accept, due].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::Mutex;

    use mio::{Poll, Waker};

    use super::*;
    use crate::relay::worker::WOKEN;

    /// What arrivals did, by their numbers. Each step takes a while.
    #[derive(Clone, Default)]
    struct Steps(Arc<Mutex<(Vec<u8>, u32)>>);

    impl Steps {
        const TIME: Duration = Duration::from_micros(30);

        fn add(&self, number: u8) {
            let (steps, time) = &mut *self.0.lock().unwrap();
            steps.push(number);
            *time += 1;
        }

        fn take(&self) -> Vec<u8> {
            mem::take(&mut self.0.lock().unwrap().0)
        }

        /// Which it took, from `start` on.
        fn clock(&self, start: Duration) -> impl Fn() -> Duration {
            move || start + Self::TIME * self.0.lock().unwrap().1
        }
    }

    /// It waits, whatever happens.
    struct Patient(u8, Steps);

    impl Arrival for Patient {
        fn go_on(self: Box<Self>, _: &Ears<'_>, _: &mut [u8]) -> Step {
            self.1.add(self.0);
            Step::Waits(self)
        }

        fn leave(self: Box<Self>, _: &Ears<'_>) {
            self.1.add(self.0 + LEFT);
        }
    }

    /// A reception of patient arrivals.
    struct Desk(Steps);

    impl Reception for Desk {
        fn receive(&self, _: TcpStream, _: SocketAddr) -> Box<dyn Arrival> {
            Box::new(Patient(0, self.0.clone()))
        }

        fn refused(&self, fault: &io::Error) -> Option<Duration> {
            panic!("{fault}")
        }

        fn patience(&self) -> Duration {
            PATIENCE
        }
    }

    const PATIENCE: Duration = Duration::from_secs(1);
    const START: Duration = Duration::from_secs(100);
    /// What is added to the number of one that leaves.
    const LEFT: u8 = 100;
    /// Time for all that is to be done.
    const LONG: Duration = Duration::from_millis(900);

    fn nobody() -> (Arrivals, Poll, Steps) {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), WOKEN).unwrap();
        (Arrivals::new(Arc::new(Door::new(waker))), poll, Steps::default())
    }

    fn enter(arrivals: &mut Arrivals, number: u8, poll: &Poll, steps: &Steps, now: Duration) {
        arrivals.door.arriving.fetch_add(1, Ordering::Relaxed);
        let arrival = Box::new(Patient(number, steps.clone()));
        arrivals.enter(arrival, PATIENCE, poll.registry(), now);
    }

    fn go_on(arrivals: &mut Arrivals, served: Duration, poll: &Poll, steps: &Steps, now: Duration) {
        arrivals.go_on(served, poll.registry(), steps.clock(now), &mut []);
    }

    #[test]
    fn a_round_has_one_step_and_more_where_tunnels_took_time() {
        let (mut arrivals, poll, steps) = nobody();
        (1..=6).for_each(|number| enter(&mut arrivals, number, &poll, &steps, START));
        go_on(&mut arrivals, Duration::from_micros(20), &poll, &steps, START);
        assert_eq!(steps.take(), [1]);
        assert_eq!(arrivals.timeout(START), Some(Duration::ZERO), "the next round comes at once");
        go_on(&mut arrivals, Duration::from_micros(70), &poll, &steps, START);
        assert_eq!(steps.take(), [2, 3, 4]);
        // Two events before its turn are one.
        arrivals.note(Token(ARRIVAL));
        arrivals.note(Token(ARRIVAL));
        go_on(&mut arrivals, LONG, &poll, &steps, START);
        assert_eq!(steps.take(), [5, 6, 1]);
        assert_eq!(arrivals.timeout(START), Some(PATIENCE), "nobody is ready");
    }

    #[test]
    fn those_whose_time_is_over_leave_one_a_round() {
        let (mut arrivals, poll, steps) = nobody();
        (1..=4).for_each(|number| enter(&mut arrivals, number, &poll, &steps, START));
        go_on(&mut arrivals, LONG, &poll, &steps, START);
        steps.take();
        let later = START + PATIENCE;
        go_on(&mut arrivals, Duration::ZERO, &poll, &steps, later);
        assert_eq!(steps.take(), [1 + LEFT]);
        assert_eq!(arrivals.timeout(later), Some(Duration::ZERO), "the next round comes at once");
        go_on(&mut arrivals, LONG, &poll, &steps, later);
        assert_eq!(steps.take(), [2 + LEFT, 3 + LEFT, 4 + LEFT]);
        assert_eq!(arrivals.timeout(later), None);
    }

    #[test]
    fn whoever_is_ready_and_leaves_makes_no_other_ready() {
        let (mut arrivals, poll, steps) = nobody();
        enter(&mut arrivals, 1, &poll, &steps, START);
        let later = START + PATIENCE;
        arrivals.send_away(poll.registry(), later);
        assert!(arrivals.present.is_empty());
        steps.take();
        // It has the place of the one that left.
        enter(&mut arrivals, 2, &poll, &steps, later);
        go_on(&mut arrivals, LONG, &poll, &steps, later);
        assert_eq!(steps.take(), [2]);
    }

    #[test]
    fn nobody_is_accepted_while_others_are_ready() {
        let (mut arrivals, poll, steps) = nobody();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        // The kernel has accepted them when this is over.
        let _clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
        let reception = Arc::new(Desk(steps.clone()));
        let listening = Listening::new(listener, reception, vec![Arc::clone(&arrivals.door)]);
        arrivals.listen(listening, poll.registry());
        enter(&mut arrivals, 1, &poll, &steps, START);
        go_on(&mut arrivals, Duration::ZERO, &poll, &steps, START);
        assert_eq!((steps.take(), arrivals.present.len()), (vec![1], 1));
        go_on(&mut arrivals, Duration::ZERO, &poll, &steps, START);
        assert_eq!((steps.take(), arrivals.present.len()), (vec![0], 2));
        go_on(&mut arrivals, LONG, &poll, &steps, START);
        assert_eq!((steps.take(), arrivals.present.len()), (vec![0, 0], 4));
        let left = arrivals.timeout(START).unwrap();
        assert!(!left.is_zero(), "there is nobody to accept");
    }
}
