//! Any schedule of short reads, short writes and faults passes each byte once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation
)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::clock::{Now, Stamp};
use crate::tunnel::flow::{ByHand, OwnFrame};
use crate::tunnel::rules::Rulebook;
use crate::tunnel::{Options, Peer, Waiting};
use crate::websocket::keepalive::Secret;
use crate::websocket::scanner::Scanner;

/// Small, so that few bytes fill it and few reads use up a turn.
const BUFFER: usize = 8;

/// A source and a sink in memory that behave as sockets do, and watch the direction between.
#[derive(Default)]
struct World {
    /// Reads stop where one piece ends, as at an urgent byte.
    arrived: RefCell<VecDeque<VecDeque<u8>>>,
    /// What a read gives when all has been read.
    last: Cell<Last>,
    interrupted: Cell<bool>,
    room: Cell<usize>,
    /// The sink was found full, so that room is news.
    was_full: Cell<bool>,
    sink_fault: Cell<Option<io::ErrorKind>>,
    taken: RefCell<Vec<u8>>,
    ended: Cell<bool>,
    /// Bytes that were there before or have been read, and have not been taken.
    held: Cell<usize>,
    /// How many of them may be held when more are read: what a scanner holds.
    may_hold: Cell<usize>,
    /// There is no way for much payload.
    no_way: Cell<bool>,
    /// Bytes that went that way.
    carried: Cell<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Last {
    #[default]
    Nothing,
    EndOfStream,
    Fault,
}

impl World {
    /// A call is interrupted at most once.
    fn interrupt(&self) -> io::Result<()> {
        if self.interrupted.replace(false) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    }
}

impl Read for &World {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupt()?;
        assert!(self.held.get() <= self.may_hold.get(), "read while something waited");
        let mut arrived = self.arrived.borrow_mut();
        let Some(piece) = arrived.front_mut() else {
            return match self.last.get() {
                Last::Nothing => Err(io::ErrorKind::WouldBlock.into()),
                Last::EndOfStream => Ok(0),
                Last::Fault => Err(io::ErrorKind::ConnectionReset.into()),
            };
        };
        let taken = piece.len().min(buffer.len());
        for (place, byte) in buffer.iter_mut().zip(piece.drain(..taken)) {
            *place = byte;
        }
        if piece.is_empty() {
            arrived.pop_front();
        }
        self.held.set(self.held.get() + taken);
        Ok(taken)
    }
}

impl Write for &World {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.interrupt()?;
        assert!(!self.ended.get(), "written to after its end");
        assert!(!bytes.is_empty(), "nothing written");
        assert!(!self.was_full.get(), "written to before there was room");
        if let Some(fault) = self.sink_fault.get() {
            return Err(fault.into());
        }
        let taken = bytes.len().min(self.room.get());
        self.was_full.set(taken < bytes.len());
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room.set(self.room.get() - taken);
        // What is ours was never read.
        self.held.set(self.held.get().saturating_sub(taken));
        self.taken.borrow_mut().extend(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl EndWrite for &World {
    fn end(&mut self) -> io::Result<()> {
        assert!(!self.ended.replace(true), "ended twice");
        assert_eq!(self.held.get(), 0, "ended before what waited was gone");
        assert!(self.arrived.borrow().is_empty(), "ended before the source");
        match self.sink_fault.get() {
            Some(fault) => Err(fault.into()),
            None => Ok(()),
        }
    }
}

/// Bytes that one call of the way for much payload moves at most.
const BULK: usize = 24;

impl Bulk for &World {
    fn carry(&mut self, most: u64, waiting: &mut Waiting) -> io::Result<Carried> {
        if self.no_way.get() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let carried = ByHand { from: *self, into: *self, most: BULK }.carry(most, waiting)?;
        self.carried.set(self.carried.get() + carried.read);
        Ok(carried)
    }
}

/// What happens to the two ends.
#[derive(Clone, Debug)]
enum Step {
    Arrive(usize),
    ArriveUrgent(usize),
    Room(usize),
    Interrupt,
    Turn,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Finish {
    Ends,
    IsReset,
    /// Its reset was reported to the other direction, and what is left looks like an end.
    WasReset,
    SinkBreaks(io::ErrorKind),
}

struct Run<'w> {
    world: &'w World,
    flow: Flow,
    from: Readiness,
    to: Readiness,
    sent: Vec<u8>,
}

impl<'w> Run<'w> {
    fn new(world: &'w World, early: usize) -> Self {
        let mut run = Self {
            world,
            flow: Flow::default(),
            from: Readiness::default(),
            to: Readiness::default(),
            sent: Vec::new(),
        };
        run.flow.waiting = Vec::from(run.next_bytes(early)).into();
        world.held.set(early);
        // Found full by the registration.
        world.was_full.set(true);
        run
    }

    fn next_bytes(&mut self, count: usize) -> VecDeque<u8> {
        let start = self.sent.len();
        self.sent.extend((start..start + count).map(|place| (place % 251) as u8));
        self.sent[start..].iter().copied().collect()
    }

    fn arrive(&mut self, count: usize, is_urgent: bool) {
        let bytes = self.next_bytes(count);
        let mut arrived = self.world.arrived.borrow_mut();
        match arrived.back_mut() {
            Some(piece) if !is_urgent => piece.extend(bytes),
            _ => arrived.push_back(bytes),
        }
        self.from.readable = true;
        self.from.read_on |= is_urgent;
    }

    /// Only news is told: an edge.
    fn make_room(&mut self, count: usize) {
        self.world.room.set(self.world.room.get() + count);
        self.to.writable |= self.world.was_full.replace(false);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Arrive(count) => self.arrive(count, false),
            Step::ArriveUrgent(count) => self.arrive(count, true),
            Step::Room(count) => self.make_room(count),
            Step::Interrupt => self.world.interrupted.set(true),
            Step::Turn => {
                self.turn();
            }
        }
    }

    fn turn(&mut self) -> Stop {
        if !can_pass(&self.flow, self.from, self.to) {
            return Stop::Waits;
        }
        let early = self.flow.waiting.len().max(BUFFER).max(BULK);
        let passed = self.flow.passed;
        let mut buffer = [0xff; MAX_KEPT + BUFFER];
        let rulebook = Rulebook::new(&Options::default());
        let mut way = self.world;
        let mut context = Context {
            rules: &rulebook,
            now: Now { tick: 0, stamp: Stamp(0) },
            secret: Secret::default(),
            source: Peer::Client,
            source_alive: None,
            sink_alive: None,
            close: &mut None,
            close_reason: &mut None,
            rearm: &mut false,
            bulk: Some(&mut way),
        };
        let Self { world, flow, from, to, .. } = self;
        let begun = flow
            .may_pass_message(*from, *to)
            .then(|| flow.pass_message(*world, from, *world, to, &mut buffer, &rulebook.frames));
        let stop = match begun {
            Some(Ok(())) => Stop::Waits,
            begun => {
                let begun = begun.and_then(Result::err);
                pass(begun, flow, *world, from, *world, to, &mut buffer, &mut context)
            }
        };
        if stop == Stop::Waits {
            let (flow, from, to) = (&self.flow, self.from, self.to);
            assert!(flow.is_over() || !can_pass(flow, from, to), "work is left");
        }
        assert!(self.flow.waiting.len() <= early, "more waits than may");
        assert!(
            !self.flow.waiting.is_empty() || self.flow.waiting.capacity() == 0,
            "nothing waits and memory is kept"
        );
        let moved = self.flow.passed - passed;
        assert!(moved <= (early + READS_PER_TURN * BUFFER.max(BULK)) as u64);
        assert_eq!(self.flow.passed, self.world.taken.borrow().len() as u64);
        stop
    }

    fn turns(&mut self) -> Stop {
        for _ in 0..1000 {
            let stop = self.turn();
            if stop != Stop::TurnOver {
                return stop;
            }
        }
        panic!("no end to its turns");
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..40_usize).prop_map(Step::Arrive),
        (1..20_usize).prop_map(Step::ArriveUrgent),
        (1..40_usize).prop_map(Step::Room),
        Just(Step::Interrupt),
        Just(Step::Turn),
        Just(Step::Turn),
    ]
}

fn finish() -> impl Strategy<Value = Finish> {
    prop_oneof![
        Just(Finish::Ends),
        Just(Finish::IsReset),
        Just(Finish::WasReset),
        Just(Finish::SinkBreaks(io::ErrorKind::BrokenPipe)),
        Just(Finish::SinkBreaks(io::ErrorKind::ConnectionReset)),
        Just(Finish::SinkBreaks(io::ErrorKind::TimedOut)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any schedule: each byte once and in order, one end, and no byte stranded for want of an
    /// event.
    #[test]
    fn any_schedule_passes_each_byte_once(
        early in 0..30_usize,
        steps in prop::collection::vec(step(), 0..60),
        finish in finish(),
    ) {
        let world = World::default();
        let mut run = Run::new(&world, early);
        for step in &steps {
            run.step(step);
        }

        // With room enough, all that has arrived passes on, before anything else happens.
        run.make_room(usize::MAX / 2);
        prop_assert_eq!(run.turns(), Stop::Waits);
        prop_assert_eq!(&*world.taken.borrow(), &run.sent);
        prop_assert_eq!(run.flow.source, Source::Open);
        prop_assert_eq!(run.flow.sink, Sink::Open);
        prop_assert!(!run.flow.is_over());

        // The last bytes, and how it finishes, come at once.
        run.arrive(5, false);
        run.from.read_on = true;
        match finish {
            Finish::Ends => {
                world.last.set(Last::EndOfStream);
                prop_assert_eq!(run.turns(), Stop::Ended);
                prop_assert_eq!(run.flow.source, Source::Ended);
                prop_assert_eq!(run.flow.sink, Sink::Ended);
                prop_assert!(world.ended.get());
            }
            Finish::IsReset | Finish::WasReset => {
                let told = finish == Finish::WasReset;
                run.flow.source = Source::Broken { told };
                world.last.set(if told { Last::EndOfStream } else { Last::Fault });
                prop_assert_eq!(run.turns(), Stop::SourceBroke);
                prop_assert_eq!(run.flow.source, Source::Reset);
                prop_assert!(!world.ended.get());
            }
            Finish::SinkBreaks(fault) => {
                world.sink_fault.set(Some(fault));
                let told = fault != io::ErrorKind::BrokenPipe;
                let is_gone = fault == io::ErrorKind::TimedOut;
                let stop = if is_gone { Stop::SinkGone } else { Stop::SinkBroke { told } };
                prop_assert_eq!(run.turns(), stop);
                prop_assert_eq!(run.flow.sink, Sink::Broken);
                prop_assert_eq!(run.flow.waiting.capacity(), 0);
                run.sent.truncate(run.sent.len() - 5);
            }
        }
        prop_assert_eq!(&*world.taken.borrow(), &run.sent);
        prop_assert!(run.flow.is_over());

        // Once over, it stays so, whatever is told of the sockets.
        run.from.readable = true;
        run.to.writable = true;
        prop_assert_eq!(run.turns(), Stop::Waits);
        prop_assert_eq!(&*world.taken.borrow(), &run.sent);
    }
}

/// Frames of a client, one behind the other.
fn frames(lengths: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (place, &length) in (0_u8..).zip(lengths) {
        let length = length.min(125);
        bytes.extend([0x82, 0x80 | length, 0, 0, 0, 0]);
        bytes.extend(std::iter::repeat_n(place, length.into()));
    }
    bytes
}

proptest! {
    /// Much payload of a frame goes its own way, and each byte arrives once and in order, as over
    /// the other one.
    #[test]
    fn any_schedule_passes_much_payload_whole(
        lengths in prop::collection::vec(0..=125_u8, 1..12),
        mut steps in prop::collection::vec(step(), 0..80),
        no_way: bool,
    ) {
        let world = World::default();
        world.no_way.set(no_way);
        world.may_hold.set(MAX_KEPT);
        let mut run = Run::new(&world, 0);
        run.flow.scanner = Scanner::new(Peer::Client);
        let sent = frames(&lengths);
        let mut to_come: VecDeque<u8> = sent.iter().copied().collect();
        steps.extend([Step::Arrive(sent.len()), Step::Room(usize::MAX / 2), Step::Turn]);
        for step in &steps {
            match *step {
                Step::Arrive(count) if !to_come.is_empty() => {
                    let came = to_come.drain(..count.min(to_come.len())).collect();
                    world.arrived.borrow_mut().push_back(came);
                    run.from.readable = true;
                    run.from.read_on = true;
                }
                Step::Arrive(_) | Step::ArriveUrgent(_) => {}
                _ => run.step(step),
            }
        }
        prop_assert_eq!(run.turns(), Stop::Waits);
        prop_assert_eq!(&*world.taken.borrow(), &sent);
        prop_assert_eq!(run.flow.scanner.counts().messages, lengths.len() as u64);
        let most = lengths.iter().map(|length| usize::from(*length)).sum::<usize>();
        let carried = world.carried.get();
        prop_assert!(carried <= most && !(no_way && carried > 0));
    }
}

#[test]
fn much_payload_goes_its_own_way_and_what_is_wanted_stands_behind_it() {
    let world = World::default();
    let mut run = Run::new(&world, 0);
    run.make_room(1000);
    run.flow.scanner = Scanner::new(Peer::Client);
    let sent = frames(&[100]);
    let (begun, rest) = sent.split_at(20);
    world.may_hold.set(MAX_KEPT);
    for (came, own_frame) in [
        (begun, OwnFrame::None),
        (rest, OwnFrame::Close { code: 1001, after_message: true, then: Passage::Discard }),
    ] {
        world.arrived.borrow_mut().push_back(came.iter().copied().collect());
        run.from.readable = true;
        run.flow.own_frame = own_frame;
        assert_eq!(run.turns(), Stop::Waits);
    }
    assert!(world.carried.get() >= 80, "{}", world.carried.get());
    let taken = world.taken.borrow();
    let (first, behind) = taken.split_at(sent.len());
    assert_eq!(first, sent);
    assert_eq!(behind[..2], [0x88, 0x82], "a Close stands behind it");
}

#[test]
fn a_message_is_one_read_and_one_write() {
    let world = World::default();
    let mut run = Run::new(&world, 0);
    run.make_room(100);
    run.arrive(BUFFER - 1, false);
    // A second read would be told of the end.
    world.last.set(Last::EndOfStream);
    assert_eq!(run.turn(), Stop::Waits);
    assert_eq!(run.flow.passed, BUFFER as u64 - 1);
    assert_eq!(run.flow.source, Source::Open);
    assert!(!run.from.readable);
    assert!(run.to.writable);
}

#[test]
fn a_turn_has_its_bound() {
    let world = World::default();
    let mut run = Run::new(&world, 0);
    run.make_room(1000);
    run.arrive(BUFFER * READS_PER_TURN + 1, false);
    assert_eq!(run.turn(), Stop::TurnOver);
    assert_eq!(run.flow.passed as usize, BUFFER * READS_PER_TURN);
    assert_eq!(run.turn(), Stop::Waits);
    assert_eq!(run.flow.passed as usize, BUFFER * READS_PER_TURN + 1);
}

#[test]
fn an_end_that_the_sink_refuses_breaks_it() {
    let world = World::default();
    let mut run = Run::new(&world, 0);
    run.make_room(1);
    world.last.set(Last::EndOfStream);
    world.sink_fault.set(Some(io::ErrorKind::NotConnected));
    run.from.readable = true;
    assert_eq!(run.turn(), Stop::SinkBroke { told: true });
    assert_eq!(run.flow.sink, Sink::Broken);
}
