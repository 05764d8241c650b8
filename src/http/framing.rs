//! Chunked bodies (RFC 9112, section 7.1), of requests and of responses.
//!
//! Bytes in, steps out: a step says how many bytes are checked and may go on. The line before a chunk and the trailer
//! section are whole or not there at all; the data of a chunk goes on as it comes. Each byte is judged once, when it
//! is looked at, so that neither cost nor verdict depends on how the bytes came.
//!
//! ```text
//! Line ─ size ≥ 1 → Data → End → Line
//!    └── size = 0 → Trailers → Over
//! ```

mod chunk_line;

use self::chunk_line::ChunkLine;
use super::head::{self, Fault, Field, HeadLimits, Place};

/// How many bytes of extensions a body may hold (RFC 9112, section 7.1.1, asks for a limit); whoever sends
/// more wants to be read, not heard.
const MOST_EXTENSIONS: usize = 16 * 1_024;

/// The longest trailer section.
const LONGEST_TRAILERS: usize = 16 * 1_024;

/// Reads one chunked body.
#[derive(Clone, Debug)]
pub struct Chunked {
    at: At,
    /// Bytes of extensions so far.
    extensions: usize,
    limits: HeadLimits,
}

#[derive(Clone, Debug)]
enum At {
    /// At the line before a chunk, or in it.
    Line(ChunkLine),
    /// In the data of a chunk, with so many bytes to come.
    Data(u64),
    /// Behind the data of a chunk.
    End,
    /// Behind the line of the last chunk.
    Trailers(Place),
    /// Behind the body.
    Over,
}

/// What comes next.
#[derive(Debug)]
pub enum Step<'a> {
    /// Not enough is there to say; or the body is over.
    More,
    /// The line before a chunk: its bytes, and the size of the chunk, which is 0 for the last one.
    Line(usize, u64),
    /// So many bytes of data.
    Data(usize),
    /// The line end behind the data, of so many bytes.
    End(usize),
    /// The trailer section, and its bytes, the empty line included.
    Trailers(Vec<Field<'a>>, usize),
}

impl Chunked {
    /// At the start of a body. Of `limits`, the number of fields holds for the trailer section.
    #[must_use]
    pub const fn new(limits: HeadLimits) -> Self {
        let limits = HeadLimits { head: LONGEST_TRAILERS, ..limits };
        Self { at: At::Line(ChunkLine::START), extensions: 0, limits }
    }

    /// Looks at the bytes from where the last step ended.
    ///
    /// # Errors
    /// The rule that they break, at the byte that breaks it. Nothing behind a fault can be told apart.
    pub fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<Step<'a>, Fault> {
        match &mut self.at {
            At::Line(line) => {
                let Some((size, used)) = line.read(bytes, &mut self.extensions)? else {
                    return Ok(Step::More);
                };
                self.at = if size == 0 { At::Trailers(Place::FIELDS) } else { At::Data(size) };
                Ok(Step::Line(used, size))
            }
            At::Data(_) if bytes.is_empty() => Ok(Step::More),
            At::Data(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                self.skip_data(here as u64);
                Ok(Step::Data(here))
            }
            At::End => match bytes {
                [b'\r', b'\n', ..] => {
                    self.at = At::Line(ChunkLine::START);
                    Ok(Step::End(2))
                }
                [] | [b'\r'] => Ok(Step::More),
                _ => Err(Fault::ChunkEnd),
            },
            At::Trailers(place) => match head::trailers(place, bytes, &self.limits)? {
                Some((fields, used)) => {
                    self.at = At::Over;
                    Ok(Step::Trailers(fields, used))
                }
                None => Ok(Step::More),
            },
            At::Over => Ok(Step::More),
        }
    }

    /// Whether the body is over.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.at, At::Over)
    }

    /// Bytes of data still to come of the chunk under way.
    #[must_use]
    pub const fn data_left(&self) -> u64 {
        if let At::Data(left) = self.at { left } else { 0 }
    }

    /// So many of them have passed without being looked at here.
    pub fn skip_data(&mut self, count: u64) {
        if let At::Data(left) = &mut self.at {
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.at = At::End;
            }
        }
    }
}

#[cfg(test)]
mod tests;
