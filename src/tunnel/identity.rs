//! Who a tunnel belongs to, in as few bytes as it takes: each idle tunnel has one.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use smallvec::SmallVec;

use crate::encoding::{Encode, Reader, RecordFault, Writer, encode_fields};

/// Bytes of text that are kept in the identity itself, so that they come and go with the tunnel's
/// place. A longer one is allocated: it is only larger, by what the allocator adds. Enough for the
/// path of a chat or of Socket.IO and for an id of 32 digits.
const SHORT_TEXT: usize = 88;

/// Who a tunnel belongs to, for the access log.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    client: Address,
    balancer: Address,
    upstream: Address,
    /// The request line, then the request's id.
    text: SmallVec<[u8; SHORT_TEXT]>,
    request_line: u32,
    started: Instant,
}

/// A socket address without the flow label and scope that the standard library's has room for.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Address {
    ip: IpAddr,
    port: [u8; 2],
}

impl Identity {
    /// A tunnel from `client` (from the PROXY header where there is one), over `balancer` (where the
    /// connection came from), to `upstream` (which answered), that a request opened that came at
    /// `started` with this line (method, target and version) and id.
    #[must_use]
    pub fn new(
        client: SocketAddr,
        balancer: SocketAddr,
        upstream: SocketAddr,
        request_line: &str,
        request_id: &str,
        started: Instant,
    ) -> Self {
        let mut text = SmallVec::with_capacity(request_line.len() + request_id.len());
        text.extend_from_slice(request_line.as_bytes());
        text.extend_from_slice(request_id.as_bytes());
        Self {
            client: client.into(),
            balancer: balancer.into(),
            upstream: upstream.into(),
            text,
            // A head is far shorter.
            request_line: u32::try_from(request_line.len()).unwrap_or(0),
            started,
        }
    }

    /// The client's address.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        self.client.into()
    }

    /// The load balancer's address.
    #[must_use]
    pub fn balancer(&self) -> SocketAddr {
        self.balancer.into()
    }

    /// The upstream's address.
    #[must_use]
    pub fn upstream(&self) -> SocketAddr {
        self.upstream.into()
    }

    /// Method, target and version of the request that opened it.
    #[must_use]
    pub fn request_line(&self) -> &str {
        text(self.text.get(..self.request_line as usize))
    }

    /// `X-Request-Id`, the client's or ours.
    #[must_use]
    pub fn request_id(&self) -> &str {
        text(self.text.get(self.request_line as usize..))
    }

    /// When the request came.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Has all of it be of this thread's memory. What lives long among what another thread threw
    /// away long ago keeps the pages of both.
    pub(crate) fn settle(&mut self) {
        if self.text.spilled() {
            self.text = self.text.clone();
        }
    }
}

/// It was made of text.
fn text(bytes: Option<&[u8]>) -> &str {
    bytes.and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default()
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self { ip: address.ip(), port: address.port().to_ne_bytes() }
    }
}

impl From<Address> for SocketAddr {
    fn from(Address { ip, port }: Address) -> Self {
        Self::new(ip, u16::from_ne_bytes(port))
    }
}

encode_fields!(Identity {
    1 client,
    2 balancer,
    3 upstream,
    4 text,
    5 request_line = 0,
    6 started,
});

impl Encode for Address {
    fn write(&self, to: &mut Writer) {
        SocketAddr::from(*self).write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        SocketAddr::read(from).map(Self::from)
    }
}

/// Text.
impl Encode for SmallVec<[u8; SHORT_TEXT]> {
    fn write(&self, to: &mut Writer) {
        to.bytes(self);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        from.text().map(|text| text.as_bytes().into())
    }
}
