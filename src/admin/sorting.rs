//! The order in which tunnels are listed, and the place in it where a list goes on. Pure.
//!
//! By their places, unless another order is asked for: then a list goes on behind the last one of it, by the value that
//! the order is by and the id. A tunnel that stays open is told once and is not left out, as long as its value stays; a
//! value that changes, as an age does not and a count of messages does, takes its tunnel along.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::view::{self, Id, Moment};
use crate::tunnel::{Condition, Flow, State};
use crate::words::words;

words! {
    /// What tunnels can be sorted by.
    pub(crate) enum Field {
        /// Their places.
        Id = "id",
        /// The client's address.
        Client = "client",
        /// The upstream's address.
        Upstream = "upstream",
        /// The target of the request.
        Path = "path",
        /// What the 101 chose.
        Subprotocol = "subprotocol",
        /// How far it has come: open, half closed, closing.
        State = "state",
        /// Time since the request.
        Age = "age",
        /// Time without data.
        Idle = "idle",
        /// Messages, of both sides.
        Messages = "messages",
        /// Messages, of the client.
        MessagesFromClient = "messages_from_client",
        /// Messages, of the upstream.
        MessagesFromUpstream = "messages_from_upstream",
        /// Bytes, of both sides.
        Bytes = "bytes",
        /// Bytes, of the client.
        FromClient = "from_client",
        /// Bytes, of the upstream.
        FromUpstream = "from_upstream",
        /// Bytes that wait, for both sides.
        Waiting = "waiting",
        /// Bytes that the client has not taken yet.
        WaitingForClient = "waiting_for_client",
        /// Bytes that the upstream has not taken yet.
        WaitingForUpstream = "waiting_for_upstream",
        /// The last round trip of a Ping.
        PingRtt = "ping_rtt",
    }
}

/// An order of tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sorting {
    pub(crate) field: Field,
    pub(crate) is_descending: bool,
}

/// What tunnels are compared by, beside their ids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Value {
    Number(u64),
    Address(IpAddr, u16),
    Text(String),
}

/// The place of a tunnel in an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) value: Value,
    pub(crate) id: Id,
}

impl Sorting {
    /// The order by places.
    pub(crate) const BY_PLACE: Self = Self { field: Field::Id, is_descending: false };

    /// Reads a field, behind `-` where the greatest comes first.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (name, is_descending) = match text.strip_prefix('-') {
            Some(name) => (name, true),
            None => (text, false),
        };
        let field = Field::ALL.into_iter().find(|field| field.as_str() == name)?;
        Some(Self { field, is_descending })
    }

    /// Tunnels come in the order of their places.
    pub(crate) fn is_by_place(self) -> bool {
        self == Self::BY_PLACE
    }

    /// What a tunnel is compared by.
    pub(crate) fn value(self, state: &State, is_closing: bool, at: Moment) -> Value {
        let identity = &state.identity;
        let micros =
            |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let [client, upstream] = state.flows.both();
        let [messages_from_client, messages_from_upstream] =
            [client, upstream].map(|flow| flow.scanner.passed().messages);
        let [from_client, from_upstream] = [client, upstream].map(Flow::delivered);
        // What one side has sent waits for the other one.
        let [for_upstream, for_client] = [client, upstream].map(|flow| flow.waiting.len() as u64);
        match self.field {
            Field::Id => Value::Number(0),
            Field::Client => Value::Address(identity.client().ip(), identity.client().port()),
            Field::Upstream => Value::Address(identity.upstream().ip(), identity.upstream().port()),
            Field::Path => Value::Text(view::path(state).to_owned()),
            Field::Subprotocol => Value::Text(identity.handshake().subprotocol.to_owned()),
            Field::State => {
                let condition = view::condition(state, is_closing);
                Value::Number(
                    Condition::ALL.into_iter().take_while(|one| *one != condition).count() as u64,
                )
            }
            // From a moment that stays: the age itself changes as long as one looks.
            Field::Age => Value::Number(u64::MAX - identity.started().micros()),
            Field::Idle => Value::Number(micros(view::idle(state, at))),
            Field::Messages => {
                Value::Number(messages_from_client.wrapping_add(messages_from_upstream))
            }
            Field::MessagesFromClient => Value::Number(messages_from_client),
            Field::MessagesFromUpstream => Value::Number(messages_from_upstream),
            Field::Bytes => Value::Number(from_client.wrapping_add(from_upstream)),
            Field::FromClient => Value::Number(from_client),
            Field::FromUpstream => Value::Number(from_upstream),
            Field::Waiting => Value::Number(for_client + for_upstream),
            Field::WaitingForClient => Value::Number(for_client),
            Field::WaitingForUpstream => Value::Number(for_upstream),
            Field::PingRtt => {
                Value::Number(state.ping_round_trips().map_or(0, |(last, _)| micros(last)))
            }
        }
    }

    /// Which of two tunnels comes first.
    pub(crate) fn compare(self, one: &Place, other: &Place) -> Ordering {
        let order = one.value.cmp(&other.value).then(one.id.cmp(&other.id));
        if self.is_descending { order.reverse() } else { order }
    }
}

impl Place {
    /// It as text that can stand in a query. In another `process` the ids are others, and so are the places.
    pub(crate) fn cursor(&self, process: u64) -> String {
        let text = serde_json::to_string(&(&self.value, self.id)).unwrap_or_default();
        text.bytes().fold(format!("{process:016x}"), |mut cursor, byte| {
            // Writing to a string cannot fail.
            let _ = write!(cursor, "{byte:02x}");
            cursor
        })
    }

    /// Reads what [`Place::cursor`] writes, and nothing else: the process, and the place.
    pub(crate) fn read(cursor: &str) -> Option<(u64, Self)> {
        let (process, place) = cursor.split_at_checked(16)?;
        let process = u64::from_str_radix(process, 16).ok()?;
        let digits = place.as_bytes().chunks(2).map(|pair| {
            let pair = str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        });
        let text: Option<Vec<u8>> = digits.collect();
        let (value, id): (Value, String) = serde_json::from_slice(&text?).ok()?;
        let place = Self { value, id: Id::read(&id)? };
        (place.cursor(process) == cursor).then_some((process, place))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<u64>().prop_map(Value::Number),
            any::<(IpAddr, u16)>().prop_map(|(ip, port)| Value::Address(ip, port)),
            any::<String>().prop_map(Value::Text),
        ]
    }

    proptest! {
        #[test]
        fn cursor_is_read_back(
            value in value(), worker in 0..9_usize, key in any::<u32>(), name: u64, process: u64,
        ) {
            let place = Place { value, id: Id { worker, key: key as usize, name } };
            let cursor = place.cursor(process);
            prop_assert!(cursor.bytes().all(|byte| byte.is_ascii_hexdigit()));
            prop_assert_eq!(Place::read(&cursor), Some((process, place)));
        }

        #[test]
        fn any_text_is_a_cursor_or_is_not(text in ".{0,40}") {
            prop_assert!(Place::read(&text).is_none_or(|(process, place)| place.cursor(process) == text));
        }
    }

    #[test]
    fn cursor_has_one_spelling() {
        let id = Id { worker: 1, key: 2, name: 3 };
        let cursor = Place { value: Value::Number(77), id }.cursor(0xab);
        assert!(Place::read(&cursor).is_some());
        // In capitals, with white space in the JSON, and with a sign that Rust reads in a number.
        for other in [cursor.to_uppercase(), format!("20{cursor}"), format!("+a{cursor}")] {
            assert_eq!(Place::read(&other), None, "{other}");
        }
    }

    #[test]
    fn order_is_a_field_perhaps_behind_a_minus() {
        let field = Field::Age;
        assert_eq!(Sorting::read("age"), Some(Sorting { field, is_descending: false }));
        assert_eq!(Sorting::read("-age"), Some(Sorting { field, is_descending: true }));
        for text in ["", "-", "--age", "Age", "age,id"] {
            assert_eq!(Sorting::read(text), None, "{text}");
        }
    }
}
