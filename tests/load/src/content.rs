//! What tunnels carry: bytes that follow from the tunnel's number and their place, so that the other end knows what has
//! to come.
//!
//! A message is its number (8 bytes, big-endian), when it was made (8 bytes, nanoseconds of `CLOCK_MONOTONIC`, which all
//! processes of a machine share), and then bytes of the [`Content`] at the place where they are in the stream.
//! The stream is the payload of all messages of one direction, one behind the other.

use std::fmt::Write as _;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Number and time in front of each message.
pub(crate) const MESSAGE_HEAD: usize = 16;

/// How far a shift of the stream is looked for. Only a fault is worth so much work.
const FARTHEST: u64 = 2 * 1024 * 1024;

/// How many bytes have to agree before a shift is believed, and how many are compared: behind a loss, what is behind the
/// message stands at its end.
const CONVINCING: usize = 6;
const COMPARED: usize = 8;

/// The two ends of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    Client,
    Application,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Client => Self::Application,
            Self::Application => Self::Client,
        }
    }
}

/// Now, in nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn stamp() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let [seconds, nanoseconds] =
        [now.tv_sec, now.tv_nsec].map(|part| u64::try_from(part).unwrap_or_default());
    seconds * 1_000_000_000 + nanoseconds
}

/// The bytes of one direction of one tunnel, without an end (`SplitMix64`, Steele and others 2014).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content(u64);

impl Content {
    pub(crate) fn new(tunnel: u64, from: Side) -> Self {
        Self(mix(tunnel * 2 + u64::from(from == Side::Client) + 1))
    }

    /// The bytes from `offset` on.
    pub(crate) fn fill(self, offset: u64, mut out: &mut [u8]) {
        let (mut word, mut skip) = (offset / 8, usize::try_from(offset % 8).unwrap_or_default());
        while !out.is_empty() {
            let bytes = mix(self.0.wrapping_add(word)).to_le_bytes();
            let bytes = bytes.get(skip..).unwrap_or_default();
            let (part, rest) = out.split_at_mut(bytes.len().min(out.len()));
            part.copy_from_slice(bytes.get(..part.len()).unwrap_or_default());
            (word, skip, out) = (word + 1, 0, rest);
        }
    }

    /// Whether the first of `bytes` are those at `offset`.
    fn is_at(self, offset: u64, bytes: &[u8]) -> bool {
        let mut expected = [0; COMPARED];
        self.fill(offset, &mut expected);
        expected.iter().zip(bytes).all(|(one, other)| one == other)
    }
}

fn mix(seed: u64) -> u64 {
    let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What passed in one direction, as one end has seen it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) messages: u64,
    /// Of payload.
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// What was not as it was sent. The direction is the one that the finder reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    /// `lost` (or late), `doubled`, `changed`, `framing` or `control`.
    pub(crate) what: String,
    /// Where in the stream of payload.
    pub(crate) offset: u64,
    /// How many bytes, where that can be told.
    pub(crate) length: u64,
    /// In which message, from 0.
    pub(crate) message: u64,
    pub(crate) text: String,
}

/// Makes the messages of one direction, and keeps their hash.
pub(crate) struct Writer {
    content: Content,
    messages: u64,
    bytes: u64,
    hash: Sha256,
}

impl Writer {
    pub(crate) fn new(content: Content) -> Self {
        Self { content, messages: 0, bytes: 0, hash: Sha256::new() }
    }

    pub(crate) const fn messages(&self) -> u64 {
        self.messages
    }

    /// The next message's payload, `size` bytes, at least [`MESSAGE_HEAD`].
    pub(crate) fn message(&mut self, size: usize) -> Vec<u8> {
        let mut payload = vec![0; size.max(MESSAGE_HEAD)];
        self.content.fill(self.bytes, &mut payload);
        for (place, value) in payload.chunks_exact_mut(8).zip([self.messages, stamp()]) {
            place.copy_from_slice(&value.to_be_bytes());
        }
        self.add(&payload);
        self.messages += 1;
        payload
    }

    /// Bytes that are sent back as they came.
    pub(crate) fn add(&mut self, payload: &[u8]) {
        self.bytes += payload.len() as u64;
        self.hash.update(payload);
    }

    /// A message that is sent back has ended.
    pub(crate) const fn end_message(&mut self) {
        self.messages += 1;
    }

    pub(crate) fn tally(&self) -> Tally {
        tally(self.messages, self.bytes, &self.hash)
    }
}

/// Holds what comes in one direction against what has to come.
pub(crate) struct Verifier {
    content: Content,
    messages: u64,
    bytes: u64,
    hash: Sha256,
    /// Number and time of the message, as far as they came.
    head: Vec<u8>,
    /// What comes has to be this.
    expected: Vec<u8>,
}

impl Verifier {
    pub(crate) fn new(content: Content) -> Self {
        let (head, expected) = (Vec::with_capacity(MESSAGE_HEAD), Vec::new());
        Self { content, messages: 0, bytes: 0, hash: Sha256::new(), head, expected }
    }

    pub(crate) const fn messages(&self) -> u64 {
        self.messages
    }

    /// More of a message's payload.
    pub(crate) fn feed(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let of_head = payload.len().min(MESSAGE_HEAD - self.head.len());
        let (head, body) = payload.split_at(of_head);
        self.add(head);
        self.head.extend_from_slice(head);
        if of_head > 0 && self.head.len() == MESSAGE_HEAD {
            let (number, _) = self.number_and_time();
            if number != self.messages {
                return Err(self.fault_of_number(number, body));
            }
        }
        self.expected.resize(body.len(), 0);
        self.content.fill(self.bytes, &mut self.expected);
        if self.expected != body {
            let same = self.expected.iter().zip(body).take_while(|(one, other)| one == other);
            let same = same.count();
            return Err(self.fault_at(same as u64, body.get(same..).unwrap_or_default()));
        }
        self.add(body);
        Ok(())
    }

    /// The message has ended. Returns when it was made.
    pub(crate) fn end_message(&mut self) -> Result<u64, Fault> {
        if self.head.len() < MESSAGE_HEAD {
            return Err(self.fault("changed", "a message ends within its number"));
        }
        let (_, time) = self.number_and_time();
        self.head.clear();
        self.messages += 1;
        Ok(time)
    }

    /// A fault right here that has nothing to do with payload.
    pub(crate) fn fault(&self, what: &str, text: &str) -> Fault {
        Fault {
            what: what.to_owned(),
            offset: self.bytes,
            length: 0,
            message: self.messages,
            text: text.to_owned(),
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        tally(self.messages, self.bytes, &self.hash)
    }

    fn add(&mut self, payload: &[u8]) {
        self.bytes += payload.len() as u64;
        self.hash.update(payload);
    }

    fn number_and_time(&self) -> (u64, u64) {
        let mut values = self
            .head
            .chunks_exact(8)
            .map(|bytes| bytes.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte)));
        (values.next().unwrap_or_default(), values.next().unwrap_or_default())
    }

    fn fault_of_number(&self, number: u64, body: &[u8]) -> Fault {
        let text = format!("message {number} came instead of message {}", self.messages);
        let shifted = self.shift(0, body);
        let what = match number.checked_sub(self.messages) {
            None => "doubled",
            Some(0..=1_000_000) => "lost",
            Some(_) => "changed",
        };
        let (what, offset, length) = shifted.unwrap_or((what, self.bytes, 0));
        Fault {
            offset: offset.saturating_sub(MESSAGE_HEAD as u64),
            length,
            ..self.fault(what, &text)
        }
    }

    fn fault_at(&self, same: u64, rest: &[u8]) -> Fault {
        let (what, offset, length) = self.shift(same, rest).unwrap_or_else(|| {
            let mut expected = vec![0; rest.len()];
            self.content.fill(self.bytes + same, &mut expected);
            let last = expected.iter().zip(rest).rposition(|(one, other)| one != other);
            ("changed", self.bytes + same, last.map_or(0, |last| last as u64 + 1))
        });
        let text = format!("{length} bytes of message {}", self.messages);
        Fault { offset, length, ..self.fault(what, &text) }
    }

    /// Where else in the stream these bytes belong, which came `same` bytes behind the last good ones.
    fn shift(&self, same: u64, rest: &[u8]) -> Option<(&'static str, u64, u64)> {
        let here = self.bytes + same;
        if rest.len() < CONVINCING {
            return None;
        }
        (1..FARTHEST).find_map(|by| {
            if self.content.is_at(here + by, rest) {
                return Some(("lost", here, by));
            }
            let before = here.checked_sub(by)?;
            self.content.is_at(before, rest).then_some(("doubled", before, by))
        })
    }
}

fn tally(messages: u64, bytes: u64, hash: &Sha256) -> Tally {
    let mut sha256 = String::new();
    for byte in hash.clone().finalize() {
        // Writing to a string cannot fail.
        let _ = write!(sha256, "{byte:02x}");
    }
    Tally { messages, bytes, sha256 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of messages of 64 bytes, as `break_it` leaves it, and the first fault in it.
    fn fault(break_it: impl FnOnce(&mut Vec<u8>)) -> Option<(String, u64, u64, u64)> {
        let content = Content::new(7, Side::Client);
        let (mut writer, mut verifier) = (Writer::new(content), Verifier::new(content));
        let mut stream: Vec<u8> = (0..20).flat_map(|_| writer.message(64)).collect();
        break_it(&mut stream);
        let checked = stream.chunks_exact(64).try_for_each(|message| {
            let (one, other) = message.split_at(40);
            verifier.feed(one)?;
            verifier.feed(other)?;
            verifier.end_message().map(drop)
        });
        if checked.is_ok() {
            assert_eq!(writer.tally(), verifier.tally());
        }
        checked.err().map(|fault| (fault.what, fault.offset, fault.length, fault.message))
    }

    #[test]
    fn whole_stream_has_no_fault() {
        assert_eq!(fault(|_| {}), None);
    }

    #[test]
    fn byte_that_is_lost_doubled_or_changed_is_told_with_its_place() {
        assert_eq!(
            fault(|stream| drop(stream.drain(340..341))),
            Some(("lost".to_owned(), 340, 1, 5))
        );
        assert_eq!(
            fault(|stream| stream.insert(340, stream[340])),
            Some(("doubled".to_owned(), 340, 1, 5))
        );
        assert_eq!(fault(|stream| stream[340] ^= 1), Some(("changed".to_owned(), 340, 1, 5)));
    }

    #[test]
    fn message_that_is_lost_doubled_or_late_is_told() {
        assert_eq!(
            fault(|stream| drop(stream.drain(320..384))),
            Some(("lost".to_owned(), 320, 64, 5))
        );
        let doubled = |stream: &mut Vec<u8>| {
            let message = stream[320..384].to_vec();
            stream.splice(384..384, message);
        };
        assert_eq!(fault(doubled), Some(("doubled".to_owned(), 320, 64, 6)));
        let late = |stream: &mut Vec<u8>| stream[320..448].rotate_left(64);
        assert_eq!(fault(late), Some(("lost".to_owned(), 320, 64, 5)));
    }

    #[test]
    fn streams_of_others_are_told_apart() {
        let other =
            |stream: &mut Vec<u8>| Content::new(8, Side::Client).fill(16, &mut stream[16..64]);
        assert_eq!(fault(other).map(|(what, ..)| what).as_deref(), Some("changed"));
    }
}
