//! A request that is an upgrade: the handshake, and the door to the relay.
//!
//! It goes to the upstream on a connection of its own. When the upstream answers 101, hyper is taken
//! apart on both sides, and two plain sockets with the bytes that were read too far become a tunnel.

use std::sync::Arc;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::{OnUpgrade, Parts, Upgraded};
use tokio::net::TcpStream;

use super::plain::{head, pass_back};
use super::reject::Rejection;
use super::{FromClient, Front, ToClient, hop};
use crate::access_log::Entry;
use crate::drain::Open;
use crate::end::{End, Phase, Reason, Side};
use crate::inbox::Inbox;
use crate::tunnel::{Protocol, Tunnel};
use crate::upstream::MAX_BUFFER;

/// Sends the handshake; a 101 opens a tunnel, any other answer goes back as it is.
pub(super) async fn pass(
    mut request: Request<Incoming>,
    offer: HeaderValue,
    mut entry: Entry,
    front: &Arc<Front>,
) -> Result<Response<ToClient>, (Rejection, Entry)> {
    let client_side = hyper::upgrade::on(&mut request);
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    request.headers_mut().insert(UPGRADE, offer.clone());
    *request.version_mut() = Version::HTTP_11;

    let (socket, address) = match front.upstream.connect().await {
        Ok(connected) => connected,
        Err(fault) => {
            entry.upstream = fault.address();
            return Err((Rejection::Connection(fault), entry));
        }
    };
    entry.upstream = Some(address);
    let mut response = match handshake(socket, request, &entry, front).await {
        Ok(response) => response,
        Err(rejection) => return Err((rejection, entry)),
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(pass_back(response, entry));
    }
    let chosen = response.headers().get(UPGRADE);
    if !was_offered(&offer, chosen) {
        return Err((Rejection::UnaskedUpgrade, entry));
    }
    let protocol = protocol(chosen);

    entry.status = Some(StatusCode::SWITCHING_PROTOCOLS.as_u16());
    let upstream_side = hyper::upgrade::on(&mut response);
    tokio::spawn(open_tunnel(
        front.census.enter(),
        client_side,
        upstream_side,
        protocol,
        entry,
        Arc::clone(front),
    ));
    let (mut parts, _) = response.into_parts();
    hop::strip_response(parts.status, &mut parts.headers);
    // RFC 6455, section 4.1, asks the client for exactly that; the upstream's own may be 1.0.
    parts.version = Version::HTTP_11;
    Ok(Response::from_parts(parts, ToClient::own("")))
}

async fn handshake(
    socket: TcpStream,
    request: Request<Incoming>,
    entry: &Entry,
    front: &Front,
) -> Result<Response<Incoming>, Rejection> {
    let closed = |error: hyper::Error| {
        if error.is_parse() {
            Rejection::MalformedResponse(error.to_string())
        } else if error.is_user() {
            Rejection::CutBody
        } else {
            Rejection::UpstreamClosed(error.to_string())
        }
    };
    let progress = Arc::clone(&entry.from_client);
    let (most, limit) = (front.config.max_body_size, front.config.response_head_timeout);
    let request =
        request.map(|body| FromClient::new(body, Arc::clone(&progress), None, most, limit));
    let (mut sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .max_buf_size(MAX_BUFFER)
        .handshake(Inbox::new(socket))
        .await
        .map_err(closed)?;
    // Its end is told to whoever waits for the response or reads its body.
    tokio::spawn(connection.with_upgrades());
    head(sender.send_request(request), &progress, limit).await?.map_err(closed)
}

/// Whether the protocol of a 101 is one of those that were offered.
fn was_offered(offer: &HeaderValue, chosen: Option<&HeaderValue>) -> bool {
    let (Ok(offer), Some(Ok(chosen))) = (offer.to_str(), chosen.map(HeaderValue::to_str)) else {
        return false;
    };
    offer.split(',').any(|item| item.trim().eq_ignore_ascii_case(chosen.trim()))
}

/// What a 101 says will be spoken (RFC 6455, section 4.2.2: the word in any case).
fn protocol(chosen: Option<&HeaderValue>) -> Protocol {
    let is_websocket = chosen
        .and_then(|chosen| chosen.to_str().ok())
        .is_some_and(|chosen| chosen.trim().eq_ignore_ascii_case("websocket"));
    if is_websocket { Protocol::WebSocket } else { Protocol::Other }
}

/// Waits until the 101 has gone out, then makes the tunnel and gives it to the relay.
///
/// `open` comes first and is dropped last: whoever waits for it finds the log line written.
async fn open_tunnel(
    open: Open,
    client_side: OnUpgrade,
    upstream_side: OnUpgrade,
    protocol: Protocol,
    mut entry: Entry,
    front: Arc<Front>,
) {
    let client = match client_side.await {
        Ok(client) => client,
        Err(error) => {
            tracing::debug!(client = %entry.client.address, "left before the 101: {error}");
            entry.end = End::new(Side::Client, Phase::Handshake, Reason::Closed);
            return;
        }
    };
    let upstream = match upstream_side.await {
        Ok(upstream) => upstream,
        Err(error) => {
            tracing::debug!(request_id = entry.request_id, "left behind the 101: {error}");
            entry.end = End::new(Side::Upstream, Phase::Handshake, Reason::Closed);
            return;
        }
    };
    let (Some((client, from_client)), Some((upstream, from_upstream)), Some(address)) =
        (take_apart(client), take_apart(upstream), entry.upstream)
    else {
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
    front.relay.adopt(Tunnel::new(
        protocol,
        (client, from_client),
        (upstream, from_upstream),
        entry.into_identity(address),
    ));
}

/// The plain socket under an upgraded connection, and what was read from it already.
fn take_apart(upgraded: Upgraded) -> Option<(std::net::TcpStream, Vec<u8>)> {
    let Parts { io, read_buf, .. } = upgraded.downcast::<Inbox>().ok()?;
    let socket = io.socket.into_inner().into_std().ok()?;
    let mut unread = Vec::with_capacity(read_buf.len() + io.unread.len());
    unread.extend_from_slice(&read_buf);
    unread.extend_from_slice(&io.unread);
    Some((socket, unread))
}
