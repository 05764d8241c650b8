//! A tunnel on its thread: the two directions, and what one means for the other.
//!
//! A socket is the source of one direction and the sink of the other. Where it breaks, the direction
//! into it is over at once; the direction out of it first passes on what had come before the fault,
//! since the last words of an application (its Close frame) often stand right before a reset: an
//! application that closes with bytes unread makes its kernel send one (RFC 2525, section 2.17).
//! `ending` is an end by us; `times` is what is due because of time alone.

mod ending;
mod times;

use std::net::TcpStream;
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;

use mio::event::Event;

use super::direction::{self, Peer, Readiness, Stop, Watch};
use super::keepalive::Keepalive;
use super::options::Rulebook;
use super::sockets::Sockets;
use crate::end::{Reason, Side};
use crate::tunnel::{Course, Flow, Sink, Source, Tunnel};

use ending::Ending;
use times::{Leave, Mark};

/// One place in the slab. Small, since an idle tunnel is nothing but this.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) tunnel: Tunnel,
    /// It is over and waits for its last bytes to arrive: the number of its farewell.
    pub(super) farewell: Option<NonZeroU32>,
    /// It is on the list of those whose turn was over too early.
    pub(super) listed: bool,
    /// Its time in the wheel is to be set anew.
    pub(super) rearm: bool,
    client: Readiness,
    upstream: Readiness,
    ending: Option<Ending>,
    /// When it is to get a Close, and why: its age, or the drain. Behind its last byte: when it ends,
    /// whatever comes.
    leaves_at: u32,
    leaves: Option<Leave>,
    /// Since when no data passed; where one side has ended, since when no byte did.
    idle: Mark,
    /// Since when the upstream, and the client, take nothing.
    stalled: [u32; 2],
}

/// An idle tunnel is its slot and its node in the wheel, and no more, but for a long text in its
/// identity. The budget for all of it is 512 bytes.
const _: () = assert!(size_of::<Slot>() <= 456);

/// What is to be done with a slot after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait for an event.
    Wait,
    /// Give it another turn.
    Again,
    /// It is over: end it.
    End,
    /// It is over, and one side is still there to get the last bytes.
    Farewell,
    /// A mistake of ours happened in it: cut it.
    Failed,
}

/// What the poll told of a socket.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // Each may come with any other.
pub(super) struct News {
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// An urgent byte.
    pub(super) priority: bool,
    pub(super) read_closed: bool,
    pub(super) error: bool,
}

impl From<&Event> for News {
    #[inline]
    fn from(event: &Event) -> Self {
        Self {
            readable: event.is_readable(),
            writable: event.is_writable(),
            priority: event.is_priority(),
            read_closed: event.is_read_closed(),
            error: event.is_error(),
        }
    }
}

impl Slot {
    /// A place for a tunnel that comes at tick `now`.
    pub(super) fn place(tunnel: Tunnel, now: u32) -> Self {
        let mark = Mark { since: now, seen: 0 };
        Self {
            tunnel,
            farewell: None,
            listed: false,
            rearm: true,
            client: Readiness::default(),
            upstream: Readiness::default(),
            ending: None,
            leaves_at: 0,
            leaves: None,
            idle: mark,
            stalled: [now; 2],
        }
    }

    /// The same, begun.
    #[cfg(any(test, fuzzing))]
    pub(super) fn new(tunnel: Tunnel, rulebook: &Rulebook, now: u32) -> Self {
        let mut slot = Self::place(tunnel, now);
        slot.begin(rulebook, now);
        slot
    }

    /// Sets its times, and looks at what was read before the tunnel opened.
    pub(super) fn begin(&mut self, rulebook: &Rulebook, now: u32) {
        self.tunnel.client_alive.heard(now);
        if rulebook.ping_upstream.is_some() && self.tunnel.from_client.scanner.is_on() {
            self.tunnel.upstream_alive.get_or_insert_default().heard(now);
        }
        if let Some(longest) = rulebook.lifetime {
            self.leaves_at = now.wrapping_add(self.jittered(longest));
            self.leaves = Some(Leave::Aged);
        }
        // Both first: a Close stands behind what came early, at a boundary of it.
        let scanned = [Side::Client, Side::Upstream].map(|side| {
            let (flow, mut watch) = self.watched(side, rulebook, now);
            (side, direction::scan_early(flow, &mut watch))
        });
        for (side, result) in scanned {
            if let Err(Stop::Refused(why)) = result {
                self.refuse(side, why, rulebook, now);
            }
        }
    }

    /// Remembers what the poll told of one socket.
    pub(super) fn note(&mut self, side: Side, news: News, now: u32) {
        let ready = self.readiness(side);
        let is_last = news.read_closed || news.error;
        ready.readable |= is_last || news.readable;
        ready.read_on |= is_last || news.priority;
        ready.writable |= news.writable;
        if news.readable {
            match (side, &mut self.tunnel.upstream_alive) {
                (Side::Client, _) => self.tunnel.client_alive.heard(now),
                (_, Some(alive)) => alive.heard(now),
                (_, None) => {}
            }
        }
        if news.error {
            self.broke(side, false);
        }
    }

    /// Moves what can be moved, both ways.
    pub(super) fn turn(
        &mut self,
        sockets: &impl Sockets,
        buffer: &mut [u8],
        rulebook: &Rulebook,
        now: u32,
    ) -> Next {
        loop {
            if self.ending.is_some() {
                // Once our Close is out, the client's is the last that it has to say.
                let is_out = self.tunnel.from_upstream.course == Course::Discards;
                self.tunnel.from_client.ends_behind_close |= is_out;
            }
            let forth = self.pass_forth(sockets, buffer, rulebook, now);
            let back = self.pass_back(sockets, buffer, rulebook, now);
            if self.ending.is_some() {
                if self.see_answer(rulebook, now) {
                    continue;
                }
                self.see_last_byte(rulebook, now);
            }
            if forth == Stop::Waits && back == Stop::Waits {
                return self.next(Next::Wait);
            }
            self.note_first();
            let changed = [
                self.react(forth, Side::Client, Side::Upstream, rulebook, now),
                self.react(back, Side::Upstream, Side::Client, rulebook, now),
            ];
            // A fault of one direction gives the other something to do: to read out what is left,
            // or to stop. Each side breaks once and is refused once, so that this ends.
            if changed.contains(&true) {
                continue;
            }
            let is_turn_over = forth == Stop::TurnOver || back == Stop::TurnOver;
            return self.next(if is_turn_over { Next::Again } else { Next::Wait });
        }
    }

    /// Passes what the client sends.
    #[inline]
    fn pass_forth(
        &mut self,
        sockets: &impl Sockets,
        buffer: &mut [u8],
        rulebook: &Rulebook,
        now: u32,
    ) -> Stop {
        let Self { tunnel, client: from, upstream: to, rearm, .. } = self;
        let (read, write) = (&tunnel.client, &tunnel.upstream);
        let (client, upstream, close) =
            (&mut tunnel.client_alive, tunnel.upstream_alive.as_deref_mut(), &mut tunnel.close);
        let bulk = &mut sockets.way((Side::Client, read), (Side::Upstream, write));
        let watch = move || Watch {
            rulebook,
            now,
            source: Peer::new(Side::Client, Some(client), read),
            sink: Peer::new(Side::Upstream, upstream, write),
            close,
            rearm,
            bulk: Some(bulk),
        };
        let flow = &mut tunnel.from_client;
        let read = sockets.reach(Side::Client, read);
        let write = sockets.reach(Side::Upstream, write);
        direction::pass(flow, read, from, write, to, buffer, &rulebook.rules, watch)
    }

    /// Passes what the upstream sends.
    #[inline]
    fn pass_back(
        &mut self,
        sockets: &impl Sockets,
        buffer: &mut [u8],
        rulebook: &Rulebook,
        now: u32,
    ) -> Stop {
        let Self { tunnel, client: to, upstream: from, rearm, .. } = self;
        let (read, write) = (&tunnel.upstream, &tunnel.client);
        let (client, upstream, close) =
            (&mut tunnel.client_alive, tunnel.upstream_alive.as_deref_mut(), &mut tunnel.close);
        let bulk = &mut sockets.way((Side::Upstream, read), (Side::Client, write));
        let watch = move || Watch {
            rulebook,
            now,
            source: Peer::new(Side::Upstream, upstream, read),
            sink: Peer::new(Side::Client, Some(client), write),
            close,
            rearm,
            bulk: Some(bulk),
        };
        let flow = &mut tunnel.from_upstream;
        let read = sockets.reach(Side::Upstream, read);
        let write = sockets.reach(Side::Client, write);
        direction::pass(flow, read, from, write, to, buffer, &rulebook.rules, watch)
    }

    /// The flow from `source`, and what it has to know.
    fn watched<'s>(
        &'s mut self,
        source: Side,
        rulebook: &'s Rulebook,
        now: u32,
    ) -> (&'s mut Flow, Watch<'s>) {
        let Self { tunnel, rearm, .. } = self;
        let client = Peer::new(Side::Client, Some(&mut tunnel.client_alive), &tunnel.client);
        let alive = tunnel.upstream_alive.as_deref_mut();
        let upstream = Peer::new(Side::Upstream, alive, &tunnel.upstream);
        let close = &mut tunnel.close;
        if source == Side::Upstream {
            let watch =
                Watch { rulebook, now, source: upstream, sink: client, close, rearm, bulk: None };
            return (&mut tunnel.from_upstream, watch);
        }
        let watch =
            Watch { rulebook, now, source: client, sink: upstream, close, rearm, bulk: None };
        (&mut tunnel.from_client, watch)
    }

    pub(super) fn can_say_goodbye(&self) -> bool {
        self.tunnel.from_upstream.scanner.is_on()
    }

    /// The last of it is on its way: nothing more passes.
    pub(super) fn is_closing(&self) -> bool {
        self.farewell.is_some() || self.tunnel.ended.is_some()
    }

    /// Takes over what a direction found out. Whether that gives something to do.
    fn react(
        &mut self,
        stop: Stop,
        source: Side,
        sink: Side,
        rulebook: &Rulebook,
        now: u32,
    ) -> bool {
        match stop {
            Stop::Waits | Stop::Ended | Stop::TurnOver => return false,
            Stop::SourceBroke => self.broke(source, true),
            Stop::SinkBroke { told } => self.broke(sink, told),
            Stop::SourceGone => self.gone(source, rulebook, now),
            Stop::SinkGone => self.gone(sink, rulebook, now),
            Stop::Refused(why) => self.refuse(source, why, rulebook, now),
        }
        true
    }

    /// The machine or the network of `side` is gone.
    fn gone(&mut self, side: Side, rulebook: &Rulebook, now: u32) {
        if self.tunnel.ended.is_none() {
            self.give_up(side, Reason::Timeout, rulebook, now);
        } else {
            self.broke(side, true);
        }
    }

    /// The connection of `side` is broken: nothing can be sent to it, and what it sent before is to
    /// be read to its end.
    fn broke(&mut self, side: Side, told: bool) {
        let (from, into) = match side {
            Side::Upstream => (&mut self.tunnel.from_upstream, &mut self.tunnel.from_client),
            _ => (&mut self.tunnel.from_client, &mut self.tunnel.from_upstream),
        };
        if from.source == Source::Open {
            from.source = Source::Broken { told };
        }
        if into.sink == Sink::Open {
            into.sink = Sink::Broken;
            into.waiting.clear();
        }
        let ready = self.readiness(side);
        ready.readable = true;
        ready.read_on = true;
        self.note_first();
    }

    fn note_first(&mut self) {
        let (client, upstream) = (&mut self.tunnel.from_client, &mut self.tunnel.from_upstream);
        if client.ended_first || upstream.ended_first {
            return;
        }
        if client.source != Source::Open {
            client.ended_first = true;
        } else if upstream.source != Source::Open {
            upstream.ended_first = true;
        }
    }

    /// What is next, where it would be `otherwise` if the tunnel were not over.
    fn next(&self, otherwise: Next) -> Next {
        let Tunnel { from_client, from_upstream, .. } = &self.tunnel;
        if !self.tunnel.is_over() {
            return otherwise;
        }
        if self.tunnel.ended.is_some() {
            return Next::End;
        }
        let told_both = from_client.sink == Sink::Ended && from_upstream.sink == Sink::Ended;
        if told_both || self.survivor().is_none() { Next::End } else { Next::Farewell }
    }

    /// The side that still has a connection, where the other has not.
    fn survivor(&self) -> Option<Side> {
        match (self.is_broken(Side::Client), self.is_broken(Side::Upstream)) {
            (true, false) => Some(Side::Upstream),
            (false, true) => Some(Side::Client),
            _ => None,
        }
    }

    fn is_broken(&self, side: Side) -> bool {
        let into = match side {
            Side::Upstream => &self.tunnel.from_client,
            _ => &self.tunnel.from_upstream,
        };
        into.sink == Sink::Broken || self.from(side).source == Source::Reset
    }

    fn from(&self, side: Side) -> &Flow {
        match side {
            Side::Upstream => &self.tunnel.from_upstream,
            _ => &self.tunnel.from_client,
        }
    }

    fn readiness(&mut self, side: Side) -> &mut Readiness {
        match side {
            Side::Upstream => &mut self.upstream,
            _ => &mut self.client,
        }
    }
}

impl<'w> Peer<'w> {
    fn new(side: Side, alive: Option<&'w mut Keepalive>, socket: &TcpStream) -> Self {
        Self { side, alive, stream: stream(socket) }
    }
}

/// The number of the stream of frames towards a socket: no other has it as long as it is open.
fn stream(socket: &TcpStream) -> u64 {
    socket.as_raw_fd().unsigned_abs().into()
}

const fn other(side: Side) -> Side {
    match side {
        Side::Upstream => Side::Client,
        _ => Side::Upstream,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::io::Write;
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::os::fd::OwnedFd;
    use std::time::Instant;

    use super::*;
    use crate::relay::Options;
    use crate::relay::sockets::Kernel;
    use crate::tunnel::{Identity, Protocol};

    /// A kernel that refuses a write tells of a broken connection by an event, too. Where it does
    /// not, the tunnel ends all the same.
    #[test]
    fn a_write_fault_without_an_event_ends_the_tunnel() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (client, nowhere) = listener.accept().unwrap();
        far.write_all(b"no socket takes this").unwrap();
        let upstream = TcpStream::from(OwnedFd::from(File::open("/dev/null").unwrap()));
        let tunnel = Tunnel::new(
            Protocol::Other,
            (client, Vec::new()),
            (upstream, Vec::new()),
            identity(nowhere),
        );
        let rulebook = Rulebook::new(&Options::default());
        let mut slot = Slot::new(tunnel, &rulebook, 0);
        slot.client.readable = true;
        slot.client.writable = true;
        slot.upstream.writable = true;
        assert_eq!(slot.turn(&Kernel::default(), &mut [0; 64], &rulebook, 0), Next::Farewell);
        let end = slot.tunnel.end();
        assert_eq!((end.by, end.why), (Side::Upstream, Reason::Reset));
        assert_eq!(slot.survivor(), Some(Side::Client));
    }

    pub(super) fn identity(address: SocketAddr) -> Identity {
        Identity::new(address, address, address, "GET / HTTP/1.1", "1", Instant::now())
    }
}
