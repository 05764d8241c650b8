//! What the targets of requests and of responses share: limits, and chunked bodies in pieces.

use super::http_reference::{self, Field, Verdict};
use crate::http::framing::{Chunked, Step};
use crate::http::head::HeadLimits;

/// The usual limits, or small ones.
pub(super) fn limits(choice: u8) -> HeadLimits {
    let small = HeadLimits { head: 300, fields: 6, target: 40 };
    if choice.is_multiple_of(2) { HeadLimits::DEFAULT } else { small }
}

/// A chunked body, as far as it came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) data: Vec<u8>,
    pub(super) trailers: Vec<Field>,
    /// Bytes that were taken.
    pub(super) used: usize,
    pub(super) is_over: bool,
    /// The rule that it breaks, and at which byte.
    pub(super) fault: Option<(String, usize)>,
}

/// Reads a chunked body that `bytes` begin with, of which `came` are there at first, and `piece` more each time that
/// more are asked for.
pub(super) fn read_body(bytes: &[u8], mut came: usize, piece: usize, limits: &HeadLimits) -> Body {
    let mut body = Body::default();
    let mut chunked = Chunked::new(*limits);
    came = came.min(bytes.len());
    while !chunked.is_over() {
        let new = &bytes[body.used..came];
        let before = chunked.clone();
        let used = match chunked.step(new) {
            Ok(Step::More) if came == bytes.len() => break,
            Ok(Step::More) => {
                came = bytes.len().min(came + piece);
                continue;
            }
            Ok(Step::Line(used, size)) => {
                assert_eq!(chunked.data_left(), size);
                used
            }
            Ok(Step::Data(used)) => {
                body.data.extend_from_slice(&new[..used]);
                used
            }
            Ok(Step::End(used)) => used,
            Ok(Step::Trailers(fields, used)) => {
                let fields = fields.iter().map(|field| (field.name.to_vec(), field.value.to_vec()));
                body.trailers = fields.collect();
                used
            }
            Err(fault) => {
                let is_wrong = |length: usize| before.clone().step(&new[..length]).is_err();
                let at = body.used + first_wrong(new.len(), is_wrong);
                body.fault = Some((fault.to_string(), at));
                break;
            }
        };
        assert!(used > 0 && body.used + used <= came, "it reads what is not there");
        body.used += used;
    }
    body.is_over = chunked.is_over();
    body
}

/// At which of `length` bytes a fault stands: with one less there is none. Faults stay, so that it is found by halves.
pub(super) fn first_wrong(length: usize, is_wrong: impl Fn(usize) -> bool) -> usize {
    let (mut right, mut wrong) = (0, length);
    while right + 1 < wrong {
        let middle = usize::midpoint(right, wrong);
        if is_wrong(middle) { wrong = middle } else { right = middle }
    }
    assert!(is_wrong(wrong) && !is_wrong(right));
    wrong
}

impl Body {
    /// The reference finds the same, as far as it can tell: it tells nothing of a line before its end.
    pub(super) fn is_what_the_reference_reads(&self, bytes: &[u8], limits: &HeadLimits) {
        match http_reference::chunked(bytes, limits) {
            Verdict::Whole(body, used) => {
                assert_eq!(self.fault, None);
                assert_eq!((&body.data, &body.trailers), (&self.data, &self.trailers));
                assert!(self.is_over && self.used == used, "{self:?}");
            }
            Verdict::Wrong => assert!(self.fault.is_some(), "{self:?}"),
            Verdict::Part => assert!(!self.is_over, "{self:?}"),
        }
    }
}
