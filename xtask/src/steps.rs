//! The steps of a long command: each is announced, timed, and listed again in a summary.
//!
//! The first step that fails is the last one that runs. The summary then says which one it was,
//! below all the output that the step itself made.

use std::fmt;
use std::time::{Duration, Instant};

/// How a step ended that did not fail.
pub(crate) enum Outcome {
    /// All of it was done.
    Done,
    /// It was not done, for the reason given.
    Skipped(String),
}

/// The steps that were run so far.
#[derive(Default)]
pub(crate) struct Steps {
    ended: Vec<Ended>,
}

struct Ended {
    name: &'static str,
    how: String,
    took: Duration,
}

impl Steps {
    /// Announces and runs a step. An error is the step's own and means that no other step may follow.
    pub(crate) fn run(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<Outcome, String>,
    ) -> Result<(), String> {
        println!("\n==> {name}");
        let start = Instant::now();
        let result = work();
        let took = start.elapsed();
        let (how, result) = match result {
            Ok(Outcome::Done) => ("ok".to_owned(), Ok(())),
            Ok(Outcome::Skipped(why)) => (format!("skipped: {why}"), Ok(())),
            Err(fault) => ("FAILED".to_owned(), Err(format!("{name}: {fault}"))),
        };
        println!("==> {name}: {how} ({})", Seconds(took));
        self.ended.push(Ended { name, how, took });
        result
    }

    /// Prints one line for each step that was run, and the whole time.
    pub(crate) fn print_summary(&self) {
        println!("\nSummary");
        for Ended { name, how, took } in &self.ended {
            println!("  {name:<18} {:>12}  {how}", Seconds(*took).to_string());
        }
        let whole = self.ended.iter().map(|ended| ended.took).sum();
        println!("  {:<18} {:>12}", "all", Seconds(whole).to_string());
    }
}

/// A duration as a person says it: `4.2 s`, `3 min 07 s`.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.as_secs();
        if whole < 60 {
            return write!(out, "{:.1} s", self.0.as_secs_f64());
        }
        write!(out, "{} min {:02} s", whole / 60, whole % 60)
    }
}
