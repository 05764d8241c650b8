//! A network of the bench's own, with nothing in it but loopback.
//!
//! Connection tracking, as Docker switches on, costs each packet time, and its table is full after some
//! ten thousand connections: the kernel then drops those that come next. Other programs' sockets would
//! be counted with ours, and could have our ports. So the bench starts itself anew in a network
//! namespace (`network_namespaces(7)`), if it may have one, with the same process id.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// Says to the process that is started anew that it is.
const MARK: &str = "ELBOWS_BENCH_NETWORK";

/// What runs in the namespace: loopback is down at first.
const UP: &str = "ip link set lo up && exec \"$@\"";

/// The ways to a namespace: as root, and as anybody where the kernel lets users have their own.
const WAYS: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];

/// Starts this process anew in a network of its own. Returns where that cannot be had, or is done.
pub(crate) fn enter() {
    if env::var_os(MARK).is_some() {
        return;
    }
    let Ok(own) = env::current_exe() else { return };
    let shell = ["--", "sh", "-c", UP, "sh"];
    for way in WAYS {
        let mut probe = Command::new("unshare");
        probe.args(way).args(shell).arg("true").stdin(Stdio::null()).stderr(Stdio::null());
        if probe.status().is_ok_and(|status| status.success()) {
            // It returns only if it fails, and then we go on here.
            let _ = Command::new("unshare")
                .args(way)
                .args(shell)
                .arg(&own)
                .args(env::args_os().skip(1))
                .env(MARK, "own")
                .exec();
        }
    }
}

/// Which network it is, for the report.
pub(crate) fn kind() -> &'static str {
    if env::var_os(MARK).is_some() {
        "loopback of a network namespace of its own"
    } else {
        "loopback of the machine, with its connection tracking if it has one (`unshare --net` is not allowed here)"
    }
}
