//! elbows as its users run it: the binary, environment variables, a log to read.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use test_support::process::memory;
use test_support::times::count_this_test;

use crate::programs::wait_until;

/// How long a test waits for something that should come at once. Only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running elbows. It is ended with the value.
pub struct Elbows {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// The access log, standard output.
    pub access_log: Lines,
    /// The log, standard error.
    pub log: Lines,
}

impl Elbows {
    /// elbows in front of `upstream`, with further settings, ready to serve. The log is at debug, the
    /// access log is text, and a drain takes no longer than it must.
    pub fn start(upstream: SocketAddr, settings: &[(&str, &str)]) -> Self {
        let (command, address) = Self::prepare(Self::command(), upstream, settings);
        Self::spawn(command, address)
    }

    /// `command` with the settings of [`Elbows::start`], and the address that it will listen at.
    pub fn prepare(
        mut command: Command,
        upstream: SocketAddr,
        settings: &[(&str, &str)],
    ) -> (Command, SocketAddr) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        command
            .env("LISTEN_ON", address.to_string())
            .env("DESTINATION_HOSTNAME", upstream.ip().to_string())
            .env("DESTINATION_PORT", upstream.port().to_string())
            .env("LOG", "elbows=debug,info")
            .env("DRAIN_DELAY", "0s")
            .envs(settings.iter().copied());
        (command, address)
    }

    /// The binary without any setting of this test's environment.
    pub fn command() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_elbows"));
        command.env_clear();
        command
    }

    /// Starts `command` and waits until it listens at `address`.
    pub fn spawn(command: Command, address: SocketAddr) -> Self {
        Self::spawn_to(command, address, Stdio::piped(), Stdio::piped())
    }

    /// The same; of standard output and error, what is piped is followed.
    pub fn spawn_to(
        command: Command,
        address: SocketAddr,
        stdout: impl Into<Stdio>,
        stderr: impl Into<Stdio>,
    ) -> Self {
        let mut elbows = Self::spawn_unready_to(command, address, stdout, stderr);
        elbows.wait_until_listening();
        elbows
    }

    /// Starts `command`, which will listen at `address` or will not.
    pub fn spawn_unready(command: Command, address: SocketAddr) -> Self {
        Self::spawn_unready_to(command, address, Stdio::piped(), Stdio::piped())
    }

    fn spawn_unready_to(
        mut command: Command,
        address: SocketAddr,
        stdout: impl Into<Stdio>,
        stderr: impl Into<Stdio>,
    ) -> Self {
        count_this_test();
        let command = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let mut child = command.spawn().expect("elbows starts");
        let access_log = child.stdout.take().map_or_else(Lines::none, Lines::follow);
        let log = child.stderr.take().map_or_else(Lines::none, Lines::follow);
        Self { child, address, access_log, log }
    }

    /// Waits until somebody listens at its address.
    pub fn wait_until_listening(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                panic!("elbows ended with {status} at start: {}", self.log.all().join("\n"));
            }
            assert!(Instant::now() < deadline, "elbows does not listen at {}", self.address);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The summary that it writes when it is asked for one (`SIGUSR1`).
    pub fn report(&self) -> String {
        let reports = |lines: &[String]| {
            let is_report = |line: &&String| line.contains("tunnels_open=");
            (lines.iter().filter(is_report).count(), lines.iter().rfind(is_report).cloned())
        };
        let before = reports(&self.log.all()).0;
        self.signal(Signal::USR1);
        self.log.wait_until("a report", |lines| {
            let (now, last) = reports(lines);
            last.filter(|_| now > before)
        })
    }

    /// Waits for a summary that contains `text` as a whole word.
    pub fn wait_for_report(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let report = self.report();
            if report.split(' ').any(|word| word == text) {
                return report;
            }
            assert!(Instant::now() < deadline, "no {text} in {report}\n{}", self.sockets());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its TCP sockets, as `/proc/PID/net/tcp` has them (proc(5): 01 is established, 08 has got an end).
    fn sockets(&self) -> String {
        let proc = Path::new("/proc").join(self.child.id().to_string());
        let inodes: HashSet<String> = fs::read_dir(proc.join("fd"))
            .into_iter()
            .flatten()
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.replace(']', "")))
            .collect();
        let table = fs::read_to_string(proc.join("net/tcp")).unwrap_or_default();
        let is_its = |line: &&str| {
            line.split_whitespace().nth(9).is_some_and(|inode| inodes.contains(inode))
        };
        table.lines().filter(is_its).collect::<Vec<_>>().join("\n")
    }

    /// A line of its `/proc/PID/status`, such as `VmHWM`, in kB.
    pub fn memory(&self, name: &str) -> u64 {
        memory(self.pid(), name) / 1024
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    /// Begins its drain.
    pub fn drain(&self) {
        self.signal(Signal::TERM);
        self.log.wait_for("draining");
    }

    /// Waits until nobody listens any more: from then on Closes go out.
    pub fn wait_until_refused(&self) {
        wait_until("connections are refused", || {
            let connected = TcpStream::connect(self.address);
            connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
    }

    /// Signals its end again until it has ended: a second signal counts from a second after the first.
    pub fn hurry(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // It may just have ended.
            let _ = kill_process(self.pid(), Signal::TERM);
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "elbows does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "elbows does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Elbows {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            for (name, lines) in [("log", self.log.all()), ("access log", self.access_log.all())] {
                let last = lines.len().saturating_sub(50);
                eprintln!("the end of elbows' {name}:\n{}", lines[last..].join("\n"));
            }
        }
    }
}

/// Lines that a process writes, as they come.
#[derive(Clone)]
pub struct Lines(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Lines {
    /// Collects the lines of `source` until it ends.
    pub fn follow(source: impl Read + Send + 'static) -> Self {
        let lines = Self(Arc::default());
        let collected = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                collected.0.0.lock().unwrap().push(line);
                collected.0.1.notify_all();
            }
        });
        lines
    }

    /// Every line so far.
    pub fn all(&self) -> Vec<String> {
        self.0.0.lock().unwrap().clone()
    }

    /// No lines.
    pub fn none() -> Self {
        Self(Arc::default())
    }

    /// Waits for a line that contains `text`.
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_until(&format!("line with {text:?}"), |lines| {
            lines.iter().find(|line| line.contains(text)).cloned()
        })
    }

    /// Waits until `find` finds what it looks for in the lines so far.
    pub fn wait_until<T>(&self, what: &str, find: impl Fn(&[String]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.0.0.lock().unwrap();
        loop {
            if let Some(found) = find(&lines) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let text = lines.join("\n");
                drop(lines);
                panic!("no {what} in:\n{text}");
            }
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
    }
}

/// A port that nobody listens on now, and that no test is given twice.
///
/// Below the range from which the kernel takes ports for outgoing connections
/// (`net.ipv4.ip_local_port_range`): it would take one that is free just now. Several processes may
/// test at once, so each takes a block of ports for itself: whoever listens at a block's first has it.
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const BLOCKS: u16 = 40;
    const LENGTH: u16 = 500;
    static BLOCK: LazyLock<(u16, TcpListener)> = LazyLock::new(|| {
        (0..BLOCKS)
            .map(|block| FIRST + block * LENGTH)
            .find_map(|first| Some((first, listen(first)?)))
            .expect("a block of ports is free")
    });
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = BLOCK.0 + 1 + NEXT.fetch_add(1, Ordering::Relaxed) % (LENGTH - 1);
        if listen(port).is_some() {
            return port;
        }
    }
}

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).ok()
}
