//! `elbows top`: what an elbows does, live in a terminal, by its admin port.
//!
//! ```text
//! admin port ⇄ client ──look──▶ model ──▶ view ──▶ terminal
//!                ▲                │ ▲                  │
//!                └────question────┘ └──────key─────────┘
//! ```
//!
//! The model takes keys and looks, and says what is to be asked; the view draws it. Neither knows a socket, a terminal or a
//! clock. `--once` and `--json` are one look, written as text.
//!
//! This crate knows nothing of elbows but what docs/admin.md says, and the server's library nothing of this crate.

mod answers;
mod client;
mod close;
mod columns;
mod filters;
mod json;
mod model;
mod place;
mod plain;
#[cfg(test)]
mod sample;
mod terminal;
mod text;
mod units;
mod view;

use std::env;
use std::io::{self, IsTerminal as _, Write as _};

use crate::answers::Trouble;
use crate::client::Client;
use crate::filters::{Filters, Order, Question};
use crate::model::Model;
pub use crate::place::Place;

/// Shows what an elbows does, live, by its admin port.
// The sentence is what `elbows top --help` begins with.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Its admin port: a port of this machine, HOST:PORT, or the path of a UNIX socket
    #[arg(value_name = "ADDRESS", env = "ADMIN_LISTEN_ON")]
    place: Place,
    /// Print one table and exit
    #[arg(long)]
    once: bool,
    /// Print one JSON object and exit
    #[arg(long)]
    json: bool,
    /// Only tunnels of this client: an address, as 203.0.113.7, or a network
    #[arg(long, value_name = "ADDRESS")]
    client: Option<String>,
    /// Only tunnels to this address of the application, or network
    #[arg(long, value_name = "ADDRESS")]
    upstream: Option<String>,
    /// Only tunnels whose path contains this
    #[arg(long, value_name = "TEXT")]
    path: Option<String>,
    /// Only tunnels with this in their path, host, user agent, subprotocol, or an address
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Only tunnels that are so old, as 1h
    #[arg(long, value_name = "TIME")]
    older: Option<String>,
    /// Only tunnels without data for so long, as 50s
    #[arg(long, value_name = "TIME")]
    idle: Option<String>,
    /// Only tunnels in this state
    #[arg(long, value_name = "STATE", value_parser = ["open", "half_closed", "closing"])]
    state: Option<String>,
    /// In this order; the greatest first behind a '-', as in --sort=-age
    #[arg(long, value_name = "FIELD", default_value = "id", allow_hyphen_values = true, value_parser = Order::read)]
    sort: Order,
    /// So many tunnels at most, 1000 or less
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

/// Why it ended with nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The admin port was not reached, or what answers is no elbows.
    #[error("{0}")]
    NoAnswer(String),
    /// elbows says that a filter has a value that it cannot have.
    #[error("{0}")]
    Usage(String),
    /// There is no terminal to show it in.
    #[error("standard output is no terminal; --once prints one table, --json one JSON object")]
    NoTerminal,
    /// The terminal, or standard output.
    #[error("the terminal: {0}")]
    Terminal(#[from] io::Error),
}

impl Fault {
    /// The exit code of the process.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::NoTerminal => 2,
            Self::NoAnswer(_) | Self::Terminal(_) => 1,
        }
    }
}

impl From<Trouble> for Fault {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused(text, 400) => Self::Usage(text.to_string()),
            other => Self::NoAnswer(other.to_string()),
        }
    }
}

/// Runs `elbows top` until somebody quits, or with `--once` or `--json` until all is written.
///
/// # Errors
/// The admin port cannot be reached, does not do what was asked, or the terminal fails.
pub async fn run(options: Options) -> Result<(), Fault> {
    let Options {
        place,
        once,
        json,
        client,
        upstream,
        path,
        search,
        older,
        idle,
        state,
        sort,
        limit,
    } = options;
    let filters = Filters::new([client, upstream, path, search, older, idle, state]);
    let question = Question { filters, order: sort, limit, one: None };
    // Never an argument, which everybody on the machine can read.
    let token = env::var("ADMIN_TOKEN").ok();
    let mut client = Client::new(place.clone(), token.as_deref());
    if json {
        return Ok(say(&json::write(client.look_raw(&question).await?))?);
    }
    if once {
        return Ok(say(&plain::write(&place.text(), &client.look(&question).await?))?);
    }
    if !io::stdout().is_terminal() {
        return Err(Fault::NoTerminal);
    }
    let look = client.look(&question).await?;
    let model = Model::new(place.text(), client.has_token(), question, look);
    Ok(terminal::run(model, client).await?)
}

/// Somebody may have read enough (`elbows top --once 9145 | head`).
fn say(text: &str) -> io::Result<()> {
    let mut to = io::stdout().lock();
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use clap::{Args as _, Command};

    use super::*;

    #[test]
    fn every_flag_is_documented() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/admin.md");
        let document = std::fs::read_to_string(document).unwrap();
        let rows = document.lines().skip_while(|line| !line.starts_with("| flag |")).skip(2);
        let rows = rows.take_while(|line| line.starts_with('|'));
        let first = rows.filter_map(|row| row.trim_matches('|').split('|').next());
        let documented: BTreeSet<_> = first
            .flat_map(|cell| cell.split('`').filter_map(|word| word.strip_prefix("--")))
            .collect();
        let command = Options::augment_args(Command::new("top"));
        let taken: BTreeSet<_> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        assert_eq!(documented, taken);
    }
}
