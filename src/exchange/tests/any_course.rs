//! Exchanges of whole messages, small and large, in any pieces and with sides that are ready in any order, against the
//! reference of the fuzz target.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::fuzzing::course::{Answer, Then};
use crate::fuzzing::exchange::check;

/// Data, mostly short, and at times longer than what is read at once.
fn data() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![4 => 0..300_usize, 1 => 0..150_000_usize];
    (length, any::<u8>()).prop_map(|(length, first)| {
        (0..length).map(|at| at.to_le_bytes()[0].wrapping_add(first)).collect()
    })
}

/// How a body is framed.
#[derive(Clone, Debug)]
enum Framed {
    ByLength,
    /// Chunks of these sizes, again and again.
    InChunks(Vec<usize>),
    UntilClose,
}

fn chunks() -> impl Strategy<Value = Framed> {
    let size = prop_oneof![3 => 1..20_usize, 1 => 1..100_000_usize];
    prop::collection::vec(size, 1..4).prop_map(Framed::InChunks)
}

/// The field that says so, and the body.
fn framed(data: &[u8], framed: &Framed) -> (String, Vec<u8>) {
    match framed {
        Framed::ByLength => (format!("Content-Length: {}\r\n", data.len()), data.to_vec()),
        Framed::UntilClose => (String::new(), data.to_vec()),
        Framed::InChunks(sizes) => {
            let mut body = Vec::new();
            let mut rest = data;
            for size in sizes.iter().cycle() {
                let (chunk, others) = rest.split_at((*size).min(rest.len()));
                body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(if chunk.is_empty() {
                    b"X-Sum: 1\r\n\r\n"
                } else {
                    b"\r\n"
                });
                if chunk.is_empty() {
                    break;
                }
                rest = others;
            }
            (String::from("Transfer-Encoding: chunked\r\n"), body)
        }
    }
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let version = prop_oneof![4 => Just("1.1"), 1 => Just("1.0")];
    let method = select(vec!["GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE"]);
    let fields = vec![
        "TE: trailers\r\n",
        "Connection: keep-alive\r\n",
        "Connection: close, X-Gone\r\n",
        "X-Gone: 1\r\n",
        "X-Forwarded-For: 9.9.9.9\r\n",
        "Expect: 100-continue\r\n",
    ];
    let most = fields.len();
    let framing = prop_oneof![2 => Just(None), 2 => Just(Some(Framed::ByLength)), 2 => chunks().prop_map(Some)];
    (method, version, subsequence(fields, 0..=most), framing, data()).prop_map(
        |(method, version, fields, framing, data)| {
            let framing = match framing {
                Some(Framed::InChunks(_)) if version == "1.0" => Some(Framed::ByLength),
                framing => framing,
            };
            let (length, body) =
                framing.map_or_else(Default::default, |framing| framed(&data, &framing));
            let fields = fields.concat();
            let head = format!("{method} /a HTTP/{version}\r\nHost: a\r\n{fields}{length}\r\n");
            [head.into_bytes(), body].concat()
        },
    )
}

fn answer() -> impl Strategy<Value = Answer> {
    let interim = prop_oneof![
        3 => Just(""),
        1 => Just("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
        1 => Just("HTTP/1.1 100 Continue\r\n\r\n"),
    ];
    let line = select(vec![
        "HTTP/1.1 200 OK",
        "HTTP/1.1 404 ",
        "HTTP/1.0 200 OK",
        "HTTP/1.1 204 No",
        "HTTP/1.1 304 N",
    ]);
    let fields = subsequence(
        vec!["Connection: close\r\n", "X: 1\r\n", "Connection: X, keep-alive\r\n"],
        0..=3,
    );
    let framing =
        prop_oneof![2 => Just(Framed::ByLength), 2 => chunks(), 1 => Just(Framed::UntilClose)];
    let then = select(vec![Then::Waits, Then::Ends, Then::Breaks]);
    let cut = prop_oneof![3 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)];
    (interim, line, fields, framing, data(), then, cut, prop::bool::weighted(0.2)).prop_map(
        |(interim, line, fields, framing, data, then, cut, is_early)| {
            let framing = match framing {
                Framed::InChunks(_) if line.starts_with("HTTP/1.0") => Framed::UntilClose,
                framing => framing,
            };
            let (length, body) = framed(&data, &framing);
            let has_body = !line.contains(" 204 ") && !line.contains(" 304 ");
            let head = format!("{interim}{line}\r\n{}{length}\r\n", fields.concat());
            let mut bytes = [head.into_bytes(), if has_body { body } else { Vec::new() }].concat();
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            Answer { bytes, then, is_early }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn any_pieces_and_any_order_of_readiness_give_both_sides_the_same(
        request in request(),
        answer in answer(),
        bulk in 1..100_000_u64,
        seed in any::<u64>(),
    ) {
        check(&request, &answer, bulk, seed);
    }
}
