//! The numbers of the process above the table, and all of them on a screen of their own. Pure.

use ratatui::text::{Line, Span};

use super::Theme;
use crate::answers::Look;
use crate::model::Rates;
use crate::text::{cut, pad, wrap};
use crate::units::{percent, rate, share, short};

/// How wide labels are.
const LABEL: usize = 10;

/// How wide the bar of a drain is.
const BAR: usize = 20;

fn labelled(label: &str, text: &str, wide: usize, theme: Theme) -> Line<'static> {
    let text = cut(text, wide.saturating_sub(LABEL));
    Line::from_iter([Span::styled(pad(label, LABEL, false), theme.label()), Span::raw(text)])
}

/// The lines above the table, what matters most first.
pub(super) fn lines(look: &Look, rates: &Rates, wide: usize, theme: Theme) -> Vec<Line<'static>> {
    let of = &look.summary;
    let line = |label, text: String| labelled(label, &text, wide, theme);
    let mut lines = Vec::new();
    if of.draining {
        let drain = of.drain;
        let done = drain.answered.saturating_add(drain.unanswered).saturating_add(drain.cut);
        let share = share(done, done.saturating_add(of.tunnels_open));
        let text = format!(
            "[{}] {}  {} open  {} answered  {} unanswered  {} cut",
            bar(share),
            percent(Some(share)),
            of.tunnels_open,
            drain.answered,
            drain.unanswered,
            drain.cut
        );
        lines.push(labelled("drain", &text, wide, theme));
    }
    let [m_c, m_u] = rates.messages.map(rate);
    let [p_c, p_u] = rates.payload.map(rate);
    lines.push(line(
        "tunnels",
        format!(
            "{} open  {}/s opened  {}/s ended  in all {} opened  {} ended",
            of.tunnels_open,
            rate(rates.opened),
            rate(rates.ended),
            short(of.tunnels_opened),
            short(of.tunnels_closed)
        ),
    ));
    lines.push(line(
        "messages",
        format!(
            "{m_c}/s from clients  {m_u}/s from upstreams  in all {}  {}",
            short(of.messages_from_client),
            short(of.messages_from_upstream)
        ),
    ));
    lines.push(line(
        "payload",
        format!(
            "{p_c} B/s from clients  {p_u} B/s from upstreams  in all {}  {}",
            short(of.payload_from_client),
            short(of.payload_from_upstream)
        ),
    ));
    lines.push(line("ends", texts(&ends(look), "none yet")));
    lines.push(line("closes", texts(&closes(look), "none yet")));
    lines.push(line("endpoints", texts(&look.endpoints.told(), "none known")));
    let most = of.max_fds.map_or_else(String::new, |most| format!(" of {}", short(most)));
    let mistakes = match of.panics {
        0 => String::new(),
        panics => format!("mistakes {}  ", short(panics)),
    };
    lines.push(line(
        "process",
        format!(
            "{mistakes}cpu {}  memory {}B  fds {}{most}  workers {}  connections {}",
            percent(rates.cpu),
            short(of.resident_memory_bytes),
            short(of.open_fds),
            of.workers,
            short(of.connections_open)
        ),
    ));
    lines
}

fn bar(share: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    // Of 0 to 20.
    let done = ((share * BAR as f64) as usize).min(BAR);
    format!("{}{}", "#".repeat(done), "-".repeat(BAR - done))
}

fn texts(all: &[String], none: &str) -> String {
    if all.is_empty() { none.to_owned() } else { all.join("  ") }
}

/// The most first.
fn sorted(mut all: Vec<(u64, String)>, number: fn(u64) -> String) -> Vec<String> {
    all.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    all.into_iter().map(|(count, text)| format!("{text} {}", number(count))).collect()
}

fn ends(look: &Look) -> Vec<String> {
    sorted(all_ends(look), short)
}

fn all_ends(look: &Look) -> Vec<(u64, String)> {
    let ends = look.summary.ends.iter();
    ends.map(|end| (end.number, format!("{}/{}/{}", end.by, end.during, end.why))).collect()
}

fn closes(look: &Look) -> Vec<String> {
    sorted(all_closes(look), short)
}

fn all_closes(look: &Look) -> Vec<(u64, String)> {
    let closes = look.summary.closes.iter();
    closes.map(|one| (one.number, format!("{} by {}", one.code, one.by))).collect()
}

/// All ends, Closes and endpoints.
pub(super) fn totals(look: &Look, wide: usize, theme: Theme) -> Vec<Line<'static>> {
    let of = &look.summary;
    let handed = vec![format!("{} in, {} out", of.handed_in, of.handed_out)];
    let drained = vec![format!(
        "{} answered, {} unanswered, {} cut",
        of.drain.answered, of.drain.unanswered, of.drain.cut
    )];
    let exact = |number: u64| number.to_string();
    let parts = [
        ("ends of tunnels: by whom, when and why", sorted(all_ends(look), exact)),
        ("first Closes: code and sender", sorted(all_closes(look), exact)),
        ("endpoints", look.endpoints.told()),
        ("tunnels that were handed over", handed),
        ("tunnels that a drain ended", drained),
    ];
    let mut lines = Vec::new();
    for (head, texts) in parts {
        lines.push(Line::styled(head, theme.label()));
        let texts = if texts.is_empty() { vec![String::from("none yet")] } else { texts };
        for text in texts {
            let room = wide.saturating_sub(2);
            lines.extend(wrap(&text, room).into_iter().map(|text| Line::from(format!("  {text}"))));
        }
    }
    lines
}
