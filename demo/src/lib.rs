//! `elbows demo`: the whole path in one process, so that a stranger sees it work with one command.
//!
//! A browser reaches a stand-in for the load balancer, which prepends PROXY headers; elbows is
//! behind it, and an application with a WebSocket echo and a price ticker behind that. All three
//! are joined by real sockets on the loopback interface: what is shown is what runs elsewhere.
//!
//! This crate knows nothing of elbows. elbows comes in as a function that runs it in front of an address (the
//! binary's is `src/demo.rs`), so that the parts here are tested without it and none of them is in its library.

pub mod application;
pub mod balancer;
pub mod check;

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Where the browser connects, unless told otherwise.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// How long elbows may take to end after the application has ended. A guess: the application has
/// ended each WebSocket by then, so that only idle connections are left.
const FRONT_GRACE: Duration = Duration::from_secs(3);

/// Shows the whole path in one process: a stand-in load balancer, elbows and an application.
// The sentence is what `elbows demo --help` begins with.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Options {
    /// Where the browser connects [default: 127.0.0.1:8080, or a free port if that one is taken]
    #[arg(long, value_name = "[ADDR:]PORT")]
    pub listen: Option<Place>,
    /// Make one round trip without a browser, say what was checked, and exit
    #[arg(long, conflicts_with_all = ["listen", "app_on"])]
    pub check: bool,
    /// Run only the application; a port alone means on all addresses
    #[arg(long, value_name = "[ADDR:]PORT", conflicts_with = "listen")]
    pub app_on: Option<Place>,
}

/// `[ADDR:]PORT` as it was given. An IPv6 address stands in brackets: `[::1]:8080`. Port 0 means
/// any free port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The address, if one was given.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

/// Why the demo did not start, or ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The address that was asked for cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", hint(.source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The handlers for Ctrl-C and SIGTERM cannot be set.
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    /// elbows ended with an error.
    #[error("elbows ended: {0}")]
    Front(io::Error),
    /// elbows ended although nobody told it to.
    #[error("elbows ended before it was told to")]
    FrontEnded,
    /// `--check` found a fault.
    #[error("check failed: {0}")]
    Check(#[from] check::Fault),
}

/// Runs `elbows demo` until SIGINT or SIGTERM, or with `--check` until the check is done.
///
/// `front` is elbows: it does what [`Front`] says, and returns after [`Stop::asked`]. If it takes
/// longer than 3 s from then, it is dropped. A second signal ends everything at once.
pub async fn run<F, R>(options: Options, front: F) -> Result<(), Fault>
where
    F: FnOnce(Front, Stop) -> R,
    R: Future<Output = io::Result<()>>,
{
    if options.check {
        return Ok(check::run(front).await?);
    }
    let mut signals = Signals::new().map_err(Fault::Signals)?;
    let (ask, stop) = Stop::channel();
    let orders = async {
        signals.next().await;
        drop(ask);
        signals.next().await;
    };
    if let Some(place) = options.app_on {
        let listener = listen_anywhere(place).await?;
        say_application(&listener);
        tokio::select! {
            () = application::serve(listener, None, stop) => {}
            () = orders => {}
        }
        return Ok(());
    }
    let stage = Stage::open(options.listen).await?;
    stage.say();
    tokio::select! {
        ended = stage.run(front, stop) => ended,
        () = orders => Ok(()),
    }
}

/// What elbows has to do. Both listeners are bound, and non-blocking.
#[derive(Debug)]
pub struct Front {
    /// Where requests come.
    pub listener: std::net::TcpListener,
    /// Where they go.
    pub application: SocketAddr,
    /// Where its own page is served, to this machine alone.
    pub admin: std::net::TcpListener,
    /// What whoever closes a tunnel on that page has to know.
    pub token: String,
}

/// The demo with its four listeners bound, and nothing running yet. Whoever connects from now on
/// is served once [`Stage::run`] is polled.
#[derive(Debug)]
pub struct Stage {
    balancer: TcpListener,
    front: Front,
    application: TcpListener,
    scene: Scene,
    moved_from: Option<SocketAddr>,
}

/// Who is where. The application tells the page, so that the page can draw the path.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Scene {
    /// Where the stand-in for the load balancer listens: the address to open.
    pub balancer: SocketAddr,
    /// Where elbows listens.
    pub elbows: SocketAddr,
    /// Where elbows shows what it sees.
    pub admin: SocketAddr,
    /// The client address that the stand-in writes into its PROXY headers.
    pub pretended: IpAddr,
}

impl Stage {
    /// Binds all four. Without `listen`, it is 127.0.0.1:8080, or a free port if that one is
    /// taken; a `listen` that is taken is a fault.
    pub async fn open(listen: Option<Place>) -> Result<Self, Fault> {
        let (balancer, moved_from) = match listen {
            Some(place) => (bind(place.or(LISTEN.ip())).await?, None),
            None => match bind(LISTEN).await {
                Ok(listener) => (listener, None),
                Err(Fault::Listen { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => {
                    (bind(free_port()).await?, Some(LISTEN))
                }
                Err(fault) => return Err(fault),
            },
        };
        let application = bind(free_port()).await?;
        let elbows = bind(free_port()).await?;
        let admin = bind(free_port()).await?;
        let scene = Scene {
            balancer: address_of(&balancer)?,
            elbows: address_of(&elbows)?,
            admin: address_of(&admin)?,
            pretended: balancer::pretended_client(address_of(&balancer)?.ip()),
        };
        let of_std = |listener: TcpListener, address| {
            listener.into_std().map_err(|source| Fault::Listen { address, source })
        };
        let front = Front {
            listener: of_std(elbows, scene.elbows)?,
            application: address_of(&application)?,
            admin: of_std(admin, scene.admin)?,
            token: random_token(),
        };
        Ok(Self { balancer, front, application, scene, moved_from })
    }

    /// Who is where.
    #[must_use]
    pub const fn scene(&self) -> Scene {
        self.scene
    }

    /// Runs all of it until told to stop, then ends them from the inside out: the application says
    /// goodbye on each WebSocket while elbows and the stand-in still carry its words.
    pub async fn run<F, R>(self, front: F, stop: Stop) -> Result<(), Fault>
    where
        F: FnOnce(Front, Stop) -> R,
        R: Future<Output = io::Result<()>>,
    {
        let (end_front, front_stop) = Stop::channel();
        let (end_balancer, balancer_stop) = Stop::channel();
        let application = async {
            application::serve(self.application, Some(self.scene), stop).await;
            drop(end_front);
            Ok(())
        };
        let elbows = async {
            let serving = front(self.front, front_stop.clone());
            let ended = tokio::select! {
                ended = serving => ended.map_err(Fault::Front),
                () = front_stop.clone().passed(FRONT_GRACE) => Ok(()),
            };
            if ended.is_ok() && !front_stop.is_asked() {
                return Err(Fault::FrontEnded);
            }
            drop(end_balancer);
            ended
        };
        let balancer = async {
            let (to, client) = (self.scene.elbows, self.scene.pretended);
            balancer::serve(self.balancer, to, client, balancer_stop).await;
            Ok(())
        };
        tokio::try_join!(application, elbows, balancer).map(|_| ())
    }

    fn say(&self) {
        let scene = &self.scene;
        let taken = self.moved_from.map_or_else(String::new, |address| {
            format!("  {address} is taken, so a free port was chosen.\n")
        });
        say(&format!(
            "elbows demo\n{taken}\
             \x20 open         http://{}/\n\
             \x20 live page    http://{}/ (what elbows sees)\n\
             \x20 its token    {} (to close a tunnel there)\n\
             \x20 balancer     {}  (stand-in; prepends a PROXY {} header)\n\
             \x20 elbows       {}\n\
             \x20 application  {}\n\
             The stand-in pretends that the browser is {}, so that you can tell the address\n\
             in the PROXY header from the socket's. Ctrl-C ends it.\n",
            openable(scene.balancer),
            scene.admin,
            self.front.token,
            scene.balancer,
            balancer::PROXY_VERSION,
            scene.elbows,
            self.front.application,
            scene.pretended,
        ));
    }
}

/// A word that can be waited for: end now. It is said by dropping the other end.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<()>);

/// The other end of a [`Stop`]. Dropping it says the word.
#[derive(Debug)]
pub struct Ask(#[expect(dead_code, reason = "it is only ever dropped")] watch::Sender<()>);

impl Stop {
    /// Both ends.
    #[must_use]
    pub fn channel() -> (Ask, Self) {
        let (ask, stop) = watch::channel(());
        (Ask(ask), Self(stop))
    }

    /// Waits for the word; at once if it has been said. May be dropped and called again.
    pub async fn asked(&mut self) {
        while self.0.changed().await.is_ok() {}
    }

    /// Whether the word has been said.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.has_changed().is_err()
    }

    /// Waits for the word and then for `grace`.
    async fn passed(mut self, grace: Duration) {
        self.asked().await;
        // The time that those who are still served have.
        tokio::time::sleep(grace).await;
    }
}

impl Place {
    /// The address to bind, with `address` where none was given.
    fn or(self, address: IpAddr) -> SocketAddr {
        SocketAddr::new(self.address.unwrap_or(address), self.port)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        if let Ok(port) = given.parse() {
            return Ok(Self { address: None, port });
        }
        given
            .parse::<SocketAddr>()
            .map(|address| Self { address: Some(address.ip()), port: address.port() })
            .map_err(|_| {
                "not a port, address:port or [address]:port, such as 8080, 127.0.0.1:8080 or \
                 [::1]:8080"
                    .to_owned()
            })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => SocketAddr::new(address, self.port).fmt(out),
            None => self.port.fmt(out),
        }
    }
}

/// SIGINT and SIGTERM. Both, since as process 1 of a container nothing else would end us.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Binds `place`; a port alone means every address of both families, or of IPv4 on a machine
/// without IPv6.
async fn listen_anywhere(place: Place) -> Result<TcpListener, Fault> {
    match bind(place.or(Ipv6Addr::UNSPECIFIED.into())).await {
        Err(Fault::Listen { source, .. })
            if place.address.is_none() && source.kind() != io::ErrorKind::AddrInUse =>
        {
            bind(place.or(Ipv4Addr::UNSPECIFIED.into())).await
        }
        other => other,
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Fault> {
    TcpListener::bind(address).await.map_err(|source| Fault::Listen { address, source })
}

fn address_of(listener: &TcpListener) -> Result<SocketAddr, Fault> {
    listener.local_addr().map_err(|source| Fault::Listen { address: free_port(), source })
}

const fn free_port() -> SocketAddr {
    SocketAddr::new(LISTEN.ip(), 0)
}

/// `address` as a browser on this machine reaches it: an unspecified address is none to open.
fn openable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// A token of this run, which nobody else on the machine can guess.
fn random_token() -> String {
    let number = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", number(), number())
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "; choose another port",
        io::ErrorKind::PermissionDenied => "; ports below 1024 may need a privilege",
        _ => "",
    }
}

fn say_application(listener: &TcpListener) {
    if let Ok(address) = listener.local_addr() {
        say(&format!("elbows demo: the application is on {address}\n"));
    }
}

/// Prints to standard output. One that is closed is no reason to end.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn place_is_a_port_or_an_address_with_one() {
        let place = |given: &str| given.parse::<Place>().map(|place| place.to_string());
        for given in ["8080", "0", "127.0.0.1:8080", "[::1]:8080", "0.0.0.0:1"] {
            assert_eq!(place(given), Ok(given.to_owned()));
        }
        for given in ["", "70000", "8080x", "-1", "::1:8080x", "localhost:80", "127.0.0.1"] {
            assert!(place(given).is_err(), "{given}");
        }
    }

    #[test]
    fn address_to_open_is_never_unspecified() {
        assert_eq!(openable("0.0.0.0:1".parse().unwrap()).to_string(), "127.0.0.1:1");
        assert_eq!(openable("[::]:1".parse().unwrap()).to_string(), "[::1]:1");
        assert_eq!(openable("10.0.0.1:1".parse().unwrap()).to_string(), "10.0.0.1:1");
    }

    #[tokio::test]
    async fn explicit_place_that_is_taken_is_a_fault() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let place = address.to_string().parse().unwrap();
        let Err(fault) = Stage::open(Some(place)).await else {
            panic!("bound {address} twice");
        };
        let sentence = fault.to_string();
        assert!(sentence.contains(&address.to_string()), "{sentence}");
        assert!(sentence.ends_with("choose another port"), "{sentence}");
    }

    #[tokio::test]
    async fn default_place_that_is_taken_gives_way_to_a_free_port() {
        // Somebody else may hold the port already; then the first gives way, too.
        let first = Stage::open(None).await.unwrap();
        let second = Stage::open(None).await.unwrap();
        assert_eq!(second.moved_from, Some(LISTEN));
        assert_ne!(second.scene().balancer.port(), LISTEN.port());
        assert_ne!(second.scene().balancer, first.scene().balancer);
    }

    #[tokio::test]
    async fn stop_is_heard_by_every_clone_and_stays_said() {
        let (ask, mut stop) = Stop::channel();
        let mut other = stop.clone();
        assert!(!stop.is_asked());
        drop(ask);
        stop.asked().await;
        other.asked().await;
        assert!(other.is_asked());
        stop.asked().await;
    }
}
