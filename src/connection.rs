//! The story of one connection, from accept to its end.
//!
//! Who is it (the PROXY header), then requests, one after the other. Requests are hyper's matter, behind
//! a check of each byte; upgrades are not: one that is granted takes the socket away with it,
//! through the door to the relay, and the story ends here.
//!
//! Most stories are shorter: a first request that is an upgrade, and is granted, needs nothing of this.
//! [`direct`] is where every connection begins; here those go on that turn out to be something else.

pub(crate) mod direct;
mod identify;
mod refusal;
mod requests;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use self::identify::identify;
use self::requests::requests;
use crate::access_log::Entry;
use crate::client::Client;
use crate::drain::{Open, Stage};
use crate::http::checked::{Checked, Heard};
use crate::http::upgrade::{self, Asked, Begun, Granted};
use crate::http::{Front, reject};
use crate::inbox::Inbox;
use crate::limits::{Over, Seat};

/// A connection that has come to the front.
pub(crate) struct Arrived {
    socket: TcpStream,
    /// What was read of it, and has not yet been dealt with.
    unread: BytesMut,
    balancer: SocketAddr,
    accepted: std::time::Instant,
    so_far: SoFar,
}

/// How far a connection has come on the direct way.
enum SoFar {
    /// Nobody knows yet who it is, or only since when one could know.
    Nobody { seat: Result<Seat, Over>, identified: Option<std::time::Instant> },
    /// Its upgrade, which is unread, is on its way.
    Asking(Arc<Client>, Box<Begun>),
    /// Its upgrade was granted, and the client is still to be told.
    Granted(Box<(Entry, Granted, Asked)>),
}

/// Serves one connection until it ends or leaves as a tunnel. On the heap, where it stays: the runtime moves
/// what it spawns several times.
fn serve(arrived: Arrived, open: Open, front: Arc<Front>) -> impl Future<Output = ()> + Send {
    Box::pin(async move {
        story(arrived, front).await;
        drop(open);
    })
}

async fn story(arrived: Arrived, front: Arc<Front>) {
    let Arrived { socket, unread, balancer, accepted, so_far } = arrived;
    let mut inbox = Inbox::new(socket);
    inbox.unread = unread;
    let mut begun = None;
    let mut identified_at = None;
    let client = match so_far {
        SoFar::Nobody { seat, identified } => {
            let deadline = Instant::from(accepted) + front.config.proxy_header_timeout;
            let mut drain = front.drain.clone();
            let who = tokio::select! {
                who = timeout_at(deadline, identify(&mut inbox, balancer, &front.config)) => who,
                // Nothing has been asked yet, so nobody is owed an answer.
                () = drain.reached(Stage::Finishing) => return,
            };
            let mut client = match who {
                Ok(Ok(Some(client))) => client,
                // It closed before its first byte: a TCP health check.
                Ok(Ok(None)) => return front.counters.probes.add(1),
                Ok(Err(fault)) => return fault.note(balancer, &front.counters),
                Err(_) => return identify::Fault::TooSlow.note(balancer, &front.counters),
            };
            identified_at = identified.map(Instant::from);
            let is_handshake = || refusal::is_handshake(&inbox.unread, &front.config);
            let admitted = refusal::admit(seat, &mut client, is_handshake, &front);
            inbox.limit_stalls(front.config.stall_timeout, client.stalled.clone());
            if let Err(over) = admitted {
                return Box::pin(refusal::answer(inbox, over, client, &front)).await;
            }
            Arc::new(client)
        }
        SoFar::Asking(client, asking) => {
            inbox.limit_stalls(front.config.stall_timeout, client.stalled.clone());
            begun = Some(*asking);
            client
        }
        SoFar::Granted(granted) => {
            let (entry, granted, asked) = *granted;
            return Box::pin(upgrade::open_granted(inbox, granted, asked, entry, &front)).await;
        }
    };
    let mut connection = Checked::new(inbox, &client, Arc::clone(&front));
    loop {
        let mut answer = None;
        let idle_since = connection.idle_since();
        let since = identified_at.take().or(idle_since).unwrap_or_else(Instant::now);
        match next(&mut connection, &mut begun, since, &client, &front).await {
            Some(Heard::Request) => {}
            Some(Heard::Other(begun)) => {
                match Box::pin(upgrade::open(begun, connection, &front)).await {
                    Some((back, response)) => (connection, answer) = (back, Some(response)),
                    None => return,
                }
            }
            Some(Heard::Fault(fault)) => {
                let inbox = connection.into_inbox();
                let words = reject::head(fault, &inbox.unread, &client, &front);
                return inbox.answer_and_close(words.as_bytes()).await;
            }
            Some(Heard::TooSlow) => {
                let inbox = connection.into_inbox();
                let words = reject::slow_head(&inbox.unread, &client, &front);
                return inbox.answer_and_close(words.as_bytes()).await;
            }
            // Nothing but a PROXY header, or not even that, then closed: a TCP health check as well.
            Some(Heard::Closed) if connection.is_unused() && idle_since.is_none() => {
                return front.counters.probes.add(1);
            }
            Some(Heard::Closed) | None => return,
        }
        // On the heap, for hyper's state is large, and most connections become tunnels without it.
        match Box::pin(requests(connection, answer, &client, &front)).await {
            Some(back) => connection = back,
            None => return,
        }
    }
}

/// Waits for the next request; not for ever, and not in a drain. One whose handshake has `begun` is there.
async fn next(
    connection: &mut Checked,
    begun: &mut Option<Begun>,
    since: Instant,
    client: &Arc<Client>,
    front: &Front,
) -> Option<Heard<Begun>> {
    let mut drain = front.drain.clone();
    let asked = connection
        .hear(|head| begun.take().or_else(|| upgrade::take(head, client, front).map(Begun::now)));
    let in_time = tokio::select! {
        biased;
        in_time = timeout_at(since + front.config.request_head_timeout, asked) => in_time,
        () = drain.reached(Stage::Finishing) => return None,
    };
    if in_time.is_err() && !connection.is_unused() {
        return Some(Heard::TooSlow);
    }
    in_time.ok()
}
