//! Handoffs that do not come to pass, in whole or in part: nothing is lost, nothing has two owners, and the log says why.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use elbows::handoff::socket;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use test_support::left_out::left_out;
use test_support::process::open_descriptors;

use super::relay::{
    BATCH, BYE, COUNTERS, HELLO, LIMITS, LISTENERS, LISTENING, Moment, OFFER, PREPARED, Relay,
    TAKEN, Verdict, YOURS,
};
use super::{Place, number, talk};
use crate::client::Client;
use crate::programs::wait_until;
use crate::proxy::Elbows;
use crate::web_socket::{CONTINUATION, Peer, Tunnels, value};

/// A place where a process serves some tunnels.
struct Served {
    application: Tunnels,
    place: Place,
    old: Elbows,
    tunnels: Vec<(Peer, Peer)>,
}

impl Served {
    fn new(tunnels: usize, settings: &[(&str, &str)]) -> Self {
        let application = Tunnels::start();
        let place = Place::new(application.address);
        let old = place.start(settings);
        let tunnels = (0..tunnels).map(|_| application.open(&old)).collect();
        Self { application, place, old, tunnels }
    }

    /// A process that may take over or not.
    fn successor(&self, settings: &[(&str, &str)]) -> Elbows {
        Elbows::spawn_unready(self.place.command(settings), self.place.address)
    }

    /// The process does not take over, and its last line says why.
    fn is_refused(&mut self, mut new: Elbows, why: &str) {
        assert_eq!(new.wait().code(), Some(1));
        new.log.wait_for(why);
        self.goes_on();
    }

    /// All tunnels go on, and new ones are served.
    fn goes_on(&mut self) {
        for tunnel in &mut self.tunnels {
            talk(tunnel, "as if nothing had been");
        }
        talk(&mut self.application.open_at(self.place.address), "new");
    }

    /// Another process takes over everything.
    fn hands_over(&mut self) {
        let new = self.place.hand_over(&mut self.old, &[]);
        let line = new.log.wait_for("handoff from=");
        assert_eq!(number(&line, "refused"), 0, "{line}");
        self.old = new;
        self.goes_on();
    }
}

#[test]
fn of_two_successors_one_takes_over_and_the_other_ends() {
    let mut served = Served::new(3, &[]);
    let (reached, is_there) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let relay = Relay::start(served.place.socket(), move |moment| {
        if moment == (PREPARED, 1) {
            reached.send(()).unwrap();
            may_go.recv().unwrap();
        }
        Verdict::Pass
    });
    let first = served.successor(&[("HANDOFF_SOCKET", relay.path.to_str().unwrap())]);
    is_there.recv().unwrap();
    let second = served.successor(&[]);
    served.is_refused(second, "does not hand over: busy: another process is taking over");
    served.old.log.wait_for("refused why=busy");
    go.send(()).unwrap();
    first.log.wait_for("handoff from=");
    assert_eq!(served.old.wait().code(), Some(0));
    served.goes_on();
}

/// What the new one counted while it had a tunnel, the old one has not seen; and what came with COUNTERS it has.
#[test]
fn what_was_counted_in_the_meantime_comes_back_with_the_tunnels() {
    const FAULT: &str = "continuation_without_start:1";
    let mut served = Served::new(1, &[]);
    let before = served.old.report();
    let (reached, is_there) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let relay = Relay::start(served.place.socket(), move |moment| {
        if moment == (LISTENERS, 1) {
            reached.send(()).unwrap();
            may_go.recv().unwrap();
        }
        Verdict::Pass
    });
    let mut new = served.successor(&[("HANDOFF_SOCKET", relay.path.to_str().unwrap())]);
    is_there.recv().unwrap();
    // A continuation of nothing: it passes, and breaks a rule.
    let (client, application) = &mut served.tunnels[0];
    client.send_frame(CONTINUATION, "of nothing");
    application.expect(CONTINUATION, "of nothing");
    // It may be counted a moment after it has passed.
    let report = new.wait_for_report(&format!("frame_faults={FAULT}"));
    assert_eq!(value(&report, "handed_in"), "1", "{report}");
    new.signal(Signal::TERM);
    new.log.wait_for("told to stop while it takes over");
    go.send(()).unwrap();
    assert_eq!(new.wait().code(), Some(0));
    let report = served.old.wait_for_report("handed_in=2");
    assert_eq!(value(&report, "frame_faults"), FAULT, "{report}");
    // There and back, and each of the two counts its part.
    assert_eq!((number(&report, "handed_out"), number(&report, "handoff_aborted")), (2, 1));
    for name in ["connections", "requests", "tunnels", "probes"] {
        assert_eq!(value(&report, name), value(&before, name), "{name}");
    }
    served.tunnels.clear();
}

/// Who connects and is no elbows, or says nothing, keeps nobody from taking over but for the second that it has.
#[test]
fn strangers_are_refused() {
    let mut served = Served::new(1, &[]);
    for said in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[HELLO], &[0xff; 5_000]] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let socket = socket::connect(&served.place.socket()).unwrap().expect("it listens");
            let connection = socket::Connection::new(socket).unwrap();
            connection.send(said, &[]).await.unwrap();
            let answer = connection.receive().await.unwrap().expect("an answer");
            assert_eq!(answer.bytes[0], 3, "REFUSE");
            assert!(connection.receive().await.unwrap().is_none(), "and nothing else");
        });
    }
    let silent = socket::connect(&served.place.socket()).unwrap().expect("it listens");
    served.old.log.wait_until("four refusals", |lines| {
        (lines.iter().filter(|line| line.contains("refused why=no_hello")).count() == 4)
            .then_some(())
    });
    drop(silent);
    served.hands_over();
}

/// What each message is worth: `true` where the new process serves although it is garbled.
const MESSAGES: [(Moment, bool); 12] = [
    ((HELLO, 1), false),
    ((OFFER, 1), false),
    ((PREPARED, 1), false),
    ((BATCH, 1), false),
    ((TAKEN, 1), false),
    ((YOURS, 1), false),
    ((LISTENERS, 1), false),
    ((COUNTERS, 1), true),
    ((LIMITS, 1), true),
    ((LISTENING, 1), false),
    ((COUNTERS, 2), true),
    ((BYE, 1), true),
];

#[test]
fn a_message_that_is_none_costs_nothing() {
    for verdict in [Verdict::Garble, Verdict::Shorten] {
        for (at, is_new) in MESSAGES {
            // Of these one byte is all there is to say.
            if verdict == Verdict::Shorten && matches!(at.0, PREPARED | LIMITS | LISTENING | BYE) {
                continue;
            }
            let mut served = Served::new(1, &[]);
            let pass = move |moment| if moment == at { verdict } else { Verdict::Pass };
            let relay = Relay::start(served.place.socket(), pass);
            let mut new = served.successor(&[("HANDOFF_SOCKET", relay.path.to_str().unwrap())]);
            // One of them ends, so that no tunnel has two owners.
            let ended = if is_new { served.old.wait() } else { new.wait() };
            assert_eq!(ended.code(), Some(i32::from(!is_new)), "{verdict:?} {at:?}");
            // It ends for what came, and not because time has passed.
            match at.0 {
                _ if is_new => {}
                HELLO => drop(served.old.log.wait_for("refused why=no_hello")),
                OFFER => drop(new.log.wait_for("answers what is no message of a handoff")),
                _ => drop(served.old.log.wait_for("aborted why=malformed")),
            }
            if at == (YOURS, 1) {
                // The one message that gives: who has given does not touch it any more, and who was not told does not either.
                assert!(served.tunnels[0].0.try_read_frame().is_ok_and(|frame| frame.is_none()));
                served.tunnels.clear();
            }
            served.goes_on();
            if !is_new {
                served.hands_over();
            }
        }
    }
}

#[test]
fn sockets_in_each_others_place_are_refused_and_their_tunnels_stay() {
    let settings = [("DRAIN_PERIOD", "1s"), ("DRAIN_GRACE", "1h")];
    let mut served = Served::new(6, &settings);
    let relay = Relay::start(served.place.socket(), |moment| {
        if moment == (BATCH, 2) { Verdict::Swap } else { Verdict::Pass }
    });
    let path = relay.path.to_str().unwrap().to_owned();
    let new = served.successor(&[&settings[..], &[("HANDOFF_SOCKET", &path)]].concat());
    let line = new.log.wait_for("handoff from=");
    assert_eq!((number(&line, "moved"), number(&line, "refused")), (4, 2), "{line}");
    new.log.wait_for("the sockets are not those that the record is of");
    let line = served.old.log.wait_for("handoff to=");
    assert_eq!((number(&line, "moved"), number(&line, "refused")), (4, 2), "{line}");
    let (mut moved, mut told) = (0, 0);
    for (mut client, mut upstream) in served.tunnels.drain(..) {
        upstream.send_frame(1, "to whom it belongs");
        let frame = client.read_frame();
        let close = if frame.code().is_some() {
            Some(frame)
        } else {
            assert_eq!(frame.payload, b"to whom it belongs");
            client.socket.set_read_timeout(Some(Duration::from_millis(1_500))).unwrap();
            client.try_read_frame().ok().flatten()
        };
        match close {
            Some(close) => {
                assert_eq!(close.code(), Some(1001), "{close:?}");
                client.send_close(1001);
                upstream.expect_close(1001);
                upstream.send_close(1001);
                told += 1;
            }
            None => moved += 1,
        }
    }
    assert_eq!((moved, told), (4, 2));
    assert_eq!(served.old.wait().code(), Some(0));
    let lines = served.old.access_log.all();
    assert!(lines.iter().all(|line| line.contains("why=drained")), "{lines:?}");
    assert_eq!(lines.len(), 2);
}

/// A process that may open so few files from its start on.
fn with_few_files(place: &Place, most: usize) -> Elbows {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {most} && exec \"$0\""), env!("CARGO_BIN_EXE_elbows")]);
    let (mut limited, _) = Elbows::prepare(command, place.upstream, &[]);
    limited.env("LISTEN_ON", place.address.to_string()).env("HANDOFF_SOCKET", place.socket());
    Elbows::spawn_unready(limited, place.address)
}

#[test]
fn a_process_that_may_open_too_few_files_is_refused() {
    let mut served = Served::new(20, &[]);
    let new = with_few_files(&served.place, 200);
    served.is_refused(new, "does not hand over: descriptors: this process may open too few files");
    served.old.log.wait_for("refused why=descriptors");
    // Twice as many as there are tunnels, and 256, are enough.
    let new = with_few_files(&served.place, 400);
    new.log.wait_for("handoff from=");
    assert_eq!(served.old.wait().code(), Some(0));
    served.goes_on();
}

/// Lets a process open so many files more, or as many as this one may.
fn limit_files(pid: Pid, more: Option<usize>) {
    let open = open_descriptors(pid);
    let free = |limit: usize| limit - open.iter().filter(|number| **number < limit).count();
    let own = rustix::process::getrlimit(Resource::Nofile);
    let current = more.map_or(own.current, |more| {
        (0..100_000).find(|limit| free(*limit) == more).map(|limit| limit as u64)
    });
    prlimit(Some(pid), Resource::Nofile, Rlimit { current, maximum: own.maximum }).unwrap();
}

/// A handoff to a process that can open only so many more files from one message on, until another.
fn short_of_files(
    served: &Served,
    more: usize,
    [from, to]: [Moment; 2],
    settings: &[(&str, &str)],
) -> Elbows {
    let pid: Arc<Mutex<Option<Pid>>> = Arc::default();
    let known = Arc::clone(&pid);
    let relay = Relay::start(served.place.socket(), move |moment| {
        let pid = || {
            wait_until("the new process", || known.lock().unwrap().is_some());
            known.lock().unwrap().unwrap()
        };
        if moment == from {
            limit_files(pid(), Some(more));
        } else if moment == to {
            limit_files(pid(), None);
        }
        Verdict::Pass
    });
    let path = relay.path.to_str().unwrap().to_owned();
    let new = served.successor(&[settings, &[("HANDOFF_SOCKET", &path)]].concat());
    *pid.lock().unwrap() = Some(new.pid());
    new.log.wait_for("handoff from=");
    new
}

#[test]
fn tunnels_that_a_process_has_no_descriptors_for_stay() {
    let settings = [("DRAIN_PERIOD", "500ms"), ("DRAIN_GRACE", "1h")];
    let mut served = Served::new(17, &settings);
    let new = short_of_files(&served, 11, [(BATCH, 2), (TAKEN, 2)], &settings);
    let line = new.log.wait_for("handoff from=");
    // Two for each, beside what the process opens for itself meanwhile.
    let (moved, refused) = (number(&line, "moved"), number(&line, "refused"));
    assert!(moved > 1 && refused > 1 && moved + refused == 17, "{line}");
    new.log.wait_for("this process may not open so many files");
    let mut ended = 0;
    for (client, upstream) in &mut served.tunnels {
        client.socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        if let Ok(Some(close)) = client.try_read_frame() {
            assert_eq!(close.code(), Some(1001), "{close:?}");
            client.send_close(1001);
            upstream.expect_close(1001);
            upstream.send_close(1001);
            ended += 1;
        }
    }
    assert_eq!(ended, refused);
    assert_eq!(served.old.wait().code(), Some(0));
    served.old.log.wait_for(&format!("drained={refused} "));
}

#[test]
fn a_process_that_has_no_descriptors_for_listeners_gives_everything_back() {
    let mut served = Served::new(3, &[]);
    let new = short_of_files(&served, 1, [(LISTENERS, 1), (BYE, 1)], &[]);
    served.is_refused(new, "aborted why=cannot_listen");
    served.old.log.wait_for("aborted why=cannot_listen");
    served.hands_over();
}

#[test]
fn a_drain_that_still_accepts_is_taken_over_with_the_time_that_it_has_left() {
    let settings = [("DRAIN_DELAY", "3s"), ("DRAIN_PERIOD", "0s"), ("DRAIN_GRACE", "1h")];
    let mut served = Served::new(1, &settings);
    let told = Instant::now();
    served.old.drain();
    // The new one's own setting is for its own orders.
    let later = [("DRAIN_DELAY", "1h"), settings[1], settings[2]];
    let mut new = served.place.hand_over(&mut served.old, &later);
    new.log.wait_for("draining");
    assert_eq!(Client::plain(served.place.address).get("/ping").status, 503);
    served.goes_on();
    let (client, upstream) = &mut served.tunnels[0];
    client.expect_close(1001);
    let after = told.elapsed();
    assert!(after >= Duration::from_millis(2_900), "{after:?}");
    client.send_close(1001);
    upstream.expect_close(1001);
    upstream.send_close(1001);
    served.tunnels.clear();
    assert_eq!(new.wait().code(), Some(0));
}

#[test]
fn a_drain_that_sends_closes_is_not_taken_over() {
    let mut served = Served::new(1, &[("DRAIN_PERIOD", "1h"), ("DRAIN_GRACE", "1h")]);
    served.old.drain();
    served.old.wait_until_refused();
    let mut new = served.successor(&[]);
    assert_eq!(new.wait().code(), Some(1));
    new.log.wait_for("does not hand over: draining: it is ending its connections");
    talk(&mut served.tunnels[0], "still here");
}

/// The process that serves stands still, and so many wait for it already that the kernel takes no other one.
#[test]
fn a_process_that_stands_still_is_told_not_to_answer() {
    let mut served = Served::new(1, &[]);
    served.old.signal(Signal::STOP);
    let mut waiting = Vec::new();
    let fault = loop {
        match socket::connect(&served.place.socket()) {
            Ok(socket) => waiting.push(socket.expect("it listens")),
            Err(fault) => break fault,
        }
        assert!(waiting.len() < 1_000);
    };
    assert_eq!(fault.kind(), std::io::ErrorKind::WouldBlock);
    let mut new = served.successor(&[]);
    assert_eq!(new.wait().code(), Some(1));
    new.log.wait_for("HANDOFF_SOCKET: the process that serves does not answer");
    drop(waiting);
    served.old.signal(Signal::CONT);
    served.hands_over();
}

#[test]
fn what_a_dead_process_left_is_replaced_and_what_is_no_socket_is_not() {
    let mut served = Served::new(0, &[]);
    served.old.signal(Signal::KILL);
    served.old.wait();
    assert!(served.place.socket().exists());
    served.old = served.place.start(&[]);
    served.tunnels.push(served.application.open(&served.old));
    served.hands_over();
    served.old.signal(Signal::KILL);
    served.old.wait();
    fs::remove_file(served.place.socket()).unwrap();
    fs::write(served.place.socket(), "somebody else's").unwrap();
    let mut new = served.successor(&[]);
    assert_ne!(new.wait().code(), Some(0));
    new.log.wait_for("HANDOFF_SOCKET");
    assert_eq!(fs::read_to_string(served.place.socket()).unwrap(), "somebody else's");
}

#[test]
fn a_process_that_hands_over_nothing_keeps_its_ports() {
    let mut served = Served::new(1, &[("HANDOFF_SOCKET", "off")]);
    let new = served.successor(&[]);
    served.is_refused(new, "Address already in use");
}

/// Which user of a machine may be anybody.
pub const SOMEBODY: u32 = 54_321;

/// A copy of the binary that everybody may run, to be run as somebody else.
pub fn as_somebody(directory: &std::path::Path) -> Option<Command> {
    let binary = directory.join("elbows");
    if !binary.exists() {
        fs::copy(env!("CARGO_BIN_EXE_elbows"), &binary).unwrap();
    }
    let mut command = Command::new("setpriv");
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args([
        &format!("--reuid={SOMEBODY}"),
        &format!("--regid={SOMEBODY}"),
        "--clear-groups",
    ]);
    let allowed =
        Command::new("setpriv").args(command.get_args()).arg("true").stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        left_out("whoever runs this may not become another user");
        return None;
    }
    command.arg(binary);
    Some(command)
}

/// The process of another user that gets as far as the socket, in both directions.
#[test]
fn a_process_of_another_user_gets_nothing_and_gives_nothing() {
    let mut served = Served::new(1, &[]);
    let place = &served.place;
    let directory = tempfile::Builder::new().prefix("elbows").tempdir_in("/tmp").unwrap();
    let open = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open(directory.path(), 0o755);
    let Some(command) = as_somebody(directory.path()) else { return };
    let settings = |command: Command, socket: &std::path::Path| {
        let (mut command, _) = Elbows::prepare(command, place.upstream, &[]);
        command.env("LISTEN_ON", place.address.to_string()).env("HANDOFF_SOCKET", socket);
        command
    };
    // The new one is somebody else's. In a directory of root it could not listen itself, and does not try to take over.
    open(place.directory.path(), 0o755);
    let socket = place.socket();
    let mut check = settings(command, &socket);
    assert_eq!(check.arg("check").output().unwrap().status.code(), Some(78));
    let command = as_somebody(directory.path()).expect("as before");
    let mut new = Elbows::spawn_unready(settings(command, &socket), place.address);
    assert_eq!(new.wait().code(), Some(78));
    new.log
        .wait_for(&format!(": uid {SOMEBODY} may not write to this directory: Permission denied"));
    // In one of its own it first may not connect, and then it may.
    chown(place.directory.path(), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    let command = as_somebody(directory.path()).expect("as before");
    let mut new = Elbows::spawn_unready(settings(command, &socket), place.address);
    assert_eq!(new.wait().code(), Some(1));
    new.log.wait_for("Permission denied");
    open(&socket, 0o666);
    let command = as_somebody(directory.path()).expect("as before");
    let mut new = Elbows::spawn_unready(settings(command, &socket), place.address);
    assert_eq!(new.wait().code(), Some(1));
    new.log.wait_for("the process that listens at HANDOFF_SOCKET is not of the same user");
    served.old.log.wait_for("a process of another user wanted to take over");
    served.goes_on();
    drop(served);

    // The old one is.
    let application = Tunnels::start();
    let place = Place::new(application.address);
    chown(place.directory.path(), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    let command = as_somebody(directory.path()).expect("as before");
    let (mut command, _) = Elbows::prepare(command, place.upstream, &[]);
    command.env("LISTEN_ON", place.address.to_string()).env("HANDOFF_SOCKET", place.socket());
    let old = Elbows::spawn(command, place.address);
    let mut tunnel = application.open(&old);
    chown(place.directory.path(), Some(0), Some(0)).unwrap();
    let mut new = Elbows::spawn_unready(place.command(&[]), place.address);
    assert_eq!(new.wait().code(), Some(1));
    new.log.wait_for("the process that listens at HANDOFF_SOCKET is not of the same user");
    talk(&mut tunnel, "as if nothing had been");
}
