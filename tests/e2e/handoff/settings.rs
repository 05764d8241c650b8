//! The new process has other settings: what counts for tunnels that moved, and what counts for new ones.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use test_support::left_out::left_out;

use super::{Place, number, talk};
use crate::client::{Client, handshake};
use crate::programs::wait_until;
use crate::proxy::{Elbows, free_port};
use crate::web_socket::{BINARY, PING, PONG, TEXT, Tunnels, value};

fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn is_healthy(address: SocketAddr) -> bool {
    Client::plain(address).get("/ping").status == 200
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[test]
fn listeners_are_those_of_the_new_settings() {
    let application = Tunnels::start();
    let mut place = Place::new(application.address);
    let mut old = place.start(&[]);
    let mut tunnel = application.open(&old);
    let (first, second, health) = (place.address, local(free_port()), local(free_port()));
    // Another port, and one more.
    place.address = second;
    let health_name = health.to_string();
    let new = place.hand_over(&mut old, &[("HEALTH_LISTEN_ON", &health_name)]);
    new.log.wait_for(&format!("LISTEN_ON={first}: no longer a setting, and closed"));
    new.log.wait_for(&format!("LISTEN_ON={second}: listening there, too, from the handoff on"));
    new.log.wait_for(&format!("HEALTH_LISTEN_ON={health}: listening there, too, from the handoff"));
    assert!(is_refused(first));
    assert!(is_healthy(second) && is_healthy(health));
    talk(&mut tunnel, "first");
    talk(&mut application.open(&new), "new");
    // One less.
    old = new;
    let new = place.hand_over(&mut old, &[]);
    new.log.wait_for(&format!("HEALTH_LISTEN_ON={health}: no longer a setting, and closed"));
    assert!(is_refused(health) && is_healthy(second));
    talk(&mut tunnel, "second");
    // One that cannot be had: nothing has happened.
    let taken = std::net::TcpListener::bind(health).unwrap();
    let mut wrong =
        Elbows::spawn_unready(place.command(&[("HEALTH_LISTEN_ON", &health_name)]), place.address);
    assert_eq!(wrong.wait().code(), Some(1));
    wrong.log.wait_for(&format!("HEALTH_LISTEN_ON={health}: cannot listen there"));
    drop(taken);
    talk(&mut tunnel, "third");
    assert!(is_healthy(second));
}

/// What the log said before the failure shows how it came to it: none of it is lost, however soon the process ends.
#[test]
fn log_of_a_process_that_cannot_start_is_whole() {
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let old = place.start(&[]);
    let taken = std::net::TcpListener::bind(local(free_port())).unwrap();
    let (admin, health) = (local(free_port()), taken.local_addr().unwrap());
    let (admin_name, health_name) = (admin.to_string(), health.to_string());
    let settings = [("ADMIN_LISTEN_ON", &*admin_name), ("HEALTH_LISTEN_ON", &*health_name)];
    for run in 0..20 {
        let output = place.command(&settings).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let log = String::from_utf8(output.stderr).unwrap();
        let places: Vec<_> = [
            "sandbox: ".to_owned(),
            format!("ADMIN_LISTEN_ON={admin}: listening there, too, from the handoff on"),
            format!("elbows: HEALTH_LISTEN_ON={health}: cannot listen there"),
        ]
        .iter()
        .map(|text| log.find(text).unwrap_or_else(|| panic!("run {run}: no {text:?} in {log}")))
        .collect();
        assert!(places.is_sorted(), "{log}");
        let claim = format!("HEALTH_LISTEN_ON={health}: listening there");
        assert!(!log.contains(&claim), "run {run}: {log}");
    }
    drop(old);
}

#[test]
fn tunnels_that_moved_obey_the_new_settings() {
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let mut old = place.start(&[("PING_INTERVAL", "off"), ("DRAIN_CLOSE_CODE", "1001")]);
    let (mut client, mut upstream) = application.open(&old);
    let (mut other, mut other_upstream) = application.open(&old);
    other.send(other.frame(TEXT, [b'a'; 600]));
    other_upstream.expect(TEXT, [b'a'; 600]);
    let settings = [
        ("PING_INTERVAL", "300ms"),
        ("PONG_TIMEOUT", "1h"),
        ("MAX_MESSAGE_SIZE", "1000"),
        ("DRAIN_CLOSE_CODE", "1012"),
        ("DRAIN_PERIOD", "0s"),
        ("DRAIN_GRACE", "1h"),
    ];
    let mut new = place.hand_over(&mut old, &settings);
    let ping = client.read_frame();
    assert_eq!(ping.opcode, PING);
    client.send_frame(PONG, ping.payload);
    client.send_frame(BINARY, [1; 1000]);
    upstream.expect(BINARY, [1; 1000]);
    // What it had sent of its message before counts.
    other.send(other.frame(0x80, [b'b'; 401]));
    let (close, _) = other.read_answering();
    assert_eq!(close.code(), Some(1009), "{close:?}");
    drop((other, other_upstream));
    new.drain();
    let (close, _) = client.read_answering();
    assert_eq!(close.code(), Some(1012), "{close:?}");
    client.send_close(1012);
    upstream.expect_close(1012);
    upstream.send_close(1012);
    drop((client, upstream));
    assert_eq!(new.wait().code(), Some(0));
}

/// When its age ends a tunnel was settled when it opened.
#[test]
fn a_tunnel_keeps_the_lifetime_that_it_opened_with() {
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let start = Instant::now();
    let mut old = place.start(&[("MAX_LIFETIME", "2s")]);
    let (mut limited, _limited_upstream) = application.open(&old);
    old = place.hand_over(&mut old, &[]);
    let (mut unlimited, mut unlimited_upstream) = application.open(&old);
    let new = place.hand_over(&mut old, &[("MAX_LIFETIME", "500ms")]);
    let (mut short, _short_upstream) = application.open(&new);
    short.expect_close(1001);
    limited.expect_close(1001);
    let lived = start.elapsed();
    assert!(lived >= Duration::from_millis(1_700), "{lived:?}");
    // By then its time would have been over, too.
    unlimited.send_frame(TEXT, "still here");
    unlimited_upstream.expect(TEXT, "still here");
}

#[test]
fn old_tunnels_keep_their_application_and_new_ones_get_the_new_one() {
    let (one, other) = (Tunnels::start(), Tunnels::start());
    let place = Place::new(one.address);
    let mut old = place.start(&[("THREADS", "1")]);
    let mut of_one: Vec<_> = (0..30).map(|_| one.open(&old)).collect();
    let port = other.address.port().to_string();
    let settings = [("DESTINATION_PORT", port.as_str()), ("THREADS", "4")];
    old = place.hand_over(&mut old, &settings);
    let mut of_other: Vec<_> = (0..30).map(|_| other.open(&old)).collect();
    let _new = place.hand_over(&mut old, &[("THREADS", "2")]);
    of_one.push(one.open_at(place.address));
    for tunnel in of_one.iter_mut().chain(&mut of_other) {
        talk(tunnel, "to whom it has always talked");
    }
}

/// The status that a handshake gets, and its tunnel where it gets one. All are one client's.
fn status(
    application: &Tunnels,
    place: &Place,
) -> (u16, Option<(Client, crate::web_socket::Peer)>) {
    let mut client = Client::behind_balancer(place.address);
    client.send(handshake("/ws"));
    let (sender, answered) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let head = client.read_head();
            sender.send((head.status, client)).unwrap();
        });
        // The application answers where it is asked.
        let mut upstream = None;
        loop {
            if let Ok((status, client)) = answered.try_recv() {
                return (status, upstream.map(|upstream| (client, upstream)));
            }
            if let Some(asked) = application.try_asked(Duration::from_millis(5)) {
                upstream = Some(asked.accept());
            }
        }
    })
}

#[test]
fn limits_count_those_that_moved_and_refuse_none_of_them() {
    for limit in ["MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_CLIENT"] {
        let application = Tunnels::start();
        let place = Place::new(application.address);
        let mut old = place.start(&[]);
        let mut open: Vec<_> = (0..3).map(|_| application.open(&old)).collect();
        old = place.hand_over(&mut old, &[(limit, "2")]);
        // And with the same limit once more.
        old = place.hand_over(&mut old, &[(limit, "2")]);
        for tunnel in &mut open {
            talk(tunnel, limit);
        }
        old.wait_for_report("counted=3");
        let (refused, _) = status(&application, &place);
        assert!(refused == 503 || refused == 429, "{limit}: {refused}");
        drop(open.drain(1..));
        old.wait_for_report("counted=1");
        let (accepted, _tunnel) = status(&application, &place);
        assert_eq!(accepted, 101, "{limit}");
        for tunnel in &mut open {
            talk(tunnel, limit);
        }
    }
}

#[test]
fn how_often_a_client_came_is_known_in_the_new_process() {
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let settings = [("HANDSHAKE_RATE_PER_CLIENT", "1/h burst=3")];
    let mut old = place.start(&settings);
    let mut tunnels = Vec::new();
    for allowed in [2, 1, 0] {
        for _ in 0..allowed {
            let (status, tunnel) = status(&application, &place);
            assert_eq!(status, 101);
            tunnels.push(tunnel);
        }
        if allowed > 0 {
            old = place.hand_over(&mut old, &settings);
        }
    }
    assert_eq!(status(&application, &place).0, 429);
    old.wait_for_report("over_handshake_rate=1");
}

#[test]
fn counters_add_up_and_rates_are_the_new_processs_own() {
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let mut old = place.start(&[]);
    let mut tunnels = Vec::new();
    for round in 1..=3_u64 {
        for _ in 0..4 {
            tunnels.push(application.open(&old));
        }
        if round < 3 {
            old = place.hand_over(&mut old, &[]);
        }
    }
    // Beside those there is one connection that looks whether it listens for each of the three processes.
    // The client hears its 101 a moment before the tunnel is counted.
    old.wait_for_report("tunnels=12");
    let report = old.wait_for_report("probes=3");
    for (name, expected) in [
        ("connections", 15),
        ("requests", 12),
        ("tunnels", 12),
        ("tunnels_open", 12),
        ("open", 12),
        ("handed_in", 4 + 8),
        ("handed_out", 4 + 8),
        ("handoff_refused", 0),
        ("handoff_aborted", 0),
    ] {
        assert_eq!(number(&report, name), expected, "{name}: {report}");
    }
    // Whoever waits may have asked often: together the summaries tell of what this process opened.
    let summaries = old.log.all().into_iter().filter(|line| line.contains("rates_over="));
    let opened: f64 = summaries
        .map(|line| {
            let number = |name: &str| value(&line, name).parse::<f64>().unwrap();
            number("tunnels_per_second") * number("rates_over")
        })
        .sum();
    assert!((opened - 4.0).abs() < 1.0, "{opened} of 4");
}

#[test]
fn health_checks_are_answered_all_along() {
    const HANDOFFS: usize = 5;
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let health = local(free_port());
    let health_name = health.to_string();
    let settings = [("HEALTH_LISTEN_ON", health_name.as_str())];
    let mut old = place.start(&settings);
    let mut tunnels: Vec<_> = (0..30).map(|_| application.open(&old)).collect();
    let is_over = AtomicBool::new(false);
    let checks = [AtomicUsize::new(0), AtomicUsize::new(0)];
    thread::scope(|scope| {
        for (address, checks) in [place.address, health].into_iter().zip(&checks) {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let answer = Client::plain(address).get("/ping");
                    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{address}");
                    checks.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..HANDOFFS {
            old = place.hand_over(&mut old, &settings);
            let before = checks.each_ref().map(|checks| checks.load(Ordering::Relaxed));
            wait_until("checks of both ports", || {
                before
                    .iter()
                    .zip(&checks)
                    .all(|(before, now)| now.load(Ordering::Relaxed) > before + 10)
            });
        }
        is_over.store(true, Ordering::Relaxed);
    });
    for tunnel in &mut tunnels {
        talk(tunnel, "all along");
    }
}

#[test]
fn wrong_settings_end_the_new_process_before_the_old_one_hears_of_it() {
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let old = place.start(&[]);
    let mut tunnel = application.open(&old);
    for (setting, value) in [("PING_INTERVAL", "often"), ("HANDOFF_SOCKET", "handoff.sock")] {
        let mut new = Elbows::spawn_unready(place.command(&[(setting, value)]), place.address);
        assert_eq!(new.wait().code(), Some(78), "{setting}");
        new.log.wait_for(&format!("{setting}="));
    }
    talk(&mut tunnel, "as if nothing had been");
    let log = old.log.all();
    assert!(!log.iter().any(|line| line.contains("handoff")), "{log:?}");
}

#[test]
fn the_sandbox_holds_on_both_sides() {
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let settings = [("SANDBOX", "required")];
    let first = Elbows::spawn_unready(place.command(&[("SANDBOX", "auto")]), place.address);
    if first.log.wait_for("sandbox: ").contains("not available") {
        left_out("this kernel has no Landlock");
        return;
    }
    drop(first);
    let mut old = place.start(&settings);
    let mut tunnel = application.open(&old);
    for round in ["first", "second"] {
        let new = place.hand_over(&mut old, &settings);
        new.log.wait_for("sandbox: on");
        talk(&mut tunnel, round);
        old = new;
    }
    old.signal(Signal::TERM);
    assert_eq!(old.wait().code(), Some(0));
}
