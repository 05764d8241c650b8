//! Version 1, rule by rule (specification, 2.1).

use elbows::proxy_protocol::{Addresses, Fault, MAX_V1_HEADER, Version};

use super::{inet, refused, waits, whole};

#[test]
fn tcp4_gives_addresses_and_ports() {
    let header = whole(b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
    assert_eq!(header.version, Version::V1);
    assert_eq!(header.addresses, inet("192.168.0.1:56324", "192.168.0.11:443"));
    assert!(header.tlvs.is_empty());
    let widest = whole(b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n");
    assert_eq!(widest.addresses, inet("255.255.255.255:65535", "255.255.255.255:65535"));
    let narrowest = whole(b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n");
    assert_eq!(narrowest.addresses, inet("0.0.0.0:0", "0.0.0.0:0"));
}

#[test]
fn tcp6_takes_every_text_form_of_rfc_4291() {
    for (text, meaning) in [
        ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8::A", "2001:db8::a"),
        ("2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8::1"),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("::", "::"),
        ("::1", "::1"),
        ("1::", "1::"),
        ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"),
        ("64:ff9b::192.0.2.1", "64:ff9b::c000:201"),
    ] {
        let header = whole(format!("PROXY TCP6 {text} 2001:db8::2 1 2\r\n").as_bytes());
        assert_eq!(header.addresses, inet(&format!("[{meaning}]:1"), "[2001:db8::2]:2"), "{text}");
    }
}

#[test]
fn ipv4_mapped_is_the_ipv4_client() {
    for text in ["::ffff:192.0.2.1", "::ffff:c000:201", "::FFFF:192.0.2.1"] {
        let header = whole(format!("PROXY TCP6 {text} ::ffff:192.0.2.2 1 2\r\n").as_bytes());
        assert_eq!(header.addresses, inet("192.0.2.1:1", "192.0.2.2:2"), "{text}");
    }
}

#[test]
fn unknown_ignores_the_rest_of_the_line() {
    for line in [
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN \r\n",
        "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
        "PROXY UNKNOWN  anything: \t\0 at all, and more of it\r\n",
    ] {
        assert_eq!(whole(line.as_bytes()).addresses, Addresses::Unknown, "{line:?}");
    }
    assert_eq!(whole(b"PROXY UNKNOWN \xFF\xFE\r\n").addresses, Addresses::Unknown);
}

#[test]
fn unknown_must_be_the_whole_word() {
    for line in
        ["PROXY UNKNOWNS\r\n", "PROXY UNKNOWN\t\r\n", "PROXY UNKNOWN\0\r\n", "PROXY UNKNOW\r\n"]
    {
        refused(line, Fault::V1Protocol);
    }
    waits("PROXY UNKNOWN");
}

#[test]
fn protocol_is_exact_and_judged_at_once() {
    for line in [
        "PROXY TCP5",
        "PROXY TCP ",
        "PROXY tcp4",
        "PROXY Tcp4",
        "PROXY UDP4",
        "PROXY unknown",
        "PROXY  TCP4",
        "PROXY \r\n",
        "PROXY TCP4\t",
        "PROXY TCP4\r\n",
        "PROXY TCP40",
        "PROXY GET / HTTP/1.1\r\n",
    ] {
        refused(line, Fault::V1Protocol);
    }
    for line in
        ["PROXY ", "PROXY T", "PROXY TCP", "PROXY TCP4", "PROXY TCP6", "PROXY TCP4 ", "PROXY UN"]
    {
        waits(line);
    }
}

#[test]
fn fields_are_four_with_one_space_before_each() {
    for line in [
        "PROXY TCP4 \r\n",
        "PROXY TCP4 192.0.2.1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2  1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1  2\r\n",
    ] {
        refused(line, Fault::V1Fields);
    }
}

#[test]
fn ipv4_is_four_decimal_octets_without_leading_zeros() {
    for text in [
        "192.0.2",
        "192.0.2.1.1",
        "192.0.2.256",
        "192.0.2.01",
        "192.0.2.00",
        "0192.0.2.1",
        "0xC0.0.2.1",
        "+192.0.2.1",
        "-1.0.2.1",
        "192.0.2.",
        ".192.0.2.1",
        "192..2.1",
        "3221225985",
        "192.0.2.1:80",
        "192.0.2.1/32",
        "localhost",
        "192.0.2.1\t",
        "192.0.2.\u{661}",
        "[192.0.2.1]",
    ] {
        refused(format!("PROXY TCP4 {text} 192.0.2.2 1 2\r\n"), Fault::V1Address);
        refused(format!("PROXY TCP4 192.0.2.2 {text} 1 2\r\n"), Fault::V1Address);
    }
    refused(b"PROXY TCP4 192.0.2.\xFF 192.0.2.2 1 2\r\n", Fault::V1Address);
}

#[test]
fn ipv6_has_128_bits_one_double_colon_and_no_zone() {
    for text in [
        "2001:db8",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "1::2::3",
        "1:2:3:4:5:6:7:8::",
        "1:2:3:4::5:6:7:8",
        ":::",
        ":1",
        "1:",
        "12345::",
        "g::1",
        "fe80::1%eth0",
        "fe80::1%1",
        "fe80::1%",
        "[2001:db8::1]",
        "::ffff:192.0.2.01",
        "::ffff:192.0.2",
        "::ffff:192.0.2.1.1",
        "::192.0.2.1:1",
        "2001:db8::1/128",
        "+1::",
    ] {
        refused(format!("PROXY TCP6 {text} 2001:db8::2 1 2\r\n"), Fault::V1Address);
        refused(format!("PROXY TCP6 2001:db8::2 {text} 1 2\r\n"), Fault::V1Address);
    }
}

#[test]
fn addresses_are_of_the_announced_family() {
    for line in [
        "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 2001:db8::2 1 2\r\n",
        "PROXY TCP4 ::ffff:192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP6 2001:db8::1 192.0.2.2 1 2\r\n",
    ] {
        refused(line, Fault::V1Address);
    }
}

#[test]
fn ports_are_decimal_up_to_65535_without_sign_or_leading_zeros() {
    for text in [
        "65536", "99999", "100000", "080", "00", "000000", "+80", "-1", "0x50", "8e1", "80.0",
        "80\t", "\u{661}",
    ] {
        refused(format!("PROXY TCP4 192.0.2.1 192.0.2.2 {text} 2\r\n"), Fault::V1Port);
        refused(format!("PROXY TCP4 192.0.2.1 192.0.2.2 1 {text}\r\n"), Fault::V1Port);
    }
}

#[test]
fn line_ends_with_crlf_and_nothing_else() {
    for line in [
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r ",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n\r\n",
        "PROXY TCP4 192.0.2.1\n",
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWN a\nb\r\n",
        "PROXY UNKNOWN a\rb\r\n",
    ] {
        refused(line, Fault::V1LineEnd);
    }
    waits("PROXY TCP4 192.0.2.1 192.0.2.2 1 2");
    waits("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r");
}

#[test]
fn line_is_107_bytes_at_most_with_its_end() {
    let fill =
        |length: usize| format!("PROXY UNKNOWN {}", "x".repeat(length - "PROXY UNKNOWN ".len()));
    let longest = fill(MAX_V1_HEADER - 2) + "\r\n";
    assert_eq!(longest.len(), 107);
    assert_eq!(whole(longest.as_bytes()).addresses, Addresses::Unknown);

    waits(fill(MAX_V1_HEADER - 2));
    waits(fill(MAX_V1_HEADER - 2) + "\r");
    refused(fill(MAX_V1_HEADER - 1), Fault::V1TooLong);
    refused(fill(MAX_V1_HEADER - 1) + "\r", Fault::V1TooLong);
    refused(fill(MAX_V1_HEADER - 1) + "\r\n", Fault::V1TooLong);
    refused(fill(500), Fault::V1TooLong);
    refused("PROXY TCP4 ".to_owned() + &" ".repeat(100), Fault::V1TooLong);
}
