//! The proxies that are measured, each set up for the same job: PROXY header in, WebSockets and plain
//! HTTP on, the client's address told, one thread, room for 9,900 connections, no access log.

mod elbows;
mod haproxy;
mod nginx;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Fallible;
use crate::process::{self, Program};

/// Connections that each has room for: 20,000 descriptors, two for each, and some for itself.
pub(crate) const ROOM: usize = 9_900;

/// One of those that are measured, in the order of the tables.
#[allow(clippy::enum_variant_names)] // It is a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Proxy {
    Elbows,
    Nginx,
    Haproxy,
    /// The bare copy loop.
    Limit,
}

/// What is not the same in each case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// Threads of elbows' front, and of its relay. The others always have one.
    pub(crate) threads: usize,
    /// elbows pings silent clients this often.
    pub(crate) ping_interval: Duration,
    /// elbows drains over this time when it is told to end.
    pub(crate) drain_period: Duration,
    /// Further settings of elbows.
    pub(crate) more: &'static [(&'static str, &'static str)],
}

impl Setup {
    pub(crate) const DEFAULT: Self = Self {
        threads: 1,
        ping_interval: Duration::from_secs(50),
        drain_period: Duration::ZERO,
        more: &[],
    };
}

impl Default for Setup {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Proxy {
    pub(crate) const ALL: [Self; 4] = [Self::Elbows, Self::Nginx, Self::Haproxy, Self::Limit];

    /// Those that goals compare elbows with.
    pub(crate) const RIVALS: [Self; 2] = [Self::Nginx, Self::Haproxy];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Elbows => "elbows",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Limit => "copy loop",
        }
    }

    /// The program, to listen at `listen` and pass on to `application`.
    pub(crate) fn program(
        self,
        own: &Path,
        cores: &[usize],
        scratch: &Path,
        [listen, application]: [SocketAddr; 2],
        setup: &Setup,
    ) -> Fallible<Program> {
        match self {
            Self::Elbows => elbows::program(own, cores, [listen, application], setup),
            Self::Nginx => nginx::program(cores, scratch, [listen, application]),
            Self::Haproxy => haproxy::program(cores, scratch, [listen, application]),
            Self::Limit => Ok(Program::new(self.as_str(), cores, own)
                .argument("limit")
                .argument(listen.to_string())
                .argument(application.to_string())),
        }
    }

    /// What it says its version is.
    pub(crate) fn version(self, own: &Path) -> Fallible<String> {
        let (program, flag) = match self {
            Self::Elbows => (elbows::binary(own)?.display().to_string(), "--version"),
            Self::Nginx => ("nginx".to_owned(), "-v"),
            Self::Haproxy => ("haproxy".to_owned(), "-v"),
            Self::Limit => return Ok("the bench's own, on epoll(7)".to_owned()),
        };
        process::first_line(&program, &[flag]).map_err(|_| missing(&program))
    }

    /// What sets it up, for people to read.
    pub(crate) fn settings(self) -> String {
        let listen = SocketAddr::from(([127, 0, 0, 1], 45400));
        let application = SocketAddr::from(([127, 0, 0, 1], 45490));
        match self {
            Self::Elbows => {
                let settings = elbows::settings([listen, application], &Setup::default());
                settings.iter().fold(String::new(), |text, (name, value)| {
                    text + name
                        + "="
                        + value
                        + "
"
                })
            }
            Self::Nginx => nginx::configuration("/tmp/bench", [listen, application]),
            Self::Haproxy => haproxy::configuration([listen, application]),
            Self::Limit => String::new(),
        }
    }
}

/// That a program is not there.
pub(crate) fn missing(program: &str) -> String {
    format!(
        "there is no `{program}`; `cargo xtask bench` installs it, or as root: apt-get install {program}"
    )
}

/// Where a program is that the bench does not bring along.
fn find(program: &str) -> Fallible<std::path::PathBuf> {
    process::find(program).ok_or_else(|| missing(program))
}
