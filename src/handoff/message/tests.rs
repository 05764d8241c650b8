//! Messages survive the way to bytes and back, those of later versions too.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::encoding::CRITICAL;
use crate::encoding::change::Change;

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(Into::into),
        any::<([u8; 16], u16)>().prop_map(Into::into)
    ]
}

fn places() -> impl Strategy<Value = Places> {
    let place = (any::<String>(), prop::option::of(address()), prop::option::of(any::<String>()))
        .prop_map(|(setting, address, path)| Place { setting, address, path });
    prop::collection::vec(place, 0..4).prop_map(Places)
}

fn hello() -> impl Strategy<Value = Hello> {
    (any::<[u16; 5]>(), any::<String>(), any::<bool>(), any::<u64>()).prop_map(
        |([oldest, newest, major, minor, patch], build, downgrade, free_descriptors)| Hello {
            oldest,
            newest,
            build,
            release: Release { major, minor, patch },
            downgrade,
            free_descriptors,
        },
    )
}

fn offer() -> impl Strategy<Value = Offer> {
    (any::<u16>(), any::<String>(), any::<[u64; 2]>(), places(), any::<Option<u64>>()).prop_map(
        |(protocol, build, [tunnels, start], places, drains_in)| Offer {
            protocol,
            build,
            tunnels,
            start,
            places,
            drains_in,
        },
    )
}

fn batch() -> impl Strategy<Value = Batch> {
    let cookies = any::<[u64; 2]>().prop_map(|[client, upstream]| Cookies { client, upstream });
    (any::<u32>(), any::<u64>(), prop::collection::vec(cookies, 0..MOST_IN_BATCH + 1))
        .prop_map(|(number, frozen_at, cookies)| Batch { number, frozen_at, cookies })
}

fn message() -> impl Strategy<Value = Message> {
    let taken = (any::<u32>(), prop::collection::vec(any::<u16>(), 0..9))
        .prop_map(|(number, refused)| Taken { number, refused });
    let counted =
        (any::<String>(), any::<u64>()).prop_map(|(name, number)| Counted { name, number });
    prop_oneof![
        hello().prop_map(Message::Hello),
        offer().prop_map(Message::Offer),
        select(&RefuseWhy::ALL).prop_map(Message::Refuse),
        Just(Message::Prepared),
        batch().prop_map(Message::Batch),
        taken.prop_map(Message::Taken),
        any::<u32>().prop_map(|number| Message::Yours { number }),
        places().prop_map(Message::Listeners),
        prop::collection::vec(counted, 0..9).prop_map(Message::Counters),
        Just(Message::Limits),
        Just(Message::Listening),
        Just(Message::Bye),
        select(&Why::ALL).prop_map(Message::Abort),
    ]
}

fn changed(message: &Message, change: Change) -> Option<Vec<u8>> {
    let mut to = Writer::new().changed(change);
    message.write(&mut to);
    (to.change == Change::None).then(|| to.into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn each_message_survives(message in message()) {
        prop_assert_eq!(Message::from_bytes(&message.to_bytes()), Ok(message));
    }

    /// A later version says more: what may be ignored is, and what may not is refused.
    #[test]
    fn fields_of_a_later_version_are_skipped_or_refused(message in message(), place in 0_usize..6) {
        if let Some(bytes) = changed(&message, Change::Add { place, tag: 0x63 }) {
            prop_assert_eq!(Message::from_bytes(&bytes), Ok(message.clone()));
        }
        if let Some(bytes) = changed(&message, Change::Add { place, tag: 0x63 | CRITICAL }) {
            let read = Message::from_bytes(&bytes);
            match message {
                // A reason is one, whatever a later version says of it.
                Message::Abort(_) => prop_assert_eq!(read, Ok(Message::Abort(Why::Other))),
                Message::Refuse(_) => prop_assert_eq!(read, Ok(Message::Refuse(RefuseWhy::Other))),
                _ => {
                    let is_refused = matches!(read, Err(RecordFault::UnknownField(_, 0x63)));
                    prop_assert!(is_refused, "{:?}", read);
                }
            }
        }
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u8..15) {
        let _ = Message::from_bytes(&[&[kind], &bytes[..]].concat());
    }

    #[test]
    fn rates_survive(rates in prop::collection::vec((any::<[u8; 4]>(), any::<u64>()), 0..40)) {
        let rates = rates.into_iter().map(|(ip, left)| {
            (std::net::IpAddr::from(ip).into(), Duration::from_nanos(left))
        });
        let rates = Rates(rates.collect());
        prop_assert_eq!(Rates::from_bytes(&rates.to_bytes()), rates);
    }
}

#[test]
fn reasons_of_a_later_version_are_reasons() {
    assert_eq!(Message::from_bytes(&[13, 200]), Ok(Message::Abort(Why::Other)));
    assert_eq!(Message::from_bytes(&[3, 200, 1, 2]), Ok(Message::Refuse(RefuseWhy::Other)));
}

/// The bytes that the first release with a handoff sends: later ones read them.
#[test]
fn messages_of_the_first_release_are_read() {
    let release = Release { major: 0, minor: 1, patch: 0 };
    let cases = [
        (
            "0100010000000200010002000000020001000300000006656c626f7773000400000008000200000002000100060000000800\
             00000000004e20",
            Message::Hello(Hello {
                oldest: 1,
                newest: 1,
                build: String::from("elbows"),
                release,
                downgrade: false,
                free_descriptors: 20_000,
            }),
        ),
        ("0303", Message::Refuse(RefuseWhy::Descriptors)),
        ("04", Message::Prepared),
        (
            "060001000000040000000700020000000600000002000b",
            Message::Taken(Taken { number: 7, refused: vec![11] }),
        ),
        ("0700000007", Message::Yours { number: 7 }),
        ("0a", Message::Limits),
        ("0b", Message::Listening),
        ("0c", Message::Bye),
        ("0d01", Message::Abort(Why::Silence)),
    ];
    for (hex, message) in cases {
        let written = message.to_bytes().iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        assert_eq!(written, hex, "{message:?}");
        assert_eq!(Message::from_bytes(&message.to_bytes()), Ok(message));
    }
}
