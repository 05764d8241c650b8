//! Tunnels in every state that lasts: each goes on byte for byte in the new process.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Place, number, talk};
use crate::client::{Client, other_handshake};
use crate::programs::wait_until;
use crate::upstream::handed_over;
use crate::web_socket::{BINARY, CONTINUATION, PING, PONG, Peer, TEXT, Tunnels, value};

const FIN: u8 = 0x80;

/// Heads are not held, and heads are held until they are whole.
pub const CHECKS: [&[(&str, &str)]; 2] =
    [&[], &[("FRAME_CHECK", "strict"), ("MAX_MESSAGE_SIZE", "1GiB")]];

/// Messages of every kind: in one frame, in fragments with control frames between, with each length of a head.
fn conversation(source: &Peer) -> Vec<u8> {
    [
        source.frame(FIN | TEXT, "whole"),
        source.frame(TEXT, "abc"),
        source.frame(FIN | PING, "ping"),
        source.frame(CONTINUATION, [b'c'; 200]),
        source.frame(FIN | PONG, "pong"),
        source.frame(FIN | CONTINUATION, vec![b'd'; 70_000]),
        source.frame(FIN | BINARY, ""),
    ]
    .concat()
}

/// Where it is cut: at every byte of every head and around it, and in payload.
pub fn cuts(source: &Peer) -> Vec<usize> {
    let all = conversation(source).len();
    let first = source.frame(FIN | TEXT, "whole").len();
    let large = all - 70_000 - source.frame(FIN | BINARY, "").len();
    (first..first + 50)
        .chain(large - 24..large + 2)
        .chain([large + 35_000])
        .chain(all - 8..all)
        .collect()
}

/// A tunnel on which one side has sent part of what it says.
pub struct Half {
    source: Peer,
    sink: Peer,
    cut: usize,
}

impl Half {
    pub fn new(mut source: Peer, mut sink: Peer, cut: usize) -> Self {
        let all = conversation(&source);
        let first = source.frame(FIN | TEXT, "whole").len();
        source.send(&all[..cut]);
        // What stands behind it was read with it.
        assert_eq!(sink.read_exact(first), all[..first]);
        Self { source, sink, cut }
    }

    pub fn goes_on(mut self, who: &str) {
        let all = conversation(&self.source);
        let first = self.source.frame(FIN | TEXT, "whole").len();
        self.source.send(&all[self.cut..]);
        let rest = self.sink.read_exact(all.len() - first);
        assert!(rest == all[first..], "{who} cut at {}", self.cut);
        for opcode in [TEXT, BINARY] {
            self.sink.send_frame(opcode, "back");
            self.source.expect(opcode, "back");
            self.source.send_frame(opcode, "forth");
            self.sink.expect(opcode, "forth");
        }
    }
}

#[test]
fn a_tunnel_that_is_cut_anywhere_in_its_frames_goes_on() {
    let [observe, strict] = CHECKS;
    // What has passed of a head where none was held, and what is held of one, goes on under the other rule, too.
    for (settings, later) in
        [(observe, observe), (strict, strict), (observe, strict), (strict, observe)]
    {
        let application = Tunnels::start();
        let place = Place::new(application.address);
        let mut old = place.start(settings);
        let mut tunnels = Vec::new();
        let (client, upstream) = application.open(&old);
        let (of_client, of_upstream) = (cuts(&client), cuts(&upstream));
        tunnels.extend(of_client.into_iter().map(|cut| {
            let (client, upstream) = application.open(&old);
            ("client", Half::new(client, upstream, cut))
        }));
        tunnels.extend(of_upstream.into_iter().map(|cut| {
            let (client, upstream) = application.open(&old);
            ("upstream", Half::new(upstream, client, cut))
        }));
        drop((client, upstream));
        old.wait_for_report(&format!("tunnels_open={}", tunnels.len()));
        let new = place.hand_over(&mut old, later);
        let line = new.log.wait_for("handoff from=");
        assert_eq!(number(&line, "moved"), tunnels.len() as u64, "{line}");
        for (who, tunnel) in tunnels {
            tunnel.goes_on(who);
        }
    }
}

/// More than the buffers of the four sockets and of elbows hold.
const MUCH: usize = 48 << 20;

/// Frames with this much payload each, as one side sends them.
fn much(source: &Peer, payload: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MUCH + 100);
    for count in 0_u64.. {
        if bytes.len() >= MUCH {
            return bytes;
        }
        let payload: Vec<u8> = (0..payload as u64 / 8)
            .flat_map(|word| (count << 32 | word).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes())
            .collect();
        bytes.extend(source.frame(FIN | BINARY, payload));
    }
    unreachable!("it is enough some time")
}

/// One direction: its bytes are sent as fast as they are taken, and nobody reads them yet.
struct Full {
    sink: TcpStream,
    all: Arc<Vec<u8>>,
    sent: Arc<AtomicUsize>,
    sender: thread::JoinHandle<()>,
}

impl Full {
    fn new(source: &Peer, sink: &Peer, payload: usize) -> Self {
        let all = Arc::new(much(source, payload));
        let sent = Arc::<AtomicUsize>::default();
        let (bytes, count) = (Arc::clone(&all), Arc::clone(&sent));
        let mut socket = source.socket.try_clone().unwrap();
        let sender = thread::spawn(move || {
            for chunk in bytes.chunks(16 << 10) {
                socket.write_all(chunk).expect("the connection takes bytes");
                count.fetch_add(chunk.len(), Ordering::Relaxed);
            }
        });
        Self { sink: sink.socket.try_clone().unwrap(), all, sent, sender }
    }

    /// Waits until no more of it is taken.
    fn wait_until_full(&self) {
        let (mut last, mut looks) = (0, 0);
        wait_until("no more is taken", || {
            let sent = self.sent.load(Ordering::Relaxed);
            looks = if sent == last { looks + 1 } else { 0 };
            last = sent;
            looks > 30
        });
        assert!(last > 1 << 20 && last < self.all.len(), "{last} bytes");
    }

    /// Reads all of it.
    fn arrives(mut self) {
        let mut came = vec![0; self.all.len()];
        self.sink.read_exact(&mut came).expect("all of it");
        assert!(came == *self.all);
        self.sender.join().unwrap();
    }
}

#[test]
fn full_buffers_both_ways_go_on_byte_for_byte() {
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let mut old = place.start(&[]);
    // Small frames, and one that passes without a look at its payload.
    let mut tunnels = Vec::new();
    for (forth, back) in [(60, 4 << 20), (MUCH, 60_000)] {
        let (client, upstream) = application.open(&old);
        let full = [Full::new(&client, &upstream, forth), Full::new(&upstream, &client, back)];
        tunnels.push((full, client, upstream));
    }
    for (full, ..) in &tunnels {
        full.iter().for_each(Full::wait_until_full);
    }
    for round in 0..3 {
        let new = place.hand_over(&mut old, &[]);
        let line = new.log.wait_for("handoff from=");
        assert_eq!(number(&line, "moved"), 2, "{round}: {line}");
        old = new;
    }
    for (full, client, upstream) in tunnels {
        thread::scope(|scope| {
            for direction in full {
                scope.spawn(|| direction.arrives());
            }
        });
        talk(&mut (client, upstream), "all came");
    }
    let lines =
        old.access_log.wait_until("2 lines", |lines| (lines.len() == 2).then(|| lines.to_vec()));
    for line in lines {
        assert_eq!(value(&line, "handoffs"), "3", "{line}");
        assert!(number(&line, "from_client") > MUCH as u64, "{line}");
        assert!(number(&line, "from_upstream") > MUCH as u64, "{line}");
    }
}

#[test]
fn a_ping_that_is_under_way_is_known_in_the_new_process() {
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let settings = [
        ("PING_INTERVAL", "1s"),
        ("PING_UPSTREAM_INTERVAL", "1s"),
        ("PONG_TIMEOUT", "1h"),
        ("STALL_TIMEOUT", "1h"),
    ];
    let start = Instant::now();
    let mut old = place.start(&settings);
    let (mut client, mut upstream) = application.open(&old);
    let pings = [client.read_frame(), upstream.read_frame()];
    let came = Instant::now();
    assert!(pings.iter().all(|ping| ping.opcode == PING), "{pings:?}");
    for _ in 0..2 {
        old = place.hand_over(&mut old, &settings);
    }
    // It waits for the answers, and does not ask again.
    client.hears_nothing_for(Duration::from_millis(700));
    upstream.hears_nothing_for(Duration::from_millis(700));
    let under_way = came.elapsed().as_secs_f64();
    let answered = Instant::now();
    let [to_client, to_upstream] = pings;
    client.send_frame(PONG, to_client.payload);
    upstream.send_frame(PONG, to_upstream.payload);
    for peer in [&mut client, &mut upstream] {
        assert_eq!(peer.read_frame().opcode, PING, "the Pong is not passed on");
        let after = answered.elapsed();
        assert!(after >= Duration::from_millis(900), "{after:?}");
    }
    talk(&mut (client, upstream), "that was all");
    let line = old.access_log.wait_for("status=101");
    let trip: f64 = value(&line, "ping_rtt").parse().unwrap();
    assert!(trip >= under_way && trip <= start.elapsed().as_secs_f64(), "{under_way}: {line}");
    assert_eq!(value(&line, "ping_rtt"), value(&line, "ping_rtt_worst"), "{line}");
}

#[test]
fn a_close_handshake_that_is_under_way_is_finished_in_the_new_process() {
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let mut old = place.start(&[]);
    let mut tunnels = Vec::new();
    for side in ["client", "upstream"] {
        let (client, upstream) = application.open(&old);
        let (mut source, mut sink) =
            if side == "client" { (client, upstream) } else { (upstream, client) };
        source.send_close(4007);
        sink.expect_close(4007);
        tunnels.push((side, source, sink));
    }
    let new = place.hand_over(&mut old, &[]);
    for (side, mut source, mut sink) in tunnels {
        // Who has not closed yet still has something to say.
        sink.send_frame(TEXT, "last words");
        source.expect(TEXT, "last words");
        sink.send_close(4008);
        source.expect_close(4008);
        sink.finish();
        source.finish();
        for peer in [&mut source, &mut sink] {
            assert!(peer.try_read_frame().expect("an end, not a reset").is_none());
        }
        let line = new.access_log.wait_for(&format!("close_by={side}"));
        assert_eq!((value(&line, "close_code"), value(&line, "handoffs")), ("4007", "1"), "{line}");
    }
}

/// Where elbows ends a tunnel: one whose last words are on their way stays, and the old process waits for it.
#[test]
fn a_close_of_ours_that_waits_for_its_answer_is_not_lost() {
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let settings = [("MAX_MESSAGE_SIZE", "1000"), ("IDLE_TIMEOUT", "1s"), ("DRAIN_GRACE", "1h")];
    let mut old = place.start(&settings);
    let (mut client, mut upstream) = application.open(&old);
    client.send_frame(BINARY, [1; 1001]);
    client.expect_close(1009);
    upstream.expect_close(1001);
    let (mut idle_client, mut idle_upstream) = application.open(&old);
    idle_client.expect_close(1001);
    let new = place.take_over(&settings);
    // What says no more than its Close moves: what its client still says passes.
    idle_client.send_frame(TEXT, "last words");
    idle_upstream.expect(TEXT, "last words");
    idle_client.send_close(1001);
    idle_upstream.expect_close(1001);
    idle_upstream.send_close(1001);
    client.send_close(1009);
    upstream.send_close(1001);
    for peer in [&mut client, &mut upstream, &mut idle_client, &mut idle_upstream] {
        peer.finish();
        assert!(peer.try_read_frame().expect("an end, not a reset").is_none());
    }
    assert_eq!(old.wait().code(), Some(0));
    let line = old.access_log.wait_for("close_code=1009");
    assert!(line.contains("by=client during=relay why=too_big"), "{line}");
    let line = new.access_log.wait_for("why=idle");
    assert_eq!((value(&line, "handoffs"), value(&line, "close_code")), ("1", "1001"), "{line}");
}

#[test]
fn a_half_closed_tunnel_of_another_protocol_passes_the_other_direction() {
    let (address, sockets) = handed_over();
    let place = Place::new(address);
    let mut old = place.start(&[]);
    let switching =
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n";
    let open = || {
        let mut client = Client::behind_balancer(place.address);
        client.send(other_handshake("/other"));
        let (mut upstream, _) = sockets.recv().unwrap();
        upstream.write_all(switching).unwrap();
        assert_eq!(client.read_head().status, 101);
        (client.socket, upstream.into_stream())
    };
    let tunnels: Vec<_> = ["client", "upstream"]
        .into_iter()
        .map(|side| {
            let (client, upstream) = open();
            let (mut source, mut sink) =
                if side == "client" { (client, upstream) } else { (upstream, client) };
            source.write_all(b"all").unwrap();
            source.shutdown(Shutdown::Write).unwrap();
            let mut all = Vec::new();
            sink.read_to_end(&mut all).unwrap();
            assert_eq!(all, b"all");
            (side, source, sink)
        })
        .collect();
    let new = place.hand_over(&mut old, &[]);
    for (side, mut source, mut sink) in tunnels {
        for round in 0..100 {
            let said = format!("{side} {round}");
            sink.write_all(said.as_bytes()).unwrap();
            let mut came = vec![0; said.len()];
            source.read_exact(&mut came).unwrap();
            assert_eq!(came, said.as_bytes());
        }
        sink.shutdown(Shutdown::Write).unwrap();
        assert_eq!(source.read(&mut [0]).unwrap(), 0);
        let line = new.access_log.wait_for(&format!("by={side}"));
        assert!(line.contains("why=closed") && value(&line, "handoffs") == "1", "{line}");
    }
}

/// What was seen of a message that has not ended counts in the new process.
#[test]
fn rules_of_a_message_are_checked_across() {
    for side in ["client", "upstream"] {
        let application = Tunnels::start();
        let place = Place::new(application.address);
        let settings = [("FRAME_CHECK", "strict"), ("MAX_MESSAGE_SIZE", "1000")];
        let mut old = place.start(&settings);
        let open = || {
            let (client, upstream) = application.open_at(place.address);
            let (mut source, mut sink) =
                if side == "client" { (client, upstream) } else { (upstream, client) };
            source.send(source.frame(TEXT, [b'a'; 600]));
            sink.expect(TEXT, [b'a'; 600]);
            (source, sink)
        };
        let (mut fits, mut large, mut broken) = (open(), open(), open());
        let new = place.hand_over(&mut old, &settings);
        let (source, sink) = &mut fits;
        source.send(source.frame(FIN | CONTINUATION, [b'b'; 400]));
        sink.expect(CONTINUATION, [b'b'; 400]);
        source.send(source.frame(FIN | TEXT, [b'c'; 1000]));
        sink.expect(TEXT, [b'c'; 1000]);
        let (source, sink) = &mut large;
        source.send(source.frame(FIN | CONTINUATION, [b'b'; 401]));
        source.expect_close(1009);
        sink.expect_close(1001);
        new.access_log.wait_for(&format!("by={side} during=relay why=too_big"));
        let (source, sink) = &mut broken;
        source.send(source.frame(FIN | TEXT, "another message"));
        source.expect_close(1002);
        sink.expect_close(1002);
        new.access_log.wait_for(&format!("by={side} during=relay why=malformed"));
        new.wait_for_report("frame_faults=message_inside_message:1");
    }
}

#[test]
fn counts_of_the_access_log_are_what_the_peers_counted() {
    const TUNNELS: usize = 20;
    const HANDOFFS: usize = 4;
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let mut old = place.start(&[]);
    let mut tunnels: Vec<_> = (0..TUNNELS).map(|_| application.open(&old)).collect();
    // Of each: bytes, messages and payload of the client, and the same of the application.
    let mut counts = vec![[[0_u64; 3]; 2]; TUNNELS];
    for round in 0..=HANDOFFS {
        for (number, ((client, upstream), counts)) in
            tunnels.iter_mut().zip(&mut counts).enumerate()
        {
            for (side, of_side) in counts.iter_mut().enumerate() {
                let (source, sink) = if side == 0 {
                    (&mut *client, &mut *upstream)
                } else {
                    (&mut *upstream, &mut *client)
                };
                let length = (number * 37 + round * 1_001 + side) % 3_000;
                // A message in two frames, of which the second comes after the handoff, with a Ping between.
                let end = source.frame(FIN | CONTINUATION, "end");
                let whole = source.frame(FIN | BINARY, vec![7; length]);
                let begun = source.frame(TEXT, "begun");
                let ping = source.frame(FIN | PING, "ping");
                let is_first = round == 0;
                let is_last = round == HANDOFFS;
                let mut bytes = if is_first { Vec::new() } else { end };
                bytes.extend(whole);
                if !is_last {
                    bytes.extend([begun, ping].concat());
                }
                source.send(&bytes);
                assert_eq!(sink.read_exact(bytes.len()), bytes);
                of_side[0] += bytes.len() as u64;
                of_side[1] += 1 + u64::from(!is_first);
                of_side[2] += length as u64;
                of_side[2] += 3 * u64::from(!is_first) + 5 * u64::from(!is_last);
            }
        }
        if round < HANDOFFS {
            old = place.hand_over(&mut old, &[]);
        }
    }
    let mut expected: Vec<_> = tunnels
        .iter()
        .zip(&counts)
        .map(|((client, _), counts)| (client.socket.local_addr().unwrap().to_string(), *counts))
        .collect();
    drop(tunnels);
    let lines = old
        .access_log
        .wait_until("all lines", |lines| (lines.len() == TUNNELS).then(|| lines.to_vec()));
    let mut logged: Vec<_> = lines
        .iter()
        .map(|line| {
            assert_eq!(value(line, "handoffs"), HANDOFFS.to_string(), "{line}");
            let counts = ["client", "upstream"].map(|side| {
                ["from", "messages_from", "payload_from"]
                    .map(|name| number(line, &format!("{name}_{side}")))
            });
            (value(line, "balancer").to_owned(), counts)
        })
        .collect();
    logged.sort();
    expected.sort();
    assert_eq!(logged, expected);
}
