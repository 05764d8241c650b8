//! What holds for every input.

use std::net::{IpAddr, SocketAddr};

use elbows::proxy_protocol::{Addresses, Found, MAX_V2_HEADER, encode, parse};
use proptest::prelude::*;

use super::differential::header_like;
use super::whole;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Each prefix waits or says what the whole says. So the answer cannot depend on how the bytes were split, and an
    /// answer once given stays.
    #[test]
    fn any_split_gives_the_same_answer(bytes in input()) {
        let answer = parse(&bytes);
        let mut answered = false;
        for length in 0..bytes.len() {
            match parse(&bytes[..length]) {
                Ok(None) => prop_assert!(!answered),
                early => {
                    answered = true;
                    prop_assert_eq!(&early, &answer);
                }
            }
        }
        prop_assert!(!answered || answer != Ok(None));
    }

    #[test]
    fn content_behind_a_header_is_never_consumed(bytes in input(), content in prop::collection::vec(any::<u8>(), 1..64)) {
        if let Ok(Some((Found::Header(header), used))) = parse(&bytes) {
            prop_assert!(used <= bytes.len());
            let glued = [&bytes[..used], &content].concat();
            prop_assert_eq!(parse(&glued), Ok(Some((Found::Header(header), used))));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_absent_consumes_nothing(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(Some((Found::Absent, used))) = parse(&bytes) {
            prop_assert_eq!(used, 0);
        }
    }

    /// The length of a header is bounded, so what has to be held while waiting is.
    #[test]
    fn a_full_buffer_always_gets_an_answer(mut bytes in input(), filler in any::<u8>()) {
        bytes.resize(MAX_V2_HEADER.max(bytes.len()), filler);
        prop_assert_ne!(parse(&bytes), Ok(None));
    }

    #[test]
    fn v1_comes_back_as_it_was_written(source in address(), destination in address()) {
        let header = whole(encode::v1(source, destination).as_bytes());
        prop_assert_eq!(header.addresses, canonical(source, destination));
    }

    #[test]
    fn v2_comes_back_as_it_was_written(
        source in address(),
        destination in address(),
        authority in prop::option::of("[a-z.]{0,60}"),
        unique_id in prop::option::of(prop::collection::vec(any::<u8>(), 0..=128)),
        link_id in prop::option::of(any::<u32>()),
        padding in 0..100_usize,
        checksum in any::<bool>(),
    ) {
        let link = link_id.map(|id| [&[1][..], &id.to_le_bytes()].concat());
        let padding = vec![0; padding];
        let mut tlvs: Vec<(u8, &[u8])> = vec![(0x04, &padding)];
        tlvs.extend(authority.as_ref().map(|text| (0x02, text.as_bytes())));
        tlvs.extend(unique_id.as_ref().map(|id| (0x05, id.as_slice())));
        tlvs.extend(link.as_ref().map(|id| (0xEE, id.as_slice())));
        let header = whole(&encode::v2(source, destination, &tlvs, checksum));
        prop_assert_eq!(header.addresses, canonical(source, destination));
        prop_assert_eq!(header.tlvs.authority(), authority.as_deref());
        prop_assert_eq!(header.tlvs.unique_id(), unique_id.as_deref());
        prop_assert_eq!(header.tlvs.azure_link_id(), link_id);
        prop_assert_eq!(header.tlvs.is_empty(), authority.is_none() && unique_id.is_none() && link_id.is_none());
    }
}

/// Headers, damaged headers, and anything at all.
fn input() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => header_like(), 1 => prop::collection::vec(any::<u8>(), 0..64)]
}

/// IPv4, IPv6 and IPv4-mapped.
fn address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
        any::<[u8; 4]>()
            .prop_map(|octets| IpAddr::from(std::net::Ipv4Addr::from(octets).to_ipv6_mapped())),
    ];
    (ip, any::<u16>()).prop_map(SocketAddr::from)
}

fn canonical(source: SocketAddr, destination: SocketAddr) -> Addresses {
    let canonical =
        |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    Addresses::Inet { source: canonical(source), destination: canonical(destination) }
}
