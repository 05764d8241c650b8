//! A process that stands still in the middle: it is waited for where it has tunnels, and only there.

use std::sync::mpsc;

use rustix::process::Signal;

use super::relay::{BATCH, Moment, Relay, Verdict};
use super::{Place, talk};
use crate::programs::wait_until;
use crate::proxy::Elbows;
use crate::web_socket::{Peer, Tunnels};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Old,
    New,
}

/// A handoff of two tunnels of which one process stands still at a message of the old one.
struct Still {
    application: Tunnels,
    place: Place,
    old: Elbows,
    new: Elbows,
    tunnels: Vec<(Peer, Peer)>,
    _relay: Relay,
}

impl Still {
    fn new_at(moment: Moment) -> Self {
        Self::at(Who::New, moment, &[])
    }

    /// `settings` are those of the new one.
    fn at(who: Who, still: Moment, settings: &[(&str, &str)]) -> Self {
        let application = Tunnels::start();
        let place = Place::new(application.address);
        let old = place.start(&[]);
        let tunnels = (0..2).map(|_| application.open(&old)).collect();
        let (reached, is_there) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        let relay = Relay::start(place.socket(), move |moment| {
            if moment == still {
                reached.send(()).unwrap();
                may_go.recv().unwrap();
            }
            Verdict::Pass
        });
        let path = relay.path.to_str().unwrap();
        let command = place.command(&[settings, &[("HANDOFF_SOCKET", path)]].concat());
        let new = Elbows::spawn_unready(command, place.address);
        is_there.recv().unwrap();
        let process = if who == Who::Old { &old } else { &new };
        process.signal(Signal::STOP);
        go.send(()).unwrap();
        Self { application, place, old, new, tunnels, _relay: relay }
    }

    fn goes_on(&mut self) {
        for tunnel in &mut self.tunnels {
            talk(tunnel, "as if nothing had been");
        }
        talk(&mut self.application.open_at(self.place.address), "new");
    }
}

#[test]
fn one_that_was_given_nothing_is_not_waited_for() {
    let mut still = Still::new_at((BATCH, 1));
    still.old.log.wait_for("aborted why=silence given=0 back=0");
    still.goes_on();
    let new = still.place.hand_over(&mut still.old, &[]);
    still.goes_on();
    // It finds that nothing is its own, and touches nothing.
    still.new.signal(Signal::CONT);
    assert_eq!(still.new.wait().code(), Some(1));
    still.new.log.wait_for("aborted why=silence came=0 back=0");
    still.goes_on();
    drop(new);
}

#[test]
fn one_that_has_tunnels_is_waited_for_and_the_log_names_it() {
    let mut still = Still::new_at((BATCH, 2));
    // The relay is the process that has connected.
    let who = format!("process {} has said nothing for 2 s, and is waited for", std::process::id());
    let line = still.old.log.wait_for(&who);
    assert!(line.contains("it has 1 tunnels"), "{line}");
    let mut other = Elbows::spawn_unready(still.place.command(&[]), still.place.address);
    assert_eq!(other.wait().code(), Some(1));
    other.log.wait_for("busy");
    still.new.signal(Signal::CONT);
    assert_eq!(still.new.wait().code(), Some(1));
    still.old.log.wait_for("aborted why=silence given=1 back=1");
    still.goes_on();
}

#[test]
fn an_old_process_that_is_told_to_stop_while_tunnels_move_drains_when_the_new_one_falls_silent() {
    let mut still = Still::new_at((BATCH, 2));
    still.old.signal(Signal::TERM);
    assert_eq!(still.old.wait().code(), Some(0));
    still.old.log.wait_for("draining");
    // The tunnel that it had not given.
    let lines = still.old.access_log.all();
    assert_eq!(lines.len(), 1, "{lines:#?}");
}

#[test]
fn a_new_process_that_is_told_to_stop_twice_waits_for_nobody() {
    let mut still = Still::at(Who::Old, (BATCH, 2), &[("DRAIN_PERIOD", "1h")]);
    still.new.signal(Signal::TERM);
    still.new.log.wait_for("told to stop while it takes over");
    // The second order counts from a second after the first.
    wait_until("its end", || {
        still.new.has_ended() || {
            still.new.signal(Signal::TERM);
            false
        }
    });
    assert_eq!(still.new.wait().code(), Some(1));
    still.old.signal(Signal::CONT);
    still.old.log.wait_for("aborted why=");
}
