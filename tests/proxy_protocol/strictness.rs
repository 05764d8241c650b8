//! "Any sequence which does not exactly match the protocol must be discarded" (specification, 2): a table of such
//! sequences, each with the rule that it breaks, for both versions and both places of an address or a port.
//!
//! Each is refused whole, and so is each beginning of it that is long enough to tell, with the same fault: what
//! comes later cannot mend it, and nothing that can still be right is refused.

use elbows::proxy_protocol::{Fault, parse};

use super::bytes::{INET, INET6, announcing, seal, tlv, v2, with_tlvs};

/// A version 1 line whose four fields are these.
fn v1(protocol: &str, fields: &str) -> Vec<u8> {
    format!("PROXY {protocol} {fields}\r\n").into_bytes()
}

fn wrong_checksum(change: usize) -> Vec<u8> {
    let mut header = seal(with_tlvs(&[&tlv(0x03, &[0; 4])]), 16 + INET.len() + 3);
    let at = header.len() - 1 - change;
    header[at] ^= 0x80;
    header
}

/// What is sent, in words, its bytes, and the rule.
fn cases() -> Vec<(&'static str, Vec<u8>, Fault)> {
    use Fault::{
        Crc32cLength, Crc32cMismatch, TlvOverrun, TlvRepeated, V1Address, V1Fields, V1LineEnd,
        V1Port, V1Protocol, V1TooLong, V2AddressBlock, V2Command, V2Family, V2TooLong, V2Transport,
        V2Version,
    };
    let mut cases = Vec::new();
    // Both places of an address, and both of a port.
    for (what, protocol, good, bad) in [
        ("leading zero in an octet", "TCP4", "192.0.2.1", "192.0.02.1"),
        ("octal octet", "TCP4", "192.0.2.1", "0300.0.2.1"),
        ("hexadecimal octet", "TCP4", "192.0.2.1", "0xc0.0.2.1"),
        ("plus before an address", "TCP4", "192.0.2.1", "+192.0.2.1"),
        ("minus before an octet", "TCP4", "192.0.2.1", "192.0.2.-1"),
        ("three octets", "TCP4", "192.0.2.1", "192.0.2"),
        ("five octets", "TCP4", "192.0.2.1", "192.0.2.1.1"),
        ("octet over 255", "TCP4", "192.0.2.1", "192.0.2.256"),
        ("one number", "TCP4", "192.0.2.1", "3221225985"),
        ("IPv6 in TCP4", "TCP4", "192.0.2.1", "2001:db8::1"),
        ("mapped IPv4 in TCP4", "TCP4", "192.0.2.1", "::ffff:192.0.2.1"),
        ("name in TCP4", "TCP4", "192.0.2.1", "localhost"),
        ("address and port in one", "TCP4", "192.0.2.1", "192.0.2.1:80"),
        ("IPv4 in TCP6", "TCP6", "2001:db8::1", "192.0.2.1"),
        ("zone id by name", "TCP6", "2001:db8::1", "fe80::1%eth0"),
        ("zone id by number", "TCP6", "2001:db8::1", "fe80::1%2"),
        ("empty zone id", "TCP6", "2001:db8::1", "fe80::1%"),
        ("IPv6 in brackets", "TCP6", "2001:db8::1", "[2001:db8::1]"),
        ("five digits in a group", "TCP6", "2001:db8::1", "02001:db8::1"),
        ("two double colons", "TCP6", "2001:db8::1", "2001::db8::1"),
        ("seven groups", "TCP6", "2001:db8::1", "1:2:3:4:5:6:7"),
        ("nine groups", "TCP6", "2001:db8::1", "1:2:3:4:5:6:7:8:9"),
        ("leading zero in a dotted end", "TCP6", "2001:db8::1", "::ffff:192.0.2.01"),
        ("prefix", "TCP6", "2001:db8::1", "2001:db8::1/64"),
    ] {
        cases.push((what, v1(protocol, &format!("{bad} {good} 1 2")), V1Address));
        cases.push((what, v1(protocol, &format!("{good} {bad} 1 2")), V1Address));
    }
    for (what, bad) in [
        ("leading zero in a port", "080"),
        ("two zeros", "00"),
        ("plus before a port", "+80"),
        ("minus before a port", "-80"),
        ("port over 65535", "65536"),
        ("port over 32 bits", "4294967376"),
        ("hexadecimal port", "0x50"),
        ("name of a port", "http"),
    ] {
        cases.push((what, v1("TCP4", &format!("192.0.2.1 192.0.2.2 {bad} 2")), V1Port));
        cases.push((what, v1("TCP4", &format!("192.0.2.1 192.0.2.2 1 {bad}")), V1Port));
    }
    let addresses = "192.0.2.1 192.0.2.2";
    cases.extend([
        ("no port", v1("TCP4", &format!("{addresses} 1")), V1Fields),
        ("a third port", v1("TCP4", &format!("{addresses} 1 2 3")), V1Fields),
        ("two spaces", v1("TCP4", "192.0.2.1  192.0.2.2 1 2"), V1Fields),
        ("space before the end", v1("TCP4", &format!("{addresses} 1 2 ")), V1Fields),
        ("protocol in lower case", v1("tcp4", &format!("{addresses} 1 2")), V1Protocol),
        ("UDP4", v1("UDP4", &format!("{addresses} 1 2")), V1Protocol),
        ("TCP without family", v1("TCP", &format!("{addresses} 1 2")), V1Protocol),
        ("bare LF", format!("PROXY TCP4 {addresses} 1 2\n").into_bytes(), V1LineEnd),
        ("bare CR", format!("PROXY TCP4 {addresses} 1 2\rx").into_bytes(), V1LineEnd),
        ("108 bytes", v1("UNKNOWN", &"x".repeat(92)), V1TooLong),
        (
            "no end of the line",
            format!("PROXY UNKNOWN {}", "x".repeat(500)).into_bytes(),
            V1TooLong,
        ),
        ("version 1 in the binary form", v2(0x11, 0x11, &[&INET]), V2Version),
        ("version 3", v2(0x31, 0x11, &[&INET]), V2Version),
        ("unknown command", v2(0x22, 0x11, &[&INET]), V2Command),
        ("last unknown command", v2(0x2F, 0x11, &[&INET]), V2Command),
        ("unknown family", v2(0x21, 0x41, &[&INET]), V2Family),
        ("last unknown family", v2(0x21, 0xF1, &[&INET]), V2Family),
        ("unknown transport", v2(0x21, 0x13, &[&INET]), V2Transport),
        ("last unknown transport", v2(0x21, 0x1F, &[&INET]), V2Transport),
        ("no addresses", v2(0x21, 0x11, &[]), V2AddressBlock),
        ("11 bytes of IPv4 addresses", v2(0x21, 0x11, &[&INET[..11]]), V2AddressBlock),
        ("IPv4 addresses for IPv6", v2(0x21, 0x21, &[&INET]), V2AddressBlock),
        ("35 bytes of IPv6 addresses", v2(0x21, 0x21, &[&INET6[..35]]), V2AddressBlock),
        ("215 bytes of UNIX addresses", v2(0x21, 0x31, &[&[b'/'; 215]]), V2AddressBlock),
        ("65,535 announced", announcing(0x21, 0x11, 65_535, b""), V2TooLong),
        ("65,535 announced by LOCAL", announcing(0x20, 0x00, 65_535, b""), V2TooLong),
        ("4,081 announced", announcing(0x21, 0x11, 4_081, &INET), V2TooLong),
        ("TLV of one byte", with_tlvs(&[b"\x04"]), TlvOverrun),
        ("TLV of two bytes", with_tlvs(&[b"\x04\x00"]), TlvOverrun),
        ("TLV over the end by one", with_tlvs(&[b"\x04\x00\x02x"]), TlvOverrun),
        ("TLV of 65,535", with_tlvs(&[b"\x04\xFF\xFFx"]), TlvOverrun),
        ("second TLV over the end", with_tlvs(&[&tlv(0x04, b"x"), b"\x02\x00\x09x"]), TlvOverrun),
        (
            "TLV inside of SSL over its end",
            with_tlvs(&[&tlv(0x20, b"\x01\0\0\0\0\x21\0\x09x")]),
            TlvOverrun,
        ),
        ("two checksums", with_tlvs(&[&tlv(0x03, &[0; 4]), &tlv(0x03, &[0; 4])]), TlvRepeated),
        ("two names", with_tlvs(&[&tlv(0x02, b"a"), &tlv(0x02, b"b")]), TlvRepeated),
        ("checksum of three bytes", with_tlvs(&[&tlv(0x03, &[0; 3])]), Crc32cLength),
        ("checksum of zeros", with_tlvs(&[&tlv(0x03, &[0; 4])]), Crc32cMismatch),
        ("a bit of the checksum", wrong_checksum(0), Crc32cMismatch),
        ("a bit of an address", wrong_checksum(12), Crc32cMismatch),
    ]);
    cases
}

#[test]
fn what_does_not_exactly_match_is_refused_by_its_rule() {
    let cases = cases();
    assert!(cases.len() > 90, "{}", cases.len());
    for (what, bytes, rule) in cases {
        assert_eq!(parse(&bytes), Err(rule), "{what}: {}", bytes.escape_ascii());
        // What follows does not mend it.
        let followed = [&bytes, b"GET / HTTP/1.1\r\n\r\n".as_slice()].concat();
        assert_eq!(parse(&followed), Err(rule), "{what}, with a request behind it");
        // However it is split: more is waited for, up to the one answer.
        let mut refused = false;
        for length in 0..bytes.len() {
            match parse(&bytes[..length]) {
                Ok(None) if !refused => {}
                Err(fault) if fault == rule => refused = true,
                other => panic!("{what}, {length} bytes of it: {other:?}"),
            }
        }
    }
}
