//! How successors come in: one at a time, and those behind it hear that there is one.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::{BUILD, Conversation, Event, PAUSE, Role, receive, release, send, start_of_count};
use crate::control::Server;
use crate::handoff::message::{Message, Offer, PROTOCOL, RefuseWhy};
use crate::handoff::predecessor::Predecessor;
use crate::handoff::socket::{Connection, Listener};
use crate::handoff::{ANSWER, Outcome};

/// The door for successors: one conversation at a time, and what control says to it.
pub(in crate::control) struct Door {
    /// A conversation is under way.
    is_busy: AtomicBool,
    /// The conversation, where there is one, moves tunnels: what is told to stop may as well let it.
    pub(super) is_moving: watch::Sender<bool>,
    /// Changes when the process is told to stop.
    pub(super) stop: watch::Sender<()>,
}

impl Default for Door {
    fn default() -> Self {
        let is_busy = AtomicBool::new(false);
        Self { is_busy, is_moving: watch::Sender::new(false), stop: watch::Sender::new(()) }
    }
}

impl Door {
    /// A conversation begins. False: there is one already. A panic of it leaves the door to whoever sees to that.
    fn enter(&self) -> bool {
        !self.is_busy.swap(true, Ordering::Relaxed)
    }

    /// It is over.
    fn leave(&self) {
        self.is_busy.store(false, Ordering::Relaxed);
    }

    /// Whether another process asks to take over, or is doing so.
    pub(in crate::control) fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Relaxed)
    }

    /// The process is told to stop. Whether a conversation goes on all the same, and will tell how it ends.
    pub(in crate::control) fn stop(&self) -> bool {
        self.stop.send_replace(());
        self.is_busy.load(Ordering::Relaxed) && *self.is_moving.borrow()
    }

    /// Waits until a conversation that moved tunnels takes them back. One that is over tells how it ended.
    pub(in crate::control) async fn takes_back(&self) {
        // The sender is this one's.
        let _ = self.is_moving.subscribe().wait_for(|is_moving| !is_moving).await;
    }
}

/// Accepts successors, for as long as it is not dropped.
pub(in crate::control) async fn accept(
    server: Arc<Server>,
    listener: OwnedFd,
    events: mpsc::Sender<Event>,
) {
    let listener = match Listener::new(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "nobody can take over: HANDOFF_SOCKET"),
    };
    loop {
        match listener.accept().await {
            Ok(connection) if connection.is_same_user().unwrap_or(false) => {
                tokio::spawn(watched(Arc::clone(&server), connection, events.clone()));
            }
            Ok(_) => tracing::warn!("a process of another user wanted to take over"),
            Err(error) => {
                tracing::error!(%error, "a process that would take over was not accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

/// A panic in there is a mistake of ours, and must not be the end of accepting. Where the successor listens already
/// this process listens no more, and ends what is left here. Otherwise it serves on, and takes back what it has
/// given.
async fn watched(server: Arc<Server>, connection: Connection, events: mpsc::Sender<Event>) {
    if !server.door.enter() {
        return refuse_second(&server, &connection).await;
    }
    let connection = Arc::new(connection);
    let hand_over = hand_over(Arc::clone(&server), Arc::clone(&connection), events.clone());
    if tokio::spawn(hand_over).await.is_ok() {
        return;
    }
    let is_handed_on = *server.handed_on.borrow();
    if is_handed_on {
        // It is not to take the end of the connection for the end of this process, and what was not given for its own.
        let _ = send(&connection, &Message::Bye.to_bytes(), &[]).await;
    } else {
        server.stop_listening();
        server.listen_again();
        let taken_back = tokio::spawn(take_back(Arc::clone(&server), connection)).await;
        if taken_back.is_err() {
            tracing::error!("what another process was given cannot be taken back");
        }
        server.withdraw_successor();
    }
    server.door.leave();
    let event = if is_handed_on { Event::HandedOver } else { Event::Kept };
    let _ = events.send(event).await;
}

async fn hand_over(server: Arc<Server>, connection: Arc<Connection>, events: mpsc::Sender<Event>) {
    let now = Instant::now();
    let drains_in = server.drains_in(now);
    let refuses = drains_in.is_err().then_some(RefuseWhy::Draining);
    let offer = offer(&server, drains_in.unwrap_or_default());
    let finish_within = server.proxy.config.drain_period;
    let machine = Box::new(Predecessor::new(offer, release(), refuses, finish_within, now));
    let mut conversation =
        Conversation::new(connection, Arc::clone(&server), Role::Predecessor, machine, now);
    let outcome = conversation.go_on(|_| false).await;
    let is_done = outcome == Some(Outcome::Done);
    if !is_done {
        server.withdraw_successor();
    }
    server.door.leave();
    conversation.tell(outcome).await;
    let event = if is_done { Event::HandedOver } else { Event::Kept };
    // Control is gone where the process ends.
    let _ = events.send(event).await;
}

/// The conversation that was under way is lost: the successor is told to give back what it has.
async fn take_back(server: Arc<Server>, connection: Arc<Connection>) {
    let now = Instant::now();
    let machine = Box::new(Predecessor::taking_back(offer(&server, None), release(), now));
    let mut conversation = Conversation::new(connection, server, Role::Predecessor, machine, now);
    let outcome = conversation.go_on(|_| false).await;
    conversation.tell(outcome).await;
}

fn offer(server: &Server, drains_in: Option<u64>) -> Offer {
    Offer {
        protocol: PROTOCOL,
        build: BUILD.to_owned(),
        tunnels: server.workers.open() as u64,
        start: start_of_count(),
        places: server.listeners().as_ref().map(|all| all.places().0).unwrap_or_default(),
        drains_in,
    }
}

/// Says to a second successor that there is one already.
async fn refuse_second(server: &Server, connection: &Connection) {
    server.proxy.counters.handoff_refused.add(1);
    let why = RefuseWhy::Busy;
    tracing::warn!("handoff refused why={}: this process serves on", why.as_str());
    let _ = connection.try_send(&Message::Refuse(why).to_bytes(), &[]);
    // Its end, or a while: an answer that is not read yet is not to be overtaken.
    let ends = async { while receive(connection).await.is_some() {} };
    let _ = timeout(ANSWER, ends).await;
}
