//! The terminal and the tasks around the model: keys, answers and the time go in, what is to be done comes out.
//!
//! The terminal is as it was before on every way out: at the end, at a fault, by a signal and in a panic.

use std::env;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::client::Client;
use crate::model::{Input, Key, Model, Output};
use crate::view::{self, Theme};

/// How often an elbows is looked at.
const EACH: Duration = Duration::from_secs(1);

/// How many keys wait while something is drawn.
const KEYS: usize = 64;

/// The terminal while it is ours. A panic restores it before its message is written: ratatui's own hook does.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> io::Result<Self> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                // Half of it may have been done.
                let _ = ratatui::try_restore();
                Err(error)
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to restore.
        let _ = ratatui::try_restore();
    }
}

/// Shows the model, and what becomes of it, until somebody quits or a signal ends it.
pub(crate) async fn run(mut model: Model, client: Client) -> io::Result<()> {
    let mut signals = Signals::new()?;
    let theme = Theme { has_colours: env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) };
    let start = Instant::now();
    let (ask, mut answers) = answering(client);
    let mut screen = Screen::open()?;
    let mut events = reading();
    let mut each = interval(EACH);
    each.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        screen.0.draw(|frame| view::draw(frame, &mut model, theme))?;
        let inputs = tokio::select! {
            () = signals.any() => return Ok(()),
            event = events.recv() => match event {
                Some(Ok(Event::Key(key))) => keys(key).into_iter().map(Input::Key).collect(),
                // It has another size.
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(error),
                None => return Err(io::Error::other("what reads its keys has ended")),
            },
            answer = answers.recv() => match answer {
                Some(answer) => vec![answer],
                // In a panic, which has restored the terminal.
                None => return Err(io::Error::other("what asks elbows has ended")),
            },
            _ = each.tick() => vec![Input::Second],
        };
        for input in inputs {
            match model.update(input, start.elapsed()) {
                Output::Nothing => {}
                Output::Quit => return Ok(()),
                // One at a time is asked, and an order is given by hand: there is room.
                output => drop(ask.try_send(output)),
            }
        }
    }
}

/// Asks what it is told to, one thing after the other, so that keys do not wait for answers.
fn answering(mut client: Client) -> (mpsc::Sender<Output>, mpsc::Receiver<Input>) {
    let (ask, mut asked) = mpsc::channel(KEYS);
    let (answer, answers) = mpsc::channel(KEYS);
    tokio::spawn(async move {
        while let Some(output) = asked.recv().await {
            let input = match output {
                Output::Ask(question) => Input::Looked(client.look(&question).await.map(Box::new)),
                Output::Close(close) => {
                    let closed = client.close(&close).await;
                    Input::Closed(close, closed)
                }
                Output::Nothing | Output::Quit => continue,
            };
            if answer.send(input).await.is_err() {
                return;
            }
        }
    });
    (ask, answers)
}

/// Reads what the terminal sends, on a thread that the end of the process ends.
fn reading() -> mpsc::Receiver<io::Result<Event>> {
    let (sender, receiver) = mpsc::channel(KEYS);
    thread::spawn(move || {
        loop {
            let read = event::read();
            let is_over = read.is_err();
            if sender.blocking_send(read).is_err() || is_over {
                return;
            }
        }
    });
    receiver
}

/// The keys that were pressed. Escape and a key at once are what a terminal sends for Alt and that key, and what a line
/// that is slow makes of one after the other: they are two.
fn keys(key: KeyEvent) -> Vec<Key> {
    if key.kind == KeyEventKind::Release {
        return Vec::new();
    }
    let escape = key.modifiers.contains(KeyModifiers::ALT).then_some(Key::Escape);
    escape.into_iter().chain(read(key)).collect()
}

fn read(key: KeyEvent) -> Option<Key> {
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match key.code {
        KeyCode::Char('c') if is_control => Key::Interrupt,
        KeyCode::Char('u') if is_control => Key::Clear,
        KeyCode::Char(one) if !is_control => Key::Char(one),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return None,
    })
}

/// Signals that end it. Ctrl-C is a key as long as the terminal is ours.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        let [terminate, interrupt, hang_up] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        Ok(Self([terminate?, interrupt?, hang_up?]))
    }

    async fn any(&mut self) {
        let [terminate, interrupt, hang_up] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hang_up.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_and_a_key_at_once_are_two_keys() {
        let pressed = |code, modifiers| keys(KeyEvent::new(code, modifiers));
        let c = KeyCode::Char('c');
        assert_eq!(pressed(c, KeyModifiers::NONE), [Key::Char('c')]);
        assert_eq!(pressed(c, KeyModifiers::ALT), [Key::Escape, Key::Char('c')]);
        assert_eq!(pressed(c, KeyModifiers::CONTROL), [Key::Interrupt]);
        assert_eq!(pressed(KeyCode::Char('C'), KeyModifiers::SHIFT), [Key::Char('C')]);
        assert_eq!(pressed(KeyCode::F(1), KeyModifiers::NONE), []);
        let release = KeyEvent::new_with_kind(c, KeyModifiers::NONE, KeyEventKind::Release);
        assert_eq!(keys(release), []);
    }
}
