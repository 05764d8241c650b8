//! cargo-deny, which holds the dependencies against `deny.toml`: licences, bans, sources.
//!
//! One exact version, built from crates.io into `target/tools`, unoptimised because it runs for a
//! second and is built once. Advisories are checked on request only: their database is fetched
//! from the network at each run, and what it says can change without a change here.

use std::fs;
use std::path::PathBuf;

use crate::process::{self, cargo, program, root};

/// The version that is used, and no other.
pub(crate) const VERSION: &str = "0.20.2";

/// Whether that version is in `target/tools`.
pub(crate) fn is_ready() -> bool {
    process::read(program(binary()).arg("--version"))
        .is_ok_and(|said| said == format!("cargo-deny {VERSION}"))
}

/// Builds it. Takes about a minute.
pub(crate) fn install() -> Result<(), String> {
    println!("cargo-deny {VERSION} to build into target/tools");
    let scratch = root().join("target/tools/build");
    process::run(
        cargo(&["install", "cargo-deny", "--version", VERSION, "--locked", "--quiet", "--force"])
            .args(["--no-default-features", "--root", "target/tools", "--target-dir"])
            .arg(&scratch)
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    )?;
    // Hundreds of megabytes that nobody needs again.
    fs::remove_dir_all(&scratch).map_err(|fault| format!("{}: {fault}", scratch.display()))
}

/// Runs the checks.
pub(crate) fn check(advisories: bool) -> Result<(), String> {
    let mut check = program(binary());
    check.args(["--workspace", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
    if advisories {
        check.arg("advisories");
    } else {
        println!("Advisories are not checked: that fetches a database (--advisories).");
    }
    process::run(&mut check)
}

fn binary() -> PathBuf {
    root().join("target/tools/bin/cargo-deny")
}
