//! The proxies that are measured, each set up for the same job: PROXY header in, WebSockets and plain
//! HTTP on, the client's address told, one thread, room for 9,900 connections, no access log.
//!
//! One file a proxy. nginx and HAProxy are Debian's; Envoy, Caddy and Traefik are those of `bench/peers.txt`, which
//! `cargo xtask bench` puts into `target/peers`. The bare loops are the bench's own.

mod caddy;
mod elbows;
pub(crate) mod envoy;
mod haproxy;
mod nginx;
mod traefik;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Fallible;
use crate::process::{self, Program};

/// Connections that each has room for: 20,000 descriptors, two for each, and some for itself.
pub(crate) const ROOM: usize = 9_900;

/// The variable by which Go runs its code on so many threads at a time.
const ONE_THREAD: &str = "GOMAXPROCS";

/// One of those that are measured, in the order of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    Elbows,
    Nginx,
    Haproxy,
    Envoy,
    Caddy,
    Traefik,
    /// The limit: a loop that copies.
    CopyLoop,
    /// The same by splice(2).
    SpliceLoop,
}

/// What is not the same in each case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// Threads of elbows. The others always have one.
    pub(crate) threads: usize,
    /// elbows pings silent clients this often.
    pub(crate) ping_interval: Duration,
    /// elbows drains over this time when it is told to end; those that can wait so long for connections to end.
    pub(crate) drain_period: Duration,
    /// It is replaced while it serves.
    pub(crate) replacement: Option<Replacement>,
    /// elbows' admin port.
    pub(crate) admin: Option<SocketAddr>,
    /// The application is at all of these; each proxy chooses the one that has the fewest connections, as it does that.
    pub(crate) endpoints: Option<Endpoints>,
    /// Further settings of elbows.
    pub(crate) more: &'static [(&'static str, &'static str)],
}

impl Setup {
    pub(crate) const DEFAULT: Self = Self {
        threads: 1,
        ping_interval: Duration::from_secs(50),
        drain_period: Duration::ZERO,
        replacement: None,
        admin: None,
        endpoints: None,
        more: &[],
    };
}

/// Addresses of this machine, the same port at each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoints {
    pub(crate) number: u8,
    pub(crate) port: u16,
}

impl Endpoints {
    pub(crate) fn addresses(self) -> impl Iterator<Item = SocketAddr> {
        (1..=self.number).map(move |last| SocketAddr::from(([127, 0, 3, last], self.port)))
    }
}

/// How a proxy is replaced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replacement {
    /// How long the old one may keep its connections; `None` is each one's default.
    pub(crate) stays: Option<Duration>,
    /// Which process this is, from 0: Envoy counts them.
    pub(crate) epoch: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Proxy {
    pub(crate) const ALL: [Self; 8] = [
        Self::Elbows,
        Self::Nginx,
        Self::Haproxy,
        Self::Envoy,
        Self::Caddy,
        Self::Traefik,
        Self::CopyLoop,
        Self::SpliceLoop,
    ];

    /// Those that goals compare elbows with.
    pub(crate) const PEERS: [Self; 5] =
        [Self::Nginx, Self::Haproxy, Self::Envoy, Self::Caddy, Self::Traefik];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Elbows => "elbows",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::Caddy => "Caddy",
            Self::Traefik => "Traefik",
            Self::CopyLoop => "copy loop",
            Self::SpliceLoop => "splice loop",
        }
    }

    /// As on the command line.
    pub(crate) fn word(self) -> String {
        self.as_str().to_lowercase().replace(' ', "-")
    }

    /// The one that a word of the command line names.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|proxy| proxy.word() == word)
    }

    /// Whether it is a loop of the bench's own.
    pub(crate) const fn is_limit(self) -> bool {
        matches!(self, Self::CopyLoop | Self::SpliceLoop)
    }

    /// Whether it is written in Go.
    pub(crate) const fn is_go(self) -> bool {
        matches!(self, Self::Caddy | Self::Traefik)
    }

    /// The program, to listen at `listen` and pass on to `application`.
    pub(crate) fn program(
        self,
        own: &Path,
        cores: &[usize],
        scratch: &Path,
        addresses: [SocketAddr; 2],
        setup: &Setup,
    ) -> Fallible<Program> {
        match self {
            Self::Elbows => elbows::program(own, cores, scratch, addresses, setup),
            Self::Nginx => nginx::program(cores, scratch, addresses, setup),
            Self::Haproxy => haproxy::program(cores, scratch, addresses, setup),
            Self::Envoy => envoy::program(own, cores, scratch, addresses, setup),
            Self::Caddy => caddy::program(own, cores, scratch, addresses, setup),
            Self::Traefik => traefik::program(own, cores, scratch, addresses, setup),
            Self::CopyLoop | Self::SpliceLoop => {
                let [listen, application] = addresses.map(|address| address.to_string());
                let program = Program::new(self.as_str(), cores, own);
                Ok(program.argument(self.word()).argument(listen).argument(application))
            }
        }
    }

    /// What it says its version is.
    pub(crate) fn version(self, own: &Path) -> Fallible<String> {
        let words = |program: &str, flag: &str| [program.to_owned(), flag.to_owned()];
        let [program, flag] = match self {
            Self::Elbows => words(&elbows::binary(own)?.display().to_string(), "--version"),
            Self::Nginx => words("nginx", "-v"),
            Self::Haproxy => words("haproxy", "-v"),
            Self::Envoy => envoy::version(own)?,
            Self::Caddy => caddy::version(own)?,
            Self::Traefik => traefik::version(own)?,
            Self::CopyLoop | Self::SpliceLoop => {
                return Ok("the bench's own, on epoll(7)".to_owned());
            }
        };
        let line = process::first_line(&program, &[&flag]).map_err(|_| missing(&program))?;
        // Envoy says where it lies, which is this machine's own matter.
        Ok(line.trim_start_matches(&program).trim_start().to_owned())
    }

    /// What sets it up, for people to read.
    pub(crate) fn settings(self) -> String {
        let listen = SocketAddr::from(([127, 0, 0, 1], 45400));
        let application = SocketAddr::from(([127, 0, 0, 1], 45490));
        let addresses = [listen, application];
        match self {
            Self::Elbows => {
                let settings = elbows::settings(addresses, &Setup::default());
                settings.iter().map(|(name, value)| [*name, "=", value, "\n"].concat()).collect()
            }
            Self::Nginx => nginx::configuration("/tmp/bench", addresses, &Setup::default()),
            Self::Haproxy => haproxy::configuration(addresses, &Setup::default()),
            Self::Envoy => envoy::configuration(addresses, &Setup::default()),
            Self::Caddy => caddy::configuration(addresses, &Setup::default()),
            Self::Traefik => traefik::configuration(addresses, &Setup::default()),
            Self::CopyLoop | Self::SpliceLoop => String::new(),
        }
    }
}

/// That a program is not there.
pub(crate) fn missing(program: &str) -> String {
    format!(
        "there is no `{program}`; `cargo xtask bench` installs it, or as root: apt-get install {program}"
    )
}

/// Where a program is that Debian brings.
fn find(program: &str) -> Fallible<PathBuf> {
    process::find(program).ok_or_else(|| missing(program))
}

/// Where a program of `bench/peers.txt` is: in `target/peers`, two folders above our own.
fn installed(own: &Path, program: &str) -> Fallible<PathBuf> {
    let target = own.ancestors().nth(2).unwrap_or(own);
    let path = target.join("peers").join(program);
    if path.is_file() {
        return Ok(path);
    }
    Err(format!(
        "there is no {}; `cargo xtask bench` installs what bench/peers.txt names",
        path.display()
    ))
}

/// Writes a configuration file into `scratch`, and returns its path.
fn write(scratch: &Path, name: &str, configuration: &str) -> Fallible<String> {
    let file = scratch.join(name);
    fs::write(&file, configuration).map_err(|fault| format!("{}: {fault}", file.display()))?;
    Ok(file.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Proxy, installed};

    #[test]
    fn each_has_a_word_of_its_own() {
        for proxy in Proxy::ALL {
            assert_eq!(Proxy::of_word(&proxy.word()), Some(proxy));
        }
        assert_eq!(Proxy::of_word("copy loop"), None);
    }

    #[test]
    fn peer_that_is_not_installed_is_told_with_the_way_to_it() {
        let fault = installed(Path::new("/nowhere/release/bench"), "bin/caddy").unwrap_err();
        assert!(
            fault.contains("/nowhere/peers/bin/caddy; `cargo xtask bench` installs"),
            "{fault}"
        );
    }
}
