//! The story of one connection, from accept to its end.
//!
//! Who is it (the PROXY header), then requests, one after the other. Requests are hyper's matter, behind
//! a check of each byte; upgrades are not: one that is granted takes the socket away with it,
//! through the door to the relay, and the story ends here.

mod identify;
mod refusal;
mod requests;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use self::identify::identify;
use self::requests::requests;
use crate::client::Client;
use crate::drain::Stage;
use crate::http::checked::{Checked, Heard};
use crate::http::upgrade::{self, Handshake};
use crate::http::{Front, reject};
use crate::inbox::Inbox;

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
    let seat = front.limits.enter();
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
    let client = Arc::new(client);
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
            Some(Heard::TooSlow) => {
                let inbox = connection.into_inbox();
                let words = reject::slow_head(&inbox.unread, &client, &front);
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
    if in_time.is_err() && !connection.is_unused() {
        return Some(Heard::TooSlow);
    }
    in_time.ok()
}
