//! A strict reader of HTTP/1.1, by RFC 9112 and nobody's code: what it reads has one meaning, and
//! what has two it calls unclear. It stands behind the proxy as the application, and before it as the client.

/// A message that has one meaning.
#[derive(Clone, Debug)]
pub struct Message {
    /// The start line and the fields, as they came.
    pub head: String,
    pub body: Vec<u8>,
}

/// How far the bytes go.
#[derive(Debug)]
pub enum Read {
    /// A whole message of so many bytes.
    Whole(Message, usize),
    /// The beginning of one.
    Part,
    /// Two readers could read it differently: why.
    Unclear(String),
}

/// Reads a request from the start of `bytes`.
pub fn request(bytes: &[u8]) -> Read {
    read(bytes, |line| {
        let [method, target, version] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("request line {line:?}"));
        };
        let ends_a_target = |c: char| c <= ' ' || matches!(c, '\x7f' | '#');
        if !is_token(method) || target.is_empty() || target.contains(ends_a_target) {
            return Err(format!("request line {line:?}"));
        }
        if !["HTTP/1.1", "HTTP/1.0"].contains(&version) {
            return Err(format!("request line {line:?}"));
        }
        // A server takes the absolute form; what it says of the host must be said once (section 3.2.2).
        let lower = target.to_ascii_lowercase();
        let absolute = lower.split_once("http://").filter(|(before, _)| before.is_empty());
        let authority = absolute.map(|(_, rest)| rest.split(['/', '?']).next().unwrap().to_owned());
        let form = target.starts_with('/') || target == "*" && method == "OPTIONS";
        if !form && authority.as_ref().is_none_or(|authority| authority.contains('@')) {
            return Err(format!("target {target:?} to an origin"));
        }
        Ok(Kind::Request { old: version == "HTTP/1.0", authority })
    })
}

/// Reads a response from the start of `bytes`, which end with the connection if `ended`.
pub fn response(bytes: &[u8], ended: bool) -> Read {
    read(bytes, |line| {
        let mut parts = line.splitn(3, ' ');
        let version = parts.next().unwrap_or_default();
        let status = parts.next().unwrap_or_default();
        let digits = status.len() == 3 && status.bytes().all(|b| b.is_ascii_digit());
        if !["HTTP/1.1", "HTTP/1.0"].contains(&version) || !digits {
            return Err(format!("status line {line:?}"));
        }
        let bodiless = status.starts_with('1') || status == "204" || status == "304";
        Ok(Kind::Response { bodiless, ended, old: version == "HTTP/1.0" })
    })
}

enum Kind {
    /// `authority` as the target says it, if it does.
    Request {
        old: bool,
        authority: Option<String>,
    },
    Response {
        bodiless: bool,
        ended: bool,
        old: bool,
    },
}

fn read(bytes: &[u8], first: impl Fn(&str) -> Result<Kind, String>) -> Read {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return match lines(bytes) {
            Err(why) => Read::Unclear(why),
            Ok(_) => Read::Part,
        };
    };
    let parsed = lines(&bytes[..end + 2]).and_then(|lines| {
        let kind = first(lines.first().ok_or("no line")?)?;
        Ok((kind, fields(&lines[1..])?))
    });
    let (kind, fields) = match parsed {
        Ok(parsed) => parsed,
        Err(why) => return Read::Unclear(why),
    };
    let head = bytes[..end + 4].iter().map(|byte| char::from(*byte)).collect();
    let rest = &bytes[end + 4..];
    match body(&kind, &fields, rest) {
        Ok(Some((body, used))) => Read::Whole(Message { head, body }, end + 4 + used),
        Ok(None) => Read::Part,
        Err(why) => Read::Unclear(why),
    }
}

/// Lines that end with CRLF and hold no other CR, LF, NUL or control byte.
fn lines(bytes: &[u8]) -> Result<Vec<String>, String> {
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let mut lines = Vec::new();
    for line in text.split("\r\n") {
        let bad = |c: char| c != '\t' && (c < ' ' || c == '\x7f');
        if line.trim_end_matches('\r').contains(bad) {
            return Err(format!("control byte in {line:?}"));
        }
        lines.push(line.to_owned());
    }
    lines.pop();
    Ok(lines)
}

fn fields(lines: &[String]) -> Result<Vec<(String, String)>, String> {
    lines
        .iter()
        .map(|line| {
            let (name, value) = line.split_once(':').ok_or(format!("no colon in {line:?}"))?;
            if !is_token(name) {
                return Err(format!("name {name:?}"));
            }
            Ok((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
        })
        .collect()
}

/// The body, and how many bytes it takes (RFC 9112, section 6.3).
fn body(
    kind: &Kind,
    fields: &[(String, String)],
    rest: &[u8],
) -> Result<Option<(Vec<u8>, usize)>, String> {
    let all = |wanted: &str| {
        let values =
            fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        values.collect::<Vec<_>>()
    };
    for (name, _) in fields {
        let plain = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        if plain != *name && ["content-length", "transfer-encoding"].contains(&plain.as_str()) {
            return Err(format!("{name} looks like framing"));
        }
    }
    if let Kind::Request { old, authority } = kind {
        let hosts = all("host");
        if hosts.len() > 1 || hosts.is_empty() && !*old {
            return Err(format!("{} hosts", hosts.len()));
        }
        if hosts.iter().any(|host| host.contains([' ', ',', '/', '@', '\t'])) {
            return Err(format!("host {hosts:?}"));
        }
        if let Some(authority) = authority
            && hosts.first().is_none_or(|host| !host.eq_ignore_ascii_case(authority))
        {
            return Err(format!("{authority} and hosts {hosts:?}"));
        }
    }
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    if !lengths.is_empty() && !codings.is_empty() || lengths.len() > 1 || codings.len() > 1 {
        return Err(format!("lengths {lengths:?}, codings {codings:?}"));
    }
    let old = matches!(kind, Kind::Request { old: true, .. } | Kind::Response { old: true, .. });
    if codings.iter().any(|coding| !coding.eq_ignore_ascii_case("chunked"))
        || old && !codings.is_empty()
    {
        return Err(format!("codings {codings:?}"));
    }
    let length = match lengths.first() {
        Some(digits) if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) => {
            return Err(format!("length {digits:?}"));
        }
        Some(digits) => Some(digits.parse::<usize>().map_err(|_| format!("length {digits}"))?),
        None => None,
    };
    match kind {
        Kind::Response { bodiless: true, .. } => Ok(Some((Vec::new(), 0))),
        _ if !codings.is_empty() => chunks(rest),
        Kind::Response { ended, .. } if length.is_none() => {
            Ok((*ended).then(|| (rest.to_vec(), rest.len())))
        }
        _ => {
            let length = length.unwrap_or(0);
            Ok(rest.get(..length).map(|body| (body.to_vec(), length)))
        }
    }
}

fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let rest = &bytes[at..];
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        if line.is_empty() || !line.bytes().all(|b| b.is_ascii_hexdigit()) {
            // Extensions are well-formed and yet not passed on by whoever knows none.
            return Err(format!("chunk line {line:?}"));
        }
        let size = usize::from_str_radix(&line, 16).map_err(|_| format!("chunk size {line}"))?;
        at += end + 2;
        if size == 0 {
            let rest = &bytes[at..];
            if rest.starts_with(b"\r\n") {
                return Ok(Some((body, at + 2)));
            }
            let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") else {
                return Ok(None);
            };
            fields(&lines(&rest[..end + 2])?)?;
            return Ok(Some((body, at + end + 4)));
        }
        let Some(data) = bytes.get(at..at.saturating_add(size)) else { return Ok(None) };
        body.extend_from_slice(data);
        at += size;
        match bytes.get(at..at + 2) {
            Some(b"\r\n") => at += 2,
            Some(_) => return Err(String::from("chunk longer than its size")),
            None => return Ok(None),
        }
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
