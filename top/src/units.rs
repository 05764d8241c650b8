//! Numbers and times in few columns. Pure.

use std::time::Duration;

/// What number in five columns at most: `999`, `1.2k`, `34M`.
pub(crate) fn short(number: u64) -> String {
    const SIGNS: [char; 6] = ['k', 'M', 'G', 'T', 'P', 'E'];
    if number < 1_000 {
        return number.to_string();
    }
    let mut unit: u64 = 1_000;
    let mut signs = SIGNS.into_iter();
    let mut sign = signs.next();
    while number / unit >= 1_000 {
        unit *= 1_000;
        sign = signs.next();
    }
    let (whole, tenth) = (number / unit, number % unit / (unit / 10));
    let sign = sign.unwrap_or(' ');
    if whole < 10 { format!("{whole}.{tenth}{sign}") } else { format!("{whole}{sign}") }
}

/// A rate, per second; what is not known yet is a stroke.
pub(crate) fn rate(rate: Option<f64>) -> String {
    let Some(rate) = rate else { return String::from("-") };
    if rate > 0.0 && rate < 9.95 { format!("{rate:.1}") } else { short(whole(rate)) }
}

/// A share, as a percentage.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| String::from("-"), |share| format!("{:.0}%", share * 100.0))
}

/// Of what is never negative, and may be anything.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // It saturates.
fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// How much more there is, per second.
#[allow(clippy::cast_precision_loss)] // It is rounded to be shown.
pub(crate) fn per_second(before: u64, now: u64, time: Duration) -> Option<f64> {
    (!time.is_zero()).then(|| now.saturating_sub(before) as f64 / time.as_secs_f64())
}

/// What part of the whole; all of it where there is nothing.
#[allow(clippy::cast_precision_loss)] // It is rounded to be shown.
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { (part as f64 / whole as f64).min(1.0) }
}

/// Seconds of an answer, whatever they are.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// A time in six columns, for most of them: `12s`, `59m05s`, `3h12m`, `12d4h`.
pub(crate) fn time(of: f64) -> String {
    let all = seconds(of).as_secs();
    let (minutes, hours, days) = (all / 60, all / 3_600, all / 86_400);
    match all {
        0..60 => format!("{all}s"),
        60..3_600 => format!("{minutes}m{:02}s", all % 60),
        3_600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        86_400..8_640_000 => format!("{days}d{}h", hours % 24),
        _ => format!("{}d", short(days)),
    }
}

/// A short time: `0.8ms`, `12ms`, `1.2s`.
pub(crate) fn round_trip(of: Option<f64>) -> String {
    let Some(of) = of else { return String::from("-") };
    let time = seconds(of);
    match time.as_micros() {
        0..10_000 => format!("{:.1}ms", time.as_secs_f64() * 1_000.0),
        10_000..1_000_000 => format!("{}ms", time.as_millis()),
        1_000_000..100_000_000 => format!("{:.1}s", time.as_secs_f64()),
        _ => format!("{}s", short(time.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_five_columns_at_most() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1.0k"),
            (1_999, "1.9k"),
            (12_345, "12k"),
            (999_999, "999k"),
            (1_000_000, "1.0M"),
            (3_400_000_000, "3.4G"),
            (u64::MAX, "18E"),
        ] {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn rates_are_exact_where_they_are_small() {
        for (given, text) in [
            (None, "-"),
            (Some(0.0), "0"),
            (Some(0.25), "0.2"),
            (Some(9.96), "10"),
            (Some(1_234.0), "1.2k"),
            (Some(f64::INFINITY), "18E"),
            (Some(f64::NAN), "0"),
        ] {
            assert_eq!(rate(given), text);
        }
        assert_eq!(per_second(5, 15, Duration::from_secs(2)), Some(5.0));
        assert_eq!(per_second(15, 5, Duration::from_secs(2)), Some(0.0));
        assert_eq!(per_second(5, 15, Duration::ZERO), None);
        assert_eq!((percent(Some(0.126)), percent(None)), ("13%".into(), "-".into()));
        assert!((share(1, 4) - 0.25).abs() < 1e-9 && (share(0, 0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn times_have_two_units_at_most_whatever_was_answered() {
        for (given, text) in [
            (0.0, "0s"),
            (59.9, "59s"),
            (3_545.0, "59m05s"),
            (11_520.0, "3h12m"),
            (86_400.0, "1d0h"),
            (8_640_000.0, "100d"),
            (1e300, "213Td"),
            (-1.0, "213Td"),
            (f64::NAN, "213Td"),
        ] {
            assert_eq!(time(given), text, "{given}");
        }
        for (given, text) in [
            (None, "-"),
            (Some(0.000_83), "0.8ms"),
            (Some(0.012_9), "12ms"),
            (Some(1.25), "1.2s"),
            (Some(1e300), "18Es"),
        ] {
            assert_eq!(round_trip(given), text);
        }
    }
}
