//! A tunnel's place on its worker: the tunnel, and what the worker alone has to know of it.
//!
//! What happens to the tunnel is told in `tunnel/moment.rs`; here are its sockets.

use mio::Token;
use std::num::NonZeroU32;
use std::time::Duration;

use mio::event::Event;
use socket2::SockRef;

use super::sockets::{Kernel, KernelSockets};
use crate::clock::Now;
use crate::tunnel::rules::{RouteNumber, Rulebook};
use crate::tunnel::{Local, Moment, Next, Pair, Peer, SocketEvents, Tunnel};
use crate::websocket::keepalive::Secret;

/// One place in the slab. Small, since an idle tunnel is nothing but this.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) tunnel: Tunnel,
    pub(super) local: Local,
    /// It is over and waits for its last bytes to arrive: the number of that wait.
    pub(super) delivery: Option<NonZeroU32>,
    /// Whose rules it has.
    pub(super) route: RouteNumber,
    pub(super) marks: Marks,
}

/// What its worker has noted of a tunnel: a bit each, since bytes would make each place larger.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks(u8);

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mark {
    /// It is on the list of those whose turn was over too early.
    Listed = 1,
    /// It is not given to another process: one has refused it.
    Stays = 2,
    /// It came from elsewhere, where somebody may have copies of its descriptors.
    HasCopies = 4,
}

impl Marks {
    /// Whether it is there.
    #[inline]
    pub(super) const fn has(self, mark: Mark) -> bool {
        self.0 & mark as u8 != 0
    }

    /// Puts it there, or takes it away; says whether it was there.
    pub(super) const fn put(&mut self, mark: Mark, is_there: bool) -> bool {
        let was_there = self.has(mark);
        self.0 = if is_there { self.0 | mark as u8 } else { self.0 & !(mark as u8) };
        was_there
    }
}

/// An idle tunnel is its slot and its node in the wheel, and no more, but for a long text in its
/// identity. The budget for all of it is 482 bytes.
const _: () = assert!(size_of::<Slot>() <= 448);

impl From<&Event> for SocketEvents {
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
    pub(super) fn new(tunnel: Tunnel, route: RouteNumber) -> Self {
        Self { tunnel, local: Local::default(), delivery: None, route, marks: Marks::default() }
    }

    /// The tunnel at this moment.
    #[inline]
    pub(super) fn at<'s>(&'s mut self, rules: &'s Rulebook, now: Now) -> Moment<'s> {
        Moment { state: &mut self.tunnel.state, local: &mut self.local, rules, now }
    }

    /// Sets its times, and looks at what was read before the tunnel opened.
    pub(super) fn begin(&mut self, rules: &Rulebook, now: Now, secret: Secret) {
        self.at(rules, now).begin(secret);
    }

    /// Moves what can be moved, both ways.
    #[inline]
    pub(super) fn turn(
        &mut self,
        kernel: &Kernel,
        buffer: &mut [u8],
        rules: &Rulebook,
        now: Now,
    ) -> Next {
        let Self { tunnel: Tunnel { client, upstream, state }, local, .. } = self;
        let sockets = KernelSockets { sockets: Pair { client, upstream }, kernel };
        Moment { state, local, rules, now }.turn(&sockets, buffer)
    }

    /// Whether an event of a tunnel whose last bytes are on their way says that there is nobody left to
    /// wait for. An end of the stream does not: a side that has nothing more to send may still read.
    pub(super) fn is_delivery_over(&self, peer: Peer, event: &Event) -> bool {
        event.is_error() && self.tunnel.state.survivor() == Some(peer)
    }

    /// The last of it is on its way: nothing more passes.
    pub(super) fn is_closing(&self) -> bool {
        self.delivery.is_some() || self.tunnel.state.is_closing()
    }

    /// It can go on in another process.
    pub(super) fn can_move(&self) -> bool {
        !self.marks.has(Mark::Stays) && !self.is_closing()
    }

    /// Makes the tunnel ready to be closed. After a reset, closing resets the other side, too; without
    /// one, the kernel sends what is left to send and the end of the stream.
    pub(super) fn cut(&mut self) {
        self.tunnel.state.cut();
        let is_to_be_reset = self.tunnel.state.is_to_be_reset();
        for (is_reset, socket) in [
            (is_to_be_reset.client, &self.tunnel.client),
            (is_to_be_reset.upstream, &self.tunnel.upstream),
        ] {
            if is_reset {
                // Fails only on what is no socket.
                drop(SockRef::from(socket).set_linger(Some(Duration::ZERO)));
            }
        }
    }
}

/// The token of a tunnel's socket.
pub(super) fn to_token(key: usize, side: Peer) -> Token {
    Token(key << 1 | usize::from(side == Peer::Upstream))
}

/// The tunnel and the side that a token is of.
pub(super) fn from_token(token: Token) -> (usize, Peer) {
    let side = if token.0 & 1 == 0 { Peer::Client } else { Peer::Upstream };
    (token.0 >> 1, side)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::end::{Reason, Side};
    use crate::tunnel::{Identity, Options, Protocol, Since};

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
            Identity::new(nowhere, nowhere, nowhere, "GET / HTTP/1.1", "1", Since::default()),
        );
        let rules = Rulebook::new(&Options::default());
        let now = Now::at(Duration::ZERO);
        let mut slot = Slot::new(tunnel, RouteNumber::default());
        slot.begin(&rules, now, Secret::new(1));
        slot.local.ready.client.readable = true;
        slot.local.ready.client.writable = true;
        slot.local.ready.upstream.writable = true;
        let next = slot.turn(&Kernel::default(), &mut [0; 64], &rules, now);
        assert_eq!(next, Next::AwaitDelivery);
        let end = slot.tunnel.state.end();
        assert_eq!((end.by, end.why), (Side::Upstream, Reason::Reset));
        assert_eq!(slot.tunnel.state.survivor(), Some(Peer::Client));
    }
}
