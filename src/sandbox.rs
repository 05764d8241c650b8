//! What the process gives up at its start: writing and creating files, starting programs, and reading
//! anything but what the resolver needs.
//!
//! elbows needs none of it, so that whoever made it run code of his own would have nothing to write to and
//! nothing to start. The kernel's Landlock does it, without privilege and for good. What is open already,
//! standard output for one, is not touched, and sockets are not either. Where the kernel has no Landlock
//! (before Linux 5.13, or switched off) nothing changes.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use crate::config::Sandbox;

/// What the resolver reads: its files, where they link to, the libraries that `nsswitch.conf` names, and random numbers
/// for its questions, which come of a device where the C library is musl; and what the kernel says of this process, for
/// the summary.
const READABLE: [&str; 11] = [
    "/dev/random",
    "/dev/urandom",
    "/proc/self",
    "/etc",
    "/run",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/nix/store",
];

/// What `required` requires: all that can be done to files since Linux 6.2, truncating among it.
const LEAST: ABI = ABI::V3;

/// What is taken where the kernel has it: devices, abstract sockets and signals of others besides.
const MOST: ABI = ABI::V6;

/// How far the kernel went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// `SANDBOX=off`.
    Off,
    /// The kernel has no Landlock.
    NotThere,
    /// Older than what we know: some of it is not given up.
    Partly,
    /// All of it.
    Fully,
}

/// Gives it all up, for this thread and those that it starts from now on: called before the first one.
///
/// Under `sockets`, the directories of `HANDOFF_SOCKET` and `ADMIN_LISTEN_ON`, sockets can be made and removed all the
/// same: a process whose predecessor died while it handed over has to listen there itself.
///
/// # Errors
/// `SANDBOX=required`, and the kernel does not do it.
pub fn enter(sandbox: Sandbox, sockets: &[&Path]) -> Result<Entered, RulesetError> {
    let level = match sandbox {
        Sandbox::Off => return Ok(Entered::Off),
        Sandbox::Auto => CompatLevel::BestEffort,
        Sandbox::Required => CompatLevel::HardRequirement,
    };
    let status = Ruleset::default()
        .set_compatibility(level)
        .handle_access(AccessFs::from_all(LEAST))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(MOST))?
        .scope(Scope::from_all(MOST))?
        .create()?
        .add_rules(path_beneath_rules(READABLE, AccessFs::ReadFile | AccessFs::ReadDir))?
        .add_rules(path_beneath_rules(
            sockets,
            AccessFs::MakeSock | AccessFs::RemoveFile | AccessFs::ReadDir | AccessFs::ReadFile,
        ))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Entered::Fully,
        RulesetStatus::PartiallyEnforced => Entered::Partly,
        RulesetStatus::NotEnforced => Entered::NotThere,
    })
}

impl Entered {
    /// The words for the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::NotThere => "not available, this kernel has no Landlock",
            Self::Partly => "on, as far as this kernel's Landlock goes",
            Self::Fully => "on",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream, ToSocketAddrs};
    use std::process::Command;
    use std::{env, fs, thread};

    use super::*;

    /// Landlock is a thread's own, so that a test can have it for one.
    fn inside(test: impl FnOnce() + Send + 'static) {
        let there = thread::spawn(|| enter(Sandbox::Auto, &[]).unwrap()).join().unwrap();
        if there == Entered::NotThere {
            test_support::left_out::left_out("this kernel has no Landlock");
            return;
        }
        thread::spawn(move || {
            assert_ne!(enter(Sandbox::Required, &[]).unwrap(), Entered::NotThere);
            test();
        })
        .join()
        .expect("what is asked of a thread holds");
    }

    fn is_denied<T>(done: std::io::Result<T>) -> bool {
        done.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }

    #[test]
    fn nothing_is_written_created_removed_or_started() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "before").unwrap();
        let mut open = fs::File::options().append(true).open(&file).unwrap();
        let (inner, program) = (file.clone(), env::current_exe().unwrap());
        inside(move || {
            assert!(is_denied(fs::write(&inner, "after")));
            assert!(is_denied(fs::read(&inner)));
            assert!(is_denied(fs::remove_file(&inner)));
            assert!(is_denied(fs::write(inner.with_file_name("new"), "x")));
            assert!(is_denied(fs::create_dir(inner.with_file_name("dir"))));
            assert!(is_denied(std::os::unix::fs::symlink("/", &link)));
            assert!(is_denied(fs::read_dir("/").map(|_| ())));
            assert!(is_denied(Command::new("/bin/true").status()));
            assert!(is_denied(Command::new(program).arg("--version").status()));
            // What was open before still is.
            open.write_all(b" and after").unwrap();
        });
        if fs::read_to_string(&file).unwrap() != "before" {
            assert_eq!(fs::read_to_string(&file).unwrap(), "before and after");
        }
    }

    #[test]
    fn names_are_resolved_and_connections_made() {
        inside(|| {
            assert!(fs::read("/etc/hosts").is_ok());
            assert!(fs::File::open("/dev/urandom").is_ok());
            let address = ("localhost", 0).to_socket_addrs().unwrap().next();
            assert!(address.is_some_and(|address| address.ip().is_loopback()));
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            listener.accept().unwrap().0.write_all(b"x").unwrap();
            assert_eq!(socket.read(&mut [0; 1]).unwrap(), 1);
        });
    }

    #[test]
    fn handoff_works_with_sockets_that_were_there_before() {
        use crate::handoff::socket::{self, BindError, Connection, Listener};
        use std::os::fd::AsFd;

        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("handoff.sock"), dir.path().join("other.sock"));
        let (listening, connected) =
            (socket::bind(&path).unwrap(), socket::connect(&path).unwrap().unwrap());
        inside(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let near = Connection::new(connected).unwrap();
                let far = Listener::new(listening).unwrap().accept().await.unwrap();
                let memfd = socket::memfd_from(b"records").unwrap();
                near.send(b"batch", &[memfd.as_fd()]).await.unwrap();
                let received = far.receive().await.unwrap().unwrap();
                let memfd = received.descriptors.first().unwrap();
                assert_eq!(socket::read_memfd(memfd, 99).unwrap(), b"records");
                assert!(far.is_same_user().unwrap());
                assert!(socket::free_descriptors() > 0);
            });
            // No other can be bound, so that this is done before.
            let refused = socket::bind(&other).unwrap_err();
            assert!(matches!(refused, BindError::Refused { .. }), "{refused}");
        });
    }

    #[test]
    fn off_gives_nothing_up() {
        thread::spawn(|| {
            assert_eq!(enter(Sandbox::Off, &[]).unwrap(), Entered::Off);
            assert!(Command::new("/bin/true").status().unwrap().success());
        })
        .join()
        .unwrap();
    }
}
