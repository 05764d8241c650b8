//! One exchange: a request of a client and the upstream's response to it.
//!
//! Two flows, one each way, and the link to the upstream between them. Neither waits for the other: an upstream may answer early.
//!
//! ```text
//! request    head ──▶ body ──▶ over          (with `Expect` the body waits for 100, one second at most)
//! link       Addresses ──▶ Wanted ──▶ Open ──▶ released, kept or closed
//!                            ▲         │ not a byte of a response, and the request may be sent again, over a fresh
//!                            └─────────┘ connection to this endpoint or to another one
//! response   head ──┬─ 1xx ─▶ head
//!                   ├─ 101 ─▶ Switched, which is a tunnel
//!                   └──────▶ body ──▶ over
//! ```
//!
//! Bytes, ends, faults and time come in as calls; what is to be written waits in [`Outgoing`]s, and what is to be
//! connected or closed is asked for by [`Exchange::link`]. Sockets are the worker's.

pub(crate) mod link;
mod request;
mod response;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use self::link::{Link, Release};
use self::request::{Late, RequestFlow};
use self::response::{ResponseFlow, is_failure};
use crate::access_log::Entry;
use crate::config::Sticky;
use crate::end::{End, Phase, Reason, Side};
use crate::http::affinity::{SetCookie, Visitor};
use crate::http::head::{HeadLimits, Request};
use crate::http::hop;
use crate::http::own::Form;
use crate::http::reject::Rejection;
use crate::http::upgrade::OfferedProtocols;
use crate::outgoing::Outgoing;
use crate::proxy::Context;
use crate::routes::Route;
use crate::tunnel::Protocol;
use crate::upstream::{Candidates, Fault};

/// What an upstream's head may hold.
pub(crate) const RESPONSE_LIMITS: HeadLimits =
    HeadLimits { head: 64 * 1024, ..HeadLimits::DEFAULT };

/// A request and its response, under way.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// Its line in the access log.
    pub(crate) entry: Entry,
    pub(crate) link: Link,
    request: RequestFlow,
    response: ResponseFlow,
    /// The protocols that were offered, where it is a handshake.
    offer: Option<OfferedProtocols>,
    kind: RequestKind,
    visitor: Visitor,
}

/// What has to be known of a request to understand its response.
#[derive(Clone, Copy, Debug)]
struct RequestKind {
    /// Of which `keeps` is what the client wants.
    form: Form,
    wants_trailers: bool,
    /// It only asks and has no body: it may be sent again where nobody has answered it.
    is_repeatable: bool,
}

/// What has to be known of a request for its response to pass.
#[derive(Clone, Copy)]
struct RequestFacts<'a> {
    kind: RequestKind,
    /// The protocols that were offered.
    offer: Option<&'a [u8]>,
    /// What its final response is to set.
    cookie: Option<SetCookie<'a>>,
}

/// Why an exchange does not go on.
#[derive(Debug)]
pub(crate) enum Stop {
    /// There is no response from the upstream, and elbows answers in its place.
    Rejected(Rejection),
    /// The response that is under way, or has not begun, ends before its time.
    Cut(End),
    /// The upstream changed the protocol, and chose a subprotocol, or none (empty): a tunnel begins.
    Switched { protocol: Protocol, subprotocol: Box<[u8]> },
}

impl Exchange {
    /// The exchange that begins with this head, on this route. `offer` is what it offers to change to.
    #[allow(clippy::too_many_arguments)] // All that is known of a request.
    pub(crate) fn new(
        route: Arc<Route>,
        head: &Request<'_>,
        form: Form,
        entry: Entry,
        offer: Option<OfferedProtocols>,
        outgoing: Vec<u8>,
        visitor: Visitor,
        context: &Context<'_>,
    ) -> Self {
        let kind = RequestKind {
            form,
            wants_trailers: !form.is_http_10 && hop::wants_trailers(&head.fields),
            is_repeatable: head.framing.is_empty()
                && matches!(head.method, b"GET" | b"HEAD" | b"OPTIONS"),
        };
        Self {
            entry,
            request: RequestFlow::new(head, outgoing, &route.config, context),
            link: Link::addresses(route, visitor.affinity, context.now),
            response: ResponseFlow::default(),
            offer,
            kind,
            visitor,
        }
    }

    /// The route that it takes.
    pub(crate) fn route(&self) -> &Route {
        &self.link.route
    }

    /// How it is to be answered in the upstream's place.
    pub(crate) const fn form(&self) -> Form {
        self.kind.form
    }

    /// Whether it asks to change the protocol.
    pub(crate) const fn is_handshake(&self) -> bool {
        self.offer.is_some()
    }

    /// What goes to the upstream.
    pub(crate) const fn upstream_out(&mut self) -> &mut Outgoing {
        &mut self.request.out
    }

    /// Whether the client's bytes are wanted now: a part of the body can pass.
    pub(crate) fn wants_body(&self) -> bool {
        self.request.wants_body()
    }

    /// Whether what is still to come of the body goes nowhere, and is read only to be thrown away.
    pub(crate) const fn drops_body(&self) -> bool {
        self.request.is_given_up() && !self.request.body.is_over()
    }

    /// Whether the upstream has to take some of the body before more of it is read. What the client sent is delivered
    /// before its end is seen.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.request.waits_for_room()
    }

    /// Whether all of the request has been read.
    pub(crate) const fn is_request_over(&self) -> bool {
        self.request.body.is_over()
    }

    /// Whether request and response have both passed.
    pub(crate) fn is_over(&self) -> bool {
        self.response.is_over() && self.request.is_over()
    }

    /// Whether the client's connection ends behind the response.
    pub(crate) const fn closes(&self) -> bool {
        self.response.closes
    }

    /// The client sent these bytes; says how many of them belong to this request.
    pub(crate) fn client_sent(
        &mut self,
        bytes: &[u8],
        context: &Context<'_>,
    ) -> (usize, Result<(), Stop>) {
        let (used, passed) = self.request.client_sent(bytes, &self.link.route.config, context.now);
        self.entry.from_client = self.request.body.data;
        (used, passed.map_err(Stop::Rejected))
    }

    /// The client will send no more. Where that cannot be told from its having left, it has left.
    pub(crate) fn client_ended(&self) -> Stop {
        if !self.request.body.is_over() && !self.response.has_begun() {
            return Stop::Rejected(Rejection::CutBody);
        }
        Stop::Cut(End::new(Side::Client, self.phase(), Reason::Closed))
    }

    /// The client's connection is broken.
    pub(crate) fn client_broke(&self, why: Reason) -> Stop {
        Stop::Cut(End::new(Side::Client, self.phase(), why))
    }

    /// The upstream sent these bytes; what passes goes to `out`.
    pub(crate) fn upstream_sent(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        context: &Context<'_>,
    ) -> Result<(), Stop> {
        self.request.out.forget();
        let had_begun = self.response.has_begun();
        let facts = RequestFacts {
            kind: self.kind,
            offer: self.offer.as_deref(),
            cookie: self.cookie(&self.link.route.config.sticky),
        };
        let answer = self.response.upstream_sent(bytes, out, facts, &mut self.request, context);
        self.note_response();
        match &answer {
            // A 101 that was asked for, or the status of an answer.
            Err(Stop::Switched { .. }) => self.is_answered(false, context),
            _ if self.response.has_begun() && !had_begun => {
                self.is_answered(is_failure(self.response.status), context);
            }
            Err(Stop::Rejected(_)) if !had_begun => self.is_answered(true, context),
            _ => {}
        }
        answer
    }

    /// Tells how the endpoint answered: whether the request or handshake failed there.
    fn is_answered(&self, has_failed: bool, context: &Context<'_>) {
        let Some(endpoint) = self.link.endpoint() else { return };
        if has_failed {
            self.route().upstream.addresses.answered_badly(endpoint, context.now);
        } else {
            self.route().upstream.addresses.answered_well(endpoint, context.now);
        }
    }

    /// The cookie that the response is to set, if the request brought none.
    fn cookie<'a>(&self, sticky: &'a Sticky) -> Option<SetCookie<'a>> {
        let Sticky::Cookie(name) = sticky else { return None };
        Some(SetCookie { name, token: self.link.token()?, https: self.visitor.https })
    }

    /// What is known of the response goes into the log line.
    fn note_response(&mut self) {
        self.entry.from_upstream = self.response.data();
        if self.response.has_begun() {
            self.entry.status = Some(self.response.status);
            self.entry.during = Phase::Response;
        }
    }

    /// The upstream will send no more, or its connection is broken. `Ok` where that was the end of the response,
    /// or where the request is to be sent again.
    pub(crate) fn upstream_ended(
        &mut self,
        is_broken: bool,
        out: &mut Vec<u8>,
        context: &Context<'_>,
    ) -> Result<(), Stop> {
        if self.may_be_sent_again() {
            self.request.rewind();
            self.link.again(context);
            return Ok(());
        }
        if !self.response.has_begun() {
            self.is_answered(true, context);
            if self.may_go_elsewhere() {
                context.metrics.retries.add(1);
                self.request.rewind();
                self.link.go_elsewhere(context);
                return Ok(());
            }
        }
        self.link.ended();
        if self.response.is_over() {
            self.request.give_up();
            return Ok(());
        }
        if !self.response.has_begun() {
            let why = if is_broken { "reset" } else { "end of stream" };
            return Err(Stop::Rejected(Rejection::UpstreamClosed(why)));
        }
        if self.response.finish(is_broken, out) {
            self.note_response();
            self.request.give_up();
            return Ok(());
        }
        Err(Stop::Cut(End::new(Side::Upstream, Phase::Response, Reason::Closed)))
    }

    /// The upstream takes nothing any more. What it has said before that is still to be read, unless the request
    /// can be sent again.
    pub(crate) fn upstream_takes_nothing(&mut self, context: &Context<'_>) {
        if self.may_be_sent_again() {
            self.request.rewind();
            self.link.again(context);
        } else {
            self.request.give_up();
            self.link.takes_nothing();
        }
    }

    /// Nothing of a response came, and the request was never read, or asks only (RFC 9112, section 9.3.1): a
    /// connection that was kept idle may have been closed while the request was on its way.
    pub(crate) fn may_be_sent_again(&self) -> bool {
        self.link.is_reused()
            && self.response.is_untouched()
            && (self.kind.is_repeatable || self.request.is_unsent())
    }

    /// The endpoint closed without a byte of a response: the request may go to another one, if it only asks, or if not
    /// a byte of it was taken. Anything else may have been done already.
    fn may_go_elsewhere(&self) -> bool {
        self.response.is_untouched()
            && !self.request.is_given_up()
            && (self.kind.is_repeatable || self.request.is_unsent())
            && self.link.has_another()
    }

    /// The endpoints are known, and one of them is chosen.
    pub(crate) fn candidates(&mut self, candidates: Candidates, context: &Context<'_>) {
        let is_fresh = self.is_handshake();
        self.link.found(candidates, is_fresh, context);
    }

    /// There are none.
    pub(crate) const fn no_addresses(fault: Fault) -> Stop {
        Stop::Rejected(Rejection::Connection(fault))
    }

    /// The address that was asked for does not take a connection. The next one is tried, if there is one.
    pub(crate) fn not_connected(
        &mut self,
        fault: Fault,
        context: &Context<'_>,
    ) -> Result<(), Stop> {
        context.metrics.connect_failed(fault.failure());
        self.entry.upstream = fault.address();
        // What this machine has too little of is no fault of the address.
        if let (Some(address), false) = (fault.address(), matches!(fault, Fault::NoRoom { .. })) {
            self.route().upstream.addresses.failed(address, context.now);
        }
        self.request.rewind();
        match self.link.next_address(fault, context) {
            None => Ok(()),
            Some(fault) => Err(Stop::Rejected(Rejection::Connection(fault))),
        }
    }

    /// A connection to this address is under way, or there.
    pub(crate) fn linked(&mut self, address: SocketAddr, is_reused: bool, context: &Context<'_>) {
        self.entry.upstream = Some(address);
        self.request.moved = context.now;
        let keeps_request = self.kind.is_repeatable && (is_reused || self.link.has_another());
        if !keeps_request {
            self.request.out.forget();
        }
        self.link.linked(is_reused);
    }

    /// The upstream took so many bytes.
    pub(crate) fn upstream_took(&mut self, count: usize, now: Instant) {
        self.link.connected();
        self.request.upstream_took(count, now);
    }

    /// Bytes that may pass from the client to the upstream without a look at them.
    pub(crate) fn unseen_from_client(&self) -> u64 {
        if self.request.wants_body() && self.request.out.is_empty() {
            return self.request.body.unseen();
        }
        0
    }

    /// So many of those did. `untaken` the upstream has still to take.
    pub(crate) fn client_sent_unseen(
        &mut self,
        count: u64,
        untaken: &[u8],
        context: &Context<'_>,
    ) -> Result<(), Stop> {
        let config = &self.link.route.config;
        let passed = self.request.sent_unseen(count, untaken, config, context.now);
        self.entry.from_client = self.request.body.data;
        passed.map_err(Stop::Rejected)
    }

    /// The same of the response. Nothing may wait for the client.
    pub(crate) fn unseen_from_upstream(&self) -> u64 {
        self.response.unseen()
    }

    /// So many of those passed; what is to follow them goes to `out`.
    pub(crate) fn upstream_sent_unseen(&mut self, count: u64, out: &mut Vec<u8>) {
        self.response.sent_unseen(count, out);
        self.note_response();
    }

    /// When there is something to do although nothing happens.
    pub(crate) fn deadline(&mut self, context: &Context<'_>) -> Option<Instant> {
        if !self.link.is_established() {
            return self.link.deadline();
        }
        let config = &self.link.route.config;
        self.request.deadline(self.response.progress(), config, context.now)
    }

    /// Whether time has come to that.
    pub(crate) fn time(&mut self, out: &mut Vec<u8>, context: &Context<'_>) -> Result<(), Stop> {
        if let Some(fault) = self.link.overdue(context) {
            if fault.address().is_some() {
                return self.not_connected(fault, context);
            }
            context.metrics.connect_failed(fault.failure());
            return Err(Self::no_addresses(fault));
        }
        if !self.link.is_established() {
            return Ok(());
        }
        self.request.ask_for_body_in_time(out, context);
        let config = &self.link.route.config;
        match self.request.overdue(self.response.progress(), config, context.now) {
            Some(Late::Upstream) if self.response.is_over() => {
                // It has said all that it had to say, and wants no more of the request.
                self.request.give_up();
                Ok(())
            }
            Some(late) => {
                if late == Late::Upstream && !self.response.has_begun() {
                    self.is_answered(true, context);
                }
                Err(self.late(late))
            }
            None => Ok(()),
        }
    }

    fn late(&mut self, late: Late) -> Stop {
        let has_begun = self.response.has_begun();
        match late {
            _ if has_begun && self.response.is_over() => {
                // It was answered in full; only its own connection cannot go on.
                self.request.give_up();
                Stop::Cut(End::new(Side::Upstream, Phase::Response, Reason::Complete))
            }
            Late::Client if has_begun => {
                Stop::Cut(End::new(Side::Client, Phase::Response, Reason::Timeout))
            }
            Late::Client => Stop::Rejected(Rejection::SlowBody),
            Late::Upstream if has_begun => {
                Stop::Cut(End::new(Side::Upstream, Phase::Response, Reason::Stalled))
            }
            Late::Upstream => Stop::Rejected(Rejection::NoResponse),
        }
    }

    /// Whether the head of the response has gone to the client.
    pub(crate) const fn has_begun(&self) -> bool {
        self.response.has_begun()
    }

    /// The phase that it is in.
    pub(crate) const fn phase(&self) -> Phase {
        self.entry.during
    }

    /// How it ends where all went well.
    pub(crate) const fn complete() -> End {
        End::new(Side::Upstream, Phase::Response, Reason::Complete)
    }

    /// A client that got the body so far would take it for all of it: only a reset tells that it was cut.
    pub(crate) const fn needs_reset(&self) -> bool {
        self.response.ends_with_connection
    }

    /// The memory of what went to the upstream.
    pub(crate) fn into_memory(self) -> (Entry, Vec<u8>) {
        (self.entry, self.request.out.into_memory())
    }

    /// What becomes of the link behind a whole exchange.
    pub(crate) fn release(&self) -> Release {
        let is_whole = self.response.is_over()
            && self.request.body.is_over()
            && self.request.out.is_empty()
            && !self.request.is_given_up();
        if is_whole && self.response.keeps_link && self.link.is_sound() {
            Release::Keep
        } else {
            Release::Close
        }
    }

    /// What the upstream said behind its 101, and memory that can be used for something else.
    pub(crate) fn into_early(self) -> (Entry, Vec<u8>, Vec<u8>) {
        (self.entry, self.response.into_unread(), self.request.out.into_memory())
    }
}
