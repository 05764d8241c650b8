//! What the kernel says of this process, for a scrape.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::handoff::socket;

/// Counted once: clocks are set, and a process starts once.
static STARTED: OnceLock<Duration> = OnceLock::new();

/// The process, as it is now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Process {
    /// On a processor.
    pub(crate) cpu: Duration,
    pub(crate) open_descriptors: u64,
    /// None: as many as there are numbers.
    pub(crate) most_descriptors: Option<u64>,
    /// In bytes.
    pub(crate) resident: u64,
    /// In bytes.
    pub(crate) virtual_size: u64,
    /// Since 1970.
    pub(crate) started: Duration,
}

impl Process {
    pub(crate) fn now() -> Self {
        let (virtual_pages, resident_pages) = pages();
        let page = u64::try_from(page_size()).unwrap_or(4096);
        Self {
            cpu: duration(clock_gettime(ClockId::ProcessCPUTime)),
            open_descriptors: open_descriptors(),
            most_descriptors: getrlimit(Resource::Nofile).current,
            resident: resident_pages * page,
            virtual_size: virtual_pages * page,
            started: *STARTED.get_or_init(started),
        }
    }
}

/// Since Linux 6.2 the size of the directory is their number; to list 20,000 takes milliseconds.
fn open_descriptors() -> u64 {
    match fs::metadata("/proc/self/fd").map(|directory| directory.size()) {
        Ok(number @ 1..) => number,
        _ => socket::open_descriptors(u64::MAX).unwrap_or_default(),
    }
}

/// All pages, and those that are resident (`proc_pid_statm(5)`).
fn pages() -> (u64, u64) {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut numbers = text.split(' ').map(|word| word.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

/// The kernel tells it in ticks since the machine started (`proc_pid_stat(5)`, field 22).
fn started() -> Duration {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything, field 3 comes first.
    let field = text.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(22 - 3));
    let ticks: u64 = field.and_then(|field| field.parse().ok()).unwrap_or_default();
    let after_boot = Duration::from_millis(ticks * 1_000 / clock_ticks_per_second().max(1));
    let age = duration(clock_gettime(ClockId::Boottime)).saturating_sub(after_boot);
    since_1970().saturating_sub(age)
}

/// What the machine's clock says.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn duration(time: Timespec) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn process_is_what_the_kernel_says() {
        let before = Process::now();
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let after = Process::now();
        // Other tests have theirs, too.
        assert!(after.open_descriptors >= 50, "{after:?}");
        assert!(after.most_descriptors.is_none_or(|most| most >= after.open_descriptors));
        assert!(after.cpu >= before.cpu && !after.cpu.is_zero());
        assert!(after.virtual_size > after.resident && after.resident > 1 << 20, "{after:?}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age = now.checked_sub(after.started).unwrap();
        assert!(age < Duration::from_secs(3600), "{age:?}");
        assert_eq!(after.started, before.started);
        drop(files);
    }
}
