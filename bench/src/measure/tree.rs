//! A process with all that it has started: some proxies work in children.

use std::{fs, io};

/// The process and its children, theirs, and so on, as they are now.
pub(crate) fn of(pid: u32) -> io::Result<Vec<u32>> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(&parent) = all.get(next) {
        match children(parent) {
            Ok(children) => all.extend(children),
            // It ended just now; the first one must be there.
            Err(fault) if next > 0 && fault.kind() == io::ErrorKind::NotFound => {}
            Err(fault) => return Err(fault),
        }
        next += 1;
    }
    Ok(all)
}

/// The sum of what `value` reads off each of them.
pub(super) fn sum(pid: u32, value: impl Fn(u32) -> io::Result<u64>) -> io::Result<u64> {
    let mut sum = 0;
    for one in of(pid)? {
        match value(one) {
            Ok(value) => sum += value,
            Err(fault) if one != pid && fault.kind() == io::ErrorKind::NotFound => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(sum)
}

/// What all threads of a process have started and is still there.
pub(crate) fn children(pid: u32) -> io::Result<Vec<u32>> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        match fs::read_to_string(task?.path().join("children")) {
            Ok(text) => {
                let pids = text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
                all.extend(pids);
            }
            // The thread ended just now.
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use super::of;

    #[test]
    fn children_of_children_are_found() {
        // The inner shell says its process id, and ends with its input; the outer one waits for it.
        let mut child = Command::new("sh")
            .args(["-c", "sh -c 'echo $$; read -r line; :'; :"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let found = of(std::process::id()).unwrap();
        let inner: u32 = line.trim().parse().unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_ne!(inner, child.id());
        assert!(found.contains(&child.id()) && found.contains(&inner), "{found:?}");
    }

    #[test]
    fn process_that_is_not_there_is_an_error() {
        assert!(of(u32::MAX).is_err());
    }
}
