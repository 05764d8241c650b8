//! Connections that there is no room for: answered without hyper, for what is refused must cost less than
//! what is served.
//!
//! Only the request line is looked at, and of a whole head whether it is a handshake. A health check is
//! answered whatever the limits say: a balancer that takes an instance out because it is full sends its
//! clients to the next one.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::access_log::Entry;
use crate::client::Client;
use crate::config::Config;
use crate::http::head::{self, Limits};
use crate::http::reject::{self, Rejection};
use crate::http::{Front, health, upgrade};
use crate::inbox::Inbox;
use crate::limits::{Over, Seat};

/// How long a refused connection has to say what it wants. Most have said it with their first bytes.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest request line that is waited for.
const LONGEST_LINE: usize = 8 * 1024;

/// Room for a read of what may be a whole head.
const READ: usize = 1_024;

/// Gives `client` its seat, if there is one for it, and if its first request is not a handshake that
/// would be refused.
pub(super) fn admit(
    seat: Result<Seat, Over>,
    client: &mut Client,
    is_handshake: impl FnOnce() -> bool,
    front: &Front,
) -> Result<(), Over> {
    client.seat = seat?.of_client(client.address, client.balancer)?;
    match front.limits.would_refuse(client.address, client.balancer) {
        Some(over) if is_handshake() => Err(over),
        _ => Ok(()),
    }
}

/// Answers the first request and closes.
pub(super) async fn answer(mut inbox: Inbox, over: Over, client: Client, front: &Front) {
    // Whoever says nothing in time is told so all the same.
    let read = timeout(PATIENCE, read_line(&mut inbox)).await;
    if inbox.unread.is_empty() && read.is_ok() {
        // Nothing but a PROXY header, then closed: a TCP health check.
        return front.counters.probes.add(1);
    }
    let line = inbox.unread.as_ref().split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
    if health::is_check_line(&line, &front.config.health_path) {
        let words = health::words(front.drain.is_healthy(), line.starts_with("HEAD "));
        return inbox.answer_and_close(words.as_bytes()).await;
    }
    let words = words(line.into(), over, client, front);
    inbox.answer_and_close(words.as_bytes()).await;
}

/// The answer to the request with this line; it is counted, and has its log line.
pub(super) fn words(line: Cow<'_, str>, over: Over, client: Client, front: &Front) -> String {
    front.counters.requests.add(1);
    let is_head = line.starts_with("HEAD ");
    let entry = Entry::new(front.access_log.clone(), Arc::new(client), line, String::new());
    reject::words(&Rejection::Over(over), entry, is_head, &front.counters)
}

/// Reads on until there is a line, or what must be one, or the end of the stream.
async fn read_line(inbox: &mut Inbox) {
    while !inbox.unread.contains(&b'\n') && inbox.unread.len() < LONGEST_LINE {
        inbox.unread.reserve(READ);
        match inbox.socket.inner_mut().read_buf(&mut inbox.unread).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Whether the bytes begin with a whole head that asks for an upgrade. One that comes later, or breaks a
/// rule, is refused a little later.
pub(super) fn is_handshake(bytes: &[u8], config: &Config) -> bool {
    let head = head::request(bytes, &Limits::DEFAULT);
    matches!(head, Ok(Some((head, _))) if upgrade::is_asked_for(&head, config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_head_with_both_fields_is_a_handshake() {
        let listen_on = ([127, 0, 0, 1], 1).into();
        let config = Config::for_destination(listen_on, "localhost", 2);
        let is_handshake = |bytes: &[u8]| is_handshake(bytes, &config);
        let head = "GET /ws HTTP/1.1\r\nHost: a\r\nconnection: keep-alive, Upgrade\r\nUPGRADE: websocket\r\n";
        assert!(is_handshake(format!("{head}\r\n").as_bytes()));
        assert!(is_handshake(format!("{head}\r\nframes").as_bytes()));
        assert!(!is_handshake(head.as_bytes()), "more may come");
        for other in [
            "",
            "\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        ] {
            assert!(!is_handshake(other.as_bytes()), "{other:?}");
        }
    }
}
