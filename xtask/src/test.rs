//! `cargo xtask test`: all that CI runs, in the order in which a fault shows soonest.
//!
//! First what the tests need is installed, then the sources are looked at, then things are built and
//! run. The tests find what was made here by three variables: `ELBOWS_TEST_PYTHON` is the Python with the
//! PyPI packages, `ELBOWS_TEST_IMAGE` is the tag of the image (not set where there is no Docker engine), and
//! `ELBOWS_TEST_RELEASE` is the binary of the release before (set by `--long`, where there is such a release). A fourth one,
//! `ELBOWS_TEST_LONG`, says that there is time: tests that wait for minutes run, and chaos, property tests and fuzz
//! targets try what the normal run, which is the same each time, does not. What was left out is listed at the end.

use std::env;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::account::{self, Account};
use crate::image::{self, Engine};
use crate::process::{self, cargo};
use crate::steps::{Outcome, Steps};
use crate::{bench, deny, fuzz, packages, peers, python, release};

/// Topics of tests that `--fast` leaves out: those that take longest, and those that need other people's programs.
const SLOW_TOPICS: &[&str] = &[
    "admin::page",
    "applications",
    "balancers",
    "browser",
    "chaos",
    "handoff::real_peers",
    "pings",
    "slow_peers",
    "tunnel_drain",
    "under_load",
];

/// Tests of other topics that `--fast` leaves out: each takes ten seconds or more, of which it waits most.
const SLOW_TESTS: &[&str] = &[
    "access_log::blocked_standard_output_costs_lines_and_holds_up_nobody",
    "limits::tunnel_without_data_frames_ends_at_both_sides",
    "names::dead_application_is_named_in_the_log_once_per_cause",
    "names::refused_proxy_headers_are_named_in_the_log_once",
    "observability::night::process_that_was_killed_and_one_that_handed_over",
    "strictness::documented_tables_are_what_comes_out",
    "warnings::dead_application_is_told_at_once_then_with_how_many_and_when_it_is_back",
];

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // One for each word.
pub(crate) struct Options {
    no_install: bool,
    fast: bool,
    long: bool,
    advisories: bool,
    filter: Option<String>,
}

impl Options {
    /// Reads the words behind `test`. The error names the word that is wrong.
    pub(crate) fn parse(words: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        for word in words {
            match word.as_str() {
                "--no-install" => options.no_install = true,
                "--fast" => options.fast = true,
                "--long" => options.long = true,
                "--advisories" => options.advisories = true,
                word if word.starts_with('-') => {
                    return Err(format!("`test` has no option `{word}`"));
                }
                word => {
                    if let Some(first) = options.filter.replace(word.to_owned()) {
                        return Err(format!(
                            "`test` takes one filter, and there are `{first}` and `{word}`"
                        ));
                    }
                }
            }
        }
        if options.fast && options.advisories {
            return Err("`--fast` leaves out cargo-deny, and `--advisories` asks for it".to_owned());
        }
        if options.fast && options.long {
            return Err("`--fast` leaves out what takes long, and `--long` asks for it".to_owned());
        }
        Ok(options)
    }

    const fn fuzzes(&self) -> bool {
        !self.fast && self.filter.is_none()
    }

    const fn measures(&self) -> bool {
        !self.fast && self.filter.is_none()
    }
}

/// Runs the steps and prints their summary, whichever way it ends.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    if options.no_install {
        refuse_missing(options)?;
    }
    let mut steps = Steps::default();
    let mut account = Account::default();
    if options.fast {
        account.leave_out("cargo-deny, docs, image, bench, fuzz targets", "--fast");
    }
    let result = run_steps(options, &mut steps, &mut account);
    steps.print_summary();
    account.print();
    result
}

/// Lists what a run would install. Anything on that list is an error.
fn refuse_missing(options: &Options) -> Result<(), String> {
    let mut missing = Vec::new();
    let debian = packages::missing()?;
    if !debian.is_empty() {
        missing.push(format!("Debian packages: {}", debian.join(" ")));
    }
    // Asking for the environment takes a Python, which may be among the missing.
    if !python::is_ready().unwrap_or(false) {
        missing.push("PyPI packages, in target/python: xtask/requirements.txt".to_owned());
    }
    if options.measures() && !peers::is_ready()? {
        missing.push("PyPI packages, in target/peers: bench/peers.txt".to_owned());
    }
    if !options.fast && !deny::is_ready() {
        missing.push(format!("cargo-deny {}, in target/tools", deny::VERSION));
    }
    if options.fuzzes() && !fuzz::is_ready() {
        missing.push(format!("cargo-fuzz {}, in target/tools", fuzz::VERSION));
    }
    if missing.is_empty() {
        return Ok(());
    }
    println!("Missing:");
    for line in missing {
        println!("  {line}");
    }
    Err("nothing was installed and nothing was run; without --no-install, `cargo xtask test` installs these".to_owned())
}

fn run_steps(options: &Options, steps: &mut Steps, account: &mut Account) -> Result<(), String> {
    steps.run("toolchain", toolchain)?;
    steps.run("Debian packages", || {
        let missing = packages::missing()?;
        install_unless(missing.is_empty(), || packages::install(&missing))
    })?;
    steps.run("PyPI packages", || install_unless(python::is_ready()?, python::install))?;
    steps.run("format", || done(process::run(&mut cargo(&["fmt", "--all", "--check"]))))?;
    steps.run("clippy", clippy)?;
    if !options.fast {
        steps.run("cargo-deny build", || install_unless(deny::is_ready(), deny::install))?;
        steps.run("cargo-deny", || done(deny::check(options.advisories)))?;
        steps.run("docs", docs)?;
    }
    let mut made = Made::default();
    if !options.fast {
        steps.run("image", || {
            let outcome = build_image()?;
            made.has_image = matches!(outcome, Outcome::Done);
            Ok(outcome)
        })?;
    }
    if options.long {
        steps.run("release before", || match release::build(!options.no_install)? {
            release::Before::Built { tag, binary } => {
                println!("{tag}: {}", binary.display());
                made.release_before = Some(binary);
                Ok(Outcome::Done)
            }
            release::Before::Missing(why) => Ok(Outcome::Skipped(why)),
        })?;
    }
    steps.run("tests", || done(tests(options, &made, account)))?;
    if options.measures() {
        steps.run("bench", || done(bench::run(&["--quick".to_owned()])))?;
    }
    if options.fuzzes() {
        steps.run("cargo-fuzz build", || install_unless(fuzz::is_ready(), fuzz::install))?;
        let fixed = fuzz::Options::all(fuzz::Kind::Fixed(None));
        steps.run("fuzz targets", || done(fuzz::run(&fixed)))?;
        if options.long {
            let explore = fuzz::Options::all(fuzz::Kind::Explore(fuzz::LONG));
            steps.run("exploring", || done(fuzz::run(&explore)))?;
        }
    }
    Ok(())
}

/// The parts of the toolchain that rustup can leave out.
fn toolchain() -> Result<Outcome, String> {
    for part in ["fmt", "clippy"] {
        let said = process::read(&mut cargo(&[part, "--version"])).map_err(|_| {
            format!("there is no `cargo {part}`; `rustup component add rustfmt clippy` adds it")
        })?;
        println!("{said}");
    }
    Ok(Outcome::Done)
}

fn clippy() -> Result<Outcome, String> {
    done(process::run(&mut cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ])))
}

fn docs() -> Result<Outcome, String> {
    done(process::run(
        cargo(&["doc", "--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings"),
    ))
}

/// Without an engine there is no image; only in CI, where one was meant to be, is that a fault.
fn build_image() -> Result<Outcome, String> {
    let is_ci = env::var("CI").is_ok_and(|value| value == "true");
    match image::engine() {
        Engine::Ready => {}
        Engine::Silent(why) if is_ci => {
            return Err(format!("CI has Docker, but its engine does not answer: {why}"));
        }
        Engine::Silent(_) => {
            return Ok(Outcome::Skipped(
                "no Docker engine answers; the tests of the image are left out".to_owned(),
            ));
        }
        Engine::Absent => {
            return Ok(Outcome::Skipped(
                "there is no Docker; the tests of the image are left out".to_owned(),
            ));
        }
    }
    println!("{}", image::build()?);
    Ok(Outcome::Done)
}

/// What the tests are to find.
#[derive(Default)]
struct Made {
    has_image: bool,
    release_before: Option<PathBuf>,
}

fn tests(options: &Options, made: &Made, account: &mut Account) -> Result<(), String> {
    let mut tests = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    tests.args(&options.filter).env("ELBOWS_TEST_PYTHON", python::interpreter());
    if options.fast && options.filter.is_none() {
        // Most of a test's time is waiting.
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        tests.args(["--", "--test-threads", &(2 * cores).to_string()]);
        for topic in SLOW_TOPICS {
            tests.args(["--skip", &format!("{topic}::")]);
        }
        account.leave_out(&format!("tests of {}", SLOW_TOPICS.join(", ")), "--fast");
        for test in SLOW_TESTS {
            tests.args(["--skip", test]);
            account.leave_out(test, "--fast");
        }
    }
    if options.long {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let seed = now.to_string();
        println!("Property tests have the seed {seed}; PROPTEST_RNG_SEED={seed} repeats them.");
        tests.env("ELBOWS_TEST_LONG", "1").env("PROPTEST_RNG_SEED", seed);
    }
    // What is left over from outside may be of other sources.
    tests.env_remove("ELBOWS_TEST_IMAGE").env_remove("ELBOWS_TEST_RELEASE");
    if made.has_image {
        tests.env("ELBOWS_TEST_IMAGE", image::TAG);
    }
    if let Some(binary) = &made.release_before {
        tests.env("ELBOWS_TEST_RELEASE", binary);
    }
    account::collect(&mut tests)?;
    process::run_watched(tests, |line| account.read(line))
}

fn install_unless(
    is_there: bool,
    install: impl FnOnce() -> Result<(), String>,
) -> Result<Outcome, String> {
    if is_there {
        println!("Nothing to install.");
        return Ok(Outcome::Done);
    }
    done(install())
}

fn done(result: Result<(), String>) -> Result<Outcome, String> {
    result.map(|()| Outcome::Done)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Options, SLOW_TESTS, SLOW_TOPICS};
    use crate::process::root;

    fn parse(words: &[&str]) -> Result<Options, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Options::parse(&words)
    }

    #[test]
    fn filter_and_options_come_in_any_order() {
        let expected = Options {
            no_install: true,
            fast: true,
            filter: Some("proxy".to_owned()),
            ..Options::default()
        };
        assert_eq!(parse(&["--fast", "proxy", "--no-install"]), Ok(expected));
    }

    #[test]
    fn unknown_option_is_refused_by_name() {
        assert_eq!(parse(&["--quick"]), Err("`test` has no option `--quick`".to_owned()));
    }

    #[test]
    fn each_test_that_is_left_out_is_there() {
        let folder = root().join("tests/e2e");
        for topic in SLOW_TOPICS {
            let file = format!("{}.rs", topic.replace("::", "/"));
            assert!(folder.join(file).exists(), "{topic}");
        }
        for test in SLOW_TESTS {
            let (topic, name) = test.rsplit_once("::").unwrap_or_default();
            let file = format!("{}.rs", topic.replace("::", "/"));
            let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
            assert!(text.contains(&format!("fn {name}()")), "{test}");
        }
    }

    #[test]
    fn second_filter_is_refused() {
        assert!(parse(&["one", "two"]).is_err_and(|fault| fault.contains("`one` and `two`")));
    }

    #[test]
    fn options_that_contradict_are_refused() {
        assert!(parse(&["--fast", "--advisories"]).is_err());
        assert!(parse(&["--fast", "--long"]).is_err());
        assert!(parse(&["--long", "proxy"]).is_ok_and(|options| !options.fuzzes()));
    }
}
