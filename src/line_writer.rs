//! Lines to standard output and standard error, written by a thread of their own.
//!
//! Neither the front nor the relay may wait for whoever reads the logs. So lines go into a bounded
//! buffer and a thread writes it out, many lines in one write while there are many, each at once while
//! there are few. Where the reader is too slow, lines are dropped and counted. Where it is gone, all
//! are (they are counted too), and nothing else suffers. At the end the writer gets a limited time for what still waits: a
//! reader that stands still must not keep the process from ending.

use std::io::{self, Write};
use std::mem;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// The most bytes that wait for the writer: a second's worth at a rate that hurts.
const MAX_WAITING: usize = 2 * 1024 * 1024;

/// A buffer that grew beyond this in a burst is given back after it.
const KEPT_BUFFER: usize = 64 * 1024;

/// Where lines go in. Clones go to the same writer.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Shared>);

/// Ends the writer: see [`Writer::finish`].
#[derive(Debug)]
pub struct Writer(Option<Arc<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Lines wait, or no more will come.
    work: Condvar,
    /// The writer has ended.
    done: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    closed: bool,
    ended: bool,
}

/// Starts a writer to `out`, on a thread with this name.
///
/// # Errors
/// The thread could not be started.
pub fn start(name: &str, out: impl Write + Send + 'static) -> io::Result<(Lines, Writer)> {
    let shared = Arc::<Shared>::default();
    let writing = Arc::clone(&shared);
    thread::Builder::new().name(name.to_owned()).spawn(move || writing.write_out(out))?;
    Ok((Lines(Arc::clone(&shared)), Writer(Some(shared))))
}

/// A descriptor whose reader is waited for, whether it blocks or not: `O_NONBLOCK` belongs to what is
/// open and not to the descriptor, so that whoever else has the same pipe may set it at any time.
#[derive(Debug)]
pub struct Patient<T>(pub T);

impl<T: AsFd> Write for Patient<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.0, bytes) {
                Err(Errno::AGAIN) => {}
                written => return Ok(written?),
            }
            match poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(fault) => return Err(fault.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Takes a whole line, its end included. Never blocks for the reader.
    pub fn send(&self, line: &[u8]) {
        let mut state = self.0.lock();
        if state.closed || state.waiting.len() + line.len() > MAX_WAITING {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        if was_empty {
            self.0.work.notify_one();
        }
    }

    /// Lines that were dropped because the reader was too slow, or gone.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

/// Each call is one line: this is how `tracing` writes events.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.send(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Writer {
    /// The writer of a log that is off.
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    /// Takes no more lines, and waits until those that came are written, for `limit` at most. Says
    /// whether they are.
    #[must_use = "lines may be lost"]
    pub fn finish(self, limit: Duration) -> bool {
        let Some(shared) = self.0 else { return true };
        let deadline = Instant::now() + limit;
        let mut state = shared.lock();
        state.closed = true;
        shared.work.notify_one();
        while !state.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = shared.done.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Shared {
    /// No invariant spans the lock, so that a panic elsewhere has not spoiled what is inside.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer's thread.
    fn write_out(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        // What is left of a line that has been begun.
        let mut begun = Vec::new();
        let mut state = self.lock();
        loop {
            while state.waiting.is_empty() && !state.closed {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.waiting.is_empty() {
                break;
            }
            mem::swap(&mut batch, &mut state.waiting);
            drop(state);
            // A closed output, or a full disk, must not end the process; lines are lost and that is all.
            let lost = lines_lost(&mut out, &mut begun, &batch);
            self.dropped.fetch_add(lost, Ordering::Relaxed);
            batch.clear();
            batch.shrink_to(KEPT_BUFFER);
            state = self.lock();
        }
        self.dropped.fetch_add(u64::from(!begun.is_empty()), Ordering::Relaxed);
        state.ended = true;
        self.done.notify_all();
    }
}

/// Writes `lines`, behind what is left of a line that was `begun`; how many of them were not even
/// begun. One that was is ended before anything else is written: there is no half line between others.
fn lines_lost(out: &mut impl Write, begun: &mut Vec<u8>, lines: &[u8]) -> u64 {
    let left = write_on(out, begun);
    let written = begun.len() - left.len();
    begun.drain(..written);
    let mut left = lines;
    if begun.is_empty() {
        left = write_on(out, lines);
        let is_whole =
            lines.len() == left.len() || lines.get(lines.len() - left.len() - 1) == Some(&b'\n');
        if !is_whole {
            let end = left.iter().position(|byte| *byte == b'\n').map_or(left.len(), |end| end + 1);
            let (rest, unbegun) = left.split_at(end);
            begun.extend_from_slice(rest);
            left = unbegun;
        }
    }
    let _ = out.flush();
    left.split_inclusive(|byte| *byte == b'\n').count() as u64
}

/// Writes `bytes`, or as much as can be; what is left.
fn write_on<'b>(out: &mut impl Write, mut bytes: &'b [u8]) -> &'b [u8] {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(written) if written > 0 => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// Hands out what is written, and writes only when it is let.
    struct Gated {
        lets: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.lets.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Lines, Writer, Sender<()>, Receiver<Vec<u8>>) {
        let (let_one, lets) = channel();
        let (written, output) = channel();
        let (lines, writer) = start("test", Gated { lets, written }).unwrap();
        (lines, writer, let_one, output)
    }

    #[test]
    fn all_lines_are_out_in_order_when_finished() {
        let (lines, writer, let_one, output) = gated();
        drop(let_one);
        for number in 0..1_000 {
            lines.send(format!("{number}\n").as_bytes());
        }
        assert!(writer.finish(LONG));
        drop(lines);
        let text = output.iter().flatten().collect::<Vec<u8>>();
        let expected: Vec<_> = (0..1_000).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(text).unwrap(), expected.concat());
    }

    #[test]
    fn slow_reader_costs_lines_and_no_memory() {
        let (lines, writer, let_one, output) = gated();
        lines.send(b"first\n");
        let line = vec![b'x'; 1024];
        for _ in 0..3 * MAX_WAITING / line.len() {
            lines.send(&line);
        }
        // What the writer holds, what waits, and no more.
        let taken = lines.0.lock().waiting.len();
        assert!(taken <= MAX_WAITING, "{taken}");
        let dropped = lines.dropped();
        assert!(dropped >= (MAX_WAITING / line.len()) as u64, "{dropped}");
        drop(let_one);
        assert!(writer.finish(LONG));
        drop(lines);
        let written = output.iter().map(|batch| batch.len()).sum::<usize>();
        let sent = 6 + 3 * MAX_WAITING;
        assert_eq!(written, sent - usize::try_from(dropped).unwrap() * line.len());
    }

    #[test]
    fn blocked_reader_does_not_hold_up_the_end() {
        let (lines, writer, let_one, _output) = gated();
        lines.send(b"never read\n");
        assert!(!writer.finish(Duration::from_millis(20)));
        lines.send(b"too late\n");
        assert_eq!(lines.dropped(), 1);
        drop(let_one);
    }

    #[test]
    fn slow_reader_of_what_does_not_block_costs_no_line() {
        let (reader, pipe) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let (lines, writer) = start("test", Patient(pipe)).unwrap();
        let line = |number: usize| format!("{number} {}\n", "x".repeat(number % 300));
        let mut sent = String::new();
        // Far more than a pipe holds.
        for number in 0..5_000 {
            lines.send(line(number).as_bytes());
            sent.push_str(&line(number));
        }
        let reading = thread::spawn(move || {
            let (mut text, mut buffer) = (Vec::new(), [0; 1_000]);
            loop {
                match rustix::io::read(&reader, &mut buffer) {
                    Ok(0) => return text,
                    Ok(taken) => text.extend_from_slice(&buffer[..taken]),
                    Err(fault) => {
                        assert_eq!(fault, Errno::AGAIN);
                        poll(&mut [PollFd::new(&reader, PollFlags::IN)], None).unwrap();
                    }
                }
            }
        });
        assert!(writer.finish(LONG));
        assert_eq!(lines.dropped(), 0);
        assert!(reading.join().unwrap() == sent.as_bytes());
    }

    #[test]
    fn line_that_was_begun_is_ended_before_another() {
        /// A disk that is full, but for what it is given room for.
        struct Disk(Vec<u8>, usize);
        impl Write for Disk {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let taken = bytes.len().min(self.1 - self.0.len());
                if taken == 0 {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                self.0.extend_from_slice(&bytes[..taken]);
                Ok(taken)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (mut disk, mut begun) = (Disk(Vec::new(), 6), Vec::new());
        assert_eq!(lines_lost(&mut disk, &mut begun, b"one\ntwo\nthree\n"), 1);
        assert_eq!(begun, b"o\n");
        assert_eq!(lines_lost(&mut disk, &mut begun, b"four\n"), 1);
        disk.1 = 7;
        assert_eq!(lines_lost(&mut disk, &mut begun, b"five\n"), 1);
        disk.1 = 13;
        assert_eq!(lines_lost(&mut disk, &mut begun, b"six\n"), 0);
        assert_eq!(disk.0, b"one\ntwo\nsix\n"[..12]);
        assert!(begun.is_empty());
    }

    #[test]
    fn gone_reader_is_nobodys_fault() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (lines, writer) = start("test", Gone).unwrap();
        lines.send(b"a\n");
        lines.send(b"b\n");
        assert!(writer.finish(LONG));
        assert_eq!(lines.dropped(), 2);
    }
}
