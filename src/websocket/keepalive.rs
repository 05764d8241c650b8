//! Keepalive of one side: when it is to be pinged, when it is gone, and which pongs are ours.
//!
//! Pure: ticks and stamps in, decisions out. Any byte from the side is a sign of life; the pong only
//! makes sure that there is one. A Ping's payload is the time it was sent and a tag over it with a
//! secret of its tunnel. So a pong can be known as ours, and its round trip told, without a list of
//! what was sent: a side may answer only the latest of several pings (RFC 6455, section 5.5.3), or
//! all of them late. Nobody else's pong is taken for ours but by one chance in 2^32.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU64;
use std::time::Duration;

use crate::clock::{Now, Stamp, is_reached, ticks};
use crate::encoding::{Encode, Reader, RecordFault, Writer, encode_fields};

/// The two settings, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    interval: u32,
    timeout: u32,
}

/// What is known of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keepalive {
    /// The tick in which the last byte came.
    heard: u32,
    /// The tick in which the last Ping was sent, or in which what stands before it moved.
    pinged: u32,
    /// Nothing was heard since.
    is_silent: bool,
    /// There are pings without a pong, sent from `oldest` to `newest`.
    is_unanswered: bool,
    oldest: Stamp,
    newest: Stamp,
    /// Microseconds; `u32::MAX` before the first.
    last: u32,
    worst: u32,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing before this tick.
    At(u32),
    /// A Ping, as soon as the stream towards the side is at a boundary and takes one.
    Ping,
    /// The end: the Ping had no effect in time.
    End,
}

/// Round trips of our pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoundTrips {
    /// Of the latest ping that was answered.
    pub(crate) last: Duration,
    /// The longest.
    pub(crate) worst: Duration,
}

/// What nobody else knows of a tunnel: it makes the payloads of our Pings, and the keys of frames of ours.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Secret(NonZeroU64);

impl Times {
    /// A Ping after `interval` without a byte, the end `timeout` after that.
    pub(crate) fn new(interval: Duration, timeout: Duration) -> Self {
        Self { interval: ticks(interval), timeout: ticks(timeout) }
    }

    /// The tick at which to look again, at tick `now`, where a Ping is on its way until `due`: an
    /// answer is not told, and the next silence counts from there.
    pub(crate) const fn next_look(self, due: u32, now: u32) -> u32 {
        let interval_over = now.wrapping_add(self.interval);
        if is_reached(interval_over, due) { interval_over } else { due }
    }

    /// Ticks between two looks at a side that is silent while bytes wait for it.
    pub(crate) const fn between_looks(self) -> u32 {
        let ticks = self.timeout / 8;
        if ticks == 0 { 1 } else { ticks }
    }
}

/// For a side that is to be heard first.
impl Default for Keepalive {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Keepalive {
    /// For a side that is there since tick `now`.
    pub(crate) const fn new(now: u32) -> Self {
        Self {
            heard: now,
            pinged: now,
            is_silent: false,
            is_unanswered: false,
            oldest: Stamp(0),
            newest: Stamp(0),
            last: u32::MAX,
            worst: 0,
        }
    }

    /// Bytes came from the side.
    pub(crate) const fn heard(&mut self, now: u32) {
        self.heard = now;
        self.is_silent = false;
    }

    /// Nothing was heard since its last Ping.
    pub(crate) const fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// A Ping to it has no Pong yet.
    pub(crate) const fn is_unanswered(&self) -> bool {
        self.is_unanswered
    }

    /// The side took bytes that had waited for it: the time that it has for an answer begins again.
    pub(crate) const fn put_off(&mut self, now: u32) {
        self.pinged = now;
    }

    /// What is to be done at tick `now`.
    pub(crate) const fn due(&self, now: u32, times: Times) -> Due {
        let (at, then) = if self.is_silent {
            (self.pinged.wrapping_add(times.timeout), Due::End)
        } else {
            (self.heard.wrapping_add(times.interval), Due::Ping)
        };
        if is_reached(at, now) { then } else { Due::At(at) }
    }

    /// Gives the payload of a Ping that goes out now.
    pub(crate) fn ping(&mut self, now: Now, secret: Secret) -> [u8; 8] {
        let sent = now.stamp;
        self.pinged = now.tick;
        self.is_silent = true;
        self.newest = sent;
        // One that is older than half of the count could soon not be told from one to come.
        let is_too_old = sent.since(self.oldest) > u32::MAX / 2;
        if !self.is_unanswered || is_too_old {
            self.is_unanswered = true;
            self.oldest = sent;
        }
        secret.payload(sent)
    }

    /// Whether a Pong with this payload answers a Ping of ours that had no answer. It is answered
    /// then, with all that were sent before it, and the round trip is noted.
    pub(crate) fn is_answered_by(&mut self, payload: [u8; 8], now: Stamp, secret: Secret) -> bool {
        #[allow(clippy::cast_possible_truncation)] // Its upper half fits.
        let sent = Stamp((u64::from_be_bytes(payload) >> 32) as u32);
        let is_open =
            self.is_unanswered && sent.since(self.oldest) <= self.newest.since(self.oldest);
        if !is_open || payload != secret.payload(sent) {
            return false;
        }
        self.is_unanswered = sent != self.newest;
        self.oldest = sent.later_by(1);
        self.last = now.since(sent);
        self.worst = self.worst.max(self.last);
        true
    }

    /// Round trips, once there was one.
    pub(crate) fn round_trips(&self) -> Option<RoundTrips> {
        let micros = |micros: u32| Duration::from_micros(micros.into());
        (self.last != u32::MAX)
            .then(|| RoundTrips { last: micros(self.last), worst: micros(self.worst) })
    }
}

impl Secret {
    /// `random` is to be a number that nobody can foresee.
    pub(crate) const fn new(random: u64) -> Self {
        Self(match NonZeroU64::new(random) {
            Some(random) => random,
            None => NonZeroU64::MIN,
        })
    }

    /// The number that it was made of.
    pub(crate) const fn get(self) -> u64 {
        self.0.get()
    }

    /// The masking key of a frame of ours (RFC 6455, section 5.3), which begins behind `own` bytes of ours.
    pub(crate) fn mask(self, own: u32, now: Stamp) -> [u8; 4] {
        self.hash(("mask", own, now.0)).to_be_bytes()
    }

    /// A number of this tunnel alone, for what is to differ from tunnel to tunnel.
    pub(crate) fn share(self) -> u32 {
        self.hash("share")
    }

    /// What names this tunnel, and tells nothing of the number itself.
    pub(crate) fn name(self) -> u64 {
        u64::from(self.hash("name")) << 32 | u64::from(self.hash("name, second half"))
    }

    fn payload(self, sent: Stamp) -> [u8; 8] {
        let tag = self.hash(("ping", sent.0));
        (u64::from(sent.0) << 32 | u64::from(tag)).to_be_bytes()
    }

    /// `SipHash` of a secret and what it is for: who sees the half that goes out learns nothing of others.
    #[allow(clippy::cast_possible_truncation)] // Half of it is enough.
    fn hash(self, purpose: impl Hash) -> u32 {
        let mut hasher = DefaultHasher::new();
        (self.0, purpose).hash(&mut hasher);
        hasher.finish() as u32
    }
}

/// For a tunnel that no worker has taken in yet: it makes no frames.
impl Default for Secret {
    fn default() -> Self {
        Self(NonZeroU64::MIN)
    }
}

/// It is not for logs.
impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret")
    }
}

encode_fields!(Keepalive {
    1 heard: tick = 0,
    2 pinged: tick = 0,
    3 is_silent = false,
    critical 4 is_unanswered = false,
    critical 5 oldest = Stamp(0),
    critical 6 newest = Stamp(0),
    7 last = u32::MAX,
    8 worst = 0,
});

impl Encode for Secret {
    fn write(&self, to: &mut Writer) {
        self.get().write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        Encode::read(from).map(Self::new)
    }
}

#[cfg(test)]
mod tests;
