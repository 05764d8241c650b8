//! The log on standard error, through a thread: nobody who logs waits for its reader.
//!
//! There is one a process, so that what was dropped of it is known everywhere.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;
use tracing_subscriber::reload;

use crate::config;
use crate::line_writer::{self, Lines, Patient, Writer};

static LINES: OnceLock<Lines> = OnceLock::new();

/// Has something else logged than before.
type Set = dyn Fn(Targets) -> Result<(), reload::Error> + Send + Sync;

static SET: OnceLock<Box<Set>> = OnceLock::new();

/// Starts it, for what `filter` lets through.
///
/// # Errors
/// The writer's thread could not be started.
pub fn start(filter: &str) -> io::Result<Writer> {
    let (lines, writer) = line_writer::start("log", Patient(io::stderr()))?;
    let lines = LINES.get_or_init(|| lines);
    // It was parsed when the settings were checked.
    let targets: Targets = filter.parse().unwrap_or_default();
    let (targets, handle) = reload::Layer::new(targets);
    tracing_subscriber::registry()
        .with(
            tracing_subscriber::fmt::layer()
                .with_writer(move || lines.clone())
                .with_ansi(io::stderr().is_terminal()),
        )
        .with(targets)
        .init();
    drop(SET.set(Box::new(move |targets| handle.reload(targets))));
    Ok(writer)
}

/// Logs what `filter` lets through, from now on.
///
/// # Errors
/// It is no filter; the rule.
pub(crate) fn set(filter: &str) -> Result<(), String> {
    let targets = config::log_filter(filter)?;
    let set = SET.get().ok_or("there is no log")?;
    set(targets).map_err(|error| error.to_string())
}

/// Lines that were dropped because the reader was too slow, or gone.
#[must_use]
pub fn dropped() -> u64 {
    LINES.get().map_or(0, Lines::dropped)
}
