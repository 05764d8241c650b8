//! What is typed, and asked before something is done. Pure.

use super::Key;
use crate::answers::Tunnel;
use crate::close::{Close, LONGEST_REASON, code};
use crate::filters::Filters;
use crate::text::{cut, is_harmless};

/// The most that can be typed, in characters.
const LONGEST: usize = 200;

/// The most that is said of a tunnel, in columns.
const LONGEST_NAME: usize = 34;

/// A tunnel that is to be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Anything else ends without a Close.
    pub(crate) is_websocket: bool,
}

impl Target {
    pub(crate) fn of(tunnel: &Tunnel) -> Self {
        Self {
            id: tunnel.id.to_string(),
            name: cut(&format!("{} {}", tunnel.client, tunnel.path), LONGEST_NAME),
            is_websocket: tunnel.protocol.as_str() != "other",
        }
    }
}

/// What is being asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Prompt {
    /// Which tunnels are to be seen.
    Filter(String),
    /// The code of a Close.
    Code { target: Target, line: String },
    /// Its reason.
    Reason { target: Target, code: Option<u16>, line: String },
    /// Whether it is to be sent.
    Sure { target: Target, code: Option<u16>, reason: String },
}

/// What comes of a key.
pub(super) enum After {
    /// It goes on.
    Goes(Prompt),
    /// It goes on, for this is wrong with it.
    Wrong(Prompt, String),
    /// Nothing is asked any more.
    Nothing,
    /// The tunnel is not to be closed.
    Leaves(Target),
    Filters(Filters),
    Close(Close),
}

impl Prompt {
    /// The first thing that is asked of who wants to close it.
    pub(super) const fn close(target: Target) -> Self {
        if target.is_websocket {
            Self::Code { target, line: String::new() }
        } else {
            Self::Sure { target, code: None, reason: String::new() }
        }
    }

    pub(super) fn key(self, key: Key) -> After {
        match (self, key) {
            (Self::Filter(_), Key::Escape) => After::Nothing,
            (Self::Filter(line), Key::Enter) => match Filters::read(&line) {
                Ok(filters) => After::Filters(filters),
                Err(why) => After::Wrong(Self::Filter(line), why),
            },
            (Self::Code { target, line }, Key::Enter) => match code(&line) {
                Ok(code) => After::Goes(Self::Reason { target, code, line: String::new() }),
                Err(why) => After::Wrong(Self::Code { target, line }, why),
            },
            (Self::Reason { target, code, line }, Key::Enter) if line.len() > LONGEST_REASON => {
                let why =
                    format!("a reason has {LONGEST_REASON} bytes at most (RFC 6455, section 5.5)");
                After::Wrong(Self::Reason { target, code, line }, why)
            }
            (Self::Reason { target, code, line }, Key::Enter) => {
                After::Goes(Self::Sure { target, code, reason: line })
            }
            (Self::Sure { target, code, reason }, Key::Char('y')) => {
                let Target { id, name, is_websocket } = target;
                After::Close(Close { id, name, is_websocket, code, reason })
            }
            (
                Self::Code { target, .. } | Self::Reason { target, .. } | Self::Sure { target, .. },
                Key::Escape,
            )
            | (Self::Sure { target, .. }, Key::Char(_) | Key::Enter) => After::Leaves(target),
            (Self::Filter(line), key) => After::Goes(Self::Filter(typed(line, key))),
            (Self::Code { target, line }, key) => {
                After::Goes(Self::Code { target, line: typed(line, key) })
            }
            (Self::Reason { target, code, line }, key) => {
                After::Goes(Self::Reason { target, code, line: typed(line, key) })
            }
            (sure @ Self::Sure { .. }, _) => After::Goes(sure),
        }
    }

    /// It as a line.
    pub(crate) fn text(&self) -> String {
        let usual = |code: &Option<u16>| {
            code.map_or_else(|| String::from("DRAIN_CLOSE_CODE"), |code| code.to_string())
        };
        match self {
            Self::Filter(line) => format!("filter: {line}"),
            Self::Code { target, line } => {
                format!("close {}: code (none: DRAIN_CLOSE_CODE): {line}", target.name)
            }
            Self::Reason { target, code, line } => {
                format!("close {} with {}: reason: {line}", target.name, usual(code))
            }
            Self::Sure { target, .. } if !target.is_websocket => {
                format!("end {}, which is no WebSocket, without a Close? y or n", target.name)
            }
            Self::Sure { target, code, reason } => {
                format!("close {} with {} {reason:?}? y or n", target.name, usual(code))
            }
        }
    }

    /// What may be typed.
    pub(crate) const fn help(&self) -> &'static str {
        match self {
            Self::Filter(_) => {
                "TEXT in the path, search= client= upstream= older= idle= state=; Enter, Esc"
            }
            Self::Code { .. } => {
                "1000 to 1003, 1007 to 1014, 3000 to 4999; Enter goes on, Esc leaves"
            }
            Self::Reason { .. } => "its client reads it; may be empty; Enter goes on, Esc leaves",
            Self::Sure { .. } => "y closes it, n leaves it open",
        }
    }
}

fn typed(mut line: String, key: Key) -> String {
    match key {
        Key::Char(one) if is_harmless(one) && line.chars().count() < LONGEST => line.push(one),
        Key::Backspace => drop(line.pop()),
        Key::Clear => line.clear(),
        _ => {}
    }
    line
}
