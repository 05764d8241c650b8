//! Tunnels that are taken out some at a time, and come back, or go on in other workers as those of another process do.

use std::collections::HashSet;
use std::os::fd::AsFd;

use elbows::handoff::socket::{cookie, monotonic};
use elbows::workers::handoff::{MOST_TAKEN, Taken};
use tokio::runtime::Runtime;

use super::*;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// What comes of a future, soon.
fn soon<T>(what: impl Future<Output = T>) -> T {
    runtime().block_on(async { tokio::time::timeout(PATIENCE, what).await.unwrap() })
}

fn take(engine: &Engine, most: usize) -> Taken {
    soon(engine.relay.take(most))
}

/// A number for the tunnel that nothing else has.
fn name(tunnel: &Tunnel) -> u64 {
    cookie(tunnel.client.as_fd()).unwrap()
}

#[test]
fn each_tunnel_is_taken_once_and_both_workers_are_asked() {
    let engine = Engine::start(2);
    let all: Vec<Ends> = (0..300).map(|_| adopted(&engine)).collect();
    let mut taken = Vec::new();
    let mut sizes = Vec::new();
    loop {
        let some = take(&engine, 64).into_tunnels();
        if some.is_empty() {
            break;
        }
        sizes.push(some.len());
        taken.extend(some);
        assert_eq!(engine.relay.open(), all.len() - taken.len());
    }
    // 150 of each, in turns.
    assert_eq!(sizes, [64, 64, 64, 64, 22, 22]);
    assert_eq!(taken.iter().map(name).collect::<HashSet<_>>().len(), all.len());
    // One that opens later is found, wherever its place is.
    let late = adopted(&engine);
    assert_eq!(take(&engine, 64).into_tunnels().len(), 1);
    drop((late, taken, all));
    engine.no_further_end();
}

#[test]
fn no_more_are_taken_than_fit_into_a_message() {
    let engine = Engine::start(1);
    let all: Vec<Ends> = (0..=MOST_TAKEN).map(|_| adopted(&engine)).collect();
    let first = take(&engine, usize::MAX);
    assert!(first.has_more());
    assert_eq!(first.into_tunnels().len(), MOST_TAKEN);
    assert_eq!(take(&engine, 0).into_tunnels().len(), 1);
    drop(all);
}

#[test]
fn tunnels_are_taken_and_put_back_while_bytes_stream() {
    const TUNNELS: usize = 8;
    const LENGTH: usize = 8 * MIB;
    let engine = Engine::start(2);
    let all: Vec<Ends> = (0..TUNNELS).map(|_| adopted(&engine)).collect();
    thread::scope(|scope| {
        let traffic: Vec<_> = all
            .iter()
            .zip(20_u64..)
            .flat_map(|(ends, seed)| {
                let (client, upstream) = (&ends.client, &ends.upstream);
                [
                    scope.spawn(move || Pattern::new(seed).send(client, LENGTH)),
                    scope.spawn(move || Pattern::new(seed).receive(upstream, LENGTH, 9000, |_| {})),
                    scope.spawn(move || Pattern::new(!seed).send(upstream, LENGTH)),
                    scope
                        .spawn(move || Pattern::new(!seed).receive(client, LENGTH, 70_000, |_| {})),
                ]
            })
            .collect();
        let mut taken = 0;
        for round in 0.. {
            if traffic.iter().all(thread::ScopedJoinHandle::is_finished) {
                break;
            }
            let some = take(&engine, 3);
            taken += some.tunnels().len();
            match round % 3 {
                0 => engine.relay.put_back(some.into_tunnels(), false),
                1 => drop(some),
                _ => {
                    let frozen_at = some.frozen_at();
                    let number = some.tunnels().len();
                    let pauses = soon(engine.relay.resume(some.into_tunnels(), frozen_at)).unwrap();
                    assert_eq!(pauses.len(), number);
                }
            }
        }
        assert!(taken > 30, "the traffic was over before {taken} were taken");
    });
    let tunnels = engine.relay.take_all();
    assert_eq!(tunnels.len(), TUNNELS);
    for tunnel in &tunnels {
        assert_eq!(tunnel.state.flows.client.passed, LENGTH as u64);
        assert_eq!(tunnel.state.flows.upstream.passed, LENGTH as u64);
    }
    engine.no_further_end();
}

#[test]
fn what_nobody_waits_for_goes_back() {
    let engine = Engine::start(1);
    let ends = adopted(&engine);
    until(|| engine.relay.open() == 1);
    // Dropped before the worker answers, or after it: nobody knows.
    for _ in 0..200 {
        runtime().block_on(async {
            tokio::select! {
                biased;
                _ = engine.relay.take(1) => {}
                () = std::future::ready(()) => {}
            }
        });
        until(|| engine.relay.open() == 1);
    }
    (&ends.client).write_all(b"still here").unwrap();
    expect(&ends.upstream, b"still here");
    assert_eq!(take(&engine, 1).tunnels().len(), 1);
}

#[test]
fn a_tunnel_that_is_put_back_to_stay_stays() {
    let engine = Engine::start(1);
    let (one, other) = (adopted(&engine), adopted(&engine));
    let mut taken = take(&engine, 2).into_tunnels();
    let refused = taken.pop().unwrap();
    engine.relay.put_back(vec![refused], true);
    assert!(take(&engine, 2).tunnels().is_empty());
    engine.relay.put_back(taken, false);
    assert_eq!(take(&engine, 2).tunnels().len(), 1);
    for ends in [&one, &other] {
        (&ends.client).write_all(b"on").unwrap();
        expect(&ends.upstream, b"on");
    }
    // What ends all ends it too.
    assert_eq!(engine.relay.take_all().len(), 2);
}

#[test]
fn a_tunnel_whose_last_bytes_are_on_their_way_stays() {
    let engine = Engine::with(1, &Options { strict: true, ..Options::default() });
    let (tunnel, ends) = tunnel_with(Protocol::WebSocket, Vec::new(), Vec::new());
    engine.relay.adopt(tunnel);
    // A reserved opcode: a Close goes out, and the end of the stream, and then both have time to read it.
    (&ends.client).write_all(b"\x83\x80....").unwrap();
    expect(&ends.client, b"\x88\x02\x03\xea");
    let mut reset = adopted(&engine);
    fill(&reset.upstream, 3);
    reset.reset(Side::Upstream);
    // What it had sent is still to be read: until then it can move, and then it waits for its delivery.
    let (near, far) = (adopted(&engine), take(&engine, 9).into_tunnels());
    assert!((1..=2).contains(&far.len()), "{}", far.len());
    drop(far);
    drop((near, reset));
    assert_eq!(engine.next_end().1.why, Reason::Malformed);
}

#[test]
fn what_came_meanwhile_is_read_at_once_and_the_pause_is_told() {
    const PAUSE: Duration = Duration::from_millis(30);
    let (old, new) = (Engine::start(1), Engine::start(2));
    let all: Vec<Ends> = (0..20).map(|_| adopted(&old)).collect();
    let before = monotonic();
    let taken = take(&old, 64);
    assert!(before <= taken.frozen_at() && taken.frozen_at() <= monotonic());
    for (number, ends) in (0_u32..).zip(&all) {
        (&ends.client).write_all(&number.to_be_bytes()).unwrap();
        (&ends.upstream).write_all(&number.to_le_bytes()).unwrap();
    }
    // So long is the pause at least.
    thread::sleep(PAUSE);
    let frozen_at = taken.frozen_at();
    let resumed = new.relay.resume(taken.into_tunnels(), frozen_at);
    assert_eq!(new.relay.open(), all.len());
    for (number, ends) in (0_u32..).zip(&all) {
        expect(&ends.upstream, &number.to_be_bytes());
        expect(&ends.client, &number.to_le_bytes());
    }
    let pauses = soon(resumed).unwrap();
    let longest = monotonic().saturating_sub(frozen_at).as_micros();
    assert_eq!(pauses.len(), all.len());
    for pause in pauses {
        assert!((PAUSE.as_micros()..=longest).contains(&pause.into()), "{pause}");
    }
    old.no_further_end();
    // They live there, and end there.
    drop(all);
    for _ in 0..20 {
        assert_eq!(new.next_end().1.why, Reason::Closed);
    }
    new.no_further_end();
}

#[test]
fn tunnels_that_come_when_the_workers_have_stopped_end() {
    let (old, new) = (Engine::start(1), Engine::start(2));
    let ends = adopted(&old);
    let taken = take(&old, 1);
    let frozen_at = taken.frozen_at();
    new.relay.stop();
    assert_eq!(soon(new.relay.resume(taken.into_tunnels(), frozen_at)), None);
    assert_eq!(new.next_end().1, End::new(Side::Elbows, Phase::Drain, Reason::PeriodOver));
    expect_end_of_stream(&ends.client);
    new.no_further_end();
    old.relay.stop();
    assert!(take(&old, 1).tunnels().is_empty(), "who is gone has none, and nobody waits for it");
}
