//! How it stands with one name: how long its last answer is used, and when it is asked for again. Pure: what came and
//! what time it is come in as arguments.
//!
//! ```text
//! nothing known ──ask──▶ asked ──answer──▶ known ──TTL──▶ asked, and who comes waits up to 1 s ──answer──▶ known
//!                          │                                 │ failure, or 1 s
//!                          │ failure, or 30 s                ▼
//!                          ▼                               failing: the last good answer is used, and asked
//!                        fault for 0.5 s ──ask──▶ …        behind it every 0.5 s ──answer──▶ known
//! ```
//!
//! An answer is used for as long as its TTL says, at least a second and at most `DNS_MAX_TTL`.

use std::time::{Duration, Instant};

use super::Fault;

/// An answer is used for so long at least: many give a TTL of 0, and not each connection is to ask anew.
pub(super) const LEAST_TTL: Duration = Duration::from_secs(1);

/// How long a failure is: short, since an application that starts should be found at once, but not
/// nothing, since a failing resolver should not be asked by each connection in a row.
pub(super) const FAILED: Duration = Duration::from_millis(500);

/// How long a question is waited for where there is an older answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// How long it is where there is none: what resolv.conf(5) gives a name server (5 s) some times over.
const LONGEST: Duration = Duration::from_secs(30);

/// What was answered about one name.
#[derive(Debug)]
pub(super) struct Answers {
    /// The fault of a resolver that does not answer in time.
    too_slow: Fault,
    /// `DNS_MAX_TTL`.
    most: Duration,
    /// Until when the last answer that had addresses is fresh.
    good_until: Option<Instant>,
    /// When it came.
    good_at: Option<Instant>,
    /// What the last question came to, if it failed.
    failure: Option<Failure>,
    question: Question,
}

/// What holds for a name.
#[derive(Clone, Debug)]
pub(super) enum Status {
    /// Its last answer can be used.
    Good,
    /// It is asked for, and that is worth waiting for.
    Pending,
    /// It has no address, and never had one.
    Fault(Fault),
}

/// How it stands with the resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// It is not being asked.
    None,
    UnderWay,
    /// It is being asked and takes so long that nobody waits for it any more.
    Late,
}

#[derive(Debug)]
struct Failure {
    at: Instant,
    fault: Fault,
}

impl Answers {
    /// Nothing is known yet. `too_slow` is the fault of a resolver that does not answer in time.
    pub(super) const fn new(too_slow: Fault, most: Duration) -> Self {
        Self {
            too_slow,
            most,
            good_until: None,
            good_at: None,
            failure: None,
            question: Question::None,
        }
    }

    /// Whether there ever was an answer with addresses.
    pub(super) const fn has_good(&self) -> bool {
        self.good_until.is_some()
    }

    /// When the last answer came, unless it failed or takes too long: then nothing is known of who is missing.
    pub(super) fn answered_at(&self) -> Option<Instant> {
        self.good_at.filter(|_| self.failure.is_none() && self.question != Question::Late)
    }

    /// What holds, and whether to ask: whoever is told `true` must, and then call [`Answers::answered`].
    pub(super) fn known(&mut self, now: Instant) -> (Status, bool) {
        let ask = self.question == Question::None && !self.is_fresh(now);
        if ask {
            self.question = Question::UnderWay;
        }
        let known = match (&self.good_until, &self.failure) {
            _ if self.is_waited_for() => Status::Pending,
            (Some(_), _) => Status::Good,
            (None, Some(failure)) if self.question == Question::None => {
                Status::Fault(failure.fault.clone())
            }
            (None, _) => Status::Fault(self.too_slow.clone()),
        };
        (known, ask)
    }

    /// Whether the last answer or failure can be used at `now`.
    fn is_fresh(&self, now: Instant) -> bool {
        match (&self.failure, self.good_until) {
            (Some(failure), _) => now.saturating_duration_since(failure.at) < FAILED,
            (None, Some(until)) => now < until,
            (None, None) => false,
        }
    }

    /// Whether a question is under way that is worth waiting for. Where the last one failed and there is an answer to
    /// use, it is not: this one is likely to fail as well.
    pub(super) fn is_waited_for(&self) -> bool {
        let failing_over = self.failure.is_some() && self.has_good();
        self.question == Question::UnderWay && !failing_over
    }

    /// How long the question under way is waited for.
    pub(super) const fn patience(&self) -> Duration {
        if self.has_good() { PATIENCE } else { LONGEST }
    }

    /// The question under way takes longer than that. Returns the fault that this is.
    pub(super) fn late(&mut self) -> Fault {
        self.question = Question::Late;
        self.too_slow.clone()
    }

    /// The question under way came to an answer that may be used for `ttl`, or to a fault.
    pub(super) fn answered(&mut self, now: Instant, outcome: Result<Duration, Fault>) {
        self.question = Question::None;
        match outcome {
            Ok(ttl) => {
                self.good_until = Some(now + ttl.min(self.most).max(LEAST_TTL));
                self.good_at = Some(now);
                self.failure = None;
            }
            Err(fault) => self.failure = Some(Failure { at: now, fault }),
        }
    }
}
