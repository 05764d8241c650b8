//! Whole connections under any course of events: bytes of both sides, ends, breaks, time and the drain, in any order.
//!
//! Where events come only when nothing moves any more, the course is run once more without chance, and both runs have
//! to come to the same. Where they come at any moment, what has to hold whatever happens is looked at: every byte that
//! goes out belongs to a message, what waits is bounded, each request is logged once and asked once, and in the end
//! nothing is left.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Script;
use super::course::{Chance, Outcome, Upstreams, drive, steps_of_chance};
use super::exchange_reference::request_length;
use super::shell::{Logged, Shell, address, config};
use crate::config::{Config, ProxyProtocol};
use crate::drain::Stage;
use crate::proxy_protocol;

/// Bytes that the client, or the upstreams, send at most: less than what is kept, so that what is read does not depend
/// on the pieces.
const MOST_SENT: usize = 48 * 1024;

/// Events of one course at most.
const MOST_EVENTS: usize = 64;

const HEADER: &str = "PROXY TCP4 203.0.113.7 192.0.2.1 5555 443\r\n";

/// Requests; `#` stands for a number that no other has.
const REQUESTS: [&str; 10] = [
    "GET /# HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD /# HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /# HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n",
    "POST /# HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    "PUT /# HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    "GET /# HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "GET /# HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "POST /# HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab",
    "GET /ping HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /# HTTP/1.1\r\n\r\n",
];

const RESPONSES: [&str; 12] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "5\r\nabcde\r\n",
    "0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\n\r\n",
    "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "HTTP/1.1 204 No\r\n\r\n",
    "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
    "HTTP/1.1 403 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
];

/// One byte of settings, two of a seed, one of what passes unseen; then events.
pub fn connection(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let settings = script.byte();
    let seed = u64::from(script.byte()) << 8 | u64::from(script.byte());
    let bulk = u64::from(script.byte()) + 1;
    let is_at_rest = settings & 1 == 0;
    let mut run = Run::new(settings, bulk, Some(Chance::new(seed)), is_at_rest);
    let other = run.play(script.clone());
    if is_at_rest {
        let mut calm = Run::new(settings, u64::MAX, None, true);
        let calm = calm.play(script);
        // What tells most comes first.
        assert_eq!(calm.log, other.log);
        assert_eq!((calm.ending, &calm.early), (other.ending, &other.early));
        assert_eq!(calm.responses, other.responses);
        assert_eq!(calm.requests_in_short(), other.requests_in_short());
        assert_eq!(calm.requests, other.requests);
    }
}

struct Run {
    shell: Shell,
    chance: Option<Chance>,
    /// Events come only when nothing moves any more.
    is_at_rest: bool,
    /// What the client sent, without the PROXY header that is sent here before the first event.
    sent: Vec<u8>,
    /// No header is sent here, and the script may send one: then `sent` begins with it.
    may_send_header: bool,
    /// What the upstreams sent.
    sent_back: usize,
    requests: usize,
    log: Vec<Logged>,
}

impl Run {
    fn new(settings: u8, bulk: u64, chance: Option<Chance>, is_at_rest: bool) -> Self {
        let proxy_protocol =
            if settings & 2 == 0 { ProxyProtocol::Off } else { ProxyProtocol::Required };
        let max_body_size = (settings & 4 != 0).then_some(10);
        let mut shell = Shell::new(Config { proxy_protocol, max_body_size, ..config() });
        shell.bulk = bulk;
        let may_send_header = settings & 2 != 0 && settings & 8 != 0;
        if settings & 2 != 0 && !may_send_header {
            shell.client.sends(HEADER.as_bytes());
        }
        let (sent, log) = (Vec::new(), Vec::new());
        Self { shell, chance, is_at_rest, sent, may_send_header, sent_back: 0, requests: 0, log }
    }

    fn play(&mut self, mut script: Script<'_>) -> Outcome {
        self.go_on();
        for _ in 0..MOST_EVENTS {
            let Some(event) = script.next() else { break };
            if self.is_over() {
                break;
            }
            self.event(event, &mut script);
            self.go_on();
        }
        self.finish()
    }

    fn is_over(&self) -> bool {
        self.shell.over.is_some() || self.shell.tunnel.is_some()
    }

    /// Something moves: everything that can, or a little.
    fn go_on(&mut self) {
        let mut upstreams = Upstreams::default();
        match &mut self.chance {
            Some(chance) if !self.is_at_rest => {
                steps_of_chance(&mut self.shell, &mut upstreams, chance);
            }
            _ => drive(&mut self.shell, &mut upstreams, &mut self.chance),
        }
        self.log.extend(self.shell.log());
    }

    fn event(&mut self, event: u8, script: &mut Script<'_>) {
        match event % 16 {
            0..=2 => {
                let choice = usize::from(script.byte()) % REQUESTS.len();
                let text = REQUESTS[if self.has_no_address() { choice % 2 } else { choice }];
                self.requests += 1;
                self.client_sends(text.replace('#', &self.requests.to_string()).as_bytes());
            }
            3 => {
                let count = usize::from(script.byte());
                let bytes = script.bytes(count);
                if !self.has_no_address() {
                    self.client_sends(bytes);
                }
            }
            4 => {
                let count = usize::from(script.byte());
                self.client_sends(&b"abcde".repeat(count / 4));
            }
            5 if !self.shell.client.has_ended() => self.shell.client.ends(),
            6 if !self.shell.client.has_ended() => self.shell.client.breaks(),
            7 | 8 => self
                .upstream_sends(RESPONSES[usize::from(script.byte()) % RESPONSES.len()].as_bytes()),
            9 => {
                let count = usize::from(script.byte());
                self.upstream_sends(script.bytes(count));
            }
            10 => self.upstream_ends(script.byte()),
            11 => {
                let time = u64::from(script.byte());
                if self.is_at_rest {
                    // A link that chance left without room has some, as all others.
                    self.shell.links.iter_mut().for_each(|link| link.peer.room = usize::MAX);
                }
                self.shell.wait(Duration::from_millis(time * time * 2));
            }
            12 => self.drain(),
            13 => self.change_addresses(script.byte()),
            14 if !self.is_at_rest => self.shell.client.takes_nothing = true,
            15 if !self.is_at_rest => {
                if let Some(link) = self.shell.linked() {
                    self.shell.links[link].peer.takes_nothing = true;
                }
            }
            _ => {}
        }
    }

    /// Where a request is refused at once, it depends on how much of its body has come whether the connection goes on.
    fn has_no_address(&self) -> bool {
        let fails = self.shell.addresses.as_ref().is_some_and(Vec::is_empty);
        self.is_at_rest && (fails || !self.shell.refusing.is_empty())
    }

    fn client_sends(&mut self, bytes: &[u8]) {
        if !self.shell.client.has_ended() && self.sent.len() + bytes.len() <= MOST_SENT {
            self.sent.extend_from_slice(bytes);
            self.shell.client.sends(bytes);
        }
    }

    fn upstream_sends(&mut self, bytes: &[u8]) {
        let Some(link) = self.shell.linked() else { return };
        let peer = &mut self.shell.links[link].peer;
        if !peer.has_ended() && self.sent_back + bytes.len() <= MOST_SENT {
            self.sent_back += bytes.len();
            peer.sends(bytes);
        }
    }

    /// The upstream of an exchange ends or breaks, or an idle one does, or sends what nobody asked for.
    fn upstream_ends(&mut self, how: u8) {
        let linked = self.shell.linked();
        let peer = match linked {
            Some(link) => &mut self.shell.links[link].peer,
            None => match self.shell.idle() {
                Some(idle) => idle,
                None => return,
            },
        };
        match how % 3 {
            _ if peer.has_ended() => {}
            0 => peer.ends(),
            1 => peer.breaks(),
            _ if linked.is_none() => peer.sends(b"HTTP/1.1 200 Unasked\r\n\r\n"),
            _ => {}
        }
    }

    fn drain(&mut self) {
        let next = match self.shell.stage {
            Stage::Serving => Stage::Leaving,
            Stage::Leaving => Stage::Finishing,
            Stage::Yielding | Stage::Finishing | Stage::Over => Stage::Over,
        };
        let was_asked = self.shell.drain(next);
        self.log.extend(self.shell.log());
        if was_asked {
            assert_eq!(
                self.log.last().map(|logged| &*logged.end),
                Some("elbows drain period_over")
            );
        }
    }

    fn change_addresses(&mut self, how: u8) {
        let shell = &mut self.shell;
        match how % 6 {
            0 => shell.addresses = None,
            1 => shell.addresses = Some(Vec::new()),
            2 => shell.addresses = Some(vec![address(1), address(2)]),
            3 => shell.refusing = vec![address(1)],
            4 => shell.silent = vec![address(1)],
            _ => {
                shell.addresses = Some(vec![address(1)]);
                shell.refusing.clear();
                shell.silent.clear();
            }
        }
    }

    /// Whether each request of the client asks for a head alone, as far as they can be told apart.
    fn to_head(&self) -> Vec<bool> {
        let mut flags = Vec::new();
        let header = match proxy_protocol::parse(&self.sent) {
            Ok(Some((_, used))) if self.may_send_header => used,
            _ => 0,
        };
        let mut rest = &self.sent[header..];
        while !rest.is_empty() {
            let start = rest.strip_prefix(b"\r\n").unwrap_or(rest);
            flags.push(start.starts_with(b"HEAD "));
            match request_length(rest) {
                Some(used) => rest = &rest[used..],
                None => break,
            }
        }
        flags
    }

    /// What has to hold at any time: what was sent stays sent, so that a look at the end sees all of it.
    fn check(&self) {
        let shell = &self.shell;
        assert!(
            shell.most_waiting.iter().all(|most| *most < 256 * 1024),
            "{:?}",
            shell.most_waiting
        );
        let mut asked = BTreeSet::new();
        for link in &shell.links {
            for line in link.peer.received.split(|byte| *byte == b'\n') {
                if let Some(request) = self.unsafe_request(line) {
                    assert!(asked.insert(request), "{request:?} was asked twice");
                }
            }
        }
    }

    /// The method and the number of a request that must not be sent again, where a line ends as its first one does.
    fn unsafe_request<'l>(&self, line: &'l [u8]) -> Option<(&'static str, &'l str)> {
        let line = line.strip_suffix(b" HTTP/1.1\r")?;
        let slash = line.iter().rposition(|byte| *byte == b'/')?;
        let number = std::str::from_utf8(&line[slash + 1..]).ok()?;
        let is_one_of_ours = number.parse::<usize>().is_ok_and(|parsed| {
            (1..=self.requests).contains(&parsed) && parsed.to_string() == number
        });
        let method = ["POST", "PUT"].into_iter().find(|method| {
            let before = line[..slash].strip_suffix(b" ");
            before.is_some_and(|before| before.ends_with(method.as_bytes()))
        })?;
        is_one_of_ours.then_some((method, number))
    }

    /// The client has left, time passes, and nothing may be left.
    fn finish(&mut self) -> Outcome {
        if !self.is_over() {
            if !self.shell.client.has_ended() {
                self.shell.client.ends();
            }
            drive(&mut self.shell, &mut Upstreams::default(), &mut None);
            self.shell.wait(Duration::from_secs(200));
            assert!(self.is_over(), "something is left");
        }
        self.log.extend(self.shell.log());
        self.check();
        let counters = &self.shell.proxy.counters;
        let asked = [&counters.requests, &counters.refused_heads, &counters.slow_heads];
        let asked: u64 = asked.iter().map(|counter| counter.get()).sum();
        let is_tunnel = usize::from(self.shell.tunnel.is_some());
        assert_eq!(
            asked,
            (self.log.len() + is_tunnel) as u64,
            "each is logged once: {:?}",
            self.log
        );
        assert_eq!(self.shell.proxy.limits.census().open(), 0);
        self.outcome()
    }

    /// What it came to, without what depends on pieces: how much of what breaks a rule was there.
    fn outcome(&self) -> Outcome {
        let mut outcome = Outcome::of(&self.shell, &self.to_head());
        outcome.log.clone_from(&self.log);
        outcome.log.iter_mut().for_each(Logged::forget_bad_head);
        for message in outcome.requests.iter_mut().flatten() {
            if !message.is_whole {
                message.data.clear();
            }
        }
        outcome
    }
}
