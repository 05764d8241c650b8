//! A connection between a client and upstreams that are all in memory: what `relay/connections.rs` does with sockets,
//! a poll and a wheel is done here with queues of bytes and a time that the caller moves.
//!
//! A read gives no more than [`Peer::piece`] bytes, a write takes no more than [`Peer::room`] is left, and the steps of
//! a turn can be taken in any order: so bytes are split, and sides are ready, as a test or a fuzzer likes.

mod peer;
mod steps;

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use self::peer::{Peer, UpstreamPeer};
use crate::access_log::AccessLog;
use crate::config::routing::Routing;
use crate::config::{Config, ProxyProtocol};
use crate::connection::{Connection, Lifecycle, Switching};
use crate::drain::Stage;
use crate::feed::Feed;
use crate::http::request_id::RequestIds;
use crate::limits::{Limits, Seat};
use crate::line_writer::Lines;
use crate::metrics::Counters;
use crate::metrics::worker::WorkerMetrics;
use crate::proxy::{Context, Proxy, Spare};
use crate::routes::Routes;
use crate::upstream::Loads;
use crate::warnings::Warnings;

/// Never runs anything: the addresses of an upstream come from the test.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime without drivers"));

/// Whoever needs more looks for the same time again and again.
const MOST_LOOKS: usize = 10_000;

/// What one line of the access log says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) request: String,
    pub(crate) status: u64,
    pub(crate) from_client: u64,
    pub(crate) from_upstream: u64,
    /// By whom it ended, in which phase, and why.
    pub(crate) end: String,
}

impl Logged {
    /// Reads a line, which is one flat object in JSON.
    ///
    /// # Panics
    /// It is something else.
    fn read(line: &str) -> Self {
        let mut logged = Self::default();
        let (mut by, mut during, mut why) = (String::new(), String::new(), String::new());
        let mut rest = line.strip_prefix('{').expect("an object");
        loop {
            let (key, behind) =
                rest.strip_prefix('"').and_then(|rest| rest.split_once("\":")).unwrap();
            let (value, behind) = read_value(behind);
            match key {
                "request" => logged.request = value,
                "status" => logged.status = value.parse().unwrap_or_default(),
                "from_client" => logged.from_client = value.parse().unwrap(),
                "from_upstream" => logged.from_upstream = value.parse().unwrap(),
                "by" => by = value,
                "during" => during = value,
                "why" => why = value,
                _ => {}
            }
            let Some(behind) = behind.strip_prefix(',') else {
                assert_eq!(behind, "}");
                break;
            };
            rest = behind;
        }
        logged.end = [by, during, why].join(" ");
        logged
    }

    /// How much of a bad head was there to be logged depends on the pieces in which it came.
    pub(crate) fn forget_bad_head(&mut self) {
        if self.status >= 400 && self.end.starts_with("client request") {
            self.request.clear();
        }
    }
}

/// The value that a text in JSON begins with, and what is behind it: a string without its escapes, anything else as it
/// stands.
fn read_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', '}']).expect("it ends");
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut rest = quoted;
    loop {
        let end = rest.find(['"', '\\']).expect("it ends");
        let (plain, behind) = rest.split_at(end);
        assert!(!plain.contains(|char: char| char.is_ascii_control()), "{plain:?}");
        value.push_str(plain);
        rest = match behind.as_bytes() {
            [b'"', ..] => return (value, &behind[1..]),
            [b'\\', b'u', ..] => {
                let code = u32::from_str_radix(&behind[2..6], 16).expect("four digits");
                value.push(char::from_u32(code).expect("a character"));
                &behind[6..]
            }
            _ => {
                value.push(
                    behind[1..].chars().next().filter(|char| matches!(char, '"' | '\\')).unwrap(),
                );
                &behind[2..]
            }
        };
    }
}

/// What is done with sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    WriteClient,
    LinkUp,
    WriteUpstream,
    ReadUpstream,
    ReadClient,
}

impl Action {
    /// In the order of a worker's turn.
    pub(crate) const ALL: [Self; 5] = [
        Self::WriteClient,
        Self::LinkUp,
        Self::WriteUpstream,
        Self::ReadUpstream,
        Self::ReadClient,
    ];
}

/// A connection with all that a worker holds for it.
pub(crate) struct Shell {
    pub(crate) proxy: Proxy,
    ids: RequestIds,
    /// On the heap, since it is large and a shell is moved.
    metrics: Box<WorkerMetrics>,
    spare: Spare,
    lines: Lines,
    pub(crate) now: Instant,
    pub(crate) stage: Stage,
    connection: Option<Connection>,
    pub(crate) client: Peer,
    /// Every connection to an upstream that there was.
    pub(crate) links: Vec<UpstreamPeer>,
    link: Option<usize>,
    /// Links that wait for another exchange; the last one is used first.
    idle: Vec<usize>,
    /// What the upstream's name resolves to. None: nobody knows yet.
    pub(crate) addresses: Option<Vec<SocketAddr>>,
    /// Addresses that refuse connections.
    pub(crate) refusing: Vec<SocketAddr>,
    /// Addresses that never answer.
    pub(crate) silent: Vec<SocketAddr>,
    /// From so many bytes on that may pass unseen, they do.
    pub(crate) bulk: u64,
    /// It is over, with a reset or without.
    pub(crate) over: Option<bool>,
    /// It is a tunnel.
    pub(crate) tunnel: Option<Switching>,
    /// The most that has waited for each side, which has to be bounded.
    pub(crate) most_waiting: [usize; 2],
}

/// The balancer's end.
pub(crate) const BALANCER: ([u8; 4], u16) = ([10, 0, 0, 9], 3321);

/// Addresses of the upstream.
pub(crate) fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, number], 80))
}

/// The usual settings, without PROXY headers.
pub(crate) fn config() -> Config {
    // To form them takes a look at the control groups, which costs more than a run.
    static CONFIG: LazyLock<Config> = LazyLock::new(|| {
        let listen_on = SocketAddr::from(([127, 0, 0, 1], 1));
        let config = Config::for_destination(listen_on, "upstream.test", 80);
        Config { proxy_protocol: ProxyProtocol::Off, ..config }
    });
    CONFIG.clone()
}

impl Shell {
    /// A connection that has just been accepted.
    pub(crate) fn new(config: Config) -> Self {
        Self::with_routes(config, &Routing::default())
    }

    /// The same, where a file gives routes.
    pub(crate) fn with_routes(config: Config, routing: &Routing) -> Self {
        let now = Instant::now();
        let (access_log, lines) = AccessLog::unwritten();
        let config = Arc::new(config);
        let proxy = Proxy {
            access_log,
            counters: Arc::new(Counters::default()),
            limits: Limits::new(&config, now),
            routes: Arc::new(Routes::new(&config, routing, &Loads::default(), RUNTIME.handle())),
            warnings: Warnings::default(),
            feed: Feed::default(),
            config,
        };
        let mut shell = Self {
            proxy,
            ids: RequestIds::new(7, 0),
            metrics: Box::default(),
            spare: Spare::default(),
            lines,
            now,
            stage: Stage::Serving,
            connection: None,
            client: Peer::new(),
            links: Vec::new(),
            link: None,
            idle: Vec::new(),
            addresses: Some(vec![address(1)]),
            refusing: Vec::new(),
            silent: Vec::new(),
            bulk: u64::MAX,
            over: None,
            tunnel: None,
            most_waiting: [0; 2],
        };
        shell.accept();
        shell
    }

    /// The client opens another connection; nothing is left of the one before.
    pub(crate) fn accept(&mut self) {
        self.connection = None;
        let (seat, over) = self.proxy.limits.enter();
        self.connection = Some(Connection::new(BALANCER.into(), seat, over, self.now));
        self.client = Peer::new();
        self.over = None;
    }

    /// The client opens another connection, and somebody else has the seat of the first one.
    pub(crate) fn accept_beside_another(&mut self) -> Seat {
        self.connection = None;
        let (seat, _) = self.proxy.limits.enter();
        self.accept();
        seat
    }

    /// The client sends this, and all that moves does.
    pub(crate) fn client_sends(&mut self, bytes: impl AsRef<[u8]>) {
        self.client.sends(bytes.as_ref());
        self.run();
    }

    /// The upstream of the exchange under way sends this, and all that moves does.
    pub(crate) fn upstream_sends(&mut self, bytes: impl AsRef<[u8]>) {
        self.link().sends(bytes.as_ref());
        self.run();
    }

    /// The client sends no more.
    pub(crate) fn client_ends(&mut self) {
        self.client.ends();
        self.run();
    }

    /// The upstream of the exchange under way sends no more.
    pub(crate) fn upstream_ends(&mut self) {
        self.link().ends();
        self.run();
    }

    /// What the client got since the last time.
    pub(crate) fn client_got(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.client.received)).into_owned()
    }

    /// What the upstream with this number got since the last time.
    pub(crate) fn upstream_got(&mut self, number: usize) -> String {
        let received = std::mem::take(&mut self.links[number].peer.received);
        String::from_utf8_lossy(&received).into_owned()
    }

    /// Tells the connection something.
    fn tell<R>(&mut self, tell: impl FnOnce(&mut Connection, &Context<'_>) -> R) -> Option<R> {
        let destination = || SocketAddr::from(([127, 0, 0, 1], 1));
        let context = Context {
            now: self.now,
            stage: self.stage,
            proxy: &self.proxy,
            ids: &self.ids,
            metrics: &self.metrics,
            spare: &self.spare,
            random: &|| 0x0123_4567_89ab_cdef,
            destination: &destination,
        };
        Some(tell(self.connection.as_mut()?, &context))
    }

    /// Where the connection is, while there is one.
    pub(crate) fn lifecycle(&self) -> Option<Lifecycle> {
        self.connection.as_ref().map(Connection::lifecycle)
    }

    /// The link that the exchange under way has.
    pub(crate) fn link(&mut self) -> &mut Peer {
        let link = self.link.expect("there is a link");
        &mut self.links[link].peer
    }

    /// The idle link that the next exchange gets: the last one that a look at the kernel would not give up.
    pub(crate) fn idle(&mut self) -> Option<&mut Peer> {
        let is_good = |idle: &&usize| self.links[**idle].peer.is_good();
        let idle = self.idle.iter().rfind(is_good).copied();
        idle.map(|idle| &mut self.links[idle].peer)
    }

    /// The memory that is held for what goes to the client.
    pub(crate) fn held_for_client(&mut self) -> usize {
        self.connection.as_mut().map_or(0, |connection| connection.client_out().capacity())
    }

    /// The number of the link that the exchange under way has.
    pub(crate) const fn linked(&self) -> Option<usize> {
        self.link
    }

    /// Takes steps in a worker's order until nothing moves any more.
    pub(crate) fn run(&mut self) {
        let mut looks = 0;
        while Action::ALL.iter().fold(false, |moved, action| moved | self.step(*action)) {
            looks += 1;
            assert!(looks < MOST_LOOKS * 100, "it never comes to rest");
        }
        // A worker does so at the end of a turn.
        if let Some(connection) = &mut self.connection {
            connection.client_out().return_memory(&mut Vec::new());
        }
    }

    /// Lets time pass, with all that is due meanwhile.
    pub(crate) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        let mut looks = 0;
        self.run();
        while let Some(deadline) = self.deadline().filter(|deadline| *deadline <= until) {
            self.now = self.now.max(deadline);
            self.tell(Connection::time);
            self.see();
            self.run();
            looks += 1;
            assert!(looks < MOST_LOOKS, "it is due again and again");
        }
        self.now = until;
    }

    /// When it is to be looked at although nothing happens.
    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        self.tell(Connection::deadline).flatten()
    }

    /// The drain comes to a stage. Whether a request was cut by that.
    pub(crate) fn drain(&mut self, stage: Stage) -> bool {
        self.stage = stage;
        let was_asked = match stage {
            Stage::Serving | Stage::Leaving => false,
            Stage::Yielding | Stage::Finishing => {
                self.wait(Duration::ZERO);
                false
            }
            Stage::Over => self.tell(Connection::cut).unwrap_or_default(),
        };
        self.see();
        was_asked
    }

    /// One step. Whether anything moved.
    pub(crate) fn step(&mut self, action: Action) -> bool {
        let moved = self.release();
        let moved = moved
            | match action {
                Action::WriteClient => self.write_client(),
                Action::LinkUp => self.link_up(),
                Action::WriteUpstream => self.write_upstream(),
                Action::ReadUpstream => self.read_upstream(),
                Action::ReadClient => self.read_client(),
            };
        self.see();
        moved
    }

    /// Does what the state of the connection asks for, and looks at what waits.
    fn see(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        let waiting = connection.client_out().waiting().len();
        let outgoing =
            connection.exchange().map_or(0, |exchange| exchange.upstream_out().waiting().len());
        assert!(connection.kept() < 2 * 64 * 1024, "it keeps what it should not read");
        self.most_waiting[0] = self.most_waiting[0].max(waiting);
        self.most_waiting[1] = self.most_waiting[1].max(outgoing);
        match connection.lifecycle() {
            Lifecycle::Over { with_reset } => {
                self.over = Some(with_reset);
                self.connection = None;
                if let Some(link) = self.link.take() {
                    self.links[link].is_closed = true;
                }
            }
            Lifecycle::Switching if waiting == 0 => {
                self.tunnel = self
                    .connection
                    .take()
                    .and_then(Connection::into_switching)
                    .map(|(switching, _)| *switching);
            }
            Lifecycle::Closing { ends_well: true } if waiting == 0 => {
                self.client.is_told_end = true;
            }
            _ => {}
        }
    }

    /// The lines of the access log since the last time.
    pub(crate) fn log(&self) -> Vec<Logged> {
        let lines = self.lines.take();
        if lines.is_empty() {
            return Vec::new();
        }
        let text = String::from_utf8(lines).expect("it is text");
        text.lines().map(Logged::read).collect()
    }
}
