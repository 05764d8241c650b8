//! A worker panics in the middle of a handoff: its process ends, and that costs what the end of a process costs.
//!
//! No peer can make a worker panic that is known of, and elbows has nothing that does it for a test. So what runs here is not
//! the binary but this one, which starts elbows as the binary does and listens to what it logs: a worker that says what
//! is waited for panics while it says so, on its thread and in the middle of its work.

use std::env;
use std::io;
use std::path::Path;
use std::process::{Command, exit};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use clap::Parser as _;
use elbows::access_log::AccessLog;
use elbows::config::{Config, Settings};
use elbows::control::{self, Activation, Start};
use elbows::line_writer::Patient;
use elbows::notify::Notify;
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, fmt};

use super::faults::{Outcome, outcome_of};
use super::relay::{Relay, TAKEN, Verdict};
use super::{Place, has_ended, talk};
use crate::client::{Client, handshake};
use crate::programs::wait_until;
use crate::proxy::Elbows;
use crate::web_socket::{Peer, Tunnels};

/// What is not the test but the process, where it is set: what its worker says when it panics, and which time it says so.
const PANICS: &str = "ELBOWS_TEST_PANICS";

const TAKES_OUT: &str = "tunnels were taken out for another process";
const TAKES_IN: &str = "tunnels of another process came";

/// What control says when the third batch is taken, and the fourth is under way.
const HEARS_TAKEN: &str = "Taken(Taken { number: 2, refused: [] })";

/// What control says when the new process listens: that hears nothing of it.
const HEARS_LISTENING: &str = "Listening";

/// What control says when the new process serves, and hears the last that it needs for that.
const HEARS_LIMITS: &str = "Limits";

/// What control says before its last message: the new process has listened for a while.
const SAYS_BYE: &str = "Bye";

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
}

/// Panics where a worker says something.
struct Panics {
    at: String,
    time: usize,
    times: AtomicUsize,
}

impl<S: tracing::Subscriber> Layer<S> for Panics {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let is_worker = thread::current().name().is_some_and(|name| name.starts_with("worker-"));
        let is_of_worker = self.at == TAKES_OUT || self.at == TAKES_IN;
        if (is_worker || !is_of_worker) && message.0 == self.at {
            let time = self.times.fetch_add(1, Ordering::Relaxed) + 1;
            assert!(time != self.time, "a mistake that a test makes");
        }
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// Not a test but elbows, as its binary starts it.
#[test]
fn program() {
    let Ok(panics) = env::var(PANICS) else { return };
    let (time, at) = panics.split_once(' ').unwrap();
    let panics =
        Panics { at: at.to_owned(), time: time.parse().unwrap(), times: AtomicUsize::new(0) };
    tracing_subscriber::registry()
        .with(fmt::layer().with_writer(io::stderr).with_ansi(false))
        .with(panics)
        .init();
    elbows::panics::install();
    let config = Config::from_settings(&Cli::parse_from(["elbows"]).settings).unwrap();
    let activation = Activation::from_environment(&config).unwrap();
    let notify = Notify::from_environment().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_sender, mut orders) = mpsc::channel(1);
    let start = runtime.block_on(Start::new(&config, activation, &mut orders)).unwrap();
    let (access_log, _writer) = AccessLog::start(&config, Patient(io::stdout())).unwrap();
    let ended = runtime.block_on(control::run(config, start, access_log, orders, notify));
    runtime.shutdown_background();
    if let Err(error) = ended {
        eprintln!("elbows: {error}");
        exit(1);
    }
}

/// They go in batches of 1, 16, 64 and 19. The third and the fourth are under way at once.
const TUNNELS: usize = 100;

/// A handoff of that many.
struct Handoff {
    application: Tunnels,
    place: Place,
    old: Elbows,
    new: Elbows,
    tunnels: Vec<(Peer, Peer)>,
    /// Its path is there as long as it is.
    _relay: Relay,
}

impl Handoff {
    /// `of_old` and `of_new` say when their workers panic. The old one hears nothing of its third batch until it has ended.
    fn with(of_old: &str, of_new: &str) -> Self {
        Self::after(of_old, of_new, |_, _| ()).0
    }

    /// The same after something else has been begun with the old one.
    fn after<T>(
        of_old: &str,
        of_new: &str,
        begin: impl FnOnce(&Tunnels, &Place) -> T,
    ) -> (Self, T) {
        let application = Tunnels::start();
        let place = Place::new(application.address);
        let process = |socket: &Path, panics: &str| {
            let mut own = Command::new(env::current_exe().unwrap());
            own.args(["--exact", "handoff::panics::program", "--nocapture", "--test-threads=1"]);
            own.env_clear();
            let mut command = place.command_of(own, &[("THREADS", "1")]);
            command.env("HANDOFF_SOCKET", socket).env(PANICS, panics);
            Elbows::spawn_unready(command, place.address)
        };
        let mut old = process(&place.socket(), of_old);
        old.wait_until_listening();
        let mut tunnels: Vec<_> = (0..TUNNELS).map(|_| application.open(&old)).collect();
        for tunnel in &mut tunnels {
            talk(tunnel, "before");
        }
        let old_pid = old.pid();
        let is_to_wait = of_old.ends_with(TAKES_OUT);
        let relay = Relay::start(place.socket(), move |moment| {
            if is_to_wait && moment == (TAKEN, 3) {
                wait_until("the end of the old process", || has_ended(old_pid));
            }
            Verdict::Pass
        });
        let begun = begin(&application, &place);
        let new = process(&relay.path, of_new);
        (Self { application, place, old, new, tunnels, _relay: relay }, begun)
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
    for (time, sent, on_their_way) in [(1, 0, 0), (2, 1, 0), (4, 81, 64)] {
        let mut handoff = Handoff::with(&format!("{time} {TAKES_OUT}"), "0 never");
        says_that_it_panicked(&mut handoff.old);
        let told = format!("this process ends while {on_their_way} tunnels are on their way");
        assert_eq!(handoff.old.log.all().iter().any(|line| line.contains(&told)), sent > 1);
        handoff.new.log.wait_for("listening on");
        handoff.new.log.wait_for("the process before ended in the middle of it");
        handoff.leaves(sent);
    }
}

#[test]
fn a_worker_of_the_new_process_panics_and_what_was_not_given_stays_in_the_old_one() {
    for (time, given) in [(1, 1), (2, 17)] {
        let mut handoff = Handoff::with("0 never", &format!("{time} {TAKES_IN}"));
        says_that_it_panicked(&mut handoff.new);
        handoff.old.log.wait_for(&format!("aborted why=ended given={given} back=0"));
        handoff.leaves(TUNNELS - given);
    }
}

#[test]
fn the_conversation_of_the_old_process_panics_and_all_that_has_moved_comes_back() {
    for says in [HEARS_TAKEN, HEARS_LISTENING] {
        let mut handoff = Handoff::with(&format!("1 {says}"), "0 never");
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
    let mut handoff = Handoff::with(&format!("1 {SAYS_BYE}"), "0 never");
    handoff.old.log.wait_for("a mistake of elbows, please report it: panic in thread");
    assert_eq!(handoff.old.wait().code(), Some(0));
    handoff.new.log.wait_for("the process before ended in the middle of it");
    handoff.leaves(TUNNELS);
}

#[test]
fn the_new_process_panics_when_it_serves_and_the_old_one_does_not_listen_again() {
    // A handshake that is not answered keeps the old one from ending.
    let handshake = |application: &Tunnels, place: &Place| {
        let mut client = Client::behind_balancer(place.address);
        client.send(handshake("/late"));
        (client, application.asked())
    };
    let (mut handoff, (mut client, asked)) =
        Handoff::after("0 never", &format!("1 {HEARS_LIMITS}"), handshake);
    handoff.new.log.wait_for("a mistake of elbows, please report it: panic in thread");
    let line = handoff.old.log.wait_for("handoff to=");
    assert!(line.contains("moved=100"), "{line}");
    handoff.leaves(TUNNELS);
    let upstream = asked.accept_with(Vec::new());
    assert_eq!(client.read_head().status, 101);
    talk(&mut (Peer::client(client), upstream), "late");
    assert_eq!(handoff.old.wait().code(), Some(0));
    assert!(!handoff.new.has_ended());
}
