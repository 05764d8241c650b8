//! What is told of a panic. In a process of its own, since a panic hook is the whole process's.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use elbows::panics;
use elbows::tunnel::{Identity, Protocol, Since, Tunnel};
use elbows::workers::{Options, Workers};

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

/// A tunnel whose client has gone by now.
fn tunnel() -> Tunnel {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let [client, upstream] = [(); 2].map(|()| {
        drop(TcpStream::connect(address).unwrap());
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        (socket, Vec::new())
    });
    let identity =
        Identity::new(address, address, address, "GET / HTTP/1.1", "1", Since::default());
    Tunnel::new(Protocol::Other, client, upstream, identity)
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

    // On a worker, which goes on: one in each tunnel.
    let workers = Workers::start(NonZeroUsize::MIN, &Options::default(), |_, _, _| {
        panic!("at the end of a tunnel")
    });
    let workers = workers.unwrap();
    for count in 2..4 {
        workers.adopt(tunnel());
        let deadline = Instant::now() + Duration::from_secs(30);
        while panics::count() < count {
            assert!(Instant::now() < deadline, "{count} were not counted");
            std::thread::yield_now();
        }
        assert_eq!(panics::count(), count);
    }
    workers.stop();
}
