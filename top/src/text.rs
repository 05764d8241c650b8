//! Text of others, made harmless. Pure.
//!
//! Paths, user agents and subprotocols are what clients like to send, and what answers at the address need not be elbows.
//! A terminal takes some characters as orders: to move, to change its title, to write from right to left. None of them is
//! ever in a [`Text`]; where one was, there is a sign. What is left takes one column or two, so that a table stays a table.

use std::fmt;

use serde::{Deserialize, Deserializer};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What stands where something was that is not shown.
const SIGN: char = '\u{fffd}';

/// What stands where a text was cut.
const CUT: char = '…';

/// Text that may be written to a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Text(String);

impl Text {
    pub(crate) fn clean(text: &str) -> Self {
        Self(text.chars().map(|one| if is_harmless(one) { one } else { SIGN }).collect())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self::clean(&text))
    }
}

/// Whether a terminal shows it as a sign of one or two columns, and does nothing else.
pub(crate) fn is_harmless(one: char) -> bool {
    !is_order(one) && matches!(one.width(), Some(1 | 2))
}

/// Controls (C0, C1, DEL), and what changes the direction or the lines of the text around it.
pub(crate) fn is_order(one: char) -> bool {
    one.is_control()
        || matches!(
            one,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// How many columns it takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// It in so many columns at most.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let (mut cut, mut taken) = (String::new(), 1);
    for one in text.chars() {
        taken += one.width().unwrap_or(0);
        if taken > columns {
            break;
        }
        cut.push(one);
    }
    if columns > 0 {
        cut.push(CUT);
    }
    cut
}

/// The end of it in so many columns at most: what is being typed is seen.
pub(crate) fn tail(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut taken = 1;
    let fits = |one: &char| {
        taken += one.width().unwrap_or(0);
        taken <= columns
    };
    let mut end: Vec<_> = text.chars().rev().take_while(fits).collect();
    if columns > 0 {
        end.push(CUT);
    }
    end.into_iter().rev().collect()
}

/// It in exactly so many columns, at the left or the right of them.
pub(crate) fn pad(text: &str, columns: usize, is_right: bool) -> String {
    let text = cut(text, columns);
    let rest = " ".repeat(columns.saturating_sub(width(&text)));
    if is_right { rest + &text } else { text + &rest }
}

/// It in lines of so many columns at most.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let (mut lines, mut line, mut taken) = (Vec::new(), String::new(), 0);
    for one in text.chars() {
        let wide = one.width().unwrap_or(0);
        if taken + wide > columns.max(2) {
            lines.push(std::mem::take(&mut line));
            taken = 0;
        }
        taken += wide;
        line.push(one);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn no_order_to_a_terminal_is_left() {
        for (text, shown) in [
            ("/chat?a=ü", "/chat?a=ü"),
            ("\u{1b}]0;owned\u{7}", "\u{fffd}]0;owned\u{fffd}"),
            ("a\u{9b}2Jb\u{7f}c\r\n\td", "a\u{fffd}2Jb\u{fffd}c\u{fffd}\u{fffd}\u{fffd}d"),
            ("x\u{202e}gpj\u{2066}y\u{2069}", "x\u{fffd}gpj\u{fffd}y\u{fffd}"),
            ("\u{202a}\u{202b}\u{202c}\u{202d}", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            ("\u{2067}\u{2068}\u{200f}\u{61c}", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            // What has no width would move the columns behind it.
            ("e\u{301}\u{200d}\u{fe0f}\u{feff}", "e\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            ("\u{2028}\u{2029}\u{0}", "\u{fffd}\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(Text::clean(text).as_str(), shown, "{text:?}");
            let read: Text = serde_json::from_str(&serde_json::to_string(text).unwrap()).unwrap();
            assert_eq!(read.as_str(), shown, "{text:?}");
        }
    }

    /// Of all characters that there are.
    #[test]
    fn what_is_left_is_seen_and_takes_its_columns() {
        for one in '\0'..=char::MAX {
            let text = Text::clean(&one.to_string());
            let left = text.as_str().chars().next().unwrap();
            assert!(!left.is_control(), "{one:?}");
            assert!((1..=2).contains(&width(text.as_str())), "{one:?}");
        }
    }

    #[test]
    fn text_is_cut_and_padded_by_columns_and_not_by_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("漢字漢字", 5), "漢字…");
        assert_eq!(cut("漢字漢字", 4), "漢…");
        assert_eq!((tail("abcd", 3), tail("abc", 3)), ("…cd".to_owned(), "abc".to_owned()));
        assert_eq!((tail("漢字漢字", 4), tail("ab", 0)), ("…字".to_owned(), String::new()));
        assert_eq!((cut("abc", 1), cut("abc", 0)), ("…".to_owned(), String::new()));
        assert_eq!(pad("漢", 4, false), "漢  ");
        assert_eq!(pad("12", 4, true), "  12");
        assert_eq!(pad("漢字漢字", 4, true), " 漢…");
        assert_eq!(wrap("abcdef", 4), ["abcd", "ef"]);
        assert_eq!(wrap("漢字漢", 5), ["漢字", "漢"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
