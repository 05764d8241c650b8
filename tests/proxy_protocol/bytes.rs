//! Builds headers byte by byte, valid or not. Independent of the encoder under test.

pub(crate) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// 192.0.2.1:4097 to 192.0.2.2:8194.
pub(crate) const INET: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0x10, 0x01, 0x20, 0x02];

/// `[2001:db8::1]:4097` to `[2001:db8::2]:8194`.
pub(crate) const INET6: [u8; 36] = [
    0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, //
    0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, //
    0x10, 0x01, 0x20, 0x02,
];

/// NLB's health check, as captured: LOCAL with family INET, no address block, a `CRC32c` and a NOOP of 74 zero bytes.
pub(crate) fn nlb_health_check() -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend([
        0x20, 0x11, 0x00, 0x54, 0x03, 0x00, 0x04, 0xBC, 0xE5, 0x95, 0x1F, 0x04, 0x00, 0x4A,
    ]);
    header.extend([0; 74]);
    header
}

pub(crate) fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut tlv = vec![kind];
    tlv.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
    tlv.extend(value);
    tlv
}

/// A header with its true length.
pub(crate) fn v2(version_command: u8, family_transport: u8, parts: &[&[u8]]) -> Vec<u8> {
    let block = parts.concat();
    announcing(version_command, family_transport, u16::try_from(block.len()).unwrap(), &block)
}

/// A header with any length.
pub(crate) fn announcing(
    version_command: u8,
    family_transport: u8,
    length: u16,
    block: &[u8],
) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend([version_command, family_transport]);
    header.extend(length.to_be_bytes());
    header.extend(block);
    header
}

/// A header with INET addresses and TLVs.
pub(crate) fn with_tlvs(tlvs: &[&[u8]]) -> Vec<u8> {
    v2(0x21, 0x11, &[&INET, &tlvs.concat()])
}

/// `CRC32c` bit by bit, as its definition goes.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let mut register = u32::MAX;
    for byte in bytes {
        register ^= u32::from(*byte);
        for _ in 0..8 {
            register = (register >> 1) ^ if register & 1 == 1 { 0x82F6_3B78 } else { 0 };
        }
    }
    !register
}

/// Puts the right checksum into the 4 zero bytes at `at`.
pub(crate) fn seal(mut header: Vec<u8>, at: usize) -> Vec<u8> {
    let checksum = crc32c(&header).to_be_bytes();
    header[at..at + 4].copy_from_slice(&checksum);
    header
}
