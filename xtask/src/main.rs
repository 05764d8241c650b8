//! The commands of this repository, run as `cargo xtask COMMAND`.
//!
//! They are Rust and std only, so that a machine with a Rust toolchain needs nothing before them,
//! and so that people and CI run the same words. One file per command; what a command needs
//! installed is one file per kind of it: `packages` (Debian), `python` and `peers` (PyPI), `deny` and
//! `fuzz` (cargo tools). Whatever they make is under `target/`.

mod account;
mod bench;
mod deny;
mod fuzz;
mod image;
mod packages;
mod peers;
mod process;
mod python;
mod release;
mod steps;
mod test;

use std::env;
use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

Commands:
  test [--no-install] [--fast] [--long] [--advisories] [FILTER]
      Install what the tests need, then run everything that CI runs: format, clippy, cargo-deny,
      docs, the image, all tests, the bench, the fuzz targets. The same code has the same verdict.
        --no-install   install nothing; if something is missing, list it and stop
        --fast         only format, clippy and most tests, for the loop of a developer; what it
                       leaves out (slow topics, image, bench, fuzz targets) is listed at its end
        --long         also what is new each time: property tests with another seed, chaos and each
                       fuzz target for a minute; tests that wait for minutes; and handoffs from and to
                       the release before, which is built from its tag
        --advisories   let cargo-deny look for advisories too; it fetches their database
        FILTER         run only the tests whose names contain it, and no fuzz target
  bench [--quick] [--case NAME]... [--proxy NAME]...
      Install nginx, HAProxy, Envoy, Caddy, Traefik, valgrind and strace, then measure elbows beside
      these proxies and write docs/benchmarks.md. Takes about 25 minutes, in which the machine should
      do nothing else.
        --quick        a few cases with small numbers, about a minute; writes nothing
        --case NAME    only this case; writes nothing
        --proxy NAME   elbows beside this proxy only; writes nothing
  fuzz [--runs N] [--explore SECONDS] [TARGET]...
      Run the fuzz targets, or those that are named: on the kept corpus, and on a fixed number of
      inputs that follow from a fixed seed.
        --runs N       so many inputs, such as 100_000_000
        --explore SECONDS
                       instead, other inputs each time, for so long
  image
      Build the container image elbows:latest with the local Docker engine.";

/// What an exit code says: a fault in the arguments is 2, as with most programs.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        None => ("--help", &[] as &[String]),
        Some((command, rest)) => (command.as_str(), rest),
    };
    if rest.iter().any(|word| word == "--help" || word == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match command {
        "--help" | "-h" | "help" => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        "test" => match test::Options::parse(rest) {
            Ok(options) => exit(test::run(&options)),
            Err(fault) => refuse(&fault),
        },
        "bench" => exit(bench::run(rest)),
        "fuzz" => match fuzz::Options::parse(rest) {
            Ok(options) => exit(fuzz::command(&options)),
            Err(fault) => refuse(&fault),
        },
        "image" => match rest {
            [] => exit(image::build().map(|image| println!("{image}"))),
            [word, ..] => refuse(&format!("`image` takes no argument, and there is `{word}`")),
        },
        word => refuse(&format!("there is no command `{word}`")),
    }
}

fn exit(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("xtask: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(fault: &str) -> ExitCode {
    eprintln!("xtask: {fault}; `cargo xtask --help` lists what there is.");
    ExitCode::from(BAD_USAGE)
}
