//! The lines of a head, byte by byte from where the reading came to: request line, status line, field lines.
//!
//! ```text
//! Start → Method → Target → Version → LineEnd ─┐
//! Start → Status → Reason ─────────────────────┴→ Name ⇄ Value
//!                                                  └→ the empty line: the head is whole
//! ```
//!
//! Each byte is judged when it is looked at, whatever comes behind it. So where a head breaks a rule does not depend
//! on how its bytes came, and a reading that ran out of bytes goes on from its [`Place`].

use super::bytes::{end_of_target, end_of_token, end_of_value};
use super::{Fault, Field, HeadLimits, Target, Version, target};

/// What is read next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    /// Perhaps an empty line, then the first line.
    #[default]
    Start,
    Method,
    Target,
    Version,
    /// Behind the version.
    LineEnd,
    /// The version and the status of a response.
    Status,
    /// Behind the status.
    Reason,
    /// A field's name, or the empty line.
    Name,
    /// A field's value and the end of its line.
    Value,
}

/// Where a reading came to, in bytes from the start of the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::http) struct Place {
    part: Part,
    /// Up to here every byte was looked at.
    pub(super) at: usize,
    /// Where the line begins.
    line: usize,
    /// Where the line's first word ends: the method, or a field's name.
    first: usize,
    /// Where the target ends.
    second: usize,
    /// Field lines so far.
    fields: usize,
}

impl Place {
    /// Where nothing was read.
    pub(super) const START: Self =
        Self { part: Part::Start, at: 0, line: 0, first: 0, second: 0, fields: 0 };

    /// Where field lines begin without a line before them: a trailer section.
    pub(in crate::http) const FIELDS: Self = Self { part: Part::Name, ..Self::START };
}

/// The parts of a request line.
pub(super) struct RequestLine<'a> {
    pub(super) line: &'a [u8],
    pub(super) method: &'a [u8],
    pub(super) target: Target<'a>,
    pub(super) version: Version,
}

/// The parts of a status line.
pub(super) struct StatusLine<'a> {
    pub(super) version: Version,
    pub(super) status: u16,
    pub(super) reason: &'a [u8],
}

/// Reads lines, from a place on.
pub(super) struct Lines<'a, 'l> {
    pub(super) bytes: &'a [u8],
    pub(super) place: Place,
    pub(super) limits: &'l HeadLimits,
    /// Whether LF alone ends a line.
    pub(super) lone_lf: bool,
}

impl<'a> Lines<'a, '_> {
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.place.at..).unwrap_or_default()
    }

    fn between(&self, start: usize, end: usize) -> &'a [u8] {
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// Goes to where a run of bytes ends: the byte there. None: it may go on in bytes that have not come.
    fn run(&mut self, end: impl Fn(&[u8], usize) -> Option<usize>) -> Option<u8> {
        let end = end(self.bytes, self.place.at);
        self.place.at = end.unwrap_or(self.bytes.len());
        self.bytes.get(self.place.at).copied()
    }

    const fn go(&mut self, part: Part, at: usize) {
        self.place.part = part;
        self.place.at = at;
    }

    /// The end of a line: CRLF and nothing else (RFC 9112, section 2.2: a bare CR is invalid; a bare LF is a line end
    /// to some and none to others), unless LF alone is one. The next line begins behind it.
    fn end_of_line(&mut self, part: Part, otherwise: Fault) -> Result<Option<()>, Fault> {
        let length = match self.rest() {
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] if self.lone_lf => 1,
            [] | [b'\r'] => return Ok(None),
            [b'\r' | b'\n', ..] => return Err(Fault::LineEnd),
            _ => return Err(otherwise),
        };
        self.go(part, self.place.at + length);
        self.place.line = self.place.at;
        Ok(Some(()))
    }

    /// RFC 9112, section 2.2: one empty line may come first; it is what an old client sent too much, or an upstream
    /// behind a 100.
    fn start(&mut self, part: Part) -> Result<Option<()>, Fault> {
        match self.rest() {
            [] => Ok(None),
            [b'\r' | b'\n', ..] => self.end_of_line(part, Fault::LineEnd),
            _ => {
                self.go(part, self.place.at);
                Ok(Some(()))
            }
        }
    }

    /// RFC 9112, section 3: exactly one space between the three parts. Nothing goes into `into` where the end of the
    /// line was read before.
    pub(super) fn request_line(
        &mut self,
        into: &mut Option<RequestLine<'a>>,
    ) -> Result<Option<()>, Fault> {
        loop {
            match self.place.part {
                Part::Start => {
                    if self.start(Part::Method)?.is_none() {
                        return Ok(None);
                    }
                }
                Part::Method => {
                    let Some(end) = self.run(end_of_token) else { return Ok(None) };
                    let is_empty = self.place.at == self.place.line;
                    match end {
                        b' ' if !is_empty => {}
                        b'\r' | b'\n' if is_empty => return Err(Fault::LineEnd),
                        b'\r' | b'\n' => return Err(Fault::RequestLine),
                        _ => return Err(Fault::Method),
                    }
                    self.place.first = self.place.at;
                    self.go(Part::Target, self.place.at + 1);
                }
                Part::Target => {
                    let end = self.run(end_of_target);
                    let length = self.place.at.saturating_sub(self.place.first + 1);
                    if length > self.limits.target {
                        return Err(Fault::LongTarget);
                    }
                    match end {
                        None => return Ok(None),
                        Some(b' ') if length > 0 => {}
                        // No version: HTTP/0.9.
                        Some(b' ' | b'\r' | b'\n') => return Err(Fault::RequestLine),
                        Some(_) => return Err(Fault::Target),
                    }
                    self.place.second = self.place.at;
                    self.go(Part::Version, self.place.at + 1);
                }
                Part::Version => match version(self.rest())? {
                    None => return Ok(None),
                    Some(_) => self.go(Part::LineEnd, self.place.at + VERSION),
                },
                Part::LineEnd => {
                    let Place { line, first, second, at, .. } = self.place;
                    if self.end_of_line(Part::Name, Fault::RequestLine)?.is_none() {
                        return Ok(None);
                    }
                    let method = self.between(line, first);
                    if method == b"CONNECT" {
                        return Err(Fault::Connect);
                    }
                    let target = self.between(first + 1, second);
                    let target = target::parse(target, method == b"OPTIONS");
                    let is_new = self.between(second + 1, at) == b"HTTP/1.1";
                    *into = Some(RequestLine {
                        line: self.between(line, at),
                        method,
                        target: target.ok_or(Fault::Target)?,
                        version: if is_new { Version::Http11 } else { Version::Http10 },
                    });
                }
                _ => return Ok(Some(())),
            }
        }
    }

    /// RFC 9112, section 4. The reason may be absent, and the space before it with it. Nothing goes into `into` where
    /// the end of the line was read before.
    pub(super) fn status_line(
        &mut self,
        into: &mut Option<StatusLine<'a>>,
    ) -> Result<Option<()>, Fault> {
        loop {
            match self.place.part {
                Part::Start => {
                    if self.start(Part::Status)?.is_none() {
                        return Ok(None);
                    }
                }
                Part::Status => {
                    if status(self.rest())?.is_none() {
                        return Ok(None);
                    }
                    self.place.first = self.place.at + STATUS;
                    self.go(Part::Reason, self.place.first);
                }
                Part::Reason => {
                    let Place { line, first, .. } = self.place;
                    if self.bytes.get(first) == Some(&b' ') && self.run(end_of_value).is_none() {
                        return Ok(None);
                    }
                    let end = self.place.at;
                    if self.end_of_line(Part::Name, Fault::StatusLine)?.is_none() {
                        return Ok(None);
                    }
                    let (version, status) =
                        status(self.between(line, first))?.ok_or(Fault::StatusLine)?;
                    let reason = self.between(first + 1, end);
                    *into = Some(StatusLine { version, status, reason });
                }
                _ => return Ok(Some(())),
            }
        }
    }

    /// RFC 9112, section 5: field lines up to and with the empty line. Those that were not read before are given to
    /// `put`.
    pub(super) fn fields(&mut self, mut put: impl FnMut(Field<'a>)) -> Result<Option<()>, Fault> {
        loop {
            if self.place.part != Part::Value {
                let Some(end) = self.run(end_of_token) else { return Ok(None) };
                let is_empty = self.place.at == self.place.line;
                match end {
                    b':' if !is_empty => {}
                    b'\r' | b'\n' if is_empty => {
                        return self.end_of_line(Part::Start, Fault::LineEnd);
                    }
                    // At the start of a line, white space continues the one before: folding.
                    b' ' | b'\t' if is_empty => return Err(Fault::Folding),
                    _ => return Err(Fault::FieldName),
                }
                if self.place.fields == self.limits.fields {
                    return Err(Fault::ManyFields);
                }
                self.place.first = self.place.at;
                self.go(Part::Value, self.place.at + 1);
            }
            let Place { line, first, .. } = self.place;
            if self.run(end_of_value).is_none() {
                return Ok(None);
            }
            let end = self.place.at;
            if self.end_of_line(Part::Name, Fault::ControlByte)?.is_none() {
                return Ok(None);
            }
            self.place.fields += 1;
            let (name, value) = (self.between(line, first), self.between(first + 1, end));
            put(Field { name, value: trim(value) });
        }
    }
}

/// Bytes of a version.
const VERSION: usize = 8;

/// RFC 9112, section 2.3: `HTTP/`, a digit, a dot, a digit. Each byte as soon as it is there.
fn version(bytes: &[u8]) -> Result<Option<Version>, Fault> {
    match bytes {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', ..] => Ok(Some(Version::Http11)),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0', ..] => Ok(Some(Version::Http10)),
        _ => {
            let fits = |(place, byte): (usize, &u8)| match place {
                5 | 7 => byte.is_ascii_digit(),
                _ => b"HTTP/ .".get(place) == Some(byte),
            };
            if !bytes.iter().take(VERSION).enumerate().all(fits) {
                return Err(Fault::RequestLine);
            }
            if bytes.len() < VERSION { Ok(None) } else { Err(Fault::Version) }
        }
    }
}

/// Bytes of a version, a space and a status.
const STATUS: usize = 12;

/// RFC 9112, section 4: the version, a space, three digits. Each byte as soon as it is there.
fn status(bytes: &[u8]) -> Result<Option<(Version, u16)>, Fault> {
    if let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ (b'0' | b'1'), b' ', digits @ ..] =
        bytes
        && let [hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', ..] = digits
    {
        let digit = |byte: &u8| u16::from(byte - b'0');
        let version = if *minor == b'1' { Version::Http11 } else { Version::Http10 };
        return Ok(Some((version, 100 * digit(hundreds) + 10 * digit(tens) + digit(ones))));
    }
    let fits = |(place, byte): (usize, &u8)| match place {
        7 => matches!(byte, b'0' | b'1'),
        9 => matches!(byte, b'1'..=b'9'),
        10 | 11 => byte.is_ascii_digit(),
        _ => b"HTTP/1.  ".get(place) == Some(byte),
    };
    let so_far = bytes.len() < STATUS && bytes.iter().enumerate().all(fits);
    if so_far { Ok(None) } else { Err(Fault::StatusLine) }
}

/// Without the white space around it (RFC 9110, section 5.5).
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
