//! Counts that time does not disturb: instructions in user space and allocations, by valgrind's callgrind and memcheck,
//! and system calls, by strace. Either runs the proxy; the difference of two runs of different length, divided by
//! the difference of their lengths, is what one more round trip costs.

use std::collections::BTreeMap;
use std::path::Path;

use crate::Fallible;
use crate::process::{self, Process};
use crate::proxies::missing;

/// What counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    /// Instructions in user space, of all threads: `instructions`.
    Callgrind,
    /// Calls of malloc and its like, of all threads: `allocations`.
    Memcheck,
    /// System calls by name, of all threads.
    Strace,
}

/// Counts by name.
pub(crate) type Counts = BTreeMap<String, f64>;

/// The name of the count of [`Counter::Callgrind`].
pub(crate) const INSTRUCTIONS: &str = "instructions";

/// The name of the count of [`Counter::Memcheck`].
pub(crate) const ALLOCATIONS: &str = "allocations";

impl Counter {
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Callgrind | Self::Memcheck => "valgrind",
            Self::Strace => "strace",
        }
    }

    /// The words in front of the proxy's own command line.
    pub(crate) fn words(self, own: &Path, cores: &[usize]) -> Fallible<Vec<String>> {
        let program = self.program();
        let path = process::find(program).ok_or_else(|| missing(program))?;
        let mut words = vec![path.display().to_string()];
        match self {
            Self::Callgrind => words.extend(
                ["--tool=callgrind", "--callgrind-out-file=/dev/null", "--"].map(str::to_owned),
            ),
            // Of memory's use it is to find nothing.
            Self::Memcheck => words.extend(
                ["--tool=memcheck", "--undef-value-errors=no", "--leak-check=no", "--"]
                    .map(str::to_owned),
            ),
            // Whoever kills strace leaves its child behind, unless the child asked for its death.
            Self::Strace => words.extend([
                "-c".to_owned(),
                "-f".to_owned(),
                "-U".to_owned(),
                "calls,name".to_owned(),
                own.display().to_string(),
                "launch".to_owned(),
                process::cores(cores),
            ]),
        }
        Ok(words)
    }

    /// What was counted until the proxy ended.
    pub(crate) fn read(self, ended: &Process) -> Fallible<Counts> {
        let said = ended.errors();
        let counts = match self {
            Self::Callgrind => callgrind(&said),
            Self::Memcheck => memcheck(&said),
            Self::Strace => strace(&said),
        };
        if counts.is_empty() {
            return Err(format!("{} counted nothing{}", self.program(), ended.last_words()));
        }
        Ok(counts)
    }
}

/// `==123== Collected : 456`
fn callgrind(said: &str) -> Counts {
    said.lines()
        .filter_map(|line| line.split_once("Collected : "))
        .filter_map(|(_, number)| number.trim().parse().ok())
        .map(|number| (INSTRUCTIONS.to_owned(), number))
        .collect()
}

/// `==123==   total heap usage: 1,234 allocs, 1,230 frees, 56,789 bytes allocated`
fn memcheck(said: &str) -> Counts {
    said.lines()
        .filter_map(|line| line.split_once("total heap usage: "))
        .filter_map(|(_, rest)| rest.split_once(" allocs"))
        .filter_map(|(number, _)| number.replace(',', "").parse().ok())
        .map(|number| (ALLOCATIONS.to_owned(), number))
        .collect()
}

/// Lines `    123 read`, between rules, the last one `    456 total`.
fn strace(said: &str) -> Counts {
    said.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (number, name) = (words.next()?.parse().ok()?, words.next()?);
            (words.next().is_none() && name != "total").then(|| (name.to_owned(), number))
        })
        .collect()
}

/// What one more of what a run did costs.
pub(crate) fn difference(short: &Counts, long: &Counts, more: f64) -> Counts {
    let names = short.keys().chain(long.keys());
    names
        .map(|name| {
            let of = |counts: &Counts| counts.get(name).copied().unwrap_or_default();
            (name.clone(), (of(long) - of(short)) / more)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Counts, callgrind, difference, memcheck, strace};

    #[test]
    fn allocations_are_found_in_what_valgrind_says() {
        let said = "==7==   total heap usage: 1,234 allocs, 1,230 frees, 56,789 bytes allocated\n";
        assert_eq!(memcheck(said).values().copied().collect::<Vec<_>>(), [1_234.0]);
    }

    #[test]
    fn instructions_are_found_in_what_valgrind_says() {
        let said = "==7== Events    : Ir\n==7== Collected : 1234567\n==7==\n";
        assert_eq!(callgrind(said).values().copied().collect::<Vec<_>>(), [1_234_567.0]);
    }

    #[test]
    fn calls_are_found_in_the_table_of_strace() {
        let said = "strace: Process 9 attached\n    calls syscall\n--------- ----------------\n      \
                    100 read\n        2 write\n--------- ----------------\n      102 total\n";
        let expected = Counts::from([("read".to_owned(), 100.0), ("write".to_owned(), 2.0)]);
        assert_eq!(strace(said), expected);
    }

    #[test]
    fn difference_is_per_one_more() {
        let short = Counts::from([("read".to_owned(), 10.0), ("bind".to_owned(), 1.0)]);
        let long = Counts::from([("read".to_owned(), 30.0), ("bind".to_owned(), 1.0)]);
        let expected = Counts::from([("read".to_owned(), 2.0), ("bind".to_owned(), 0.0)]);
        assert_eq!(difference(&short, &long, 10.0), expected);
    }
}
