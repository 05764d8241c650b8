//! The log on standard error, through a thread: nobody who logs waits for its reader.
//!
//! There is one a process, so that what was dropped of it is known everywhere, and so that what it lets through can be
//! changed while the process runs.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use thiserror::Error;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, reload};

use crate::config;
use crate::line_writer::{self, Lines, Patient, Writer};

static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    lines: Lines,
    passes: Passes,
}

/// What is let through, to be changed.
type Passes = reload::Handle<Targets, Registry>;

/// Why the log goes on as it did.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LevelFault {
    /// It is no value of `LOG`; with the rule that it breaks.
    #[error("{0}")]
    Malformed(&'static str),
    /// There is no log in this process.
    #[error("the log has not been started")]
    NotStarted,
}

/// Starts it, for what `filter` lets through.
///
/// # Errors
/// The writer's thread could not be started.
pub fn start(filter: &str) -> io::Result<Writer> {
    let (lines, writer) = line_writer::start("log", Patient(io::stderr()))?;
    // It was checked with the settings.
    let targets = config::log_targets(filter).unwrap_or_default();
    let to = lines.clone();
    let (subscriber, passes) = subscriber(targets, move || to.clone(), io::stderr().is_terminal());
    let _ = LOG.set(Log { lines, passes });
    subscriber.init();
    Ok(writer)
}

/// From now on the log lets through what `filter` says, a value as `LOG` has it (`debug`, `info,elbows=debug`), until the
/// process ends or it is changed again: the setting stays what it is. The log tells of the change itself, at info.
///
/// # Errors
/// It is no such value, and nothing has changed.
pub fn set_level(filter: &str) -> Result<(), LevelFault> {
    let log = LOG.get().ok_or(LevelFault::NotStarted)?;
    change(&log.passes, filter)
}

fn change(passes: &Passes, filter: &str) -> Result<(), LevelFault> {
    let targets = config::log_targets(filter).map_err(LevelFault::Malformed)?;
    // Whichever lets it through, what passed before or what passes from now on; once.
    let tell = || tracing::info!("the log lets through {filter:?} from now on");
    let was_told = tracing::enabled!(Level::INFO);
    if was_told {
        tell();
    }
    passes.reload(targets).map_err(|_| LevelFault::NotStarted)?;
    if !was_told {
        tell();
    }
    Ok(())
}

/// Writes what `targets` let through, and how these can be changed.
fn subscriber<W>(targets: Targets, to: W, colours: bool) -> (impl Subscriber, Passes)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (targets, passes) = reload::Layer::new(targets);
    let lines = tracing_subscriber::fmt::layer().with_writer(to).with_ansi(colours);
    (tracing_subscriber::registry().with(targets).with(lines), passes)
}

/// Lines that were dropped because the reader was too slow, or gone.
#[must_use]
pub fn dropped() -> u64 {
    LOG.get().map_or(0, |log| log.lines.dropped())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// What is logged at each level by `log`, in short, and with what `set` was told before.
    fn logged(set: &[&str], at_first: &str) -> Vec<String> {
        let lines = Lines::unwritten();
        let to = lines.clone();
        let targets = config::log_targets(at_first).unwrap();
        let (subscriber, passes) = subscriber(targets, move || to.clone(), false);
        tracing::subscriber::with_default(subscriber, || {
            // One place for all: what is kept of whether it is wanted has to be forgotten.
            let log = || {
                tracing::error!("wrong");
                tracing::info!("plain");
                tracing::debug!(target: "other", "small");
            };
            log();
            for filter in set {
                let _ = change(&passes, filter);
                log();
            }
        });
        let text = String::from_utf8(lines.take()).unwrap();
        text.lines().map(|line| line.split_once("Z ").unwrap().1.trim_start().to_owned()).collect()
    }

    #[test]
    fn the_level_changes_while_the_process_runs_and_the_log_tells_so_once() {
        let expected = [
            // info
            "ERROR elbows::log::tests: wrong",
            "INFO elbows::log::tests: plain",
            // error
            r#"INFO elbows::log: the log lets through "error" from now on"#,
            "ERROR elbows::log::tests: wrong",
            // debug
            r#"INFO elbows::log: the log lets through "debug" from now on"#,
            "ERROR elbows::log::tests: wrong",
            "INFO elbows::log::tests: plain",
            "DEBUG other: small",
            // other=debug
            r#"INFO elbows::log: the log lets through "other=debug" from now on"#,
            "DEBUG other: small",
            // off
        ];
        assert_eq!(logged(&["error", "debug", "other=debug", "off"], "info"), expected);
    }

    #[test]
    fn what_is_no_filter_changes_nothing() {
        for text in ["", "loud", "info,", "elbows", "elbows=loud", "info\n"] {
            let lines = ["ERROR elbows::log::tests: wrong"; 2];
            assert_eq!(logged(&[text], "error"), lines, "{text:?}");
        }
    }

    #[test]
    fn without_a_log_there_is_nothing_to_change() {
        assert_eq!(set_level("info"), Err(LevelFault::NotStarted));
        assert_eq!(dropped(), 0);
    }
}
