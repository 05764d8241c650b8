//! Other people's WebSocket applications behind elbows, other people's clients in front.
//!
//! Every client holds the same conversation with every application through every balancer: text, binary,
//! 1 MiB, many small messages, a close from either side with its code. Between `websockets` and the
//! applications it is compressed (RFC 7692), which no proxy may notice; tungstenite does not compress.
//! The conversation of `websockets` is in `peers/websockets_client.py`, that of a browser in
//! `peers/conversation.js`.

use std::net::SocketAddr;
use std::process::Command;

use futures_util::{SinkExt, StreamExt};
use rustix::process::Signal;
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::balancers::{BALANCER, Balancer, CLIENT, TRUST};
use crate::client::Client;
use crate::programs::{Program, peer, python};
use crate::proxy::{Elbows, PATIENCE};

/// How many small messages are under way at once.
const SMALL_MESSAGES: usize = 1000;

/// A running application.
pub struct Application {
    pub address: SocketAddr,
    program: Program,
}

impl Application {
    /// Python's `websockets`.
    pub fn websockets() -> Self {
        Self::start(python("websockets_app.py"))
    }

    /// Debian's `node-ws`.
    pub fn node_ws() -> Self {
        let mut command = Command::new("/usr/bin/node");
        command.arg(peer("node_ws_app.js")).env("NODE_PATH", "/usr/share/nodejs");
        Self::start(command)
    }

    /// `python-socketio`.
    fn socket_io() -> Self {
        Self::start(python("socketio_app.py"))
    }

    /// The application of `elbows demo`.
    pub fn demo() -> Self {
        let mut command = Elbows::command();
        command.args(["demo", "--app-on", "127.0.0.1:0"]);
        let program = Program::start(command);
        Self { address: program.address_after("application is on"), program }
    }

    fn start(command: Command) -> Self {
        let program = Program::start(command);
        Self { address: program.address_after("listening on"), program }
    }

    /// Waits for the line that the application writes when a WebSocket has ended.
    pub fn ended(&self, path: &str, code: u16, reason: &str) -> String {
        let line = format!("ended path={path} code={code} reason='{reason}'");
        self.program.output.wait_for(&line)
    }
}

/// Waits until the access log has the three tunnels of a conversation, each from `client`, and ends elbows.
pub fn three_tunnels_are_logged(mut elbows: Elbows, client: &str, application: &Application) {
    for path in ["/whoami", "/echo", "/close-4001"] {
        let request = format!("request=\"GET {path} HTTP/1.1\" status=101 ");
        let line = elbows.access_log.wait_for(&request);
        for part in [
            format!("client={client}:"),
            format!("balancer={BALANCER}:"),
            format!("upstream={}", application.address),
        ] {
            assert!(line.contains(&part), "no {part:?} in {line}");
        }
    }
    elbows.signal(Signal::TERM);
    assert!(elbows.wait().success());
    let lines = elbows.access_log.all();
    let tunnels = lines.iter().filter(|line| line.contains("status=101"));
    assert_eq!(tunnels.count(), 3, "{lines:#?}");
}

/// Starts elbows and a balancer in front of `application`, lets `client` hold the conversation, and sees
/// that all sides tell the same about it.
fn conversation(
    application: &Application,
    balancer: impl FnOnce(SocketAddr) -> Balancer,
    client: impl FnOnce(SocketAddr) -> Value,
    extension: &str,
) {
    let elbows = Elbows::start(application.address, &[TRUST]);
    let balancer = balancer(elbows.address);
    let who = client(balancer.address);
    assert_eq!(who["x-forwarded-for"], CLIENT.to_string());
    assert_eq!(who["x-real-ip"], CLIENT.to_string());
    assert_eq!(who["x-forwarded-proto"], "http");
    assert_eq!(who["x-forwarded-port"], balancer.address.port().to_string());
    assert_eq!(who["host"], format!("shop.example:{}", balancer.address.port()));
    for ended in [
        application.ended("/echo", 4002, "the client ends it"),
        application.ended("/close-4001", 4001, "the application ends it"),
    ] {
        assert!(ended.contains(&format!("extensions={extension}")), "{ended}");
    }
    three_tunnels_are_logged(elbows, &CLIENT.to_string(), application);
}

/// The conversation by Python's `websockets`.
pub fn websockets(balancer: SocketAddr) -> Value {
    websockets_with_pauses(balancer, "0")
}

/// The same by one that is silent for so many seconds before each of its first messages to the echo.
pub fn websockets_with_pauses(balancer: SocketAddr, seconds: &str) -> Value {
    let mut command = python("websockets_client.py");
    let url = format!("ws://shop.example:{}", balancer.port());
    command.args([url, CLIENT.to_string()]).env("PAUSE", seconds);
    serde_json::from_str(&Program::start(command).succeed("done")).unwrap()
}

/// The conversation by tokio-tungstenite.
fn tungstenite(balancer: SocketAddr) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(2 * PATIENCE, tungstenite_talks(balancer)).await.expect("it ends")
    })
}

async fn tungstenite_talks(balancer: SocketAddr) -> Value {
    let mut socket = web_socket(balancer, "/whoami").await;
    let who = socket.next().await.unwrap().unwrap().into_text().unwrap();
    let who = serde_json::from_str(&who).unwrap();
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}

    let mut socket = web_socket(balancer, "/echo").await;
    let large: Vec<u8> = (0..1_u32 << 20).map(|at| at.to_le_bytes()[at as usize % 3]).collect();
    for message in [
        Message::text(""),
        Message::text("grüße"),
        Message::binary(Bytes::new()),
        Message::binary((0..=255).collect::<Vec<u8>>()),
        Message::text("x".repeat(1 << 20)),
        Message::binary(large),
    ] {
        socket.send(message.clone()).await.unwrap();
        let echo = socket.next().await.unwrap().unwrap();
        assert!(echo == message, "{} bytes came back of {}", echo.len(), message.len());
    }
    let (mut sender, mut receiver) = socket.split();
    let sending = async {
        for number in 0..SMALL_MESSAGES {
            sender.send(Message::text(number.to_string())).await.unwrap();
        }
    };
    let receiving = async {
        for number in 0..SMALL_MESSAGES {
            let echo = receiver.next().await.unwrap().unwrap();
            assert_eq!(echo, Message::text(number.to_string()));
        }
    };
    tokio::join!(sending, receiving);
    let ends = CloseFrame { code: CloseCode::from(4002), reason: "the client ends it".into() };
    sender.send(Message::Close(Some(ends))).await.unwrap();
    let answer = close_frame(receiver.next().await.unwrap().unwrap());
    assert_eq!(u16::from(answer.code), 4002);
    assert!(receiver.next().await.is_none());

    let mut socket = web_socket(balancer, "/close-4001").await;
    socket.send(Message::text("end it")).await.unwrap();
    let ended = close_frame(socket.next().await.unwrap().unwrap());
    assert_eq!((u16::from(ended.code), ended.reason.as_str()), (4001, "the application ends it"));
    assert!(socket.next().await.is_none());
    who
}

async fn web_socket(balancer: SocketAddr, path: &str) -> WebSocketStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(CLIENT, 0)).unwrap();
    let socket = socket.connect(balancer).await.unwrap();
    let url = format!("ws://shop.example:{}{path}", balancer.port());
    let request = url.into_client_request().unwrap();
    tokio_tungstenite::client_async(request, socket).await.unwrap().0
}

fn close_frame(message: Message) -> CloseFrame {
    match message {
        Message::Close(Some(frame)) => frame,
        other => panic!("{other:?} instead of a Close frame"),
    }
}

fn haproxy_v1(elbows: SocketAddr) -> Balancer {
    Balancer::haproxy(elbows, "send-proxy")
}

fn haproxy_v2(elbows: SocketAddr) -> Balancer {
    Balancer::haproxy(elbows, "send-proxy-v2")
}

fn haproxy_v2_with_tlvs(elbows: SocketAddr) -> Balancer {
    Balancer::haproxy(elbows, "send-proxy-v2 proxy-v2-options crc32c,unique-id,ssl")
}

/// A test for each way, named by client, balancer and application.
macro_rules! conversations {
    ($($name:ident: $client:ident, $balancer:expr, $application:ident, $extension:literal;)*) => {$(
        #[test]
        fn $name() {
            conversation(&Application::$application(), $balancer, $client, $extension);
        }
    )*};
}

conversations! {
    tungstenite_haproxy_v1_websockets: tungstenite, haproxy_v1, websockets, "none";
    tungstenite_haproxy_v1_node_ws: tungstenite, haproxy_v1, node_ws, "none";
    tungstenite_haproxy_v2_websockets: tungstenite, haproxy_v2, websockets, "none";
    tungstenite_haproxy_v2_node_ws: tungstenite, haproxy_v2, node_ws, "none";
    tungstenite_haproxy_v2_with_tlvs_websockets: tungstenite, haproxy_v2_with_tlvs, websockets, "none";
    tungstenite_haproxy_v2_with_tlvs_node_ws: tungstenite, haproxy_v2_with_tlvs, node_ws, "none";
    tungstenite_nginx_websockets: tungstenite, Balancer::nginx, websockets, "none";
    tungstenite_nginx_node_ws: tungstenite, Balancer::nginx, node_ws, "none";
    websockets_haproxy_v1_websockets: websockets, haproxy_v1, websockets, "permessage-deflate";
    websockets_haproxy_v1_node_ws: websockets, haproxy_v1, node_ws, "permessage-deflate";
    websockets_haproxy_v2_websockets: websockets, haproxy_v2, websockets, "permessage-deflate";
    websockets_haproxy_v2_node_ws: websockets, haproxy_v2, node_ws, "permessage-deflate";
    websockets_haproxy_v2_with_tlvs_websockets: websockets, haproxy_v2_with_tlvs, websockets, "permessage-deflate";
    websockets_haproxy_v2_with_tlvs_node_ws: websockets, haproxy_v2_with_tlvs, node_ws, "permessage-deflate";
    websockets_nginx_websockets: websockets, Balancer::nginx, websockets, "permessage-deflate";
    websockets_nginx_node_ws: websockets, Balancer::nginx, node_ws, "permessage-deflate";
}

/// A Socket.IO session from begin to end; returns what the application answered to "whoami".
fn socket_io(transports: &str) -> (Elbows, Value) {
    let application = Application::socket_io();
    let settings = [TRUST, ("ACCESS_LOG_QUERY", "on")];
    let elbows = Elbows::start(application.address, &settings);
    let balancer = haproxy_v2(elbows.address);
    let mut command = python("socketio_client.py");
    command.args([format!("http://{}", balancer.address), transports.to_owned()]);
    let who: Value = serde_json::from_str(&Program::start(command).succeed("done")).unwrap();
    if who["transport"] == "websocket" {
        application.program.output.wait_for("disconnected");
    }
    (elbows, who)
}

#[test]
fn socket_io_polls_and_then_upgrades() {
    let (elbows, who) = socket_io("polling,websocket");
    assert_eq!(who["client"], "127.0.0.1");
    assert_eq!(who["transport"], "websocket");
    let line = elbows.access_log.wait_for("status=101");
    assert!(line.contains("transport=websocket"), "{line}");
    let poll = elbows.access_log.wait_for("transport=polling");
    assert!(poll.contains("status=200"), "{poll}");
}

#[test]
fn socket_io_polls_all_the_way() {
    let (elbows, who) = socket_io("polling");
    assert_eq!(who["client"], "127.0.0.1");
    assert_eq!(who["transport"], "polling");
    let lines = elbows.access_log.all().join("\n");
    assert!(lines.contains("\"POST /socket.io/") && !lines.contains("status=101"), "{lines}");
}

#[test]
fn demo_application_answers_through_nginx() {
    let application = Application::demo();
    let elbows = Elbows::start(application.address, &[TRUST]);
    let balancer = Balancer::nginx(elbows.address);
    let answer: Value =
        serde_json::from_slice(&Client::plain(balancer.address).get("/whoami").body).unwrap();
    assert_eq!(answer["client"], "127.0.0.1");
}
