//! Who accepts connections while a handoff is under way, with real sockets.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::thread;
use std::time::Instant;

use tokio::runtime::Runtime;

use super::*;
use crate::access_log::AccessLog;
use crate::config::routing::Routing;
use crate::config::{Config, ProxyProtocol};
use crate::drain::Stage;
use crate::feed::Feed;
use crate::limits::Limits;
use crate::metrics::Counters;
use crate::proxy::Proxy;
use crate::routes::Routes;
use crate::tunnel::Options;
use crate::upstream::Loads;
use crate::warnings::Warnings;

const PATIENCE: Duration = Duration::from_secs(20);

const PING: &[u8] = b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n";

/// Workers that serve health checks, as one process has them.
struct Process {
    workers: Workers,
    proxy: Arc<Proxy>,
    _runtime: Runtime,
}

impl Process {
    fn start(config: Config) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let config = Arc::new(config);
        let routes = Routes::new(&config, &Routing::default(), &Loads::default(), runtime.handle());
        let proxy = Arc::new(Proxy {
            access_log: AccessLog::unwritten().0,
            counters: Arc::new(Counters::default()),
            limits: Limits::new(&config, Instant::now()),
            routes: Arc::new(routes),
            warnings: Warnings::default(),
            feed: Feed::default(),
            config,
        });
        let threads = NonZeroUsize::new(2).unwrap();
        let workers = Workers::start(threads, &Options::default(), |_, _, _| {}).unwrap();
        workers.serve(&proxy, 1);
        Self { workers, proxy, _runtime: runtime }
    }

    fn accepted(&self) -> u64 {
        self.proxy.counters.connections.get()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.workers.stop();
    }
}

fn until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long");
        thread::sleep(Duration::from_millis(2));
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// Sends a health check, and reads an answer that is `ok`. Whether the connection goes on.
fn is_kept_after_ping(client: &mut TcpStream) -> bool {
    client.write_all(PING).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        let mut bytes = [0; 512];
        let count = client.read(&mut bytes).unwrap();
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend(bytes.iter().take(count));
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    !answer.contains("Connection: close")
}

fn expect_end(client: &mut TcpStream) {
    assert_eq!(client.read(&mut [0; 16]).unwrap(), 0);
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn config() -> Config {
    let config = Config::for_destination(SocketAddr::from(([127, 0, 0, 1], 1)), "app.test", 80);
    Config { proxy_protocol: ProxyProtocol::Off, ..config }
}

#[test]
fn a_new_process_accepts_what_waits_and_the_old_one_finishes() {
    let (listener, address) = listener();
    let (old, new) = (Process::start(config()), Process::start(config()));
    old.workers.listen(listener.try_clone().unwrap());
    let mut kept = connect(address);
    assert!(is_kept_after_ping(&mut kept));
    let mut silent = connect(address);
    until(|| old.workers.connections() == 2);

    // Accepting pauses, and nobody is refused.
    old.workers.stop_listening();
    assert!(is_kept_after_ping(&mut kept), "what is open is served as ever");
    let mut waiting = connect(address);
    waiting.write_all(PING).unwrap();
    waiting.set_nonblocking(true).unwrap();
    assert_eq!(waiting.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    waiting.set_nonblocking(false).unwrap();
    assert_eq!((old.accepted(), new.accepted()), (2, 0));

    new.workers.listen(listener);
    old.workers.stage(Stage::Yielding);
    let mut answer = [0; 15];
    waiting.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    assert_eq!((old.accepted(), new.accepted()), (2, 1));
    assert!(!is_kept_after_ping(&mut kept), "the next request goes to the new process");
    expect_end(&mut kept);
    assert!(!is_kept_after_ping(&mut silent), "who had connected is served");
    expect_end(&mut silent);
    drop((kept, silent));
    until(|| old.workers.connections() == 0);
    assert_eq!(new.workers.connections(), 1);
}

#[test]
fn the_old_process_goes_on_where_the_new_one_dies() {
    let (listener, address) = listener();
    let (old, new) = (Process::start(config()), Process::start(config()));
    old.workers.listen(listener.try_clone().unwrap());
    let mut kept = connect(address);
    assert!(is_kept_after_ping(&mut kept));
    old.workers.stop_listening();
    // Its worker carries out orders before it serves what comes behind them.
    assert!(is_kept_after_ping(&mut kept));
    new.workers.listen(listener.try_clone().unwrap());
    old.workers.stage(Stage::Yielding);
    let mut lost = connect(address);
    assert!(is_kept_after_ping(&mut lost));
    assert_eq!(new.accepted(), 1);
    drop(new);
    expect_end(&mut lost);

    old.workers.stage(Stage::Serving);
    old.workers.listen(listener);
    let mut next = connect(address);
    assert!(is_kept_after_ping(&mut next) && is_kept_after_ping(&mut next));
    assert_eq!(old.accepted(), 2);
}
