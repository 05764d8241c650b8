//! Requests that hyper serves, one after the other. While none is there it is not hyper that waits: [`Checked`]
//! is given back, and time limits of heads are the story's.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ::http::header::CONNECTION;
use ::http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;

use crate::access_log::Entry;
use crate::client::Client;
use crate::drain::Stage;
use crate::http::checked::{Answer, Checked};
use crate::http::{self, Front, ServerWide, ToClient, reject};

/// The fields of a head that hyper takes by itself.
const HYPERS_MAX_HEADERS: usize = 100;

/// Serves requests until the client or elbows has had enough, or one comes that is not for hyper, or none for
/// a while. The first may have its answer already.
pub(super) async fn requests(
    checked: Checked,
    answer: Option<Response<ToClient>>,
    client: &Arc<Client>,
    front: &Arc<Front>,
) -> Option<Checked> {
    let answering = AtomicBool::new(false);
    let is_http_10 = AtomicBool::new(false);
    let under_way = checked.under_way();
    let answer = Mutex::new(answer);
    let service = service_fn(|mut request: Request<Incoming>| {
        if under_way.is_server_wide() {
            request.extensions_mut().insert(ServerWide);
        }
        is_http_10.store(request.version() == Version::HTTP_10, Ordering::Relaxed);
        answering.store(true, Ordering::Relaxed);
        let ready = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let asked =
            ready.is_none().then(|| http::answer(request, Arc::clone(client), Arc::clone(front)));
        let (answering, under_way) = (&answering, Arc::clone(&under_way));
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
            Ok(response.map(|body| Answer::new(body, under_way)))
        }
    });
    let mut builder = http1::Builder::new();
    // Asked for nothing else, hyper needs no memory for the fields' places.
    if front.config.max_headers != HYPERS_MAX_HEADERS {
        builder.max_headers(front.config.max_headers);
    }
    let mut connection = builder
        // The buffer bounds what is waited for; one read may take more than that at once.
        .max_buf_size(front.config.max_header_size)
        .max_header_size(front.config.max_header_size)
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
    if error.is_parse_too_large() {
        front.counters.large_heads.add(1);
    }
    let mut entry =
        Entry::new(front.access_log.clone(), Arc::clone(client), Cow::default(), String::new());
    entry.status = Some(status);
    entry.end = end;
}
