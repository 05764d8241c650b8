//! Rates as settings write them: `10/s`, `100/min`, `1000/h`, with ` burst=50` behind where more or
//! fewer may come at once. Pure.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// More than that a second is no limit, and a burst of more is none either.
pub(super) const MOST: u32 = 1_000_000;

/// The units, the shortest first, and their seconds.
pub(super) const UNITS: [(&str, u64); 3] = [("s", 1), ("min", 60), ("h", 3_600)];

/// So many in so much time, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    number: NonZeroU32,
    /// Index into [`UNITS`].
    unit: usize,
    burst: NonZeroU32,
}

impl Rate {
    /// The time for one, in the long run. Never zero.
    #[must_use]
    pub fn interval(self) -> Duration {
        let (_, seconds) = UNITS.get(self.unit).copied().unwrap_or(UNITS[0]);
        Duration::from_secs(seconds) / self.number.get()
    }

    /// How many may come at once after a long silence.
    #[must_use]
    pub fn burst(self) -> NonZeroU32 {
        self.burst
    }
}

/// Reads `10/s`, `100/min`, `10/s burst=50`. `None` if it is no rate, or one beyond [`MOST`]. Without a
/// burst, as many as the number may come at once.
pub(crate) fn parse(text: &str) -> Option<Rate> {
    let (rate, burst) = match text.split_once(' ') {
        Some((rate, burst)) => (rate, Some(number(burst.strip_prefix("burst=")?)?)),
        None => (text, None),
    };
    let (count, unit) = rate.split_once('/')?;
    let count = number(count)?;
    let unit = UNITS.iter().position(|(name, _)| *name == unit)?;
    Some(Rate { number: count, unit, burst: burst.unwrap_or(count) })
}

/// Digits only: `str::parse` would take a sign.
fn number(text: &str) -> Option<NonZeroU32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse::<NonZeroU32>().ok().filter(|number| number.get() <= MOST)
}

impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.get(self.unit).map_or("", |(name, _)| name);
        write!(out, "{}/{unit}", self.number)?;
        if self.burst == self.number { Ok(()) } else { write!(out, " burst={}", self.burst) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_rate_is_a_number_a_unit_and_perhaps_a_burst() {
        for (text, interval, burst) in [
            ("10/s", Duration::from_millis(100), 10),
            ("1/s", Duration::from_secs(1), 1),
            ("100/min", Duration::from_millis(600), 100),
            ("1/h", Duration::from_secs(3_600), 1),
            ("10/s burst=50", Duration::from_millis(100), 50),
            ("10/s burst=1", Duration::from_millis(100), 1),
            ("1000000/s", Duration::from_micros(1), 1_000_000),
        ] {
            let rate = parse(text).unwrap();
            assert_eq!((rate.interval(), rate.burst().get()), (interval, burst), "{text}");
            assert_eq!(rate.to_string(), text);
        }
        assert_eq!(parse("10/s burst=10").unwrap().to_string(), "10/s");
    }

    #[test]
    fn what_is_no_rate_is_none() {
        for text in [
            "",
            "10",
            "10/",
            "/s",
            "0/s",
            "-1/s",
            "+1/s",
            "1.5/s",
            "10/sec",
            "10 /s",
            "10/ s",
            "10/S",
            "10/d",
            "1000001/s",
            "10/s burst=0",
            "10/s burst=1000001",
            "10/s burst",
            "10/s burst=",
            "10/s  burst=5",
            "10/s,burst=5",
            "10/s burst=5 ",
            "10s",
            "99999999999/s",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
