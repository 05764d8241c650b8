//! W3C Trace Context (Recommendation of 2021-11-23): whether a `traceparent` is one, and how one is made.
//!
//! ```text
//! version - trace-id - parent-id - flags
//!      00 - 4bf92f3577b34da6a3ce929d0e0e4736 - 00f067aa0ba902b7 - 01
//! ```
//!
//! elbows does not take part in a trace: it passes both fields on as they came, and tells the trace id in the access log.
//! What breaks a rule (section 3.2.2), comes twice, or is listed in `Connection`, so that it does not pass, is as if it were
//! not there.

use std::fmt;

use super::head::Field;
use super::hop::ConnectionOptions;

const TRACEPARENT: &[u8; 11] = b"traceparent";
const TRACESTATE: &[u8; 10] = b"tracestate";

/// The length of version 00, and the least of any later one.
const LENGTH: usize = 55;

/// The flag of a trace that whoever began it has recorded (section 3.2.2.5.1).
const SAMPLED: &str = "01";

/// The id of a trace: not all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub(crate) [u8; 16]);

/// As 32 lower-case digits.
impl fmt::Display for TraceId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A trace that begins with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    pub(crate) trace_id: TraceId,
    parent_id: u64,
}

impl Begun {
    /// One of three numbers that nobody chose.
    pub(crate) fn new(random: [u64; 3]) -> Self {
        let [high, low, parent_id] = random;
        // All zeros would be no id at all.
        let low = low.max(1);
        let trace_id = TraceId((u128::from(high) << 64 | u128::from(low)).to_be_bytes());
        Self { trace_id, parent_id: parent_id.max(1) }
    }

    /// The value of its `traceparent`.
    pub(crate) fn traceparent(&self) -> String {
        format!("00-{}-{:016x}-{SAMPLED}", self.trace_id, self.parent_id)
    }
}

/// The trace that a request is part of, as the upstream hears of it.
pub(crate) fn trace_id(fields: &[Field<'_>], options: &ConnectionOptions) -> Option<TraceId> {
    let passes = |(index, field): &(usize, &Field<'_>)| {
        field.is(TRACEPARENT) && !options.is_hop_by_hop(*index, field)
    };
    let mut all = fields.iter().enumerate().filter(passes);
    match (all.next(), all.next()) {
        (Some((_, field)), None) => parse(field.value),
        _ => None,
    }
}

/// Whether it is one of the two fields of a trace.
pub(super) fn is_context(field: &Field<'_>) -> bool {
    field.is(TRACEPARENT) || field.is(TRACESTATE)
}

fn parse(value: &[u8]) -> Option<TraceId> {
    let (known, more) = value.split_at_checked(LENGTH)?;
    let mut parts = known.split(|byte| *byte == b'-');
    let mut part = |length: usize| parts.next().and_then(digits).filter(|(_, is)| *is == length);
    let (version, _) = part(2)?;
    let (trace_id, _) = part(32)?;
    let (parent_id, _) = part(16)?;
    part(2)?;
    // A later version may have more behind a dash; 255 is none.
    let ends_well = match version {
        0 => more.is_empty(),
        255 => false,
        _ => more.is_empty() || more.starts_with(b"-"),
    };
    (ends_well && trace_id != 0 && parent_id != 0).then(|| TraceId(trace_id.to_be_bytes()))
}

/// The number that lower-case hexadecimal digits are, and how many they are.
fn digits(part: &[u8]) -> Option<(u128, usize)> {
    let mut number = 0;
    for byte in part {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        number = number << 4 | u128::from(digit);
    }
    Some((number, part.len()))
}

/// The bytes of an id of 32 lower-case digits; `None` of any other text.
pub(crate) fn packed(id: &str) -> Option<[u8; 16]> {
    digits(id.as_bytes())
        .filter(|(_, length)| *length == 32)
        .map(|(number, _)| number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn found(values: &[&str]) -> Option<String> {
        let fields: Vec<_> = values
            .iter()
            .map(|value| Field { name: b"TraceParent", value: value.as_bytes() })
            .collect();
        trace_id(&fields, &ConnectionOptions::of(&fields)).map(|id| id.to_string())
    }

    #[test]
    fn valid_ones_have_an_id() {
        for (version, flags) in
            [("00", "00"), ("00", "01"), ("00", "ff"), ("01", "01"), ("fe", "00-what-comes-later")]
        {
            let value = format!("{version}-{ID}-00f067aa0ba902b7-{flags}");
            assert_eq!(found(&[&value]).as_deref(), Some(ID), "{value}");
        }
        let small = "00-00000000000000000000000000000001-0000000000000001-00";
        assert_eq!(found(&[small]).as_deref(), Some("00000000000000000000000000000001"));
    }

    /// Those of the test suite of the W3C (`w3c/trace-context`), and more.
    #[test]
    fn invalid_ones_are_as_if_they_were_not_there() {
        let valid = format!("00-{ID}-00f067aa0ba902b7-01");
        for value in [
            "",
            "-",
            "---",
            "00",
            // The version.
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "FE-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-001",
            "000-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ".0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            // All zeros.
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            // Lengths.
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47360-0f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b-001",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            // Letters.
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902B7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "00-4bf92f3577b34da6a3ce929d0e0e47\u{e9}-00f067aa0ba902b7-01",
            // What comes behind.
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-012",
        ] {
            assert_eq!(found(&[value]), None, "{value}");
        }
        assert_eq!(found(&[&valid, &valid]), None, "it comes twice");
        assert_eq!(found(&[]), None);
        for length in 0..valid.len() {
            assert_eq!(found(&[valid.get(..length).unwrap()]), None, "{length}");
        }
    }

    #[test]
    fn one_that_is_made_is_valid_whatever_the_numbers_are() {
        for random in [[0; 3], [u64::MAX; 3], [0, 0, 7], [7, 0, 0], [1 << 63, 5, 1 << 63]] {
            let begun = Begun::new(random);
            let value = begun.traceparent();
            assert_eq!(found(&[&value]), Some(begun.trace_id.to_string()), "{value}");
        }
        let made = Begun::new([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210, 0xa]).traceparent();
        assert_eq!(made, "00-0123456789abcdeffedcba9876543210-000000000000000a-01");
    }

    #[test]
    fn only_an_id_of_ours_is_packed() {
        for (id, bytes) in [
            (ID, Some(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes())),
            ("4BF92F3577B34DA6A3CE929D0E0E4736", None),
            ("4bf92f3577b34da6a3ce929d0e0e473", None),
            ("4bf92f3577b34da6a3ce929d0e0e47361", None),
            ("4bf92f35-77b3-4da6-a3ce-929d0e0e47", None),
            ("", None),
        ] {
            assert_eq!(packed(id), bytes, "{id}");
        }
    }
}
