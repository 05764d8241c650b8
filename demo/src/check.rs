//! `elbows demo --check`: one round trip of each kind without a browser, so that a script or a
//! person on a terminal learns whether the path works.
//!
//! It takes the same road as a browser, on free ports: stand-in balancer, elbows, application. The
//! point of it is the client address: the application has to see the one that the stand-in wrote
//! into its PROXY header, both for a request and for the handshake of a WebSocket.

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::application::WhoAmI;
use super::{Front, Place, Stage, Stop, say};

/// How long the whole check may take.
const LIMIT: Duration = Duration::from_secs(10);

/// No body that the application sends to us is longer.
const LARGEST_BODY: usize = 1 << 20;

/// What the check found.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The parts did not start, or one of them ended.
    #[error("{0}")]
    Stage(Box<super::Fault>),
    /// A step went wrong.
    #[error("{step}: {what}")]
    Step {
        /// Which one.
        step: &'static str,
        /// What was wrong.
        what: String,
    },
    /// It took more than ten seconds.
    #[error("{step}: no answer, and the ten seconds for the check are over")]
    Late {
        /// The step that was not done.
        step: &'static str,
    },
}

/// Starts everything on free ports with `front` as elbows, makes the round trips, prints a line for
/// each, and ends everything. Takes ten seconds at most, and as long again as the parts need to end.
pub async fn run<F, R>(front: F) -> Result<(), Fault>
where
    F: FnOnce(Front, Stop) -> R,
    R: Future<Output = io::Result<()>>,
{
    let started = Instant::now();
    let anywhere = Place { address: None, port: 0 };
    let stage = Stage::open(Some(anywhere)).await.map_err(Fault::of_stage)?;
    let scene = stage.scene();
    let (ask, stop) = Stop::channel();
    say("elbows demo --check\n");
    let mut at = "start";
    let checks = async {
        let checked =
            tokio::time::timeout(LIMIT, round_trips(scene.balancer, scene.pretended, &mut at))
                .await;
        drop(ask);
        checked
    };
    let (checked, ended) = tokio::join!(checks, stage.run(front, stop));
    // A part that ended is why a round trip failed, so it is named first.
    ended.map_err(Fault::of_stage)?;
    checked.map_err(|_| Fault::Late { step: at })??;
    say(&format!("ok, {}\n", in_ms(started)));
    Ok(())
}

async fn round_trips(
    open: SocketAddr,
    client: IpAddr,
    step: &mut &'static str,
) -> Result<(), Fault> {
    *step = "page";
    let started = Instant::now();
    let page = get(open, "/").await.map_err(in_step(step))?;
    if !page.starts_with(b"<!doctype html>") {
        return Err(in_step(step)("that is not the page"));
    }
    report(step, &format!("GET / answered {} bytes", page.len()), started);

    *step = "request";
    let started = Instant::now();
    let body = get(open, "/whoami").await.map_err(in_step(step))?;
    let seen = serde_json::from_slice(&body).map_err(in_step(step))?;
    let seen = same_client(&seen, client).map_err(in_step(step))?;
    report(step, &format!("GET /whoami saw the client as {seen}"), started);

    *step = "handshake";
    let started = Instant::now();
    let mut socket = upgrade(open, "/ws/whoami").await.map_err(in_step(step))?;
    let said = receive(&mut socket).await.map_err(in_step(step))?;
    let seen = serde_json::from_slice(&said.into_data()).map_err(in_step(step))?;
    let seen = same_client(&seen, client).map_err(in_step(step))?;
    report(step, &format!("WebSocket /ws/whoami saw the client as {seen}"), started);

    *step = "echo";
    let mut socket = upgrade(open, "/ws/echo").await.map_err(in_step(step))?;
    let started = Instant::now();
    let message = Message::text("There and back again.");
    socket.send(message.clone()).await.map_err(in_step(step))?;
    let echoed = receive(&mut socket).await.map_err(in_step(step))?;
    if echoed != message {
        return Err(in_step(step)(format!("{message:?} came back as {echoed:?}")));
    }
    report(step, "WebSocket /ws/echo sent the message back", started);

    *step = "close";
    let started = Instant::now();
    socket.close(None).await.map_err(in_step(step))?;
    let closed = receive(&mut socket).await.map_err(in_step(step))?;
    if !closed.is_close() {
        return Err(in_step(step)(format!("{closed:?} instead of a Close frame")));
    }
    report(step, "Close was answered with Close", started);
    Ok(())
}

/// The address that the application saw, if it is `client` in all that it saw.
fn same_client(seen: &WhoAmI, client: IpAddr) -> Result<IpAddr, String> {
    let expected = client.to_string();
    let lines = [("X-Forwarded-For", &seen.x_forwarded_for), ("X-Real-IP", &seen.x_real_ip)];
    for (name, value) in lines {
        if value.as_ref() != Some(&expected) {
            let arrived = value.as_deref().unwrap_or("nothing");
            return Err(format!("the PROXY header said {expected}, {name} said {arrived}"));
        }
    }
    Ok(client)
}

async fn get(from: SocketAddr, path: &'static str) -> Result<Bytes, String> {
    let socket = TcpStream::connect(from).await.map_err(text)?;
    let handshake = http1::handshake(TokioIo::new(socket)).await;
    let (mut requests, connection) = handshake.map_err(text)?;
    let request = Request::get(path)
        .header("host", from.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(text)?;
    let answer = async {
        let response = requests.send_request(request).await.map_err(text)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_BODY);
        let body = body.collect().await.map_err(text)?.to_bytes();
        if status != StatusCode::OK {
            let sentence = String::from_utf8_lossy(&body);
            return Err(format!("{status}: {}", sentence.trim_end()));
        }
        Ok(body)
    };
    tokio::select! {
        answer = answer => answer,
        // The connection ends only after the answer, or without one.
        ended = connection => Err(match ended {
            Ok(()) => "the connection closed before the answer".to_owned(),
            Err(error) => text(error),
        }),
    }
}

async fn upgrade(from: SocketAddr, path: &str) -> Result<WebSocketStream<TcpStream>, String> {
    let socket = TcpStream::connect(from).await.map_err(text)?;
    socket.set_nodelay(true).map_err(text)?;
    let url = format!("ws://{from}{path}");
    let (socket, _) = tokio_tungstenite::client_async(url, socket).await.map_err(text)?;
    Ok(socket)
}

async fn receive(socket: &mut WebSocketStream<TcpStream>) -> Result<Message, String> {
    match socket.next().await {
        Some(message) => message.map_err(text),
        None => Err("the connection closed".to_owned()),
    }
}

impl Fault {
    fn of_stage(fault: super::Fault) -> Self {
        Self::Stage(Box::new(fault))
    }
}

fn in_step<E: Display>(step: &'static str) -> impl FnOnce(E) -> Fault {
    move |what| Fault::Step { step, what: what.to_string() }
}

fn text(error: impl Display) -> String {
    error.to_string()
}

fn report(step: &str, done: &str, started: Instant) {
    say(&format!("  {step:<9}  {done}, {}\n", in_ms(started)));
}

fn in_ms(started: Instant) -> String {
    format!("{:.1} ms", started.elapsed().as_secs_f64() * 1e3)
}
