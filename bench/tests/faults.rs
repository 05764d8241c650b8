//! What the bench says when something is wrong, and that nothing is left behind.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const BENCH: &str = env!("CARGO_BIN_EXE_bench");

fn start(words: &[&str]) -> Child {
    Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The children of a process that are there now.
fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// Whether the load is at work: nothing else is started after it.
fn is_loaded(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).split('\0').any(|word| word == "load")
}

fn fails_with(output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or_default();
    assert!(!output.status.success(), "{said}");
    for word in words {
        assert!(last.contains(word), "{word} is not in {last}");
    }
    assert!(output.stdout.is_empty(), "a table: {}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn proxy_that_dies_is_named_and_all_else_is_ended() {
    let bench = start(&[BENCH, "--case", "echo64", "--proxy", "elbows"]);
    let begun = Instant::now();
    let all = loop {
        assert!(begun.elapsed() < Duration::from_secs(60), "no load came");
        let all = children(bench.id());
        if all.iter().any(|child| is_loaded(*child)) {
            break all;
        }
        sleep(Duration::from_millis(1));
    };
    let elbows = all.iter().find(|child| name(**child) == "elbows").unwrap();
    let killed = Command::new("kill").args(["-9", &elbows.to_string()]).status().unwrap();
    assert!(killed.success());
    let output = bench.wait_with_output().unwrap();
    fails_with(&output, &["echo64", "elbows ended by itself", "signal: 9", "--case"]);
    for child in all {
        assert!(!Path::new(&format!("/proc/{child}")).exists(), "{child} is left");
    }
}

#[test]
fn too_few_descriptors_are_told_before_anything_is_measured() {
    let bench =
        start(&["prlimit", "--nofile=1000:1000", BENCH, "--case", "echo64", "--proxy", "elbows"]);
    let output = bench.wait_with_output().unwrap();
    fails_with(&output, &["19900 descriptors", "the limit is 1000", "raise it"]);
}

#[test]
fn unknown_case_is_told_with_those_that_there_are() {
    let output = start(&[BENCH, "--case", "echo"]).wait_with_output().unwrap();
    fails_with(&output, &["no case `echo`", "echo64", "drain"]);
}

#[test]
fn unknown_proxy_is_told_with_those_that_there_are() {
    let output = start(&[BENCH, "--proxy", "apache"]).wait_with_output().unwrap();
    fails_with(&output, &["no proxy `apache`", "nginx", "traefik", "copy-loop"]);
}

#[test]
fn peer_that_is_not_installed_is_told_before_anything_is_measured() {
    // A bench of its own, beside which nothing is.
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("release/bench");
    fs::create_dir(folder.path().join("release")).unwrap();
    fs::copy(BENCH, &own).unwrap();
    fs::copy(Path::new(BENCH).with_file_name("elbows"), own.with_file_name("elbows")).unwrap();
    let own = own.display().to_string();
    let output = start(&[&own, "--case", "get", "--proxy", "caddy"]).wait_with_output().unwrap();
    fails_with(&output, &["peers/bin/caddy", "`cargo xtask bench` installs", "bench/peers.txt"]);
}
