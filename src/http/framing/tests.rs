//! Chunked bodies whole and in pieces: what passes, what does not, and at which byte that is said.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// What was said of a body.
#[derive(Debug, Default, PartialEq, Eq)]
struct Body {
    sizes: Vec<u64>,
    data: Vec<u8>,
    trailers: Vec<String>,
    /// Its bytes.
    used: usize,
    is_over: bool,
    fault: Option<Fault>,
}

/// Reads a body of which so many bytes come at a time; and how many had come when all was said.
fn in_pieces(bytes: &[u8], lengths: impl IntoIterator<Item = usize>) -> (usize, Body) {
    let mut chunked = Chunked::new(HeadLimits::DEFAULT);
    let mut body = Body::default();
    let mut came = 0;
    for length in lengths {
        came = bytes.len().min(came + length);
        loop {
            let left = chunked.data_left();
            let new = &bytes[body.used..came];
            let used = match chunked.step(new) {
                Ok(Step::More) if chunked.is_over() => {
                    body.is_over = true;
                    return (came, body);
                }
                Ok(Step::More) => break,
                Ok(Step::Line(used, size)) => {
                    body.sizes.push(size);
                    assert_eq!(chunked.data_left(), size);
                    used
                }
                Ok(Step::Data(used)) => {
                    assert!(used > 0 && used as u64 <= left);
                    assert_eq!(chunked.data_left(), left - used as u64);
                    body.data.extend_from_slice(&new[..used]);
                    used
                }
                Ok(Step::End(used)) => {
                    assert_eq!(&new[..used], b"\r\n");
                    used
                }
                Ok(Step::Trailers(fields, used)) => {
                    body.trailers = fields.iter().map(|field| format!("{field:?}")).collect();
                    used
                }
                Err(fault) => {
                    body.fault = Some(fault);
                    return (came, body);
                }
            };
            body.used += used;
        }
    }
    (came, body)
}

/// The same however they come; what is said of single bytes.
fn read(bytes: &[u8]) -> (usize, Body) {
    let (_, whole) = in_pieces(bytes, [bytes.len()]);
    let single = in_pieces(bytes, bytes.iter().map(|_| 1));
    assert_eq!(single.1, whole, "{}", bytes.escape_ascii());
    single
}

#[test]
fn chunks_pass_with_extensions_and_white_space_around_their_signs() {
    for extension in [
        "",
        ";a",
        ";a=b",
        ";a=\"b\"",
        "; some; parameters=stuff",
        " ; a",
        "\t;\ta = b",
        ";a =b;c= \"d\\\"e;f\" ;g",
        ";a ;b",
        ";a=\"\t\u{fc}\"",
    ] {
        let bytes = format!(
            "5{extension}\r\nhello\r\n00A{extension}\r\n0123456789\r\n0{extension}\r\n\r\n"
        );
        let (came, body) = read(bytes.as_bytes());
        assert_eq!(came, bytes.len(), "{extension:?}");
        let expected = Body {
            sizes: vec![5, 10, 0],
            data: b"hello0123456789".to_vec(),
            used: bytes.len(),
            is_over: true,
            ..Body::default()
        };
        assert_eq!(body, expected, "{extension:?}");
    }
}

#[test]
fn wrong_chunk_is_told_at_the_byte_that_is_wrong() {
    for (bytes, rule) in [
        (&b";"[..], Fault::ChunkSize),
        (b"\r", Fault::ChunkSize),
        (b"\n", Fault::ChunkSize),
        (b" ", Fault::ChunkSize),
        (b"0x", Fault::ChunkSize),
        (b"5 \r", Fault::ChunkSize),
        (b"5 5", Fault::ChunkSize),
        (b"8000000000000000", Fault::ChunkSize),
        (b"00000000000000000", Fault::ChunkSize),
        (b"5\n", Fault::LineEnd),
        (b"5\rx", Fault::LineEnd),
        (b"5;\r", Fault::ChunkExtension),
        (b"5; \r", Fault::ChunkExtension),
        (b"5;;", Fault::ChunkExtension),
        (b"5;a \r", Fault::ChunkExtension),
        (b"5;a b", Fault::ChunkExtension),
        (b"5;a=\r", Fault::ChunkExtension),
        (b"5;a= ;", Fault::ChunkExtension),
        (b"5;a=b \r", Fault::ChunkExtension),
        (b"5;a=b=", Fault::ChunkExtension),
        (b"5;a=\"b\"c", Fault::ChunkExtension),
        (b"5;a=\"b\r", Fault::ChunkExtension),
        (b"5;a=\"b\\\n", Fault::ChunkExtension),
        (b"5;a\n", Fault::LineEnd),
        (b"5;a=\"b\"\n", Fault::LineEnd),
        (b"5;a=\x01", Fault::ChunkExtension),
        (b"1\r\nxy", Fault::ChunkEnd),
        (b"1\r\nx\n", Fault::ChunkEnd),
        (b"1\r\nx\rx", Fault::ChunkEnd),
        (b"1\r\nx\r\n\r", Fault::ChunkSize),
        (b"0\r\n ", Fault::Folding),
        (b"0\r\nX\r", Fault::FieldName),
        (b"0\r\nX: \0", Fault::ControlByte),
        (b"0\r\nX: 1\n", Fault::LineEnd),
        (b"0\r\n\n", Fault::LineEnd),
        (b"0\r\nHost: a\r\n\r\n", Fault::Trailer),
        (b"0\r\nContent_Length: 1\r\n\r\n", Fault::Trailer),
    ] {
        let (came, body) = read(bytes);
        assert_eq!((came, body.fault), (bytes.len(), Some(rule)), "{}", bytes.escape_ascii());
    }
}

#[test]
fn limits_of_lines_and_extensions_are_the_same_in_any_pieces() {
    let line = |length: usize| format!("1;{}\r\nx\r\n", "a".repeat(length - 2));
    assert_eq!(read(line(1_024).as_bytes()).1.fault, None);
    let long = read(line(1_025).as_bytes());
    assert_eq!((long.0, long.1.fault), (1_025, Some(Fault::ChunkExtension)));
    // Sixteen lines have 16 times 1,023 bytes of extensions; sixteen bytes more may follow.
    let many = line(1_024).repeat(16);
    assert_eq!(read(format!("{many}{}", line(17)).as_bytes()).1.fault, None);
    let much = read(format!("{many}{}", line(18)).as_bytes());
    assert_eq!((much.0, much.1.fault), (many.len() + 18, Some(Fault::ChunkExtension)));
}

#[test]
fn limit_of_trailers_is_the_same_in_any_pieces() {
    let body = |length: usize| format!("0\r\nX: {}\r\n\r\n", "x".repeat(length - 7));
    let (_, whole) = read(body(LONGEST_TRAILERS).as_bytes());
    assert!(whole.is_over && whole.trailers.len() == 1);
    let (came, long) = read(body(LONGEST_TRAILERS + 1).as_bytes());
    assert_eq!((came, long.fault), (3 + LONGEST_TRAILERS, Some(Fault::LongHead)));
}

#[test]
fn data_can_pass_without_being_looked_at() {
    let mut chunked = Chunked::new(HeadLimits::DEFAULT);
    assert!(matches!(chunked.step(b"10\r\nab"), Ok(Step::Line(4, 16))));
    assert!(matches!(chunked.step(b"ab"), Ok(Step::Data(2))));
    assert_eq!(chunked.data_left(), 14);
    chunked.skip_data(10);
    assert_eq!(chunked.data_left(), 4);
    chunked.skip_data(4);
    assert_eq!(chunked.data_left(), 0);
    assert!(matches!(chunked.step(b"\r\n"), Ok(Step::End(2))));
    assert!(matches!(chunked.step(b"0\r\n"), Ok(Step::Line(3, 0))));
    assert!(!chunked.is_over());
    assert!(matches!(chunked.step(b"\r\n"), Ok(Step::Trailers(_, 2))));
    assert!(chunked.is_over());
    assert!(matches!(chunked.step(b"GET"), Ok(Step::More)));
}

/// Pieces of bodies, right and wrong.
const WORDS: &[&str] = &[
    "0\r\n",
    "1\r\nx\r\n",
    "5;a=b\r\nhello\r\n",
    "X: 1\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    ";",
    "a",
    "=",
    "\"",
    "\\",
    " ",
    "\t",
    "3",
    "xxx",
    ":",
    "Host: a\r\n",
    "\x01",
    "\u{fc}",
];

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(4_000)
    })]

    #[test]
    fn verdict_stands_at_the_same_byte_however_the_bytes_come(
        words in prop::collection::vec(select(WORDS), 0..14),
        lengths in prop::collection::vec(0_usize..20, 1..20),
    ) {
        let bytes = words.concat().into_bytes();
        let (at, body) = read(&bytes);
        let (came, in_pieces) = in_pieces(&bytes, lengths.iter().copied().chain([bytes.len()]));
        prop_assert_eq!(&in_pieces, &body);
        let mut before = 0;
        let cuts = lengths.iter().map(|length| {
            before += length;
            before
        });
        let is_said = body.fault.is_some() || body.is_over;
        let first_cut = cuts.chain([bytes.len()]).find(|cut| is_said && *cut >= at);
        prop_assert_eq!(came, first_cut.unwrap_or(bytes.len()).min(bytes.len()));
    }
}
