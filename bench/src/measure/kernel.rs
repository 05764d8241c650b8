//! Memory that the kernel holds for connections.

use std::{fs, io};

use super::memory::kibibytes;

/// A page, on every machine that this runs on.
const PAGE: u64 = 4096;

/// Bytes of the kernel's own objects now (`Slab` of /proc/meminfo: sockets, files, inodes, epoll's
/// items) and of the buffers of TCP sockets (`mem` of /proc/net/sockstat). Of the whole machine.
pub(crate) fn memory() -> io::Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let slab = kibibytes(&meminfo, "Slab:");
    let sockstat = fs::read_to_string("/proc/net/sockstat")?;
    let pages = sockstat
        .lines()
        .find_map(|line| line.strip_prefix("TCP:"))
        .and_then(|line| line.split_whitespace().skip_while(|word| *word != "mem").nth(1))
        .and_then(|word| word.parse::<u64>().ok());
    match (slab, pages) {
        (Some(slab), Some(pages)) => Ok(slab + pages * PAGE),
        _ => Err(io::Error::other("no Slab in /proc/meminfo, or no TCP mem in /proc/net/sockstat")),
    }
}

/// A value below /proc/sys, as the kernel spells it: `net.core.somaxconn`.
pub(crate) fn sysctl(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).map_or_else(
        |_| "not there".to_owned(),
        |text| text.split_whitespace().collect::<Vec<_>>().join(" "),
    )
}
