//! Paths that two readers could read in two ways: `%2e`, `//`, `..` and their like. Pure.
//!
//! A path is compared as its bytes came, as HAProxy does. nginx, and many an application, decodes it, merges its slashes and
//! resolves its dots first (RFC 3986, section 5.2.4; nginx, `merge_slashes`). Where that leads to another route, the request
//! could reach through one what is behind the other.

/// It would take another route if it were read in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unclear;

/// Whether there may be another way to read it.
pub(super) fn is_doubtful(path: &[u8]) -> bool {
    let mut before = 0;
    path.iter().any(|byte| {
        let last = std::mem::replace(&mut before, *byte);
        *byte == b'%' || last == b'/' && matches!(byte, b'/' | b'.')
    })
}

/// The path as it is read by whoever decodes it, merges slashes and resolves dots.
///
/// # Errors
/// It cannot be read so: a `%` without two digits behind it, NUL, or more `..` than there are segments.
pub(super) fn read(path: &[u8]) -> Result<Vec<u8>, Unclear> {
    let decoded = decoded(path)?;
    let mut clear = Vec::with_capacity(decoded.len());
    let mut segments = decoded.split(|byte| *byte == b'/').skip(1).peekable();
    if decoded.first() != Some(&b'/') {
        return Ok(decoded);
    }
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"" | b"." => {}
            b".." => {
                let slash = clear.iter().rposition(|byte| *byte == b'/').ok_or(Unclear)?;
                clear.truncate(slash);
            }
            _ => {
                clear.push(b'/');
                clear.extend_from_slice(segment);
            }
        }
        if is_last && matches!(segment, b"" | b"." | b"..") {
            clear.push(b'/');
        }
    }
    Ok(clear)
}

fn decoded(path: &[u8]) -> Result<Vec<u8>, Unclear> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    loop {
        let (byte, behind) = match rest {
            [] => return Ok(decoded),
            [b'%', high, low, behind @ ..] => {
                let digit = |byte: u8| {
                    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
                };
                let (high, low) = (digit(*high).ok_or(Unclear)?, digit(*low).ok_or(Unclear)?);
                (high << 4 | low, behind)
            }
            [b'%', ..] => return Err(Unclear),
            [byte, behind @ ..] => (*byte, behind),
        };
        if byte == 0 {
            return Err(Unclear);
        }
        decoded.push(byte);
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_read_as_whoever_resolves_it_does() {
        for (path, clear) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("//a", "/a"),
            ("/a//b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a%2fb", "/a/b"),
            ("/%61dmin", "/admin"),
            ("/a/..b", "/a/..b"),
            ("/a//", "/a/"),
            ("*", "*"),
        ] {
            assert_eq!(read(path.as_bytes()), Ok(clear.into()), "{path}");
            let is_changed = path != clear;
            assert!(!is_changed || is_doubtful(path.as_bytes()), "{path}");
        }
        for path in ["/..", "/a/../..", "/%", "/%2", "/%zz", "/a%00", "/%2e%2e"] {
            assert_eq!(read(path.as_bytes()), Err(Unclear), "{path}");
        }
        assert!(!is_doubtful(b"/chat/room.html"));
    }
}
