//! Records of one version are read by another, and broken ones are refused with their fault.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::clock::Since;

/// As one version knows it.
#[derive(Clone, Debug, PartialEq)]
struct Plan {
    name: String,
    length: u32,
    steps: Vec<Step>,
    key: [u8; 3],
    id: u128,
}
encode_fields!(Plan {
    1 name,
    critical 2 length = 7,
    4 steps,
    5 key = *b"key",
    6 id = 0,
});

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Wait,
    Go { far: u64, note: Option<String> },
}
encode_variants!(Step { 1 Wait, 3 Go { critical 1 far, 2 note = None } });

/// As a later version knows it.
#[derive(Clone, Debug, PartialEq)]
struct LaterPlan {
    name: String,
    length: u32,
    note: String,
    steps: Vec<LaterStep>,
    key: [u8; 3],
    id: u128,
    seal: u8,
}
encode_fields!(LaterPlan {
    1 name,
    // One that is critical now is still the same field.
    2 length = 7,
    3 note,
    4 steps,
    5 key = *b"key",
    6 id = 0,
    critical 7 seal = 0,
});

#[derive(Clone, Debug, PartialEq)]
enum LaterStep {
    Wait { long: u8 },
    Stop,
    Go { far: u64, note: Option<String> },
}
encode_variants!(LaterStep {
    1 Wait { 1 long = 1 },
    2 Stop,
    3 Go { critical 1 far, 2 note = None },
});

fn bytes_of(value: &impl Encode) -> Vec<u8> {
    let mut to = Writer::new();
    value.write(&mut to);
    to.into_bytes()
}

fn read<T: Encode>(bytes: &[u8]) -> Result<T, RecordFault> {
    Reader::new(bytes).whole()
}

fn plan() -> Plan {
    let go = Step::Go { far: 1 << 40, note: Some("ß".to_owned()) };
    Plan {
        name: "plan".to_owned(),
        length: 9,
        steps: vec![Step::Wait, go],
        key: *b"abc",
        id: 1 << 100,
    }
}

fn later_plan() -> LaterPlan {
    let Plan { name, length, key, id, .. } = plan();
    let go = LaterStep::Go { far: 1 << 40, note: Some("ß".to_owned()) };
    let steps = vec![LaterStep::Wait { long: 1 }, go];
    LaterPlan { name, length, note: String::new(), steps, key, id, seal: 0 }
}

#[test]
fn versions_read_each_other() {
    assert_eq!(read(&bytes_of(&plan())), Ok(later_plan()));
    assert_eq!(read(&bytes_of(&later_plan())), Ok(plan()));
    let mut later = later_plan();
    later.note = "skipped".to_owned();
    later.steps[0] = LaterStep::Wait { long: 3 };
    assert_eq!(read(&bytes_of(&later)), Ok(plan()));
}

#[test]
fn what_may_not_be_ignored_is_named() {
    let sealed = LaterPlan { seal: 1, ..later_plan() };
    assert_eq!(read::<Plan>(&bytes_of(&sealed)), Err(RecordFault::UnknownField("Plan", 7)));
    let mut stopped = later_plan();
    stopped.steps.push(LaterStep::Stop);
    assert_eq!(read::<Plan>(&bytes_of(&stopped)), Err(RecordFault::UnknownVariant("Step", 2)));
}

#[test]
fn what_equals_its_default_is_not_written() {
    let empty = Plan { name: String::new(), length: 7, steps: Vec::new(), key: *b"key", id: 0 };
    assert_eq!(bytes_of(&empty), b"");
    assert_eq!(read(b""), Ok(empty));
    assert_eq!(read::<Step>(&[1]), Ok(Step::Wait));
    assert_eq!(read::<Step>(&[3]), Err(RecordFault::MissingField("Step::Go", 1)));
}

#[test]
fn the_form_is_as_it_is_told() {
    let short = Plan { name: "ab".to_owned(), length: 258, steps: vec![Step::Wait], ..plan() };
    let bytes = bytes_of(&short);
    let told = [
        &[0, 1, 0, 0, 0, 2, b'a', b'b'][..],
        &[0x80, 2, 0, 0, 0, 4, 0, 0, 1, 2],
        &[0, 4, 0, 0, 0, 5, 0, 0, 0, 1, 1],
        &[0, 5, 0, 0, 0, 3, b'a', b'b', b'c'],
        &[0, 6, 0, 0, 0, 16],
        &(1_u128 << 100).to_be_bytes(),
    ];
    assert_eq!(bytes, told.concat());
}

#[test]
fn fields_ascend_and_come_once() {
    let [one, two] = [[0, 1, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0]];
    let order = |number| Err(RecordFault::FieldOrder("Plan", number));
    assert_eq!(read::<Plan>(&[one, one].concat()), order(1));
    assert_eq!(read::<Plan>(&[[0, 9, 0, 0, 0, 0], [0, 8, 0, 0, 0, 0]].concat()), order(8));
    assert_eq!(read::<Plan>(&[0, 0, 0, 0, 0, 0]), order(0));
    // A number is four bytes.
    assert_eq!(read::<Plan>(&two), Err(RecordFault::Malformed));
    assert!(is_ascending(&[1, 2, 7]) && is_ascending(&[]));
    for numbers in [&[1, 1][..], &[2, 1], &[0], &[CRITICAL]] {
        assert!(!is_ascending(numbers), "{numbers:?}");
    }
}

#[test]
fn a_value_is_as_long_as_its_field() {
    for length in [3, 5] {
        let field = [&[0x80, 2, 0, 0, 0, length][..], &vec![0; length.into()]].concat();
        assert_eq!(read::<Plan>(&field), Err(RecordFault::Malformed), "{length}");
    }
}

#[test]
fn a_claimed_length_reserves_nothing() {
    // 4 GiB of text, of a list, and of an element of a list.
    for claim in [
        &[0, 1, 0xff, 0xff, 0xff, 0xff, b'a'][..],
        &[0, 4, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 1],
        &[0, 4, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 1],
    ] {
        assert_eq!(read::<Plan>(claim), Err(RecordFault::Malformed));
    }
}

/// Without a moment there are no ticks to count from: a tick is a number, and a moment cannot be known.
#[test]
fn moments_need_a_moment() {
    let elapsed = Duration::from_secs(5);
    let moment = Since::ago(Duration::from_secs(7), elapsed);
    let mut to = Writer::new().at(100, elapsed);
    assert_eq!((to.distance(103), to.distance(98)), (3, u32::MAX - 1));
    moment.write(&mut to);
    let bytes = to.into_bytes();
    assert_eq!(Reader::new(&bytes).whole::<Since>(), Err(RecordFault::Malformed));
    assert_eq!(Reader::new(&bytes).at(7, elapsed).whole::<Since>(), Ok(moment));
    assert_eq!(Reader::new(&bytes).at(7, elapsed).tick(3), 10);
}

proptest! {
    /// Bytes, cut at any place or changed at some, are a plan, or are refused; what is read is written as it was read,
    /// but for what is not known and what is a default.
    #[test]
    fn no_bytes_break_it(cut: prop::sample::Index, change: (prop::sample::Index, u8)) {
        let mut bytes = bytes_of(&later_plan());
        bytes.truncate(cut.index(bytes.len() + 1));
        if !bytes.is_empty() {
            let place = change.0.index(bytes.len());
            bytes[place] = change.1;
        }
        if let Ok(plan) = read::<Plan>(&bytes) {
            let again = bytes_of(&plan);
            prop_assert!(again.len() <= bytes.len());
            prop_assert_eq!(read(&again), Ok(plan));
        }
    }
}
