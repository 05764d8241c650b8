//! JSON as the admin port answers it: it can be shown anywhere. Pure.
//!
//! JSON leaves some characters as they are that clients can choose and terminals obey: DEL, the controls of C1, and those
//! that turn the direction of text. Here they are escaped as well, so that what reads JSON reads the same.

use serde::Serialize;

use crate::access_log::line::escaped;

/// A value in JSON.
pub(crate) fn write(value: &impl Serialize) -> serde_json::Result<String> {
    // Of JSON itself they are no part, so that each is in a text.
    serde_json::to_string(value).map(escaped)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn text_has_nothing_in_it_that_a_terminal_obeys_and_is_read_as_it_was() {
        let hostile = "a\u{1b}[2J\u{7f}\u{9b}31m\u{202e}\u{2066}\n\"\\ü🏠";
        let json = write(&hostile).unwrap();
        assert_eq!(json, r#""a\u001b[2J\u007f\u009b31m\u202e\u2066\n\"\\ü🏠""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), hostile);
        assert_eq!(write(&["plain"]).unwrap(), r#"["plain"]"#);
    }
}
