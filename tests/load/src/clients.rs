//! The clients: each comes with an address of its own, as a load balancer tells it.
//!
//! First all lasting tunnels are opened. Beside them, until the end, handshakes come at their rate, close handshakes are
//! under way, requests are made and a download runs. At the end each tunnel finishes in order, and what both ends
//! have seen of it is compared.

mod judgement;
mod requests;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::application::{self, PLAN};
use crate::content::{Side, stamp};
use crate::end::{self, Finish, Outcome};
use crate::heads;
use crate::plan::{Kind, Paces, Plan};
use crate::report::{DownloadReport, Failure, Report, RequestReport, Spread};

/// How many are opened at once.
const OPENING: usize = 64;

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Numbers of one process.
const RANGE: u64 = 1_000_000;

/// Handshakes that may be under way: where all is slow, they would take the descriptors of those that last.
const MOST_HANDSHAKES: usize = 100;

/// What is made, and how much of it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Where the proxy listens
    #[arg(long)]
    proxy: SocketAddr,
    /// Where the application listens
    #[arg(long)]
    application: SocketAddr,
    /// Which process of clients this is, from 0 to 15: each has numbers and addresses of its own
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..16))]
    process: u64,
    /// Tunnels with a message and its echo now and then
    #[arg(long, default_value_t = 0)]
    idle: usize,
    /// Tunnels with an echo twice a second
    #[arg(long, default_value_t = 0)]
    echo: usize,
    /// Tunnels on which the application sends twice a second
    #[arg(long, default_value_t = 0)]
    paced: usize,
    /// Tunnels with large frames
    #[arg(long, default_value_t = 0)]
    large: usize,
    /// Tunnels with fragments and Pings between them
    #[arg(long, default_value_t = 0)]
    fragmented: usize,
    /// Tunnels with full buffers, in one direction or the other
    #[arg(long, default_value_t = 0)]
    stalled: usize,
    /// Tunnels of bytes that are closed in one direction
    #[arg(long, default_value_t = 0)]
    half_closed: usize,
    /// Tunnels with Pings of both ends
    #[arg(long, default_value_t = 0)]
    pings: usize,
    /// Close handshakes under way at any time
    #[arg(long, default_value_t = 0)]
    closing: usize,
    /// Handshakes a second
    #[arg(long, default_value_t = 0)]
    handshakes: u64,
    /// Connections with a plain request twice a second
    #[arg(long, default_value_t = 0)]
    requests: usize,
    /// Bytes of the download; 0 for none
    #[arg(long, default_value_t = 0)]
    download: u64,
    /// Bytes of it a second
    #[arg(long, default_value_t = 2 * 1024 * 1024)]
    download_rate: u64,
    #[command(flatten)]
    paces: Paces,
    /// Seconds from when all are open after which it ends by itself
    #[arg(long, default_value_t = 1_800)]
    longest: u64,
    /// Tell of each tunnel in the report
    #[arg(long)]
    each: bool,
}

impl Options {
    /// The tunnels that last.
    fn lasting(&self) -> [(Kind, usize); 8] {
        [
            (Kind::Idle, self.idle),
            (Kind::Echo, self.echo),
            (Kind::Paced, self.paced),
            (Kind::Large, self.large),
            (Kind::Fragmented, self.fragmented),
            (Kind::Stalled, self.stalled),
            (Kind::HalfClosed, self.half_closed),
            (Kind::Pings, self.pings),
        ]
    }

    /// The numbers of this process.
    const fn range(&self) -> Range<u64> {
        self.process * RANGE..(self.process + 1) * RANGE
    }
}

/// A tunnel that is over, or that did not open.
struct Tunnel {
    number: u64,
    kind: Kind,
    outcome: Result<Outcome, String>,
}

/// What all tasks share.
struct Clients {
    options: Options,
    finish: watch::Sender<Finish>,
    next: Cell<u64>,
    tunnels: RefCell<Vec<Tunnel>>,
    opening: RefCell<Vec<u32>>,
    handshakes: RefCell<Vec<u32>>,
    /// Handshakes that were not begun.
    left_out: Cell<u64>,
    requests: RefCell<RequestReport>,
    request_delays: RefCell<Vec<u32>>,
    downloads: RefCell<DownloadReport>,
    /// Of what is no tunnel.
    failures: RefCell<Vec<Failure>>,
}

/// Makes the load until `stop`, and returns the report.
pub(crate) async fn run(options: Options, stop: watch::Receiver<bool>) -> io::Result<Report> {
    let began = Instant::now();
    let clients = Rc::new(Clients {
        next: Cell::new(options.range().start),
        finish: watch::Sender::new(Finish::new()),
        options,
        tunnels: RefCell::default(),
        opening: RefCell::default(),
        handshakes: RefCell::default(),
        left_out: Cell::default(),
        requests: RefCell::default(),
        request_delays: RefCell::default(),
        downloads: RefCell::default(),
        failures: RefCell::default(),
    });
    let mut tasks = JoinSet::new();
    let lasting = clients.open_lasting(&mut tasks).await;
    println!("\nopen {lasting} in {:.3}", began.elapsed().as_secs_f64());
    clients.begin_others(&mut tasks);
    let delays = tokio::task::spawn_local(own_delays(clients.finish.subscribe()));

    let mut stop = stop;
    let longest = Duration::from_secs(clients.options.longest);
    let _ = timeout(longest, stop.wait_for(|is_over| *is_over)).await;
    let range = clients.options.range();
    let of_range = format!("first={}&count={}", range.start, RANGE);
    clients.finish.send_replace(vec![range]);
    let application = clients.options.application;
    application::ask(application, &format!("/finish?{of_range}")).await?;
    while let Some(task) = tasks.join_next().await {
        task.map_err(io::Error::other)?;
    }
    let own_delay = Spread::of(delays.await.map_err(io::Error::other)?);
    let seconds = began.elapsed().as_secs_f64();
    let records = application::ask(application, &format!("/report?{of_range}")).await?;
    let records: Vec<application::Record> = serde_json::from_slice(&records)?;
    let mut report = Report { seconds, own_delay, ..Report::default() };
    clients.judge(records, &mut report);
    Ok(report)
}

impl Clients {
    fn number(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    fn is_over(&self) -> bool {
        !self.finish.borrow().is_empty()
    }

    /// Opens the lasting tunnels, and says how many there are when all are open.
    async fn open_lasting(self: &Rc<Self>, tasks: &mut JoinSet<()>) -> usize {
        let permits = Rc::new(Semaphore::new(OPENING));
        let mut all = 0;
        for (kind, count) in self.options.lasting() {
            for _ in 0..count {
                all += 1;
                let (clients, number, permits) = (self.clone(), self.number(), permits.clone());
                tasks.spawn_local(async move {
                    let permit = permits.acquire().await;
                    let opened = clients.open(kind, number, &clients.opening).await;
                    drop(permit);
                    clients.run(kind, number, opened).await;
                });
            }
        }
        // Whoever waits comes behind all others.
        let _ = permits.acquire_many(u32::try_from(OPENING).unwrap_or(u32::MAX)).await;
        while self.opening.borrow().len() + self.tunnels.borrow().len() < all {
            // Whoever opens a tunnel has a deadline of its own, and counts it as a failure then.
            sleep(Duration::from_millis(5)).await;
        }
        all
    }

    /// What goes on beside them.
    fn begin_others(self: &Rc<Self>, tasks: &mut JoinSet<()>) {
        for _ in 0..self.options.closing {
            let clients = self.clone();
            tasks.spawn_local(async move {
                while !clients.is_over() {
                    clients.tunnel(Kind::Closing).await;
                }
            });
        }
        if self.options.handshakes > 0 {
            let clients = self.clone();
            tasks.spawn_local(async move { clients.handshakes().await });
        }
        for _ in 0..self.options.requests {
            let clients = self.clone();
            tasks.spawn_local(async move { clients.requests().await });
        }
        if self.options.download > 0 {
            let clients = self.clone();
            tasks.spawn_local(async move { clients.downloads().await });
        }
    }

    /// Handshakes at their rate, whatever becomes of them.
    async fn handshakes(self: Rc<Self>) {
        let mut clock =
            interval(Duration::from_secs(1) / u32::try_from(self.options.handshakes).unwrap_or(1));
        clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut under_way = JoinSet::new();
        while !self.is_over() {
            clock.tick().await;
            while under_way.try_join_next().is_some() {}
            if under_way.len() < MOST_HANDSHAKES {
                let clients = self.clone();
                under_way.spawn_local(async move { clients.tunnel(Kind::Handshake).await });
            } else {
                self.left_out.set(self.left_out.get() + 1);
            }
        }
        under_way.join_all().await;
    }

    /// A tunnel from its handshake to its end.
    async fn tunnel(&self, kind: Kind) {
        let number = self.number();
        let opened = self.open(kind, number, &self.handshakes).await;
        self.run(kind, number, opened).await;
    }

    async fn run(&self, kind: Kind, number: u64, opened: Result<Open, String>) {
        let outcome = match opened {
            Ok((socket, early, plan)) => {
                let finish = self.finish.subscribe();
                Ok(end::run(socket, &early, (Side::Client, number), plan, finish).await)
            }
            Err(why) => Err(why),
        };
        self.tunnels.borrow_mut().push(Tunnel { number, kind, outcome });
    }

    /// Opens a tunnel. How long it took goes to `times`; where it took too long, that is the error.
    async fn open(
        &self,
        kind: Kind,
        number: u64,
        times: &RefCell<Vec<u32>>,
    ) -> Result<Open, String> {
        let began = Instant::now();
        let opened = timeout(PATIENCE, self.try_open(kind, number)).await;
        let opened = opened.map_err(|_| "no answer in time".to_owned())?;
        let opened = opened.map_err(|fault| fault.to_string())?;
        // When all tunnels end at once, each handshake takes longer.
        if !self.is_over() {
            times.borrow_mut().push(microseconds(began.elapsed()));
        }
        Ok(opened)
    }

    async fn try_open(&self, kind: Kind, number: u64) -> io::Result<Open> {
        let (plan, of_application) = self.options.paces.plans(kind, number);
        let path = format!("/{}?tunnel={number}", kind.name());
        let field = format!("{PLAN}: {}\r\n", serde_json::to_string(&of_application)?);
        let request = heads::upgrade(&path, kind.protocol(), &field);
        let mut socket = self.connect(number, &request).await?;
        let Some((head, early)) = heads::read_head(&mut socket, Vec::new()).await? else {
            return Err(io::Error::other("the stream ends in front of the answer"));
        };
        let is_web_socket = kind.protocol() == "websocket";
        let accept = heads::field(&head, "sec-websocket-accept");
        if heads::status(&head) != Some(101) || is_web_socket && accept != Some(heads::ACCEPT) {
            return Err(io::Error::other(head.lines().next().unwrap_or_default()));
        }
        Ok((socket, early, plan))
    }

    /// A connection that begins with its PROXY header and `request`.
    async fn connect(&self, number: u64, request: &str) -> io::Result<TcpStream> {
        let header = heads::proxy_header(number)?;
        let mut socket = TcpStream::connect(self.options.proxy).await?;
        socket.set_nodelay(true)?;
        socket.write_all(&[&header, request.as_bytes()].concat()).await?;
        Ok(socket)
    }
}

/// An open tunnel: its socket, what came behind the 101, and what is to be done.
type Open = (TcpStream, Vec<u8>, Plan);

fn microseconds(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// How much later than it asked for this process is woken, a hundred times a second.
async fn own_delays(finish: watch::Receiver<Finish>) -> Vec<u32> {
    const EVERY: Duration = Duration::from_millis(10);
    let mut delays = Vec::new();
    while finish.borrow().is_empty() {
        let asked = stamp();
        // How late this wakes is what is measured.
        sleep(EVERY).await;
        let took = Duration::from_nanos(stamp().saturating_sub(asked));
        delays.push(microseconds(took.saturating_sub(EVERY)));
    }
    delays
}
