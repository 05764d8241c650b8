//! A tunnel's state under any schedule: bytes of any size, room of any size, time, pings, limits, drain,
//! ends and resets in any order, without a socket. The body of a fuzz target (`src/fuzzing.rs`).
//!
//! Both sockets are here in memory and behave as the kernel's do; the poll and the wheel of a relay thread
//! are played. Afterwards a second reader of frames explains each byte that came out: what was sent, in
//! order, less the pongs to our pings, plus what is ours between frames and nowhere else.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation
)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::Options;
use super::bulk::ByHand;
use super::direction::EndWrite;
use super::options::{Rulebook, stamp};
use super::scanner::MAX_KEPT;
use super::slot::{News, Next, Slot};
use super::sockets::Sockets;
use super::wheel::{TICK, is_reached};
use crate::end::{Reason, Side};
use crate::fuzzing::Script;
use crate::fuzzing::reference::{self, CLOSE, Frame, Limits, PING, PONG, Reading, Tail};
use crate::tunnel::{Course, Flow, Identity, Protocol, Sink, Source, Tunnel, Wants};

/// Bytes that all sides together send in one schedule at most, so that one run stays short.
const MAX_SENT: usize = 1 << 16;

/// Bytes that one call of the way for much payload moves at most.
const BULK: usize = 48;

/// Times that a tunnel is looked at because of time, in one step, at most: more would say the same.
const LOOKS_PER_STEP: usize = 64;

/// Twelve bytes of setup, then steps.
pub fn tunnel(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut run = Run::new(&mut script);
    while let Some(step) = script.next() {
        if run.is_over {
            break;
        }
        run.step(step, &mut script);
        run.check_bounds();
    }
    run.finish();
}

/// One socket, seen from the far side.
#[derive(Default)]
struct Wire {
    /// What came and was not read. A read stops where one piece ends, as at an urgent byte.
    arrived: RefCell<VecDeque<VecDeque<u8>>>,
    has_ended: Cell<bool>,
    reset: Cell<Reset>,
    is_interrupted: Cell<bool>,
    room: Cell<usize>,
    /// A write was not taken whole, so that room is news.
    was_full: Cell<bool>,
    taken: RefCell<Vec<u8>>,
    /// How often it was written to.
    writes: Cell<usize>,
    /// Its end of the stream was told.
    is_told: Cell<bool>,
    /// Something happened that the poll has not told.
    has_news: Cell<bool>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Reset {
    #[default]
    No,
    Yes,
    /// The kernel reports it once.
    Reported,
}

impl Wire {
    fn interrupt(&self) -> io::Result<()> {
        if self.is_interrupted.replace(false) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    }

    fn is_reset(&self) -> bool {
        self.reset.get() != Reset::No
    }

    fn can_send(&self) -> bool {
        !self.has_ended.get() && !self.is_reset()
    }

    fn arrive(&self, bytes: &[u8], is_urgent: bool) {
        let mut arrived = self.arrived.borrow_mut();
        match arrived.back_mut() {
            Some(piece) if !is_urgent => piece.extend(bytes),
            _ => arrived.push_back(bytes.iter().copied().collect()),
        }
        self.has_news.set(true);
    }

    fn make_room(&self, bytes: usize) {
        self.room.set(self.room.get().saturating_add(bytes));
        if bytes > 0 && self.was_full.replace(false) {
            self.has_news.set(true);
        }
    }

    /// What an edge-triggered poll tells, if there is news: all that holds now.
    fn news(&self) -> Option<News> {
        self.has_news.replace(false).then(|| {
            let arrived = self.arrived.borrow();
            // Whoever was told that there is no room is told when there is.
            self.was_full.set(self.was_full.get() || self.room.get() == 0);
            let is_last = self.has_ended.get() || self.is_reset();
            News {
                readable: !arrived.is_empty() || is_last,
                writable: self.room.get() > 0 || self.is_reset(),
                priority: arrived.len() > 1,
                read_closed: is_last,
                error: self.reset.get() == Reset::Yes,
            }
        })
    }
}

impl Read for &Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupt()?;
        assert!(!buffer.is_empty(), "a read into nothing looks like the end");
        let mut arrived = self.arrived.borrow_mut();
        let Some(piece) = arrived.front_mut() else {
            if self.reset.get() == Reset::Yes {
                self.reset.set(Reset::Reported);
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if self.has_ended.get() || self.is_reset() {
                return Ok(0);
            }
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let taken = piece.len().min(buffer.len());
        for (place, byte) in buffer.iter_mut().zip(piece.drain(..taken)) {
            *place = byte;
        }
        if piece.is_empty() {
            arrived.pop_front();
        }
        Ok(taken)
    }
}

impl Write for &Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.interrupt()?;
        assert!(!bytes.is_empty(), "nothing is written");
        self.writes.set(self.writes.get() + 1);
        assert!(!self.is_told.get(), "written to behind the end of the stream");
        match self.reset.get() {
            Reset::No => {}
            Reset::Yes => {
                self.reset.set(Reset::Reported);
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Reset::Reported => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        let taken = bytes.len().min(self.room.get());
        self.was_full.set(taken < bytes.len());
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room.set(self.room.get() - taken);
        self.taken.borrow_mut().extend(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl EndWrite for &Wire {
    fn end(&mut self) -> io::Result<()> {
        assert!(!self.is_told.replace(true), "its end is told twice");
        if self.is_reset() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok(())
    }
}

#[derive(Default)]
struct Wires {
    client: Wire,
    upstream: Wire,
}

impl Wires {
    const fn of(&self, side: Side) -> &Wire {
        match side {
            Side::Upstream => &self.upstream,
            _ => &self.client,
        }
    }
}

impl Sockets for Wires {
    type Reached<'s> = &'s Wire;
    type Way<'s> = ByHand<&'s Wire, &'s Wire>;

    fn reach<'s>(&'s self, side: Side, _: &'s TcpStream) -> &'s Wire {
        self.of(side)
    }

    fn way<'s>(
        &'s self,
        (from, _): (Side, &'s TcpStream),
        (into, _): (Side, &'s TcpStream),
    ) -> Self::Way<'s> {
        ByHand { from: self.of(from), into: self.of(into), most: BULK }
    }
}

/// Of each side, what has to be remembered of it.
#[derive(Default)]
struct Told {
    /// All that it sent, before the tunnel opened too.
    sent: Vec<u8>,
    /// How much of what it was sent has been searched for our pings.
    seen: usize,
    /// Our pings that it got and has not answered, oldest first.
    pings: VecDeque<Vec<u8>>,
    /// All payloads of our pings that it got.
    payloads: Vec<Vec<u8>>,
}

struct Run {
    wires: Wires,
    told: [Told; 2],
    slot: Option<Slot>,
    rulebook: Rulebook,
    limits: Limits,
    protocol: Protocol,
    buffer: Vec<u8>,
    early: usize,
    now: u32,
    look_at: u32,
    is_over: bool,
    /// Time, or a reset, ended it: not all may have arrived.
    is_cut: bool,
}

const BOTH: [Side; 2] = [Side::Client, Side::Upstream];

fn other(side: Side) -> Side {
    if side == Side::Client { Side::Upstream } else { Side::Client }
}

fn index(side: Side) -> usize {
    usize::from(side == Side::Upstream)
}

/// What goes to `side`.
fn towards(tunnel: &Tunnel, side: Side) -> &Flow {
    match side {
        Side::Upstream => &tunnel.from_client,
        _ => &tunnel.from_upstream,
    }
}

impl Run {
    fn new(script: &mut Script<'_>) -> Self {
        let switches = script.byte();
        let limit = |bit: u8, value: u8| (switches & 1 << bit != 0).then_some(u64::from(value));
        let time = |value: u8| TICK * (1 + u32::from(value));
        let timed = |bit: u8, value: u8| (switches & 1 << bit != 0).then_some(time(value));
        let limits = Limits {
            frame: limit(1, script.byte()),
            message: limit(2, script.byte()),
            is_strict: switches & 1 != 0,
            awaits_pong: switches >> 3 & 3 != 0,
        };
        let options = Options {
            strict: limits.is_strict,
            max_frame_size: limits.frame,
            max_message_size: limits.message,
            ping_interval: timed(3, script.byte()),
            ping_upstream_interval: timed(4, script.byte()),
            pong_timeout: time(script.byte()),
            idle_timeout: timed(5, script.byte()),
            max_lifetime: timed(6, script.byte()),
            stall_timeout: time(script.byte()),
            grace: time(script.byte()),
            ..Options::default()
        };
        let protocol = if switches & 1 << 7 == 0 { Protocol::WebSocket } else { Protocol::Other };
        let buffer = vec![0xff; MAX_KEPT + 8 + usize::from(script.byte())];
        let early = script.byte();
        let early = [early & 15, early >> 4].map(|count| script.bytes(count.into()).to_vec());
        Self::start(&options, limits, protocol, buffer, early)
    }

    fn start(
        options: &Options,
        limits: Limits,
        protocol: Protocol,
        buffer: Vec<u8>,
        early: [Vec<u8>; 2],
    ) -> Self {
        let rulebook = Rulebook::new(options);
        let wires = Wires::default();
        let mut told = <[Told; 2]>::default();
        for side in BOTH {
            told[index(side)].sent.extend(&early[index(side)]);
            // Found full by the registration.
            wires.of(side).was_full.set(true);
        }
        let longest = early.iter().map(Vec::len).max().unwrap_or_default();
        let [from_client, from_upstream] = early;
        let (client, upstream) = ((no_socket(), from_client), (no_socket(), from_upstream));
        let tunnel = Tunnel::new(protocol, client, upstream, identity());
        let now = 7;
        let slot = Slot::new(tunnel, &rulebook, now);
        let mut run = Self {
            wires,
            told,
            slot: Some(slot),
            rulebook,
            limits,
            protocol,
            buffer,
            early: longest,
            now,
            look_at: now,
            is_over: false,
            is_cut: false,
        };
        run.rearm();
        run
    }

    fn slot(&mut self) -> &mut Slot {
        self.slot.as_mut().unwrap()
    }

    fn step(&mut self, step: u8, script: &mut Script<'_>) {
        let side = BOTH[usize::from(step & 1)];
        let wire = self.wires.of(side);
        match step >> 1 & 15 {
            0 | 1 => self.serve(),
            2 => self.serve_one(side),
            3 => {
                let count = script.byte();
                let bytes = script.bytes((count & 63).into());
                self.send(side, bytes, count & 64 != 0);
            }
            4 | 5 => {
                let frame = frame(side, script);
                self.send(side, &frame, false);
            }
            6 => {
                // Part of a frame; the rest comes, or does not, with raw bytes.
                let frame = frame(side, script);
                let count = frame.len() * usize::from(script.byte()) / 255;
                self.send(side, &frame[..count], false);
            }
            7 => wire.make_room(script.byte().into()),
            8 => wire.make_room(1 << 12),
            9 => self.pass_time(script.byte().into()),
            10 => self.pass_time(u32::from(script.byte()) * 32),
            11 => self.answer(side, script.byte() & 1 == 0),
            12 => wire.is_interrupted.set(true),
            13 => {
                let at = self.now.wrapping_add(script.byte().into());
                self.slot().drain_at(at);
                self.rearm();
            }
            14 => self.hand_over(),
            _ => match script.byte() & 3 {
                0 => self.reset(side),
                _ => self.end(side),
            },
        }
    }

    /// `side` sends this.
    fn send(&mut self, side: Side, bytes: &[u8], is_urgent: bool) {
        let wire = self.wires.of(side);
        let all: usize = self.told.iter().map(|told| told.sent.len()).sum();
        if wire.can_send() && !bytes.is_empty() && all + bytes.len() <= MAX_SENT {
            wire.arrive(bytes, is_urgent);
            self.told[index(side)].sent.extend(bytes);
        }
    }

    fn end(&mut self, side: Side) {
        let wire = self.wires.of(side);
        if wire.can_send() {
            wire.has_ended.set(true);
            wire.has_news.set(true);
        }
    }

    fn reset(&mut self, side: Side) {
        let wire = self.wires.of(side);
        if !wire.is_reset() {
            wire.reset.set(Reset::Yes);
            wire.has_news.set(true);
            self.is_cut = true;
        }
    }

    /// `side` answers our oldest ping, or the latest alone (RFC 6455, section 5.5.3).
    fn answer(&mut self, side: Side, oldest: bool) {
        self.find_pings(side);
        let told = &mut self.told[index(side)];
        let payload = if oldest { told.pings.pop_front() } else { told.pings.pop_back() };
        if let Some(payload) = payload {
            if !oldest {
                told.pings.clear();
            }
            let pong = encode(side, 0x80 | PONG, &payload);
            self.send(side, &pong, false);
        }
    }

    /// Looks through what `side` got, frame by frame, for pings that the other side did not send.
    fn find_pings(&mut self, side: Side) {
        let [client, upstream] = &mut self.told;
        let (told, sent) = match side {
            Side::Upstream => (upstream, &client.sent),
            _ => (client, &upstream.sent),
        };
        let taken = self.wires.of(side).taken.borrow();
        let got = reference::read(&taken, other(side), Limits::default());
        let seen = told.seen;
        for frame in got.frames.iter().filter(|frame| frame.start >= seen) {
            if !frame.is_whole() {
                break;
            }
            told.seen = frame.end(&taken);
            let bytes = &taken[frame.start..told.seen];
            let is_theirs = || sent.windows(bytes.len()).any(|window| window == bytes);
            if frame.opcode == PING && frame.length == 8 && !is_theirs() {
                told.pings.push_back(frame.unmasked());
                told.payloads.push(frame.unmasked());
            }
        }
    }

    /// Tells all news, and gives the turns that follow.
    fn serve(&mut self) {
        // News may come of it: a fault that one direction met is told of the other's socket, too.
        for _ in 0..8 {
            if !BOTH.iter().any(|side| self.wires.of(*side).has_news.get()) {
                break;
            }
            for side in BOTH {
                self.serve_one(side);
            }
        }
    }

    fn serve_one(&mut self, side: Side) {
        if self.is_over {
            return;
        }
        if let Some(news) = self.wires.of(side).news() {
            let now = self.now;
            self.slot().note(side, news, now);
            self.turn();
        }
    }

    fn turn(&mut self) {
        let all = self.told.iter().map(|told| told.sent.len()).sum::<usize>();
        // Each turn with something left moves something.
        for _ in 0..all + 16 {
            let Self { slot, wires, buffer, rulebook, now, .. } = self;
            let next = slot.as_mut().unwrap().turn(wires, buffer, rulebook, *now);
            match next {
                Next::Again => {}
                Next::Wait => return self.rearm(),
                Next::Failed => unreachable!("nothing catches a panic here"),
                Next::End | Next::Farewell => {
                    self.is_over = true;
                    return;
                }
            }
        }
        panic!("no end to its turns");
    }

    fn rearm(&mut self) {
        let Self { slot, rulebook, now, .. } = self;
        let slot = slot.as_mut().unwrap();
        if mem::replace(&mut slot.rearm, false) {
            let at = slot.next_look(rulebook, *now);
            let next = now.wrapping_add(1);
            self.look_at = if is_reached(at, next) { next } else { at };
        }
    }

    fn pass_time(&mut self, ticks: u32) {
        let until = self.now.wrapping_add(ticks);
        let mut looks = 0;
        while is_reached(self.look_at, until) && !self.is_over && looks < LOOKS_PER_STEP {
            self.now = self.look_at;
            self.look();
            looks += 1;
        }
        if looks < LOOKS_PER_STEP {
            self.now = until;
        }
    }

    /// As the thread does when its wheel says so.
    fn look(&mut self) {
        // Pings of one moment would be the same; in life they are a tick apart at least.
        let before = stamp();
        while stamp() == before {}
        let Self { slot, rulebook, now, .. } = self;
        if slot.as_mut().unwrap().look(rulebook, *now) == Next::Wait {
            self.turn();
        } else {
            self.is_over = true;
            // What it calls drained has arrived however long it took.
            self.is_cut |= self.slot().tunnel.end().why != Reason::Drained;
        }
    }

    /// Another thread goes on with it, unless it is on its way out.
    fn hand_over(&mut self) {
        let slot = self.slot.take_if(|slot| {
            let Tunnel { from_client, from_upstream, .. } = &slot.tunnel;
            let passes = |flow: &Flow| {
                flow.course == Course::Passes
                    && !matches!(flow.wants, Wants::Close { .. })
                    && !flow.ends_behind_close
            };
            !slot.is_closing() && passes(from_client) && passes(from_upstream)
        });
        let Some(Slot { tunnel, .. }) = slot else {
            return;
        };
        self.slot = Some(Slot::new(tunnel, &self.rulebook, self.now));
        self.rearm();
        for side in BOTH {
            // The registration tells.
            self.wires.of(side).has_news.set(true);
        }
    }

    /// What holds at each moment.
    fn check_bounds(&self) {
        let tunnel = &self.slot.as_ref().unwrap().tunnel;
        for side in BOTH {
            let flow = towards(tunnel, side);
            let passed = self.wires.of(side).taken.borrow().len() as u64;
            assert_eq!(flow.passed, passed, "it does not know what passed");
            let own = flow.own as usize;
            let most = self.early + self.buffer.len().max(BULK) + own;
            assert!(flow.waiting.len() <= most, "{} bytes wait", flow.waiting.len());
            let is_kept = flow.waiting.is_empty() && flow.waiting.capacity() > 0;
            assert!(!is_kept, "nothing waits and memory is kept");
        }
    }

    /// Room for all, an end of both streams and time enough; then all is explained.
    fn finish(mut self) {
        if !self.is_over {
            for side in BOTH {
                self.wires.of(side).make_room(1 << 30);
            }
            self.serve();
            self.check_bounds();
            self.explain();
            self.all_has_arrived(false);
        }
        if !self.is_over {
            for side in BOTH {
                self.end(side);
            }
            self.serve();
            self.check_bounds();
            self.all_has_arrived(true);
        }
        for _ in 0..1000 {
            if self.is_over {
                break;
            }
            self.now = self.look_at;
            self.look();
        }
        assert!(self.is_over, "it does not end");
        self.explain();
        let Tunnel { close, .. } = &self.slot().tunnel;
        let is_answered = close.is_some_and(|close| close.by == Side::Elbows)
            && self.slot().tunnel.end().why == Reason::Drained;
        if is_answered && !self.is_cut {
            self.all_before_the_answer_arrived();
        }
        drop(self.slot.take().map(Slot::into_ended));
    }

    /// With room for it, nothing that may pass is left, unless it is on its way out.
    fn all_has_arrived(&self, is_at_end: bool) {
        let tunnel = &self.slot.as_ref().unwrap().tunnel;
        for side in BOTH {
            let flow = towards(tunnel, side);
            let is_passing = flow.course == Course::Passes
                && flow.wants == Wants::Nothing
                && !flow.ends_behind_close
                && !matches!(flow.sink, Sink::Broken)
                && !matches!(flow.source, Source::Reset)
                && tunnel.ended.is_none()
                && !self.is_cut;
            if !is_passing {
                continue;
            }
            let (explained, reading) = self.explain_towards(side);
            let all = self.told[index(other(side))].sent.len();
            let mut expected = [all, all];
            if let (Protocol::WebSocket, Some(reading)) = (self.protocol, reading)
                && !is_at_end
                && flow.source == Source::Open
            {
                let sent = &self.told[index(other(side))].sent;
                let held_at =
                    |awaits_pong| reading.held_at(sent, Limits { awaits_pong, ..self.limits });
                // It may have begun to pass before the Ping that it could answer.
                expected = [held_at(self.limits.awaits_pong), held_at(false)];
            }
            assert!(
                expected.contains(&explained),
                "bytes are left behind towards {side:?}: {explained} of {expected:?}: {flow:?}"
            );
        }
    }

    /// A client's words before its own Close, or its end, are all at the upstream.
    fn all_before_the_answer_arrived(&self) {
        let sent = &self.told[index(Side::Client)].sent;
        let reading = reference::read(sent, Side::Client, self.limits);
        let close = reading.frames.iter().find(|frame| frame.opcode == CLOSE);
        if let Some(close) = close.filter(|close| close.is_whole()) {
            let (explained, _) = self.explain_towards(Side::Upstream);
            assert!(explained >= close.end(sent), "words before the answer are lost");
        }
    }

    fn explain(&mut self) {
        for side in BOTH {
            self.find_pings(side);
        }
        for side in BOTH {
            self.explain_towards(side);
        }
    }

    /// Explains each byte that `side` got. Says up to where what was sent to it is explained, and what was
    /// read in it, if the frames are still followed.
    fn explain_towards(&self, side: Side) -> (usize, Option<Reading<'_>>) {
        let sender = other(side);
        let sent = &self.told[index(sender)].sent;
        let got = self.wires.of(side).taken.borrow();
        if self.protocol == Protocol::Other {
            assert!(sent.starts_with(&got), "other bytes came out");
            return (got.len(), None);
        }
        let reading = reference::read(sent, sender, self.limits);
        let flow = towards(&self.slot.as_ref().unwrap().tunnel, side);
        let mut explained = Explained {
            got: &got,
            at: 0,
            sent,
            sender,
            own: 0,
            either: 0,
            is_closed: false,
            answers: self.told[index(sender)].payloads.clone(),
        };
        let upto = explained.walk(&reading, self.limits.is_strict);
        assert!(explained.own <= flow.own as usize, "it made more than it knows of");
        if flow.waiting.is_empty() && flow.sink != Sink::Broken {
            let known = [explained.own, explained.own + explained.either];
            assert!(known.contains(&(flow.own as usize)), "it knows of more than it made");
        }
        let is_lost = reading.tail == Tail::Fault && !self.limits.is_strict;
        (upto, (!is_lost).then_some(reading))
    }
}

/// A walk over what came out, and over what was sent, side by side.
struct Explained<'g> {
    got: &'g [u8],
    at: usize,
    sent: &'g [u8],
    sender: Side,
    /// Bytes of ours so far.
    own: usize,
    /// Bytes of a last frame that is the sender's next one, and as a Close of ours would be: either may have
    /// gone out.
    either: usize,
    /// A Close went out, the sender's or ours.
    is_closed: bool,
    /// Payloads of our pings that the sender got, whose answers have not been met.
    answers: Vec<Vec<u8>>,
}

impl Explained<'_> {
    /// Where in what was sent it ends.
    fn walk(&mut self, reading: &Reading<'_>, is_strict: bool) -> usize {
        for frame in &reading.frames {
            let end = frame.end(self.sent);
            let bytes = &self.sent[frame.start..end];
            let is_answer = frame.may_answer_us();
            let answered =
                self.answers.iter().position(|ping| is_answer && *ping == frame.unmasked());
            if let Some(answered) = answered {
                // It is cut out. The same bytes once more would pass.
                self.answers.remove(answered);
                continue;
            }
            self.skip_own(bytes, false);
            let came = bytes.len().min(self.got.len() - self.at);
            assert_eq!(
                self.got[self.at..][..came],
                bytes[..came],
                "in the frame at {}",
                frame.start
            );
            self.at += came;
            if came < bytes.len() {
                return frame.start + came;
            }
            self.is_closed |= frame.opcode == CLOSE;
            self.either = 0;
            if frame.opcode == CLOSE && self.at == self.got.len() && is_code_of_ours(frame) {
                self.either = bytes.len();
            }
            if !frame.is_whole() {
                self.is_all();
                return end;
            }
        }
        let tail = &self.sent[reading.tail_at..];
        let passes = match reading.tail {
            Tail::More => true,
            Tail::Fault => !is_strict,
            Tail::OverLimit => false,
        };
        self.skip_own(if passes { tail } else { &[] }, true);
        if passes {
            let came = tail.len().min(self.got.len() - self.at);
            assert_eq!(self.got[self.at..][..came], tail[..came], "behind the frames");
            self.at += came;
            self.is_all();
            return reading.tail_at + came;
        }
        self.is_all();
        reading.tail_at
    }

    fn is_all(&self) {
        let rest = &self.got[self.at..];
        assert!(rest.is_empty(), "nobody sent {}", rest.escape_ascii());
    }

    /// Goes over frames of ours, here where one may stand, unless what comes next is the sender's.
    fn skip_own(&mut self, next: &[u8], is_tail: bool) {
        loop {
            let rest = &self.got[self.at..];
            // So few bytes may begin either. A tail is all that the sender's can be.
            let is_senders = next.starts_with(rest) || (!is_tail && rest.starts_with(next));
            if is_senders {
                return;
            }
            let Some((length, is_close)) = self.own_frame(rest) else {
                return;
            };
            assert!(!self.is_closed, "a frame of ours is behind a Close");
            self.is_closed |= is_close;
            self.at += length;
            self.own += length;
            if is_close {
                self.is_all();
            }
        }
    }

    /// The length of the frame of ours that the bytes begin with, as far as it came.
    fn own_frame(&self, bytes: &[u8]) -> Option<(usize, bool)> {
        const MASKED: u8 = 0x80;
        let mask_bit = if self.sender == Side::Client { MASKED } else { 0 };
        let is_close = match bytes[0] {
            0x88 => true,
            0x89 => false,
            _ => return None,
        };
        let payload = if is_close { 2 } else { 8 };
        if bytes.get(1).is_some_and(|second| *second != mask_bit | payload) {
            return None;
        }
        let whole = 2 + usize::from(mask_bit >> 5) + usize::from(payload);
        if is_close && bytes.len() >= whole {
            let read = reference::read(&bytes[..whole], self.sender, Limits::default());
            assert!(is_code_of_ours(read.frames.first()?), "a Close with another code");
        }
        Some((whole.min(bytes.len()), is_close))
    }
}

/// Whether a Close of ours could have this payload.
fn is_code_of_ours(close: &Frame<'_>) -> bool {
    let code = close.unmasked();
    [1001_u16, 1002, 1009].iter().any(|ours| code == ours.to_be_bytes())
}

/// A frame as the script wants it: first byte, length, and a payload of its own.
fn frame(sender: Side, script: &mut Script<'_>) -> Vec<u8> {
    let (first, length) = (script.byte(), script.byte());
    let length = match length {
        0..200 => usize::from(length),
        200..250 => usize::from(length - 200) * 40,
        // Around the lengths where a head grows.
        _ => usize::from(length - 250) + if first & 0x40 == 0 { 123 } else { 65_533 },
    };
    let payload: Vec<_> = (0..length).map(|place| (place % 251) as u8).collect();
    // RSV1 chose the length.
    encode(sender, first & !0x40, &payload)
}

fn encode(sender: Side, first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let is_masked = sender == Side::Client;
    let mask_bit = if is_masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(mask_bit | length as u8),
        length @ 126..65_536 => {
            bytes.push(mask_bit | 0x7e);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(mask_bit | 0x7f);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let mask = if is_masked { MASK } else { [0; 4] };
    bytes.extend(&mask[..if is_masked { 4 } else { 0 }]);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// Stands where a socket would; nothing is read from it or written to it.
fn no_socket() -> TcpStream {
    OwnedFd::from(File::open("/dev/null").unwrap()).into()
}

fn identity() -> Identity {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    Identity::new(address, address, address, "GET / HTTP/1.1", "1", Instant::now())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::end::{End, Phase};
    use crate::relay::wheel::ticks;

    const TEXT: u8 = 0x81;
    const CLOSED: u8 = 0x80 | CLOSE;
    const HALF: [u8; 2] = [0x01, 0x80];

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn close(sender: Side, code: u16) -> Vec<u8> {
        encode(sender, CLOSED, &code.to_be_bytes())
    }

    fn drained(by: Side, why: Reason) -> End {
        End::new(by, Phase::Drain, why)
    }

    fn relayed(by: Side, why: Reason) -> End {
        End::new(by, Phase::Relay, why)
    }

    impl Run {
        fn with(options: &Options) -> Self {
            Self::of(Protocol::WebSocket, options)
        }

        fn of(protocol: Protocol, options: &Options) -> Self {
            let buffer = vec![0xff; MAX_KEPT + 4096];
            let early = <[Vec<u8>; 2]>::default();
            let mut run = Self::start(options, Limits::default(), protocol, buffer, early);
            for side in BOTH {
                run.wires.of(side).make_room(1 << 20);
            }
            run.serve();
            run
        }

        /// No room for a byte more.
        fn fill(&self, side: Side) {
            self.wires.of(side).room.set(0);
        }

        fn says(&mut self, side: Side, bytes: &[u8]) {
            self.send(side, bytes, false);
            self.serve();
        }

        fn wait(&mut self, time: Duration) {
            let until = self.now.wrapping_add(ticks(time));
            while is_reached(self.look_at, until) && !self.is_over {
                self.now = self.look_at;
                self.look();
                if !self.is_over {
                    self.serve();
                }
            }
            self.now = until;
        }

        /// It is drained now: the Close goes out, if it may.
        fn drain(&mut self) {
            let now = self.now;
            self.slot().drain_at(now);
            self.rearm();
            self.wait(TICK * 2);
        }

        fn got(&self, side: Side) -> Vec<u8> {
            self.wires.of(side).taken.borrow().clone()
        }

        fn frames(&self, side: Side) -> Vec<(u8, Vec<u8>)> {
            let got = self.got(side);
            let read = reference::read(&got, other(side), Limits::default());
            assert_eq!(read.tail_at, got.len());
            read.frames.iter().map(|frame| (frame.opcode, frame.unmasked())).collect()
        }

        fn last_close(&self, side: Side) -> Option<u16> {
            let (opcode, payload) = self.frames(side).pop()?;
            (opcode == CLOSE).then(|| u16::from_be_bytes([payload[0], payload[1]]))
        }

        fn is_told(&self, side: Side) -> bool {
            self.wires.of(side).is_told.get()
        }

        fn ended(&mut self) -> End {
            assert!(self.is_over, "it goes on");
            self.slot().tunnel.end()
        }
    }

    fn silent() -> Options {
        Options { grace: seconds(2), stall_timeout: seconds(60), ..Options::default() }
    }

    #[test]
    fn words_before_the_answer_wait_for_a_slow_application() {
        let mut run = Run::with(&silent());
        run.drain();
        run.fill(Side::Upstream);
        let said = [encode(Side::Client, TEXT, &[7; 3000]), close(Side::Client, 1001)].concat();
        run.says(Side::Client, &said);
        for _ in 0..10 {
            // It moves, and no event tells.
            run.wait(seconds(30));
            let room = &run.wires.upstream.room;
            room.set(room.get() + 100);
        }
        assert!(!run.is_over);
        run.wires.upstream.make_room(1 << 20);
        run.serve();
        assert_eq!(run.got(Side::Upstream), said);
        assert!(run.is_told(Side::Upstream) && run.is_told(Side::Client));
        run.wait(seconds(1));
        assert!(!run.is_over, "no time to read it");
        run.wait(seconds(3));
        assert_eq!(run.ended(), drained(Side::Elbows, Reason::Drained));
    }

    #[test]
    fn what_did_not_arrive_is_not_called_drained() {
        for is_end_of_process in [true, false] {
            let mut run = Run::with(&silent());
            run.drain();
            run.fill(Side::Upstream);
            let said = [encode(Side::Client, TEXT, b"lost"), close(Side::Client, 1001)].concat();
            run.says(Side::Client, &said);
            if is_end_of_process {
                let end = run.slot.take().unwrap().into_ended().end();
                assert_eq!(end, drained(Side::Elbows, Reason::PeriodOver));
                continue;
            }
            run.wait(seconds(90));
            assert_eq!(run.ended(), drained(Side::Upstream, Reason::Stalled));
        }
    }

    #[test]
    fn messages_before_one_that_is_too_big_wait_for_a_slow_other_side() {
        for side in BOTH {
            let mut run = Run::with(&Options { max_frame_size: Some(1000), ..silent() });
            run.fill(other(side));
            let good = encode(side, TEXT, &[7; 999]);
            run.says(side, &[&good[..], &encode(side, TEXT, &[7; 1001])].concat());
            run.wait(seconds(30));
            run.wires.of(other(side)).make_room(1 << 20);
            run.serve();
            assert!(run.got(other(side)).starts_with(&good), "words are lost");
            assert_eq!(run.last_close(other(side)), Some(1001));
            assert_eq!(run.last_close(side), Some(1009));
            let first = run.slot().tunnel.close.unwrap();
            assert_eq!((first.by, first.code), (Side::Elbows, 1009));
            run.wait(seconds(5));
            assert_eq!(run.ended(), relayed(side, Reason::TooBig));
        }
    }

    #[test]
    fn a_sender_that_goes_on_has_longer_to_read_its_close_but_not_for_ever() {
        let mut run = Run::with(&Options { max_frame_size: Some(1000), ..silent() });
        run.says(Side::Client, &encode(Side::Client, TEXT, &[7; 1001]));
        for _ in 0..20 {
            run.says(Side::Client, b"more");
            run.wait(seconds(1));
        }
        assert!(!run.is_over);
        for _ in 0..20 {
            if !run.is_over {
                run.says(Side::Client, b"more");
                run.wait(seconds(1));
            }
        }
        assert_eq!(run.ended(), relayed(Side::Client, Reason::TooBig));
    }

    #[test]
    fn a_client_that_takes_what_stands_before_a_ping_is_not_gone() {
        let options =
            Options { ping_interval: Some(seconds(10)), pong_timeout: seconds(4), ..silent() };
        let mut run = Run::with(&options);
        run.wait(seconds(9));
        run.fill(Side::Client);
        run.says(Side::Upstream, &encode(Side::Upstream, TEXT, &[7; 4000]));
        run.wait(seconds(2));
        for _ in 0..30 {
            run.wires.client.room.set(100);
            run.wait(seconds(1));
        }
        assert!(!run.is_over, "{}", run.slot().tunnel.end());
        // It takes nothing any more.
        run.wait(seconds(6));
        assert_eq!(run.slot().tunnel.ended, Some(relayed(Side::Client, Reason::Timeout)));
    }

    #[test]
    fn a_slow_reader_that_no_event_tells_of_is_not_stalled() {
        for side in BOTH {
            let mut run = Run::with(&Options { stall_timeout: seconds(5), ..silent() });
            run.fill(side);
            run.says(other(side), &encode(other(side), TEXT, &[7; 4000]));
            for _ in 0..20 {
                run.wires.of(side).room.set(50);
                run.wait(seconds(1));
            }
            assert!(!run.is_over && run.slot().tunnel.ended.is_none());
            run.wait(seconds(8));
            assert_eq!(run.slot().tunnel.ended, Some(relayed(side, Reason::Stalled)));
        }
    }

    #[test]
    fn pings_do_not_pile_up_before_a_client_that_takes_nothing() {
        let options = Options {
            ping_interval: Some(seconds(1)),
            pong_timeout: seconds(30),
            stall_timeout: seconds(100),
            ..silent()
        };
        let mut run = Run::with(&options);
        run.fill(Side::Client);
        for _ in 0..20 {
            run.says(Side::Client, &encode(Side::Client, TEXT, b"here"));
            run.wait(seconds(2));
        }
        assert!(run.slot().tunnel.from_upstream.waiting.len() <= 20);
        run.wires.client.make_room(1 << 20);
        run.serve();
        assert_eq!(run.frames(Side::Client).len(), 1);
    }

    #[test]
    fn a_message_that_moves_is_not_idle() {
        let mut run = Run::with(&Options { idle_timeout: Some(seconds(3)), ..silent() });
        let message = encode(Side::Upstream, TEXT, &[7; 3000]);
        for piece in message.chunks(100) {
            run.says(Side::Upstream, piece);
            run.wait(seconds(1));
        }
        assert!(!run.is_over && run.slot().tunnel.close.is_none());
        run.wait(seconds(4));
        assert_eq!(run.last_close(Side::Client), Some(1001));
    }

    #[test]
    fn a_client_that_resets_in_its_goodbye_is_gone_at_once() {
        let mut run = Run::with(&silent());
        run.drain();
        run.says(Side::Client, &encode(Side::Client, TEXT, b"last words"));
        run.reset(Side::Client);
        run.serve();
        assert_eq!(run.last_close(Side::Upstream), Some(1001));
        assert_eq!(run.frames(Side::Upstream)[0].1, b"last words");
        assert_eq!(run.slot().tunnel.ended, Some(relayed(Side::Client, Reason::Reset)));
    }

    #[test]
    fn a_client_answers_although_its_application_was_reset() {
        for is_within_message in [false, true] {
            let mut run = Run::with(&silent());
            if is_within_message {
                run.says(Side::Upstream, &encode(Side::Upstream, 1, b"begun"));
            }
            run.drain();
            run.reset(Side::Upstream);
            run.serve();
            assert_eq!(run.last_close(Side::Client), Some(1001));
            run.says(Side::Client, &encode(Side::Client, TEXT, b"nobody hears it"));
            assert!(!run.is_told(Side::Client));
            let answer = close(Side::Client, 1001);
            run.says(Side::Client, &answer[..5]);
            run.says(Side::Client, &answer[5..]);
            assert!(run.is_told(Side::Client));
            run.end(Side::Client);
            run.serve();
            assert_eq!(run.ended(), drained(Side::Elbows, Reason::Drained));
        }
    }

    #[test]
    fn a_side_that_does_not_end_when_the_other_has_is_given_the_time_of_a_pong() {
        for is_half_closed in [false, true] {
            for side in BOTH {
                let options = Options { pong_timeout: seconds(20), ..silent() };
                let mut run = Run::with(&options);
                run.wait(seconds(100));
                run.says(side, &close(side, 1000));
                if is_half_closed {
                    run.end(side);
                    run.serve();
                }
                // What it still says has time.
                for _ in 0..3 {
                    run.wait(seconds(15));
                    run.says(other(side), &encode(other(side), TEXT, b"more"));
                }
                assert!(!run.is_over && run.slot().tunnel.ended.is_none());
                run.wait(seconds(30));
                assert_eq!(run.ended(), relayed(other(side), Reason::Timeout));
                assert!(run.is_told(side) && run.is_told(other(side)));
                if !is_half_closed {
                    assert_eq!(run.last_close(side), Some(1001));
                }
            }
        }
    }

    #[test]
    fn both_have_said_goodbye_and_nobody_ends() {
        let mut run = Run::with(&silent());
        for side in BOTH {
            run.says(side, &close(side, 1000));
        }
        run.wait(seconds(30));
        assert_eq!(run.ended(), relayed(Side::Upstream, Reason::Timeout));
    }

    #[test]
    fn a_half_open_tunnel_ends_when_nothing_passes_for_as_long_as_a_ping_and_its_answer() {
        for side in BOTH {
            let options = Options { ping_interval: Some(seconds(50)), ..silent() };
            let mut run = Run::with(&options);
            run.end(side);
            run.serve();
            for _ in 0..4 {
                run.wait(seconds(60));
                run.says(other(side), &encode(other(side), TEXT, b"on"));
            }
            assert!(!run.is_over && run.slot().tunnel.ended.is_none());
            run.wait(seconds(100));
            assert_eq!(run.ended(), relayed(other(side), Reason::Timeout));
        }
    }

    #[test]
    fn a_message_and_its_goodbye_have_one_grace_in_a_drain() {
        let mut run = Run::with(&silent());
        let now = run.now;
        run.rulebook.drains(ticks(seconds(5)), now);
        run.says(Side::Upstream, &encode(Side::Upstream, HALF[0], b"begun"));
        run.wait(seconds(5));
        run.drain();
        run.wait(Duration::from_millis(1_900));
        assert_eq!(run.last_close(Side::Client), None);
        run.wait(Duration::from_millis(150));
        assert_eq!(run.last_close(Side::Client), Some(1001));
        assert_eq!(run.slot().tunnel.ended, None);
        run.wait(Duration::from_millis(200));
        assert_eq!(run.slot().tunnel.ended, Some(drained(Side::Elbows, Reason::Timeout)));
        assert_eq!(run.last_close(Side::Upstream), Some(1001));
    }

    #[test]
    fn a_client_that_had_closed_itself_gets_a_close_back_and_is_not_blamed() {
        let mut run = Run::with(&Options { close_code: 1012, ..silent() });
        run.says(Side::Client, &close(Side::Client, 1000));
        run.drain();
        assert_eq!(run.last_close(Side::Client), None, "the application's answer may come");
        run.wait(seconds(3));
        assert_eq!(run.last_close(Side::Client), Some(1012));
        assert_eq!(run.slot().tunnel.ended, Some(drained(Side::Upstream, Reason::Timeout)));
    }

    #[test]
    fn where_no_close_can_be_both_streams_end_and_are_not_cut() {
        let mut run = Run::of(Protocol::Other, &silent());
        run.says(Side::Upstream, b"half a wor");
        run.drain();
        assert!(run.is_told(Side::Client) && run.is_told(Side::Upstream));
        assert_eq!(run.slot().tunnel.ended, Some(drained(Side::Elbows, Reason::PeriodOver)));
    }

    #[test]
    fn strict_tells_both_sides_1002() {
        for side in BOTH {
            let mut run = Run::with(&Options { strict: true, ..silent() });
            run.says(side, &HALF.map(|_| 0xff));
            assert_eq!(run.last_close(side), Some(1002));
            assert_eq!(run.last_close(other(side)), Some(1002));
        }
    }

    #[test]
    fn a_broken_rule_that_is_observed_switches_nothing_off() {
        let options = Options { ping_interval: Some(seconds(10)), ..silent() };
        let mut run = Run::with(&options);
        run.says(Side::Client, b"\x81\xfe\x00\x01abcd!");
        run.says(Side::Upstream, b"\x81\x7e\x00\x01!");
        run.wait(seconds(11));
        let (opcode, payload) = run.frames(Side::Client).pop().unwrap();
        assert_eq!(opcode, PING);
        run.says(Side::Client, &encode(Side::Client, 0x80 | PONG, &payload));
        assert_eq!(run.frames(Side::Upstream).len(), 1, "our pong leaked");
        run.drain();
        assert_eq!(run.last_close(Side::Client), Some(1001));
    }

    /// RFC 6455, section 5.3: a fresh key for each frame, that nobody can foresee.
    #[test]
    fn pings_to_the_application_have_a_mask_each() {
        let options = Options {
            ping_upstream_interval: Some(seconds(10)),
            pong_timeout: seconds(3000),
            ..silent()
        };
        let mut run = Run::with(&options);
        for _ in 0..5 {
            run.wait(seconds(11));
            run.says(Side::Upstream, &encode(Side::Upstream, TEXT, b"here"));
        }
        let got = run.got(Side::Upstream);
        let mut masks: Vec<_> = got.chunks(14).map(|ping| ping[2..6].to_vec()).collect();
        assert!(got.chunks(14).all(|ping| ping[..2] == [0x89, 0x88]), "{got:x?}");
        masks.sort();
        masks.dedup();
        assert!(masks.len() >= 4, "{masks:x?}");
    }

    #[test]
    fn a_side_whose_frames_are_lost_is_not_pinged() {
        let options = Options { ping_interval: Some(seconds(10)), ..silent() };
        let mut run = Run::with(&options);
        run.says(Side::Client, b"\x82\xff\xff\0\0\0\0\0\0\0abcd!");
        run.wait(seconds(100));
        assert!(run.got(Side::Client).is_empty());
        assert!(!run.is_over);
    }

    /// Frames of two or six bytes that each break a rule, by the side that sends them.
    fn faulty(side: Side) -> [(&'static str, Vec<u8>); 4] {
        let raw = |first: u8, is_masked: bool| {
            if is_masked { vec![first, 0x80, 1, 2, 3, 4] } else { vec![first, 0] }
        };
        let is_client = side == Side::Client;
        [
            ("mask", raw(0x82, !is_client)),
            ("opcode", raw(0x83, is_client)),
            ("continuation", raw(0x80, is_client)),
            ("control in pieces", raw(0x09, is_client)),
        ]
    }

    #[test]
    fn faulty_frames_are_written_together_as_good_ones_are() {
        for side in BOTH {
            for (fault, frame) in faulty(side) {
                let options = silent();
                let mut run = Run::with(&options);
                let sent = frame.repeat((1 << 14) / frame.len());
                let writes = run.wires.of(other(side)).writes.get();
                run.says(side, &sent);
                assert_eq!(run.got(other(side)), sent, "{fault}");
                let writes = run.wires.of(other(side)).writes.get() - writes;
                assert!(writes <= sent.len() / 4096 + 1, "{fault}: {writes} writes");
                let counted: u64 = options.counters.frame_faults.broken().map(|(_, n)| n).sum();
                assert_eq!(counted, (sent.len() / frame.len()) as u64, "{fault}");
            }
        }
    }

    #[test]
    fn a_turn_has_fewer_bytes_where_frames_break_rules() {
        for side in BOTH {
            let (_, faulty) = faulty(side).into_iter().next().unwrap();
            for (frame, is_faulty) in [(faulty, true), (encode(side, 0x82, &[7; 8]), false)] {
                let mut run = Run::with(&silent());
                let sent = frame.repeat(12_000 / frame.len());
                run.send(side, &sent, false);
                let news = run.wires.of(side).news().unwrap();
                let now = run.now;
                run.slot().note(side, news, now);
                let Run { slot, wires, buffer, rulebook, now, .. } = &mut run;
                let next = slot.as_mut().unwrap().turn(wires, buffer, rulebook, *now);
                let got = run.got(other(side)).len();
                assert_eq!(got < 5000, is_faulty, "{got}");
                assert_eq!(next == Next::Again, is_faulty);
            }
        }
    }

    #[test]
    fn who_has_half_of_a_message_that_is_refused_is_told_between_its_frames_at_once() {
        for side in BOTH {
            for is_limit in [true, false] {
                let mut run = Run::with(&Options {
                    max_message_size: is_limit.then_some(1000),
                    strict: !is_limit,
                    ..silent()
                });
                let first = encode(side, 1, &[7; 600]);
                run.says(side, &first);
                let second = if is_limit { 0x80 } else { TEXT };
                run.says(side, &encode(side, second, &[7; 401]));
                let (to_it, to_other) = if is_limit { (1009, 1001) } else { (1002, 1002) };
                assert_eq!(run.last_close(side), Some(to_it));
                assert_eq!(run.last_close(other(side)), Some(to_other));
                assert!(run.got(other(side)).starts_with(&first));
                assert!(run.is_told(side) && run.is_told(other(side)));
            }
        }
    }

    #[test]
    fn strict_refuses_a_close_that_breaks_a_rule_and_data_behind_one() {
        let code = |code: u16| code.to_be_bytes().to_vec();
        let wrong = [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535];
        let right = [1000, 1003, 1007, 1014, 3000, 4999];
        for side in BOTH {
            let payloads = wrong.map(code).into_iter().chain([vec![3], b"\x03\xedwhy".to_vec()]);
            for payload in payloads {
                for piece in [1, 200] {
                    let options = Options { strict: true, ..silent() };
                    let mut run = Run::with(&options);
                    for piece in encode(side, CLOSED, &payload).chunks(piece) {
                        run.says(side, piece);
                    }
                    assert_eq!(run.last_close(side), Some(1002), "{payload:?}");
                    assert_eq!(run.last_close(other(side)), Some(1002), "{payload:?}");
                    assert_eq!(options.counters.frame_faults.broken().count(), 1);
                }
            }
            for payload in right.map(code).into_iter().chain([vec![]]) {
                let mut run = Run::with(&Options { strict: true, ..silent() });
                let close = encode(side, CLOSED, &payload);
                // What is no data may follow.
                let all = [&close[..], &encode(side, 0x80 | PING, b"?")].concat();
                run.says(side, &all);
                assert_eq!(run.got(other(side)), all);
                run.says(side, &encode(side, TEXT, b"more"));
                assert_eq!(run.got(other(side)), all, "data passed behind a Close");
                assert!(run.is_told(other(side)));
                assert_eq!(run.last_close(side), Some(1002));
            }
        }
    }

    #[test]
    fn a_client_has_the_time_of_a_pong_once() {
        let options =
            Options { ping_interval: Some(seconds(1)), pong_timeout: seconds(1), ..silent() };
        let mut run = Run::with(&options);
        let start = run.now;
        while run.slot().tunnel.ended.is_none() {
            run.now = run.look_at;
            run.look();
        }
        let took = TICK * run.now.wrapping_sub(start);
        assert!(took >= seconds(2) && took <= seconds(2) + 4 * TICK, "{took:?}");
    }

    #[test]
    fn what_is_only_observed_passes_byte_by_byte() {
        for side in BOTH {
            let frames = [
                encode(side, TEXT, &[7; 300]),
                encode(side, 0x80 | PONG, b"8 bytes."),
                encode(side, 0x09, b"in pieces"),
                close(side, 1000),
            ];
            let large = encode(side, 2, &[7; 70_000])[..20].to_vec();
            for (sent, is_closed) in [(frames.concat(), true), (large, false)] {
                let mut run = Run::with(&silent());
                for (place, byte) in sent.iter().enumerate() {
                    run.says(side, &[*byte]);
                    assert!(run.got(other(side)) == sent[..=place], "{place}");
                }
                let first = run.slot().tunnel.close.map(|close| (close.by, close.code));
                assert_eq!(first, is_closed.then_some((side, 1000)));
            }
        }
    }

    #[test]
    fn only_what_can_be_a_pong_of_ours_is_held_and_only_while_a_ping_has_none() {
        let options =
            Options { ping_interval: Some(seconds(1)), pong_timeout: seconds(100), ..silent() };
        let mut run = Run::with(&options);
        run.wait(seconds(2));
        let (_, ping) = run.frames(Side::Client).pop().unwrap();
        let mut sent = Vec::new();
        let ours = encode(Side::Client, 0x80 | PONG, &ping);
        let others = [
            encode(Side::Client, 0x80 | PONG, b"not eight"),
            encode(Side::Client, TEXT, &[7; 200]),
            encode(Side::Client, 0x80 | PONG, b"8 others"),
        ];
        for other in &others[..2] {
            for (place, byte) in other.iter().enumerate() {
                run.says(Side::Client, &[*byte]);
                sent.push(*byte);
                // The first byte of any Pong may be the first one of ours.
                let is_held = place == 0 && *byte == 0x80 | PONG;
                assert_eq!(run.got(Side::Upstream).len() + usize::from(is_held), sent.len());
            }
        }
        for byte in &others[2][..13] {
            run.says(Side::Client, &[*byte]);
        }
        assert!(run.got(Side::Upstream) == sent);
        run.says(Side::Client, &others[2][13..]);
        sent.extend(&others[2]);
        assert!(run.got(Side::Upstream) == sent);
        for byte in ours {
            run.says(Side::Client, &[byte]);
        }
        assert!(run.got(Side::Upstream) == sent, "our pong leaked");
        // Nothing is asked any more.
        for byte in &others[2] {
            run.says(Side::Client, &[*byte]);
            sent.push(*byte);
            assert!(run.got(Side::Upstream) == sent);
        }
    }
}
