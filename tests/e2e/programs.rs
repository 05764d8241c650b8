//! Other people's programs: found, started, waited for and ended.
//!
//! Each runs in the foreground, writes no file outside a directory of its test, and ends with the value
//! that stands for it. A program that is not there fails the test that needs it and says what
//! installs it: a test that skips itself would pass on a machine where nothing was tested.

use std::env;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::proxy::{Lines, PATIENCE};

/// A running program. It is ended with the value.
pub struct Program {
    child: Child,
    name: String,
    /// What it reads, where it is one that goes on until that ends.
    input: Option<ChildStdin>,
    /// What it writes to standard output.
    pub output: Lines,
    /// What it writes to standard error.
    pub errors: Lines,
}

impl Program {
    /// Starts `command`.
    pub fn start(command: Command) -> Self {
        Self::start_with(command, Stdio::null())
    }

    /// Starts `command`, which goes on until it is told to finish.
    pub fn start_until_told(command: Command) -> Self {
        Self::start_with(command, Stdio::piped())
    }

    fn start_with(mut command: Command, input: Stdio) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let started = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                panic!("there is no {name}; `cargo xtask test` installs what the tests use")
            }
            Err(error) => panic!("{name} does not start: {error}"),
        };
        let output = Lines::follow(child.stdout.take().expect("piped"));
        let errors = Lines::follow(child.stderr.take().expect("piped"));
        Self { input: child.stdin.take(), child, name, output, errors }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until it listens at `address`.
    pub fn listening(mut self, address: SocketAddr) -> Self {
        wait_until(&format!("{} listens at {address}", self.name), || {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                panic!("{} ended with {status} at start", self.name);
            }
            TcpStream::connect(address).is_ok()
        });
        self
    }

    /// Waits for a line that is `word` and an address or a port of this machine, and returns the address.
    pub fn address_after(&self, word: &str) -> SocketAddr {
        let line = self.output.wait_for(word);
        let place = line.rsplit(' ').next().unwrap_or_default();
        place
            .parse()
            .or_else(|_| format!("127.0.0.1:{place}").parse())
            .unwrap_or_else(|_| panic!("{} says no address in {line:?}", self.name))
    }

    /// Tells it to finish: its standard input ends.
    pub fn finish(&mut self) {
        drop(self.input.take().expect("it reads until it is told"));
    }

    /// Waits for its end, for `patience` at most.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "{} does not end", self.name);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end, which must be a good one, and returns its last line, which begins with `word`.
    pub fn succeed(mut self, word: &str) -> String {
        let status = self.wait(3 * PATIENCE);
        assert!(status.success(), "{} ended with {status}", self.name);
        let line = self.output.wait_for(word);
        line.trim_start_matches(word).trim().to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("{} wrote:\n{}", self.name, self.output.all().join("\n"));
            eprintln!("and to standard error:\n{}", self.errors.all().join("\n"));
        }
    }
}

/// Waits for a condition, looking every few milliseconds.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A script of `tests/e2e/peers`, to be run by the Python that has the PyPI packages.
pub fn python(script: &str) -> Command {
    let ours = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    let interpreter = env::var_os("ELBOWS_TEST_PYTHON").map_or_else(ours, PathBuf::from);
    let mut command = Command::new(interpreter);
    command.arg("-u").arg(peer(script));
    command
}

/// A file of `tests/e2e/peers`.
pub fn peer(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/peers").join(name)
}
