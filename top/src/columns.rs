//! The columns of the table of tunnels. Pure.

use crate::model::Row;
use crate::text::{Text, pad, width};
use crate::units;

/// A column.
struct Column {
    head: &'static str,
    columns: usize,
    is_number: bool,
    /// The order by which its tunnels can come.
    order: Option<&'static str>,
    cell: fn(&Row) -> String,
}

/// The least that a path takes.
const LEAST_PATH: usize = 12;

/// The widest that clients may be: as an IPv4 address and a port, or as an IPv6 address and a port.
const CLIENT: [usize; 2] = [21, 47];

/// How wide a terminal has to be for long addresses.
const WIDE: usize = 120;

const fn number(
    head: &'static str,
    columns: usize,
    order: Option<&'static str>,
    cell: fn(&Row) -> String,
) -> Column {
    Column { head, columns, is_number: true, order, cell }
}

const fn text(
    head: &'static str,
    columns: usize,
    order: Option<&'static str>,
    cell: fn(&Row) -> String,
) -> Column {
    Column { head, columns, is_number: false, order, cell }
}

/// All of them; client and path stay where the others move. `c>u` is from the client to the upstream, `u>c` the other way; `wait>c` waits for the client.
const ALL: [Column; 17] = [
    text("client", 21, Some("client"), |row| row.tunnel.client.to_string()),
    text("path", LEAST_PATH, Some("path"), |row| row.tunnel.path.to_string()),
    text("state", 7, None, |row| state(row.tunnel.state.as_str()).to_owned()),
    number("age", 6, Some("age"), |row| units::time(row.tunnel.age)),
    number("idle", 6, Some("idle"), |row| units::time(row.tunnel.idle)),
    number("m/s c>u", 7, None, |row| units::rate(row.messages[0])),
    number("m/s u>c", 7, None, |row| units::rate(row.messages[1])),
    number("B/s c>u", 7, None, |row| units::rate(row.bytes[0])),
    number("B/s u>c", 7, None, |row| units::rate(row.bytes[1])),
    number("msg c>u", 7, Some("messages"), |row| units::short(row.tunnel.messages_from_client)),
    number("msg u>c", 7, Some("messages"), |row| units::short(row.tunnel.messages_from_upstream)),
    number("B c>u", 5, Some("bytes"), |row| units::short(row.tunnel.from_client)),
    number("B u>c", 5, Some("bytes"), |row| units::short(row.tunnel.from_upstream)),
    number("wait>c", 6, Some("waiting"), |row| units::short(row.tunnel.waiting_for_client)),
    number("wait>u", 6, Some("waiting"), |row| units::short(row.tunnel.waiting_for_upstream)),
    number("ping", 6, Some("ping_rtt"), |row| units::round_trip(row.tunnel.ping_rtt)),
    text("subprotocol", 14, None, |row| {
        row.tunnel.subprotocol.as_ref().map_or("-", Text::as_str).to_owned()
    }),
];

fn state(state: &str) -> &str {
    if state == "half_closed" { "half" } else { state }
}

/// The columns that there is room for, and how many there are to be moved over.
pub(crate) struct Fitting {
    columns: Vec<(&'static Column, usize)>,
    /// So many are left out at the left.
    pub(crate) shifted: usize,
    /// Some are at the right of what is seen.
    pub(crate) goes_on: bool,
}

impl Fitting {
    /// Of a table so wide, without the first so many that may move.
    pub(crate) fn of(rows: &[Row], wide: usize, shifted: usize) -> Self {
        let [client, path, moving @ ..] = &ALL;
        let most = if wide < WIDE { CLIENT[0] } else { CLIENT[1] };
        let clients = rows.iter().map(|row| width(row.tunnel.client.as_str()));
        let client_columns = clients.max().unwrap_or_default().clamp(client.head.len(), most);
        let least = client_columns + 1 + LEAST_PATH;
        let mut left = wide.saturating_sub(least);
        // No further than the last of them need.
        let needed =
            (0..moving.len()).find(|from| taken(moving.get(*from..).unwrap_or(&[])) <= left);
        let shifted = shifted.min(needed.unwrap_or(moving.len().saturating_sub(1)));
        let shown = moving.iter().skip(shifted);
        let mut fitting = Vec::new();
        let mut goes_on = false;
        for column in shown {
            let Some(rest) = left.checked_sub(column.columns + 1) else {
                goes_on = true;
                break;
            };
            left = rest;
            fitting.push((column, column.columns));
        }
        let mut columns = vec![(client, client_columns), (path, LEAST_PATH + left)];
        columns.append(&mut fitting);
        Self { columns, shifted, goes_on }
    }

    /// The heads, each with whether the tunnels come in its order.
    pub(crate) fn heads(&self, order: &str) -> Vec<(String, bool)> {
        let head = |(column, columns): &(&Column, usize)| {
            (pad(column.head, *columns, column.is_number), column.order == Some(order))
        };
        self.columns.iter().map(head).collect()
    }

    /// A row as a line.
    pub(crate) fn line(&self, row: &Row) -> String {
        let cell = |(column, columns): &(&'static Column, usize)| {
            pad(&(column.cell)(row), *columns, column.is_number)
        };
        self.columns.iter().map(cell).collect::<Vec<_>>().join(" ")
    }
}

/// How many columns of the terminal they take, each behind a space.
fn taken(columns: &[Column]) -> usize {
    columns.iter().map(|column| column.columns + 1).sum()
}
