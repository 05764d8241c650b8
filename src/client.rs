//! Who the requests of a connection come from. Found out once, when the connection begins.

use std::net::{IpAddr, SocketAddr};

use crate::config::TlvHeader;

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
    /// What `PROXY_TLV_HEADERS` of a route asks for: the TLV, and a header of it.
    pub(crate) tlv_headers: Vec<(TlvHeader, &'static str, String)>,
    /// Its address as text, as each of its requests tells the upstream.
    pub(crate) ip: String,
}

impl Client {
    /// A client whose connection began as it has to, and about whom no PROXY header says more.
    pub(crate) fn new(address: SocketAddr, balancer: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            address,
            balancer,
            destination,
            identified: true,
            https: false,
            tlv_headers: Vec::new(),
            ip: text(address.ip()),
        }
    }
}

/// The address as text. Each connection needs it once, and the formatter takes a thousand instructions for an
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
