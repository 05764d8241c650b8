//! Any bytes of an upstream that was asked: the same responses however they are split, and what a simpler reader finds
//! in them as well.

use super::Script;
use super::http_reference::{self, Verdict};
use super::messages::{Body, first_wrong, limits, read_body};
use crate::http::head::{Framing, HeadLimits, Reader};

/// Interim responses that are followed at most.
const MOST: usize = 16;

/// What an upstream was understood to say.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    /// The status and the bytes of each head, interim ones first.
    heads: Vec<(u16, usize)>,
    /// Of the last one, if its length can be told.
    framing: Option<Framing>,
    /// The body, if it comes in chunks.
    body: Option<Body>,
    /// The rule that a head breaks, and at which of its bytes.
    fault: Option<(String, usize)>,
}

/// The first byte says what limits there are, the second one how the others are split.
pub fn responses(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let limits = limits(script.byte());
    let piece = usize::from(script.byte() % 40) + 1;
    let bytes = script.rest();

    let single = follow(bytes, 1, &limits);
    for piece in [piece, bytes.len().max(1)] {
        assert_eq!(follow(bytes, piece, &limits), single, "in pieces of {piece}");
    }
    let mut start = 0;
    for (_, used) in &single.heads {
        head_is_clear(&bytes[start..], *used, &limits);
        start += used;
    }
    let rest = &bytes[start..];
    if let Some(body) = &single.body {
        body.is_what_the_reference_reads(rest, &limits);
    } else if single.heads.len() < MOST && !single.heads.iter().any(|(status, _)| *status >= 200) {
        // The last head is not whole, or wrong.
        match (http_reference::response(rest, &limits), &single.fault) {
            (Verdict::Whole(head, _), fault) => panic!("{head:?} is right, and not {fault:?}"),
            (Verdict::Wrong, None) => panic!("the reference calls it wrong"),
            _ => {}
        }
    }
}

/// Follows one response and those that announce it, with `piece` more bytes each time that more are asked for.
fn follow(bytes: &[u8], piece: usize, limits: &HeadLimits) -> Said {
    let mut reader = Reader::default();
    let mut said = Said { heads: Vec::new(), framing: None, body: None, fault: None };
    let (mut start, mut came) = (0, 0);
    while said.heads.len() < MOST {
        match reader.response(&bytes[start..came], limits) {
            Ok(None) if came == bytes.len() => break,
            Ok(None) => came = bytes.len().min(came + piece),
            Ok(Some((head, used))) => {
                assert!(used > 0 && start + used <= came, "it reads what is not there");
                said.heads.push((head.status, used));
                start += used;
                if head.status >= 200 {
                    let framing = head.framing(false);
                    assert_eq!(head.framing(true), framing.map(|_| Framing::Absent));
                    said.framing = framing.ok();
                    if framing == Ok(Framing::Chunked) {
                        let came = came.saturating_sub(start);
                        said.body = Some(read_body(&bytes[start..], came, piece, limits));
                    }
                    break;
                }
                assert_eq!(head.framing(false), Ok(Framing::Absent));
            }
            Err(fault) => {
                let new = &bytes[start..came];
                let is_wrong =
                    |length: usize| Reader::default().response(&new[..length], limits).is_err();
                said.fault = Some((fault.to_string(), first_wrong(new.len(), is_wrong)));
                break;
            }
        }
    }
    said
}

/// The reference finds the same in a head that passes.
fn head_is_clear(bytes: &[u8], used: usize, limits: &HeadLimits) {
    let (head, same) = Reader::default().response(bytes, limits).unwrap().unwrap();
    assert_eq!(same, used);
    let fields = head.fields.iter().map(|field| (field.name.to_vec(), field.value.to_vec()));
    let expected = http_reference::Response {
        status: head.status,
        reason: head.reason.to_vec(),
        framing: head.framing(false).ok(),
        fields: fields.collect(),
    };
    assert_eq!(http_reference::response(bytes, limits), Verdict::Whole(expected, used));
}
