//! Texts by which another text may begin, found by a search of a sorted list. Pure.
//!
//! In the order of their bytes, every text that lies between a beginning of a text and that text begins so, too. So the
//! last one that is not behind the text has all its beginnings among its own, and these are known beforehand:
//!
//! ```text
//! /            ◀─┐
//! /chat        ──┘ ◀─┐
//! /chat/admin  ──────┘   ◀── /chat/room is looked for: the last one not behind it, of which 6 bytes are the same
//! /files                     /chat/admin is longer than those, /chat begins it, and so does /
//! ```

/// Texts, each once, and what belongs to each.
#[derive(Debug)]
pub(super) struct Prefixes<T> {
    /// In the order of their bytes.
    all: Box<[Node<T>]>,
}

#[derive(Debug)]
struct Node<T> {
    text: Box<[u8]>,
    /// The longest other one that this one begins with.
    parent: Option<usize>,
    value: T,
}

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self { all: Box::default() }
    }
}

impl<T> Prefixes<T> {
    /// Of these, of which each text is there once.
    pub(super) fn new(texts: impl IntoIterator<Item = (Vec<u8>, T)>) -> Self {
        let mut all: Vec<_> = texts
            .into_iter()
            .map(|(text, value)| Node { text: text.into(), parent: None, value })
            .collect();
        all.sort_unstable_by(|one, other| one.text.cmp(&other.text));
        // Those that the last one begins with, itself included.
        let mut open: Vec<(usize, Box<[u8]>)> = Vec::new();
        for (place, node) in all.iter_mut().enumerate() {
            while open.last().is_some_and(|(_, text)| !node.text.starts_with(text)) {
                open.pop();
            }
            node.parent = open.last().map(|(parent, _)| *parent);
            open.push((place, node.text.clone()));
        }
        Self { all: all.into() }
    }

    /// Those by which `text` begins, the longest first: the length of each, and what belongs to it.
    pub(super) fn of<'a>(
        &'a self,
        text: &[u8],
    ) -> impl Iterator<Item = (usize, &'a T)> + use<'a, T> {
        let behind = self.all.partition_point(|node| *node.text <= *text);
        let mut next = behind.checked_sub(1).and_then(|place| self.all.get(place));
        let same = next.map_or(0, |node| {
            node.text.iter().zip(text).take_while(|(one, other)| one == other).count()
        });
        std::iter::from_fn(move || {
            loop {
                let node = next?;
                next = node.parent.and_then(|place| self.all.get(place));
                if node.text.len() <= same {
                    return Some((node.text.len(), &node.value));
                }
            }
        })
    }
}
