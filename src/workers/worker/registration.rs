//! What a worker's poll is told of the two sockets of a tunnel.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry};

use crate::tunnel::{Peer, Tunnel};
use crate::workers::connections::NewTunnel;
use crate::workers::slot::to_token;

/// Everything that there is to hear of a tunnel's socket. An urgent byte stops a read short of what lies behind it;
/// its event says so.
const ALL: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);

/// Once, for everything there is to hear: with an edge-triggered poll no message needs a change. What is
/// registered already, for its connection, is heard anew all the same.
pub(super) fn register(registry: &Registry, opened: &NewTunnel, key: usize) -> io::Result<()> {
    let NewTunnel { tunnel, hears_client, hears_upstream } = opened;
    let hear = |socket: &TcpStream, side, is_heard| {
        let (socket, token) = (socket.as_raw_fd(), to_token(key, side));
        let socket = &mut SourceFd(&socket);
        if is_heard {
            registry.reregister(socket, token, ALL)
        } else {
            registry.register(socket, token, ALL)
        }
    };
    let registered = hear(&tunnel.client, Peer::Client, *hears_client)
        .and_then(|()| hear(&tunnel.upstream, Peer::Upstream, *hears_upstream));
    if registered.is_err() {
        deregister(registry, tunnel);
    }
    registered
}

/// Closed where nobody has a copy, a descriptor is forgotten by itself (epoll(7)). Needed where the sockets go on elsewhere, and
/// where they are closed and somebody may have a copy, which would keep them registered.
pub(super) fn deregister(registry: &Registry, tunnel: &Tunnel) {
    for socket in [&tunnel.client, &tunnel.upstream] {
        // Fails only on what is not registered.
        drop(registry.deregister(&mut SourceFd(&socket.as_raw_fd())));
    }
}
