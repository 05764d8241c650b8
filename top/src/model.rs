//! What is shown, and what keys and answers make of it. Pure: time comes in with each of them.

mod prompt;
mod rates;

use std::time::Duration;

pub(crate) use self::prompt::{Prompt, Target};
pub(crate) use self::rates::{Rates, Row};
use crate::answers::{Look, Trouble, Tunnel};
use crate::close::Close;
use crate::filters::{Filters, ORDERS, Question};
use crate::text::Text;

/// How long a word about what was done stays.
const NOTE: Duration = Duration::from_secs(8);

/// How far a page is.
const PAGE: usize = 10;

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Char(char),
    Enter,
    Escape,
    Backspace,
    /// Ctrl-U.
    Clear,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    /// Ctrl-C.
    Interrupt,
}

/// What happens.
#[derive(Debug)]
pub(crate) enum Input {
    Key(Key),
    /// Time has passed.
    Second,
    Looked(Result<Box<Look>, Trouble>),
    Closed(Close, Result<(), Trouble>),
}

/// What is to be done because of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Nothing,
    Ask(Question),
    Close(Close),
    Quit,
}

/// What fills the screen.
#[derive(Debug)]
pub(crate) enum Screen {
    Tunnels,
    /// One tunnel, as it was last seen.
    One {
        row: Box<Row>,
        has_ended: bool,
    },
    Totals,
    Help,
}

/// Something to be said in the line above the keys.
#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) text: String,
    pub(crate) is_bad: bool,
    until: Duration,
}

/// All that is known.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // Each says something of its own.
pub(crate) struct Model {
    pub(crate) place: Text,
    can_close: bool,
    pub(crate) question: Question,
    /// The filters of the last answer.
    answered: Filters,
    pub(crate) look: Look,
    looked_at: Duration,
    pub(crate) rows: Vec<Row>,
    pub(crate) rates: Rates,
    pub(crate) screen: Screen,
    pub(crate) prompt: Option<Prompt>,
    pub(crate) note: Option<Note>,
    /// The tunnel that was closed last, by its id.
    closed: Option<String>,
    /// What keeps it from seeing anything, and since when.
    trouble: Option<(Trouble, Duration)>,
    pub(crate) now: Duration,
    pub(crate) selected: usize,
    /// The first row that is seen.
    pub(crate) first: usize,
    /// The first line that is seen of a screen that is no table.
    pub(crate) scrolled: usize,
    /// How many columns are left out, behind those that stay.
    pub(crate) shifted: usize,
    pub(crate) is_paused: bool,
    is_asking: bool,
    /// The question has changed since it was asked.
    is_stale: bool,
    /// What is listed next begins at its first row, whatever was selected before.
    is_other_list: bool,
}

impl Model {
    /// With what the first look told.
    pub(crate) fn new(place: Text, can_close: bool, question: Question, look: Look) -> Self {
        let mut model = Self {
            place,
            can_close,
            answered: question.filters.clone(),
            question,
            look: Look::default(),
            looked_at: Duration::ZERO,
            rows: Vec::new(),
            rates: Rates::default(),
            screen: Screen::Tunnels,
            prompt: None,
            note: None,
            closed: None,
            trouble: None,
            now: Duration::ZERO,
            selected: 0,
            first: 0,
            scrolled: 0,
            shifted: 0,
            is_paused: false,
            is_asking: false,
            is_stale: false,
            is_other_list: false,
        };
        model.take(look, true);
        model
    }

    /// Something happens.
    pub(crate) fn update(&mut self, input: Input, now: Duration) -> Output {
        self.now = now;
        if self.note.as_ref().is_some_and(|note| note.until <= now) {
            self.note = None;
        }
        match input {
            Input::Key(Key::Interrupt) => Output::Quit,
            Input::Key(key) if self.prompt.is_some() => self.type_key(key),
            Input::Key(key) => self.press(key),
            Input::Second if self.is_paused => Output::Nothing,
            Input::Second => self.ask(),
            Input::Looked(looked) => self.looked(looked),
            Input::Closed(close, closed) => {
                match closed {
                    Ok(()) => {
                        let what = if close.is_websocket {
                            "gets its Close"
                        } else {
                            "ends, without a Close"
                        };
                        self.say(&format!("{} {what}", close.name));
                        self.closed = Some(close.id);
                    }
                    Err(trouble) => self.complain(&trouble.to_string()),
                }
                self.ask()
            }
        }
    }

    /// What is wrong, and for how long it has been.
    pub(crate) fn trouble(&self) -> Option<String> {
        let (trouble, since) = self.trouble.as_ref()?;
        let seconds = self.now.saturating_sub(*since).as_secs();
        Some(format!("{trouble}; asking again for {seconds} s"))
    }

    /// Sees to it that the selected row is one of so many that are seen.
    pub(crate) fn keep_in_sight(&mut self, rows: usize) {
        let rows = rows.max(1);
        self.selected = self.selected.min(self.rows.len().saturating_sub(1));
        let earliest = (self.selected + 1).saturating_sub(rows);
        let latest = self.selected.min(self.rows.len().saturating_sub(rows));
        self.first = self.first.max(earliest).min(latest);
    }

    fn say(&mut self, text: &str) {
        let until = self.now + NOTE;
        self.note = Some(Note { text: text.to_owned(), is_bad: false, until });
    }

    fn complain(&mut self, text: &str) {
        let until = self.now + NOTE;
        self.note = Some(Note { text: text.to_owned(), is_bad: true, until });
    }

    /// What was wrong is so no more.
    fn complain_no_more(&mut self) {
        self.note.take_if(|note| note.is_bad);
    }

    /// Asks, or once what was asked is answered.
    fn ask(&mut self) -> Output {
        if self.is_asking {
            return Output::Nothing;
        }
        (self.is_asking, self.is_stale) = (true, false);
        Output::Ask(self.question.clone())
    }

    /// The same, since the question has changed.
    fn ask_anew(&mut self) -> Output {
        self.is_stale = true;
        self.ask()
    }

    fn looked(&mut self, looked: Result<Box<Look>, Trouble>) -> Output {
        self.is_asking = false;
        match looked {
            Ok(look) => {
                self.trouble = None;
                let is_current = !self.is_stale;
                if is_current {
                    self.answered = self.question.filters.clone();
                }
                self.take(*look, is_current);
            }
            // A filter with a value that it cannot have: back to the one before.
            Err(Trouble::Refused(why, 400)) => {
                if !self.is_stale {
                    self.question.filters = self.answered.clone();
                }
                self.complain(why.as_str());
            }
            Err(trouble) => {
                let since = self.trouble.take().map_or(self.now, |(_, since)| since);
                self.trouble = Some((trouble, since));
            }
        }
        if self.is_stale { self.ask() } else { Output::Nothing }
    }

    /// Takes what a look told; of an answer to what is no longer asked, nothing of the one tunnel.
    fn take(&mut self, look: Look, is_current: bool) {
        let time = self.now.saturating_sub(self.looked_at);
        let (old, new) = (&self.look.summary, &look.summary);
        let is_same = old.is_of_same_process(new);
        if !is_same && old.pid != 0 {
            let took = match new.handed_in {
                0 => String::new(),
                1 => String::from(" and took over 1 tunnel"),
                number => format!(" and took over {number} tunnels"),
            };
            self.say(&format!("pid {} answers now{took}; before, it was pid {}", new.pid, old.pid));
        }
        let (old, new) = (&self.look.summary, &look.summary);
        self.rates = if is_same { Rates::between(old, new, time) } else { Rates::default() };
        let rows = rates::rows(&self.rows, &look.tunnels.tunnels, is_same, time);
        let is_other = is_current && std::mem::take(&mut self.is_other_list);
        let selected = self.rows.get(self.selected).filter(|_| !is_other).map(|row| &row.tunnel);
        let found = selected
            .and_then(|selected| rows.iter().position(|row| row.tunnel.is(selected, is_same)));
        self.selected = found.unwrap_or(self.selected).min(rows.len().saturating_sub(1));
        if let Screen::One { row, has_ended } = &mut self.screen {
            let id = self.question.one.as_deref();
            match &look.one {
                Some(one) if id == Some(one.id.as_str()) => {
                    **row = Row::between(Some(row), one, time);
                    *has_ended = false;
                }
                None if is_current => {
                    // In another process it has another id.
                    let moved = rows.iter().find(|other| other.tunnel.is(&row.tunnel, is_same));
                    *has_ended = moved.is_none();
                    if let Some(moved) = moved {
                        self.question.one = Some(moved.tunnel.id.to_string());
                        **row = moved.clone();
                    }
                }
                _ => {}
            }
        }
        (self.rows, self.look, self.looked_at) = (rows, look, self.now);
    }

    fn press(&mut self, key: Key) -> Output {
        match (key, &self.screen) {
            (Key::Char('q'), _) => return Output::Quit,
            (Key::Char('?' | 'h'), _) => self.show(Screen::Help),
            (Key::Char('t'), _) => self.show(Screen::Totals),
            (Key::Char('c'), _) => self.begin_close(),
            (Key::Char('p' | ' '), _) => self.is_paused = !self.is_paused,
            (Key::Escape, Screen::Tunnels) => self.note = None,
            (Key::Escape | Key::Backspace, _) => self.show(Screen::Tunnels),
            (key, Screen::Tunnels) => return self.press_in_table(key),
            (key, _) => self.scrolled = moved(self.scrolled, key, usize::MAX),
        }
        Output::Nothing
    }

    fn press_in_table(&mut self, key: Key) -> Output {
        let last = self.rows.len().saturating_sub(1);
        match key {
            Key::Char('/' | 'f') => {
                self.complain_no_more();
                self.prompt = Some(Prompt::Filter(self.question.filters.line()));
            }
            Key::Char('s') => return self.sort(self.question.order.moved(1)),
            Key::Char('S') => return self.sort(self.question.order.moved(ORDERS.len() - 1)),
            Key::Char('r') => return self.sort(self.question.order.reversed()),
            Key::Left => self.shifted = self.shifted.saturating_sub(1),
            Key::Right => self.shifted += 1,
            Key::Enter => {
                if let Some(row) = self.rows.get(self.selected).cloned() {
                    let id = row.tunnel.id.to_string();
                    self.show(Screen::One { row: Box::new(row), has_ended: false });
                    self.question.one = is_id(&id).then_some(id);
                    return self.ask_anew();
                }
            }
            key => self.selected = moved(self.selected, key, last),
        }
        Output::Nothing
    }

    fn sort(&mut self, order: crate::filters::Order) -> Output {
        self.question.order = order;
        self.top()
    }

    /// The list is another one: from its first row.
    fn top(&mut self) -> Output {
        (self.selected, self.first, self.is_other_list) = (0, 0, true);
        self.ask_anew()
    }

    fn show(&mut self, screen: Screen) {
        (self.screen, self.scrolled) = (screen, 0);
        self.question.one = None;
    }

    fn begin_close(&mut self) {
        let row = match &self.screen {
            Screen::One { has_ended: true, .. } => {
                return self.complain("it has ended: there is nothing to close any more");
            }
            Screen::One { row, has_ended: false } => Some(&**row),
            Screen::Tunnels => self.rows.get(self.selected),
            Screen::Totals | Screen::Help => None,
        };
        let Some(row) = row else {
            return self.complain("choose a tunnel first");
        };
        let target = Target::of(&row.tunnel);
        if self.is_ending(&row.tunnel) {
            self.complain(&format!("{} is being closed already", target.name));
        } else if !self.can_close {
            self.complain(
                "ADMIN_TOKEN is not set here: elbows closes a tunnel only for who has it",
            );
        } else if is_id(&target.id) {
            self.complain_no_more();
            self.prompt = Some(Prompt::close(target));
        }
    }

    /// Whether somebody ends it already.
    fn is_ending(&self, tunnel: &Tunnel) -> bool {
        tunnel.state.as_str() == "closing" || self.closed.as_deref() == Some(tunnel.id.as_str())
    }

    /// Whether somebody ends the tunnel with this id already; not known of one that is not seen any more.
    fn ends(&self, id: &str) -> Option<bool> {
        let one = match &self.screen {
            Screen::One { row, has_ended: false } => Some(&**row),
            _ => None,
        };
        let found = one.into_iter().chain(&self.rows).find(|row| row.tunnel.id.as_str() == id);
        found.map(|row| self.is_ending(&row.tunnel))
    }

    /// A key while something is being typed.
    fn type_key(&mut self, key: Key) -> Output {
        let Some(prompt) = self.prompt.take() else { return Output::Nothing };
        match prompt.key(key) {
            prompt::After::Goes(prompt) => {
                if key == Key::Enter {
                    self.complain_no_more();
                }
                self.prompt = Some(prompt);
            }
            prompt::After::Wrong(prompt, why) => {
                self.prompt = Some(prompt);
                self.complain(&why);
            }
            prompt::After::Nothing => self.complain_no_more(),
            prompt::After::Leaves(target) => {
                let what = match self.ends(&target.id) {
                    Some(false) => "stays open",
                    Some(true) => "is being closed already",
                    // It has ended, or others are listed before it.
                    None => "was left as it is",
                };
                self.say(&format!("{} {what}", target.name));
            }
            prompt::After::Filters(filters) => {
                self.complain_no_more();
                self.question.filters = filters;
                return self.top();
            }
            prompt::After::Close(close) => {
                self.complain_no_more();
                return Output::Close(close);
            }
        }
        Output::Nothing
    }
}

/// Whether it can be an id, and stand in a target: what is no elbows may send anything.
fn is_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 64
        && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn moved(from: usize, key: Key, last: usize) -> usize {
    let to = match key {
        Key::Up | Key::Char('k') => from.saturating_sub(1),
        Key::Down | Key::Char('j') => from.saturating_add(1),
        Key::PageUp => from.saturating_sub(PAGE),
        Key::PageDown => from.saturating_add(PAGE),
        Key::Home | Key::Char('g') => 0,
        Key::End | Key::Char('G') => last,
        _ => from,
    };
    to.min(last)
}

impl Tunnel {
    /// Whether it is the same tunnel; in another process it has another id.
    fn is(&self, other: &Self, is_same_process: bool) -> bool {
        if is_same_process {
            return self.id == other.id;
        }
        self.request_id == other.request_id && self.client == other.client
    }
}

#[cfg(test)]
mod tests;
