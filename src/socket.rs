//! What elbows asks of each socket, and what it makes of the kernel's refusals.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};

/// TCP keepalive notices a machine that vanished. It is no substitute for pings: balancers do not
/// count it as traffic. How many probes may fail is a matter of `TCP_USER_TIMEOUT` (tcp(7)).
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));

/// So much longer than `STALL_TIMEOUT` the kernel waits. A side that lives and reads nothing fills the
/// kernel's buffers first and ours then: our time, which knows that the side is there, is to be over first. Where a
/// buffer had grown it may not be, and the end is the same.
///
/// While a side's window is closed the kernel counts until the window is open for all of the next packet in the queue
/// (`tcp_ack_probe` of `net/ipv4/tcp_input.c`), whatever passed in between: one that reads little by little may look
/// to it as if it read nothing. docs/operations.md tells of it. Nothing else would notice a side that vanished with
/// bytes on their way to it and is not pinged.
const MARGIN: Duration = Duration::from_secs(5);

/// Sets the options of a connection whose bytes may wait for their acknowledgement for
/// `stall_timeout` and a [`MARGIN`]; those of a listener become those of its connections, so that none of them costs
/// a call of its own.
///
/// What the kernel has taken from us and cannot deliver is not seen by anybody here. Without this
/// (`TCP_USER_TIMEOUT`, tcp(7)) it tries for some 15 minutes.
pub(crate) fn tune(socket: &impl AsFd, stall_timeout: Duration) {
    let socket = SockRef::from(socket);
    // A socket whose peer is already gone refuses options; the next read will tell.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&KEEPALIVE);
    let _ = socket.set_tcp_user_timeout(Some(stall_timeout.saturating_add(MARGIN)));
}

/// Has bytes of a connection wait for another time than its listener says.
pub(crate) fn give_up_after(socket: &impl AsFd, stall_timeout: Duration) {
    // As above.
    let time = stall_timeout.saturating_add(MARGIN);
    let _ = SockRef::from(socket).set_tcp_user_timeout(Some(time));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_have_the_options_of_their_listener() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let limit = Duration::from_millis(7_300);
        tune(&listener, limit);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap());
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        assert_eq!(accepted.tcp_keepalive_interval().unwrap(), Duration::from_secs(15));
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(limit + MARGIN));
    }
}
