//! Heads of HTTP/1.1 messages, read strictly (RFC 9112, sections 2 to 7).
//!
//! The rule: what two readers could read differently is a fault, and the fault names the rule that was
//! broken. Bytes in, values out: `Ok(None)` asks for more bytes, `Ok(Some((head, used)))` is a head of
//! `used` bytes. A head is read in one pass, and nothing of it is copied.

mod fault;
mod target;

pub use self::fault::Fault;
pub use self::target::{Target, is_host};

/// How much a head may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the whole head, its empty line included.
    pub head: usize,
    /// Field lines.
    pub fields: usize,
    /// Bytes of the request target. RFC 9112, section 3, asks for 8,000 at least for the whole line.
    pub target: usize,
}

impl Limits {
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
    /// Whether it has this name, which is given in lower case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// How long the body is (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No length and no coding: none, in a request.
    Absent,
    /// So many bytes.
    Length(u64),
    /// Chunks (RFC 9112, section 7.1).
    Chunked,
}

impl Framing {
    /// Whether no byte of a request's body follows.
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
    /// Three digits.
    pub status: u16,
    /// May be empty.
    pub reason: &'a [u8],
    /// In their order.
    pub fields: Vec<Field<'a>>,
}

/// What a byte may be part of.
const TOKEN: u8 = 1;
const VALUE: u8 = 2;

/// RFC 9110: section 5.6.2 says what a token is made of, section 5.5 what a value must not hold.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::cast_possible_truncation)]
        let character = byte as u8;
        let token = character.is_ascii_alphanumeric()
            || matches!(
                character,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        let value = character == b'\t' || (character >= b' ' && character != 0x7f);
        #[allow(clippy::indexing_slicing)]
        {
            classes[byte] = (if token { TOKEN } else { 0 }) | (if value { VALUE } else { 0 });
        }
        byte += 1;
    }
    classes
};

fn is(class: u8, byte: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|classes| classes & class != 0)
}

/// Whether a value may hold all of these, tabs not looked at: eight at a time, for most of a head is values.
const fn are_plain(eight: [u8; 8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let bytes = u64::from_ne_bytes(eight);
    // One of them is zero, or less than a space, exactly if these have a high bit (Hacker's Delight, 6-1).
    let control = bytes.wrapping_sub(ONES * b' ' as u64) & !bytes & HIGH;
    let delete = bytes ^ (ONES * 0x7f);
    let delete = delete.wrapping_sub(ONES) & !delete & HIGH;
    control | delete == 0
}

/// Whether these bytes are a token (RFC 9110, section 5.6.2).
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is(TOKEN, *byte))
}

/// Reads the head of a request.
///
/// # Errors
/// The first rule that it breaks, as soon as the bytes so far break it.
pub fn request<'a>(
    bytes: &'a [u8],
    limits: &Limits,
) -> Result<Option<(Request<'a>, usize)>, Fault> {
    // RFC 9112, section 2.2: one empty line may come first; it is what an old client sent too much.
    let start = match bytes {
        [b'\r', b'\n', ..] => 2,
        [] | [b'\r'] => return Ok(None),
        _ => 0,
    };
    let mut lines = Lines { bytes, at: start };
    let Some((line, method, target, version)) = lines.request_line(limits)? else {
        return too_long(bytes, limits).map(|()| None);
    };
    let Some(fields) = lines.fields(limits)? else {
        return too_long(bytes, limits).map(|()| None);
    };
    within(lines.at, limits)?;
    let (host, framing) = meaning(&fields, version)?;
    let max_forwards = of_intermediaries(method, &fields, framing)?;
    let head = Request { line, method, target, version, host, framing, max_forwards, fields };
    Ok(Some((head, lines.at)))
}

/// Reads the head of a response; what its fields say of its body is not judged.
///
/// # Errors
/// The first rule that it breaks, as soon as the bytes so far break it.
pub fn response<'a>(
    bytes: &'a [u8],
    limits: &Limits,
) -> Result<Option<(Response<'a>, usize)>, Fault> {
    let mut lines = Lines { bytes, at: 0 };
    let Some((status, reason)) = lines.status_line()? else {
        return too_long(bytes, limits).map(|()| None);
    };
    let Some(fields) = lines.fields(limits)? else {
        return too_long(bytes, limits).map(|()| None);
    };
    within(lines.at, limits)?;
    Ok(Some((Response { status, reason, fields }, lines.at)))
}

/// Reads the trailer section of a chunked body, its empty line included: how many bytes it has.
///
/// # Errors
/// A field line that breaks a rule, or a field that would change what the message means (RFC 9110,
/// section 6.5.1).
pub fn trailers(bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Fault> {
    let mut lines = Lines { bytes, at: 0 };
    let Some(fields) = lines.fields(limits)? else {
        return too_long(bytes, limits).map(|()| None);
    };
    for field in &fields {
        if disguises_framing(field.name)
            || ["content-length", "transfer-encoding", "host"].iter().any(|name| field.is(name))
        {
            return Err(Fault::Trailer);
        }
    }
    within(lines.at, limits)?;
    Ok(Some(lines.at))
}

const fn too_long(bytes: &[u8], limits: &Limits) -> Result<(), Fault> {
    if bytes.len() < limits.head { Ok(()) } else { Err(Fault::LongHead) }
}

/// The same of one that came whole: the limit does not depend on the pieces in which bytes come.
const fn within(length: usize, limits: &Limits) -> Result<(), Fault> {
    if length <= limits.head { Ok(()) } else { Err(Fault::LongHead) }
}

/// Where the reading has come to.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

type RequestLine<'a> = (&'a [u8], &'a [u8], Target<'a>, Version);

impl<'a> Lines<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Takes bytes as long as they are wanted. None: they may go on in bytes that have not come.
    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.at..)?;
        let length = rest.iter().position(|byte| !wanted(*byte))?;
        self.at += length;
        rest.get(..length)
    }

    /// A field's value, its white space with it.
    fn value(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        let rest = self.bytes.get(start..)?;
        let plain = rest.as_chunks::<8>().0.iter().take_while(|eight| are_plain(**eight)).count();
        self.at += 8 * plain;
        if self.take_while(|byte| is(VALUE, byte)).is_none() {
            self.at = start;
            return None;
        }
        self.bytes.get(start..self.at)
    }

    /// CRLF and nothing else (RFC 9112, section 2.2: a bare CR is invalid; a bare LF is a line end to
    /// some and none to others).
    fn line_end(&mut self, otherwise: Fault) -> Result<Option<()>, Fault> {
        match self.bytes.get(self.at..) {
            Some([b'\r', b'\n', ..]) => {
                self.at += 2;
                Ok(Some(()))
            }
            Some([] | [b'\r']) | None => Ok(None),
            Some([b'\r' | b'\n', ..]) => Err(Fault::LineEnd),
            Some(_) => Err(otherwise),
        }
    }

    /// RFC 9112, section 3: exactly one space between the three parts.
    fn request_line(&mut self, limits: &Limits) -> Result<Option<RequestLine<'a>>, Fault> {
        let start = self.at;
        let Some(method) = self.take_while(|byte| is(TOKEN, byte)) else { return Ok(None) };
        if method.is_empty() || self.peek() != Some(b' ') {
            return Err(match self.peek() {
                Some(b'\r' | b'\n') if method.is_empty() => Fault::LineEnd,
                Some(b'\r' | b'\n') => Fault::RequestLine,
                _ => Fault::Method,
            });
        }
        self.at += 1;
        let target_start = self.at;
        let Some(target) = self.take_while(|byte| byte.is_ascii_graphic()) else {
            let so_far = self.bytes.len() - target_start;
            return if so_far > limits.target { Err(Fault::LongTarget) } else { Ok(None) };
        };
        match self.peek() {
            Some(b' ') if !target.is_empty() => self.at += 1,
            // No version: HTTP/0.9.
            Some(b' ' | b'\r' | b'\n') => return Err(Fault::RequestLine),
            _ => return Err(Fault::Target),
        }
        if target.len() > limits.target {
            return Err(Fault::LongTarget);
        }
        let version = match self.bytes.get(self.at..) {
            Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ (b'0' | b'1'), ..]) => {
                if *minor == b'1' { Version::Http11 } else { Version::Http10 }
            }
            Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor, ..])
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                return Err(Fault::Version);
            }
            Some(short) if short.len() < 8 && b"HTTP/".starts_with(head_of(short, 5)) => {
                return Ok(None);
            }
            _ => return Err(Fault::RequestLine),
        };
        self.at += 8;
        let line = self.bytes.get(start..self.at).unwrap_or_default();
        if self.line_end(Fault::RequestLine)?.is_none() {
            return Ok(None);
        }
        if method == b"CONNECT" {
            return Err(Fault::Connect);
        }
        let target = target::parse(target, method == b"OPTIONS").ok_or(Fault::Target)?;
        Ok(Some((line, method, target, version)))
    }

    /// RFC 9112, section 4. The reason may be absent, and the space before it with it.
    fn status_line(&mut self) -> Result<Option<(u16, &'a [u8])>, Fault> {
        let Some(line) = self.bytes.get(..12) else {
            // Told at once where no status line can come of it.
            let known = self.bytes.len().min(7);
            let begins = b"HTTP/1.".starts_with(head_of(self.bytes, known));
            return if begins { Ok(None) } else { Err(Fault::StatusLine) };
        };
        let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', b' ', digits @ ..] = line
        else {
            return Err(Fault::StatusLine);
        };
        let status = decimal(digits).filter(|status| *status >= 100).ok_or(Fault::StatusLine)?;
        self.at = 12;
        let reason = match self.peek() {
            Some(b' ') => {
                self.at += 1;
                let Some(reason) = self.take_while(|byte| is(VALUE, byte)) else { return Ok(None) };
                reason
            }
            _ => b"",
        };
        let ended = self.line_end(Fault::StatusLine)?;
        let status = u16::try_from(status).map_err(|_| Fault::StatusLine)?;
        Ok(ended.map(|()| (status, reason)))
    }

    /// RFC 9112, section 5: field lines up to and with the empty line.
    fn fields(&mut self, limits: &Limits) -> Result<Option<Vec<Field<'a>>>, Fault> {
        let mut fields = Vec::with_capacity(16);
        loop {
            let Some(name) = self.take_while(|byte| is(TOKEN, byte)) else { return Ok(None) };
            match self.peek() {
                Some(b':') if !name.is_empty() => self.at += 1,
                Some(b'\r' | b'\n') if name.is_empty() => {
                    return Ok(self.line_end(Fault::LineEnd)?.map(|()| fields));
                }
                // At the start of a line, white space continues the one before: folding.
                Some(b' ' | b'\t') if name.is_empty() => return Err(Fault::Folding),
                _ => return Err(Fault::FieldName),
            }
            if fields.len() == limits.fields {
                return Err(Fault::ManyFields);
            }
            let Some(value) = self.value() else { return Ok(None) };
            if self.line_end(Fault::ControlByte)?.is_none() {
                return Ok(None);
            }
            fields.push(Field { name, value: trim(value) });
        }
    }
}

fn head_of(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(..length.min(bytes.len())).unwrap_or_default()
}

/// Without the white space around it (RFC 9110, section 5.5).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// What the fields say of the whole message: where it goes and how long it is.
fn meaning<'a>(
    fields: &[Field<'a>],
    version: Version,
) -> Result<(Option<&'a [u8]>, Framing), Fault> {
    let mut host = None;
    let mut length = None;
    let mut coding = None;
    for field in fields {
        let (once, fault) = match field.name.len() {
            4 if field.is("host") => (&mut host, Fault::SeveralHosts),
            14 if field.is("content-length") => (&mut length, Fault::SeveralLengths),
            17 if field.is("transfer-encoding") => (&mut coding, Fault::Coding),
            14 | 17 if disguises_framing(field.name) => return Err(Fault::Disguised),
            _ => continue,
        };
        if once.replace(field.value).is_some() {
            return Err(fault);
        }
    }
    // RFC 9112, section 3.2.
    match host {
        Some(host) if !is_host(host) => return Err(Fault::Host),
        None if version == Version::Http11 => return Err(Fault::NoHost),
        _ => {}
    }
    // RFC 9112, sections 6.1 and 6.3.
    let framing = match (length, coding) {
        (Some(_), Some(_)) => return Err(Fault::LengthAndCoding),
        (Some(length), None) => Framing::Length(content_length(length)?),
        (None, Some(coding)) => {
            transfer_coding(coding, version)?;
            Framing::Chunked
        }
        (None, None) => Framing::Absent,
    };
    Ok((host, framing))
}

/// What OPTIONS and TRACE say to who passes them on (RFC 9110, section 7.6.2). TRACE has no content (section
/// 9.3.8): to who knows that, some would be the next request.
fn of_intermediaries(
    method: &[u8],
    fields: &[Field<'_>],
    framing: Framing,
) -> Result<Option<u64>, Fault> {
    match method {
        b"TRACE" if !framing.is_empty() => return Err(Fault::Trace),
        b"TRACE" | b"OPTIONS" => {}
        _ => return Ok(None),
    }
    let mut numbers = fields.iter().filter(|field| field.is("max-forwards"));
    match (numbers.next(), numbers.next()) {
        (None, _) => Ok(None),
        (Some(number), None) => max_forwards(number.value).map(Some),
        (Some(_), Some(_)) => Err(Fault::MaxForwards),
    }
}

/// Digits; of more than there can be, the most that is supported (RFC 9110, section 7.6.2).
pub(super) fn max_forwards(value: &[u8]) -> Result<u64, Fault> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Fault::MaxForwards);
    }
    Ok(decimal(value).unwrap_or(u64::MAX))
}

/// A framing field in a spelling that some read as the field itself: whoever hands fields on as CGI
/// variables (RFC 3875, section 4.1.18) has one sign for all that is no letter or digit.
fn disguises_framing(name: &[u8]) -> bool {
    let same = |ours: &[u8]| {
        name.len() == ours.len()
            && !name.eq_ignore_ascii_case(ours)
            && name.iter().zip(ours).all(|(byte, our)| match our {
                b'-' => !byte.is_ascii_alphanumeric(),
                our => byte.eq_ignore_ascii_case(our),
            })
    };
    same(b"content-length") || same(b"transfer-encoding")
}

/// Digits alone, and no zero in front: `010` is eight to some.
pub(super) fn content_length(value: &[u8]) -> Result<u64, Fault> {
    if value.len() > 1 && value.starts_with(b"0") {
        return Err(Fault::Length);
    }
    // Half of the numbers, so that nobody takes one for negative.
    decimal(value).filter(|length| i64::try_from(*length).is_ok()).ok_or(Fault::Length)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// `chunked` alone. Another coding before it could be done and is not; anything else leaves the end
/// of the body open.
pub(super) fn transfer_coding(value: &[u8], version: Version) -> Result<(), Fault> {
    // RFC 9112, section 6.1: in HTTP/1.0 the framing is faulty.
    if version == Version::Http10 {
        return Err(Fault::OldCoding);
    }
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = value.split(|byte| *byte == b',').map(trim);
    let last = codings.next_back().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let known = |coding: &[u8]| is_token(coding) && !coding.eq_ignore_ascii_case(b"chunked");
    Err(if last && codings.all(known) { Fault::UnknownCoding } else { Fault::Coding })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used)]

    use super::*;

    #[test]
    fn eight_bytes_at_a_time_are_judged_as_each_by_itself() {
        for byte in 0..=u8::MAX {
            for place in 0..8 {
                for other in [b' ', b'a', b'~', 0x80, 0xff] {
                    let mut eight = [other; 8];
                    eight[place] = byte;
                    let each = is(VALUE, byte) && byte != b'\t';
                    assert_eq!(are_plain(eight), each, "{byte:#x} at {place} among {other:#x}");
                }
            }
        }
    }

    #[test]
    fn value_of_any_length_is_read_whole_and_no_byte_hides_in_it() {
        for length in 0..40 {
            let value = "v".repeat(length);
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n");
            let (read, used) = request(head.as_bytes(), &Limits::DEFAULT).unwrap().unwrap();
            assert_eq!((read.fields[1].value, used), (value.as_bytes(), head.len()));
            for place in 0..length {
                for (byte, fault) in [(0, Fault::ControlByte), (b'\n', Fault::LineEnd)] {
                    let mut bad = head.clone().into_bytes();
                    bad["GET / HTTP/1.1\r\nHost: a\r\nX: ".len() + place] = byte;
                    assert_eq!(request(&bad, &Limits::DEFAULT).unwrap_err(), fault, "{place}");
                }
            }
        }
    }
}
