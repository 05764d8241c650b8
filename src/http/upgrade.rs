//! A request that is an upgrade: the handshake, and the door to the relay.
//!
//! It needs no more of HTTP than two heads, so hyper has no part in it: the client's head, which was read
//! strictly, is written anew to an upstream connection of its own, and the upstream's is read as
//! strictly. After a 101, two plain sockets with the bytes that were read too far become a tunnel. Any other
//! answer is hyper's matter again, on both sides ([`replay`]).
//!
//! Whoever drives it has the sockets: `connection/direct.rs` on a thread of the relay, where all goes straight on,
//! and [`open`] on tokio, which can wait and has every time limit.
//!
//! An upgrade that comes with a body is passed on as a request without the offer, which RFC 9110, section
//! 7.8, allows.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use http::{Method, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::checked::Checked;
use super::forwarded::Told;
use super::head::{self, Limits, Request, Target, Version};
use super::plain::{check, pass_back};
use super::reject::{self, Rejection};
use super::{Front, ToClient, admission, forwarded, health, hop, replay};
use crate::access_log::Entry;
use crate::client::Client;
use crate::config::Config;
use crate::drain::{Open, Stage};
use crate::end::{End, Phase, Reason, Side};
use crate::inbox::Inbox;
use crate::stall::Stalled;
use crate::tunnel::{Protocol, Tunnel};
use crate::upstream::{MAX_BUFFER, Streamed};

/// What an upstream's head may hold.
const LIMITS: Limits = Limits { head: MAX_BUFFER, ..Limits::DEFAULT };

/// An upgrade that a client asks for.
pub(crate) struct Handshake {
    /// The head that the upstream gets. Nothing if the settings do not let it pass.
    head: Vec<u8>,
    method: Method,
    /// The protocols that are offered.
    offer: Vec<u8>,
    entry: Entry,
    /// What the settings say to it.
    admitted: Result<(), Rejection>,
}

/// Whether a request asks to change to protocols that may be offered (RFC 9110, section 7.8).
///
/// An offer of HTTP/1.0 is ignored, as the RFC demands, one that comes with a body, and one that may not be
/// passed on. `h2c` is never
/// passed on: what would be spoken after it, nobody here could read.
pub(crate) fn is_asked_for(head: &Request<'_>, config: &Config) -> bool {
    head.version == Version::Http11
        && head.framing.is_empty()
        && head.max_forwards != Some(0)
        && offers(head).next().is_some()
        && hop::listed(&head.fields).any(|name| name.eq_ignore_ascii_case(b"upgrade"))
        && !health::is_check_of(head, config)
}

fn offers<'a>(head: &Request<'a>) -> impl Iterator<Item = &'a [u8]> {
    let h2c = |item: &&[u8]| item.get(..3).is_some_and(|name| name.eq_ignore_ascii_case(b"h2c"));
    head.fields
        .iter()
        .filter(|field| field.is("upgrade"))
        .flat_map(|field| field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii))
        .filter(move |item| !item.is_empty() && !h2c(item))
}

/// Takes the upgrade that `head` asks for, if it does.
pub(crate) fn take(head: &Request<'_>, client: &Arc<Client>, front: &Front) -> Option<Handshake> {
    let is_for_us = client.identified && is_asked_for(head, &front.config);
    is_for_us.then(|| Handshake::new(head, client, front))
}

fn join(list: &mut Vec<u8>, item: &[u8]) {
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(item);
}

/// The head as the upstream gets it: line for line what the client sent, without what speaks of the
/// client's connection and what only we may say.
fn for_upstream(
    head: &Request<'_>,
    offer: &[u8],
    client: &Client,
    request_id: &str,
    config: &Config,
) -> Vec<u8> {
    let (host, target): (_, [&[u8]; 2]) = match head.target {
        Target::Origin(target) => (head.host, [b"", target]),
        Target::Asterisk => (head.host, [b"", b"*"]),
        Target::Absolute(host, path) if path.starts_with(b"/") => (Some(host), [b"", path]),
        Target::Absolute(host, _) if head.is_server_wide() => (Some(host), [b"", b"*"]),
        Target::Absolute(host, path) => (Some(host), [b"/", path]),
    };
    let mut out = Vec::with_capacity(1_024);
    for part in [head.method, b" ", target[0], target[1], b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    let listed: Vec<_> = hop::listed(&head.fields).collect();
    for field in &head.fields {
        if field.is("host") {
            line(&mut out, field.name, host.unwrap_or_default());
        } else if let Some(left) = head.max_forwards.filter(|_| field.is("max-forwards")) {
            line(&mut out, field.name, left.saturating_sub(1).to_string().as_bytes());
        } else if !hop::is_hop_by_hop(field.name, &listed)
            && !forwarded::is_replaced(field.name, config)
        {
            line(&mut out, field.name, field.value);
        }
    }
    line(&mut out, b"Connection", b"Upgrade");
    line(&mut out, b"Upgrade", offer);
    let lines = head.fields.as_slice();
    forwarded::tell(lines, host.map(Told::Bytes), client, request_id, config, |name, value| {
        line(&mut out, name.as_str().as_bytes(), value.as_bytes());
    });
    out.extend_from_slice(b"\r\n");
    out
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// An upstream that is being asked.
pub(crate) struct Asked {
    pub(crate) upstream: TcpStream,
    pub(crate) address: SocketAddr,
    /// Bytes of the head that it has been sent.
    pub(crate) sent: usize,
    /// What it has said so far.
    pub(crate) unread: BytesMut,
}

/// A handshake that has begun.
pub(crate) struct Begun {
    pub(crate) handshake: Handshake,
    /// The upstream, where one has taken the connection.
    pub(crate) asked: Option<Asked>,
    /// When it was first tried.
    pub(crate) since: Instant,
}

impl Begun {
    pub(crate) fn now(handshake: Handshake) -> Self {
        Self { handshake, asked: None, since: Instant::now() }
    }
}

/// Makes the handshake. A 101 opens a tunnel, and nothing is left; any other answer goes back as it is, on the
/// connection that goes on.
pub(crate) async fn open(
    begun: Begun,
    mut client: Checked,
    front: &Arc<Front>,
) -> Option<(Checked, Response<ToClient>)> {
    let Begun { handshake, asked, since } = begun;
    let Handshake { head, method, offer, mut entry, admitted } = handshake;
    let mut drain = front.drain.clone();
    let ask = async {
        admitted?;
        ask(&head, &offer, &mut entry, asked, since, front).await
    };
    let answer = tokio::select! {
        biased;
        answer = ask => answer,
        // Its log line says so from the start.
        () = client.left() => return None,
        () = drain.reached(Stage::Over) => {
            front.counters.cut.add(1);
            return None;
        }
    };
    let response = match answer {
        Ok(Answered::Switched(switched)) => {
            open_tunnel(client.into_inbox(), switched, entry, front).await;
            return None;
        }
        // Boxed: it is rare, and large.
        Ok(Answered::Other(upstream)) => match Box::pin(replay::response(upstream, method)).await {
            Ok(response) => match check(&response) {
                Ok(()) => {
                    let response = response.map(Streamed::driven);
                    Ok(pass_back(response, entry, Stalled::default(), front))
                }
                Err(rejection) => Err((rejection, entry)),
            },
            Err(error) => Err((Rejection::MalformedResponse(error.to_string()), entry)),
        },
        Err(rejection) => Err((rejection, entry)),
    };
    let response = response
        .unwrap_or_else(|(rejection, entry)| reject::answer(&rejection, entry, &front.counters));
    client.give_back();
    Some((client, response))
}

/// What the upstream says to it.
enum Answered {
    Switched(Switched),
    /// Its response, unread.
    Other(Inbox),
}

/// A 101, and the upstream that said it.
struct Switched {
    upstream: Inbox,
    granted: Granted,
    address: SocketAddr,
}

/// A 101.
pub(crate) struct Granted {
    /// The head as the client gets it.
    pub(crate) head: Vec<u8>,
    protocol: Protocol,
}

/// Connects to the upstream, asks it, and waits for its answer; `asked` is one where that has begun.
async fn ask(
    head: &[u8],
    offer: &[u8],
    entry: &mut Entry,
    asked: Option<Asked>,
    since: Instant,
    front: &Front,
) -> Result<Answered, Rejection> {
    let limit = front.config.response_head_timeout;
    let (asked, until) = if let Some(asked) = asked {
        (asked, since + limit)
    } else {
        let connected = front.upstream.connect_since(since).await;
        let (upstream, address) = connected.map_err(|fault| {
            entry.upstream = fault.address();
            Rejection::Connection(fault)
        })?;
        let asked = Asked { upstream, address, sent: 0, unread: BytesMut::new() };
        (asked, Instant::now() + limit)
    };
    let Asked { upstream: mut socket, address, sent, unread } = asked;
    entry.upstream = Some(address);
    let answer = async {
        let closed = |error: std::io::Error| Rejection::UpstreamClosed(error.to_string());
        socket.write_all(head.get(sent..).unwrap_or_default()).await.map_err(closed)?;
        let mut upstream = Inbox::new(socket);
        upstream.unread = unread;
        loop {
            match read_answer(&upstream.unread, offer) {
                Ok(Some((granted, used))) => {
                    upstream.unread.advance(used);
                    return Ok(Answered::Switched(Switched { upstream, granted, address }));
                }
                Ok(None) => {
                    if upstream.read().await.map_err(closed)? == 0 {
                        return Err(Rejection::UpstreamClosed(String::from("end of stream")));
                    }
                }
                Err(NotGranted::Other(used)) => {
                    upstream.unread.advance(used);
                    return Ok(Answered::Other(upstream));
                }
                Err(NotGranted::Unasked) => return Err(Rejection::UnaskedUpgrade),
                Err(NotGranted::Malformed(fault)) => {
                    return Err(Rejection::BadResponse(fault));
                }
            }
        }
    };
    timeout_at(until, answer).await.unwrap_or(Err(Rejection::NoResponse))
}

/// Why an upstream's answer opens no tunnel.
pub(crate) enum NotGranted {
    /// It is a response, behind so many bytes of others that only announced it.
    Other(usize),
    /// It changes to what was not offered.
    Unasked,
    /// It breaks a rule.
    Malformed(head::Fault),
}

/// Reads what an upstream says to `offer`: the 101, and how many bytes it took; `None` asks for more.
fn read_answer(unread: &[u8], offer: &[u8]) -> Result<Option<(Granted, usize)>, NotGranted> {
    let mut before = 0;
    loop {
        let rest = unread.get(before..).unwrap_or_default();
        match head::response(rest, &LIMITS).map_err(NotGranted::Malformed)? {
            Some((response, used)) if response.status == 101 => {
                let chosen = chosen(&response, offer).ok_or(NotGranted::Unasked)?;
                let protocol = protocol(chosen);
                let head = for_client(&response, chosen);
                return Ok(Some((Granted { head, protocol }, before + used)));
            }
            // RFC 9110, section 15.2: what comes before the answer may be left out.
            Some((response, used)) if response.status < 200 => before += used,
            Some(_) => return Err(NotGranted::Other(before)),
            None => return Ok(None),
        }
    }
}

impl Handshake {
    /// The one that `head` [asks for](is_asked_for). From here on it is counted, and has a log line.
    pub(crate) fn new(head: &Request<'_>, client: &Arc<Client>, front: &Front) -> Self {
        front.counters.requests.add(1);
        let mut entry = Entry::new(
            front.access_log.clone(),
            Arc::clone(client),
            String::from_utf8_lossy(head.line),
            forwarded::request_id(head.fields.as_slice(), &front.request_ids),
        );
        entry.end.during = Phase::Handshake;
        let admitted = admission::upgrade(head, client, front);
        let (mut for_it, mut offer) = (Vec::new(), Vec::new());
        if admitted.is_ok() {
            offer.reserve(16);
            for item in offers(head) {
                join(&mut offer, item);
            }
            for_it = for_upstream(head, &offer, client, &entry.request_id, &front.config);
        }
        // A token is a method.
        let method = Method::from_bytes(head.method).unwrap_or_default();
        Self { method, head: for_it, offer, entry, admitted }
    }

    /// This one if the settings let it pass, else the answer on a connection that ends behind it.
    pub(crate) fn admitted(self, front: &Front) -> Result<Self, String> {
        match self.admitted {
            Ok(()) => Ok(self),
            Err(rejection) => {
                let is_head = self.method == Method::HEAD;
                Err(reject::words(&rejection, self.entry, is_head, &front.counters))
            }
        }
    }

    /// The head that the upstream gets, if the settings let it pass.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Reads what an upstream says to it: the 101, and how many bytes it took; `None` asks for more.
    pub(crate) fn read_answer(
        &self,
        unread: &[u8],
    ) -> Result<Option<(Granted, usize)>, NotGranted> {
        read_answer(unread, &self.offer)
    }

    /// Its log line.
    pub(crate) fn into_entry(self) -> Entry {
        self.entry
    }
}

/// The protocol that a 101 changes to, if it is one of those that were offered.
fn chosen<'a>(response: &head::Response<'a>, offer: &[u8]) -> Option<&'a [u8]> {
    let mut upgrades = response.fields.iter().filter(|field| field.is("upgrade"));
    let (Some(chosen), None) = (upgrades.next(), upgrades.next()) else { return None };
    offer
        .split(|byte| *byte == b',')
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(chosen.value))
        .then_some(chosen.value)
}

/// What a 101 says will be spoken (RFC 6455, section 4.2.2: the word in any case).
fn protocol(chosen: &[u8]) -> Protocol {
    if chosen.eq_ignore_ascii_case(b"websocket") { Protocol::WebSocket } else { Protocol::Other }
}

/// A 101 as the client gets it. RFC 6455, section 4.1, asks it to be HTTP/1.1; the upstream's own may
/// be 1.0. There is no body that a length could speak of (RFC 9112, section 6.3).
fn for_client(response: &head::Response<'_>, chosen: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    for part in [b"HTTP/1.1 101 ", response.reason, b"\r\n"] {
        out.extend_from_slice(part);
    }
    let listed: Vec<_> = hop::listed(&response.fields).collect();
    for field in &response.fields {
        if !hop::is_hop_by_hop(field.name, &listed) && !field.is("content-length") {
            line(&mut out, field.name, field.value);
        }
    }
    line(&mut out, b"Connection", b"Upgrade");
    line(&mut out, b"Upgrade", chosen);
    out.extend_from_slice(b"\r\n");
    out
}

/// Opens the tunnel of a handshake that is granted, but for its client's being told.
pub(crate) async fn open_granted(
    client: Inbox,
    granted: Granted,
    asked: Asked,
    entry: Entry,
    front: &Arc<Front>,
) {
    let mut upstream = Inbox::new(asked.upstream);
    upstream.unread = asked.unread;
    let switched = Switched { upstream, granted, address: asked.address };
    open_tunnel(client, switched, entry, front).await;
}

/// Sends the 101, then makes the tunnel and gives it to the relay.
async fn open_tunnel(mut client: Inbox, switched: Switched, mut entry: Entry, front: &Arc<Front>) {
    // Counted out last: whoever waits for it finds the log line written.
    let open = front.census.enter();
    let Switched { upstream, granted, address } = switched;
    entry.status = Some(101);
    let mut drain = front.drain.clone();
    let sent = tokio::select! {
        biased;
        sent = client.socket.inner_mut().write_all(&granted.head) => sent,
        () = drain.reached(Stage::Over) => return front.counters.cut.add(1),
    };
    if let Err(error) = sent {
        return left_before_the_101(&mut entry, &error);
    }
    let (Some(client), Some(upstream)) = (take_apart(client), take_apart(upstream)) else {
        tracing::error!(
            request_id = entry.request_id,
            "a socket could not be taken from the front"
        );
        entry.end = End::new(Side::Elbows, Phase::Handshake, Reason::NoRoom);
        return;
    };
    front.relay.adopt(granted.tunnel(client, upstream, entry, address, open, front));
}

/// Notes that nobody was there any more to get it.
pub(crate) fn left_before_the_101(entry: &mut Entry, error: &std::io::Error) {
    tracing::debug!(client = %entry.client.address, "left before the 101: {error}");
    entry.status = Some(101);
    entry.end = End::new(Side::Client, Phase::Handshake, Reason::Closed);
}

/// A plain socket, and what was read from it already.
pub(crate) type Taken = (std::net::TcpStream, Vec<u8>);

impl Granted {
    /// The tunnel that begins behind it. Its end in the relay counts out what is `open`, and gives the seat up.
    pub(crate) fn tunnel(
        self,
        client: Taken,
        upstream: Taken,
        entry: Entry,
        address: SocketAddr,
        open: Open,
        front: &Front,
    ) -> Tunnel {
        front.counters.tunnels.add(1);
        open.keep();
        entry.client.seat.keep();
        Tunnel::new(self.protocol, client, upstream, entry.into_identity(address))
    }
}

fn take_apart(inbox: Inbox) -> Option<Taken> {
    let unread = inbox.unread.to_vec();
    let socket: TcpStream = inbox.socket.into_inner();
    Some((socket.into_std().ok()?, unread))
}
