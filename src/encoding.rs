//! Records: plain data as bytes, and back, so that another process can go on with it, of another version too.
//!
//! ```text
//! record = field*                       field = tag (u16) · length (u32) · value
//! tag    = critical (highest bit) · number, each higher than the one before
//! ```
//!
//! A struct is a record, and so are the fields of a variant of an enum, behind the byte that says which variant it is.
//! The value of a field may be a record itself: what follows holds at every depth. Numbers are big-endian. A value is as
//! long as its field says, so text, bytes, lists and records have no length of their own.
//!
//! **What a reader does not know.** A field with an unknown number is skipped, unless it is critical: then the whole is
//! refused ([`RecordFault::UnknownField`]). So is a variant with an unknown number ([`RecordFault::UnknownVariant`]). A
//! tunnel that is refused stays in the process that has it.
//!
//! **What is critical.** A field is critical if a process that ignores it could pass on other bytes than it should, end a
//! stream in another way, or put a frame of its own where none may stand. Counts, times, and what only the log tells are
//! not: ignored, they cost a wrong number or a later timer.
//!
//! **What is missing.** A field that equals its default is not written, and a missing field has its default. So a critical
//! field that is new holds back only the tunnels for which it says something. The default stands behind the field's name
//! (`2 passed = 0`). Where none does, it is the value that no bytes at all stand for: empty text, an empty list, or a
//! record whose fields all have defaults. A field of another type has no default then, and a record without it is refused
//! ([`RecordFault::MissingField`]).
//!
//! **How it changes.** A number is never used for something else, and a field that is dropped leaves a gap. A new field
//! gets the next number, and a default, so that records of earlier versions are read. [`encode_fields!`](encode_fields)
//! takes a value apart in full: a field without a number does not compile, nor does a number that comes twice.
//!
//! A tick is written as its distance from now, since another process may count others. A stamp stays as it is,
//! so that a Pong is known for which another process sent the Ping: whoever reads it counts its own stamps on from
//! there. A moment is written as its age. What is read is checked as a peer's bytes are: it allocates no more than came.

#[cfg(test)]
pub(crate) mod change;
mod fields;
mod values;

use std::time::Duration;

pub(crate) use fields::{encode_fields, encode_variants, is_ascending};
pub(crate) use values::Bytes;

/// The bit of a tag that says: whoever does not know this field cannot go on without it.
pub(crate) const CRITICAL: u16 = 1 << 15;

/// What can be written and read back.
pub(crate) trait Encode: Sized {
    fn write(&self, to: &mut Writer);
    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault>;
}

/// Why bytes are not the record that they should be. A record is named by its type, a field and a variant by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// It is cut short, or longer than it says, or a value is none of its type.
    #[error("the record is malformed")]
    Malformed,
    /// It is written in a form that this version of elbows does not know.
    #[error("the record has form {0}, which this version does not know")]
    UnknownForm(u8),
    /// A field that this version does not know and may not ignore.
    #[error("{0} has field {1}, which this version does not know and may not ignore")]
    UnknownField(&'static str, u16),
    /// A field that has no default is missing.
    #[error("{0} is without field {1}")]
    MissingField(&'static str, u16),
    /// A field comes twice, or behind one with a higher number.
    #[error("{0} has field {1} twice, or too late")]
    FieldOrder(&'static str, u16),
    /// A variant that this version does not know.
    #[error("{0} has variant {1}, which this version does not know")]
    UnknownVariant(&'static str, u8),
}

/// Bytes that are written.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    tick: u32,
    elapsed: Option<Duration>,
    /// What a test has it write otherwise.
    #[cfg(test)]
    pub(crate) change: change::Change,
}

/// Bytes that are read.
pub(crate) struct Reader<'b> {
    rest: &'b [u8],
    tick: u32,
    elapsed: Option<Duration>,
}

/// A field that was read: its number and its value.
pub(crate) struct Field<'b> {
    record: &'static str,
    tag: u16,
    value: Reader<'b>,
}

impl Writer {
    /// For what has no ticks and no moments.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// For what has ticks and moments, too: it is `tick` now, `elapsed` after the start of the count.
    pub(crate) fn at(self, tick: u32, elapsed: Duration) -> Self {
        Self { tick, elapsed: Some(elapsed), ..self }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// How many ticks the tick is from now, wrapped around where it is before.
    pub(crate) const fn distance(&self, tick: u32) -> u32 {
        tick.wrapping_sub(self.tick)
    }

    /// What `write` writes, which is less than 4 GiB, and before it how long it is.
    pub(crate) fn with_length(&mut self, write: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes(&[0; 4]);
        write(self);
        let written = self.bytes.len().saturating_sub(start + 4);
        if let Some(length) = self.bytes.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
            *length = u32::try_from(written).unwrap_or(u32::MAX).to_be_bytes();
        }
    }

    /// A field, unless its value is no bytes at all.
    pub(crate) fn field<T: Encode>(&mut self, tag: u16, value: &T) {
        let start = self.bytes.len();
        tag.write(self);
        self.with_length(|to| value.write(to));
        if self.bytes.len() == start + FIELD_HEAD {
            self.bytes.truncate(start);
        }
        #[cfg(test)]
        self.change_field(start);
    }

    /// A field, unless it has its default.
    pub(crate) fn field_unless<T: Encode + PartialEq>(&mut self, tag: u16, value: &T, default: &T) {
        if value != default {
            self.field(tag, value);
        }
    }
}

/// The length of a tag and a length.
const FIELD_HEAD: usize = 2 + 4;

impl<'b> Reader<'b> {
    /// For what has no ticks and no moments: a moment is a fault.
    pub(crate) const fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes, tick: 0, elapsed: None }
    }

    /// For what has ticks and moments, too: it is `tick` now, `elapsed` after the start of the count.
    pub(crate) const fn at(self, tick: u32, elapsed: Duration) -> Self {
        Self { tick, elapsed: Some(elapsed), ..self }
    }

    /// The value that all the bytes are.
    pub(crate) fn whole<T: Encode>(mut self) -> Result<T, RecordFault> {
        let value = T::read(&mut self)?;
        if self.rest.is_empty() { Ok(value) } else { Err(RecordFault::Malformed) }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordFault> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(RecordFault::Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// All bytes that are left.
    pub(crate) fn rest(&mut self) -> &'b [u8] {
        std::mem::take(&mut self.rest)
    }

    /// All bytes that are left, as text.
    pub(crate) fn text(&mut self) -> Result<&'b str, RecordFault> {
        str::from_utf8(self.rest()).map_err(|_| RecordFault::Malformed)
    }

    /// The tick that is at such a distance from now.
    pub(crate) const fn tick(&self, distance: u32) -> u32 {
        self.tick.wrapping_add(distance)
    }

    /// The bytes whose length stands before them, or nothing behind the last ones.
    pub(crate) fn with_length(&mut self) -> Result<Option<Self>, RecordFault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let length = u32::read(self)? as usize;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(RecordFault::Malformed)?;
        self.rest = rest;
        Ok(Some(Self { rest: taken, ..*self }))
    }

    /// The next field of the record, behind the one with the number `last`, or nothing behind the last one.
    pub(crate) fn field(
        &mut self,
        record: &'static str,
        last: &mut u16,
    ) -> Result<Option<Field<'b>>, RecordFault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = u16::read(self)?;
        let value = self.with_length()?.ok_or(RecordFault::Malformed)?;
        let field = Field { record, tag, value };
        let number = field.number();
        if number <= std::mem::replace(last, number) {
            return Err(RecordFault::FieldOrder(record, number));
        }
        Ok(Some(field))
    }

    /// The value of a field that is missing and has no default of its own.
    pub(crate) fn missing<T: Encode>(
        &self,
        record: &'static str,
        number: u16,
    ) -> Result<T, RecordFault> {
        let nothing = Self { rest: &[], ..*self };
        nothing.whole().map_err(|_| RecordFault::MissingField(record, number))
    }
}

impl Field<'_> {
    pub(crate) const fn number(&self) -> u16 {
        self.tag & !CRITICAL
    }

    pub(crate) fn read<T: Encode>(self) -> Result<T, RecordFault> {
        self.value.whole()
    }

    /// Goes on without a field that is not known.
    pub(crate) const fn skip(self) -> Result<(), RecordFault> {
        if self.tag & CRITICAL == 0 {
            return Ok(());
        }
        Err(RecordFault::UnknownField(self.record, self.number()))
    }
}

#[cfg(test)]
mod tests;
