//! A tunnel's state under any schedule: bytes of any size, room of any size, time, pings, limits, drain,
//! ends and resets in any order, without a socket. The body of a fuzz target (`src/fuzzing.rs`).
//!
//! Both sockets are here in memory and behave as the kernel's do; the poll and the wheel of a worker
//! are played. Afterwards a second reader of frames explains each byte that came out: what was sent, in
//! order, less the pongs to our pings, plus what is ours between frames and nowhere else.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation
)]

mod explained;
mod wire;

use std::collections::VecDeque;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use super::flow::{OwnFrame, Passage};
use super::rules::Rulebook;
use super::{
    Flow, Identity, Local, Moment, Next, Options, Pair, Peer, Protocol, Sink, Source, State,
};
use crate::clock::{Now, Since, Stamp, TICK, is_reached};
use crate::end::{Reason, Side};
use crate::fuzzing::Script;
use crate::fuzzing::http_reference::find;
use crate::fuzzing::reference::{self, CLOSE, FrameLimits, PING, PONG, Tail};
use crate::websocket::keepalive::Secret;
use crate::websocket::scanner::MAX_KEPT;
use explained::Explained;
use wire::{BULK, Reset, Wires};

/// Bytes that all sides together send in one schedule at most, so that one run stays short.
const MAX_SENT: usize = 1 << 16;

/// Times that a tunnel is looked at because of time, in one step, at most: more would say the same.
const LOOKS_PER_STEP: usize = 64;

/// How far ahead the ticks of another process are.
const HANDED_OVER_BY: u32 = 1_000_003;

/// Twelve bytes of setup, then steps.
pub fn tunnel(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut run = Run::new(&mut script, number_of(bytes));
    while let Some(step) = script.next() {
        if run.is_over {
            break;
        }
        run.step(step, &mut script);
        run.check_bounds();
    }
    run.finish();
}

/// A number that depends on each byte (FNV-1a): what our pings say follows from it, so that no input can foresee that,
/// as no peer can.
fn number_of(bytes: &[u8]) -> u64 {
    let with = |number: u64, byte: &u8| (number ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, with)
}

/// Of each side, what has to be remembered of it.
#[derive(Default)]
struct Transcript {
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
    transcripts: Pair<Transcript>,
    state: State,
    local: Local,
    rulebook: Rulebook,
    limits: FrameLimits,
    protocol: Protocol,
    buffer: Vec<u8>,
    early: usize,
    now: u32,
    /// How far ahead of the stamps, which go on, the ticks of its process are.
    ahead: u32,
    look_at: u32,
    /// What our pings say follows from this.
    random: u64,
    is_over: bool,
    /// Time, or a reset, ended it: not all may have arrived.
    is_cut: bool,
}

const BOTH: [Peer; 2] = Peer::BOTH;

impl Run {
    fn new(script: &mut Script<'_>, random: u64) -> Self {
        let switches = script.byte();
        let limit = |bit: u8, value: u8| (switches & 1 << bit != 0).then_some(u64::from(value));
        let time = |value: u8| TICK * (1 + u32::from(value));
        let timed = |bit: u8, value: u8| (switches & 1 << bit != 0).then_some(time(value));
        let limits = FrameLimits {
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
        Self::start(&options, limits, protocol, buffer, early, random)
    }

    fn start(
        options: &Options,
        limits: FrameLimits,
        protocol: Protocol,
        buffer: Vec<u8>,
        early: [Vec<u8>; 2],
        random: u64,
    ) -> Self {
        let mut transcripts = Pair::<Transcript>::default();
        let [client, upstream] = early;
        let early = Pair { client, upstream };
        let wires = Wires::default();
        for side in BOTH {
            transcripts[side].sent.extend(&early[side]);
            // Found full by the registration.
            wires[side].was_full.set(true);
        }
        let longest = early.both().iter().map(|early| early.len()).max().unwrap_or_default();
        let now = 7;
        let mut run = Self {
            wires,
            transcripts,
            state: State::new(protocol, early, identity()),
            local: Local::default(),
            rulebook: Rulebook::new(options),
            limits,
            protocol,
            buffer,
            early: longest,
            now,
            ahead: 0,
            look_at: now,
            random,
            is_over: false,
            is_cut: false,
        };
        run.moment().begin(Secret::new(random));
        run.rearm();
        run
    }

    fn now(&self) -> Now {
        let stamp = Stamp::at(TICK * self.now.wrapping_sub(self.ahead));
        Now { tick: self.now, stamp }
    }

    fn moment(&mut self) -> Moment<'_> {
        let now = self.now();
        Moment { state: &mut self.state, local: &mut self.local, rules: &self.rulebook, now }
    }

    fn step(&mut self, step: u8, script: &mut Script<'_>) {
        let side = BOTH[usize::from(step & 1)];
        let wire = &self.wires[side];
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
                self.moment().drain_at(at);
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
    fn send(&mut self, side: Peer, bytes: &[u8], is_urgent: bool) {
        let wire = &self.wires[side];
        let all: usize = self.transcripts.both().iter().map(|side| side.sent.len()).sum();
        if wire.can_send() && !bytes.is_empty() && all + bytes.len() <= MAX_SENT {
            wire.arrive(bytes, is_urgent);
            self.transcripts[side].sent.extend(bytes);
        }
    }

    fn end(&mut self, side: Peer) {
        let wire = &self.wires[side];
        if wire.can_send() {
            wire.has_ended.set(true);
            wire.has_events.set(true);
        }
    }

    fn reset(&mut self, side: Peer) {
        let wire = &self.wires[side];
        if !wire.is_reset() {
            wire.reset.set(Reset::Yes);
            wire.has_events.set(true);
            self.is_cut = true;
        }
    }

    /// `side` answers our oldest ping, or the latest alone (RFC 6455, section 5.5.3).
    fn answer(&mut self, side: Peer, oldest: bool) {
        self.find_pings(side);
        let transcript = &mut self.transcripts[side];
        let payload =
            if oldest { transcript.pings.pop_front() } else { transcript.pings.pop_back() };
        if let Some(payload) = payload {
            if !oldest {
                transcript.pings.clear();
            }
            let pong = encode(side, 0x80 | PONG, &payload);
            self.send(side, &pong, false);
        }
    }

    /// Looks through what `side` got, frame by frame, for pings that the other side did not send.
    fn find_pings(&mut self, side: Peer) {
        let (transcript, other) = self.transcripts.split(side);
        let taken = self.wires[side].taken.borrow();
        // Where frames begin does not depend on those before.
        let taken = &taken[transcript.seen..];
        let got = reference::read(taken, side.other(), FrameLimits::default());
        for frame in got.frames.iter().take_while(|frame| frame.is_whole()) {
            let bytes = &taken[frame.start..frame.end(taken)];
            transcript.seen += bytes.len();
            let is_theirs = || find(&other.sent, bytes).is_some();
            if frame.opcode == PING && frame.length == 8 && !is_theirs() {
                transcript.pings.push_back(frame.unmasked());
                transcript.payloads.push(frame.unmasked());
            }
        }
    }

    /// Tells all that happened, and gives the turns that follow.
    fn serve(&mut self) {
        // More may come of it: a fault that one direction met is told of the other's socket, too.
        for _ in 0..8 {
            if !BOTH.iter().any(|side| self.wires[*side].has_events.get()) {
                break;
            }
            for side in BOTH {
                self.serve_one(side);
            }
        }
    }

    fn serve_one(&mut self, side: Peer) {
        if self.is_over {
            return;
        }
        if let Some(events) = self.wires[side].events() {
            self.moment().note(side, events);
            self.turn();
        }
    }

    fn turn(&mut self) {
        let all = self.transcripts.both().iter().map(|side| side.sent.len()).sum::<usize>();
        // Each turn with something left moves something.
        for _ in 0..all + 16 {
            match self.turn_once() {
                Next::Again => {}
                Next::Wait => return self.rearm(),
                Next::Failed => unreachable!("nothing catches a panic here"),
                Next::End | Next::AwaitDelivery => {
                    self.is_over = true;
                    return;
                }
            }
        }
        panic!("no end to its turns");
    }

    fn turn_once(&mut self) -> Next {
        let now = self.now();
        let Self { state, local, wires, buffer, rulebook, .. } = self;
        let mut moment = Moment { state, local, rules: rulebook, now };
        moment.turn(wires, buffer)
    }

    fn rearm(&mut self) {
        if mem::replace(&mut self.local.rearm, false) {
            let at = self.moment().next_look();
            let next = self.now.wrapping_add(1);
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

    /// As the worker does when its wheel says so.
    fn look(&mut self) {
        if self.moment().look() == Next::Wait {
            self.turn();
        } else {
            self.is_over = true;
            // What it calls drained has arrived however long it took.
            self.is_cut |= self.state.end().why != Reason::Drained;
        }
    }

    /// Another process goes on with it, at another tick of its own.
    fn hand_over(&mut self) {
        let elapsed = Duration::from_secs(3600);
        let bytes = self.state.to_bytes(self.now(), elapsed);
        let left = self.look_at.wrapping_sub(self.now);
        self.now = self.now.wrapping_add(HANDED_OVER_BY);
        self.ahead = self.ahead.wrapping_add(HANDED_OVER_BY);
        self.look_at = self.now.wrapping_add(left);
        let there = State::from_bytes(&bytes, self.now(), elapsed).unwrap();
        assert_eq!(there.to_bytes(self.now(), elapsed), bytes);
        self.state = there;
        self.local = Local::default();
        self.random = self.random.wrapping_add(1);
        let secret = Secret::new(self.random);
        self.moment().begin(secret);
        self.rearm();
        for side in BOTH {
            // The registration tells.
            self.wires[side].has_events.set(true);
        }
    }

    /// What goes to `side`.
    fn towards(&self, side: Peer) -> &Flow {
        &self.state.flows[side.other()]
    }

    /// What holds at each moment.
    fn check_bounds(&self) {
        for side in BOTH {
            let flow = self.towards(side);
            let passed = self.wires[side].taken.borrow().len() as u64;
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
                self.wires[side].make_room(1 << 30);
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
        let is_by_us = self.state.close().is_some_and(|(_, by)| by == Side::Elbows);
        let is_answered = is_by_us && self.state.end().why == Reason::Drained;
        if is_answered && !self.is_cut {
            self.all_before_the_answer_arrived();
        }
        self.state.cut();
    }

    /// With room for it, nothing that may pass is left, unless it is on its way out.
    fn all_has_arrived(&self, is_at_end: bool) {
        for side in BOTH {
            let flow = self.towards(side);
            let is_passing = flow.passage == Passage::Open
                && flow.own_frame == OwnFrame::None
                && !flow.ends_behind_close
                && !matches!(flow.sink, Sink::Broken)
                && !matches!(flow.source, Source::Reset)
                && !self.state.is_closing()
                && !self.is_cut;
            if !is_passing {
                continue;
            }
            let (explained, is_followed) = self.explain_towards(side);
            let all = self.transcripts[side.other()].sent.len();
            let mut expected = [all, all, all];
            if self.protocol == Protocol::WebSocket
                && is_followed
                && !is_at_end
                && flow.source == Source::Open
            {
                let sent = &self.transcripts[side.other()].sent;
                let held_at = |is_awaited: bool, is_held: bool| {
                    let limits = |awaits_pong| FrameLimits { awaits_pong, ..self.limits };
                    let reading = reference::read(sent, side.other(), limits(is_awaited));
                    reading.held_at(sent, limits(is_held))
                };
                // What may be a Pong may have come before the Ping that it could answer, or begun to.
                let awaits = self.limits.awaits_pong;
                expected = [held_at(awaits, awaits), held_at(awaits, false), held_at(false, false)];
            }
            assert!(
                expected.contains(&explained),
                "bytes are left behind towards {side:?}: {explained} of {expected:?}: {flow:?}"
            );
        }
    }

    /// A client's words before its own Close, or its end, are all at the upstream.
    fn all_before_the_answer_arrived(&self) {
        let sent = &self.transcripts[Peer::Client].sent;
        let reading = reference::read(sent, Peer::Client, self.limits);
        let close = reading.frames.iter().find(|frame| frame.opcode == CLOSE);
        if let Some(close) = close.filter(|close| close.is_whole()) {
            let (explained, _) = self.explain_towards(Peer::Upstream);
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

    /// Explains each byte that `side` got. Says up to where what was sent to it is explained, and whether
    /// its frames are still followed.
    fn explain_towards(&self, side: Peer) -> (usize, bool) {
        let sender = side.other();
        let sent = &self.transcripts[sender].sent;
        let got = self.wires[side].taken.borrow();
        if self.protocol == Protocol::Other {
            assert!(sent.starts_with(&got), "other bytes came out");
            return (got.len(), false);
        }
        let reading = reference::read(sent, sender, self.limits);
        let flow = self.towards(side);
        let mut explained = Explained {
            got: &got,
            at: 0,
            sent,
            sender,
            own: 0,
            either: 0,
            is_closed: false,
            answers: self.transcripts[sender].payloads.clone(),
        };
        let upto = explained.walk(&reading, self.limits.is_strict);
        assert!(explained.own <= flow.own as usize, "it made more than it knows of");
        if flow.waiting.is_empty() && flow.sink != Sink::Broken {
            let known = [explained.own, explained.own + explained.either];
            assert!(known.contains(&(flow.own as usize)), "it knows of more than it made");
        }
        let is_lost = reading.tail == Tail::Fault && !self.limits.is_strict;
        (upto, !is_lost)
    }
}

/// A frame as the script wants it: first byte, length, and a payload of its own.
fn frame(sender: Peer, script: &mut Script<'_>) -> Vec<u8> {
    let (first, length) = (script.byte(), script.byte());
    let length = match length {
        0..200 => usize::from(length),
        200..250 => usize::from(length - 200) * 40,
        // Around the lengths where a head grows.
        _ => usize::from(length - 250) + if first & 0x40 == 0 { 123 } else { 65_533 },
    };
    // RSV1 chose the length.
    head_and(sender, first & !0x40, &PAYLOAD[sender][..length])
}

/// The payloads of frames begin so, those of a client masked. Formed once: to mask each byte again and again is what would
/// take longest.
static PAYLOAD: LazyLock<Pair<Vec<u8>>> = LazyLock::new(|| {
    let upstream: Vec<_> = (0..LONGEST).map(|place| (place % 251) as u8).collect();
    Pair { client: masked(&upstream), upstream }
});

/// The longest payload that the script can ask for.
const LONGEST: usize = 65_533 + 5;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn masked(payload: &[u8]) -> Vec<u8> {
    payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
}

fn encode(sender: Peer, first: u8, payload: &[u8]) -> Vec<u8> {
    match sender {
        Peer::Client => head_and(sender, first, &masked(payload)),
        Peer::Upstream => head_and(sender, first, payload),
    }
}

/// A frame whose payload is masked already where that is for the sender to do.
fn head_and(sender: Peer, first: u8, payload: &[u8]) -> Vec<u8> {
    let is_masked = sender == Peer::Client;
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
    if is_masked {
        bytes.extend_from_slice(&MASK);
    }
    bytes.extend_from_slice(payload);
    bytes
}

fn identity() -> Identity {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    Identity::new(address, address, address, "GET / HTTP/1.1", "1", Since::default())
}

#[cfg(test)]
mod tests;
