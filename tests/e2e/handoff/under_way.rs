//! What is no tunnel while its process is replaced: handshakes, requests, connections that are kept.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::{Place, number, talk};
use crate::client::{Client, handshake};
use crate::programs::wait_until;
use crate::upstream::{Upstream, handed_over, read_head, try_read_head};
use crate::web_socket::{Peer, Tunnels, value};

/// What is under way has time to finish.
const PATIENT: [(&str, &str); 1] = [("DRAIN_PERIOD", "1h")];

#[test]
fn a_handshake_that_waits_for_its_answer_becomes_a_tunnel_and_moves() {
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let mut old = place.start(&PATIENT);
    let mut early = application.open(&old);
    let mut client = Client::behind_balancer(old.address);
    client.send(handshake("/late"));
    let asked = application.asked();
    let new = place.take_over(&PATIENT);
    // Served by the new one already, while the old one waits.
    let mut fresh = application.open(&new);
    talk(&mut early, "early");
    talk(&mut fresh, "fresh");
    assert!(!old.has_ended());
    let upstream = asked.accept_with(crate::web_socket::unmasked(0x81, b"welcome"));
    assert_eq!(client.read_head().status, 101);
    let mut late = (Peer::client(client), upstream);
    late.0.expect(crate::web_socket::TEXT, "welcome");
    assert_eq!(old.wait().code(), Some(0));
    let line = new.log.wait_for("handoff from=");
    assert_eq!((number(&line, "moved"), number(&line, "refused")), (2, 0), "{line}");
    talk(&mut late, "late");
    drop((early, late, fresh));
    let lines =
        new.access_log.wait_until("3 lines", |lines| (lines.len() == 3).then(|| lines.to_vec()));
    let mut moves: Vec<_> = lines.iter().map(|line| value(line, "handoffs")).collect();
    moves.sort_unstable();
    assert_eq!(moves, ["0", "1", "1"]);
    let late = lines.iter().find(|line| line.contains("GET /late ")).expect("its line");
    assert_eq!(value(late, "handoffs"), "1", "{late}");
}

#[test]
fn a_request_that_is_under_way_is_answered_whole_by_the_old_process() {
    let (address, sockets) = handed_over();
    let place = Place::new(address);
    let mut old = place.start(&PATIENT);
    // One whose answer has begun, one that waits for it, and one whose head has not come in full.
    let mut begun = Client::behind_balancer(place.address);
    begun.send("GET /begun HTTP/1.1\r\nHost: a\r\n\r\n");
    let (mut begun_upstream, _) = sockets.recv().unwrap();
    let body: Vec<u8> = (0..=u8::MAX).cycle().take(3_000_000).collect();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    begun_upstream.write_all(head.as_bytes()).unwrap();
    begun_upstream.write_all(&body[..1_000]).unwrap();
    assert_eq!(begun.read_head().status, 200);
    let mut waits = Client::behind_balancer(place.address);
    waits.send("GET /waits HTTP/1.1\r\nHost: a\r\n\r\n");
    let (mut waits_upstream, _) = sockets.recv().unwrap();
    let mut half = Client::behind_balancer(place.address);
    half.send("GET /half HTTP/1.1\r\nHo");
    let new = place.take_over(&PATIENT);
    half.send("st: a\r\n\r\n");
    let (mut half_upstream, head) = sockets.recv().unwrap();
    assert!(head.starts_with("GET /half "), "{head}");
    for upstream in [&mut waits_upstream, &mut half_upstream] {
        upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").unwrap();
    }
    for client in [&mut waits, &mut half] {
        assert_eq!(client.read_response().text(), "late");
    }
    assert!(!old.has_ended(), "one is not answered in full");
    begun_upstream.write_all(&body[1_000..]).unwrap();
    assert!(begun.read_exact(body.len()) == body);
    for client in [&mut begun, &mut waits, &mut half] {
        assert_eq!(client.read_to_end().unwrap(), b"", "an end, not a reset");
    }
    assert_eq!(old.wait().code(), Some(0));
    for path in ["/begun", "/waits", "/half"] {
        let line = old.access_log.wait_for(path);
        assert!(line.contains("status=200") && line.contains("why=complete"), "{line}");
    }
    assert!(new.access_log.all().is_empty());
}

#[test]
fn an_old_process_that_is_told_to_stop_while_it_finishes_says_so_at_once() {
    let (address, sockets) = handed_over();
    let place = Place::new(address);
    let mut old = place.start(&PATIENT);
    let mut client = Client::behind_balancer(place.address);
    client.send("GET /waits HTTP/1.1\r\nHost: a\r\n\r\n");
    let (mut upstream, _) = sockets.recv().unwrap();
    let new = place.take_over(&PATIENT);
    old.signal(Signal::TERM);
    old.log.wait_for("handoff to=");
    new.log.wait_for("handoff from=");
    assert!(!old.has_ended(), "the request has an hour");
    upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").unwrap();
    assert_eq!(client.read_response().text(), "late");
    assert_eq!(old.wait().code(), Some(0));
}

/// An application that says how often it saw each target.
fn counting() -> (Upstream, Arc<Mutex<HashMap<String, usize>>>) {
    let seen = Arc::<Mutex<HashMap<String, usize>>>::default();
    let counted = Arc::clone(&seen);
    let upstream = Upstream::start(move |mut socket| {
        while let Some(head) = try_read_head(&mut socket) {
            let target = head.split(' ').nth(1).unwrap().to_owned();
            let answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len());
            *counted.lock().unwrap().entry(target).or_default() += 1;
            if socket.write_all(answer.as_bytes()).is_err() {
                break;
            }
        }
        String::new()
    });
    (upstream, seen)
}

/// One request on a connection that may end instead of answering. Nothing of an answer has come then.
fn request(socket: &mut TcpStream, target: &str) -> bool {
    let asked = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut came = Vec::new();
    let is_gone = |error: &std::io::Error| {
        matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
    };
    if let Err(error) = socket.write_all(asked.as_bytes()) {
        assert!(is_gone(&error), "{error}");
        return false;
    }
    let mut buffer = [0; 1_024];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => came.extend_from_slice(&buffer[..count]),
            Err(error) => {
                assert!(is_gone(&error), "{error}");
                break;
            }
        }
        if came.ends_with(format!("\r\n\r\n{target}").as_bytes()) {
            return true;
        }
    }
    assert!(came.is_empty(), "{:?}", String::from_utf8_lossy(&came));
    false
}

#[test]
fn a_request_on_a_kept_connection_is_answered_or_was_never_seen() {
    const HANDOFFS: usize = 5;
    let (application, seen) = counting();
    let place = Place::new(application.address);
    let mut old = place.start(&PATIENT);
    let is_over = AtomicBool::new(false);
    let retried = AtomicUsize::new(0);
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..8 {
            let (is_over, retried, answered, address) =
                (&is_over, &retried, &answered, place.address);
            scope.spawn(move || {
                let connect = || Client::behind_balancer(address).socket;
                let mut socket = connect();
                let mut count = 0;
                let mut is_fresh = true;
                while !is_over.load(Ordering::Relaxed) {
                    let target = format!("/{number}/{count}");
                    count += 1;
                    if request(&mut socket, &target) {
                        answered.fetch_add(1, Ordering::Relaxed);
                        is_fresh = false;
                    } else {
                        assert!(!is_fresh, "the first request of a connection is answered");
                        // Under another name, so that the application knows the two apart.
                        retried.fetch_add(1, Ordering::Relaxed);
                        socket = connect();
                        is_fresh = true;
                        let again = format!("{target}/again");
                        assert!(request(&mut socket, &again), "{again}");
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for _ in 0..HANDOFFS {
            let before = answered.load(Ordering::Relaxed);
            wait_until("requests", || answered.load(Ordering::Relaxed) > before + 100);
            old = place.hand_over(&mut old, &PATIENT);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let seen = seen.lock().unwrap();
    assert!(seen.values().all(|count| *count == 1), "none twice");
    assert_eq!(seen.len(), answered.load(Ordering::Relaxed), "whatever was seen was answered");
    assert!(retried.load(Ordering::Relaxed) > 0, "no connection was kept over a handoff");
}

#[test]
fn no_handshake_is_refused_reset_or_lost_over_five_handoffs() {
    const HANDSHAKES: usize = 200;
    const HANDOFFS: usize = 5;
    const MOST_OPEN: usize = 25;
    // It answers each handshake after a moment, so that some are always under way.
    let application = Upstream::start(|mut socket| {
        let head = read_head(&mut socket);
        // The moment.
        thread::sleep(Duration::from_millis(10));
        socket.write_all(crate::upstream::SWITCHING).unwrap();
        let mut sink = socket.try_clone().unwrap();
        let _ = std::io::copy(&mut socket, &mut sink);
        head
    });
    let place = Place::new(application.address);
    let mut old = place.start(&PATIENT);
    let mut logs = vec![old.access_log.clone()];
    let handoffs = AtomicUsize::new(0);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (handoffs, address) = (&handoffs, place.address);
                scope.spawn(move || {
                    let mut open = VecDeque::new();
                    let mut count = 0;
                    // At least so many, and as long as processes change.
                    while count < HANDSHAKES / 4 || handoffs.load(Ordering::Relaxed) < HANDOFFS {
                        let mut client = Client::behind_balancer(address);
                        client.send(handshake("/ws"));
                        assert_eq!(client.read_response().status, 101);
                        client.echoes();
                        open.push_back(client);
                        count += 1;
                        if open.len() > MOST_OPEN
                            && let Some(mut oldest) = open.pop_front()
                        {
                            oldest.echoes();
                        }
                    }
                    open.iter_mut().for_each(Client::echoes);
                    count
                })
            })
            .collect();
        for _ in 0..HANDOFFS {
            old = place.hand_over(&mut old, &PATIENT);
            logs.push(old.access_log.clone());
            handoffs.fetch_add(1, Ordering::Relaxed);
        }
        let count: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(count >= HANDSHAKES);
        old.wait_for_report("tunnels_open=0");
        wait_until("a line of each", || {
            logs.iter().map(|log| log.all().len()).sum::<usize>() == count
        });
    });
}
