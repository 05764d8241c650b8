//! Each process is killed, stopped or told to stop at each message of a handoff: what that costs is what is documented, and
//! no more.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::relay::{
    BATCH, BYE, COUNTERS, HELLO, LIMITS, LISTENERS, LISTENING, Moment, OFFER, PREPARED, Relay,
    TAKEN, Verdict, YOURS,
};
use super::{Place, has_ended, talk};
use crate::client::Client;
use crate::programs::wait_until;
use crate::proxy::{Elbows, Lines};
use crate::web_socket::{CLOSE, Peer, Tunnels};

/// The messages of a handoff of so many tunnels, in their order, and how many tunnels are in the batches so far.
const MESSAGES: [(Moment, usize); 15] = [
    ((HELLO, 1), 0),
    ((OFFER, 1), 0),
    ((PREPARED, 1), 0),
    ((BATCH, 1), 1),
    ((TAKEN, 1), 1),
    ((YOURS, 1), 1),
    ((BATCH, 2), 3),
    ((TAKEN, 2), 3),
    ((YOURS, 2), 3),
    ((LISTENERS, 1), 3),
    ((COUNTERS, 1), 3),
    ((LIMITS, 1), 3),
    ((LISTENING, 1), 3),
    ((COUNTERS, 2), 3),
    ((BYE, 1), 3),
];
const TUNNELS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Old,
    New,
}

/// What became of the tunnels.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub alive: usize,
    /// Ended with a Close.
    pub closed: usize,
    /// Ended otherwise.
    pub cut: usize,
}

/// A handoff in which something is done to one of the processes at one message, before it arrives.
struct Handoff {
    old: Elbows,
    new: Elbows,
    tunnels: Vec<(Peer, Peer)>,
    application: Tunnels,
    place: Place,
    /// Its path is there as long as it is.
    _relay: Relay,
}

impl Handoff {
    fn with(who: Who, signal: Signal, at: Moment) -> Self {
        let application = Tunnels::start();
        let place = Place::new(application.address);
        let settings = [("DRAIN_PERIOD", "1s"), ("DRAIN_GRACE", "1s"), ("THREADS", "1")];
        let old = place.start(&settings);
        let mut tunnels: Vec<_> = (0..TUNNELS).map(|_| application.open(&old)).collect();
        for tunnel in &mut tunnels {
            talk(tunnel, "before");
        }
        let old_pid = old.pid();
        let new_pid: Arc<Mutex<Option<Pid>>> = Arc::default();
        let known = Arc::clone(&new_pid);
        let logs = Arc::new(Mutex::new((Some(old.log.clone()), None)));
        let both = Arc::clone(&logs);
        let relay = Relay::start(place.socket(), move |moment| {
            if moment == at {
                let pid = match who {
                    Who::Old => old_pid,
                    Who::New => {
                        wait_until("the new process", || known.lock().unwrap().is_some());
                        known.lock().unwrap().unwrap()
                    }
                };
                let told = || {
                    let log = logs.lock().unwrap();
                    let log = if who == Who::Old { &log.0 } else { &log.1 };
                    log.iter().flat_map(Lines::all).filter(|line| is_told(line)).count()
                };
                kill_process(pid, signal).expect("it runs");
                match signal {
                    Signal::TERM => wait_until("it was told", || told() > 0),
                    Signal::KILL => wait_until("its end", || has_ended(pid)),
                    Signal::STOP => {
                        thread::spawn(move || {
                            // Longer than the other one waits for an answer.
                            thread::sleep(Duration::from_millis(1_500));
                            let _ = kill_process(pid, Signal::CONT);
                        });
                    }
                    _ => {}
                }
            }
            Verdict::Pass
        });
        let path = relay.path.to_str().unwrap().to_owned();
        let command = place.command(&[&settings[..], &[("HANDOFF_SOCKET", &path)]].concat());
        let new = Elbows::spawn_unready(command, place.address);
        both.lock().unwrap().1 = Some(new.log.clone());
        *new_pid.lock().unwrap() = Some(new.pid());
        Self { old, new, tunnels, application, place, _relay: relay }
    }

    /// Waits until one of them has ended, and says which is left.
    fn survivor(&mut self) -> Who {
        let mut survivor = Who::New;
        wait_until("one of them ends", || {
            if self.old.has_ended() {
                survivor = Who::New;
                return true;
            }
            survivor = Who::Old;
            self.new.has_ended()
        });
        survivor
    }

    /// Looks at each tunnel.
    fn outcome(&mut self) -> Outcome {
        outcome_of(&mut self.tunnels)
    }

    /// A new connection is served.
    fn serves(&self) {
        let mut client = Client::behind_balancer(self.place.address);
        assert_eq!(client.get("/ping").status, 200);
        drop(self.application.open_at(self.place.address));
    }
}

/// Looks at each of these.
pub fn outcome_of(tunnels: &mut [(Peer, Peer)]) -> Outcome {
    let mut outcome = Outcome::default();
    for (client, application) in tunnels {
        match probe(client, application) {
            Probe::Alive => outcome.alive += 1,
            Probe::Closed => outcome.closed += 1,
            Probe::Cut => outcome.cut += 1,
        }
    }
    outcome
}

/// Whether the line says that an order to stop has come.
fn is_told(line: &str) -> bool {
    line.contains("told to stop") || line.contains("draining ")
}

enum Probe {
    Alive,
    Closed,
    Cut,
}

/// Sends something from the application and sees what the client gets.
fn probe(client: &mut Peer, application: &mut Peer) -> Probe {
    use crate::web_socket::TEXT;
    use std::io::Write as _;
    let _ = application.socket.write_all(&application.frame(0x80 | TEXT, "probe"));
    match client.try_read_frame() {
        Ok(Some(frame)) if frame.opcode == TEXT => {
            assert_eq!(frame.payload, b"probe");
            Probe::Alive
        }
        Ok(Some(frame)) if frame.opcode == CLOSE && frame.code() == Some(1001) => Probe::Closed,
        Ok(Some(frame)) => panic!("{frame:?}"),
        Ok(None) | Err(_) => Probe::Cut,
    }
}

#[test]
fn a_killed_old_process_costs_what_it_had_not_sent() {
    for (at, sent) in MESSAGES {
        let mut handoff = Handoff::with(Who::Old, Signal::KILL, at);
        let code = handoff.old.wait().code();
        // Behind BYE it ends by itself, which may be sooner.
        assert!(code.is_none() || at.0 == BYE && code == Some(0), "{at:?}: {code:?}");
        handoff.new.wait_until_listening();
        let outcome = handoff.outcome();
        // Right behind YOURS the next batch goes.
        let is_as_sent = outcome.alive == sent || (at.0 == YOURS && outcome.alive > sent);
        assert!(is_as_sent && outcome.closed == 0, "{at:?}: {outcome:?}");
        handoff.serves();
    }
}

#[test]
fn a_killed_new_process_costs_what_it_was_given() {
    for (at, sent) in MESSAGES {
        let mut handoff = Handoff::with(Who::New, Signal::KILL, at);
        let (least, most) = match at {
            (HELLO | OFFER | PREPARED, _) | (BATCH, 1) => (0, 0),
            // It said that it could go on with them, and died then: the old one may notice before it gives them.
            (TAKEN, 1) => (0, 1),
            (YOURS, 1) | (BATCH, 2) => (1, 1),
            (TAKEN, 2) => (1, sent),
            _ => (sent, sent),
        };
        handoff.new.wait();
        // Once it was told BYE the old one is on its way out.
        if !matches!(at, (COUNTERS, 2) | (BYE, _)) {
            let outcome = handoff.outcome();
            let is_so = (least..=most).contains(&outcome.cut) && outcome.closed == 0;
            assert!(is_so, "{at:?}: {outcome:?}");
            handoff.serves();
        }
    }
}

#[test]
fn a_process_that_stands_still_costs_nothing() {
    for who in [Who::Old, Who::New] {
        for (at, _) in MESSAGES {
            let mut handoff = Handoff::with(who, Signal::STOP, at);
            let survivor = handoff.survivor();
            let outcome = handoff.outcome();
            assert_eq!(outcome, Outcome { alive: TUNNELS, closed: 0, cut: 0 }, "{who:?} {at:?}");
            handoff.serves();
            if survivor == Who::New {
                assert_eq!(handoff.old.wait().code(), Some(0), "{who:?} {at:?}");
            }
        }
    }
}

#[test]
fn an_old_process_that_is_told_to_stop_lets_its_tunnels_move_or_ends_them_with_a_close() {
    for (at, _) in MESSAGES {
        let mut handoff = Handoff::with(Who::Old, Signal::TERM, at);
        assert_eq!(handoff.old.wait().code(), Some(0), "{at:?}");
        let outcome = handoff.outcome();
        assert_eq!(outcome.cut, 0, "{at:?}");
        // It moves tunnels from PREPARED on.
        let moves = !matches!(at, (HELLO | OFFER | PREPARED, _));
        assert_eq!(outcome.alive, if moves { TUNNELS } else { 0 }, "{at:?}");
    }
}

#[test]
fn a_new_process_that_is_told_to_stop_gives_back_what_it_has() {
    for (at, _) in MESSAGES {
        let mut handoff = Handoff::with(Who::New, Signal::TERM, at);
        assert_eq!(handoff.new.wait().code(), Some(0), "{at:?}");
        let outcome = handoff.outcome();
        assert_eq!(outcome.cut, 0, "{at:?}");
        // It serves once it was told where to listen, and drains then as ever.
        let serves = matches!(at, (COUNTERS | LIMITS | LISTENING | BYE, _));
        assert_eq!(outcome.alive, if serves { 0 } else { TUNNELS }, "{at:?}");
        if !serves {
            handoff.serves();
        }
    }
}
