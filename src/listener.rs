//! Listening sockets: how they are bound, and how connections are taken from them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;

use crate::config::ListenOn;
use crate::metrics::Counters;
use crate::socket;

/// Connections that the kernel keeps for us until they are accepted; it cuts this to its own
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;

/// How long accepting pauses when the process is out of descriptors. The kernel tells nobody when one
/// is free again, and accept(2) would fail at once over and over.
const PAUSE: Duration = Duration::from_millis(100);

/// Binds the listener of a setting: every address of both families if none is named.
///
/// # Errors
/// The kernel refused: the port is in use, or the address is not one of this machine.
pub(crate) fn bind(listen_on: &ListenOn) -> io::Result<TcpListener> {
    match bind_at(listen_on.socket_addr()) {
        Err(error) if listen_on.address.is_none() && is_no_ipv6(&error) => {
            bind_at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, listen_on.port)))
        }
        bound => bound,
    }
}

/// Whether this machine has no IPv6: compiled out (socket(2) refuses the family) or switched off
/// (bind(2) knows no such address).
fn is_no_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

fn bind_at(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Connections of a process that just ended must not keep the next one from starting.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What accept(2) says, counted and told. What goes wrong with one connection concerns that one alone, and
/// a lack of descriptors passes.
#[derive(Debug, Default)]
pub(crate) struct Accepting {
    pause_was_told: AtomicBool,
}

impl Accepting {
    /// It gave a connection.
    pub(crate) fn accepted(&self, counters: &Counters) {
        if self.pause_was_told.load(Ordering::Relaxed) {
            self.pause_was_told.store(false, Ordering::Relaxed);
            tracing::info!("accepting connections again");
        }
        counters.connections.add(1);
    }

    /// It gave none: for so long to pause.
    pub(crate) fn refused(&self, error: &io::Error, counters: &Counters) -> Option<Duration> {
        if !socket::is_no_room(error) {
            // The connection was gone before it was accepted (accept(2), "Error handling").
            tracing::debug!("a connection was not accepted: {error}");
            return None;
        }
        counters.accept_pauses.add(1);
        if counters.no_room_told.lets_through() {
            self.pause_was_told.store(true, Ordering::Relaxed);
            tracing::error!("no room for another connection, accepting pauses: {error}");
        }
        Some(PAUSE)
    }
}

/// Gives each connection to `serve`. Never ends by itself.
pub(crate) async fn accept(
    listener: &tokio::net::TcpListener,
    counters: &Counters,
    serve: impl Fn(TcpStream),
) {
    let accepting = Accepting::default();
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                accepting.accepted(counters);
                serve(socket);
            }
            Err(error) => {
                if let Some(pause) = accepting.refused(&error, counters) {
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}
