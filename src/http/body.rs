//! Bodies on their way through: read as their sender frames them, written as their receiver needs them
//! (RFC 9112, sections 6 and 7).
//!
//! Both directions of an exchange have one of these. Bytes go in, bytes come out, and nothing is collected:
//! data that has come is passed on with the same call. Where a large part of the data is still to come, its
//! bytes need not enter the process at all ([`Body::unseen`]).

use super::forwarded;
use super::framing::{Chunked, Step};
use super::head::{Fault, Field, Framing, HeadLimits};
use super::hop;

/// From so many bytes on that are still to come of a length or of a chunk, data passes by splice(2).
pub(crate) const BULK: u64 = 32 * 1024;

/// One body on its way from the side that sends it to the side that takes it.
#[derive(Debug)]
pub(crate) struct Body {
    source: Source,
    sink: Sink,
    trailers: Trailers,
    /// Bytes of data that have passed, without framing.
    pub(crate) data: u64,
}

/// How the sender says where the body ends.
#[derive(Debug)]
enum Source {
    /// All of it has passed.
    Over,
    /// So many bytes are to come.
    Length(u64),
    Chunked(Chunked),
    /// The connection's end is the body's end.
    UntilClose,
}

/// How the receiver is told where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sink {
    /// By a length that its head has, or by the end of the connection.
    Plain,
    /// By chunks. Of the chunk under way so many bytes were announced that have not passed yet.
    Chunked(u64),
}

/// What becomes of the fields behind the last chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trailers {
    /// Those of a request pass, without what only elbows may say.
    OfRequest,
    /// Those of a response pass.
    OfResponse,
    /// The receiver did not ask for any.
    Dropped,
}

impl Sink {
    /// Chunks, none of which has begun.
    pub(crate) const CHUNKED: Self = Self::Chunked(0);
}

impl Body {
    /// A body that is framed so by its sender, and has to be framed like `sink` for its receiver.
    pub(crate) fn new(
        framing: Framing,
        sink: Sink,
        trailers: Trailers,
        limits: HeadLimits,
    ) -> Self {
        let source = match framing {
            Framing::Absent | Framing::Length(0) => Source::Over,
            Framing::Length(length) => Source::Length(length),
            Framing::Chunked => Source::Chunked(Chunked::new(limits)),
            Framing::UntilClose => Source::UntilClose,
        };
        Self { source, sink, trailers, data: 0 }
    }

    /// Whether all of it has passed.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.source, Source::Over)
    }

    /// Whether an end of the sender's connection is the end of the body, and a good one.
    pub(crate) const fn is_until_close(&self) -> bool {
        matches!(self.source, Source::UntilClose)
    }

    /// Passes on what `bytes` hold of it, and says how many of them it took. The others begin an unfinished
    /// line of the framing, or are behind the body.
    ///
    /// # Errors
    /// The framing breaks a rule. What came before that has been passed on.
    pub(crate) fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Fault> {
        match &mut self.source {
            Source::Over => Ok(0),
            Source::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= here as u64;
                if *left == 0 {
                    self.source = Source::Over;
                }
                self.data += here as u64;
                out.extend_from_slice(bytes.get(..here).unwrap_or_default());
                Ok(here)
            }
            Source::UntilClose => {
                self.data += bytes.len() as u64;
                if let Sink::Chunked(_) = self.sink
                    && !bytes.is_empty()
                {
                    begin_chunk(out, bytes.len() as u64);
                    out.extend_from_slice(bytes);
                    out.extend_from_slice(b"\r\n");
                } else {
                    out.extend_from_slice(bytes);
                }
                Ok(bytes.len())
            }
            Source::Chunked(_) => {
                let mut chunk = OutputChunk { start: None };
                let passed = self.pass_chunks(bytes, out, &mut chunk);
                chunk.close(out);
                passed
            }
        }
    }

    /// Chunks go on as chunks of what has come: many small ones cost the receiver, and us, no more than one.
    fn pass_chunks(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        chunk: &mut OutputChunk,
    ) -> Result<usize, Fault> {
        let mut at = 0;
        let Source::Chunked(chunks) = &mut self.source else { return Ok(0) };
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            match chunks.step(rest)? {
                Step::More => return Ok(at),
                Step::Line(used, _) | Step::End(used) => at += used,
                Step::Data(length) => {
                    at += length;
                    let data = rest.get(..length).unwrap_or_default();
                    self.data += length as u64;
                    let Sink::Chunked(announced) = &mut self.sink else {
                        out.extend_from_slice(data);
                        continue;
                    };
                    let left = chunks.data_left();
                    if *announced > 0 {
                        out.extend_from_slice(data);
                        *announced = announced.saturating_sub(length as u64);
                        if *announced == 0 {
                            out.extend_from_slice(b"\r\n");
                        }
                    } else if left >= BULK {
                        chunk.close(out);
                        begin_chunk(out, length as u64 + left);
                        out.extend_from_slice(data);
                        *announced = left;
                    } else {
                        chunk.add(data, out, rest.len());
                    }
                }
                Step::Trailers(fields, used) => {
                    at += used;
                    chunk.close(out);
                    if let Sink::Chunked(_) = self.sink {
                        out.extend_from_slice(b"0\r\n");
                        pass_trailers(&fields, self.trailers, out);
                        out.extend_from_slice(b"\r\n");
                    }
                    self.source = Source::Over;
                    return Ok(at);
                }
            }
        }
    }

    /// The sender's connection has ended, and with it a body that lasts until then.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        self.source = Source::Over;
        if let Sink::Chunked(_) = self.sink {
            out.extend_from_slice(b"0\r\n\r\n");
        }
    }

    /// So many bytes of data that come next can pass without a look at them: they are framed alike on both
    /// sides. Nothing may wait to be written before them.
    pub(crate) fn unseen(&self) -> u64 {
        match (&self.source, self.sink) {
            (Source::Length(left), Sink::Plain) => *left,
            (Source::UntilClose, Sink::Plain) => u64::MAX,
            (Source::Chunked(chunks), Sink::Plain) => chunks.data_left(),
            (Source::Chunked(chunks), Sink::Chunked(announced)) => {
                announced.min(chunks.data_left())
            }
            _ => 0,
        }
    }

    /// So many of those, [`Body::unseen`] at most, have passed. What has to be written behind them goes into
    /// `out`.
    pub(crate) fn passed_unseen(&mut self, count: u64, out: &mut Vec<u8>) {
        self.data += count;
        match &mut self.source {
            Source::Length(left) => {
                *left = left.saturating_sub(count);
                if *left == 0 {
                    self.source = Source::Over;
                }
            }
            Source::Chunked(chunks) => {
                chunks.skip_data(count);
                if let Sink::Chunked(announced) = &mut self.sink {
                    *announced = announced.saturating_sub(count);
                    if *announced == 0 && count > 0 {
                        out.extend_from_slice(b"\r\n");
                    }
                }
            }
            Source::Over | Source::UntilClose => {}
        }
    }
}

/// The data of several chunks that becomes one: it stands in the output behind room for its size.
struct OutputChunk {
    /// Where the room begins, and how long it is.
    start: Option<(usize, usize)>,
}

impl OutputChunk {
    fn add(&mut self, data: &[u8], out: &mut Vec<u8>, most: usize) {
        if self.start.is_none() {
            let start = out.len();
            begin_chunk(out, most as u64);
            self.start = Some((start, out.len() - start));
        }
        out.extend_from_slice(data);
    }

    /// Writes the size where the room is, which may be larger than it takes.
    fn close(&mut self, out: &mut Vec<u8>) {
        let Some((start, room)) = self.start.take() else { return };
        let size = out.len() - start - room;
        let mut line = Vec::with_capacity(room);
        begin_chunk(&mut line, size as u64);
        out.splice(start..start + room, line);
        out.extend_from_slice(b"\r\n");
    }
}

/// The line before a chunk of `size` bytes, in lower-case hexadecimal digits.
fn begin_chunk(out: &mut Vec<u8>, size: u64) {
    let digits = (u64::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = (size >> (4 * place)) & 0xf;
        out.push(b"0123456789abcdef".get(digit as usize).copied().unwrap_or(b'0'));
    }
    out.extend_from_slice(b"\r\n");
}

/// An upstream may take trailers for fields of the head (RFC 9110, section 6.5.2), so they are cleaned as
/// those are.
fn pass_trailers(fields: &[Field<'_>], trailers: Trailers, out: &mut Vec<u8>) {
    if trailers == Trailers::Dropped {
        return;
    }
    for field in fields {
        let is_ours = trailers == Trailers::OfRequest && forwarded::is_ours_to_say(field.name);
        if !is_ours && !hop::is_always_hop_by_hop(field) {
            super::write::line(out, field.name, field.value);
        }
    }
}

#[cfg(test)]
mod tests;
