//! Which addresses there are, in which order, and what signs of health do to them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
#![allow(clippy::unchecked_time_subtraction)] // Of constants.

use proptest::prelude::*;

use super::*;
use crate::upstream::health::{AVOIDED, InARow};

const HOLD: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(1);

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

fn found(ports: &[u16]) -> Vec<Found> {
    ports.iter().map(|port| Found::plain(address(*port))).collect()
}

fn ports(members: &Members, now: Instant) -> Vec<u16> {
    members.list(now).iter().map(|member| member.found.address.port()).collect()
}

fn members(hold: Duration, answer: &[u16], now: Instant) -> Members {
    let mut members = Members::new(1, hold, HealthRules::default());
    members.answered(0, &found(answer), now);
    members
}

#[test]
fn address_that_is_missing_is_held_from_the_first_answer_without_it() {
    let start = Instant::now();
    let mut members = members(HOLD, &[1, 2], start);
    // Nobody asked for an hour.
    let now = start + Duration::from_secs(3_600);
    members.answered(0, &found(&[2, 3]), now);
    assert_eq!(ports(&members, now), [2, 3, 1]);
    assert_eq!(members.list(now).iter().filter(|member| member.is_held).count(), 1);
    members.answered(0, &found(&[2, 3]), now + HOLD - MOMENT);
    assert_eq!(ports(&members, now), [2, 3, 1]);
    assert!(members.is_still(now + HOLD - MOMENT));
    assert!(!members.expire(now + HOLD - MOMENT));
    assert!(!members.is_still(now + HOLD));
    assert!(members.expire(now + HOLD), "without a further answer, too");
    assert_eq!(ports(&members, now), [2, 3]);
    assert!(members.is_still(now + 100 * HOLD));
}

#[test]
fn address_that_is_answered_again_is_not_held_any_more() {
    let now = Instant::now();
    let mut members = members(HOLD, &[1, 2], now);
    members.answered(0, &found(&[2]), now);
    members.answered(0, &found(&[1]), now + HOLD / 2);
    members.answered(0, &found(&[2]), now + HOLD);
    assert_eq!(ports(&members, now), [2, 1], "its time begins anew");
}

#[test]
fn without_a_hold_the_last_answer_is_what_there_is() {
    let now = Instant::now();
    let mut members = members(Duration::ZERO, &[1, 2], now);
    members.answered(0, &found(&[3, 2]), now);
    assert_eq!(ports(&members, now), [3, 2]);
}

#[test]
fn one_that_is_held_and_fails_goes_at_once() {
    let now = Instant::now();
    let mut members = members(HOLD, &[1, 2], now);
    members.answered(0, &found(&[2]), now);
    assert!(members.failed(address(1), now));
    assert_eq!(ports(&members, now), [2]);
    members.failed(address(2), now);
    members.answered(0, &found(&[3]), now);
    assert_eq!(ports(&members, now), [3], "also where it failed before it was missing");
}

/// Fault 5: a dead first address cost every connection 2.5 to 3 s.
#[test]
fn address_that_failed_is_tried_last_and_again_after_a_while() {
    let now = Instant::now();
    let mut members = members(HOLD, &[1, 2, 3], now);
    assert_eq!(ports(&members, now), [1, 2, 3], "the answer's order, where none has failed");
    assert!(members.failed(address(1), now));
    assert!(members.failed(address(2), now));
    assert!(!members.failed(address(2), now), "that is known");
    assert_eq!(ports(&members, now), [3, 1, 2]);
    assert!(members.is_still(now + (AVOIDED - MOMENT)));
    assert_eq!(members.take_retry(now + (AVOIDED - MOMENT), Some), None);

    let later = now + AVOIDED;
    assert!(!members.is_still(later));
    assert_eq!(members.take_retry(later, Some), Some(address(1)), "one connection begins with it");
    assert_eq!(members.take_retry(later, Some), Some(address(2)), "and one with the other");
    assert_eq!(members.take_retry(later, Some), None, "and nobody else");
    assert!(members.reached(address(1), later));
    assert!(!members.reached(address(1), later));
    assert_eq!(ports(&members, now), [1, 3, 2]);
    members.reached(address(2), later);
    assert_eq!(ports(&members, now), [1, 2, 3]);
    assert!(!members.has_failures());
}

#[test]
fn failure_outlives_answers_without_the_address_and_then_is_forgotten() {
    let now = Instant::now();
    let mut members = members(Duration::ZERO, &[1, 2], now);
    members.failed(address(1), now);
    members.answered(0, &found(&[2]), now);
    members.answered(0, &found(&[1, 2]), now);
    assert_eq!(ports(&members, now), [2, 1]);
    members.answered(0, &found(&[2]), now);
    members.expire(now + AVOIDED);
    assert!(!members.has_failures());
}

#[test]
fn failures_that_are_remembered_are_bounded() {
    let now = Instant::now();
    let mut members = members(HOLD, &[1, 2], now);
    for port in 1..=u16::try_from(MOST_UNKNOWN).unwrap() + 9 {
        members.failed(address(port), now + Duration::from_millis(port.into()));
    }
    assert_eq!(
        ports(&members, now),
        [1, 2],
        "what is known of those that are there is never forgotten"
    );
    assert_eq!(members.health.len(), MOST_UNKNOWN + 2);
}

#[test]
fn lower_priority_is_behind_and_in_front_of_those_that_failed() {
    let now = Instant::now();
    let mut members = Members::new(2, HOLD, HealthRules::default());
    let of = |priority, port| Found { address: address(port), priority, weight: 5 };
    members.answered(1, &[of(20, 1), of(10, 2), of(10, 3)], now);
    assert_eq!(ports(&members, now), [2, 3, 1]);
    members.failed(address(2), now);
    assert_eq!(ports(&members, now), [3, 1, 2]);
    members.failed(address(3), now);
    assert_eq!(ports(&members, now), [1, 2, 3]);
    members.answered(0, &found(&[1]), now);
    assert_eq!(ports(&members, now), [1, 2, 3], "each address is there once");
}

proptest! {
    /// Any answers in any order: all of the last one is there, once, and nothing longer than it is held.
    #[test]
    fn what_is_there_was_answered_lately(
        answers in prop::collection::vec((prop::collection::vec(1_u16..12, 1..9), 0_u64..40), 1..30),
    ) {
        let mut now = Instant::now();
        let mut members = Members::new(1, HOLD, HealthRules::default());
        let mut first_without = BTreeMap::new();
        for (answer, seconds) in answers {
            now += Duration::from_secs(seconds);
            members.expire(now);
            members.answered(0, &found(&answer), now);
            for port in 1..12 {
                if answer.contains(&port) {
                    first_without.insert(port, None);
                } else if let Some(since) = first_without.get_mut(&port) {
                    since.get_or_insert(now);
                }
            }
            let mut expected: Vec<_> = first_without
                .iter()
                .filter(|(_, since)| since.is_none_or(|since| now - since < HOLD))
                .map(|(port, _)| *port)
                .collect();
            expected.sort_unstable();
            // One that went and is answered again is new.
            first_without.retain(|_, since| since.is_none_or(|since| now - since < HOLD));
            let mut there = ports(&members, now);
            there.sort_unstable();
            prop_assert_eq!(there, expected);
            let held = members.list(now).iter().filter(|member| member.is_held).count();
            let answered: BTreeSet<_> = answer.iter().collect();
            prop_assert_eq!(held, members.list(now).len() - answered.len());
        }
    }
}

/// `SLOW_START` in these tests.
const SLOW: Duration = Duration::from_secs(20);

const CHECKED: HealthRules =
    HealthRules { checks: Some(InARow { rise: 2, fall: 3 }), slow_start: Duration::ZERO };

fn of(rules: HealthRules, answer: &[u16], now: Instant) -> Members {
    let mut members = Members::new(1, HOLD, rules);
    members.answered(0, &found(answer), now);
    members
}

fn states(members: &Members, now: Instant) -> Vec<(u16, &'static str)> {
    let of = |member: &Member| (member.found.address.port(), member.state.as_str());
    members.list(now).iter().map(of).collect()
}

fn fails() -> Result<(), String> {
    Err(String::from("no"))
}

#[test]
fn no_more_than_half_are_ejected_and_never_the_last() {
    let now = Instant::now();
    let rules = HealthRules::default();
    for (all, most) in [(1_u16, 0), (2, 1), (3, 1), (4, 2), (7, 3)] {
        let mut members = of(rules, &(1..=all).collect::<Vec<_>>(), now);
        let ejected = (1..=all).filter(|port| members.fell(address(*port), 5, now)).count();
        assert_eq!(ejected, most, "of {all}");
    }
    // Those that take no connection count, and are not bounded themselves.
    let mut members = of(rules, &[1, 2, 3, 4], now);
    assert!(members.failed(address(1), now) && members.failed(address(2), now));
    assert!(!members.fell(address(3), 5, now));
    assert!(members.failed(address(3), now) && members.failed(address(4), now));
    assert!(!members.fell(address(9), 5, now), "nobody knows it");
}

#[test]
fn those_that_are_ejected_are_tried_before_those_that_take_no_connection() {
    let now = Instant::now();
    let mut members = of(HealthRules::default(), &[1, 2, 3, 4], now);
    members.failed(address(1), now);
    members.fell(address(2), 5, now);
    assert_eq!(states(&members, now), [(3, "up"), (4, "up"), (2, "ejected"), (1, "failed")]);
    let changes = members.take_changes();
    let told: Vec<_> = changes.iter().map(|one| (one.address.port(), one.to, &*one.why)).collect();
    assert_eq!(
        told,
        [
            (1, EndpointState::Failed, "it took no connection"),
            (2, EndpointState::Ejected, "5 failures in a row; it is tried last for 5 s"),
        ]
    );
    let later = now + Duration::from_secs(5);
    assert!(!members.is_still(later));
    assert_eq!(members.take_retry(later, Some), Some(address(2)));
    assert_eq!(members.take_retry(later, Some), None);
    // It fails once more.
    members.fell(address(2), 6, later);
    assert_eq!(members.take_changes()[0].why, "6 failures in a row; it is tried last for 10 s");
    assert!(members.worked(address(2), later));
    assert_eq!(states(&members, now), [(2, "up"), (3, "up"), (4, "up"), (1, "failed")]);
}

#[test]
fn checks_and_refused_connections_take_endpoints_out_and_checks_alone_bring_them_back() {
    let now = Instant::now();
    let mut members = of(CHECKED, &[1, 2], now);
    assert!(members.is_changing(address(1)), "it was never checked");
    assert!(!members.checked(address(1), Ok(()), now));
    assert!(!members.is_changing(address(1)));
    assert!(members.checked(address(2), fails(), now), "the first one decides");
    assert_eq!(states(&members, now), [(1, "up"), (2, "down")]);
    assert!(members.failed(address(1), now));
    assert_eq!(states(&members, now), [(1, "down"), (2, "down")]);
    assert!(!members.reached(address(1), now));
    assert_eq!(members.take_retry(now + 100 * HOLD, Some), None, "checks learn whether it is back");
    assert!(!members.checked(address(1), Ok(()), now));
    assert!(members.checked(address(1), Ok(()), now));
    assert_eq!(states(&members, now), [(1, "up"), (2, "down")]);
    for _ in 0..2 {
        assert!(!members.checked(address(1), fails(), now));
    }
    assert!(members.checked(address(1), fails(), now));
    assert!(!members.checked(address(9), fails(), now), "it is gone");
    assert_eq!(members.take_changes().len(), 4);
}

#[test]
fn one_that_is_held_and_whose_checks_fail_goes_at_once() {
    let now = Instant::now();
    let mut members = of(CHECKED, &[1, 2], now);
    members.answered(0, &found(&[2]), now);
    members.checked(address(1), fails(), now);
    assert_eq!(states(&members, now), [(2, "up")]);
    members.answered(0, &found(&[1, 2]), now);
    assert_eq!(states(&members, now), [(2, "up"), (1, "down")], "that is remembered for a while");
    members.answered(0, &found(&[2]), now);
    members.answered(0, &found(&[1, 2]), now + HOLD);
    assert_eq!(states(&members, now + HOLD), [(1, "up"), (2, "up")]);
}

#[test]
fn endpoints_that_come_later_warm_up_and_those_of_the_first_answer_do_not() {
    let rules = HealthRules { slow_start: SLOW, ..HealthRules::default() };
    let mut now = Instant::now();
    let mut members = of(rules, &[1, 2], now);
    assert_eq!(states(&members, now), [(1, "up"), (2, "up")]);
    members.answered(0, &found(&[1, 2, 3]), now);
    assert_eq!(states(&members, now), [(1, "up"), (2, "up"), (3, "warming")]);
    let end = now + SLOW;
    let mut steps = Vec::new();
    while now < end {
        steps.push(members.list(now)[2].step);
        now += SLOW / 20;
        assert!(!members.is_still(now) || now - SLOW / 20 < now);
        members.expire(now);
    }
    assert_eq!(steps, [1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]);
    assert_eq!(states(&members, now), [(1, "up"), (2, "up"), (3, "up")]);
    assert!(
        members.is_still(now + 100 * SLOW) && members.health.is_empty(),
        "nothing is left of it"
    );
    // Back from a failure it warms up, too.
    members.failed(address(1), now);
    assert!(members.reached(address(1), now));
    assert_eq!(states(&members, now), [(1, "warming"), (2, "up"), (3, "up")]);
    // One that was held was never away.
    members.answered(0, &found(&[2]), now);
    members.answered(0, &found(&[2, 3]), now);
    assert_eq!(states(&members, now), [(2, "up"), (3, "up"), (1, "warming")]);
}

proptest! {
    /// Whatever signs come: each address is listed once, those that are out are behind, and as long as connections are taken
    /// half of all stay.
    #[test]
    fn any_signs_leave_an_order(
        signs in prop::collection::vec((1_u16..7, 0_u8..6, 0_u64..4_000), 1..200), has_checks: bool,
    ) {
        let checks = CHECKED.checks.filter(|_| has_checks);
        let rules = HealthRules { checks, slow_start: SLOW };
        let mut now = Instant::now();
        let mut members = of(rules, &[1, 2, 3, 4, 5, 6], now);
        for (port, sign, millis) in signs {
            now += Duration::from_millis(millis);
            let address = address(port);
            if !members.is_still(now) {
                members.expire(now);
                members.take_retry(now, Some);
            }
            let before = states(&members, now);
            let out_before = before.iter().filter(|(_, state)| *state != "up" && *state != "warming").count();
            match sign {
                0 => { members.fell(address, 5, now); }
                1 => { members.worked(address, now); }
                2 => { members.failed(address, now); }
                3 => { members.reached(address, now); }
                4 => { members.checked(address, fails(), now); }
                _ => { members.checked(address, Ok(()), now); }
            }
            let list = members.list(now);
            prop_assert!(list.is_sorted_by_key(Member::rank), "{list:?}");
            let mut ports: Vec<_> = list.iter().map(|member| member.found.address.port()).collect();
            ports.sort_unstable();
            prop_assert_eq!(ports, [1, 2, 3, 4, 5, 6]);
            let out = list.iter().filter(|member| member.state.is_out()).count();
            let is_bounded = sign != 0 || out <= out_before.max(3);
            prop_assert!(is_bounded, "{out} of 6 after {out_before}: {list:?}");
            prop_assert!(list.iter().all(|member| (1..=STEPS).contains(&member.step)));
            let changed = before != states(&members, now);
            prop_assert!(!changed || !members.take_changes().is_empty());
        }
    }
}
