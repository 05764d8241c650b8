//! CPU time of a proxy.

use std::{fs, io};

use super::tree;

/// Nanoseconds that all threads of the process and of its children have run, the kernel's work for them included:
/// the first number of `/proc/PID/task/*/schedstat` (Documentation/scheduler/sched-stats.rst). Threads
/// that ended before are not in it.
pub(crate) fn of(pid: u32) -> io::Result<u64> {
    tree::sum(pid, of_process)
}

fn of_process(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = match fs::read_to_string(task?.path().join("schedstat")) {
            Ok(text) => text,
            // It ended just now.
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => continue,
            Err(fault) => return Err(fault),
        };
        let first = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        sum += first.ok_or_else(|| io::Error::other("schedstat does not begin with a number"))?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::{of, of_process};

    #[test]
    fn cpu_time_grows_with_work() {
        let before = of_process(std::process::id()).unwrap();
        let mut sum = 0_u64;
        while of_process(std::process::id()).unwrap() <= before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }

    #[test]
    fn work_of_a_child_counts() {
        let mut child = Command::new("sh")
            .args(["-c", "sh -c 'while :; do :; done' & echo; wait"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // The parent waits: what grows beyond its own is the child's.
        let start = Instant::now();
        let counts = || of(child.id()).unwrap() > of_process(child.id()).unwrap() + 10_000_000;
        while !counts() && start.elapsed() < Duration::from_secs(20) {
            std::thread::yield_now();
        }
        let has_counted = counts();
        let both = super::tree::of(child.id()).unwrap();
        Command::new("kill").args(both.iter().map(u32::to_string)).status().unwrap();
        child.wait().unwrap();
        assert!(has_counted, "{both:?}");
    }
}
