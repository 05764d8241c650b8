//! The records in `tests/records`: what each release wrote is what this version reads.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::websocket::scanner::{Rules, Tally, Until};

/// A state, for a process that is at this moment.
type Make = fn(Now, Duration) -> State;

/// The records of each release, oldest first: what they are, and the state that they are to be read as.
const RELEASES: &[(&str, &[(&str, Make)])] = &[(
    "1",
    &[
        ("idle", idle),
        ("told", told),
        ("mid_frame", mid_frame),
        ("close_handshake", close_handshake),
        ("half_closed", half_closed),
        ("pings_in_flight", pings_in_flight),
        ("refused", refused),
        ("other_protocol", other_protocol),
        ("ordered", ordered),
        ("routed", routed),
    ],
)];

const SECRET: Secret = Secret::new(0x0123_4567_89ab_cdef);

/// In ticks.
fn seconds(seconds: u32) -> u32 {
    50 * seconds
}

/// A tunnel that has been open for a minute, in which these bytes have passed.
fn opened(
    protocol: Protocol,
    now: Now,
    elapsed: Duration,
    client: &[u8],
    upstream: &[u8],
) -> State {
    let address = |text: &str| text.parse().unwrap();
    let identity = Identity::new(
        address("203.0.113.7:51234"),
        address("10.0.0.5:41278"),
        address("[2001:db8::9]:45490"),
        "GET /ws HTTP/1.1",
        "0c0b91f13484e8580000000000000000",
        Since::ago(Duration::from_micros(61_030_250), elapsed),
    );
    let mut state =
        State::new(protocol, Pair { client: Vec::new(), upstream: Vec::new() }, identity);
    state.secret = Some(SECRET);
    state.client_alive = Keepalive::new(now.tick.wrapping_sub(seconds(3)));
    state.idle = Mark { since: now.tick.wrapping_sub(seconds(4)), seen: 7 };
    state.stalled = Pair::of(|_| now.tick.wrapping_sub(seconds(60)));
    let due = (Leave::Aged, now.tick.wrapping_add(seconds(3600)));
    state.close_handshake = CloseHandshake::Open { due: Some(due) };
    for (flow, bytes) in [(&mut state.flows.client, client), (&mut state.flows.upstream, upstream)]
    {
        flow.is_unscanned = false;
        if protocol == Protocol::WebSocket {
            let none = None::<fn([u8; 8]) -> bool>;
            let rules = Rules::new(Some(1 << 20), None, false);
            let _ = flow.scanner.scan(bytes, &rules, Until::End, &mut Tally::default(), none);
        }
        flow.passed = bytes.len() as u64;
    }
    state
}

/// "hi" each way.
pub(super) fn idle(now: Now, elapsed: Duration) -> State {
    let client = [0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2];
    opened(Protocol::WebSocket, now, elapsed, &client, &[0x81, 2, b'h', b'i'])
}

/// Its handshake said all that one can say.
fn told(now: Now, elapsed: Duration) -> State {
    let mut state = idle(now, elapsed);
    let handshake = Handshake {
        host: "app.example:8443",
        user_agent: "Mozilla/5.0 (X11; Linux x86_64)",
        subprotocol: "graphql-transport-ws",
        trace_id: Some(TraceId(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes())),
    };
    state.identity = state.identity.with(&handshake);
    state
}

/// It took a route that has a name.
fn routed(now: Now, elapsed: Duration) -> State {
    let mut state = told(now, elapsed);
    let identity = &state.identity;
    let addresses = [identity.client(), identity.balancer(), identity.upstream()];
    let id = (&*identity.request_id()).into();
    let (line, started, said) = (identity.request_line(), identity.started(), identity.handshake());
    state.identity = Identity::of(addresses, line, &id, started, &said, "chat");
    state
}

/// The client is in a frame head, held back since there is a limit; the upstream is in a large frame of a message, of
/// which some waits.
fn mid_frame(now: Now, elapsed: Duration) -> State {
    let upstream = [&[0x02, 126, 0x40, 0][..], &[b'x'; 100]].concat();
    let mut state = opened(Protocol::WebSocket, now, elapsed, &[0x82, 0xfe, 1], &upstream);
    state.flows.client.passed = 0;
    let upstream = &mut state.flows.upstream;
    upstream.waiting = b"xxxxxxxx".to_vec().into();
    upstream.passed -= 8;
    upstream.has_moved = true;
    upstream.is_bulk = true;
    state.handoffs = 1;
    state
}

/// A Close of ours waits for the end of a message of the upstream, and the client has a second to answer it.
fn close_handshake(now: Now, elapsed: Duration) -> State {
    let mut state = opened(Protocol::WebSocket, now, elapsed, &[], &[0x01, 1, b'a']);
    let then = Passage::Discard;
    state.flows.upstream.own_frame = OwnFrame::Close { code: 1001, after_message: true, then };
    let end = End::new(Side::Elbows, Phase::Drain, Reason::Drained);
    let until = now.tick.wrapping_add(seconds(1));
    state.close_handshake = CloseHandshake::AwaitAnswer { end, until };
    state.close = Some(Close { by: Side::Elbows, code: 1001 });
    state
}

/// The client has sent its Close and the end of its stream, which the upstream got.
fn half_closed(now: Now, elapsed: Duration) -> State {
    let close = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];
    let mut state = opened(Protocol::WebSocket, now, elapsed, &close, &[0x81, 0]);
    state.flows.client.source = Source::Ended;
    state.flows.client.sink = Sink::Ended;
    state.close = Some(Close { by: Side::Client, code: 1000 });
    state.ended_first = Some(Peer::Client);
    state
}

/// Both sides are pinged; the client has answered one Ping and not the next, whose frame still waits.
fn pings_in_flight(now: Now, elapsed: Duration) -> State {
    let mut state = idle(now, elapsed);
    // Stamps go on as they are, wherever they are read.
    let sent = |millis| Now { tick: now.tick, stamp: Stamp::at(Duration::from_millis(millis)) };
    let ping = state.client_alive.ping(sent(1000), SECRET);
    assert!(state.client_alive.is_answered_by(ping, sent(1012).stamp, SECRET));
    let ping = state.client_alive.ping(sent(9000), SECRET);
    let upstream = state.upstream_alive.get_or_insert_default();
    upstream.heard(now.tick.wrapping_sub(seconds(20)));
    let _ = upstream.ping(sent(8000), SECRET);
    state.flows.upstream.waiting = [&[0x89, 8][..], &ping].concat().into();
    state.flows.upstream.own = 20;
    state.flows.upstream.passed += 10;
    state.flows.client.own_frame = OwnFrame::Ping;
    state.handoffs = 300;
    state
}

/// The client broke a limit; the upstream's socket is broken. Both have time to read the last bytes.
fn refused(now: Now, elapsed: Duration) -> State {
    let mut state = opened(Protocol::WebSocket, now, elapsed, &[], &[]);
    let end = End::new(Side::Client, Phase::Relay, Reason::TooBig);
    let [until, longest] = [1, 30].map(|length| now.tick.wrapping_add(seconds(length)));
    state.close_handshake = CloseHandshake::Linger { end, until, longest };
    state.close = Some(Close { by: Side::Elbows, code: 1009 });
    let Pair { client, upstream } = &mut state.flows;
    client.passage = Passage::Finish;
    client.sink = Sink::Broken;
    client.has_come = true;
    client.ends_behind_close = true;
    upstream.source = Source::Broken { told: true };
    upstream.passage = Passage::Finish;
    upstream.sink = Sink::Ended;
    upstream.passed = 4;
    upstream.own = 4;
    state
}

/// Bytes, not frames, and some that came before the tunnel opened.
fn other_protocol(now: Now, elapsed: Duration) -> State {
    let mut state = opened(Protocol::Other, now, elapsed, b"1234", b"123");
    state.flows.client.is_unscanned = true;
    state.flows.client.waiting = b"early".to_vec().into();
    state
}

/// A Close that was ordered waits for the end of a frame, with what it is to say.
fn ordered(now: Now, elapsed: Duration) -> State {
    let mut state = opened(Protocol::WebSocket, now, elapsed, &[], &[0x81, 2, b'a']);
    let then = Passage::Discard;
    state.flows.upstream.own_frame = OwnFrame::Close { code: 4000, after_message: true, then };
    let end = End::new(Side::Elbows, Phase::Relay, Reason::Ordered);
    let until = now.tick.wrapping_add(seconds(1));
    state.close_handshake = CloseHandshake::AwaitAnswer { end, until };
    state.close_reason = CloseReason::new("go home");
    state
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/records")
}

/// The bytes of a file: digits in pairs, and comments.
fn bytes_of(file: &Path) -> Vec<u8> {
    let text =
        fs::read_to_string(file).unwrap_or_else(|fault| panic!("{}: {fault}", file.display()));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let digits: Vec<_> = lines.flat_map(str::chars).filter_map(|char| char.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
}

/// Each record: its file, and the state that it is to be read as.
fn records() -> impl Iterator<Item = (PathBuf, Make)> {
    RELEASES.iter().flat_map(|(release, records)| {
        records.iter().map(move |(name, make)| {
            (folder().join(release).join(name).with_extension("hex"), *make)
        })
    })
}

#[test]
fn what_each_release_wrote_is_read() {
    let elapsed = elapsed();
    for (file, make) in records() {
        for tick in [0, 77, u32::MAX] {
            let read = State::from_bytes(&bytes_of(&file), now(tick), elapsed);
            assert_eq!(read, Ok(make(now(tick), elapsed)), "{}", file.display());
        }
    }
}

/// What this version makes of a record goes on to the next process as it is.
#[test]
fn what_each_release_wrote_is_written_and_read_again() {
    let elapsed = elapsed();
    for (file, make) in records() {
        let state = State::from_bytes(&bytes_of(&file), now(3), elapsed).unwrap();
        let again = State::from_bytes(&state.to_bytes(now(3), elapsed), now(9), elapsed);
        assert_eq!(again, Ok(make(now(9), elapsed)), "{}", file.display());
    }
}

/// Where this fails on purpose, because there is a new field, the records of the release to come are to be kept beside
/// those of the last one: `tests/records/README.md` says how.
#[test]
fn the_last_release_writes_as_this_version_does() {
    let elapsed = elapsed();
    let (release, records) = RELEASES.last().unwrap();
    for (name, make) in *records {
        let file = folder().join(release).join(name).with_extension("hex");
        assert_eq!(make(now(1), elapsed).to_bytes(now(1), elapsed), bytes_of(&file), "{name}");
    }
}

#[test]
fn each_kept_record_is_of_a_state() {
    let kept = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let folders = kept(folder()).filter(|path| path.is_dir());
    let files: BTreeSet<_> = folders.flat_map(kept).collect();
    assert_eq!(files, records().map(|(file, _)| file).collect());
}

/// For a release to come: writes the records of the last one in the list that are not there yet.
#[test]
#[ignore = "it writes files"]
fn write_the_records_of_the_last_release() {
    let elapsed = elapsed();
    let (release, records) = RELEASES.last().unwrap();
    for (name, make) in *records {
        let file = folder().join(release).join(name).with_extension("hex");
        if file.exists() {
            continue;
        }
        let bytes = make(now(1), elapsed).to_bytes(now(1), elapsed);
        let mut text = format!("# {name}: {} bytes\n", bytes.len());
        for line in bytes.chunks(32) {
            for byte in line {
                write!(text, "{byte:02x}").unwrap();
            }
            text.push('\n');
        }
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
}
