//! What is known of the upstream's addresses, rule by rule.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::unchecked_time_subtraction)] // Of constants.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc;
use std::time::Duration;

use super::answers::{FAILED, FRESH, PATIENCE};
use super::order::{AVOIDED, Order};
use super::*;
use crate::end::Reason;

/// Ports of 127.0.0.1.
fn ports(ports: &[u16]) -> Arc<[SocketAddr]> {
    ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect()
}

fn address(port: u16) -> SocketAddr {
    ports(&[port])[0]
}

fn no_such_name() -> Fault {
    super::fault("app", io::Error::other("no such name"))
}

/// The ports that are known, or nothing while they are asked for.
fn told(known: &Resolution) -> Option<Vec<u16>> {
    match known {
        Resolution::Addresses(addresses) => Some(addresses.iter().map(SocketAddr::port).collect()),
        Resolution::Pending => None,
        Resolution::Fault(fault) => panic!("{fault}"),
    }
}

fn fault(known: &Resolution) -> String {
    match known {
        Resolution::Fault(fault) => fault.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Answers about `app`, which was found at `start` at port 1.
fn answers(start: Instant) -> Answers {
    let mut answers = Answers::new(too_slow("app"));
    assert!(matches!(answers.known(start), (Resolution::Pending, true)));
    answers.answered(start, Ok(ports(&[1])));
    answers
}

#[test]
fn answer_is_used_for_five_seconds_and_not_longer() {
    let start = Instant::now();
    let mut answers = answers(start);
    let moment = Duration::from_millis(1);
    let (known, ask) = answers.known(start + (FRESH - moment));
    assert_eq!((told(&known), ask), (Some(vec![1]), false));
    let late = start + FRESH;
    let (known, ask) = answers.known(late);
    assert_eq!((told(&known), ask), (None, true));
    let (known, ask) = answers.known(late);
    assert_eq!((told(&known), ask), (None, false), "one question at a time");
    answers.answered(late, Ok(ports(&[2])));
    assert_eq!(told(&answers.known(late).0), Some(vec![2]));
}

/// Fault 4: a resolver outage turned into 502 for all after five seconds.
#[test]
fn last_good_answer_is_used_while_the_resolver_fails() {
    let start = Instant::now();
    let mut answers = answers(start);
    let mut now = start + FRESH;
    assert!(answers.known(now).1);
    answers.answered(now, Err(no_such_name()));
    for _ in 0..1000 {
        let (known, ask) = answers.known(now);
        assert_eq!((told(&known), ask), (Some(vec![1]), false), "used as long as a failure is");
        now += FAILED;
        let (known, ask) = answers.known(now);
        assert_eq!((told(&known), ask), (Some(vec![1]), true), "nobody waits for the next");
        answers.answered(now, Err(no_such_name()));
    }
    now += FAILED;
    assert!(answers.known(now).1);
    answers.answered(now, Ok(ports(&[2])));
    assert_eq!(told(&answers.known(now).0), Some(vec![2]));
    assert!(!answers.known(now + FRESH / 2).1);
}

#[test]
fn last_good_answer_is_used_while_the_resolver_hangs() {
    let start = Instant::now();
    let mut answers = answers(start);
    let now = start + FRESH;
    assert_eq!(told(&answers.known(now).0), None);
    assert_eq!(answers.patience(), PATIENCE);
    answers.late();
    for _ in 0..3 {
        let (known, ask) = answers.known(now + 1000 * FRESH);
        assert_eq!((told(&known), ask), (Some(vec![1]), false), "still one question");
    }
}

#[test]
fn failure_without_an_answer_before_is_used_for_a_moment_and_not_longer() {
    let start = Instant::now();
    let mut answers = Answers::new(too_slow("app"));
    assert!(answers.known(start).1);
    answers.answered(start, Err(no_such_name()));
    let moment = Duration::from_millis(1);
    let (known, ask) = answers.known(start + (FAILED - moment));
    assert_eq!((fault(&known).as_str(), ask), ("app does not resolve: no such name", false));
    let (known, ask) = answers.known(start + FAILED);
    assert_eq!((told(&known), ask), (None, true));
    answers.late();
    let (known, ask) = answers.known(start + 2 * FAILED);
    let words = "app does not resolve: the resolver did not answer";
    assert_eq!((fault(&known).as_str(), ask), (words, false));
}

#[test]
fn want_of_descriptors_says_nothing_of_the_name() {
    let start = Instant::now();
    let mut answers = Answers::new(too_slow("app"));
    assert!(answers.known(start).1);
    answers.answered(start, Err(super::fault("app", rustix::io::Errno::MFILE.into())));
    let (Resolution::Fault(fault), false) = answers.known(start) else { panic!("{answers:?}") };
    assert_eq!(fault.reason(), Reason::NoRoom);
    assert!(fault.to_string().starts_with("no room to resolve app: "), "{fault}");
}

/// Fault 5: a dead first address cost every connection 2.5 to 3 s.
#[test]
fn address_that_failed_is_tried_last_and_again_after_a_while() {
    let now = Instant::now();
    let moment = Duration::from_millis(1);
    let mut order = Order::default();
    let answer = ports(&[1, 2, 3]);
    let at = |order: &mut Order, now| told(&Resolution::Addresses(order.of(&answer, now))).unwrap();
    assert_eq!(at(&mut order, now), [1, 2, 3]);
    order.failed(address(1), now);
    order.failed(address(2), now);
    order.reached(address(3));
    assert_eq!(at(&mut order, now), [3, 1, 2]);
    assert_eq!(at(&mut order, now + (AVOIDED - moment)), [3, 1, 2]);

    let later = now + AVOIDED;
    assert_eq!(at(&mut order, later), [1, 3, 2], "one connection begins with it");
    assert_eq!(at(&mut order, later), [2, 3, 1], "and one with the other");
    assert_eq!(at(&mut order, later), [3, 1, 2], "and nobody else");
    order.reached(address(1));
    assert_eq!(at(&mut order, later), [1, 3, 2]);
    order.reached(address(2));
    assert_eq!(at(&mut order, later), [1, 2, 3], "the resolver's order, where none has failed");
}

#[test]
fn last_good_address_is_first_where_one_has_failed() {
    let now = Instant::now();
    let mut order = Order::default();
    let at = |order: &mut Order, answer: &[u16]| {
        told(&Resolution::Addresses(order.of(&ports(answer), now))).unwrap()
    };
    order.reached(address(3));
    assert_eq!(at(&mut order, &[1, 2, 3]), [1, 2, 3], "name servers rotate to spread clients");
    order.failed(address(1), now);
    assert_eq!(at(&mut order, &[1, 2, 3]), [3, 2, 1]);
    assert_eq!(at(&mut order, &[2, 4]), [2, 4], "of another answer nothing is known");
    order.failed(address(3), now);
    assert_eq!(at(&mut order, &[1, 2, 3]), [2, 1, 3]);
}

#[test]
fn failures_that_are_remembered_are_bounded() {
    let now = Instant::now();
    let mut order = Order::default();
    for port in 1..=1000 {
        order.failed(address(port), now);
    }
    let answer = ports(&[1, 2]);
    assert_eq!(order.of(&answer, now), answer, "the oldest are forgotten");
    assert_eq!(order.of(&ports(&[1000, 1]), now), ports(&[1, 1000]));
}

fn app() -> Destination {
    Destination { host: String::from("app"), port: 45_490 }
}

/// Waits for `addresses` to be told of, and then until something is known.
fn wait(addresses: &Addresses) -> Resolution {
    let (sender, receiver) = mpsc::channel();
    addresses.when_known(Box::new(move || sender.send(()).unwrap()));
    receiver.recv_timeout(Duration::from_secs(10)).expect("it is told");
    addresses.known(Instant::now())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn who_waits_is_told_the_answer_of_one_question() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    static ANSWER: AtomicBool = AtomicBool::new(false);
    let runtime = runtime();
    let addresses = Addresses::asking(&app(), runtime.handle().clone(), |host, port| {
        assert_eq!(host, "app");
        ASKED.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            while !ANSWER.load(Ordering::Acquire) {
                tokio::task::yield_now().await;
            }
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], port)); 2])
        })
    });
    let (sender, receiver) = mpsc::channel();
    for number in 0..20 {
        assert!(matches!(addresses.known(Instant::now()), Resolution::Pending));
        let sender = sender.clone();
        addresses.when_known(Box::new(move || sender.send(number).unwrap()));
    }
    assert!(receiver.try_recv().is_err(), "nothing is known yet");
    ANSWER.store(true, Ordering::Release);
    let mut called: Vec<_> =
        (0..20).map(|_| receiver.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
    called.sort_unstable();
    assert_eq!(called, (0..20).collect::<Vec<_>>());
    assert_eq!(told(&addresses.known(Instant::now())), Some(vec![45_490]));
    assert_eq!(told(&wait(&addresses)), Some(vec![45_490]), "and at once where it is known");
    assert_eq!(ASKED.load(Ordering::Relaxed), 1);
}

#[test]
fn who_waits_for_a_resolver_that_hangs_goes_on_with_the_last_good_answer() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let runtime = runtime();
    let addresses = Addresses::asking(&app(), runtime.handle().clone(), |_, port| {
        let first = ASKED.fetch_add(1, Ordering::Relaxed) == 0;
        Box::pin(async move {
            if !first {
                std::future::pending::<()>().await;
            }
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
        })
    });
    let start = Instant::now();
    assert!(matches!(addresses.known(start), Resolution::Pending));
    assert_eq!(told(&wait(&addresses)), Some(vec![45_490]));
    let old = Instant::now() + FRESH;
    assert!(matches!(addresses.known(old), Resolution::Pending));
    let (sender, receiver) = mpsc::channel();
    addresses.when_known(Box::new(move || sender.send(()).unwrap()));
    receiver.recv_timeout(Duration::from_secs(10)).expect("it is told");
    assert!(start.elapsed() >= PATIENCE);
    assert_eq!(told(&addresses.known(old)), Some(vec![45_490]));
    assert_eq!(ASKED.load(Ordering::Relaxed), 2, "the question that hangs is the only one");
}

#[test]
fn address_is_not_asked_for() {
    let runtime = runtime();
    let destination = Destination { host: String::from("::1"), port: 9 };
    let addresses =
        Addresses::asking(&destination, runtime.handle().clone(), |_, _| panic!("asked"));
    let known = addresses.known(Instant::now());
    assert!(matches!(&known, Resolution::Addresses(all) if **all == ["[::1]:9".parse().unwrap()]));
    assert_eq!(told(&wait(&addresses)), Some(vec![9]));
}

#[test]
fn good_address_takes_no_lock_until_it_fails() {
    let runtime = runtime();
    let addresses = Addresses::asking(&app(), runtime.handle().clone(), |_, _| {
        Box::pin(async { Ok(vec![address(1), address(2)]) })
    });
    let now = Instant::now();
    assert!(matches!(addresses.known(now), Resolution::Pending));
    assert_eq!(told(&wait(&addresses)), Some(vec![1, 2]));
    addresses.failed(address(1), now);
    addresses.reached(address(2));
    assert_eq!(told(&addresses.known(now)), Some(vec![2, 1]));
    let held = addresses.0.state();
    let (sender, receiver) = mpsc::channel();
    let worker = addresses.clone();
    std::thread::spawn(move || {
        worker.reached(address(2));
        sender.send(()).unwrap();
    });
    receiver.recv_timeout(Duration::from_secs(10)).expect("it takes no lock");
    drop(held);

    addresses.failed(address(2), now);
    assert_eq!(told(&addresses.known(now)), Some(vec![1, 2]));
    addresses.reached(address(2));
    assert_eq!(told(&addresses.known(now)), Some(vec![2, 1]), "that it is back is noticed");
}

#[test]
fn fingerprints_tell_addresses_apart() {
    let texts =
        ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80", "[2001:db8::1]:80", "[2001:db8::2]:80"];
    let mut marks: Vec<_> = texts.iter().map(|text| fingerprint(text.parse().unwrap())).collect();
    assert!(marks.iter().all(|mark| *mark != 0));
    marks.sort_unstable();
    marks.dedup();
    assert_eq!(marks.len(), texts.len());
}
