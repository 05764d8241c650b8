//! The upstream's endpoints, for all workers.
//!
//! Workers must not wait, so they are told what is known ([`Addresses::choose`]); tasks of the control plane ask the
//! resolver, one question for a name at a time, however many connections want the answer.
//!
//! A resolver that fails is no reason to refuse anybody: the last good answer is used until there is a new one, and
//! the log says so. When a name is asked for is in [`answers`], and which addresses there are is in [`members`]; both
//! are pure.

mod answers;
mod members;
mod signs;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::timeout;

use self::answers::{Answers, Status};
use self::members::Members;
use self::signs::{LogBudget, Signs, rules};
use super::candidates::{Candidates, Endpoint, Endpoints};
use super::load::Loads;
use super::resolver::Resolver;
use super::sticky::Affinity;
use super::vacancies::{Vacancies, Vacancy};
use super::{Fault, resolver};
use crate::config::{AllDown, Balance, Config, Sticky, UpstreamName};
use crate::warnings::Recurring;
use crate::words::words;

pub(crate) use self::members::{Found, MOST_FOUND, Member};
pub(crate) use self::signs::{Checked, EndpointCounts};

/// What the process knows of the upstream's endpoints. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Addresses(Arc<Shared>);

/// Where a connection goes, as far as that is known at one moment.
#[derive(Clone, Debug)]
pub(crate) enum Resolution {
    /// These, in the order in which to try them.
    Candidates(Candidates),
    /// The resolver is being asked; [`Addresses::when_known`] tells when it has answered.
    Pending,
    /// The name has no address, and never had one that could be used meanwhile.
    Fault(Fault),
}

/// An endpoint, for whoever operates elbows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed {
    pub(crate) address: SocketAddr,
    pub(crate) state: EndpointState,
    pub(crate) tunnels: u32,
    /// Of those, the ones that elbows is closing because of their endpoint.
    pub(crate) leaving: u32,
    /// Its weight and priority, if it gets new tunnels.
    pub(crate) share: Option<(u16, u16)>,
}

words! {
    /// How it stands with an endpoint.
    #[derive(serde::Serialize)]
    #[serde(rename_all = "lowercase")]
    pub(crate) enum EndpointState {
        /// It gets new tunnels.
        Up = "up",
        /// It has come a short while ago, and gets new tunnels for a part of its weight (`SLOW_START`).
        Warming = "warming",
        /// It took no connection lately: it gets new tunnels where all others fail.
        Failed = "failed",
        /// So do handshakes and requests in a row that failed there (`UPSTREAM_EJECT`).
        Ejected = "ejected",
        /// Its checks fail, or it took no connection since they passed: it gets new tunnels where all others fail.
        Down = "down",
        /// The last answer does not have it; it gets new tunnels for `ENDPOINT_HOLD`.
        Held = "held",
        /// It keeps the tunnels that it has, and gets no new ones.
        Gone = "gone",
    }
}

impl EndpointState {
    /// The lower, the earlier it is tried.
    pub(crate) const fn rank(self) -> u8 {
        match self {
            Self::Up | Self::Warming | Self::Held => 0,
            // It takes connections.
            Self::Ejected => 1,
            Self::Failed | Self::Down | Self::Gone => 2,
        }
    }

    /// Whether it gets new tunnels only where all others fail.
    pub(crate) const fn is_out(self) -> bool {
        self.rank() > 0
    }

    /// Whether connections to it are likely to fail.
    pub(crate) const fn takes_no_connection(self) -> bool {
        matches!(self, Self::Failed | Self::Down)
    }
}

impl Listed {
    fn of(endpoint: &Endpoint) -> Self {
        let Endpoint { member, load } = endpoint;
        let state = match member {
            Member { is_held: true, state, .. } if !state.is_out() => EndpointState::Held,
            Member { state, .. } => *state,
        };
        let Found { address, weight, priority } = member.found;
        let (tunnels, leaving) = (load.tunnels(), load.leaving());
        Self { address, state, tunnels, leaving, share: Some((weight, priority)) }
    }
}

/// What came of a question.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// In the order in which they came.
    pub(crate) found: Vec<Found>,
    /// For how long it may be used.
    pub(crate) ttl: Duration,
}

/// A question under way.
pub(super) type Question = Pin<Box<dyn Future<Output = io::Result<Answer>> + Send>>;

/// Asks for a name; an address that comes without a port gets this one.
pub(super) type Lookup = Box<dyn Fn(UpstreamName, u16) -> Question + Send + Sync>;

/// Whoever waits for an answer is called once.
type Tell = Box<dyn FnOnce() + Send>;

struct Shared {
    names: Vec<UpstreamName>,
    port: u16,
    balance: Balance,
    /// Keys count: `STICKY`.
    is_sticky: bool,
    /// Where all are down, nobody is sent to them; after so long one may be back.
    refuses_for: Option<Duration>,
    signs: Signs,
    /// The only name is an address, and there is nothing to ask, to choose, to check or to remember.
    literal: Option<Arc<Endpoints>>,
    lookup: Lookup,
    runtime: Handle,
    loads: Loads,
    vacancies: Vacancies,
    /// Choices so far.
    turns: AtomicU64,
    /// Held for moments, never across a question.
    state: Mutex<AddressState>,
    /// Whether an endpoint failed lately. Without one [`Addresses::reached`] takes no lock.
    has_failures: AtomicBool,
}

struct AddressState {
    /// By the place of their name; an address has none.
    answers: Vec<Option<Answers>>,
    failing: Vec<Recurring>,
    members: Members,
    /// What the members are.
    endpoints: Arc<Endpoints>,
    waiting: Vec<Tell>,
    told: LogBudget,
}

impl fmt::Debug for Shared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Addresses")
            .field("names", &self.names)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Addresses {
    /// The endpoints of the upstream; nothing is asked yet. Questions run on `runtime`, and `loads` has the tunnels of
    /// each.
    pub(crate) fn new(config: &Config, loads: Loads, runtime: Handle) -> Self {
        let resolver = Arc::new(Resolver::default());
        let lookup = move |name, port| -> Question {
            let resolver = Arc::clone(&resolver);
            Box::pin(async move { resolver.ask(&name, port).await })
        };
        Self::asking(config, loads, runtime, Box::new(lookup))
    }

    /// The same, where `lookup` is asked.
    pub(super) fn asking(config: &Config, loads: Loads, runtime: Handle, lookup: Lookup) -> Self {
        let names = config.destination_hostname.clone();
        let port = config.destination_port;
        let mut members = Members::new(names.len(), config.endpoint_hold, rules(config));
        let now = Instant::now();
        let mut answers = Vec::with_capacity(names.len());
        for (place, name) in names.iter().enumerate() {
            if let UpstreamName::Address(ip) = name {
                members.answered(place, &[Found::plain(SocketAddr::new(*ip, port))], now);
                answers.push(None);
            } else {
                answers.push(Some(Answers::new(too_slow(name), config.dns_max_ttl)));
            }
        }
        let is_sticky = config.sticky != Sticky::Off;
        let endpoints = Endpoints::new(members.list(now), &loads);
        let endpoints = Arc::new(if is_sticky { endpoints.with_owners(None) } else { endpoints });
        let is_literal = matches!(names.as_slice(), [UpstreamName::Address(_)])
            && config.upstream_check.is_none();
        let refuses = config.upstream_all_down == AllDown::Refuse;
        Self(Arc::new(Shared {
            balance: config.balance,
            is_sticky,
            refuses_for: refuses.then_some(config.upstream_check_interval),
            signs: Signs::new(config),
            literal: is_literal.then(|| Arc::clone(&endpoints)),
            lookup,
            runtime,
            loads,
            vacancies: Vacancies::default(),
            turns: AtomicU64::new(0),
            has_failures: AtomicBool::new(false),
            state: Mutex::new(AddressState {
                failing: names.iter().map(|_| Recurring::default()).collect(),
                answers,
                members,
                endpoints,
                waiting: Vec::new(),
                told: LogBudget::default(),
            }),
            names,
            port,
        }))
    }

    /// Where a connection goes now, of which `affinity` says where it belongs. Begins questions where answers are too old.
    /// Never waits.
    pub(crate) fn choose(
        &self,
        now: Instant,
        affinity: Affinity,
        random: &dyn Fn() -> u64,
    ) -> Resolution {
        let endpoints = match self.known(now, affinity, random) {
            Ok((_, Some(candidates))) => return Resolution::Candidates(candidates),
            Ok((endpoints, None)) => endpoints,
            Err(resolution) => return resolution,
        };
        if let Some(retry_after) = self.0.refuses_for
            && endpoints.are_all_down()
        {
            return Resolution::Fault(Fault::AllDown { retry_after });
        }
        let turn = || self.0.turns.fetch_add(1, Ordering::Relaxed);
        Resolution::Candidates(endpoints.choose(self.0.balance, affinity, turn, random))
    }

    /// All endpoints: those that get new tunnels, the best first, and those that only have some. Also, why there is none.
    pub(crate) fn list(&self, now: Instant) -> (Vec<Listed>, Option<Fault>) {
        let fault = match self.0.known(&mut self.0.state(), now) {
            Err(Resolution::Fault(fault)) => Some(fault),
            _ => None,
        };
        let mut list = self.present(now);
        let known = list.iter().map(|listed| listed.address).collect();
        list.extend(self.gone(&known));
        (list, fault)
    }

    /// Since when all names are answered well: their last answers came then or later. None where one fails, or was never
    /// answered.
    pub(crate) fn answered_since(&self, now: Instant) -> Option<Instant> {
        let state = self.0.state();
        let mut since = Some(now);
        for answers in state.answers.iter().flatten() {
            since = since.min(answers.answered_at());
        }
        since
    }

    /// Where the next handshakes go, one to each of these, while tunnels are evened out.
    pub(crate) fn set_vacancies(&self, vacancies: Vec<Vacancy>) {
        self.0.vacancies.set(vacancies);
    }

    /// The same for a handshake, beginning with an endpoint that has too few tunnels where there is a vacancy.
    pub(crate) fn with_vacancy(&self, candidates: Candidates) -> Candidates {
        match self.0.vacancies.take() {
            Some(vacancy) => candidates.beginning_at(vacancy),
            None => candidates,
        }
    }

    /// What there is; also, where this connection is to begin if that is not a matter of choice.
    fn known(
        &self,
        now: Instant,
        affinity: Affinity,
        random: &dyn Fn() -> u64,
    ) -> Result<(Arc<Endpoints>, Option<Candidates>), Resolution> {
        if let Some(literal) = &self.0.literal {
            return Ok((Arc::clone(literal), None));
        }
        let mut state = self.0.state();
        self.0.known(&mut state, now)?;
        let AddressState { members, endpoints, .. } = &mut *state;
        let begin = |address| endpoints.beginning_with(address, affinity, random);
        let retry = if members.is_still(now) { None } else { members.take_retry(now, begin) };
        Ok((Arc::clone(endpoints), retry))
    }

    /// Calls `tell` once, from a thread of the runtime, as soon as [`Addresses::choose`] says something else than
    /// [`Resolution::Pending`]: the question has been answered, or failed, or takes so long that the last good answer is
    /// used, or that there is none. Whoever has less time than that has a clock of their own.
    pub(crate) fn when_known(&self, tell: Tell) {
        let mut state = self.0.state();
        if state.is_waited_for() {
            state.waiting.push(tell);
        } else {
            // It was answered between the two calls.
            drop(state);
            self.0.runtime.spawn(async move { tell() });
        }
    }

    /// The fault of a question that took longer than whoever waits for it has.
    pub(crate) fn too_slow(&self) -> Fault {
        let names: Vec<_> = self.0.names.iter().map(ToString::to_string).collect();
        resolver::fault(&names.join(", "), resolver::no_answer())
    }
}

impl AddressState {
    /// Whether whoever comes waits: until the only name is answered for, or where there is nothing else until one is.
    fn is_waited_for(&self) -> bool {
        let mut answers = self.answers.iter().flatten();
        let has_choice = self.answers.len() > 1 && !self.endpoints.all().is_empty();
        !has_choice && answers.any(Answers::is_waited_for)
    }
}

impl Shared {
    /// What is under this lock is whole after a panic too.
    fn state(&self) -> MutexGuard<'_, AddressState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins questions where answers are too old, and brings the endpoints to the state of now. An error where there is
    /// nothing to choose from.
    fn known(self: &Arc<Self>, state: &mut AddressState, now: Instant) -> Result<(), Resolution> {
        let mut fault = None;
        for (place, answers) in state.answers.iter_mut().enumerate() {
            let Some(answers) = answers else { continue };
            let (status, ask) = answers.known(now);
            if ask {
                self.runtime.spawn(ask_once(Arc::clone(self), place));
            }
            if let Status::Fault(its) = status {
                fault.get_or_insert(its);
            }
        }
        self.pass_time(state, now);
        if state.is_waited_for() {
            return Err(Resolution::Pending);
        }
        match fault {
            Some(fault) if state.endpoints.all().is_empty() => Err(Resolution::Fault(fault)),
            _ => Ok(()),
        }
    }

    /// Brings the endpoints to the state of now.
    fn pass_time(&self, state: &mut AddressState, now: Instant) {
        if !state.members.is_still(now) && state.members.expire(now) {
            self.renew(state, now);
        }
    }

    /// The members have changed.
    fn renew(&self, state: &mut AddressState, now: Instant) {
        let mut endpoints = Endpoints::new(state.members.list(now), &self.loads);
        if self.is_sticky {
            endpoints = endpoints.with_owners(Some(&state.endpoints));
        }
        state.endpoints = Arc::new(endpoints);
        self.has_failures.store(state.members.has_failures(), Ordering::Relaxed);
        self.loads.forget_unused();
    }

    /// Calls whoever need not wait any longer.
    fn tell_waiting(&self) {
        let waiting = {
            let mut state = self.state();
            if state.is_waited_for() {
                return;
            }
            std::mem::take(&mut state.waiting)
        };
        for tell in waiting {
            tell();
        }
    }

    /// Says at most every ten seconds that a name does not resolve, and what that means.
    fn warn(&self, place: usize, fault: &Fault, now: Instant) {
        let mut state = self.state();
        let has_good =
            state.answers.get(place).and_then(Option::as_ref).is_some_and(Answers::has_good);
        let meanwhile = if has_good {
            "the last good answer is used until it does"
        } else {
            super::meanwhile(!state.endpoints.all().is_empty())
        };
        if state.failing.get_mut(place).and_then(|failing| failing.count(now)).is_some() {
            drop(state);
            tracing::warn!("{fault}; {meanwhile}");
        }
    }

    /// Notes what came of the question for the name at this place.
    fn answered(&self, place: usize, name: &UpstreamName, outcome: io::Result<Answer>) {
        let now = Instant::now();
        let outcome = outcome.map_err(|error| resolver::fault(&name.to_string(), error));
        let mut state = self.state();
        if let Some(answers) = state.answers.get_mut(place).and_then(Option::as_mut) {
            answers.answered(now, outcome.as_ref().map(|answer| answer.ttl).map_err(Clone::clone));
        }
        match outcome {
            Ok(answer) => {
                state.members.answered(place, &answer.found, now);
                self.renew(&mut state, now);
                let is_over = state.failing.get_mut(place).is_some_and(Recurring::over);
                drop(state);
                if is_over {
                    tracing::info!("{name} resolves again");
                }
            }
            Err(fault) => {
                drop(state);
                self.warn(place, &fault, now);
            }
        }
    }

    /// How the question for the name at this place stands.
    fn answers<T>(&self, place: usize, of: impl FnOnce(&mut Answers) -> T) -> Option<T> {
        self.state().answers.get_mut(place)?.as_mut().map(of)
    }
}

/// One question, from beginning to end.
async fn ask_once(shared: Arc<Shared>, place: usize) {
    let Some(name) = shared.names.get(place) else { return };
    let patience = shared.answers(place, |answers| answers.patience()).unwrap_or_default();
    let mut question = pin!((shared.lookup)(name.clone(), shared.port));
    let outcome = if let Ok(outcome) = timeout(patience, &mut question).await {
        outcome
    } else {
        if let Some(fault) = shared.answers(place, Answers::late) {
            shared.warn(place, &fault, Instant::now());
        }
        shared.tell_waiting();
        question.await
    };
    shared.answered(place, name, outcome);
    shared.tell_waiting();
}

/// The fault of a resolver that does not answer in time.
fn too_slow(name: &UpstreamName) -> Fault {
    resolver::fault(&name.to_string(), resolver::no_answer())
}
