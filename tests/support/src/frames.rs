//! Frames of WebSockets as bytes (RFC 6455, section 5), written by hand and not by elbows: a test says which.

/// The opcode of a frame that continues a message (RFC 6455, section 11.8).
pub const CONTINUATION: u8 = 0x0;
/// The opcode of a text.
pub const TEXT: u8 = 0x1;
/// The opcode of bytes.
pub const BINARY: u8 = 0x2;
/// The opcode of a Close.
pub const CLOSE: u8 = 0x8;
/// The opcode of a Ping.
pub const PING: u8 = 0x9;
/// The opcode of a Pong.
pub const PONG: u8 = 0xa;

/// The masking key of clients here. That it is always the same matters to nobody.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether the message ends with it.
    pub fin: bool,
    /// The three bits of extensions.
    pub rsv: u8,
    /// What it is.
    pub opcode: u8,
    /// Whether it came with a masking key.
    pub is_masked: bool,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a Close.
    pub fn code(&self) -> Option<u16> {
        let code = self.payload.first_chunk().copied().map(u16::from_be_bytes);
        code.filter(|_| self.opcode == CLOSE)
    }
}

/// A frame's head for `length` bytes of payload, without masking key.
pub fn head(first: u8, mask_bit: u8, length: usize) -> Vec<u8> {
    let mut head = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => head.push(mask_bit | short),
        (_, Ok(medium)) => {
            head.push(mask_bit | 0x7e);
            head.extend(medium.to_be_bytes());
        }
        _ => {
            head.push(mask_bit | 0x7f);
            head.extend((length as u64).to_be_bytes());
        }
    }
    head
}

/// A frame as a client sends it. `first` is the head's first byte: FIN, RSV bits and opcode.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(first, 0x80, payload.len());
    frame.extend(KEY);
    frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A frame as an application sends it.
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&head(first, 0, payload.len()), payload].concat()
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Whether the message ends with it.
    pub fin: bool,
    /// The three bits of extensions.
    pub rsv: u8,
    /// What it is.
    pub opcode: u8,
    /// The masking key, if it has one.
    pub key: Option<[u8; 4]>,
    /// How many bytes of payload follow.
    pub length: u64,
}

/// The head that the bytes begin with, and its length on the wire.
pub fn decode_head(bytes: &[u8]) -> Option<(Head, usize)> {
    let [first, second, rest @ ..] = bytes else { return None };
    let (length, rest) = match second & 0x7f {
        126 => (u16::from_be_bytes(*rest.first_chunk()?).into(), &rest[2..]),
        127 => (u64::from_be_bytes(*rest.first_chunk()?), &rest[8..]),
        short => (short.into(), rest),
    };
    let (key, rest) =
        if second & 0x80 == 0 { (None, rest) } else { (Some(*rest.first_chunk()?), &rest[4..]) };
    let head =
        Head { fin: first & 0x80 != 0, rsv: first >> 4 & 7, opcode: first & 0xf, key, length };
    Some((head, bytes.len() - rest.len()))
}

/// The frame that the bytes begin with, and its length on the wire.
pub fn decode(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (head, used) = decode_head(bytes)?;
    let payload = bytes[used..].get(..usize::try_from(head.length).unwrap())?;
    let used = used + payload.len();
    let key = head.key.unwrap_or_default();
    let payload = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    let Head { fin, rsv, opcode, .. } = head;
    Some((Frame { fin, rsv, opcode, is_masked: head.key.is_some(), payload }, used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_of_each_length_is_read_back_and_not_before_it_is_whole() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![7; length];
            for bytes in [masked(0x80 | BINARY, &payload), unmasked(0x80 | BINARY, &payload)] {
                let (frame, used) = decode(&bytes).unwrap();
                assert_eq!((frame.opcode, frame.fin, used), (BINARY, true, bytes.len()));
                assert_eq!(frame.payload, payload);
                assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
            }
        }
    }
}
