//! What the kernel says of a process (proc(5)), and what it allows this one.

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};

/// A field of `/proc/PID/status` in bytes, such as `VmRSS`, `VmHWM` or `RssAnon`.
pub fn memory(pid: Pid, field: &str) -> u64 {
    kilobytes(&proc(pid, "status"), field) * 1024
}

/// The memory of a process and its share of what it shares with others, in bytes.
pub fn proportional_memory(pid: Pid) -> u64 {
    kilobytes(&proc(pid, "smaps_rollup"), "Pss") * 1024
}

/// The same without the pages of files: those are the binary.
pub fn anonymous_memory(pid: Pid) -> u64 {
    kilobytes(&proc(pid, "smaps_rollup"), "Pss_Anon") * 1024
}

/// The CPU time of all threads so far, in ticks of 10 ms.
pub fn cpu_ticks(pid: Pid) -> u64 {
    let stat = proc(pid, "stat");
    // The name of the program is in parentheses, and may have some in it.
    let (_, rest) = stat.rsplit_once(") ").expect("a name in parentheses");
    rest.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum()
}

/// The numbers of the descriptors that are open.
pub fn open_descriptors(pid: Pid) -> Vec<usize> {
    let path = format!("/proc/{}/fd", pid.as_raw_nonzero());
    let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// This process may open as many descriptors as it ever may; what it starts may do so as well. Returns how many
/// those are, or nothing where there is no limit.
pub fn raise_descriptor_limit() -> Option<u64> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("it may be raised");
    maximum
}

fn proc(pid: Pid, file: &str) -> String {
    let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn kilobytes(text: &str, field: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let value = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no {field} in {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_is_found_by_its_whole_name() {
        assert_eq!(kilobytes("Pss_Anon:  7 kB\nPss:   12 kB\n", "Pss"), 12);
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let pid = rustix::process::getpid();
        let memory = memory(pid, "VmRSS");
        assert!(memory > 100_000 && proportional_memory(pid) > anonymous_memory(pid));
        let file = fs::File::open("/dev/null").unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file).try_into().unwrap();
        assert!(open_descriptors(pid).contains(&number));
        let spent = cpu_ticks(pid);
        assert!(spent < 100_000, "{spent}");
    }
}
