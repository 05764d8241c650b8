//! Where one message of a client ends and the next begins: head, body, next head (RFC 9112, section 6).
//!
//! Bytes in, steps out: a step says how many bytes are checked and may go on. A head, the line before
//! a chunk and a trailer section go on whole or not at all; the data of a body goes on as it comes.

use super::head::{self, Fault, Framing, Limits};

/// The longest line before a chunk, its extensions included.
const LONGEST_CHUNK_LINE: usize = 1_024;

/// How many bytes of extensions a body may hold (RFC 9112, section 7.1.1, asks for a limit); whoever sends
/// more wants to be read, not heard.
const MOST_EXTENSIONS: usize = 16 * 1_024;

/// The longest trailer section.
const LONGEST_TRAILERS: usize = 16 * 1_024;

/// Follows the messages of one connection.
#[derive(Debug)]
pub struct Follower {
    at: At,
    limits: Limits,
    /// So many bytes from here have been looked at in vain: a line that comes byte by byte is not read
    /// anew with each.
    seen: usize,
}

#[derive(Clone, Copy, Debug)]
enum At {
    /// At the start of a head.
    Head,
    /// In a body, or the data of a chunk, with so many bytes to come.
    Data { left: u64, chunked: Option<Extensions> },
    /// Behind the data of a chunk.
    ChunkEnd(Extensions),
    /// At the line before a chunk.
    ChunkLine(Extensions),
    /// Behind the last chunk.
    Trailers,
}

/// Bytes of chunk extensions so far.
type Extensions = usize;

/// What comes next.
#[derive(Debug)]
pub enum Step<'a> {
    /// Not enough is there to say.
    More,
    /// A whole head, of so many bytes; [`Follower::enter`] goes on behind it.
    Head(head::Request<'a>, usize),
    /// So many bytes belong to the body under way.
    Body(usize),
}

impl Follower {
    /// At the start of a connection.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { at: At::Head, limits, seen: 0 }
    }

    /// Whether the next byte begins a message.
    #[must_use]
    pub const fn is_at_head(&self) -> bool {
        matches!(self.at, At::Head)
    }

    /// Looks at the bytes from where the last step ended.
    ///
    /// # Errors
    /// The rule that they break. Nothing behind a fault can be told apart.
    pub fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<Step<'a>, Fault> {
        if bytes.is_empty() {
            return Ok(Step::More);
        }
        let needs_a_line = matches!(self.at, At::Head | At::ChunkLine(_) | At::Trailers);
        if needs_a_line && !self.is_worth_a_look(bytes) {
            return Ok(Step::More);
        }
        let used = match self.at {
            At::Data { left, chunked } => {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let left = left - here as u64;
                self.at = match chunked {
                    _ if left > 0 => At::Data { left, chunked },
                    Some(extensions) => At::ChunkEnd(extensions),
                    None => At::Head,
                };
                here
            }
            At::ChunkEnd(extensions) => match bytes {
                [b'\r', b'\n', ..] => {
                    self.at = At::ChunkLine(extensions);
                    2
                }
                [b'\r'] => return Ok(Step::More),
                _ => return Err(Fault::ChunkEnd),
            },
            At::Head => {
                return Ok(match head::request(bytes, &self.limits)? {
                    Some((head, used)) => Step::Head(head, used),
                    None => Step::More,
                });
            }
            At::ChunkLine(extensions) => {
                let Some((size, used, extension)) = chunk_line(bytes)? else {
                    return Ok(Step::More);
                };
                let extensions = extensions + extension;
                if extensions > MOST_EXTENSIONS {
                    return Err(Fault::ChunkExtension);
                }
                self.at = match size {
                    0 => At::Trailers,
                    left => At::Data { left, chunked: Some(extensions) },
                };
                used
            }
            At::Trailers => {
                let limits = Limits { head: LONGEST_TRAILERS, ..self.limits };
                let Some(used) = head::trailers(bytes, &limits)? else { return Ok(Step::More) };
                self.at = At::Head;
                used
            }
        };
        self.seen = 0;
        Ok(Step::Body(used))
    }

    /// Goes on behind a head whose body is framed so.
    pub fn enter(&mut self, framing: Framing) {
        self.seen = 0;
        self.at = match framing {
            Framing::Absent | Framing::Length(0) => At::Head,
            Framing::Length(left) => At::Data { left, chunked: None },
            Framing::Chunked => At::ChunkLine(0),
        };
    }

    /// The next step looks at bytes that the last one has seen already.
    pub const fn look_again(&mut self) {
        self.seen = 0;
    }

    /// The first look, a new line end, or too much without one: all else changes nothing.
    fn is_worth_a_look(&mut self, bytes: &[u8]) -> bool {
        let new = bytes.get(self.seen..).unwrap_or_default();
        let worth = self.seen == 0
            || new.contains(&b'\n')
            || bytes.len() > LONGEST_CHUNK_LINE && !matches!(self.at, At::Head)
            || bytes.len() >= self.limits.head;
        self.seen = bytes.len();
        worth
    }
}

/// The line before a chunk (RFC 9112, section 7.1): its size, its bytes, and those of its extensions.
/// White space that the grammar calls bad is a fault: readers do not agree on it.
fn chunk_line(bytes: &[u8]) -> Result<Option<(u64, usize, usize)>, Fault> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let mut size = 0_u64;
    for digit in bytes.iter().take(digits) {
        let digit = char::from(*digit).to_digit(16).ok_or(Fault::ChunkSize)?;
        size = size
            .checked_mul(16)
            .and_then(|size| size.checked_add(u64::from(digit)))
            .filter(|size| i64::try_from(*size).is_ok())
            .ok_or(Fault::ChunkSize)?;
    }
    // Zeros in front are allowed, in such numbers that nobody's digits overflow.
    if digits > 16 {
        return Err(Fault::ChunkSize);
    }
    let rest = bytes.get(digits..).unwrap_or_default();
    match rest.first() {
        None => return Ok(None),
        Some(_) if digits == 0 => return Err(Fault::ChunkSize),
        Some(b'\r' | b'\n' | b';') => {}
        Some(_) => return Err(Fault::ChunkSize),
    }
    let Some(length) = extensions(rest)? else {
        let so_far = bytes.len();
        return if so_far > LONGEST_CHUNK_LINE { Err(Fault::ChunkExtension) } else { Ok(None) };
    };
    if digits + length > LONGEST_CHUNK_LINE {
        return Err(Fault::ChunkExtension);
    }
    match rest.get(length..) {
        Some([b'\r', b'\n', ..]) => Ok(Some((size, digits + length + 2, length))),
        Some([] | [b'\r']) | None => Ok(None),
        Some([b'\r' | b'\n', ..]) => Err(Fault::LineEnd),
        Some(_) => Err(Fault::ChunkExtension),
    }
}

/// RFC 9112, section 7.1.1: `;name`, `;name=token` or `;name="quoted"`, any number; how many bytes.
fn extensions(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let mut at = 0;
    let token = |from: usize| {
        let rest = bytes.get(from..).unwrap_or_default();
        let length = rest.iter().position(|byte| !head::is_token(&[*byte]))?;
        Some(from + length)
    };
    while bytes.get(at) == Some(&b';') {
        let Some(end) = token(at + 1) else { return Ok(None) };
        if end == at + 1 {
            return Err(Fault::ChunkExtension);
        }
        at = end;
        if bytes.get(at) != Some(&b'=') {
            continue;
        }
        if bytes.get(at + 1) == Some(&b'"') {
            let Some(end) = quoted(bytes, at + 2)? else { return Ok(None) };
            at = end;
        } else {
            let Some(end) = token(at + 1) else { return Ok(None) };
            if end == at + 1 {
                return Err(Fault::ChunkExtension);
            }
            at = end;
        }
    }
    Ok(Some(at))
}

/// The rest of a quoted string (RFC 9110, section 5.6.4): where it ends.
fn quoted(bytes: &[u8], mut at: usize) -> Result<Option<usize>, Fault> {
    loop {
        at += match (bytes.get(at), bytes.get(at + 1)) {
            (Some(b'"'), _) => return Ok(Some(at + 1)),
            (None, _) | (Some(b'\\'), None) => return Ok(None),
            (Some(b'\\'), Some(b'\t' | b' '..=b'~' | 0x80..)) => 2,
            (Some(b'\t' | b' '..=b'~' | 0x80..), _) => 1,
            _ => return Err(Fault::ChunkExtension),
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The end of a chunked body whose trailer section has so many bytes, in pieces of `piece`.
    fn trailers(length: usize, piece: usize) -> Result<(), Fault> {
        let mut bytes = b"0\r\nX: ".to_vec();
        bytes.resize(3 + length - 4, b'x');
        bytes.extend_from_slice(b"\r\n\r\n");
        let mut follower = Follower::new(Limits::DEFAULT);
        follower.enter(Framing::Chunked);
        let (mut start, mut came) = (0, 0);
        while !follower.is_at_head() {
            match follower.step(&bytes[start..came])? {
                Step::More => came = bytes.len().min(came + piece),
                Step::Body(used) => start += used,
                Step::Head(..) => unreachable!(),
            }
        }
        assert_eq!(start, bytes.len());
        Ok(())
    }

    #[test]
    fn limit_of_trailers_is_the_same_in_any_pieces() {
        for piece in [1_000, 16 * 1_024, usize::MAX / 2] {
            assert_eq!(trailers(LONGEST_TRAILERS, piece), Ok(()), "{piece}");
            assert_eq!(trailers(LONGEST_TRAILERS + 1, piece), Err(Fault::LongHead), "{piece}");
        }
    }
}
