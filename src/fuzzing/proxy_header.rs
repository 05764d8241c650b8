//! Any bytes at the start of a connection: one answer, however they are split, and nothing used that is
//! not the header's.

use crate::proxy_protocol::{
    Addresses, Fault, Found, Header, MAX_V1_HEADER, MAX_V2_HEADER, Version, encode, parse,
};

const CRC32C: u8 = 3;
const FIXED: usize = 16;

/// The bytes are all that came.
pub fn proxy_header(bytes: &[u8]) {
    let answer = parse(bytes);
    any_split_gives_the_same(bytes, &answer);
    match &answer {
        Ok(None) => assert!(bytes.len() < MAX_V2_HEADER, "it waits for more than may come"),
        Ok(Some((Found::Absent, used))) => assert_eq!(*used, 0),
        Ok(Some((Found::Header(header), used))) => header_is_its_own(bytes, header, *used),
        Err(fault) => assert_eq!(Fault::ALL.get(fault.index()), Some(fault)),
    }
}

fn any_split_gives_the_same(bytes: &[u8], answer: &Result<Option<(Found, usize)>, Fault>) {
    // Every place of the first ones, where all fields are, and of the last; some between.
    let last = bytes.len().saturating_sub(40);
    let places = (0..bytes.len()).filter(|place| *place < 300 || *place >= last || place % 61 == 0);
    let mut is_answered = false;
    for place in places {
        match parse(&bytes[..place]) {
            Ok(None) => assert!(!is_answered, "it takes back its answer at {place}"),
            early => {
                is_answered = true;
                assert_eq!(&early, answer, "after {place} bytes it said something else");
            }
        }
    }
    assert!(!is_answered || *answer != Ok(None));
}

fn header_is_its_own(bytes: &[u8], header: &Header, used: usize) {
    assert!(used <= bytes.len());
    let longest = match header.version {
        Version::V1 => MAX_V1_HEADER,
        Version::V2 => MAX_V2_HEADER,
    };
    assert!(used <= longest, "{used}");
    let own = &bytes[..used];
    match header.version {
        Version::V1 => assert_eq!(own.iter().position(|byte| *byte == b'\n'), Some(used - 1)),
        Version::V2 => {
            assert_eq!(used, FIXED + usize::from(u16::from_be_bytes([own[14], own[15]])));
        }
    }
    assert_eq!(parse(&own[..used - 1]), Ok(None), "it did not need its last byte");
    // What follows is content, a second header too.
    let twice = [own, own].concat();
    assert_eq!(parse(&twice), Ok(Some((Found::Header(header.clone()), used))));

    let tlvs = &header.tlvs;
    assert!(tlvs.is_empty() || header.version == Version::V2);
    assert!(tlvs.unique_id().is_none_or(|id| id.len() <= 128));
    assert!(tlvs.alpn().is_none_or(|name| name.len() < used));
    assert!(tlvs.authority().is_none_or(|name| name.len() < used));
    assert!(tlvs.aws_vpc_endpoint_id().is_none_or(|id| id.bytes().all(|b| b.is_ascii_graphic())));
    let _ = (tlvs.azure_link_id(), tlvs.gcp_psc_connection_id(), tlvs.ssl());

    let Addresses::Inet { source, destination } = header.addresses else {
        return;
    };
    for ip in [source.ip(), destination.ip()] {
        assert_eq!(ip, ip.to_canonical(), "one client has two spellings");
    }
    let again = encode::v1(source, destination);
    assert_eq!(addresses(again.as_bytes()), header.addresses);
    assert_eq!(addresses(&encode::v2(source, destination, &[], true)), header.addresses);
    if header.version == Version::V2 {
        checksum_is_checked(own);
    }
}

fn addresses(bytes: &[u8]) -> Addresses {
    match parse(bytes) {
        Ok(Some((Found::Header(header), _))) => header.addresses,
        other => panic!("{other:?} for {}", bytes.escape_ascii()),
    }
}

/// Where there is a checksum, no bit of the addresses can be another.
fn checksum_is_checked(own: &[u8]) {
    let block = if own[13] >> 4 == 1 { 12 } else { 36 };
    let mut rest = &own[FIXED + block..];
    while let [kind, high, low, behind @ ..] = rest {
        if *kind == CRC32C {
            for at in FIXED..FIXED + block {
                let mut other = own.to_vec();
                other[at] ^= 1 << (at % 8);
                assert_eq!(parse(&other), Err(Fault::Crc32cMismatch), "byte {at}");
            }
            return;
        }
        rest = &behind[usize::from(u16::from_be_bytes([*high, *low]))..];
    }
}
