//! What is read for a scrape and for a summary: what workers count, what passed in their tunnels, the process.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::control::server::Server;
use crate::log;
use crate::metrics::exposition::Snapshot;
use crate::metrics::process::Process;
use crate::metrics::sizes::Sizes;
use crate::metrics::text::Form;
use crate::metrics::traffic::Traffic;
use crate::panics;

/// What passed on each worker, as it was told last.
#[derive(Debug, Default)]
pub(in crate::control) struct Scrape {
    /// A walk over the tunnels of a worker is one at a time.
    walk: tokio::sync::Mutex<()>,
    last: Mutex<Vec<Traffic>>,
    /// What was told of the sizes of messages.
    sizes: Mutex<Sizes>,
}

impl Scrape {
    /// What passed in tunnels. Of a worker that does not answer it is what it told last: `/ready` says that it does not.
    pub(super) async fn traffic(&self, server: &Server) -> Traffic {
        let _walk = self.walk.lock().await;
        let mut sum = Traffic::default();
        for worker in 0..server.workers.count() {
            let answer = server.workers.traffic(worker).await;
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.len() <= worker {
                last.resize(worker + 1, Traffic::default());
            }
            if let Some(last) = last.get_mut(worker) {
                if let Ok(traffic) = answer {
                    *last = traffic;
                }
                sum += *last;
            }
        }
        sum
    }

    /// The text of a scrape.
    pub(super) async fn metrics(&self, server: &Server, form: Form) -> String {
        let traffic = self.traffic(server).await;
        let workers = server.workers.metrics();
        Snapshot {
            counters: &server.proxy.counters,
            workers: &workers,
            traffic,
            connections_open: server.workers.connections(),
            tunnels_open: server.workers.open(),
            is_draining: !server.is_healthy.load(Ordering::Relaxed),
            is_rebalancing: server.is_rebalancing.load(Ordering::Relaxed),
            took_over: server.took_over.load(Ordering::Relaxed),
            panics: panics::here(),
            lines_dropped: server.proxy.access_log.dropped() + log::dropped(),
            endpoints: server.proxy.routes.endpoint_counts(Instant::now()),
            process: Process::now(),
        }
        .write(form, &mut self.sizes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
