//! What both ends have seen of each tunnel, held against each other.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::mem;

use super::{Clients, Tunnel};
use crate::application::Record;
use crate::content::{Fault, Side};
use crate::end::Outcome;
use crate::heads;
use crate::report::{Failure, Gap, KindReport, Report, Spread, TunnelReport};

/// As many failures are told.
const MOST: usize = 20;

/// As many of the tunnels with the longest gaps are named.
const WORST: usize = 20;

/// What is collected of one kind.
#[derive(Default)]
struct Sum {
    report: KindReport,
    delays: Vec<u32>,
    gaps: Vec<(Gap, u32)>,
}

impl Clients {
    /// Puts into the report what was measured, and what of it was wrong.
    pub(super) fn judge(&self, records: Vec<Record>, report: &mut Report) {
        let mut records: HashMap<u64, Record> =
            records.into_iter().map(|record| (record.tunnel, record)).collect();
        let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
        let mut all = Sum::default();
        let mut failures = mem::take(&mut *self.failures.borrow_mut());
        for tunnel in self.tunnels.borrow().iter() {
            let record = records.remove(&tunnel.number);
            let failure = failure(tunnel, record.as_ref());
            let sum = sums.entry(tunnel.kind.name().to_owned()).or_default();
            for sum in [sum, &mut all] {
                sum.add(tunnel, record.as_ref(), failure.as_ref());
            }
            failures.extend(failure);
            if self.options.each {
                report.tunnels.extend(one(tunnel, record.as_ref()));
            }
        }
        report.failed = failures.len() as u64;
        failures.truncate(MOST);
        report.failures = failures;
        report.kinds = sums.into_iter().map(|(kind, sum)| (kind, sum.report())).collect();
        all.gaps.sort_unstable_by_key(|(_, delay)| Reverse(*delay));
        report.worst = all.gaps.iter().take(WORST).map(|(gap, _)| gap.clone()).collect();
        report.all = all.report();
        report.opening = Spread::of(self.opening.take());
        report.handshakes = Spread::of(self.handshakes.take());
        report.handshakes_left_out = self.left_out.get();
        report.requests = self.requests.take();
        report.requests.delay = Spread::of(self.request_delays.take());
        report.downloads = self.downloads.take();
    }
}

impl Sum {
    fn add(&mut self, tunnel: &Tunnel, record: Option<&Record>, failure: Option<&Failure>) {
        let report = &mut self.report;
        report.tunnels += 1;
        match failure.map(|failure| failure.what.as_str()) {
            None => {}
            Some("reset") => report.resets += 1,
            Some("end") => report.ends += 1,
            Some("lost" | "doubled" | "changed" | "framing" | "control" | "hash" | "client") => {
                report.mismatches += 1;
            }
            Some(_) => report.others += 1,
        }
        let Ok(client) = &tunnel.outcome else { return };
        report.messages_sent += client.sent.messages;
        report.bytes_sent += client.sent.bytes;
        report.messages_received += client.received.messages;
        report.bytes_received += client.received.bytes;
        report.proxy_pings += client.proxy_pings;
        let application = record.and_then(|record| record.outcome.as_ref());
        for end in [Some(client), application].into_iter().flatten() {
            report.pings += end.pings;
            report.pongs += end.pongs;
            report.blocked += end.blocked;
            self.delays.extend_from_slice(&end.delays);
        }
        self.gaps.extend(gap(client, application).map(|(delay, at)| {
            let kind = tunnel.kind.name().to_owned();
            let gap_ms = f64::from(delay) / 1_000.0;
            (Gap { tunnel: tunnel.number, kind, gap_ms, at: at as f64 / 1e9 }, delay)
        }));
    }

    fn report(self) -> KindReport {
        let gaps = self.gaps.into_iter().map(|(_, delay)| delay).collect();
        KindReport { delay: Spread::of(self.delays), gap: Spread::of(gaps), ..self.report }
    }
}

/// The longest delay of a tunnel and when that was, if any was measured.
fn gap(client: &Outcome, application: Option<&Outcome>) -> Option<(u32, u64)> {
    client.gap.max(application.and_then(|end| end.gap))
}

fn one(tunnel: &Tunnel, record: Option<&Record>) -> Option<TunnelReport> {
    let client = tunnel.outcome.as_ref().ok()?;
    let application = record.and_then(|record| record.outcome.as_ref());
    let wire = |bytes: fn(&Outcome) -> u64| application.map_or(0, bytes);
    Some(TunnelReport {
        tunnel: tunnel.number,
        kind: tunnel.kind.name().to_owned(),
        client: heads::client(tunnel.number).to_string(),
        wire_sent: client.wire_sent,
        wire_received: client.wire_received,
        application_received: wire(|end| end.wire_received),
        application_sent: wire(|end| end.wire_sent),
        messages_sent: client.sent.messages,
        messages_received: client.received.messages,
        gap_ms: f64::from(gap(client, application).unwrap_or_default().0) / 1_000.0,
    })
}

/// What went wrong with a tunnel. Whoever finds wrong bytes ends the tunnel, so that the other end sees only that:
/// bytes come first, then what the client has seen of the end.
fn failure(tunnel: &Tunnel, record: Option<&Record>) -> Option<Failure> {
    let tell = |seen_by: Side, what: &str, fault: Option<&Fault>, text: &str| Failure {
        tunnel: tunnel.number,
        kind: tunnel.kind.name().to_owned(),
        seen_by: if seen_by == Side::Client { "client" } else { "application" }.to_owned(),
        what: fault.map_or(what, |fault| fault.what.as_str()).to_owned(),
        offset: fault.map_or(0, |fault| fault.offset),
        length: fault.map_or(0, |fault| fault.length),
        message: fault.map_or(0, |fault| fault.message),
        text: fault.map_or(text, |fault| fault.text.as_str()).to_owned(),
    };
    let client = match &tunnel.outcome {
        Ok(outcome) => outcome,
        Err(why) => return Some(tell(Side::Client, "handshake", None, why)),
    };
    let application = record.and_then(|record| record.outcome.as_ref());
    let ends = [(Side::Application, application), (Side::Client, Some(client))];
    for (side, end) in ends {
        if let Some(end) = end.filter(|end| end.ending == "fault") {
            return Some(tell(side, "fault", end.fault.as_ref(), ""));
        }
    }
    if client.ending != "done" {
        let at = format!("behind {} messages", client.received.messages);
        return Some(tell(Side::Client, &client.ending, client.fault.as_ref(), &at));
    }
    let (Some(record), Some(application)) = (record, application) else {
        let text = if record.is_none() { "it knows nothing of it" } else { "it is still open" };
        return Some(tell(Side::Application, "late", None, text));
    };
    if application.ending != "done" {
        let at = format!("behind {} messages", application.received.messages);
        return Some(tell(Side::Application, &application.ending, application.fault.as_ref(), &at));
    }
    for (side, sent, received) in [
        (Side::Application, &client.sent, &application.received),
        (Side::Client, &application.sent, &client.received),
    ] {
        if sent != received {
            let text = format!("{sent:?} was sent, {received:?} came");
            return Some(tell(side, "hash", None, &text));
        }
    }
    let address = heads::client(tunnel.number);
    if record.client != address.ip().to_string() {
        let text = format!("{} is {address}", record.client);
        return Some(tell(Side::Application, "client", None, &text));
    }
    None
}
