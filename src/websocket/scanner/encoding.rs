//! Where a scanner is, as bytes and back.

use std::num::NonZeroU16;

use super::{MAX_KEPT, Position, Scanner};
use crate::encoding::{Encode, Malformed, Reader, Writer, encode_fields, encode_words};
use crate::websocket::frame::Masking;

encode_fields!(Scanner {
    position,
    message,
    messages,
    payload,
    fragments,
    pings,
    pongs,
    close,
    masking,
    is_in_message,
});

encode_words!(Masking { Required = 1, Forbidden = 0 });

impl Encode for NonZeroU16 {
    fn write(&self, to: &mut Writer) {
        self.get().write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::new(Encode::read(from)?).ok_or(Malformed)
    }
}

impl Encode for Position {
    fn write(&self, to: &mut Writer) {
        match self {
            Self::Head { have, passed, kept } => {
                to.u8(0);
                passed.write(to);
                // The first ones are nothing.
                to.bytes(kept.get(MAX_KEPT.saturating_sub((*have).into())..).unwrap_or_default());
            }
            Self::Payload { left, is_control } => {
                to.u8(1);
                left.write(to);
                is_control.write(to);
            }
            Self::Lost => to.u8(2),
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match from.u8()? {
            0 => {
                let passed = Encode::read(from)?;
                let bytes = from.bytes()?;
                let mut kept = [0; MAX_KEPT];
                let start = MAX_KEPT.checked_sub(bytes.len()).ok_or(Malformed)?;
                kept.get_mut(start..).ok_or(Malformed)?.copy_from_slice(bytes);
                let have = u8::try_from(bytes.len()).map_err(|_| Malformed)?;
                if passed != 0 && passed != have {
                    return Err(Malformed);
                }
                Self::Head { have, passed, kept }
            }
            1 => Self::Payload { left: Encode::read(from)?, is_control: Encode::read(from)? },
            2 => Self::Lost,
            _ => return Err(Malformed),
        })
    }
}
