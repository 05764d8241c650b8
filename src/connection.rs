//! The story of one connection, from accept to its end.
//!
//! Who is it (the PROXY header), then requests, one after the other. A request that is an upgrade
//! takes the socket away with it, through the door to the relay, and the story ends here.

mod identify;
mod refusal;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::http::header::CONNECTION;
use ::http::{HeaderValue, Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use self::identify::identify;
use crate::access_log::Entry;
use crate::client::Client;
use crate::drain::Stage;
use crate::http::{self, Front};
use crate::inbox::Inbox;
use crate::socket;

/// The fields of a head that hyper takes by itself.
const HYPERS_MAX_HEADERS: usize = 100;

/// Serves one connection until it ends or leaves as a tunnel.
pub(crate) async fn serve(socket: TcpStream, balancer: SocketAddr, front: Arc<Front>) {
    let accepted = Instant::now();
    let seat = front.limits.enter();
    socket::tune(&socket, front.config.stall_timeout);
    let mut inbox = Inbox::new(socket);

    let deadline = accepted + front.config.proxy_header_timeout;
    let mut drain = front.drain.clone();
    let identified = tokio::select! {
        identified = timeout_at(deadline, identify(&mut inbox, balancer, &front)) => identified,
        // Nothing has been asked yet, so nobody is owed an answer.
        () = drain.reached(Stage::Finishing) => return,
    };
    let mut client = match identified {
        Ok(Ok(Some(client))) => client,
        // It closed before its first byte: a TCP health check.
        Ok(Ok(None)) => return front.counters.probes.add(1),
        Ok(Err(fault)) => return fault.note(balancer, &front.counters),
        Err(_) => return identify::Fault::TooSlow.note(balancer, &front.counters),
    };
    inbox.limit_stalls(front.config.stall_timeout, client.stalled.clone());
    if let Err(over) = refusal::admit(seat, &mut client, &inbox.unread, &front) {
        return refusal::answer(inbox, over, client, &front).await;
    }
    requests(inbox, Arc::new(client), front).await;
}

/// Serves requests until the client or elbows has had enough.
async fn requests(inbox: Inbox, client: Arc<Client>, front: Arc<Front>) {
    let asked = AtomicBool::new(false);
    let answering = AtomicBool::new(false);
    let is_http_10 = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        is_http_10.store(request.version() == Version::HTTP_10, Ordering::Relaxed);
        answering.store(true, Ordering::Relaxed);
        let answer = http::answer(request, Arc::clone(&client), Arc::clone(&front));
        let (front, answering) = (&front, &answering);
        async move {
            let mut response = answer.await;
            answering.store(false, Ordering::Relaxed);
            // This connection is not kept; a 101 says of it what it must (see below).
            if front.drain.is_finishing() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut builder = http1::Builder::new();
    // Asked for nothing else, hyper needs no memory for the fields' places.
    if front.config.max_headers != HYPERS_MAX_HEADERS {
        builder.max_headers(front.config.max_headers);
    }
    let mut connection = builder
        .timer(TokioTimer::new())
        .header_read_timeout(front.config.request_head_timeout)
        // The buffer bounds what is waited for; one read may take more than that at once.
        .max_buf_size(front.config.max_header_size)
        .max_header_size(front.config.max_header_size)
        .preserve_header_case(true)
        .serve_connection(inbox, service)
        .with_upgrades();
    let mut drain = front.drain.clone();

    let served = tokio::select! {
        served = &mut connection => served,
        () = drain.reached(Stage::Finishing) => {
            // What is under way is answered, with Connection: close; an idle connection closes now.
            // hyper would write Connection: close into a 101 as well, and so spoil it.
            if !answering.load(Ordering::Relaxed) {
                Pin::new(&mut connection).graceful_shutdown();
            }
            tokio::select! {
                served = &mut connection => served,
                () = drain.reached(Stage::Over) => {
                    // A request under way holds its client; a connection that only closes does not.
                    if Arc::strong_count(&client) > 1 {
                        front.counters.cut.add(1);
                    }
                    return;
                }
            }
        }
    };
    let nothing_asked = !asked.load(Ordering::Relaxed);
    let error = match served {
        // Nothing but a PROXY header, or not even that, then closed: a TCP health check as well.
        Ok(()) if nothing_asked => return front.counters.probes.add(1),
        Ok(()) => return,
        Err(error) => error,
    };
    note_end(&error, &client, &front);
    let Some(parts) = connection.into_parts() else { return };
    if error.is_parse_version_h2() {
        // hyper closes without a word.
        parts.io.answer_and_close(http::reject::VERSION_NOT_SUPPORTED).await;
    } else if error.is_user() && is_http_10.load(Ordering::Relaxed) {
        // A response that was cut: hyper calls that the user's error. To HTTP/1.0 the end of the
        // connection is the end of the body, and a good one.
        parts.io.close_with_reset();
    }
}

/// Tells of a connection that did not end as HTTP wants it.
fn note_end(error: &hyper::Error, client: &Arc<Client>, front: &Front) {
    tracing::debug!(client = %client.address, "connection ended: {error}");
    let Some((status, end)) = http::reject::connection_end(error) else { return };
    front.counters.refused_heads.add(1);
    if error.is_parse_too_large() {
        front.counters.large_heads.add(1);
    }
    let mut entry =
        Entry::new(front.access_log.clone(), Arc::clone(client), String::new(), String::new());
    entry.status = Some(status);
    entry.end = end;
}
