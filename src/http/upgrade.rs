//! A request that is an upgrade: the handshake, and the door to the relay.
//!
//! It needs no more of HTTP than two heads, so hyper has no part in it: the client's head, which was read
//! strictly, is written anew to an upstream connection of its own, and the upstream's is read as
//! strictly. After a 101, two plain sockets with the bytes that were read too far become a tunnel. Any other
//! answer is hyper's matter again, on both sides ([`replay`]).
//!
//! An upgrade that comes with a body is passed on as a request without the offer, which RFC 9110, section
//! 7.8, allows.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Buf;
use http::{Method, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::checked::Checked;
use super::forwarded::Told;
use super::head::{self, Limits, Request, Target, Version};
use super::plain::{check, pass_back};
use super::reject::{self, Rejection};
use super::{Front, ToClient, admission, forwarded, health, hop, replay};
use crate::access_log::Entry;
use crate::client::Client;
use crate::config::Config;
use crate::drain::Stage;
use crate::end::{End, Phase, Reason, Side};
use crate::inbox::Inbox;
use crate::stall::Stalled;
use crate::tunnel::{Protocol, Tunnel};
use crate::upstream::{MAX_BUFFER, Streamed};

/// What an upstream's head may hold.
const LIMITS: Limits = Limits { head: MAX_BUFFER, ..Limits::DEFAULT };

/// Room for a read of an upstream's head.
const ROOM: usize = 1_024;

/// An upgrade that a client asks for.
pub(crate) struct Handshake {
    /// The head that the upstream gets.
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
/// An offer of HTTP/1.0 is ignored, as the RFC demands, and one that comes with a body. `h2c` is never
/// passed on: what would be spoken after it, nobody here could read.
pub(crate) fn is_asked_for(head: &Request<'_>, config: &Config) -> bool {
    head.version == Version::Http11
        && head.framing.is_empty()
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
    if !client.identified || !is_asked_for(head, &front.config) {
        return None;
    }
    front.counters.requests.add(1);
    let mut entry = Entry::new(
        front.access_log.clone(),
        Arc::clone(client),
        String::from_utf8_lossy(head.line).into_owned(),
        forwarded::request_id(head.fields.as_slice(), &front.request_ids),
    );
    entry.end.during = Phase::Handshake;
    let mut offer = Vec::with_capacity(16);
    for item in offers(head) {
        join(&mut offer, item);
    }
    Some(Handshake {
        method: Method::from_bytes(head.method).ok()?,
        head: for_upstream(head, &offer, client, &entry.request_id, &front.config),
        offer,
        entry,
        admitted: admission::upgrade(head, client, front),
    })
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

/// Makes the handshake. A 101 opens a tunnel, and nothing is left; any other answer goes back as it is, on the
/// connection that goes on.
pub(crate) async fn open(
    handshake: Handshake,
    mut client: Checked,
    front: &Arc<Front>,
) -> Option<(Checked, Response<ToClient>)> {
    let Handshake { head, method, offer, mut entry, admitted } = handshake;
    let mut drain = front.drain.clone();
    let ask = async {
        admitted?;
        ask(&head, &offer, &mut entry, front).await
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
        Ok(Asked::Switched(switched)) => {
            open_tunnel(client, switched, entry, front).await;
            return None;
        }
        // Boxed: it is rare, and large.
        Ok(Asked::Other(upstream)) => match Box::pin(replay::response(upstream, method)).await {
            Ok(response) => match check(&response, front) {
                Ok(()) => {
                    let response = response.map(Streamed::driven);
                    Ok(pass_back(response, entry, Stalled::default()))
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
enum Asked {
    Switched(Switched),
    /// Its response, unread.
    Other(Inbox),
}

/// A 101.
struct Switched {
    upstream: Inbox,
    /// The head as the client gets it.
    head: Vec<u8>,
    protocol: Protocol,
    address: SocketAddr,
}

/// Connects to the upstream, asks it, and waits for its answer.
async fn ask(
    head: &[u8],
    offer: &[u8],
    entry: &mut Entry,
    front: &Front,
) -> Result<Asked, Rejection> {
    let (mut socket, address) = front.upstream.connect().await.map_err(|fault| {
        entry.upstream = fault.address();
        Rejection::Connection(fault)
    })?;
    entry.upstream = Some(address);
    let answer = async {
        let closed = |error: std::io::Error| Rejection::UpstreamClosed(error.to_string());
        socket.write_all(head).await.map_err(closed)?;
        let mut upstream = Inbox::new(socket);
        loop {
            let read = head::response(&upstream.unread, &LIMITS).map_err(|fault| {
                front.counters.response_faults.add(fault);
                tracing::debug!(upstream = %address, rule = fault.as_str(), "bad response: {fault}");
                Rejection::MalformedResponse(fault.to_string())
            })?;
            match read {
                Some((response, used)) if response.status == 101 => {
                    let chosen = chosen(&response, offer).ok_or(Rejection::UnaskedUpgrade)?;
                    let protocol = protocol(chosen);
                    let head = for_client(&response, chosen);
                    upstream.unread.advance(used);
                    return Ok(Asked::Switched(Switched { upstream, head, protocol, address }));
                }
                // RFC 9110, section 15.2: what comes before the answer may be left out.
                Some((response, used)) if response.status < 200 => upstream.unread.advance(used),
                Some(_) => return Ok(Asked::Other(upstream)),
                None => {
                    if upstream.read(ROOM).await.map_err(closed)? == 0 {
                        return Err(Rejection::UpstreamClosed(String::from("end of stream")));
                    }
                }
            }
        }
    };
    timeout(front.config.response_head_timeout, answer).await.unwrap_or(Err(Rejection::NoResponse))
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

/// Sends the 101, then makes the tunnel and gives it to the relay.
async fn open_tunnel(client: Checked, switched: Switched, mut entry: Entry, front: &Arc<Front>) {
    // Counted out last: whoever waits for it finds the log line written.
    let open = front.census.enter();
    let Switched { upstream, head, protocol, address } = switched;
    let mut client = client.into_inbox();
    entry.status = Some(101);
    let mut drain = front.drain.clone();
    let sent = tokio::select! {
        biased;
        sent = client.socket.inner_mut().write_all(&head) => sent,
        () = drain.reached(Stage::Over) => return front.counters.cut.add(1),
    };
    if let Err(error) = sent {
        tracing::debug!(client = %entry.client.address, "left before the 101: {error}");
        entry.end = End::new(Side::Client, Phase::Handshake, Reason::Closed);
        return;
    }
    let (Some(client), Some(upstream)) = (take_apart(client), take_apart(upstream)) else {
        tracing::error!(
            request_id = entry.request_id,
            "a socket could not be taken from the front"
        );
        entry.end = End::new(Side::Elbows, Phase::Handshake, Reason::NoRoom);
        return;
    };
    front.counters.tunnels.add(1);
    // The relay's end of it counts it out.
    open.keep();
    entry.client.seat.keep();
    front.relay.adopt(Tunnel::new(protocol, client, upstream, entry.into_identity(address)));
}

/// The plain socket, and what was read from it already.
fn take_apart(inbox: Inbox) -> Option<(std::net::TcpStream, Vec<u8>)> {
    let unread = inbox.unread.to_vec();
    let socket: TcpStream = inbox.socket.into_inner();
    Some((socket.into_std().ok()?, unread))
}
