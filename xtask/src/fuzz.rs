//! The fuzz targets in `fuzz/`: builds them with cargo-fuzz and runs each. `cargo xtask fuzz` runs some, or for longer.
//!
//! They run on the stable toolchain, without a sanitizer: those need a nightly one, which nobody can pin,
//! and look for faults that `unsafe` makes, which we forbid; the bodies themselves check what has to hold.
//!
//! A run is one of two kinds. The **fixed** one replays `fuzz/corpus` and then makes a fixed number of inputs from a fixed
//! seed, so that the same code gets the same verdict. **Exploring** goes on from what earlier explorations found worth
//! keeping (`target/fuzz/corpus`), with another seed each time. Neither writes to `fuzz/corpus`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::process::{self, cargo, program, root};

/// The version of cargo-fuzz that is used, and no other.
pub(crate) const VERSION: &str = "0.13.2";

/// How many inputs the fixed run makes: as many as take about 20 s, next to one other target, on a machine of today.
const RUNS: &[(&str, u64)] = &[
    ("admin", 2_000_000),
    ("exchange", 300_000),
    ("frames", 900_000),
    ("proxy_header", 1_800_000),
    ("record", 4_000_000),
    ("requests", 1_000_000),
    ("responses", 1_000_000),
    ("tunnel", 500_000),
];
/// The same for a target that is not in the table.
const RUNS_OF_OTHERS: u64 = 200_000;
/// What the fixed run's inputs follow from.
const SEED: u32 = 1;

/// The targets that read text, and their words.
const DICTIONARIES: &[(&str, &str)] = &[
    ("admin", "admin"),
    ("connection", "http"),
    ("exchange", "http"),
    ("proxy_header", "proxy_header"),
    ("requests", "http"),
    ("responses", "http"),
];

/// How long `cargo xtask test --long` explores with each target.
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

/// How the targets run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The same each time: so many inputs, or as many as the table says.
    Fixed(Option<u64>),
    /// Other inputs each time, for so long.
    Explore(Duration),
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    kind: Kind,
    /// Some targets, or all where it is empty.
    targets: Vec<String>,
}

impl Options {
    /// Every target.
    pub(crate) const fn all(kind: Kind) -> Self {
        Self { kind, targets: Vec::new() }
    }

    /// Reads the words behind `fuzz`. The error names the word that is wrong.
    pub(crate) fn parse(words: &[String]) -> Result<Self, String> {
        let mut options = Self::all(Kind::Fixed(None));
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut number = || {
                let number = words.next().map(|word| word.replace('_', ""));
                let number = number.and_then(|number| number.parse().ok());
                number.ok_or_else(|| format!("`{word}` takes a number"))
            };
            match word.as_str() {
                "--runs" => options.kind = Kind::Fixed(Some(number()?)),
                "--explore" => options.kind = Kind::Explore(Duration::from_secs(number()?)),
                word if word.starts_with('-') => {
                    return Err(format!("`fuzz` has no option `{word}`"));
                }
                target => options.targets.push(target.to_owned()),
            }
        }
        Ok(options)
    }
}

/// `cargo xtask fuzz`: installs cargo-fuzz where it is missing, and runs the targets.
pub(crate) fn command(options: &Options) -> Result<(), String> {
    if !is_ready() {
        install()?;
    }
    run(options)
}

/// Builds the targets, and runs each, two at once. Where one finds a fault no others begin.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let targets = chosen(&options.targets)?;
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
        // It tells libFuzzer of each comparison of two numbers, and that took two thirds of each run. What it would make
        // of them is in dictionaries; comparisons of texts it sees all the same.
        "--no-trace-compares",
        "--target-dir",
        BUILD,
    ]))?;
    for pair in targets.chunks(2) {
        thread::scope(|scope| {
            let runs: Vec<_> = pair
                .iter()
                .map(|target| scope.spawn(|| run_target(target, options.kind)))
                .collect();
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

fn run_target(target: &str, kind: Kind) -> Result<(), String> {
    let kept = format!("fuzz/corpus/{target}");
    let artifacts = format!("target/fuzz/artifacts/{target}/");
    make_folder(&artifacts)?;
    let binary = binary(target)?;
    let mut run = program(&binary);
    run.arg(format!("-max_len={MAX_LENGTH}"))
        .arg(format!("-timeout={TIMEOUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .arg(format!("-artifact_prefix={artifacts}"))
        .arg("-print_final_stats=1");
    if let Some((_, name)) = DICTIONARIES.iter().find(|(of, _)| *of == target) {
        run.arg(format!("-dict=fuzz/dictionaries/{name}.dict"));
    }
    match kind {
        Kind::Fixed(runs) => {
            let of_table = RUNS.iter().find(|(name, _)| *name == target).map(|(_, runs)| *runs);
            let runs = runs.or(of_table).unwrap_or(RUNS_OF_OTHERS);
            // A folder that is empty at first: what an earlier run left there would change this one.
            let grown = format!("target/fuzz/fixed/{target}");
            if root().join(&grown).exists() {
                fs::remove_dir_all(root().join(&grown))
                    .map_err(|fault| format!("{grown}: {fault}"))?;
            }
            make_folder(&grown)?;
            run.args([format!("-seed={SEED}"), format!("-runs={runs}"), "-reload=0".to_owned()])
                .arg(format!("-seed_inputs={}", kept_inputs(&kept)?))
                .arg(&grown);
        }
        Kind::Explore(time) => {
            let grown = format!("target/fuzz/corpus/{target}");
            make_folder(&grown)?;
            run.arg(format!("-max_total_time={}", time.as_secs())).args([&grown, &kept]);
        }
    }
    finish(target, &mut run).map_err(|said| {
        format!(
            "{target} found a fault:\n{said}\nThe input is in {artifacts}; replay it with\n  {} {artifacts}NAME\n\
             When it is mended, keep the input, by a name that says what it is, in {kept}.",
            binary.strip_prefix(root()).unwrap_or(&binary).display()
        )
    })
}

fn make_folder(folder: &str) -> Result<(), String> {
    fs::create_dir_all(root().join(folder)).map_err(|fault| format!("{folder}: {fault}"))
}

/// The kept inputs in the order of their names: a folder has one of its own on each machine.
fn kept_inputs(folder: &str) -> Result<String, String> {
    let entries =
        fs::read_dir(root().join(folder)).map_err(|fault| format!("{folder}: {fault}"))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(format!("{folder}/{}", entry.ok()?.file_name().to_str()?)))
        .collect();
    files.sort();
    Ok(files.join(","))
}

/// Runs a target. Says how often it ran; where it failed, the last lines of what libFuzzer said.
fn finish(target: &str, run: &mut Command) -> Result<(), String> {
    let start = Instant::now();
    let output = run.output().map_err(|fault| fault.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        let runs =
            said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
        println!(
            "{target}: {} runs in {} s",
            runs.unwrap_or("?").trim(),
            start.elapsed().as_secs()
        );
        return Ok(());
    }
    let from = said.find("panicked at").unwrap_or(0);
    let said: Vec<_> = said.get(from..).unwrap_or_default().lines().collect();
    Err(said.iter().take(60).copied().collect::<Vec<_>>().join("\n"))
}

/// The targets of these names, or all where there are none.
fn chosen(names: &[String]) -> Result<Vec<String>, String> {
    let all = targets()?;
    if names.is_empty() {
        return Ok(all);
    }
    match names.iter().find(|name| !all.contains(name)) {
        Some(name) => Err(format!("there is no target `{name}`; there are: {}", all.join(" "))),
        None => Ok(names.to_vec()),
    }
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

#[cfg(test)]
mod tests {
    use super::{DICTIONARIES, Duration, Kind, Options, RUNS, root, targets};

    fn parse(words: &[&str]) -> Result<Options, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Options::parse(&words)
    }

    #[test]
    fn runs_and_targets_come_in_any_order() {
        let options = Options { kind: Kind::Fixed(Some(1000)), targets: vec!["tunnel".to_owned()] };
        assert_eq!(parse(&["tunnel", "--runs", "1_000"]), Ok(options));
        let options = Options::all(Kind::Explore(Duration::from_secs(60)));
        assert_eq!(parse(&["--explore", "60"]), Ok(options));
        assert_eq!(parse(&["--runs"]), Err("`--runs` takes a number".to_owned()));
        assert!(parse(&["--long"]).is_err());
    }

    #[test]
    fn each_number_of_runs_is_of_a_target() {
        let targets = targets().unwrap_or_default();
        assert!(RUNS.iter().all(|(name, _)| targets.iter().any(|target| target == name)));
    }

    #[test]
    fn each_dictionary_is_there_and_of_a_target() {
        let targets = targets().unwrap_or_default();
        for (target, name) in DICTIONARIES {
            assert!(targets.iter().any(|of| of == target), "{target}");
            let file = root().join(format!("fuzz/dictionaries/{name}.dict"));
            assert!(file.exists(), "{}", file.display());
        }
    }
}
