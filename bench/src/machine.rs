//! The machine and the versions that numbers belong to.

use std::fs;
use std::path::Path;

use crate::Fallible;
use crate::measure::counts::Counter;
use crate::measure::kernel::sysctl;
use crate::network;
use crate::process::first_line;
use crate::proxies::{Proxy, missing};

/// What is known of them, for a table.
pub(crate) struct Machine {
    pub(crate) facts: Vec<(&'static str, String)>,
}

impl Machine {
    /// Looks around. Fails if something that is measured, or measures, is not there.
    pub(crate) fn look(own: &Path, root: &Path, proxies: &[Proxy]) -> Fallible<Self> {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let memory = field("/proc/meminfo", "MemTotal:").unwrap_or_default();
        let system = field("/etc/os-release", "PRETTY_NAME=").unwrap_or_default();
        let mut facts = vec![
            ("processor", format!("{}, {cores} cores", processor())),
            ("memory", memory),
            (
                "system",
                format!("{}, Linux {}", system.trim_matches('"'), sysctl("kernel.osrelease")),
            ),
            ("network", network::kind().to_owned()),
        ];
        for proxy in proxies.iter().filter(|proxy| !proxy.is_limit()) {
            facts.push((proxy.as_str(), proxy.version(own)?));
        }
        let root = root.display().to_string();
        let revision =
            ["-C", &root, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"];
        if let Ok(revision) = first_line("git", &revision) {
            facts.push(("revision of elbows", revision));
        }
        for counter in [Counter::Callgrind, Counter::Strace] {
            let program = counter.program();
            let version = first_line(program, &["--version"]).map_err(|_| missing(program))?;
            facts.push((program, version));
        }
        Ok(Self { facts })
    }
}

fn processor() -> String {
    let name =
        field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    name.trim_start_matches([':', ' ', '\t']).to_owned()
}

/// What is behind `name` on its line.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
}
