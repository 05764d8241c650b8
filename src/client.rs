//! Who the requests of a connection come from. Found out once, when the connection begins.

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use http::HeaderValue;
use http::header::HeaderName;

use crate::limits::Seat;
use crate::stall::Stalled;

/// Who sends the requests of a connection.
#[derive(Debug)]
pub(crate) struct Client {
    /// The client's address: from the PROXY header where there is one, else the socket's.
    pub(crate) address: SocketAddr,
    /// The socket's other end.
    pub(crate) balancer: SocketAddr,
    /// Where the client connected to: at the balancer, else here.
    pub(crate) destination: SocketAddr,
    /// The connection began as `PROXY_PROTOCOL` demands. If not, only the health path is served.
    pub(crate) identified: bool,
    /// The client spoke TLS with the balancer.
    pub(crate) https: bool,
    /// What `PROXY_TLV_HEADERS` asks for.
    pub(crate) tlv_headers: Vec<(HeaderName, HeaderValue)>,
    /// What is said of it in each request, once it was asked for.
    pub(crate) words: OnceLock<Words>,
    /// Its connection's place under the limits.
    pub(crate) seat: Seat,
    /// It took none of what it asked for, for too long.
    pub(crate) stalled: Stalled,
}

/// What is said of a client in the fields of each of its requests.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    pub(crate) ip: HeaderValue,
    /// Of where it connected to.
    pub(crate) port: HeaderValue,
}

impl Client {
    pub(crate) fn words(&self) -> &Words {
        self.words.get_or_init(|| Words {
            // An address has no sign that a field may not have.
            ip: HeaderValue::from_str(&text(self.address.ip()))
                .unwrap_or(HeaderValue::from_static("")),
            port: HeaderValue::from(self.destination.port()),
        })
    }
}

/// The address as text. Each handshake needs it once, and the formatter takes a thousand instructions for an
/// address of IPv4.
fn text(ip: IpAddr) -> String {
    let IpAddr::V4(ip) = ip else { return ip.to_string() };
    let mut text = String::with_capacity(15);
    for octet in ip.octets() {
        if !text.is_empty() {
            text.push('.');
        }
        for (place, digit) in [(100, octet / 100), (10, octet / 10 % 10), (1, octet % 10)] {
            if octet >= place || place == 1 {
                text.push(char::from(b'0' + digit));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_everybody_writes_them() {
        for octet in 0..=255 {
            let ip = IpAddr::from([octet, 0, 10, 255 - octet]);
            assert_eq!(text(ip), ip.to_string());
        }
        let ip = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7]);
        assert_eq!(text(ip), "2001:db8::7");
    }
}
