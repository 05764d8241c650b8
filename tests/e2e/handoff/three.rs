//! A process hands over while the one before it still finishes a request, and one of them is killed in the middle: one
//! of those that are left serves, and never two.

use std::io::Write;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};

use super::relay::{BATCH, LISTENERS, LISTENING, Moment, PREPARED, Relay, Verdict, YOURS};
use super::{Place, has_ended};
use crate::client::{Client, handshake};
use crate::pieces::Socket;
use crate::programs::wait_until;
use crate::proxy::Elbows;
use crate::upstream::{SWITCHING, handed_over};
use crate::web_socket::{TEXT, unmasked};

/// What is under way has time to finish.
const SETTINGS: [(&str, &str); 2] = [("DRAIN_PERIOD", "1h"), ("THREADS", "1")];

const BODY: &[u8] = &[b'x'; 300_000];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Second,
    Third,
}

/// Three processes, of which the first still answers a request, and one was killed.
struct Three {
    place: Place,
    sockets: Receiver<(Socket, String)>,
    first: Elbows,
    second: Elbows,
    third: Elbows,
    /// Of the request, and of a tunnel that the second one has.
    clients: [Client; 2],
    upstreams: [Socket; 2],
    /// Its path is there as long as it is.
    _relay: Relay,
}

impl Three {
    /// One is killed before this message of the handoff from the second to the third arrives.
    fn with(who: Who, at: Moment) -> Self {
        let (address, sockets) = handed_over();
        let place = Place::new(address);
        let first = place.start(&SETTINGS);
        let mut client = Client::behind_balancer(place.address);
        client.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
        let (mut upstream, _) = sockets.recv().unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", BODY.len());
        upstream.write_all(head.as_bytes()).unwrap();
        assert_eq!(client.read_head().status, 200);
        let second = place.take_over(&SETTINGS);
        // A tunnel of the second's, which moves.
        let mut tunnel = Client::behind_balancer(place.address);
        tunnel.send(handshake("/tunnel"));
        let (mut tunnel_upstream, _) = sockets.recv().unwrap();
        tunnel_upstream.write_all(SWITCHING).unwrap();
        assert_eq!(tunnel.read_head().status, 101);
        let killed: Arc<Mutex<Option<Pid>>> = Arc::default();
        let known = Arc::clone(&killed);
        let relay = Relay::start(place.socket(), move |moment| {
            if moment == at {
                wait_until("the process", || known.lock().unwrap().is_some());
                let pid = known.lock().unwrap().unwrap();
                kill_process(pid, Signal::KILL).expect("it runs");
                wait_until("its end", || has_ended(pid));
            }
            Verdict::Pass
        });
        let path = relay.path.to_str().unwrap().to_owned();
        let command = place.command(&[&SETTINGS[..], &[("HANDOFF_SOCKET", &path)]].concat());
        let third = Elbows::spawn_unready(command, place.address);
        let pid = if who == Who::Second { second.pid() } else { third.pid() };
        *killed.lock().unwrap() = Some(pid);
        wait_until("the end of the second", || has_ended(pid));
        Self {
            place,
            sockets,
            first,
            second,
            third,
            clients: [client, tunnel],
            upstreams: [upstream, tunnel_upstream],
            _relay: relay,
        }
    }

    /// Connections are answered, so many that two processes would share them.
    fn serves(&mut self) {
        for _ in 0..20 {
            let mut client = Client::behind_balancer(self.place.address);
            client.send("GET /new HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let (mut upstream, _) = self.sockets.recv().unwrap();
            upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
            assert_eq!(client.read_response().text(), "ok");
        }
    }

    /// What the first process still answered is answered whole.
    fn finishes(&mut self) {
        self.upstreams[0].write_all(BODY).unwrap();
        assert!(self.clients[0].read_exact(BODY.len()) == BODY);
    }
}

#[test]
fn the_middle_one_of_three_is_killed_and_the_last_one_serves_alone() {
    for at in [(BATCH, 1), (YOURS, 1), (LISTENERS, 1), (LISTENING, 1)] {
        let mut three = Three::with(Who::Second, at);
        three.third.log.wait_for("listening on");
        three.third.log.wait_for("the process before ended in the middle of it");
        three.serves();
        three.finishes();
        three.upstreams[1].write_all(&unmasked(TEXT, b"after")).unwrap();
        assert_eq!(three.clients[1].read_exact(7), unmasked(TEXT, b"after"), "{at:?}");
        assert_eq!(three.first.wait().code(), Some(0), "{at:?}");
        let first: Vec<_> = three.first.access_log.all();
        assert!(first.iter().all(|line| !line.contains("GET /new ")), "{at:?}: {first:#?}");
        three.third.access_log.wait_until("20 lines", |lines| (lines.len() == 20).then_some(()));
    }
}

#[test]
fn the_middle_one_of_three_is_killed_before_it_moves_anything_and_the_first_one_serves_again() {
    let mut three = Three::with(Who::Second, (PREPARED, 1));
    assert_eq!(three.third.wait().code(), Some(1));
    three.third.log.wait_for("cannot listen there");
    three.serves();
    three.finishes();
    assert!(!three.first.has_ended());
    three.first.access_log.wait_until("21 lines", |lines| (lines.len() == 21).then_some(()));
}

#[test]
fn the_last_one_of_three_is_killed_and_then_the_middle_one_and_the_first_one_serves_again() {
    let mut three = Three::with(Who::Third, (BATCH, 1));
    three.second.log.wait_for("aborted why=ended");
    three.serves();
    three.second.signal(Signal::KILL);
    three.first.log.wait_for("aborted why=ended");
    three.serves();
    three.finishes();
    three.first.access_log.wait_until("21 lines", |lines| (lines.len() == 21).then_some(()));
    assert!(!three.first.has_ended());
}
