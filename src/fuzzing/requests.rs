//! Any bytes of a client behind its PROXY header: the same messages however they are split, and what a simpler reader
//! finds in them as well.

use super::Script;
use super::http_reference::{self, Verdict};
use super::messages::{Body, first_wrong, limits, read_body};
use crate::http::head::{Framing, HeadLimits, Reader};

/// Messages that are followed at most.
const MOST: usize = 64;

/// What a connection was understood to say.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// A head of so many bytes, and how long its body is.
    Head(usize, Framing),
    /// So many bytes of a body of some length.
    Data(usize),
    /// A chunked body.
    Chunked(Body),
    /// A rule that a head breaks, and the bytes of the message up to there.
    Fault(String, usize),
}

/// The first byte says what limits there are, the second one how the others are split.
pub fn requests(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let limits = limits(script.byte());
    let piece = usize::from(script.byte() % 40) + 1;
    let bytes = script.rest();

    let single = follow(bytes, 1, &limits);
    for piece in [piece, bytes.len().max(1)] {
        assert_eq!(follow(bytes, piece, &limits), single, "in pieces of {piece}");
    }
    let mut start = 0;
    for said in &single {
        let rest = &bytes[start..];
        match said {
            Said::Head(used, framing) => {
                head_is_clear(rest, *used, *framing, &limits);
                start += used;
            }
            Said::Data(used) => start += used,
            Said::Chunked(body) => {
                body.is_what_the_reference_reads(rest, &limits);
                start += body.used;
            }
            Said::Fault(rule, length) => {
                let verdict = http_reference::request(rest, &limits);
                let is_right = matches!(verdict, Verdict::Whole(..));
                assert!(!is_right, "{rule} at {length}, and the reference reads {verdict:?}");
            }
        }
    }
    if let Some(rest) = bytes.get(start..)
        && !matches!(
            single.last(),
            Some(Said::Fault(..) | Said::Chunked(Body { is_over: false, .. }))
        )
        && single.len() < MOST
    {
        // More bytes are waited for. (Behind a body of some length that is not whole nothing is left.)
        let verdict = http_reference::request(rest, &limits);
        assert!(matches!(verdict, Verdict::Part), "not whole, and the reference reads {verdict:?}");
    }
}

/// Follows the messages, with `piece` more bytes each time that more are asked for. None is begun behind the last one
/// that is followed, so that where it ends does not depend on the pieces.
fn follow(bytes: &[u8], piece: usize, limits: &HeadLimits) -> Vec<Said> {
    let mut reader = Reader::default();
    let mut said = Vec::new();
    let (mut start, mut came) = (0, 0);
    while said.len() < MOST {
        let (framing, used) = match reader.request(&bytes[start..came], limits) {
            Ok(None) if came == bytes.len() => break,
            Ok(None) => {
                came = bytes.len().min(came + piece);
                continue;
            }
            Ok(Some((head, used))) => {
                assert!(used > 0 && start + used <= came, "it reads what is not there");
                (head.framing, used)
            }
            Err(fault) => {
                let new = &bytes[start..came];
                let is_wrong =
                    |length: usize| Reader::default().request(&new[..length], limits).is_err();
                said.push(Said::Fault(fault.to_string(), first_wrong(new.len(), is_wrong)));
                break;
            }
        };
        said.push(Said::Head(used, framing));
        start += used;
        match framing {
            Framing::Absent | Framing::Length(0) => {}
            Framing::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len() - start);
                said.push(Said::Data(length));
                start += length;
            }
            Framing::Chunked => {
                let body = read_body(&bytes[start..], came.saturating_sub(start), piece, limits);
                start += body.used;
                let is_over = body.is_over;
                said.push(Said::Chunked(body));
                if !is_over {
                    break;
                }
            }
            Framing::UntilClose => panic!("a request has an end"),
        }
        came = came.max(start);
    }
    said
}

/// The reference finds the same in a head that passes.
fn head_is_clear(bytes: &[u8], used: usize, framing: Framing, limits: &HeadLimits) {
    let (head, same) = Reader::default().request(bytes, limits).unwrap().unwrap();
    assert_eq!((same, head.framing), (used, framing));
    let fields = head.fields.iter().map(|field| (field.name.to_vec(), field.value.to_vec()));
    let expected = http_reference::Request { framing, fields: fields.collect() };
    assert_eq!(http_reference::request(bytes, limits), Verdict::Whole(expected, used));
}
