//! The log on standard error, through a thread: nobody who logs waits for its reader.
//!
//! There is one a process, so that what was dropped of it is known everywhere.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::line_writer::{self, Lines, Patient, Writer};

static LINES: OnceLock<Lines> = OnceLock::new();

/// Starts it, for what `filter` lets through.
///
/// # Errors
/// The writer's thread could not be started.
pub fn start(filter: &str) -> io::Result<Writer> {
    let (lines, writer) = line_writer::start("log", Patient(io::stderr()))?;
    let lines = LINES.get_or_init(|| lines);
    // It was parsed when the settings were checked.
    let targets: Targets = filter.parse().unwrap_or_default();
    tracing_subscriber::registry()
        .with(
            tracing_subscriber::fmt::layer()
                .with_writer(move || lines.clone())
                .with_ansi(io::stderr().is_terminal()),
        )
        .with(targets)
        .init();
    Ok(writer)
}

/// Lines that were dropped because the reader was too slow, or gone.
#[must_use]
pub fn dropped() -> u64 {
    LINES.get().map_or(0, Lines::dropped)
}
