//! What the encoder writes.

use elbows::proxy_protocol::{Addresses, MAX_V2_LENGTH, encode};

use super::bytes::{INET, INET6, crc32c, tlv, v2};
use super::{address, inet, whole};

#[test]
fn v1_is_the_line_of_the_specification() {
    let line = encode::v1(address("192.168.0.1:56324"), address("192.168.0.11:443"));
    assert_eq!(line, "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
    let line = encode::v1(address("[2001:db8::1]:1"), address("[2001:db8::2]:2"));
    assert_eq!(line, "PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n");
}

#[test]
fn v2_is_the_layout_of_the_specification() {
    let (source, destination) = (address("192.0.2.1:4097"), address("192.0.2.2:8194"));
    assert_eq!(encode::v2(source, destination, &[], false), v2(0x21, 0x11, &[&INET]));
    let tlvs: &[(u8, &[u8])] = &[(0x02, b"example.org"), (0x04, b"")];
    let expected = v2(0x21, 0x11, &[&INET, &tlv(0x02, b"example.org"), &tlv(0x04, b"")]);
    assert_eq!(encode::v2(source, destination, tlvs, false), expected);
    let (source, destination) = (address("[2001:db8::1]:4097"), address("[2001:db8::2]:8194"));
    assert_eq!(encode::v2(source, destination, &[], false), v2(0x21, 0x21, &[&INET6]));
}

#[test]
fn checksum_is_right_by_its_definition() {
    let mut header = encode::v2(
        address("192.0.2.1:1"),
        address("192.0.2.2:2"),
        &[(0x02, b"example.org"), (0x04, b"..")],
        true,
    );
    assert_eq!(header[28..31], [0x03, 0, 4]);
    let written = u32::from_be_bytes(header[31..35].try_into().unwrap());
    header[31..35].fill(0);
    assert_eq!(crc32c(&header), written);
}

#[test]
fn two_families_become_one() {
    let (source, destination) = (address("192.0.2.1:1"), address("[2001:db8::2]:2"));
    let expected = inet("192.0.2.1:1", "[2001:db8::2]:2");
    assert_eq!(whole(encode::v1(source, destination).as_bytes()).addresses, expected);
    assert_eq!(whole(&encode::v2(source, destination, &[], true)).addresses, expected);
}

#[test]
fn local_is_sixteen_bytes() {
    let header = encode::v2_local();
    assert_eq!(header, v2(0x20, 0x00, &[]));
    assert_eq!(whole(&header).addresses, Addresses::Local);
}

#[test]
fn tlv_without_room_is_left_out() {
    let (source, destination) = (address("192.0.2.1:1"), address("192.0.2.2:2"));
    let large = vec![0; 65_536];
    let header = encode::v2(
        source,
        destination,
        &[(0x04, &large), (0x04, &large[..60_000]), (0x02, b"a")],
        false,
    );
    assert_eq!(header.len(), 16 + 12 + 3 + 60_000 + 4);
    let filling =
        encode::v2(source, destination, &[(0x04, &large[..65_535 - 12 - 3]), (0x02, b"")], false);
    assert_eq!(filling.len(), 16 + 65_535);
    assert_eq!(filling[14..16], [0xFF, 0xFF]);
    assert!(filling.len() > MAX_V2_LENGTH);
}
