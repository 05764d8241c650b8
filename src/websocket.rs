//! WebSocket (RFC 6455) as a proxy sees it: frames that go by, and the few that it makes itself.
//!
//! Pure: bytes and time come in, values go out. `frame` is one head, `scanner` follows one direction of a
//! stream, `keepalive` knows when a side is to be pinged and which Pongs answer that.

pub(crate) mod frame;
pub(crate) mod keepalive;
pub(crate) mod scanner;

use crate::peer::Peer;
use scanner::{Rules, Scanner, Tally, Then, Until};

/// Follows the frames that a client sends as a tunnel does, and says how many messages they were: what
/// that costs without sockets, for the bench. No read may end inside a head.
#[doc(hidden)]
pub fn count_messages<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let rules = Rules::new(None, None, false);
    let mut scanner = Scanner::new(Peer::Client);
    let mut tally = Tally::default();
    for mut read in reads {
        if scanner.is_one_message(read, &rules) {
            continue;
        }
        loop {
            let none = None::<fn([u8; 8]) -> bool>;
            let scan = scanner.scan(read, &rules, Until::End, &mut tally, none);
            match read.get(scan.pass..) {
                Some(rest) if scan.then != Then::More => read = rest,
                _ => break,
            }
        }
    }
    scanner.counts().messages
}
