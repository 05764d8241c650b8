//! A tunnel's state as a record, and back: so that another process can go on with it.
//!
//! `src/encoding.rs` says what a record is. Here is which number each field has, for as long as there are tunnels:
//! `tests/records` keeps what earlier versions wrote.

use std::time::Duration;

use super::close_handshake::{Close, CloseHandshake};
use super::flow::{Flow, OwnFrame, Passage};
use super::times::{Leave, Mark};
use super::{Pair, Protocol, Sink, Source, State, Waiting};
use crate::clock::Now;
use crate::encoding::{Encode, Reader, RecordFault, Writer, encode_fields, encode_variants};
use crate::end::{End, Phase, Reason, Side};
use crate::websocket::keepalive::Keepalive;

/// The form of what [`State::to_bytes`] writes: this byte, the length of the record, the record. The record can
/// change without another form.
const FORM: u8 = 1;

impl State {
    /// The state as it is now, `elapsed` after the start of the count, in bytes.
    #[must_use]
    pub fn to_bytes(&self, now: Now, elapsed: Duration) -> Vec<u8> {
        self.write_form(Writer::new().at(now.tick, elapsed))
    }

    fn write_form(&self, mut to: Writer) -> Vec<u8> {
        to.bytes(&[FORM]);
        to.with_length(|to| self.write(to));
        to.into_bytes()
    }

    /// The state that was written, to go on from now, `elapsed` after the start of the count.
    ///
    /// # Errors
    /// The bytes are no state, or one of a version that this one does not understand: the tunnel is to stay with
    /// whoever has it.
    pub fn from_bytes(bytes: &[u8], now: Now, elapsed: Duration) -> Result<Self, RecordFault> {
        let mut from = Reader::new(bytes).at(now.tick, elapsed);
        match from.array()? {
            [FORM] => {}
            [other] => return Err(RecordFault::UnknownForm(other)),
        }
        let record = from.with_length()?.ok_or(RecordFault::Malformed)?;
        if !from.rest().is_empty() {
            return Err(RecordFault::Malformed);
        }
        record.whole()
    }
}

encode_fields!(State {
    1 identity,
    critical 2 flows,
    critical 3 protocol,
    critical 4 secret = None,
    critical 5 client_alive,
    critical 6 upstream_alive = None,
    critical 7 close = None,
    critical 8 close_handshake = CloseHandshake::Open { due: None },
    9 ended_first = None,
    10 idle,
    11 stalled,
    12 handoffs = 0,
    13 close_reason = None,
});

encode_fields!(Pair<Flow> { critical 1 client, critical 2 upstream });

encode_fields!(Flow {
    critical 1 waiting,
    2 passed = 0,
    critical 3 source = Source::Open,
    critical 4 sink = Sink::Open,
    critical 5 is_unscanned = false,
    6 has_moved = false,
    7 has_come = false,
    critical 8 ends_behind_close = false,
    9 is_bulk = false,
    critical 10 scanner,
    critical 11 passage = Passage::Open,
    critical 12 own_frame = OwnFrame::None,
    13 own = 0,
});

encode_fields!(Close { 1 by, 2 code });
encode_fields!(Mark { 1 since: tick = 0, 2 seen = 0 });
encode_fields!(Pair<u32> { 1 client: tick = 0, 2 upstream: tick = 0 });
encode_fields!(End { 1 by, 2 during, 3 why });

encode_variants!(Protocol { 0 WebSocket, 1 Other });
encode_variants!(Side { 0 Client, 1 Upstream, 2 Elbows });
encode_variants!(Sink { 0 Open, 1 Ended, 2 Broken });
encode_variants!(Source { 0 Open, 1 Broken { critical 1 told = false }, 2 Ended, 3 Reset });
encode_variants!(Passage { 0 Open, 1 Discard, 2 Finish });
encode_variants!(Leave { 0 Aged, 1 Drain });

encode_variants!(OwnFrame {
    0 None,
    1 Ping,
    2 Close { critical 1 code, critical 2 after_message = false, critical 3 then },
});

encode_variants!(CloseHandshake {
    0 Open { 1 due = None },
    1 AwaitAnswer { 1 end, 2 until: tick = 0 },
    2 Flush { 1 end },
    3 Linger { 1 end, 2 until: tick = 0, 3 longest: tick = 0 },
});

encode_variants!(Phase {
    0 ProxyHeader,
    1 Request,
    2 Response,
    3 Handshake,
    4 Relay,
    5 Drain,
});

encode_variants!(Reason {
    0 Complete,
    1 Closed,
    2 Reset,
    3 Malformed,
    4 NoProxyHeader,
    5 Refused,
    6 OverLimit,
    7 Unresolved,
    8 Unreachable,
    9 Timeout,
    10 NoRoom,
    11 TooBig,
    12 Drained,
    13 Idle,
    14 Lifetime,
    15 Stalled,
    16 PeriodOver,
    17 Mistake,
    18 Ordered,
    19 Rebalanced,
    20 EndpointGone,
});

/// The tick, then why.
impl Encode for (Leave, u32) {
    fn write(&self, to: &mut Writer) {
        let (why, at) = *self;
        to.distance(at).write(to);
        why.write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        let distance = u32::read(from)?;
        Ok((Leave::read(from)?, from.tick(distance)))
    }
}

impl Encode for Box<Keepalive> {
    fn write(&self, to: &mut Writer) {
        (**self).write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        Keepalive::read(from).map(Self::new)
    }
}

impl Encode for Waiting {
    fn write(&self, to: &mut Writer) {
        to.bytes(self);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        Ok(from.rest().to_vec().into())
    }
}

#[cfg(test)]
mod tests;
