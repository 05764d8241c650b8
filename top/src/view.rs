//! Draws the model. Pure: what it draws on is given.
//!
//! ```text
//! elbows, where, since when                  1 line
//! numbers of the process                     as many lines as leave room for a few tunnels
//! the table, or another screen               all that is left
//! what was done, what is wrong, or a prompt  1 line
//! keys                                       1 line
//! ```

mod detail;
mod numbers;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use crate::columns::Fitting;
use crate::model::{Model, Screen};
use crate::text::{cut, pad, tail, wrap};
use crate::units::time;

/// The lines that a table takes at least: what is listed, heads, and some rows.
const TABLE: usize = 6;

const HELP: [&str; 21] = [
    "q, Ctrl-C       quit",
    "Up, Down, j, k  choose a tunnel; PgUp, PgDn, Home, End go further",
    "Enter           all that is known of the chosen tunnel; Esc goes back",
    "Left, Right     the columns that do not fit",
    "s, S            sort by the next field, or by the one before",
    "r               reverse the order",
    "/               filter by TEXT in the path, and by",
    "                search= client= upstream= older= idle= state=",
    "c               close the chosen tunnel, with a code and a reason; asks first",
    "t               all ends, Closes and endpoints",
    "p, space        pause, and go on",
    "",
    "c>u is from the client to the upstream, u>c from the upstream to the client.",
    "m/s and B/s are messages and bytes per second, msg and B all of them.",
    "wait>c are bytes that the client has not taken yet, wait>u the upstream.",
    "ping is the last round trip of a Ping to the client.",
    "k, M, G are thousands, millions and so on. - is not known, or not there.",
    "\u{fffd} stands for what clients sent and a terminal would obey or not show.",
    "Rates are known from the second look on, a second after the first.",
    "Who closes a tunnel needs ADMIN_TOKEN in the environment.",
    "elbows top --help has the flags; --once and --json are for scripts.",
];

/// How things look. Without colours the same is told by words and places.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    pub(crate) has_colours: bool,
}

impl Theme {
    fn colour(self, colour: Color) -> Style {
        if self.has_colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn label(self) -> Style {
        self.colour(Color::Cyan)
    }

    fn of_state(self, state: &str) -> Style {
        match state {
            "closing" => self.colour(Color::Yellow),
            "half_closed" => self.colour(Color::Magenta),
            _ => Style::new(),
        }
    }
}

/// Where lines are put, one below the other, as long as there is room.
struct Sheet<'f, 'b> {
    frame: &'f mut Frame<'b>,
    left: Rect,
}

impl Sheet<'_, '_> {
    fn wide(&self) -> usize {
        usize::from(self.left.width)
    }

    fn room(&self) -> usize {
        usize::from(self.left.height)
    }

    fn put(&mut self, line: Line<'_>) {
        if self.left.height == 0 {
            return;
        }
        self.frame.render_widget(line, Rect { height: 1, ..self.left });
        self.left.y += 1;
        self.left.height -= 1;
    }
}

/// Draws all of it.
pub(crate) fn draw(frame: &mut Frame<'_>, model: &mut Model, theme: Theme) {
    let area = frame.area();
    // Of a terminal that is very low, the title and the tunnels are left.
    let foot = area.height.saturating_sub(2).min(2);
    let left = Rect { height: area.height - foot, ..area };
    let mut sheet = Sheet { frame, left };
    sheet.put(title(model, sheet.wide()));
    match &model.screen {
        Screen::Tunnels => tunnels(&mut sheet, model, theme),
        Screen::One { row, has_ended } => {
            let lines = detail::lines(row, *has_ended, sheet.wide(), theme);
            scroll(&mut sheet, &mut model.scrolled, lines);
        }
        Screen::Totals => {
            let lines = numbers::totals(&model.look, sheet.wide(), theme);
            scroll(&mut sheet, &mut model.scrolled, lines);
        }
        Screen::Help => {
            let wide = sheet.wide();
            let lines = HELP.iter().flat_map(|line| wrap(line, wide)).map(Line::from).collect();
            scroll(&mut sheet, &mut model.scrolled, lines);
        }
    }
    let below = Rect { y: area.y + area.height - foot, height: foot, ..area };
    let mut sheet = Sheet { frame: sheet.frame, left: below };
    let note = note(model, sheet.wide(), theme);
    // A line at the foot of a low terminal is for what matters more.
    if foot == 2 || !note.spans.is_empty() {
        sheet.put(note);
    }
    let wide = sheet.wide();
    sheet.put(keys(model, wide));
}

fn title(model: &Model, wide: usize) -> Line<'static> {
    let summary = &model.look.summary;
    let state = match (model.trouble().is_some(), model.is_paused, summary.draining) {
        (true, _, _) => "NO ANSWER",
        (_, true, _) => "paused",
        (_, _, true) => "DRAINING",
        _ => "serving",
    };
    let text = format!(
        "elbows {} at {}  pid {}  up {}",
        summary.version,
        model.place,
        summary.pid,
        time(summary.uptime)
    );
    let room = wide.saturating_sub(state.len() + 1);
    let text = pad(&text, room, false);
    Line::from(cut(&format!("{text} {state}"), wide)).style(Modifier::REVERSED)
}

fn tunnels(sheet: &mut Sheet<'_, '_>, model: &mut Model, theme: Theme) {
    let numbers = numbers::lines(&model.look, &model.rates, sheet.wide(), theme);
    let room = sheet.room().saturating_sub(TABLE);
    for line in numbers.into_iter().take(room) {
        sheet.put(line);
    }
    let fitting = Fitting::of(&model.rows, sheet.wide(), model.shifted);
    model.shifted = fitting.shifted;
    // Where there are few lines, they are for tunnels.
    if sheet.room() > 2 {
        sheet.put(Line::from(cut(&listed(model, &fitting), sheet.wide())).style(Modifier::BOLD));
    }
    if sheet.room() > 1 {
        let heads =
            fitting.heads(model.question.order.name()).into_iter().flat_map(|(head, is_order)| {
                let style = if is_order {
                    Style::new().add_modifier(Modifier::UNDERLINED)
                } else {
                    Style::new()
                };
                [Span::styled(head, style.patch(theme.label())), Span::raw(" ")]
            });
        sheet.put(heads.collect::<Line<'_>>());
    }
    model.keep_in_sight(sheet.room());
    for (at, row) in model.rows.iter().enumerate().skip(model.first).take(sheet.room()) {
        let style = theme.of_state(row.tunnel.state.as_str());
        let style =
            if at == model.selected { style.add_modifier(Modifier::REVERSED) } else { style };
        sheet.put(Line::from(cut(&fitting.line(row), sheet.wide())).style(style));
    }
}

/// What the table lists.
fn listed(model: &Model, fitting: &Fitting) -> String {
    let tunnels = &model.look.tunnels;
    let told = tunnels.tunnels.len();
    let of = match tunnels.matched {
        Some(matched) if !model.question.filters.is_empty() => {
            format!("{matched} that match, {} open", tunnels.open)
        }
        _ => format!("{} open", tunnels.open),
    };
    let filters = model.question.filters.line();
    let only = if filters.is_empty() { filters } else { format!("; {filters}") };
    let more = match (model.shifted > 0, fitting.goes_on) {
        (false, false) => "",
        (false, true) => ", more columns: Right",
        (true, false) => ", more columns: Left",
        (true, true) => ", more columns: Left, Right",
    };
    format!("tunnels: {told} of {of}, by {}{more}{only}", model.question.order.text())
}

/// Lines of which not all may fit.
fn scroll(sheet: &mut Sheet<'_, '_>, scrolled: &mut usize, lines: Vec<Line<'_>>) {
    *scrolled = (*scrolled).min(lines.len().saturating_sub(sheet.room()));
    for line in lines.into_iter().skip(*scrolled) {
        sheet.put(line);
    }
}

fn note(model: &Model, wide: usize, theme: Theme) -> Line<'static> {
    if let Some(note) = model.note.as_ref().filter(|note| note.is_bad || model.prompt.is_none()) {
        let style =
            if note.is_bad { theme.bad() } else { Style::new().add_modifier(Modifier::BOLD) };
        return Line::from(cut(&note.text, wide)).style(style);
    }
    if let Some(prompt) = &model.prompt {
        return Line::from(cut(prompt.help(), wide));
    }
    match model.trouble() {
        Some(trouble) => Line::from(cut(&trouble, wide)).style(theme.bad()),
        None => Line::default(),
    }
}

/// The last line: keys, or what is being typed.
fn keys(model: &Model, wide: usize) -> Line<'static> {
    if let Some(prompt) = &model.prompt {
        return Line::from(tail(&format!("{}_", prompt.text()), wide)).style(Modifier::BOLD);
    }
    let keys: &[(&str, &str)] = match model.screen {
        Screen::Tunnels => &[
            ("q", "quit"),
            ("/", "filter"),
            ("s", "sort"),
            ("r", "reverse"),
            ("Enter", "detail"),
            ("c", "close"),
            ("t", "totals"),
            ("?", "help"),
        ],
        Screen::One { .. } => {
            &[("q", "quit"), ("Esc", "back"), ("c", "close"), ("Up Down", "scroll"), ("?", "help")]
        }
        Screen::Totals | Screen::Help => &[("q", "quit"), ("Esc", "back"), ("Up Down", "scroll")],
    };
    let spans = keys.iter().flat_map(|(key, does)| {
        [Span::styled(*key, Modifier::REVERSED), Span::raw(format!(" {does}  "))]
    });
    spans.collect()
}

#[cfg(test)]
mod tests;
