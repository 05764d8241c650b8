//! One turn of a flow: what the source sends goes to the sink, as it came.
//!
//! Generic over the two ends, so that any schedule of short reads, short writes and faults can be
//! tried without a socket. In the common case a message is one read and one write: a read that did
//! not fill the buffer has drained the source, a write that was taken whole leaves nothing behind.
//! Behind a frame with much payload only the next head is read, so that its payload can go past the process.

use std::io::{self, Read, Write};

use super::ends::{Bulk, Carried, EndWrite, Readiness, Stop};
use super::frames::{Context, pass_frames, put_own_frame};
use super::message::Begun;
use super::{Flow, Passage, Sink, Source};
use crate::websocket::frame::MAX_HEAD;
use crate::websocket::scanner::MAX_KEPT;

/// Bytes that one read takes at most, and that can wait in one direction at most, apart from those
/// that were there when the tunnel opened. One buffer of this size serves all tunnels of a thread.
/// 64 KiB is where a larger read saves next to nothing any more (a call costs about as much as
/// copying 4 KiB) and where the buffer still stays in the second-level cache.
/// In front of it is room for what a scanner holds between two reads.
pub(crate) const READ_BUFFER: usize = MAX_KEPT + 64 * 1024;

/// Reads that one direction gets before others have their turn. With full buffers that is 256 KiB:
/// well below a millisecond of copying, so that a bulk transfer does not hold up a chat. A guess.
const READS_PER_TURN: usize = 4;

/// Frames of one direction behind which others have their turn. Small messages that break no rule are not
/// among them: one costs about as much as copying it. Others cost some 10 ns each.
const FRAMES_PER_TURN: u32 = 256;

/// Bytes that are read at once where frames are dense. There are 1,024 of the smallest in them: with these a turn is about as
/// long as one that copies a full buffer.
const DENSE_READ: usize = 2 * 1024;

/// From so many frames in one read on they are dense, where each has less than [`SPARSE`] bytes.
const DENSE: u32 = 128;
const SPARSE: usize = 32;

/// From so many bytes of payload on that are still to come of a frame, they pass without a look at them.
pub(super) const LARGE_PAYLOAD: u64 = if cfg!(any(test, fuzzing)) { 16 } else { 32 * 1024 };

/// Whether [`pass`] has anything to do. Of the two directions of a tunnel mostly one has.
pub(crate) fn can_pass(flow: &Flow, from: Readiness, to: Readiness) -> bool {
    if flow.passage != Passage::Open {
        let can_read = matches!(flow.source, Source::Open | Source::Broken { .. });
        let can_write = flow.sink == Sink::Open && to.writable;
        let has_to_write = !flow.waiting.is_empty() || flow.passage == Passage::Finish;
        return can_read && from.readable || can_write && has_to_write;
    }
    if flow.awaits_close_only() {
        return from.readable && flow.source != Source::Ended;
    }
    to.writable && (from.readable || !flow.waiting.is_empty() || flow.source == Source::Ended)
}

/// Moves what can be moved, for one turn.
///
/// What the sink does not take is kept in `flow.waiting`, and nothing is read before that is gone.
/// After a fault the caller is told once, and the state says the same. `begun` is where
/// [`Flow::pass_message`] was before.
#[allow(clippy::too_many_arguments)] // Two ends, each with what is known of it.
pub(crate) fn pass(
    begun: Option<Begun>,
    flow: &mut Flow,
    source: impl Read,
    from: &mut Readiness,
    sink: impl EndWrite,
    to: &mut Readiness,
    buffer: &mut [u8],
    context: &mut Context<'_>,
) -> Stop {
    let first = match begun {
        Some(Begun::Stopped(stop)) => return stop,
        Some(Begun::Read(read)) => Some(read),
        None if can_pass(flow, *from, *to) => None,
        None => return Stop::Waits,
    };
    pass_all(flow, ReadOnce { first, source }, from, sink, to, buffer, context)
}

/// A source that was read from once: the bytes are in the buffer.
struct ReadOnce<S> {
    first: Option<io::Result<usize>>,
    source: S,
}

impl<S: Read> Read for ReadOnce<S> {
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
    context: &mut Context<'_>,
) -> Stop {
    let mut reads_left = READS_PER_TURN;
    let mut frames_left = FRAMES_PER_TURN;
    loop {
        if flow.passage != Passage::Open {
            return discard(flow, source, from, sink, to, buffer);
        }
        // Nothing is read for a sink that is full, even with nothing waiting: it would only have to
        // be kept here, and the kernel keeps it better.
        let awaits_close_only = flow.awaits_close_only();
        if !awaits_close_only && (flow.sink != Sink::Open || !to.writable) {
            return Stop::Waits;
        }
        if !flow.waiting.is_empty() {
            match write(&mut sink, &flow.waiting, to) {
                Ok(taken) => {
                    drop_front(flow, taken);
                    if taken > 0
                        && let Some(alive) = &mut context.sink_alive
                    {
                        // It takes what stands before a Ping, or the Ping: its time begins here.
                        alive.put_off(context.now.tick);
                    }
                }
                Err(fault) => return sink_broke(flow, &fault),
            }
            continue;
        }
        match flow.source {
            Source::Open | Source::Broken { .. } => {}
            Source::Ended if awaits_close_only => return Stop::Waits,
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

        let has_much = flow.scanner.payload_left() >= LARGE_PAYLOAD && flow.scanner.is_on();
        if has_much
            && !awaits_close_only
            && let Some(bulk) = context.bulk.as_deref_mut()
        {
            reads_left -= 1;
            match carry(flow, bulk, from, to) {
                Ok(read) => {
                    // Of what is not copied a turn has twice as much.
                    reads_left = reads_left.saturating_sub(read / (2 * READ_BUFFER));
                    put_own_frame(flow, context);
                }
                Err(NotCarried::NoWay) => context.bulk = None,
                Err(NotCarried::Nothing(nothing)) => match came_to_nothing(flow, &nothing) {
                    Some(stop) => return stop,
                    None => continue,
                },
                Err(NotCarried::SinkBroke(fault)) => return sink_broke(flow, &fault),
            }
            continue;
        }
        // Behind much payload comes a head, and then more of it most of the time.
        let reads_head = std::mem::take(&mut flow.is_bulk) && context.bulk.is_some();
        let room = room_for_read(buffer, reads_head, *from);
        if !reads_head || room.len() < MAX_HEAD {
            reads_left -= 1;
        }
        let bytes = match read(&mut source, room, from) {
            Ok(bytes) => bytes,
            Err(nothing) => {
                flow.is_bulk = reads_head;
                match came_to_nothing(flow, &nothing) {
                    Some(stop) => return stop,
                    None => continue,
                }
            }
        };
        if flow.scanner.is_on() {
            let length = bytes.len();
            let frames = match pass_frames(flow, &mut sink, to, buffer, length, context) {
                Ok(frames) => frames,
                Err(stop) => return stop,
            };
            // A head may come in pieces.
            flow.is_bulk = reads_head && flow.scanner.is_in_head() && length < MAX_HEAD;
            from.is_dense =
                flow.scanner.is_on() && frames >= DENSE && frames as usize * SPARSE > length;
            frames_left = frames_left.saturating_sub(frames);
            if frames_left == 0 {
                reads_left = 0;
            }
            continue;
        }
        if awaits_close_only {
            continue;
        }
        if let Err(stop) = write_or_wait(flow, &mut sink, bytes, to) {
            return stop;
        }
    }
}

/// Writes what was read where nothing waits; what is not taken waits.
#[inline(always)]
#[allow(clippy::inline_always)] // Each message passes here.
pub(super) fn write_or_wait(
    flow: &mut Flow,
    sink: &mut impl Write,
    bytes: &[u8],
    to: &mut Readiness,
) -> Result<(), Stop> {
    let taken = write(sink, bytes, to).map_err(|fault| sink_broke(flow, &fault))?;
    flow.passed += taken as u64;
    if let Some(rest @ [_, ..]) = bytes.get(taken..) {
        flow.waiting.push(rest);
    }
    Ok(())
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

/// Has payload pass that nobody looks at. Says how much.
fn carry(
    flow: &mut Flow,
    bulk: &mut dyn Bulk,
    from: &mut Readiness,
    to: &mut Readiness,
) -> Result<usize, NotCarried> {
    let left = flow.scanner.payload_left();
    let Carried { read, taken, fault } = match bulk.carry(left, &mut flow.waiting) {
        Ok(carried) => carried,
        Err(fault) => match fault.kind() {
            io::ErrorKind::Interrupted => return Ok(0),
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
    flow.is_bulk = true;
    flow.passed += taken as u64;
    to.writable = taken == read;
    match fault {
        Some(fault) => Err(NotCarried::SinkBroke(fault)),
        None => Ok(read),
    }
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
        } else if flow.passage == Passage::Finish {
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

#[inline]
pub(super) fn behind_room(buffer: &mut [u8]) -> &mut [u8] {
    buffer.get_mut(MAX_KEPT..).unwrap_or_default()
}

/// Where the next read goes, and so how much it takes at most.
fn room_for_read(buffer: &mut [u8], reads_head: bool, from: Readiness) -> &mut [u8] {
    let room = behind_room(buffer);
    let most = match (reads_head, from.is_dense) {
        (true, _) => MAX_HEAD,
        (false, true) => DENSE_READ,
        (false, false) => room.len(),
    };
    room.get_mut(..most.min(room.len())).unwrap_or_default()
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
#[inline(always)]
#[allow(clippy::inline_always)] // Each message passes here.
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
    flow.sink_is_broken();
    if is_gone(fault) {
        return Stop::SinkGone;
    }
    Stop::SinkBroke { told: fault.kind() != io::ErrorKind::BrokenPipe }
}

#[cfg(test)]
mod tests;
