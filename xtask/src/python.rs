//! The Python packages that the tests use as WebSocket and Socket.IO peers, in `target/python`.
//!
//! A virtual environment, so that nothing outside `target/` changes. It is made anew when the pinned
//! versions or the Python change; a copy of both, written last, says what it was made from.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::process::{self, program, root};

/// Debian's own Python, whose `venv` is in the packages that are installed; another may come first in `PATH`.
const PYTHON: &str = "/usr/bin/python3";

/// The Python that has the packages.
pub(crate) fn interpreter() -> PathBuf {
    root().join("target/python/bin/python")
}

/// Whether the environment is there and was made from what is pinned now.
pub(crate) fn is_ready() -> Result<bool, String> {
    let made_from = fs::read_to_string(root().join("target/python/made-from.txt"));
    let Ok(made_from) = made_from else {
        return Ok(false);
    };
    // A Python that has gone, or a clone that was moved, shows by not running.
    let runs = process::read(program(interpreter()).arg("--version")).is_ok();
    Ok(runs && made_from == wanted()?)
}

/// Makes the environment anew.
pub(crate) fn install() -> Result<(), String> {
    println!("PyPI packages to install into target/python: xtask/requirements.txt");
    process::run(program(PYTHON).args(["-m", "venv", "--clear", "target/python"]))?;
    process::run(program(interpreter()).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
        "xtask/requirements.txt",
    ]))?;
    let made_from = root().join("target/python/made-from.txt");
    fs::write(&made_from, wanted()?).map_err(|fault| at(&made_from, &fault))
}

/// What the environment has to be made from.
fn wanted() -> Result<String, String> {
    let pinned = root().join("xtask/requirements.txt");
    let pinned = fs::read_to_string(&pinned).map_err(|fault| at(&pinned, &fault))?;
    let version = process::read(program(PYTHON).arg("--version"))?;
    Ok(format!("# {version}, {}\n{pinned}", root().display()))
}

fn at(path: &std::path::Path, fault: &io::Error) -> String {
    format!("{}: {fault}", path.display())
}
