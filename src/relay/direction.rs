//! One direction of a tunnel: what a source sends goes to a sink, as it came.
//!
//! Generic over the two ends, so that any schedule of short reads, short writes and faults can be
//! tried without a socket. In the common case a message is one read and one write: a read that did
//! not fill the buffer has drained the source, a write that was taken whole leaves nothing behind.
//! Between the two is the one place where all bytes go by; whoever follows frames sits there.

use std::io::{self, Read, Write};

use super::bulk::{Bulk, Carried};
use super::frame::{ControlFrame, Masking};
use super::keepalive::Keepalive;
use super::options::{Rulebook, nonces, stamp};
use super::scanner::{MAX_KEPT, Rules, Scan, Tally, Then, Until};
use crate::end::{Reason, Side};
use crate::tunnel::{Close, Course, Flow, Sink, Source, Wants};

/// Bytes that one read takes at most, and that can wait in one direction at most, apart from those
/// that were there when the tunnel opened. One buffer of this size serves all tunnels of a thread.
/// 64 KiB is where a larger read saves next to nothing any more (a call costs about as much as
/// copying 4 KiB) and where the buffer still stays in the second-level cache.
/// In front of it is room for what a scanner holds between two reads.
pub(super) const READ_BUFFER: usize = MAX_KEPT + 64 * 1024;

/// Reads that one direction gets before others have their turn. With full buffers that is 256 KiB:
/// well below a millisecond of copying, so that a bulk transfer does not hold up a chat. A guess.
const READS_PER_TURN: usize = 4;

/// Frames of one direction behind which others have their turn. Small messages that break no rule are not
/// among them: one costs about as much as copying it. A full buffer of the smallest other frames has 32,768,
/// which take less than a millisecond.
const FRAMES_PER_TURN: u32 = if cfg!(any(test, fuzzing)) { 512 } else { 8192 };

/// From so many bytes of payload on that are still to come of a frame, they pass without a look at them.
const MUCH: u64 = if cfg!(any(test, fuzzing)) { 16 } else { 32 * 1024 };

/// What is known of a socket from events and from the results of earlier calls.
///
/// The poll is edge-triggered: it tells a change once, and this remembers it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Readiness {
    /// A read may give something.
    pub(super) readable: bool,
    /// A short read does not mean that the socket is drained: the end of the stream, a fault or
    /// what lies behind an urgent byte comes after it, and no event will tell.
    pub(super) read_on: bool,
    /// A write may be taken.
    pub(super) writable: bool,
}

/// Why a direction stopped for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Nothing can be done before the next event, or ever again.
    Waits,
    /// The sink has been told that no more will come.
    Ended,
    /// Its turn is over; there may be more.
    TurnOver,
    /// The source was reset.
    SourceBroke,
    /// The sink takes nothing any more. See [`Source::Broken`] for `told`.
    SinkBroke { told: bool },
    /// The source is gone: the kernel heard nothing of it for so long that it gave it up.
    SourceGone,
    /// The same of the sink.
    SinkGone,
    /// The source sent what is not passed on: a rule is broken or a limit exceeded.
    Refused(Reason),
}

/// What a direction that follows frames has to know of the tunnel beside its flow.
pub(super) struct Watch<'w> {
    pub(super) rulebook: &'w Rulebook,
    pub(super) now: u32,
    pub(super) source: Peer<'w>,
    pub(super) sink: Peer<'w>,
    /// The first Close of the tunnel.
    pub(super) close: &'w mut Option<Close>,
    /// Something happened that other times depend on.
    pub(super) rearm: &'w mut bool,
    /// The way for much payload, where there is one.
    pub(super) bulk: Option<&'w mut dyn Bulk>,
}

/// One side, as a direction sees it.
pub(super) struct Peer<'w> {
    pub(super) side: Side,
    /// Where it is pinged.
    pub(super) alive: Option<&'w mut Keepalive>,
    /// The number of the stream towards it: its descriptor.
    pub(super) stream: u64,
}

/// A writer that can be told that no more will come.
pub(super) trait EndWrite: Write {
    fn end(&mut self) -> io::Result<()>;
}

/// Whether [`pass`] has anything to do. Of the two directions of a tunnel mostly one has.
pub(super) fn can_pass(flow: &Flow, from: Readiness, to: Readiness) -> bool {
    if flow.course != Course::Passes {
        let can_read = matches!(flow.source, Source::Open | Source::Broken { .. });
        let can_write = flow.sink == Sink::Open && to.writable;
        let has_to_write = !flow.waiting.is_empty() || flow.course == Course::Finishes;
        return can_read && from.readable || can_write && has_to_write;
    }
    if flow.is_deaf() {
        return from.readable && flow.source != Source::Ended;
    }
    to.writable && (from.readable || !flow.waiting.is_empty() || flow.source == Source::Ended)
}

/// Moves what can be moved, for one turn.
///
/// What the sink does not take is kept in `flow.waiting`, and nothing is read before that is gone.
/// After a fault the caller is told once, and the state says the same.
///
/// The common case is here, to be inlined: one small message, or bytes without frames, in one read
/// and one write. It needs no `watch`, which is only made for everything else.
#[inline]
#[allow(clippy::too_many_arguments)] // Two ends, each with what is known of it.
pub(super) fn pass<'w>(
    flow: &mut Flow,
    mut source: impl Read,
    from: &mut Readiness,
    mut sink: impl EndWrite,
    to: &mut Readiness,
    buffer: &mut [u8],
    rules: &Rules,
    watch: impl FnOnce() -> Watch<'w>,
) -> Stop {
    let is_plain = flow.course == Course::Passes
        && flow.waiting.is_empty()
        && flow.source == Source::Open
        && flow.sink == Sink::Open
        && to.writable
        && from.readable
        && !from.read_on
        && (flow.scanner.payload_left() < MUCH || !flow.scanner.is_on());
    if !is_plain {
        if !can_pass(flow, *from, *to) {
            return Stop::Waits;
        }
        let source = Begun { first: None, source };
        return pass_all(flow, source, from, sink, to, buffer, &mut watch());
    }
    let room = behind_room(buffer);
    let first = source.read(room);
    if let Ok(taken @ 1..) = first
        && let Some(bytes) = room.get(..taken)
        && taken < room.len()
        && (flow.scanner.is_one_message(bytes, rules) || !flow.scanner.is_on())
    {
        from.readable = false;
        return match write(&mut sink, bytes, to) {
            Ok(taken) => {
                flow.passed += taken as u64;
                if let Some(rest @ [_, ..]) = bytes.get(taken..) {
                    flow.waiting.push(rest);
                }
                Stop::Waits
            }
            Err(fault) => sink_broke(flow, &fault),
        };
    }
    let source = Begun { first: Some(first), source };
    pass_all(flow, source, from, sink, to, buffer, &mut watch())
}

/// A source that was read from once: the bytes are in the buffer.
struct Begun<S> {
    first: Option<io::Result<usize>>,
    source: S,
}

impl<S: Read> Read for Begun<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.first.take().unwrap_or_else(|| self.source.read(buffer))
    }
}

/// [`pass`], whatever there is to do.
#[inline(never)]
fn pass_all(
    flow: &mut Flow,
    mut source: impl Read,
    from: &mut Readiness,
    mut sink: impl EndWrite,
    to: &mut Readiness,
    buffer: &mut [u8],
    watch: &mut Watch<'_>,
) -> Stop {
    let mut reads_left = READS_PER_TURN;
    let mut frames_left = FRAMES_PER_TURN;
    loop {
        if flow.course != Course::Passes {
            return discard(flow, source, from, sink, to, buffer);
        }
        // Nothing is read for a sink that is full, even with nothing waiting: it would only have to
        // be kept here, and the kernel keeps it better.
        let is_deaf = flow.is_deaf();
        if !is_deaf && (flow.sink != Sink::Open || !to.writable) {
            return Stop::Waits;
        }
        if !flow.waiting.is_empty() {
            match write(&mut sink, &flow.waiting, to) {
                Ok(taken) => {
                    drop_front(flow, taken);
                    if taken > 0
                        && let Some(alive) = &mut watch.sink.alive
                    {
                        // It takes what stands before a Ping, or the Ping: its time begins here.
                        alive.put_off(watch.now);
                    }
                }
                Err(fault) => return sink_broke(flow, &fault),
            }
            continue;
        }
        match flow.source {
            Source::Open | Source::Broken { .. } => {}
            Source::Ended if is_deaf => return Stop::Waits,
            Source::Ended => {
                if let Err(fault) = sink.end() {
                    return sink_broke(flow, &fault);
                }
                flow.sink = Sink::Ended;
                return Stop::Ended;
            }
            Source::Reset => return Stop::Waits,
        }
        if !from.readable {
            return Stop::Waits;
        }
        if reads_left == 0 {
            return Stop::TurnOver;
        }
        reads_left -= 1;

        let has_much = flow.scanner.payload_left() >= MUCH && flow.scanner.is_on();
        if has_much
            && !is_deaf
            && let Some(bulk) = watch.bulk.as_deref_mut()
        {
            match carry(flow, bulk, from, to) {
                Ok(()) => put_wanted(flow, watch),
                Err(NotCarried::NoWay) => watch.bulk = None,
                Err(NotCarried::Nothing(nothing)) => match came_to_nothing(flow, &nothing) {
                    Some(stop) => return stop,
                    None => continue,
                },
                Err(NotCarried::SinkBroke(fault)) => return sink_broke(flow, &fault),
            }
            continue;
        }
        let bytes = match read(&mut source, behind_room(buffer), from) {
            Ok(bytes) => bytes,
            Err(nothing) => match came_to_nothing(flow, &nothing) {
                Some(stop) => return stop,
                None => continue,
            },
        };
        if flow.scanner.is_on() {
            let length = bytes.len();
            let passed = pass_frames(flow, &mut sink, to, buffer, length, watch);
            match passed {
                Ok(frames) => {
                    frames_left = frames_left.saturating_sub(frames);
                    if frames_left == 0 {
                        reads_left = 0;
                    }
                    continue;
                }
                Err(stop) => return stop,
            }
        }
        if is_deaf {
            continue;
        }
        match write(&mut sink, bytes, to) {
            Ok(taken) => {
                flow.passed += taken as u64;
                if let Some(rest @ [_, ..]) = bytes.get(taken..) {
                    flow.waiting.push(rest);
                }
            }
            Err(fault) => return sink_broke(flow, &fault),
        }
    }
}

/// A read gave nothing: why, and whether that stops the direction.
fn came_to_nothing(flow: &mut Flow, nothing: &Nothing) -> Option<Stop> {
    match nothing {
        Nothing::Now if flow.source == Source::Open => Some(Stop::Waits),
        Nothing::Ended if flow.source != (Source::Broken { told: true }) => {
            flow.source = Source::Ended;
            release(flow);
            None
        }
        _ => {
            flow.source = Source::Reset;
            release(flow);
            Some(nothing.stop())
        }
    }
}

/// Why [`carry`] carried nothing.
enum NotCarried {
    /// There is no way but to read.
    NoWay,
    Nothing(Nothing),
    SinkBroke(io::Error),
}

/// Has payload pass that nobody looks at.
fn carry(
    flow: &mut Flow,
    bulk: &mut dyn Bulk,
    from: &mut Readiness,
    to: &mut Readiness,
) -> Result<(), NotCarried> {
    let left = flow.scanner.payload_left();
    let Carried { read, taken, fault } = match bulk.carry(left, &mut flow.waiting) {
        Ok(carried) => carried,
        Err(fault) => match fault.kind() {
            io::ErrorKind::Interrupted => return Ok(()),
            io::ErrorKind::Unsupported => return Err(NotCarried::NoWay),
            io::ErrorKind::WouldBlock => {
                from.readable = false;
                from.read_on = false;
                return Err(NotCarried::Nothing(Nothing::Now));
            }
            _ if is_gone(&fault) => return Err(NotCarried::Nothing(Nothing::Gone)),
            _ => return Err(NotCarried::Nothing(Nothing::Broke)),
        },
    };
    if read == 0 {
        return Err(NotCarried::Nothing(Nothing::Ended));
    }
    flow.scanner.skip_payload(read as u64);
    flow.passed += taken as u64;
    to.writable = taken == read;
    match fault {
        Some(fault) => Err(NotCarried::SinkBroke(fault)),
        None => Ok(()),
    }
}

/// Follows the frames of what was read before the tunnel opened. It waits again, as far as it passes.
pub(super) fn scan_early(flow: &mut Flow, watch: &mut Watch<'_>) -> Result<(), Stop> {
    if !std::mem::replace(&mut flow.is_unscanned, false) || !flow.scanner.is_on() {
        return Ok(());
    }
    let early = std::mem::take(&mut flow.waiting);
    follow(flow, &early, watch, |flow, piece| {
        flow.waiting.push(piece);
        Ok(())
    })?;
    Ok(())
}

/// Asks for something of ours to go out: at once, if it may stand there, else as soon as it may. It
/// waits behind what waits already.
pub(super) fn want(flow: &mut Flow, wants: Wants, watch: &mut Watch<'_>) {
    if flow.sink != Sink::Open || flow.course != Course::Passes {
        return;
    }
    // A Close is not put off by a Ping.
    if !(wants == Wants::Ping && matches!(flow.wants, Wants::Close { .. })) {
        flow.wants = wants;
    }
    put_wanted(flow, watch);
}

/// Passes on what was read, as far as it may pass. Says how many frames were followed.
fn pass_frames(
    flow: &mut Flow,
    sink: &mut impl Write,
    to: &mut Readiness,
    buffer: &mut [u8],
    length: usize,
    watch: &mut Watch<'_>,
) -> Result<u32, Stop> {
    let mut start = MAX_KEPT;
    if let Some(room) = buffer.first_chunk_mut() {
        start -= flow.scanner.give_back(room);
    }
    let bytes = buffer.get(start..MAX_KEPT + length).unwrap_or_default();
    follow(flow, bytes, watch, |flow, piece| {
        if flow.is_deaf() {
            return Ok(());
        }
        let mut taken = 0;
        if flow.waiting.is_empty() && to.writable {
            taken = write(sink, piece, to).map_err(|fault| sink_broke(flow, &fault))?;
            flow.passed += taken as u64;
        }
        if let Some(rest @ [_, ..]) = piece.get(taken..) {
            flow.waiting.push(rest);
        }
        Ok(())
    })
}

/// Passes on by `put` what may pass of `bytes`, and puts in what is wanted. Says how many frames were
/// followed.
fn follow(
    flow: &mut Flow,
    bytes: &[u8],
    watch: &mut Watch<'_>,
    put: impl FnMut(&mut Flow, &[u8]) -> Result<(), Stop>,
) -> Result<u32, Stop> {
    let mut tally = Tally::default();
    let followed = follow_all(flow, bytes, watch, &mut tally, put);
    watch.rulebook.counters.frame_faults.add_all(&tally.faults);
    followed.map(|()| tally.frames)
}

fn follow_all(
    flow: &mut Flow,
    mut bytes: &[u8],
    watch: &mut Watch<'_>,
    tally: &mut Tally,
    mut put: impl FnMut(&mut Flow, &[u8]) -> Result<(), Stop>,
) -> Result<(), Stop> {
    loop {
        put_wanted(flow, watch);
        if flow.course != Course::Passes {
            return Ok(());
        }
        let until = match flow.wants {
            Wants::Nothing if flow.ends_behind_close => Until::Close,
            Wants::Nothing => Until::End,
            Wants::Close { after_message: true, .. } => Until::MessageEnd,
            Wants::Ping | Wants::Close { .. } => Until::Boundary,
        };
        let Peer { alive, stream, .. } = &mut watch.source;
        let unanswered = alive.as_deref_mut().filter(|alive| alive.is_unanswered());
        let own_pong =
            unanswered.map(|alive| |nonce| alive.is_answered_by(nonce, stamp(), *stream, nonces()));
        let passed = flow.scanner.passed_of_head();
        let Scan { pass, then } =
            flow.scanner.scan(bytes, &watch.rulebook.rules, until, tally, own_pong);
        if let Some(piece @ [_, ..]) = bytes.get(passed..pass) {
            put(flow, piece)?;
        }
        bytes = bytes.get(pass..).unwrap_or_default();
        match then {
            Then::More => return Ok(()),
            Then::Reached => {}
            Then::Closed => {
                let code = flow.scanner.close_code().unwrap_or_default();
                watch.close.get_or_insert(Close { by: watch.source.side, code });
                *watch.rearm = true;
            }
            Then::OwnPong { length } => bytes = bytes.get(length.into()..).unwrap_or_default(),
            Then::OverLimit(_) => return Err(Stop::Refused(Reason::TooBig)),
            Then::Fault(fault) => {
                watch.rulebook.counters.frame_faults.add(fault);
                return Err(Stop::Refused(Reason::Malformed));
            }
        }
        if flow.ends_behind_close && flow.scanner.is_behind_close() {
            flow.course = Course::Finishes;
        }
    }
}

/// Puts in what is wanted, if it may stand here.
fn put_wanted(flow: &mut Flow, watch: &mut Watch<'_>) {
    if flow.wants == Wants::Nothing || !flow.scanner.at_boundary() || flow.sink != Sink::Open {
        return;
    }
    let now = stamp();
    let Peer { alive, stream, .. } = &mut watch.sink;
    let mask = (flow.scanner.masking() == Masking::Required).then(|| nonces().mask(*stream, now));
    let frame = match flow.wants {
        Wants::Nothing => return,
        Wants::Ping => {
            let Some(alive) = alive else {
                flow.wants = Wants::Nothing;
                return;
            };
            ControlFrame::ping(alive.ping(watch.now, now, *stream, nonces()), mask)
        }
        Wants::Close { after_message: true, .. } if flow.scanner.in_message() => return,
        Wants::Close { code, then, .. } => {
            flow.course = then;
            watch.close.get_or_insert(Close { by: Side::Elbows, code });
            ControlFrame::close(code, mask)
        }
    };
    flow.wants = Wants::Nothing;
    flow.waiting.push(frame.as_bytes());
    flow.own = flow.own.saturating_add(u32::try_from(frame.as_bytes().len()).unwrap_or(u32::MAX));
    *watch.rearm = true;
}

/// The stream ends in the middle of what is held: it passes, since it came.
fn release(flow: &mut Flow) {
    if flow.sink == Sink::Broken {
        return;
    }
    let mut room = [0; MAX_KEPT];
    let held = flow.scanner.finish(&mut room);
    flow.waiting.push(room.get(MAX_KEPT - held..).unwrap_or_default());
}

/// Nothing passes any more: what waits goes out, then the end of the stream where it is to be told,
/// and what comes from the source is thrown away, so that closing the socket resets nothing.
#[cold]
fn discard(
    flow: &mut Flow,
    mut source: impl Read,
    from: &mut Readiness,
    mut sink: impl EndWrite,
    to: &mut Readiness,
    buffer: &mut [u8],
) -> Stop {
    while flow.sink == Sink::Open && to.writable {
        if !flow.waiting.is_empty() {
            match write(&mut sink, &flow.waiting, to) {
                Ok(taken) => drop_front(flow, taken),
                Err(fault) => return sink_broke(flow, &fault),
            }
        } else if flow.course == Course::Finishes {
            if let Err(fault) = sink.end() {
                return sink_broke(flow, &fault);
            }
            flow.sink = Sink::Ended;
        } else {
            break;
        }
    }
    for _ in 0..READS_PER_TURN {
        if !from.readable || matches!(flow.source, Source::Ended | Source::Reset) {
            return Stop::Waits;
        }
        match read(&mut source, buffer, from) {
            Ok(_) => flow.has_come = true,
            Err(Nothing::Now) if flow.source == Source::Open => return Stop::Waits,
            Err(Nothing::Ended) if flow.source != (Source::Broken { told: true }) => {
                flow.source = Source::Ended;
            }
            Err(nothing) => {
                flow.source = Source::Reset;
                return nothing.stop();
            }
        }
    }
    Stop::TurnOver
}

fn behind_room(buffer: &mut [u8]) -> &mut [u8] {
    buffer.get_mut(MAX_KEPT..).unwrap_or_default()
}

/// Why a read gave no bytes.
enum Nothing {
    Now,
    Ended,
    Broke,
    Gone,
}

impl Nothing {
    const fn stop(&self) -> Stop {
        if matches!(self, Self::Gone) { Stop::SourceGone } else { Stop::SourceBroke }
    }
}

/// Whether the kernel gave a side up that it heard nothing of (`TCP_USER_TIMEOUT`, keepalive; tcp(7)).
/// What a router said of it meanwhile is told instead, if one did.
fn is_gone(fault: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(fault.kind(), TimedOut | HostUnreachable | NetworkUnreachable)
}

fn read<'b>(
    source: &mut impl Read,
    buffer: &'b mut [u8],
    from: &mut Readiness,
) -> Result<&'b [u8], Nothing> {
    let result = loop {
        match source.read(buffer) {
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            result => break result,
        }
    };
    match result {
        Ok(0) => Err(Nothing::Ended),
        Ok(taken) => {
            from.readable = from.read_on || taken == buffer.len();
            buffer.get(..taken).ok_or(Nothing::Broke)
        }
        Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
            from.readable = false;
            from.read_on = false;
            Err(Nothing::Now)
        }
        Err(fault) if is_gone(&fault) => Err(Nothing::Gone),
        Err(_) => Err(Nothing::Broke),
    }
}

/// Writes once. A short write has filled the sink: the kernel tells when there is room again.
fn write(sink: &mut impl Write, bytes: &[u8], to: &mut Readiness) -> io::Result<usize> {
    let result = loop {
        match sink.write(bytes) {
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            result => break result,
        }
    };
    match result {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Ok(taken) => {
            to.writable = taken == bytes.len();
            Ok(taken)
        }
        Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
            to.writable = false;
            Ok(0)
        }
        Err(fault) => Err(fault),
    }
}

fn drop_front(flow: &mut Flow, taken: usize) {
    flow.passed += taken as u64;
    flow.has_moved |= taken > 0;
    flow.waiting.drop_front(taken);
}

/// EPIPE comes where the kernel has told the fault before, or where the sink had ended its own
/// stream before it broke (Linux, `tcp_reset`): it takes no report away from the reading side.
fn sink_broke(flow: &mut Flow, fault: &io::Error) -> Stop {
    flow.sink = Sink::Broken;
    flow.waiting.clear();
    if is_gone(fault) {
        return Stop::SinkGone;
    }
    Stop::SinkBroke { told: fault.kind() != io::ErrorKind::BrokenPipe }
}

#[cfg(test)]
mod tests {
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
    use crate::relay::Options;
    use crate::relay::bulk::ByHand;
    use crate::relay::scanner::Scanner;
    use crate::tunnel::Waiting;

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
            let rules = &rulebook;
            let peer = |side| Peer { side, alive: None, stream: 0 };
            let (close, rearm) = (&mut None, &mut false);
            let mut way = self.world;
            let bulk = &mut way;
            let stop = pass(
                &mut self.flow,
                self.world,
                &mut self.from,
                self.world,
                &mut self.to,
                &mut buffer,
                &rulebook.rules,
                move || Watch {
                    rulebook: rules,
                    now: 0,
                    source: peer(Side::Client),
                    sink: peer(Side::Upstream),
                    close,
                    rearm,
                    bulk: Some(bulk),
                },
            );
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
            run.flow.scanner = Scanner::new(Side::Client);
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
        run.flow.scanner = Scanner::new(Side::Client);
        let sent = frames(&[100]);
        let (begun, rest) = sent.split_at(20);
        world.may_hold.set(MAX_KEPT);
        for (came, wants) in [
            (begun, Wants::Nothing),
            (rest, Wants::Close { code: 1001, after_message: true, then: Course::Discards }),
        ] {
            world.arrived.borrow_mut().push_back(came.iter().copied().collect());
            run.from.readable = true;
            run.flow.wants = wants;
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
}
