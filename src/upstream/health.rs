//! How it stands with one endpoint, by what checks, connections and answers say of it. Pure: what came to pass and what
//! time it is come in as arguments.
//!
//! ```text
//!                      FALL checks failed, or, where there are checks, it took no connection
//!          ┌───────────────────────────────────────────────────────────────▶ down ─────RISE checks passed──┐
//!          │                                                                                               │
//! came ──▶ warming ──SLOW_START──▶ up ──took no connection, without checks──▶ failed ──took one────────────┤
//!          ▲                       │                                                                       │
//!          │                       └──EJECT failures in a row──▶ ejected ──answered well───────────────────┤
//!          └───────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Without `SLOW_START` nobody is warming. One that is failed or ejected is tried last; when its time is over, one
//! connection begins with it. An ejection takes 5 s, and twice as long as the one before where that was a short while ago,
//! up to five minutes. The first check of an endpoint decides alone: before it nothing is known.

use std::time::{Duration, Instant};

use super::addresses::EndpointState;

/// How long an endpoint that took no connection is tried last by everybody.
pub(crate) const AVOIDED: Duration = Duration::from_secs(30);

/// How long the first ejection is, and the longest.
const EJECTED: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(300);

/// An ejection that ended so long ago does not make the next one longer, unless it was longer itself.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// The share of an endpoint that is warming grows in so many steps.
pub(crate) const STEPS: u16 = 10;

/// What the settings say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HealthRules {
    /// There are checks, and so many in a row have to pass, or to fail.
    pub(crate) checks: Option<InARow>,
    /// `SLOW_START`.
    pub(crate) slow_start: Duration,
}

/// `UPSTREAM_CHECK_RISE` and `UPSTREAM_CHECK_FALL`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InARow {
    pub(crate) rise: u32,
    pub(crate) fall: u32,
}

/// How it stands with an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Health {
    state: State,
    /// So many checks in a row said something else than the state does.
    against: u32,
    /// A check is to confirm what is believed.
    is_unproven: bool,
    /// When the last ejection ended, and how long it was.
    last_ejection: Option<(Instant, Duration)>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// It gets its share, which grows from then on.
    In { warms_since: Option<Instant> },
    /// It took no connection. One connection is to begin with it then.
    Failed { retry_at: Instant },
    /// It failed too many in a row. Of the connection that began with it nothing is known yet, if one has.
    Ejected { retry_at: Instant, lasts: Duration, is_tried: bool },
    /// Its checks fail, as was last heard of then.
    Down { at: Instant },
}

impl Default for Health {
    /// Of one of which nothing is known.
    fn default() -> Self {
        let state = State::In { warms_since: None };
        Self { state, against: 0, is_unproven: true, last_ejection: None }
    }
}

impl Health {
    /// It has come while others were there.
    pub(crate) fn came(&mut self, now: Instant, rules: &HealthRules) {
        if matches!(self.state, State::In { .. }) {
            self.enter(now, rules);
        }
    }

    fn enter(&mut self, now: Instant, rules: &HealthRules) {
        self.state = State::In { warms_since: (rules.slow_start > Duration::ZERO).then_some(now) };
        self.against = 0;
    }

    /// It took no connection.
    pub(crate) fn refused(&mut self, now: Instant, rules: &HealthRules) {
        self.against = 0;
        self.is_unproven = true;
        self.state = match rules.checks {
            Some(_) => State::Down { at: now },
            None => State::Failed { retry_at: now + AVOIDED },
        };
    }

    /// It took a connection. That does not prove that checks would pass, nor how it answers.
    pub(crate) fn connected(&mut self, now: Instant, rules: &HealthRules) {
        if let State::Failed { .. } = self.state {
            self.enter(now, rules);
        }
    }

    /// So many handshakes or requests in a row failed there that it is to be ejected. Whether it is, for how long.
    pub(crate) fn fell(&mut self, now: Instant) -> Option<Duration> {
        let lasts = match self.state {
            State::In { .. } => match self.last_ejection {
                Some((ended, lasted))
                    if now.saturating_duration_since(ended) < FORGOTTEN.max(lasted) =>
                {
                    (lasted * 2).min(LONGEST)
                }
                _ => EJECTED,
            },
            State::Ejected { lasts, is_tried: true, .. } => (lasts * 2).min(LONGEST),
            // What was under way when it was ejected says nothing new.
            State::Ejected { .. } | State::Failed { .. } | State::Down { .. } => return None,
        };
        self.state = State::Ejected { retry_at: now + lasts, lasts, is_tried: false };
        Some(lasts)
    }

    /// It answered well.
    pub(crate) fn worked(&mut self, now: Instant, rules: &HealthRules) {
        if let State::Ejected { lasts, .. } = self.state {
            self.last_ejection = Some((now, lasts));
            self.enter(now, rules);
        }
    }

    /// A check passed, or failed.
    pub(crate) fn checked(&mut self, has_passed: bool, now: Instant, rules: &HealthRules) {
        let Some(InARow { rise, fall }) = rules.checks else { return };
        let is_first = std::mem::take(&mut self.is_unproven);
        match (&mut self.state, has_passed) {
            (State::Down { at }, false) => {
                *at = now;
                self.against = 0;
            }
            (State::Down { .. }, true) => {
                self.against += 1;
                if self.against >= rise {
                    self.enter(now, rules);
                }
            }
            (_, true) => self.against = 0,
            (_, false) => {
                self.against += 1;
                if is_first || self.against >= fall {
                    self.against = 0;
                    self.state = State::Down { at: now };
                }
            }
        }
    }

    /// Whether checks are to come soon: what is believed is new, or about to change.
    pub(crate) const fn is_changing(&self) -> bool {
        self.is_unproven || self.against > 0
    }

    /// Whether one that nobody had ever heard of would be the same.
    pub(crate) const fn is_plain(&self) -> bool {
        matches!(self.state, State::In { warms_since: None })
            && self.is_unproven
            && self.last_ejection.is_none()
    }

    /// The word for it.
    pub(crate) fn state(&self, now: Instant, rules: &HealthRules) -> EndpointState {
        match self.state {
            State::In { .. } if self.step(now, rules) < STEPS => EndpointState::Warming,
            State::In { .. } => EndpointState::Up,
            State::Failed { .. } => EndpointState::Failed,
            State::Ejected { .. } => EndpointState::Ejected,
            State::Down { .. } => EndpointState::Down,
        }
    }

    /// How much of its share it gets, in tenths: from one to all.
    pub(crate) fn step(&self, now: Instant, rules: &HealthRules) -> u16 {
        let State::In { warms_since: Some(since) } = self.state else { return STEPS };
        let steps = steps_since(since, now, rules).clamp(1, STEPS.into());
        u16::try_from(steps).unwrap_or(STEPS)
    }

    /// Takes note of the time. Whether that changes its share.
    pub(crate) fn pass(&mut self, now: Instant, rules: &HealthRules) -> bool {
        if let State::In { warms_since: warms @ Some(_) } = &mut self.state {
            let is_over =
                warms.is_some_and(|since| now.saturating_duration_since(since) >= rules.slow_start);
            if is_over {
                *warms = None;
            }
            return true;
        }
        false
    }

    /// When it changes by time alone, or a connection is to begin with it.
    pub(crate) fn next_change(&self, now: Instant, rules: &HealthRules) -> Option<Instant> {
        match self.state {
            State::Failed { retry_at } | State::Ejected { retry_at, .. } => Some(retry_at),
            State::In { warms_since: Some(since) } => {
                let next = u32::try_from(steps_since(since, now, rules)).unwrap_or(0) + 1;
                // Not a part of a nanosecond too early.
                Some(since + rules.slow_start * next / u32::from(STEPS) + Duration::from_nanos(1))
            }
            State::In { warms_since: None } | State::Down { .. } => None,
        }
    }

    /// Whether a connection is to begin with it, to learn whether it is back.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        match self.state {
            State::Failed { retry_at } | State::Ejected { retry_at, .. } => retry_at <= now,
            State::In { .. } | State::Down { .. } => false,
        }
    }

    /// A connection begins with it. The next one does not for a while.
    pub(crate) fn begun(&mut self, now: Instant) {
        match &mut self.state {
            State::Failed { retry_at } => *retry_at = now + AVOIDED,
            State::Ejected { retry_at, lasts, is_tried } => {
                *retry_at = now + *lasts;
                *is_tried = true;
            }
            State::In { .. } | State::Down { .. } => {}
        }
    }

    /// The connection at hand is not the one that can begin with it: another one is to, from `next` on.
    pub(crate) fn pass_over(&mut self, next: Instant) {
        if let State::Failed { retry_at } | State::Ejected { retry_at, .. } = &mut self.state {
            *retry_at = next;
        }
    }

    /// Until when it is remembered of an address that no answer has.
    pub(crate) fn forgotten_at(&self) -> Option<Instant> {
        match self.state {
            State::In { .. } => None,
            State::Failed { retry_at } | State::Ejected { retry_at, .. } => Some(retry_at),
            State::Down { at } => Some(at + AVOIDED),
        }
    }

    pub(crate) const fn has_failed(&self) -> bool {
        matches!(self.state, State::Failed { .. })
    }
}

/// How many steps of slow start are over.
fn steps_since(since: Instant, now: Instant, rules: &HealthRules) -> u128 {
    let over = now.saturating_duration_since(since).min(rules.slow_start);
    (over.as_nanos() * u128::from(STEPS))
        .checked_div(rules.slow_start.as_nanos())
        .unwrap_or(u128::from(STEPS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::EndpointState::{Down, Ejected, Failed, Up, Warming};
    use super::*;

    const PLAIN: HealthRules = HealthRules { checks: None, slow_start: Duration::ZERO };

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    /// Whether the connection at hand begins with it.
    fn begins(health: &mut Health, now: Instant) -> bool {
        let is_due = health.is_due(now);
        if is_due {
            health.begun(now);
        }
        is_due
    }

    #[test]
    fn ejections_grow_while_they_follow_each_other_and_are_forgotten_after_a_while() {
        let mut now = Instant::now();
        let mut health = Health::default();
        for lasts in [5, 10, 20, 40, 80, 160, 300, 300] {
            assert_eq!(health.fell(now), Some(seconds(lasts)));
            assert_eq!(health.fell(now), None, "others were under way");
            now += seconds(lasts);
            assert!(begins(&mut health, now) && !begins(&mut health, now));
            health.worked(now, &PLAIN);
            assert_eq!(health.state(now, &PLAIN), Up);
            now += seconds(1);
        }
        now += seconds(300);
        assert_eq!(health.fell(now), Some(seconds(5)));
        health.worked(now, &PLAIN);
        now += FORGOTTEN;
        assert_eq!(health.fell(now), Some(seconds(5)), "that was a while ago");
        // The one that is sent there fails, too: at once, and not after many.
        now += seconds(5);
        assert!(begins(&mut health, now));
        assert_eq!(health.fell(now), Some(seconds(10)));
    }

    #[test]
    fn one_that_took_no_connection_is_tried_by_one_every_30_s_for_as_long_as_it_takes() {
        let mut now = Instant::now();
        let mut health = Health::default();
        health.refused(now, &PLAIN);
        for _ in 0..100 {
            assert!(!health.is_due(now + seconds(29)));
            now += AVOIDED;
            assert!(begins(&mut health, now) && !begins(&mut health, now));
            health.refused(now, &PLAIN);
            assert_eq!(health.state(now, &PLAIN), Failed);
        }
        health.worked(now, &PLAIN);
        assert!(health.has_failed(), "an answer from before");
        health.connected(now, &PLAIN);
        assert!(health.is_plain());
    }

    /// What came to pass with an endpoint.
    #[derive(Clone, Copy, Debug)]
    enum Sign {
        Refused,
        Connected,
        Fell,
        Worked,
        Checked(bool),
        Retry,
        Pass,
    }

    fn signs() -> impl Strategy<Value = Vec<(Sign, u64)>> {
        let sign = prop_oneof![
            Just(Sign::Refused),
            Just(Sign::Connected),
            Just(Sign::Fell),
            Just(Sign::Worked),
            any::<bool>().prop_map(Sign::Checked),
            Just(Sign::Retry),
            Just(Sign::Pass),
        ];
        prop::collection::vec((sign, 0_u64..40_000), 1..120)
    }

    proptest! {
        /// As the drawing has it: no other way leads from state to state, and the way back is always open.
        #[test]
        fn states_follow_each_other_as_they_are_drawn(
            signs in signs(), has_checks: bool, rise in 1_u32..4, fall in 1_u32..4, slow in 0_u64..20_000,
        ) {
            let rules = HealthRules {
                checks: has_checks.then_some(InARow { rise, fall }),
                slow_start: Duration::from_millis(slow),
            };
            let mut now = Instant::now();
            let mut health = Health::default();
            let mut in_a_row: (bool, u32) = (true, 0);
            for (sign, millis) in signs {
                now += Duration::from_millis(millis);
                let before = health.state(now, &rules);
                match sign {
                    Sign::Refused => health.refused(now, &rules),
                    Sign::Connected => health.connected(now, &rules),
                    Sign::Fell => drop(health.fell(now)),
                    Sign::Worked => health.worked(now, &rules),
                    Sign::Checked(passed) => {
                        in_a_row = (passed, if in_a_row.0 == passed { in_a_row.1 + 1 } else { 1 });
                        health.checked(passed, now, &rules);
                    }
                    Sign::Retry => {
                        begins(&mut health, now);
                    }
                    Sign::Pass => drop(health.pass(now, &rules)),
                }
                let after = health.state(now, &rules);
                let is_in = |state| matches!(state, Up | Warming);
                let is_drawn = match (before, after) {
                    (before, after) if before == after => true,
                    (_, Down) => has_checks && matches!(sign, Sign::Refused | Sign::Checked(false)),
                    (_, Failed) => !has_checks && matches!(sign, Sign::Refused),
                    (Up | Warming, Ejected) => matches!(sign, Sign::Fell),
                    (Down, after) if is_in(after) => {
                        matches!(sign, Sign::Checked(true)) && in_a_row.1 >= rise
                    }
                    (Failed, after) if is_in(after) => matches!(sign, Sign::Connected),
                    (Ejected, after) if is_in(after) => matches!(sign, Sign::Worked),
                    _ => false,
                };
                prop_assert!(is_drawn, "{before:?} to {after:?} by {sign:?}");
                prop_assert_eq!(after == Warming, is_in(after) && health.step(now, &rules) < STEPS);
                if let Some(next) = health.next_change(now, &rules) {
                    prop_assert!(after != Warming || next > now, "it grows later on");
                }
            }
            // Whatever was: good signs bring it back.
            now += LONGEST;
            health.connected(now, &rules);
            health.worked(now, &rules);
            (0..rise).for_each(|_| health.checked(true, now, &rules));
            prop_assert!(!health.state(now, &rules).is_out());
            now += rules.slow_start;
            health.pass(now, &rules);
            prop_assert_eq!(health.state(now, &rules), Up);
        }

        #[test]
        fn share_grows_linearly_from_a_tenth_to_all(slow in 10_u64..1_000_000, part in 0_u64..=1_200) {
            let rules = HealthRules { checks: None, slow_start: Duration::from_millis(slow) };
            let start = Instant::now();
            let mut health = Health::default();
            health.came(start, &rules);
            let over = Duration::from_millis(slow * part / 1_000);
            let step = health.step(start + over, &rules);
            let expected = (over.as_millis() * 10 / u128::from(slow)).clamp(1, 10);
            prop_assert_eq!(u128::from(step), expected);
            let next = health.next_change(start + over, &rules);
            let grows = next.map(|next| health.step(next, &rules));
            prop_assert!(grows.is_none_or(|grown| grown > step || step == 1 || step == STEPS), "{step} {grows:?}");
        }
    }
}
