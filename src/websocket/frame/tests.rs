//! Heads are read as tungstenite reads them, and our own frames as it would write them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::HashSet;
use std::io::Cursor;

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::*;

const CLIENT: Masking = Masking::Required;
const UPSTREAM: Masking = Masking::Forbidden;

fn opcode_of(opcode: OpCode) -> Option<Opcode> {
    Some(match opcode {
        OpCode::Data(Data::Continue) => Opcode::Continuation,
        OpCode::Data(Data::Text) => Opcode::Text,
        OpCode::Data(Data::Binary) => Opcode::Binary,
        OpCode::Control(Control::Close) => Opcode::Close,
        OpCode::Control(Control::Ping) => Opcode::Ping,
        OpCode::Control(Control::Pong) => Opcode::Pong,
        OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => return None,
    })
}

/// Bytes that are often nearly a head.
fn head_bytes() -> impl Strategy<Value = Vec<u8>> {
    let second = prop_oneof![any::<u8>(), Just(126), Just(127), Just(0xfd), Just(0xfe), Just(0xff)];
    let length = prop_oneof![
        any::<[u8; 8]>(),
        (0..0x2_0000_u64).prop_map(u64::to_be_bytes),
        (0..0x200_u16).prop_map(|length| (u64::from(length) << 48).to_be_bytes()),
    ];
    let whole = (any::<u8>(), second, length, any::<[u8; 4]>());
    (whole, 0..=MAX_HEAD).prop_map(|((first, second, length, rest), cut)| {
        let mut bytes = vec![first, second];
        bytes.extend(length);
        bytes.extend(rest);
        bytes.truncate(cut);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Where we find a head, tungstenite finds the same one; where we find a fault, the rule is
    /// broken in what tungstenite reads (which lets it pass at this level).
    #[test]
    fn a_head_is_read_as_tungstenite_reads_it(bytes in head_bytes(), from_client: bool) {
        let masking = if from_client { CLIENT } else { UPSTREAM };
        let found = parse(&bytes, masking);

        // Padded, so that it reads what has not come yet, too.
        let mut padded = bytes.clone();
        padded.resize(MAX_HEAD, 0);
        let mut cursor = Cursor::new(&padded);
        let Ok(Some((theirs, length))) = FrameHeader::parse(&mut cursor) else {
            // It refuses these itself.
            let reserved = Opcode::parse(padded[0] & 0xf).is_none();
            prop_assert!(bytes.is_empty() || reserved, "{bytes:?} {found:?}");
            let is_right = matches!(found, Ok(None) | Err(Fault::ReservedOpcode));
            prop_assert!(is_right, "{found:?}");
            return Ok(());
        };
        let used = usize::try_from(cursor.position()).unwrap();
        let is_control = matches!(theirs.opcode, OpCode::Control(_));
        let short = padded[1] & 0x7f;
        match found {
            Ok(None) => prop_assert!(bytes.len() < used),
            Ok(Some((head, ours_used))) => {
                prop_assert_eq!(ours_used, used);
                prop_assert_eq!(head.fin, theirs.is_final);
                prop_assert_eq!(Some(head.opcode), opcode_of(theirs.opcode));
                prop_assert_eq!(head.mask, theirs.mask);
                prop_assert_eq!(head.length, length);
                prop_assert_eq!(head.mask.is_some(), from_client);
                prop_assert!(head.length < 1 << 63);
                prop_assert!(!is_control || (head.fin && head.length <= 125));
                // Its encoder writes the shortest length: no other head gets through.
                let mut again = Vec::new();
                theirs.format(length, &mut again).unwrap();
                prop_assert_eq!(&again, &bytes[..used]);
            }
            Err(Fault::ReservedOpcode) => prop_assert_eq!(opcode_of(theirs.opcode), None),
            Err(Fault::FragmentedControl) => prop_assert!(is_control && !theirs.is_final),
            Err(Fault::ControlTooLong) => prop_assert!(is_control && short > 125),
            Err(Fault::MaskMissing) => prop_assert!(from_client && theirs.mask.is_none()),
            Err(Fault::MaskUnexpected) => prop_assert!(!from_client && theirs.mask.is_some()),
            Err(Fault::LengthTopBit) => prop_assert!(short == 127 && length >= 1 << 63),
            Err(Fault::LengthNotMinimal) => prop_assert!(
                short == 126 && length < 126 || short == 127 && length < 0x1_0000
            ),
            Err(fault) => prop_assert!(false, "{fault} is not a rule of heads"),
        }
    }

    /// The answer for more bytes never takes back the answer for fewer.
    #[test]
    fn an_answer_stays_with_more_bytes(bytes in head_bytes(), from_client: bool) {
        let masking = if from_client { CLIENT } else { UPSTREAM };
        let last = parse(&bytes, masking);
        for cut in 0..bytes.len() {
            let answer = parse(&bytes[..cut], masking);
            prop_assert!(answer == last || answer == Ok(None), "{answer:?}, then {last:?}");
        }
        prop_assert!(bytes.len() < MAX_HEAD || last != Ok(None));
    }

    #[test]
    fn what_is_encoded_is_parsed_back(payload: [u8; 8], code: u16, mask: Option<[u8; 4]>) {
        let masking = if mask.is_some() { CLIENT } else { UPSTREAM };
        let ping = ControlFrame::ping(payload, mask);
        let (head, used) = parse(ping.as_bytes(), masking).unwrap().unwrap();
        prop_assert_eq!(head, Head { fin: true, opcode: Opcode::Ping, mask, length: 8 });
        let sent: [u8; 8] = ping.as_bytes()[used..].try_into().unwrap();
        prop_assert_eq!(apply_mask(sent, head.mask), payload);

        let close = ControlFrame::close(code, mask);
        let (head, used) = parse(close.as_bytes(), masking).unwrap().unwrap();
        prop_assert_eq!(head, Head { fin: true, opcode: Opcode::Close, mask, length: 2 });
        let sent: [u8; 2] = close.as_bytes()[used..].try_into().unwrap();
        prop_assert_eq!(u16::from_be_bytes(apply_mask(sent, head.mask)), code);
    }
}

/// The examples of RFC 6455, section 5.7, as far as they are heads.
#[test]
fn the_examples_of_the_rfc_are_read() {
    let head = |fin, opcode, mask, length| Head { fin, opcode, mask, length };
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let examples: &[(&[u8], Masking, Head, usize)] = &[
        (b"\x81\x05Hello", UPSTREAM, head(true, Opcode::Text, None, 5), 2),
        (
            b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
            CLIENT,
            head(true, Opcode::Text, Some(key), 5),
            6,
        ),
        (b"\x01\x03Hel", UPSTREAM, head(false, Opcode::Text, None, 3), 2),
        (b"\x80\x02lo", UPSTREAM, head(true, Opcode::Continuation, None, 2), 2),
        (b"\x89\x05Hello", UPSTREAM, head(true, Opcode::Ping, None, 5), 2),
        (b"\x82\x7e\x01\x00", UPSTREAM, head(true, Opcode::Binary, None, 256), 4),
        (b"\x82\x7f\0\0\0\0\0\x01\0\0", UPSTREAM, head(true, Opcode::Binary, None, 65536), 10),
    ];
    for (bytes, masking, head, used) in examples {
        assert_eq!(parse(bytes, *masking), Ok(Some((*head, *used))), "{bytes:x?}");
    }
}

#[test]
fn each_rule_has_its_fault() {
    let cases: &[(&[u8], Masking, Fault)] = &[
        (b"\x83", UPSTREAM, Fault::ReservedOpcode),
        (b"\x8b", UPSTREAM, Fault::ReservedOpcode),
        (b"\x09", UPSTREAM, Fault::FragmentedControl),
        (b"\x8a\x7e", UPSTREAM, Fault::ControlTooLong),
        (b"\x88\xff", CLIENT, Fault::ControlTooLong),
        (b"\x81\x00", CLIENT, Fault::MaskMissing),
        (b"\x81\x80", UPSTREAM, Fault::MaskUnexpected),
        (b"\x82\x7f\x80", UPSTREAM, Fault::LengthTopBit),
        (b"\x82\x7e\x00\x7d", UPSTREAM, Fault::LengthNotMinimal),
        (b"\x82\xff\0\0\0\0\0\0\xff\xff", CLIENT, Fault::LengthNotMinimal),
    ];
    for (bytes, masking, fault) in cases {
        assert_eq!(parse(bytes, *masking), Err(*fault), "{bytes:x?}");
        let before = &bytes[..bytes.len() - 1];
        assert_eq!(parse(before, *masking), Ok(None), "{bytes:x?} said it too early");
    }
}

#[test]
fn rsv_bits_are_the_extensions_own() {
    let plain = parse(b"\x81\x05", UPSTREAM);
    assert_eq!(parse(b"\xf1\x05", UPSTREAM), plain);
    assert!(plain.unwrap().is_some());
}

#[test]
fn faults_have_a_place_and_a_name_each() {
    for (place, fault) in Fault::ALL.iter().enumerate() {
        assert_eq!(fault.index(), place);
    }
    let names: HashSet<_> = Fault::ALL.iter().map(|fault| fault.as_str()).collect();
    assert_eq!(names.len(), Fault::COUNT);
}

#[test]
fn masking_follows_from_the_sender() {
    assert_eq!(Masking::of(Peer::Client), Masking::Required);
    assert_eq!(Masking::of(Peer::Upstream), Masking::Forbidden);
}
