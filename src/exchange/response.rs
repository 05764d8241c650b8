//! A response on its way to the client: its head, then its body as it comes.

use super::request::RequestFlow;
use super::{RESPONSE_LIMITS, RequestFacts, RequestKind, Stop};
use crate::end::{End, Phase, Reason, Side};
use crate::http::body::{Body, Sink, Trailers};
use crate::http::head::{Framing, Reader, Response, Version};
use crate::http::hop::ConnectionOptions;
use crate::http::reject::Rejection;
use crate::http::{upgrade, write};
use crate::proxy::Context;

#[derive(Debug, Default)]
pub(super) struct ResponseFlow {
    state: ResponseState,
    reader: Reader,
    /// What came and could not be used yet: an unfinished head, or line of a body's framing.
    unread: Vec<u8>,
    pub(super) status: u16,
    /// The client's connection ends behind it.
    pub(super) closes: bool,
    /// To the client, the end of its connection is the end of the body.
    pub(super) ends_with_connection: bool,
    /// The upstream keeps the connection behind it.
    pub(super) keeps_link: bool,
}

/// How far a response has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// No head has gone to the client.
    Awaited,
    Body,
    Over,
}

#[derive(Debug, Default)]
enum ResponseState {
    /// Nothing of it has come.
    #[default]
    Untouched,
    /// Its head comes, or the head behind interim ones.
    Head,
    Body(Body),
    /// The protocol is another one.
    Switched,
}

impl ResponseFlow {
    pub(super) const fn is_untouched(&self) -> bool {
        matches!(self.state, ResponseState::Untouched)
    }

    /// Whether a head of a response, not an interim one, has gone to the client.
    pub(super) const fn has_begun(&self) -> bool {
        matches!(self.state, ResponseState::Body(_))
    }

    pub(super) const fn is_over(&self) -> bool {
        matches!(&self.state, ResponseState::Body(body) if body.is_over())
    }

    /// How far it has come.
    pub(super) const fn progress(&self) -> Progress {
        match &self.state {
            ResponseState::Body(body) if body.is_over() => Progress::Over,
            ResponseState::Body(_) => Progress::Body,
            _ => Progress::Awaited,
        }
    }

    /// Bytes of its body that have passed.
    pub(super) const fn data(&self) -> u64 {
        match &self.state {
            ResponseState::Body(body) => body.data,
            _ => 0,
        }
    }

    pub(super) fn upstream_sent(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        facts: RequestFacts<'_>,
        request: &mut RequestFlow,
        context: &Context<'_>,
    ) -> Result<(), Stop> {
        if self.is_untouched() {
            self.state = ResponseState::Head;
        }
        if self.unread.is_empty() {
            let (used, read) = self.read(bytes, out, facts, request, context);
            self.unread.extend_from_slice(bytes.get(used..).unwrap_or_default());
            return read;
        }
        let mut unread = std::mem::take(&mut self.unread);
        unread.extend_from_slice(bytes);
        let (used, read) = self.read(&unread, out, facts, request, context);
        unread.drain(..used.min(unread.len()));
        if !unread.is_empty() {
            self.unread = unread;
        }
        read
    }

    /// Says how many of the bytes were used.
    fn read(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        facts: RequestFacts<'_>,
        request: &mut RequestFlow,
        context: &Context<'_>,
    ) -> (usize, Result<(), Stop>) {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let bad = |fault| Stop::Rejected(Rejection::BadResponse(fault));
            match &mut self.state {
                ResponseState::Untouched | ResponseState::Head => {
                    let (head, used) = match self.reader.response(rest, &RESPONSE_LIMITS) {
                        Ok(Some(read)) => read,
                        Ok(None) => return (at, Ok(())),
                        Err(fault) => return (at, Err(bad(fault))),
                    };
                    at += used;
                    match head.status {
                        101 => {
                            let chosen =
                                facts.offer.and_then(|offer| upgrade::chosen(&head, offer));
                            let Some(chosen) = chosen else {
                                return (at, Err(Stop::Rejected(Rejection::UnaskedUpgrade)));
                            };
                            write::switching(out, &head, chosen, facts.cookie);
                            self.state = ResponseState::Switched;
                            let protocol = upgrade::protocol(chosen);
                            let subprotocol = upgrade::subprotocol(&head).into();
                            return (at, Err(Stop::Switched { protocol, subprotocol }));
                        }
                        100..200 => interim(&head, out, facts.kind, request, context),
                        _ => {
                            context.proxy.warnings.upstream_answered();
                            if let Err(fault) = self.begin(&head, out, facts, request, context) {
                                return (at, Err(bad(fault)));
                            }
                        }
                    }
                }
                ResponseState::Body(body) => {
                    return match body.pass(rest, out) {
                        Ok(used) if body.is_over() => {
                            // Nobody asked for what comes behind it.
                            self.keeps_link &= used == rest.len();
                            (bytes.len(), Ok(()))
                        }
                        Ok(used) => (at + used, Ok(())),
                        Err(fault) => {
                            context.proxy.counters.response_faults.by_rule.add(fault);
                            tracing::debug!(rule = fault.as_str(), "bad response: {fault}");
                            let end = End::new(Side::Upstream, Phase::Response, Reason::Malformed);
                            (bytes.len(), Err(Stop::Cut(end)))
                        }
                    };
                }
                ResponseState::Switched => return (at, Ok(())),
            }
        }
    }

    /// Writes the head, and goes on to the body.
    fn begin(
        &mut self,
        head: &Response<'_>,
        out: &mut Vec<u8>,
        facts: RequestFacts<'_>,
        request: &mut RequestFlow,
        context: &Context<'_>,
    ) -> Result<(), crate::http::head::Fault> {
        let RequestFacts { kind, cookie, .. } = facts;
        let framing = head.framing(kind.form.to_head)?;
        let options = ConnectionOptions::of(&head.fields);
        self.keeps_link = framing != Framing::UntilClose
            && match head.version {
                Version::Http11 => !options.close(),
                Version::Http10 => options.keep_alive() && !options.close(),
            };
        let has_end = matches!(framing, Framing::Absent | Framing::Length(_));
        let chunked = !has_end && !kind.form.is_http_10;
        self.ends_with_connection = !has_end && kind.form.is_http_10;
        // A body that nobody asked for may come all the same, or not: nobody could tell it from a next request. And
        // one that the upstream does not want any more goes nowhere.
        let goes_nowhere = !self.keeps_link || request.is_given_up();
        let is_unread = request.is_gate_shut() || !request.body.is_over() && goes_nowhere;
        if request.is_gate_shut() {
            request.give_up();
            self.keeps_link = false;
        }
        self.closes = !kind.form.keeps
            || self.ends_with_connection
            || is_unread
            || context.stage.is_finishing();
        self.status = head.status;
        // Of a response without body the framing of the one that it stands for is told (RFC 9110, section 9.3.2).
        let tells_chunks =
            head.status != 204 && kind.form.to_head && !kind.form.is_http_10 && is_chunked(head);
        let how = write::ToClient {
            closes: self.closes,
            is_http_10: kind.form.is_http_10,
            chunked: chunked || tells_chunks,
        };
        write::response(out, head, how, cookie);
        let sink = if chunked { Sink::CHUNKED } else { Sink::Plain };
        let trailers = if kind.wants_trailers { Trailers::OfResponse } else { Trailers::Dropped };
        self.state = ResponseState::Body(Body::new(framing, sink, trailers, RESPONSE_LIMITS));
        Ok(())
    }

    /// The upstream's connection has ended. Whether the body may end so.
    pub(super) fn finish(&mut self, is_broken: bool, out: &mut Vec<u8>) -> bool {
        match &mut self.state {
            ResponseState::Body(body) if body.is_until_close() && !is_broken => {
                body.finish(out);
                true
            }
            _ => false,
        }
    }

    pub(super) fn unseen(&self) -> u64 {
        match &self.state {
            ResponseState::Body(body) if self.unread.is_empty() => body.unseen(),
            _ => 0,
        }
    }

    pub(super) fn sent_unseen(&mut self, count: u64, out: &mut Vec<u8>) {
        if let ResponseState::Body(body) = &mut self.state {
            body.passed_unseen(count, out);
        }
    }

    pub(super) fn into_unread(self) -> Vec<u8> {
        self.unread
    }
}

/// Whether a status says that the endpoint could not do what it should: any 5xx but those that are about the request
/// (RFC 9110, sections 15.6.2 and 15.6.6).
pub(super) const fn is_failure(status: u16) -> bool {
    matches!(status, 500 | 502..=504 | 506..=599)
}

/// Whether its head says that its body, or the one that it stands for, comes in chunks.
fn is_chunked(head: &Response<'_>) -> bool {
    let mut codings = head.fields.iter().filter(|field| field.is(b"transfer-encoding"));
    codings.any(|field| field.value.eq_ignore_ascii_case(b"chunked"))
}

/// An interim response passes (RFC 9110, section 15.2), but not to HTTP/1.0, which knows of none, and not a 100
/// where elbows has asked for the body itself.
fn interim(
    head: &Response<'_>,
    out: &mut Vec<u8>,
    kind: RequestKind,
    request: &mut RequestFlow,
    context: &Context<'_>,
) {
    let was_asked = head.status == 100 && request.open_gate(context.now);
    if kind.form.is_http_10 || was_asked {
        return;
    }
    let how = write::ToClient { closes: false, is_http_10: false, chunked: false };
    write::response(out, head, how, None);
}
