//! elbows as `elbows demo` runs it: the server of this binary, with the settings that a user would have.
//!
//! Part of the binary, not of the library. All else of the demonstration is a crate of its own, `demo/`, which
//! knows nothing of elbows: it is given this function.

use std::io;
use std::time::Duration;

use elbows::access_log::AccessLog;
use elbows::config::routing::Routing;
use elbows::config::{AccessLogFormat, AdminListenOn, AdminToken, Config};
use elbows::control::{self, AdminListener, Listeners, Order, Start};
use elbows::notify::Notify;
use elbows_demo::{Front, Stop};
use tokio::sync::mpsc;

/// Serves the listener of `front` in front of its application, and the admin port, until it is told to stop.
///
/// The defaults hold but for the drain: nobody looks at the health of a demo, and the application has
/// ended its WebSockets by then.
///
/// # Errors
/// The server could not be started.
pub(crate) async fn front(front: Front, mut stop: Stop) -> io::Result<()> {
    let Front { listener, application, admin, token } = front;
    let host = application.ip().to_string();
    let config = Config {
        access_log: AccessLogFormat::Off,
        admin_listen_on: Some(AdminListenOn::Tcp(admin.local_addr()?)),
        admin_token: Some(AdminToken::new(&token)),
        drain_delay: Duration::ZERO,
        drain_period: Duration::from_secs(1),
        ..Config::for_destination(listener.local_addr()?, &host, application.port())
    };
    let (access_log, _) = AccessLog::start(&config, io::sink())?;
    let (orders, told) = mpsc::channel(1);
    let admin = Some(AdminListener::Tcp(admin));
    let listeners = Listeners { main: listener, health: None, admin, handoff: None };
    let routing = Routing::default();
    let stopping = async {
        stop.asked().await;
        // An error means that the server has ended by itself.
        let _ = orders.send(Order::Stop).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        served = control::run(config, &routing, Start::Alone(listeners), access_log, told, Notify::default()) => served.map(|_| ()),
        () = stopping => Ok(()),
    }
}
