//! What passes in a second: what two looks told, and the time between them. Pure.

use std::collections::HashMap;
use std::time::Duration;

use crate::answers::{Summary, Tunnel};
use crate::units::per_second;

/// Rates of the process. What only one look told is not known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) opened: Option<f64>,
    pub(crate) ended: Option<f64>,
    /// From clients and from upstreams.
    pub(crate) messages: [Option<f64>; 2],
    pub(crate) payload: [Option<f64>; 2],
    /// Of one processor.
    pub(crate) cpu: Option<f64>,
}

impl Rates {
    pub(super) fn between(old: &Summary, new: &Summary, time: Duration) -> Self {
        let rate = |of: fn(&Summary) -> u64| per_second(of(old), of(new), time);
        let spent = (new.cpu_seconds - old.cpu_seconds).max(0.0);
        Self {
            opened: rate(|of| of.tunnels_opened),
            ended: rate(|of| of.tunnels_closed),
            messages: [rate(|of| of.messages_from_client), rate(|of| of.messages_from_upstream)],
            payload: [rate(|of| of.payload_from_client), rate(|of| of.payload_from_upstream)],
            cpu: (!time.is_zero()).then(|| spent / time.as_secs_f64()),
        }
    }
}

/// A tunnel with its rates.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) tunnel: Tunnel,
    /// From the client and from the upstream.
    pub(crate) messages: [Option<f64>; 2],
    pub(crate) bytes: [Option<f64>; 2],
}

impl Row {
    pub(super) fn between(old: Option<&Self>, new: &Tunnel, time: Duration) -> Self {
        let rate =
            |of: fn(&Tunnel) -> u64| old.and_then(|old| per_second(of(&old.tunnel), of(new), time));
        Self {
            tunnel: new.clone(),
            messages: [rate(|of| of.messages_from_client), rate(|of| of.messages_from_upstream)],
            bytes: [rate(|of| of.from_client), rate(|of| of.from_upstream)],
        }
    }
}

/// The tunnels of a look, with what they were before.
pub(super) fn rows(old: &[Row], new: &[Tunnel], is_same_process: bool, time: Duration) -> Vec<Row> {
    let name = |tunnel: &Tunnel| {
        if is_same_process {
            (tunnel.id.clone(), None)
        } else {
            (tunnel.request_id.clone(), Some(tunnel.client.clone()))
        }
    };
    let old: HashMap<_, _> = old.iter().map(|row| (name(&row.tunnel), row)).collect();
    new.iter().map(|tunnel| Row::between(old.get(&name(tunnel)).copied(), tunnel, time)).collect()
}
