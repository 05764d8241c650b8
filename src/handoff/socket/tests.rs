//! The handoff's socket with real sockets.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{ErrorKind, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
use std::{env, iter};

use rustix::io::FdFlags;
use rustix::process::{Rlimit, setrlimit};

use super::*;

const SOON: Duration = Duration::from_secs(10);

/// What is to come soon.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.unwrap()
}

async fn pair() -> (Connection, Connection) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("handoff.sock");
    let listener = Listener::new(bind(&path).unwrap()).unwrap();
    let near = Connection::new(connect(&path).unwrap().unwrap()).unwrap();
    let far = soon(listener.accept()).await.unwrap();
    (near, far)
}

fn sockets(number: usize) -> Vec<OwnedFd> {
    let one = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().into();
    iter::repeat_with(one).take(number).collect()
}

fn cookies(sockets: &[OwnedFd]) -> Vec<u64> {
    sockets.iter().map(|socket| cookie(socket).unwrap()).collect()
}

async fn received(connection: &Connection) -> Received {
    soon(connection.receive()).await.unwrap().unwrap()
}

#[tokio::test]
async fn messages_go_both_ways_whole_and_in_order() {
    let (near, far) = pair().await;
    for length in [1, 2, 4_000, MAX_MESSAGE] {
        let bytes: Vec<u8> = (0..=255).cycle().take(length).collect();
        near.send(&bytes, &[]).await.unwrap();
        far.send(&bytes, &[]).await.unwrap();
        for connection in [&near, &far] {
            let message = received(connection).await;
            assert!(message.bytes == bytes && !message.truncated, "{length}");
            assert!(message.descriptors.is_empty());
        }
    }
    near.try_send(b"one", &[]).unwrap();
    near.try_send(b"two", &[]).unwrap();
    assert_eq!(received(&far).await.bytes, b"one");
    assert_eq!(received(&far).await.bytes, b"two");
}

#[tokio::test]
async fn as_many_descriptors_as_linux_takes_go_both_ways_in_order() {
    let (near, far) = pair().await;
    let sent = sockets(MAX_DESCRIPTORS);
    let borrowed: Vec<_> = sent.iter().map(AsFd::as_fd).collect();
    for (from, to) in [(&near, &far), (&far, &near)] {
        from.send(b"many", &borrowed).await.unwrap();
        let message = received(to).await;
        assert!(!message.truncated);
        assert_eq!(cookies(&message.descriptors), cookies(&sent));
        for descriptor in &message.descriptors {
            assert_eq!(rustix::io::fcntl_getfd(descriptor).unwrap(), FdFlags::CLOEXEC);
        }
    }
    let one_more = sockets(1);
    let too_many: Vec<_> = borrowed.iter().copied().chain([one_more[0].as_fd()]).collect();
    let fault = near.try_send(b"more", &too_many).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn what_is_no_message_is_not_sent() {
    let (near, far) = pair().await;
    for bytes in [vec![], vec![0; MAX_MESSAGE + 1]] {
        let fault = near.send(&bytes, &[]).await.unwrap_err();
        assert_eq!(fault.kind(), ErrorKind::InvalidInput);
    }
    near.send(b"next", &[]).await.unwrap();
    assert_eq!(received(&far).await.bytes, b"next");
}

#[tokio::test]
async fn a_message_that_is_too_long_is_told_to_be_truncated() {
    let (near, far) = pair().await;
    rustix::net::send(&near, &vec![7; MAX_MESSAGE + 1], SendFlags::NOSIGNAL).unwrap();
    let message = received(&far).await;
    assert!(message.truncated);
    assert_eq!(message.bytes.len(), MAX_MESSAGE);
}

#[tokio::test]
async fn the_end_comes_behind_what_was_sent() {
    let (near, far) = pair().await;
    near.send(b"last", &[sockets(1)[0].as_fd()]).await.unwrap();
    drop(near);
    let message = received(&far).await;
    assert_eq!((message.bytes.as_slice(), message.descriptors.len()), (&b"last"[..], 1));
    assert!(soon(far.receive()).await.unwrap().is_none());
    let fault = far.send(b"anybody?", &[]).await.unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn sending_waits_for_room() {
    let (near, far) = pair().await;
    let bytes = vec![1; MAX_MESSAGE];
    let mut sent = 0;
    while near.try_send(&bytes, &[]).is_ok() {
        sent += 1;
    }
    assert!(sent > 0);
    assert_eq!(near.try_send(&bytes, &[]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let receive_all = async {
        for _ in 0..=sent {
            received(&far).await;
        }
    };
    let (sent, ()) = soon(async { tokio::join!(near.send(&bytes, &[]), receive_all) }).await;
    sent.unwrap();
}

#[tokio::test]
async fn the_other_process_is_of_the_same_user() {
    let (near, far) = pair().await;
    for connection in [near, far] {
        assert_eq!(connection.peer_uid().unwrap(), getuid().as_raw());
        assert!(connection.is_same_user().unwrap());
    }
}

#[test]
fn a_cookie_names_one_socket_whatever_its_descriptor() {
    let sockets = sockets(2);
    let copy = sockets[0].try_clone().unwrap();
    assert_eq!(cookie(&copy).unwrap(), cookie(&sockets[0]).unwrap());
    assert_ne!(cookie(&sockets[1]).unwrap(), cookie(&sockets[0]).unwrap());
    assert!(cookie(File::open("/dev/null").unwrap()).is_err());
}

#[test]
fn sealed_memory_is_read_wherever_it_stands_and_written_by_nobody() {
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let memfd = memfd_from(&bytes).unwrap();
    let mut same = File::from(memfd.try_clone().unwrap());
    same.seek(SeekFrom::Start(123)).unwrap();
    assert!(read_memfd(&memfd, bytes.len()).unwrap() == bytes);
    assert_eq!(same.stream_position().unwrap(), 123);
    assert_eq!(same.write_all(b"x").unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(same.set_len(1).unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(read_memfd(memfd_from(b"").unwrap(), 0).unwrap(), b"");
}

#[test]
fn what_is_too_long_or_not_sealed_is_not_read() {
    let invalid = |memfd: OwnedFd, most| {
        assert_eq!(read_memfd(memfd, most).unwrap_err().kind(), ErrorKind::InvalidData);
    };
    invalid(memfd_from(b"12345").unwrap(), 4);
    invalid(tempfile::tempfile().unwrap().into(), 4);
    invalid(File::open("/dev/zero").unwrap().into(), 4);
    invalid(sockets(1).remove(0), 4);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let partly = memfd_create("partly sealed", flags).unwrap();
    invalid(partly.try_clone().unwrap(), 4);
    fcntl_add_seals(&partly, SealFlags::GROW | SealFlags::WRITE).unwrap();
    invalid(partly, 4);
}

/// Set in a process that has one of these tests for itself.
const OWN_PROCESS: &str = "ELBOWS_TEST_OWN_PROCESS";

/// Runs a test in a process of its own, since its limits and its descriptors are to be nobody else's.
fn in_its_own_process(test: &str, body: impl FnOnce()) -> String {
    if env::var_os(OWN_PROCESS).is_some() {
        body();
        return String::new();
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([
        "--exact",
        "--nocapture",
        &format!("{}::{test}", module_path!().split_once("::").unwrap().1),
    ]);
    let output = command.env(OWN_PROCESS, "1").stdin(Stdio::null()).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && stdout.contains("1 passed"), "{output:?}");
    stdout
}

#[test]
fn descriptors_beyond_the_limit_are_told_to_be_truncated() {
    in_its_own_process("descriptors_beyond_the_limit_are_told_to_be_truncated", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (near, far) = pair().await;
            let sent = sockets(40);
            let borrowed: Vec<_> = sent.iter().map(AsFd::as_fd).collect();
            near.send(b"many", &borrowed).await.unwrap();
            let limit = getrlimit(Resource::Nofile);
            let low = lowest_free_descriptor() + 10;
            setrlimit(Resource::Nofile, Rlimit { current: Some(low), ..limit }).unwrap();
            let free = usize::try_from(free_descriptors()).unwrap();
            assert!((1..=10).contains(&free), "{free}");
            let message = received(&far).await;
            assert!(message.truncated);
            assert_eq!(cookies(&message.descriptors), cookies(&sent)[..free]);
            assert_eq!(free_descriptors(), 0);
            // None at all.
            near.send(b"more", &borrowed).await.unwrap();
            let message = received(&far).await;
            assert!(message.truncated && message.descriptors.is_empty());
            assert_eq!(message.bytes, b"more");
        });
    });
}

#[test]
fn free_descriptors_are_what_the_limit_leaves() {
    in_its_own_process("free_descriptors_are_what_the_limit_leaves", || {
        let before = free_descriptors();
        let lowest = lowest_free_descriptor();
        assert!((3..=open_descriptors(u64::MAX).unwrap()).contains(&lowest));
        let open = sockets(7);
        assert_eq!(free_descriptors(), before - 7);
        assert!(lowest_free_descriptor() >= lowest + 7);
        drop(open);
        assert_eq!(free_descriptors(), before);
    });
}

#[test]
fn two_processes_have_one_clock() {
    // The machine's clock, not the one on the wall.
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    assert!(monotonic().as_secs_f64() < uptime + SOON.as_secs_f64());
    let before = monotonic();
    let text = in_its_own_process("two_processes_have_one_clock", || {
        println!("\nnow={}", monotonic().as_nanos());
    });
    let after = monotonic();
    if env::var_os(OWN_PROCESS).is_none() {
        let there = text.lines().find_map(|line| line.strip_prefix("now=")).unwrap();
        let there = there.parse().unwrap();
        assert!(before.as_nanos() < there && there < after.as_nanos());
    }
}

#[test]
fn room_for_descriptors_is_made_in_advance() {
    const MORE: u64 = 3_000;
    let table_size = || -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        size.trim().parse().unwrap()
    };
    in_its_own_process("room_for_descriptors_is_made_in_advance", || {
        let limit = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).unwrap();
        assert!(table_size() < MORE);
        let free = free_descriptors();
        reserve_descriptors(MORE).unwrap();
        assert!(table_size() > MORE);
        assert_eq!(free_descriptors(), free, "none is left open");
        // As many as there may be, where it is more.
        reserve_descriptors(u64::MAX).unwrap();
    });
}
