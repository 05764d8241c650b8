//! The messages of one client's connection: head, body, next head.

use super::super::head::{Fault, Framing, Limits, Reader, Request};
use super::{Chunked, Step as Chunk};

/// Follows the messages of one connection.
#[derive(Debug)]
pub struct Follower {
    at: At,
    limits: Limits,
}

#[derive(Debug)]
enum At {
    /// At the start of a head, or in it.
    Head(Reader),
    /// In a body that has so many bytes to come.
    Data(u64),
    /// In a body of chunks.
    Chunks(Chunked),
}

/// What comes next.
#[derive(Debug)]
pub enum Step<'a> {
    /// Not enough is there to say.
    More,
    /// A whole head, of so many bytes; [`Follower::enter`] goes on behind it.
    Head(Request<'a>, usize),
    /// So many bytes belong to the body under way.
    Body(usize),
}

impl Follower {
    /// At the start of a connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { at: At::Head(Reader::default()), limits }
    }

    /// Whether the next byte begins a message.
    #[must_use]
    pub const fn is_at_head(&self) -> bool {
        matches!(self.at, At::Head(_))
    }

    /// Looks at the bytes from where the last step ended.
    ///
    /// # Errors
    /// The rule that they break. Nothing behind a fault can be told apart.
    pub fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<Step<'a>, Fault> {
        match &mut self.at {
            At::Head(reader) => Ok(match reader.request(bytes, &self.limits)? {
                Some((head, used)) => Step::Head(head, used),
                None => Step::More,
            }),
            At::Data(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= here as u64;
                if *left == 0 {
                    self.at = At::Head(Reader::default());
                }
                Ok(if here > 0 { Step::Body(here) } else { Step::More })
            }
            At::Chunks(chunks) => {
                let used = match chunks.step(bytes)? {
                    Chunk::More => return Ok(Step::More),
                    Chunk::Line(used, _)
                    | Chunk::Data(used)
                    | Chunk::End(used)
                    | Chunk::Trailers(_, used) => used,
                };
                if chunks.is_over() {
                    self.at = At::Head(Reader::default());
                }
                Ok(Step::Body(used))
            }
        }
    }

    /// Goes on behind a head whose body is framed so.
    pub fn enter(&mut self, framing: Framing) {
        self.at = match framing {
            Framing::Absent | Framing::Length(0) => At::Head(Reader::default()),
            Framing::Length(left) => At::Data(left),
            Framing::Chunked => At::Chunks(Chunked::new(self.limits)),
            Framing::UntilClose => At::Data(u64::MAX),
        };
    }

    /// The next step looks at bytes that the last one has seen already.
    pub fn look_again(&mut self) {
        if let At::Head(reader) = &mut self.at {
            *reader = Reader::default();
        }
    }
}
