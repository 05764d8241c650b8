//! The Debian packages that the tests and the bench use: real load balancers, a real browser, WebSocket
//! peers, programs that count.
//!
//! Only what is missing is installed, and nothing is left running: Debian starts a service when it
//! installs it, and a second nginx on port 80 is not what somebody wants from a test run.
//! The part that needs root is one shell script, so that a person can read what `sudo` is asked for.

use std::env;
use std::process::Command;

use crate::process::{self, program};

/// The packages that the tests need. `haproxy`, `nginx` and `prometheus` are also the names of services.
const NEEDED: &[&str] = &[
    "haproxy",
    "iproute2",
    "libfaketime",
    "nginx",
    "libnginx-mod-stream",
    "chromium",
    "chromium-driver",
    "nodejs",
    "node-ws",
    "openssl",
    "prometheus",
    "python3",
    "python3-venv",
    "python3-yaml",
    "strace",
    "systemd",
    "tmux",
    "valgrind",
];

const INSTALL: &str = include_str!("install.sh");

/// Those of the needed packages that are not installed.
pub(crate) fn missing() -> Result<Vec<&'static str>, String> {
    missing_of(NEEDED)
}

/// Those of `needed` that are not installed.
pub(crate) fn missing_of(needed: &[&'static str]) -> Result<Vec<&'static str>, String> {
    let output = program("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(needed)
        .output()
        .map_err(|fault| {
            format!(
                "Debian's packages are needed, and `dpkg-query` cannot be run here ({fault}); they are: {}",
                needed.join(" ")
            )
        })?;
    // It fails when it does not know one of the names, and lists the others all the same.
    Ok(not_installed(needed, &String::from_utf8_lossy(&output.stdout)))
}

/// Installs `packages`, as root or by `sudo`.
pub(crate) fn install(packages: &[&'static str]) -> Result<(), String> {
    println!("Debian packages to install: {}", packages.join(" "));
    let by_hand = format!(
        "by hand, as root: apt-get update && apt-get install --no-install-recommends {}",
        packages.join(" ")
    );
    let mut root = as_root().map_err(|fault| format!("{fault}; {by_hand}"))?;
    process::run(root.args(["sh", "-c", INSTALL, "install.sh"]).args(packages))
        .map_err(|_| format!("apt-get failed; {by_hand}"))?;
    match missing_of(packages)? {
        still if still.is_empty() => Ok(()),
        still => Err(format!("apt-get is done, and there is still no {}", still.join(" "))),
    }
}

fn not_installed(needed: &[&'static str], listed: &str) -> Vec<&'static str> {
    let is_installed =
        |name: &str| listed.lines().any(|line| line.split_once(' ') == Some((name, "installed")));
    needed.iter().copied().filter(|name| !is_installed(name)).collect()
}

/// What runs the rest of its arguments as root: `env`, if we are root already, else `sudo`.
fn as_root() -> Result<Command, String> {
    if process::read(program("id").arg("-u"))? == "0" {
        return Ok(program("env"));
    }
    let mut sudo = program("sudo");
    if env::var_os("CI").is_some() {
        // Nobody is there to type a password.
        sudo.arg("--non-interactive");
    }
    process::read(program("sudo").arg("--version"))
        .map_err(|_| "installing packages needs root, and there is no `sudo`".to_owned())?;
    Ok(sudo)
}

#[cfg(test)]
mod tests {
    use super::{NEEDED, not_installed};

    #[test]
    fn removed_package_counts_as_missing() {
        let listed: String = NEEDED
            .iter()
            .map(|name| match *name {
                "node-ws" => "node-ws config-files\n".to_owned(),
                name => format!("{name} installed\n"),
            })
            .collect();
        assert_eq!(not_installed(NEEDED, &listed), ["node-ws"]);
    }

    #[test]
    fn unknown_packages_count_as_missing() {
        assert_eq!(not_installed(NEEDED, ""), NEEDED);
    }
}
