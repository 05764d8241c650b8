//! Every field of a state survives the way to bytes and back, in another process and another version too.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod golden;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::clock::{Since, Stamp, TICK};
use crate::encoding::CRITICAL;
use crate::encoding::change::Change;
use crate::end::{End, Phase, Reason, Side};
use crate::http::trace_context::TraceId;
use crate::peer::Peer;
use crate::tunnel::close_handshake::CloseReason;
use crate::tunnel::{Handshake, Identity};
use crate::websocket::keepalive::Secret;
use crate::websocket::scanner::Scanner;

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
    let frames = (Scanner::any(), passage, own_frame(), any::<u32>());
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

fn identity(elapsed: Duration) -> impl Strategy<Value = Identity> {
    let address = prop_oneof![
        (any::<Ipv4Addr>(), any::<u16>()).prop_map(SocketAddr::from),
        (any::<Ipv6Addr>(), any::<u16>()).prop_map(SocketAddr::from),
    ];
    let text = "[a-zé/ ]{0,150}";
    let id = prop_oneof!["[a-zé/ ]{0,150}", "[0-9a-f]{32}", "[0-9a-zA-F]{16}"];
    let trace_id = prop::option::of(1..u128::MAX);
    let addresses = prop::array::uniform3(address);
    let handshake = (prop::array::uniform3(text), trace_id);
    let route = "[a-z0-9.]{0,64}";
    (addresses, text, id, any::<u16>(), handshake, route).prop_map(
        move |(addresses, line, id, age, ([host, user_agent, subprotocol], trace_id), route)| {
            let started = Since::ago(Duration::from_millis(age.into()), elapsed);
            let nothing = Handshake::default();
            let request_id = (&*id).into();
            let identity = Identity::of(addresses, &line, &request_id, started, &nothing, &route);
            let trace_id = trace_id.map(|id| TraceId(id.to_be_bytes()));
            let (host, user_agent, subprotocol) = (&*host, &*user_agent, &*subprotocol);
            let handshake = Handshake { host, user_agent, subprotocol, trace_id };
            let identity = identity.with(&handshake);
            assert_eq!(identity.handshake(), handshake);
            assert_eq!(identity.route(), route);
            assert_eq!((identity.request_line(), &*identity.request_id()), (&*line, &*id));
            identity
        },
    )
}

fn state(elapsed: Duration) -> impl Strategy<Value = State> {
    let peer = prop::option::of(prop_oneof![Just(Peer::Client), Just(Peer::Upstream)]);
    let close = prop::option::of((select(&Side::ALL), any::<u16>()));
    let what = (identity(elapsed), flow(), flow(), any::<bool>(), any::<Option<u64>>());
    let what = (what, "[a-zé ]{0,60}");
    let alive = (Keepalive::any(), prop::option::of(Keepalive::any()));
    let times = (any::<[u32; 4]>(), close_handshake(), peer, close, any::<u16>());
    (what, alive, times).prop_map(
        |(
            ((identity, client, upstream, is_websocket, secret), reason),
            (client_alive, upstream_alive),
            (
                [since, seen, client_stall, upstream_stall],
                close_handshake,
                ended_first,
                close,
                handoffs,
            ),
        )| State {
            identity,
            flows: Pair { client, upstream },
            protocol: if is_websocket { Protocol::WebSocket } else { Protocol::Other },
            secret: secret.map(Secret::new),
            client_alive,
            upstream_alive: upstream_alive.map(Box::new),
            close: close.map(|(by, code)| Close { by, code }),
            close_handshake,
            close_reason: CloseReason::new(&reason),
            ended_first,
            idle: Mark { since, seen },
            stalled: Pair { client: client_stall, upstream: upstream_stall },
            handoffs,
        },
    )
}

/// It is so long after the start of the count.
fn elapsed() -> Duration {
    Duration::from_secs(1000)
}

/// Some states, and the time since the start.
fn states() -> impl Strategy<Value = (State, Duration)> {
    let elapsed = elapsed();
    state(elapsed).prop_map(move |state| (state, elapsed))
}

/// When its request came, as time since the start.
fn started(state: &State) -> Duration {
    elapsed().checked_sub(state.identity.age(elapsed())).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn each_field_comes_back_as_it_was((state, elapsed) in states(), tick: u32) {
        let bytes = state.to_bytes(now(tick), elapsed);
        let back = State::from_bytes(&bytes, now(tick), elapsed).unwrap();
        prop_assert_eq!(back, state);
    }

    /// A process that counts other ticks has the same times to go, and gives the same bytes.
    #[test]
    fn another_process_goes_on_with_the_same_times(
        (state, elapsed) in states(),
        tick: u32,
        other: u32,
        later in 0..1000_u64,
    ) {
        let bytes = state.to_bytes(now(tick), elapsed);
        let there = elapsed + Duration::from_secs(later);
        let back = State::from_bytes(&bytes, now(other), there).unwrap();
        prop_assert_eq!(back.to_bytes(now(other), there), bytes);
        let age = |at: u32, now: u32| now.wrapping_sub(at);
        prop_assert_eq!(age(back.idle.since, other), age(state.idle.since, tick));
        prop_assert_eq!(age(back.stalled.client, other), age(state.stalled.client, tick));
        prop_assert_eq!(
            back.identity.age(there),
            state.identity.age(elapsed)
        );
    }

    /// What is cut short, or longer, is no state; and nothing that is read panics.
    #[test]
    fn other_bytes_are_refused(
        (state, elapsed) in states(),
        cut: prop::sample::Index,
        change: (prop::sample::Index, u8),
    ) {
        let mut bytes = state.to_bytes(now(5), elapsed);
        let cut = cut.index(bytes.len());
        let read = |bytes: &[u8]| State::from_bytes(bytes, now(5), elapsed);
        prop_assert_eq!(read(&bytes[..cut]).unwrap_err(), RecordFault::Malformed);
        let longer = [&bytes[..], b"!"].concat();
        prop_assert_eq!(read(&longer).unwrap_err(), RecordFault::Malformed);
        let place = change.0.index(bytes.len());
        bytes[place] = change.1;
        drop(read(&bytes));
    }
}

/// What is written with the change, or nothing where there is no such place.
fn changed(state: &State, change: Change) -> Option<Vec<u8>> {
    let elapsed = started(state);
    let mut to = Writer::new().at(5, elapsed).changed(change);
    state.write(&mut to);
    let has_happened = to.change == Change::None;
    let record = to.into_bytes();
    let length = u32::try_from(record.len()).unwrap();
    has_happened.then(|| [&[FORM][..], &length.to_be_bytes(), &record].concat())
}

fn read(bytes: &[u8], state: &State) -> Result<State, RecordFault> {
    State::from_bytes(bytes, now(5), started(state))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A later version writes one field more in a record, whichever it is, at any depth.
    #[test]
    fn a_field_of_a_later_version_is_skipped_unless_it_is_critical(
        (state, _) in states(),
        number in 100..CRITICAL,
    ) {
        let mut places = 0;
        while let Some(bytes) = changed(&state, Change::Add { place: places, tag: number }) {
            let earlier = read(&bytes, &state).unwrap();
            prop_assert_eq!(&earlier, &state);
            let critical = Change::Add { place: places, tag: number | CRITICAL };
            let bytes = changed(&state, critical).unwrap();
            let fault = read(&bytes, &state).unwrap_err();
            let is_named =
                matches!(fault, RecordFault::UnknownField(_, unknown) if unknown == number);
            prop_assert!(is_named, "{}", fault);
            places += 1;
        }
        // The state, its identity, two flows, their scanners and positions, and more.
        prop_assert!(places >= 16, "{} records", places);
    }

    /// An earlier version did not write some field: it has its default, or it is named.
    #[test]
    fn a_field_that_is_missing_has_its_default_or_is_named((state, _) in states()) {
        let mut places = 0;
        let mut missed = Vec::new();
        while let Some(bytes) = changed(&state, Change::Omit(places)) {
            match read(&bytes, &state) {
                Ok(without) => {
                    let again = without.to_bytes(now(5), started(&state));
                    prop_assert!(again.len() <= bytes.len());
                    prop_assert_eq!(read(&again, &state), Ok(without));
                }
                Err(RecordFault::MissingField(record, number)) => missed.push((record, number)),
                Err(other) => panic!("{other}"),
            }
            places += 1;
        }
        for required in [("State", 1), ("State", 2), ("State", 3), ("Flow", 10)] {
            prop_assert!(missed.contains(&required), "{:?}", required);
        }
    }

    #[test]
    fn a_field_that_comes_twice_is_refused((state, _) in states()) {
        let mut places = 0;
        while let Some(bytes) = changed(&state, Change::Repeat(places)) {
            let fault = read(&bytes, &state).unwrap_err();
            prop_assert!(matches!(fault, RecordFault::FieldOrder(..)), "{}", fault);
            places += 1;
        }
    }
}

#[test]
fn another_form_is_refused_by_its_number() {
    let elapsed = elapsed();
    let mut bytes = golden::idle(now(5), elapsed).to_bytes(now(5), elapsed);
    bytes[0] = 2;
    let fault = State::from_bytes(&bytes, now(5), elapsed).unwrap_err();
    assert_eq!(fault, RecordFault::UnknownForm(2));
}

/// 9,000 idle tunnels are moved at once, in messages of some 200 KiB.
#[test]
fn an_idle_tunnel_is_a_few_hundred_bytes() {
    let elapsed = elapsed();
    let length = golden::idle(now(5), elapsed).to_bytes(now(5), elapsed).len();
    assert!(length <= 400, "{length}");
}

#[test]
fn handoffs_are_counted_up_to_the_last_number() {
    let mut state = golden::idle(now(5), elapsed());
    assert_eq!(state.handoffs(), 0);
    state.count_handoff();
    assert_eq!(state.handoffs(), 1);
    state.handoffs = u16::MAX;
    state.count_handoff();
    assert_eq!(state.handoffs(), u16::MAX);
}
