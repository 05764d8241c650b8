//! One connection in its turn: its sockets are written to and read from as its machine says, and the machine is told
//! what came of that.
//!
//! ```text
//! write_client     what waits for the client                        → client_took
//! release          the link of an exchange that has ended is kept, or closed
//! link_up          a link for the exchange that began: addresses, an idle link, or a new connection
//! write_upstream   what waits for the upstream                      → upstream_took
//! read_upstream    where the client has taken what came before      → upstream_sent, upstream_ended
//! read_client      where more of it is wanted                       → client_sent, client_ended
//! ```
//!
//! They are called in this order until nothing moves any more, or the turn is over. An old link is released before a new
//! one is looked for: one exchange may end and the next begin in one call of the machine.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use mio::Registry;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::bulk::{Pipe, Splice};
use super::links::Links;
use super::readiness::Ready;
use super::{Door, Order};
use crate::connection::{Connection, Lifecycle};
use crate::end::Reason;
use crate::exchange::Exchange;
use crate::exchange::link::{Release, Wish};
use crate::http::body::BULK;
use crate::proxy::Context;
use crate::socket;
use crate::tunnel::Waiting;
use crate::tunnel::flow::Bulk;
use crate::upstream::{Fault, Resolution};

/// One connection in its turn, and all that it takes.
pub(super) struct Turn<'a> {
    pub(super) key: usize,
    pub(super) connection: &'a mut Connection,
    pub(super) socket: &'a TcpStream,
    pub(super) ready: &'a mut Ready,
    pub(super) link: &'a mut Option<usize>,
    pub(super) links: &'a mut Links,
    pub(super) registry: &'a Registry,
    pub(super) context: &'a Context<'a>,
    pub(super) pipe: &'a RefCell<Pipe>,
}

impl Turn<'_> {
    /// Both sides may take something although the kernel has not said so.
    pub(super) fn offer(&mut self) {
        self.ready.writable = true;
        self.write_client();
        if let Some(link) = self.link.and_then(|link| self.links.get_mut(link)) {
            link.ready.writable = true;
        }
        self.write_upstream();
    }

    /// Writes what waits for the client. Whether anything moved.
    pub(super) fn write_client(&mut self) -> bool {
        let closes = self.connection.lifecycle() == Lifecycle::Closing { ends_well: true };
        let waiting = self.connection.client_out().waiting();
        if waiting.is_empty() || !self.ready.writable {
            return false;
        }
        // The end of the stream goes with the last bytes, in one segment.
        let more = if closes { SendFlags::MORE } else { SendFlags::empty() };
        match send(self.socket, waiting, SendFlags::NOSIGNAL | more) {
            Ok(taken) => {
                self.ready.writable = taken == waiting.len();
                self.connection.client_took(taken, self.context);
                true
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => {
                self.ready.writable = false;
                false
            }
            Err(fault) => {
                self.client_broke(fault);
                true
            }
        }
    }

    fn client_broke(&mut self, fault: Errno) {
        self.ready.readable = false;
        self.ready.writable = false;
        // The kernel gives up a side that acknowledges nothing.
        let why = if fault == Errno::TIMEDOUT { Reason::Stalled } else { Reason::Closed };
        tracing::trace!("the client's connection broke: {fault}");
        self.connection.client_broke(why, self.context);
    }

    /// Does with the link of an exchange that has ended what is to be done with it.
    pub(super) fn release(&mut self) -> bool {
        let Some(release) = self.connection.take_release() else { return false };
        if let Some(link) = self.link.take() {
            match release {
                Release::Keep if !self.context.stage.is_finishing() => {
                    self.links.keep(link, self.context.now, self.registry);
                }
                _ => self.links.close(link, self.registry),
            }
        }
        // A request that came meanwhile may have its turn.
        true
    }

    /// Finds a link to the upstream where the exchange wants one.
    pub(super) fn link_up(&mut self, is_waiting: &mut bool, door: &Arc<Door>, number: u64) -> bool {
        let context = self.context;
        match self.connection.wish() {
            Wish::Nothing => return false,
            Wish::Addresses(_) if *is_waiting => return false,
            Wish::Addresses(affinity) => {
                let Some(exchange) = self.connection.exchange() else { return false };
                let addresses = &exchange.route().upstream.addresses;
                match addresses.choose(context.now, affinity, context.random) {
                    Resolution::Candidates(candidates) => {
                        let candidates = if exchange.is_handshake() {
                            addresses.with_vacancy(candidates)
                        } else {
                            candidates
                        };
                        exchange.candidates(candidates, context);
                    }
                    Resolution::Pending => {
                        *is_waiting = true;
                        let (door, key) = (Arc::clone(door), self.key);
                        addresses.when_known(Box::new(move || {
                            // A worker that is gone has no connections.
                            drop(door.send(Order::AddressesAreKnown { key, number }));
                        }));
                    }
                    Resolution::Fault(fault) => {
                        context.metrics.connect_failed(fault.failure());
                        self.connection.see(Err(Exchange::no_addresses(fault)), context);
                    }
                }
            }
            Wish::Connect { address, is_fresh } => {
                if let Some(old) = self.link.take() {
                    self.links.close(old, self.registry);
                }
                let Some(exchange) = self.connection.exchange() else { return false };
                let stall_timeout = exchange.route().config.stall_timeout;
                if context.proxy.routes.stall_timeouts_differ {
                    socket::give_up_after(self.socket, stall_timeout);
                }
                let idle =
                    if is_fresh { None } else { self.links.take(address, self.key, self.registry) };
                let is_reused = idle.is_some();
                if is_reused {
                    context.metrics.links_reused.add(1);
                }
                let link =
                    idle.map_or_else(|| self.links.connect(address, self.key, stall_timeout), Ok);
                match link {
                    Ok(link) => {
                        *self.link = Some(link);
                        if let Some(exchange) = self.connection.exchange() {
                            exchange.linked(address, is_reused, context);
                        }
                    }
                    Err(source) => self.not_connected(address, source),
                }
            }
        }
        true
    }

    fn not_connected(&mut self, address: SocketAddr, source: io::Error) {
        let context = self.context;
        let fault = if socket::is_no_room(&source) {
            Fault::NoRoom { address, source: Arc::new(source) }
        } else {
            Fault::Unreachable { address, source: Arc::new(source) }
        };
        if let Some(exchange) = self.connection.exchange() {
            let outcome = exchange.not_connected(fault, context);
            self.connection.see(outcome, context);
        }
    }

    /// Writes what waits for the upstream. Whether anything moved.
    pub(super) fn write_upstream(&mut self) -> bool {
        let Some(link) = self.link.and_then(|link| self.links.get_mut(link)) else { return false };
        let now = self.context.now;
        let Some(exchange) = self.connection.exchange() else { return false };
        let is_open = exchange.link.is_open();
        let waiting = exchange.upstream_out().waiting();
        if waiting.is_empty() || !is_open || !link.ready.writable {
            return false;
        }
        match send(&link.socket, waiting, SendFlags::NOSIGNAL) {
            Ok(taken) => {
                link.ready.writable = taken == waiting.len();
                if !exchange.link.is_established() {
                    exchange.route().upstream.addresses.reached(link.address, now);
                }
                exchange.upstream_took(taken, now);
                self.connection.see(Ok(()), self.context);
                // What the client has sent of its body meanwhile.
                self.connection.read_on(self.context);
                true
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => {
                link.ready.writable = false;
                false
            }
            Err(fault) if !exchange.link.is_established() => {
                let address = link.address;
                self.not_connected(address, fault.into());
                true
            }
            Err(fault) => {
                tracing::trace!("the upstream takes nothing any more: {fault}");
                link.ready.readable = true;
                link.ready.read_on = true;
                exchange.upstream_takes_nothing(self.context);
                true
            }
        }
    }

    /// Reads what the upstream has sent, if it is wanted. Whether anything moved.
    pub(super) fn read_upstream(&mut self, buffer: &mut [u8]) -> bool {
        if !self.connection.wants_upstream() {
            return false;
        }
        let Some(link) = self.link.and_then(|link| self.links.get_mut(link)) else { return false };
        if !link.ready.readable {
            return false;
        }
        let unseen =
            self.connection.exchange().map_or(0, |exchange| exchange.unseen_from_upstream());
        if unseen >= BULK && self.ready.writable {
            let mut waiting = Waiting::default();
            let mut way = Splice { from: &link.socket, into: self.socket, pipe: self.pipe };
            match way.carry(unseen, &mut waiting) {
                Ok(carried) if carried.read > 0 => {
                    self.ready.writable = waiting.is_empty();
                    let count = carried.read as u64;
                    self.connection.upstream_sent_unseen(count, &waiting, self.context);
                    if let Some(fault) = carried.fault {
                        let fault = Errno::from_io_error(&fault).unwrap_or(Errno::PIPE);
                        self.client_broke(fault);
                    }
                    return true;
                }
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
                    link.ready.has_read_all();
                    return false;
                }
                // An end, a fault, or no pipe to be had: a read tells.
                Ok(_) | Err(_) => {}
            }
        }
        match rustix::io::read(&link.socket, &mut *buffer) {
            Ok(0) => {
                link.ready.readable = false;
                self.connection.upstream_ended(false, self.context);
                true
            }
            Ok(count) => {
                link.ready.has_read(count, buffer.len());
                let bytes = buffer.get(..count).unwrap_or_default();
                self.connection.upstream_sent(bytes, self.context);
                true
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => {
                link.ready.has_read_all();
                false
            }
            Err(fault) => {
                tracing::trace!("the upstream's connection broke: {fault}");
                link.ready.readable = false;
                self.connection.upstream_ended(true, self.context);
                true
            }
        }
    }

    /// Reads what the client has sent, if it is wanted. Whether anything moved.
    pub(super) fn read_client(&mut self, buffer: &mut [u8]) -> bool {
        if !self.connection.wants_client() {
            // Nobody reads it, and so nobody would see that it has left.
            if self.ready.broken && self.connection.lifecycle() == Lifecycle::Open {
                self.client_broke(Errno::CONNRESET);
                return true;
            }
            return false;
        }
        if !self.ready.readable {
            return false;
        }
        if let Some(moved) = self.pass_unseen_from_client() {
            return moved;
        }
        match rustix::io::read(self.socket, &mut *buffer) {
            Ok(0) => {
                self.ready.readable = false;
                self.connection.client_ended(self.context);
                true
            }
            Ok(count) => {
                self.ready.has_read(count, buffer.len());
                let bytes = buffer.get(..count).unwrap_or_default();
                self.connection.client_sent(bytes, self.context);
                true
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => {
                self.ready.has_read_all();
                false
            }
            Err(fault) => {
                self.client_broke(fault);
                true
            }
        }
    }

    /// Passes a large part of a body from socket to socket. None: it is to be read.
    fn pass_unseen_from_client(&mut self) -> Option<bool> {
        let link = self.link.and_then(|link| self.links.get_mut(link))?;
        let unseen = self.connection.unseen_from_client();
        if unseen < BULK || !link.ready.writable {
            return None;
        }
        let mut waiting = Waiting::default();
        let mut way = Splice { from: self.socket, into: &link.socket, pipe: self.pipe };
        match way.carry(unseen, &mut waiting) {
            Ok(carried) if carried.read > 0 => {
                link.ready.writable = waiting.is_empty();
                if carried.fault.is_some() {
                    link.ready.readable = true;
                    link.ready.read_on = true;
                }
                let has_fault = carried.fault.is_some();
                let count = carried.read as u64;
                self.connection.client_sent_unseen(count, &waiting, has_fault, self.context);
                Some(true)
            }
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
                self.ready.has_read_all();
                Some(false)
            }
            Ok(_) | Err(_) => None,
        }
    }
}
