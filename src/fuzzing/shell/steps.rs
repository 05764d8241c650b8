//! The steps of a turn: what is done with the sockets of a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Shell;
use super::peer::{Peer, Read, UpstreamPeer, Written};
use crate::connection::Connection;
use crate::end::Reason;
use crate::exchange::Exchange;
use crate::exchange::link::{Release, Wish};
use crate::upstream::{Affinity, Candidates, Fault};

/// What a worker reads at once.
const READ_BUFFER: usize = 64 * 1024;

/// What whoever needs a token is given.
const TOKEN: u64 = 0x0123_4567_89ab_cdef;

impl Shell {
    pub(super) fn release(&mut self) -> bool {
        let Some(release) = self.connection.as_mut().and_then(Connection::take_release) else {
            return false;
        };
        if let Some(link) = self.link.take() {
            if release == Release::Keep && !self.stage.is_finishing() {
                self.idle.push(link);
            } else {
                self.links[link].is_closed = true;
            }
        }
        true
    }

    pub(super) fn link_up(&mut self) -> bool {
        match self.connection.as_ref().map_or(Wish::Nothing, Connection::wish) {
            Wish::Nothing => false,
            Wish::Addresses(affinity) => {
                let Some(addresses) = self.addresses.clone() else { return false };
                if addresses.is_empty() {
                    let source = Arc::new(io::Error::from(io::ErrorKind::NotFound));
                    let fault = Fault::Unresolved { host: String::from("upstream.test"), source };
                    self.tell(|connection, context| {
                        connection.see(Err(Exchange::no_addresses(fault)), context);
                    });
                } else {
                    let mut candidates = Candidates::in_order(&addresses);
                    if affinity == Affinity::NewToken {
                        candidates = candidates.with_token(TOKEN);
                    }
                    self.tell(|connection, context| {
                        if let Some(exchange) = connection.exchange() {
                            exchange.candidates(candidates, context);
                        }
                    });
                }
                true
            }
            Wish::Connect { address, is_fresh } => {
                if let Some(old) = self.link.take() {
                    self.links[old].is_closed = true;
                }
                self.connect(address, is_fresh);
                true
            }
        }
    }

    /// Takes the last link that became idle, to this address. A look at the kernel tells which can be used.
    fn take_idle(&mut self, address: SocketAddr) -> Option<usize> {
        loop {
            let is_there = |idle: &usize| self.links[*idle].address == address;
            let place = self.idle.iter().rposition(is_there)?;
            let idle = self.idle.remove(place);
            let UpstreamPeer { peer, is_closed, .. } = &mut self.links[idle];
            if peer.is_good() {
                return Some(idle);
            }
            *is_closed = true;
        }
    }

    fn connect(&mut self, address: SocketAddr, is_fresh: bool) {
        let idle = if is_fresh { None } else { self.take_idle(address) };
        if idle.is_none() && self.refusing.contains(&address) {
            let source = Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused));
            self.not_connected(Fault::Unreachable { address, source });
            return;
        }
        let number = idle.unwrap_or_else(|| {
            let mut peer = Peer::new();
            if self.silent.contains(&address) {
                peer.room = 0;
            }
            self.links.push(UpstreamPeer { address, peer, uses: 0, is_closed: false });
            self.links.len() - 1
        });
        self.links[number].uses += 1;
        self.link = Some(number);
        let is_reused = idle.is_some();
        self.tell(|connection, context| {
            let exchange = connection.exchange();
            if let Some(exchange) = exchange {
                exchange.linked(address, is_reused, context);
            }
        });
    }

    /// The connection to an upstream that is under way comes to nothing.
    pub(crate) fn not_connected(&mut self, fault: Fault) {
        self.tell(|connection, context| {
            let outcome =
                connection.exchange().map(|exchange| exchange.not_connected(fault, context));
            if let Some(outcome) = outcome {
                connection.see(outcome, context);
            }
        });
    }

    pub(super) fn write_client(&mut self) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        let waiting = connection.client_out().waiting();
        if waiting.is_empty() {
            return false;
        }
        match self.client.write(waiting) {
            Written::Taken(taken) => {
                self.tell(|connection, context| connection.client_took(taken, context));
                true
            }
            Written::Nothing => false,
            Written::Fault => {
                self.tell(|connection, context| connection.client_broke(Reason::Closed, context));
                true
            }
        }
    }

    pub(super) fn write_upstream(&mut self) -> bool {
        let Some(link) = self.link.and_then(|link| self.links.get_mut(link)) else { return false };
        let exchange = self.connection.as_mut().and_then(Connection::exchange);
        let Some(exchange) = exchange else { return false };
        let is_open = exchange.link.is_open();
        let waiting = exchange.upstream_out().waiting();
        if waiting.is_empty() || !is_open {
            return false;
        }
        match link.peer.write(waiting) {
            Written::Taken(taken) => {
                self.tell(|connection, context| {
                    let exchange = connection.exchange();
                    if let Some(exchange) = exchange {
                        exchange.upstream_took(taken, context.now);
                    }
                    connection.see(Ok(()), context);
                    connection.read_on(context);
                });
                true
            }
            Written::Nothing => false,
            Written::Fault if !exchange.link.is_established() => {
                let address = link.address;
                let source = Arc::new(io::Error::from(io::ErrorKind::ConnectionReset));
                self.not_connected(Fault::Unreachable { address, source });
                true
            }
            Written::Fault => {
                self.tell(|connection, context| {
                    let exchange = connection.exchange();
                    if let Some(exchange) = exchange {
                        exchange.upstream_takes_nothing(context);
                    }
                });
                true
            }
        }
    }

    pub(super) fn read_upstream(&mut self) -> bool {
        if !self.connection.as_ref().is_some_and(Connection::wants_upstream) {
            return false;
        }
        let Some(link) = self.link.and_then(|link| self.links.get_mut(link)) else { return false };
        let exchange = self.connection.as_mut().and_then(Connection::exchange);
        let unseen = exchange.map_or(0, |exchange| exchange.unseen_from_upstream());
        if unseen >= self.bulk && !link.peer.is_read() && !self.client.takes_nothing {
            // What the client has no room for comes out of the pipe again.
            if let Read::Bytes(bytes) =
                link.peer.read(usize::try_from(unseen).unwrap_or(usize::MAX))
            {
                let taken = match self.client.write(&bytes) {
                    Written::Taken(taken) => taken,
                    Written::Nothing | Written::Fault => 0,
                };
                let untaken = bytes.get(taken..).unwrap_or_default();
                self.tell(|connection, context| {
                    connection.upstream_sent_unseen(bytes.len() as u64, untaken, context);
                });
                return true;
            }
        }
        match link.peer.read(READ_BUFFER) {
            Read::Bytes(bytes) => {
                self.tell(|connection, context| connection.upstream_sent(&bytes, context));
            }
            Read::Nothing => return false,
            Read::End => {
                self.tell(|connection, context| connection.upstream_ended(false, context));
            }
            Read::Fault => {
                self.tell(|connection, context| connection.upstream_ended(true, context));
            }
        }
        true
    }

    pub(super) fn read_client(&mut self) -> bool {
        let Some(connection) = &self.connection else { return false };
        if !connection.wants_client() {
            return false;
        }
        let unseen = connection.unseen_from_client();
        if let Some(link) = self.link.and_then(|link| self.links.get_mut(link))
            && unseen >= self.bulk
            && !self.client.is_read()
            && let Read::Bytes(bytes) =
                self.client.read(usize::try_from(unseen).unwrap_or(usize::MAX))
        {
            let (taken, is_broken) = match link.peer.write(&bytes) {
                Written::Taken(taken) => (taken, false),
                Written::Nothing => (0, false),
                Written::Fault => (0, true),
            };
            let untaken = if is_broken { &[] } else { bytes.get(taken..).unwrap_or_default() };
            self.tell(|connection, context| {
                let count = bytes.len() as u64;
                connection.client_sent_unseen(count, untaken, is_broken, context);
            });
            return true;
        }
        match self.client.read(READ_BUFFER) {
            Read::Bytes(bytes) => {
                self.tell(|connection, context| connection.client_sent(&bytes, context));
            }
            Read::Nothing => return false,
            Read::End => {
                self.tell(Connection::client_ended);
            }
            Read::Fault => {
                self.tell(|connection, context| connection.client_broke(Reason::Closed, context));
            }
        }
        true
    }
}
