//! A real name server (`peers/name_server.py`), and an elbows that asks it and no other.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use test_support::left_out::left_out;

use crate::programs::{Program, python};
use crate::proxy::Elbows;

/// The name of the application. Nobody else has one like it (RFC 6761, section 6.2).
pub(super) const NAME: &str = "app.elbows.test";

pub(super) struct NameServer {
    program: Program,
    address: String,
    files: TempDir,
}

impl NameServer {
    /// One that knows no name. Says that the test is left out where that cannot be.
    pub(super) fn start() -> Option<Self> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "true"]).stderr(Stdio::null());
        if !unshare.status().is_ok_and(|status| status.success()) {
            left_out("this machine allows no mount namespaces (root and `unshare` are needed)");
            return None;
        }
        let files = tempfile::tempdir().unwrap();
        fs::write(files.path().join("zone"), "{}").unwrap();
        fs::write(files.path().join("hosts"), "127.0.0.1 localhost\n").unwrap();
        let mut command = python("name_server.py");
        command.arg(files.path().join("zone"));
        let program = Program::start(command);
        let line = program.output.wait_for("name server at ");
        let address = line.rsplit(' ').next().unwrap().to_owned();
        let server = Self { program, address, files };
        server.search(&[]);
        Some(server)
    }

    /// From now on it knows this.
    pub(super) fn set(&self, zone: &Value) {
        let (new, zone_file) = (self.files.path().join("new"), self.files.path().join("zone"));
        fs::write(&new, zone.to_string()).unwrap();
        fs::rename(new, zone_file).unwrap();
    }

    /// An elbows that starts from now on looks for names in these domains, too.
    pub(super) fn search(&self, domains: &[&str]) {
        let search = if domains.is_empty() {
            String::new()
        } else {
            format!("search {}\n", domains.join(" "))
        };
        let text = format!("nameserver {}\n{search}options timeout:2 attempts:1\n", self.address);
        fs::write(self.files.path().join("resolv.conf"), text).unwrap();
    }

    /// Each question so far.
    pub(super) fn asked(&self) -> Vec<String> {
        let mut lines = self.program.output.all();
        lines.retain(|line| line.starts_with("asked "));
        lines
    }

    /// elbows that asks it, in front of `NAME` at `port`.
    pub(super) fn elbows(&self, port: u16, settings: &[(&str, &str)]) -> Elbows {
        let (command, address) = self.command(port, settings);
        Elbows::spawn(command, address)
    }

    /// The same, to be started, and the address that it will listen at where the settings give none.
    pub(super) fn command(&self, port: u16, settings: &[(&str, &str)]) -> (Command, SocketAddr) {
        let mut shell = Command::new("/bin/sh");
        let mounted = "mount --bind \"$0/hosts\" /etc/hosts && \
            mount --bind \"$0/resolv.conf\" /etc/resolv.conf && exec \"$1\"";
        shell
            .env_clear()
            .args(["-c", "exec unshare --mount --propagation private /bin/sh -c \"$0\" \"$@\""])
            .arg(mounted)
            .arg(self.files.path())
            .arg(env!("CARGO_BIN_EXE_elbows"));
        let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let settings = [&[("DESTINATION_HOSTNAME", NAME)], settings].concat();
        Elbows::prepare(shell, upstream, &settings)
    }
}
