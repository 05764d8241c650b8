//! A worker by itself.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Mutex;

use mio::Waker;

use super::*;
use crate::tunnel::{Identity, Options, Protocol, Since};

/// Both ends of a connection.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (far, listener.accept().unwrap().0)
}

/// A tunnel, and the far ends of its client and its upstream.
fn tunnel() -> (Tunnel, TcpStream, TcpStream) {
    let ((client, near_client), (upstream, near_upstream)) = (connection(), connection());
    let address = client.local_addr().unwrap();
    let identity = Identity::new(address, address, address, "", "", Since::default());
    for socket in [&near_client, &near_upstream] {
        socket.set_nonblocking(true).unwrap();
    }
    let sides = ((near_client, Vec::new()), (near_upstream, Vec::new()));
    (Tunnel::new(Protocol::Other, sides.0, sides.1, identity), client, upstream)
}

#[test]
fn panic_in_one_tunnel_ends_that_one_alone() {
    let poll = Poll::new().unwrap();
    let waker = Waker::new(poll.registry(), WOKEN).unwrap();
    let ends = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&ends);
    let on_end = Arc::new(move |_, end, _| told.lock().unwrap().push(end));
    let rulebook = Rulebook::new(&Options::default());
    let mut worker =
        Worker::new(poll, Arc::new(Door::new(0, waker)), on_end, rulebook, Loads::default());
    worker.door.open.store(3, Ordering::Relaxed);
    let (unlucky, client, upstream) = tunnel();
    let (lucky, mut talker, mut listener) = tunnel();
    // One in its turn, one while it is taken in.
    worker.adopt(unlucky, false);
    worker.adopt(lucky, false);
    let (stillborn, other_client, other_upstream) = tunnel();
    let stillborn = NewTunnel { tunnel: stillborn, hears_client: false, hears_upstream: false };
    let place = worker.take_in(stillborn, |_, _, _, _| panic!("another, made on purpose"));
    assert_eq!(place, None);
    assert_eq!(*ends.lock().unwrap(), [MISTAKE]);

    let next = guarded(|| panic!("a mistake, made on purpose by a test"));
    assert_eq!(next, Next::Failed);
    worker.follow(0, next);
    assert_eq!(*ends.lock().unwrap(), [MISTAKE; 2]);
    for mut socket in [client, upstream, other_client, other_upstream] {
        assert_eq!(socket.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }

    talker.write_all(b"hello").unwrap();
    let mut events = Events::with_capacity(8);
    let mut heard = Vec::<u8>::new();
    while heard.len() < 5 {
        worker.poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
        assert!(!events.is_empty());
        for event in &events {
            worker.serve(event);
        }
        listener.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut bytes = [0; 8];
        let read = listener.read(&mut bytes).unwrap_or(0);
        heard.extend(bytes.iter().take(read));
    }
    assert_eq!(heard, b"hello");
    assert_eq!(worker.door.open.load(Ordering::Relaxed), 1);
}

/// Others wait for what one tunnel does in a round: where its turn was over, its events bring it no second one.
#[test]
fn tunnel_has_one_turn_in_a_round() {
    let poll = Poll::new().unwrap();
    let waker = Waker::new(poll.registry(), WOKEN).unwrap();
    let rulebook = Rulebook::new(&Options::default());
    let mut worker = Worker::new(
        poll,
        Arc::new(Door::new(0, waker)),
        Arc::new(|_, _, _| {}),
        rulebook,
        Loads::default(),
    );
    let (busy, mut talker, mut listener) = tunnel();
    let sender = std::thread::spawn(move || {
        // It ends with the other side.
        let _ = talker.write_all(&vec![b'x'; 64 << 20]);
    });
    listener.set_nonblocking(true).unwrap();
    worker.adopt(busy, false);
    let mut events = Events::with_capacity(8);
    let mut heard = vec![0; 1 << 20];
    let passed = |worker: &Worker| worker.slots.get(0).unwrap().tunnel.state.flows.client.passed;
    let mut rounds = 0;
    // Until a turn was over with more to do, and there was an event of it in the next round.
    while rounds < 20 {
        let begun = worker.again.len();
        let timeout = if begun > 0 { Duration::ZERO } else { Duration::from_secs(20) };
        worker.poll.poll(&mut events, Some(timeout)).unwrap();
        let before = passed(&worker);
        for event in &events {
            worker.serve(event);
        }
        if begun > 0 {
            assert_eq!(passed(&worker), before, "an event brought it another turn");
            rounds += usize::from(!events.is_empty());
        }
        let by_events = passed(&worker);
        worker.serve_again(begun);
        let by_list = passed(&worker);
        assert!(by_events == before || by_list == by_events, "two turns in a round");
        while listener.read(&mut heard).is_ok_and(|count| count > 0) {}
    }
    drop((worker, listener));
    sender.join().unwrap();
}

/// Closed sockets are forgotten by the poll, but for those that somebody has copies of, as after a handoff that failed:
/// what came for them would be taken for what came for the next tunnel at their place.
#[test]
fn sockets_with_copies_are_not_heard_of_once_their_tunnel_has_ended() {
    for (has_copies, expected) in [(true, &[1][..]), (false, &[0, 1])] {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), WOKEN).unwrap();
        let rulebook = Rulebook::new(&Options::default());
        let mut worker = Worker::new(
            poll,
            Arc::new(Door::new(0, waker)),
            Arc::new(|_, _, _| {}),
            rulebook,
            Loads::default(),
        );
        worker.door.open.store(2, Ordering::Relaxed);
        let (ended, mut stranger, _upstream) = tunnel();
        let (other, mut talker, _listener) = tunnel();
        let _copies = [&ended.client, &ended.upstream].map(|socket| socket.try_clone().unwrap());
        worker.adopt(ended, false);
        worker.adopt(other, false);
        let slot = worker.slots.get_mut(0).unwrap();
        assert!(slot.marks.put(Mark::HasCopies, has_copies), "whoever comes may have them");
        let mut events = Events::with_capacity(8);
        // What they are ready for is told at once.
        worker.poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
        worker.end(0);
        stranger.write_all(b"a").unwrap();
        talker.write_all(b"b").unwrap();
        worker.poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
        let mut heard: Vec<_> = events.iter().map(|event| from_token(event.token()).0).collect();
        heard.sort_unstable();
        heard.dedup();
        assert_eq!(heard, expected);
    }
}
