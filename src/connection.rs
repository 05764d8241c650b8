//! The story of one connection, from accept to its end.
//!
//! Who is it (the PROXY header), then requests, one after the other. Requests are hyper's matter, behind
//! a check of each byte; upgrades are not: one that is granted takes the socket away with it,
//! through the door to the relay, and the story ends here.

mod identify;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ::http::header::CONNECTION;
use ::http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use self::identify::identify;
use crate::access_log::Entry;
use crate::client::Client;
use crate::drain::Stage;
use crate::http::checked::{Answer, Checked, Heard};
use crate::http::upgrade::{self, Handshake};
use crate::http::{self, Front, ToClient, reject};
use crate::inbox::Inbox;
use crate::socket;

/// The longest request head; also the most that is read ahead of a slow upstream.
const MAX_HEAD: usize = 64 * 1024;

/// Serves one connection until it ends or leaves as a tunnel. On the heap, where it stays: the runtime moves
/// what it spawns several times.
pub(crate) fn serve(
    socket: TcpStream,
    balancer: SocketAddr,
    front: Arc<Front>,
) -> impl Future<Output = ()> + Send {
    Box::pin(story(socket, balancer, front))
}

async fn story(socket: TcpStream, balancer: SocketAddr, front: Arc<Front>) {
    let accepted = Instant::now();
    socket::tune(&socket);
    let mut inbox = Inbox::new(socket);

    let deadline = accepted + front.config.proxy_header_timeout;
    let mut drain = front.drain.clone();
    let identified = tokio::select! {
        identified = timeout_at(deadline, identify(&mut inbox, balancer, &front)) => identified,
        // Nothing has been asked yet, so nobody is owed an answer.
        () = drain.reached(Stage::Finishing) => return,
    };
    let client = match identified {
        Ok(Ok(Some(client))) => Arc::new(client),
        // It closed before its first byte: a TCP health check.
        Ok(Ok(None)) => return front.counters.probes.add(1),
        Ok(Err(fault)) => return fault.note(balancer, &front.counters),
        Err(_) => return identify::Fault::TooSlow.note(balancer, &front.counters),
    };
    let mut connection = Checked::new(inbox, &client, Arc::clone(&front));
    loop {
        let mut answer = None;
        match next(&mut connection, &client, &front).await {
            Some(Heard::Request) => {}
            Some(Heard::Other(handshake)) => {
                match upgrade::open(handshake, connection, &front).await {
                    Some((back, response)) => (connection, answer) = (back, Some(response)),
                    None => return,
                }
            }
            Some(Heard::Fault(fault)) => {
                let inbox = connection.into_inbox();
                let words = reject::head(fault, &inbox.unread, &client, &front);
                return inbox.answer_and_close(words.as_bytes()).await;
            }
            // Nothing but a PROXY header, or not even that, then closed: a TCP health check as well.
            Some(Heard::Closed) if connection.is_unused() => return front.counters.probes.add(1),
            Some(Heard::Closed) | None => return,
        }
        // On the heap, for hyper's state is large, and most connections become tunnels without it.
        match Box::pin(requests(connection, answer, &client, &front)).await {
            Some(back) => connection = back,
            None => return,
        }
    }
}

/// Waits for the next request; not for ever, and not in a drain.
async fn next(
    connection: &mut Checked,
    client: &Arc<Client>,
    front: &Front,
) -> Option<Heard<Handshake>> {
    let mut drain = front.drain.clone();
    let asked = connection.hear(|head| upgrade::take(head, client, front));
    let in_time = tokio::select! {
        biased;
        in_time = timeout(front.config.request_head_timeout, asked) => in_time,
        () = drain.reached(Stage::Finishing) => return None,
    };
    if in_time.is_err() {
        tracing::debug!(client = %client.address, "no request within REQUEST_HEAD_TIMEOUT");
    }
    in_time.ok()
}

/// Serves requests until the client or elbows has had enough, or one comes that is not for hyper. The first
/// may have its answer already.
async fn requests(
    checked: Checked,
    answer: Option<Response<ToClient>>,
    client: &Arc<Client>,
    front: &Arc<Front>,
) -> Option<Checked> {
    let answering = AtomicBool::new(false);
    let is_http_10 = AtomicBool::new(false);
    let busy = checked.busy();
    let answer = Mutex::new(answer);
    let service = service_fn(|request: Request<Incoming>| {
        is_http_10.store(request.version() == Version::HTTP_10, Ordering::Relaxed);
        answering.store(true, Ordering::Relaxed);
        let ready = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let asked =
            ready.is_none().then(|| http::answer(request, Arc::clone(client), Arc::clone(front)));
        let (answering, busy) = (&answering, Arc::clone(&busy));
        async move {
            let mut response = match (ready, asked) {
                (Some(response), _) => response,
                (None, Some(asked)) => asked.await,
                (None, None) => return Err("neither answer nor request"),
            };
            answering.store(false, Ordering::Relaxed);
            if front.drain.is_finishing() {
                // This connection is not kept.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| Answer::new(body, busy)))
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(front.config.request_head_timeout)
        // The buffer bounds what is waited for; one read may take more than that at once.
        .max_buf_size(MAX_HEAD)
        .max_header_size(MAX_HEAD)
        .preserve_header_case(true)
        .serve_connection(checked, service);
    let mut drain = front.drain.clone();

    let served = tokio::select! {
        served = &mut connection => served,
        () = drain.reached(Stage::Finishing) => {
            // What is under way is answered, with Connection: close; an idle connection closes now.
            if !answering.load(Ordering::Relaxed) {
                Pin::new(&mut connection).graceful_shutdown();
            }
            tokio::select! {
                served = &mut connection => served,
                () = drain.reached(Stage::Over) => {
                    // A request under way holds its client; a connection that only closes does not.
                    if Arc::strong_count(client) > 1 {
                        front.counters.cut.add(1);
                    }
                    return None;
                }
            }
        }
    };
    let checked = connection.into_parts().io;
    match served {
        Ok(()) => return checked.is_held().then_some(checked),
        Err(error) => {
            note_end(&error, client, front);
            if error.is_user() && is_http_10.load(Ordering::Relaxed) {
                // A response that was cut: hyper calls that the user's error. To HTTP/1.0 the end of the
                // connection is the end of the body, and a good one.
                checked.into_inbox().close_with_reset();
            }
        }
    }
    None
}

/// Tells of a connection that did not end as HTTP wants it.
fn note_end(error: &hyper::Error, client: &Arc<Client>, front: &Front) {
    tracing::debug!(client = %client.address, "connection ended: {error}");
    let Some((status, end)) = reject::connection_end(error) else { return };
    front.counters.refused_heads.add(1);
    let mut entry =
        Entry::new(front.access_log.clone(), Arc::clone(client), String::new(), String::new());
    entry.status = Some(status);
    entry.end = end;
}
