//! The frames of a flow: they are followed as they pass, and frames of ours are put in between them.

use std::io::Write;

use super::ends::{Bulk, Readiness, Stop};
use super::pass::write_or_wait;
use super::{Flow, OwnFrame, Passage, Sink};
use crate::clock::Now;
use crate::end::{Reason, Side};
use crate::metrics::families::ROUND_TRIP_TIMES;
use crate::tunnel::Peer;
use crate::tunnel::close_handshake::{Close, CloseReason};
use crate::tunnel::rules::Rulebook;
use crate::websocket::frame::{ControlFrame, Masking};
use crate::websocket::keepalive::{Keepalive, Secret};
use crate::websocket::scanner::{MAX_KEPT, Scan, Tally, Then, Until};

/// What a flow has to know of its tunnel, and of the moment.
pub(crate) struct Context<'c> {
    pub(crate) rules: &'c Rulebook,
    pub(crate) now: Now,
    pub(crate) secret: Secret,
    /// Where the flow comes from.
    pub(crate) source: Peer,
    /// What is known of the source's being there, where it is pinged.
    pub(crate) source_alive: Option<&'c mut Keepalive>,
    /// The same of the sink.
    pub(crate) sink_alive: Option<&'c mut Keepalive>,
    /// The first Close of the tunnel.
    pub(crate) close: &'c mut Option<Close>,
    /// What a Close to the client says, where it was ordered.
    pub(crate) close_reason: &'c mut Option<Box<CloseReason>>,
    /// Something happened that other times depend on.
    pub(crate) rearm: &'c mut bool,
    /// The way for much payload, where there is one.
    pub(crate) bulk: Option<&'c mut dyn Bulk>,
}

/// Follows the frames of what was read before the tunnel opened. It waits again, as far as it passes.
pub(crate) fn scan_early(flow: &mut Flow, context: &mut Context<'_>) -> Result<(), Stop> {
    if !std::mem::replace(&mut flow.is_unscanned, false) || !flow.scanner.is_on() {
        return Ok(());
    }
    let early = std::mem::take(&mut flow.waiting);
    follow(flow, &early, context, |flow, piece| {
        flow.waiting.push(piece);
        Ok(())
    })
    .map(drop)
}

/// Asks for something of ours to go out: at once, if it may stand there, else as soon as it may. It
/// waits behind what waits already.
pub(crate) fn put_in(flow: &mut Flow, frame: OwnFrame, context: &mut Context<'_>) {
    if flow.sink != Sink::Open || flow.passage != Passage::Open {
        return;
    }
    // A Close is not put off by a Ping.
    if !(frame == OwnFrame::Ping && matches!(flow.own_frame, OwnFrame::Close { .. })) {
        flow.own_frame = frame;
    }
    put_own_frame(flow, context);
}

/// Passes on what was read, as far as it may pass. Says how many frames were followed.
pub(super) fn pass_frames(
    flow: &mut Flow,
    sink: &mut impl Write,
    to: &mut Readiness,
    buffer: &mut [u8],
    length: usize,
    context: &mut Context<'_>,
) -> Result<u32, Stop> {
    let mut start = MAX_KEPT;
    if let Some(room) = buffer.first_chunk_mut() {
        start -= flow.scanner.give_back(room);
    }
    let bytes = buffer.get(start..MAX_KEPT + length).unwrap_or_default();
    follow(flow, bytes, context, |flow, piece| {
        if flow.awaits_close_only() {
            return Ok(());
        }
        if flow.waiting.is_empty() && to.writable {
            return write_or_wait(flow, sink, piece, to);
        }
        flow.waiting.push(piece);
        Ok(())
    })
}

/// Passes on by `put` what may pass of `bytes`, and puts in what is ours. Says how many frames were
/// followed.
fn follow(
    flow: &mut Flow,
    bytes: &[u8],
    context: &mut Context<'_>,
    put: impl FnMut(&mut Flow, &[u8]) -> Result<(), Stop>,
) -> Result<u32, Stop> {
    let mut tally = Tally::default();
    let followed = follow_all(flow, bytes, context, &mut tally, put);
    context.rules.counters.frame_faults.add_all(&tally.faults);
    context.rules.metrics.large_messages(context.source, &tally.large_messages);
    followed.map(|()| tally.frames)
}

fn follow_all(
    flow: &mut Flow,
    mut bytes: &[u8],
    context: &mut Context<'_>,
    tally: &mut Tally,
    mut put: impl FnMut(&mut Flow, &[u8]) -> Result<(), Stop>,
) -> Result<(), Stop> {
    loop {
        put_own_frame(flow, context);
        if flow.passage != Passage::Open {
            return Ok(());
        }
        let until = match flow.own_frame {
            OwnFrame::None if flow.ends_behind_close => Until::Close,
            OwnFrame::None => Until::End,
            OwnFrame::Close { after_message: true, .. } => Until::MessageEnd,
            OwnFrame::Ping | OwnFrame::Close { .. } => Until::Boundary,
        };
        let (stamp, secret) = (context.now.stamp, context.secret);
        let unanswered = context.source_alive.as_deref_mut().filter(|alive| alive.is_unanswered());
        let own_pong = unanswered.map(|alive| |nonce| alive.is_answered_by(nonce, stamp, secret));
        let passed = flow.scanner.passed_of_head();
        let Scan { pass, then } =
            flow.scanner.scan(bytes, &context.rules.frames, until, tally, own_pong);
        if let Some(piece @ [_, ..]) = bytes.get(passed..pass) {
            put(flow, piece)?;
        }
        bytes = bytes.get(pass..).unwrap_or_default();
        match then {
            Then::More => return Ok(()),
            Then::Reached => {}
            Then::Closed => {
                let code = flow.scanner.close_code().unwrap_or_default();
                context.close.get_or_insert(Close { by: context.source.into(), code });
                *context.rearm = true;
            }
            Then::OwnPong { length } => {
                let trips = context.source_alive.as_deref().and_then(Keepalive::round_trips);
                if let (Peer::Client, Some(trips)) = (context.source, trips) {
                    let times = &context.rules.metrics.ping_times;
                    times.observe_time(trips.last, &ROUND_TRIP_TIMES);
                }
                bytes = bytes.get(length.into()..).unwrap_or_default();
            }
            Then::OverLimit(_) => return Err(Stop::Refused(Reason::TooBig)),
            Then::Fault(fault) => {
                context.rules.counters.frame_faults.add(fault);
                return Err(Stop::Refused(Reason::Malformed));
            }
        }
        if flow.ends_behind_close && flow.scanner.is_behind_close() {
            flow.passage = Passage::Finish;
        }
    }
}

/// Puts in what is to be put in, if it may stand here.
pub(super) fn put_own_frame(flow: &mut Flow, context: &mut Context<'_>) {
    if flow.own_frame == OwnFrame::None || !flow.scanner.at_boundary() || flow.sink != Sink::Open {
        return;
    }
    let is_masked = flow.scanner.masking() == Masking::Required;
    let mask = is_masked.then(|| context.secret.mask(flow.own, context.now.stamp));
    let (with_reason, without);
    let frame = match flow.own_frame {
        OwnFrame::None => return,
        OwnFrame::Ping => {
            let Some(alive) = &mut context.sink_alive else {
                flow.own_frame = OwnFrame::None;
                return;
            };
            without = ControlFrame::ping(alive.ping(context.now, context.secret), mask);
            without.as_bytes()
        }
        OwnFrame::Close { after_message: true, .. } if flow.scanner.in_message() => return,
        OwnFrame::Close { code, then, .. } => {
            flow.passage = then;
            context.close.get_or_insert(Close { by: Side::Elbows, code });
            let is_to_client = context.source == Peer::Upstream;
            if let Some(reason) = context.close_reason.take_if(|_| is_to_client) {
                with_reason = ControlFrame::close_with_reason(code, reason.as_str(), mask);
                &with_reason
            } else {
                without = ControlFrame::close(code, mask);
                without.as_bytes()
            }
        }
    };
    flow.own_frame = OwnFrame::None;
    flow.waiting.push(frame);
    flow.own = flow.own.saturating_add(u32::try_from(frame.len()).unwrap_or(u32::MAX));
    *context.rearm = true;
}
