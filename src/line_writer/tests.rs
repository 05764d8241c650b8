//! The writer of lines with readers that are slow, that stop, and that come back.

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
