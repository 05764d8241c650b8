//! What one worker counts: numbers that it alone writes. Pure.

use std::time::Duration;

use super::exemplars::{Exemplar, Exemplars};
use super::families::{MESSAGE_SIZES, REQUEST_TIMES, ROUND_TIMES, ROUND_TRIP_TIMES};
use super::labels::{ConnectFailure, Method, Status};
use super::own::{Distribution, Histogram, Own};
use crate::http::trace_context::TraceId;
use crate::peer::Pair;

/// The ranges of message sizes above the first one, whose count is what the others leave of all messages.
pub(crate) const LARGE_SIZES: usize = MESSAGE_SIZES.len();

/// The numbers of one worker.
#[derive(Debug)]
pub(crate) struct WorkerMetrics {
    requests: [[Own; Status::COUNT]; Method::COUNT],
    /// Of requests that opened no tunnel, from their heads to the end of their responses.
    pub(crate) request_times: Histogram<{ REQUEST_TIMES.len() }>,
    /// From the head of a handshake until its client had the 101.
    handshake_times: Histogram<{ REQUEST_TIMES.len() }>,
    /// Of each range of those one with its trace.
    handshake_exemplars: Exemplars<{ REQUEST_TIMES.len() }>,
    /// By what the client sent, and the upstream: messages in each range but the first.
    large_messages: Pair<[Own; LARGE_SIZES]>,
    /// Of our Pings to clients.
    pub(crate) ping_times: Histogram<{ ROUND_TRIP_TIMES.len() }>,
    /// Pings of ours after which nothing came, so that the tunnel ended.
    pub(crate) pings_unanswered: Own,
    connect_failures: [Own; ConnectFailure::COUNT],
    /// Requests that got an idle connection to the upstream.
    pub(crate) links_reused: Own,
    /// Idle connections to the upstream that are there now.
    pub(crate) links_idle: Own,
    /// Handshakes and requests that were sent to another endpoint.
    pub(crate) retries: Own,
    /// Rounds that were timed.
    pub(crate) round_times: Histogram<{ ROUND_TIMES.len() }>,
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        use std::array::from_fn;
        Self {
            requests: from_fn(|_| from_fn(|_| Own::default())),
            request_times: Histogram::default(),
            handshake_times: Histogram::default(),
            handshake_exemplars: Exemplars::default(),
            large_messages: Pair::of(|_| from_fn(|_| Own::default())),
            ping_times: Histogram::default(),
            pings_unanswered: Own::default(),
            connect_failures: from_fn(|_| Own::default()),
            links_reused: Own::default(),
            links_idle: Own::default(),
            retries: Own::default(),
            round_times: Histogram::default(),
        }
    }
}

impl WorkerMetrics {
    /// A request was answered, or was not.
    pub(crate) fn request(&self, method: Method, status: Option<u16>) {
        let statuses = self.requests.get(method.index());
        if let Some(number) = statuses.and_then(|all| all.get(Status::of(status).index())) {
            number.add(1);
        }
    }

    /// A request ended without a tunnel after so long.
    pub(crate) fn request_ended(&self, time: Duration) {
        self.request_times.observe_time(time, &REQUEST_TIMES);
    }

    /// A handshake was answered with 101 after so long; it is part of this trace, and then it is so long since 1970.
    pub(crate) fn handshake(
        &self,
        time: Duration,
        trace_id: Option<TraceId>,
        now: impl FnOnce() -> Duration,
    ) {
        self.handshake_times.observe_time(time, &REQUEST_TIMES);
        if let Some(trace_id) = trace_id {
            self.handshake_exemplars.keep(time, trace_id, now(), &REQUEST_TIMES);
        }
    }

    /// How long handshakes took.
    pub(crate) fn handshake_times(&self) -> Distribution {
        self.handshake_times.distribution()
    }

    /// Some of them, with their traces.
    pub(crate) fn handshake_exemplars(&self) -> Vec<Option<Exemplar>> {
        self.handshake_exemplars.all()
    }

    /// There was no connection to an address of the upstream.
    pub(crate) fn connect_failed(&self, why: ConnectFailure) {
        if let Some(number) = self.connect_failures.get(why.index()) {
            number.add(1);
        }
    }

    /// Messages that `source` sent, by [range](large_range).
    pub(crate) fn large_messages(&self, source: crate::peer::Peer, counts: &[u32; LARGE_SIZES]) {
        for (number, count) in self.large_messages[source].iter().zip(counts) {
            if *count > 0 {
                number.add((*count).into());
            }
        }
    }

    /// The requests of each method and status.
    pub(crate) fn requests(&self) -> impl Iterator<Item = (Method, Status, u64)> {
        Method::ALL.into_iter().zip(&self.requests).flat_map(|(method, statuses)| {
            Status::all().zip(statuses).map(move |(status, number)| (method, status, number.get()))
        })
    }

    /// The failures of each kind.
    pub(crate) fn connect_failures(&self) -> impl Iterator<Item = (ConnectFailure, u64)> {
        ConnectFailure::ALL.into_iter().zip(self.connect_failures.iter().map(Own::get))
    }

    /// Messages of each source in each range but the first.
    pub(crate) fn large_message_counts(&self) -> Pair<[u64; LARGE_SIZES]> {
        Pair::of(|peer| self.large_messages[peer].each_ref().map(Own::get))
    }
}

/// The range of a message of so many bytes; none where it is the first one, which nobody has to count.
pub(crate) fn large_range(size: u64) -> Option<usize> {
    MESSAGE_SIZES.partition_point(|bound| *bound < size).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_one_short_head_are_the_first_range() {
        assert_eq!(large_range(0), None);
        assert_eq!(large_range(125), None);
        assert_eq!(large_range(126), Some(0));
        assert_eq!(large_range(1024), Some(0));
        assert_eq!(large_range(u64::MAX), Some(LARGE_SIZES - 1));
    }

    #[test]
    fn requests_are_told_by_method_and_status() {
        let metrics = WorkerMetrics::default();
        metrics.request(Method::Get, Some(200));
        metrics.request(Method::Get, Some(200));
        metrics.request(Method::Other, None);
        let told: Vec<_> = metrics
            .requests()
            .filter(|(_, _, number)| *number > 0)
            .map(|(method, status, number)| (method.as_str(), status.text(), number))
            .collect();
        assert_eq!(told, [("GET", "200".to_owned(), 2), ("other", "none".to_owned(), 1)]);
    }
}
