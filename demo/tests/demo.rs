//! The demo's parts against real sockets: the application's routes, the stand-in for the load
//! balancer, and all of it together with a small proxy in the place of elbows.
//!
//! The proxy here knows one PROXY header and one request per connection, which is enough to hold
//! the demo's parts against; elbows itself is held against them in its own tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use elbows_demo::{Fault, Front, Options, Stage, Stop, application, balancer};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

/// No wait in here is longer; each is for a condition and ends with it.
const LIMIT: Duration = Duration::from_secs(60);

async fn soon<R>(wait: impl Future<Output = R>) -> R {
    tokio::time::timeout(LIMIT, wait).await.expect("in time")
}

struct Application {
    address: SocketAddr,
    ask: elbows_demo::Ask,
    served: tokio::task::JoinHandle<()>,
}

async fn application() -> Application {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ask, stop) = Stop::channel();
    let served = tokio::spawn(application::serve(listener, None, stop));
    Application { address, ask, served }
}

/// Sends `request` as it is and reads until the other side closes.
async fn raw(to: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(to).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    soon(socket.read_to_string(&mut response)).await.unwrap();
    response
}

async fn get(to: SocketAddr, target: &str, fields: &str) -> String {
    let head = format!("GET {target} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n");
    raw(to, &format!("{head}{fields}\r\n")).await
}

fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").expect("a head").1
}

async fn web_socket(to: SocketAddr, path: &str) -> WebSocketStream<TcpStream> {
    let socket = TcpStream::connect(to).await.unwrap();
    let url = format!("ws://{to}{path}");
    let (socket, _) = soon(tokio_tungstenite::client_async(url, socket)).await.unwrap();
    socket
}

async fn close_of(socket: &mut WebSocketStream<TcpStream>) -> Option<CloseFrame> {
    loop {
        match soon(socket.next()).await {
            Some(Ok(Message::Close(frame))) => return frame,
            Some(Ok(_)) => {}
            other => panic!("{other:?} instead of a Close frame"),
        }
    }
}

#[tokio::test]
async fn page_brings_everything_with_it() {
    let application = application().await;
    let page = get(application.address, "/", "").await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("default-src 'none'"));
    let page = body(&page);
    assert!(page.starts_with("<!doctype html>"));
    for id in ["client-address", "echo-rtt", "ticker-rows", "status"] {
        assert_eq!(page.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
    }
    for outside in ["src=", "http://", "https://", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[tokio::test]
async fn whoami_says_what_arrived() {
    let application = application().await;
    let fields = "X-Forwarded-For: 203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\n\
                  X-Forwarded-Proto: http\r\nX-Request-Id: a\r\nX-Request-Id: b\r\n";
    let response = get(application.address, "/whoami", fields).await;
    let seen: serde_json::Value = serde_json::from_str(body(&response)).unwrap();
    assert_eq!(seen["client"], "203.0.113.9");
    assert_eq!(seen["x_forwarded_for"], "203.0.113.9");
    assert_eq!(seen["x_real_ip"], "203.0.113.9");
    assert_eq!(seen["x_forwarded_proto"], "http");
    assert_eq!(seen["x_forwarded_port"], serde_json::Value::Null);
    assert_eq!(seen["x_request_id"], "a, b");
    assert_eq!(seen["host"], "app.test");
    assert_eq!(seen["application"], application.address.to_string());
    assert_eq!(seen["demo"], serde_json::Value::Null);

    let response = get(application.address, "/whoami", "").await;
    let seen: serde_json::Value = serde_json::from_str(body(&response)).unwrap();
    assert_eq!(seen["client"], "127.0.0.1");
}

#[tokio::test]
async fn headers_are_told_as_they_came() {
    let application = application().await;
    let response = get(application.address, "/headers//a%2Fb?c=%20", "X-Odd: caf\u{e9}\r\n").await;
    let lines: Vec<serde_json::Value> =
        body(&response).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["method"], "GET");
    assert_eq!(lines[0]["target"], "/headers//a%2Fb?c=%20");
    assert_eq!(lines[0]["version"], "HTTP/1.1");
    let odd = lines.iter().find(|line| line["name"] == "x-odd").unwrap();
    // The two bytes that é has in UTF-8, each as the character of its number.
    assert_eq!(odd["value"], "caf\u{c3}\u{a9}");
}

#[tokio::test]
async fn events_come_one_by_one_and_end_with_the_application() {
    let application = application().await;
    let mut socket = TcpStream::connect(application.address).await.unwrap();
    let request = "GET /events HTTP/1.1\r\nHost: app.test\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(socket).lines();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let line = soon(lines.next_line()).await.unwrap().expect("more events");
        if let Some(data) = line.strip_prefix("data: ") {
            let data: serde_json::Value = serde_json::from_str(data).unwrap();
            seen.push(data["sequence"].as_u64().unwrap());
        }
    }
    assert_eq!(seen, [1, 2]);
    drop(application.ask);
    // The last chunk is sent: the stream ended, it was not cut.
    let mut last = Vec::new();
    while let Some(line) = soon(lines.next_line()).await.unwrap() {
        last.push(line);
    }
    assert_eq!(last.iter().rev().take(2).collect::<Vec<_>>(), ["", "0"]);
    soon(application.served).await.unwrap();
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let application = application().await;
    let refused = get(application.address, "/nowhere", "").await;
    assert!(refused.starts_with("HTTP/1.1 404 "), "{refused}");
    let post =
        "POST / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    let refused = raw(application.address, post).await;
    assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
    let refused = raw(application.address, "nonsense\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
}

#[tokio::test]
async fn bad_handshake_gets_a_status_and_the_application_goes_on() {
    let application = application().await;
    let refused = get(application.address, "/ws/echo", "").await;
    assert!(refused.starts_with("HTTP/1.1 426 "), "{refused}");
    assert!(refused.contains("upgrade: websocket\r\n"), "{refused}");
    let bad_key = "GET /ws/echo HTTP/1.1\r\nHost: app.test\r\nConnection: upgrade, close\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: short\r\n\r\n";
    let refused = raw(application.address, bad_key).await;
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");

    let mut socket = web_socket(application.address, "/ws/echo").await;
    socket.send(Message::text("still here")).await.unwrap();
    let echoed = soon(socket.next()).await.unwrap().unwrap();
    assert_eq!(echoed, Message::text("still here"));
}

#[tokio::test]
async fn echo_returns_text_and_binary_up_to_1_mib() {
    let application = application().await;
    let mut socket = web_socket(application.address, "/ws/echo").await;
    let largest = Message::binary(vec![7_u8; 1 << 20]);
    for message in [Message::text("é"), Message::text(""), largest] {
        socket.send(message.clone()).await.unwrap();
        let echoed = soon(socket.next()).await.unwrap().unwrap();
        assert!(echoed == message, "{} bytes came back", echoed.len());
    }
    socket.send(Message::Ping("p".into())).await.unwrap();
    let pong = soon(socket.next()).await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong("p".into()));
}

#[tokio::test]
async fn message_over_the_limit_ends_with_1009() {
    let application = application().await;
    let socket = web_socket(application.address, "/ws/echo").await;
    let (mut send, mut receive) = socket.split();
    let longer = Message::binary(vec![7_u8; (1 << 20) + 1]);
    // The application may close before it has read all of it.
    let sending = tokio::spawn(async move { send.send(longer).await });
    let closed = soon(receive.next()).await.unwrap().unwrap();
    let Message::Close(Some(frame)) = closed else {
        panic!("{closed:?} instead of a Close frame");
    };
    assert_eq!(frame.code, CloseCode::Size);
    drop(soon(sending).await);
}

#[tokio::test]
async fn frame_without_mask_ends_with_1002() {
    let application = application().await;
    let mut socket = TcpStream::connect(application.address).await.unwrap();
    let request = "GET /ws/echo HTTP/1.1\r\nHost: app.test\r\nConnection: upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    socket.write_all(b"\x81\x02hi").await.unwrap();
    let mut response = Vec::new();
    soon(socket.read_to_end(&mut response)).await.unwrap();
    let head = response.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(response[head..], *b"\x88\x02\x03\xea");
}

#[tokio::test]
async fn ticker_sends_every_symbol_in_order() {
    let application = application().await;
    let mut socket = web_socket(application.address, "/ws/ticker").await;
    let mut symbols = std::collections::BTreeSet::new();
    let mut last = None;
    for _ in 0..10 {
        let message = soon(socket.next()).await.unwrap().unwrap();
        let price: serde_json::Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        let sequence = price["sequence"].as_u64().unwrap();
        assert!(last.is_none_or(|last| sequence == last + 1), "{last:?}, {sequence}");
        assert!(price["price"].as_f64().unwrap() >= 1.0);
        symbols.insert(price["symbol"].as_str().unwrap().to_owned());
        last = Some(sequence);
    }
    assert_eq!(symbols.len(), 5, "{symbols:?}");
}

#[tokio::test]
async fn whoami_over_a_web_socket_says_what_arrived_and_closes() {
    let application = application().await;
    let mut socket = web_socket(application.address, "/ws/whoami").await;
    let message = soon(socket.next()).await.unwrap().unwrap();
    let seen: application::WhoAmI = serde_json::from_str(message.to_text().unwrap()).unwrap();
    assert_eq!(seen.client, "127.0.0.1");
    assert_eq!(seen.host, Some(application.address.to_string()));
    let frame = close_of(&mut socket).await.unwrap();
    assert_eq!(frame.code, CloseCode::Normal);
}

#[tokio::test]
async fn application_says_goodbye_to_each_web_socket() {
    let application = application().await;
    let mut echo = web_socket(application.address, "/ws/echo").await;
    let mut ticker = web_socket(application.address, "/ws/ticker").await;
    // One message each way first, so that both are open on the other side, too.
    echo.send(Message::text("open")).await.unwrap();
    soon(echo.next()).await.unwrap().unwrap();
    soon(ticker.next()).await.unwrap().unwrap();
    drop(application.ask);
    for socket in [&mut echo, &mut ticker] {
        assert_eq!(close_of(socket).await.unwrap().code, CloseCode::Away);
        match soon(socket.next()).await {
            None | Some(Err(Error::ConnectionClosed)) => {}
            other => panic!("{other:?} after the Close frame"),
        }
    }
    soon(application.served).await.unwrap();
}

#[tokio::test]
async fn application_ends_although_a_client_does_not() {
    let application = application().await;
    let mut slow = TcpStream::connect(application.address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    let mut deaf = web_socket(application.address, "/ws/echo").await;
    deaf.send(Message::text("open")).await.unwrap();
    soon(deaf.next()).await.unwrap().unwrap();
    drop(application.ask);
    soon(application.served).await.unwrap();
    drop((slow, deaf));
}

#[tokio::test]
async fn balancer_names_the_pretended_client_and_copies_both_ways() {
    let elbows = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = balancer::pretended_client(address.ip());
    let (ask, stop) = Stop::channel();
    let to = elbows.local_addr().unwrap();
    let served = tokio::spawn(balancer::serve(listener, to, client, stop));

    let mut outside = TcpStream::connect(address).await.unwrap();
    outside.write_all(b"hello").await.unwrap();
    let (mut inside, _) = soon(elbows.accept()).await.unwrap();
    let mut header = vec![0; 256];
    let used = soon(inside.read(&mut header)).await.unwrap();
    header.truncate(used);
    let (header, unread) = proxy_header(&header);
    assert_eq!(header.source.ip(), client);
    assert_eq!(header.source.port(), outside.local_addr().unwrap().port());
    assert_eq!(header.destination, address);

    let mut hello = unread;
    while hello.len() < 5 {
        hello.push(soon(inside.read_u8()).await.unwrap());
    }
    assert_eq!(hello, b"hello");
    // Half-close in one direction leaves the other open.
    outside.shutdown().await.unwrap();
    assert_eq!(soon(inside.read(&mut [0])).await.unwrap(), 0);
    inside.write_all(b"and back").await.unwrap();
    drop(inside);
    let mut back = String::new();
    soon(outside.read_to_string(&mut back)).await.unwrap();
    assert_eq!(back, "and back");
    drop(ask);
    soon(served).await.unwrap();
}

#[tokio::test]
async fn balancer_closes_the_client_when_elbows_is_gone() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = gone.local_addr().unwrap();
    drop(gone);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_ask, stop) = Stop::channel();
    let client = IpAddr::from([203, 0, 113, 1]);
    tokio::spawn(balancer::serve(listener, to, client, stop));
    let mut outside = TcpStream::connect(address).await.unwrap();
    let ended = soon(outside.read(&mut [0])).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

#[tokio::test]
async fn check_passes_when_the_address_arrives() {
    let options = Options { check: true, ..Options::default() };
    soon(elbows_demo::run(options, |its, stop| front(its, stop, Some("X-Forwarded-For"))))
        .await
        .unwrap();
}

#[tokio::test]
async fn check_fails_when_the_address_does_not_arrive() {
    let options = Options { check: true, ..Options::default() };
    let checked = soon(elbows_demo::run(options, |its, stop| front(its, stop, None)));
    let fault = checked.await.unwrap_err().to_string();
    assert!(
        fault.starts_with("check failed: request: the PROXY header said 203.0.113."),
        "{fault}"
    );
    assert!(fault.ends_with("X-Forwarded-For said nothing"), "{fault}");
}

#[tokio::test]
async fn check_names_elbows_when_it_ends() {
    let options = Options { check: true, ..Options::default() };
    let broken = |_, _| async { Err(io::Error::other("broken on purpose")) };
    let fault = soon(elbows_demo::run(options, broken)).await.unwrap_err();
    assert_eq!(fault.to_string(), "check failed: elbows ended: broken on purpose");
}

#[tokio::test]
async fn goodbye_of_the_application_arrives_before_the_rest_ends() {
    let stage = Stage::open(Some("0".parse().unwrap())).await.unwrap();
    let open = stage.scene().balancer;
    let (ask, stop) = Stop::channel();
    let running = tokio::spawn(stage.run(|its, stop| front(its, stop, None), stop));
    let mut socket = web_socket(open, "/ws/ticker").await;
    soon(socket.next()).await.unwrap().unwrap();
    drop(ask);
    assert_eq!(close_of(&mut socket).await.unwrap().code, CloseCode::Away);
    drop(socket);
    soon(running).await.unwrap().unwrap();
    assert!(TcpStream::connect(open).await.is_err());
}

#[tokio::test]
async fn front_that_ends_by_itself_is_a_fault() {
    let stage = Stage::open(Some("0".parse().unwrap())).await.unwrap();
    let (_ask, stop) = Stop::channel();
    let ended = soon(stage.run(|_, _| async { Ok(()) }, stop)).await;
    assert!(matches!(ended, Err(Fault::FrontEnded)), "{ended:?}");
}

/// What a PROXY header says.
struct ProxyHeader {
    source: SocketAddr,
    destination: SocketAddr,
}

/// Reads the header of either version with a parser by others; gives what follows it, too.
fn proxy_header(bytes: &[u8]) -> (ProxyHeader, Vec<u8>) {
    let config = proxy_header::ParseConfig::default();
    let (header, used) = proxy_header::ProxyHeader::parse(bytes, config).unwrap();
    let address = header.proxied_address().unwrap();
    let header = ProxyHeader { source: address.source, destination: address.destination };
    (header, bytes[used..].to_vec())
}

/// A proxy in the place of elbows: reads the PROXY header and the head of one request, puts the
/// client's address into it if it has a name for it, and copies the rest.
async fn front(its: Front, mut stop: Stop, name: Option<&'static str>) -> io::Result<()> {
    let listener = TcpListener::from_std(its.listener)?;
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, _) = accepted?;
                connections.spawn(carry(socket, its.application, name));
            }
            () = stop.asked() => return Ok(()),
        }
    }
}

async fn carry(
    mut client: TcpStream,
    application: SocketAddr,
    name: Option<&'static str>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let (header, rest) = loop {
        assert!(client.read_buf(&mut bytes).await? > 0, "a request");
        if bytes.ends_with(b"\r\n\r\n") && bytes.windows(4).any(|four| four == b"GET ") {
            break proxy_header(&bytes);
        }
    };
    let mut request = String::from_utf8(rest).unwrap();
    if let Some(name) = name {
        let ip = header.source.ip();
        let at = request.find("\r\n").unwrap() + 2;
        request.insert_str(at, &format!("{name}: {ip}\r\nX-Real-IP: {ip}\r\n"));
    }
    let mut upstream = TcpStream::connect(application).await?;
    upstream.write_all(request.as_bytes()).await?;
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}
