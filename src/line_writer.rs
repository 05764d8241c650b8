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
    state: Mutex<WriterState>,
    /// Lines wait, or no more will come.
    work: Condvar,
    /// The writer has ended.
    done: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct WriterState {
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

#[cfg(any(test, fuzzing))]
impl Lines {
    /// Lines that no writer takes: a test does.
    pub(crate) fn unwritten() -> Self {
        Self(Arc::default())
    }

    /// What came since the last time.
    pub(crate) fn take(&self) -> Vec<u8> {
        mem::take(&mut self.0.lock().waiting)
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
    fn lock(&self) -> MutexGuard<'_, WriterState> {
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
mod tests;
