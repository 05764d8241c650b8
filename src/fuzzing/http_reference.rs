//! A second reader of HTTP/1.1, for comparison: it knows whole messages only, cuts them into lines and words, and
//! takes as long as it likes.

use crate::http::head::{Framing, HeadLimits, is_host};

/// What a reference makes of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict<T> {
    /// Their end is not there.
    Part,
    /// They break a rule.
    Wrong,
    /// They are right, and so many of them belong together.
    Whole(T, usize),
}

/// A field line: its name and its value.
pub(super) type Field = (Vec<u8>, Vec<u8>);

/// What matters of a request's head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) framing: Framing,
    pub(super) fields: Vec<Field>,
}

/// What matters of a response's head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) reason: Vec<u8>,
    /// If its length can be told.
    pub(super) framing: Option<Framing>,
    pub(super) fields: Vec<Field>,
}

/// A chunked body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) data: Vec<u8>,
    pub(super) trailers: Vec<Field>,
}

/// The bytes up to `end`, and how many they are with it.
pub(super) fn up_to<'b>(bytes: &'b [u8], end: &[u8]) -> Option<(&'b [u8], usize)> {
    let at = find(bytes, end)?;
    Some((&bytes[..at], at + end.len()))
}

/// Where `part`, which is not empty, stands first. Most places are passed by for their first byte: a fuzzer watches
/// each comparison of more, which takes long.
pub(crate) fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    let (first, rest) = part.split_first()?;
    let mut from = 0;
    loop {
        let at = from + bytes[from..].iter().position(|byte| byte == first)?;
        from = at + 1;
        if bytes[from..].starts_with(rest) {
            return Some(at);
        }
    }
}

fn is_token(bytes: &[u8]) -> bool {
    const OTHERS: &[u8] = b"!#$%&'*+-.^_`|~";
    !bytes.is_empty()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || OTHERS.contains(byte))
}

fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..))
}

fn trim(bytes: &[u8]) -> &[u8] {
    let is_white = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = bytes.iter().position(|byte| !is_white(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_white(byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

fn fields(lines: &[&[u8]], most: usize) -> Option<Vec<Field>> {
    let field = |line: &&[u8]| {
        let (name, used) = up_to(line, b":")?;
        let value = &line[used..];
        (is_token(name) && is_text(value)).then(|| (name.to_vec(), trim(value).to_vec()))
    };
    if lines.len() > most {
        return None;
    }
    lines.iter().map(field).collect()
}

fn values<'f>(fields: &'f [Field], name: &str) -> Vec<&'f [u8]> {
    let of_name = |field: &&Field| field.0.eq_ignore_ascii_case(name.as_bytes());
    fields.iter().filter(of_name).map(|(_, value)| &value[..]).collect()
}

/// A number of 63 bits.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    let is_digits = !text.is_empty() && text.chars().all(|digit| digit.is_digit(radix));
    let number = i128::from_str_radix(text.trim_start_matches('0'), radix);
    let number = if text.contains(|digit| digit != '0') { number.ok()? } else { 0 };
    u64::try_from(number).ok().filter(|number| is_digits && *number < 1 << 63)
}

/// What fields say of the length; None if it can be read in two ways.
fn framing(fields: &[Field], is_new: bool, otherwise: Framing) -> Option<Framing> {
    match (&values(fields, "content-length")[..], &values(fields, "transfer-encoding")[..]) {
        ([], []) => Some(otherwise),
        ([length], []) => number(length, 10).map(Framing::Length),
        ([], [coding]) => {
            (is_new && coding.eq_ignore_ascii_case(b"chunked")).then_some(Framing::Chunked)
        }
        _ => None,
    }
}

/// Whether a name is that of a framing field in another spelling.
fn is_disguised(name: &[u8]) -> bool {
    let plain: Vec<_> = name
        .iter()
        .map(|byte| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' })
        .collect();
    let is_framing = plain == b"content-length" || plain == b"transfer-encoding";
    is_framing && plain != name.to_ascii_lowercase()
}

/// The lines of a text whose end is cut off. None: LF stands alone in it.
fn lines_of(text: &[u8]) -> Option<Vec<&[u8]>> {
    let mut lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
    let last = lines.pop()?;
    let others = lines.into_iter().map(|line| line.strip_suffix(b"\r"));
    others.chain([Some(last)]).collect()
}

/// The head of a request.
pub(super) fn request(bytes: &[u8], limits: &HeadLimits) -> Verdict<Request> {
    let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let Some((text, used)) = up_to(&bytes[start..], b"\r\n\r\n") else { return Verdict::Part };
    let used = start + used;
    let Some(lines) = lines_of(text) else { return Verdict::Wrong };
    match request_of(&lines, limits) {
        Some(head) if used <= limits.head => Verdict::Whole(head, used),
        _ => Verdict::Wrong,
    }
}

fn request_of(lines: &[&[u8]], limits: &HeadLimits) -> Option<Request> {
    let words: Vec<_> = lines[0].split(|byte| *byte == b' ').collect();
    let &[method, target, version] = &words[..] else { return None };
    let is_new = version == b"HTTP/1.1";
    let is_visible = |byte: &u8| *byte > b' ' && !matches!(byte, 0x7f | b'#');
    if !is_token(method)
        || !is_new && version != b"HTTP/1.0"
        || method == b"CONNECT"
        || target.len() > limits.target
        || !target.iter().all(is_visible)
    {
        return None;
    }
    let lower = target.to_ascii_lowercase();
    let behind_scheme = [&b"http://"[..], b"https://"]
        .iter()
        .find_map(|scheme| lower.starts_with(scheme).then(|| &target[scheme.len()..]));
    let is_served = match (target, behind_scheme) {
        ([b'/', ..], _) => true,
        (b"*", _) => method == b"OPTIONS",
        (_, Some(rest)) => {
            let host = rest.split(|byte| matches!(byte, b'/' | b'?')).next().unwrap();
            !host.is_empty() && host[0] != b':' && is_host(host)
        }
        _ => false,
    };
    let fields = fields(&lines[1..], limits.fields)?;
    let framing = framing(&fields, is_new, Framing::Absent)?;
    let hosts = values(&fields, "host");
    let hosts_fit = hosts.len() == 1 && is_host(hosts[0]) || hosts.is_empty() && !is_new;
    let has_content = !matches!(framing, Framing::Absent | Framing::Length(0));
    let forwards = values(&fields, "max-forwards");
    let forwards_fit = forwards.is_empty()
        || forwards.len() == 1
            && !forwards[0].is_empty()
            && forwards[0].iter().all(u8::is_ascii_digit);
    let is_right = is_served
        && hosts_fit
        && !fields.iter().any(|(name, _)| is_disguised(name))
        && (method != b"TRACE" || !has_content)
        && (method != b"TRACE" && method != b"OPTIONS" || forwards_fit);
    is_right.then_some(Request { framing, fields })
}

/// The head of a response.
pub(super) fn response(bytes: &[u8], limits: &HeadLimits) -> Verdict<Response> {
    // LF alone ends a line; a CR before it belongs to the line end.
    let mut lines = Vec::new();
    let mut used = 0;
    while let Some((line, length)) = up_to(&bytes[used..], b"\n") {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        used += length;
        if line.is_empty() && used > 2 && !lines.is_empty() {
            return match response_of(&lines, limits) {
                Some(head) if used <= limits.head => Verdict::Whole(head, used),
                _ => Verdict::Wrong,
            };
        }
        // One empty line may come first.
        if !line.is_empty() {
            lines.push(line);
        } else if used > length {
            return Verdict::Wrong;
        }
    }
    Verdict::Part
}

fn response_of(lines: &[&[u8]], limits: &HeadLimits) -> Option<Response> {
    let (version, rest) = lines[0].split_at_checked(8)?;
    let (status, reason) = rest.split_at_checked(4)?;
    let is_new = version == b"HTTP/1.1";
    let status = status.strip_prefix(b" ").and_then(|digits| number(digits, 10))?;
    let reason = if reason.is_empty() { reason } else { reason.strip_prefix(b" ")? };
    if !is_new && version != b"HTTP/1.0" || status < 100 || !is_text(reason) {
        return None;
    }
    let fields = fields(&lines[1..], limits.fields)?;
    let of_fields = framing(&fields, is_new, Framing::UntilClose);
    let framing = match status {
        100..200 => Some(Framing::Absent),
        204 | 304 => of_fields.map(|_| Framing::Absent),
        _ => of_fields,
    };
    let reason = reason.to_vec();
    Some(Response { status: u16::try_from(status).unwrap(), reason, framing, fields })
}

/// A chunked body.
pub(super) fn chunked(bytes: &[u8], limits: &HeadLimits) -> Verdict<Body> {
    let mut body = Body::default();
    let mut used = 0;
    let mut extensions = 0;
    loop {
        let Some((line, length)) = up_to(&bytes[used..], b"\r\n") else { return Verdict::Part };
        used += length;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at(digits);
        extensions += extension.len();
        let size = number(size, 16).filter(|_| digits <= 16);
        let is_right = are_extensions(extension) && extensions <= 16 * 1_024 && line.len() <= 1_024;
        let Some(size) = size.filter(|_| is_right) else { return Verdict::Wrong };
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).unwrap();
        let Some(data) = bytes.get(used..).and_then(|rest| rest.get(..size)) else {
            return Verdict::Part;
        };
        body.data.extend_from_slice(data);
        used += size;
        match &bytes[used..] {
            [b'\r', b'\n', ..] => used += 2,
            [] | [b'\r'] => return Verdict::Part,
            _ => return Verdict::Wrong,
        }
    }
    let section = &bytes[used..];
    // The empty line ends it, be it the first one.
    let (text, length) = if section.starts_with(b"\r\n") {
        (&section[..0], 2)
    } else if let Some((text, length)) = up_to(section, b"\r\n\r\n") {
        (text, length)
    } else {
        return Verdict::Part;
    };
    let lines = if text.is_empty() { Some(Vec::new()) } else { lines_of(text) };
    let Some(trailers) = lines.and_then(|lines| fields(&lines, limits.fields)) else {
        return Verdict::Wrong;
    };
    let is_barred = |(name, _): &Field| {
        let barred = ["host", "content-length", "transfer-encoding"];
        is_disguised(name) || barred.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
    };
    if length > 16 * 1_024 || trailers.iter().any(is_barred) {
        return Verdict::Wrong;
    }
    body.trailers = trailers;
    Verdict::Whole(body, used + length)
}

/// RFC 9112, section 7.1.1: `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`.
fn are_extensions(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some(behind) = trim_start(rest).strip_prefix(b";") else { return false };
        let Some(behind) = behind_token(trim_start(behind)) else { return false };
        rest = behind;
        if let Some(value) = trim_start(rest).strip_prefix(b"=") {
            let value = trim_start(value);
            let behind = match value.strip_prefix(b"\"") {
                Some(quoted) => behind_quoted(quoted),
                None => behind_token(value),
            };
            let Some(behind) = behind else { return false };
            rest = behind;
        }
    }
    true
}

fn trim_start(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| !matches!(byte, b' ' | b'\t'));
    &bytes[start.unwrap_or(bytes.len())..]
}

fn behind_token(bytes: &[u8]) -> Option<&[u8]> {
    let length = bytes.iter().take_while(|byte| is_token(&[**byte])).count();
    (length > 0).then(|| &bytes[length..])
}

fn behind_quoted(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [b'"', rest @ ..] => Some(rest),
        [b'\\', escaped, rest @ ..] if is_text(&[*escaped]) => behind_quoted(rest),
        [byte, rest @ ..] if *byte != b'\\' && is_text(&[*byte]) => behind_quoted(rest),
        _ => None,
    }
}
