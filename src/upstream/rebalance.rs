//! When tunnels are evened out over their endpoints (`REBALANCE`), and how many of which are closed for it. Pure: what
//! each endpoint has and what time it is come in as arguments.
//!
//! ```text
//!          one has over 1.2 times its share, and all has been well for 10 s
//!   Even ──────────────────────────────────────────────────────────────────▶ Moving: the fullest give up tunnels,
//!    ▲ ▲    none has over 1.05 times its share, or all is not well any more    │     at the pace of the setting
//!    │ └───────────────────────────────────────────────────────────────────────┤
//!    │ 10 min                                                                  │ those that were closed do not come
//!  Resting ◀───────────────────────────────────────────────────────────────────┘ to the others, for a minute
//! ```
//!
//! The share of an endpoint is what it would have of all tunnels by its weight. All is well while the same endpoints are
//! there, none has failed, and the process does nothing else that ends tunnels. As many tunnels as were closed are to come
//! back, and each has a vacancy at an endpoint that has too few ([`Vacancy`]). So that an
//! endpoint that takes connections and no tunnels does not empty the others, few may be on their way at a time.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::vacancies::Vacancy;
use crate::config::Pace;

/// Evening out begins where an endpoint has more than six fifths of its share, and this many more than it.
const BEGINS: (u64, u64) = (6, 5);
const FEW: u64 = 5;

/// It ends where none has more than this of its share, but for one tunnel.
const ENDS: (u64, u64) = (21, 20);

/// How long all must have been well before it begins: endpoints that come or fail seldom do so alone.
const CALM: Duration = Duration::from_secs(10);

/// Of all tunnels one in so many may have been closed and not have come to the others; this many in any case.
const AWAY: u64 = 20;
const FEWEST_AWAY: u64 = 8;

/// How long none may come where so many are away, and how long nothing is tried after that.
const PATIENCE: Duration = Duration::from_secs(60);
const REST: Duration = Duration::from_secs(600);

/// A step later than this counts as one of this: what was missed is not made up for at once.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// What an endpoint that gets new tunnels has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) address: SocketAddr,
    /// Tunnels that are there to stay.
    pub(crate) tunnels: u64,
    /// 1 at least.
    pub(crate) weight: u64,
}

/// What is to be done now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// How many tunnels of which endpoints are to be closed.
    pub(crate) close: BTreeMap<SocketAddr, usize>,
    /// The endpoints that the next handshakes go to, one for each.
    pub(crate) vacancies: Vec<Vacancy>,
    pub(crate) change: Option<Change>,
}

/// What whoever operates elbows is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It begins.
    Begins { fullest: SocketAddr, tunnels: u64, share: u64 },
    /// No endpoint has many more tunnels than its share.
    Ends { closed: u64 },
    /// Something is not well any more.
    Stops { closed: u64 },
    /// Those that were closed do not come to the endpoints that have too few.
    GivesUp { closed: u64, came: u64 },
}

/// Evens tunnels out.
#[derive(Debug)]
pub(crate) struct Rebalance {
    pace: Pace,
    stage: Stage,
    /// Since when all is well, and the endpoints are these.
    well_since: Option<Instant>,
    known: BTreeSet<SocketAddr>,
    /// When the last step was.
    last: Option<Instant>,
}

#[derive(Debug)]
enum Stage {
    Even,
    Moving(Moving),
    Resting { until: Instant },
}

#[derive(Debug)]
struct Moving {
    /// Tunnels that were closed.
    closed: u64,
    /// What the endpoints had that had too few when it began.
    lacking: Vec<(SocketAddr, u64)>,
    /// How many have come to them, at most.
    came: u64,
    /// Since when too many are away.
    held_up_since: Option<Instant>,
    /// What may be closed: one tunnel is [`Rebalance::price`].
    credit: u128,
}

/// What an endpoint has beside what it should have.
#[derive(Clone, Copy, Debug)]
struct Filled {
    place: usize,
    tunnels: u64,
    weight: u64,
}

/// All endpoints together.
#[derive(Clone, Copy, Debug)]
struct Total {
    tunnels: u64,
    weight: u64,
}

impl Filled {
    fn all(holdings: &[Holding]) -> impl Iterator<Item = Self> + '_ {
        holdings.iter().enumerate().map(|(place, holding)| Self {
            place,
            tunnels: holding.tunnels,
            weight: holding.weight,
        })
    }

    /// Whether it has more than so many times its share.
    fn is_over(&self, (number, of): (u64, u64), total: Total) -> bool {
        let its = u128::from(self.tunnels) * u128::from(total.weight) * u128::from(of);
        its > u128::from(total.tunnels) * u128::from(self.weight) * u128::from(number)
    }

    /// Whether it has so many tunnels more than its share, or as many more.
    fn has_more_by(&self, tunnels: u64, total: Total) -> bool {
        let its = u128::from(self.tunnels) * u128::from(total.weight);
        let share = u128::from(total.tunnels) * u128::from(self.weight);
        its >= share + u128::from(tunnels) * u128::from(total.weight)
    }

    /// Whether another tunnel would not be more than its share.
    fn has_room(&self, total: Total) -> bool {
        let its = u128::from(self.tunnels + 1) * u128::from(total.weight);
        its <= u128::from(total.tunnels) * u128::from(self.weight)
    }
}

/// By tunnels for its weight.
impl Ord for Filled {
    fn cmp(&self, other: &Self) -> Ordering {
        let its = u128::from(self.tunnels) * u128::from(other.weight);
        let others = u128::from(other.tunnels) * u128::from(self.weight);
        its.cmp(&others).then_with(|| other.place.cmp(&self.place))
    }
}

impl PartialOrd for Filled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Filled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Filled {}

impl Rebalance {
    /// At this pace.
    pub(crate) const fn new(pace: Pace) -> Self {
        let known = BTreeSet::new();
        Self { pace, stage: Stage::Even, well_since: None, known, last: None }
    }

    /// Whether tunnels are being evened out.
    pub(crate) const fn is_moving(&self) -> bool {
        matches!(self.stage, Stage::Moving(_))
    }

    /// What is to be done now. `holdings` are the endpoints that new tunnels are spread over, in their order, `all` is the number of tunnels
    /// of the process, and with `is_well` no endpoint has failed and nothing else ends tunnels. Whoever carries it out says
    /// so by [`Rebalance::closed`].
    pub(crate) fn step(
        &mut self,
        now: Instant,
        holdings: &[Holding],
        all: u64,
        is_well: bool,
    ) -> Step {
        let passed = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last = Some(now);
        let is_calm = self.is_calm(now, holdings, is_well);
        if let Stage::Resting { until } = self.stage
            && now >= until
        {
            self.stage = Stage::Even;
        }
        match &mut self.stage {
            Stage::Even if is_calm => self.begin(holdings),
            Stage::Moving(moving) if !is_calm => {
                let change = Change::Stops { closed: moving.closed };
                self.stage = Stage::Even;
                Step::change(change)
            }
            Stage::Moving(_) => self.go_on(now, passed.min(LONGEST_STEP), holdings, all),
            Stage::Even | Stage::Resting { .. } => Step::default(),
        }
    }

    /// So many tunnels were closed.
    pub(crate) fn closed(&mut self, number: u64) {
        let price = self.price();
        if let Stage::Moving(moving) = &mut self.stage {
            moving.closed += number;
            moving.credit = moving.credit.saturating_sub(u128::from(number) * price);
        }
    }

    /// What one tunnel takes of the credit, which is all tunnels times per cent times nanoseconds.
    fn price(&self) -> u128 {
        100 * self.pace.time().as_nanos()
    }

    fn is_calm(&mut self, now: Instant, holdings: &[Holding], is_well: bool) -> bool {
        let is_same = holdings.len() == self.known.len()
            && holdings.iter().all(|holding| self.known.contains(&holding.address));
        if !is_same {
            self.known = holdings.iter().map(|holding| holding.address).collect();
        }
        if !is_same || !is_well {
            self.well_since = None;
        }
        is_well && now.saturating_duration_since(*self.well_since.get_or_insert(now)) >= CALM
    }

    fn begin(&mut self, holdings: &[Holding]) -> Step {
        let total = Total::of(holdings, 0);
        let Some(fullest) = Filled::all(holdings).max() else { return Step::default() };
        if !(fullest.is_over(BEGINS, total) && fullest.has_more_by(FEW, total)) {
            return Step::default();
        }
        let lacking = Filled::all(holdings).filter(|filled| filled.has_room(total));
        let lacking = lacking.filter_map(|filled| holdings.get(filled.place));
        let lacking = lacking.map(|holding| (holding.address, holding.tunnels)).collect();
        self.stage =
            Stage::Moving(Moving { closed: 0, lacking, came: 0, held_up_since: None, credit: 0 });
        let Some(holding) = holdings.get(fullest.place) else { return Step::default() };
        let share = total.tunnels * fullest.weight / total.weight.max(1);
        let Holding { address, tunnels, .. } = *holding;
        Step::change(Change::Begins { fullest: address, tunnels, share })
    }

    fn go_on(&mut self, now: Instant, passed: Duration, holdings: &[Holding], all: u64) -> Step {
        let (price, percent) = (self.price(), u128::from(self.pace.percent()));
        let Stage::Moving(moving) = &mut self.stage else { return Step::default() };
        let tunnels: BTreeMap<_, _> =
            holdings.iter().map(|holding| (holding.address, holding.tunnels)).collect();
        let grown = |(address, before): &(SocketAddr, u64)| {
            tunnels.get(address).map_or(0, |now| now.saturating_sub(*before))
        };
        moving.came = moving.came.max(moving.lacking.iter().map(grown).sum());
        let away = moving.closed.saturating_sub(moving.came);
        let total = Total::of(holdings, away);
        let has_too_many =
            |filled: &Filled| filled.is_over(ENDS, total) && filled.has_more_by(1, total);
        let mut fullest: BinaryHeap<_> = Filled::all(holdings).collect();
        if !fullest.peek().is_some_and(has_too_many) {
            let change = Change::Ends { closed: moving.closed };
            self.stage = Stage::Even;
            return Step::change(change);
        }

        let most_away = (all / AWAY).max(FEWEST_AWAY);
        let mut step = Step::default();
        if away >= most_away {
            moving.credit = 0;
            let since = *moving.held_up_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= PATIENCE {
                let change = Change::GivesUp { closed: moving.closed, came: moving.came };
                self.stage = Stage::Resting { until: now + REST };
                return Step::change(change);
            }
            step.vacancies = vacancies(holdings, total, away);
            return step;
        }
        moving.held_up_since = None;
        let each = u128::from(all) * percent;
        moving.credit += each * passed.as_nanos();
        // What could not be closed is not made up for at once.
        moving.credit = moving.credit.min((each * LONGEST_STEP.as_nanos()).max(price));
        let most = u64::try_from(moving.credit / price).unwrap_or(u64::MAX);
        let mut number = 0;
        while number < most.min(most_away - away)
            && let Some(mut filled) = fullest.peek_mut()
            && has_too_many(&filled)
        {
            filled.tunnels -= 1;
            number += 1;
            if let Some(holding) = holdings.get(filled.place) {
                *step.close.entry(holding.address).or_default() += 1;
            }
        }
        step.vacancies = vacancies(holdings, total, away + number);
        step
    }
}

impl Step {
    fn change(change: Change) -> Self {
        Self { change: Some(change), ..Self::default() }
    }
}

impl Total {
    /// Of these, with those that are away and will come to one of them.
    fn of(holdings: &[Holding], away: u64) -> Self {
        let tunnels = holdings.iter().map(|holding| holding.tunnels).sum::<u64>() + away;
        Self { tunnels, weight: holdings.iter().map(|holding| holding.weight).sum() }
    }
}

/// Places for so many tunnels: each at the endpoint that has the fewest for its weight, with those before it, and none
/// where an endpoint would have more than its share.
fn vacancies(holdings: &[Holding], total: Total, number: u64) -> Vec<Vacancy> {
    use std::cmp::Reverse;

    let mut emptiest: BinaryHeap<_> = Filled::all(holdings).map(Reverse).collect();
    let mut vacancies = Vec::new();
    for _ in 0..number {
        let Some(mut top) = emptiest.peek_mut() else { break };
        let Reverse(filled) = &mut *top;
        if !filled.has_room(total) {
            break;
        }
        filled.tunnels += 1;
        let place = filled.place;
        vacancies
            .extend(holdings.get(place).map(|holding| Vacancy { address: holding.address, place }));
    }
    vacancies
}

#[cfg(test)]
mod tests;
