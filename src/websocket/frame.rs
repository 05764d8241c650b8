//! WebSocket frame heads (RFC 6455, section 5.2): parse them, and encode the few frames of our own.
//!
//! Pure, and only bytes: what a head means where it stands is the scanner's matter. The parser keeps
//! no state and is called again with all bytes of the head so far, as the PROXY header's is, so that
//! an answer never depends on how the bytes were split. Payload is not looked at. RSV bits belong to
//! extensions that were negotiated past us: any are right. Our own frames are control frames of at
//! most eight bytes of payload, so that one fits into a small array and is never allocated.

use crate::peer::Peer;

/// The longest head: two bytes, a 64-bit length, a masking key.
pub(crate) const MAX_HEAD: usize = 14;

/// The most payload that a control frame may have (RFC 6455, section 5.5).
pub(crate) const MAX_CONTROL_PAYLOAD: u64 = 125;

/// The longest reason of a Close, in bytes: what its code leaves.
pub(crate) const MAX_REASON: usize = 123;

const FIN: u8 = 0x80;
const MASK: u8 = 0x80;
/// Values of the 7-bit length that announce a longer one (RFC 6455, section 5.2).
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// It is the last frame of its message.
    pub(crate) fin: bool,
    /// What the payload is.
    pub(crate) opcode: Opcode,
    /// The masking key, from a client.
    pub(crate) mask: Option<[u8; 4]>,
    /// Bytes of payload, below 2^63.
    pub(crate) length: u64,
}

/// What a frame's payload is (RFC 6455, section 11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
    /// One of those that are reserved for data, and for control frames.
    OtherData = 0x3,
    OtherControl = 0xb,
}

/// Whether the frames of a sender are masked (RFC 6455, section 5.1). The value is the mask bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Masking {
    /// The client's are.
    Required = MASK,
    /// The upstream's are not.
    Forbidden = 0,
}

/// Finds the head that the bytes begin with.
///
/// `bytes` is everything that came since the last frame ended; `masking` is the sender's. The answer
/// is one of:
///
/// * `Ok(None)`: more bytes are needed. Never said of [`MAX_HEAD`] bytes or more.
/// * `Ok(Some((head, used)))`: the first `used` bytes are the head; the payload follows.
/// * `Err(fault)`: the first rule that is broken, said as soon as the field that breaks it is there.
///   Given more bytes, the answer stays the same.
pub(crate) fn parse(bytes: &[u8], masking: Masking) -> Result<Option<(Head, usize)>, Fault> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let fin = first & FIN != 0;
    let opcode = Opcode::parse(first & 0x0f).ok_or(Fault::ReservedOpcode)?;
    if opcode.is_control() && !fin {
        return Err(Fault::FragmentedControl);
    }

    let Some((&second, rest)) = rest.split_first() else {
        return Ok(None);
    };
    match (masking, second & MASK != 0) {
        (Masking::Required, false) => return Err(Fault::MaskMissing),
        (Masking::Forbidden, true) => return Err(Fault::MaskUnexpected),
        _ => {}
    }
    let short = second & !MASK;
    if opcode.is_control() && u64::from(short) > MAX_CONTROL_PAYLOAD {
        return Err(Fault::ControlTooLong);
    }

    let Some(((length, shortest), rest)) = parse_length(short, rest)? else {
        return Ok(None);
    };
    if length < shortest {
        return Err(Fault::LengthNotMinimal);
    }
    let (mask, rest) = match masking {
        Masking::Forbidden => (None, rest),
        Masking::Required => match rest.split_first_chunk() {
            Some((mask, rest)) => (Some(*mask), rest),
            None => return Ok(None),
        },
    };
    Ok(Some((Head { fin, opcode, mask, length }, bytes.len() - rest.len())))
}

/// The head that the bytes begin with, of a frame that breaks a rule: what it says of itself, and so
/// where it ends. As [`parse`], but only a length that cannot be is a fault.
#[cold]
pub(crate) fn announced(bytes: &[u8]) -> Result<Option<(Head, usize)>, Fault> {
    let Some((&[first, second], rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let Some(((length, _), rest)) = parse_length(second & !MASK, rest)? else {
        return Ok(None);
    };
    let (mask, rest) = if second & MASK == 0 {
        (None, rest)
    } else {
        match rest.split_first_chunk() {
            Some((mask, rest)) => (Some(*mask), rest),
            None => return Ok(None),
        }
    };
    let opcode = Opcode::parse(first & 0x0f).unwrap_or(if first & 0x8 == 0 {
        Opcode::OtherData
    } else {
        Opcode::OtherControl
    });
    Ok(Some((Head { fin: first & FIN != 0, opcode, mask, length }, bytes.len() - rest.len())))
}

/// A length, and the least one that needs as many bytes.
type Length = (u64, u64);

/// The length, and what follows it.
fn parse_length(short: u8, rest: &[u8]) -> Result<Option<(Length, &[u8])>, Fault> {
    Ok(Some(match short {
        LENGTH_16 => match rest.split_first_chunk() {
            Some((bytes, rest)) => ((u64::from(u16::from_be_bytes(*bytes)), 126), rest),
            None => return Ok(None),
        },
        LENGTH_64 => {
            if rest.first().is_some_and(|first| first & 0x80 != 0) {
                return Err(Fault::LengthTopBit);
            }
            match rest.split_first_chunk() {
                Some((bytes, rest)) => ((u64::from_be_bytes(*bytes), 0x1_0000), rest),
                None => return Ok(None),
            }
        }
        _ => ((u64::from(short), 0), rest),
    }))
}

impl Opcode {
    const fn parse(value: u8) -> Option<Self> {
        Some(match value {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    /// It may stand between the fragments of a message (RFC 6455, section 5.5).
    pub(crate) const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }

    /// It is part of a message.
    pub(crate) const fn is_of_message(self) -> bool {
        matches!(self, Self::Continuation | Self::Text | Self::Binary)
    }
}

impl Masking {
    /// The rule for what `sender` sends.
    pub(crate) const fn of(sender: Peer) -> Self {
        match sender {
            Peer::Client => Self::Required,
            Peer::Upstream => Self::Forbidden,
        }
    }
}

/// Whether a Close frame may carry this code (RFC 6455, section 7.4, and the registry that it founds):
/// 1004 has no meaning yet, 1005, 1006 and 1015 say that there was no Close or no code.
pub(crate) const fn may_be_sent(close_code: u16) -> bool {
    matches!(close_code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Masks or unmasks payload from its first byte on (RFC 6455, section 5.3). Without a key it stays.
pub(crate) fn apply_mask<const N: usize>(mut payload: [u8; N], mask: Option<[u8; 4]>) -> [u8; N] {
    for (byte, key) in payload.iter_mut().zip(mask.unwrap_or_default().iter().cycle()) {
        *byte ^= key;
    }
    payload
}

/// A control frame of our own, encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ControlFrame {
    bytes: [u8; Self::MAX],
    length: u8,
}

impl ControlFrame {
    /// Bytes of the longest one: a masked Ping.
    pub(crate) const MAX: usize = 2 + 4 + 8;

    /// A Ping. Towards the upstream it needs a `mask`, a fresh one that cannot be predicted
    /// (RFC 6455, section 5.3); towards the client it has none.
    pub(crate) fn ping(payload: [u8; 8], mask: Option<[u8; 4]>) -> Self {
        Self::new(Opcode::Ping, payload, mask)
    }

    /// A Close with a code and no reason. For `mask` see [`ControlFrame::ping`].
    pub(crate) fn close(code: u16, mask: Option<[u8; 4]>) -> Self {
        Self::new(Opcode::Close, code.to_be_bytes(), mask)
    }

    /// A Close with a code and a reason, of which no more than fits goes with it (RFC 6455, section 5.5.1).
    pub(crate) fn close_with_reason(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut end = reason.len().min(MAX_REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let reason = reason.get(..end).unwrap_or_default();
        let payload = code.to_be_bytes().into_iter().chain(reason.bytes());
        let length = u8::try_from(2 + reason.len()).unwrap_or(2);
        let mask_bit = if mask.is_some() { MASK } else { 0 };
        let mut frame = vec![FIN | Opcode::Close as u8, mask_bit | length];
        frame.extend(mask.iter().flatten());
        let key = mask.unwrap_or_default();
        frame.extend(payload.zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        frame
    }

    fn new<const N: usize>(opcode: Opcode, payload: [u8; N], mask: Option<[u8; 4]>) -> Self {
        const { assert!(2 + 4 + N <= Self::MAX) };
        #[allow(clippy::cast_possible_truncation)] // N is at most 8.
        let short = N as u8;
        let mask_bit = if mask.is_some() { MASK } else { 0 };
        let head = [FIN | opcode as u8, mask_bit | short];
        let key = mask.as_ref().map_or(&[][..], <[u8; 4]>::as_slice);
        let payload = apply_mask(payload, mask);

        let mut frame = Self { bytes: [0; Self::MAX], length: 0 };
        let all = head.iter().chain(key).chain(&payload);
        for (place, byte) in frame.bytes.iter_mut().zip(all) {
            *place = *byte;
            frame.length += 1;
        }
        frame
    }

    /// The frame, as it goes out.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// The rule of RFC 6455 that a frame breaks. Whoever sent it is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub(crate) enum Fault {
    /// Opcode 3 to 7 or 11 to 15 (section 5.2).
    #[error("the opcode of a frame is reserved")]
    ReservedOpcode,
    /// A Close, Ping or Pong without FIN (section 5.5).
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// A Close, Ping or Pong of more than [`MAX_CONTROL_PAYLOAD`] (section 5.5).
    #[error("a control frame is longer than 125 bytes")]
    ControlTooLong,
    /// A client's frame without a mask (section 5.1).
    #[error("a frame from the client is not masked")]
    MaskMissing,
    /// A server's frame with a mask (section 5.1).
    #[error("a frame from the upstream is masked")]
    MaskUnexpected,
    /// A 64-bit length of 2^63 or more (section 5.2).
    #[error("the top bit of a 64-bit length is set")]
    LengthTopBit,
    /// A 16 or 64-bit length where fewer bits would do (section 5.2).
    #[error("a length is not written in the fewest bytes")]
    LengthNotMinimal,
    /// A continuation frame where no message is unfinished (section 5.4).
    #[error("a continuation frame continues nothing")]
    ContinuationWithoutStart,
    /// A text or binary frame where a message is unfinished (section 5.4).
    #[error("a message begins inside an unfinished one")]
    MessageInsideMessage,
    /// A Close with one byte of payload: half a code (section 5.5.1).
    #[error("a Close has half a code")]
    CloseTooShort,
    /// A Close with a code that may not be sent (section 7.4).
    #[error("a Close has a code that may not be sent")]
    InvalidCloseCode,
    /// A data frame behind a Close (section 5.5.1).
    #[error("a data frame stands behind a Close")]
    DataBehindClose,
}

impl Fault {
    /// Every fault, in the order of [`Fault::index`].
    pub(crate) const ALL: &[Self] = &[
        Self::ReservedOpcode,
        Self::FragmentedControl,
        Self::ControlTooLong,
        Self::MaskMissing,
        Self::MaskUnexpected,
        Self::LengthTopBit,
        Self::LengthNotMinimal,
        Self::ContinuationWithoutStart,
        Self::MessageInsideMessage,
        Self::CloseTooShort,
        Self::InvalidCloseCode,
        Self::DataBehindClose,
    ];

    /// How many faults there are: the length of a table of counters.
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// The fault's place in a table of counters, below [`Fault::COUNT`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// The fault's name in logs and counters.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ReservedOpcode => "reserved_opcode",
            Self::FragmentedControl => "fragmented_control",
            Self::ControlTooLong => "control_too_long",
            Self::MaskMissing => "mask_missing",
            Self::MaskUnexpected => "mask_unexpected",
            Self::LengthTopBit => "length_top_bit",
            Self::LengthNotMinimal => "length_not_minimal",
            Self::ContinuationWithoutStart => "continuation_without_start",
            Self::MessageInsideMessage => "message_inside_message",
            Self::CloseTooShort => "close_too_short",
            Self::InvalidCloseCode => "invalid_close_code",
            Self::DataBehindClose => "data_behind_close",
        }
    }
}

#[cfg(test)]
mod tests;
