//! What a process listens on: bound at its start, or taken over from the process before it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::activation::Activation;
use crate::config::{AdminListenOn, Config, ListenOn};
use crate::handoff::message::{Place, Places};
use crate::handoff::socket;
use crate::listener;

/// The names of the settings, which is what a successor knows a listener by.
pub(super) const MAIN: &str = "LISTEN_ON";
pub(super) const HEALTH: &str = "HEALTH_LISTEN_ON";
pub(super) const ADMIN: &str = "ADMIN_LISTEN_ON";
const HANDOFF: &str = "HANDOFF_SOCKET";

/// How long a process that was killed may take to close its listeners, and how often that is looked at.
const DYING: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(20);

/// The listeners of a process.
#[derive(Debug)]
pub struct Listeners {
    /// Where load balancers connect.
    pub main: TcpListener,
    /// For health checks alone.
    pub health: Option<TcpListener>,
    /// Where metrics are scraped, and tunnels listed.
    pub admin: Option<AdminListener>,
    /// Where a successor connects.
    pub handoff: Option<OwnedFd>,
}

/// The listener of the admin port.
#[derive(Debug)]
pub enum AdminListener {
    /// At a port.
    Tcp(TcpListener),
    /// At a path.
    Unix(UnixListener),
}

impl AdminListener {
    fn bind(listen_on: &AdminListenOn) -> Result<Self, BindError> {
        match listen_on {
            AdminListenOn::Tcp(address) => {
                let at = ListenOn { address: Some(address.ip()), port: address.port() };
                bind(ADMIN, &at).map(Self::Tcp)
            }
            AdminListenOn::Unix(path) => match socket::bind_stream(path) {
                Ok(socket) => Ok(Self::Unix(socket.into())),
                Err(source) => Err(BindError::Path { variable: ADMIN, source }),
            },
        }
    }

    /// The same listener once more.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Unix(listener) => Self::Unix(listener.try_clone()?),
        })
    }

    /// What came from another process, if it is where the setting says.
    fn received(descriptor: OwnedFd, listen_on: &AdminListenOn) -> Option<Self> {
        match listen_on {
            AdminListenOn::Tcp(address) => {
                let listener = TcpListener::from(descriptor);
                (listener.local_addr().ok()? == *address).then_some(Self::Tcp(listener))
            }
            AdminListenOn::Unix(path) => {
                let listener = UnixListener::from(descriptor);
                let address = listener.local_addr().ok()?;
                (address.as_pathname() == Some(path)).then_some(Self::Unix(listener))
            }
        }
    }

    fn path(&self) -> Option<String> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(listener) => {
                let address = listener.local_addr().ok()?;
                Some(address.as_pathname()?.to_str()?.to_owned())
            }
        }
    }

    fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

impl AsFd for AdminListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// Those that a successor brings along: it was passed them, or binds them, since its predecessor does not have them.
#[derive(Debug, Default)]
pub(super) struct Added {
    main: Option<TcpListener>,
    health: Option<TcpListener>,
    admin: Option<AdminListener>,
}

/// A listener could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// What the kernel said.
    #[error("{variable}={value}: cannot listen there: {source}")]
    Refused {
        /// The setting.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A UNIX socket.
    #[error("{variable}: {source}")]
    Path {
        /// The setting.
        variable: &'static str,
        /// What is wrong with the path.
        source: socket::BindError,
    },
}

impl Listeners {
    /// Binds what the settings name and was not passed.
    ///
    /// # Errors
    /// The variable, its value and what the kernel said.
    pub fn bind(config: &Config, activation: Activation) -> Result<Self, BindError> {
        Self::complete(config, Added::from(activation), None)
    }

    /// Binds what the settings name and neither of the two has.
    fn complete(config: &Config, has: Added, handoff: Option<OwnedFd>) -> Result<Self, BindError> {
        let Added { main, health, admin } = has;
        Ok(Self {
            main: match main {
                Some(main) => main,
                None => bind(MAIN, &config.listen_on)?,
            },
            health: match (&config.health_listen_on, health) {
                (Some(listen_on), None) => Some(bind(HEALTH, listen_on)?),
                (_, health) => health,
            },
            admin: match (&config.admin_listen_on, admin) {
                (Some(listen_on), None) => Some(AdminListener::bind(listen_on)?),
                (_, admin) => admin,
            },
            handoff: match (&config.handoff_socket, handoff) {
                (Some(path), None) => Some(
                    socket::bind(path)
                        .map_err(|source| BindError::Path { variable: HANDOFF, source })?,
                ),
                (_, handoff) => handoff,
            },
        })
    }

    /// Binds what the settings name and `added` has not, where the process before has been killed: its listeners may be
    /// there for a moment longer than its connection to this one.
    ///
    /// # Errors
    /// The variable, its value and what the kernel said, where it says so all the time.
    pub(super) async fn bind_after_death(config: &Config, added: Added) -> Result<Self, BindError> {
        let deadline = Instant::now() + DYING;
        loop {
            match Self::complete(config, added.copy(), None) {
                Err(_) if Instant::now() < deadline => sleep(AGAIN).await,
                result => return result,
            }
        }
    }

    /// Where they are, and the descriptors in the same order.
    pub(super) fn places(&self) -> (Places, Vec<BorrowedFd<'_>>) {
        let mut places = Vec::new();
        let mut descriptors = Vec::new();
        let mut add = |setting: &str, address, path, descriptor| {
            places.push(Place { setting: setting.to_owned(), address, path });
            descriptors.push(descriptor);
        };
        add(MAIN, self.main.local_addr().ok(), None, self.main.as_fd());
        if let Some(health) = &self.health {
            add(HEALTH, health.local_addr().ok(), None, health.as_fd());
        }
        if let Some(admin) = &self.admin {
            add(ADMIN, admin.tcp_address(), admin.path(), admin.as_fd());
        }
        if let Some(handoff) = &self.handoff {
            add(HANDOFF, None, None, handoff.as_fd());
        }
        (Places(places), descriptors)
    }
}

impl From<Activation> for Added {
    fn from(activation: Activation) -> Self {
        let Activation { main, health, admin } = activation;
        for (setting, passed) in [(MAIN, &main), (HEALTH, &health), (ADMIN, &admin)] {
            if let Some(Ok(address)) = passed.as_ref().map(TcpListener::local_addr) {
                tracing::info!("{setting}: the listener at {address} was passed (LISTEN_FDS)");
            }
        }
        Self { main, health, admin: admin.map(AdminListener::Tcp) }
    }
}

impl Added {
    /// The same listeners once more.
    fn copy(&self) -> Self {
        let copy = |listener: &Option<TcpListener>| listener.as_ref()?.try_clone().ok();
        let admin = self.admin.as_ref().and_then(|admin| admin.try_clone().ok());
        Self { main: copy(&self.main), health: copy(&self.health), admin }
    }

    /// Binds what the settings name, was not passed and is not one of `places`. Where a listener was passed and the
    /// predecessor has it, too, both are one.
    ///
    /// # Errors
    /// The variable, its value and what the kernel said.
    pub(super) fn bind(
        config: &Config,
        places: &Places,
        activation: Activation,
    ) -> Result<Self, BindError> {
        let has = |setting, listen_on: &ListenOn| {
            let is_it =
                |place: &&Place| place.setting == setting && is_at(place.address, listen_on);
            places.0.iter().find(is_it).is_some()
        };
        let new = |setting, listen_on: Option<&ListenOn>, passed: Option<_>| match listen_on {
            _ if passed.is_some() => Ok(passed),
            Some(listen_on) if !has(setting, listen_on) => {
                let listener = bind(setting, listen_on)?;
                tracing::info!("{setting}={listen_on}: listening there, too, from the handoff on");
                Ok(Some(listener))
            }
            _ => Ok(None),
        };
        let Self { main, health, admin } = activation.into();
        let admin = match &config.admin_listen_on {
            Some(listen_on) if admin.is_none() && !has_admin(places, listen_on) => {
                let listener = AdminListener::bind(listen_on)?;
                tracing::info!("{ADMIN}={listen_on}: listening there, too, from the handoff on");
                Some(listener)
            }
            _ => admin,
        };
        Ok(Self {
            admin,
            main: new(MAIN, Some(&config.listen_on), main)?,
            health: new(HEALTH, config.health_listen_on.as_ref(), health)?,
        })
    }

    /// All listeners: these, those of the predecessor that the settings name, and, where those did not come, new ones.
    ///
    /// # Errors
    /// The variable, its value and what the kernel said.
    pub(super) fn complete(
        mut self,
        config: &Config,
        places: &Places,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Listeners, BindError> {
        let mut handoff = None;
        for (place, descriptor) in places.0.iter().zip(descriptors) {
            let is_at = |listen_on| is_at(place.address, listen_on);
            match place.setting.as_str() {
                MAIN if is_at(&config.listen_on) => self.main = Some(descriptor.into()),
                HEALTH if config.health_listen_on.as_ref().is_some_and(is_at) => {
                    self.health = Some(descriptor.into());
                }
                ADMIN if config.admin_listen_on.is_some() => {
                    let listen_on = config.admin_listen_on.as_ref();
                    let received = listen_on.and_then(|at| AdminListener::received(descriptor, at));
                    if received.is_none() {
                        place.tell_closed();
                    }
                    self.admin = received.or(self.admin);
                }
                HANDOFF => handoff = Some(descriptor),
                _ => place.tell_closed(),
            }
        }
        Listeners::complete(config, self, handoff)
    }
}

impl Place {
    /// It came from the predecessor, and is nothing to this process.
    fn tell_closed(&self) {
        let Self { setting, address, path } = self;
        let at = address.map(|address| address.to_string());
        let at = at.or_else(|| path.clone()).unwrap_or_default();
        tracing::info!("{setting}={at}: no longer a setting, and closed");
    }
}

/// Whether one of these is the admin port's. Where a path is not told, what comes is looked at.
fn has_admin(places: &Places, listen_on: &AdminListenOn) -> bool {
    let is_it = |place: &Place| match listen_on {
        AdminListenOn::Tcp(address) => place.address == Some(*address),
        AdminListenOn::Unix(path) => {
            place.address.is_none()
                && place.path.as_ref().is_none_or(|its| Path::new(its) == path.as_path())
        }
    };
    places.0.iter().any(|place| place.setting == ADMIN && is_it(place))
}

fn bind(variable: &'static str, listen_on: &ListenOn) -> Result<TcpListener, BindError> {
    listener::bind(listen_on).map_err(|source| BindError::Refused {
        variable,
        value: listen_on.to_string(),
        source,
    })
}

/// Whether a listener is where the setting says. One for every address may be of IPv4 alone, where the machine has no
/// IPv6.
pub(super) fn is_at(address: Option<SocketAddr>, listen_on: &ListenOn) -> bool {
    address.is_some_and(|address| {
        let is_it = match listen_on.address {
            Some(ip) => address.ip() == ip,
            None => address.ip().is_unspecified(),
        };
        is_it && address.port() == listen_on.port
    })
}
