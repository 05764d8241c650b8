//! One end of a tunnel, behind the handshake: it does what its plan says until it is told to finish, checks each byte
//! that comes, and ends in order.

mod reading;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::SockRef;
use test_support::frames::{BINARY, CLOSE, CONTINUATION, PING};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::content::{Content, Fault, Side, Tally, Verifier, Writer, stamp};
use crate::frames::{Parser, frame};
use crate::plan::Plan;

/// The code of each Close here (RFC 6455, section 7.4.1).
const NORMAL: u16 = 1000;

/// More than this does not wait to be sent before the echo stops reading.
const ECHO_ROOM: usize = 256 * 1024;

/// How long an end may take once it has begun. Full buffers are read meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// What our own Pings begin with. Others are the proxy's.
const OWN_PING: &[u8] = b"load";

/// Tunnels that are to finish: those with numbers in one of the ranges.
pub(crate) type Finish = Vec<std::ops::Range<u64>>;

/// How a tunnel ended, and what it was till then, as one end has seen it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) sent: Tally,
    pub(crate) received: Tally,
    /// Bytes behind the heads of the handshake, each way.
    pub(crate) wire_sent: u64,
    pub(crate) wire_received: u64,
    /// `done`; or `reset`, `end`, `close`, `late`, `fault`.
    pub(crate) ending: String,
    pub(crate) fault: Option<Fault>,
    /// Our own Pings and Pongs to them.
    pub(crate) pings: u64,
    pub(crate) pongs: u64,
    /// Pings that the proxy sent.
    pub(crate) proxy_pings: u64,
    /// How often the socket took no more.
    pub(crate) blocked: u64,
    /// Microseconds: of round trips where messages come back, else from one end to the other.
    pub(crate) delays: Vec<u32>,
    /// The longest of these, and when it was over, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) gap: Option<(u32, u64)>,
}

/// Bytes that are sent at a time.
struct Piece {
    due: Instant,
    bytes: Vec<u8>,
    ends_frame: bool,
    ends_message: bool,
}

#[allow(clippy::struct_excessive_bools)] // Each is one thing that has happened or not.
struct End {
    side: Side,
    plan: Plan,
    began: Instant,
    parser: Parser,
    writer: Writer,
    verifier: Verifier,
    /// Bytes to send, and how many of them are sent.
    out: Vec<u8>,
    written: usize,
    /// Whether what was put there last has not ended its frame: nothing else may follow.
    is_in_frame: bool,
    /// Pings and Pongs, which wait for the end of a frame.
    controls: Vec<u8>,
    pieces: VecDeque<Piece>,
    next_message: Option<Instant>,
    next_ping: Option<Instant>,
    /// When messages went whose echo is to come.
    echoes: VecDeque<u64>,
    /// Our Pings whose Pong is to come: number and time.
    pongs: VecDeque<(u64, u64)>,
    /// The number of the other end's next Ping.
    peer_ping: u64,
    /// Bytes of a message without frames, as far as they came.
    bare: usize,
    /// Bytes until reading stands still, and until when it does.
    budget: usize,
    stalls_until: Option<Instant>,
    is_to_finish: bool,
    has_ended: bool,
    is_shut: bool,
    peer_ended: Option<Instant>,
    is_all_read: bool,
    deadline: Option<Instant>,
    outcome: Outcome,
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 * 1024]);
}

/// Carries out `plan` at this end. `early` came behind the head of the handshake.
pub(crate) async fn run(
    socket: TcpStream,
    early: &[u8],
    (side, tunnel): (Side, u64),
    plan: Plan,
    mut finish: watch::Receiver<Finish>,
) -> Outcome {
    if plan.stall.is_some() || plan.sends.is_some_and(|pace| pace.every == 0) {
        // Small buffers here leave the full ones to whoever is in between.
        let socket = SockRef::from(&socket);
        let _ = socket.set_recv_buffer_size(32 * 1024);
        let _ = socket.set_send_buffer_size(32 * 1024);
    }
    let mut end = End::new(side, tunnel, plan);
    let mut ending = end.take(early).err();
    while ending.is_none() {
        ending = match end.step(&socket, tunnel, &mut finish).await {
            Ok(false) => None,
            Ok(true) => Some("done".to_owned()),
            Err(how) => Some(how),
        };
    }
    let (sent, received) = (end.writer.tally(), end.verifier.tally());
    Outcome { sent, received, ending: ending.unwrap_or_default(), ..end.outcome }
}

impl End {
    fn new(side: Side, tunnel: u64, plan: Plan) -> Self {
        let now = Instant::now();
        // What comes back is what the client made.
        let echoed = |from: Side| if plan.echoes || plan.awaits_echo { Side::Client } else { from };
        let content = |from| Content::new(tunnel, echoed(from));
        // Not all at the same moment.
        let part = |every: u64| now + Duration::from_millis(every * (tunnel * 37 % 100) / 100);
        Self {
            side,
            plan,
            began: now,
            parser: Parser::new(side.other()),
            writer: Writer::new(content(side)),
            verifier: Verifier::new(content(side.other())),
            out: Vec::new(),
            written: 0,
            is_in_frame: false,
            controls: Vec::new(),
            pieces: VecDeque::new(),
            next_message: plan.sends.map(|pace| part(pace.every)),
            next_ping: plan.ping_every.map(part),
            echoes: VecDeque::new(),
            pongs: VecDeque::new(),
            peer_ping: 0,
            bare: 0,
            budget: 0,
            stalls_until: plan.stall.map(|stall| now + Duration::from_millis(stall.time)),
            is_to_finish: false,
            has_ended: false,
            is_shut: false,
            peer_ended: None,
            is_all_read: false,
            deadline: None,
            outcome: Outcome::default(),
        }
    }

    /// Sends what is due, then waits for something and reads it. True when the tunnel has ended in order.
    async fn step(
        &mut self,
        socket: &TcpStream,
        tunnel: u64,
        finish: &mut watch::Receiver<Finish>,
    ) -> Result<bool, String> {
        let now = Instant::now();
        self.hear(tunnel, finish);
        self.prepare(now);
        self.write(socket)?;
        if self.is_all_read && self.is_shut {
            return Ok(true);
        }
        let is_closing = self.has_ended || self.peer_ended.is_some();
        if self.is_to_finish || is_closing && !self.plan.is_bare {
            let late = Duration::from_millis(self.plan.answers_late);
            if now > *self.deadline.get_or_insert(now + PATIENCE + late) {
                return Err("late".to_owned());
            }
        }
        let reads = (self.reads(now) && !self.is_all_read).then_some(Interest::READABLE);
        let writes = (self.written < self.out.len()).then_some(Interest::WRITABLE);
        let interest = match (reads, writes) {
            (Some(reads), Some(writes)) => Some(reads | writes),
            (reads, writes) => reads.or(writes),
        };
        let wake = self.wake(now);
        tokio::select! {
            event = async { socket.ready(interest.unwrap_or(Interest::READABLE)).await }, if interest.is_some() => {
                // What comes may follow from it.
                self.hear(tunnel, finish);
                if event.map_err(|fault| named(&fault))?.is_readable() && reads.is_some() {
                    self.read(socket)?;
                }
            }
            () = sleep_until(wake) => {}
            changed = finish.changed(), if !self.is_to_finish => {
                // Whoever would tell it has gone.
                self.is_to_finish |= changed.is_err();
            }
        }
        Ok(false)
    }

    /// Whether it is time to finish.
    fn hear(&mut self, tunnel: u64, finish: &watch::Receiver<Finish>) {
        if !self.is_to_finish && finish.borrow().iter().any(|range| range.contains(&tunnel)) {
            self.is_to_finish = true;
            self.stalls_until = None;
        }
    }

    /// Whether what comes is read now.
    fn reads(&mut self, now: Instant) -> bool {
        if self.stalls_until.is_some_and(|until| now >= until) {
            self.stalls_until = None;
            self.budget = self.plan.stall.map_or(0, |stall| stall.bytes);
        }
        self.stalls_until.is_none() && !(self.plan.echoes && self.out.len() > ECHO_ROOM)
    }

    /// The next moment at which something is due.
    fn wake(&self, now: Instant) -> Instant {
        let late = Duration::from_millis(self.plan.answers_late);
        let closes = self.plan.closes_at.map(|after| self.began + Duration::from_millis(after));
        let all = [
            self.pieces.front().map(|piece| piece.due),
            self.next_message.filter(|_| self.pieces.is_empty() && self.out.is_empty()),
            self.next_ping,
            self.stalls_until,
            self.deadline,
            closes.filter(|_| !self.has_ended),
            self.peer_ended.map(|at| at + late).filter(|_| !self.has_ended && !self.plan.is_bare),
        ];
        // With an end that waits for a message's pieces, some are in the past.
        let least = now + Duration::from_millis(1);
        let first = all.into_iter().flatten().min();
        first.map_or(now + PATIENCE, |first| first.max(least))
    }

    /// Puts what is due behind what is to be sent.
    fn prepare(&mut self, now: Instant) {
        let ends = !self.has_ended && self.is_time_to_end(now);
        if self.has_ended || ends {
            self.next_message = None;
        }
        if self.has_ended || ends || self.is_to_finish {
            self.next_ping = None;
        }
        if let (Some(pace), Some(due)) = (self.plan.sends, self.next_message)
            && due <= now
            && self.pieces.is_empty()
            && (pace.every > 0 || self.out.is_empty())
        {
            self.begin_message();
            self.next_message = Some(due.max(now - PATIENCE) + Duration::from_millis(pace.every));
        }
        while self.pieces.front().is_some_and(|piece| piece.due <= now) {
            let Some(piece) = self.pieces.pop_front() else { return };
            self.out.extend_from_slice(&piece.bytes);
            self.is_in_frame = !piece.ends_frame;
            if piece.ends_message && self.plan.awaits_echo {
                self.echoes.push_back(stamp());
            }
            if piece.ends_frame {
                self.out.append(&mut self.controls);
            }
        }
        if let (Some(every), Some(due)) = (self.plan.ping_every, self.next_ping)
            && due <= now
        {
            self.next_ping = Some(due + Duration::from_millis(every));
            self.ping();
        }
        if !self.is_in_frame && !self.has_ended {
            self.out.append(&mut self.controls);
        }
        if ends && self.pieces.is_empty() && !self.is_in_frame {
            self.has_ended = true;
            if !self.plan.is_bare {
                self.out.extend(frame(self.side, true, CLOSE, &NORMAL.to_be_bytes()));
            }
        }
    }

    /// Whether this end's direction is to end, perhaps behind the message that is under way.
    fn is_time_to_end(&self, now: Instant) -> bool {
        let is_told = self.is_to_finish && (self.side == Side::Client || self.plan.is_bare);
        let is_enough = self.plan.ends_after.is_some_and(|enough| self.writer.messages() >= enough);
        let has_answers = !self.plan.awaits_echo || self.echoes.is_empty();
        let after = |milliseconds| Duration::from_millis(milliseconds);
        let is_first = self.plan.closes_at.is_some_and(|at| now >= self.began + after(at));
        let is_answer = !self.plan.is_bare
            && self.peer_ended.is_some_and(|at| now >= at + after(self.plan.answers_late));
        // A message that goes out in pieces is not in the echoes yet.
        (is_told || is_enough) && has_answers && self.pieces.is_empty() && self.pongs.is_empty()
            || is_first
            || is_answer
    }

    fn begin_message(&mut self) {
        let Some(pace) = self.plan.sends else { return };
        let is_last = self.plan.ends_after.is_some_and(|enough| self.writer.messages() >= enough);
        if self.is_to_finish || is_last {
            return;
        }
        let message = self.writer.message(pace.size);
        let mut due = Instant::now();
        if self.plan.is_bare {
            let piece = Piece { due, bytes: message, ends_frame: true, ends_message: true };
            self.pieces.push_back(piece);
            return;
        }
        let pause = Duration::from_millis(pace.pause);
        let fragments = pace.fragments.max(1);
        let size = message.len().div_ceil(fragments);
        for (number, payload) in message.chunks(size).enumerate() {
            let ends_message = (number + 1) * size >= message.len();
            let opcode = if number == 0 { BINARY } else { CONTINUATION };
            let mut bytes = frame(self.side, ends_message, opcode, payload);
            if !pause.is_zero() {
                let rest = bytes.split_off(bytes.len() / 2);
                let ends_frame = false;
                self.pieces.push_back(Piece { due, bytes, ends_frame, ends_message: false });
                (bytes, due) = (rest, due + pause);
            }
            self.pieces.push_back(Piece { due, bytes, ends_frame: true, ends_message });
            due += pause;
        }
    }

    fn ping(&mut self) {
        let number = self.outcome.pings;
        let payload = [OWN_PING, &number.to_be_bytes()].concat();
        self.controls.extend(frame(self.side, true, PING, &payload));
        self.pongs.push_back((number, stamp()));
        self.outcome.pings += 1;
    }

    fn write(&mut self, socket: &TcpStream) -> Result<(), String> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match socket.try_write(rest) {
                Ok(length) => {
                    self.written += length;
                    self.outcome.wire_sent += length as u64;
                }
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
                    self.outcome.blocked += 1;
                    return Ok(());
                }
                Err(fault) => return Err(named(&fault)),
            }
        }
        self.out.clear();
        self.written = 0;
        // Of a WebSocket the server closes first (RFC 6455, section 7.1.1), and the client when it has heard that.
        let is_turn = match self.side {
            _ if self.plan.is_bare => true,
            Side::Application => self.peer_ended.is_some(),
            Side::Client => self.is_all_read,
        };
        if self.has_ended && is_turn && !self.is_shut {
            self.is_shut = true;
            SockRef::from(socket).shutdown(Shutdown::Write).map_err(|fault| named(&fault))?;
        }
        Ok(())
    }

    fn read(&mut self, socket: &TcpStream) -> Result<(), String> {
        BUFFER.with_borrow_mut(|buffer| {
            let most = if self.plan.stall.is_some() && !self.is_to_finish {
                self.budget.clamp(1, buffer.len())
            } else {
                buffer.len()
            };
            let place = buffer.get_mut(..most).unwrap_or_default();
            match socket.try_read(place) {
                Ok(0) => self.take_end(),
                Ok(length) => self.take(place.get(..length).unwrap_or_default()),
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => Ok(()),
                Err(fault) => Err(named(&fault)),
            }
        })
    }
}

/// The word for an error of a socket.
fn named(fault: &io::Error) -> String {
    match fault.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset".to_owned(),
        _ => fault.to_string(),
    }
}
