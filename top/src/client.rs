//! Asks an admin port, over TCP or a UNIX socket. hyper speaks HTTP.
//!
//! Whoever answers need not be elbows, and elbows may be gone: each answer is bounded in size and time, and what is wrong
//! is one sentence.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::answers::{Endpoints, Look, Summary, Trouble, Tunnel, Tunnels};
use crate::close::Close;
use crate::filters::Question;
use crate::place::Place;
use crate::text::Text;

/// How long a connection may take, and each answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest answer: a thousand tunnels of which each text is as long as elbows keeps it have half of that.
const LARGEST: usize = 16 * 1024 * 1024;

/// The largest head of an answer.
const LARGEST_HEAD: usize = 16 * 1024;

/// Somebody who asks.
pub(crate) struct Client {
    place: Place,
    token: Option<HeaderValue>,
    open: Option<SendRequest<Empty<Bytes>>>,
}

/// The three answers of a look, as they came.
pub(crate) struct Raw {
    pub(crate) summary: Value,
    pub(crate) endpoints: Value,
    pub(crate) tunnels: Value,
}

#[derive(Deserialize)]
struct Fault {
    error: Text,
}

/// A status and a body.
struct Answer {
    status: u16,
    body: Bytes,
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

impl Client {
    /// A token that no field of a request can have is none, as `off` is none.
    pub(crate) fn new(place: Place, token: Option<&str>) -> Self {
        let token = token.filter(|token| !token.is_empty() && *token != "off");
        let token = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
        let token = token.map(|mut value| {
            value.set_sensitive(true);
            value
        });
        Self { place, token, open: None }
    }

    pub(crate) const fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Looks once.
    pub(crate) async fn look(&mut self, question: &Question) -> Result<Look, Trouble> {
        let summary: Summary = self.read("/api/summary").await?;
        let endpoints: Endpoints = self.read("/api/endpoints").await?;
        let tunnels: Tunnels = self.read(&question.target()).await?;
        let one = match &question.one {
            Some(id) => self.one(id).await?,
            None => None,
        };
        Ok(Look { summary, endpoints, tunnels, one })
    }

    /// The tunnel with this id, where it is still there.
    async fn one(&mut self, id: &str) -> Result<Option<Tunnel>, Trouble> {
        match self.read(&format!("/api/tunnels/{id}")).await {
            Ok(tunnel) => Ok(Some(tunnel)),
            Err(Trouble::Refused(_, 404)) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// The same look as it came, once it is known to be one.
    pub(crate) async fn look_raw(&mut self, question: &Question) -> Result<Raw, Trouble> {
        let raw = Raw {
            summary: self.read("/api/summary").await?,
            endpoints: self.read("/api/endpoints").await?,
            tunnels: self.read(&question.target()).await?,
        };
        self.form::<Summary>("/api/summary", Summary::deserialize(&raw.summary))?;
        self.form::<Endpoints>("/api/endpoints", Endpoints::deserialize(&raw.endpoints))?;
        self.form::<Tunnels>("/api/tunnels", Tunnels::deserialize(&raw.tunnels))?;
        Ok(raw)
    }

    /// Orders a tunnel to be closed.
    pub(crate) async fn close(&mut self, close: &Close) -> Result<(), Trouble> {
        let target = close.target();
        // On a connection of its own: an order is given once, and an idle connection may just end.
        self.open = None;
        let answer = self.ask(Method::POST, &target).await?;
        if answer.status == 202 { Ok(()) } else { Err(self.refusal(&target, &answer)) }
    }

    async fn read<T: DeserializeOwned>(&mut self, target: &str) -> Result<T, Trouble> {
        let was_open = self.open.is_some();
        let answer = match self.ask(Method::GET, target).await {
            // It was idle, and elbows may have ended it: nothing was changed by asking.
            Err(Trouble::Unreachable { .. }) if was_open => self.ask(Method::GET, target).await?,
            other => other?,
        };
        if answer.status != 200 {
            return Err(self.refusal(target, &answer));
        }
        self.form(target, serde_json::from_slice(&answer.body))
    }

    fn form<T>(&self, target: &str, read: serde_json::Result<T>) -> Result<T, Trouble> {
        read.map_err(|error| {
            self.foreign(&format!("what it answers to {target} is not understood ({error})"))
        })
    }

    /// Why it is not done, in the words of elbows where it is one.
    fn refusal(&self, target: &str, answer: &Answer) -> Trouble {
        match serde_json::from_slice::<Fault>(&answer.body) {
            Ok(fault) => Trouble::Refused(fault.error, answer.status),
            Err(_) => self.foreign(&format!("it answers {} to {target}", answer.status)),
        }
    }

    fn foreign(&self, why: &str) -> Trouble {
        Trouble::Foreign { place: self.place.text(), why: Text::clean(why) }
    }

    fn unreachable(&self, why: &str) -> Trouble {
        Trouble::Unreachable { place: self.place.text(), why: Text::clean(why) }
    }

    async fn ask(&mut self, method: Method, target: &str) -> Result<Answer, Trouble> {
        let answered = timeout(PATIENCE, self.ask_for_long(method, target)).await;
        let answered = answered.unwrap_or_else(|_| {
            Err(self.unreachable(&format!("nothing came within {} s", PATIENCE.as_secs())))
        });
        if answered.is_err() {
            self.open = None;
        }
        answered
    }

    async fn ask_for_long(&mut self, method: Method, target: &str) -> Result<Answer, Trouble> {
        let request = self.request(method, target)?;
        let sender = match self.open.take() {
            Some(sender) if sender.is_ready() => sender,
            _ => self.connect().await?,
        };
        let sender = self.open.insert(sender);
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            Err(error) => return Err(self.broken(&error)),
        };
        let status = response.status().as_u16();
        match Limited::new(response.into_body(), LARGEST).collect().await {
            Ok(body) => Ok(Answer { status, body: body.to_bytes() }),
            Err(error) if error.is::<LengthLimitError>() => Err(self.foreign(&format!(
                "it answers more than {} MiB to {target}",
                LARGEST / 1024 / 1024
            ))),
            Err(error) => Err(self.unreachable(&format!("the answer broke off ({error})"))),
        }
    }

    fn request(&self, method: Method, target: &str) -> Result<Request<Empty<Bytes>>, Trouble> {
        let host = match &self.place {
            Place::Tcp(address) => address,
            Place::Unix(_) => "localhost",
        };
        let token = self.token.as_ref().filter(|_| method == Method::POST);
        let mut request = Request::builder().method(method).uri(target).header(HOST, host);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        request.body(Empty::new()).map_err(|error| self.foreign(&error.to_string()))
    }

    fn broken(&self, error: &hyper::Error) -> Trouble {
        if error.is_parse() {
            return self.foreign("it does not speak HTTP");
        }
        self.unreachable("the connection ended without an answer")
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, Trouble> {
        let connected: io::Result<Pin<Box<dyn Socket>>> = match &self.place {
            Place::Tcp(address) => {
                TcpStream::connect(address).await.map(|socket| Box::pin(socket) as _)
            }
            Place::Unix(path) => {
                UnixStream::connect(path).await.map(|socket| Box::pin(socket) as _)
            }
        };
        let socket = connected.map_err(|error| self.unreachable(&system(&error)))?;
        let mut builder = Builder::new();
        builder.max_buf_size(LARGEST_HEAD);
        let shaken = builder.handshake(TokioIo::new(socket)).await;
        let (sender, connection) = shaken.map_err(|error| self.broken(&error))?;
        tokio::spawn(async move {
            // Whoever waits for an answer is told.
            drop(connection.await);
        });
        Ok(sender)
    }
}

/// What the system says, without its number.
fn system(error: &io::Error) -> String {
    let text = error.to_string();
    let (text, _) = text.split_once(" (os error").unwrap_or((&text, ""));
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_what_a_request_can_have_and_off_is_none() {
        let has = |token| Client::new(Place::Tcp(String::new()), token).has_token();
        assert!(has(Some("0123456789abcdef-token")));
        for token in [None, Some(""), Some("off"), Some("a\r\nb")] {
            assert!(!has(token), "{token:?}");
        }
    }
}
