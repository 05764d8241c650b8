//! Measures elbows beside nginx, HAProxy, Envoy, Caddy, Traefik and a bare copy loop, on the same work in one run.
//!
//! `cargo xtask bench` builds and starts it. The order of the modules is that of a measurement: a case
//! sets a stage (`stage`: an application and one of the proxies), sends a load through it, reads off
//! what it cost (`measure`) and tells it (`report`). The application, the load and the limit are
//! processes of this same binary, started with the commands `application`, `load` and `copy-loop` or `splice-loop`.

// Counts and times become numbers for people; no float here decides about a byte.
#![allow(clippy::cast_precision_loss)]

mod cases;
mod stage;

mod network;
mod process;
mod proxies;

mod application;
mod limit;
mod load;

mod frames;
mod heads;
mod pending;
mod poll;

mod machine;
mod measure;
mod micro;
mod report;

use std::env;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cases::{Bench, Case};
use limit::Way;
use machine::Machine;
use micro::Micro;
use proxies::{Proxy, ROOM};
use report::{Section, markdown};
use stage::{Rig, expect_descriptors};

/// A fault is a sentence that says what is wrong and how to mend it.
type Fallible<T> = Result<T, String>;

const USAGE: &str = "\
Usage: bench [--quick] [--case NAME]... [--proxy NAME]...

  --quick        a few cases with small numbers, to see that all parts work; writes nothing
  --case NAME    only this case; may be given several times; writes nothing
  --proxy NAME   elbows beside this proxy only; may be given several times; writes nothing";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["launch", cores, program @ ..] => {
            let program: Vec<_> = program.iter().map(|word| (*word).to_owned()).collect();
            Err(process::launch(cores, &program))
        }
        ["application", address] => listen(address).and_then(|listener| {
            application::serve(&listener).map_err(|fault| format!("the application: {fault}"))
        }),
        ["copy-loop", address, application] => limit(address, application, Way::Copy),
        ["splice-loop", address, application] => limit(address, application, Way::Splice),
        ["load", job] => load(job),
        ["micro", work, count] => micro(work, count),
        ["awake"] => {
            awake();
            Ok(())
        }
        words => run(words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("bench: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn parse(address: &str) -> Fallible<SocketAddr> {
    address.parse().map_err(|_| format!("`{address}` is no address"))
}

fn listen(address: &str) -> Fallible<TcpListener> {
    TcpListener::bind(parse(address)?)
        .map_err(|fault| format!("cannot listen on {address}: {fault}"))
}

fn limit(address: &str, application: &str, way: Way) -> Fallible<()> {
    let (listener, application) = (listen(address)?, parse(application)?);
    limit::run(&listener, application, way).map_err(|fault| format!("the loop: {fault}"))
}

fn load(job: &str) -> Fallible<()> {
    let job = serde_json::from_str(job).map_err(|fault| format!("the job: {fault}"))?;
    let outcome = load::run(&job).map_err(|fault| fault.to_string())?;
    let outcome = serde_json::to_string(&outcome).map_err(|fault| fault.to_string())?;
    println!("{outcome}");
    Ok(())
}

fn micro(work: &str, count: &str) -> Fallible<()> {
    let work: Micro = serde_json::from_str(work).map_err(|fault| format!("the work: {fault}"))?;
    let count = count.parse().map_err(|_| format!("`{count}` is no number"))?;
    println!("{}", work.run(count)?);
    Ok(())
}

/// Does nothing, at once and again, until it is killed; at most for as long as any case takes.
fn awake() {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(600) {
        std::hint::spin_loop();
    }
}

/// What was asked for.
#[derive(Default)]
struct Options {
    is_quick: bool,
    cases: Vec<String>,
    proxies: Vec<Proxy>,
}

impl Options {
    fn parse(words: &[&str]) -> Fallible<Self> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            match word {
                "--quick" => options.is_quick = true,
                "--case" => {
                    let Some(&name) = words.next() else {
                        return Err("`--case` needs a name".to_owned());
                    };
                    if !cases::ALL.iter().any(|case| case.name == name) {
                        let names: Vec<_> = cases::ALL.iter().map(|case| case.name).collect();
                        return Err(format!(
                            "there is no case `{name}`; there are {}",
                            names.join(" ")
                        ));
                    }
                    options.cases.push(name.to_owned());
                }
                "--proxy" => {
                    let word = words.next().copied().unwrap_or_default();
                    let Some(proxy) = Proxy::of_word(word) else {
                        let names = Proxy::ALL.map(Proxy::word).join(" ");
                        return Err(format!("there is no proxy `{word}`; there are {names}"));
                    };
                    options.proxies.push(proxy);
                }
                word => return Err(format!("`bench` has no option `{word}`\n{USAGE}")),
            }
        }
        Ok(options)
    }

    /// Everything, in full: what the document is made of.
    fn is_whole(&self) -> bool {
        !self.is_quick && self.cases.is_empty() && self.proxies.is_empty()
    }

    /// Who is measured: elbows always is.
    fn measured(&self) -> Vec<Proxy> {
        let is_meant = |proxy: &Proxy| {
            self.proxies.is_empty() || *proxy == Proxy::Elbows || self.proxies.contains(proxy)
        };
        Proxy::ALL.into_iter().filter(is_meant).collect()
    }

    fn wants(&self, case: &Case) -> bool {
        if self.cases.is_empty() {
            !self.is_quick || case.is_quick
        } else {
            self.cases.iter().any(|name| name == case.name)
        }
    }
}

fn run(words: &[&str]) -> Fallible<()> {
    if words.iter().any(|word| matches!(*word, "--help" | "-h")) {
        println!("{USAGE}");
        return Ok(());
    }
    let options = Options::parse(words)?;
    network::enter();
    let mut bench = Bench {
        rig: Rig::new()?,
        is_quick: options.is_quick,
        proxies: options.measured(),
        rounds: 1,
    };
    if !options.is_quick {
        expect_descriptors(ROOM)?;
    }
    // What is missing is said now and not after twenty minutes.
    let machine = Machine::look(bench.rig.own(), &root(), &bench.proxies)?;
    let mut sections: Vec<Section> = Vec::new();
    for case in cases::ALL.iter().filter(|case| options.wants(case)) {
        bench.rounds = if options.is_quick { 1 } else { case.rounds };
        sections.push((case.run)(&bench)?);
    }
    for section in &sections {
        println!("\n{}\n{}", section.title, section.table);
        for goal in &section.goals {
            println!("  goal: {goal}");
        }
    }
    if options.is_whole() {
        let docs = root().join("docs");
        markdown::write(&docs, &machine, &sections)
            .map_err(|fault| format!("{}: {fault}", docs.display()))?;
        println!("\nwritten: docs/benchmarks.md and its charts");
    }
    Ok(())
}

/// The repository's root: where `cargo xtask` runs us, or else where we were built.
fn root() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    match env::current_dir() {
        Ok(here) if here.join("bench/Cargo.toml").is_file() => here,
        _ => built.parent().unwrap_or(built).to_path_buf(),
    }
}
