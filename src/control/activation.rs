//! Socket activation: whoever starts the process has bound its listeners already, and passes them on (`LISTEN_FDS` and
//! `LISTEN_PID`, `sd_listen_fds(3)`).
//!
//! So a port is never closed, not even after a crash, and one under 1024 needs no capability. A listener is told by its
//! address: it has to be where `LISTEN_ON`, `HEALTH_LISTEN_ON` or `ADMIN_LISTEN_ON` says.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use rustix::net::sockopt;

use super::listeners::{ADMIN, HEALTH, MAIN, is_at};
use crate::config::{AdminListenOn, Config};

/// The listeners that were passed, by the setting that each is for.
#[derive(Debug, Default)]
pub struct Activation {
    /// The one at `LISTEN_ON`.
    pub(super) main: Option<TcpListener>,
    /// The one at `HEALTH_LISTEN_ON`.
    pub(super) health: Option<TcpListener>,
    /// The one at `ADMIN_LISTEN_ON`.
    pub(super) admin: Option<TcpListener>,
}

/// Something was passed that this process cannot listen with.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// A descriptor of another kind.
    #[error("LISTEN_FDS: socket {number} of those that were passed is no TCP listener: {source}")]
    NoListener {
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        source: io::Error,
    },
    /// A listener that nobody asked for: its connections would wait for ever.
    #[error(
        "LISTEN_FDS: a listener at {address} was passed, and none of {MAIN}, {HEALTH} and {ADMIN} is there"
    )]
    NoSetting {
        /// Where it listens.
        address: SocketAddr,
    },
    /// The same: a setting has one listener.
    #[error("LISTEN_FDS: two listeners were passed for {variable}, the second at {address}")]
    Second {
        /// The setting.
        variable: &'static str,
        /// Where the second one listens.
        address: SocketAddr,
    },
}

impl Activation {
    /// Takes what was passed to this process, and removes the variables that say so. It is called before the first
    /// thread, since the environment is every thread's.
    ///
    /// # Errors
    /// Something was passed that is no TCP listener, or is not where a setting says.
    pub fn from_environment(config: &Config) -> Result<Self, ActivationError> {
        let mut descriptors = ListenFd::from_env();
        let mut passed = Vec::new();
        for index in 0..descriptors.len() {
            let number = index + 1;
            let listener = descriptors
                .take_tcp_listener(index)
                .and_then(|listener| listener.map(fit).transpose());
            match listener {
                Ok(listener) => passed.extend(listener),
                Err(source) => return Err(ActivationError::NoListener { number, source }),
            }
        }
        Self::of(config, passed)
    }

    /// Gives each listener to the setting that names its address.
    fn of(
        config: &Config,
        passed: Vec<(TcpListener, SocketAddr)>,
    ) -> Result<Self, ActivationError> {
        let mut activation = Self::default();
        for (listener, address) in passed {
            let is_there = |listen_on| is_at(Some(address), listen_on);
            let (variable, place) = if is_there(&config.listen_on) {
                (MAIN, &mut activation.main)
            } else if config.health_listen_on.as_ref().is_some_and(is_there) {
                (HEALTH, &mut activation.health)
            } else if config.admin_listen_on == Some(AdminListenOn::Tcp(address)) {
                (ADMIN, &mut activation.admin)
            } else {
                return Err(ActivationError::NoSetting { address });
            };
            if place.replace(listener).is_some() {
                return Err(ActivationError::Second { variable, address });
            }
        }
        Ok(activation)
    }
}

/// A listener as this process needs it, and its address. An error: it does not listen, as a connection does not that was
/// accepted already (`Accept=yes`).
fn fit(listener: TcpListener) -> io::Result<(TcpListener, SocketAddr)> {
    if !sockopt::socket_acceptconn(&listener)? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen"));
    }
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::config::ListenOn;

    fn listener(address: impl Into<SocketAddr>) -> (TcpListener, SocketAddr) {
        fit(TcpListener::bind(address.into()).unwrap()).unwrap()
    }

    fn local() -> (TcpListener, SocketAddr) {
        listener((Ipv4Addr::LOCALHOST, 0))
    }

    fn settings(main: SocketAddr, health: Option<SocketAddr>) -> Config {
        let mut config = Config::for_destination(main, "app", 45490);
        config.health_listen_on =
            health.map(|at| ListenOn { address: Some(at.ip()), port: at.port() });
        config
    }

    fn at(listener: Option<&TcpListener>) -> Option<SocketAddr> {
        listener.map(|listener| listener.local_addr().unwrap())
    }

    #[test]
    fn each_listener_is_for_the_setting_that_names_its_address() {
        let (main, health) = (local(), local());
        let (main_at, health_at) = (main.1, health.1);
        let config = settings(main_at, Some(health_at));
        let activation = Activation::of(&config, vec![health, main]).unwrap();
        assert_eq!(at(activation.main.as_ref()), Some(main_at));
        assert_eq!(at(activation.health.as_ref()), Some(health_at));

        let health = local();
        let config = settings(main_at, Some(health.1));
        let activation = Activation::of(&config, vec![health]).unwrap();
        assert_eq!(at(activation.main.as_ref()), None);
        assert!(Activation::of(&config, Vec::new()).unwrap().health.is_none());
    }

    #[test]
    fn port_alone_is_every_address_of_either_family() {
        for everywhere in [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()] {
            let everywhere: std::net::IpAddr = everywhere;
            let passed = listener((everywhere, 0));
            let mut config = settings(passed.1, None);
            config.listen_on.address = None;
            assert!(Activation::of(&config, vec![passed]).unwrap().main.is_some());
        }
        let passed = local();
        let mut config = settings(passed.1, None);
        config.listen_on.address = None;
        let address = passed.1.to_string();
        let error = Activation::of(&config, vec![passed]).unwrap_err().to_string();
        assert!(error.contains(&address) && error.contains("LISTEN_ON"), "{error}");
    }

    #[test]
    fn listener_that_no_setting_names_is_an_error_with_its_address() {
        let (main, other) = (local(), local());
        let config = settings(main.1, None);
        let address = other.1;
        let error = Activation::of(&config, vec![main, other]).unwrap_err();
        assert!(matches!(error, ActivationError::NoSetting { .. }), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[test]
    fn second_listener_of_a_setting_is_an_error() {
        let main = local();
        let copy = (main.0.try_clone().unwrap(), main.1);
        let config = settings(main.1, None);
        let error = Activation::of(&config, vec![main, copy]).unwrap_err();
        assert!(matches!(error, ActivationError::Second { variable: MAIN, .. }), "{error}");
    }

    #[test]
    fn connection_is_no_listener() {
        let (listener, address) = local();
        let connection = TcpStream::connect(address).unwrap();
        assert!(fit(listener).is_ok());
        let connection: TcpListener = OwnedFd::from(connection).into();
        assert_eq!(fit(connection).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
