//! Who the requests of a connection come from. Found out once, when the connection begins.

use std::net::SocketAddr;

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
    /// Its connection's place under the limits.
    pub(crate) seat: Seat,
    /// It took none of what it asked for, for too long.
    pub(crate) stalled: Stalled,
}
