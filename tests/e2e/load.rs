//! Tunnels of every kind at once, each byte of which both ends check: the program of `tests/load`, started and ended.
//!
//! Its processes are this very binary, told to do nothing but [`program`], so that they are there wherever the tests are.
//! [`Application`] is the end behind elbows, [`Clients`] are processes in front of it; what those tell at their
//! end is a [`Report`].

use std::env;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub use elbows_load::{Report, TunnelReport};

use crate::proxy::{Lines, PATIENCE};

/// The words of a process's command line, one a line.
const WORDS: &str = "ELBOWS_TEST_LOAD";

/// How long the clients may take to end each tunnel in order, full buffers among them.
const ENDING: Duration = Duration::from_secs(180);

/// Not a test but what the load's processes are.
#[test]
fn program() {
    if let Ok(words) = env::var(WORDS) {
        let words: Vec<String> = words.lines().map(str::to_owned).collect();
        elbows_load::run(&words).unwrap_or_else(|fault| panic!("{fault}"));
    }
}

/// A process of the load. It ends with the value.
struct Process {
    child: Child,
    /// When it is dropped, the process is to finish.
    input: Option<ChildStdin>,
    output: Lines,
    errors: Lines,
}

impl Process {
    fn start(words: &[String]) -> Self {
        let own = env::current_exe().expect("this binary");
        let mut command = Command::new(own);
        command
            .args(["--exact", "load::program", "--nocapture", "--test-threads=1"])
            .env(WORDS, [&["elbows-load".to_owned()], words].concat().join("\n"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the load starts");
        let output = Lines::follow(child.stdout.take().expect("piped"));
        let errors = Lines::follow(child.stderr.take().expect("piped"));
        Self { input: child.stdin.take(), child, output, errors }
    }

    /// The rest of the line that begins with `word`, or the reason why there is none.
    fn wait_for(&mut self, word: &str, patience: Duration) -> String {
        let deadline = Instant::now() + patience;
        loop {
            let ended = self.child.try_wait().expect("it is our child");
            let lines = self.output.all();
            if let Some(rest) = lines.iter().find_map(|line| line.strip_prefix(word)) {
                return rest.to_owned();
            }
            assert!(ended.is_none(), "the load ended before {word:?}: {ended:?}");
            assert!(Instant::now() < deadline, "the load does not say {word:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn finish(&mut self) {
        if let Some(mut input) = self.input.take() {
            let _ = input.write_all(b"\n");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let lines = [self.output.all(), self.errors.all()].concat();
            let lines = lines.iter().map(|line| line.chars().take(2_000).collect::<String>());
            eprintln!("the load wrote:\n{}", lines.collect::<Vec<_>>().join("\n"));
        }
    }
}

/// The end behind elbows. It ends with the value.
pub struct Application {
    _process: Process,
    pub address: SocketAddr,
}

impl Application {
    pub fn start() -> Self {
        let mut process = Process::start(&["application".to_owned()]);
        let address = process.wait_for("listening ", PATIENCE);
        let address = address.parse().expect("an address");
        Self { _process: process, address }
    }
}

/// Processes in front of elbows. They end with the value.
pub struct Clients(Vec<Process>);

impl Clients {
    /// Starts a process for each list of words, which are those of `elbows-load clients` (`tests/load/src/clients.rs`),
    /// and waits until all their tunnels are open.
    pub fn start(proxy: SocketAddr, application: &Application, words: &[Vec<String>]) -> Self {
        let start = |(number, words): (usize, &Vec<String>)| {
            let of_all = [
                "clients".to_owned(),
                format!("--proxy={proxy}"),
                format!("--application={}", application.address),
                format!("--process={number}"),
            ];
            Process::start(&[of_all.as_slice(), words].concat())
        };
        let mut processes: Vec<Process> = words.iter().enumerate().map(start).collect();
        for process in &mut processes {
            process.wait_for("open ", PATIENCE);
        }
        Self(processes)
    }

    /// Ends each tunnel in order, and returns what each process tells.
    pub fn finish(mut self) -> Vec<Report> {
        for process in &mut self.0 {
            process.finish();
        }
        self.wait()
    }

    /// The same, where they end by themselves (`--longest`).
    pub fn wait(mut self) -> Vec<Report> {
        let report = |process: &mut Process| {
            let report = process.wait_for("{\"seconds\":", ENDING);
            serde_json::from_str(&format!("{{\"seconds\":{report}")).expect("a report")
        };
        self.0.iter_mut().map(report).collect()
    }
}

/// The words of a mixture of so many lasting tunnels, shared by so many processes: of 9,000 there are 7,080 nearly idle,
/// 1,000 with an echo twice a second, 500 paced, 20 with frames of 1 MiB, and 100 each with fragments, with full
/// buffers, half closed and with Pings. Beside them there are close handshakes, 200 handshakes a second of 9,000,
/// requests, and a download of 100 MiB.
pub fn mixture(tunnels: usize, processes: usize) -> Vec<Vec<String>> {
    let share = |of_nine_thousand: usize| (tunnels * of_nine_thousand / 9_000 / processes).max(2);
    let kinds = [
        ("echo", share(1_000)),
        ("paced", share(500)),
        ("large", share(20)),
        ("fragmented", share(100)),
        ("stalled", share(100)),
        ("half-closed", share(100)),
        ("pings", share(100)),
    ];
    let busy: usize = kinds.iter().map(|(_, count)| count).sum();
    let mut words: Vec<String> =
        kinds.iter().map(|(kind, count)| format!("--{kind}={count}")).collect();
    words.push(format!("--idle={}", (tunnels / processes).saturating_sub(busy)));
    words.push(format!("--closing={}", share(50)));
    words.push(format!("--handshakes={}", share(200)));
    words.push(format!("--requests={}", share(20)));
    let mut all = vec![words; processes];
    if let Some(first) = all.first_mut() {
        first.push("--download=104857600".to_owned());
    }
    all
}
