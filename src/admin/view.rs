//! A tunnel as the admin port shows it. Pure.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::clock::{Now, TICK};
use crate::end::Side;
use crate::tunnel::{Condition, Handshake, State};

/// What names a tunnel in this process, for as long as it is there: its place, and what no other tunnel has that is at
/// the same place before or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) worker: usize,
    pub(crate) key: usize,
    pub(crate) name: u64,
}

impl Id {
    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let worker = usize::from_str_radix(parts.next()?, 16).ok()?;
        let key = usize::from_str_radix(parts.next()?, 16).ok()?;
        let name = u64::from_str_radix(parts.next()?, 16).ok()?;
        let id = Self { worker, key, name };
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:x}-{:x}-{:016x}", self.worker, self.key, self.name)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A tunnel at one moment. The names are those of the access log, where it has them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct View {
    pub(crate) id: Id,
    pub(crate) client: SocketAddr,
    balancer: SocketAddr,
    pub(crate) upstream: SocketAddr,
    request: String,
    pub(crate) path: String,
    request_id: String,
    host: Option<String>,
    user_agent: Option<String>,
    subprotocol: Option<String>,
    /// None: the default one.
    route: Option<String>,
    protocol: &'static str,
    pub(crate) state: &'static str,
    #[serde(serialize_with = "seconds")]
    age: Duration,
    #[serde(serialize_with = "seconds")]
    idle: Duration,
    from_client: u64,
    from_upstream: u64,
    messages_from_client: u64,
    messages_from_upstream: u64,
    payload_from_client: u64,
    payload_from_upstream: u64,
    waiting_for_client: usize,
    waiting_for_upstream: usize,
    #[serde(serialize_with = "some_seconds")]
    ping_rtt: Option<Duration>,
    #[serde(serialize_with = "some_seconds")]
    ping_rtt_worst: Option<Duration>,
    close_code: Option<u16>,
    close_by: Option<&'static str>,
    handoffs: u16,
}

/// When a tunnel is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Now,
    /// How long it is after the start of the count.
    pub(crate) elapsed: Duration,
}

/// How long no data has passed.
pub(crate) fn idle(state: &State, at: Moment) -> Duration {
    TICK * state.idle_for(at.now.tick)
}

/// How long ago its request came.
pub(crate) fn age(state: &State, at: Moment) -> Duration {
    state.identity.age(at.elapsed)
}

/// How far it has come; `is_closing` where the worker ends it.
pub(crate) fn condition(state: &State, is_closing: bool) -> Condition {
    if is_closing { Condition::Closing } else { state.condition() }
}

/// The target of the request that opened it.
pub(crate) fn path(state: &State) -> &str {
    state.identity.request_line().split(' ').nth(1).unwrap_or_default()
}

impl View {
    pub(crate) fn of(id: Id, state: &State, is_closing: bool, at: Moment) -> Self {
        let identity = &state.identity;
        let [client, upstream] = state.flows.both();
        let (from_client, from_upstream) = (client.scanner.counts(), upstream.scanner.counts());
        let trips = state.ping_round_trips();
        let Handshake { host, user_agent, subprotocol, trace_id: _ } = identity.handshake();
        let [host, user_agent, subprotocol] =
            [host, user_agent, subprotocol].map(|text| (!text.is_empty()).then(|| text.to_owned()));
        Self {
            id,
            client: identity.client(),
            balancer: identity.balancer(),
            upstream: identity.upstream(),
            request: identity.request_line().to_owned(),
            path: path(state).to_owned(),
            request_id: identity.request_id().into_owned(),
            host,
            user_agent,
            subprotocol,
            route: (!identity.route().is_empty()).then(|| identity.route().to_owned()),
            protocol: if state.is_websocket() { "websocket" } else { "other" },
            state: condition(state, is_closing).as_str(),
            age: age(state, at),
            idle: idle(state, at),
            from_client: client.delivered(),
            from_upstream: upstream.delivered(),
            messages_from_client: from_client.messages,
            messages_from_upstream: from_upstream.messages,
            payload_from_client: from_client.payload,
            payload_from_upstream: from_upstream.payload,
            waiting_for_client: upstream.waiting.len(),
            waiting_for_upstream: client.waiting.len(),
            ping_rtt: trips.map(|(last, _)| last),
            ping_rtt_worst: trips.map(|(_, worst)| worst),
            close_code: state.close().map(|(code, _)| code),
            close_by: state.close().map(|(_, by)| Side::as_str(by)),
            handoffs: state.handoffs(),
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's form.
fn seconds<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}

#[allow(clippy::trivially_copy_pass_by_ref, clippy::ref_option)]
fn some_seconds<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_read_as_it_is_written_and_in_no_other_spelling() {
        let id = Id { worker: 3, key: 0x1f, name: 0xabcd };
        assert_eq!(id.to_string(), "3-1f-000000000000abcd");
        assert_eq!(Id::read(&id.to_string()), Some(id));
        for other in [
            "",
            "3",
            "3-1f",
            "3-1f-abcd",
            "3-1F-000000000000abcd",
            "+3-1f-000000000000abcd",
            "03-1f-000000000000abcd",
            "3-1f-000000000000abcd-",
            "3-1f-000000000000abcd/close",
            "3-1f-fffffffffffffffff",
            "3--000000000000abcd",
            "3-1f-00000000000000é",
        ] {
            assert_eq!(Id::read(other), None, "{other}");
        }
    }
}
