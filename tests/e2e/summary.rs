//! The summary that `SIGUSR1` asks for.

use std::fs;
use std::time::Instant;

use test_support::log_line::value;
use test_support::process::memory;

use crate::client::{Client, handshake};
use crate::proxy::Elbows;
use crate::upstream::Upstream;

#[test]
fn summary_tells_tunnels_rates_and_memory() {
    let upstream = Upstream::echo();
    let start = Instant::now();
    let elbows = Elbows::start(upstream.address, &[]);
    let tunnels: Vec<_> = (0..3)
        .map(|_| {
            let mut client = Client::behind_balancer(elbows.address);
            client.send(handshake("/ws"));
            assert_eq!(client.read_response().status, 101);
            client
        })
        .collect();
    let summary = elbows.wait_for_report("tunnels_open=3");
    // Whoever waits may have asked often: together the summaries tell of all three, and of no time twice.
    (0..10).for_each(|_| drop(elbows.report()));
    let summaries: Vec<_> =
        elbows.log.all().into_iter().filter(|line| line.contains("rates_over=")).collect();
    let opened = |summary: &String| {
        let number = |key: &str| value(summary, key).parse::<f64>().unwrap();
        number("tunnels_per_second") * number("rates_over")
    };
    let times: f64 =
        summaries.iter().map(|it| value(it, "rates_over").parse::<f64>().unwrap()).sum();
    assert!(times <= start.elapsed().as_secs_f64(), "{summaries:?}");
    // Times are told to the millisecond.
    let rounded =
        |summary: &String| value(summary, "tunnels_per_second").parse::<f64>().unwrap() * 0.000_5;
    let inexact: f64 = summaries.iter().map(rounded).sum();
    let opened: f64 = summaries.iter().map(opened).sum();
    assert!((opened - 3.0).abs() < 0.5 + inexact, "{opened} of 3: {summaries:?}");
    let said = value(&summary, "memory").strip_suffix("KiB").unwrap().parse::<u64>().unwrap();
    let resident = memory(elbows.pid(), "VmRSS") / 1024;
    assert!(said.abs_diff(resident) < 2048, "{said} and {resident}");
    drop(tunnels);
    elbows.wait_for_report("tunnels_open=0");
    // Nothing was opened since.
    let summary = elbows.report();
    assert_eq!(value(&summary, "tunnels_per_second"), "0.0", "{summary}");
    assert_eq!(value(&summary, "tunnels"), "3", "{summary}");
}

#[test]
fn every_key_of_the_summary_is_documented_and_no_other() {
    let upstream = Upstream::echo();
    let elbows = Elbows::start(upstream.address, &[]);
    let summary = elbows.report();
    let given: Vec<_> = summary
        .split_once("open=")
        .map(|(_, rest)| format!("open={rest}"))
        .unwrap()
        .split(' ')
        .map(|word| word.split_once('=').unwrap().0.to_owned())
        .collect();
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let document = fs::read_to_string(document).unwrap();
    let section = document.split("\n## Summary\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let documented: Vec<_> = section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| line.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    assert_eq!(given, documented);
}
