//! Kinds of values that say how much: times, sizes, numbers, rates.

use std::fmt::Display;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::{Kind, Pace, Rate, Wrong, code, number, parse_number, wrong};
use crate::config::{pace, rate, size};

/// A time from `least` to `most`.
pub(in crate::config) struct Time {
    least: Duration,
    most: Duration,
}

/// In milliseconds.
const HOUR: u64 = 60 * 60 * 1000;
const DAY: u64 = 24 * HOUR;

const fn times(least: u64, most: u64) -> Time {
    Time { least: Duration::from_millis(least), most: Duration::from_millis(most) }
}

/// A time limit is never zero, since nothing can be done in no time; shorter than this is a spin,
/// longer than a day a typing error.
pub(in crate::config) const LIMITS: Time = times(10, DAY);

/// The thread of a tunnel looks at the clock by ticks, which are a fraction of the least of these.
pub(in crate::config) const TUNNEL_TIMES: Time = times(100, DAY);

/// The stamps of pings wrap around after 71 minutes: what is answered later could not be told.
pub(in crate::config) const PONG_TIMES: Time = times(100, HOUR);

/// A tunnel may live longer than anybody waits for anything.
pub(in crate::config) const LIFETIMES: Time = times(100, 30 * DAY);

/// Nothing need be waited for in a drain.
pub(in crate::config) const DRAIN_TIMES: Time = times(0, DAY);

/// A name server is asked once a second at the most; an answer that is used for longer than an hour is a typing error.
pub(in crate::config) const TTLS: Time = times(1_000, HOUR);

/// Checks more often than ten times a second would be load; rarer than once an hour they would be none.
pub(in crate::config) const CHECK_TIMES: Time = times(100, HOUR);

impl Kind for Time {
    type Value = Duration;

    fn read(&self, text: &str, or: &str) -> Result<Duration, Vec<Wrong>> {
        let format = |time| humantime::format_duration(time).to_string();
        match humantime::parse_duration(text) {
            Ok(time) if (self.least..=self.most).contains(&time) => Ok(time),
            Ok(_) => wrong(
                text,
                format!("must be {or}from {} to {}", format(self.least), format(self.most)),
            ),
            Err(_) => wrong(text, format!("give {or}a time with its unit, as 500ms, 50s or 2m")),
        }
    }

    fn write(&self, value: &Duration) -> String {
        humantime::format_duration(*value).to_string().replace(' ', "")
    }

    fn bounds(&self) -> String {
        format!("from {} to {}", code(self.write(&self.least)), code(self.write(&self.most)))
    }
}

/// A size in bytes from `least` to `most`.
pub(in crate::config) struct Size<T = u64> {
    least: u64,
    most: u64,
    of: PhantomData<T>,
}

const fn sizes<T>(least: u64, most: u64) -> Size<T> {
    Size { least, most, of: PhantomData }
}

/// More than that is no limit.
const LARGEST_SIZE: u64 = 1 << 40;

/// A head that a browser with a few cookies would not fit into is a typing error (RFC 9110, section 4.1,
/// wants 8,000 bytes for the target alone), and so is one of more than a MiB.
pub(in crate::config) const HEADER_SIZES: Size<usize> = sizes(8 << 10, 1 << 20);

/// A body may be as short as you like.
pub(in crate::config) const BODY_SIZES: Size = sizes(1, LARGEST_SIZE);

/// In bytes a second. A client that had to be faster than the most would be one with a good line.
pub(in crate::config) const BODY_RATES: Size = sizes(1, 1 << 20);

/// A limit that a control frame would pass is a typing error (RFC 6455, section 5.5), and so is
/// one that no message comes near.
pub(in crate::config) const PAYLOAD_SIZES: Size = sizes(125, LARGEST_SIZE);

impl<T: Copy + TryFrom<u64> + TryInto<u64>> Kind for Size<T> {
    type Value = T;

    fn read(&self, text: &str, or: &str) -> Result<T, Vec<Wrong>> {
        let Some(size) = size::parse(text) else {
            return wrong(
                text,
                format!("give {or}a size in bytes, KiB, MiB, GiB or TiB, as 65536, 64KiB or 1MiB"),
            );
        };
        match T::try_from(size) {
            Ok(value) if (self.least..=self.most).contains(&size) => Ok(value),
            _ => wrong(
                text,
                format!(
                    "must be {or}from {} to {}",
                    size::format(self.least),
                    size::format(self.most)
                ),
            ),
        }
    }

    fn write(&self, value: &T) -> String {
        // It was one when it was read.
        size::format((*value).try_into().unwrap_or(u64::MAX))
    }

    fn schema(&self) -> Value {
        number()
    }

    fn bounds(&self) -> String {
        format!("from {} to {}", code(size::format(self.least)), code(size::format(self.most)))
    }
}

/// A number from `least` to `most`, of any integer type that holds them.
pub(in crate::config) struct Number<T> {
    least: u64,
    most: u64,
    of: PhantomData<T>,
}

/// A browser sends some 20 fields.
pub(in crate::config) const HEADERS: Number<usize> =
    Number { least: 20, most: 1_000, of: PhantomData };

impl<T> Number<T> {
    /// Each connection takes a descriptor, and a process has a million at most on common systems.
    pub(in crate::config) const CONNECTIONS: Self =
        Self { least: 1, most: 10_000_000, of: PhantomData };

    /// Checks or answers that have to be the same until something is believed.
    pub(in crate::config) const IN_A_ROW: Self = Self { least: 1, most: 1_000, of: PhantomData };

    /// Who waits for an answer does not wait for more than some.
    pub(in crate::config) const TRIES: Self = Self { least: 1, most: 10, of: PhantomData };
}

impl<T: FromStr + Display> Kind for Number<T> {
    type Value = T;

    fn read(&self, text: &str, or: &str) -> Result<T, Vec<Wrong>> {
        let bounds = self.least..=self.most;
        let number = parse_number(text).filter(|number: &u64| bounds.contains(number));
        match number.and_then(|number| number.to_string().parse().ok()) {
            Some(number) => Ok(number),
            None => {
                wrong(text, format!("must be {or}a number from {} to {}", self.least, self.most))
            }
        }
    }

    fn write(&self, value: &T) -> String {
        value.to_string()
    }

    fn schema(&self) -> Value {
        number()
    }

    fn bounds(&self) -> String {
        format!("from {} to {}", code(self.least), code(self.most))
    }
}

/// How often something may happen.
pub(in crate::config) struct RateOf;

impl Kind for RateOf {
    type Value = Rate;

    fn read(&self, text: &str, or: &str) -> Result<Rate, Vec<Wrong>> {
        match rate::parse(text) {
            Some(rate) => Ok(rate),
            None => wrong(
                text,
                format!(
                    "give {or}a number per s, min or h, as 10/s or 100/min, and perhaps how many at \
                     once, as 10/s burst=50; numbers from 1 to {}",
                    rate::MOST
                ),
            ),
        }
    }

    fn write(&self, value: &Rate) -> String {
        value.to_string()
    }

    fn bounds(&self) -> String {
        String::from("a number per s, min or h, as `10/s`, `100/min`, `10/s burst=50`")
    }
}

/// How fast tunnels may be closed.
pub(in crate::config) struct PaceOf;

impl Kind for PaceOf {
    type Value = Pace;

    fn read(&self, text: &str, or: &str) -> Result<Pace, Vec<Wrong>> {
        match pace::parse(text) {
            Some(pace) => Ok(pace),
            None => wrong(
                text,
                format!(
                    "give {or}a share of all tunnels per s, min or h, from 1% to 100%, as 10%/min"
                ),
            ),
        }
    }

    fn write(&self, value: &Pace) -> String {
        value.to_string()
    }

    fn bounds(&self) -> String {
        String::from("1% to 100% of all tunnels per s, min or h, as `10%/min`")
    }
}

/// A code that says that the client did nothing wrong and may come back.
///
/// 1001 is a server that goes away (RFC 6455, section 7.4.1), 1012 one that restarts and 1013 a
/// state that will pass (IANA's registry). 4000 to 4999 are for applications to agree upon (section
/// 7.4.2). 1000 would tell the client that all is said and done, the other codes below 3000
/// have other meanings or may not be sent at all, and 3000 to 3999 belong to those who
/// registered them.
pub(in crate::config) struct CloseCode;

impl Kind for CloseCode {
    type Value = u16;

    fn read(&self, text: &str, _: &str) -> Result<u16, Vec<Wrong>> {
        match parse_number(text) {
            Some(code @ (1001 | 1012 | 1013 | 4000..=4999)) => Ok(code),
            _ => wrong(text, "must be 1001, 1012, 1013, or a number from 4000 to 4999"),
        }
    }

    fn write(&self, value: &u16) -> String {
        value.to_string()
    }

    fn schema(&self) -> Value {
        number()
    }

    fn bounds(&self) -> String {
        String::from("`1001`, `1012`, `1013`, or from `4000` to `4999`")
    }
}

/// More threads than this per process help nobody.
const MOST_THREADS: usize = 256;

/// How many threads; `auto` is one per core that this process may use.
pub(in crate::config) struct Threads;

impl Kind for Threads {
    type Value = NonZeroUsize;

    fn read(&self, text: &str, _: &str) -> Result<NonZeroUsize, Vec<Wrong>> {
        if text == "auto" {
            return Ok(thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
        }
        match parse_number::<NonZeroUsize>(text) {
            Some(number) if number.get() <= MOST_THREADS => Ok(number),
            _ => wrong(text, format!("give auto, or a number from 1 to {MOST_THREADS}")),
        }
    }

    fn write(&self, value: &NonZeroUsize) -> String {
        value.to_string()
    }

    fn bounds(&self) -> String {
        format!("`auto`, or from `1` to {}", code(MOST_THREADS))
    }
}
