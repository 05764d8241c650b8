//! Bytes that a sink has not taken yet.

use std::ops::Deref;

/// Bytes that wait, in order. While none do it is one empty pointer: an idle tunnel has two of it,
/// and a `Vec` would be three words each.
#[derive(Debug, Default, PartialEq)]
pub struct Waiting(
    /// Never an empty one.
    #[allow(clippy::box_collection)] // That is the point.
    Option<Box<Vec<u8>>>,
);

impl Waiting {
    /// Puts bytes behind those that wait.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Some(waiting) => waiting.extend_from_slice(bytes),
            None => *self = bytes.to_vec().into(),
        }
    }

    /// Drops the first `taken` bytes, or all. What it took is given back with the last of them.
    pub(crate) fn drop_front(&mut self, taken: usize) {
        match &mut self.0 {
            Some(waiting) if taken < waiting.len() => drop(waiting.drain(..taken)),
            _ => self.clear(),
        }
    }

    /// Nothing waits any more.
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }

    /// Bytes that memory is taken for: none while nothing waits.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.capacity())
    }
}

impl From<Vec<u8>> for Waiting {
    fn from(bytes: Vec<u8>) -> Self {
        Self((!bytes.is_empty()).then(|| Box::new(bytes)))
    }
}

impl Deref for Waiting {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }
}
