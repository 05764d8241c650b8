//! `CRC32c` (Castagnoli), the checksum of RFC 4960 Appendix B, which the PROXY protocol uses.
//!
//! One table made at compile time, one step per byte. A header is about 100 bytes and is checked once per connection, so
//! a crate with hardware instructions (and `unsafe`) would save nothing that could be measured.

/// The checksum of these parts, one after the other.
pub(super) fn checksum(parts: &[&[u8]]) -> u32 {
    let register = parts.iter().flat_map(|part| part.iter()).fold(u32::MAX, |register, &byte| {
        let [low, ..] = (register ^ u32::from(byte)).to_le_bytes();
        (register >> 8) ^ entry(low)
    });
    !register
}

/// The table's entry for a byte. A byte is always inside a table of 256.
#[allow(clippy::indexing_slicing)]
fn entry(byte: u8) -> u32 {
    TABLE[usize::from(byte)]
}

/// The remainders of all bytes, for the reflected polynomial.
static TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    /// 0x1EDC6F41 with its bits in reverse order (RFC 4960 Appendix B).
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    let mut table = [0; 256];
    let mut byte: u32 = 0;
    while byte < 256 {
        let mut remainder = byte;
        let mut bit = 0;
        while bit < 8 {
            remainder = (remainder >> 1) ^ if remainder & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        #[allow(clippy::indexing_slicing)] // Runs at compile time only.
        {
            table[byte as usize] = remainder;
        }
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_gives_the_published_values() {
        // The check value of the CRC catalogue, and RFC 3720 appendix B.4 (the same polynomial in iSCSI).
        assert_eq!(checksum(&[b"123456789"]), 0xE306_9283);
        assert_eq!(checksum(&[&[0; 32]]), 0x8A91_36AA);
        assert_eq!(checksum(&[&[0xFF; 32]]), 0x62A8_AB43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(checksum(&[&ascending]), 0x46DD_794E);
        let descending: Vec<u8> = (0..32).rev().collect();
        assert_eq!(checksum(&[&descending]), 0x113F_DB5C);
        assert_eq!(checksum(&[]), 0);
    }

    #[test]
    fn checksum_in_the_health_check_of_nlb_is_right() {
        let before = b"\r\n\r\n\0\r\nQUIT\n\x20\x11\x00\x54\x03\x00\x04";
        let after = [&b"\x04\x00\x4A"[..], &[0; 74]].concat();
        assert_eq!(checksum(&[before, &[0; 4], &after]), 0xBCE5_951F);
    }

    #[test]
    fn parts_count_as_one() {
        assert_eq!(checksum(&[b"1234", b"", b"56789"]), checksum(&[b"123456789"]));
    }
}
