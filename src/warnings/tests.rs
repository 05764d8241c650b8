//! When a cause is told, and in which words.

#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;

const REFUSED: Cause = Cause::Upstream { why: Reason::Unreachable, status: 502 };
const SLOW: Cause = Cause::Upstream { why: Reason::Timeout, status: 504 };

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn warning(text: &str) -> Line {
    Line::Warning(text.to_owned())
}

#[test]
fn cause_is_told_at_once_and_then_every_ten_seconds_with_how_many_came() {
    let start = Instant::now();
    let mut causes = Causes::default();
    let text = "no connection to 10.0.0.7:80: Connection refused";
    let first = causes.count(REFUSED, &text, start);
    assert_eq!(first, Some(warning(&format!("a request got 502: {text}"))));
    for _ in 0..131 {
        assert_eq!(causes.count(REFUSED, &text, start + seconds(9)), None);
        assert_eq!(causes.tick(false, start + seconds(9)), []);
    }
    let tenth = causes.count(REFUSED, &text, start + seconds(10));
    assert_eq!(tenth, Some(warning(&format!("132 requests in 10 s got 502: {text}"))));
    assert_eq!(causes.count(REFUSED, &text, start + seconds(11)), None);
}

#[test]
fn last_ones_are_told_though_no_more_come() {
    let start = Instant::now();
    let mut causes = Causes::default();
    assert!(causes.count(SLOW, &"one", start).is_some());
    assert_eq!(causes.count(SLOW, &"two", start + seconds(1)), None);
    assert_eq!(causes.count(SLOW, &"three", start + seconds(2)), None);
    assert_eq!(causes.tick(false, start + seconds(9)), []);
    let rest = causes.tick(false, start + seconds(10));
    assert_eq!(rest, [warning("2 requests in 10 s got 504: two")]);
    assert_eq!(causes.tick(false, start + seconds(30)), []);
    let after = causes.count(SLOW, &"four", start + seconds(7200));
    assert_eq!(after, Some(warning("a request got 504: four")), "not one in two hours");
}

#[test]
fn causes_do_not_silence_each_other() {
    let start = Instant::now();
    let mut causes = Causes::default();
    assert!(causes.count(REFUSED, &"x", start).is_some());
    assert!(causes.count(SLOW, &"x", start).is_some());
    let header = causes.count(Cause::ProxyHeader, &"none, from 10.0.0.5:1", start);
    let words = "a connection refused because of the PROXY header: none, from 10.0.0.5:1";
    assert_eq!(header, Some(warning(words)));
    assert_eq!(causes.0.len(), 3);
}

#[test]
fn end_is_told_once_requests_are_answered_and_none_fails() {
    let start = Instant::now();
    let mut causes = Causes::default();
    assert!(!causes.is_open());
    assert!(causes.count(REFUSED, &"x", start).is_some());
    assert!(causes.count(Cause::ProxyHeader, &"x", start).is_some());
    assert_eq!(causes.tick(false, start + seconds(60)), [], "nobody has asked since");
    assert_eq!(causes.tick(true, start + seconds(9)), [], "too early to tell");
    // One that fails beside others that are answered: it is not over.
    assert!(causes.count(SLOW, &"x", start + seconds(9)).is_some());
    assert_eq!(causes.tick(true, start + seconds(18)), []);
    let over = Line::Over(String::from("the upstream answers again: no request failed for 10 s"));
    assert_eq!(causes.tick(true, start + seconds(19)), [over]);
    assert_eq!(causes.tick(true, start + seconds(20)), [], "once");
}

#[test]
fn answers_count_only_behind_the_last_failure() {
    let warnings = Warnings::default();
    let now = Instant::now();
    warnings.proxy_header_refused(&"PROXY header required", "10.0.0.5:1".parse().unwrap(), now);
    warnings.upstream_answered();
    assert!(
        !warnings.0.has_answered.load(Ordering::Relaxed),
        "nothing is written where all is well"
    );
    warnings.upstream_failed(Reason::Unreachable, 502, &"x", now);
    warnings.upstream_answered();
    assert!(warnings.0.has_answered.load(Ordering::Relaxed));
    warnings.upstream_failed(Reason::Unreachable, 502, &"x", now);
    assert!(!warnings.0.has_answered.load(Ordering::Relaxed));
    warnings.proxy_header_refused(&"PROXY header required", "10.0.0.5:1".parse().unwrap(), now);
    assert_eq!(warnings.0.causes().0.len(), 2);
}
