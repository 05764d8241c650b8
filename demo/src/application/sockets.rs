//! The application's side of a WebSocket: what happens on a connection after its 101.
//!
//! Each ends with a Close frame of ours or an answer to the client's, and then waits a moment for
//! the client to finish: a socket that is closed with bytes unread is reset, and the reset can
//! overtake the Close frame.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::broadcast::error::RecvError;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::prices::Market;
use super::{Stop, WhoAmI, json};

/// The largest message that comes back; a longer one ends with Close 1009.
const LARGEST_MESSAGE: usize = 1 << 20;

/// Small, since many connections may be open at once and most messages are short.
const BUFFER: usize = 4 << 10;

/// How long a client may take to finish after our Close frame, and how much it may still send.
/// Guesses: a client that does neither is cut off.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
const CLOSE_BYTES: u64 = 8 << 20;

type WebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// Which of the three it is.
pub(super) enum Kind {
    Echo,
    Ticker,
    WhoAmI(Box<WhoAmI>),
}

/// A WebSocket that begins once hyper has sent the 101.
pub(super) struct Session {
    on: OnUpgrade,
    kind: Kind,
}

impl Session {
    pub(super) const fn new(on: OnUpgrade, kind: Kind) -> Self {
        Self { on, kind }
    }

    /// Runs until the client closes or the application is told to stop.
    pub(super) async fn run(self, market: &Market, stop: Stop) {
        let Ok(upgraded) = self.on.await else {
            return;
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(BUFFER)
            .max_message_size(Some(LARGEST_MESSAGE))
            .max_frame_size(Some(LARGEST_MESSAGE));
        let io = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        match self.kind {
            Kind::Echo => echo(socket, stop).await,
            Kind::Ticker => ticker(socket, market, stop).await,
            Kind::WhoAmI(who) => who_am_i(socket, &who).await,
        }
    }
}

/// Sends each message back before the next is read: a client that does not read is not read from.
async fn echo(mut socket: WebSocket, mut stop: Stop) {
    loop {
        let received = tokio::select! {
            received = socket.next() => received,
            () = stop.asked() => return close(socket, CloseCode::Away, "the demo ends").await,
        };
        match received {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            // A Ping is answered by tungstenite, a Close as well.
            Some(Ok(_)) => {}
            Some(Err(error)) => return fail(socket, &error).await,
            None => return,
        }
    }
}

/// Sends prices as they come; what the client sends is read and means nothing.
async fn ticker(mut socket: WebSocket, market: &Market, mut stop: Stop) {
    let mut prices = market.subscribe();
    loop {
        tokio::select! {
            price = prices.recv() => match price {
                Ok(price) => {
                    if socket.send(Message::Text(price)).await.is_err() {
                        return;
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            received = socket.next() => match received {
                Some(Ok(_)) => {}
                Some(Err(error)) => return fail(socket, &error).await,
                None => return,
            },
            () = stop.asked() => return close(socket, CloseCode::Away, "the demo ends").await,
        }
    }
}

async fn who_am_i(mut socket: WebSocket, who: &WhoAmI) {
    if socket.send(Message::text(json(who))).await.is_ok() {
        close(socket, CloseCode::Normal, "").await;
    }
}

/// Says what the client did wrong, if it can still be told.
async fn fail(mut socket: WebSocket, error: &Error) {
    let (code, reason) = match error {
        Error::Capacity(_) => (CloseCode::Size, "1 MiB at most"),
        Error::Protocol(_) => (CloseCode::Protocol, ""),
        Error::Utf8(_) => (CloseCode::Invalid, ""),
        _ => return,
    };
    let goodbye = async {
        socket.close(Some(frame(code, reason))).await?;
        // What follows the fault need not be frames, so only its end is waited for.
        let socket = socket.get_mut();
        socket.shutdown().await?;
        let mut rest = socket.take(CLOSE_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        Ok::<_, Error>(())
    };
    let _ = tokio::time::timeout(CLOSE_LIMIT, goodbye).await;
}

/// Sends a Close frame and waits for the client's.
async fn close(mut socket: WebSocket, code: CloseCode, reason: &'static str) {
    let goodbye = async {
        socket.close(Some(frame(code, reason))).await?;
        while let Some(Ok(_)) = socket.next().await {}
        Ok::<_, Error>(())
    };
    let _ = tokio::time::timeout(CLOSE_LIMIT, goodbye).await;
}

fn frame(code: CloseCode, reason: &'static str) -> CloseFrame {
    CloseFrame { code, reason: reason.into() }
}
