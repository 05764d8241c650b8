//! The fuzz targets in `fuzz/`: builds them with cargo-fuzz and runs each for a while.
//!
//! They run on the stable toolchain, without a sanitizer: those need a nightly one, which nobody can pin,
//! and look for faults that `unsafe` makes, which we forbid; the bodies themselves check what has to hold.
//! What libFuzzer finds worth keeping goes to `target/fuzz/corpus`, so that each run goes on from the last
//! one; `fuzz/corpus` is only read.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use crate::process::{self, cargo, program, root};

/// The version of cargo-fuzz that is used, and no other.
pub(crate) const VERSION: &str = "0.13.2";

/// How long each target runs.
pub(crate) const SHORT: Duration = Duration::from_secs(20);
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The longest input in bytes: a little more than the longest PROXY header that is accepted.
const MAX_LENGTH: usize = 4400;
/// One input that takes longer is a fault.
const TIMEOUT_SECONDS: u64 = 10;
/// More memory than this is a fault.
const MEMORY_MIB: u64 = 1024;

const BUILD: &str = "target/fuzz/build";

/// Whether that version is in `target/tools`.
pub(crate) fn is_ready() -> bool {
    process::read(program(cargo_fuzz()).arg("--version"))
        .is_ok_and(|said| said == format!("cargo-fuzz {VERSION}"))
}

/// Builds cargo-fuzz. Takes half a minute.
pub(crate) fn install() -> Result<(), String> {
    println!("cargo-fuzz {VERSION} to build into target/tools");
    let scratch = root().join("target/tools/build-fuzz");
    process::run(
        cargo(&["install", "cargo-fuzz", "--version", VERSION, "--locked", "--quiet", "--force"])
            .args(["--root", "target/tools", "--target-dir"])
            .arg(&scratch)
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
    )?;
    // Hundreds of megabytes that nobody needs again.
    fs::remove_dir_all(&scratch).map_err(|fault| format!("{}: {fault}", scratch.display()))
}

/// Builds the targets, and runs each for `time`, two at once. Where one finds a fault no others begin.
pub(crate) fn run(time: Duration) -> Result<(), String> {
    let manifest = "fuzz/Cargo.toml";
    // cargo-fuzz cannot be told `--locked`, and would bring the lock file up to date.
    let metadata = ["metadata", "--locked", "--format-version", "1", "--manifest-path", manifest];
    process::read(&mut cargo(&metadata)).map_err(|fault| {
        format!("{fault}\nWhere fuzz/Cargo.lock is out of date, `cargo update --workspace --manifest-path {manifest}` mends it.")
    })?;
    process::run(program(cargo_fuzz()).args([
        "build",
        "--sanitizer",
        "none",
        "--target-dir",
        BUILD,
    ]))?;
    for pair in targets()?.chunks(2) {
        thread::scope(|scope| {
            let runs: Vec<_> =
                pair.iter().map(|target| scope.spawn(|| run_target(target, time))).collect();
            // Both are told of: either may have left an input.
            let faults: Vec<_> = runs.into_iter().filter_map(|run| joined(run).err()).collect();
            if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
        })?;
    }
    Ok(())
}

fn joined(run: ScopedJoinHandle<'_, Result<(), String>>) -> Result<(), String> {
    run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn run_target(target: &str, time: Duration) -> Result<(), String> {
    let kept = format!("fuzz/corpus/{target}");
    let grown = format!("target/fuzz/corpus/{target}");
    let artifacts = format!("target/fuzz/artifacts/{target}/");
    for folder in [&grown, &artifacts] {
        fs::create_dir_all(root().join(folder)).map_err(|fault| format!("{folder}: {fault}"))?;
    }
    let binary = binary(target)?;
    let mut run = program(&binary);
    run.arg(format!("-max_total_time={}", time.as_secs()))
        .arg(format!("-max_len={MAX_LENGTH}"))
        .arg(format!("-timeout={TIMEOUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .arg(format!("-artifact_prefix={artifacts}"))
        .args(["-print_final_stats=1", &grown, &kept]);
    finish(target, time, &mut run).map_err(|said| {
        format!(
            "{target} found a fault:\n{said}\nThe input is in {artifacts}; replay it with\n  {} {artifacts}NAME\n\
             When it is mended, keep the input, by a name that says what it is, in {kept}.",
            binary.strip_prefix(root()).unwrap_or(&binary).display()
        )
    })
}

/// Runs a target. Says how often it ran; where it failed, the last lines of what libFuzzer said.
fn finish(target: &str, time: Duration, run: &mut Command) -> Result<(), String> {
    let output = run.output().map_err(|fault| fault.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        for line in said.lines().filter(|line| line.contains("number_of_executed_units")) {
            println!("{target}, {} s: {line}", time.as_secs());
        }
        return Ok(());
    }
    let from = said.find("panicked at").unwrap_or(0);
    let said: Vec<_> = said.get(from..).unwrap_or_default().lines().collect();
    Err(said.iter().take(60).copied().collect::<Vec<_>>().join("\n"))
}

/// The names of the targets: those of the files in `fuzz/fuzz_targets`.
fn targets() -> Result<Vec<String>, String> {
    let folder = root().join("fuzz/fuzz_targets");
    let entries =
        fs::read_dir(&folder).map_err(|fault| format!("{}: {fault}", folder.display()))?;
    let mut names: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

fn binary(target: &str) -> Result<PathBuf, String> {
    Ok(root().join(BUILD).join(process::host_target()?).join("release").join(target))
}

fn cargo_fuzz() -> PathBuf {
    root().join("target/tools/bin/cargo-fuzz")
}
