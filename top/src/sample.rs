//! An elbows and its tunnels, made up for tests: JSON as the admin port would write it.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::{Value, json};

use crate::answers::{Look, Tunnel};

/// A tunnel with this number and path. The number is in all that differs.
pub(crate) fn tunnel(number: u64, path: &str) -> Value {
    json!({
        "id": format!("0-{number:x}-00000000000000ab"),
        "client": format!("203.0.113.{number}:51234"),
        "balancer": "10.0.0.2:40000",
        "upstream": "10.0.0.5:45490",
        "request": format!("GET {path} HTTP/1.1"),
        "path": path,
        "request_id": format!("request-{number}"),
        "host": "chat.example",
        "user_agent": "Browser/1.0",
        "subprotocol": null,
        "protocol": "websocket",
        "state": "open",
        "age": 3_600 + number,
        "idle": 2.5,
        "from_client": 1_000 * number,
        "from_upstream": 2_000 * number,
        "messages_from_client": 10 * number,
        "messages_from_upstream": 20 * number,
        "payload_from_client": 900 * number,
        "payload_from_upstream": 1_900 * number,
        "waiting_for_client": 0,
        "waiting_for_upstream": 0,
        "ping_rtt": 0.012,
        "ping_rtt_worst": 0.250,
        "close_code": null,
        "close_by": null,
        "handoffs": 0,
        "new_field": "of a later version"
    })
}

/// What a process tells that has been up for so many seconds.
pub(crate) fn summary(pid: u64, uptime: u64) -> Value {
    json!({
        "version": "0.1.0",
        "pid": pid,
        "started": 1_700_000_000 + pid,
        "uptime": uptime,
        "draining": false,
        "workers": 4,
        "connections_open": 12,
        "tunnels_open": 12_345,
        "connections": 0,
        "requests": 0,
        "tunnels_opened": 20_000 + 3 * uptime,
        "tunnels_closed": 7_655 + uptime,
        "messages_from_client": 1_000 * uptime,
        "messages_from_upstream": 2_500 * uptime,
        "payload_from_client": 64_000 * uptime,
        "payload_from_upstream": 1_000_000 * uptime,
        "handed_in": 0,
        "handed_out": 0,
        "drain": { "answered": 0, "unanswered": 0, "cut": 0 },
        "ends": [
            { "by": "elbows", "during": "relay", "why": "ordered", "number": 2 },
            { "by": "client", "during": "relay", "why": "closed", "number": 7_653 }
        ],
        "closes": [{ "code": "1000", "by": "client", "number": 7_000 }],
        "cpu_seconds": Duration::from_millis(250 * uptime).as_secs_f64(),
        "resident_memory_bytes": 34_000_000,
        "open_fds": 24_704,
        "max_fds": 1_048_576
    })
}

pub(crate) fn read_tunnel(value: Value) -> Tunnel {
    serde_json::from_value(value).unwrap()
}

/// A look that told these.
pub(crate) fn look(summary: Value, tunnels: &[Value], one: Option<Value>) -> Look {
    let listed = json!({
        "tunnels": tunnels, "matched": tunnels.len(), "open": 12_345, "next": null,
    });
    let endpoints =
        json!({ "endpoints": [{ "address": "10.0.0.5:45490", "state": "up" }], "fault": null });
    Look {
        summary: serde_json::from_value(summary).unwrap(),
        endpoints: serde_json::from_value(endpoints).unwrap(),
        tunnels: serde_json::from_value(listed).unwrap(),
        one: one.map(read_tunnel),
    }
}
