//! A request and a response of any bytes, in any pieces and with sides that are ready in any order: what upstream and
//! client see is what a reference says of the whole messages.

use std::time::Duration;

use super::Script;
use super::course::{Answer, Chance, Outcome, Then, Upstreams, drive};
use super::decode::{Ending, Message};
use super::exchange_reference::{
    Answerer, Last, Request, Response, check_ending, check_fields, framing_for_client,
    trailers_for_client,
};
use super::shell::{Logged, Shell, config};

/// A body that waits for a 100 has waited, and a connection that closes has lingered.
const MOMENT: Duration = Duration::from_millis(1_100);

/// One byte of settings, two of a seed, one of what passes unseen, two of the request's length; the request; the
/// response.
pub fn exchange(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let settings = script.byte();
    let seed = u64::from(script.byte()) << 8 | u64::from(script.byte());
    let bulk = u64::from(script.byte()) + 1;
    let length = usize::from(script.byte()) << 8 | usize::from(script.byte());
    let request = script.bytes(length);
    let then = match settings % 4 {
        1 => Then::Ends,
        2 => Then::Breaks,
        _ => Then::Waits,
    };
    let answer = Answer { bytes: script.rest().to_vec(), then, is_early: settings & 4 != 0 };
    check(request, &answer, bulk, seed);
}

/// Checks one exchange without chance, and with this seed.
pub(crate) fn check(request: &[u8], answer: &Answer, bulk: u64, seed: u64) {
    let answerer = Answerer::of(request);
    let request = match &answerer {
        Answerer::Upstream(read) if read.body.fault.is_none() => &request[..read.used],
        _ => request,
    };
    let to_head = matches!(&answerer, Answerer::Upstream(request) if request.to_head())
        || request.trim_ascii_start().starts_with(b"HEAD ");
    let calm = run(request, answer, u64::MAX, None, to_head);
    let other = run(request, answer, bulk, Some(Chance::new(seed)), to_head);
    for outcome in [&calm, &other] {
        answerer.check(answer, outcome);
    }
    if !answer.is_early {
        if !answerer.is_bad(request) {
            assert_eq!(calm.requests, other.requests);
        }
        assert_eq!(calm.responses, other.responses);
        assert_eq!((calm.ending, &calm.early), (other.ending, &other.early));
        assert_eq!(calm.log, other.log);
    }
}

fn run(
    request: &[u8],
    answer: &Answer,
    bulk: u64,
    mut chance: Option<Chance>,
    to_head: bool,
) -> Outcome {
    let mut shell = Shell::new(config());
    shell.bulk = bulk;
    let mut upstreams = Upstreams::new(vec![answer.clone()]);
    shell.client.sends(request);
    drive(&mut shell, &mut upstreams, &mut chance);
    for _ in 0..2 {
        shell.wait(MOMENT);
        drive(&mut shell, &mut upstreams, &mut chance);
    }
    let mut outcome = Outcome::of(&shell, &[to_head]);
    if shell.tunnel.is_none() && shell.over.is_none() {
        shell.client.ends();
        drive(&mut shell, &mut upstreams, &mut chance);
        assert!(shell.over.is_some(), "the client has left");
        outcome.log.extend(shell.log());
    }
    outcome.log.iter_mut().for_each(Logged::forget_bad_head);
    let bound = request.len().max(answer.bytes.len()) + 256 * 1024;
    assert!(shell.most_waiting.iter().all(|most| *most < bound));
    assert!(shell.links.iter().all(|link| link.uses == 1), "nobody asked twice");
    outcome
}

impl Answerer {
    fn check(&self, answer: &Answer, outcome: &Outcome) {
        match self {
            Self::Nobody => {
                assert_eq!(outcome.requests.len(), 0);
                if let Some(refusal) = outcome.responses.first() {
                    assert!(refusal.status() >= 400 && refusal.is_whole);
                    assert_eq!((outcome.responses.len(), outcome.ending), (1, Ending::End));
                }
            }
            Self::Elbows { .. } => {
                let first = &outcome.responses[0];
                assert!(first.status() == 200 && first.is_whole);
            }
            Self::Upstream(request) => request.check(answer, outcome),
        }
    }
}

impl Request {
    fn check(&self, answer: &Answer, outcome: &Outcome) {
        let requests = outcome.requests.concat();
        let is_bad = self.body.fault.is_some();
        match &requests[..] {
            [message] => {
                self.check_head(message);
                self.check_body(message, answer.is_early || is_bad);
            }
            // A bad body that comes with its head is refused before there is a link.
            [] => assert!(is_bad && outcome.responses.len() == 1),
            _ => panic!("one request became {requests:?}"),
        }
        let is_answered = self.body.is_over || answer.is_early && !requests.is_empty();
        // What a 100 asked for came, so that nobody can tell who sent it.
        let is_told = |message: &&Message| message.status() != 100 || !self.expects();
        let responses: Vec<_> = outcome.responses.iter().filter(is_told).collect();
        if !is_answered {
            let statuses: Vec<_> = responses.iter().map(|message| message.status()).collect();
            assert_eq!(statuses, if is_bad { vec![400] } else { vec![] });
            return;
        }
        self.check_responses(answer, outcome, &responses, is_bad);
    }

    fn check_responses(
        &self,
        answer: &Answer,
        outcome: &Outcome,
        responses: &[&Message],
        is_bad: bool,
    ) {
        let response = Response::of(&answer.bytes, self);
        let interim: Vec<_> = responses.iter().filter(|message| message.status() < 200).collect();
        let passes = |(line, _): &&(String, _)| {
            !(self.is_http_10 || self.expects() && line.starts_with("HTTP/1.1 100 "))
        };
        let expected: Vec<_> = response.interim.iter().filter(passes).collect();
        for (message, (line, fields)) in interim.iter().zip(&expected) {
            assert_eq!(&message.line, line);
            check_fields(fields, message);
        }
        let is_switched = usize::from(outcome.early.is_some());
        let last = responses.iter().find(|message| message.status() >= 200);
        if is_bad {
            // The fault may have come first.
            assert!(interim.len() <= expected.len());
            return;
        }
        assert_eq!(interim.len(), expected.len() + is_switched);
        match response.last {
            Last::Part | Last::Wrong => {
                // A reference that knows whole heads only calls a wrong one unfinished.
                let waits = matches!(response.last, Last::Part) && answer.then == Then::Waits;
                match last {
                    Some(last) => assert_eq!(last.status(), 502),
                    None => assert!(waits, "it has no answer"),
                }
            }
            Last::Switching(rest) => match &outcome.early {
                Some((client, upstream)) => {
                    assert!(self.may_upgrade());
                    assert_eq!((client.len(), upstream), (0, &rest));
                }
                None => assert_eq!(last.map(|last| last.status()), Some(502)),
            },
            Last::Final { line, fields, framing, body } => {
                let last = last.expect("it is answered");
                assert_eq!(last.line, String::from_utf8_lossy(line.as_bytes()));
                check_fields(&fields, last);
                assert_eq!(last.framing, framing_for_client(framing, self));
                assert!(last.data == body.data, "the client gets another body");
                let ends_well =
                    framing == crate::http::head::Framing::UntilClose && answer.then == Then::Ends;
                let is_whole = body.is_over || ends_well;
                assert_eq!(last.is_whole, is_whole, "{last:?} {:?}", outcome.ending);
                if is_whole && last.framing == crate::http::head::Framing::Chunked {
                    assert_eq!(last.trailers, trailers_for_client(&body, self));
                }
                let is_cut = !is_whole && (answer.then != Then::Waits || body.fault.is_some());
                if is_cut {
                    assert_ne!(outcome.ending, Ending::Open, "nothing shows that it was cut");
                }
                if is_whole && self.body.is_over && !answer.is_early {
                    check_ending(last, self, outcome.ending);
                    let logged = &outcome.log[0];
                    assert_eq!(logged.end, "upstream response complete");
                    assert_eq!(logged.status, u64::from(last.status()));
                    assert_eq!(logged.from_client, self.body.data.len() as u64);
                    assert_eq!(logged.from_upstream, body.data.len() as u64);
                }
            }
        }
        assert_eq!(outcome.log.len(), usize::from(outcome.early.is_none()), "{:?}", outcome.log);
    }
}
