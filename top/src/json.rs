//! `--json`: what the admin port told, as one object.
//!
//! The texts in it stay what they are, for a program reads them. Yet somebody may look at it in a terminal, so what is an
//! order to one is written as an escape, which JSON always may be: `\u009b`. Pure.

use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;
use serde_json::{Serializer, Value, json};

use crate::client::Raw;
use crate::text::is_order;

/// One line of JSON.
pub(crate) fn write(raw: Raw) -> String {
    let Raw { summary, endpoints, tunnels } = raw;
    text(&json!({ "summary": summary, "endpoints": endpoints, "tunnels": tunnels }))
}

fn text(value: &Value) -> String {
    let mut bytes = Vec::new();
    let mut to = Serializer::with_formatter(&mut bytes, Harmless);
    // Values of JSON can always be written to memory, and are text then.
    let _ = value.serialize(&mut to);
    bytes.push(b'\n');
    String::from_utf8(bytes).unwrap_or_default()
}

struct Harmless;

impl Formatter for Harmless {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        to: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for one in fragment.chars() {
            if is_order(one) {
                for unit in one.encode_utf16(&mut [0; 2]) {
                    write!(to, "\\u{unit:04x}")?;
                }
            } else {
                write!(to, "{one}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn texts_stay_what_they_are_and_are_no_orders_to_a_terminal() {
        let hostile = "\u{1b}]0;x\u{7}\u{9b}2J\u{7f}\u{202e}\u{e0041}\"\\ü\n";
        let value = json!({ hostile: [hostile, 1.5, u64::MAX, null] });
        let written = text(&value);
        assert!(!written.trim_end().chars().any(is_order), "{written:?}");
        assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), value);
    }
}
