//! The port for health checks alone (`HEALTH_LISTEN_ON`), which control serves: it reads requests by the same rules as
//! any other, and needs no more of HTTP than heads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};

use crate::http::head::{Reader, Request};
use crate::http::health::{self, NOT_SERVED};
use crate::http::hop::ConnectionOptions;
use crate::http::own::Form;
use crate::http::reject::{From, Rejection};
use crate::http::request_id::RequestId;
use crate::listener;
use crate::proxy::Proxy;

/// How long a connection that we end is read on: closing it with bytes unread would reset it, and the reset could
/// overtake the answer (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(1);

/// Room for one read.
const ROOM: usize = 4 * 1024;

/// Answers health checks on their own port, to the very end of the process.
pub(super) async fn serve(listener: TcpListener, proxy: Arc<Proxy>, is_healthy: Arc<AtomicBool>) {
    listener::accept(&listener, &proxy.counters, |socket| {
        let (proxy, is_healthy) = (Arc::clone(&proxy), Arc::clone(&is_healthy));
        tokio::spawn(async move { connection(socket, &proxy, &is_healthy).await });
    })
    .await;
}

async fn connection(mut socket: TcpStream, proxy: &Proxy, is_healthy: &AtomicBool) {
    // One that has gone by now was a TCP check.
    let Ok(from) = socket.peer_addr() else { return proxy.counters.probes.add(1) };
    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
    let config = &proxy.config;
    let mut reader = Reader::default();
    let mut unread = Vec::new();
    let mut is_used = false;
    let mut until = Instant::now() + config.request_head_timeout;
    loop {
        let mut out = Vec::new();
        let keeps = match reader.request(&unread, &proxy.head_limits()) {
            Ok(Some((head, used))) => {
                let keeps = answer(&head, proxy, is_healthy, &mut out);
                unread.drain(..used);
                keeps
            }
            Err(fault) => refuse(&Rejection::BadHead(fault), &unread, from, proxy, &mut out),
            Ok(None) => {
                let mut room = [0; ROOM];
                match timeout_at(until, socket.read(&mut room)).await {
                    Ok(Ok(count @ 1..)) => {
                        unread.extend_from_slice(room.get(..count).unwrap_or_default());
                        continue;
                    }
                    // Without a byte: a TCP health check.
                    Ok(_) if !is_used && unread.is_empty() => return proxy.counters.probes.add(1),
                    Ok(_) => return,
                    // Nothing was asked: an idle connection.
                    Err(_) if unread.is_empty() => return,
                    Err(_) => refuse(&Rejection::SlowHead, &unread, from, proxy, &mut out),
                }
            }
        };
        let sent = timeout(config.stall_timeout, socket.write_all(&out)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
        if !keeps {
            let _ = timeout(LINGER, close(socket)).await;
            return;
        }
        is_used = true;
        until = Instant::now() + config.request_head_timeout;
    }
}

/// Answers a request; whether the connection goes on. It ends behind a body, which nobody wants.
fn answer(head: &Request<'_>, proxy: &Proxy, is_healthy: &AtomicBool, out: &mut Vec<u8>) -> bool {
    let form = Form::of(head, &ConnectionOptions::of(&head.fields));
    let form = Form { keeps: form.keeps && head.framing.is_empty(), ..form };
    if health::is_check(head, &proxy.config.health_path) {
        health::answer(is_healthy.load(Ordering::Relaxed)).write(out, form);
    } else {
        NOT_SERVED.write(out, form);
    }
    form.keeps
}

fn refuse(
    rejection: &Rejection,
    head: &[u8],
    from: SocketAddr,
    proxy: &Proxy,
    out: &mut Vec<u8>,
) -> bool {
    let from = From { client: from, request_id: &RequestId::none() };
    rejection.note(&from, proxy, Instant::now().into_std());
    let form = Form { to_head: head.starts_with(b"HEAD "), is_http_10: false, keeps: false };
    rejection.answer(|own| own.write(out, form));
    false
}

/// Ends our side, and reads until the other one has ended too.
async fn close(mut socket: TcpStream) {
    let mut room = [0; ROOM];
    if socket.shutdown().await.is_ok() {
        while let Ok(1..) = socket.read(&mut room).await {}
    }
}
