//! The admin port (`ADMIN_LISTEN_ON`): metrics, tunnels and what happens now, for operators, whose page is at `/`, and
//! their programs.
//!
//! hyper speaks HTTP here. It is off the path of clients: control answers, on its thread, and asks workers for what they
//! alone know, which they tell in small parts between their rounds. What comes to the port is bounded: connections
//! ([`places`]), the time of each request, the memory of a head.

mod body;
mod events;
mod page;
mod places;
mod routes;
mod scrape;
mod summary;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;

use self::places::Places;
pub(super) use self::scrape::Scrape;
use super::listeners::AdminListener;
use super::server::Server;
use crate::config::{AdminListenOn, Config, Fault};
use crate::handoff::socket;
use crate::socket::tune;

pub(super) use self::events::run as run_events;

/// How long a request head may take.
const HEAD: Duration = Duration::from_secs(10);

/// The largest request head, in bytes: as much as hyper can do with.
const LARGEST_HEAD: usize = 16 * 1024;

/// How long accepting pauses where it fails: mostly no descriptor is free, which nobody tells of.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks at the path of a UNIX socket, as far as that can be said before it is bound.
///
/// # Errors
/// The setting, its value and the rule.
pub fn check_admin(config: &Config) -> Result<(), Fault> {
    let Some(AdminListenOn::Unix(path)) = &config.admin_listen_on else { return Ok(()) };
    socket::check(path).map_err(|fault| Fault::Invalid {
        variable: "ADMIN_LISTEN_ON",
        value: path.display().to_string(),
        rule: fault.to_string(),
    })
}

/// Serves the admin port, to the end of the task. Connections that are open then go on.
pub(super) async fn serve(listener: AdminListener, server: Arc<Server>) -> io::Result<()> {
    let places = Places::start();
    match listener {
        AdminListener::Tcp(listener) => {
            tune(&listener, server.proxy.config.stall_timeout);
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                match listener.accept().await {
                    Ok((socket, _)) => connect(socket, false, &places, &server),
                    Err(error) => pause(&error).await,
                }
            }
        }
        AdminListener::Unix(listener) => {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            loop {
                match listener.accept().await {
                    Ok((socket, _)) => connect(socket, true, &places, &server),
                    Err(error) => pause(&error).await,
                }
            }
        }
    }
}

async fn pause(error: &io::Error) {
    tracing::debug!(%error, "the admin port accepts no connection");
    sleep(PAUSE).await;
}

/// Serves one connection, where there is a place for it.
fn connect(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    is_local: bool,
    places: &Arc<Places>,
    server: &Arc<Server>,
) {
    let Some(number) = places.take() else {
        return tracing::debug!("the admin port has no place for another connection");
    };
    let (server, of_connection) = (Arc::clone(server), Arc::clone(places));
    let seat = places.seat(number);
    let task = tokio::spawn(async move {
        let mut leaves = server.handed_on.subscribe();
        let service = service_fn(|request| {
            let (server, places) = (Arc::clone(&server), Arc::clone(&of_connection));
            async move { routes::answer(request, is_local, &server, places.busy(number)).await }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(LARGEST_HEAD)
            .serve_connection(TokioIo::new(socket), service);
        let mut connection = pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            // Whoever asks again is to ask the process that has the tunnels.
            () = async { drop(leaves.wait_for(|has_left| *has_left).await) } => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "a connection of the admin port broke");
        }
        drop(seat);
    });
    places.sits(number, task.abort_handle());
}
