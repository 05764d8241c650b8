//! Heads of HTTP/1.1 messages, read strictly (RFC 9112, sections 2 to 7).
//!
//! The rule: what two readers could read differently is a fault, and the fault names the rule that was
//! broken. Bytes in, values out: `Ok(None)` asks for more bytes, `Ok(Some((head, used)))` is a head of
//! `used` bytes. A head that comes whole is read in one pass, and nothing of it is copied. One that comes in pieces
//! is judged at the same byte, and read once more when its end is there.
//!
//! Responses are read by the same rules, with two things more that have one meaning only, since interim responses have
//! no body and a head is written on with CRLF: LF alone ends a line, as RFC 9112, section 2.2, allows, and one empty
//! line in front of the status line is dropped.

mod bytes;
mod fault;
mod lines;
mod meaning;
mod target;
#[cfg(test)]
mod tests;

use smallvec::SmallVec;

pub(super) use self::bytes::is_token;
pub use self::fault::Fault;
use self::lines::Lines;
pub(super) use self::lines::Place;
pub use self::target::{Target, is_host};

/// How much a head may hold.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of the whole head, its empty line included.
    pub head: usize,
    /// Field lines.
    pub fields: usize,
    /// Bytes of the request target. RFC 9112, section 3, asks for 8,000 at least for the whole line.
    pub target: usize,
}

impl HeadLimits {
    /// 64 KiB, 100 fields; a target of 32 KiB leaves half of the head to the fields.
    pub const DEFAULT: Self = Self { head: 64 * 1024, fields: 100, target: 32 * 1024 };
}

/// A version that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// One field line, its value without the white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// As it came.
    pub name: &'a [u8],
    /// As it came.
    pub value: &'a [u8],
}

impl Field<'_> {
    /// Whether it has this name, which is given in lower case and has letters, digits and dashes only. A field's name is
    /// a token: the bit that makes letters lower case makes none of those of any other byte that a token has.
    #[inline]
    #[must_use]
    pub fn is<const N: usize>(&self, name: &[u8; N]) -> bool {
        self.name.len() == N
            && self
                .name
                .first_chunk()
                .is_some_and(|own: &[u8; N]| own.map(|byte| byte | 0x20) == *name)
    }
}

/// How long the body is (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Absent,
    /// So many bytes.
    Length(u64),
    /// Chunks (RFC 9112, section 7.1).
    Chunked,
    /// All bytes up to the end of the connection: of a response that says neither.
    UntilClose,
}

impl Framing {
    /// Whether no byte of a body follows.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::Absent | Self::Length(0))
    }
}

/// The head of a request.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The request line without its end.
    pub line: &'a [u8],
    /// As it came.
    pub method: &'a [u8],
    /// Taken apart.
    pub target: Target<'a>,
    /// What was spoken.
    pub version: Version,
    /// The one `Host`, if it is there.
    pub host: Option<&'a [u8]>,
    /// How long the body is.
    pub framing: Framing,
    /// How often OPTIONS or TRACE may still be passed on, if they say so.
    pub max_forwards: Option<u64>,
    /// In their order.
    pub fields: Vec<Field<'a>>,
}

impl Request<'_> {
    /// Whether it is OPTIONS in absolute form without a path: `*` (RFC 9112, section 3.2.4).
    #[must_use]
    pub fn is_server_wide(&self) -> bool {
        self.method == b"OPTIONS" && matches!(self.target, Target::Absolute(_, b""))
    }
}

/// The head of a response.
#[derive(Clone, Debug)]
pub struct Response<'a> {
    /// What was spoken.
    pub version: Version,
    /// Three digits.
    pub status: u16,
    /// May be empty.
    pub reason: &'a [u8],
    /// In their order.
    pub fields: SmallVec<[Field<'a>; OFTEN_IN_RESPONSES]>,
}

impl Response<'_> {
    /// How long the body is (RFC 9112, section 6.3); `to_head`: it answers HEAD. What an interim response says of a
    /// length is not looked at.
    ///
    /// # Errors
    /// A length that can be read in two ways, also where there is no body for it: the client would read it as well.
    pub fn framing(&self, to_head: bool) -> Result<Framing, Fault> {
        if self.status < 200 {
            return Ok(Framing::Absent);
        }
        let framing = meaning::of_response(&self.fields, self.version)?;
        if to_head || matches!(self.status, 204 | 304) {
            return Ok(Framing::Absent);
        }
        Ok(framing.unwrap_or(Framing::UntilClose))
    }
}

/// Reads one head after the other, and remembers how far it has looked at one that is not whole yet.
#[derive(Clone, Debug)]
pub struct Reader {
    place: Place,
}

impl Default for Reader {
    fn default() -> Self {
        Self { place: Place::START }
    }
}

impl Reader {
    /// Reads the head of a request. `bytes` begin where the message does, with each call.
    ///
    /// # Errors
    /// The first rule that it breaks, at the byte that breaks it.
    pub fn request<'a>(
        &mut self,
        bytes: &'a [u8],
        limits: &HeadLimits,
    ) -> Result<Option<(Request<'a>, usize)>, Fault> {
        let mut line = None;
        let first = |lines: &mut Lines<'a, '_>| lines.request_line(&mut line);
        let mut fields = Vec::with_capacity(if self.place == Place::START { OFTEN } else { 0 });
        let put = |field| fields.push(field);
        let Some((is_all, used)) =
            read_lines(&mut self.place, Place::START, bytes, limits, false, first, put)?
        else {
            return Ok(None);
        };
        // It came in pieces, and is whole now.
        let Some(line) = line.filter(|_| is_all) else { return self.request(bytes, limits) };
        let lines::RequestLine { line, method, target, version } = line;
        let (host, framing) = meaning::of_request(&fields, version)?;
        let max_forwards = meaning::of_intermediaries(method, &fields, framing)?;
        let head = Request { line, method, target, version, host, framing, max_forwards, fields };
        Ok(Some((head, used)))
    }

    /// Reads the head of a response. What its fields say of its body, [`Response::framing`] judges.
    ///
    /// # Errors
    /// The first rule that it breaks, at the byte that breaks it.
    pub fn response<'a>(
        &mut self,
        bytes: &'a [u8],
        limits: &HeadLimits,
    ) -> Result<Option<(Response<'a>, usize)>, Fault> {
        let mut line = None;
        let first = |lines: &mut Lines<'a, '_>| lines.status_line(&mut line);
        let mut fields = SmallVec::new();
        let put = |field| fields.push(field);
        let Some((is_all, used)) =
            read_lines(&mut self.place, Place::START, bytes, limits, true, first, put)?
        else {
            return Ok(None);
        };
        let Some(line) = line.filter(|_| is_all) else { return self.response(bytes, limits) };
        let lines::StatusLine { version, status, reason } = line;
        Ok(Some((Response { version, status, reason, fields }, used)))
    }
}

/// Reads the trailer section of a chunked body, its empty line included, from `place` on, which is
/// [`Place::FIELDS`] at first.
pub(super) fn trailers<'a>(
    place: &mut Place,
    bytes: &'a [u8],
    limits: &HeadLimits,
) -> Result<Option<(Vec<Field<'a>>, usize)>, Fault> {
    loop {
        let mut fields = Vec::new();
        let put = |field| fields.push(field);
        let first = |_: &mut Lines<'a, '_>| Ok(Some(()));
        return match read_lines(place, Place::FIELDS, bytes, limits, false, first, put)? {
            None => Ok(None),
            Some((false, _)) => continue,
            Some((true, used)) => {
                meaning::of_trailers(&fields)?;
                Ok(Some((fields, used)))
            }
        };
    }
}

/// So many fields most heads of requests have at most: room for them is made at once.
const OFTEN: usize = 16;

/// The same of responses, whose room takes no memory of its own.
const OFTEN_IN_RESPONSES: usize = 12;

/// The first line and the field lines of a section that begins at `start`, from `place` on. `put` gets the fields that
/// this call read. Says whether these are all, and how many bytes there are up to the end of the empty line.
fn read_lines<'a>(
    place: &mut Place,
    start: Place,
    bytes: &'a [u8],
    limits: &HeadLimits,
    lone_lf: bool,
    first: impl FnOnce(&mut Lines<'a, '_>) -> Result<Option<()>, Fault>,
    put: impl FnMut(Field<'a>),
) -> Result<Option<(bool, usize)>, Fault> {
    // Nothing behind the limit is looked at, so that it does not depend on the pieces in which bytes come.
    let within = head_of(bytes, limits.head);
    let from = std::mem::replace(place, start);
    let mut lines = Lines { bytes: within, place: from, limits, lone_lf };
    let read = match first(&mut lines)? {
        Some(()) => lines.fields(put)?,
        None => None,
    };
    if read.is_some() {
        return Ok(Some((from == start, lines.place.at)));
    }
    if bytes.len() >= limits.head {
        return Err(Fault::LongHead);
    }
    *place = lines.place;
    Ok(None)
}

fn head_of(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(..length.min(bytes.len())).unwrap_or_default()
}
