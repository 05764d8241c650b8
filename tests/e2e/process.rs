//! The process: descriptors, memory, signals, PID 1.

use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use test_support::left_out::left_out;
use test_support::process::{cpu_ticks, memory, open_descriptors, raise_descriptor_limit};

use crate::client::{Client, handshake};
use crate::programs::wait_until;
use crate::proxy::{Elbows, PATIENCE};
use crate::upstream::Upstream;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// How many of the descriptors under `limit` are free. Those above were open before there was a limit.
fn free_descriptors(pid: Pid, limit: usize) -> usize {
    limit - open_descriptors(pid).into_iter().filter(|number| *number < limit).count()
}

/// elbows that may open so many descriptors.
fn with_descriptors(limit: usize, upstream: &Upstream, settings: &[(&str, &str)]) -> Elbows {
    let mut shell = Command::new("/bin/sh");
    shell
        .env_clear()
        .args(["-c", &format!("ulimit -n {limit}; exec \"$0\"")])
        .arg(env!("CARGO_BIN_EXE_elbows"));
    let (mut command, address) = Elbows::prepare(shell, upstream.address, settings);
    command.env("THREADS", "2");
    Elbows::spawn(command, address)
}

/// Silent clients take one descriptor each, until there is one for the next client and none for more.
fn crowd_out(elbows: &Elbows, limit: usize) -> Vec<TcpStream> {
    let free = || free_descriptors(elbows.pid(), limit);
    let mut silent = Vec::new();
    while free() > 1 {
        let before = free();
        silent.push(TcpStream::connect(elbows.address).unwrap());
        wait_until("it is accepted", || free() < before);
    }
    assert_eq!(free(), 1);
    silent
}

fn accept_pauses(report: &str) -> u64 {
    let (_, rest) = report.split_once("accept_pauses=").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn out_of_descriptors_pauses_accepting_and_nothing_else() {
    let upstream = Upstream::echo();
    let elbows = with_descriptors(64, &upstream, &[]);
    let mut tunnels: Vec<_> = (0..5).map(|_| Client::tunnel(&elbows)).collect();
    let crowd: Vec<_> = (0..100).map(|_| TcpStream::connect(elbows.address).unwrap()).collect();
    elbows.log.wait_for("accepting pauses");

    // Ten pauses are a second in which it had nothing to do.
    let start = Instant::now();
    let (pauses, before) = (accept_pauses(&elbows.report()), cpu_ticks(elbows.pid()));
    while accept_pauses(&elbows.report()) < pauses + 10 {
        tunnels.iter_mut().for_each(Client::echoes);
        assert!(start.elapsed() < PATIENCE, "accepting does not try again");
        // Nothing else is to be seen of a pause; asking all the time would cost the time that is measured.
        thread::sleep(Duration::from_millis(50));
    }
    let spent = cpu_ticks(elbows.pid()) - before;
    assert!(spent < 30, "{spent} ticks while accepting paused");
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());

    drop(crowd);
    elbows.log.wait_for("accepting connections again");
    elbows.wait_for_report("open=5");
    tunnels.push(Client::tunnel(&elbows));
    tunnels.iter_mut().for_each(Client::echoes);
    let complaints =
        elbows.log.all().iter().filter(|line| line.contains("accepting pauses")).count();
    assert!(complaints <= 3, "{complaints} complaints about one thing");
}

#[test]
fn no_descriptor_for_the_upstream_is_503() {
    const LIMIT: usize = 64;
    let upstream = Upstream::echo();
    let elbows = with_descriptors(LIMIT, &upstream, &[]);
    // The connection that found it listening came and went: from here on only ours open and close.
    elbows.wait_for_report("probes=1");
    elbows.wait_for_report("open=0");
    let free = || free_descriptors(elbows.pid(), LIMIT);
    // accept(2) takes a descriptor for a moment even where nobody knocks, so a tunnel, which needs
    // two, is sure of them only while there are more.
    let mut tunnels = Vec::new();
    while free() > 3 {
        tunnels.push(Client::tunnel(&elbows));
    }
    assert!(tunnels.len() > 10, "{}", tunnels.len());
    let _silent = crowd_out(&elbows, LIMIT);
    let mut refused = Client::behind_balancer(elbows.address);
    refused.send(handshake("/ws"));
    let response = refused.read_response();
    assert_eq!(response.status, 503, "{}", response.head);
    assert!(response.field("retry-after").is_some());
    let line = elbows.access_log.wait_for("status=503");
    assert!(line.contains("by=elbows during=handshake why=no_room"), "{line}");
    tunnels.iter_mut().for_each(Client::echoes);

    drop((tunnels.pop(), tunnels.pop(), refused));
    wait_until("what is closed is free again", || free() == 5);
    tunnels.push(Client::tunnel(&elbows));
    tunnels.iter_mut().for_each(Client::echoes);
}

/// The resolver needs descriptors as well, and says so in ways of its own: the first time it was ever asked
/// it says that there is no such name.
#[test]
fn no_descriptor_for_the_resolver_is_503() {
    const LIMIT: usize = 64;
    let upstream = Upstream::echo();
    {
        // Nobody has asked before: an answer of before would be used.
        let settings = [("DESTINATION_HOSTNAME", "localhost")];
        let elbows = with_descriptors(LIMIT, &upstream, &settings);
        elbows.wait_for_report("probes=1");
        elbows.wait_for_report("open=0");
        let _silent = crowd_out(&elbows, LIMIT);
        let mut refusals = 0;
        // As long as there is an answer of before, nobody is asked, and the line has its address.
        wait_until("the resolver is asked", || {
            let mut refused = Client::behind_balancer(elbows.address);
            refused.send(handshake("/ws"));
            let response = refused.read_response();
            assert_eq!(response.status, 503, "{}", response.head);
            assert!(response.field("retry-after").is_some());
            refusals += 1;
            drop(refused);
            wait_until("what is closed is free again", || {
                free_descriptors(elbows.pid(), LIMIT) == 1
            });
            let is_its =
                |line: &String| line.contains("status=503") && line.contains("upstream=- ");
            elbows.access_log.all().iter().any(is_its)
        });
        elbows.wait_for_report(&format!("no_room={refusals}"));
        let lines = elbows.access_log.wait_until("all are logged", |lines| {
            let refused: Vec<_> =
                lines.iter().filter(|line| line.contains("status=503")).cloned().collect();
            (refused.len() == refusals).then_some(refused)
        });
        for line in lines {
            assert!(line.contains("by=elbows during=handshake why=no_room"), "{line}");
        }
    }
}

#[test]
fn soft_limit_of_descriptors_is_raised_to_the_hard_one() {
    let upstream = Upstream::answering(OK);
    let mut shell = Command::new("/bin/sh");
    shell
        .env_clear()
        .args(["-c", "ulimit -S -n 32; exec \"$0\""])
        .arg(env!("CARGO_BIN_EXE_elbows"));
    let (command, address) = Elbows::prepare(shell, upstream.address, &[]);
    let elbows = Elbows::spawn(command, address);
    let limits = format!("/proc/{}/limits", elbows.pid().as_raw_nonzero());
    let limits = fs::read_to_string(limits).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(words[3], words[4], "{line}");
    assert_ne!(words[3], "32", "{line}");
}

#[test]
fn hang_up_is_harmless() {
    let upstream = Upstream::echo();
    let mut elbows = Elbows::start(upstream.address, &[]);
    let mut tunnel = Client::tunnel(&elbows);
    elbows.signal(Signal::HUP);
    elbows.signal(Signal::PIPE);
    elbows.report();
    tunnel.echoes();
    drop(tunnel);
    elbows.signal(Signal::TERM);
    assert_eq!(elbows.wait().code(), Some(0));
}

/// What a process that ended has left in TIME-WAIT at its port keeps no other one from starting there.
#[test]
fn next_process_starts_at_the_same_address_at_once() {
    let upstream = Upstream::answering(OK);
    let (command, address) = Elbows::prepare(Elbows::command(), upstream.address, &[]);
    let mut elbows = Elbows::spawn(command, address);
    let mut client = Client::behind_balancer(address);
    assert_eq!(client.get("/").status, 200);
    elbows.signal(Signal::TERM);
    // Its end comes first, so that it is the one that waits.
    assert!(client.read_to_end().unwrap().is_empty());
    drop(client);
    assert_eq!(elbows.wait().code(), Some(0));
    let (mut command, _) = Elbows::prepare(Elbows::command(), upstream.address, &[]);
    command.env("LISTEN_ON", address.to_string());
    let elbows = Elbows::spawn(command, address);
    assert_eq!(Client::behind_balancer(elbows.address).get("/").status, 200);
}

#[test]
fn pid_1_obeys_sigterm() {
    let upstream = Upstream::echo();
    let mut unshare = Command::new("unshare");
    unshare.env_clear().args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]);
    let allowed = Command::new(unshare.get_program()).args(unshare.get_args()).arg("true").status();
    if !allowed.is_ok_and(|status| status.success()) {
        left_out("this machine allows no PID namespace");
        return;
    }
    unshare.arg(env!("CARGO_BIN_EXE_elbows")).process_group(0);
    let (command, address) = Elbows::prepare(unshare, upstream.address, &[]);
    let mut elbows = Elbows::spawn(command, address);
    let mut tunnel = Client::tunnel(&elbows);
    let outer = elbows.pid().as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap();
    let child = Pid::from_raw(children.trim().parse().unwrap()).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", child.as_raw_nonzero())).unwrap();
    let inner = status.lines().find(|line| line.starts_with("NSpid:")).unwrap();
    assert!(inner.ends_with("\t1"), "{inner}");

    kill_process(child, Signal::TERM).unwrap();
    elbows.log.wait_for("draining");
    tunnel.echoes();
    drop(tunnel);
    assert_eq!(elbows.wait().code(), Some(0));
}

/// Neither with an access log, which shows the beginning of a long line, nor without one.
#[test]
fn idle_tunnel_does_not_keep_its_request() {
    const WARM: u64 = 100;
    const TUNNELS: u64 = 300;
    raise_descriptor_limit();
    let upstream = Upstream::echo();
    for (log, target, most) in
        [("text", "/", 6 * 1024), ("off", "/", 4 * 1024), ("off", "/?", 4 * 1024)]
    {
        let target = format!("{target}{}", "x".repeat(32_000));
        let elbows = Elbows::start(upstream.address, &[("ACCESS_LOG", log), ("THREADS", "2")]);
        let open = || {
            let mut client = Client::behind_balancer(elbows.address);
            client.send(handshake(&target));
            assert_eq!(client.read_response().status, 101);
            client.echoes();
            client
        };
        // The first ones wake the threads, and leave room for heads.
        let mut tunnels: Vec<_> = (0..WARM).map(|_| open()).collect();
        let before = memory(elbows.pid(), "RssAnon");
        tunnels.extend((0..TUNNELS).map(|_| open()));
        let each = memory(elbows.pid(), "RssAnon").saturating_sub(before) / TUNNELS;
        println!("ACCESS_LOG={log} {target:.3}: {each} bytes each");
        assert!(each <= most, "{log}: {each} bytes each");
    }
}

#[test]
fn idle_process_is_small() {
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, &[]);
    assert_eq!(Client::behind_balancer(elbows.address).get("/").status, 200);
    let resident = memory(elbows.pid(), "VmRSS");
    // The goal is 12 MB for a release build; this one is bigger.
    assert!(resident < 24 * 1024 * 1024, "{resident}");
}
