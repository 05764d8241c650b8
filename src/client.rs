//! Who the requests of a connection come from. Found out once, when the connection begins.

use std::net::SocketAddr;
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
            ip: HeaderValue::from_str(&self.address.ip().to_string())
                .unwrap_or(HeaderValue::from_static("")),
            port: HeaderValue::from(self.destination.port()),
        })
    }
}
