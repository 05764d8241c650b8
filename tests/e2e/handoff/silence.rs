//! A new process that stands still in the middle: it is waited for where it has tunnels, and only there.

use std::sync::mpsc;

use rustix::process::Signal;

use super::relay::{BATCH, Moment, Relay, Verdict};
use super::{Place, talk};
use crate::proxy::Elbows;
use crate::web_socket::{Peer, Tunnels};

/// A handoff of two tunnels whose new process stands still at a message of the old one.
struct Still {
    application: Tunnels,
    place: Place,
    old: Elbows,
    new: Elbows,
    tunnels: Vec<(Peer, Peer)>,
    _relay: Relay,
}

impl Still {
    fn at(still: Moment) -> Self {
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
        let command = place.command(&[("HANDOFF_SOCKET", path)]);
        let new = Elbows::spawn_unready(command, place.address);
        is_there.recv().unwrap();
        new.signal(Signal::STOP);
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
    let mut still = Still::at((BATCH, 1));
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
    let mut still = Still::at((BATCH, 2));
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
