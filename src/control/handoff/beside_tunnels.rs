//! What moves beside tunnels: the listeners, what was counted, and the rates of clients.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::io::Errno;

use super::{Conversation, batches, send};
use crate::control::StartError;
use crate::control::listeners::Listeners;
use crate::handoff::Why;
use crate::handoff::message::{Counted, Message, Places, Rates};
use crate::handoff::socket;
use crate::panics;

/// Under which name mistakes are counted, beside the names of [`Counters`](crate::metrics::Counters).
const PANICS: &str = "panics";

impl Conversation {
    /// In as many messages as it takes where buffers are small.
    pub(super) async fn send_counters(&mut self, counters: Vec<Counted>) {
        let mut parts = vec![counters];
        while let Some(mut part) = parts.pop() {
            let message = Message::Counters(part.clone()).to_bytes();
            match send(&self.connection, &message, &[]).await {
                Err(error) if is_too_long(&error) && part.len() > 1 => {
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                }
                Err(error) => tracing::debug!(%error, "handoff: not sent"),
                Ok(()) => {}
            }
        }
    }

    pub(super) async fn send_listeners(&mut self) {
        // A copy, since the lock is not to be held while this waits.
        let copy = self.server.listeners().as_ref().map(|listeners| {
            let (places, descriptors) = listeners.places();
            let copied = descriptors.iter().map(BorrowedFd::try_clone_to_owned);
            copied.collect::<io::Result<Vec<_>>>().map(|descriptors| (places, descriptors))
        });
        let sent = match copy {
            Some(Ok((places, descriptors))) => {
                let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                send(&self.connection, &Message::Listeners(places).to_bytes(), &descriptors).await
            }
            Some(Err(error)) => Err(error),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        if let Err(error) = sent {
            tracing::error!(%error, "the listeners cannot be sent to the other process");
            return self.machine.cannot_send(Instant::now());
        }
        let counters = self.count();
        self.send_counters(counters).await;
        let rates = Rates(self.server.proxy.limits.live_rates(Instant::now()));
        let sent = match socket::memfd_from(&rates.to_bytes()) {
            Ok(memory) => {
                send(&self.connection, &Message::Limits.to_bytes(), &[memory.as_fd()]).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::warn!(%error, "the rates of clients cannot be handed over, and begin anew");
        }
    }

    /// What was counted here since this was called before.
    pub(super) fn count(&mut self) -> Vec<Counted> {
        let named = self.server.proxy.counters.named();
        let named = named.map(|(name, counter)| (name, counter.get()));
        let now: Vec<_> = named
            .chain([(PANICS.into(), panics::count())])
            .map(|(name, number)| Counted { name: name.into_owned(), number })
            .collect();
        let before = mem::replace(&mut self.counted, now.clone());
        let before = before.into_iter().map(|counted| counted.number).chain(std::iter::repeat(0));
        now.into_iter()
            .zip(before)
            .map(|(counted, before)| {
                let came = self.came.remove(&counted.name).unwrap_or_default();
                let number = counted.number.saturating_sub(before).saturating_sub(came);
                Counted { number, ..counted }
            })
            .filter(|counted| counted.number > 0)
            .collect()
    }

    /// Counts here what the other process has counted.
    pub(super) fn add(&mut self, counters: Vec<Counted>) {
        for Counted { name, number } in counters {
            if name == PANICS {
                panics::add_elsewhere(number);
            } else {
                self.server.proxy.counters.add_named(&name, number);
            }
            let came = self.came.entry(name).or_default();
            *came = came.saturating_add(number);
        }
    }

    pub(super) fn listen(&mut self, places: &Places) {
        let descriptors = mem::take(&mut self.descriptors);
        let added = mem::take(&mut self.added);
        let listeners = added.complete(&self.server.proxy.config, places, descriptors);
        let result = listeners.map_err(|error| error.to_string());
        let result = result
            .and_then(|listeners| self.server.listen(listeners).map_err(|error| error.to_string()));
        self.took = Some(self.begun.elapsed());
        self.machine.listening(result.map_err(|error| {
            tracing::error!("cannot take over: {error}");
            Why::CannotListen
        }));
    }

    pub(super) fn limit(&mut self) {
        let descriptors = mem::take(&mut self.descriptors);
        let memory = descriptors.first().ok_or(io::ErrorKind::UnexpectedEof.into());
        match memory.and_then(|memory| socket::read_memfd(memory, batches::MOST_MEMORY)) {
            Ok(bytes) => {
                let Rates(rates) = Rates::from_bytes(&bytes);
                self.server.proxy.limits.restore_rates(rates, Instant::now());
            }
            Err(error) => tracing::warn!(%error, "the rates of clients begin anew"),
        }
    }

    /// The process before is dead, and did not hand its listeners over: binds them.
    ///
    /// # Errors
    /// The variable, its value and what the kernel said.
    pub(in crate::control) async fn listen_alone(&mut self) -> Result<(), StartError> {
        let added = mem::take(&mut self.added);
        let config = &self.server.proxy.config;
        let listeners = Listeners::bind_after_death(config, added).await?;
        Ok(self.server.listen(listeners)?)
    }
}

/// The kernel says that the socket's buffer has no room for such a message.
fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error())
}
