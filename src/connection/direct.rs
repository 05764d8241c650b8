//! The direct way: a connection whose first request is an upgrade, from accept to tunnel on one thread of the
//! relay.
//!
//! Here is only the way on which nothing is unusual: PROXY header and head are there, the settings let it
//! in, the upstream's address is at hand, it takes the connection and answers 101. All else, be it a plain
//! request, a broken rule, a fault of the upstream or a matter of time, goes on where it stands as a connection of
//! the front ([`super::serve`]), which can wait and has an answer to everything. Only a handshake that the settings
//! refuse (over a limit of connections or handshakes, from a page that is not of `ALLOWED_ORIGINS`) is answered here,
//! so that a flood of them wakes no thread of the front. Who it is, what it may and what it asks is said by the
//! functions that the front calls, too.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use rustix::net::{SendFlags, send};
use tokio::runtime::Handle;

use super::{Arrived, SoFar, identify, refusal};
use crate::client::Client;
use crate::config::Config;
use crate::drain::Open;
use crate::http::Front;
use crate::http::head;
use crate::http::upgrade::{self, Asked, Begun, Granted, Handshake};
use crate::limits::{Over, Seat};
use crate::listener::Accepting;
use crate::relay::arrivals::{Arrival, Ears, Opened, Reception, Step};

/// How long all of it may take; the front has more time. A first SYN that is lost comes again after it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of a side that are kept here: more than most heads have.
const MUCH: usize = 16 * 1024;

/// Reads of a client. Each looks at all of its head again.
const FEW: u8 = 4;

/// Reads of a client that was refused, and bytes of it.
const REFUSED_READS: u8 = 32;
const REFUSED_BYTES: usize = 64 * 1024;

/// Gives each connection that is accepted the direct way.
pub(crate) struct Porch {
    shared: Arc<Shared>,
    accepting: Accepting,
    patience: Duration,
}

/// What every connection needs here.
struct Shared {
    front: Arc<Front>,
    /// Where the front is.
    runtime: Handle,
}

impl Porch {
    /// The porch of a front that runs on the runtime of whoever calls this.
    pub(crate) fn new(front: Arc<Front>) -> Self {
        let patience = patience(&front.config);
        let shared = Arc::new(Shared { front, runtime: Handle::current() });
        Self { shared, accepting: Accepting::default(), patience }
    }
}

/// No longer than any time limit of the settings, so that the front can keep them all.
fn patience(config: &Config) -> Duration {
    [
        config.proxy_header_timeout,
        config.request_head_timeout,
        config.connect_timeout / 2,
        config.response_head_timeout,
    ]
    .into_iter()
    .fold(PATIENCE, Duration::min)
}

impl Reception for Porch {
    fn receive(&self, socket: TcpStream, from: SocketAddr) -> Box<dyn Arrival> {
        let front = &self.shared.front;
        self.accepting.accepted(&front.counters);
        let connection = Connection {
            socket,
            unread: BytesMut::new(),
            balancer: from,
            accepted: Instant::now(),
            reads: 0,
            is_heard: false,
            shared: Arc::clone(&self.shared),
            open: front.census.enter(),
        };
        let seat = front.limits.enter();
        Box::new(Hearing { seat, identified: None, connection })
    }

    fn refused(&self, fault: &io::Error) -> Option<Duration> {
        self.accepting.refused(fault, &self.shared.front.counters)
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}

/// The client's side of it.
struct Connection {
    socket: TcpStream,
    /// What was read of it.
    unread: BytesMut,
    balancer: SocketAddr,
    accepted: Instant,
    /// How often that was.
    reads: u8,
    /// The poll tells of it.
    is_heard: bool,
    shared: Arc<Shared>,
    /// Counted out last: whoever waits for it finds the log line written.
    open: Open,
}

/// What a read came to.
enum Heard {
    /// Something is unread that was not.
    More,
    /// Nothing for now: an event will tell.
    Nothing,
    /// Nothing more, now or ever.
    Ended,
}

impl Connection {
    fn hear(&mut self, buffer: &mut [u8]) -> Heard {
        match read(&self.socket, buffer) {
            Ok(0) => Heard::Ended,
            Ok(length) => {
                self.reads = self.reads.saturating_add(1);
                self.unread.extend_from_slice(buffer.get(..length).unwrap_or_default());
                Heard::More
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Heard::Nothing,
            Err(error) => {
                tracing::trace!(balancer = %self.balancer, "broke off: {error}");
                Heard::Ended
            }
        }
    }

    /// It said more than is kept here, or in more pieces than are looked at.
    fn says_much(&self) -> bool {
        self.unread.len() > MUCH || self.reads >= FEW
    }

    /// Has the poll tell of its socket. False if there is no room for that.
    fn listen(&mut self, ears: &Ears<'_>) -> bool {
        if !self.is_heard {
            self.is_heard = ears.hear(&self.socket, false).is_ok();
        }
        self.is_heard
    }

    /// Goes on in the front.
    fn into_front(self, so_far: SoFar, ears: &Ears<'_>) {
        if self.is_heard {
            ears.forget(&self.socket);
        }
        let Self { socket, unread, balancer, accepted, shared, open, .. } = self;
        let Some(socket) = shared.to_tokio(socket) else { return };
        let arrived = Arrived { socket, unread, balancer, accepted, so_far };
        let front = Arc::clone(&shared.front);
        shared.runtime.spawn(super::serve(arrived, open, front));
    }
}

impl Shared {
    fn to_tokio(&self, socket: TcpStream) -> Option<tokio::net::TcpStream> {
        let _runtime = self.runtime.enter();
        match tokio::net::TcpStream::from_std(socket) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::error!("a socket could not be given to the front: {error}");
                None
            }
        }
    }
}

/// Whoever it is, it has not yet said what it wants.
struct Hearing {
    seat: Result<Seat, Over>,
    /// When the PROXY header was whole, if the head was not.
    identified: Option<Instant>,
    connection: Connection,
}

/// What a client wants, as far as it has said.
#[allow(clippy::large_enum_variant)] // It is taken apart at once.
enum Wants {
    /// More must come.
    Unknown { is_identified: bool },
    /// What is not for here.
    Other,
    /// An upgrade that the settings refuse, and the answer to it.
    Refused(String),
    /// An upgrade that may be asked for.
    Upgrade { handshake: Handshake, client: Arc<Client>, behind: usize, head: usize },
}

impl Arrival for Hearing {
    fn go_on(mut self: Box<Self>, ears: &Ears<'_>, buffer: &mut [u8]) -> Step {
        match self.connection.hear(buffer) {
            Heard::More => {}
            Heard::Nothing if self.connection.listen(ears) => return Step::Waits(self),
            Heard::Ended if self.connection.unread.is_empty() => {
                // It closed before its first byte: a TCP health check.
                self.connection.shared.front.counters.probes.add(1);
                return Step::Gone;
            }
            Heard::Nothing | Heard::Ended => return self.into_front(ears),
        }
        match self.wants() {
            Wants::Unknown { is_identified } => {
                if is_identified {
                    self.identified.get_or_insert_with(Instant::now);
                }
                let was_heard = self.connection.is_heard;
                if self.connection.says_much() || !self.connection.listen(ears) {
                    return self.into_front(ears);
                }
                // Its end may have come with the same event.
                if was_heard { self.go_on(ears, buffer) } else { Step::Waits(self) }
            }
            Wants::Other => self.into_front(ears),
            Wants::Refused(words) => refuse(self.connection, &words, ears),
            Wants::Upgrade { handshake, client, behind, head } => {
                let mut connection = self.connection;
                connection.unread.advance(behind);
                ask(Asks { handshake, client, head, connection }, ears, buffer)
            }
        }
    }

    fn leave(self: Box<Self>, ears: &Ears<'_>) {
        let _ = self.into_front(ears);
    }
}

impl Hearing {
    fn into_front(self, ears: &Ears<'_>) -> Step {
        let Self { seat, identified, connection, .. } = self;
        connection.into_front(SoFar::Nobody { seat, identified }, ears);
        Step::Gone
    }

    /// Finds out who it is and what it wants.
    fn wants(&mut self) -> Wants {
        let Self { seat, connection, .. } = self;
        let front = &connection.shared.front;
        let destination = || connection.socket.local_addr();
        let identified =
            identify::client(&connection.unread, connection.balancer, destination, &front.config);
        let (mut client, behind) = match identified {
            Ok(Some(identified)) => identified,
            Ok(None) => return Wants::Unknown { is_identified: false },
            Err(_) => return Wants::Other,
        };
        let rest = connection.unread.get(behind..).unwrap_or_default();
        let (head, length) = match head::request(rest, &front.head_limits()) {
            Ok(Some(head)) => head,
            Ok(None) => return Wants::Unknown { is_identified: true },
            Err(_) => return Wants::Other,
        };
        if !client.identified || !upgrade::is_asked_for(&head, &front.config) {
            return Wants::Other;
        }
        let seat = mem::replace(seat, Ok(Seat::default()));
        if let Err(over) = refusal::admit(seat, &mut client, || true, front) {
            let line = String::from_utf8_lossy(head.line);
            return Wants::Refused(refusal::words(line, over, client, front));
        }
        let client = Arc::new(client);
        let handshake = match Handshake::new(&head, &client, front).admitted(front) {
            Ok(handshake) => handshake,
            Err(words) => return Wants::Refused(words),
        };
        Wants::Upgrade { handshake, client, behind, head: length }
    }
}

/// Refuses an upgrade: what is refused must cost less than what is served, and must not wake the front, which
/// tunnels would wait for.
fn refuse(mut connection: Connection, words: &str, ears: &Ears<'_>) -> Step {
    // Nothing was sent to it yet, so that it takes all; who has left gets none. The FIN goes with it, in one segment.
    let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
    let sent = send(&connection.socket, words.as_bytes(), flags);
    let is_told = sent.is_ok_and(|sent| sent == words.len())
        && connection.socket.shutdown(Shutdown::Write).is_ok();
    connection.unread = BytesMut::new();
    if is_told && connection.listen(ears) {
        return Step::Waits(Box::new(Refused { reads: 0, bytes: 0, connection }));
    }
    Step::Gone
}

/// It was told so, and is read on until it closes: what is closed with bytes unread is reset, which can overtake
/// the answer (RFC 9112, section 9.6). Whoever is still here when the time of an arrival is over, or goes on sending,
/// is cut.
struct Refused {
    reads: u8,
    bytes: usize,
    connection: Connection,
}

impl Arrival for Refused {
    fn go_on(mut self: Box<Self>, _: &Ears<'_>, buffer: &mut [u8]) -> Step {
        while self.reads < REFUSED_READS && self.bytes < REFUSED_BYTES {
            self.reads += 1;
            match read(&self.connection.socket, buffer) {
                Ok(length @ 1..) => self.bytes += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Waits(self),
                Ok(0) | Err(_) => break,
            }
        }
        Step::Gone
    }

    fn leave(self: Box<Self>, _: &Ears<'_>) {}
}

/// A client that asks for an upgrade.
struct Asks {
    handshake: Handshake,
    client: Arc<Client>,
    /// Bytes of its head, the first that are unread: the front would look at it again.
    head: usize,
    connection: Connection,
}

impl Asks {
    fn into_front(self, asked: Option<Asked>, since: Instant, ears: &Ears<'_>) -> Step {
        let Self { handshake, client, connection, .. } = self;
        let begun = Begun { handshake, asked, since: since.into() };
        connection.into_front(SoFar::Asking(client, Box::new(begun)), ears);
        Step::Gone
    }
}

/// Begins to ask the upstream.
fn ask(asks: Asks, ears: &Ears<'_>, buffer: &mut [u8]) -> Step {
    let since = Instant::now();
    let upstream = &asks.connection.shared.front.upstream;
    // The front asks for one.
    let Some(address) = upstream.address_at_hand() else {
        return asks.into_front(None, since, ears);
    };
    match upstream.begin(address) {
        Ok(upstream) => {
            let said = BytesMut::new();
            let asking = Asking { asks, upstream, address, since, sent: 0, said, is_heard: false };
            Box::new(asking).go_on(ears, buffer)
        }
        // The front will find out why, and whether another address does.
        Err(_) => asks.into_front(None, since, ears),
    }
}

/// The upstream is being asked.
struct Asking {
    asks: Asks,
    upstream: TcpStream,
    address: SocketAddr,
    since: Instant,
    /// Bytes of the head that it has taken.
    sent: usize,
    /// What it has said so far.
    said: BytesMut,
    /// The poll tells of it.
    is_heard: bool,
}

impl Arrival for Asking {
    fn go_on(mut self: Box<Self>, ears: &Ears<'_>, buffer: &mut [u8]) -> Step {
        let head = self.asks.handshake.head();
        if let Some(unsent @ [_, ..]) = head.get(self.sent..) {
            let taken = match write(&self.upstream, unsent) {
                Ok(taken) => taken,
                // Not yet connected, or full.
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(_) => return self.into_front(ears),
            };
            self.sent += taken;
            if !self.is_heard {
                self.is_heard = ears.hear(&self.upstream, taken < unsent.len()).is_ok();
            }
            // It has nothing to say before that. An event will tell, the first at once.
            return if self.is_heard {
                self.listen_to_client(ears, buffer)
            } else {
                self.into_front(ears)
            };
        }
        loop {
            match read(&self.upstream, buffer) {
                Ok(length @ 1..) => {
                    let said = buffer.get(..length).unwrap_or_default();
                    let answered = if self.said.is_empty() {
                        self.answered(said, ears)
                    } else {
                        self.said.extend_from_slice(said);
                        let said = mem::take(&mut self.said);
                        self.answered(&said, ears)
                    };
                    match answered {
                        ControlFlow::Break(step) => return step,
                        // Its end may have come with the same event.
                        ControlFlow::Continue(asking) => self = asking,
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.listen_to_client(ears, buffer);
                }
                // The front finds the same.
                Ok(_) | Err(_) => return self.into_front(ears),
            }
        }
    }

    fn leave(self: Box<Self>, ears: &Ears<'_>) {
        let _ = self.into_front(ears);
    }
}

impl Asking {
    /// What is not yet sent of the head, and whoever does not answer, is the front's matter. One that has got
    /// nothing may be asked anew: it may not even have taken the connection.
    fn into_front(self, ears: &Ears<'_>) -> Step {
        let Self { asks, upstream, address, since, sent, said: unread, is_heard } = self;
        if sent == 0 {
            return asks.into_front(None, since, ears);
        }
        if is_heard {
            ears.forget(&upstream);
        }
        let shared = Arc::clone(&asks.connection.shared);
        let Some(upstream) = shared.to_tokio(upstream) else { return Step::Gone };
        asks.into_front(Some(Asked { upstream, address, sent, unread }), since, ears)
    }

    /// The client may have left, or sent more already. Without an ear it is the front that notices.
    fn listen_to_client(mut self: Box<Self>, ears: &Ears<'_>, buffer: &mut [u8]) -> Step {
        let connection = &mut self.asks.connection;
        while connection.is_heard {
            match connection.hear(buffer) {
                Heard::More if connection.says_much() => return self.into_front(ears),
                // Its end may have come with the same event.
                Heard::More => {}
                Heard::Nothing => break,
                // Its log line says so from the start.
                Heard::Ended => return Step::Gone,
            }
        }
        Step::Waits(self)
    }

    /// Looks at all that the upstream has said; goes on if it has more to say.
    fn answered(mut self: Box<Self>, said: &[u8], ears: &Ears<'_>) -> ControlFlow<Step, Box<Self>> {
        match self.asks.handshake.read_answer(said) {
            Ok(Some((granted, used))) => {
                self.said = said.get(used..).unwrap_or_default().into();
                ControlFlow::Break(self.open(granted, ears))
            }
            Ok(None) if said.len() <= MUCH => {
                self.said = said.into();
                ControlFlow::Continue(self)
            }
            // Whatever it is, the front looks at it again.
            Ok(None) | Err(_) => {
                self.said = said.into();
                ControlFlow::Break(self.into_front(ears))
            }
        }
    }

    /// Tells the client, and is a tunnel.
    fn open(self: Box<Self>, mut granted: Granted, ears: &Ears<'_>) -> Step {
        let Self { asks, upstream, address, said: early, is_heard, .. } = *self;
        let Asks { handshake, head, mut connection, client: _ } = asks;
        let mut entry = handshake.into_entry();
        entry.upstream = Some(address);
        entry.status = Some(101);
        connection.unread.advance(head);
        let sent = match write(&connection.socket, &granted.head) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => {
                upgrade::left_before_the_101(&mut entry, &error);
                return Step::Gone;
            }
        };
        if sent < granted.head.len() {
            granted.head.drain(..sent);
            if is_heard {
                ears.forget(&upstream);
            }
            let shared = Arc::clone(&connection.shared);
            let Some(upstream) = shared.to_tokio(upstream) else { return Step::Gone };
            let asked = Asked { upstream, address, sent: 0, unread: early };
            connection.into_front(SoFar::Granted(Box::new((entry, granted, asked))), ears);
            return Step::Gone;
        }
        let Connection { socket, unread, is_heard: hears_client, open, shared, .. } = connection;
        let client = (socket, unread.to_vec());
        let upstream = (upstream, early.to_vec());
        let tunnel = granted.tunnel(client, upstream, entry, address, open, &shared.front);
        Step::Opened(Opened { tunnel, hears_client, hears_upstream: is_heard })
    }
}

fn read(mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

fn write(mut socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match socket.write(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            written => return written,
        }
    }
}
