//! Events as they come (server-sent events): a summary each second, and a sample of what opens and ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::summary::Summary;
use crate::admin::json;
use crate::control::server::Server;
use crate::feed::{Event, Follower};

/// How often a summary is told.
const EACH: Duration = Duration::from_secs(1);

/// Events that wait for one client.
const WAITING: usize = 16;

/// How long a client may take none.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells a summary each second, while anybody follows.
pub(in crate::control) async fn run(server: Arc<Server>) {
    let mut each = interval(EACH);
    each.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        each.tick().await;
        let feed = &server.proxy.feed;
        feed.begin_second();
        if feed.is_followed() {
            feed.tell("summary", &Summary::now(&server).await);
        }
    }
}

/// Events of a client from now on, as they stand in the stream.
pub(super) fn follow(server: &Arc<Server>) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let follower = server.proxy.feed.follow();
    let server = Arc::clone(server);
    tokio::spawn(async move { pass_on(&server, follower, &sender).await });
    receiver
}

async fn pass_on(server: &Server, mut follower: Follower, to: &mpsc::Sender<Bytes>) {
    let first = Summary::now(server).await;
    let data = json::write(&first).unwrap_or_default();
    let mut next = Some(Event { name: "summary", data: data.into() });
    let mut leaves = server.handed_on.subscribe();
    loop {
        if let Some(Event { name, data }) = next.take() {
            // JSON of ours has no line breaks.
            let text = format!("event: {name}\ndata: {data}\n\n");
            if !matches!(timeout(PATIENCE, to.send(text.into())).await, Ok(Ok(()))) {
                return;
            }
        }
        tokio::select! {
            // Another process has the listener, and the tunnels: whoever follows asks there.
            _ = leaves.wait_for(|is_gone| *is_gone) => return,
            () = to.closed() => return,
            event = follower.events.recv() => match event {
                Ok(event) => next = Some(event),
                // It was too slow for some: the next ones count.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }
}
