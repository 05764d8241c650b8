//! What a run of the tests says of itself at its end: which were left out and why, and which took longest.
//!
//! The tests write both down themselves (`tests/support`), in files that two variables name; how long each program of
//! tests took is in what it prints.

use std::fs;
use std::io::ErrorKind;
use std::process::Command;

use crate::process::root;

/// The variables that name the files, and the files.
const LEFT_OUT: (&str, &str) = ("ELBOWS_TEST_LEFT_OUT", "target/tests-left-out.txt");
const TIMES: (&str, &str) = ("ELBOWS_TEST_TIMES", "target/tests-times.txt");

/// How many of the slowest are named.
const SLOWEST: usize = 10;

/// What is known of a run so far.
#[derive(Default)]
pub(crate) struct Account {
    /// What the options leave out.
    left_out: Vec<String>,
    /// Programs of tests by their milliseconds.
    programs: Vec<(u64, String)>,
    running: String,
}

impl Account {
    /// The options leave something out.
    pub(crate) fn leave_out(&mut self, what: &str, why: &str) {
        self.left_out.push(format!("{what}: {why}"));
    }

    /// Takes a line that cargo or libtest printed.
    pub(crate) fn read(&mut self, line: &str) {
        let line = line.trim();
        if let Some(program) = line.strip_prefix("Running ") {
            self.running = named(program);
        } else if let Some(program) = line.strip_prefix("Doc-tests ") {
            self.running = format!("documentation of {program}");
        } else if line.starts_with("test result: ")
            && let Some((_, time)) = line.rsplit_once("finished in ")
            && let Some(seconds) = time.strip_suffix('s').and_then(|time| time.parse().ok())
            && let Ok(time) = std::time::Duration::try_from_secs_f64(seconds)
        {
            let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            self.programs.push((milliseconds, self.running.clone()));
        }
    }

    /// Prints all of it.
    pub(crate) fn print(mut self) {
        let listed = |file: &str| fs::read_to_string(root().join(file)).unwrap_or_default();
        if !self.programs.is_empty() {
            print_slowest("programs of tests", self.programs, 3);
            let tests = listed(TIMES.1).lines().filter_map(timed).collect();
            print_slowest("tests from end to end", tests, SLOWEST);
            self.left_out.extend(listed(LEFT_OUT.1).lines().map(str::to_owned));
        }
        if !self.left_out.is_empty() {
            self.left_out.sort();
            self.left_out.dedup();
            println!("\nLeft out");
            for line in self.left_out {
                println!("  {line}");
            }
        }
    }
}

/// Makes `tests` write down what they have to say, and forgets what earlier ones did.
pub(crate) fn collect(tests: &mut Command) -> Result<(), String> {
    for (variable, file) in [LEFT_OUT, TIMES] {
        let path = root().join(file);
        match fs::remove_file(&path) {
            Err(fault) if fault.kind() != ErrorKind::NotFound => {
                return Err(format!("{file}: {fault}"));
            }
            _ => tests.env(variable, path),
        };
    }
    Ok(())
}

/// Milliseconds and a name.
fn timed(line: &str) -> Option<(u64, String)> {
    let (milliseconds, name) = line.split_once(' ')?;
    Some((milliseconds.parse().ok()?, name.to_owned()))
}

/// What cargo calls a program of tests, and the crate it is of: many are `unittests src/lib.rs`.
fn named(program: &str) -> String {
    let (words, file) = program.split_once(" (").unwrap_or((program, ""));
    let file = file.trim_end_matches(')').rsplit('/').next().unwrap_or_default();
    let name = file.rsplit_once('-').map_or(file, |(name, _)| name);
    format!("{words} ({name})")
}

fn print_slowest(what: &str, mut all: Vec<(u64, String)>, most: usize) {
    if all.is_empty() {
        return;
    }
    all.sort_by(|a, b| b.cmp(a));
    println!("\nSlowest {what}");
    for (milliseconds, name) in all.into_iter().take(most) {
        println!("  {:>4}.{} s  {name}", milliseconds / 1000, milliseconds % 1000 / 100);
    }
}

#[cfg(test)]
mod tests {
    use super::{Account, timed};

    #[test]
    fn time_of_each_program_is_found_in_what_cargo_and_libtest_print() {
        let mut account = Account::default();
        for line in [
            "     Running tests/house.rs (target/debug/deps/house-1)",
            "test each_file ... ok",
            "test result: ok. 6 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "   Doc-tests elbows",
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 61.50s",
        ] {
            account.read(line);
        }
        let programs = [
            (10, "tests/house.rs (house)".to_owned()),
            (61_500, "documentation of elbows".to_owned()),
        ];
        assert_eq!(account.programs, programs);
    }

    #[test]
    fn time_of_a_test_comes_before_its_name() {
        assert_eq!(timed("1200 drain::ends"), Some((1200, "drain::ends".to_owned())));
        assert_eq!(timed("half a line"), None);
    }
}
