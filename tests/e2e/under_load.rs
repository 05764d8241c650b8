//! elbows under the load of `load`: nothing is lost, and both ends and the access log count the same. And whether the load
//! would notice: in front of elbows a relay breaks one byte here and there.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::net::connect_unspec;
use test_support::log_line::{number, value};

use crate::load::{Application, Clients, Report, TunnelReport, mixture};
use crate::programs::wait_until;
use crate::proxy::Elbows;

#[test]
fn tunnels_of_every_kind_carry_what_was_sent_and_are_logged_so() {
    let application = Application::start();
    let elbows = Elbows::start(application.address, &[("PING_INTERVAL", "1s")]);
    let mut words = mixture(300, 2);
    for words in &mut words {
        let further = ["--each", "--longest=3", "--stall-time=1000", "--close-late=500"];
        words.extend(further.map(str::to_owned));
    }
    let clients = Clients::start(elbows.address, &application, &words);
    let reports = clients.wait();
    let lines = elbows.access_log.wait_until("a line for each tunnel", |lines| {
        let tunnels = lines.iter().filter(|line| line.contains("status=101"));
        let all: u64 = reports.iter().map(|report| report.all.tunnels).sum();
        let tunnels: HashMap<_, _> =
            tunnels.map(|line| (value(line, "client").to_owned(), line.clone())).collect();
        (tunnels.len() as u64 == all).then_some(tunnels)
    });
    let mut proxy_pings = 0;
    for report in &reports {
        assert_eq!((report.failed, &report.failures), (0, &Vec::new()));
        assert_eq!(report.tunnels.len() as u64, report.all.tunnels);
        assert!(is_mixed(report), "{:#?}", report.kinds);
        for tunnel in &report.tunnels {
            assert_is_logged(tunnel, &lines[&tunnel.client]);
        }
        proxy_pings += report.all.proxy_pings;
    }
    assert!(proxy_pings > 0, "elbows sent no Ping");
}

/// Each kind was there and did what it is there for.
pub fn is_mixed(report: &Report) -> bool {
    let all = [
        "idle",
        "echo",
        "paced",
        "large",
        "fragmented",
        "stalled",
        "half_closed",
        "pings",
        "closing",
        "handshake",
    ];
    let kind = |kind: &str| report.kinds.get(kind).cloned().unwrap_or_default();
    let passed = |name: &str| kind(name).messages_sent + kind(name).messages_received > 0;
    all.iter().all(|name| passed(name))
        && kind("stalled").blocked > 0
        && kind("pings").pongs > 0
        && kind("fragmented").pongs > 0
        && report.requests.delay.count > 0
        && report.handshakes.count > 0
}

/// The access log counts the bytes that passed: all but elbows' own Pings, and the Pongs to them.
pub fn assert_is_logged(tunnel: &TunnelReport, line: &str) {
    let logged = (number(line, "from_client"), number(line, "from_upstream"));
    let passed = (tunnel.application_received, tunnel.application_sent);
    assert_eq!(logged, passed, "{tunnel:?}: {line}");
    assert!(tunnel.wire_sent >= logged.0 && tunnel.wire_received >= logged.1, "{tunnel:?}: {line}");
}

/// A message of 64 bytes on its way: the head of its frame, and all of it.
const FROM_CLIENT: (usize, usize) = (6, 70);
const FROM_APPLICATION: (usize, usize) = (2, 66);

#[test]
fn load_tells_each_fault_of_a_relay_with_its_place() {
    let application = Application::start();
    let elbows = Elbows::start(application.address, &[]);
    let (head, message) = FROM_CLIENT;
    let (head_back, message_back) = FROM_APPLICATION;
    let relay = Relay::start(
        elbows.address,
        vec![
            (1, Way::Up, 2 * message + head + 30, Harm::Lose),
            (3, Way::Down, message_back + head_back + 40, Harm::Double),
            (4, Way::Up, 3 * message + head + 20, Harm::Change),
            (6, Way::Down, 3 * message_back, Harm::Reset),
        ],
    );
    let words = ["--echo=8", "--every=50"].map(str::to_owned).to_vec();
    let clients = Clients::start(relay.address, &application, &[words]);
    wait_until("all harm is done", || relay.done.load(Ordering::Relaxed) == 4);
    let report = clients.finish().remove(0);
    let mut told: Vec<_> = report
        .failures
        .iter()
        .map(|failure| {
            let (what, seen_by) = (failure.what.as_str(), failure.seen_by.as_str());
            (failure.tunnel, what, seen_by, failure.offset, failure.length, failure.message)
        })
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            (1, "lost", "application", 2 * 64 + 30, 1, 2),
            (3, "doubled", "client", 64 + 40, 1, 1),
            (4, "changed", "application", 3 * 64 + 20, 1, 3),
            (6, "reset", "client", 0, 0, 0),
        ],
        "{report:#?}"
    );
    assert_eq!((report.failed, report.all.mismatches, report.all.resets), (4, 3, 1));
}

/// Where the bytes go.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// To the application.
    Up,
    /// To the client.
    Down,
}

/// What happens to a byte.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Harm {
    Lose,
    Double,
    Change,
    /// The client's connection is reset instead.
    Reset,
}

/// In which tunnel, on which way, at which byte behind the handshake.
type Place = (u64, Way, usize, Harm);

/// A relay that passes everything on but what it is to harm.
struct Relay {
    address: SocketAddr,
    /// How much of the harm is done.
    done: Arc<AtomicUsize>,
}

impl Relay {
    fn start(to: SocketAddr, places: Vec<Place>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let done: Arc<AtomicUsize> = Arc::default();
        let counted = done.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (places, done) = (places.clone(), counted.clone());
                // Either side may leave at any time.
                thread::spawn(move || relay(client, to, &places, &done));
            }
        });
        Self { address, done }
    }
}

fn relay(
    mut client: TcpStream,
    to: SocketAddr,
    places: &[Place],
    done: &Arc<AtomicUsize>,
) -> io::Result<()> {
    let mut upstream = TcpStream::connect(to)?;
    for socket in [&client, &upstream] {
        socket.set_nodelay(true)?;
    }
    let tunnel = pass_head(&mut client, &mut upstream)?;
    let of_head = pass_head(&mut upstream, &mut client)?;
    assert!(tunnel.is_some() && of_head.is_none());
    let place = |way| places.iter().find(|place| Some(place.0) == tunnel && place.1 == way);
    let (up, down) = (place(Way::Up).copied(), place(Way::Down).copied());
    let [from, into] = [client.try_clone()?, upstream.try_clone()?];
    let counted = done.clone();
    let upwards = thread::spawn(move || pass(from, into, up, &counted));
    let passed = pass(upstream, client, down, done);
    let _ = upwards.join();
    passed
}

/// Passes on what comes up to the end of a head, and returns the number in its path.
fn pass_head(from: &mut TcpStream, into: &mut TcpStream) -> io::Result<Option<u64>> {
    let mut head = Vec::new();
    let mut byte = [0];
    // A PROXY header, version 2, begins with the same four bytes.
    while head.len() < 20 || !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    into.write_all(&head)?;
    let head = String::from_utf8_lossy(&head);
    let number = head.split_once("?tunnel=").and_then(|(_, rest)| rest.split_once(' '));
    Ok(number.and_then(|(number, _)| number.parse().ok()))
}

fn pass(
    mut from: TcpStream,
    mut into: TcpStream,
    place: Option<Place>,
    done: &AtomicUsize,
) -> io::Result<()> {
    let (mut buffer, mut passed) = (vec![0; 16 * 1024], 0);
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return into.shutdown(Shutdown::Write);
        }
        let mut bytes = buffer[..read].to_vec();
        if let Some((_, way, at, harm)) = place
            && (passed..passed + read).contains(&at)
        {
            let at = at - passed;
            match harm {
                Harm::Lose => drop(bytes.drain(at..=at)),
                Harm::Double => bytes.insert(at, bytes[at]),
                Harm::Change => bytes[at] ^= 0xff,
                Harm::Reset => {
                    let client = if way == Way::Down { &into } else { &from };
                    // Another thread has its descriptor, too, so that closing it would not do; this resets it at once.
                    connect_unspec(client)?;
                    done.fetch_add(1, Ordering::Relaxed);
                    return from.shutdown(Shutdown::Both);
                }
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
        into.write_all(&bytes)?;
        passed += read;
    }
}
