//! A tunnel's state as bytes, and back: so that another process can go on with it.
//!
//! How values become bytes is told in `src/encoding.rs`.

use std::time::Instant;

use super::close_handshake::{Close, CloseHandshake};
use super::flow::{Flow, OwnFrame, Passage};
use super::times::{Leave, Mark};
use super::{Pair, Protocol, Sink, Source, State};
use crate::clock::Now;
use crate::encoding::{Encode, Malformed, Reader, Writer, encode_fields, encode_words};
use crate::end::{End, Phase, Reason, Side};
use crate::websocket::keepalive::Keepalive;

impl State {
    /// The state as it is now, in bytes.
    #[must_use]
    pub fn to_bytes(&self, now: Now, instant: Instant) -> Vec<u8> {
        let mut to = Writer::new(now.tick, instant);
        self.write(&mut to);
        to.into_bytes()
    }

    /// The state that was written, to go on from now.
    ///
    /// # Errors
    /// The bytes are no state.
    pub fn from_bytes(bytes: &[u8], now: Now, instant: Instant) -> Result<Self, Malformed> {
        let mut from = Reader::new(bytes, now.tick, instant);
        let state = Self::read(&mut from)?;
        from.finish()?;
        Ok(state)
    }
}

encode_fields!(State {
    identity,
    flows,
    protocol,
    secret,
    client_alive,
    upstream_alive,
    close,
    close_handshake,
    ended_first,
    idle,
    stalled,
});

encode_fields!(Flow {
    waiting,
    passed,
    source,
    sink,
    is_unscanned,
    has_moved,
    has_come,
    ends_behind_close,
    is_bulk,
    scanner,
    passage,
    own_frame,
    own,
});

encode_fields!(Close { by, code });
encode_fields!(Mark { since: tick, seen });
encode_fields!(End { by, during, why });

encode_words!(Protocol { WebSocket = 0, Other = 1 });
encode_words!(Side { Client = 0, Upstream = 1, Elbows = 2 });
encode_words!(Sink { Open = 0, Ended = 1, Broken = 2 });
encode_words!(Passage { Open = 0, Discard = 1, Finish = 2 });
encode_words!(Leave { Aged = 0, Drain = 1 });

impl Encode for Phase {
    fn write(&self, to: &mut Writer) {
        to.place_of(self, &Self::ALL);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.one_of(&Self::ALL)
    }
}

impl Encode for Reason {
    fn write(&self, to: &mut Writer) {
        to.place_of(self, &Self::ALL);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.one_of(&Self::ALL)
    }
}

impl Encode for Source {
    fn write(&self, to: &mut Writer) {
        to.u8(match self {
            Self::Open => 0,
            Self::Broken { told: false } => 1,
            Self::Broken { told: true } => 2,
            Self::Ended => 3,
            Self::Reset => 4,
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match from.u8()? {
            0 => Self::Open,
            told @ 1..=2 => Self::Broken { told: told == 2 },
            3 => Self::Ended,
            4 => Self::Reset,
            _ => return Err(Malformed),
        })
    }
}

impl Encode for OwnFrame {
    fn write(&self, to: &mut Writer) {
        match self {
            Self::None => to.u8(0),
            Self::Ping => to.u8(1),
            Self::Close { code, after_message, then } => {
                to.u8(2);
                code.write(to);
                after_message.write(to);
                then.write(to);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match from.u8()? {
            0 => Self::None,
            1 => Self::Ping,
            2 => Self::Close {
                code: Encode::read(from)?,
                after_message: Encode::read(from)?,
                then: Encode::read(from)?,
            },
            _ => return Err(Malformed),
        })
    }
}

impl Encode for CloseHandshake {
    fn write(&self, to: &mut Writer) {
        match *self {
            Self::Open { due: None } => to.u8(0),
            Self::Open { due: Some((why, at)) } => {
                to.u8(1);
                why.write(to);
                to.tick(at);
            }
            Self::AwaitAnswer { end, until } => {
                to.u8(2);
                end.write(to);
                to.tick(until);
            }
            Self::Flush { end } => {
                to.u8(3);
                end.write(to);
            }
            Self::Linger { end, until, longest } => {
                to.u8(4);
                end.write(to);
                to.tick(until);
                to.tick(longest);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match from.u8()? {
            0 => Self::Open { due: None },
            1 => Self::Open { due: Some((Encode::read(from)?, from.tick()?)) },
            2 => Self::AwaitAnswer { end: Encode::read(from)?, until: from.tick()? },
            3 => Self::Flush { end: Encode::read(from)? },
            4 => Self::Linger {
                end: Encode::read(from)?,
                until: from.tick()?,
                longest: from.tick()?,
            },
            _ => return Err(Malformed),
        })
    }
}

impl Encode for Pair<Flow> {
    fn write(&self, to: &mut Writer) {
        let Self { client, upstream } = self;
        client.write(to);
        upstream.write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { client: Encode::read(from)?, upstream: Encode::read(from)? })
    }
}

/// Ticks.
impl Encode for Pair<u32> {
    fn write(&self, to: &mut Writer) {
        let Self { client, upstream } = *self;
        to.tick(client);
        to.tick(upstream);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { client: from.tick()?, upstream: from.tick()? })
    }
}

impl Encode for Box<Keepalive> {
    fn write(&self, to: &mut Writer) {
        (**self).write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Keepalive::read(from).map(Self::new)
    }
}

impl Encode for super::Waiting {
    fn write(&self, to: &mut Writer) {
        to.bytes(self);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(from.bytes()?.to_vec().into())
    }
}

#[cfg(test)]
mod tests;
