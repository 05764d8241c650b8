//! What is told of a panic. In a process of its own, since a panic hook is the whole process's.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Write;
use std::sync::{Arc, Mutex};

use elbows::panics;

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn panic_of_one_task_is_counted_and_logged_in_one_line_and_ends_no_other() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).init();
    panics::install();
    let other = tokio::spawn(async { tokio::task::yield_now().await });
    assert!(tokio::spawn(async { panic!("two and two is {}", 5) }).await.unwrap_err().is_panic());
    other.await.unwrap();
    assert_eq!(panics::count(), 1);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("ERROR") && log.contains("two and two is 5"), "{log}");
    assert!(log.contains("at tests/panics.rs:"), "{log}");
    assert_eq!(log.lines().count(), 1, "{log}");
}
