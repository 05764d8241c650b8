//! Any bytes of a client behind its PROXY header: the same messages however they are split, and no head
//! passes that a simpler reader would read otherwise.

use super::Script;
use crate::http::framing::follower::{Follower, Step};
use crate::http::head::{self, Framing, Limits, Version};

/// Messages that are followed at most.
const MOST: usize = 64;

/// What a connection was understood to say.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// A head of so many bytes, and how long its body is.
    Head(usize, Framing),
    /// Bytes of the body behind it, as far as they are checked.
    Body(usize),
    /// It broke a rule. Which one can depend on how much has come: one may hide behind another.
    Fault,
}

/// The first byte says what limits there are, the second one how the others are split.
pub fn requests(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let small = Limits { head: 300, fields: 6, target: 40 };
    let limits = if script.byte().is_multiple_of(2) { Limits::DEFAULT } else { small };
    let piece = usize::from(script.byte() % 40) + 1;
    let bytes = script.rest();

    let whole = follow(bytes, bytes.len().max(1), limits);
    for piece in [1, piece] {
        let mut said = follow(bytes, piece, limits);
        // A line that comes in pieces is looked at when it is whole: its fault may still be to come.
        if whole.last() == Some(&Said::Fault) && said.last() != Some(&Said::Fault) {
            said.push(Said::Fault);
        }
        assert_eq!(said, whole, "in pieces of {piece}");
    }
}

/// Follows the messages, with `piece` more bytes each time that more are asked for.
fn follow(bytes: &[u8], piece: usize, limits: Limits) -> Vec<Said> {
    let mut follower = Follower::new(limits);
    let mut said = Vec::new();
    let (mut start, mut came) = (0, 0);
    while said.len() < MOST {
        match follower.step(&bytes[start..came]) {
            Ok(Step::More) if came == bytes.len() => break,
            Ok(Step::More) => came = bytes.len().min(came + piece),
            Ok(Step::Head(head, used)) => {
                head_is_clear(&bytes[start..start + used], &head, limits);
                let framing = head.framing;
                said.push(Said::Head(used, framing));
                follower.enter(framing);
                start += used;
            }
            Ok(Step::Body(used)) => {
                assert!(used > 0 && start + used <= came, "it passes what is not there");
                match said.last_mut() {
                    Some(Said::Body(length)) => *length += used,
                    _ => said.push(Said::Body(used)),
                }
                start += used;
            }
            Err(_) => {
                said.push(Said::Fault);
                break;
            }
        }
    }
    said
}

/// A second reader that knows only lines finds the same.
fn head_is_clear(own: &[u8], head: &head::Request<'_>, limits: Limits) {
    assert!(own.len() <= limits.head && head.fields.len() <= limits.fields);
    assert!(!own.contains(&0));
    for (at, byte) in own.iter().enumerate() {
        match byte {
            b'\n' => assert_eq!(own[at - 1], b'\r', "a bare LF"),
            b'\r' => assert_eq!(own[at + 1], b'\n', "a bare CR"),
            _ => {}
        }
    }
    let text: Vec<_> = own.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).collect();
    let mut lines = text.iter().skip_while(|line| line.is_empty());
    let words = lines.next().unwrap().split(|byte| *byte == b' ').count();
    assert_eq!(words, 3, "a request line has three words");
    let fields: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    assert_eq!(fields.len(), head.fields.len());
    let values = |name: &str| -> Vec<&[u8]> {
        fields
            .iter()
            .filter_map(|line| {
                let colon = line.iter().position(|byte| *byte == b':').unwrap();
                let is_it = line[..colon].eq_ignore_ascii_case(name.as_bytes());
                is_it.then(|| line[colon + 1..].trim_ascii())
            })
            .collect()
    };
    let hosts = values("host");
    assert_eq!(hosts.first().copied(), head.host);
    assert!(hosts.len() == 1 || hosts.is_empty() && head.version == Version::Http10);
    match (head.framing, &values("content-length")[..], &values("transfer-encoding")[..]) {
        (Framing::Absent, [], []) => {}
        (Framing::Length(length), [value], []) => {
            assert_eq!(std::str::from_utf8(value).unwrap().parse(), Ok(length));
        }
        (Framing::Chunked, [], [value]) => assert!(value.eq_ignore_ascii_case(b"chunked")),
        other => panic!("its length can be read in two ways: {other:?}"),
    }
}
