//! TLVs, rule by rule (specification, 2.2.1 to 2.2.8, and the vendors).

use elbows::proxy_protocol::{Fault, Ssl, Tlvs};

use super::bytes::{INET, INET6, seal, tlv, v2, with_tlvs};
use super::{refused, whole};

/// The place of a checksum whose TLV is the first behind INET addresses.
const CHECKSUM_AT: usize = 16 + INET.len() + 3;

fn tlvs(tlvs: &[&[u8]]) -> Tlvs {
    whole(&with_tlvs(tlvs)).tlvs
}

#[test]
fn known_tlvs_are_kept() {
    let kept = tlvs(&[&tlv(0x01, b"h2"), &tlv(0x02, b"example.org"), &tlv(0x05, b"\0\xFFid")]);
    assert!(!kept.is_empty());
    assert_eq!(kept.alpn(), Some(&b"h2"[..]));
    assert_eq!(kept.authority(), Some("example.org"));
    assert_eq!(kept.unique_id(), Some(&b"\0\xFFid"[..]));
    assert_eq!(kept.ssl(), None);
    assert_eq!(
        (kept.aws_vpc_endpoint_id(), kept.azure_link_id(), kept.gcp_psc_connection_id()),
        (None, None, None)
    );
}

#[test]
fn unknown_tlvs_are_skipped_and_cost_nothing() {
    let noop = tlv(0x04, b"....");
    let kept = tlvs(&[
        &noop,
        &noop,
        &tlv(0x30, b"blue"),
        &tlv(0x30, b"red"),
        &tlv(0xE1, b"\x01vpc"),
        &tlv(0xFF, b""),
    ]);
    assert!(kept.is_empty());
    assert_eq!(tlvs(&[&noop, &tlv(0x02, b"a"), &noop]).authority(), Some("a"));
}

#[test]
fn tlv_over_the_end_is_refused() {
    for end in
        [&b"\x04"[..], b"\x04\x00", b"\x04\x00\x01", b"\x04\xFF\xFF....", b"\x02\x00\x02a", b"\0"]
    {
        refused(with_tlvs(&[end]), Fault::TlvOverrun);
        refused(with_tlvs(&[&tlv(0x02, b"a"), end]), Fault::TlvOverrun);
    }
    tlvs(&[b"\x04\x00\x00"]);
}

#[test]
fn checksum_covers_the_whole_header() {
    let header = seal(with_tlvs(&[&tlv(0x03, &[0; 4]), &tlv(0x02, b"example.org")]), CHECKSUM_AT);
    assert_eq!(whole(&header).tlvs.authority(), Some("example.org"));
    // Every bit counts: those of the addresses, of the checksum itself, and of TLVs behind it.
    for at in [16, 27, CHECKSUM_AT, CHECKSUM_AT + 3, header.len() - 1] {
        for bit in 0..8 {
            let mut changed = header.clone();
            changed[at] ^= 1 << bit;
            refused(&changed, Fault::Crc32cMismatch);
        }
    }
}

#[test]
fn checksum_may_come_behind_other_tlvs() {
    let first = tlv(0x02, b"example.org");
    whole(&seal(with_tlvs(&[&first, &tlv(0x03, &[0; 4])]), CHECKSUM_AT + first.len()));
}

#[test]
fn checksum_of_zeros_is_no_exception() {
    refused(with_tlvs(&[&tlv(0x03, &[0; 4])]), Fault::Crc32cMismatch);
}

#[test]
fn checksum_is_four_bytes() {
    for value in [&b""[..], &[0; 3], &[0; 5], &[0; 8]] {
        refused(with_tlvs(&[&tlv(0x03, value)]), Fault::Crc32cLength);
    }
}

#[test]
fn known_tlvs_come_once() {
    for kind in [0x01, 0x02, 0x05] {
        refused(with_tlvs(&[&tlv(kind, b"a"), &tlv(kind, b"a")]), Fault::TlvRepeated);
    }
    refused(with_tlvs(&[&tlv(0x03, &[0; 4]), &tlv(0x03, &[0; 4])]), Fault::TlvRepeated);
    refused(with_tlvs(&[&tlv(0x20, &[0; 5]), &tlv(0x20, &[0; 5])]), Fault::TlvRepeated);
    refused(with_tlvs(&[&tlv(0xE0, &[0; 8]), &tlv(0xE0, &[1; 8])]), Fault::TlvRepeated);
    refused(with_tlvs(&[&tlv(0xEA, b"\x01vpce-1"), &tlv(0xEA, b"\x01vpce-2")]), Fault::TlvRepeated);
    refused(
        with_tlvs(&[&tlv(0xEE, &[1, 0, 0, 0, 0]), &tlv(0xEE, &[1, 0, 0, 0, 0])]),
        Fault::TlvRepeated,
    );
}

#[test]
fn unique_id_is_128_bytes_at_most() {
    assert_eq!(tlvs(&[&tlv(0x05, &[7; 128])]).unique_id(), Some(&[7; 128][..]));
    refused(with_tlvs(&[&tlv(0x05, &[7; 129])]), Fault::UniqueIdTooLong);
}

#[test]
fn text_that_is_not_utf8_is_left_out() {
    let kept = tlvs(&[&tlv(0x02, b"caf\xE9"), &tlv(0x05, b"1")]);
    assert_eq!(kept.authority(), None);
    assert_eq!(kept.unique_id(), Some(&b"1"[..]));
    assert_eq!(tlvs(&[&tlv(0x02, "café".as_bytes())]).authority(), Some("café"));
}

#[test]
fn ssl_tells_version_name_and_cipher() {
    let value = [
        &[0x07, 0, 0, 0, 18][..],
        &tlv(0x21, b"TLSv1.3"),
        &tlv(0x24, b"RSA-SHA256"),
        &tlv(0x22, b"device 7"),
        &tlv(0x23, b"TLS_AES_256_GCM_SHA384"),
        &tlv(0x28, &[0x30; 1500]),
    ]
    .concat();
    let kept = tlvs(&[&tlv(0x20, &value), &tlv(0x02, b"example.org")]);
    let expected = Ssl {
        client: 7,
        verify: 18,
        version: Some("TLSv1.3"),
        cn: Some("device 7"),
        cipher: Some("TLS_AES_256_GCM_SHA384"),
    };
    assert_eq!(kept.ssl(), Some(expected));
    assert_eq!(kept.authority(), Some("example.org"));

    let bare = tlvs(&[&tlv(0x20, &[1, 0, 0, 1, 0])]);
    assert_eq!(
        bare.ssl(),
        Some(Ssl { client: 1, verify: 256, version: None, cn: None, cipher: None })
    );
}

#[test]
fn ssl_keeps_its_order() {
    for length in 0..5 {
        refused(with_tlvs(&[&tlv(0x20, &vec![0; length])]), Fault::SslTooShort);
    }
    let fixed = [1, 0, 0, 0, 0];
    refused(
        with_tlvs(&[&tlv(0x20, &[&fixed[..], b"\x21\x00\x09TLSv1.3"].concat())]),
        Fault::TlvOverrun,
    );
    refused(with_tlvs(&[&tlv(0x20, &[&fixed[..], b"\x21"].concat())]), Fault::TlvOverrun);
    let twice = [&fixed[..], &tlv(0x22, b"a"), &tlv(0x22, b"b")].concat();
    refused(with_tlvs(&[&tlv(0x20, &twice)]), Fault::TlvRepeated);
    let latin1 = [&fixed[..], &tlv(0x22, b"caf\xE9"), &tlv(0x21, b"TLSv1.2")].concat();
    let kept = tlvs(&[&tlv(0x20, &latin1)]);
    assert_eq!(kept.ssl().unwrap().cn, None);
    assert_eq!(kept.ssl().unwrap().version, Some("TLSv1.2"));
}

#[test]
fn vendor_ids_are_read_as_their_vendors_document_them() {
    let kept = tlvs(&[
        &tlv(0xEA, b"\x01vpce-08d2bf15fac5001c9"),
        &tlv(0xEE, &[0x01, 0x78, 0x56, 0x34, 0x12]),
        &tlv(0xE0, &[0xFF, 0xFF, 0xFF, 0xFF, 0xC0, 0xA8, 0x64, 0x02]),
    ]);
    assert_eq!(kept.aws_vpc_endpoint_id(), Some("vpce-08d2bf15fac5001c9"));
    assert_eq!(kept.azure_link_id(), Some(0x1234_5678));
    assert_eq!(kept.gcp_psc_connection_id(), Some(18_446_744_072_646_845_442));
}

#[test]
fn vendor_tlvs_of_another_form_are_left_out() {
    let others: &[(u8, &[u8])] = &[
        (0xEA, b""),
        (0xEA, b"\x01"),
        (0xEA, b"\x02vpce-1"),
        (0xEA, b"\x01vpce 1"),
        (0xEA, b"\x01vpce-\xE9"),
        (0xEA, b"\x01vpce-1\r\nX: y"),
        (0xEE, b""),
        (0xEE, &[1, 0, 0, 0]),
        (0xEE, &[1, 0, 0, 0, 0, 0]),
        (0xEE, &[2, 0, 0, 0, 0]),
        (0xE0, &[0; 7]),
        (0xE0, &[0; 9]),
    ];
    for (kind, value) in others {
        assert!(tlvs(&[&tlv(*kind, value), &tlv(*kind, value)]).is_empty(), "{kind:#x} {value:?}");
    }
    // They do not hide the right one.
    let kept = tlvs(&[&tlv(0xEA, b"\x02other"), &tlv(0xEA, b"\x01vpce-1")]);
    assert_eq!(kept.aws_vpc_endpoint_id(), Some("vpce-1"));
}

#[test]
fn tlvs_are_found_behind_inet6_too() {
    let header = whole(&v2(0x21, 0x21, &[&INET6, &tlv(0x02, b"example.org")]));
    assert_eq!(header.tlvs.authority(), Some("example.org"));
}

#[test]
fn debug_output_shows_the_tlvs() {
    let shown = format!("{:?}", tlvs(&[&tlv(0x02, b"example.org")]));
    assert!(shown.contains("authority: Some(\"example.org\")"), "{shown}");
}
