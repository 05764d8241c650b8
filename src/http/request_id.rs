//! Ids of requests (`X-Request-Id`): the client's own where it is fit for a log, or one that elbows makes.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use super::head::Field;
use super::trace_context;

/// The field that has it.
pub(super) const REQUEST_ID: &[u8; 12] = b"x-request-id";

/// The longest that is taken over from a client.
const LONGEST: usize = 128;

/// The id of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RequestId {
    /// 32 lower-case hexadecimal digits, as elbows makes them.
    Digits([u8; 16]),
    /// Any other text.
    Text(Box<str>),
}

impl RequestId {
    /// That of a request that was never read.
    pub(crate) fn none() -> Self {
        Self::Text(Box::default())
    }

    /// The client's, where it is fit for a log, or a new one.
    pub(crate) fn of_request(fields: &[Field<'_>], ids: &RequestIds) -> Self {
        let fit =
            |id: &&[u8]| (1..=LONGEST).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
        let mut said = fields.iter().filter(|field| field.is(REQUEST_ID)).map(|field| field.value);
        let said = said.next().filter(fit).and_then(|id| str::from_utf8(id).ok());
        said.map_or_else(|| ids.next(), Self::from)
    }

    /// As bytes that are few: those that its digits are, or its text.
    pub(crate) const fn packed(&self) -> &[u8] {
        match self {
            Self::Digits(bytes) => bytes,
            Self::Text(text) => text.as_bytes(),
        }
    }

    /// Has `put` take its text.
    pub(super) fn write(&self, put: impl FnOnce(&[u8])) {
        match self {
            Self::Digits(bytes) => put(&digits(*bytes)),
            Self::Text(text) => put(text.as_bytes()),
        }
    }

    /// As text.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Digits(_) => Cow::Owned(self.to_string()),
            Self::Text(text) => Cow::Borrowed(text),
        }
    }
}

impl From<&str> for RequestId {
    fn from(text: &str) -> Self {
        trace_context::packed(text).map_or_else(|| Self::Text(text.into()), Self::Digits)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digits(bytes) => {
                let digits = digits(*bytes);
                out.write_str(str::from_utf8(&digits).map_err(|_| fmt::Error)?)
            }
            Self::Text(text) => out.write_str(text),
        }
    }
}

/// Two lower-case hexadecimal digits for each byte.
fn digits(bytes: [u8; 16]) -> [u8; 32] {
    let digit = |half: u8| half + if half < 10 { b'0' } else { b'a' - 10 };
    let mut digits = [0; 32];
    for (two, byte) in digits.as_chunks_mut().0.iter_mut().zip(bytes) {
        *two = [digit(byte >> 4), digit(byte & 0xf)];
    }
    digits
}

/// Makes ids: the process has a number that nobody can foresee, and each worker counts in a part of its own.
#[derive(Debug)]
pub(crate) struct RequestIds {
    process: u64,
    next: Cell<u64>,
}

impl RequestIds {
    /// Workers that share it have ids of 40 bits each.
    const BITS_OF_COUNT: u32 = 40;

    /// Those of the worker with this number, in the process with that one.
    pub(crate) const fn new(process: u64, worker: usize) -> Self {
        Self { process, next: Cell::new((worker as u64) << Self::BITS_OF_COUNT) }
    }

    fn next(&self) -> RequestId {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        let both = u128::from(self.process) << 64 | u128::from(number);
        RequestId::Digits(both.to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_id_is_the_clients_if_it_is_fit_and_new_otherwise() {
        let ids = RequestIds::new(7, 1);
        let of = |id: &str| {
            let field = Field { name: b"X-Request-ID", value: id.as_bytes() };
            RequestId::of_request(&[field], &ids).to_string()
        };
        assert_eq!(of("abc-1"), "abc-1");
        let (long, space) = (of(&"x".repeat(129)), of("a b"));
        assert_eq!((long.len(), space.len()), (32, 32));
        assert_ne!(long, space);
        let made = RequestId::of_request(&[], &ids);
        assert_eq!(made.to_string(), "00000000000000070000010000000002");
    }

    /// However it is kept, it is the text that it was.
    #[test]
    fn any_text_is_what_it_was() {
        for (text, bytes) in [
            ("", 0),
            ("0123456789abcdef0123456789abcdef", 16),
            ("ffffffffffffffffffffffffffffffff", 16),
            ("0123456789ABCDEF0123456789abcdef", 32),
            ("0123456789abcdef0123456789abcde", 31),
            ("0123456789abcdef0123456789abcdefa", 33),
        ] {
            let id = RequestId::from(text);
            let mut written = Vec::new();
            id.write(|text| written.extend_from_slice(text));
            assert_eq!((id.to_string().as_str(), &*id.text()), (text, text));
            assert_eq!((written.as_slice(), id.packed().len()), (text.as_bytes(), bytes));
        }
    }
}
