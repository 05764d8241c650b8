//! Who a tunnel belongs to, in as few bytes as it takes: each idle tunnel has one.

use std::borrow::{Borrow, Cow};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::clock::Since;
use crate::encoding::{Encode, Reader, RecordFault, Writer, encode_fields};
use crate::http::request_id::RequestId;
use crate::http::trace_context::TraceId;

/// Bytes of text that are kept in the identity itself, so that they come and go with the tunnel's
/// place. A longer one is allocated: it is only larger, by what the allocator adds. Enough for the
/// path of a chat or of Socket.IO, its host and subprotocol, and for an id of 32 digits, which are 16 bytes.
const SHORT_TEXT: usize = 72;

/// Who a tunnel belongs to, for the access log.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    client: Address,
    balancer: Address,
    upstream: Address,
    /// Where the parts of the text end.
    ends: Ends,
    ids: Ids,
    text: Text,
    /// Many tunnels have the same one, so that it is not kept with each.
    user_agent: Option<UserAgent>,
    started: Since,
}

/// What the handshake of a tunnel said beside its request line and id. Where it said nothing, or no log wants it, the
/// texts are empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshake<'a> {
    /// `Host`.
    pub host: &'a str,
    /// `User-Agent`.
    pub user_agent: &'a str,
    /// `Sec-WebSocket-Protocol` of the 101.
    pub subprotocol: &'a str,
    /// Of a valid `traceparent`.
    pub trace_id: Option<TraceId>,
}

/// The request line, the host, the subprotocol, the trace id (16 bytes, or nothing), the route (its length as a byte, and
/// its name, or nothing), and then the request's id: as 16 bytes, where it is 32 lower-case hexadecimal digits as elbows
/// makes them, or as text.
type Text = SmallVec<[u8; SHORT_TEXT]>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ends {
    request_line: u16,
    host: u16,
    subprotocol: u16,
}

/// How the ids stand in the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ids(u8);

impl Ids {
    /// There is a trace id.
    const TRACED: u8 = 1;
    /// The request's id is 16 bytes.
    const PACKED: u8 = 2;
    /// It took another route than the default one.
    const ROUTED: u8 = 4;

    const fn is(self, what: u8) -> bool {
        self.0 & what != 0
    }
}

/// A user agent. Tunnels of the same one can share it.
#[derive(Clone, Debug)]
pub(crate) struct UserAgent(Arc<Box<str>>);

/// A socket address without the flow label and scope that the standard library's has room for.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Address {
    ip: IpAddr,
    port: [u8; 2],
}

impl Identity {
    /// A tunnel from `client` (from the PROXY header where there is one), over `balancer` (where the
    /// connection came from), to `upstream` (which answered), that a request opened that came at
    /// `started` with this line (method, target and version) and id. Texts of 64 KiB and more are not kept.
    #[must_use]
    pub fn new(
        client: SocketAddr,
        balancer: SocketAddr,
        upstream: SocketAddr,
        request_line: &str,
        request_id: &str,
        started: Since,
    ) -> Self {
        let nothing = Handshake::default();
        let addresses = [client, balancer, upstream];
        Self::of(addresses, request_line, &request_id.into(), started, &nothing, "")
    }

    /// The same at once with what its handshake said, so that the texts are put together once. The addresses are those of
    /// client, balancer and upstream. `route` is empty where it is the default one.
    pub(crate) fn of(
        [client, balancer, upstream]: [SocketAddr; 3],
        request_line: &str,
        request_id: &RequestId,
        started: Since,
        handshake: &Handshake<'_>,
        route: &str,
    ) -> Self {
        let (ends, ids, text) = packed(request_line, request_id, handshake, route);
        Self {
            client: client.into(),
            balancer: balancer.into(),
            upstream: upstream.into(),
            ends,
            ids,
            text,
            user_agent: UserAgent::of(handshake.user_agent),
            started,
        }
    }

    /// The same, with what its handshake said. Texts of 64 KiB and more are not kept.
    #[must_use]
    pub fn with(self, handshake: &Handshake<'_>) -> Self {
        let (ends, ids, text) =
            packed(self.request_line(), &(*self.request_id()).into(), handshake, self.route());
        Self { ends, ids, text, user_agent: UserAgent::of(handshake.user_agent), ..self }
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
        text(self.text.get(..self.ends.request_line.into()))
    }

    /// `X-Request-Id`, the client's or ours.
    #[must_use]
    pub fn request_id(&self) -> Cow<'_, str> {
        let (_, _, id) = self.ids();
        match id.try_into().ok().filter(|_| self.ids.is(Ids::PACKED)) {
            Some(id) => Cow::Owned(RequestId::Digits(id).to_string()),
            None => Cow::Borrowed(text(Some(id))),
        }
    }

    /// What its handshake said.
    #[must_use]
    pub fn handshake(&self) -> Handshake<'_> {
        let Ends { request_line, host, subprotocol } = self.ends;
        let part = |from: u16, to: u16| text(self.text.get(from.into()..to.into()));
        Handshake {
            host: part(request_line, host),
            user_agent: self.user_agent.as_ref().map_or("", UserAgent::as_str),
            subprotocol: part(host, subprotocol),
            trace_id: self.ids().0.copied().map(TraceId),
        }
    }

    /// The name of its route; empty where it is the default one.
    #[must_use]
    pub fn route(&self) -> &str {
        if !self.ids.is(Ids::ROUTED) {
            return "";
        }
        text(Some(self.ids().1))
    }

    /// The trace's id, the route's name, and the bytes of the request's id.
    fn ids(&self) -> (Option<&[u8; 16]>, &[u8], &[u8]) {
        let all = self.text.get(self.ends.subprotocol.into()..).unwrap_or_default();
        let (trace_id, behind) = match all.split_first_chunk().filter(|_| self.ids.is(Ids::TRACED))
        {
            Some((trace_id, behind)) => (Some(trace_id), behind),
            None => (None, all),
        };
        let route = behind.split_first().filter(|_| self.ids.is(Ids::ROUTED));
        match route.and_then(|(length, behind)| behind.split_at_checked((*length).into())) {
            Some((route, id)) => (trace_id, route, id),
            None => (trace_id, &[], behind),
        }
    }

    /// When the request came.
    #[must_use]
    pub const fn started(&self) -> Since {
        self.started
    }

    /// How long ago the request came, when it is `elapsed` after the start of the count.
    #[must_use]
    pub fn age(&self, elapsed: Duration) -> Duration {
        self.started.age(elapsed)
    }

    /// Has all of it be of this thread's memory. What lives long among what another thread threw
    /// away long ago keeps the pages of both.
    pub(crate) fn settle(&mut self) {
        if self.text.spilled() {
            self.text = self.text.clone();
        }
    }

    /// Its user agent, to be shared with others.
    pub(crate) const fn user_agent(&mut self) -> Option<&mut UserAgent> {
        self.user_agent.as_mut()
    }
}

impl UserAgent {
    /// None of nothing.
    fn of(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(Arc::new(text.into())))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether nobody else has it.
    pub(crate) fn is_unshared(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    #[cfg(test)]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// By its text, as [`Borrow`] asks for.
impl PartialEq for UserAgent {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for UserAgent {}

impl Hash for UserAgent {
    fn hash<H: Hasher>(&self, to: &mut H) {
        self.as_str().hash(to);
    }
}

impl Borrow<str> for UserAgent {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

/// All texts but the user agent in one.
fn packed(
    request_line: &str,
    request_id: &RequestId,
    handshake: &Handshake<'_>,
    route: &str,
) -> (Ends, Ids, Text) {
    let trace_id = handshake.trace_id.map(|TraceId(bytes)| bytes);
    // Names of routes are far shorter.
    let route_length = [u8::try_from(route.len()).unwrap_or(0)];
    let is_routed = route_length != [0];
    let parts = [
        request_line.as_bytes(),
        handshake.host.as_bytes(),
        handshake.subprotocol.as_bytes(),
        trace_id.as_ref().map_or(&[][..], |bytes| bytes),
        if is_routed { &route_length } else { &[] },
        if is_routed { route.as_bytes() } else { &[] },
        request_id.packed(),
    ];
    let length = parts.iter().map(|part| part.len()).sum();
    let mut text = Text::new();
    // Heads are far shorter.
    if length > u16::MAX.into() {
        return (Ends::default(), Ids::default(), text);
    }
    // No more than that, where it is longer than what has room in place.
    text.reserve_exact(length);
    let mut ends = [0; 7];
    for (end, part) in ends.iter_mut().zip(parts) {
        text.extend_from_slice(part);
        *end = u16::try_from(text.len()).unwrap_or(u16::MAX);
    }
    let [request_line, host, subprotocol, ..] = ends;
    let traced = trace_id.map_or(0, |_| Ids::TRACED);
    let packed = if matches!(request_id, RequestId::Digits(_)) { Ids::PACKED } else { 0 };
    let routed = if is_routed { Ids::ROUTED } else { 0 };
    let ids = Ids(traced | packed | routed);
    (Ends { request_line, host, subprotocol }, ids, text)
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

/// How an identity is written: texts as texts.
struct IdentityRecord {
    client: Address,
    balancer: Address,
    upstream: Address,
    /// The request line, then the request's id.
    text: String,
    request_line: u32,
    started: Since,
    host: String,
    subprotocol: String,
    user_agent: String,
    trace_id: Option<[u8; 16]>,
    route: String,
}

encode_fields!(IdentityRecord {
    1 client,
    2 balancer,
    3 upstream,
    4 text,
    5 request_line = 0,
    6 started,
    7 host = String::new(),
    8 subprotocol = String::new(),
    9 user_agent = String::new(),
    10 trace_id = None,
    11 route = String::new(),
});

impl Encode for Identity {
    fn write(&self, to: &mut Writer) {
        let Self { client, balancer, upstream, .. } = *self;
        let started = self.started();
        let Handshake { host, user_agent, subprotocol, trace_id } = self.handshake();
        let request_line = self.request_line();
        let record = IdentityRecord {
            client,
            balancer,
            upstream,
            text: [request_line, &self.request_id()].concat(),
            request_line: u32::try_from(request_line.len()).unwrap_or(0),
            started,
            host: host.to_owned(),
            subprotocol: subprotocol.to_owned(),
            user_agent: user_agent.to_owned(),
            trace_id: trace_id.map(|TraceId(bytes)| bytes),
            route: self.route().to_owned(),
        };
        record.write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        let record = IdentityRecord::read(from)?;
        let IdentityRecord { client, balancer, upstream, text, started, .. } = record;
        let handshake = Handshake {
            host: &record.host,
            user_agent: &record.user_agent,
            subprotocol: &record.subprotocol,
            // All zeros are none, whoever wrote them.
            trace_id: record.trace_id.filter(|bytes| *bytes != [0; 16]).map(TraceId),
        };
        let split = text.split_at_checked(record.request_line as usize);
        let (line, id) = split.unwrap_or(("", &text));
        let addresses = [client.into(), balancer.into(), upstream.into()];
        Ok(Self::of(addresses, line, &id.into(), started, &handshake, &record.route))
    }
}

impl Encode for Address {
    fn write(&self, to: &mut Writer) {
        SocketAddr::from(*self).write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        SocketAddr::read(from).map(Self::from)
    }
}
