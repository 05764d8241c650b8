//! Warnings that would come a thousand times a second where an application is dead.
//!
//! Each cause is told at once, and then every ten seconds at most, with how many came since:
//! `132 requests in 10 s got 502: no connection to 10.0.0.7:80: Connection refused`. When requests are answered again and
//! none has failed for ten seconds, the log says that it is over.
//!
//! [`Recurring`] and [`Causes`] are pure; [`Warnings`] shares them between workers and writes the lines.

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::end::Reason;

/// How often one cause is told.
const EVERY: Duration = Duration::from_secs(10);

/// How often it is looked at what there is to tell.
const TICK: Duration = Duration::from_secs(1);

/// One cause of warnings.
#[derive(Debug, Default)]
pub(crate) struct Recurring {
    /// When the last line was written.
    told_at: Option<Instant>,
    /// When the last one came.
    came_at: Option<Instant>,
    /// How many came since the last line.
    untold: u64,
    /// A line was written, and none yet that it is over.
    is_open: bool,
}

/// What a line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    /// How many came since the line before.
    pub(crate) number: u64,
    /// How long ago that was; `None` if this is the first line.
    pub(crate) over: Option<Duration>,
}

impl Recurring {
    /// Counts one. `Some` where it is time for a line.
    pub(crate) fn count(&mut self, now: Instant) -> Option<Tally> {
        self.came_at = Some(now);
        self.untold = self.untold.saturating_add(1);
        self.rest(now)
    }

    /// What is to be told of those that came since the last line, if it is time for that.
    pub(crate) fn rest(&mut self, now: Instant) -> Option<Tally> {
        let over = self.told_at.map(|at| now.saturating_duration_since(at));
        if self.untold == 0 || over.is_some_and(|over| over < EVERY) {
            return None;
        }
        self.told_at = Some(now);
        self.is_open = true;
        Some(Tally { number: std::mem::take(&mut self.untold), over })
    }

    /// Whether none came for as long as lines are apart.
    pub(crate) fn is_quiet(&self, now: Instant) -> bool {
        self.came_at.is_none_or(|at| now.saturating_duration_since(at) >= EVERY)
    }

    /// It is over. Says whether that is worth a line: what comes and goes often is said to be over at most as often as
    /// it is told.
    pub(crate) fn over(&mut self) -> bool {
        std::mem::take(&mut self.is_open)
    }
}

/// What there is to warn of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Requests that elbows answered in the upstream's place.
    Upstream { why: Reason, status: u16 },
    /// Connections whose PROXY header was refused, or was not there.
    ProxyHeader,
}

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Warning(String),
    Over(String),
}

/// All causes that there were, few.
#[derive(Debug, Default)]
struct Causes(Vec<(Cause, Recurring, Option<String>)>);

impl Causes {
    /// Counts one of `cause`, which `text` describes.
    fn count(&mut self, cause: Cause, text: &dyn Display, now: Instant) -> Option<Line> {
        let place = self.0.iter().position(|(known, ..)| *known == cause);
        let place = place.unwrap_or_else(|| {
            self.0.push((cause, Recurring::default(), None));
            self.0.len() - 1
        });
        let (_, recurring, kept) = self.0.get_mut(place)?;
        if let Some(tally) = recurring.count(now) {
            *kept = None;
            return Some(Line::Warning(cause.line(tally, text)));
        }
        // One describes them all until the next line.
        kept.get_or_insert_with(|| text.to_string());
        None
    }

    /// What there is to tell at `now`; `has_answered`: a request was answered since the last time.
    fn tick(&mut self, has_answered: bool, now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        for (cause, recurring, kept) in &mut self.0 {
            if let Some(tally) = recurring.rest(now) {
                let text = kept.take().unwrap_or_default();
                lines.push(Line::Warning(cause.line(tally, &text)));
            }
        }
        let mut upstream = self.0.iter().filter(|(cause, ..)| cause.is_upstream());
        if has_answered && upstream.all(|(_, recurring, _)| recurring.is_quiet(now)) {
            let upstream = self.0.iter_mut().filter(|(cause, ..)| cause.is_upstream());
            if upstream.filter_map(|(_, recurring, _)| recurring.over().then_some(())).count() > 0 {
                lines.push(Line::Over(format!(
                    "the upstream answers again: no request failed for {} s",
                    EVERY.as_secs()
                )));
            }
        }
        lines
    }

    /// Whether anything was told of the upstream that is not over.
    fn is_open(&self) -> bool {
        self.0.iter().any(|(cause, recurring, _)| cause.is_upstream() && recurring.is_open)
    }
}

impl Cause {
    fn is_upstream(self) -> bool {
        matches!(self, Self::Upstream { .. })
    }

    fn line(self, Tally { number, over }: Tally, text: &dyn Display) -> String {
        let (one, many) = match self {
            Self::Upstream { .. } => ("a request", "requests"),
            Self::ProxyHeader => ("a connection", "connections"),
        };
        let whose = match over {
            _ if number == 1 => one.to_owned(),
            Some(over) => format!("{number} {many} in {} s", over.as_secs()),
            None => format!("{number} {many}"),
        };
        match self {
            Self::Upstream { status, .. } => format!("{whose} got {status}: {text}"),
            Self::ProxyHeader => format!("{whose} refused because of the PROXY header: {text}"),
        }
    }
}

/// Writes warnings. Clones share what was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Warnings(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    causes: Mutex<Causes>,
    /// A warning about the upstream was told, and that it is over was not.
    is_open: AtomicBool,
    /// A request was answered since the last tick.
    has_answered: AtomicBool,
}

impl Warnings {
    /// A request got `status` because of the upstream; `fault` says what was wrong.
    pub(crate) fn upstream_failed(
        &self,
        why: Reason,
        status: u16,
        fault: &dyn Display,
        now: Instant,
    ) {
        self.count(Cause::Upstream { why, status }, fault, now);
    }

    /// A connection from `balancer` was refused for its PROXY header, or because it had none.
    pub(crate) fn proxy_header_refused(
        &self,
        fault: &dyn Display,
        balancer: SocketAddr,
        now: Instant,
    ) {
        self.count(Cause::ProxyHeader, &format_args!("{fault}, from {balancer}"), now);
    }

    /// The upstream answered a request. Nothing but a look where all is well.
    pub(crate) fn upstream_answered(&self) {
        if self.0.is_open.load(Ordering::Relaxed) {
            self.0.has_answered.store(true, Ordering::Relaxed);
        }
    }

    fn count(&self, cause: Cause, text: &dyn Display, now: Instant) {
        let line = {
            let mut causes = self.0.causes();
            let line = causes.count(cause, text, now);
            self.0.is_open.store(causes.is_open(), Ordering::Relaxed);
            if cause.is_upstream() {
                self.0.has_answered.store(false, Ordering::Relaxed);
            }
            line
        };
        line.into_iter().for_each(Line::write);
    }

    /// Writes what there is to tell from time to time. For a task of its own; never ends.
    pub(crate) async fn run(self) {
        loop {
            tokio::time::sleep(TICK).await;
            let lines = {
                let mut causes = self.0.causes();
                let has_answered = self.0.has_answered.load(Ordering::Relaxed);
                let lines = causes.tick(has_answered, Instant::now());
                self.0.is_open.store(causes.is_open(), Ordering::Relaxed);
                lines
            };
            lines.into_iter().for_each(Line::write);
        }
    }
}

impl Shared {
    /// What is under this lock is whole after a panic too.
    fn causes(&self) -> MutexGuard<'_, Causes> {
        self.causes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn write(self) {
        match self {
            Self::Warning(text) => tracing::warn!("{text}"),
            Self::Over(text) => tracing::info!("{text}"),
        }
    }
}
