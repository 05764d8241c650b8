//! The relay engine on real sockets: what goes in on one side comes out on the other.
//!
//! Each test makes its tunnels from connections over loopback and stands on both far ends, so that
//! nothing but the relay is in between. Waits have deadlines and end when their condition holds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::env;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::getpid;
use socket2::SockRef;
use test_support::process::{anonymous_memory, memory, raise_descriptor_limit};

use elbows::end::{End, Phase, Reason, Side};
use elbows::tunnel::{Handshake, Identity, Protocol, Since, Tunnel};
use elbows::workers::{Options, Workers};

mod frames;
mod handoff;
mod memory;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Set where a test runs in a process of its own.
const ALONE: &str = "ELBOWS_TEST_ALONE";

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

// ---- passing bytes ----

#[test]
fn bytes_pass_both_ways() {
    let engine = Engine::start(1);
    let ends = adopted(&engine);
    for round in 0..100_u32 {
        let message = round.to_be_bytes();
        (&ends.client).write_all(&message).unwrap();
        expect(&ends.upstream, &message);
        (&ends.upstream).write_all(&message).unwrap();
        expect(&ends.client, &message);
    }
    assert_eq!(engine.relay.open(), 1);
    drop(ends);
    let (tunnel, _) = engine.next_end();
    assert_eq!(tunnel.state.flows.client.passed, 400);
    assert_eq!(tunnel.state.flows.upstream.passed, 400);
    assert_eq!(tunnel.state.flows.client.waiting.capacity(), 0);
    drop(tunnel);
    engine.no_further_end();
}

#[test]
fn early_bytes_come_first() {
    let engine = Engine::start(1);
    // More than a read buffer, and more than a send buffer takes at once.
    let early_client = Pattern::new(1).take(5 * MIB);
    let early_upstream = Pattern::new(2).take(5 * MIB);
    let (tunnel, ends) = tunnel_with(Protocol::Other, early_client.clone(), early_upstream.clone());
    (&ends.client).write_all(b"client").unwrap();
    (&ends.upstream).write_all(b"upstream").unwrap();
    engine.relay.adopt(tunnel);
    expect(&ends.upstream, &early_client);
    expect(&ends.upstream, b"client");
    expect(&ends.client, &early_upstream);
    expect(&ends.client, b"upstream");
    let tunnels = engine.relay.take_all();
    assert_eq!(tunnels[0].state.flows.client.passed, 5 * MIB as u64 + 6);
    assert_eq!(tunnels[0].state.flows.upstream.passed, 5 * MIB as u64 + 8);
}

#[test]
fn bulk_passes_both_ways_past_slow_readers() {
    const LENGTH: usize = 64 * MIB;
    let engine = Engine::start(1);
    let ends = adopted(&engine);
    let before = resident();
    let mut most = before;
    thread::scope(|scope| {
        let (client, upstream) = (&ends.client, &ends.upstream);
        scope.spawn(|| Pattern::new(3).send(client, LENGTH));
        scope.spawn(|| Pattern::new(4).send(upstream, LENGTH));
        // One reads in odd small bites, the other stops now and then until the sender is stuck.
        scope.spawn(|| Pattern::new(4).receive(client, LENGTH, 3001, |_| {}));
        Pattern::new(3).receive(upstream, LENGTH, 128 * KIB, |received| {
            if received % (8 * MIB) < 128 * KIB {
                most = most.max(resident());
                // A reader that is slow: time is what it takes.
                thread::sleep(Duration::from_millis(20));
            }
        });
    });
    if env::var_os(ALONE).is_some() {
        assert!(most < before + 2 * MIB, "{before} {most}");
    }
    let tunnel = engine.relay.take_all().pop().unwrap();
    assert_eq!(tunnel.state.flows.client.passed, LENGTH as u64);
    assert_eq!(tunnel.state.flows.upstream.passed, LENGTH as u64);
}

/// The test above in a process of its own, where nothing else takes memory.
#[test]
fn bulk_takes_no_memory() {
    in_a_process_of_its_own("bulk_passes_both_ways_past_slow_readers");
}

#[test]
fn what_one_turn_leaves_is_served_without_an_event() {
    let engine = Engine::start(1);
    let (tunnel, ends) = tunnel();
    // All of it is in the receive queue before the relay looks, and nothing follows: there is one
    // event for more than one turn's work.
    SockRef::from(&tunnel.client).set_recv_buffer_size(8 * MIB).unwrap();
    let length = fill(&ends.client, 5).min(4 * MIB);
    assert!(length > 512 * KIB, "too little for a second turn: {length}");
    engine.relay.adopt(tunnel);
    Pattern::new(5).receive(&ends.upstream, length, 64 * KIB, |_| {});
}

#[test]
fn a_busy_tunnel_leaves_others_their_turn() {
    let engine = Engine::start(1);
    let (busy, idle) = (&adopted(&engine), adopted(&engine));
    thread::scope(|scope| {
        let bulk = vec![0; 256 * KIB];
        let sender = scope.spawn(move || while (&busy.client).write_all(&bulk).is_ok() {});
        let reader = scope.spawn(|| {
            let mut buffer = vec![0; 256 * KIB];
            while (&busy.upstream).read(&mut buffer).is_ok_and(|n| n > 0) {}
        });
        for round in 0..500_u32 {
            (&idle.client).write_all(&round.to_be_bytes()).unwrap();
            expect(&idle.upstream, &round.to_be_bytes());
        }
        assert!(!sender.is_finished());
        busy.client.shutdown(Shutdown::Both).unwrap();
        sender.join().unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn bytes_behind_an_urgent_byte_pass() {
    let engine = Engine::start(1);
    let (tunnel, ends) = tunnel();
    // A read stops at the urgent byte, short of what follows; no other event comes.
    SockRef::from(&tunnel.client).set_out_of_band_inline(true).unwrap();
    (&ends.client).write_all(b"before ").unwrap();
    SockRef::from(&ends.client).send_out_of_band(b"!").unwrap();
    (&ends.client).write_all(b" behind").unwrap();
    // Time for all of it to arrive: peek(2) stops where a read does, so that nothing shows it.
    thread::sleep(Duration::from_millis(20));
    engine.relay.adopt(tunnel);
    expect(&ends.upstream, b"before ! behind");
}

#[test]
fn two_thousand_tunnels_echo() {
    const TUNNELS: u32 = 2000;
    raise_descriptor_limit();
    let engine = Engine::start(2);
    let all: Vec<Ends> = (0..TUNNELS).map(|_| adopted(&engine)).collect();
    assert_eq!(engine.relay.open(), TUNNELS as usize);
    for round in 0..3_u32 {
        for (number, ends) in (round..).zip(&all) {
            (&ends.client).write_all(&number.to_be_bytes()).unwrap();
        }
        for (number, ends) in (round..).zip(&all) {
            expect(&ends.upstream, &number.to_be_bytes());
            (&ends.upstream).write_all(&number.to_le_bytes()).unwrap();
        }
        for (number, ends) in (round..).zip(&all) {
            expect(&ends.client, &number.to_le_bytes());
        }
    }
    drop(all);
    for _ in 0..TUNNELS {
        let (_, end) = engine.next_end();
        assert_eq!(end.why, Reason::Closed);
    }
    engine.no_further_end();
}

// ---- back-pressure ----

#[test]
fn a_reader_that_stops_stops_the_writer() {
    let engine = Engine::start(1);
    let (tunnel, ends) = tunnel();
    for socket in [&tunnel.client, &tunnel.upstream, &ends.client, &ends.upstream] {
        SockRef::from(socket).set_recv_buffer_size(64 * KIB).unwrap();
        SockRef::from(socket).set_send_buffer_size(64 * KIB).unwrap();
    }
    engine.relay.adopt(tunnel);
    let accepted = fill(&ends.client, 6);
    assert!(accepted < MIB, "{accepted} bytes are held somewhere");

    // What waits is within its bound, and the other way is not held up.
    (&ends.upstream).write_all(b"still here").unwrap();
    expect(&ends.client, b"still here");
    let mut tunnels = engine.relay.take_all();
    let waiting = &tunnels[0].state.flows.client.waiting;
    assert!(!waiting.is_empty(), "nothing waits");
    assert!(waiting.capacity() <= 64 * KIB, "{}", waiting.capacity());
    engine.relay.adopt(tunnels.pop().unwrap());

    Pattern::new(6).receive(&ends.upstream, accepted, 10_000, |_| {});
    (&ends.client).write_all(b"and on").unwrap();
    expect(&ends.upstream, b"and on");
    let tunnels = engine.relay.take_all();
    assert_eq!(tunnels[0].state.flows.client.waiting.capacity(), 0);
}

// ---- half-close ----

#[test]
fn a_half_closed_client_still_gets_its_answer() {
    half_close(Side::Client);
}

#[test]
fn a_half_closed_upstream_is_still_sent_to() {
    half_close(Side::Upstream);
}

fn half_close(first: Side) {
    let engine = Engine::start(1);
    let ends = adopted(&engine);
    let (one, other) = ends.from(first);
    Pattern::new(7).send(one, 100 * KIB);
    one.shutdown(Shutdown::Write).unwrap();
    Pattern::new(7).receive(other, 100 * KIB, 1000, |_| {});
    expect_end_of_stream(other);

    for round in 0..10_u32 {
        other.write_all_ref(&round.to_be_bytes());
        expect(one, &round.to_be_bytes());
    }
    assert_eq!(engine.relay.open(), 1);
    other.shutdown(Shutdown::Write).unwrap();
    expect_end_of_stream(one);
    let (_, end) = engine.next_end();
    assert_eq!(end, End::new(first, Phase::Relay, Reason::Closed));
    engine.no_further_end();
}

#[test]
fn half_close_waits_for_what_waits() {
    let engine = Engine::start(1);
    let ends = adopted(&engine);
    let accepted = fill(&ends.client, 8);
    ends.client.shutdown(Shutdown::Write).unwrap();
    Pattern::new(8).receive(&ends.upstream, accepted, 64 * KIB, |_| {});
    expect_end_of_stream(&ends.upstream);
}

// ---- resets ----

#[test]
fn reset_of_client_reaches_upstream() {
    reset(Side::Client);
}

#[test]
fn reset_of_upstream_reaches_client() {
    reset(Side::Upstream);
}

fn reset(side: Side) {
    let engine = Engine::start(1);
    let mut ends = adopted(&engine);
    ends.reset(side);
    let (_, other) = ends.from(side);
    expect_reset(other);
    let (_, end) = engine.next_end();
    assert_eq!(end, End::new(side, Phase::Relay, Reason::Reset));
    engine.no_further_end();
}

#[test]
fn a_reset_after_half_close_ends_the_tunnel() {
    let engine = Engine::start(1);
    let mut ends = adopted(&engine);
    ends.client.shutdown(Shutdown::Write).unwrap();
    expect_end_of_stream(&ends.upstream);
    ends.reset(Side::Upstream);
    expect_reset(&ends.client);
    let (_, end) = engine.next_end();
    assert_eq!(end, End::new(Side::Upstream, Phase::Relay, Reason::Reset));
    engine.no_further_end();
}

#[test]
fn a_side_that_closed_and_refuses_more_has_closed() {
    let engine = Engine::start(1);
    let Ends { client, upstream } = adopted(&engine);
    (&upstream).write_all(b"all there is").unwrap();
    drop(upstream);
    expect(&client, b"all there is");
    expect_end_of_stream(&client);
    // The upstream's kernel answers this with a reset. The client is told nothing but that its
    // connection is gone, once it asks.
    (&client).write_all(b"too late").unwrap();
    let (tunnel, end) = engine.next_end();
    assert_eq!(end, End::new(Side::Upstream, Phase::Relay, Reason::Closed));
    drop(tunnel);
    engine.no_further_end();
}

#[test]
fn last_bytes_before_a_reset_arrive() {
    for side in [Side::Client, Side::Upstream] {
        let engine = Engine::start(1);
        let (tunnel, mut ends) = tunnel();
        // All has happened before the relay looks: bytes on their way to a side that is gone, and
        // that side's last bytes in front of its reset.
        let (one, other) = ends.from(side);
        other.write_all_ref(b"never read");
        Pattern::new(9).send(one, 20 * KIB);
        ends.reset(side);
        engine.relay.adopt(tunnel);
        let (_, other) = ends.from(side);
        Pattern::new(9).receive(other, 20 * KIB, 1000, |_| {});
        expect_reset(other);
        let (_, end) = engine.next_end();
        assert_eq!(end, End::new(side, Phase::Relay, Reason::Reset));
        engine.no_further_end();
    }
}

#[test]
fn last_bytes_arrive_where_a_write_finds_the_reset() {
    const TUNNELS: usize = 100;
    let engine = Engine::start(2);
    thread::scope(|scope| {
        for _ in 0..TUNNELS {
            let Ends { client, upstream } = adopted(&engine);
            let sending = client.try_clone().unwrap();
            scope.spawn(move || while (&sending).write_all(&[0; 100]).is_ok() {});
            scope.spawn(move || {
                // Says goodbye and closes with bytes unread, as applications do.
                expect(&upstream, &[0; 1000]);
                Pattern::new(10).send(&upstream, 3000);
                drop(upstream);
                Pattern::new(10).receive(&client, 3000, 1000, |_| {});
                let last = (&client).read(&mut [0]);
                client.shutdown(Shutdown::Both).ok();
                // Linux reports the fault to whoever asks first, and that may be the sender.
                assert!(matches!(last, Ok(0) | Err(_)), "{last:?}");
            });
        }
    });
    for _ in 0..TUNNELS {
        let (tunnel, end) = engine.next_end();
        assert_eq!(tunnel.state.flows.upstream.passed, 3000);
        assert_eq!((end.by, end.during), (Side::Upstream, Phase::Relay));
    }
    engine.no_further_end();
}

#[test]
fn a_reset_waits_for_a_slow_reader() {
    let engine = Engine::start(1);
    let mut ends = adopted(&engine);
    let sent = fill(&ends.upstream, 11);
    ends.reset(Side::Upstream);
    // What the relay's kernel had received from the upstream is all that is left. The relay holds
    // on to it until the client takes it, however long that is.
    let mut received = 0;
    let mut pattern = Pattern::new(11);
    let mut buffer = vec![0; 10_000];
    // Longer than a farewell takes: that it does not end is what is to be seen.
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(engine.relay.open(), 1);
    let fault = loop {
        match (&ends.client).read(&mut buffer) {
            Ok(0) => panic!("a stream that was cut ended as if it were complete"),
            Ok(taken) => {
                assert_eq!(pattern.take(taken), &buffer[..taken]);
                received += taken;
            }
            Err(fault) => break fault,
        }
    };
    assert_eq!(fault.kind(), ErrorKind::ConnectionReset);
    let (tunnel, end) = engine.next_end();
    assert_eq!(tunnel.state.flows.upstream.passed, received as u64);
    assert!(received <= sent);
    assert_eq!(end, End::new(Side::Upstream, Phase::Relay, Reason::Reset));
}

// ---- taking tunnels out ----

#[test]
fn tunnels_move_between_relays_without_losing_a_byte() {
    const TUNNELS: usize = 8;
    const LENGTH: usize = 8 * MIB;
    let engines = [Engine::start(2), Engine::start(1)];
    let all: Vec<Ends> = (0..TUNNELS).map(|_| adopted(&engines[0])).collect();
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
        let mut moves = 0;
        while traffic.iter().any(|thread| !thread.is_finished()) {
            for (from, to) in [(0, 1), (1, 0)] {
                for tunnel in engines[from].relay.take_all() {
                    engines[to].relay.adopt(tunnel);
                }
                moves += 1;
                // Some bytes are to pass between two moves.
                thread::sleep(Duration::from_millis(2));
            }
        }
        assert!(moves > 10, "the traffic was over before {moves} moves");
    });
    let tunnels = engines[0].relay.take_all();
    assert_eq!(tunnels.len(), TUNNELS);
    for tunnel in &tunnels {
        assert_eq!(tunnel.state.flows.client.passed, LENGTH as u64);
        assert_eq!(tunnel.state.flows.upstream.passed, LENGTH as u64);
    }
    for engine in engines {
        engine.no_further_end();
    }
}

#[test]
fn a_half_closed_tunnel_moves_as_such() {
    let (one, two) = (Engine::start(1), Engine::start(1));
    let ends = adopted(&one);
    ends.upstream.shutdown(Shutdown::Write).unwrap();
    expect_end_of_stream(&ends.client);
    for tunnel in one.relay.take_all() {
        two.relay.adopt(tunnel);
    }
    one.no_further_end();
    (&ends.client).write_all(b"on").unwrap();
    expect(&ends.upstream, b"on");
    ends.client.shutdown(Shutdown::Write).unwrap();
    expect_end_of_stream(&ends.upstream);
    let (_, end) = two.next_end();
    assert_eq!(end, End::new(Side::Upstream, Phase::Relay, Reason::Closed));
    two.no_further_end();
}

#[test]
fn a_tunnel_that_was_reset_moves_as_such() {
    let (one, two) = (Engine::start(1), Engine::start(1));
    let mut ends = adopted(&one);
    fill(&ends.upstream, 12);
    ends.reset(Side::Upstream);
    // The reset has been read by the first relay, or not: the second must come to the same. Mostly it has.
    thread::sleep(Duration::from_millis(50));
    for tunnel in one.relay.take_all() {
        two.relay.adopt(tunnel);
    }
    one.no_further_end();
    let mut buffer = vec![0; 64 * KIB];
    let last = loop {
        match (&ends.client).read(&mut buffer) {
            Ok(1..) => {}
            last => break last,
        }
    };
    assert_eq!(last.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let (_, end) = two.next_end();
    assert_eq!(end, End::new(Side::Upstream, Phase::Relay, Reason::Reset));
    two.no_further_end();
}

// ---- coming and going ----

#[test]
fn a_reused_slot_hears_nothing_of_the_one_before() {
    const ROUNDS: u64 = 250;
    const THREADS: u64 = 4;
    let engine = Engine::start(1);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let relay = &engine.relay;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let (tunnel, mut ends) = tunnel();
                    relay.adopt(tunnel);
                    let token = (thread * ROUNDS + round).to_be_bytes();
                    (&ends.client).write_all(&token).unwrap();
                    expect(&ends.upstream, &token);
                    (&ends.upstream).write_all(&token).unwrap();
                    expect(&ends.client, &token);
                    match round % 4 {
                        0 => drop(ends),
                        1 => {
                            ends.reset(Side::Client);
                            ends.reset(Side::Upstream);
                        }
                        2 => {
                            ends.client.shutdown(Shutdown::Both).unwrap();
                            expect_end_of_stream(&ends.upstream);
                        }
                        _ => {
                            ends.reset(Side::Upstream);
                            drop(ends);
                        }
                    }
                }
            });
        }
    });
    for _ in 0..THREADS * ROUNDS {
        engine.next_end();
    }
    engine.no_further_end();
}

#[test]
fn a_farewell_cut_short_leaves_the_next_in_its_slot_alone() {
    let engine = Engine::start(1);
    // A machine that is busy elsewhere may be too late to cut one short.
    let is_cut_short = (0..20).any(|_| {
        let mut ends = adopted(&engine);
        let began = Instant::now();
        ends.reset(Side::Client);
        // The upstream breaks off while the reset waits, for a second, to be passed on to it. Nothing shows
        // that it does.
        thread::sleep(Duration::from_millis(100));
        ends.reset(Side::Upstream);
        until(|| engine.relay.open() == 0);
        let (_, end) = engine.next_end();
        assert_eq!(end, End::new(Side::Client, Phase::Relay, Reason::Reset));
        began.elapsed() < Duration::from_millis(900)
    });
    assert!(is_cut_short);

    let ends = adopted(&engine);
    // Past the end of the farewell, as nothing else would show.
    thread::sleep(Duration::from_millis(1500));
    (&ends.client).write_all(b"on").unwrap();
    expect(&ends.upstream, b"on");
}

#[test]
fn a_tunnel_that_cannot_be_registered_ends_for_want_of_room() {
    let engine = Engine::start(1);
    let (mut tunnel, ends) = tunnel();
    // epoll takes no regular file.
    tunnel.upstream = TcpStream::from(OwnedFd::from(File::open("/proc/self/exe").unwrap()));
    engine.relay.adopt(tunnel);
    let (tunnel, end) = engine.next_end();
    assert_eq!(end, End::new(Side::Elbows, Phase::Relay, Reason::NoRoom));
    assert_eq!(engine.relay.open(), 0);
    drop(tunnel);
    expect_end_of_stream(&ends.client);

    // The thread goes on.
    let ends = adopted(&engine);
    (&ends.client).write_all(b"next").unwrap();
    expect(&ends.upstream, b"next");
}

#[test]
fn what_is_left_at_stop_ends() {
    let engine = Engine::start(2);
    let all: Vec<Ends> = (0..10).map(|_| adopted(&engine)).collect();
    engine.relay.stop();
    let after = adopted(&engine);
    for _ in 0..11 {
        let (_, end) = engine.next_end();
        let expected = End::new(Side::Elbows, Phase::Drain, Reason::PeriodOver);
        assert_eq!(end, expected);
    }
    for ends in all.iter().chain([&after]) {
        expect_end_of_stream(&ends.client);
        expect_end_of_stream(&ends.upstream);
    }
    assert!(engine.relay.take_all().is_empty());
    engine.no_further_end();
}

#[test]
fn a_panic_at_an_end_leaves_the_others_alone() {
    let relay = Workers::start(NonZeroUsize::MIN, &Options::default(), |_, end, _| {
        assert_ne!(end.by, Side::Client, "a panic that the test wants");
    })
    .unwrap();
    let (first, first_ends) = tunnel();
    let (second, second_ends) = tunnel();
    relay.adopt(first);
    relay.adopt(second);
    first_ends.client.shutdown(Shutdown::Write).unwrap();
    expect_end_of_stream(&first_ends.upstream);
    first_ends.upstream.shutdown(Shutdown::Write).unwrap();
    expect_end_of_stream(&first_ends.client);
    until(|| relay.open() == 1);
    (&second_ends.client).write_all(b"on").unwrap();
    expect(&second_ends.upstream, b"on");
}

// ---- roles and helpers ----

/// A relay with what it told.
struct Engine {
    relay: Workers,
    ends: Receiver<(Tunnel, End)>,
}

impl Engine {
    fn start(threads: usize) -> Self {
        Self::with(threads, &Options::default())
    }

    fn with(threads: usize, options: &Options) -> Self {
        let (sender, ends) = mpsc::channel();
        let relay =
            Workers::start(NonZeroUsize::new(threads).unwrap(), options, move |tunnel, end, _| {
                // The sockets close here, as they do where the access log is written.
                let mut closed = tunnel;
                closed.client = placeholder();
                closed.upstream = placeholder();
                sender.send((closed, end)).ok();
            })
            .unwrap();
        Self { relay, ends }
    }

    fn next_end(&self) -> (Tunnel, End) {
        self.ends.recv_timeout(PATIENCE).expect("a tunnel ends")
    }

    fn no_further_end(&self) {
        assert_eq!(self.relay.open(), 0);
        self.relay.stop();
        assert!(self.ends.try_recv().is_err(), "an end was told twice");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.relay.stop();
    }
}

fn placeholder() -> TcpStream {
    TcpStream::from(OwnedFd::from(File::open("/dev/null").unwrap()))
}

/// The two far ends of a tunnel.
struct Ends {
    client: TcpStream,
    upstream: TcpStream,
}

impl Ends {
    /// The far end of `side`, and the other one.
    fn from(&self, side: Side) -> (&TcpStream, &TcpStream) {
        match side {
            Side::Upstream => (&self.upstream, &self.client),
            _ => (&self.client, &self.upstream),
        }
    }

    /// Resets the connection of `side`.
    fn reset(&mut self, side: Side) {
        let socket = match side {
            Side::Upstream => &mut self.upstream,
            _ => &mut self.client,
        };
        SockRef::from(&*socket).set_linger(Some(Duration::ZERO)).unwrap();
        *socket = placeholder();
    }
}

trait WriteAllRef {
    fn write_all_ref(self, bytes: &[u8]);
}

impl WriteAllRef for &TcpStream {
    fn write_all_ref(mut self, bytes: &[u8]) {
        self.write_all(bytes).unwrap();
    }
}

/// A new tunnel and its far ends.
fn tunnel() -> (Tunnel, Ends) {
    tunnel_with(Protocol::Other, Vec::new(), Vec::new())
}

/// A new tunnel with bytes that came before it.
fn tunnel_with(protocol: Protocol, from_client: Vec<u8>, from_upstream: Vec<u8>) -> (Tunnel, Ends) {
    let (client, client_end) = connection();
    let (upstream, upstream_end) = connection();
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let line = "GET /socket/websocket?... HTTP/1.1";
    let id = "0c0b91f13484e8580000000000000000";
    let identity = Identity::new(nowhere, nowhere, nowhere, line, id, Since::default());
    // As a browser's are.
    let identity = identity.with(&Handshake {
        host: "app.example.com",
        user_agent: &"Mozilla/5.0 ".repeat(17)[..200],
        subprotocol: "mqtt",
        trace_id: None,
    });
    let tunnel = Tunnel::new(protocol, (client, from_client), (upstream, from_upstream), identity);
    let ends = Ends { client: client_end, upstream: upstream_end };
    (tunnel, ends)
}

/// The near end, as the relay wants it, and the far end.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (near, _) = listener.accept().unwrap();
    near.set_nodelay(true).unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nodelay(true).unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    far.set_write_timeout(Some(PATIENCE)).unwrap();
    (near, far)
}

fn adopted(engine: &Engine) -> Ends {
    let (tunnel, ends) = tunnel();
    engine.relay.adopt(tunnel);
    ends
}

fn expect(mut socket: &TcpStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    socket.read_exact(&mut got).unwrap();
    assert!(got == bytes, "other bytes came");
}

fn expect_end_of_stream(mut socket: &TcpStream) {
    assert_eq!(socket.read(&mut [0; 16]).unwrap(), 0);
}

fn expect_reset(mut socket: &TcpStream) {
    let fault: io::Error = socket.read(&mut [0; 16]).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::ConnectionReset);
}

fn until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sends the pattern until nothing has been accepted for half a second; says how much was.
fn fill(mut socket: &TcpStream, seed: u64) -> usize {
    socket.set_nonblocking(true).unwrap();
    let mut pattern = Pattern::new(seed);
    let mut accepted = 0;
    let mut unsent = Vec::new();
    let mut last = Instant::now();
    while last.elapsed() < Duration::from_millis(500) {
        if unsent.is_empty() {
            unsent = pattern.take(64 * KIB);
        }
        match socket.write(&unsent) {
            Ok(taken) => {
                unsent.drain(..taken);
                accepted += taken;
                last = Instant::now();
            }
            Err(fault) if fault.kind() == ErrorKind::WouldBlock => {
                // Only time shows that nothing more is taken.
                thread::sleep(Duration::from_millis(5));
            }
            Err(fault) => panic!("{fault}"),
        }
    }
    socket.set_nonblocking(false).unwrap();
    accepted
}

/// An endless stream in which no two places look alike, so that a byte that is lost, doubled or in
/// the wrong tunnel shows.
struct Pattern {
    seed: u64,
    position: u64,
}

impl Pattern {
    fn new(seed: u64) -> Self {
        Self { seed, position: 0 }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 16);
        let skipped = (self.position % 8) as usize;
        let mut word = self.position / 8;
        while bytes.len() < length + skipped {
            // SplitMix64.
            let mut mixed = (word ^ self.seed << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bytes.extend_from_slice(&(mixed ^ mixed >> 27).to_ne_bytes());
            word += 1;
        }
        self.position += length as u64;
        bytes.truncate(length + skipped);
        bytes.drain(..skipped);
        bytes
    }

    fn send(mut self, mut socket: &TcpStream, length: usize) {
        let mut left = length;
        while left > 0 {
            let piece = self.take(left.min(100_000));
            socket.write_all(&piece).unwrap();
            left -= piece.len();
        }
    }

    fn receive(
        mut self,
        mut socket: &TcpStream,
        length: usize,
        bite: usize,
        mut meanwhile: impl FnMut(usize),
    ) {
        let mut buffer = vec![0; bite];
        let mut received = 0;
        while received < length {
            let wanted = bite.min(length - received);
            let taken = socket.read(&mut buffer[..wanted]).unwrap();
            assert_ne!(taken, 0, "ended after {received} of {length} bytes");
            assert!(self.take(taken) == buffer[..taken], "wrong in {received}+");
            received += taken;
            meanwhile(received);
        }
    }
}

/// Runs one test where nothing else takes memory.
fn in_a_process_of_its_own(name: &str) {
    let alone = Command::new(env::current_exe().unwrap())
        .args(["--exact", name])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&alone.stdout);
    assert!(alone.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

/// Bytes of memory that this process has in use.
fn resident() -> usize {
    usize::try_from(memory(getpid(), "VmRSS")).unwrap()
}
