//! Why a request got no response.

use std::io;
use std::net::SocketAddr;

use crate::http::head;
use crate::upstream::Fault;

/// Why a request got no response.
#[derive(Debug)]
pub(crate) enum SendError {
    /// There was no connection to send it on.
    Connect(Fault),
    /// It was sent, or begun.
    Sent {
        error: hyper::Error,
        endpoint: SocketAddr,
        /// The connection had answered before.
        used: bool,
    },
}

impl SendError {
    /// The fault of the connection, if there was none to send on.
    pub(crate) const fn connect_fault(&self) -> Option<&Fault> {
        match self {
            Self::Connect(fault) => Some(fault),
            Self::Sent { .. } => None,
        }
    }

    /// The address that it was sent to, or that was tried.
    pub(crate) const fn endpoint(&self) -> Option<SocketAddr> {
        match self {
            Self::Connect(fault) => fault.address(),
            Self::Sent { endpoint, .. } => Some(*endpoint),
        }
    }

    /// The connection had answered before, and closed without a byte of answer to this request: the
    /// upstream let go of it at the moment in which the request was sent. A request that is safe to
    /// repeat (RFC 9110, section 9.2.2) may be.
    pub(crate) fn is_stale_connection(&self) -> bool {
        let used = matches!(self, Self::Sent { used: true, .. });
        used && self.sources().any(|source| {
            source.downcast_ref::<hyper::Error>().is_some_and(|error| {
                error.is_incomplete_message() || error.is_canceled() || error.is_closed()
            }) || source.downcast_ref::<io::Error>().is_some_and(|error| {
                matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
            })
        })
    }

    /// The client's body broke off, and the request with it.
    pub(crate) fn is_client_body(&self) -> bool {
        self.sources()
            .any(|source| source.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_user))
    }

    /// The rule that the client's body breaks, if that is why it broke off.
    pub(crate) fn client_fault(&self) -> Option<head::Fault> {
        let error = self.sources().find_map(|source| source.downcast_ref::<io::Error>())?;
        error.get_ref()?.downcast_ref().copied()
    }

    /// The upstream took none of the request for too long.
    pub(crate) fn is_stalled(&self) -> bool {
        self.sources().any(|source| {
            source
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
        })
    }

    /// The response was there and was no HTTP.
    pub(crate) fn is_malformed_response(&self) -> bool {
        self.sources()
            .any(|source| source.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse))
    }

    fn sources(&self) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
        let first: &(dyn std::error::Error + 'static) = match self {
            Self::Connect(fault) => fault,
            Self::Sent { error, .. } => error,
        };
        std::iter::successors(Some(first), |error| error.source())
    }
}

impl From<Fault> for SendError {
    fn from(fault: Fault) -> Self {
        Self::Connect(fault)
    }
}

impl std::fmt::Display for SendError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        for source in self.sources() {
            write!(out, "{separator}{source}")?;
            separator = ": ";
        }
        Ok(())
    }
}
