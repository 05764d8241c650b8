//! Clients that see what becomes of theirs while a proxy is replaced: some echo, one makes handshakes.
//!
//! Each is a thread that waits for one thing at a time, so that a connection that ends is told from one that stands
//! still.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use super::connection::{self, Connection, Opening, connect, expect_status, hello, read_head};
use super::{Job, Latency, OPEN, Outcome};
use crate::frames::{self, Part, Sender};
use crate::heads::{self, Path, WEBSOCKET};

/// From one message of a client, or one handshake, to the next.
const EVERY: Duration = Duration::from_millis(20);

/// How long an echo or an answer may take before the connection counts as ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// Payload of a message.
const SIZE: usize = 64;

/// Looks on until standard input ends.
pub(super) fn run(job: &Job) -> io::Result<Outcome> {
    let is_over = AtomicBool::new(false);
    let opened = connection::open(job, Opening::Upgrade(Path::Echo, WEBSOCKET))?;
    let first = opened.len();
    for connection in &opened {
        connection.socket.set_nonblocking(false)?;
        connection.socket.set_read_timeout(Some(PATIENCE))?;
    }
    println!("{OPEN}");
    thread::scope(|scope| {
        let echoing: Vec<_> = opened
            .into_iter()
            .map(|connection| scope.spawn(|| echo(connection, &is_over)))
            .collect();
        let shaking = scope.spawn(|| shake_hands(job, first, &is_over));
        let read = io::stdin().read_to_end(&mut Vec::new());
        is_over.store(true, Ordering::Relaxed);
        read?;
        let mut outcome = Outcome::default();
        let mut echoes = Vec::new();
        for one in echoing {
            let (times, has_ended) = one.join().map_err(|_| io::Error::other("a client died"))?;
            outcome.ended += u64::from(has_ended);
            echoes.extend(times);
        }
        let (times, failed) = shaking.join().map_err(|_| io::Error::other("a client died"))?;
        outcome.count = echoes.len() as u64;
        outcome.failed = failed;
        outcome.latency = Latency::of(echoes);
        outcome.handshakes = Latency::of(times);
        Ok(outcome)
    })
}

/// Messages and their echoes: how long each took, and whether the connection ended before it was time.
fn echo(mut connection: Connection, is_over: &AtomicBool) -> (Vec<u64>, bool) {
    let message = frames::frame(Sender::Client, frames::BINARY, &[b'e'; SIZE]);
    let mut times = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let start = Instant::now();
        if round_trip(&mut connection, &message).is_err() {
            return (times, true);
        }
        times.push(nanoseconds(start.elapsed()));
        sleep(EVERY.saturating_sub(start.elapsed()));
    }
    (times, false)
}

fn round_trip(connection: &mut Connection, message: &[u8]) -> io::Result<()> {
    connection.socket.write_all(message)?;
    let (mut buffer, mut is_back) = ([0; 1024], false);
    while !is_back {
        let length = connection.socket.read(&mut buffer)?;
        let mut has_ended = length == 0;
        connection.follower.feed(buffer.get(..length).unwrap_or_default(), |part| match part {
            Part::End => is_back = true,
            Part::Control(frames::CLOSE, _) => has_ended = true,
            _ => {}
        });
        if has_ended {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Handshakes one after the other: how long each took that was answered with 101, and how many were not.
fn shake_hands(job: &Job, first: usize, is_over: &AtomicBool) -> (Vec<u64>, u64) {
    let (mut times, mut failed) = (Vec::new(), 0);
    let mut number = first;
    while !is_over.load(Ordering::Relaxed) {
        number += 1;
        let start = Instant::now();
        match shake_hand(job, number) {
            Ok(()) => times.push(nanoseconds(start.elapsed())),
            Err(_) => failed += 1,
        }
        sleep(EVERY.saturating_sub(start.elapsed()));
    }
    (times, failed)
}

fn shake_hand(job: &Job, number: usize) -> io::Result<()> {
    let mut socket: TcpStream = connect(job)?;
    socket.write_all(&[hello(job, number), heads::upgrade(Path::Echo, WEBSOCKET)].concat())?;
    let (head, _) = read_head(&mut socket)?;
    expect_status(&head, 101)?;
    // Its end is nobody's concern here.
    let _ = socket.shutdown(Shutdown::Both);
    Ok(())
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
