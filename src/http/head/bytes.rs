//! Which bytes a token, a value and a target may hold, and how far a run of such bytes goes.
//!
//! Most of a head is values and targets, so they are looked at eight bytes at a time.

/// What a byte may be part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Class {
    /// A token (RFC 9110, section 5.6.2).
    Token = 1,
    /// A field's value, white space included (RFC 9110, section 5.5).
    Value = 2,
    /// A request target: any byte but controls, space, DEL and `#`, which ends a target for some readers. URIs hold
    /// fewer (RFC 3986), browsers and devices send all of these, and none of them has two meanings here.
    Target = 4,
    /// The name of a host, percent-encoding aside (RFC 3986, section 3.2.2: unreserved and delimiters; not the comma,
    /// which would make two of it).
    Host = 8,
}

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
        let target = value && !matches!(character, b'\t' | b' ' | b'#');
        let host = character.is_ascii_alphanumeric()
            || matches!(
                character,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b';'
                    | b'='
            );
        #[allow(clippy::indexing_slicing)]
        {
            classes[byte] = (if token { Class::Token as u8 } else { 0 })
                | (if value { Class::Value as u8 } else { 0 })
                | (if target { Class::Target as u8 } else { 0 })
                | (if host { Class::Host as u8 } else { 0 });
        }
        byte += 1;
    }
    classes
};

pub(super) fn is(class: Class, byte: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|classes| classes & class as u8 != 0)
}

/// Whether these bytes are a token (RFC 9110, section 5.6.2).
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is(Class::Token, *byte))
}

/// Where the first byte at or behind `from` is that is not part of a token.
pub(super) fn end_of_token(bytes: &[u8], from: usize) -> Option<usize> {
    end_by_eights(Class::Token, bytes, from, token_stops)
}

/// The same of the name of a host, percent-encoding aside.
pub(super) fn end_of_host(bytes: &[u8]) -> Option<usize> {
    end_of_run(Class::Host, bytes, 0)
}

/// The same of a value.
pub(super) fn end_of_value(bytes: &[u8], from: usize) -> Option<usize> {
    end_by_eights(Class::Value, bytes, from, value_stops)
}

/// The same of a target.
pub(super) fn end_of_target(bytes: &[u8], from: usize) -> Option<usize> {
    end_by_eights(Class::Target, bytes, from, target_stops)
}

fn end_of_run(class: Class, bytes: &[u8], from: usize) -> Option<usize> {
    let length = bytes.get(from..)?.iter().position(|byte| !is(class, *byte))?;
    Some(from + length)
}

/// `stops` marks at least those of eight bytes that are not of the class.
fn end_by_eights(
    class: Class,
    bytes: &[u8],
    mut from: usize,
    stops: impl Fn(u64) -> u64,
) -> Option<usize> {
    while let Some(eight) = bytes.get(from..).and_then(|rest| rest.first_chunk::<8>()) {
        let marks = stops(u64::from_le_bytes(*eight));
        if marks == 0 {
            from += 8;
            continue;
        }
        from += marks.trailing_zeros() as usize / 8;
        if !bytes.get(from).is_some_and(|byte| is(class, *byte)) {
            return Some(from);
        }
        from += 1;
    }
    end_of_run(class, bytes, from)
}

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGH: u64 = ONES << 7;

/// The high bit of each byte that is less than `limit`, which is no more than 0x80 (Hacker's Delight, 6-1). Behind
/// the first byte that is less, others may be marked as well: only the lowest mark is exact.
const fn less(bytes: u64, limit: u8) -> u64 {
    bytes.wrapping_sub(ONES * limit as u64) & !bytes & HIGH
}

/// The same of each byte that is `byte`.
const fn equal(bytes: u64, byte: u8) -> u64 {
    less(bytes ^ (ONES * byte as u64), 1)
}

/// All but letters and dashes is marked, of which most names are made. Each mark is exact.
const fn token_stops(bytes: u64) -> u64 {
    let letters = (bytes | (ONES * 0x20)) & !HIGH;
    let from_a = letters + ONES * (0x80 - b'a' as u64);
    let behind_z = letters + ONES * (0x7f - b'z' as u64);
    let other_than_dash = ((bytes ^ (ONES * b'-' as u64)) & !HIGH) + ONES * 0x7f;
    ((!from_a | behind_z) & other_than_dash | bytes) & HIGH
}

/// A tab is marked as well: it is rare.
const fn value_stops(bytes: u64) -> u64 {
    less(bytes, b' ') | equal(bytes, 0x7f)
}

const fn target_stops(bytes: u64) -> u64 {
    less(bytes, b' ' + 1) | equal(bytes, 0x7f) | equal(bytes, b'#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bytes_at_a_time_are_judged_as_each_by_itself() {
        type End = fn(&[u8], usize) -> Option<usize>;
        let ends: [(Class, End); 3] = [
            (Class::Token, end_of_token),
            (Class::Value, end_of_value),
            (Class::Target, end_of_target),
        ];
        for (class, end) in ends {
            for byte in 0..=u8::MAX {
                for other in [b'a', b'~', b'!'] {
                    for place in 0..40 {
                        let mut bytes = [other; 40];
                        bytes[place] = byte;
                        let expected = (!is(class, byte)).then_some(place);
                        assert_eq!(end(&bytes, 0), expected, "{byte:#x} at {place}, {class:?}");
                        bytes[39] = 0;
                        assert_eq!(end(&bytes, 0), Some(expected.unwrap_or(39)), "{byte:#x}");
                        assert_eq!(end(&bytes, 39), Some(39));
                    }
                }
            }
        }
    }

    #[test]
    fn each_class_has_its_bytes() {
        for byte in 0..=u8::MAX {
            let value = byte == b'\t' || byte >= b' ' && byte != 0x7f;
            assert_eq!(is(Class::Value, byte), value, "{byte:#x}");
            assert_eq!(is(Class::Target, byte), value && !b"\t #".contains(&byte), "{byte:#x}");
            let token = byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte);
            assert_eq!(is(Class::Token, byte), token, "{byte:#x}");
        }
    }
}
