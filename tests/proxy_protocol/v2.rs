//! Version 2, rule by rule (specification, 2.2).

use elbows::proxy_protocol::{
    Addresses, Fault, Found, MAX_V2_HEADER, MAX_V2_LENGTH, Version, parse,
};

use super::bytes::{INET, INET6, SIGNATURE, announcing, nlb_health_check, tlv, v2};
use super::{inet, refused, waits, whole};

#[test]
fn inet_gives_addresses_and_ports_in_network_order() {
    let header = whole(&v2(0x21, 0x11, &[&INET]));
    assert_eq!(header.version, Version::V2);
    assert_eq!(header.addresses, inet("192.0.2.1:4097", "192.0.2.2:8194"));
    assert!(header.tlvs.is_empty());
}

#[test]
fn inet6_gives_addresses_and_ports_in_network_order() {
    let header = whole(&v2(0x21, 0x21, &[&INET6]));
    assert_eq!(header.addresses, inet("[2001:db8::1]:4097", "[2001:db8::2]:8194"));
}

#[test]
fn ipv4_mapped_is_the_ipv4_client() {
    let mut block = INET6;
    block[..16].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 0, 2, 7]);
    let header = whole(&v2(0x21, 0x21, &[&block]));
    assert_eq!(header.addresses, inet("192.0.2.7:4097", "[2001:db8::2]:8194"));
}

#[test]
fn dgram_gives_the_addresses_too() {
    assert_eq!(
        whole(&v2(0x21, 0x12, &[&INET])).addresses,
        inet("192.0.2.1:4097", "192.0.2.2:8194")
    );
    assert_eq!(
        whole(&v2(0x21, 0x22, &[&INET6])).addresses,
        inet("[2001:db8::1]:4097", "[2001:db8::2]:8194")
    );
}

#[test]
fn nlb_health_check_is_local() {
    let header = nlb_health_check();
    assert_eq!(header.len(), 16 + 0x54);
    let with_request = [&header[..], b"GET /ping HTTP/1.0\r\n\r\n"].concat();
    let Ok(Some((Found::Header(found), used))) = parse(&with_request) else { panic!() };
    assert_eq!(used, header.len());
    assert_eq!(found.addresses, Addresses::Local);
    assert!(found.tlvs.is_empty());
}

#[test]
fn local_skips_whatever_comes_with_it() {
    for family_transport in 0..=u8::MAX {
        for block in [&b""[..], &[0xFF], &INET, b"\x03\x00\x04\0\0\0\0", b"\x02\xFF\xFF"] {
            let header = whole(&v2(0x20, family_transport, &[block]));
            assert_eq!(header.addresses, Addresses::Local);
            assert!(header.tlvs.is_empty());
        }
    }
}

#[test]
fn local_keeps_no_tlvs() {
    let header = whole(&v2(0x20, 0x11, &[&INET, &tlv(0x02, b"example.org")]));
    assert!(header.tlvs.is_empty());
}

#[test]
fn unspecified_family_or_transport_is_unknown_and_skipped() {
    for family_transport in [0x00, 0x01, 0x02, 0x10, 0x20, 0x30] {
        for block in [&b""[..], &[0xFF], &INET, b"\x03\x00\x04\0\0\0\0"] {
            let header = whole(&v2(0x21, family_transport, &[block]));
            assert_eq!(header.addresses, Addresses::Unknown, "{family_transport:#x}");
            assert!(header.tlvs.is_empty());
        }
    }
}

#[test]
fn unix_is_unknown_and_keeps_its_tlvs() {
    for family_transport in [0x31, 0x32] {
        let header =
            whole(&v2(0x21, family_transport, &[&[b'/'; 216], &tlv(0x02, b"example.org")]));
        assert_eq!(header.addresses, Addresses::Unknown);
        assert_eq!(header.tlvs.authority(), Some("example.org"));
        refused(v2(0x21, family_transport, &[&[b'/'; 215]]), Fault::V2AddressBlock);
    }
}

#[test]
fn version_is_two_and_judged_at_once() {
    for version in (0..=15).filter(|&version| version != 2) {
        refused([SIGNATURE, &[version << 4 | 1]].concat(), Fault::V2Version);
    }
    waits(SIGNATURE);
    waits([SIGNATURE, &[0x21]].concat());
}

#[test]
fn command_is_local_or_proxy_and_judged_at_once() {
    for command in 2..=15 {
        refused([SIGNATURE, &[0x20 | command]].concat(), Fault::V2Command);
    }
}

#[test]
fn family_is_assigned_and_judged_at_once() {
    for family in 4..=15 {
        refused([SIGNATURE, &[0x21, family << 4 | 1]].concat(), Fault::V2Family);
        refused([SIGNATURE, &[0x21, family << 4]].concat(), Fault::V2Family);
    }
}

#[test]
fn transport_is_assigned_and_judged_at_once() {
    for family in 0..=3 {
        for transport in 3..=15 {
            refused([SIGNATURE, &[0x21, family << 4 | transport]].concat(), Fault::V2Transport);
        }
    }
}

#[test]
fn length_holds_the_addresses_and_is_judged_at_once() {
    for (family_transport, block) in
        [(0x11, 12), (0x12, 12), (0x21, 36), (0x22, 36), (0x31, 216), (0x32, 216)]
    {
        for length in [0, 1, block - 1] {
            refused(announcing(0x21, family_transport, length, b""), Fault::V2AddressBlock);
        }
        waits(announcing(0x21, family_transport, block, b""));
    }
}

#[test]
fn length_over_the_limit_is_not_waited_for() {
    let limit = u16::try_from(MAX_V2_LENGTH).unwrap();
    for (command, family_transport) in [(0x21, 0x11), (0x21, 0x00), (0x20, 0x00)] {
        refused(announcing(command, family_transport, limit + 1, b""), Fault::V2TooLong);
        refused(announcing(command, family_transport, u16::MAX, b""), Fault::V2TooLong);
        waits(announcing(command, family_transport, limit, b""));
    }
    let padding = tlv(0x04, &vec![0; MAX_V2_LENGTH - INET.len() - 3]);
    let largest = v2(0x21, 0x11, &[&INET, &padding]);
    assert_eq!(largest.len(), MAX_V2_HEADER);
    whole(&largest);
}

#[test]
fn header_is_waited_for_to_its_last_byte() {
    let header = v2(0x21, 0x11, &[&INET, &tlv(0x04, b"..")]);
    for length in 0..header.len() {
        waits(&header[..length]);
    }
    whole(&header);
}
