//! Where a scanner is, as a record and back.

use std::num::NonZeroU16;

use super::{MAX_KEPT, Position, Scanner};
use crate::encoding::{Bytes, Encode, Reader, RecordFault, Writer, encode_fields, encode_variants};
use crate::websocket::frame::Masking;

encode_fields!(Scanner {
    critical 1 position = Position::BOUNDARY,
    2 message = 0,
    3 messages = 0,
    4 payload = 0,
    5 fragments = 0,
    6 pings = 0,
    7 pongs = 0,
    critical 8 close = None,
    critical 9 masking,
    critical 10 is_in_message = false,
});

encode_variants!(Masking { 0 Forbidden, 1 Required });

/// A position as it is written.
enum PositionRecord {
    /// The bytes that are kept of a head, and whether they have passed.
    Head {
        kept: Bytes,
        has_passed: bool,
    },
    Payload {
        left: u64,
        is_control: bool,
    },
    Lost,
}

encode_variants!(PositionRecord {
    0 Head { critical 1 kept, critical 2 has_passed = false },
    1 Payload { critical 1 left, 2 is_control = false },
    2 Lost,
});

impl Encode for Position {
    fn write(&self, to: &mut Writer) {
        let record = match *self {
            Self::Head { have, passed, kept } => {
                let start = MAX_KEPT.saturating_sub(have.into());
                let kept = kept.get(start..).unwrap_or_default().to_vec();
                PositionRecord::Head { kept: Bytes(kept), has_passed: passed > 0 }
            }
            Self::Payload { left, is_control } => PositionRecord::Payload { left, is_control },
            Self::Lost => PositionRecord::Lost,
        };
        record.write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        Ok(match PositionRecord::read(from)? {
            PositionRecord::Head { kept: Bytes(bytes), has_passed } => {
                let have = u8::try_from(bytes.len()).map_err(|_| RecordFault::Malformed)?;
                let start = MAX_KEPT.checked_sub(bytes.len()).ok_or(RecordFault::Malformed)?;
                let mut kept = [0; MAX_KEPT];
                kept.get_mut(start..).ok_or(RecordFault::Malformed)?.copy_from_slice(&bytes);
                Self::Head { have, passed: if has_passed { have } else { 0 }, kept }
            }
            PositionRecord::Payload { left: 0, .. } => return Err(RecordFault::Malformed),
            PositionRecord::Payload { left, is_control } => Self::Payload { left, is_control },
            PositionRecord::Lost => Self::Lost,
        })
    }
}

impl Encode for NonZeroU16 {
    fn write(&self, to: &mut Writer) {
        self.get().write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        Self::new(Encode::read(from)?).ok_or(RecordFault::Malformed)
    }
}
