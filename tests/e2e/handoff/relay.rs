//! Stands between the two processes of a handoff, and does something at one message of it.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::thread;

use elbows::handoff::socket::{self, Connection, Listener, Received};
use tempfile::TempDir;

/// A message of the protocol, by the byte that it begins with; and which one of its kind.
pub type Moment = (u8, usize);

pub const HELLO: u8 = 1;
pub const OFFER: u8 = 2;
pub const PREPARED: u8 = 4;
pub const BATCH: u8 = 5;
pub const TAKEN: u8 = 6;
pub const YOURS: u8 = 7;
pub const LISTENERS: u8 = 8;
pub const COUNTERS: u8 = 9;
pub const LIMITS: u8 = 10;
pub const LISTENING: u8 = 11;
pub const BYE: u8 = 12;

/// What is done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It arrives.
    Pass,
    /// Something else arrives.
    Garble,
    /// Its beginning arrives.
    Shorten,
    /// It arrives with two of its sockets in each other's place: the client's of the first and of the second tunnel.
    Swap,
}

/// The relay. It ends when either process does.
pub struct Relay {
    /// Where the new process connects.
    pub path: PathBuf,
    _directory: TempDir,
}

impl Relay {
    /// Between a new process and the one that listens at `old`. `at` is called before each message is passed on.
    pub fn start(old: PathBuf, mut at: impl FnMut(Moment) -> Verdict + Send + 'static) -> Self {
        let directory = super::directory();
        let path = directory.path().join("relay.sock");
        let listener = socket::bind(&path).unwrap();
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let new = Listener::new(listener).unwrap().accept().await.unwrap();
                let old = socket::connect(&old).unwrap().expect("the old process listens");
                let old = Connection::new(old).unwrap();
                let mut seen = [0; 256];
                loop {
                    let (received, to) = tokio::select! {
                        received = receive(&new) => (received, &old),
                        received = receive(&old) => (received, &new),
                    };
                    let Some(Received { mut bytes, mut descriptors, .. }) = received else {
                        return;
                    };
                    let kind = bytes[0];
                    seen[usize::from(kind)] += 1;
                    match at((kind, seen[usize::from(kind)])) {
                        Verdict::Pass => {}
                        Verdict::Garble => bytes = vec![0xff; 20],
                        Verdict::Shorten => bytes.truncate((bytes.len() / 2).max(1)),
                        // The memory is before them.
                        Verdict::Swap => descriptors.swap(1, 3),
                    }
                    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                    // The other process may be dead.
                    let _ = to.try_send(&bytes, &descriptors);
                }
            });
        });
        Self { path, _directory: directory }
    }
}

async fn receive(connection: &Connection) -> Option<Received> {
    loop {
        match connection.receive().await {
            Ok(received) => return received,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("{error}"),
        }
    }
}
