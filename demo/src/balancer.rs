//! A stand-in for the load balancer: it takes TCP connections, opens one to elbows for each, sends
//! a PROXY header first, and copies both ways.
//!
//! A balancer on the same machine would report the browser as 127.0.0.1, the same address that
//! every socket here has, and nobody could see that the header arrived. So the stand-in pretends
//! that the client's address is one of those set aside for documentation, and everything that
//! shows it says so. The client's port and the destination are the real ones.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Stop;

/// The version of the PROXY protocol that the stand-in speaks, for the text on the terminal.
pub const PROXY_VERSION: &str = "v1";

/// How long elbows may take to accept. It is on the same machine, so this is generous.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long connections may take to end by themselves after the stand-in was told to stop.
const GRACE: Duration = Duration::from_millis(500);

/// How long to wait after `accept` failed, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `listener` until told to stop: each connection goes to `elbows`, headed as coming from
/// `client`. What is open then has half a second to end by itself.
pub async fn serve(listener: TcpListener, elbows: SocketAddr, client: IpAddr, mut stop: Stop) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, from)) => {
                    connections.spawn(async move {
                        let source = SocketAddr::new(client, from.port());
                        if let Err(error) = carry(socket, source, elbows).await {
                            tracing::debug!(%from, %error, "stand-in: connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "stand-in: accept");
                    // Nobody tells when there are descriptors again.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = stop.asked() => break,
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(GRACE, all_ended).await;
}

/// An address that no machine has, of the family of `listen`: one of 203.0.113.0/24 (RFC 5737) or
/// `2001:db8::/32` (RFC 3849). Another one in each run, the same one throughout a run.
#[must_use]
pub fn pretended_client(listen: IpAddr) -> IpAddr {
    let [random, ..] = RandomState::new().hash_one(0_u8).to_ne_bytes();
    let host = random.clamp(1, 254);
    match listen {
        IpAddr::V4(_) => Ipv4Addr::new(203, 0, 113, host).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()).into(),
    }
}

async fn carry(mut socket: TcpStream, source: SocketAddr, elbows: SocketAddr) -> io::Result<()> {
    let destination = socket.local_addr()?;
    let mut onward = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(elbows)).await??;
    socket.set_nodelay(true)?;
    onward.set_nodelay(true)?;
    onward.write_all(proxy_header(source, destination).as_bytes()).await?;
    tokio::io::copy_bidirectional(&mut socket, &mut onward).await?;
    Ok(())
}

/// A PROXY header, version 1 (proxy-protocol.txt, section 2.1), for two addresses of one family.
fn proxy_header(source: SocketAddr, destination: SocketAddr) -> String {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn header_is_of_the_family_of_its_addresses() {
        let header =
            |from: &str, to: &str| proxy_header(from.parse().unwrap(), to.parse().unwrap());
        assert_eq!(
            header("203.0.113.9:4000", "127.0.0.1:8080"),
            "PROXY TCP4 203.0.113.9 127.0.0.1 4000 8080\r\n"
        );
        assert_eq!(
            header("[2001:db8::9]:4000", "[::1]:8080"),
            "PROXY TCP6 2001:db8::9 ::1 4000 8080\r\n"
        );
    }

    #[test]
    fn pretended_client_is_from_a_documentation_range() {
        let IpAddr::V4(client) = pretended_client(Ipv4Addr::LOCALHOST.into()) else {
            unreachable!("IPv4 for IPv4");
        };
        assert!(client.is_documentation());
        assert!(!matches!(client.octets(), [.., 0 | 255]));
        let IpAddr::V6(client) = pretended_client(Ipv6Addr::LOCALHOST.into()) else {
            unreachable!("IPv6 for IPv6");
        };
        assert!(matches!(client.segments(), [0x2001, 0xdb8, ..]));
    }
}
