//! What the admin port answers, as far as it is shown (docs/schemas has the forms whole). Pure.
//!
//! Text in it is harmless from here on. What is not known is skipped, so that an older `elbows top` can look at a newer
//! elbows.

use serde::Deserialize;

use crate::text::Text;

/// The process in numbers: `/api/summary`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Summary {
    pub(crate) version: Text,
    pub(crate) pid: u64,
    pub(crate) started: f64,
    pub(crate) uptime: f64,
    pub(crate) draining: bool,
    pub(crate) workers: u64,
    pub(crate) connections_open: u64,
    pub(crate) tunnels_open: u64,
    pub(crate) tunnels_opened: u64,
    pub(crate) tunnels_closed: u64,
    pub(crate) messages_from_client: u64,
    pub(crate) messages_from_upstream: u64,
    pub(crate) payload_from_client: u64,
    pub(crate) payload_from_upstream: u64,
    pub(crate) handed_in: u64,
    pub(crate) handed_out: u64,
    #[serde(default)]
    pub(crate) panics: u64,
    pub(crate) drain: Drain,
    pub(crate) ends: Vec<Ends>,
    pub(crate) closes: Vec<Closes>,
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_memory_bytes: u64,
    pub(crate) open_fds: u64,
    pub(crate) max_fds: Option<u64>,
}

impl Summary {
    /// Whether the same process told both.
    pub(crate) fn is_of_same_process(&self, other: &Self) -> bool {
        (self.pid, self.started.to_bits()) == (other.pid, other.started.to_bits())
    }
}

/// What the drain has ended.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Drain {
    pub(crate) answered: u64,
    pub(crate) unanswered: u64,
    pub(crate) cut: u64,
}

/// Tunnels that ended in one way.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Ends {
    pub(crate) by: Text,
    pub(crate) during: Text,
    pub(crate) why: Text,
    pub(crate) number: u64,
}

/// First Closes of one code and sender.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Closes {
    pub(crate) code: Text,
    pub(crate) by: Text,
    pub(crate) number: u64,
}

/// The addresses of the application: `/api/endpoints`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Endpoints {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) fault: Option<Text>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) address: Text,
    #[serde(default)]
    state: Text,
}

impl Endpoints {
    /// Each with its state, unless that is `up`; and why there is none.
    pub(crate) fn told(&self) -> Vec<String> {
        let of = |Endpoint { address, state }: &Endpoint| match state.as_str() {
            "" | "up" => address.to_string(),
            state => format!("{address} {state}"),
        };
        self.endpoints.iter().map(of).chain(self.fault.iter().map(Text::to_string)).collect()
    }
}

/// Tunnels, in the order that was asked for: `/api/tunnels`.
#[derive(Clone, Debug, Default, Deserialize)]
#[allow(clippy::struct_field_names)] // The names of the answer.
pub(crate) struct Tunnels {
    pub(crate) tunnels: Vec<Tunnel>,
    pub(crate) matched: Option<u64>,
    pub(crate) open: u64,
}

/// A tunnel at one moment.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Tunnel {
    pub(crate) id: Text,
    pub(crate) client: Text,
    pub(crate) balancer: Text,
    pub(crate) upstream: Text,
    pub(crate) request: Text,
    pub(crate) path: Text,
    pub(crate) request_id: Text,
    pub(crate) host: Option<Text>,
    pub(crate) user_agent: Option<Text>,
    pub(crate) subprotocol: Option<Text>,
    pub(crate) protocol: Text,
    pub(crate) state: Text,
    pub(crate) age: f64,
    pub(crate) idle: f64,
    pub(crate) from_client: u64,
    pub(crate) from_upstream: u64,
    pub(crate) messages_from_client: u64,
    pub(crate) messages_from_upstream: u64,
    pub(crate) payload_from_client: u64,
    pub(crate) payload_from_upstream: u64,
    pub(crate) waiting_for_client: u64,
    pub(crate) waiting_for_upstream: u64,
    pub(crate) ping_rtt: Option<f64>,
    pub(crate) ping_rtt_worst: Option<f64>,
    pub(crate) close_code: Option<u64>,
    pub(crate) close_by: Option<Text>,
    pub(crate) handoffs: u64,
}

/// All that one look at an elbows told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    pub(crate) summary: Summary,
    pub(crate) endpoints: Endpoints,
    pub(crate) tunnels: Tunnels,
    /// The tunnel that was asked for by its id, where it is there.
    pub(crate) one: Option<Tunnel>,
}

/// Why a look, or an order, was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// Nobody is there, or whoever is does not speak in time.
    #[error("no answer from {place}: {why}")]
    Unreachable { place: Text, why: Text },
    /// Somebody answers, but no elbows.
    #[error("{place} is no admin port of an elbows: {why}")]
    Foreign { place: Text, why: Text },
    /// elbows says why not.
    #[error("{}", .0.as_str())]
    Refused(Text, u16),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn endpoint_that_is_not_up_is_told_with_its_state() {
        let endpoints = json!({
            "endpoints": [
                { "address": "10.0.0.5:80", "state": "up" },
                { "address": "10.0.0.6:80", "state": "down" },
                { "address": "10.0.0.7:80" },
            ],
            "fault": "no",
        });
        let endpoints: Endpoints = serde_json::from_value(endpoints).unwrap();
        assert_eq!(endpoints.told(), ["10.0.0.5:80", "10.0.0.6:80 down", "10.0.0.7:80", "no"]);
    }
}
