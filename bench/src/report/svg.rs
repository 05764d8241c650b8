//! Charts: horizontal bars in groups, with the least and the most of the rounds as a thin line.
//!
//! Written by hand, because a bar is a rectangle. Colours and text work on light and dark pages.

use std::fmt::Write as _;

use super::table::number;
use super::{Cell, Group, Section};

const WIDTH: f64 = 720.0;
/// The least room for names, and for each of their characters.
const LEFT: f64 = 150.0;
const CHARACTER: f64 = 6.6;
const RIGHT: f64 = 150.0;
const TOP: f64 = 44.0;
const BAR: f64 = 16.0;
const GAP: f64 = 4.0;
const BETWEEN: f64 = 26.0;

/// elbows stands out; the rest is of one family.
const COLOURS: [&str; 8] =
    ["#d9480f", "#364fc7", "#4c6ef5", "#1098ad", "#15aabf", "#66d9e8", "#868e96", "#adb5bd"];

/// The chart of a section, if it has one.
pub(crate) fn draw(section: &Section) -> Option<String> {
    let chart = section.chart.as_ref()?;
    let bars = chart.groups.iter().flat_map(|group| &group.bars);
    let most = bars.filter_map(|(_, cell)| cell.spread()).map(|bar| bar.most).fold(0.0, f64::max);
    let names = chart.groups.iter().flat_map(|group| &group.bars).map(|(name, _)| name);
    let longest = names.map(|name| name.chars().count()).max().unwrap_or_default();
    let left = LEFT.max((longest as f64).mul_add(CHARACTER, 8.0));
    let scale = (WIDTH - left - RIGHT) / most.max(f64::MIN_POSITIVE);
    let mut body = String::new();
    let mut y = TOP;
    for Group { head, bars } in &chart.groups {
        if let Some(head) = head {
            text(&mut body, [0.0, y + 10.0], "start", "bold", head);
            y += 20.0;
        }
        for (index, (name, cell)) in bars.iter().enumerate() {
            let Some(bar) = cell.spread() else { continue };
            let colour = COLOURS.get(index % COLOURS.len()).unwrap_or(&"#868e96");
            let (middle, width) = (y + BAR / 2.0, bar.median * scale);
            text(&mut body, [left - 8.0, middle + 4.0], "end", "normal", name);
            // Writing to a string cannot fail.
            let _ = writeln!(
                body,
                r#"<rect x="{left}" y="{y}" width="{width:.1}" height="{BAR}" fill="{colour}"/>"#
            );
            let (from, to) = (left + bar.least * scale, left + bar.most * scale);
            if to - from > 0.5 {
                let _ = writeln!(
                    body,
                    r#"<path d="M{from:.1} {middle}H{to:.1}" stroke="currentColor" stroke-width="1.5"/>"#
                );
            }
            text(&mut body, [to + 6.0, middle + 4.0], "start", "normal", &label(cell));
            y += BAR + GAP;
        }
        y += BETWEEN - GAP;
    }
    let title = escape(section.title);
    let unit = escape(chart.unit);
    Some(format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" font-family="sans-serif" font-size="12" fill="#1f2328" color="#1f2328" role="img">
<title>{title}: {unit}</title>
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="0" y="14" font-weight="bold" font-size="14">{title}</text>
<text x="0" y="31">{unit}; bar: median, line: least to most of the rounds</text>
{body}</svg>
"##
    ))
}

fn label(cell: &Cell) -> String {
    match *cell {
        Cell::Number(spread, digits) => number(spread.median, digits),
        Cell::Exact(value, digits) => number(value, digits),
        Cell::Cannot(_) | Cell::None => String::new(),
    }
}

fn text(body: &mut String, [x, y]: [f64; 2], anchor: &str, weight: &str, words: &str) {
    let words = escape(words);
    let _ = writeln!(
        body,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-weight="{weight}">{words}</text>"#
    );
}

/// What is code in the document's tables is plain text in a chart.
fn escape(words: &str) -> String {
    let words = words.replace('`', "");
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{LEFT, draw};
    use crate::report::{Cell, Chart, Section, Table};

    fn chart(name: &str) -> String {
        let table = Table {
            corner: "proxy",
            columns: vec!["ended".to_owned()],
            rows: vec![(name.to_owned(), vec![Cell::Exact(9_000.0, 0)])],
        };
        let chart = Some(Chart::of(&table, "ended", &[0]));
        let section =
            Section { name: "a", title: "A", text: String::new(), chart, goals: Vec::new(), table };
        draw(&section).unwrap()
    }

    #[test]
    fn long_name_has_room_and_no_mark_of_code() {
        let name = "Envoy, `--parent-shutdown-time-s 10`";
        let drawn = chart(name);
        assert!(drawn.contains(">Envoy, --parent-shutdown-time-s 10</text>"), "{drawn}");
        let bar = |drawn: &str| -> f64 {
            let (_, rest) = drawn.split_once("<rect x=\"").unwrap();
            rest.split_once('"').unwrap().0.parse().unwrap()
        };
        assert!(bar(&drawn) >= name.chars().count() as f64 * 6.0, "{drawn}");
        assert!((bar(&chart("elbows")) - LEFT).abs() < 0.1);
    }
}
