//! Silence is measured in full, and pongs to our pings are known as ours, once.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::clock::{TICK, tick};

const MINE: Secret = Secret(NonZeroU64::new(12).unwrap());

fn stamp(micros: u64) -> Stamp {
    Stamp::at(Duration::from_micros(micros))
}

fn moment(micros: u64) -> Now {
    Now { tick: 0, stamp: stamp(micros) }
}

impl Keepalive {
    /// One with any value in each field.
    pub(crate) fn any() -> impl Strategy<Value = Self> {
        let moments = (any::<u32>(), any::<u32>(), any::<bool>());
        let pings = (any::<bool>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
        (moments, pings).prop_map(
            |((heard, pinged, is_silent), (is_unanswered, oldest, newest, last, worst))| Self {
                heard,
                pinged,
                is_silent,
                is_unanswered,
                oldest: Stamp(oldest),
                newest: Stamp(newest),
                last,
                worst,
            },
        )
    }
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
                    side.ping(Now { tick: number, stamp: Stamp::at(now) }, MINE);
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
        let mut side = Keepalive::new(0);
        let now = stamp(sent.into());
        prop_assert!(!side.is_answered_by(payload, now, MINE));
        let ours = side.ping(Now { tick: 0, stamp: now }, MINE);
        let mut near = ours;
        near[4..].copy_from_slice(&payload[4..]);
        // Both could be ours by one chance in 2^32.
        prop_assert!(!side.is_answered_by(payload, now, MINE));
        prop_assert!(!side.is_answered_by(near, now, MINE));
        prop_assert_eq!(side.round_trips(), None);
        prop_assert!(side.is_answered_by(ours, now, MINE));
    }
}

#[test]
fn a_pong_is_ours_once() {
    let mut side = Keepalive::new(0);
    let payload = side.ping(moment(5), MINE);
    assert!(side.is_answered_by(payload, stamp(6), MINE));
    assert!(!side.is_answered_by(payload, stamp(7), MINE));
}

#[test]
fn late_pongs_and_left_out_ones_are_ours() {
    let mut side = Keepalive::new(0);
    // The stamps wrap around on the way.
    let sent = [u64::from(u32::MAX) - 10, u64::from(u32::MAX), (1 << 32) + 100, (1 << 32) + 200];
    let pings = sent.map(|sent| side.ping(moment(sent), MINE));
    assert!(side.is_answered_by(pings[0], stamp((1 << 32) + 300), MINE));
    assert_eq!(side.round_trips().unwrap().last, Duration::from_micros(311));
    assert!(side.is_answered_by(pings[2], stamp((1 << 32) + 310), MINE));
    assert!(!side.is_answered_by(pings[1], stamp((1 << 32) + 311), MINE), "passed over");
    assert!(side.is_answered_by(pings[3], stamp((1 << 32) + 320), MINE));
    let RoundTrips { last, worst } = side.round_trips().unwrap();
    assert_eq!((last.as_micros(), worst.as_micros()), (120, 311));
    assert!(!side.is_answered_by(pings[3], stamp((1 << 32) + 330), MINE));

    // A next one starts anew.
    let next = side.ping(moment(3 << 31), MINE);
    assert!(!side.is_answered_by(pings[3], stamp(3 << 31), MINE));
    assert!(side.is_answered_by(next, stamp(3 << 31), MINE));
}

/// Elbows behind elbows, in one process or in two: each leaves the other's alone.
#[test]
fn another_tunnel_has_other_pings() {
    let mut side = Keepalive::new(0);
    let ours = side.ping(moment(5), MINE);
    for other in [Secret::new(13), Secret::new(0)] {
        let theirs = Keepalive::new(0).ping(moment(5), other);
        assert!(!side.is_answered_by(theirs, stamp(6), MINE));
    }
    assert!(side.is_answered_by(ours, stamp(6), MINE));
}

#[test]
fn each_frame_of_ours_has_a_mask_of_its_own() {
    let ping = Keepalive::new(0).ping(moment(5), MINE);
    let mask = MINE.mask(0, stamp(5));
    assert_ne!(mask, ping[4..]);
    assert_ne!(mask, MINE.mask(0, stamp(6)));
    assert_ne!(mask, MINE.mask(14, stamp(5)), "two frames of one moment");
    assert_ne!(mask, Secret::new(13).mask(0, stamp(5)));
}

#[test]
fn a_side_costs_thirty_two_bytes() {
    assert!(size_of::<Keepalive>() <= 32, "{}", size_of::<Keepalive>());
}
