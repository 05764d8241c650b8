//! Heads whole and in pieces: what passes, what does not, and at which byte that is said.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

/// A head that comes in one piece.
fn request<'a>(
    bytes: &'a [u8],
    limits: &HeadLimits,
) -> Result<Option<(Request<'a>, usize)>, Fault> {
    Reader::default().request(bytes, limits)
}

fn response<'a>(
    bytes: &'a [u8],
    limits: &HeadLimits,
) -> Result<Option<(Response<'a>, usize)>, Fault> {
    Reader::default().response(bytes, limits)
}

/// What was said of a head, without what it borrows: the head and its length, or the rule that is broken.
type Verdict = Result<(String, usize), Fault>;

/// One of the two that a [`Reader`] reads.
type Read = fn(&mut Reader, &[u8], &HeadLimits) -> Option<Verdict>;

fn of_request(reader: &mut Reader, bytes: &[u8], limits: &HeadLimits) -> Option<Verdict> {
    let read = reader.request(bytes, limits).transpose()?;
    Some(read.map(|(head, used)| (format!("{head:?}"), used)))
}

fn of_response(reader: &mut Reader, bytes: &[u8], limits: &HeadLimits) -> Option<Verdict> {
    let read = reader.response(bytes, limits).transpose()?;
    Some(read.map(|(head, used)| (format!("{head:?}"), used)))
}

/// How many bytes had come when there was a verdict, if `lengths` come one after the other, and the verdict.
fn in_pieces(
    read: Read,
    bytes: &[u8],
    limits: &HeadLimits,
    lengths: impl IntoIterator<Item = usize>,
) -> Option<(usize, Verdict)> {
    let mut reader = Reader::default();
    let mut came = 0;
    for length in lengths {
        came = bytes.len().min(came + length);
        if let Some(verdict) = read(&mut reader, &bytes[..came], limits) {
            return Some((came, verdict));
        }
    }
    None
}

/// The verdict over all bytes, and at which byte it stands. It is the same however they come.
fn verdict(read: Read, bytes: &[u8], limits: &HeadLimits) -> Option<(usize, Verdict)> {
    let single = in_pieces(read, bytes, limits, bytes.iter().map(|_| 1));
    let whole = read(&mut Reader::default(), bytes, limits);
    assert_eq!(whole, single.clone().map(|(_, verdict)| verdict), "{:?}", bytes.escape_ascii());
    single
}

/// The rule that these bytes break with their last byte and not before.
fn fault(read: Read, bytes: &[u8]) -> Option<Fault> {
    let (came, verdict) = verdict(read, bytes, &HeadLimits::DEFAULT)?;
    assert_eq!(came, bytes.len(), "{}", bytes.escape_ascii());
    verdict.err()
}

#[test]
fn wrong_request_is_told_at_the_byte_that_is_wrong() {
    for (bytes, rule) in [
        (&b"G\xc9"[..], Fault::Method),
        (b" ", Fault::Method),
        (b"\n", Fault::LineEnd),
        (b"\r\n\r", Fault::LineEnd),
        (b"\rG", Fault::LineEnd),
        (b"GET\r", Fault::RequestLine),
        (b"GET  ", Fault::RequestLine),
        (b"GET /\r", Fault::RequestLine),
        (b"GET /\t", Fault::Target),
        (b"GET /x#", Fault::Target),
        (b"GET /\x7f", Fault::Target),
        (b"GET / h", Fault::RequestLine),
        (b"GET / HTTPS", Fault::RequestLine),
        (b"GET / HTTP/x", Fault::RequestLine),
        (b"GET / HTTP/11", Fault::RequestLine),
        (b"GET / HTTP/1.x", Fault::RequestLine),
        (b"GET / HTTP/5.6", Fault::Version),
        (b"GET / HTTP/1.10", Fault::RequestLine),
        (b"GET / HTTP/1.1\n", Fault::LineEnd),
        (b"GET / HTTP/1.1\r\r", Fault::LineEnd),
        (b"CONNECT a:1 HTTP/1.1\r\n", Fault::Connect),
        (b"GET x HTTP/1.1\r\n", Fault::Target),
        (b"GET / HTTP/1.1\r\n ", Fault::Folding),
        (b"GET / HTTP/1.1\r\nX: 1\r\n\t", Fault::Folding),
        (b"GET / HTTP/1.1\r\nX ", Fault::FieldName),
        (b"GET / HTTP/1.1\r\n:", Fault::FieldName),
        (b"GET / HTTP/1.1\r\nX\r", Fault::FieldName),
        (b"GET / HTTP/1.1\r\nX: b\x01", Fault::ControlByte),
        (b"GET / HTTP/1.1\r\nX: a value that is long enough\x7f", Fault::ControlByte),
        (b"GET / HTTP/1.1\r\nX: 1\n", Fault::LineEnd),
        (b"GET / HTTP/1.1\r\nX: 1\r2", Fault::LineEnd),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", Fault::LineEnd),
        (b"GET / HTTP/1.1\r\n\r\n", Fault::NoHost),
    ] {
        assert_eq!(fault(of_request, bytes), Some(rule), "{}", bytes.escape_ascii());
    }
}

#[test]
fn wrong_response_is_told_at_the_byte_that_is_wrong() {
    for (bytes, rule) in [
        (&b"h"[..], Fault::StatusLine),
        (b"\rH", Fault::LineEnd),
        (b"\r\n\r", Fault::StatusLine),
        (b"\n\n", Fault::StatusLine),
        (b"HTTP/2", Fault::StatusLine),
        (b"HTTP/1.2", Fault::StatusLine),
        (b"HTTP/1.1  ", Fault::StatusLine),
        (b"HTTP/1.1 0", Fault::StatusLine),
        (b"HTTP/1.1 20 ", Fault::StatusLine),
        (b"HTTP/1.1 2000", Fault::StatusLine),
        (b"HTTP/1.1 200 O\0", Fault::StatusLine),
        (b"HTTP/1.1 200 OK\r\r", Fault::LineEnd),
        (b"HTTP/1.1 200 OK\r\n ", Fault::Folding),
        (b"HTTP/1.1 200 OK\nX ", Fault::FieldName),
        (b"HTTP/1.1 200 OK\r\nX: 1\r2", Fault::LineEnd),
        (b"HTTP/1.1 200 OK\r\nX: \0", Fault::ControlByte),
    ] {
        assert_eq!(fault(of_response, bytes), Some(rule), "{}", bytes.escape_ascii());
    }
}

#[test]
fn target_passes_with_any_byte_that_has_one_meaning() {
    let mut passing = Vec::new();
    for byte in 0..=u8::MAX {
        let line = [b"GET /a".as_slice(), &[byte], b"z?b", &[byte], b" HTTP/1.1\r\n"].concat();
        let head = [&line, b"Host: a\r\n\r\n".as_slice()].concat();
        let Some((came, verdict)) = verdict(of_request, &head, &HeadLimits::DEFAULT) else {
            panic!("{byte:#x} has no verdict");
        };
        match verdict {
            Ok(_) => passing.push(byte),
            Err(rule) => {
                let expected = match byte {
                    b'\r' | b'\n' | b' ' => (Fault::RequestLine, 7 + usize::from(byte == b' ')),
                    _ => (Fault::Target, 7),
                };
                assert_eq!((rule, came), expected, "{byte:#x}");
            }
        }
    }
    let expected: Vec<_> =
        (0..=u8::MAX).filter(|byte| *byte > b' ' && !matches!(byte, b'#' | 0x7f)).collect();
    assert_eq!(passing, expected);
}

#[test]
fn absolute_target_has_a_host_that_ends_at_its_path() {
    let target = |target: &[u8]| {
        let head = [b"GET ", target, b" HTTP/1.1\r\nHost: b\r\n\r\n"].concat();
        match request(&head, &HeadLimits::DEFAULT) {
            Ok(Some((Request { target: Target::Absolute(host, path), .. }, _))) => {
                Some((host.to_vec(), path.to_vec()))
            }
            _ => None,
        }
    };
    let parts = |host: &[u8], path: &[u8]| Some((host.to_vec(), path.to_vec()));
    assert_eq!(target(b"http://a/\\\xff"), parts(b"a", b"/\\\xff"));
    assert_eq!(target(b"HTTPS://a?<"), parts(b"a", b"?<"));
    assert_eq!(target(b"http://a\\b/"), None);
    assert_eq!(target(b"http://\xff/"), None);
    assert_eq!(target(b"http:///"), None);
}

#[test]
fn length_is_a_number_with_zeros_in_front_or_without() {
    let framing = |length: &str| {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        request(head.as_bytes(), &HeadLimits::DEFAULT).map(|read| read.unwrap().0.framing)
    };
    for (length, number) in [("3", 3), ("003", 3), ("00", 0), ("010", 10), ("0", 0)] {
        assert_eq!(framing(length), Ok(Framing::Length(number)), "{length}");
    }
    assert_eq!(framing(&format!("{:040}", 5)), Ok(Framing::Length(5)));
    assert_eq!(framing("9223372036854775807"), Ok(Framing::Length(u64::MAX / 2)));
    for length in ["9223372036854775808", "", "+3", "-3", "3,3", "3 3", "0x3", "3.0", "\u{663}"] {
        assert_eq!(framing(length), Err(Fault::Length), "{length}");
    }
}

#[test]
fn response_is_read_leniently_only_where_one_meaning_is_possible() {
    let plain = b"HTTP/1.1 200 OK\r\nX: 1\r\nY: 2\r\n\r\n".as_slice();
    let (expected, _) = response(plain, &HeadLimits::DEFAULT).unwrap().unwrap();
    for bytes in [
        b"HTTP/1.1 200 OK\nX: 1\nY: 2\n\n".as_slice(),
        b"HTTP/1.1 200 OK\r\nX: 1\nY: 2\r\n\n",
        b"HTTP/1.1 200 OK\nX: 1\r\nY: 2\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\nX: 1\r\nY: 2\r\n\r\n",
        b"\nHTTP/1.1 200 OK\r\nX: 1\r\nY: 2\r\n\r\n",
    ] {
        let (came, verdict) = verdict(of_response, bytes, &HeadLimits::DEFAULT).unwrap();
        let expected = (format!("{expected:?}"), bytes.len());
        assert_eq!((came, verdict), (bytes.len(), Ok(expected)), "{}", bytes.escape_ascii());
    }
    for (line, reason) in [
        (&b"HTTP/1.0 404"[..], &b""[..]),
        (b"HTTP/1.0 404 ", b""),
        (b"HTTP/1.0 404 Not \xff\tFound", b"Not \xff\tFound"),
    ] {
        let bytes = [line, b"\r\n\r\n"].concat();
        let (head, _) = response(&bytes, &HeadLimits::DEFAULT).unwrap().unwrap();
        assert_eq!((head.version, head.status, head.reason), (Version::Http10, 404, reason));
        assert!(head.fields.is_empty());
    }
}

#[test]
fn response_behind_a_100_may_have_an_empty_line_in_front() {
    let bytes = b"HTTP/1.1 100 Continue\r\n\r\n\r\nHTTP/1.1 200 OK\r\n\r\nbody";
    let mut reader = Reader::default();
    let (first, used) = reader.response(bytes, &HeadLimits::DEFAULT).unwrap().unwrap();
    let (second, further) = reader.response(&bytes[used..], &HeadLimits::DEFAULT).unwrap().unwrap();
    assert_eq!((first.status, second.status), (100, 200));
    assert_eq!(&bytes[used + further..], b"body");
}

#[test]
fn length_of_a_response_is_what_its_status_and_fields_say() {
    let framing = |lines: &str, to_head| {
        let head = format!("HTTP/1.{lines}\r\n\r\n");
        let read = response(head.as_bytes(), &HeadLimits::DEFAULT);
        let (head, _) = read.unwrap().unwrap();
        head.framing(to_head)
    };
    let chunked = "Transfer-Encoding: chunked";
    for (lines, expected) in [
        ("1 200 OK".to_owned(), Ok(Framing::UntilClose)),
        ("0 200 OK".to_owned(), Ok(Framing::UntilClose)),
        ("1 200 OK\r\nContent-Length: 05".to_owned(), Ok(Framing::Length(5))),
        ("1 200 OK\r\nContent-Length: 0".to_owned(), Ok(Framing::Length(0))),
        (format!("1 200 OK\r\n{chunked}"), Ok(Framing::Chunked)),
        ("1 204 No Content\r\nContent-Length: 5".to_owned(), Ok(Framing::Absent)),
        ("1 304 Not Modified\r\nContent-Length: 5".to_owned(), Ok(Framing::Absent)),
        ("1 101 Other\r\nContent-Length: x".to_owned(), Ok(Framing::Absent)),
        ("1 103 Early\r\nContent-Length: 5".to_owned(), Ok(Framing::Absent)),
        (format!("0 200 OK\r\n{chunked}"), Err(Fault::OldCoding)),
        (format!("1 200 OK\r\n{chunked}, chunked"), Err(Fault::Coding)),
        (format!("1 200 OK\r\n{chunked}\r\n{chunked}"), Err(Fault::Coding)),
        (format!("1 200 OK\r\nContent-Length: 5\r\n{chunked}"), Err(Fault::LengthAndCoding)),
        ("1 200 OK\r\nTransfer-Encoding: gzip".to_owned(), Err(Fault::Coding)),
        ("1 200 OK\r\nTransfer-Encoding: gzip, chunked".to_owned(), Err(Fault::UnknownCoding)),
        (
            "1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5".to_owned(),
            Err(Fault::SeveralLengths),
        ),
        ("1 304 OK\r\nContent-Length: x".to_owned(), Err(Fault::Length)),
    ] {
        assert_eq!(framing(&lines, false), expected, "{lines}");
        let to_head = expected.map(|_| Framing::Absent);
        assert_eq!(framing(&lines, true), to_head, "{lines}");
    }
}

#[test]
fn limits_are_the_same_in_any_pieces() {
    let limits = HeadLimits { head: 60, fields: 2, target: 10 };
    let target = |length| format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", "/".repeat(length));
    assert!(matches!(verdict(of_request, target(10).as_bytes(), &limits), Some((_, Ok(_)))));
    let long = Some((4 + 11, Err(Fault::LongTarget)));
    assert_eq!(verdict(of_request, target(11).as_bytes(), &limits), long);
    assert_eq!(
        verdict(of_request, b"GET ///////////\x01", &limits),
        Some((15, Err(Fault::LongTarget)))
    );

    let head = |length| {
        let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
        format!("{start}{}\r\n\r\n", "x".repeat(length - start.len() - 4))
    };
    assert!(matches!(verdict(of_request, head(60).as_bytes(), &limits), Some((60, Ok(_)))));
    let long = Some((60, Err(Fault::LongHead)));
    assert_eq!(verdict(of_request, head(61).as_bytes(), &limits), long);
    let behind = [head(80).as_bytes(), b"\x01"].concat();
    assert_eq!(verdict(of_request, &behind, &limits), long);

    let many = b"GET / HTTP/1.1\r\nA:\r\nB:\r\nC:";
    assert_eq!(verdict(of_request, many, &limits), Some((many.len(), Err(Fault::ManyFields))));
}

#[test]
fn value_of_any_length_is_read_whole_and_no_byte_hides_in_it() {
    for length in 0..40 {
        let value = "v".repeat(length);
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: \t{value} \r\n\r\n");
        let (read, used) = request(head.as_bytes(), &HeadLimits::DEFAULT).unwrap().unwrap();
        assert_eq!((read.fields[1].value, used), (value.as_bytes(), head.len()));
        for place in 0..length {
            for (byte, fault) in [(0, Fault::ControlByte), (b'\n', Fault::LineEnd)] {
                let mut bad = head.clone().into_bytes();
                bad["GET / HTTP/1.1\r\nHost: a\r\nX: \t".len() + place] = byte;
                assert_eq!(request(&bad, &HeadLimits::DEFAULT).unwrap_err(), fault, "{place}");
            }
        }
    }
}

#[test]
fn long_head_in_single_bytes_is_not_read_anew_with_each() {
    let value = "v".repeat(60_000);
    let head = format!("GET /{} HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n", "t".repeat(1_000));
    let mut reader = Reader::default();
    for came in 1..head.len() {
        assert!(reader.request(&head.as_bytes()[..came], &HeadLimits::DEFAULT).unwrap().is_none());
        // What it has looked at is behind it, but for a CR whose LF is still to come.
        assert!(reader.place.at + 8 >= came, "at {came} it would begin at {}", reader.place.at);
    }
    let (read, used) = reader.request(head.as_bytes(), &HeadLimits::DEFAULT).unwrap().unwrap();
    assert_eq!((read.fields.len(), read.line.len(), used), (2, 1_014, head.len()));
}

/// Pieces of heads, right and wrong.
const WORDS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"POST /x?y HTTP/1.0\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 304\n",
    b"Host: a\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"X: ",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b"GET",
    b"/",
    b"HTTP/1.1",
    b"HTTP/",
    b"200",
    b"a value of some length",
    b"\x01",
    b"\x7f",
    b"\xff",
    b"#",
    b"CONNECT",
    b"TRACE * ",
    b"0",
];

/// Heads that are right up to somewhere.
const STARTS: &[&[u8]] = &[
    b"",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n",
    b"\r\nPUT /a HTTP/1.1\r\nHost: a\r\n",
    b"HTTP/1.1 200 OK\r\nX: 1\r\n",
    b"\nHTTP/1.1 200\nX: 1\n",
];

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        8 => select(WORDS).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 1..3),
    ];
    let words = prop::collection::vec(word, 0..12).prop_map(|words| words.concat());
    let start = select(STARTS);
    (start, any::<Index>(), words).prop_map(|(start, cut, words)| {
        let kept = start.len() - cut.index(start.len() + 1) / 4;
        [&start[..kept], &words].concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(4_000)
    })]

    #[test]
    fn verdict_stands_at_the_same_byte_however_the_bytes_come(
        bytes in bytes(),
        lengths in prop::collection::vec(0_usize..30, 1..20),
        is_small in any::<bool>(),
    ) {
        let small = HeadLimits { head: 50, fields: 2, target: 4 };
        let limits = if is_small { small } else { HeadLimits::DEFAULT };
        for read in [of_request as Read, of_response] {
            // The first prefix that has a verdict, each looked at by a new reader.
            let first = (0..=bytes.len()).find_map(|came| {
                let verdict = read(&mut Reader::default(), &bytes[..came], &limits)?;
                Some((came, verdict))
            });
            prop_assert_eq!(&verdict(read, &bytes, &limits), &first);
            let pieces = lengths.iter().copied().chain([bytes.len()]);
            let in_pieces = in_pieces(read, &bytes, &limits, pieces);
            prop_assert_eq!(in_pieces.is_some(), first.is_some());
            if let (Some((came, verdict)), Some((at, first))) = (in_pieces, first) {
                prop_assert_eq!(verdict, first);
                // With the piece that has the byte, and not later.
                let mut before = 0;
                let cuts = lengths.iter().map(|length| {
                    before += length;
                    before
                });
                let first_cut = cuts.chain([bytes.len()]).find(|cut| *cut >= at);
                prop_assert_eq!(Some(came), first_cut.map(|cut| cut.min(bytes.len())));
            }
        }
    }
}

/// A name is compared by its bits: it must find what a comparison in any case finds, whatever else a token may hold.
#[test]
fn name_of_a_field_is_compared_in_any_case() {
    let ours = b"x-0-az9";
    for place in 0..ours.len() {
        for byte in (0..=u8::MAX).filter(|byte| is_token(&[*byte])) {
            let mut name = *ours;
            name[place] = byte;
            let field = Field { name: &name, value: b"" };
            assert_eq!(field.is(ours), name.eq_ignore_ascii_case(ours), "{byte:#x} at {place}");
        }
    }
    for name in [&ours[1..], b"x-0-az9s", b""] {
        assert!(!Field { name, value: b"" }.is(ours));
    }
}
