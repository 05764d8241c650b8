//! The process that serves and hands over.
//!
//! ```text
//!            HELLO               PREPARED           none left              LISTENING            nothing left
//! AwaitHello ─────▶ AwaitPrepared ───────▶ Moving ────────────▶ AwaitListening ─────▶ Finishing ──────────────▶ Over
//!     │ REFUSE          │                     │                      │                    │ its time is over:
//!     ▼                 └─ ABORT, or no answer ──────────────────────┘                    │ the rest is drained
//!    Over                                     ▼                                           ▼
//!                                        TakingBack ── BYE ─▶ Over                       Over
//! ```
//!
//! `TakingBack` has an end by itself only where the successor was given nothing. One that has tunnels may stand
//! still, and go on with them at any time: if they were served here, too, they would be doubled. So it is waited for,
//! until it gives them back or is dead.
//!
//! Wherever the connection ends the successor is dead: what was not given is put back, listeners are listened on
//! again, and it is over. In `Finishing` the successor may itself hand over, or be told to stop. It says the first by
//! a second LISTENING, before it moves a tunnel: from there on the listeners are somebody else's whatever becomes of
//! it, so that two never serve at once, and a third process that finds it dead can bind them. An ABORT takes that
//! back. It says the second by a BYE: then what is left here is drained.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::giving::{Giving, Malformed};
use super::message::{Hello, Message, Offer, RefuseWhy, Release};
use super::taking::Taking;
use super::{ANSWER, Action, Machine, Outcome, PREPARATION, Why};

/// How often it looks whether a handshake has become a tunnel, and whether all is done.
const LOOK: Duration = Duration::from_millis(20);

/// Descriptors that a process needs which takes over so many tunnels: two for each, and some for what else there is.
pub(crate) const fn descriptors_for(tunnels: u64) -> u64 {
    tunnels.saturating_mul(2).saturating_add(256)
}

#[derive(Debug)]
pub(crate) struct Predecessor {
    state: State,
    offer: Offer,
    release: Release,
    refuses: Option<RefuseWhy>,
    /// How long what cannot move has, once the successor listens.
    finish_within: Duration,
    is_told_to_stop: bool,
    /// The successor hands over in turn: its end is no reason to listen again.
    is_handed_on: bool,
    /// The successor may have something: a tunnel that it was given, or the listeners.
    has_given: bool,
    /// Connections that are no tunnels, when it was looked last.
    connections: usize,
    giving: Giving,
    taking: Taking,
    actions: VecDeque<Action>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    AwaitHello { until: Instant },
    AwaitPrepared { until: Instant },
    Moving,
    AwaitListening { until: Instant },
    Finishing { until: Instant, look: Instant },
    TakingBack { why: Why, until: Option<Instant> },
    Over,
}

impl Predecessor {
    /// A connection has come. `refuses` says why this is not the time for a handoff.
    pub(crate) fn new(
        offer: Offer,
        release: Release,
        refuses: Option<RefuseWhy>,
        finish_within: Duration,
        now: Instant,
    ) -> Self {
        Self {
            state: State::AwaitHello { until: now + ANSWER },
            offer,
            release,
            refuses,
            finish_within,
            is_told_to_stop: false,
            is_handed_on: false,
            has_given: false,
            connections: usize::MAX,
            giving: Giving::carefully(),
            taking: Taking::default(),
            actions: VecDeque::new(),
        }
    }

    /// The conversation with a successor is gone on with after a mistake of ours: nobody knows what was given, and
    /// all of it comes back.
    pub(crate) fn taking_back(offer: Offer, release: Release, now: Instant) -> Self {
        let mut machine = Self::new(offer, release, None, Duration::ZERO, now);
        machine.has_given = true;
        machine.give_up(Why::Malformed, now);
        machine
    }
}

impl Machine for Predecessor {
    fn next(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn received(&mut self, message: Message, now: Instant) {
        let result = match (self.state, message) {
            (State::AwaitHello { .. }, Message::Hello(hello)) => {
                self.greet(&hello, now);
                Ok(())
            }
            (State::AwaitHello { .. }, _) => {
                self.refuse(RefuseWhy::NoHello);
                Ok(())
            }
            (State::AwaitPrepared { .. }, Message::Prepared) => {
                self.state = State::Moving;
                self.actions.push_back(Action::Announce);
                self.giving.go_on(now, &mut self.actions);
                Ok(())
            }
            (State::Moving | State::Finishing { .. }, Message::Taken(taken)) => {
                self.has_given = true;
                self.giving.taken(taken, now, &mut self.actions)
            }
            (State::AwaitListening { .. }, Message::Listening) => {
                let until = now + self.finish_within;
                self.state = State::Finishing { until, look: now };
                self.actions.push_back(Action::Leave);
                Ok(())
            }
            (State::Finishing { .. }, Message::Listening) => {
                self.is_handed_on = true;
                Ok(())
            }
            (State::Finishing { .. }, Message::Abort(_)) => {
                self.is_handed_on = false;
                Ok(())
            }
            (State::Finishing { .. }, Message::Bye) => {
                self.drain_rest();
                Ok(())
            }
            (State::TakingBack { .. }, Message::Batch(batch)) => {
                self.taking.batch(batch.number, &mut self.actions)
            }
            (State::TakingBack { .. }, Message::Yours { number }) => {
                self.taking.yours(number, &mut self.actions)
            }
            (State::TakingBack { .. }, Message::Counters(counters)) => {
                self.actions.push_back(Action::Count(counters));
                Ok(())
            }
            (State::TakingBack { why, .. }, Message::Bye) => {
                self.over(Outcome::Kept(why));
                Ok(())
            }
            // It does not get rid of the rest. One that was on its way when it was given up comes before any batch.
            (State::TakingBack { .. }, Message::Abort(_)) => {
                self.taking.abandon(&mut self.actions);
                Ok(())
            }
            // They were on their way when it was given up.
            (
                State::TakingBack { .. },
                Message::Prepared | Message::Taken(_) | Message::Listening,
            )
            | (State::Over, _) => Ok(()),
            (
                State::AwaitPrepared { .. } | State::Moving | State::AwaitListening { .. },
                Message::Abort(why),
            ) => {
                self.give_up(why, now);
                Ok(())
            }
            _ => Err(Malformed),
        };
        if result.is_err() {
            self.malformed(now);
        }
        self.go_on(now);
    }

    fn malformed(&mut self, now: Instant) {
        match self.state {
            State::AwaitHello { .. } => self.refuse(RefuseWhy::NoHello),
            // The successor serves, or it is given up already: what does fit still counts.
            State::Finishing { .. } | State::TakingBack { .. } | State::Over => {}
            _ => self.give_up(Why::Malformed, now),
        }
    }

    fn ended(&mut self) {
        self.giving.abandon(&mut self.actions);
        match self.state {
            State::Over => return,
            State::Finishing { .. } if self.is_handed_on => return self.over(Outcome::Done),
            State::AwaitListening { .. } | State::Finishing { .. } => {
                self.actions.push_back(Action::ListenAgain);
            }
            State::TakingBack { .. } => self.taking.inherit(&mut self.actions),
            State::AwaitHello { .. } | State::AwaitPrepared { .. } | State::Moving => {}
        }
        self.over(Outcome::Kept(Why::Ended));
    }

    fn cannot_send(&mut self, now: Instant) {
        match self.state {
            State::Moving | State::AwaitListening { .. } => self.give_up(Why::NoRoom, now),
            State::Finishing { .. } => self.drain_rest(),
            _ => {}
        }
    }

    fn batch_not_sent(&mut self, number: u32, now: Instant) {
        match self.state {
            // The successor serves, so that there is time until what is left is drained.
            State::Finishing { .. } => self.giving.not_sent(number, now, &mut self.actions),
            _ => self.cannot_send(now),
        }
    }

    fn collected(&mut self, number: u32, tunnels: usize, has_more: bool, now: Instant) {
        self.giving.collected(number, tunnels, has_more, now, &mut self.actions);
        self.go_on(now);
    }

    fn checked(&mut self, number: u32, refused: Vec<u16>) {
        self.taking.checked(number, refused, &mut self.actions);
    }

    fn looked(&mut self, connections: usize, now: Instant) {
        if let State::Finishing { .. } = self.state {
            self.connections = connections;
            self.giving.come_late();
            self.go_on(now);
        }
    }

    fn stop(&mut self, now: Instant) {
        match self.state {
            State::AwaitHello { .. } => self.refuse(RefuseWhy::Draining),
            State::AwaitPrepared { .. } => self.give_up(Why::Stopped, now),
            // One that moves tunnels goes on, since nobody is cut then. What is no tunnel is not waited for.
            _ => {
                self.is_told_to_stop = true;
                self.finish_within = self.finish_within.min(ANSWER);
                if let State::Finishing { until, .. } = &mut self.state {
                    *until = (*until).min(now + self.finish_within);
                }
                self.go_on(now);
            }
        }
    }

    fn is_moving(&self) -> bool {
        matches!(self.state, State::Moving | State::AwaitListening { .. } | State::Finishing { .. })
    }

    fn waits(&self) -> bool {
        matches!(self.state, State::TakingBack { .. })
    }

    fn deadline(&self) -> Option<Instant> {
        let own = match self.state {
            State::AwaitHello { until }
            | State::AwaitPrepared { until }
            | State::AwaitListening { until } => Some(until),
            State::Finishing { until, look } => Some(until.min(look)),
            State::TakingBack { until, .. } => until,
            State::Moving | State::Over => None,
        };
        own.into_iter().chain(self.giving.deadline()).min()
    }

    fn time(&mut self, now: Instant) {
        match self.state {
            State::AwaitHello { until } if until <= now => self.refuse(RefuseWhy::NoHello),
            State::AwaitPrepared { until } | State::AwaitListening { until } if until <= now => {
                self.give_up(Why::Silence, now);
            }
            State::Moving if self.giving.is_late(now) => self.give_up(Why::Silence, now),
            State::TakingBack { why, until: Some(until) } if until <= now => {
                self.over(Outcome::Kept(why));
            }
            State::Finishing { until, .. } if until <= now || self.giving.is_late(now) => {
                self.drain_rest();
            }
            State::Finishing { until, look } if look <= now => {
                self.state = State::Finishing { until, look: now + LOOK };
                self.actions.push_back(Action::Look);
            }
            _ => {}
        }
        self.go_on(now);
    }
}

impl Predecessor {
    fn go_on(&mut self, now: Instant) {
        if !matches!(self.state, State::Moving | State::Finishing { .. }) {
            return;
        }
        self.giving.go_on(now, &mut self.actions);
        if self.state == State::Moving && self.giving.is_done() {
            self.state = State::AwaitListening { until: now + ANSWER };
            self.has_given = true;
            self.actions.push_back(Action::StopListening);
            self.actions.push_back(Action::SendListeners);
        } else if self.giving.is_done() && (self.connections == 0 || self.is_told_to_stop) {
            self.bye();
        }
    }

    fn greet(&mut self, hello: &Hello, now: Instant) {
        let protocol = self.offer.protocol;
        if let Some(why) = self.refuses {
            self.refuse(why);
        } else if !(hello.oldest..=hello.newest).contains(&protocol) {
            self.refuse(RefuseWhy::Version);
        } else if hello.release < self.release && !hello.downgrade {
            self.refuse(RefuseWhy::Downgrade);
        } else if hello.free_descriptors < descriptors_for(self.offer.tunnels) {
            self.refuse(RefuseWhy::Descriptors);
        } else {
            self.state = State::AwaitPrepared { until: now + PREPARATION };
            self.actions.push_back(Action::Send(Message::Offer(self.offer.clone())));
        }
    }

    fn refuse(&mut self, why: RefuseWhy) {
        self.actions.push_back(Action::Send(Message::Refuse(why)));
        self.over(Outcome::Refused(why));
    }

    /// Says ABORT, or answers one, and goes on alone. The successor gives back what it has.
    fn give_up(&mut self, why: Why, now: Instant) {
        self.actions.push_back(Action::Send(Message::Abort(why)));
        self.giving.abandon(&mut self.actions);
        if matches!(self.state, State::AwaitListening { .. }) {
            self.actions.push_back(Action::ListenAgain);
        }
        let until = (!self.has_given).then_some(now + ANSWER);
        self.state = State::TakingBack { why, until };
    }

    /// What was not given stays, and is drained.
    fn drain_rest(&mut self) {
        self.giving.abandon(&mut self.actions);
        self.bye();
    }

    fn bye(&mut self) {
        self.actions.push_back(Action::SendCounters);
        self.actions.push_back(Action::Send(Message::Bye));
        self.over(Outcome::Done);
    }

    fn over(&mut self, outcome: Outcome) {
        self.state = State::Over;
        self.actions.push_back(Action::Over(outcome));
    }
}
