//! Mistakes of elbows itself: each is counted and told, wherever it happens, and costs no more than where it happened.
//!
//! No peer can make elbows panic that is known of, and elbows has nothing that does it for a test. So what runs here is not
//! the binary but this one, which starts elbows as the binary does and listens to what it logs: whoever says what is waited
//! for panics while it says so, on its thread and in the middle of its work.

use std::env;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, exit};
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser as _;
use elbows::access_log::AccessLog;
use elbows::config::routing::Routing;
use elbows::config::{Config, Settings};
use elbows::control::{self, Activation, Order, Start};
use elbows::line_writer::Patient;
use elbows::notify::Notify;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, fmt as lines};

use crate::admin::metrics::scrape;
use crate::admin::{Admin, TOKEN, number, text};
use crate::client::{Client, handshake};
use crate::handoff::Place;
use crate::programs::wait_until;
use crate::proxy::{Elbows, free_port};
use crate::upstream::Upstream;
use crate::web_socket::{Tunnels, talk};

/// What is not a test but the process, where it is set: in each line which time, and what is said then.
const PANICS: &str = "ELBOWS_TEST_PANICS";

/// What a worker says of a client whose PROXY header is none.
pub(crate) const BAD_HEADER: &str = "bad PROXY header: ";

/// What a worker says when another process takes over, outside of any connection.
pub(crate) const TAKES_OUT: &str = "tunnels were taken out for another process";

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
}

/// Panics the so many-th time that something is said with these words in it.
struct Panic {
    words: String,
    time: usize,
    times: AtomicUsize,
}

struct Panics(Vec<Panic>);

impl<S: tracing::Subscriber> Layer<S> for Panics {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let said = self.0.iter().filter(|panic| message.0.contains(&panic.words));
        let due =
            said.filter(|panic| panic.times.fetch_add(1, Ordering::Relaxed) + 1 == panic.time);
        assert!(due.count() == 0, "a mistake that a test makes");
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// elbows as its binary starts it, that panics when it says such words for the so many-th time, for 0 never.
pub(crate) fn command(panics: &[(usize, &str)]) -> Command {
    let mut own = Command::new(env::current_exe().unwrap());
    own.args(["--exact", "mistakes::program", "--nocapture", "--test-threads=1"]);
    let panics: Vec<_> = panics.iter().map(|(time, words)| format!("{time} {words}")).collect();
    own.env_clear().env(PANICS, panics.join("\n"));
    own
}

/// Not a test but elbows.
#[test]
fn program() {
    let Ok(panics) = env::var(PANICS) else { return };
    let panics = panics.lines().map(|line| {
        let (time, words) = line.split_once(' ').unwrap();
        let (words, time) = (words.to_owned(), time.parse().unwrap());
        Panic { words, time, times: AtomicUsize::new(0) }
    });
    tracing_subscriber::registry()
        .with(lines::layer().with_writer(io::stderr).with_ansi(false))
        .with(Panics(panics.collect()))
        .init();
    elbows::panics::install();
    let config = Config::from_settings(&Cli::parse_from(["elbows"]).settings).unwrap();
    let activation = Activation::from_environment(&config).unwrap();
    let notify = Notify::from_environment().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut orders = runtime.block_on(async { orders() });
    let start = runtime.block_on(Start::new(&config, activation, &mut orders)).unwrap();
    let (access_log, _writer) = AccessLog::start(&config, Patient(io::stdout())).unwrap();
    let routing = Routing::default();
    let ended = runtime.block_on(control::run(config, &routing, start, access_log, orders, notify));
    runtime.shutdown_background();
    if let Err(error) = ended {
        eprintln!("elbows: {error}");
        exit(1);
    }
}

/// As the binary has them of signals.
fn orders() -> mpsc::Receiver<Order> {
    let (sender, orders) = mpsc::channel(1);
    let signals =
        [(SignalKind::terminate(), Order::Stop), (SignalKind::user_defined1(), Order::Report)];
    for (kind, order) in signals {
        let (mut signals, sender) = (signal(kind).unwrap(), sender.clone());
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                sender.send(order).await.unwrap();
            }
        });
    }
    orders
}

/// elbows that makes such mistakes, with an admin port.
pub(crate) fn start(
    upstream: SocketAddr,
    panics: &[(usize, &str)],
    settings: &[(&str, &str)],
) -> Admin {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let port = address.port().to_string();
    let own = [("ADMIN_LISTEN_ON", &*port), ("ADMIN_TOKEN", TOKEN), ("THREADS", "1")];
    let (command, serves_at) =
        Elbows::prepare(command(panics), upstream, &[&own, settings].concat());
    let elbows = Elbows::spawn(command, serves_at);
    wait_until("the admin port listens", || TcpStream::connect(address).is_ok());
    Admin { elbows, address }
}

/// So many mistakes are told wherever numbers are told.
fn tells(admin: &Admin, mistakes: u64) {
    let told = || admin.elbows.log.all().iter().filter(|line| line.contains(TOLD)).count() as u64;
    wait_until("it is in the log", || told() >= mistakes);
    assert_eq!(told(), mistakes);
    for form in ["openmetrics", "prometheus"] {
        assert_eq!(scrape(admin, form).number("elbows_panics_total"), mistakes);
    }
    assert_eq!(number(&admin.get("/api/summary"), "panics"), mistakes);
    admin.elbows.wait_for_report(&format!("panics={mistakes}"));
}

const TOLD: &str = "a mistake of elbows, please report it: panic in thread";

/// This came, and the other side has closed or reset.
fn ends(mut client: Client) -> Vec<u8> {
    client.read_to_end().unwrap_or_default()
}

fn sends_a_bad_header(admin: &Admin) {
    let mut client = Client::plain(admin.elbows.address);
    client.send("PROXY nonsense\r\n");
    assert_eq!(ends(client), b"");
}

#[test]
fn each_mistake_is_counted_wherever_it_happens_and_nobody_else_is_disturbed() {
    let application = Tunnels::start();
    let health = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let admin = start(
        application.address,
        &[
            (1, BAD_HEADER),
            (1, "the upstream's response breaks a rule"),
            (1, "refused: "),
            (1, "closing a tunnel, as the admin port was told"),
            (3, BAD_HEADER),
        ],
        &[("HEALTH_LISTEN_ON", &health.to_string()), ("DRAIN_DELAY", "1h")],
    );
    let _to_be_closed = application.open(&admin.elbows);
    let id = text(&admin.only_tunnel(), "id").to_owned();
    let mut tunnel = application.open(&admin.elbows);
    let mut mistakes = 0;
    let mut tried = |mistake: &dyn Fn()| {
        tells(&admin, mistakes);
        mistake();
        mistakes += 1;
        tells(&admin, mistakes);
        talk(&mut tunnel, "goes on");
    };
    let ask = |place: SocketAddr, head: String| {
        let mut client = Client::plain(place);
        client.send(head);
        assert_eq!(ends(client), b"");
    };

    // A request, on a worker.
    tried(&|| sends_a_bad_header(&admin));
    // A handshake whose answer breaks a rule.
    tried(&|| {
        let mut client = Client::behind_balancer(admin.elbows.address);
        client.send(handshake("/ws"));
        application.asked().answer("nonsense\r\n\r\n");
        assert_eq!(ends(client), b"");
    });
    // The health port, and the admin port.
    tried(&|| ask(health, "GET\r\n\r\n".to_owned()));
    let close = format!(
        "POST /api/tunnels/{id}/close HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n",
        admin.address
    );
    tried(&|| ask(admin.address, close.clone()));
    // During a drain. Before it, the same is no mistake.
    sends_a_bad_header(&admin);
    admin.elbows.drain();
    tried(&|| sends_a_bad_header(&admin));
}

/// The name of the application is asked for at the start, and for a request.
#[test]
fn mistakes_are_counted_while_the_resolver_is_asked() {
    const WORDS: &str = "requests get 502 until it does";
    let admin = start(
        Upstream::nobody(),
        &[(1, WORDS), (2, WORDS)],
        &[("DESTINATION_HOSTNAME", "nobody.invalid")],
    );
    wait_until("the first one is told", || admin.elbows.log.all().join("").contains(TOLD));
    tells(&admin, 1);
    let status = Client::behind_balancer(admin.elbows.address).get("/").status;
    assert!([502, 504].contains(&status), "{status}");
    tells(&admin, 2);
}

/// Neither process has given anything yet: the old one serves on, and what it counted comes along with the next one.
#[test]
fn mistakes_are_counted_in_a_handoff_and_over_handoffs() {
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let port = free_port().to_string();
    let settings = [("ADMIN_LISTEN_ON", &*port), ("THREADS", "1")];
    let mut old =
        Elbows::spawn(place.command_of(command(&[(1, "Prepared")]), &settings), place.address);
    let mut tunnel = application.open(&old);
    let mut refused = Elbows::spawn_unready(place.command(&settings), place.address);
    old.log.wait_for(TOLD);
    assert_eq!(refused.wait().code(), Some(1));
    old.wait_for_report("panics=1");
    talk(&mut tunnel, "goes on");

    let new = place.take_over(&settings);
    assert_eq!(old.wait().code(), Some(0));
    new.wait_for_report("panics=1");
    talk(&mut tunnel, "goes on there");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().unwrap()));
    let admin = Admin { elbows: new, address };
    // A scrape tells what happened in its process.
    wait_until("the new one has the admin port", || {
        number(&admin.get("/api/summary"), "pid")
            == u64::try_from(admin.elbows.pid().as_raw_nonzero().get()).unwrap()
    });
    assert_eq!(scrape(&admin, "openmetrics").number("elbows_panics_total"), 0);
}
