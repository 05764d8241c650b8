//! Memory and descriptors of a proxy.

use std::{fs, io};

use super::tree;

/// Bytes that the process and its children have for themselves, and their share of what they have with others:
/// `Pss` of `/proc/PID/smaps_rollup` (proc(5)).
pub(crate) fn pss(pid: u32) -> io::Result<u64> {
    tree::sum(pid, |pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        kibibytes(&text, "Pss:")
            .ok_or_else(|| io::Error::other(format!("/proc/{pid}/smaps_rollup has no Pss")))
    })
}

/// Descriptors that they have open.
pub(crate) fn descriptors(pid: u32) -> io::Result<usize> {
    let all = tree::sum(pid, |pid| Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64))?;
    Ok(usize::try_from(all).unwrap_or(usize::MAX))
}

/// The bytes of a line `NAME   123 kB`.
pub(crate) fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024)
}

#[cfg(test)]
mod tests {
    use super::{kibibytes, pss};

    #[test]
    fn line_is_told_from_those_that_begin_alike() {
        let text = "Rss:    8 kB\nPss:                1234 kB\nPss_Anon:    5 kB\n";
        assert_eq!(kibibytes(text, "Pss:"), Some(1234 * 1024));
    }

    #[test]
    fn own_memory_is_found() {
        assert!(pss(std::process::id()).unwrap() > 0);
    }
}
