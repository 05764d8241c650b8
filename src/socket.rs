//! What elbows asks of each socket, and what it makes of the kernel's refusals.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// TCP keepalive notices a machine that vanished. It is no substitute for pings: balancers do not
/// count it as traffic.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// Sets the options of a connection whose bytes may wait for their acknowledgement for
/// `stall_timeout`.
///
/// What the kernel has taken from us and cannot deliver is not seen by anybody here. Without this
/// (`TCP_USER_TIMEOUT`, tcp(7)) it tries for some 15 minutes.
pub(crate) fn tune(socket: &TcpStream, stall_timeout: Duration) {
    // A socket whose peer is already gone refuses options; the next read will tell.
    let _ = socket.set_nodelay(true);
    let _ = SockRef::from(socket).set_tcp_keepalive(&KEEPALIVE);
    let _ = SockRef::from(socket).set_tcp_user_timeout(Some(stall_timeout));
}

/// Whether the kernel refused because this machine has too little of something: descriptors,
/// memory, or local ports (`EADDRNOTAVAIL` of connect(2)).
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::MFILE
                | Errno::NFILE
                | Errno::NOBUFS
                | Errno::NOMEM
                | Errno::ADDRNOTAVAIL
                | Errno::AGAIN
        )
    )
}
