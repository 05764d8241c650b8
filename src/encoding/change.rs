//! What a test has a writer write otherwise, at any depth: so that it sees what a reader says to records of other
//! versions, and to broken ones, without a second description of the records.

use super::{Encode, Writer};

/// One change of what is written. Places are counted down; once it has happened it is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Change {
    #[default]
    None,
    /// The field at this place is not written.
    Omit(usize),
    /// The field at this place is written twice.
    Repeat(usize),
    /// The record at this place gets one field more, at its end.
    Add { place: usize, tag: u16 },
}

impl Writer {
    /// A writer that makes the change.
    pub(crate) fn changed(self, change: Change) -> Self {
        Self { change, ..self }
    }

    /// A field has been written that begins at `start`, or left out because it is empty.
    pub(super) fn change_field(&mut self, start: usize) {
        if self.bytes.len() == start {
            return;
        }
        let (Change::Omit(place) | Change::Repeat(place)) = &mut self.change else {
            return;
        };
        if *place > 0 {
            *place -= 1;
            return;
        }
        match std::mem::take(&mut self.change) {
            Change::Omit(_) => self.bytes.truncate(start),
            _ => self.bytes.extend_from_within(start..),
        }
    }

    /// The fields of a record have been written.
    pub(crate) fn change_record(&mut self) {
        let Change::Add { place, tag } = &mut self.change else {
            return;
        };
        if *place > 0 {
            *place -= 1;
            return;
        }
        let tag = *tag;
        self.change = Change::None;
        tag.write(self);
        self.with_length(|to| to.bytes(b"of a later version"));
    }
}
