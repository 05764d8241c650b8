//! Keepalive of one side: when it is to be pinged, when it is gone, and which pongs are ours.
//!
//! Pure: ticks and stamps in, decisions out. Any byte from the side is a sign of life; the pong only
//! makes sure that there is one. A Ping's payload is the time it was sent and a tag over it with a
//! key of this process. So a pong can be known as ours, and its round trip told, without a list of
//! what was sent: a side may answer only the latest of several pings (RFC 6455, section 5.5.3), or
//! all of them late. Nobody else's pong is taken for ours but by one chance in 2^32.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::wheel::{is_reached, ticks};

/// The time in microseconds since a start of its own, as pings carry it. Wraps around after 71
/// minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(u32);

/// The two settings, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    interval: u32,
    timeout: u32,
}

/// What is known of one side.
#[derive(Clone, Copy, Debug)]
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

/// Makes and knows the payloads of our pings. One for all threads: a clone has the same key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nonces {
    key: RandomState,
}

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

    /// Gives the payload of a Ping that goes out at tick `now`.
    ///
    /// `stream` is a number that no other stream of frames in this process has at the same time.
    pub(crate) fn ping(&mut self, now: u32, sent: Stamp, stream: u64, nonces: &Nonces) -> [u8; 8] {
        self.pinged = now;
        self.is_silent = true;
        self.newest = sent;
        // One that is older than half of the count could soon not be told from one to come.
        let is_too_old = sent.since(self.oldest) > u32::MAX / 2;
        if !self.is_unanswered || is_too_old {
            self.is_unanswered = true;
            self.oldest = sent;
        }
        nonces.payload(stream, sent)
    }

    /// Whether a Pong with this payload answers a Ping of ours that had no answer. It is answered
    /// then, with all that were sent before it, and the round trip is noted.
    pub(crate) fn is_answered_by(
        &mut self,
        payload: [u8; 8],
        now: Stamp,
        stream: u64,
        nonces: &Nonces,
    ) -> bool {
        #[allow(clippy::cast_possible_truncation)] // Its upper half fits.
        let sent = Stamp((u64::from_be_bytes(payload) >> 32) as u32);
        let is_open =
            self.is_unanswered && sent.since(self.oldest) <= self.newest.since(self.oldest);
        if !is_open || payload != nonces.payload(stream, sent) {
            return false;
        }
        self.is_unanswered = sent != self.newest;
        self.oldest = Stamp(sent.0.wrapping_add(1));
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

impl Stamp {
    /// The stamp `elapsed` after the start.
    #[allow(clippy::cast_possible_truncation)] // Wraps around.
    pub(crate) const fn at(elapsed: Duration) -> Self {
        Self(elapsed.as_micros() as u32)
    }

    const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

impl Nonces {
    /// A masking key for a frame of ours (RFC 6455, section 5.3), for one stream and stamp.
    pub(crate) fn mask(&self, stream: u64, now: Stamp) -> [u8; 4] {
        self.hash("mask", stream, now).to_be_bytes()
    }

    fn payload(&self, stream: u64, sent: Stamp) -> [u8; 8] {
        let tag = self.hash("ping", stream, sent);
        (u64::from(sent.0) << 32 | u64::from(tag)).to_be_bytes()
    }

    #[allow(clippy::cast_possible_truncation)] // Half of it is enough.
    fn hash(&self, purpose: &str, stream: u64, stamp: Stamp) -> u32 {
        self.key.hash_one((purpose, stream, stamp.0)) as u32
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

    use proptest::prelude::*;

    use super::super::wheel::{TICK, tick};
    use super::*;

    const ME: u64 = 12;

    fn stamp(micros: u64) -> Stamp {
        Stamp::at(Duration::from_micros(micros))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// The side speaks at some moments; whoever looks at each tick pings and ends it as set.
        #[test]
        fn silence_is_measured_in_full(
            pauses in prop::collection::vec(1..400_u64, 1..20),
            interval in 100..300_u64,
            timeout in 20..200_u64,
        ) {
            let [interval, timeout] = [interval, timeout].map(Duration::from_millis);
            let times = Times::new(interval, timeout);
            let nonces = Nonces::default();
            let mut spoken: Vec<_> = pauses
                .iter()
                .scan(0, |time, pause| { *time += pause; Some(Duration::from_millis(*time)) })
                .collect();
            spoken.reverse();
            let mut side = Keepalive::new(0);
            let (mut heard, mut pinged) = (Duration::ZERO, None);
            for number in 0.. {
                let now = TICK * number;
                while let Some(moment) = spoken.pop_if(|moment| *moment <= now) {
                    side.heard(tick(moment));
                    (heard, pinged) = (moment, None);
                }
                match side.due(number, times) {
                    Due::At(later) => {
                        prop_assert!(later > number);
                        let limit = pinged.map_or(heard + interval, |at| at + timeout);
                        prop_assert!(now < limit + 2 * TICK, "late");
                    }
                    Due::Ping => {
                        prop_assert_eq!(pinged, None);
                        prop_assert!(now >= heard + interval, "pinged too early");
                        side.ping(number, Stamp::at(now), ME, &nonces);
                        pinged = Some(now);
                    }
                    Due::End => {
                        prop_assert!(now >= pinged.unwrap() + timeout, "ended too early");
                        return Ok(());
                    }
                }
            }
        }

        #[test]
        fn the_pongs_of_others_are_theirs(payload: [u8; 8], sent in any::<u32>()) {
            let nonces = Nonces::default();
            let mut side = Keepalive::new(0);
            let now = stamp(sent.into());
            prop_assert!(!side.is_answered_by(payload, now, ME, &nonces));
            let ours = side.ping(0, now, ME, &nonces);
            let mut near = ours;
            near[4..].copy_from_slice(&payload[4..]);
            // Both could be ours by one chance in 2^32.
            prop_assert!(!side.is_answered_by(payload, now, ME, &nonces));
            prop_assert!(!side.is_answered_by(near, now, ME, &nonces));
            prop_assert_eq!(side.round_trips(), None);
            prop_assert!(side.is_answered_by(ours, now, ME, &nonces));
        }
    }

    #[test]
    fn a_pong_is_ours_once() {
        let nonces = Nonces::default();
        let mut side = Keepalive::new(0);
        let payload = side.ping(0, stamp(5), ME, &nonces);
        assert!(side.is_answered_by(payload, stamp(6), ME, &nonces));
        assert!(!side.is_answered_by(payload, stamp(7), ME, &nonces));
    }

    #[test]
    fn late_pongs_and_left_out_ones_are_ours() {
        let nonces = Nonces::default();
        let mut side = Keepalive::new(0);
        // The stamps wrap around on the way.
        let sent =
            [u64::from(u32::MAX) - 10, u64::from(u32::MAX), (1 << 32) + 100, (1 << 32) + 200];
        let pings = sent.map(|sent| side.ping(0, stamp(sent), ME, &nonces));
        assert!(side.is_answered_by(pings[0], stamp((1 << 32) + 300), ME, &nonces));
        assert_eq!(side.round_trips().unwrap().last, Duration::from_micros(311));
        assert!(side.is_answered_by(pings[2], stamp((1 << 32) + 310), ME, &nonces));
        assert!(!side.is_answered_by(pings[1], stamp((1 << 32) + 311), ME, &nonces), "passed over");
        assert!(side.is_answered_by(pings[3], stamp((1 << 32) + 320), ME, &nonces));
        let RoundTrips { last, worst } = side.round_trips().unwrap();
        assert_eq!((last.as_micros(), worst.as_micros()), (120, 311));
        assert!(!side.is_answered_by(pings[3], stamp((1 << 32) + 330), ME, &nonces));

        // A next one starts anew.
        let next = side.ping(0, stamp(3 << 31), ME, &nonces);
        assert!(!side.is_answered_by(pings[3], stamp(3 << 31), ME, &nonces));
        assert!(side.is_answered_by(next, stamp(3 << 31), ME, &nonces));
    }

    /// Elbows behind elbows, in one process or in two: each leaves the other's alone.
    #[test]
    fn another_stream_and_another_process_have_other_pings() {
        let (nonces, others) = (Nonces::default(), Nonces::default());
        let mut side = Keepalive::new(0);
        let ours = side.ping(0, stamp(5), ME, &nonces);
        for (stream, maker) in [(ME + 1, &nonces), (ME, &others)] {
            let theirs = Keepalive::new(0).ping(0, stamp(5), stream, maker);
            assert!(!side.is_answered_by(theirs, stamp(6), ME, &nonces));
        }
        assert!(side.is_answered_by(ours, stamp(6), ME, &nonces.clone()), "a clone knows it");
    }

    #[test]
    fn masks_are_not_payloads() {
        let nonces = Nonces::default();
        let ping = Keepalive::new(0).ping(0, stamp(5), ME, &nonces);
        assert_ne!(nonces.mask(ME, stamp(5)), ping[4..]);
        assert_ne!(nonces.mask(ME, stamp(5)), nonces.mask(ME, stamp(6)));
    }

    #[test]
    fn a_side_costs_thirty_two_bytes() {
        assert!(size_of::<Keepalive>() <= 32, "{}", size_of::<Keepalive>());
    }
}
