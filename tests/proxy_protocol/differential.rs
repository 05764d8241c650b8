//! The same bytes through our parser, `ppp` and `proxy-header`.
//!
//! All three must accept the same headers with the same addresses and length, except for the differences named in
//! [`Difference`]. Each of them has an example that proves that it is there (so an entry does not outlive its reason),
//! and any other difference fails the test. Both crates read TLVs lazily; here they are made to read all of them.
//! "Wait" and "refuse" count as one: the crates say "incomplete" of bytes that cannot become a header any more.

use std::net::SocketAddr;

use elbows::proxy_protocol::{Addresses, Fault, Found, encode, parse};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::RngSeed;

use super::bytes::{
    INET, INET6, SIGNATURE, announcing, nlb_health_check, seal, tlv, v2, with_tlvs,
};

/// What a parser makes of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Accepted { addresses: Option<(SocketAddr, SocketAddr)>, used: usize },
    NotAccepted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Ppp,
    ProxyHeader,
}

impl Reader {
    const ALL: [Self; 2] = [Self::Ppp, Self::ProxyHeader];

    fn read(self, bytes: &[u8]) -> Verdict {
        match self {
            Self::Ppp => ppp(bytes),
            Self::ProxyHeader => proxy_header(bytes),
        }
    }
}

/// A known difference between us and another reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Difference {
    /// We skip what comes with LOCAL, as the specification demands; they want the family to be assigned and read its
    /// address block. They take the padding of NLB's health check for one, and would refuse it if it were shorter.
    LocalIsNotSkipped,
    /// They accept a wrong `CRC32c`.
    ChecksumIsNotChecked,
    /// They accept a `CRC32c` TLV of a wrong length (`proxy-header` does not).
    ChecksumLengthIsNotChecked,
    /// They accept two TLVs of a type.
    RepeatedTlv,
    /// They accept a unique id over 128 bytes.
    LongUniqueId,
    /// They do not look into the SSL TLV (`proxy-header` looks at its fixed part only, unless it is asked for more).
    SslIsOpaque,
    /// They accept a header over our limit, up to 65,551 bytes.
    LongV2Header,
    /// An unspecified transport with an inet or UNIX family: `ppp` uses the addresses, and refuses if there is no room
    /// for them.
    UnspecifiedTransportHasAddresses,
    /// An unspecified transport or family beside a specified one: `proxy-header` refuses it.
    HalfUnspecifiedIsRefused,
    /// Text that is not UTF-8: we leave it out, `proxy-header` refuses the header.
    TextMustBeUtf8,
    /// An unspecified family: we skip all that follows, `proxy-header` reads it as TLVs.
    UnspecifiedHasTlvs,
    /// A `+` before a port: `u16::from_str` takes it.
    SignedPort,
    /// Zeros before a port: `u16::from_str` takes them.
    ZeroPaddedPort,
    /// `UNKNOWN` with more than four fields, which are to be ignored: `ppp` waits forever.
    UnknownWithManyFields,
    /// `UNKNOWN` with bytes that are not UTF-8, which are to be ignored: `ppp` refuses.
    UnknownMustBeUtf8,
    /// A bare LF in what `UNKNOWN` ignores.
    BareLfInUnknown,
    /// `UNKNOWN` need not end there for `proxy-header`: `UNKNOWNS` will do.
    UnknownMayGoOn,
    /// Any byte may stand for the space behind `PROXY`.
    AnySeparator,
    /// The line may be longer than 107 bytes.
    LongV1Line,
    /// Space and LF end the line for `ppp` like CR LF, if nothing follows.
    SpaceForCr,
}

impl Difference {
    const ALL: [Self; 20] = [
        Self::LocalIsNotSkipped,
        Self::ChecksumIsNotChecked,
        Self::ChecksumLengthIsNotChecked,
        Self::RepeatedTlv,
        Self::LongUniqueId,
        Self::SslIsOpaque,
        Self::LongV2Header,
        Self::UnspecifiedTransportHasAddresses,
        Self::HalfUnspecifiedIsRefused,
        Self::TextMustBeUtf8,
        Self::UnspecifiedHasTlvs,
        Self::SignedPort,
        Self::ZeroPaddedPort,
        Self::UnknownWithManyFields,
        Self::UnknownMustBeUtf8,
        Self::BareLfInUnknown,
        Self::UnknownMayGoOn,
        Self::AnySeparator,
        Self::LongV1Line,
        Self::SpaceForCr,
    ];

    /// The readers that differ so.
    fn readers(self) -> &'static [Reader] {
        use Reader::{Ppp, ProxyHeader};
        match self {
            Self::LocalIsNotSkipped
            | Self::ChecksumIsNotChecked
            | Self::RepeatedTlv
            | Self::LongUniqueId
            | Self::SslIsOpaque
            | Self::LongV2Header
            | Self::SignedPort
            | Self::BareLfInUnknown => &[Ppp, ProxyHeader],
            Self::ChecksumLengthIsNotChecked
            | Self::UnspecifiedTransportHasAddresses
            | Self::UnknownWithManyFields
            | Self::UnknownMustBeUtf8
            | Self::SpaceForCr => &[Ppp],
            Self::HalfUnspecifiedIsRefused
            | Self::TextMustBeUtf8
            | Self::UnspecifiedHasTlvs
            | Self::ZeroPaddedPort
            | Self::UnknownMayGoOn
            | Self::AnySeparator
            | Self::LongV1Line => &[ProxyHeader],
        }
    }

    /// Bytes that show the difference.
    fn example(self) -> Vec<u8> {
        match self {
            Self::LocalIsNotSkipped => v2(0x20, 0x11, &[&tlv(0x03, &[0; 4])]),
            Self::ChecksumIsNotChecked => with_tlvs(&[&tlv(0x03, &[1; 4])]),
            Self::ChecksumLengthIsNotChecked => with_tlvs(&[&tlv(0x03, &[1; 3])]),
            Self::RepeatedTlv => with_tlvs(&[&tlv(0x02, b"a.example"), &tlv(0x02, b"b.example")]),
            Self::LongUniqueId => with_tlvs(&[&tlv(0x05, &[b'x'; 129])]),
            Self::SslIsOpaque => with_tlvs(&[&tlv(0x20, b"\x01\0\0\0\0\x21\x00\x09TLS")]),
            Self::LongV2Header => with_tlvs(&[&tlv(0x04, &[0; 5000])]),
            Self::UnspecifiedTransportHasAddresses => v2(0x21, 0x10, &[&INET]),
            Self::HalfUnspecifiedIsRefused => v2(0x21, 0x01, &[]),
            Self::TextMustBeUtf8 => with_tlvs(&[&tlv(0x02, b"caf\xE9")]),
            Self::UnspecifiedHasTlvs => v2(0x21, 0x00, &[b"\x04\xFF"]),
            Self::SignedPort => b"PROXY TCP4 192.0.2.1 192.0.2.2 +80 443\r\n".to_vec(),
            Self::ZeroPaddedPort => b"PROXY TCP4 192.0.2.1 192.0.2.2 080 443\r\n".to_vec(),
            Self::UnknownWithManyFields => b"PROXY UNKNOWN a b c d e\r\n".to_vec(),
            Self::UnknownMustBeUtf8 => b"PROXY UNKNOWN \xFF\r\n".to_vec(),
            Self::BareLfInUnknown => b"PROXY UNKNOWN a\nb\r\n".to_vec(),
            Self::UnknownMayGoOn => b"PROXY UNKNOWNS\r\n".to_vec(),
            Self::AnySeparator => b"PROXY-TCP4 192.0.2.1 192.0.2.2 80 443\r\n".to_vec(),
            Self::SpaceForCr => b"PROXY TCP4 192.0.2.1 192.0.2.2 80 443 \n".to_vec(),
            Self::LongV1Line => [b"PROXY UNKNOWN ", &[b'x'; 120][..], b"\r\n"].concat(),
        }
    }

    /// True if this is why our verdict and another one differ. Only asked when they do.
    fn explains(self, bytes: &[u8], ours: Verdict, theirs: Verdict) -> bool {
        let fault = parse(bytes).err();
        let they_are_lax = ours == Verdict::NotAccepted && theirs != Verdict::NotAccepted;
        let they_are_strict = ours != Verdict::NotAccepted && theirs == Verdict::NotAccepted;
        let port_begins_with = |sign: &[u8]| ports(bytes).any(|port| port.starts_with(sign));
        let command = bytes.get(12).filter(|_| bytes.starts_with(SIGNATURE)).copied();
        let family_transport = bytes.get(13).copied().unwrap_or_default();
        let (family, transport) = (family_transport >> 4, family_transport & 0x0F);
        match self {
            Self::LocalIsNotSkipped => {
                they_are_strict
                    && command == Some(0x20)
                    && !address_block_fits(bytes, family_transport)
            }
            Self::ChecksumIsNotChecked => they_are_lax && fault == Some(Fault::Crc32cMismatch),
            Self::ChecksumLengthIsNotChecked => they_are_lax && fault == Some(Fault::Crc32cLength),
            Self::RepeatedTlv => they_are_lax && fault == Some(Fault::TlvRepeated),
            Self::LongUniqueId => they_are_lax && fault == Some(Fault::UniqueIdTooLong),
            Self::SslIsOpaque => {
                they_are_lax
                    && matches!(fault, Some(Fault::SslTooShort | Fault::TlvOverrun))
                    && top_level_tlvs(bytes).iter().any(|(kind, _)| *kind == 0x20)
            }
            Self::LongV2Header => they_are_lax && fault == Some(Fault::V2TooLong),
            Self::UnspecifiedTransportHasAddresses => {
                !they_are_lax && command == Some(0x21) && transport == 0 && family != 0
            }
            Self::HalfUnspecifiedIsRefused => {
                they_are_strict && command == Some(0x21) && (family == 0) != (transport == 0)
            }
            Self::TextMustBeUtf8 => {
                let text = |kind| matches!(kind, 0x02 | 0x21..=0x25 | 0x30);
                they_are_strict
                    && command == Some(0x21)
                    && top_level_tlvs(bytes)
                        .iter()
                        .any(|(kind, value)| text(*kind) && std::str::from_utf8(value).is_err())
            }
            Self::UnspecifiedHasTlvs => {
                they_are_strict && command == Some(0x21) && family_transport == 0
            }
            Self::SignedPort => {
                they_are_lax && fault == Some(Fault::V1Port) && port_begins_with(b"+")
            }
            Self::ZeroPaddedPort => {
                they_are_lax && fault == Some(Fault::V1Port) && port_begins_with(b"0")
            }
            Self::UnknownWithManyFields => {
                they_are_strict && unknown(bytes) && bytes.split(|&byte| byte == b' ').count() > 6
            }
            Self::UnknownMustBeUtf8 => {
                they_are_strict && unknown(bytes) && std::str::from_utf8(bytes).is_err()
            }
            Self::BareLfInUnknown => {
                they_are_lax && unknown(bytes) && fault == Some(Fault::V1LineEnd)
            }
            Self::UnknownMayGoOn => {
                they_are_lax && unknown(bytes) && fault == Some(Fault::V1Protocol)
            }
            Self::AnySeparator => {
                they_are_lax && fault.is_none() && bytes.get(5).is_some_and(|&byte| byte != b' ')
            }
            Self::LongV1Line => they_are_lax && fault == Some(Fault::V1TooLong),
            Self::SpaceForCr => {
                they_are_lax && fault == Some(Fault::V1LineEnd) && bytes.ends_with(b" \n")
            }
        }
    }
}

fn unknown(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PROXY UNKNOWN")
}

/// True if the family and transport are a pair of the specification and the announced length holds their addresses.
fn address_block_fits(bytes: &[u8], family_transport: u8) -> bool {
    let length = usize::from(bytes[14]) << 8 | usize::from(bytes[15]);
    match family_transport {
        0x00 => true,
        0x11 | 0x12 => length >= 12,
        0x21 | 0x22 => length >= 36,
        0x31 | 0x32 => length >= 216,
        _ => false,
    }
}

/// The TLVs of a complete header, those inside of others not counted; none at all if one goes over the end.
fn top_level_tlvs(bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let end = 16 + (usize::from(bytes[14]) << 8 | usize::from(bytes[15]));
    let start = 16
        + match bytes[13] >> 4 {
            1 => 12,
            2 => 36,
            _ => 216,
        };
    let mut rest = bytes.get(start..end).unwrap_or_default();
    let mut tlvs = Vec::new();
    while let [kind, high, low, after @ ..] = rest {
        let Some((value, after)) =
            after.split_at_checked(usize::from(*high) << 8 | usize::from(*low))
        else {
            return Vec::new();
        };
        tlvs.push((*kind, value));
        rest = after;
    }
    if rest.is_empty() { tlvs } else { Vec::new() }
}

/// The two ports of a line.
fn ports(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| matches!(byte, b' ' | b'\r')).skip(4).take(2)
}

macro_rules! known_differences {
    ($($test:ident: $difference:ident),* $(,)?) => {
        $(#[test]
        fn $test() {
            differs(Difference::$difference);
        })*

        #[test]
        fn every_known_difference_has_its_test() {
            assert_eq!(Difference::ALL, [$(Difference::$difference),*]);
        }
    };
}

known_differences! {
    local_is_not_skipped_by_others: LocalIsNotSkipped,
    checksum_is_not_checked_by_others: ChecksumIsNotChecked,
    checksum_length_is_not_checked_by_ppp: ChecksumLengthIsNotChecked,
    repeated_tlv_is_accepted_by_others: RepeatedTlv,
    long_unique_id_is_accepted_by_others: LongUniqueId,
    ssl_is_opaque_to_others: SslIsOpaque,
    long_v2_header_is_accepted_by_others: LongV2Header,
    unspecified_transport_has_addresses_for_ppp: UnspecifiedTransportHasAddresses,
    half_unspecified_is_refused_by_proxy_header: HalfUnspecifiedIsRefused,
    text_must_be_utf8_for_proxy_header: TextMustBeUtf8,
    unspecified_has_tlvs_for_proxy_header: UnspecifiedHasTlvs,
    signed_port_is_accepted_by_others: SignedPort,
    zero_padded_port_is_accepted_by_proxy_header: ZeroPaddedPort,
    unknown_with_many_fields_is_not_finished_by_ppp: UnknownWithManyFields,
    unknown_must_be_utf8_for_ppp: UnknownMustBeUtf8,
    bare_lf_in_unknown_is_accepted_by_others: BareLfInUnknown,
    unknown_may_go_on_for_proxy_header: UnknownMayGoOn,
    any_separator_is_accepted_by_proxy_header: AnySeparator,
    long_v1_line_is_accepted_by_proxy_header: LongV1Line,
    space_for_cr_is_accepted_by_ppp: SpaceForCr,
}

/// The readers named read the example differently, and the difference explains it. Others read it as we do, or
/// differ for another known reason.
fn differs(difference: Difference) {
    let bytes = difference.example();
    let ours = ours(&bytes);
    for reader in Reader::ALL {
        let theirs = reader.read(&bytes);
        if difference.readers().contains(&reader) {
            assert_ne!(ours, theirs, "{reader:?} does not differ any more");
            assert!(
                difference.explains(&bytes, ours, theirs),
                "{reader:?}: {theirs:?}, ours: {ours:?}"
            );
        } else {
            assert!(
                ours == theirs || known(reader, &bytes, ours, theirs),
                "{reader:?}: {theirs:?}, ours: {ours:?}"
            );
        }
    }
}

/// True if a difference is on the list.
fn known(reader: Reader, bytes: &[u8], ours: Verdict, theirs: Verdict) -> bool {
    Difference::ALL.iter().any(|difference| {
        difference.readers().contains(&reader) && difference.explains(bytes, ours, theirs)
    })
}

proptest! {
    // The same cases in each run: a difference nobody has met yet should be found by somebody who
    // looks for it (with another seed), not by somebody whose change has nothing to do with it.
    #![proptest_config(ProptestConfig {
        cases: 16_384,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(6455),
        ..ProptestConfig::default()
    })]

    #[test]
    fn others_differ_only_as_known(bytes in header_like()) {
        let ours = ours(&bytes);
        for reader in Reader::ALL {
            let theirs = reader.read(&bytes);
            prop_assert!(
                ours == theirs || known(reader, &bytes, ours, theirs),
                "{:?} says {:?}, ours is {:?} ({:?}), for {}",
                reader, theirs, ours, parse(&bytes), bytes.escape_ascii()
            );
        }
    }

    /// Undamaged headers are the same to all, without exception.
    #[test]
    fn others_agree_on_plain_headers(bytes in plain()) {
        let ours = ours(&bytes);
        prop_assert_ne!(ours, Verdict::NotAccepted);
        for reader in Reader::ALL {
            prop_assert_eq!(reader.read(&bytes), ours);
        }
    }
}

#[test]
fn others_take_the_health_check_of_nlb_as_local_too() {
    let bytes = nlb_health_check();
    for reader in Reader::ALL {
        assert_eq!(reader.read(&bytes), ours(&bytes));
    }
}

fn ours(bytes: &[u8]) -> Verdict {
    match parse(bytes) {
        Ok(Some((Found::Header(header), used))) => {
            let addresses = match header.addresses {
                Addresses::Inet { source, destination } => Some((source, destination)),
                Addresses::Local | Addresses::Unknown => None,
            };
            Verdict::Accepted { addresses, used }
        }
        _ => Verdict::NotAccepted,
    }
}

fn ppp(bytes: &[u8]) -> Verdict {
    use ppp::{HeaderResult, v1, v2};
    let accepted = |addresses: Option<(SocketAddr, SocketAddr)>, used| Verdict::Accepted {
        addresses: addresses
            .map(|(source, destination)| (canonical(source), canonical(destination))),
        used,
    };
    match HeaderResult::parse(bytes) {
        HeaderResult::V1(Ok(header)) => {
            let addresses = match header.addresses {
                v1::Addresses::Tcp4(ip) => Some((
                    (ip.source_address, ip.source_port).into(),
                    (ip.destination_address, ip.destination_port).into(),
                )),
                v1::Addresses::Tcp6(ip) => Some((
                    (ip.source_address, ip.source_port).into(),
                    (ip.destination_address, ip.destination_port).into(),
                )),
                v1::Addresses::Unknown => None,
            };
            accepted(addresses, header.header.len())
        }
        HeaderResult::V2(Ok(header)) => {
            if header.command == v2::Command::Local {
                return accepted(None, header.len());
            }
            if header.tlvs().any(|tlv| tlv.is_err()) {
                return Verdict::NotAccepted;
            }
            let addresses = match header.addresses {
                v2::Addresses::IPv4(ip) => Some((
                    (ip.source_address, ip.source_port).into(),
                    (ip.destination_address, ip.destination_port).into(),
                )),
                v2::Addresses::IPv6(ip) => Some((
                    (ip.source_address, ip.source_port).into(),
                    (ip.destination_address, ip.destination_port).into(),
                )),
                v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
            };
            accepted(addresses, header.len())
        }
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Verdict::NotAccepted,
    }
}

fn proxy_header(bytes: &[u8]) -> Verdict {
    let Ok((header, used)) =
        ::proxy_header::ProxyHeader::parse(bytes, ::proxy_header::ParseConfig::default())
    else {
        return Verdict::NotAccepted;
    };
    let local = bytes.starts_with(SIGNATURE) && bytes[12] == 0x20;
    if !local && header.tlvs().any(|tlv| tlv.is_err()) {
        return Verdict::NotAccepted;
    }
    let addresses = header
        .proxied_address()
        .map(|proxied| (canonical(proxied.source), canonical(proxied.destination)));
    Verdict::Accepted { addresses, used }
}

/// We give IPv4-mapped addresses as IPv4; that is no difference between readers.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Headers, most of them damaged a little.
pub(crate) fn header_like() -> impl Strategy<Value = Vec<u8>> {
    let header = prop_oneof![4 => plain(), 2 => line(), 3 => binary()];
    (header, prop::collection::vec(damage(), 0..3)).prop_map(|(mut bytes, damages)| {
        for (at, damage) in damages {
            damage.apply(&mut bytes, at);
        }
        bytes
    })
}

/// Headers that every reader should accept.
fn plain() -> impl Strategy<Value = Vec<u8>> {
    let pair = prop_oneof![
        any::<([u8; 4], u16, [u8; 4], u16)>()
            .prop_map(|(a, b, c, d)| (SocketAddr::from((a, b)), SocketAddr::from((c, d)))),
        any::<([u8; 16], u16, [u8; 16], u16)>()
            .prop_map(|(a, b, c, d)| (SocketAddr::from((a, b)), SocketAddr::from((c, d)))),
    ];
    let tlvs = prop::collection::vec((select(vec![0x04, 0x30, 0xE1]), "[a-z]{0,20}"), 0..3);
    (pair, any::<bool>(), tlvs, any::<bool>(), content()).prop_map(
        |((source, destination), text, tlvs, checksum, content)| {
            let header = if text {
                encode::v1(source, destination).into_bytes()
            } else {
                let tlvs: Vec<_> =
                    tlvs.iter().map(|(kind, value)| (*kind, value.as_bytes())).collect();
                encode::v2(source, destination, &tlvs, checksum)
            };
            [&header[..], &content].concat()
        },
    )
}

/// Lines of likely and unlikely words.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let protocol = select(vec!["TCP4", "TCP6", "UNKNOWN", "UNKNOWNS", "TCP5", "tcp4", ""]);
    let address = select(vec![
        "192.0.2.1",
        "2001:db8::1",
        "::ffff:192.0.2.1",
        "192.0.2.01",
        "192.0.2",
        "192.0.2.1.1",
        "fe80::1%1",
        "::",
        "",
    ]);
    let port = select(vec!["0", "80", "65535", "65536", "080", "00", "+80", "-80", "", "8\n0"]);
    let end = select(vec!["\r\n", "\r\n", "\r\n", "\n", "\r", " \n", " \r\n", " x y\r\n", ""]);
    let usual = |usual: &'static str, other| prop_oneof![3 => Just(usual), 1 => other];
    (
        protocol,
        usual("192.0.2.1", address.clone()),
        usual("192.0.2.2", address),
        usual("80", port.clone()),
        usual("443", port),
        end,
        content(),
    )
        .prop_map(
            |(protocol, source, destination, source_port, destination_port, end, content)| {
                let line = format!(
                    "PROXY {protocol} {source} {destination} {source_port} {destination_port}{end}"
                );
                [line.as_bytes(), &content].concat()
            },
        )
}

/// Binary headers of likely and unlikely parts.
fn binary() -> impl Strategy<Value = Vec<u8>> {
    let command = select(vec![0x20, 0x21, 0x21, 0x21, 0x22, 0x11]);
    let family = select(vec![
        0x11, 0x11, 0x21, 0x21, 0x12, 0x22, 0x31, 0x32, 0x00, 0x01, 0x10, 0x30, 0x41, 0x13,
    ]);
    let block = select(vec![
        INET.to_vec(),
        INET.to_vec(),
        INET6.to_vec(),
        INET6.to_vec(),
        vec![0; 216],
        vec![],
    ]);
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..12),
        Just(vec![0; 4]),
        Just(vec![1; 129]),
        Just(b"\x01\0\0\0\0\x21\x00\x03TLS".to_vec()),
    ];
    let kind = select(vec![0x01, 0x02, 0x03, 0x04, 0x05, 0x20, 0x21, 0x30, 0xE0, 0xEA, 0xEE]);
    let tlvs = prop::collection::vec((kind, value), 0..4);
    let length = prop_oneof![9 => Just(0_i32), 1 => -3..4_i32, 1 => Just(5000)];
    (command, family, block, tlvs, length, any::<bool>(), content()).prop_map(
        |(command, family, block, tlvs, off_by, sealed, content)| {
            let tlvs: Vec<_> = tlvs.iter().flat_map(|(kind, value)| tlv(*kind, value)).collect();
            if sealed {
                let header = v2(command, family, &[&block, &tlv(0x03, &[0; 4]), &tlvs]);
                return [seal(header, 16 + block.len() + 3), content].concat();
            }
            let all = [block, tlvs].concat();
            let length =
                u16::try_from(i32::try_from(all.len()).unwrap() + off_by).unwrap_or_default();
            let filler = vec![0; usize::try_from(off_by).unwrap_or_default()];
            [announcing(command, family, length, &all), filler, content].concat()
        },
    )
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    select(vec![b"".to_vec(), b"GET / HTTP/1.1\r\n\r\n".to_vec(), b"PROXY UNKNOWN\r\n".to_vec()])
}

#[derive(Debug, Clone)]
enum Damage {
    Set(u8),
    Flip(u8),
    Insert(u8),
    Remove,
    Repeat,
    Cut,
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>, at: Index) {
        if bytes.is_empty() {
            return;
        }
        let at = at.index(bytes.len());
        match *self {
            Self::Set(byte) => bytes[at] = byte,
            Self::Flip(bit) => bytes[at] ^= 1 << bit,
            Self::Insert(byte) => bytes.insert(at, byte),
            Self::Remove => drop(bytes.remove(at)),
            Self::Repeat => bytes.insert(at, bytes[at]),
            Self::Cut => bytes.truncate(at),
        }
    }
}

/// A place, mostly near the beginning where the structure is, and what happens there.
fn damage() -> impl Strategy<Value = (Index, Damage)> {
    let telling = select(b" \r\n\t+-0%:./1x\0\xFF".to_vec());
    let damage = prop_oneof![
        telling.clone().prop_map(Damage::Set),
        telling.prop_map(Damage::Insert),
        any::<u8>().prop_map(Damage::Set),
        (0..8_u8).prop_map(Damage::Flip),
        Just(Damage::Remove),
        Just(Damage::Repeat),
        Just(Damage::Cut),
    ];
    (any::<Index>(), damage)
}
