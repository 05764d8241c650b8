//! Bodies, in any pieces: what goes out is parsed back by a decoder that shares nothing with the code.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::fuzzing::decode::{self, Decoded};

/// What became of a body that came in pieces.
#[derive(Debug, Default, PartialEq, Eq)]
struct Passed {
    out: Vec<u8>,
    /// Bytes that were taken.
    used: usize,
    data: u64,
    is_over: bool,
    fault: Option<Fault>,
    /// Bytes that passed without a look.
    unseen: u64,
}

/// Gives a body its bytes in pieces of these sizes, again and again, as an exchange does: what is left of a piece comes
/// before the next one. From `bulk` bytes on that may pass unseen, a piece does.
fn pass(mut body: Body, bytes: &[u8], pieces: &[usize], bulk: u64) -> Passed {
    let mut passed = Passed::default();
    let mut sizes = pieces.iter().cycle();
    let mut came = 0;
    while came < bytes.len() && !body.is_over() {
        let piece = *sizes.next().unwrap();
        let next = (came + piece).min(bytes.len());
        let unseen = body.unseen();
        if passed.used == came && unseen >= bulk.max(1) {
            let count = unseen.min(piece as u64);
            let end = came + usize::try_from(count).unwrap().min(bytes.len() - came);
            passed.out.extend_from_slice(&bytes[came..end]);
            passed.unseen += (end - came) as u64;
            body.passed_unseen((end - came) as u64, &mut passed.out);
            came = end;
            passed.used = end;
            continue;
        }
        came = next;
        match body.pass(&bytes[passed.used..came], &mut passed.out) {
            Ok(used) => passed.used += used,
            Err(fault) => {
                passed.fault = Some(fault);
                break;
            }
        }
    }
    passed.data = body.data;
    passed.is_over = body.is_over();
    passed
}

fn chunked(sink: Sink, trailers: Trailers) -> Body {
    Body::new(Framing::Chunked, sink, trailers, HeadLimits::DEFAULT)
}

fn chunks_to_chunks() -> Body {
    chunked(Sink::CHUNKED, Trailers::OfResponse)
}

/// `bytes` as chunks of these sizes, again and again.
fn in_chunks(bytes: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, others) = rest.split_at((*size).min(rest.len()));
        rest = others;
        // All extensions of a body have one limit.
        let extension = if out.is_empty() { " ;a=\"b\"" } else { "" };
        out.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"00\r\n");
    out
}

#[test]
fn many_small_chunks_become_one_for_each_call() {
    let data = vec![b'x'; 120_000];
    let bytes = [in_chunks(&data, &[1]), b"\r\n".to_vec()].concat();
    let passed = pass(chunks_to_chunks(), &bytes, &[64 * 1024], u64::MAX);
    let decoded = decode::chunks(&passed.out);
    assert!(decoded.data == data && decoded.is_whole);
    assert!(passed.is_over && passed.used == bytes.len());
    assert_eq!(decoded.chunks, bytes.len().div_ceil(64 * 1024));
}

#[test]
fn large_chunk_is_announced_once_and_may_pass_unseen() {
    let size = usize::try_from(BULK).unwrap() * 3;
    let data: Vec<u8> = (0..size).map(|at| at.to_le_bytes()[0]).collect();
    let bytes = [in_chunks(&data, &[size]), b"\r\n".to_vec()].concat();
    let whole = [format!("{size:x}\r\n").as_bytes(), &data, b"\r\n0\r\n\r\n"].concat();
    for (piece, bulk) in [(1_000, u64::MAX), (1_000, 1), (7, BULK), (64 * 1024, BULK)] {
        let passed = pass(chunks_to_chunks(), &bytes, &[piece], bulk);
        assert!(passed.out == whole, "in pieces of {piece}");
        assert_eq!((passed.data, passed.is_over), (size as u64, true));
        assert_eq!(passed.unseen > 0, bulk < u64::MAX);
    }
}

#[test]
fn nothing_passes_unseen_where_both_sides_are_framed_in_another_way() {
    let limits = HeadLimits::DEFAULT;
    let until_close = |sink| Body::new(Framing::UntilClose, sink, Trailers::Dropped, limits);
    assert_eq!(until_close(Sink::CHUNKED).unseen(), 0);
    assert_eq!(until_close(Sink::Plain).unseen(), u64::MAX);
    assert_eq!(Body::new(Framing::Length(9), Sink::Plain, Trailers::Dropped, limits).unseen(), 9);
    // Before the chunk was announced its size is not known to the receiver.
    let mut body = chunks_to_chunks();
    let mut out = Vec::new();
    body.pass(b"fffff\r\n", &mut out).unwrap();
    assert_eq!((body.unseen(), &out[..]), (0, &b""[..]));
    body.pass(b"x", &mut out).unwrap();
    assert_eq!((body.unseen(), &out[..]), (0xffffe, &b"fffff\r\nx"[..]));
    // A small one is not announced as a whole.
    let mut body = chunks_to_chunks();
    body.pass(b"ff\r\nx", &mut out).unwrap();
    assert_eq!(body.unseen(), 0);
    // The receiver of a plain body needs no announcement.
    let mut body = chunked(Sink::Plain, Trailers::Dropped);
    body.pass(b"ff\r\nx", &mut out).unwrap();
    assert_eq!(body.unseen(), 0xfe);
}

#[test]
fn trailers_pass_without_what_nobody_but_elbows_may_say() {
    let bytes = b"0\r\nX-Sum: 1\r\nConnection: x\r\nX-Forwarded-For: 9.9.9.9\r\nx_real_ip: 9\r\nTE: y\r\nZ:\r\n\r\n";
    let field = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let sum = field("X-Sum", "1");
    let claims = [field("X-Forwarded-For", "9.9.9.9"), field("x_real_ip", "9")];
    let last = field("Z", "");
    for (sink, trailers, expected) in [
        (Sink::CHUNKED, Trailers::OfRequest, vec![sum.clone(), last.clone()]),
        (Sink::CHUNKED, Trailers::OfResponse, [vec![sum], claims.to_vec(), vec![last]].concat()),
        (Sink::CHUNKED, Trailers::Dropped, vec![]),
    ] {
        for piece in [1, bytes.len()] {
            let passed = pass(chunked(sink, trailers), bytes, &[piece], u64::MAX);
            let decoded = decode::chunks(&passed.out);
            assert!(decoded.is_whole && passed.is_over && passed.used == bytes.len());
            assert_eq!(decoded.trailers, expected, "{trailers:?} in pieces of {piece}");
        }
    }
    let plain = pass(chunked(Sink::Plain, Trailers::OfResponse), bytes, &[1], u64::MAX);
    assert_eq!((plain.out, plain.is_over), (vec![], true));
}

#[test]
fn body_until_the_close_becomes_chunks_or_stays_plain() {
    for (sink, whole) in
        [(Sink::CHUNKED, &b"3\r\none\r\n5\r\nthree\r\n0\r\n\r\n"[..]), (Sink::Plain, b"onethree")]
    {
        let mut body = Body::new(Framing::UntilClose, sink, Trailers::Dropped, HeadLimits::DEFAULT);
        let mut out = Vec::new();
        for part in [&b"one"[..], b"", b"three"] {
            assert_eq!(body.pass(part, &mut out), Ok(part.len()));
        }
        assert!(body.is_until_close() && !body.is_over());
        body.finish(&mut out);
        assert_eq!((&out[..], body.data, body.is_over()), (whole, 8, true));
    }
}

#[test]
fn what_came_before_a_fault_is_delivered() {
    for (bytes, data) in [
        (&b"3\r\nxxx__"[..], &b"xxx"[..]),
        (b"3\r\nxxx\r\n2\r\nyyy\r\n", b"xxxyy"),
        (b"1\r\na\r\n1\r\nb\r\n0\r\nno field\r\n\r\n", b"ab"),
        (b"1\r\na\r\nzz", b"a"),
    ] {
        for piece in [1, 2, bytes.len()] {
            let passed = pass(chunks_to_chunks(), bytes, &[piece], u64::MAX);
            let decoded = decode::chunks(&passed.out);
            assert!(passed.fault.is_some() && !passed.is_over && !decoded.is_whole);
            assert_eq!(decoded.data, data);
            let plain = pass(chunked(Sink::Plain, Trailers::Dropped), bytes, &[piece], u64::MAX);
            assert_eq!((&plain.out[..], plain.fault), (data, passed.fault));
        }
    }
}

#[test]
fn what_is_behind_a_body_is_not_taken() {
    let limits = HeadLimits::DEFAULT;
    let mut out = Vec::new();
    let mut body = Body::new(Framing::Length(3), Sink::Plain, Trailers::Dropped, limits);
    assert_eq!(body.pass(b"abcd", &mut out), Ok(3));
    assert_eq!(body.pass(b"d", &mut out), Ok(0));
    assert!(body.is_over() && out == b"abc");
    let mut body = chunks_to_chunks();
    assert_eq!(body.pass(b"0\r\n\r\nGET", &mut out), Ok(5));
    assert_eq!(body.pass(b"GET", &mut out), Ok(0));
    for framing in [Framing::Absent, Framing::Length(0)] {
        let body = Body::new(framing, Sink::Plain, Trailers::Dropped, limits);
        assert!(body.is_over() && body.unseen() == 0);
    }
}

#[test]
fn longest_length_can_be_counted() {
    let longest = Framing::Length(u64::MAX);
    let mut body = Body::new(longest, Sink::Plain, Trailers::Dropped, HeadLimits::DEFAULT);
    let mut out = Vec::new();
    assert_eq!(body.pass(b"abc", &mut out), Ok(3));
    assert_eq!(body.unseen(), u64::MAX - 3);
    body.passed_unseen(u64::MAX - 3, &mut out);
    assert!(body.is_over() && body.data == u64::MAX);
}

/// Sizes of pieces, of which most are small.
fn pieces() -> impl Strategy<Value = Vec<usize>> {
    let piece = prop_oneof![4 => 1..8_usize, 2 => 1..400_usize, 1 => 1..100_000_usize];
    prop::collection::vec(piece, 1..6)
}

/// Data, mostly short, and at times long enough to pass unseen.
fn data() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![4 => 0..200_usize, 1 => 0..150_000_usize];
    (length, any::<u8>()).prop_map(|(length, first)| {
        (0..length).map(|at| at.to_le_bytes()[0].wrapping_add(first)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn any_pieces_of_chunks_give_the_same_data(
        data in data(),
        sizes in pieces(),
        pieces in pieces(),
        bulk in 1..100_000_u64,
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut bytes = in_chunks(&data, &sizes);
        bytes.extend_from_slice(b"X-Sum: 1\r\n\r\n");
        let end = bytes.len();
        if let Some((place, value)) = damage {
            bytes[place.index(end)] = value;
        }
        bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
        for sink in [Sink::CHUNKED, Sink::Plain] {
            let body = || chunked(sink, Trailers::OfResponse);
            let decoded = |passed: &Passed| match sink {
                Sink::Plain => Decoded { data: passed.out.clone(), ..Decoded::default() },
                Sink::Chunked(_) => decode::chunks(&passed.out),
            };
            let whole = pass(body(), &bytes, &[bytes.len()], u64::MAX);
            let split = pass(body(), &bytes, &pieces, bulk);
            let (one, other) = (decoded(&whole), decoded(&split));
            prop_assert!(one.data == other.data && one.trailers == other.trailers);
            prop_assert_eq!(one.is_whole, other.is_whole);
            prop_assert_eq!(one.data.len() as u64, whole.data);
            prop_assert_eq!((whole.data, whole.is_over, whole.fault), (split.data, split.is_over, split.fault));
            if whole.is_over {
                prop_assert_eq!(whole.used, split.used);
            }
            if damage.is_none() {
                prop_assert!(one.data == data && whole.is_over && whole.used == end);
            }
        }
    }

    #[test]
    fn any_pieces_of_a_length_give_the_same_data(
        data in data(),
        short in 0..4_usize,
        pieces in pieces(),
        bulk in 1..100_000_u64,
    ) {
        // More or fewer bytes than the length says.
        let length = data.len().saturating_sub(2) + short;
        let body = Body::new(Framing::Length(length as u64), Sink::Plain, Trailers::Dropped, HeadLimits::DEFAULT);
        let passed = pass(body, &data, &pieces, bulk);
        let there = length.min(data.len());
        prop_assert!(passed.out == data[..there]);
        prop_assert_eq!((passed.used, passed.is_over), (there, there == length));
    }
}
