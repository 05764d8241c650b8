//! A proxy that is handed over again and again, beside a test that goes on meanwhile.
//!
//! Each process takes over as soon as the one before it has ended, so that handoffs come several times a second and at
//! any moment of what the test does.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Place, number};
use crate::programs::wait_until;
use crate::proxy::{Elbows, Lines, PATIENCE};
use crate::web_socket::value;

/// The processes. They end with the value. A handoff that is none fails the test.
pub struct Chain {
    /// Where each of them listens.
    pub address: SocketAddr,
    state: Arc<State>,
    conductor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    is_over: AtomicBool,
    handoffs: AtomicUsize,
    /// The access logs, in order.
    access_logs: Mutex<Vec<Lines>>,
}

impl Chain {
    /// All with the same settings, in front of `upstream`.
    pub fn start(upstream: SocketAddr, settings: &[(&'static str, &'static str)]) -> Self {
        let place = Place::new(upstream);
        let address = place.address;
        let settings = settings.to_vec();
        let state = Arc::<State>::default();
        let mut serving = place.start(&settings);
        state.keep_log_of(&serving);
        let shared = Arc::clone(&state);
        let conductor = thread::spawn(move || {
            while !shared.is_over.load(Ordering::Relaxed) {
                let new = place.hand_over(&mut serving, &settings);
                let line = new.log.wait_for("handoff from=");
                assert_eq!(number(&line, "refused"), 0, "{line}");
                shared.keep_log_of(&new);
                shared.handoffs.fetch_add(1, Ordering::Relaxed);
                serving = new;
            }
        });
        Self { address, state, conductor: Some(conductor) }
    }

    /// How many handoffs are over.
    pub fn handoffs(&self) -> usize {
        self.state.handoffs.load(Ordering::Relaxed)
    }

    /// Waits until so many handoffs have begun and ended since now.
    pub fn wait_for(&self, handoffs: usize) {
        // One may be under way.
        let (wanted, deadline) = (self.handoffs() + 1 + handoffs, Instant::now() + PATIENCE);
        while self.handoffs() < wanted {
            let is_alive = self.conductor.as_ref().is_some_and(|thread| !thread.is_finished());
            assert!(is_alive, "a handoff has failed");
            assert!(Instant::now() < deadline, "no handoff comes to an end");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the processes have logged so many tunnels, and returns the lines.
    pub fn tunnels_logged(&self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        wait_until(&format!("lines of {count} tunnels"), || {
            lines = self.logged();
            lines.retain(|line| line.contains("status=101"));
            lines.len() >= count
        });
        assert_eq!(lines.len(), count, "{lines:#?}");
        lines
    }

    /// The same by the targets of their requests: one of each.
    pub fn tunnels_by_target(&self, count: usize) -> HashMap<String, String> {
        let of = |line: String| {
            let target = value(&line, "request").split(' ').nth(1).expect("a target");
            (target.to_owned(), line)
        };
        self.tunnels_logged(count).into_iter().map(of).collect()
    }

    fn logged(&self) -> Vec<String> {
        self.state.access_logs.lock().unwrap().iter().flat_map(Lines::all).collect()
    }
}

impl State {
    fn keep_log_of(&self, elbows: &Elbows) {
        self.access_logs.lock().unwrap().push(elbows.access_log.clone());
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::Relaxed);
        if let Some(conductor) = self.conductor.take() {
            let ended = conductor.join();
            assert!(ended.is_ok() || thread::panicking(), "a handoff has failed");
        }
    }
}
