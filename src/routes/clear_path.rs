//! Paths that two readers could read in two ways: `%2e`, `//`, `..` and their like. Pure.
//!
//! A path is compared as its bytes came, as HAProxy does. nginx, and many an application, decodes it, merges its slashes and
//! resolves its dots first (RFC 3986, section 5.2.4; nginx, `merge_slashes`). Where that leads to another route, the request
//! could reach through one what is behind the other.

/// It would take another route if it were read in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unclear;

/// Whether there may be another way to read it: it has `%`, `//` or `/.`. Eight bytes are looked at at once.
pub(super) fn is_doubtful(path: &[u8]) -> bool {
    let (words, rest) = path.as_chunks::<8>();
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let mut found = 0;
    // The last byte of the word before is a slash.
    let mut carried = 0;
    for word in words.iter().chain([&last]) {
        let word = u64::from_le_bytes(*word);
        let slashes = bytes_that_are(b'/', word);
        found |= bytes_that_are(b'%', word)
            | (slashes << 8 | carried) & (slashes | bytes_that_are(b'.', word));
        carried = slashes >> 56;
    }
    found != 0
}

/// The highest bit of each byte of a word that is this one, and no other bit.
const fn bytes_that_are(byte: u8, word: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let other = word ^ u64::from_ne_bytes([byte; 8]);
    !((other & LOW).wrapping_add(LOW) | other | LOW)
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
        // Wherever it stands.
        for length in 0..40 {
            let plain = [b"/".to_vec(), vec![b'a'; length]].concat();
            assert!(!is_doubtful(&plain));
            for piece in ["%41", "//", "/.", "/../"] {
                for rest in ["", "/b", "bcdefghij"] {
                    let path = [&plain, piece.as_bytes(), rest.as_bytes()].concat();
                    assert!(is_doubtful(&path), "{path:?}");
                }
            }
        }
    }
}
