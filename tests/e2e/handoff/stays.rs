//! A process that has handed over and stays, for a supervisor that starts again whatever has ended.

use std::io::{Error, ErrorKind, Write};
use std::net::TcpStream;

use rustix::process::Signal;

use super::{Place, number, talk};
use crate::client::Client;
use crate::programs::wait_until;
use crate::proxy::{Elbows, PATIENCE};
use crate::upstream::handed_over;
use crate::web_socket::Tunnels;

const STAYS: [(&str, &str); 1] = [("HANDOFF_STAY", "on")];

/// Takes over and waits until the process before is idle.
fn take_over(place: &Place, old: &Elbows) -> Elbows {
    let new = place.take_over(&STAYS);
    old.log.wait_for("stays idle until it is told to stop");
    new.log.wait_for("handoff from=");
    new
}

#[test]
fn a_process_that_stays_has_nothing_and_is_in_nobodys_way() {
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let mut first = place.start(&STAYS);
    let mut tunnel = application.open(&first);
    let mut second = take_over(&place, &first);
    talk(&mut tunnel, "second");
    talk(&mut application.open(&second), "new");
    let report = first.wait_for_report("open=0");
    assert_eq!(number(&report, "tunnels_open"), 0);
    // Each of the two containers of a pod is replaced in turn: the idle one first, by one that takes over.
    let mut third = take_over(&place, &second);
    talk(&mut tunnel, "third");
    assert!(!first.has_ended() && !second.has_ended());
    for idle in [&mut first, &mut second] {
        idle.signal(Signal::TERM);
        assert_eq!(idle.wait().code(), Some(0));
    }
    talk(&mut tunnel, "still there");
    // A port that an idle process had kept would still take connections, until its queue is full.
    let fourth = take_over(&place, &third);
    fourth.signal(Signal::KILL);
    let is_refused = |error: Error| error.kind() == ErrorKind::ConnectionRefused;
    wait_until("nobody listens", || {
        TcpStream::connect_timeout(&place.address, PATIENCE).is_err_and(is_refused)
    });
    assert!(!third.has_ended());
    // Nor is it in the way of one that is started anew.
    let fifth = place.start(&STAYS);
    talk(&mut application.open(&fifth), "anew");
    third.signal(Signal::TERM);
    assert_eq!(third.wait().code(), Some(0));
}

#[test]
fn one_that_is_told_to_stop_while_it_finishes_does_not_stay() {
    let (application, requests) = handed_over();
    let place = Place::new(application);
    let settings = [STAYS[0], ("DRAIN_PERIOD", "1h")];
    let mut old = place.start(&settings);
    let mut client = Client::behind_balancer(place.address);
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    let (mut upstream, _) = requests.recv().unwrap();
    let _new = place.take_over(&settings);
    old.signal(Signal::TERM);
    old.log.wait_for("told to stop while tunnels move");
    upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(client.read_response().status, 200);
    assert_eq!(old.wait().code(), Some(0));
}
