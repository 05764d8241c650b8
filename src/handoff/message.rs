//! What the two processes of a handoff say to each other.
//!
//! A message is one byte that says its kind, and a record (`src/encoding.rs`), so that later versions can say more. What
//! is large travels beside a message, as a descriptor of memory: so that every message is small, and an ABORT always
//! finds room behind those that wait.

use std::net::SocketAddr;
use std::time::Duration;

use super::Why;
use crate::encoding::{Encode, Reader, RecordFault, Writer, encode_fields, encode_variants};
use crate::limits::Network;
use crate::words::words;

/// The version of the protocol that this build speaks.
pub(crate) const PROTOCOL: u16 = 1;

/// The most tunnels in one batch. Each has two descriptors, and one message has 253 at most (unix(7), `SCM_RIGHTS`).
pub(crate) const MOST_IN_BATCH: usize = 64;

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    /// The successor is there.
    Hello(Hello),
    /// The predecessor would hand over.
    Offer(Offer),
    /// The predecessor does not hand over now.
    Refuse(RefuseWhy),
    /// The successor could listen from now on.
    Prepared,
    /// Tunnels. Beside it: a descriptor of memory with their records, and the sockets of each, the client's first.
    Batch(Batch),
    /// The successor could go on with those of this batch, but for some.
    Taken(Taken),
    /// They are the successor's now, without those that it refused.
    Yours { number: u32 },
    /// Where to listen. Beside it: a descriptor for each, in this order.
    Listeners(Places),
    /// What was counted.
    Counters(Vec<Counted>),
    /// The limits of clients. Beside it: a descriptor of memory.
    Limits,
    /// The successor accepts connections.
    Listening,
    /// Nothing more comes; all is the other's.
    Bye,
    /// It is given up.
    Abort(Why),
}

/// Who the successor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The versions of the protocol that it speaks, from and to.
    pub(crate) oldest: u16,
    pub(crate) newest: u16,
    /// What it calls itself, for the log.
    pub(crate) build: String,
    /// Its release: major, minor, patch.
    pub(crate) release: Release,
    /// It may be an older release than the predecessor.
    pub(crate) downgrade: bool,
    /// How many descriptors it can open.
    pub(crate) free_descriptors: u64,
}

/// What the predecessor has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The version that both speak from now on.
    pub(crate) protocol: u16,
    pub(crate) build: String,
    pub(crate) tunnels: u64,
    /// When its ticks and stamps began to count, in nanoseconds of the machine's monotonic clock: the successor's count
    /// from the same moment, so that the round trip of a Ping under way is known.
    pub(crate) start: u64,
    /// Where it listens.
    pub(crate) places: Places,
    /// It drains: so many milliseconds are left until Close frames go out.
    pub(crate) drains_in: Option<u64>,
}

/// Where a process listens: each setting's name and the address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places(pub(crate) Vec<Place>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) setting: String,
    /// None for a socket at a path.
    pub(crate) address: Option<SocketAddr>,
    /// Of a socket at a path that is text; earlier releases do not tell it.
    pub(crate) path: Option<String>,
}

/// A release's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release {
    pub(crate) major: u16,
    pub(crate) minor: u16,
    pub(crate) patch: u16,
}

/// Tunnels that are on their way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) number: u32,
    /// When they were taken out of their workers, in nanoseconds of the machine's monotonic clock.
    pub(crate) frozen_at: u64,
    /// The kernel's identity of each socket (`SO_COOKIE`), the client's and the upstream's.
    pub(crate) cookies: Vec<Cookies>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cookies {
    pub(crate) client: u64,
    pub(crate) upstream: u64,
}

/// What came of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) number: u32,
    /// The places in the batch of those that cannot be gone on with.
    pub(crate) refused: Vec<u16>,
}

/// A counter and what it has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) name: String,
    pub(crate) number: u64,
}

/// How often clients have come: of each, how long it takes until its allowance is full again. It is in the memory beside
/// LIMITS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates(pub(crate) Vec<(Network, Duration)>);

impl Rates {
    /// The bytes of one.
    const LENGTH: usize = 17;

    /// As they are handed over: 9 bytes of the client's network, 8 of nanoseconds.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let Self(rates) = self;
        let mut bytes = Vec::with_capacity(rates.len() * Self::LENGTH);
        for (client, left) in rates {
            bytes.extend(client.to_bytes());
            bytes.extend(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX).to_be_bytes());
        }
        bytes
    }

    /// Those that can be read.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let one = |bytes: &[u8; Self::LENGTH]| {
            let (client, left) = bytes.split_first_chunk()?;
            let left = u64::from_be_bytes(*left.first_chunk()?);
            Some((Network::from_bytes(*client)?, Duration::from_nanos(left)))
        };
        let (rates, _) = bytes.as_chunks();
        Self(rates.iter().filter_map(one).collect())
    }
}

words! {
    /// Why a process does not hand over.
    pub(crate) enum RefuseWhy {
        /// Another successor is there already.
        Busy = "busy",
        /// They have no version of the protocol in common.
        Version = "version",
        /// The successor is an older release, and was not told that this is meant.
        Downgrade = "downgrade",
        /// The successor could not open as many descriptors as it would get.
        Descriptors = "descriptors",
        /// The drain has come to where connections are ended.
        Draining = "draining",
        /// HELLO did not come in time, or was none.
        NoHello = "no_hello",
        /// What a later version says.
        Other = "other",
    }
}

impl Message {
    /// The message as it is sent.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut to = Writer::new();
        self.write(&mut to);
        to.into_bytes()
    }

    /// The message that was sent.
    ///
    /// # Errors
    /// It is none, or one that this version does not know.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, RecordFault> {
        Reader::new(bytes).whole()
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 1,
            Self::Offer(_) => 2,
            Self::Refuse(_) => 3,
            Self::Prepared => 4,
            Self::Batch(_) => 5,
            Self::Taken(_) => 6,
            Self::Yours { .. } => 7,
            Self::Listeners(_) => 8,
            Self::Counters(_) => 9,
            Self::Limits => 10,
            Self::Listening => 11,
            Self::Bye => 12,
            Self::Abort(_) => 13,
        }
    }
}

impl Encode for Message {
    fn write(&self, to: &mut Writer) {
        self.kind().write(to);
        match self {
            Self::Hello(hello) => hello.write(to),
            Self::Offer(offer) => offer.write(to),
            Self::Refuse(why) => why.write(to),
            Self::Batch(batch) => batch.write(to),
            Self::Taken(taken) => taken.write(to),
            Self::Yours { number } => number.write(to),
            Self::Listeners(Places(places)) => places.write(to),
            Self::Counters(counters) => counters.write(to),
            Self::Abort(why) => why.write(to),
            Self::Prepared | Self::Limits | Self::Listening | Self::Bye => {}
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        Ok(match u8::read(from)? {
            1 => Self::Hello(Encode::read(from)?),
            2 => Self::Offer(Encode::read(from)?),
            3 => Self::Refuse(reason(from, RefuseWhy::Other)),
            4 => Self::Prepared,
            5 => Self::Batch(Encode::read(from)?),
            6 => Self::Taken(Encode::read(from)?),
            7 => Self::Yours { number: Encode::read(from)? },
            8 => Self::Listeners(Places(Encode::read(from)?)),
            9 => Self::Counters(Encode::read(from)?),
            10 => Self::Limits,
            11 => Self::Listening,
            12 => Self::Bye,
            13 => Self::Abort(reason(from, Why::Other)),
            kind => return Err(RecordFault::UnknownVariant("Message", kind)),
        })
    }
}

/// A reason that a later version has counts as one, too.
fn reason<T: Encode>(from: &mut Reader<'_>, other: T) -> T {
    T::read(from).unwrap_or_else(|_| {
        from.rest();
        other
    })
}

encode_fields!(Hello {
    1 oldest,
    2 newest,
    3 build,
    4 release,
    5 downgrade = false,
    6 free_descriptors,
});
encode_fields!(Offer {
    1 protocol,
    2 build,
    3 tunnels,
    4 start,
    5 places,
    6 drains_in = None,
});
encode_fields!(Place { 1 setting, 2 address = None, 3 path = None });
encode_fields!(Release { 1 major = 0, 2 minor = 0, 3 patch = 0 });
encode_fields!(Batch { 1 number, 2 frozen_at, 3 cookies });
encode_fields!(Cookies { 1 client, 2 upstream });
encode_fields!(Taken { 1 number, 2 refused });
encode_fields!(Counted { 1 name, 2 number });

impl Encode for Places {
    fn write(&self, to: &mut Writer) {
        let Self(places) = self;
        places.write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        Encode::read(from).map(Self)
    }
}

encode_variants!(RefuseWhy {
    0 Busy,
    1 Version,
    2 Downgrade,
    3 Descriptors,
    4 Draining,
    5 NoHello,
    6 Other,
});

encode_variants!(Why {
    0 Ended,
    1 Silence,
    2 Stopped,
    3 Malformed,
    4 CannotListen,
    5 NoRoom,
    6 Other,
});

#[cfg(test)]
mod tests;
