//! What is known of the upstream's addresses, rule by rule.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::unchecked_time_subtraction)] // Of constants.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc;
use std::time::Duration;

use super::answers::{FAILED, LEAST_TTL, PATIENCE};
use super::*;
use crate::end::Reason;

const TTL: Duration = Duration::from_secs(5);

/// `DNS_MAX_TTL` in these tests.
const MOST: Duration = Duration::from_secs(60);

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn app() -> UpstreamName {
    UpstreamName::Host(String::from("app"))
}

fn no_such_name() -> Fault {
    resolver::fault("app", io::Error::other("no such name"))
}

fn is_pending(status: &Status) -> bool {
    matches!(status, Status::Pending)
}

fn is_good(status: &Status) -> bool {
    matches!(status, Status::Good)
}

/// The ports that are known, as they are tried, or nothing while they are asked for.
fn told(known: &Resolution) -> Option<Vec<u16>> {
    match known {
        Resolution::Candidates(all) => {
            let all = (0..).map_while(|number| all.get(number));
            Some(all.map(|endpoint| endpoint.member.found.address.port()).collect())
        }
        Resolution::Pending => None,
        Resolution::Fault(fault) => panic!("{fault}"),
    }
}

fn fault(known: &Status) -> String {
    match known {
        Status::Fault(fault) => fault.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Answers about `app`, which was found at `start`.
fn answers(start: Instant, ttl: Duration) -> Answers {
    let mut answers = Answers::new(too_slow(&app()), MOST);
    assert!(matches!(answers.known(start), (Status::Pending, true)));
    answers.answered(start, Ok(ttl));
    answers
}

#[test]
fn answer_is_used_as_long_as_its_ttl_within_bounds() {
    let start = Instant::now();
    let moment = Duration::from_millis(1);
    let all = [(TTL, TTL), (Duration::ZERO, LEAST_TTL), (10 * MOST, MOST)];
    for (ttl, used) in all {
        let mut answers = answers(start, ttl);
        let (known, ask) = answers.known(start + (used - moment));
        assert!(is_good(&known) && !ask, "{ttl:?}");
        let late = start + used;
        let (known, ask) = answers.known(late);
        assert!(is_pending(&known) && ask, "{ttl:?}");
        let (known, ask) = answers.known(late);
        assert!(is_pending(&known) && !ask, "one question at a time");
        answers.answered(late, Ok(ttl));
        assert!(is_good(&answers.known(late).0));
    }
}

/// Fault 4: a resolver outage turned into 502 for all after five seconds.
#[test]
fn last_good_answer_is_used_while_the_resolver_fails() {
    let start = Instant::now();
    let mut answers = answers(start, TTL);
    let mut now = start + TTL;
    assert!(answers.known(now).1);
    answers.answered(now, Err(no_such_name()));
    for _ in 0..1000 {
        let (known, ask) = answers.known(now);
        assert!(is_good(&known) && !ask, "used as long as a failure is");
        now += FAILED;
        let (known, ask) = answers.known(now);
        assert!(is_good(&known) && ask, "nobody waits for the next");
        answers.answered(now, Err(no_such_name()));
    }
    now += FAILED;
    assert!(answers.known(now).1);
    answers.answered(now, Ok(TTL));
    assert!(is_good(&answers.known(now).0));
    assert!(!answers.known(now + TTL / 2).1);
}

#[test]
fn last_good_answer_is_used_while_the_resolver_hangs() {
    let start = Instant::now();
    let mut answers = answers(start, TTL);
    let now = start + TTL;
    assert!(is_pending(&answers.known(now).0));
    assert_eq!(answers.patience(), PATIENCE);
    answers.late();
    for _ in 0..3 {
        let (known, ask) = answers.known(now + 1000 * TTL);
        assert!(is_good(&known) && !ask, "still one question");
    }
}

#[test]
fn failure_without_an_answer_before_is_used_for_a_moment_and_not_longer() {
    let start = Instant::now();
    let mut answers = Answers::new(too_slow(&app()), MOST);
    assert!(answers.known(start).1);
    answers.answered(start, Err(no_such_name()));
    let moment = Duration::from_millis(1);
    let (known, ask) = answers.known(start + (FAILED - moment));
    assert_eq!((fault(&known).as_str(), ask), ("app does not resolve: no such name", false));
    let (known, ask) = answers.known(start + FAILED);
    assert!(is_pending(&known) && ask);
    answers.late();
    let (known, ask) = answers.known(start + 2 * FAILED);
    let words = "app does not resolve: the resolver did not answer";
    assert_eq!((fault(&known).as_str(), ask), (words, false));
}

#[test]
fn want_of_descriptors_says_nothing_of_the_name() {
    let start = Instant::now();
    let mut answers = Answers::new(too_slow(&app()), MOST);
    assert!(answers.known(start).1);
    answers.answered(start, Err(resolver::fault("app", rustix::io::Errno::MFILE.into())));
    let (Status::Fault(fault), false) = answers.known(start) else { panic!("{answers:?}") };
    assert_eq!(fault.reason(), Reason::NoRoom);
    assert!(fault.to_string().starts_with("no room to resolve app: "), "{fault}");
}

/// Settings for these names, at port 45490.
fn config(names: &[UpstreamName]) -> Config {
    let config = Config::for_destination(address(1), "app", 45_490);
    Config { destination_hostname: names.to_vec(), ..config }
}

/// The endpoints of these names, of which `lookup` is asked.
fn asking(
    names: &[UpstreamName],
    runtime: &tokio::runtime::Runtime,
    lookup: impl Fn(UpstreamName, u16) -> Question + Send + Sync + 'static,
) -> Addresses {
    let (loads, handle) = (Loads::default(), runtime.handle().clone());
    Addresses::asking(&config(names), loads, handle, Box::new(lookup))
}

fn answer(ports: &[u16]) -> Answer {
    let found = ports.iter().map(|port| Found::plain(address(*port))).collect();
    Answer { found, ttl: TTL }
}

fn choose(addresses: &Addresses, now: Instant) -> Resolution {
    addresses.choose(now, Affinity::None, &|| 0)
}

/// Waits for `addresses` to be told of, and then until something is known.
fn wait(addresses: &Addresses) -> Resolution {
    let (sender, receiver) = mpsc::channel();
    addresses.when_known(Box::new(move || sender.send(()).unwrap()));
    receiver.recv_timeout(Duration::from_secs(10)).expect("it is told");
    choose(addresses, Instant::now())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn who_waits_is_told_the_answer_of_one_question() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    static ANSWER: AtomicBool = AtomicBool::new(false);
    let runtime = runtime();
    let addresses = asking(&[app()], &runtime, |name, port| {
        assert_eq!(name, app());
        ASKED.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            while !ANSWER.load(Ordering::Acquire) {
                tokio::task::yield_now().await;
            }
            Ok(answer(&[port; 2]))
        })
    });
    let (sender, receiver) = mpsc::channel();
    for number in 0..20 {
        assert!(matches!(choose(&addresses, Instant::now()), Resolution::Pending));
        let sender = sender.clone();
        addresses.when_known(Box::new(move || sender.send(number).unwrap()));
    }
    assert!(receiver.try_recv().is_err(), "nothing is known yet");
    ANSWER.store(true, Ordering::Release);
    let mut called: Vec<_> =
        (0..20).map(|_| receiver.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
    called.sort_unstable();
    assert_eq!(called, (0..20).collect::<Vec<_>>());
    assert_eq!(told(&choose(&addresses, Instant::now())), Some(vec![45_490]));
    assert_eq!(told(&wait(&addresses)), Some(vec![45_490]), "and at once where it is known");
    assert_eq!(ASKED.load(Ordering::Relaxed), 1);
}

#[test]
fn who_waits_for_a_resolver_that_hangs_goes_on_with_the_last_good_answer() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let runtime = runtime();
    let addresses = asking(&[app()], &runtime, |_, port| {
        let first = ASKED.fetch_add(1, Ordering::Relaxed) == 0;
        Box::pin(async move {
            if !first {
                std::future::pending::<()>().await;
            }
            Ok(answer(&[port]))
        })
    });
    let start = Instant::now();
    assert!(matches!(choose(&addresses, start), Resolution::Pending));
    assert_eq!(told(&wait(&addresses)), Some(vec![45_490]));
    let old = Instant::now() + TTL;
    assert!(matches!(choose(&addresses, old), Resolution::Pending));
    let (sender, receiver) = mpsc::channel();
    addresses.when_known(Box::new(move || sender.send(()).unwrap()));
    receiver.recv_timeout(Duration::from_secs(10)).expect("it is told");
    assert!(start.elapsed() >= PATIENCE);
    assert_eq!(told(&choose(&addresses, old)), Some(vec![45_490]));
    assert_eq!(ASKED.load(Ordering::Relaxed), 2, "the question that hangs is the only one");
}

#[test]
fn nobody_waits_for_one_name_where_another_has_endpoints() {
    let runtime = runtime();
    let slow = UpstreamName::Host(String::from("slow"));
    let names = [app(), slow.clone(), UpstreamName::Address(IpAddr::V4(Ipv4Addr::LOCALHOST))];
    let addresses = asking(&names, &runtime, move |name, _| {
        let is_slow = name == slow;
        Box::pin(async move {
            if is_slow {
                std::future::pending::<()>().await;
            }
            Ok(answer(&[1]))
        })
    });
    let first = told(&choose(&addresses, Instant::now()));
    assert_eq!(first, Some(vec![45_490]), "the address needs no answer");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut all = told(&choose(&addresses, Instant::now())).unwrap();
        all.sort_unstable();
        if all == [1, 45_490] {
            break;
        }
        assert!(Instant::now() < deadline, "{all:?}");
        std::thread::yield_now();
    }
}

#[test]
fn address_is_not_asked_for() {
    let runtime = runtime();
    let name = UpstreamName::read("[::1]").unwrap();
    let addresses = asking(&[name], &runtime, |_, _| panic!("asked"));
    let Resolution::Candidates(all) = choose(&addresses, Instant::now()) else { panic!() };
    assert_eq!(all.get(0).unwrap().member.found.address, "[::1]:45490".parse().unwrap());
    assert_eq!(told(&wait(&addresses)), Some(vec![45_490]));
}

#[test]
fn good_address_takes_no_lock_until_one_fails() {
    let runtime = runtime();
    let addresses = asking(&[app()], &runtime, |_, _| Box::pin(async { Ok(answer(&[1, 2])) }));
    let now = Instant::now();
    assert!(matches!(choose(&addresses, now), Resolution::Pending));
    assert_eq!(told(&wait(&addresses)), Some(vec![1, 2]));
    let held = addresses.0.state();
    let (sender, receiver) = mpsc::channel();
    let worker = addresses.clone();
    std::thread::spawn(move || {
        worker.reached(address(2), now);
        sender.send(()).unwrap();
    });
    receiver.recv_timeout(Duration::from_secs(10)).expect("it takes no lock");
    drop(held);

    for _ in 0..3 {
        addresses.failed(address(2), now);
        assert_eq!(told(&choose(&addresses, now)), Some(vec![1, 2]), "it is the last");
    }
    addresses.failed(address(1), now);
    addresses.reached(address(2), now);
    for _ in 0..3 {
        assert_eq!(told(&choose(&addresses, now)), Some(vec![2, 1]), "that it is back is noticed");
    }
}

#[test]
fn endpoint_that_is_gone_is_listed_as_long_as_it_has_tunnels() {
    static ANSWERS: AtomicUsize = AtomicUsize::new(0);
    let runtime = runtime();
    let addresses = asking(&[app()], &runtime, |_, _| {
        let is_first = ANSWERS.fetch_add(1, Ordering::Relaxed) == 0;
        Box::pin(async move { Ok(answer(if is_first { &[1, 2] } else { &[2] })) })
    });
    let list = |now| {
        let (list, fault) = addresses.list(now);
        assert!(fault.is_none());
        let of = |one: Listed| (one.address.port(), one.state.as_str(), one.tunnels);
        list.into_iter().map(of).collect::<Vec<_>>()
    };
    assert!(list(Instant::now()).is_empty(), "it is asked for");
    wait(&addresses);
    let loads = addresses.0.loads.clone();
    loads.came(address(1), false);
    assert_eq!(list(Instant::now()), [(1, "up", 1), (2, "up", 0)]);
    let late = Instant::now() + TTL;
    assert!(matches!(choose(&addresses, late), Resolution::Pending));
    let answered = wait(&addresses);
    assert_eq!(told(&answered), Some(vec![2]));
    assert_eq!(list(Instant::now()), [(2, "up", 0), (1, "gone", 1)]);
    loads.left(address(1), false);
    drop(answered);
    assert_eq!(list(Instant::now()), [(2, "up", 0)]);
}

#[test]
fn good_answer_takes_no_lock_and_bad_ones_in_a_row_eject() {
    let runtime = runtime();
    let names = [1, 2].map(|last| UpstreamName::Address(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))));
    let config = Config { upstream_eject: Some(3), ..config(&names) };
    let lookup = Box::new(|_, _| -> Question { panic!("asked") });
    let addresses = Addresses::asking(&config, Loads::default(), runtime.handle().clone(), lookup);
    let now = Instant::now();
    let first = |now| {
        let Resolution::Candidates(all) = choose(&addresses, now) else { panic!() };
        all.get(0).unwrap().member.found.address.ip().to_string()
    };
    let states = || {
        let (list, _) = addresses.list(now);
        list.iter().map(|one| one.state.as_str()).collect::<Vec<_>>()
    };
    let endpoints = Arc::clone(&addresses.0.state().endpoints);
    let [bad, other] = endpoints.all() else { panic!() };
    let held = addresses.0.state();
    let (sender, receiver) = mpsc::channel();
    let (worker, of_worker) = (addresses.clone(), Arc::clone(&endpoints));
    std::thread::spawn(move || {
        worker.answered_well(&of_worker.all()[0], now);
        // Some bad ones are only counted.
        worker.answered_badly(&of_worker.all()[0], now);
        worker.answered_badly(&of_worker.all()[0], now);
        worker.answered_well(&of_worker.all()[0], now);
        sender.send(()).unwrap();
    });
    receiver.recv_timeout(Duration::from_secs(10)).expect("it takes no lock");
    drop(held);
    (0..2).for_each(|_| addresses.answered_badly(bad, now));
    assert_eq!(states(), ["up", "up"]);
    addresses.answered_badly(bad, now);
    assert_eq!(states(), ["up", "ejected"]);
    assert!((0..9).all(|_| first(now) == "10.0.0.2"));
    (0..9).for_each(|_| addresses.answered_badly(other, now));
    assert_eq!(states(), ["up", "ejected"], "not more than half");
    let later = now + Duration::from_secs(5);
    assert_eq!([first(later), first(later)], ["10.0.0.1", "10.0.0.2"], "one begins with it");
    addresses.answered_badly(bad, later);
    assert_eq!(first(later + Duration::from_secs(9)), "10.0.0.2", "the first bad one counts then");
    assert_eq!(first(later + Duration::from_secs(10)), "10.0.0.1");
    addresses.answered_well(bad, later);
    assert_eq!(states(), ["up", "up"]);
    assert_eq!(addresses.counts().changes[EndpointState::Ejected.index()], 2);
}

#[test]
fn where_all_are_down_they_are_tried_or_refused() {
    let runtime = runtime();
    for (all_down, refuses) in [(AllDown::Try, false), (AllDown::Refuse, true)] {
        let name = UpstreamName::Address(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let config = Config {
            upstream_check: Some(crate::config::UpstreamCheck::Tcp),
            upstream_all_down: all_down,
            ..config(&[name])
        };
        let lookup = Box::new(|_, _| -> Question { panic!("asked") });
        let handle = runtime.handle().clone();
        let addresses = Addresses::asking(&config, Loads::default(), handle, lookup);
        let now = Instant::now();
        let checkable = addresses.to_check(now);
        assert_eq!(checkable[0].host, "127.0.0.1:45490");
        assert!(checkable[0].is_changing, "it was never checked");
        let check = |result| addresses.checked(checkable[0].address, result, None, now);
        assert!(!check(Checked::Timeout));
        match choose(&addresses, now) {
            Resolution::Fault(fault) => {
                assert!(refuses && fault.to_string() == "all endpoints are down", "{fault}");
            }
            Resolution::Candidates(_) => assert!(!refuses),
            Resolution::Pending => panic!(),
        }
        assert!(check(Checked::Passed));
        assert!(!check(Checked::Passed));
        assert!(matches!(choose(&addresses, now), Resolution::Candidates(_)));
        let counts = addresses.counts();
        assert_eq!(counts.checks, [2, 0, 1, 0]);
        assert_eq!(addresses.present(now)[0].state, EndpointState::Up);
    }
}
