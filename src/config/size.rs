//! Sizes as settings write them: bytes, or a multiple of a power of 1024. Pure.
//!
//! There is one spelling a unit. `64KB` could mean two things, and `64k` a third, so that neither is
//! taken.

/// The units, the largest first, and by how many bits each shifts.
const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// Reads `65536`, `64KiB`, `1MiB`. `None` if it is no size, or none that 64 bits hold.
pub(super) fn parse(text: &str) -> Option<u64> {
    let (number, shift) = UNITS
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)))
        .unwrap_or((text, 0));
    // `str::parse` would take a sign.
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Writes it in the largest unit that divides it.
pub(super) fn format(size: u64) -> String {
    let unit = UNITS.iter().find(|(_, shift)| size != 0 && size.is_multiple_of(1 << shift));
    match unit {
        Some((unit, shift)) => format!("{}{unit}", size >> shift),
        None => size.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_unit_is_a_power_of_1024() {
        for (text, size) in [
            ("0", 0),
            ("125", 125),
            ("1KiB", 1024),
            ("64KiB", 65_536),
            ("3MiB", 3 << 20),
            ("1GiB", 1 << 30),
            ("2TiB", 2 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse(text), Some(size), "{text}");
            assert_eq!(format(size), text);
        }
        assert_eq!(format(1536), "1536");
        assert_eq!(format(2048 << 10), "2MiB");
    }

    #[test]
    fn what_is_no_size_is_none() {
        for text in [
            "",
            "KiB",
            "-1",
            "+1",
            "1.5MiB",
            "1 MiB",
            " 1",
            "64KB",
            "64kib",
            "64k",
            "1B",
            "0x10",
            "MiB1",
            "1KiBKiB",
            "18446744073709551616",
            "16777216TiB",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(size: u64, zeros in 0..64_u32) {
            let size = size << zeros;
            prop_assert_eq!(parse(&format(size)), Some(size));
        }
    }
}
