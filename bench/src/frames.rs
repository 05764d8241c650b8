//! WebSocket frames (RFC 6455, section 5.2) as far as both ends of the bench need them: written, and
//! followed as bytes come. Our own ends send whole messages in one frame.
//!
//! The load masks data with the key zero, which is legal on the wire and saves both ends a pass over
//! payload that no proxy looks at. What a proxy masks itself, as a Ping, is unmasked by its key.

use std::mem;

/// The opcodes that are used.
pub(crate) const BINARY: u8 = 0x2;
/// It is reserved.
pub(crate) const RESERVED: u8 = 0x3;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

const FIN: u8 = 0x80;
const MASK: u8 = 0x80;

/// Lengths that say that the length follows, in so many bits.
const LENGTH_16: u8 = 0x7e;
const LENGTH_64: u8 = 0x7f;

/// Who sends a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// Its frames are masked.
    Client,
    /// Its frames are not.
    Application,
}

/// Writes the head of a frame with `length` bytes of payload behind `out`.
pub(crate) fn put_head(out: &mut Vec<u8>, sender: Sender, opcode: u8, length: u64) {
    let mask = if sender == Sender::Client { MASK } else { 0 };
    out.push(FIN | opcode);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..=125), _) => out.push(mask | length),
        (_, Ok(length)) => {
            out.push(mask | LENGTH_16);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(mask | LENGTH_64);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    if sender == Sender::Client {
        out.extend_from_slice(&[0; 4]);
    }
}

/// A whole frame.
pub(crate) fn frame(sender: Sender, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 14);
    put_head(&mut out, sender, opcode, payload.len() as u64);
    out.extend_from_slice(payload);
    out
}

/// What a [`Follower`] tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// A data frame begins, with so many bytes of payload.
    Begin(u64),
    /// Some of its payload.
    Payload(&'a [u8]),
    /// It is whole.
    End,
    /// A control frame: its opcode and its payload, unmasked.
    Control(u8, &'a [u8]),
}

/// Follows the frames of one direction.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    /// The head that is being read.
    head: [u8; 14],
    have: usize,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    /// Payload of a control frame so far.
    control: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: u8,
    left: u64,
    key: [u8; 4],
}

impl Follower {
    /// Tells `on` what is in `bytes`.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut on: impl FnMut(Part<'_>)) {
        loop {
            let Some(mut frame) = self.frame else {
                let Some((&byte, rest)) = bytes.split_first() else { return };
                bytes = rest;
                if let Some(slot) = self.head.get_mut(self.have) {
                    *slot = byte;
                    self.have += 1;
                }
                if let Some(frame) = self.head.get(..self.have).and_then(parse) {
                    self.have = 0;
                    self.frame = Some(frame);
                    if frame.opcode < CLOSE {
                        on(Part::Begin(frame.left));
                    }
                }
                continue;
            };
            let take = usize::try_from(frame.left).unwrap_or(usize::MAX).min(bytes.len());
            let (payload, rest) = bytes.split_at(take);
            bytes = rest;
            frame.left -= take as u64;
            self.frame = Some(frame);
            if frame.opcode >= CLOSE {
                self.control.extend_from_slice(payload);
            } else if !payload.is_empty() {
                on(Part::Payload(payload));
            }
            if frame.left > 0 {
                return;
            }
            self.frame = None;
            if frame.opcode < CLOSE {
                on(Part::End);
            } else {
                let mut control = mem::take(&mut self.control);
                for (byte, key) in control.iter_mut().zip(frame.key.iter().cycle()) {
                    *byte ^= key;
                }
                on(Part::Control(frame.opcode, &control));
            }
        }
    }
}

/// The head, if it is whole.
fn parse(head: &[u8]) -> Option<Frame> {
    let (&[first, second], rest) = head.split_first_chunk()?;
    let (left, rest) = match second & !MASK {
        LENGTH_16 => rest
            .split_first_chunk()
            .map(|(bytes, rest)| (u16::from_be_bytes(*bytes).into(), rest))?,
        LENGTH_64 => {
            rest.split_first_chunk().map(|(bytes, rest)| (u64::from_be_bytes(*bytes), rest))?
        }
        short => (short.into(), rest),
    };
    let key = if second & MASK == 0 { [0; 4] } else { *rest.first_chunk()? };
    Some(Frame { opcode: first & 0x0f, left, key })
}

#[cfg(test)]
mod tests {
    use super::{BINARY, Follower, PING, Part, Sender, frame, put_head};

    fn told(chunks: &[&[u8]]) -> Vec<String> {
        let mut follower = Follower::default();
        let mut told = Vec::new();
        for chunk in chunks {
            follower.feed(chunk, |part| told.push(format!("{part:?}")));
        }
        told
    }

    #[test]
    fn frame_of_each_length_is_followed_to_its_end() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let mut follower = Follower::default();
            let (mut payload, mut ends) = (0, 0);
            for sender in [Sender::Client, Sender::Application] {
                follower.feed(&frame(sender, BINARY, &vec![7; length]), |part| match part {
                    Part::Payload(bytes) => payload += bytes.len(),
                    Part::End => ends += 1,
                    _ => {}
                });
            }
            assert_eq!((payload, ends), (2 * length, 2), "{length}");
        }
    }

    #[test]
    fn splits_do_not_matter() {
        let bytes = frame(Sender::Client, BINARY, b"abc");
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(told(&single).first(), Some(&"Begin(3)".to_owned()));
        assert_eq!(told(&single).last(), Some(&"End".to_owned()));
    }

    #[test]
    fn masked_ping_is_unmasked() {
        let mut bytes = Vec::new();
        put_head(&mut bytes, Sender::Client, PING, 2);
        bytes.truncate(2);
        bytes.extend_from_slice(&[1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2]);
        assert_eq!(told(&[&bytes]), [format!("{:?}", Part::Control(PING, b"hi"))]);
    }
}
