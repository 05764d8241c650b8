//! What every connection of this process shares: settings, counts, the access log, the routes.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::access_log::AccessLog;
use crate::config::Config;
use crate::drain::Stage;
use crate::feed::Feed;
use crate::http::head;
use crate::http::request_id::RequestIds;
use crate::limits::Limits;
use crate::metrics::Counters;
use crate::metrics::worker::WorkerMetrics;
use crate::routes::Routes;
use crate::warnings::Warnings;

/// Shared by every connection.
pub(crate) struct Proxy {
    /// The settings of the process, and of the default route.
    pub(crate) config: Arc<Config>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) access_log: AccessLog,
    pub(crate) counters: Arc<Counters>,
    pub(crate) limits: Limits,
    pub(crate) warnings: Warnings,
    pub(crate) feed: Feed,
}

impl Proxy {
    /// How much the head of a request may hold.
    pub(crate) fn head_limits(&self) -> head::HeadLimits {
        let Config { max_header_size, max_headers, .. } = *self.config;
        head::HeadLimits { head: max_header_size, fields: max_headers, ..head::HeadLimits::DEFAULT }
    }
}

/// What a machine of the data plane is told with each call: where it is, and when.
pub(crate) struct Context<'a> {
    /// The time of this turn.
    pub(crate) now: Instant,
    /// How far the drain has come.
    pub(crate) stage: Stage,
    pub(crate) proxy: &'a Proxy,
    /// Those of this worker.
    pub(crate) ids: &'a RequestIds,
    /// What this worker counts.
    pub(crate) metrics: &'a WorkerMetrics,
    pub(crate) spare: &'a Spare,
    /// Gives a number that nobody can foresee.
    pub(crate) random: &'a dyn Fn() -> u64,
    /// The address of this machine that the client's socket is connected to.
    pub(crate) destination: &'a dyn Fn() -> SocketAddr,
}

/// Memory for heads on their way to the upstream, which exchanges leave to the next ones.
#[derive(Default)]
pub(crate) struct Spare(Cell<Vec<Vec<u8>>>);

impl Spare {
    /// Pieces of memory that are kept at the most, and how large each may be.
    const MOST: usize = 16;
    const LARGEST: usize = 4 * 1024;

    /// Memory that another exchange has left, if there is some.
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut all = self.0.take();
        let memory = all.pop().unwrap_or_default();
        self.0.set(all);
        memory
    }

    /// Leaves memory of an exchange that has ended to another one.
    pub(crate) fn leave(&self, memory: Vec<u8>) {
        let mut all = self.0.take();
        if all.len() < Self::MOST && (1..=Self::LARGEST).contains(&memory.capacity()) {
            all.push(memory);
        }
        self.0.set(all);
    }
}
