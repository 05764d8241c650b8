//! Texts, and what belongs to each, found by their hashes. Pure.
//!
//! The texts are those of the file, whose author is nobody's enemy, so that the hash need not withstand one: it takes eight
//! bytes at a time. Whoever looks for the beginning of a text asks for the lengths that there are, so that the longest text
//! that a client can send costs no more than the texts of the file.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Texts, each once.
#[derive(Debug)]
pub(super) struct Texts<T> {
    all: HashMap<Box<[u8]>, T, BuildHasherDefault<TextHasher>>,
    lengths: Box<[usize]>,
}

/// Multiplies and turns, eight bytes at a time.
#[derive(Debug, Default)]
struct TextHasher(u64);

/// An odd number without a pattern: the golden ratio's digits.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl TextHasher {
    const fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    }
}

impl Hasher for TextHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            self.add(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
    }

    fn write_usize(&mut self, length: usize) {
        self.add(length as u64);
    }

    fn finish(&self) -> u64 {
        // Places are taken from the low bits, which a product leaves the poorest.
        self.0 ^ self.0 >> 32
    }
}

impl<T> Default for Texts<T> {
    fn default() -> Self {
        Self { all: HashMap::default(), lengths: Box::default() }
    }
}

impl<T> Texts<T> {
    pub(super) fn new(texts: impl IntoIterator<Item = (Vec<u8>, T)>) -> Self {
        let all: HashMap<Box<[u8]>, T, _> =
            texts.into_iter().map(|(text, value)| (text.into(), value)).collect();
        let mut lengths: Vec<_> = all.keys().map(|text| text.len()).collect();
        lengths.sort_unstable_by_key(|length| std::cmp::Reverse(*length));
        lengths.dedup();
        Self { all, lengths: lengths.into() }
    }

    pub(super) fn get(&self, text: &[u8]) -> Option<&T> {
        if self.lengths.is_empty() { None } else { self.all.get(text) }
    }

    /// The lengths that there are, the longest first.
    pub(super) fn lengths(&self) -> impl Iterator<Item = usize> + use<'_, T> {
        self.lengths.iter().copied()
    }
}
