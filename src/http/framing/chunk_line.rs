//! The line before a chunk (RFC 9112, sections 7.1 and 7.1.1): a size, and perhaps extensions, which are read and
//! dropped.
//!
//! ```text
//! Size ─┬─ CR → LF                     chunk-size [ chunk-ext ] CRLF
//!       └─ ; → Name ─ = → Value         chunk-ext = *( BWS ";" BWS name [ BWS "=" BWS value ] )
//! ```
//!
//! White space stands where the grammar has BWS and nowhere else: before the line end it is a fault.

use super::super::head::{Fault, is_token};
use super::MOST_EXTENSIONS;

/// The longest line, its extensions included and its end not.
const LONGEST: usize = 1_024;

/// How far the line was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkLine {
    part: Part,
    /// So many of its bytes were looked at.
    at: usize,
    size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Hexadecimal digits.
    Size,
    /// White space behind the size: an extension follows.
    BehindSize,
    /// White space before a name.
    BeforeName,
    Name,
    /// White space behind a name: its value follows, or another extension.
    BehindName,
    /// White space before a value.
    BeforeValue,
    Token,
    Quoted,
    /// Behind a backslash in a quoted string.
    Escaped,
    /// Behind a quoted string.
    BehindQuoted,
    /// White space behind a value: another extension follows.
    BehindValue,
    /// The CR was there.
    LineFeed,
}

impl ChunkLine {
    pub(super) const START: Self = Self { part: Part::Size, at: 0, size: 0 };

    /// Looks at what is new of the line that begins with `bytes`: the size, and the bytes of the line with its end.
    /// `extensions` counts the bytes of all extensions of the body.
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        extensions: &mut usize,
    ) -> Result<Option<(u64, usize)>, Fault> {
        if self.part == Part::Size && !self.digits(bytes)? {
            return Ok(None);
        }
        for byte in bytes.get(self.at..).unwrap_or_default() {
            if self.part == Part::LineFeed {
                return if *byte == b'\n' {
                    Ok(Some((self.size, self.at + 1)))
                } else {
                    Err(Fault::LineEnd)
                };
            }
            self.part = self.next(*byte)?;
            if !matches!(self.part, Part::Size | Part::LineFeed) {
                *extensions += 1;
                if self.at >= LONGEST || *extensions > MOST_EXTENSIONS {
                    return Err(Fault::ChunkExtension);
                }
            }
            self.at += 1;
        }
        Ok(None)
    }

    fn next(&mut self, byte: u8) -> Result<Part, Fault> {
        if byte == b'\r' && self.part == Part::Size && self.at > 0 {
            return Ok(Part::LineFeed);
        }
        let is_white = matches!(byte, b' ' | b'\t');
        let is_token = is_token(&[byte]);
        Ok(match (self.part, byte) {
            (Part::Size, _) if self.at == 0 => return Err(Fault::ChunkSize),
            (Part::Size | Part::Name | Part::Token | Part::BehindQuoted, b'\r') => Part::LineFeed,
            (Part::Size | Part::Name | Part::Token | Part::BehindQuoted, b'\n') => {
                return Err(Fault::LineEnd);
            }
            (Part::Quoted, b'"') => Part::BehindQuoted,
            (Part::Quoted, b'\\') => Part::Escaped,
            (Part::Quoted | Part::Escaped, b'\t' | b' '..=b'~' | 0x80..)
            | (Part::BeforeValue, b'"') => Part::Quoted,
            (Part::BeforeName | Part::Name, _) if is_token => Part::Name,
            (Part::BeforeValue | Part::Token, _) if is_token => Part::Token,
            (Part::BeforeName, _) if is_white => Part::BeforeName,
            (Part::BeforeValue, _) if is_white => Part::BeforeValue,
            (Part::Name | Part::BehindName, b'=') => Part::BeforeValue,
            (
                Part::Size
                | Part::BehindSize
                | Part::Name
                | Part::BehindName
                | Part::Token
                | Part::BehindQuoted
                | Part::BehindValue,
                b';',
            ) => Part::BeforeName,
            (Part::Size | Part::BehindSize, _) if is_white => Part::BehindSize,
            (Part::Name | Part::BehindName, _) if is_white => Part::BehindName,
            (Part::Token | Part::BehindQuoted | Part::BehindValue, _) if is_white => {
                Part::BehindValue
            }
            (Part::Size | Part::BehindSize, _) => return Err(Fault::ChunkSize),
            _ => return Err(Fault::ChunkExtension),
        })
    }

    /// Reads the digits of the size; whether their end is there. Zeros in front are allowed, in such numbers that
    /// nobody's digits overflow; half of the numbers, so that nobody takes one for negative.
    fn digits(&mut self, bytes: &[u8]) -> Result<bool, Fault> {
        while let Some(byte) = bytes.get(self.at) {
            let Some(digit) = char::from(*byte).to_digit(16) else { return Ok(true) };
            if self.at == 16 || self.size >= 1 << 59 {
                return Err(Fault::ChunkSize);
            }
            self.size = self.size << 4 | u64::from(digit);
            self.at += 1;
        }
        Ok(false)
    }
}
