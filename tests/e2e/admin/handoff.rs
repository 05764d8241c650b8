//! The admin port goes to the new process with the others.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{ask, json, number, talk, text};
use crate::client::Client;
use crate::programs::wait_until;
use crate::proxy::{Elbows, free_port};
use crate::web_socket::Tunnels;

#[test]
fn port_is_never_closed_and_the_new_process_tells_of_the_tunnels() {
    let application = Tunnels::start();
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let socket = directory.path().join("handoff.sock");
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let main = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let start = || {
        let (mut command, _) = Elbows::prepare(Elbows::command(), application.address, &[]);
        command
            .env("LISTEN_ON", main.to_string())
            .env("ADMIN_LISTEN_ON", admin.to_string())
            .env("HANDOFF_SOCKET", &socket);
        Elbows::spawn(command, main)
    };
    let mut old = start();
    let mut pair = application.open(&old);
    talk(&mut pair, b"before");
    let tunnels = |address| json(&ask(address, "GET", "/api/tunnels", ""));
    let before = tunnels(admin)["tunnels"][0].clone();
    let mut follower = Client::plain(admin);
    follower.send(format!("GET /api/events HTTP/1.1\r\nHost: {admin}\r\n\r\n"));
    assert_eq!(follower.read_head().status, 200);

    let (is_over, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let knocking = thread::spawn({
        let (is_over, refused) = (Arc::clone(&is_over), Arc::clone(&refused));
        move || {
            while !is_over.load(Ordering::Relaxed) {
                if TcpStream::connect(admin).is_err() {
                    refused.store(true, Ordering::Relaxed);
                }
            }
        }
    });
    let new = start();
    new.log.wait_for("listening on");
    assert_eq!(old.wait().code(), Some(0));
    is_over.store(true, Ordering::Relaxed);
    knocking.join().unwrap();
    assert!(!refused.load(Ordering::Relaxed), "the port was closed");
    // Its stream ended with the old process's turn.
    drop(follower.read_to_end());

    wait_until("the new process has the tunnel", || number(&tunnels(admin), "open") == 1);
    let after = tunnels(admin)["tunnels"][0].clone();
    assert_eq!(text(&after, "request_id"), text(&before, "request_id"));
    assert_eq!(number(&after, "handoffs"), 1);
    assert_eq!(number(&after, "messages_from_client"), 1);
    // What was counted elsewhere is not counted again.
    let messages = || {
        let summary = json(&ask(admin, "GET", "/api/summary", ""));
        (number(&summary, "messages_from_client"), number(&summary, "payload_from_client"))
    };
    assert_eq!(messages(), (0, 0));
    talk(&mut pair, b"after");
    assert_eq!(messages(), (1, 5));
    let summary = json(&ask(admin, "GET", "/api/summary", ""));
    assert_eq!((number(&summary, "handed_in"), number(&summary, "connections")), (1, 0));
}
