//! How fast tunnels may be closed, as settings write it: `10%/min`, a share of all in a time. Pure.

use std::fmt;
use std::num::NonZeroU8;
use std::time::Duration;

use super::rate::UNITS;

/// So many of a hundred tunnels in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    percent: NonZeroU8,
    /// Index into [`UNITS`].
    unit: usize,
}

impl Pace {
    /// Of a hundred tunnels, from 1 to 100.
    #[must_use]
    pub const fn percent(self) -> u8 {
        self.percent.get()
    }

    /// The time for them. Never zero.
    #[must_use]
    pub fn time(self) -> Duration {
        let (_, seconds) = UNITS.get(self.unit).copied().unwrap_or(UNITS[0]);
        Duration::from_secs(seconds)
    }
}

/// Reads `10%/min`. `None` if it is no share of a time.
pub(crate) fn parse(text: &str) -> Option<Pace> {
    let (share, unit) = text.split_once("%/")?;
    // Digits only: `str::parse` would take a sign.
    if !share.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let percent = share.parse::<NonZeroU8>().ok().filter(|percent| percent.get() <= 100)?;
    let unit = UNITS.iter().position(|(name, _)| *name == unit)?;
    Some(Pace { percent, unit })
}

impl fmt::Display for Pace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.get(self.unit).map_or("", |(name, _)| name);
        write!(out, "{}%/{unit}", self.percent)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn pace_is_a_share_of_a_time() {
        for (text, percent, seconds) in
            [("10%/min", 10, 60), ("1%/s", 1, 1), ("100%/h", 100, 3_600), ("7%/h", 7, 3_600)]
        {
            let pace = parse(text).unwrap();
            assert_eq!((pace.percent(), pace.time()), (percent, Duration::from_secs(seconds)));
            assert_eq!(pace.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_pace_is_none() {
        for text in [
            "",
            "10",
            "10%",
            "10/min",
            "%/min",
            "0%/min",
            "101%/min",
            "-1%/min",
            "+1%/min",
            "1.5%/min",
            "10%/minute",
            "10 %/min",
            "10%/ min",
            "10%/d",
            "999%/min",
            "10%%/min",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
