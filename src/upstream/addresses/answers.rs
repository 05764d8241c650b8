//! What the resolver answered, how long that is used, and when it is asked again. Pure: what was found and what time it
//! is come in as arguments.
//!
//! ```text
//! nothing known ──ask──▶ asked ──answer──▶ known ──5 s──▶ asked, and who comes waits up to 1 s ──answer──▶ known
//!                          │                                 │ failure, or 1 s
//!                          │ failure, or 30 s                ▼
//!                          ▼                               failing: the last good answer is used, and asked
//!                        fault for 0.5 s ──ask──▶ …        behind it every 0.5 s ──answer──▶ known
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::order::Order;
use super::{Fault, Resolution};

/// How long an answer is used.
pub(super) const FRESH: Duration = Duration::from_secs(5);

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
    /// The last answer that had addresses.
    good: Option<Good>,
    /// What the last question came to, if it failed.
    failure: Option<Failure>,
    question: Question,
    order: Order,
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
struct Good {
    at: Instant,
    addresses: Arc<[SocketAddr]>,
}

#[derive(Debug)]
struct Failure {
    at: Instant,
    fault: Fault,
}

impl Answers {
    /// Nothing is known yet. `too_slow` is the fault of a resolver that does not answer in time.
    pub(super) fn new(too_slow: Fault) -> Self {
        let order = Order::default();
        Self { too_slow, good: None, failure: None, question: Question::None, order }
    }

    /// Whether there ever was an answer with addresses.
    pub(super) fn has_good(&self) -> bool {
        self.good.is_some()
    }

    /// What is known, and whether to ask: whoever is told `true` must, and then call [`Answers::answered`].
    pub(super) fn known(&mut self, now: Instant) -> (Resolution, bool) {
        let ask = self.question == Question::None && !self.is_fresh(now);
        if ask {
            self.question = Question::UnderWay;
        }
        if self.is_waited_for() {
            return (Resolution::Pending, ask);
        }
        let known = match (&self.good, &self.failure) {
            (Some(good), _) => Resolution::Addresses(self.order.of(&good.addresses, now)),
            (None, Some(failure)) if self.question == Question::None => {
                Resolution::Fault(failure.fault.clone())
            }
            (None, _) => Resolution::Fault(self.too_slow.clone()),
        };
        (known, ask)
    }

    /// Whether the last answer or failure can be used at `now`.
    fn is_fresh(&self, now: Instant) -> bool {
        let age = |at: Instant| now.saturating_duration_since(at);
        match (&self.failure, &self.good) {
            (Some(failure), _) => age(failure.at) < FAILED,
            (None, Some(good)) => age(good.at) < FRESH,
            (None, None) => false,
        }
    }

    /// Whether a question is under way that is worth waiting for. Where the last one failed and there is an answer to
    /// use, it is not: this one is likely to fail as well.
    pub(super) fn is_waited_for(&self) -> bool {
        let failing_over = self.failure.is_some() && self.good.is_some();
        self.question == Question::UnderWay && !failing_over
    }

    /// How long the question under way is waited for.
    pub(super) fn patience(&self) -> Duration {
        if self.good.is_some() { PATIENCE } else { LONGEST }
    }

    /// The question under way takes longer than that. Returns the fault that this is.
    pub(super) fn late(&mut self) -> Fault {
        self.question = Question::Late;
        self.too_slow.clone()
    }

    /// The question under way came to this.
    pub(super) fn answered(&mut self, now: Instant, found: Result<Arc<[SocketAddr]>, Fault>) {
        self.question = Question::None;
        match found {
            Ok(addresses) => {
                self.good = Some(Good { at: now, addresses });
                self.failure = None;
            }
            Err(fault) => self.failure = Some(Failure { at: now, fault }),
        }
    }

    pub(super) fn failed(&mut self, address: SocketAddr, now: Instant) {
        self.order.failed(address, now);
    }

    pub(super) fn reached(&mut self, address: SocketAddr) {
        self.order.reached(address);
    }
}
