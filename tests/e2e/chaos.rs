//! Chaos on both sides: clients and upstreams that split, stall, leave, half-close and reset at random.
//!
//! Everything that a connection does follows from a seed, which both sides know: the upstream finds its
//! part by the number in the request's path. So each side knows what the other sent, and compares
//! every byte; and each side hashes what it sends and what it hears, as it goes, so that both ends of a connection
//! are held against each other without the plan. The rules:
//!
//! - what arrives is what was sent, or the beginning of it;
//! - it is all of it where neither side broke off, and wherever it looks complete;
//! - afterwards nothing is open, the process has nothing to do, and it holds little.
//!
//! The normal run makes the same connections each time, of a fixed seed. With `ELBOWS_TEST_LONG` it is a minute of others,
//! and says their seed; `ELBOWS_TEST_SEED` repeats them, as far as the kernel lets it.

use std::collections::HashMap;
use std::env;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use socket2::SockRef;
use test_support::frames::head;
use test_support::left_out::LONG;
use test_support::log_line::number;
use test_support::process::{cpu_ticks, open_descriptors, raise_descriptor_limit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::client::{PROXY_V1, field};
use crate::proxy::{Elbows, PATIENCE};

/// Connections at any time.
const CONNECTIONS: u64 = 2_000;

/// How many connections are made one after another in each of their places, in the normal run.
const ROUNDS: u64 = 4;

/// How long the long run goes on.
const LONG_RUN: Duration = Duration::from_secs(60);

/// What the normal run's connections follow from.
const SEED: u64 = 6455;

/// No connection takes longer, by far: one that does hangs.
const LONGEST: Duration = Duration::from_secs(60);

/// Numbers that look random (`SplitMix64`, Steele and others 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap()
    }

    fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// A tunnel of bytes.
    Bytes,
    /// A tunnel of frames.
    WebSocket,
    /// A request with or without body, and its response.
    Request,
}

/// How a side ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// It sends everything, says so, and reads to the end.
    Finish,
    /// It leaves after so many bytes, with or without a reset.
    Leave { after: usize, reset: bool },
}

/// What one side does.
struct Part {
    sends: Vec<u8>,
    chunked: bool,
    ending: Ending,
    random: Random,
}

/// What one connection does, or one request of it.
struct Plan {
    kind: Kind,
    client: Part,
    upstream: Part,
}

impl Plan {
    /// The plan with this number.
    fn new(seed: u64, number: u64) -> Self {
        let mut random = Random(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        let kind = match random.below(5) {
            0 | 1 => Kind::Bytes,
            2 | 3 => Kind::WebSocket,
            _ => Kind::Request,
        };
        let client = Part::new(&mut random, kind, true);
        let upstream = Part::new(&mut random, kind, false);
        Self { kind, client, upstream }
    }
}

impl Part {
    fn new(random: &mut Random, kind: Kind, masked: bool) -> Self {
        let length = match random.below(40) {
            0 => random.below(512 * 1024),
            1..8 => random.below(64 * 1024),
            8..12 => 0,
            _ => random.below(8 * 1024),
        };
        let sends = match kind {
            Kind::WebSocket => frames(random, length, masked),
            Kind::Bytes | Kind::Request => random.bytes(length),
        };
        let ending = match random.below(8) {
            // The head counts as well: many leave before or within it.
            0 => Ending::Leave { after: random.below(sends.len() + 300), reset: true },
            1 => Ending::Leave { after: random.below(sends.len() + 300), reset: false },
            _ => Ending::Finish,
        };
        Self { sends, chunked: random.one_in(2), ending, random: Random(random.next()) }
    }
}

/// Data frames of `length` bytes of payload in all.
fn frames(random: &mut Random, mut length: usize, masked: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    while length > 0 {
        let limit = [10, 130, 2_000, 70_000][random.below(4)];
        let payload = (random.below(limit) + 1).min(length);
        length -= payload;
        bytes.extend(head(0x82, if masked { 0x80 } else { 0 }, payload));
        bytes.extend(random.bytes(payload + if masked { 4 } else { 0 }));
    }
    bytes
}

/// A running hash, and of how many bytes.
#[derive(Clone, Default)]
struct Hash {
    bytes: usize,
    sha256: Sha256,
}

impl Hash {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.sha256.update(bytes);
    }

    /// What it came to so far.
    fn so_far(&self) -> (usize, [u8; 32]) {
        (self.bytes, self.sha256.clone().finalize().into())
    }
}

/// Writes `bytes` in parts of any size, with pauses, up to where its side leaves. `hash` takes what was sent
/// behind the first `head` of them.
async fn write(
    socket: &mut OwnedWriteHalf,
    bytes: &[u8],
    ending: Ending,
    random: &mut Random,
    head: usize,
    hash: &mut Hash,
) -> io::Result<()> {
    let end = match ending {
        Ending::Finish => bytes.len(),
        Ending::Leave { after, .. } => bytes.len().min(after),
    };
    let largest = [16, 1_500, 20_000, 200_000][random.below(4)].max(end / 64);
    let mut rest = &bytes[..end];
    while !rest.is_empty() {
        let (part, behind) = rest.split_at((random.below(largest) + 1).min(rest.len()));
        socket.write_all(part).await?;
        let before = end - rest.len();
        hash.add(part.get(head.saturating_sub(before)..).unwrap_or_default());
        rest = behind;
        pause(random).await;
    }
    Ok(())
}

/// A pause, now and then.
async fn pause(random: &mut Random) {
    if random.one_in(6) {
        let longest = if random.one_in(16) { 1_000 } else { 60 };
        // Peers that take their time: it is what they do.
        sleep(Duration::from_millis(random.below(longest) as u64)).await;
    }
}

/// Reads, in parts of any size and with pauses.
struct Reader {
    socket: OwnedReadHalf,
    unread: Vec<u8>,
    random: Random,
    /// Of what the other side wanted to be heard.
    heard: Hash,
}

impl Reader {
    /// Reads some more; nothing more at the end.
    async fn fill(&mut self) -> io::Result<usize> {
        pause(&mut self.random).await;
        let largest = [64, 4_096, 65_536][self.random.below(3)];
        let mut part = vec![0; largest];
        let read = self.socket.read(&mut part).await?;
        self.unread.extend_from_slice(&part[..read]);
        Ok(read)
    }

    async fn until(&mut self, end: &[u8]) -> io::Result<String> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|bytes| bytes == end) {
                let found = self.unread.drain(..at + end.len()).collect();
                return String::from_utf8(found).map_err(io::Error::other);
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Compares everything until the end of the stream with `expected`: how much came, how it ended.
    async fn stream(&mut self, expected: &[u8]) -> (usize, io::Result<()>) {
        let mut came = 0;
        loop {
            self.compare(expected, &mut came);
            match self.fill().await {
                Ok(0) => return (came, Ok(())),
                Ok(_) => {}
                Err(error) => return (came, Err(error)),
            }
        }
    }

    fn compare(&mut self, expected: &[u8], came: &mut usize) {
        let next = expected.get(*came..*came + self.unread.len());
        assert!(next == Some(&self.unread[..]), "other bytes than were sent, behind {came}");
        self.heard.add(&self.unread);
        *came += self.unread.len();
        self.unread.clear();
    }

    /// The same for a body in the framing of `head`. `Ok` means that it looks complete.
    async fn body(&mut self, head: &str, expected: &[u8], is_response: bool) -> io::Result<()> {
        let mut body = Vec::new();
        if field(head, "transfer-encoding").is_some() {
            loop {
                let line = self.until(b"\r\n").await?;
                let size = usize::from_str_radix(line.trim(), 16).expect("a size");
                self.at_least(size + 2).await?;
                self.heard.add(&self.unread[..size]);
                body.extend(self.unread.drain(..size));
                assert_eq!(self.unread.drain(..2).collect::<Vec<_>>(), b"\r\n");
                if size == 0 {
                    break;
                }
                assert!(expected.starts_with(&body), "other bytes than were sent");
            }
        } else if let Some(length) = field(head, "content-length") {
            let length: usize = length.parse().expect("a length");
            let all = self.at_least(length).await;
            let had_length = self.unread.len().min(length);
            self.heard.add(&self.unread[..had_length]);
            body.extend(self.unread.drain(..had_length));
            assert!(expected.starts_with(&body), "other bytes than were sent");
            all?;
        } else if is_response {
            // Without a length, the end of the connection is the end, whatever it was.
            let (_, end) = self.stream(expected).await;
            return end.and(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        assert!(body == expected, "it looks complete and is not: {head}");
        Ok(())
    }

    async fn at_least(&mut self, length: usize) -> io::Result<()> {
        while self.unread.len() < length {
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

fn split(socket: TcpStream, random: &mut Random) -> (Reader, OwnedWriteHalf) {
    let _ = socket.set_nodelay(random.one_in(2));
    let (socket, sink) = socket.into_split();
    let random = Random(random.next());
    (Reader { socket, unread: Vec::new(), random, heard: Hash::default() }, sink)
}

/// A body as it goes over the wire, with the field that frames it.
fn framed(body: &[u8], chunked: bool, random: &mut Random, hash: &mut Hash) -> (String, Vec<u8>) {
    if !chunked {
        hash.add(body);
        return (format!("Content-Length: {}", body.len()), body.to_vec());
    }
    let mut wire = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at((random.below(9_000) + 1).min(rest.len()));
        hash.add(chunk);
        wire.extend(format!("{:x}\r\n", chunk.len()).bytes());
        wire.extend_from_slice(chunk);
        wire.extend(b"\r\n");
        rest = behind;
    }
    wire.extend(b"0\r\n\r\n");
    (String::from("Transfer-Encoding: chunked"), wire)
}

fn leave(reader: Reader, sink: OwnedWriteHalf, ending: Ending) {
    if let Ending::Leave { reset: true, .. } = ending {
        let _ = SockRef::from(reader.socket.as_ref()).set_linger(Some(Duration::ZERO));
    }
    // Closed without FIN first, when both halves are gone.
    drop(reader);
    sink.forget();
}

/// What happened, to be compared with what elbows says of it.
#[derive(Default)]
struct Totals {
    connections: AtomicU64,
    /// Of both directions, compared.
    bytes: AtomicU64,
    broken: AtomicU64,
    /// Clean requests that met a connection which the upstream had closed.
    stale: AtomicU64,
    /// What each side sent and heard, by number.
    hashes: Mutex<HashMap<u64, Ends>>,
    /// Clean tunnels, and how many bytes they carried.
    tunnels: Mutex<HashMap<u64, (usize, usize)>>,
}

/// How many bytes went in and out at one end, and their hashes.
type End = ((usize, [u8; 32]), (usize, [u8; 32]));

/// Both ends of what has one number.
#[derive(Default)]
struct Ends {
    client: Option<End>,
    upstream: Option<End>,
}

impl Totals {
    /// Takes down what one end sent and heard. What it heard has the hash of the beginning of what was to come.
    fn take_down(&self, number: u64, is_client: bool, sent: &Hash, heard: &Hash, expected: &[u8]) {
        let (sent, heard) = (sent.so_far(), heard.so_far());
        let beginning: [u8; 32] = Sha256::digest(&expected[..heard.0]).into();
        assert_eq!(heard.1, beginning, "{number}: another hash after {} bytes", heard.0);
        let mut hashes = self.hashes.lock().unwrap();
        let ends = hashes.entry(number).or_default();
        *(if is_client { &mut ends.client } else { &mut ends.upstream }) = Some((sent, heard));
    }

    /// Holds both ends of each connection against each other: how many streams arrived whole.
    fn both_ends_agree(&self) -> usize {
        let hashes = self.hashes.lock().unwrap();
        let ends =
            hashes.iter().filter_map(|(number, ends)| Some((number, ends.client?, ends.upstream?)));
        let mut whole = 0;
        for (number, client, upstream) in ends {
            for (sent, heard) in [(client.0, upstream.1), (upstream.0, client.1)] {
                // Less came where a side broke off; more, where it left before it had taken down what it sent.
                if sent.0 == heard.0 {
                    assert_eq!(sent.1, heard.1, "{number}: another hash at the other end");
                    whole += usize::from(sent.0 > 0);
                }
            }
        }
        whole
    }
}

/// One connection of a client.
async fn client(elbows: SocketAddr, seed: u64, number: u64, totals: &Totals) {
    let Plan { kind, client: Part { sends, chunked, ending, mut random }, upstream } =
        Plan::new(seed, number);
    let is_clean = ending == Ending::Finish && upstream.ending == Ending::Finish;
    let socket = TcpStream::connect(elbows).await.expect("elbows takes connections");
    let (mut reader, mut sink) = split(socket, &mut random);
    let mut bytes = PROXY_V1.to_vec();
    let mut sent = Hash::default();
    let mut head = String::new();
    let _ = write!(
        head,
        "{} /{number} HTTP/1.1\r\nHost: chaos\r\n",
        match kind {
            Kind::Request if !sends.is_empty() || chunked => "POST",
            _ => "GET",
        }
    );
    let body = match kind {
        Kind::Request if sends.is_empty() && !chunked => Vec::new(),
        Kind::Request => {
            let (field, wire) = framed(&sends, chunked, &mut random, &mut sent);
            let _ = write!(head, "{field}\r\n");
            wire
        }
        Kind::Bytes => {
            head.push_str("Connection: Upgrade\r\nUpgrade: bytes\r\n");
            sends.clone()
        }
        Kind::WebSocket => {
            head.push_str(
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            );
            sends.clone()
        }
    };
    bytes.extend(head.bytes());
    bytes.extend(b"\r\n");
    // The hash of a body is without its framing, and there already.
    let before = if kind == Kind::Request { usize::MAX } else { bytes.len() };
    bytes.extend(body);

    let (open, opened) = oneshot::channel();
    let writing = async {
        let written = write(&mut sink, &bytes, ending, &mut random, before, &mut sent).await;
        let finishes = ending == Ending::Finish && kind != Kind::Request && written.is_ok();
        // Who says so before the 101 has left.
        if finishes && opened.await.is_ok() {
            let _ = sink.shutdown().await;
        }
        written
    };
    let reading = async {
        let head = reader.until(b"\r\n\r\n").await?;
        let status = head.split(' ').nth(1).expect("a status");
        match (kind, status) {
            (Kind::Request, "200") => {
                reader.body(&head, &upstream.sends, true).await?;
                Ok(upstream.sends.len())
            }
            (Kind::Bytes | Kind::WebSocket, "101") => {
                let _ = open.send(());
                let (came, end) = reader.stream(&upstream.sends).await;
                totals.bytes.fetch_add(came as u64, Ordering::Relaxed);
                end?;
                if is_clean {
                    assert_eq!(came, upstream.sends.len(), "{number}: a clean tunnel lost bytes");
                    totals.tunnels.lock().unwrap().insert(number, (sends.len(), came));
                }
                Ok(came)
            }
            (_, "400" | "408" | "502" | "503" | "504") => Err(io::Error::other(head)),
            (kind, status) => panic!("{number}: {status} for {kind:?}"),
        }
    };
    let outcome = if ending == Ending::Finish {
        let (written, read) = tokio::join!(writing, reading);
        // A client that is answered early may find that nobody reads on; the answer counts.
        read.and_then(|came| written.map(|()| came))
    } else {
        tokio::select! {
            biased;
            read = reading => read,
            written = writing => written.map(|()| 0),
        }
    };
    totals.connections.fetch_add(1, Ordering::Relaxed);
    totals.take_down(number, true, &sent, &reader.heard, &upstream.sends);
    match outcome {
        Ok(came) if kind == Kind::Request => {
            totals.bytes.fetch_add(came as u64, Ordering::Relaxed);
        }
        Ok(_) => {}
        // It crossed the close of a connection that another request had left behind.
        Err(error) if is_clean && kind == Kind::Request && error.to_string().contains(" 502 ") => {
            totals.stale.fetch_add(1, Ordering::Relaxed);
        }
        Err(error) => {
            assert!(!is_clean, "{number}: a clean {kind:?} broke: {error}");
            totals.broken.fetch_add(1, Ordering::Relaxed);
        }
    }
    leave(reader, sink, ending);
}

/// One connection of the upstream: a tunnel, or one request after the other.
async fn upstream(socket: TcpStream, seed: u64, totals: Arc<Totals>) -> io::Result<()> {
    let (mut reader, mut sink) = split(socket, &mut Random(seed));
    loop {
        let head = reader.until(b"\r\n\r\n").await?;
        let number = head.split(['/', ' ']).nth(2).and_then(|number| number.parse().ok());
        let number: u64 = number.unwrap_or_else(|| panic!("not what was asked: {head}"));
        let Plan { kind, client, upstream: Part { sends, chunked, ending, mut random } } =
            Plan::new(seed, number);
        let mut sent = Hash::default();
        reader.heard = Hash::default();
        if kind == Kind::Request {
            let (field, wire) = framed(&sends, chunked, &mut random, &mut sent);
            let mut bytes = format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n").into_bytes();
            bytes.extend(wire);
            // Some answer before they have read everything.
            let early = random.one_in(8);
            let exchange = async {
                if !early {
                    reader.body(&head, &client.sends, false).await?;
                }
                // The hash is without framing, and there already.
                let none = usize::MAX;
                write(&mut sink, &bytes, ending, &mut random, none, &mut sent).await?;
                if early && ending == Ending::Finish {
                    reader.body(&head, &client.sends, false).await?;
                }
                Ok::<_, io::Error>(())
            };
            let outcome = exchange.await;
            totals.take_down(number, false, &sent, &reader.heard, &client.sends);
            outcome?;
            if ending != Ending::Finish {
                leave(reader, sink, ending);
                return Ok(());
            }
            continue;
        }
        let protocol = field(&head, "upgrade").expect("an upgrade");
        let mut bytes = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        )
        .into_bytes();
        let before = bytes.len();
        bytes.extend(&sends);
        let writing = async {
            let written = write(&mut sink, &bytes, ending, &mut random, before, &mut sent).await;
            if ending == Ending::Finish && written.is_ok() {
                let _ = sink.shutdown().await;
            }
            written
        };
        let reading = reader.stream(&client.sends);
        if ending == Ending::Finish {
            let (written, (came, end)) = tokio::join!(writing, reading);
            if client.ending == Ending::Finish {
                written
                    .and(end)
                    .unwrap_or_else(|error| panic!("{number}: a clean tunnel: {error}"));
                assert_eq!(came, client.sends.len(), "{number}: a clean tunnel lost bytes");
            }
        } else {
            tokio::select! {
                biased;
                _ = writing => {}
                // It goes on writing, to whom it may.
                () = async { let _ = reading.await; std::future::pending::<()>().await } => {}
            }
        }
        totals.take_down(number, false, &sent, &reader.heard, &client.sends);
        leave(reader, sink, ending);
        return Ok(());
    }
}

#[test]
fn chaos_loses_no_byte_and_leaves_nothing_behind() {
    let long = env::var_os(LONG).is_some();
    let seed: u64 = match env::var("ELBOWS_TEST_SEED") {
        Ok(seed) => seed.parse().expect("ELBOWS_TEST_SEED is a number"),
        Err(_) if long => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
        Err(_) => SEED,
    };
    eprintln!("ELBOWS_TEST_SEED={seed}");
    raise_descriptor_limit();

    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let faults = Arc::new(Mutex::new(Vec::new()));
    let listener = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        // A queue that is full would be a fault of this test.
        socket.listen(4_096).unwrap()
    });
    let address = listener.local_addr().unwrap();
    let totals = Arc::<Totals>::default();
    let (upstream_faults, upstream_totals) = (Arc::clone(&faults), Arc::clone(&totals));
    runtime.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (faults, totals) = (Arc::clone(&upstream_faults), Arc::clone(&upstream_totals));
            tokio::spawn(async move {
                if let Err(fault) = tokio::spawn(upstream(socket, seed, totals)).await {
                    faults.lock().unwrap().push(fault.to_string());
                }
            });
        }
    });

    let settings = [("PING_INTERVAL", "off"), ("LOG", "warn,elbows=info")];
    let elbows = Elbows::start(address, &settings);
    runtime.block_on(async {
        let start = Instant::now();
        let slots: Vec<_> = (0..CONNECTIONS)
            .map(|slot| {
                let (totals, elbows) = (Arc::clone(&totals), elbows.address);
                tokio::spawn(async move {
                    // All of them at once would be a flood, and no chaos.
                    sleep(Duration::from_millis(slot)).await;
                    for round in 0.. {
                        let number = slot + CONNECTIONS * round;
                        let served = client(elbows, seed, number, &totals);
                        assert!(timeout(LONGEST, served).await.is_ok(), "{number} hangs");
                        let is_over =
                            if long { start.elapsed() > LONG_RUN } else { round + 1 == ROUNDS };
                        if is_over {
                            return;
                        }
                    }
                })
            })
            .collect();
        for slot in slots {
            if let Err(fault) = slot.await {
                faults.lock().unwrap().push(fault.to_string());
            }
        }
    });
    // What the upstream still does is over when elbows has closed everything.
    let report = elbows.wait_for_report("open=0");
    let faults = faults.lock().unwrap();
    for fault in faults.iter().take(10) {
        let number = fault.split(['"', ':']).find_map(|word| word.trim().parse::<u64>().ok());
        let target = format!("/{} ", number.unwrap_or_default());
        let lines = elbows.access_log.all();
        eprintln!("{fault}; {:?}", lines.iter().find(|line| line.contains(&target)));
    }
    assert!(faults.is_empty(), "seed {seed}: {} faults", faults.len());

    let connections = totals.connections.load(Ordering::Relaxed);
    let broken = totals.broken.load(Ordering::Relaxed);
    let stale = totals.stale.load(Ordering::Relaxed);
    let whole = totals.both_ends_agree();
    let tunnels = totals.tunnels.lock().unwrap();
    eprintln!(
        "{connections} connections, {broken} broken off, {stale} crossed a close, {} clean tunnels, \
         {whole} streams with one hash at both ends, {} bytes compared; {report}",
        tunnels.len(),
        totals.bytes.load(Ordering::Relaxed),
    );
    assert!(connections >= CONNECTIONS && tunnels.len() as u64 > connections / 4, "{connections}");
    assert!(whole > tunnels.len(), "{whole} whole streams");
    assert!(stale * 10 < connections, "{stale} of {connections}");
    assert_eq!(number(&report, "tunnels_open"), 0, "{report}");
    assert_eq!(number(&report, "access_log_lines_dropped"), 0, "{report}");
    assert_eq!(number(&report, "accept_pauses") + number(&report, "no_room"), 0, "{report}");
    assert_eq!(number(&report, "frame_faults"), 0, "{report}");
    // The connection that found it listening is one more.
    assert_eq!(number(&report, "connections"), connections + 1, "{report}");
    let opened = number(&report, "tunnels");
    assert!(opened >= tunnels.len() as u64, "{report}");

    the_log_agrees(&elbows, &report, &tunnels);
    is_at_rest(&elbows);
    runtime.shutdown_background();
}

/// A line each, and it says what was carried.
fn the_log_agrees(elbows: &Elbows, report: &str, tunnels: &HashMap<u64, (usize, usize)>) {
    let opened = number(report, "tunnels");
    let lines = elbows.access_log.wait_until("all lines", |lines| {
        (lines.len() as u64 >= number(report, "requests")).then(|| lines.to_vec())
    });
    let with_101 = lines.iter().filter(|line| line.contains(" status=101 ")).count() as u64;
    assert!(with_101 >= opened, "{with_101} lines, {opened} tunnels");
    let mut said = HashMap::new();
    for line in &lines {
        if let Some(number) = line.split(['/', ' ']).find_map(|word| word.parse::<u64>().ok()) {
            said.entry(number).or_insert_with(Vec::new).push(line);
        }
    }
    for (number, (from_client, from_upstream)) in tunnels {
        let lines = said.get(number).map_or(&[][..], Vec::as_slice);
        let carried = format!(" from_client={from_client} from_upstream={from_upstream} ");
        assert!(
            lines.len() == 1 && lines[0].contains(&carried),
            "{number}: {carried} in {lines:?}"
        );
        assert!(lines[0].contains("during=relay why=closed"), "{}", lines[0]);
    }
}

/// Nothing to do, and nothing held.
fn is_at_rest(elbows: &Elbows) {
    let spent = cpu_ticks(elbows.pid());
    // What it spends in a second.
    thread::sleep(Duration::from_secs(1));
    let spent = cpu_ticks(elbows.pid()) - spent;
    assert!(spent <= 5, "{spent} ticks of 10 ms in a second without work");
    let open = || open_descriptors(elbows.pid()).len();
    let deadline = Instant::now() + PATIENCE;
    // Pooled connections live for 4 s.
    while open() > 40 {
        assert!(Instant::now() < deadline, "{} descriptors stay open", open());
        thread::sleep(Duration::from_millis(50));
    }
    let (peak, after) = (elbows.memory("VmHWM"), elbows.memory("VmRSS"));
    eprintln!("memory in kB: {peak} at the peak, {after} after");
    assert!(peak < 200_000, "{peak} kB at the peak");
}
