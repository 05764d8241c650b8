//! Every field of a state survives the way to bytes and back, in another process too.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::clock::{Stamp, TICK};
use crate::end::{End, Phase, Reason, Side};
use crate::peer::Peer;
use crate::tunnel::Identity;
use crate::websocket::keepalive::Secret;
use crate::websocket::scanner::{Rules, Scanner, Tally, Until};

fn now(tick: u32) -> Now {
    Now { tick, stamp: Stamp::at(TICK * tick) }
}

fn end() -> impl Strategy<Value = End> {
    (select(&Side::ALL), select(&Phase::ALL), select(&Reason::ALL))
        .prop_map(|(by, during, why)| End { by, during, why })
}

fn close_handshake() -> impl Strategy<Value = CloseHandshake> {
    let leave = prop_oneof![Just(Leave::Aged), Just(Leave::Drain)];
    prop_oneof![
        prop::option::of((leave, any::<u32>())).prop_map(|due| CloseHandshake::Open { due }),
        (end(), any::<u32>()).prop_map(|(end, until)| CloseHandshake::AwaitAnswer { end, until }),
        end().prop_map(|end| CloseHandshake::Flush { end }),
        (end(), any::<u32>(), any::<u32>())
            .prop_map(|(end, until, longest)| CloseHandshake::Linger { end, until, longest }),
    ]
}

fn own_frame() -> impl Strategy<Value = OwnFrame> {
    let passage = prop_oneof![Just(Passage::Open), Just(Passage::Discard), Just(Passage::Finish)];
    prop_oneof![
        Just(OwnFrame::None),
        Just(OwnFrame::Ping),
        (any::<u16>(), any::<bool>(), passage).prop_map(|(code, after_message, then)| {
            OwnFrame::Close { code, after_message, then }
        }),
    ]
}

/// A scanner that has followed some bytes.
fn scanner() -> impl Strategy<Value = Scanner> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        // Heads, whole and not.
        (prop::collection::vec(select(&[0x01, 0x82, 0x89, 0x8a, 0x88, 0x7e, 0x03][..]), 0..9)),
    ];
    (any::<bool>(), any::<bool>(), bytes).prop_map(|(is_client, is_strict, bytes)| {
        let mut scanner = Scanner::new(if is_client { Peer::Client } else { Peer::Upstream });
        let rules = Rules::new(None, None, is_strict);
        let none = None::<fn([u8; 8]) -> bool>;
        let _ = scanner.scan(&bytes, &rules, Until::End, &mut Tally::default(), none);
        scanner
    })
}

fn flow() -> impl Strategy<Value = Flow> {
    let source = prop_oneof![
        Just(Source::Open),
        any::<bool>().prop_map(|told| Source::Broken { told }),
        Just(Source::Ended),
        Just(Source::Reset),
    ];
    let sink = prop_oneof![Just(Sink::Open), Just(Sink::Ended), Just(Sink::Broken)];
    let passage = prop_oneof![Just(Passage::Open), Just(Passage::Discard), Just(Passage::Finish)];
    let waiting = prop::collection::vec(any::<u8>(), 0..20);
    let ends = (waiting, any::<u64>(), source, sink, any::<[bool; 5]>());
    let frames = (scanner(), passage, own_frame(), any::<u32>());
    (ends, frames).prop_map(
        |((waiting, passed, source, sink, flags), (scanner, passage, own_frame, own))| {
            let [is_unscanned, has_moved, has_come, ends_behind_close, is_bulk] = flags;
            Flow {
                waiting: waiting.into(),
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
            }
        },
    )
}

/// What is known of a side after some pings and pongs.
fn keepalive() -> impl Strategy<Value = Keepalive> {
    (any::<u32>(), prop::collection::vec((any::<u32>(), 0..3_u8), 0..4)).prop_map(
        |(start, events)| {
            let secret = Secret::new(3);
            let mut alive = Keepalive::new(start);
            for (tick, event) in events {
                match event {
                    0 => alive.heard(tick),
                    1 => drop(alive.ping(now(tick), secret)),
                    _ => {
                        let ping = alive.ping(now(tick), secret);
                        let answered = now(tick.wrapping_add(1)).stamp;
                        assert!(alive.is_answered_by(ping, answered, secret));
                    }
                }
            }
            alive
        },
    )
}

fn identity(instant: Instant) -> impl Strategy<Value = Identity> {
    let address = prop_oneof![
        (any::<Ipv4Addr>(), any::<u16>()).prop_map(SocketAddr::from),
        (any::<Ipv6Addr>(), any::<u16>()).prop_map(SocketAddr::from),
    ];
    let text = "[a-zé/ ]{0,150}";
    (prop::array::uniform3(address), text, text, any::<u16>()).prop_map(
        move |([client, balancer, upstream], line, id, age)| {
            let started = instant.checked_sub(Duration::from_millis(age.into())).unwrap();
            Identity::new(client, balancer, upstream, &line, &id, started)
        },
    )
}

fn state(instant: Instant) -> impl Strategy<Value = State> {
    let peer = prop::option::of(prop_oneof![Just(Peer::Client), Just(Peer::Upstream)]);
    let close = prop::option::of((select(&Side::ALL), any::<u16>()));
    let what = (identity(instant), flow(), flow(), any::<bool>(), any::<Option<u64>>());
    let alive = (keepalive(), prop::option::of(keepalive()));
    let times = (any::<[u32; 4]>(), close_handshake(), peer, close);
    (what, alive, times).prop_map(
        |(
            (identity, client, upstream, is_websocket, secret),
            (client_alive, upstream_alive),
            ([since, seen, client_stall, upstream_stall], close_handshake, ended_first, close),
        )| State {
            identity,
            flows: Pair { client, upstream },
            protocol: if is_websocket { Protocol::WebSocket } else { Protocol::Other },
            secret: secret.map(Secret::new),
            client_alive,
            upstream_alive: upstream_alive.map(Box::new),
            close: close.map(|(by, code)| Close { by, code }),
            close_handshake,
            ended_first,
            idle: Mark { since, seen },
            stalled: Pair { client: client_stall, upstream: upstream_stall },
        },
    )
}

/// Some states, and the instant of now.
fn states() -> impl Strategy<Value = (State, Instant)> {
    let instant = Instant::now() + Duration::from_secs(1000);
    state(instant).prop_map(move |state| (state, instant))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn each_field_comes_back_as_it_was((state, instant) in states(), tick: u32) {
        let bytes = state.to_bytes(now(tick), instant);
        let back = State::from_bytes(&bytes, now(tick), instant).unwrap();
        prop_assert_eq!(back, state);
    }

    /// A process that counts other ticks has the same times to go, and gives the same bytes.
    #[test]
    fn another_process_goes_on_with_the_same_times(
        (state, instant) in states(),
        tick: u32,
        other: u32,
        later in 0..1000_u64,
    ) {
        let bytes = state.to_bytes(now(tick), instant);
        let there = instant + Duration::from_secs(later);
        let back = State::from_bytes(&bytes, now(other), there).unwrap();
        prop_assert_eq!(back.to_bytes(now(other), there), bytes);
        let age = |at: u32, now: u32| now.wrapping_sub(at);
        prop_assert_eq!(age(back.idle.since, other), age(state.idle.since, tick));
        prop_assert_eq!(age(back.stalled.client, other), age(state.stalled.client, tick));
        prop_assert_eq!(
            there - back.identity.started(),
            instant - state.identity.started()
        );
    }

    /// What is cut short, or longer, is no state; and nothing that is read panics.
    #[test]
    fn other_bytes_are_refused(
        (state, instant) in states(),
        cut: prop::sample::Index,
        change: (prop::sample::Index, u8),
    ) {
        let mut bytes = state.to_bytes(now(5), instant);
        let cut = cut.index(bytes.len());
        let read = |bytes: &[u8]| State::from_bytes(bytes, now(5), instant);
        prop_assert_eq!(read(&bytes[..cut]).unwrap_err(), Malformed);
        let longer = [&bytes[..], b"!"].concat();
        prop_assert_eq!(read(&longer).unwrap_err(), Malformed);
        let place = change.0.index(bytes.len());
        bytes[place] = change.1;
        drop(read(&bytes));
    }
}
