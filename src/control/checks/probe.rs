//! One check of an endpoint: a connection, a GET, or a handshake of a WebSocket, over a socket of its own.
//!
//! What the endpoint says is read by the strict reader that reads any other response; whoever calls this bounds the time,
//! and what is read is bounded here. When the answer is known the connection is ended politely, for a moment at most: an
//! application should not log each check as a client that broke off.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::UpstreamCheck;
use crate::http::head::{HeadLimits, Reader, Response};
use crate::http::upgrade;
use crate::socket;

/// Who asks.
const USER_AGENT: &str = "elbows-check";

/// A key and what is to come back for it: those of RFC 6455, sections 1.2 and 1.3. That a check asks with the same key each
/// time tells an answer that was made for it from one that was not, and takes no SHA-1.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A Close with code 1000 (RFC 6455, section 5.5.1), masked with zeros as a client's frames have to be.
const CLOSE: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];

/// The largest head of an answer, interim ones with it.
const LIMITS: HeadLimits = HeadLimits { head: 16 * 1024, ..HeadLimits::DEFAULT };

/// So much is read behind it, and for so long at most.
const MOST_BEHIND: usize = 64 * 1024;
const LINGER: Duration = Duration::from_millis(500);

/// A check that can be made of any endpoint.
pub(super) struct Probe {
    kind: Kind,
    target: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Http,
    WebSocket,
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// There was no connection.
    #[error("{0}")]
    Refused(io::Error),
    /// This machine has no descriptor or port left.
    #[error("{0}")]
    NoRoom(io::Error),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The answer is another one.
    #[error("{0}")]
    Wrong(String),
}

impl Probe {
    pub(super) fn new(check: &UpstreamCheck) -> Self {
        let (kind, target) = match check {
            UpstreamCheck::Tcp => (Kind::Tcp, ""),
            UpstreamCheck::Http(target) => (Kind::Http, target.as_str()),
            UpstreamCheck::WebSocket(target) => (Kind::WebSocket, target.as_str()),
        };
        Self { kind, target: target.to_owned() }
    }

    /// Checks the endpoint at `address`, which is asked for as `host`, and has to have answered within `limit`.
    ///
    /// # Errors
    /// The check failed.
    pub(super) async fn run(
        &self,
        address: SocketAddr,
        host: &str,
        limit: Duration,
    ) -> Result<(), Fault> {
        let outcome = timeout(limit, self.ask(address, host)).await;
        let socket = outcome.unwrap_or(Err(Fault::Timeout(limit)))?;
        // It has passed, whatever comes now. That is part of the check, so that connections which are being ended are
        // no more than those.
        end(socket, self.kind).await;
        Ok(())
    }

    async fn ask(&self, address: SocketAddr, host: &str) -> Result<TcpStream, Fault> {
        let mut socket = TcpStream::connect(address).await.map_err(|error| {
            if socket::is_no_room(&error) { Fault::NoRoom(error) } else { Fault::Refused(error) }
        })?;
        if self.kind == Kind::Tcp {
            return Ok(socket);
        }
        let broke = |error: io::Error| Fault::Wrong(error.to_string());
        socket.write_all(self.request(host).as_bytes()).await.map_err(broke)?;
        self.answer(&mut socket).await?;
        Ok(socket)
    }

    fn request(&self, host: &str) -> String {
        let Self { kind, target } = self;
        let rest = match kind {
            Kind::WebSocket => format!(
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: {KEY}\r\n"
            ),
            _ => String::from("Connection: close\r\n"),
        };
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\n{rest}\r\n")
    }

    /// Reads up to the answer that counts, and judges it.
    async fn answer(&self, socket: &mut TcpStream) -> Result<(), Fault> {
        let (mut reader, mut unread, mut all) = (Reader::default(), Vec::new(), 0);
        let mut room = [0; 4 * 1024];
        loop {
            let interim = match reader.response(&unread, &LIMITS) {
                // Another one comes behind it (RFC 9110, section 15.2).
                Ok(Some((head, used))) if head.status < 200 && head.status != 101 => used,
                Ok(Some((head, _))) => return self.judge(&head),
                Ok(None) => 0,
                Err(fault) => {
                    return Err(Fault::Wrong(format!("its answer breaks a rule: {fault}")));
                }
            };
            if interim > 0 {
                unread.drain(..interim);
                continue;
            }
            let count =
                socket.read(&mut room).await.map_err(|error| Fault::Wrong(error.to_string()))?;
            all += count;
            if count == 0 {
                return Err(Fault::Wrong(String::from(
                    "it closed the connection without an answer",
                )));
            }
            if all > LIMITS.head {
                return Err(Fault::Wrong(String::from("its answer is too long")));
            }
            unread.extend_from_slice(room.get(..count).unwrap_or_default());
        }
    }

    fn judge(&self, head: &Response<'_>) -> Result<(), Fault> {
        let Response { status, fields, .. } = head;
        match (self.kind, status) {
            (Kind::Http, 200..400) => Ok(()),
            (Kind::WebSocket, 101) => {
                let mut accepts = fields.iter().filter(|field| field.is(b"sec-websocket-accept"));
                let is_accepted = accepts.next().is_some_and(|field| field.value == ACCEPT);
                if upgrade::chosen(head, b"websocket").is_some() && is_accepted {
                    Ok(())
                } else {
                    Err(Fault::Wrong(String::from("its 101 is not one to this handshake")))
                }
            }
            _ => Err(Fault::Wrong(format!("it answered {status}"))),
        }
    }
}

/// Ends a connection whose answer is known: with a Close where it is a WebSocket, and when the other side has ended too, or
/// soon.
async fn end(mut socket: TcpStream, kind: Kind) {
    if kind == Kind::Tcp {
        return;
    }
    let polite = async {
        if kind == Kind::WebSocket {
            socket.write_all(CLOSE).await?;
        }
        let (mut room, mut all) = ([0; 4 * 1024], 0);
        while all < MOST_BEHIND {
            match socket.read(&mut room).await? {
                0 => break,
                count => all += count,
            }
        }
        io::Result::Ok(())
    };
    // What went wrong by now is no matter.
    drop(timeout(LINGER, polite).await);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

    use tokio::net::TcpListener;

    use super::*;

    /// What comes of a check of an endpoint that answers with these bytes; also, what it was sent.
    async fn checked(
        check: &UpstreamCheck,
        answer: &'static [u8],
    ) -> (Result<(), String>, Vec<u8>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut sent = Vec::new();
            let mut room = [0; 1024];
            while !sent.ends_with(b"\r\n\r\n") {
                let count = socket.read(&mut room).await.unwrap();
                if count == 0 {
                    break;
                }
                sent.extend_from_slice(&room[..count]);
            }
            // It may have been judged before all of it was taken.
            drop(socket.write_all(answer).await);
            drop(socket.shutdown().await);
            while let Ok(count @ 1..) = socket.read(&mut room).await {
                sent.extend_from_slice(&room[..count]);
            }
            sent
        });
        let outcome = Probe::new(check).run(address, "app:80", Duration::from_secs(20)).await;
        (outcome.map_err(|fault| fault.to_string()), serve.await.unwrap())
    }

    /// A head that does not end.
    static LONG: [u8; 40_000] = {
        let mut long = [b'a'; 40_000];
        let head = *b"HTTP/1.1 200 OK\r\nX: ";
        let mut at = 0;
        while at < head.len() {
            long[at] = head[at];
            at += 1;
        }
        long
    };

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn get_passes_with_2xx_and_3xx_alone() {
        runtime().block_on(async {
            let all: [(&'static [u8], Result<(), &str>); 11] = [
                (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok(())),
                (b"HTTP/1.1 204 No\r\n\r\n", Ok(())),
                (b"HTTP/1.0 302 Found\r\nLocation: /\r\n\r\n", Ok(())),
                (b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok(())),
                (b"HTTP/1.1 404 Not\r\n\r\n", Err("it answered 404")),
                (b"HTTP/1.1 503 No\r\n\r\n", Err("it answered 503")),
                (b"HTTP/1.1 101 Yes\r\n\r\n", Err("it answered 101")),
                (b"", Err("it closed the connection without an answer")),
                (b"HTTP/1.1 200 OK\r\nContent-", Err("it closed the connection without an answer")),
                (b"SSH-2.0-OpenSSH\r\n\r\n", Err("breaks a rule")),
                (&LONG[20..], Err("breaks a rule")),
            ];
            for (answer, expected) in all {
                let check = UpstreamCheck::Http(String::from("/health?x=1"));
                let (outcome, sent) = checked(&check, answer).await;
                match (&outcome, expected) {
                    (Ok(()), Ok(())) => {}
                    (Err(fault), Err(text)) if fault.contains(text) => {}
                    other => panic!("{other:?}: {}", String::from_utf8_lossy(answer)),
                }
                assert_eq!(
                    String::from_utf8_lossy(&sent),
                    "GET /health?x=1 HTTP/1.1\r\nHost: app:80\r\nUser-Agent: elbows-check\r\nConnection: close\r\n\r\n"
                );
            }
        });
    }

    #[test]
    fn answer_without_an_end_is_not_kept() {
        runtime().block_on(async {
            let (outcome, _) = checked(&UpstreamCheck::Http(String::from("/")), &LONG).await;
            let fault = outcome.unwrap_err();
            assert!(fault.contains("breaks a rule"), "{fault}");
        });
    }

    #[test]
    fn handshake_passes_with_a_101_that_was_made_for_it_and_is_closed() {
        let good = "HTTP/1.1 101 Yes\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        runtime().block_on(async {
            let check = UpstreamCheck::WebSocket(String::from("/ws"));
            let (outcome, sent) = checked(&check, good.as_bytes()).await;
            assert_eq!(outcome, Ok(()));
            let (head, close) = sent.split_at(sent.len() - CLOSE.len());
            let head = String::from_utf8_lossy(head);
            assert!(head.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{head}");
            assert_eq!(close, CLOSE);
            let others: [(&'static [u8], &str); 3] = [
                (b"HTTP/1.1 200 OK\r\n\r\n", "it answered 200"),
                (b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\n\r\n", "not one to this handshake"),
                (b"HTTP/1.1 101 Yes\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", "not one to"),
            ];
            for (answer, expected) in others {
                let fault = checked(&check, answer).await.0.unwrap_err();
                assert!(fault.contains(expected), "{fault}");
            }
        });
    }
}
