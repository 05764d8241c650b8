//! Bytes on their way out that a socket has not taken yet.

use std::time::Instant;

/// Bytes that go to one side, in order, and since when it has taken none of them.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    /// So many of them the side has taken.
    taken: usize,
    /// When the last of them was taken, or the first one that waits was put in.
    moved: Option<Instant>,
    /// Those that were taken are kept, to be sent again on another connection.
    kept: bool,
}

impl Outgoing {
    /// Bytes that stay available after they were taken, until [`Outgoing::forget`].
    pub(crate) const fn kept(bytes: Vec<u8>) -> Self {
        Self { bytes, taken: 0, moved: None, kept: true }
    }

    /// Where to put what is to go out next.
    pub(crate) const fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What has not been taken yet.
    pub(crate) fn waiting(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.taken >= self.bytes.len()
    }

    /// The side took the first `count` bytes of those that wait.
    pub(crate) fn took(&mut self, count: usize, now: Instant) {
        self.taken += count;
        self.moved = Some(now);
        if self.is_empty() {
            self.moved = None;
            if !self.kept {
                self.clear();
            }
        }
    }

    /// Since when the side has taken nothing, where something waits for it. The count begins when it is first
    /// asked for.
    pub(crate) fn stalled_since(&mut self, now: Instant) -> Option<Instant> {
        if self.is_empty() {
            return None;
        }
        Some(*self.moved.get_or_insert(now))
    }

    /// All of it is to be sent once more.
    pub(crate) const fn rewind(&mut self) {
        self.taken = 0;
        self.moved = None;
    }

    /// Lends it memory for what it will hold, where it has none.
    pub(crate) fn borrow_memory(&mut self, spare: &mut Vec<u8>) {
        if self.bytes.capacity() == 0 {
            std::mem::swap(&mut self.bytes, spare);
        }
    }

    /// Gives memory back, where it holds nothing: what is idle keeps none.
    pub(crate) fn return_memory(&mut self, spare: &mut Vec<u8>) {
        if self.bytes.is_empty() {
            let memory = std::mem::take(&mut self.bytes);
            if spare.capacity() < memory.capacity() {
                *spare = memory;
            }
        }
    }

    /// Its memory, to be used for something else.
    pub(crate) fn into_memory(mut self) -> Vec<u8> {
        self.bytes.clear();
        self.bytes
    }

    /// What was taken is not needed any more.
    pub(crate) fn forget(&mut self) {
        self.kept = false;
        if self.is_empty() {
            self.clear();
        }
    }

    /// The memory that it holds.
    #[cfg(any(test, fuzzing))]
    pub(crate) const fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Drops all of it.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.taken = 0;
        self.moved = None;
    }
}
