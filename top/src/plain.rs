//! `--once`: the numbers of a process and a table of its tunnels, as plain text. Pure.
//!
//! Numbers are whole here, and times in seconds: a script reads them. One look has no rates.

use std::fmt::Write as _;

use crate::answers::{Look, Summary, Tunnel};
use crate::text::{Text, pad, width};
use crate::units;

const HEADS: [&str; 15] = [
    "ID",
    "CLIENT",
    "UPSTREAM",
    "STATE",
    "AGE",
    "IDLE",
    "MSG_C",
    "MSG_U",
    "BYTES_C",
    "BYTES_U",
    "WAIT_C",
    "WAIT_U",
    "RTT",
    "SUBPROTOCOL",
    "PATH",
];

/// Which of them are numbers, and stand at the right of their columns.
const NUMBERS: std::ops::Range<usize> = 4..13;

/// All of it, with a line end behind each line.
pub(crate) fn write(place: &Text, look: &Look) -> String {
    let mut out = String::new();
    for (label, text) in summary(place, look) {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}{text}", pad(label, 11, false));
    }
    out.push('\n');
    let rows: Vec<_> = look.tunnels.tunnels.iter().map(cells).collect();
    let heads = HEADS.map(str::to_owned);
    let all: Vec<_> = [heads].into_iter().chain(rows).collect();
    let mut columns = [0; HEADS.len()];
    for row in &all {
        for (column, cell) in columns.iter_mut().zip(row) {
            *column = width(cell).max(*column);
        }
    }
    for row in &all {
        let cells = row.iter().zip(columns).enumerate();
        let line: Vec<_> =
            cells.map(|(at, (cell, column))| pad(cell, column, NUMBERS.contains(&at))).collect();
        let _ = writeln!(out, "{}", line.join(" ").trim_end());
    }
    let told = look.tunnels.tunnels.len() as u64;
    if look.tunnels.matched.is_none_or(|matched| matched > told) {
        let _ = writeln!(out, "\nmore than these {told}: --limit takes up to 1000");
    }
    out
}

fn summary(place: &Text, look: &Look) -> Vec<(&'static str, String)> {
    let Look { summary: of, endpoints, tunnels, .. } = look;
    let Summary { version, pid, workers, connections_open, open_fds, .. } = of;
    let state = if of.draining { "draining" } else { "serving" };
    let listed = |texts: Vec<String>| if texts.is_empty() { "-".into() } else { texts.join(", ") };
    let matched = tunnels.matched.map_or_else(String::new, |matched| format!(", {matched} match"));
    let mut lines = vec![
        (
            "elbows",
            format!("{version} at {place}, pid {pid}, up {}, {state}", units::time(of.uptime)),
        ),
        (
            "tunnels",
            format!(
                "{} open{matched}, {} opened, {} ended, {} handed in, {} handed out",
                tunnels.open, of.tunnels_opened, of.tunnels_closed, of.handed_in, of.handed_out
            ),
        ),
        (
            "messages",
            format!(
                "{} from clients, {} from upstreams",
                of.messages_from_client, of.messages_from_upstream
            ),
        ),
        (
            "payload",
            format!(
                "{} bytes from clients, {} bytes from upstreams",
                of.payload_from_client, of.payload_from_upstream
            ),
        ),
        (
            "process",
            format!(
                "{:.2} s of CPU, {} bytes of memory, {open_fds} descriptors, {workers} workers, \
                 {connections_open} connections that are no tunnels",
                of.cpu_seconds, of.resident_memory_bytes
            ),
        ),
    ];
    if of.panics > 0 {
        lines.push(("mistakes", format!("{} of elbows itself: the log says where", of.panics)));
    }
    if of.draining {
        let drain = of.drain;
        lines.push((
            "drain",
            format!(
                "{} answered, {} unanswered, {} cut",
                drain.answered, drain.unanswered, drain.cut
            ),
        ));
    }
    let ends =
        of.ends.iter().map(|end| format!("{}/{}/{} {}", end.by, end.during, end.why, end.number));
    let closes = of.closes.iter().map(|one| format!("{} by {} {}", one.code, one.by, one.number));
    lines.push(("ends", listed(ends.collect())));
    lines.push(("closes", listed(closes.collect())));
    lines.push(("endpoints", listed(endpoints.told())));
    lines
}

fn cells(tunnel: &Tunnel) -> [String; HEADS.len()] {
    let seconds = |of: f64| format!("{of:.1}");
    let rtt = tunnel.ping_rtt.map_or_else(|| String::from("-"), |of| format!("{of:.4}"));
    let subprotocol = tunnel.subprotocol.as_ref().map_or("-", Text::as_str);
    let numbers = [
        tunnel.messages_from_client,
        tunnel.messages_from_upstream,
        tunnel.from_client,
        tunnel.from_upstream,
        tunnel.waiting_for_client,
        tunnel.waiting_for_upstream,
    ];
    let [msg_c, msg_u, bytes_c, bytes_u, wait_c, wait_u] = numbers.map(|number| number.to_string());
    let texts = [&tunnel.id, &tunnel.client, &tunnel.upstream, &tunnel.state].map(Text::to_string);
    let [id, client, upstream, state] = texts;
    let (age, idle) = (seconds(tunnel.age), seconds(tunnel.idle));
    let path = tunnel.path.to_string();
    [
        id,
        client,
        upstream,
        state,
        age,
        idle,
        msg_c,
        msg_u,
        bytes_c,
        bytes_u,
        wait_c,
        wait_u,
        rtt,
        subprotocol.to_owned(),
        path,
    ]
}
