//! The handoff's shell: carries out what the machines in [`crate::handoff`] say, on the connection between the two
//! processes, and tells the log how it went.

mod arrival;
mod batches;
mod beside_tunnels;
mod door;
mod report;

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::mem;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

use self::batches::Batches;
use self::report::Silence;

pub use self::arrival::ArriveError;
pub(super) use self::arrival::{Arrival, Takeover, arrive};
pub(super) use self::door::{Door, accept};
use super::Server;
use super::listeners::Added;
use crate::handoff::message::{Counted, Message, Release};
use crate::handoff::predecessor::descriptors_for;
use crate::handoff::socket::{self, Connection, Received};
use crate::handoff::{ANSWER, Action, Machine, Outcome, Why};
use crate::workers;

/// What this process calls itself to the other.
const BUILD: &str = concat!("elbows ", env!("CARGO_PKG_VERSION"));

/// What the other calls itself that has not said so.
const UNKNOWN: &str = "?";

/// How long something pauses that fails for lack of descriptors or memory.
const PAUSE: Duration = Duration::from_secs(1);

/// What a conversation tells control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The successor serves. What is left here is to be drained.
    HandedOver,
    /// It was given up, and this process goes on.
    Kept,
    /// The process before gave it up, and has its tunnels again: this one ends.
    GaveBack(Why),
}

/// What the process before this one has to know while it finishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Later {
    /// This process serves.
    #[default]
    Serves,
    /// Another one takes over, or has.
    HandsOn,
    /// This process is about to end.
    Leaves,
}

/// What the process before this one does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Before {
    /// There is none, or it has ended.
    #[default]
    Gone,
    /// It finishes what is no tunnel, and listens again where this process dies.
    Finishes,
    /// It finishes, and has been told that the listeners are not its own again.
    LetsGo,
}

/// One conversation with the other process.
pub(super) struct Conversation {
    /// It outlives a panic of the conversation: its end would say that this process is dead.
    connection: Arc<Connection>,
    server: Arc<Server>,
    machine: Box<dyn Machine + Send>,
    role: Role,
    batches: Batches,
    /// Listeners that the settings add to those of the predecessor.
    added: Added,
    /// What came beside the last message.
    descriptors: Vec<OwnedFd>,
    /// What was counted when COUNTERS went.
    counted: Vec<Counted>,
    /// What the other process had counted, which it has already.
    came: HashMap<String, u64>,
    /// Changes when the process is told to stop.
    stop: watch::Receiver<()>,
    later: watch::Receiver<Later>,
    begun: Instant,
    /// How long it took until the successor served. Requests that the predecessor finishes after that do not count.
    took: Option<Duration>,
    /// What the other process calls itself.
    build: String,
    /// How long nothing has come of it.
    silence: Silence,
    /// It was told that tunnels cannot be sent, and none was sent since.
    has_told_no_room: bool,
    outcome: Option<Outcome>,
}

/// Which of the two this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Predecessor,
    Successor,
}

impl Conversation {
    fn new(
        connection: Arc<Connection>,
        server: Arc<Server>,
        role: Role,
        machine: Box<dyn Machine + Send>,
        begun: Instant,
    ) -> Self {
        Self {
            connection,
            batches: Batches::new(&server),
            stop: server.door.stop.subscribe(),
            later: server.later.subscribe(),
            server,
            machine,
            role,
            added: Added::default(),
            descriptors: Vec::new(),
            counted: Vec::new(),
            came: HashMap::new(),
            begun,
            took: None,
            build: UNKNOWN.to_owned(),
            silence: Silence::new(),
            has_told_no_room: false,
            outcome: None,
        }
    }

    /// The successor's, whose workers have started; `added` are the listeners that its settings add.
    pub(super) fn take_over(takeover: Takeover, added: Added, server: Arc<Server>) -> Self {
        let Takeover { connection, mut machine, offer, begun } = takeover;
        // Before anything stands still. Without it all works, too.
        if let Err(error) = socket::reserve_descriptors(descriptors_for(offer.tunnels)) {
            tracing::warn!(%error, "handoff: no room for its descriptors in advance");
        }
        machine.prepared();
        let connection = Arc::new(connection);
        let conversation = Self::new(connection, server, Role::Successor, Box::new(machine), begun);
        Self { added, build: offer.build, ..conversation }
    }

    /// Until this process serves, or will not. A process that is told to stop gives back what it has.
    pub(super) async fn until_serving(&mut self) -> Option<Outcome> {
        self.go_on(|machine| machine.is_serving()).await
    }

    /// What still comes when this process serves already. A panic in there is a mistake of ours: the process before
    /// is to keep what it has not given.
    pub(super) async fn rest(self) {
        let (connection, server) = (Arc::clone(&self.connection), Arc::clone(&self.server));
        if tokio::spawn(self.until_over()).await.is_err() {
            // It is not to take the end of the connection for the end of this process.
            let _ = send(&connection, &Message::Bye.to_bytes(), &[]).await;
            server.before.send_replace(Before::Gone);
        }
    }

    async fn until_over(mut self) {
        let outcome = self.go_on(|_| false).await;
        self.tell(outcome).await;
        self.server.before.send_replace(Before::Gone);
        if let Some(Outcome::Kept(why)) = outcome {
            let _ = self.server.events().send(Event::GaveBack(why)).await;
        }
    }

    /// The process is told to stop.
    fn stop(&mut self) {
        if self.role == Role::Successor && !self.machine.is_serving() {
            tracing::info!("told to stop while it takes over: what came is given back");
        }
        self.machine.stop(Instant::now());
    }

    /// Goes on until it is over, or `is_enough`.
    async fn go_on(&mut self, is_enough: impl Fn(&dyn Machine) -> bool) -> Option<Outcome> {
        loop {
            self.carry_out_all().await;
            if self.outcome.is_some() || is_enough(&*self.machine) {
                return self.outcome;
            }
            if self.role == Role::Predecessor {
                self.server.door.is_moving.send_replace(self.machine.is_moving());
            }
            let deadline = self.machine.deadline();
            let tells_at = self.machine.waits().then_some(self.silence.tells_at);
            tokio::select! {
                // A process that stood still reads what has come before it looks at the clock.
                biased;
                received = receive(&self.connection) => match received {
                    Some((message, received)) => self.received(message, received),
                    None => self.machine.ended(),
                },
                () = until(deadline) => self.machine.time(Instant::now()),
                () = until(tells_at) => self.tell_silence(),
                // The sender is the server's, which this has.
                Ok(()) = self.stop.changed() => self.stop(),
                Ok(()) = self.later.changed() => self.tell_later().await,
            }
        }
    }

    /// What becomes of this process the one before it has to know, which still finishes.
    async fn tell_later(&mut self) {
        let later = *self.later.borrow_and_update();
        let before = match later {
            Later::Serves => {
                self.machine.serves_on();
                Before::Finishes
            }
            Later::HandsOn => {
                self.machine.hands_on();
                Before::LetsGo
            }
            Later::Leaves => return self.machine.leave(),
        };
        self.carry_out_all().await;
        if self.role == Role::Successor && self.outcome.is_none() {
            self.server.before.send_replace(before);
        }
    }

    fn received(&mut self, message: Option<Message>, received: Received) {
        self.silence = Silence::new();
        let Some(message) = message else {
            tracing::error!("the other process of a handoff sent what is no message");
            return self.machine.malformed(Instant::now());
        };
        if let Message::Yours { number } = message {
            self.batches.was_given(number);
        }
        tracing::debug!(?message, "handoff");
        match &message {
            Message::Hello(hello) => self.build.clone_from(&hello.build),
            Message::Batch(batch) => {
                self.batches.came(batch.clone(), received.descriptors);
                return self.machine.received(message, Instant::now());
            }
            _ => {}
        }
        self.descriptors = received.descriptors;
        self.machine.received(message, Instant::now());
    }

    async fn carry_out_all(&mut self) {
        while let Some(action) = self.machine.next() {
            self.carry_out(action).await;
        }
    }

    async fn carry_out(&mut self, action: Action) {
        if self.batches.is_worker_gone() && !matches!(action, Action::SendBatch { .. }) {
            // This process is about to end. It still sends what it has taken out, and does not say that all has moved.
            pending::<()>().await;
        }
        match action {
            Action::Send(message) => {
                tracing::debug!(?message, "handoff");
                self.send(&message).await;
            }
            Action::Collect { number, most } => {
                let (tunnels, has_more) = self.batches.collect(number, most).await;
                self.machine.collected(number, tunnels, has_more, Instant::now());
            }
            Action::SendBatch { number } => {
                let sent = self.batches.send(number, &self.connection).await;
                match sent {
                    Ok(()) => self.has_told_no_room = false,
                    Err(error) => {
                        // It may be tried again. A process that is dead is heard of by the end of the connection.
                        let is_dead = error.kind() == io::ErrorKind::BrokenPipe;
                        if !is_dead && !mem::replace(&mut self.has_told_no_room, true) {
                            tracing::error!(%error, "tunnels cannot be sent to the other process, and go on here");
                        }
                        self.machine.batch_not_sent(number, Instant::now());
                    }
                }
            }
            Action::Give { number, refused } => {
                let yours = Message::Yours { number }.to_bytes();
                match send(&self.connection, &yours, &[]).await {
                    Ok(()) => self.batches.give(number, &refused),
                    Err(error) => {
                        // It has not heard that they are its own, and will not touch them.
                        self.batches.put_back(number);
                        if error.kind() != io::ErrorKind::BrokenPipe {
                            tracing::error!(%error, "tunnels cannot be given to the other process");
                            self.machine.cannot_send(Instant::now());
                        }
                    }
                }
            }
            Action::PutBack { number } => self.batches.put_back(number),
            Action::Check { number } => {
                self.batches.settle().await;
                let refused = self.batches.check(number);
                self.machine.checked(number, refused);
            }
            Action::Adopt { number } => self.batches.adopt(number),
            Action::Forget { number } => self.batches.forget(number),
            Action::Announce => self.server.announce_successor().await,
            Action::StopListening => self.server.stop_listening(),
            Action::SendListeners => self.send_listeners().await,
            Action::ListenAgain => self.server.listen_again(),
            Action::Leave => {
                self.took = Some(self.begun.elapsed());
                self.server.make_way();
            }
            Action::Look => {
                // The late tunnels of a process before this one come here, and go on from here.
                let connections = self.server.workers.connections()
                    + usize::from(*self.server.before.borrow() != Before::Gone);
                self.machine.looked(connections, Instant::now());
            }
            Action::SendCounters => {
                let counters = self.count();
                self.send_counters(counters).await;
            }
            // It was carried out before this conversation began.
            Action::Prepare(_) => {}
            Action::Listen(places) => self.listen(&places),
            Action::Count(counters) => self.add(counters),
            Action::Limit => self.limit(),
            Action::Over(outcome) => self.outcome = Some(outcome),
        }
    }

    async fn send(&mut self, message: &Message) {
        // A process that is gone is heard of by the end of the connection.
        if let Err(error) = send(&self.connection, &message.to_bytes(), &[]).await {
            tracing::debug!(%error, "handoff: not sent");
        }
    }
}

/// Sends a message, and waits for room for as long as the other process may take to read: its buffers may be small.
async fn send(
    connection: &Connection,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    match connection.try_send(bytes, descriptors) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            timeout(ANSWER, connection.send(bytes, descriptors)).await.unwrap_or(Err(error))
        }
        result => result,
    }
}

/// A message, unless what came is none; nothing when the other process has ended.
async fn receive(connection: &Connection) -> Option<(Option<Message>, Received)> {
    loop {
        match connection.receive().await {
            Ok(Some(received)) => {
                return Some((Message::from_bytes(&received.bytes).ok(), received));
            }
            Ok(None) => return None,
            // It did not read all that it was sent. What it sent itself is still there.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            // The kernel lacks memory: the other process is there all the same.
            Err(error) => {
                tracing::error!(%error, "handoff: the connection cannot be read, and is tried again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

/// When ticks and stamps began to count here, in nanoseconds of the machine's monotonic clock.
fn start_of_count() -> u64 {
    nanoseconds(socket::monotonic().saturating_sub(workers::start().elapsed()))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// This release.
fn release() -> Release {
    let number = |text: &str| text.parse().unwrap_or_default();
    Release {
        major: number(env!("CARGO_PKG_VERSION_MAJOR")),
        minor: number(env!("CARGO_PKG_VERSION_MINOR")),
        patch: number(env!("CARGO_PKG_VERSION_PATCH")),
    }
}
