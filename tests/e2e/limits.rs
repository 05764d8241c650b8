//! Limits of a tunnel: sizes of frames and messages, silence, age, a side that takes nothing.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use crate::proxy::{Elbows, PATIENCE};
use crate::web_socket::{
    BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, Peer, TEXT, Tunnels, head, masked, unmasked,
};

const FIN: u8 = 0x80;

/// Both ways through each test: the side that sends too much, and the other.
fn both_ways(settings: &[(&str, &str)], test: impl Fn(Peer, Peer, &str)) {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, settings);
    let (client, upstream) = tunnels.open(&elbows);
    test(client, upstream, "client");
    let (client, upstream) = tunnels.open(&elbows);
    test(upstream, client, "upstream");
    for side in ["client", "upstream"] {
        elbows.access_log.wait_for(&format!("by={side} during=relay"));
    }
}

/// The sink got all that it should, and now gets a Close and the end of the stream.
fn is_told_goodbye(mut sink: Peer, side: &str) {
    sink.expect_close(1001);
    sink.send_close(1001);
    let (frames, end) = sink.read_to_end();
    assert!(frames.is_empty() && end.is_ok(), "{side}: {frames:?} {end:?}");
}

#[test]
fn frame_over_the_limit_ends_with_1009_and_nothing_of_it_passes() {
    both_ways(&[("MAX_FRAME_SIZE", "1000")], |mut source, mut sink, side| {
        source.send_frame(BINARY, [1; 1000]);
        sink.expect(BINARY, [1; 1000]);
        source.send_frame(BINARY, [2; 1001]);
        source.expect_close(1009);
        source.send_close(1009);
        is_told_goodbye(sink, side);
    });
}

#[test]
fn message_over_the_limit_ends_with_1009_whatever_its_frames() {
    both_ways(&[("MAX_MESSAGE_SIZE", "1000")], |mut source, mut sink, side| {
        // As much as may be, in one frame and in three, control frames not counted.
        source.send_frame(TEXT, [b'1'; 1000]);
        sink.expect(TEXT, [b'1'; 1000]);
        source.send(source.frame(TEXT, [b'a'; 400]));
        source.send_frame(PONG, [b'p'; 125]);
        source.send(source.frame(CONTINUATION, [b'b'; 600]));
        source.send(source.frame(FIN | CONTINUATION, ""));
        for (opcode, payload) in
            [(TEXT, vec![b'a'; 400]), (PONG, vec![b'p'; 125]), (CONTINUATION, vec![b'b'; 600])]
        {
            sink.expect(opcode, payload);
        }
        sink.expect(CONTINUATION, "");
        // One byte more.
        source.send_frame(TEXT, [b'2'; 1001]);
        source.expect_close(1009);
        source.send_close(1009);
        is_told_goodbye(sink, side);
    });
}

/// Its first frame has been passed on. The other side gets a Close where the next one would have begun, and
/// gets it although the sender has not answered its own.
#[test]
fn message_that_grows_over_the_limit_ends_for_both_at_the_frame_that_does_it() {
    both_ways(&[("MAX_MESSAGE_SIZE", "1000")], |mut source, mut sink, side| {
        source.send(source.frame(BINARY, [1; 600]));
        sink.expect(BINARY, [1; 600]);
        source.send(source.frame(FIN | CONTINUATION, [2; 401]));
        let (frames, end) = sink.read_to_end();
        let codes: Vec<_> = frames.iter().map(Frame::code).collect();
        assert!(codes == [Some(1001)] && end.is_ok(), "{side}: {frames:?} {end:?}");
        source.expect_close(1009);
    });
}

/// The head is enough: nobody waits for the payload of a frame that will not pass.
#[test]
fn head_alone_is_over_the_limit() {
    both_ways(&[("MAX_FRAME_SIZE", "64KiB")], |mut source, sink, side| {
        let claim = if side == "client" {
            [head(FIN | BINARY, 0x80, 1 << 40), vec![0; 4]].concat()
        } else {
            head(FIN | BINARY, 0, 1 << 40)
        };
        source.send(&claim);
        source.expect_close(1009);
        is_told_goodbye(sink, side);
    });
}

/// A sender that goes on sending megabytes still finds the Close behind them: a socket closed with
/// bytes unread would be reset, and the reset would overtake it (RFC 9112, section 9.6, tells the same
/// of HTTP).
#[test]
fn sender_that_goes_on_gets_to_read_1009() {
    both_ways(&[("MAX_FRAME_SIZE", "1000")], |mut source, sink, side| {
        let frame = source.frame(FIN | BINARY, vec![3; 60_000]);
        // 6 MB, more than the buffers between hold.
        for _ in 0..100 {
            source.socket.write_all(&frame).unwrap_or_else(|error| panic!("{side}: {error}"));
        }
        source.expect_close(1009);
        is_told_goodbye(sink, side);
    });
}

#[test]
fn close_of_ours_waits_for_the_end_of_the_frame_that_is_under_way() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[("MAX_FRAME_SIZE", "1000")]);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    // Half a frame towards the client, which then sends too much.
    let frame = upstream.frame(FIN | BINARY, [1; 1000]);
    upstream.send(&frame[..500]);
    assert_eq!(client.read_exact(500), frame[..500]);
    client.send_frame(BINARY, [2; 1001]);
    upstream.expect_close(1001);
    upstream.send(&frame[500..]);
    assert_eq!(client.read_exact(504), frame[500..]);
    client.expect_close(1009);
}

#[test]
fn sizes_have_no_limit_by_themselves() {
    both_ways(&[("FRAME_CHECK", "strict")], |mut source, mut sink, _| {
        let payload = vec![7; 20 << 20];
        let frame = source.frame(FIN | BINARY, &payload);
        thread::scope(|scope| {
            scope.spawn(|| source.send(&frame));
            assert!(sink.read_exact(frame.len()) == frame);
        });
    });
}

#[test]
fn tunnel_without_data_frames_ends_at_both_sides() {
    let tunnels = Tunnels::start();
    let elbows =
        Elbows::start(tunnels.address, &[("IDLE_TIMEOUT", "5s"), ("PING_INTERVAL", "100ms")]);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    // Data of either side keeps it.
    let mut start = Instant::now();
    for round in 0..4 {
        assert!(client.only_answers_for(Duration::from_secs(2)) > 0);
        let (source, sink) = if round % 2 == 0 {
            (&mut client, &mut upstream)
        } else {
            (&mut upstream, &mut client)
        };
        start = Instant::now();
        source.send_frame(TEXT, "data");
        assert_eq!(sink.read_answering().0.payload, b"data");
    }
    // Pongs, and pings of the sides' own, do not.
    client.send_frame(PING, "no data");
    upstream.expect(PING, "no data");
    let (close, pings) = client.read_answering();
    assert!(pings > 0);
    let lived = start.elapsed();
    assert!(lived >= Duration::from_millis(4_900), "{lived:?}");
    assert_eq!((close.opcode, close.code()), (CLOSE, Some(1001)), "{close:?}");
    upstream.expect_close(1001);
    client.send_close(1001);
    upstream.send_close(1001);
    let line = elbows.access_log.wait_for("status=101");
    assert!(line.contains("by=elbows during=relay why=idle"), "{line}");
    assert!(line.contains(" close_code=1001 close_by=elbows "), "{line}");
}

#[test]
fn tunnel_that_is_old_ends_with_the_drains_code_however_busy_it_is() {
    let tunnels = Tunnels::start();
    let elbows =
        Elbows::start(tunnels.address, &[("MAX_LIFETIME", "1s"), ("DRAIN_CLOSE_CODE", "1012")]);
    let start = Instant::now();
    let (mut client, mut upstream) = tunnels.open(&elbows);
    let mut sent = 0;
    let close = loop {
        upstream.send_frame(TEXT, format!("{sent}"));
        let frame = client.read_frame();
        if frame.opcode == CLOSE {
            break frame;
        }
        assert_eq!(frame.payload, format!("{sent}").as_bytes());
        assert!(start.elapsed() < PATIENCE, "it never ends");
        sent += 1;
    };
    let lived = start.elapsed();
    // Less a tenth, by chance.
    assert!(lived >= Duration::from_millis(800), "{lived:?}");
    assert_eq!(close.code(), Some(1012));
    // What the client still says arrives, then its Close does.
    client.send_frame(TEXT, "last words");
    client.send_close(1012);
    upstream.expect(TEXT, "last words");
    upstream.expect_close(1012);
    upstream.send_close(1012);
    let line = elbows.access_log.wait_for("status=101");
    assert!(line.contains("by=elbows during=relay why=lifetime"), "{line}");
}

#[test]
fn side_that_takes_nothing_while_bytes_wait_is_given_up() {
    let tunnels = Tunnels::start();
    let settings = [("STALL_TIMEOUT", "500ms"), ("PING_INTERVAL", "off")];
    let elbows = Elbows::start(tunnels.address, &settings);
    for from_upstream in [true, false] {
        let (client, upstream) = tunnels.open(&elbows);
        let (source, sink) = if from_upstream { (upstream, client) } else { (client, upstream) };
        let frame = if from_upstream { unmasked } else { masked }(FIN | BINARY, &vec![0; 60_000]);
        let mut socket = &source.socket;
        // It is written until the buffers are full, and then until the tunnel is gone.
        let start = Instant::now();
        let error = loop {
            if let Err(error) = socket.write_all(&frame) {
                break error;
            }
        };
        assert_ne!(error.kind(), ErrorKind::WouldBlock, "nobody gave it up");
        assert!(start.elapsed() > Duration::from_millis(400), "{:?}", start.elapsed());
        let by = if from_upstream { "client" } else { "upstream" };
        let line = elbows.access_log.wait_for(&format!("by={by} during=relay"));
        assert!(line.contains("why=stalled"), "{line}");
        drop(sink);
    }
}

/// The kernel would give it up as well, and could not tell it from one that is gone.
#[test]
fn side_that_lives_and_reads_nothing_is_stalled_and_not_gone() {
    let tunnels = Tunnels::start();
    let settings = [("STALL_TIMEOUT", "2s"), ("PING_INTERVAL", "off")];
    let elbows = Elbows::start(tunnels.address, &settings);
    for side in ["client", "upstream"] {
        let (client, upstream) = tunnels.open(&elbows);
        let (source, _sink) =
            if side == "client" { (upstream, client) } else { (client, upstream) };
        let frame = source.frame(FIN | BINARY, vec![0; 60_000]);
        while (&source.socket).write_all(&frame).is_ok() {}
        let line = elbows.access_log.wait_for(&format!("by={side} during=relay"));
        assert!(line.contains("why=stalled"), "{line}");
    }
}

#[test]
fn side_that_takes_its_time_is_not_given_up() {
    let tunnels = Tunnels::start();
    let elbows = Elbows::start(tunnels.address, &[("STALL_TIMEOUT", "3s")]);
    let (mut client, mut upstream) = tunnels.open(&elbows);
    let frame = upstream.frame(FIN | BINARY, vec![9; 24 << 20]);
    thread::scope(|scope| {
        scope.spawn(|| upstream.send(&frame));
        // Some at a time, and none for less than the limit in between: twice as long as it in all.
        for part in frame.chunks(frame.len().div_ceil(12)) {
            assert!(client.read_exact(part.len()) == part);
            // A slow reader: time is what it takes.
            thread::sleep(Duration::from_millis(500));
        }
    });
    client.send_frame(TEXT, "all there");
    upstream.expect(TEXT, "all there");
    client.socket.shutdown(Shutdown::Write).unwrap();
}
