//! What an operator reads at `LOG=info` when something around elbows is wrong, and how often.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;

use crate::client::Client;
use crate::proxy::{Elbows, free_port};
use crate::upstream::{Upstream, read_head};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Lines of the log with `text`.
fn count(elbows: &Elbows, text: &str) -> usize {
    elbows.log.all().iter().filter(|line| line.contains(text)).count()
}

#[test]
fn dead_application_is_told_at_once_then_with_how_many_and_when_it_is_back() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let elbows = Elbows::start(address, &[]);
    for _ in 0..50 {
        assert_eq!(Client::behind_balancer(elbows.address).get("/").status, 502);
    }
    let cause = format!("got 502: no connection to {address}: Connection refused");
    let first = elbows.log.wait_for(&cause);
    assert!(first.contains(" WARN ") && first.contains("a request got"), "{first}");
    let second = elbows.log.wait_for("49 requests in 1");
    assert!(second.contains(" WARN ") && second.contains(&cause), "{second}");
    assert_eq!(count(&elbows, &cause), 2, "and nothing between them");

    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            read_head(&mut socket);
            let _ = socket.write_all(OK);
        }
    });
    assert_eq!(Client::behind_balancer(elbows.address).get("/").status, 200);
    let over = elbows.log.wait_for("the upstream answers again");
    assert!(over.contains(" INFO "), "{over}");
}

#[test]
fn refused_proxy_header_is_told_with_who_sent_it() {
    let upstream = Upstream::answering(OK);
    let elbows = Elbows::start(upstream.address, &[]);
    for _ in 0..20 {
        let mut client = Client::plain(elbows.address);
        client.send("PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n");
        let _ = client.read_to_end();
    }
    let told = elbows.log.wait_for("a connection refused because of the PROXY header: ");
    assert!(told.contains(" WARN ") && told.contains(", from 127.0.0.1:"), "{told}");
    assert_eq!(count(&elbows, "because of the PROXY header"), 1);
}
