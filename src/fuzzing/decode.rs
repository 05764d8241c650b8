//! What the far ends make of the bytes that they get: a client of its responses, an upstream of its requests. Everything
//! here is slow, knows whole heads only, and shares nothing with the readers of production.

use super::http_reference::{self, Field, Verdict, find};
use crate::http::head::{Framing, HeadLimits};

/// Elbows writes no head that is longer than what it read and what it adds.
const LIMITS: HeadLimits = HeadLimits { head: 1 << 20, fields: 1 << 16, target: 1 << 20 };

/// A body, as far as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) data: Vec<u8>,
    pub(crate) trailers: Vec<Field>,
    /// The chunks that it came in.
    pub(crate) chunks: usize,
    /// Bytes of it, framing included.
    pub(crate) used: usize,
    /// Its end is there.
    pub(crate) is_whole: bool,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The first line without its end.
    pub(crate) line: String,
    pub(crate) fields: Vec<Field>,
    pub(crate) framing: Framing,
    pub(crate) data: Vec<u8>,
    pub(crate) trailers: Vec<Field>,
    /// Its end is there.
    pub(crate) is_whole: bool,
}

/// How a connection ended, for whoever reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It goes on.
    Open,
    /// No more comes.
    End,
    /// It broke.
    Reset,
}

impl Message {
    /// The values of a field, in their order.
    pub(crate) fn values(&self, name: &str) -> Vec<String> {
        let fields = self.fields.iter();
        let of_name = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()));
        of_name.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    }

    /// The status of a response.
    pub(crate) fn status(&self) -> u16 {
        self.line.get(9..12).and_then(|digits| digits.parse().ok()).expect("it is a response")
    }
}

/// The chunks that `bytes` begin with. Elbows writes them without extensions, and numbers without zeros in front.
///
/// # Panics
/// They are no chunks.
pub(crate) fn chunks(bytes: &[u8]) -> Decoded {
    let mut body = Decoded::default();
    loop {
        let rest = &bytes[body.used..];
        let Some(end) = find(rest, b"\r\n") else {
            let is_number =
                rest.strip_suffix(b"\r").unwrap_or(rest).iter().all(u8::is_ascii_hexdigit);
            assert!(is_number, "a chunk begins with {:?}", String::from_utf8_lossy(rest));
            return body;
        };
        let digits = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(digits, 16).unwrap_or_else(|e| panic!("{digits:?}: {e}"));
        assert_eq!(digits, format!("{size:x}"));
        if size == 0 {
            return trailers(&rest[end + 2..], body, end + 2);
        }
        let data = &rest[end + 2..];
        let here = size.min(data.len());
        body.data.extend_from_slice(&data[..here]);
        body.chunks += 1;
        let behind = &data[here..];
        if here < size || behind.len() < 2 {
            assert!(b"\r\n".starts_with(behind));
            return body;
        }
        assert_eq!(&behind[..2], b"\r\n", "behind the data of a chunk");
        body.used += end + 2 + size + 2;
    }
}

fn trailers(bytes: &[u8], mut body: Decoded, before: usize) -> Decoded {
    let mut used = 0;
    loop {
        let rest = &bytes[used..];
        let Some(end) = find(rest, b"\r\n") else { return body };
        used += end + 2;
        if end == 0 {
            body.used += before + used;
            body.is_whole = true;
            return body;
        }
        let line = &rest[..end];
        let colon = find(line, b": ").expect("a field line");
        body.trailers.push((line[..colon].to_vec(), line[colon + 2..].to_vec()));
    }
}

/// A body that is framed so, and begins with these bytes.
fn body(bytes: &[u8], framing: Framing, ending: Ending) -> Decoded {
    let length = match framing {
        Framing::Absent => 0,
        Framing::Length(length) => usize::try_from(length).unwrap(),
        Framing::Chunked => return chunks(bytes),
        Framing::UntilClose => bytes.len(),
    };
    let used = length.min(bytes.len());
    let is_whole = match framing {
        Framing::UntilClose => ending == Ending::End,
        _ => used == length,
    };
    Decoded { data: bytes[..used].to_vec(), used, is_whole, ..Decoded::default() }
}

fn message(
    head: &[u8],
    fields: Vec<Field>,
    framing: Framing,
    Decoded { data, trailers, is_whole, .. }: Decoded,
) -> Message {
    // The reference lets more pass than elbows may write.
    let is_clean =
        head.split(|byte| *byte == b'\n').rev().skip(1).all(|line| line.ends_with(b"\r"));
    assert!(is_clean && !head.starts_with(b"\r\n"), "{:?}", String::from_utf8_lossy(head));
    let line = head.split(|byte| *byte == b'\r').next().unwrap();
    let line = String::from_utf8_lossy(line).into_owned();
    Message { line, fields, framing, data, trailers, is_whole }
}

/// The requests that an upstream was sent.
///
/// # Panics
/// They break a rule.
pub(crate) fn requests(bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut start = 0;
    while let Some((message, used)) = request(&bytes[start..]) {
        start += used;
        let is_whole = message.is_whole;
        messages.push(message);
        if !is_whole {
            break;
        }
    }
    messages
}

/// The request that these bytes begin with, if its head is there, and how many of them are its.
///
/// # Panics
/// It breaks a rule.
pub(crate) fn request(bytes: &[u8]) -> Option<(Message, usize)> {
    let (head, used) = match http_reference::request(bytes, &LIMITS) {
        Verdict::Whole(head, used) => (head, used),
        Verdict::Part => return None,
        Verdict::Wrong => panic!("the upstream gets {:?}", String::from_utf8_lossy(bytes)),
    };
    let body = body(&bytes[used..], head.framing, Ending::Open);
    let all = used + body.used;
    Some((message(&bytes[..used], head.fields, head.framing, body), all))
}

/// The responses that a client was sent, interim ones included. `to_head` says of each of its requests, in their order,
/// whether its method is HEAD.
///
/// # Panics
/// They break a rule, or there are more than requests.
pub(crate) fn responses(bytes: &[u8], to_head: &[bool], ending: Ending) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    let mut start = 0;
    let mut answered = 0;
    while start < bytes.len() {
        let rest = &bytes[start..];
        let (head, used) = match http_reference::response(rest, &LIMITS) {
            Verdict::Whole(head, used) => (head, used),
            Verdict::Part => break,
            Verdict::Wrong => panic!("the client gets {:?}", String::from_utf8_lossy(rest)),
        };
        let is_interim = head.status < 200;
        // Elbows answers what it cannot read, and by itself, so that there may be one more than was understood.
        let to_head = to_head.get(answered).copied().unwrap_or(false);
        let framing = match head.framing.expect("one length") {
            _ if to_head && !is_interim => Framing::Absent,
            framing => framing,
        };
        let body = body(&rest[used..], framing, ending);
        start += used + body.used;
        let is_whole = body.is_whole;
        messages.push(message(&rest[..used], head.fields, framing, body));
        if head.status == 101 || !is_whole {
            break;
        }
        answered += usize::from(!is_interim);
    }
    messages
}
