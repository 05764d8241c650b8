//! elbows as the demo runs it: the server of the binary, with the settings that a user would have.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::sync::mpsc;

use super::Stop;
use crate::access_log::AccessLog;
use crate::config::{AccessLogFormat, Config};
use crate::server::{self, Listeners, Order};

/// Serves `listener` in front of `application` until it is told to stop.
///
/// The defaults hold but for the drain: nobody looks at the health of a demo, and the application has
/// ended its WebSockets by then.
///
/// # Errors
/// The server could not be started.
pub async fn front(
    listener: TcpListener,
    application: SocketAddr,
    mut stop: Stop,
) -> io::Result<()> {
    let host = application.ip().to_string();
    let config = Config {
        drain_delay: Duration::ZERO,
        drain_period: Duration::from_secs(1),
        ..Config::for_destination(listener.local_addr()?, &host, application.port())
    };
    let (access_log, _) = AccessLog::start(AccessLogFormat::Off, false, io::sink())?;
    let (orders, told) = mpsc::channel(1);
    let listeners = Listeners { main: listener, health: None };
    let stopping = async {
        stop.asked().await;
        // An error means that the server has ended by itself.
        let _ = orders.send(Order::Stop).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        served = server::run(config, listeners, access_log, told) => served.map(|_| ()),
        () = stopping => Ok(()),
    }
}
