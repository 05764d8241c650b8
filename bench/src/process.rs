//! Programs that the bench starts, and how they end: each with the bench, whatever happens to it.
//!
//! A program is started through the bench's own `launch` command, which puts itself onto the cores,
//! asks the kernel for its death with ours, and becomes the program.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, io};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::Fallible;
use crate::measure::tree;

/// How often a condition is looked at that nobody tells us of.
pub(crate) const GLANCE: Duration = Duration::from_millis(10);

/// How long a program has to listen, under valgrind too, and to end when it is asked to.
pub(crate) const START: Duration = Duration::from_secs(60);
const END: Duration = Duration::from_secs(60);

/// After so long it is asked once more: longer than the longest drain.
const AGAIN: Duration = Duration::from_secs(20);

/// A running program. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    name: String,
    /// Where its standard output and its standard error go.
    output: PathBuf,
    errors: PathBuf,
}

/// A program to start.
pub(crate) struct Program {
    /// How people call it.
    name: String,
    cores: Vec<usize>,
    words: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Program {
    pub(crate) fn new(name: &str, cores: &[usize], program: &Path) -> Self {
        Self {
            name: name.to_owned(),
            cores: cores.to_vec(),
            words: vec![program.display().to_string()],
            variables: Vec::new(),
        }
    }

    pub(crate) fn argument(mut self, word: impl Into<String>) -> Self {
        self.words.push(word.into());
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_string()));
        self
    }

    /// The same program, run by another one.
    pub(crate) fn under(mut self, wrapper: &[impl ToString]) -> Self {
        self.words.splice(0..0, wrapper.iter().map(ToString::to_string));
        self
    }

    /// Starts it. Its output goes to files in `scratch`.
    pub(crate) fn start(self, scratch: &Path, number: usize) -> Fallible<Process> {
        let Self { name, cores, words, variables } = self;
        let file = |kind: &str| scratch.join(format!("{number}-{kind}"));
        let (output, errors) = (file("out"), file("err"));
        let create = |path: &Path| {
            File::create(path).map_err(|fault| format!("{}: {fault}", path.display()))
        };
        let own = env::current_exe().map_err(|fault| format!("our own binary: {fault}"))?;
        let child = Command::new(own)
            .args(["launch", &self::cores(&cores)])
            .args(words)
            .envs(variables)
            .stdin(Stdio::piped())
            .stdout(create(&output)?)
            .stderr(create(&errors)?)
            .spawn()
            .map_err(|fault| format!("{name} cannot be started: {fault}"))?;
        Ok(Process { child, name, output, errors })
    }
}

/// Cores as `launch` takes them.
pub(crate) fn cores(cores: &[usize]) -> String {
    cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Becomes the program that `words` name, on `cores`; returns only if that fails.
pub(crate) fn launch(cores: &str, words: &[String]) -> String {
    let mut set = CpuSet::new();
    for core in cores.split(',').filter_map(|core| core.parse().ok()) {
        set.set(core);
    }
    if let Err(fault) = sched_setaffinity(None, &set) {
        return format!("cores {cores} cannot be had: {fault}; the bench needs two cores");
    }
    if let Err(fault) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return format!("no signal of our parent's death: {fault}");
    }
    let Some((program, arguments)) = words.split_first() else {
        return "no program to launch".to_owned();
    };
    let fault = Command::new(program).args(arguments).exec();
    format!("{program} cannot be run: {fault}")
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input. When that is dropped, the program reads its end.
    pub(crate) fn input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// What it wrote to standard output so far.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// What it wrote to standard error so far.
    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Fails if it has ended.
    pub(crate) fn expect_alive(&mut self) -> Fallible<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => Err(format!(
                "{} ended by itself ({status}){}; start it again, and if that is how it always ends, look into it with `--case`",
                self.name,
                self.last_words()
            )),
        }
    }

    /// What it said last, for a sentence.
    pub(crate) fn last_words(&self) -> String {
        let (errors, output) = (self.errors(), self.output());
        let last =
            |text: &str| text.lines().rfind(|line| !line.trim().is_empty()).map(str::to_owned);
        match last(&errors).or_else(|| last(&output)) {
            Some(line) => format!(" and said `{}`", line.trim()),
            None => String::new(),
        }
    }

    /// Waits until somebody listens at `address`.
    pub(crate) fn wait_until_it_listens(&mut self, address: SocketAddr) -> Fallible<()> {
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.ended() {
                return Err(format!(
                    "{} did not start on {address} ({status}){}; if the port is in use, end what uses it (`ss -tlnp` names it) or run the bench again, which takes other ports",
                    self.name,
                    self.last_words()
                ));
            }
            if start.elapsed() > START {
                return Err(format!("{} does not listen on {address} after 60 s", self.name));
            }
            sleep(GLANCE);
        }
        Ok(())
    }

    /// Sends a signal to the program, or to what it runs: a wrapper such as strace has one child.
    pub(crate) fn signal(&self, signal: Signal) {
        let own = self.pid();
        let children = tree::children(own).unwrap_or_default();
        send(children.first().copied().unwrap_or(own), signal);
    }

    /// Sends a signal to the program itself, whatever it runs.
    pub(crate) fn signal_master(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Asks it to end, waits until it has, and returns how.
    pub(crate) fn end(&mut self) -> Fallible<ExitStatus> {
        self.end_or_ask_again(AGAIN)
    }

    fn end_or_ask_again(&mut self, after: Duration) -> Fallible<ExitStatus> {
        self.signal(Signal::TERM);
        if let Some(status) = self.ended_within(after) {
            return Ok(status);
        }
        // nginx sees a signal that comes right before it waits for events with the next one, which may never come.
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits until it has ended, and returns how.
    pub(crate) fn wait(&mut self) -> Fallible<ExitStatus> {
        self.ended_within(END).ok_or_else(|| format!("{} does not end", self.name))
    }

    fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            let status = self.ended();
            if status.is_some() || start.elapsed() > limit {
                return status;
            }
            sleep(GLANCE);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            // A wrapper that is killed leaves what it runs behind, and a master its workers.
            for pid in tree::of(self.pid()).unwrap_or_default() {
                send(pid, Signal::KILL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = fs::remove_file(&self.output);
        let _ = fs::remove_file(&self.errors);
    }
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // One that is gone already needs none.
        let _ = kill_process(pid, signal);
    }
}

/// An address of this machine at which nobody listens.
pub(crate) fn free_address() -> Fallible<SocketAddr> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|bound| bound.local_addr());
    bound.map_err(|fault| format!("no free port on 127.0.0.1: {fault}"))
}

/// Where a program is, by `PATH` and where Debian keeps servers.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/usr/bin"])
        .map(|folder| Path::new(folder).join(program))
        .find(|file| file.is_file())
}

/// The first line that a program says to `arguments`, on either output. Some begin with an empty one.
pub(crate) fn first_line(program: &str, arguments: &[&str]) -> io::Result<String> {
    let path = find(program).ok_or(io::ErrorKind::NotFound)?;
    let said = Command::new(path).args(arguments).stdin(Stdio::null()).output()?;
    let text = [said.stdout, said.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn program_that_misses_the_signal_is_asked_again() {
        let once_deaf = "trap 'trap - TERM' TERM; echo ready; while :; do read -r line; done";
        let mut child = Command::new("sh")
            .args(["-c", once_deaf])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        // Both go with it.
        let [output, errors] = ["out", "err"].map(|name| scratch.path().join(name));
        let mut process = Process { child, name: "sh".to_owned(), output, errors };
        let status = process.end_or_ask_again(Duration::from_millis(100)).unwrap();
        assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
    }
}
