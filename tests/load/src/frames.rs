//! Frames as they come (RFC 6455, section 5), in parts of any size. What breaks a rule of framing is a fault, for here
//! both ends keep the rules, and nothing in between may break them.

use test_support::frames::{CLOSE, CONTINUATION, Head, PING, PONG, TEXT, decode_head, head};

use crate::content::Side;

/// Payload of clients is masked with the key zero: it is legal on the wire, and a byte that is lost shifts what follows
/// by one and leaves it as it is otherwise.
const KEY: [u8; 4] = [0; 4];

const FIN: u8 = 0x80;

/// The longest payload of a control frame (RFC 6455, section 5.5).
const LONGEST_CONTROL: u64 = 125;

/// The head of a frame as `from` sends it.
pub(crate) fn frame_head(from: Side, fin: bool, opcode: u8, length: usize) -> Vec<u8> {
    let first = if fin { FIN | opcode } else { opcode };
    match from {
        Side::Client => [head(first, 0x80, length).as_slice(), &KEY].concat(),
        Side::Application => head(first, 0, length),
    }
}

/// A whole frame as `from` sends it.
pub(crate) fn frame(from: Side, fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    [frame_head(from, fin, opcode, payload.len()).as_slice(), payload].concat()
}

/// What comes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// A data frame begins.
    Begin { fin: bool, opcode: u8, length: usize },
    /// Some of its payload.
    Payload(&'a [u8]),
    /// It has ended, and with it, perhaps, the message.
    End { fin: bool },
    /// A control frame, its payload unmasked.
    Control(u8, Vec<u8>),
}

/// Follows the frames of one side.
pub(crate) struct Parser {
    from: Side,
    head: Vec<u8>,
    frame: Option<Head>,
    /// Payload of a control frame, as far as it came.
    control: Vec<u8>,
    is_in_message: bool,
}

impl Parser {
    pub(crate) const fn new(from: Side) -> Self {
        Self { from, head: Vec::new(), frame: None, control: Vec::new(), is_in_message: false }
    }

    /// The next part of `bytes`, which are shorter by it then. The error says which rule is broken.
    pub(crate) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Part<'a>>, String> {
        loop {
            let Some(frame) = &mut self.frame else {
                let Some((&byte, rest)) = bytes.split_first() else { return Ok(None) };
                *bytes = rest;
                self.head.push(byte);
                let Some((head, _)) = decode_head(&self.head) else { continue };
                self.check(&head).map_err(|rule| format!("{rule}: {:02x?}", self.head))?;
                self.head.clear();
                self.frame = Some(head);
                if head.opcode < CLOSE {
                    self.is_in_message = !head.fin;
                    let length = usize::try_from(head.length).unwrap_or(usize::MAX);
                    return Ok(Some(Part::Begin { fin: head.fin, opcode: head.opcode, length }));
                }
                continue;
            };
            if frame.length == 0 {
                let (fin, opcode) = (frame.fin, frame.opcode);
                let key = frame.key.unwrap_or_default();
                self.frame = None;
                if opcode < CLOSE {
                    return Ok(Some(Part::End { fin }));
                }
                let mut payload = std::mem::take(&mut self.control);
                for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
                    *byte ^= key;
                }
                return Ok(Some(Part::Control(opcode, payload)));
            }
            if bytes.is_empty() {
                return Ok(None);
            }
            let take = usize::try_from(frame.length).unwrap_or(usize::MAX).min(bytes.len());
            let (payload, rest) = bytes.split_at(take);
            (*bytes, frame.length) = (rest, frame.length - take as u64);
            if frame.opcode < CLOSE {
                return Ok(Some(Part::Payload(payload)));
            }
            self.control.extend_from_slice(payload);
        }
    }

    /// The rules, as far as a head can break them.
    fn check(&self, head: &Head) -> Result<(), &'static str> {
        let is_control = matches!(head.opcode, CLOSE | PING | PONG);
        if head.rsv != 0 {
            return Err("a reserved bit");
        }
        if head.key.is_some() != (self.from == Side::Client) {
            return Err("the wrong side's mask");
        }
        // A proxy may mask its own Pings as it likes.
        if !is_control && head.key.is_some_and(|key| key != KEY) {
            return Err("another masking key");
        }
        match head.opcode {
            CLOSE | PING | PONG if !head.fin || head.length > LONGEST_CONTROL => {
                Err("a control frame that is long or in parts")
            }
            CONTINUATION if !self.is_in_message => Err("a continuation of nothing"),
            CLOSE | PING | PONG | CONTINUATION => Ok(()),
            opcode if opcode > TEXT + 1 => Err("an opcode that is reserved"),
            _ if self.is_in_message => Err("a message within a message"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use test_support::frames::BINARY;

    use super::*;

    fn parts(from: Side, chunks: &[&[u8]]) -> Result<Vec<String>, String> {
        let mut parser = Parser::new(from);
        let mut parts = Vec::new();
        for mut chunk in chunks.iter().copied() {
            while let Some(part) = parser.next(&mut chunk)? {
                parts.push(format!("{part:?}"));
            }
        }
        Ok(parts)
    }

    #[test]
    fn parts_come_whole_and_byte_by_byte() {
        let bytes = [
            frame(Side::Client, false, BINARY, b"ab"),
            frame(Side::Client, true, PING, b"p"),
            frame(Side::Client, true, CONTINUATION, b""),
        ]
        .concat();
        let whole = parts(Side::Client, &[&bytes]).unwrap();
        let expected = [
            Part::Begin { fin: false, opcode: BINARY, length: 2 },
            Part::Payload(b"ab"),
            Part::End { fin: false },
            Part::Control(PING, b"p".to_vec()),
            Part::Begin { fin: true, opcode: CONTINUATION, length: 0 },
            Part::End { fin: true },
        ];
        assert_eq!(whole, expected.map(|part| format!("{part:?}")));
        let bytes: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(parts(Side::Client, &bytes).unwrap().len(), whole.len() + 1);
    }

    #[test]
    fn broken_rules_are_told() {
        for (bytes, rule) in [
            (frame(Side::Client, true, BINARY, b""), "the wrong side's mask"),
            (frame(Side::Application, true, CONTINUATION, b""), "a continuation of nothing"),
            (frame(Side::Application, true, 0x3, b""), "an opcode that is reserved"),
            (
                frame(Side::Application, false, PING, b""),
                "a control frame that is long or in parts",
            ),
            (vec![0xc2, 0], "a reserved bit"),
        ] {
            let fault = parts(Side::Application, &[&bytes]).unwrap_err();
            assert!(fault.starts_with(rule), "{fault}");
        }
    }
}
