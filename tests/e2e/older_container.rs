//! What the older container did wrong: each of its faults, and elbows without it.

use std::io::{Read, Write};

use rustix::process::Signal;
use test_support::process::raise_descriptor_limit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{Client, PROXY_V1, field, handshake};
use crate::proxy::Elbows;
use crate::upstream::{SWITCHING, Upstream, read_head};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn proxy_v2_is_understood() {
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, &[]);
    let mut client = Client::plain(elbows.address);
    let source = "203.0.113.9:4000".parse().unwrap();
    let destination = "192.0.2.1:80".parse().unwrap();
    client.send(elbows::proxy_protocol::encode::v2(source, destination, &[], true));
    assert_eq!(client.get("/").status, 200);
    assert_eq!(field(&upstream.seen(), "x-forwarded-for"), Some("203.0.113.9"));
}

#[test]
fn ping_is_answered_without_a_proxy_header() {
    let elbows = Elbows::start(Upstream::nobody(), &[]);
    let response = Client::plain(elbows.address).get("/ping");
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    assert!(response.head.contains("text/plain"), "{}", response.head);
}

#[test]
fn host_and_path_pass_byte_for_byte() {
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, &[]);
    for target in ["/a%2Fb//c/../d;x=%7e?q=a%20b&&//%2f", "//", "/%", "/a?", "/?a?b", "/%c3%a4"] {
        assert_eq!(Client::behind_balancer(elbows.address).get(target).status, 200, "{target}");
        let head = upstream.seen();
        assert!(head.starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{head}");
        assert_eq!(field(&head, "host"), Some("shop.example"));
    }
}

#[test]
fn websocket_opens_and_carries_bytes_both_ways() {
    let upstream = Upstream::start(|mut socket| {
        let head = read_head(&mut socket);
        socket.write_all(SWITCHING).unwrap();
        let mut word = [0; 5];
        socket.read_exact(&mut word).unwrap();
        socket.write_all(&word).unwrap();
        head
    });
    let elbows = Elbows::start(upstream.address, &[]);
    let mut client = Client::behind_balancer(elbows.address);
    client.send(handshake("/ws"));
    assert_eq!(client.read_response().status, 101);
    client.send(b"hello");
    assert_eq!(client.read_exact(5), b"hello");
    assert_eq!(client.read_to_end().unwrap(), b"");
    assert_eq!(field(&upstream.seen(), "x-forwarded-for"), Some("203.0.113.7"));
}

/// One nginx worker had 4,096 connections, two for each WebSocket.
/// A binary message of a client, its key all zeros.
fn message(number: usize) -> [u8; 14] {
    let mut frame = [0x82, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    frame[6..].copy_from_slice(&number.to_be_bytes());
    frame
}

#[test]
fn tunnels_are_not_limited_to_two_thousand() {
    const TUNNELS: usize = 3_000;
    // Each takes two descriptors here, in the client and in the upstream.
    let most = raise_descriptor_limit();
    assert!(most.is_none_or(|most| most > 8_000), "too few open files are allowed here");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    read_to_blank_line(&mut socket).await;
                    socket.write_all(SWITCHING).await.unwrap();
                    let (mut reader, mut writer) = socket.split();
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                });
            }
        });
        let settings = [("ACCESS_LOG", "off"), ("LOG", "info")];
        let mut elbows = Elbows::start(upstream, &settings);

        let mut tunnels = Vec::new();
        for _ in 0..TUNNELS {
            let mut socket = TcpStream::connect(elbows.address).await.unwrap();
            socket.write_all(PROXY_V1).await.unwrap();
            socket.write_all(handshake("/ws").as_bytes()).await.unwrap();
            assert!(read_to_blank_line(&mut socket).await.starts_with("HTTP/1.1 101 "));
            tunnels.push(socket);
        }
        elbows.signal(Signal::USR1);
        elbows.log.wait_for(&format!("tunnels_open={TUNNELS} "));
        for (number, socket) in tunnels.iter_mut().enumerate() {
            socket.write_all(&message(number)).await.unwrap();
        }
        for (number, socket) in tunnels.iter_mut().enumerate() {
            let mut echo = message(0);
            socket.read_exact(&mut echo).await.unwrap();
            assert_eq!(echo, message(number));
        }
        for socket in &mut tunnels {
            socket.shutdown().await.unwrap();
        }
        for socket in &mut tunnels {
            assert_eq!(socket.read(&mut [0]).await.unwrap(), 0);
        }
        elbows.signal(Signal::TERM);
        assert!(elbows.wait().success());
        assert!(elbows.log.wait_for("ended; ").contains(" cut=0 "));
        serving.abort();
    });
}

async fn read_to_blank_line(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

byte_by_byte!({
    proxy_v2_is_understood,
    ping_is_answered_without_a_proxy_header,
    host_and_path_pass_byte_for_byte,
    websocket_opens_and_carries_bytes_both_ways,
} not {
    tunnels_are_not_limited_to_two_thousand: "it is about many tunnels",
});
