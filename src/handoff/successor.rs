//! The process that takes over.
//!
//! ```text
//!            OFFER            prepared            LISTENERS           listening            BYE
//! AwaitOffer ─────▶ Preparing ────────▶ Taking ───────────▶ Starting ──────────▶ Serving ─────▶ Over
//!     │ REFUSE          │                  │                   │                    │
//!     ▼                 └─ it is told to stop, or cannot go on ┘                    │
//!    Over                                  ▼                                        │
//!                                      AwaitAbort ─── ABORT ───▶ GivingBack ◀─ ABORT ┘
//!                                                                    │ all given: BYE
//!                                                                    ▼
//!                                                                   Over
//! ```
//!
//! An ABORT of the predecessor leads to `GivingBack` from each of them. Where the connection ends the
//! predecessor is dead: what is held is nobody else's, and it goes on alone.

use std::collections::VecDeque;
use std::time::Instant;

use super::giving::{Giving, Malformed};
use super::message::{Hello, Message};
use super::taking::Taking;
use super::{ANSWER, Action, Machine, Outcome, Why};

#[derive(Debug)]
pub(crate) struct Successor {
    state: State,
    taking: Taking,
    giving: Giving,
    /// It was told where to listen.
    has_listeners: bool,
    actions: VecDeque<Action>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    AwaitOffer { until: Instant },
    Preparing,
    Taking,
    Starting,
    Serving,
    AwaitAbort { why: Why },
    GivingBack { why: Why },
    Over,
}

impl Successor {
    /// The connection stands.
    pub(crate) fn new(hello: Hello, now: Instant) -> Self {
        Self {
            state: State::AwaitOffer { until: now + ANSWER },
            taking: Taking::default(),
            giving: Giving::at_once(),
            has_listeners: false,
            actions: VecDeque::from([Action::Send(Message::Hello(hello))]),
        }
    }
}

impl Machine for Successor {
    fn next(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn received(&mut self, message: Message, now: Instant) {
        let result = match (self.state, message) {
            (State::AwaitOffer { .. }, Message::Offer(offer)) => {
                self.state = State::Preparing;
                self.actions.push_back(Action::Prepare(offer));
                Ok(())
            }
            (State::AwaitOffer { .. } | State::AwaitAbort { .. }, Message::Refuse(why)) => {
                self.over(Outcome::Refused(why));
                Ok(())
            }
            // They were on their way when it was given up. The predecessor stops accepting with LISTENERS, and accepts again
            // when it has read our ABORT.
            (State::AwaitAbort { .. }, Message::Offer(_) | Message::Listeners(_))
            | (State::Over, _) => Ok(()),
            (State::GivingBack { .. }, Message::Taken(taken)) => {
                self.giving.taken(taken, now, &mut self.actions)
            }
            (State::GivingBack { .. }, Message::Abort(why)) => {
                self.keep(why);
                Ok(())
            }
            (State::AwaitAbort { why }, Message::Abort(_)) | (_, Message::Abort(why)) => {
                self.give_back(why, now);
                Ok(())
            }
            (State::Taking | State::Serving | State::AwaitAbort { .. }, Message::Batch(batch)) => {
                self.taking.batch(batch.number, &mut self.actions)
            }
            (
                State::Taking | State::Serving | State::AwaitAbort { .. },
                Message::Yours { number },
            ) => self.taking.yours(number, &mut self.actions),
            (State::Taking, Message::Listeners(places)) => {
                self.state = State::Starting;
                self.has_listeners = true;
                self.actions.push_back(Action::Listen(places));
                Ok(())
            }
            (
                State::Starting | State::Serving | State::AwaitAbort { .. },
                Message::Counters(counters),
            ) => {
                self.actions.push_back(Action::Count(counters));
                Ok(())
            }
            (State::Starting | State::Serving | State::AwaitAbort { .. }, Message::Limits) => {
                self.actions.push_back(Action::Limit);
                Ok(())
            }
            (State::Serving, Message::Bye) => {
                self.taking.abandon(&mut self.actions);
                self.over(Outcome::Done);
                Ok(())
            }
            _ => Err(Malformed),
        };
        if result.is_err() {
            self.malformed(now);
        }
        self.go_on(now);
    }

    fn malformed(&mut self, _now: Instant) {
        match self.state {
            State::AwaitOffer { .. } => {
                self.actions.push_back(Action::Send(Message::Abort(Why::Malformed)));
                self.over(Outcome::Kept(Why::Malformed));
            }
            // It serves, or has given up already: what does fit still counts.
            State::Serving | State::AwaitAbort { .. } | State::GivingBack { .. } | State::Over => {}
            State::Preparing | State::Taking | State::Starting => self.give_up(Why::Malformed),
        }
    }

    fn ended(&mut self) {
        if self.state != State::Over {
            self.giving.abandon(&mut self.actions);
            self.taking.inherit(&mut self.actions);
            self.over(Outcome::Alone { has_listeners: self.has_listeners });
        }
    }

    fn cannot_send(&mut self, _now: Instant) {
        if matches!(self.state, State::GivingBack { .. }) {
            self.actions.push_back(Action::Send(Message::Abort(Why::NoRoom)));
            self.keep(Why::NoRoom);
        }
    }

    fn batch_not_sent(&mut self, number: u32, now: Instant) {
        // Its tunnels would be cut if it ended now, and the predecessor waits.
        if matches!(self.state, State::GivingBack { .. }) {
            self.giving.not_sent(number, now, &mut self.actions);
        }
    }

    fn collected(&mut self, number: u32, tunnels: usize, has_more: bool, now: Instant) {
        self.giving.collected(number, tunnels, has_more, now, &mut self.actions);
        self.go_on(now);
    }

    fn checked(&mut self, number: u32, refused: Vec<u16>) {
        self.taking.checked(number, refused, &mut self.actions);
    }

    fn prepared(&mut self) {
        if self.state == State::Preparing {
            self.state = State::Taking;
            self.actions.push_back(Action::Send(Message::Prepared));
        }
    }

    fn listening(&mut self, result: Result<(), Why>) {
        match (self.state, result) {
            (State::Starting, Ok(())) => {
                self.state = State::Serving;
                self.actions.push_back(Action::Send(Message::Listening));
            }
            (State::Starting, Err(why)) => self.give_up(why),
            _ => {}
        }
    }

    fn stop(&mut self, _now: Instant) {
        // Once it serves that is no matter of the handoff any more.
        if matches!(
            self.state,
            State::AwaitOffer { .. } | State::Preparing | State::Taking | State::Starting
        ) {
            self.give_up(Why::Stopped);
        }
    }

    fn hands_on(&mut self) {
        // Where the predecessor has not finished its late tunnels still come.
        if self.state == State::Serving {
            self.actions.push_back(Action::Send(Message::Listening));
        }
    }

    fn serves_on(&mut self) {
        if self.state == State::Serving {
            self.actions.push_back(Action::Send(Message::Abort(Why::Ended)));
        }
    }

    fn leave(&mut self) {
        // Where the predecessor has not finished it keeps what it has not given, and says BYE.
        if self.state == State::Serving {
            self.actions.push_back(Action::Send(Message::Bye));
        }
    }

    fn is_serving(&self) -> bool {
        matches!(self.state, State::Serving | State::Over)
    }

    fn waits(&self) -> bool {
        matches!(self.state, State::Taking | State::AwaitAbort { .. })
    }

    fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::AwaitOffer { until } => Some(until),
            State::GivingBack { .. } => self.giving.deadline(),
            _ => None,
        }
    }

    fn time(&mut self, now: Instant) {
        match self.state {
            State::AwaitOffer { until } if until <= now => {
                self.actions.push_back(Action::Send(Message::Abort(Why::Silence)));
                self.over(Outcome::Kept(Why::Silence));
            }
            State::GivingBack { .. } if self.giving.is_late(now) => {
                self.actions.push_back(Action::Send(Message::Abort(Why::Silence)));
                self.keep(Why::Silence);
            }
            _ => self.go_on(now),
        }
    }
}

impl Successor {
    /// Says ABORT, and waits for the predecessor's: until then it may still say YOURS of what it sent.
    fn give_up(&mut self, why: Why) {
        self.actions.push_back(Action::Send(Message::Abort(why)));
        self.state = State::AwaitAbort { why };
    }

    /// The predecessor goes on alone.
    fn give_back(&mut self, why: Why, now: Instant) {
        self.taking.abandon(&mut self.actions);
        if std::mem::take(&mut self.has_listeners) {
            self.actions.push_back(Action::StopListening);
        }
        self.state = State::GivingBack { why };
        self.go_on(now);
    }

    fn go_on(&mut self, now: Instant) {
        let State::GivingBack { why } = self.state else { return };
        self.giving.go_on(now, &mut self.actions);
        if self.giving.is_done() {
            self.actions.push_back(Action::SendCounters);
            self.actions.push_back(Action::Send(Message::Bye));
            self.over(Outcome::Kept(why));
        }
    }

    /// Nobody is there to give it to: what it has, it has to end.
    fn keep(&mut self, why: Why) {
        self.giving.abandon(&mut self.actions);
        self.over(Outcome::Kept(why));
    }

    fn over(&mut self, outcome: Outcome) {
        self.state = State::Over;
        self.actions.push_back(Action::Over(outcome));
    }
}
