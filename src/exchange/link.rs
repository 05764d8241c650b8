//! The link of an exchange to the upstream: which address is asked, and how far that has come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::proxy::Context;
use crate::routes::Route;
use crate::upstream::{Affinity, Candidates, Claim, Endpoint, Fault};

/// The least that one address gets of the time for all of them.
const LEAST_PER_ADDRESS: Duration = Duration::from_millis(250);

/// One address gets at least this part of what is left of the time: of many endpoints few are dead.
const MOST_SHARES: usize = 4;

/// The way to the upstream.
#[derive(Debug)]
pub(crate) struct Link {
    /// Where it leads, and by which settings.
    pub(crate) route: Arc<Route>,
    state: LinkState,
    /// When it was first wanted: `CONNECT_TIMEOUT` counts from here.
    since: Instant,
    candidates: Option<Candidates>,
    /// Which of them is tried, or was taken.
    place: usize,
    /// To so many of them the request was sent that did not answer.
    left: u32,
    /// It counts at that endpoint, where there are several.
    claim: Option<Claim>,
    /// When the address that is tried has had its time.
    until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkState {
    /// The addresses are not known yet, nor which of them it is to be for this request.
    Addresses(Affinity),
    /// The worker is to connect to this place, or to take an idle connection unless it has to be a fresh one.
    Wanted { is_fresh: bool },
    /// There is a connection. It is not known to be established before it has taken a byte.
    Open { is_reused: bool, is_connected: bool, takes_nothing: bool },
    /// It has ended.
    Ended,
}

/// What the worker has to do for a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Nothing,
    /// To say which addresses there are, for a request that belongs there.
    Addresses(Affinity),
    /// To connect there, or to take an idle connection unless it has to be a fresh one.
    Connect {
        address: SocketAddr,
        is_fresh: bool,
    },
}

/// What becomes of a connection to the upstream that is not needed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// The next request may have it.
    Keep,
    /// It ends.
    Close,
}

impl Link {
    pub(super) const fn addresses(route: Arc<Route>, affinity: Affinity, now: Instant) -> Self {
        let state = LinkState::Addresses(affinity);
        let (candidates, claim) = (None, None);
        Self { route, state, since: now, candidates, place: 0, left: 0, claim, until: now }
    }

    fn address(&self) -> Option<SocketAddr> {
        self.endpoint().map(|endpoint| endpoint.member.found.address)
    }

    /// The endpoint that is tried, or was taken.
    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        self.candidates.as_ref()?.get(self.place)
    }

    /// Whether there is another endpoint for a request that this one does not answer, and `UPSTREAM_TRIES` allows it.
    pub(super) fn has_another(&self) -> bool {
        let is_there = |all: &Candidates| self.place + 1 < all.len();
        self.left + 1 < self.route.config.upstream_tries
            && self.candidates.as_ref().is_some_and(is_there)
    }

    /// This one has closed without an answer, and the next one is tried. The time to connect begins anew.
    pub(super) fn go_elsewhere(&mut self, context: &Context<'_>) {
        self.left += 1;
        self.place += 1;
        if let Some(candidates) = &mut self.candidates {
            candidates.fall_back();
        }
        self.again(context);
    }

    /// What the client is to be given, so that it comes back to this endpoint.
    pub(super) fn token(&self) -> Option<u64> {
        self.candidates.as_ref().and_then(Candidates::token)
    }

    /// What the worker is to do.
    pub(crate) fn wish(&self) -> Wish {
        match (self.state, self.address()) {
            (LinkState::Addresses(affinity), _) => Wish::Addresses(affinity),
            (LinkState::Wanted { is_fresh }, Some(address)) => Wish::Connect { address, is_fresh },
            _ => Wish::Nothing,
        }
    }

    pub(super) fn found(&mut self, candidates: Candidates, is_fresh: bool, context: &Context<'_>) {
        self.candidates = Some(candidates);
        self.place = 0;
        self.try_place(is_fresh, context);
    }

    /// What is left of the time is shared between the addresses left: a dead one cannot use it all up.
    fn try_place(&mut self, is_fresh: bool, context: &Context<'_>) {
        let limit = self.route.config.connect_timeout;
        let number = self.candidates.as_ref().map_or(1, Candidates::len);
        let left = number.saturating_sub(self.place).clamp(1, MOST_SHARES);
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        let time = (self.since + limit).saturating_duration_since(context.now);
        let share = (time / left).max(LEAST_PER_ADDRESS.min(limit));
        self.until = context.now + share;
        self.state = LinkState::Wanted { is_fresh };
        if number > 1 {
            let endpoint = self.candidates.as_ref().and_then(|all| all.get(self.place));
            self.claim = endpoint.map(|endpoint| Claim::new(&endpoint.load));
        }
    }

    /// Goes on to the next address; gives the fault back if there is none, or no time.
    pub(super) fn next_address(&mut self, fault: Fault, context: &Context<'_>) -> Option<Fault> {
        let deadline = self.since + self.route.config.connect_timeout;
        self.place += 1;
        if let Some(candidates) = &mut self.candidates {
            candidates.fall_back();
        }
        // No other address would change a lack of descriptors.
        let is_last = self.address().is_none()
            || context.now >= deadline
            || matches!(fault, Fault::NoRoom { .. });
        if is_last {
            self.state = LinkState::Ended;
            return Some(fault);
        }
        self.try_place(true, context);
        None
    }

    pub(super) const fn linked(&mut self, is_reused: bool) {
        self.state = LinkState::Open { is_reused, is_connected: is_reused, takes_nothing: false };
    }

    /// Whether it can be written to. Not while another connection is wanted in its place.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.state, LinkState::Open { .. })
    }

    /// It took a byte.
    pub(super) const fn connected(&mut self) {
        if let LinkState::Open { is_connected, .. } = &mut self.state {
            *is_connected = true;
        }
    }

    /// Whether the upstream has taken the connection. One that has ended since counts, too.
    pub(crate) const fn is_established(&self) -> bool {
        matches!(self.state, LinkState::Open { is_connected: true, .. } | LinkState::Ended)
    }

    /// The connection had been idle before, and the time for another one begins anew.
    pub(super) fn again(&mut self, context: &Context<'_>) {
        self.since = context.now;
        self.try_place(true, context);
    }

    pub(super) const fn ended(&mut self) {
        self.state = LinkState::Ended;
    }

    pub(super) const fn takes_nothing(&mut self) {
        if let LinkState::Open { takes_nothing, .. } = &mut self.state {
            *takes_nothing = true;
        }
    }

    pub(super) const fn is_reused(&self) -> bool {
        matches!(self.state, LinkState::Open { is_reused: true, .. })
    }

    /// Whether it can be used for another exchange.
    pub(super) const fn is_sound(&self) -> bool {
        matches!(self.state, LinkState::Open { takes_nothing: false, .. })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            LinkState::Addresses(_) => Some(self.since + self.route.config.connect_timeout),
            LinkState::Wanted { .. } | LinkState::Open { is_connected: false, .. } => {
                Some(self.until)
            }
            LinkState::Open { .. } | LinkState::Ended => None,
        }
    }

    /// The fault of an address, or of the resolver, that has had its time.
    pub(super) fn overdue(&self, context: &Context<'_>) -> Option<Fault> {
        if self.deadline()? > context.now {
            return None;
        }
        let limit = self.route.config.connect_timeout;
        match self.address() {
            Some(address) if !matches!(self.state, LinkState::Addresses(_)) => {
                Some(Fault::Timeout { address, limit })
            }
            _ => Some(self.route.upstream.addresses.too_slow()),
        }
    }
}
