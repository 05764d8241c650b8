//! All that is known of one tunnel. Pure.

use ratatui::text::{Line, Span};

use super::Theme;
use crate::answers::Tunnel;
use crate::model::Row;
use crate::text::{Text, pad, wrap};
use crate::units::{rate, round_trip, time};

/// How wide labels are.
const LABEL: usize = 15;

pub(super) fn lines(row: &Row, has_ended: bool, wide: usize, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if has_ended {
        lines.push(Line::styled("It has ended, or moved to another process.", theme.bad()));
    }
    for (label, text) in all(row) {
        let room = wide.saturating_sub(LABEL);
        for (at, text) in wrap(&text, room).into_iter().enumerate() {
            let label = pad(if at == 0 { label } else { "" }, LABEL, false);
            lines.push(Line::from_iter([Span::styled(label, theme.label()), Span::raw(text)]));
        }
    }
    lines
}

fn all(row: &Row) -> Vec<(&'static str, String)> {
    let Tunnel { id, client, balancer, upstream, request, request_id, protocol, .. } = &row.tunnel;
    let of = &row.tunnel;
    let [m_c, m_u] = row.messages.map(rate);
    let [b_c, b_u] = row.bytes.map(rate);
    let close = match (of.close_code, &of.close_by) {
        (Some(code), Some(by)) => format!("{code} by {by}"),
        (Some(code), None) => code.to_string(),
        _ => String::from("none"),
    };
    let handoffs = match of.handoffs {
        0 => String::from("never"),
        1 => String::from("once"),
        number => format!("{number} times"),
    };
    vec![
        ("id", id.to_string()),
        ("client", client.to_string()),
        ("balancer", balancer.to_string()),
        ("upstream", upstream.to_string()),
        ("request", request.to_string()),
        ("host", said(of.host.as_ref())),
        ("user agent", said(of.user_agent.as_ref())),
        ("subprotocol", said(of.subprotocol.as_ref())),
        ("request id", request_id.to_string()),
        ("protocol", protocol.to_string()),
        ("state", of.state.to_string()),
        ("age", time(of.age)),
        ("idle", time(of.idle)),
        (
            "from client",
            sent(of.messages_from_client, &m_c, of.payload_from_client, of.from_client, &b_c),
        ),
        (
            "from upstream",
            sent(of.messages_from_upstream, &m_u, of.payload_from_upstream, of.from_upstream, &b_u),
        ),
        (
            "waiting",
            format!(
                "{} for the client, {} for the upstream",
                of.waiting_for_client, of.waiting_for_upstream
            ),
        ),
        (
            "ping",
            format!("{}, at worst {}", round_trip(of.ping_rtt), round_trip(of.ping_rtt_worst)),
        ),
        ("Close", close),
        ("handed over", handoffs),
    ]
}

fn said(text: Option<&Text>) -> String {
    text.map_or_else(|| String::from("-"), Text::to_string)
}

fn sent(messages: u64, per_second: &str, payload: u64, bytes: u64, rate: &str) -> String {
    format!(
        "{messages} messages, {per_second}/s; {bytes} bytes, {rate}/s, {payload} of them payload"
    )
}
