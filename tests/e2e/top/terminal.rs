//! A terminal that tmux plays: what is in it is read as a person would read it, and keys are pressed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::programs::wait_until;

/// What runs in the terminal: the command, then what is to be seen once it has ended.
const SHELL: &str = r#""$0" "$@"; echo "ended with $?"; stty -a | grep -o -- '-*icanon'; exec cat"#;

/// A terminal in which `elbows top` runs. It is ended with the value.
pub struct Terminal {
    directory: TempDir,
}

impl Terminal {
    /// One of so many columns and lines, with these variables and arguments of `elbows top`.
    pub fn start(size: (u16, u16), variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let terminal = Self { directory: tempfile::tempdir().unwrap() };
        let mut tmux = terminal.tmux();
        let (wide, high) = (size.0.to_string(), size.1.to_string());
        tmux.args(["new-session", "-d", "-x", &wide, "-y", &high]);
        for (name, value) in variables {
            tmux.args(["-e", &format!("{name}={value}")]);
        }
        tmux.args(["/bin/sh", "-c", SHELL, env!("CARGO_BIN_EXE_elbows"), "top"]).args(arguments);
        run(tmux);
        terminal
    }

    /// tmux with a server of its own. `-u`: the terminal speaks UTF-8.
    fn tmux(&self) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "xterm-256color");
        tmux.arg("-u").arg("-S").arg(self.directory.path().join("tmux")).args(["-f", "/dev/null"]);
        tmux
    }

    fn tell(&self, arguments: &[&str]) -> String {
        let mut tmux = self.tmux();
        tmux.args(arguments);
        run(tmux)
    }

    /// What is seen.
    pub fn screen(&self) -> String {
        self.tell(&["capture-pane", "-p"])
    }

    /// The same with the orders for colours and such.
    pub fn screen_with_styles(&self) -> String {
        self.tell(&["capture-pane", "-p", "-e"])
    }

    /// A variable of tmux, such as `pane_title`.
    pub fn state(&self, name: &str) -> String {
        self.tell(&["display-message", "-p", &format!("#{{{name}}}")]).trim().to_owned()
    }

    /// Waits until this is seen.
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_until(text, |screen| screen.contains(text))
    }

    /// Waits until what is seen is so.
    pub fn wait_until(&self, what: &str, mut is_so: impl FnMut(&str) -> bool) -> String {
        let mut screen = String::new();
        wait_until(what, || {
            screen = self.screen();
            is_so(&screen)
        });
        screen
    }

    /// Presses keys, named as tmux does: `Enter`, `Down`, `C-c`, `q`.
    pub fn press(&self, key: &str) {
        self.tell(&["send-keys", key]);
    }

    /// Types text.
    pub fn type_text(&self, text: &str) {
        self.tell(&["send-keys", "-l", text]);
    }

    /// Makes it another size.
    pub fn resize(&self, wide: u16, high: u16) {
        self.tell(&["resize-window", "-x", &wide.to_string(), "-y", &high.to_string()]);
    }

    /// Whatever the program writes from now on also goes into this file, byte by byte.
    pub fn record(&self) -> PathBuf {
        let file = self.directory.path().join("written");
        self.tell(&["pipe-pane", &format!("cat > '{}'", file.display())]);
        wait_until("the file is there", || file.exists());
        file
    }

    /// Signals the program.
    pub fn signal(&self, signal: Signal) {
        let shell = self.state("pane_pid");
        let children = format!("/proc/{shell}/task/{shell}/children");
        let mut program = None;
        wait_until("the program runs", || {
            let children = fs::read_to_string(&children).unwrap_or_default();
            program = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
            program.is_some()
        });
        kill_process(program.and_then(Pid::from_raw).unwrap(), signal).unwrap();
    }

    /// Waits until the program has ended, and the terminal is as it was before.
    pub fn expect_end(&self, code: u8) {
        let screen = self.wait_for("icanon");
        assert!(screen.contains(&format!("ended with {code}\n")), "{screen}");
        assert!(screen.contains("\nicanon"), "it is raw: {screen}");
        assert_eq!(
            (self.state("alternate_on"), self.state("cursor_flag")),
            ("0".into(), "1".into())
        );
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if thread::panicking() {
            let shown = self.tmux().args(["capture-pane", "-p"]).output();
            let shown = shown.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            eprintln!("the terminal shows:\n{}", shown.unwrap_or_default());
        }
        let _ = self.tmux().arg("kill-server").output();
    }
}

fn run(mut tmux: Command) -> String {
    let output = tmux.output().expect("`cargo xtask test` installs tmux");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it speaks UTF-8")
}
