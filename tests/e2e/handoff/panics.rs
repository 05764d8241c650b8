//! A panic in the middle of a handoff. That of a worker ends its process, which costs what the end of a process costs;
//! that of the conversation costs no tunnel.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::faults::{Outcome, outcome_of};
use super::relay::{BATCH, Relay, TAKEN, Verdict};
use super::{Place, has_ended, talk};
use crate::client::{Client, handshake};
use crate::mistakes::{self, TAKES_OUT};
use crate::programs::wait_until;
use crate::proxy::Elbows;
use crate::web_socket::{Asked, Peer, Tunnels};

const TAKES_IN: &str = "tunnels of another process came";

/// What control says when the third batch is taken, and the fourth is under way.
const HEARS_TAKEN: &str = "Taken(Taken { number: 2, refused: [] })";

/// What control says when the new process listens: that hears nothing of it.
const HEARS_LISTENING: &str = "Listening";

/// What control says when the new process serves, and hears the last that it needs for that.
const HEARS_LIMITS: &str = "Limits";

/// How what control says of a batch begins. The fifth is the first that comes late.
const HEARS_ANY_TAKEN: &str = "Taken(Taken";
const HEARS_YOURS: &str = "Yours";

/// What control says before its last message: the new process has listened for a while.
const SAYS_BYE: &str = "Bye";

/// No mistake.
const NEVER: (usize, &str) = (0, "never");

/// They go in these batches. The third and the fourth are under way at once.
const BATCHES: [usize; 4] = [1, 16, 64, 19];
const TUNNELS: usize = 100;

/// A handoff of that many.
struct Handoff {
    application: Tunnels,
    place: Place,
    old: Elbows,
    new: Elbows,
    tunnels: Vec<(Peer, Peer)>,
    /// How many batches were sent to the new process.
    batches: Arc<AtomicUsize>,
    /// Its path is there as long as it is.
    _relay: Relay,
}

impl Handoff {
    /// `of_old` and `of_new` say when they panic. An old one whose worker does hears nothing of its third batch until it
    /// has ended.
    fn with(of_old: (usize, &str), of_new: (usize, &str)) -> Self {
        Self::after(of_old, of_new, |_, _| ()).0
    }

    /// The same after something else has been begun with the old one.
    fn after<T>(
        of_old: (usize, &str),
        of_new: (usize, &str),
        begin: impl FnOnce(&Tunnels, &Place) -> T,
    ) -> (Self, T) {
        let application = Tunnels::start();
        let place = Place::new(application.address);
        let process = |socket: &Path, panics: (usize, &str)| {
            let mut command = place.command_of(mistakes::command(&[panics]), &[("THREADS", "1")]);
            command.env("HANDOFF_SOCKET", socket);
            Elbows::spawn_unready(command, place.address)
        };
        let mut old = process(&place.socket(), of_old);
        old.wait_until_listening();
        let mut tunnels: Vec<_> = (0..TUNNELS).map(|_| application.open(&old)).collect();
        for tunnel in &mut tunnels {
            talk(tunnel, "before");
        }
        let old_pid = old.pid();
        let is_to_wait = of_old.1 == TAKES_OUT;
        let batches = Arc::<AtomicUsize>::default();
        let of_relay = Arc::clone(&batches);
        let relay = Relay::start(place.socket(), move |moment| {
            if moment.0 == BATCH {
                of_relay.fetch_add(1, Ordering::Relaxed);
            }
            if is_to_wait && moment == (TAKEN, 3) {
                wait_until("the end of the old process", || has_ended(old_pid));
            }
            Verdict::Pass
        });
        let other = begin(&application, &place);
        let new = process(&relay.path, of_new);
        (Self { application, place, old, new, tunnels, batches, _relay: relay }, other)
    }

    /// What is left of the tunnels, and a new one opens.
    fn leaves(&mut self, alive: usize) {
        let outcome = outcome_of(&mut self.tunnels);
        assert_eq!(outcome, Outcome { alive, closed: 0, cut: TUNNELS - alive });
        talk(&mut self.application.open_at(self.place.address), "new");
    }
}

fn says_that_it_panicked(process: &mut Elbows) {
    assert_eq!(process.wait().code(), Some(1));
    process.log.wait_for("a mistake of elbows, please report it: panic in thread worker-0");
    process.log.wait_for("elbows: a worker died");
}

#[test]
fn a_worker_of_the_old_process_panics_and_what_was_sent_goes_on_in_the_new_one() {
    for time in [1, 2, 4] {
        let mut handoff = Handoff::with((time, TAKES_OUT), NEVER);
        says_that_it_panicked(&mut handoff.old);
        handoff.new.log.wait_for("listening on");
        handoff.new.log.wait_for("the process before ended in the middle of it");
        // Before the worker died with the last one, the one before it was sent, or was just about to be.
        let batches = handoff.batches.load(Ordering::Relaxed);
        assert!((time.max(2) - 2..time).contains(&batches), "{batches} before {time}");
        let told = "this process ends while 64 tunnels are on their way";
        let is_told = handoff.old.log.all().iter().any(|line| line.contains(told));
        assert_eq!(is_told, time == 4);
        handoff.leaves(BATCHES[..batches].iter().sum());
    }
}

#[test]
fn a_worker_of_the_new_process_panics_and_what_was_not_given_stays_in_the_old_one() {
    for (time, given) in [(1, 1), (2, 17)] {
        let mut handoff = Handoff::with(NEVER, (time, TAKES_IN));
        says_that_it_panicked(&mut handoff.new);
        handoff.old.log.wait_for(&format!("aborted why=ended given={given} back=0"));
        handoff.leaves(TUNNELS - given);
    }
}

#[test]
fn the_conversation_of_the_old_process_panics_and_all_that_has_moved_comes_back() {
    for says in [HEARS_TAKEN, HEARS_LISTENING] {
        let mut handoff = Handoff::with((1, says), NEVER);
        handoff.old.log.wait_for("a mistake of elbows, please report it: panic in thread");
        assert_eq!(handoff.new.wait().code(), Some(1), "{says}");
        handoff.old.log.wait_for("aborted why=malformed");
        handoff.new.log.wait_for("aborted why=malformed");
        handoff.leaves(TUNNELS);
        assert!(!handoff.old.has_ended());
    }
}

#[test]
fn the_old_process_panics_while_it_finishes_and_does_not_listen_again() {
    let mut handoff = Handoff::with((1, SAYS_BYE), NEVER);
    handoff.old.log.wait_for("a mistake of elbows, please report it: panic in thread");
    assert_eq!(handoff.old.wait().code(), Some(0));
    handoff.new.log.wait_for("handoff from=");
    handoff.leaves(TUNNELS);
}

/// A handshake that is not answered keeps the old process from ending.
fn begin(application: &Tunnels, place: &Place) -> (Client, Asked) {
    let mut client = Client::behind_balancer(place.address);
    client.send(handshake("/late"));
    (client, application.asked())
}

/// It is answered, and is a tunnel.
fn open((mut client, asked): (Client, Asked)) -> (Peer, Peer) {
    let upstream = asked.accept_with(Vec::new());
    assert_eq!(client.read_head().status, 101);
    (Peer::client(client), upstream)
}

#[test]
fn the_new_process_panics_when_it_serves_and_the_old_one_does_not_listen_again() {
    let (mut handoff, late) = Handoff::after(NEVER, (1, HEARS_LIMITS), begin);
    handoff.new.log.wait_for("a mistake of elbows, please report it: panic in thread");
    let line = handoff.old.log.wait_for("handoff to=");
    assert!(line.contains("moved=100"), "{line}");
    handoff.leaves(TUNNELS);
    talk(&mut open(late), "late");
    assert_eq!(handoff.old.wait().code(), Some(0));
    assert!(!handoff.new.has_ended());
}

#[test]
fn the_old_process_panics_while_a_late_tunnel_moves_and_drains_it() {
    let (mut handoff, late) = Handoff::after((5, HEARS_ANY_TAKEN), NEVER, begin);
    handoff.new.log.wait_for("listening on");
    let mut late = open(late);
    handoff.old.log.wait_for("a mistake of elbows, please report it: panic in thread");
    // Who else had it would not read this Close alone.
    late.0.expect_close(1001);
    late.0.send_close(1001);
    assert_eq!(handoff.old.wait().code(), Some(0));
    handoff.old.access_log.wait_for("/late");
    handoff.leaves(TUNNELS);
    let lines = handoff.new.access_log.all();
    assert!(!lines.iter().any(|line| line.contains("/late")), "{lines:#?}");
}

#[test]
fn the_new_process_panics_when_it_is_given_a_late_tunnel_and_goes_on_with_it() {
    let (mut handoff, late) = Handoff::after(NEVER, (5, HEARS_YOURS), begin);
    handoff.new.log.wait_for("listening on");
    let mut late = open(late);
    assert_eq!(handoff.old.wait().code(), Some(0));
    handoff.new.log.wait_for("a mistake of elbows, please report it: panic in thread");
    for number in 0..20 {
        talk(&mut late, format!("late {number}"));
    }
    late.0.send_close(4001);
    late.1.expect_close(4001);
    late.1.send_close(4001);
    late.0.expect_close(4001);
    handoff.new.access_log.wait_for("/late");
    let lines = handoff.old.access_log.all();
    assert!(!lines.iter().any(|line| line.contains("/late")), "{lines:#?}");
    handoff.leaves(TUNNELS);
}
