//! Other people's clients and applications, while the proxy between them is handed over several times a second: none of
//! them notices.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::chain::Chain;
use super::number;
use crate::applications::Application;
use crate::balancers::{self, BALANCER, Balancer, TRUST};
use crate::browser::Browser;
use crate::client::{Client, handshake};
use crate::programs::{Program, peer, python};
use crate::web_socket::{Peer, TEXT, value};

/// How often what is open is handed over, at least.
const HANDOFFS: usize = 5;

/// Pings of elbows are under way, too.
const SETTINGS: [(&str, &str); 4] = [
    ("PROXY_PROTOCOL", "off"),
    ("PING_INTERVAL", "100ms"),
    ("PING_UPSTREAM_INTERVAL", "100ms"),
    ("FRAME_CHECK", "strict"),
];

/// Python's `websockets`.
fn websockets(proxy: SocketAddr) -> Command {
    let mut command = python("lasting_client.py");
    command.arg(format!("ws://{proxy}"));
    command
}

/// Debian's `node-ws`.
fn node_ws(proxy: SocketAddr) -> Command {
    let mut command = Command::new("/usr/bin/node");
    command.arg(peer("lasting_client.js")).arg(format!("ws://{proxy}"));
    command.env("NODE_PATH", "/usr/share/nodejs");
    command
}

/// Waits for the lines of a lasting client's tunnels on either side of elbows, and compares them with what the client said.
/// There are `others` tunnels beside them. Returns the lines in the access log.
fn all_tell_the_same(
    client: &Value,
    application: &Application,
    chain: &Chain,
    others: usize,
) -> Vec<String> {
    let codes = client["codes"].as_array().expect("a list").iter().map(|code| {
        let code = code.as_u64().expect("a number");
        u16::try_from(code).expect("a code")
    });
    let mut expected = vec![("/pinging".to_owned(), 4003, "client")];
    for code in codes {
        expected.push((format!("/ends-{code}"), code, "client"));
        expected.push((format!("/close-{code}"), code, "upstream"));
    }
    assert!(expected.len() > 20, "{client}");
    let mut lines = chain.tunnels_by_target(expected.len() + others);
    let messages = client["messages"].as_u64().expect("a number");
    let ended = application.ended("/pinging", 4003, "the client ends it");
    assert!(ended.ends_with(&format!(" messages={messages}")), "{ended}, not {messages}");
    for side in ["client", "upstream"] {
        let line = &lines["/pinging"];
        assert_eq!(number(line, &format!("messages_from_{side}")), messages, "{line}");
    }
    expected
        .iter()
        .map(|(target, code, by)| {
            let who = if *by == "client" { "client" } else { "application" };
            let ended = application.ended(target, *code, &format!("the {who} ends it"));
            assert!(ended.contains(" extensions=permessage-deflate"), "{ended}");
            let line = lines.remove(target).unwrap_or_else(|| panic!("no line of {target}"));
            let closed = (value(&line, "close_code"), value(&line, "close_by"));
            assert_eq!(closed, (code.to_string().as_str(), *by), "{line}");
            assert!(number(&line, "handoffs") >= HANDOFFS as u64, "{line}");
            line
        })
        .collect()
}

fn goes_on(client: fn(SocketAddr) -> Command, application: &Application) {
    let chain = Chain::start(application.address, &SETTINGS);
    let mut client = Program::start_until_told(client(chain.address));
    client.output.wait_for("open");
    chain.wait_for(HANDOFFS);
    client.finish();
    let client: Value = serde_json::from_str(&client.succeed("done")).unwrap();
    eprintln!("{} messages over {} handoffs", client["messages"], chain.handoffs());
    all_tell_the_same(&client, application, &chain, 0);
}

#[test]
fn websockets_goes_on_with_websockets() {
    goes_on(websockets, &Application::websockets());
}

#[test]
fn websockets_goes_on_with_node_ws() {
    goes_on(websockets, &Application::node_ws());
}

#[test]
fn node_ws_goes_on_with_websockets() {
    goes_on(node_ws, &Application::websockets());
}

#[test]
fn node_ws_goes_on_with_node_ws() {
    goes_on(node_ws, &Application::node_ws());
}

#[test]
fn a_page_of_chromium_keeps_its_websocket_and_misses_nothing() {
    let application = Application::node_ws();
    let chain = Chain::start(application.address, &SETTINGS);
    let browser = Browser::start();
    // A page of another origin may not connect to this machine.
    browser.open(&format!("http://{}/ping", chain.address));
    let script = std::fs::read_to_string(peer("lasting_browser.js")).unwrap();
    browser.run(&script, &[&format!("ws://{}/echo", chain.address)]);
    chain.wait_for(HANDOFFS);
    let so_far = browser.value("told");
    assert_eq!((&so_far["closed"], &so_far["fault"]), (&Value::Null, &Value::Null), "{so_far}");
    chain.wait_for(HANDOFFS);
    let told = browser.run("finish(arguments[0]);", &[]);
    eprintln!("{told} over {} handoffs", chain.handoffs());
    let closed = json!({ "code": 4002, "wasClean": true });
    assert_eq!((&told["closed"], &told["fault"]), (&closed, &Value::Null), "{told}");
    assert_eq!((&told["opened"], &told["came"]), (&json!(1), &told["sent"]), "{told}");
    let messages = told["sent"].as_u64().expect("a number");
    assert!(messages > so_far["sent"].as_u64().expect("a number"), "{told}");
    let ended = application.ended("/echo", 4002, "the client ends it");
    assert!(ended.ends_with(&format!("=permessage-deflate messages={messages}")), "{ended}");
    let line = chain.tunnels_logged(1).remove(0);
    assert!(number(&line, "handoffs") >= 2 * HANDOFFS as u64, "{line}");
    for side in ["client", "upstream"] {
        assert_eq!(number(&line, &format!("messages_from_{side}")), messages, "{line}");
    }
}

/// A WebSocket from its first byte to its last.
fn whole_conversation(address: SocketAddr) {
    let mut client = Client::plain(address);
    client.send(handshake("/echo"));
    assert_eq!(client.read_head().status, 101);
    let mut client = Peer::client(client);
    client.send_frame(TEXT, "fresh");
    client.expect(TEXT, "fresh");
    client.send_close(1000);
    client.expect_close(1000);
}

#[test]
fn haproxy_keeps_its_tunnels_and_no_connection_of_its_is_refused() {
    let application = Application::websockets();
    let chain = Chain::start(application.address, &[TRUST]);
    let server = "send-proxy-v2 check check-send-proxy inter 50ms fall 1";
    let balancer = Balancer::haproxy_with(chain.address, server, "", "  option httpchk GET /ping");
    balancer.wait_for_check("L7OK");
    let mut client = websockets(balancer.address);
    client.arg(balancers::CLIENT.to_string());
    let mut client = Program::start_until_told(client);
    client.output.wait_for("open");
    let is_over = AtomicBool::new(false);
    let fresh = thread::scope(|scope| {
        let fresh = || {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                whole_conversation(balancer.address);
                count += 1;
            }
            count
        };
        let threads = [scope.spawn(fresh), scope.spawn(fresh)];
        chain.wait_for(HANDOFFS);
        is_over.store(true, Ordering::Relaxed);
        threads.map(|thread| thread.join().expect("each is served")).iter().sum::<usize>()
    });
    client.finish();
    let told: Value = serde_json::from_str(&client.succeed("done")).unwrap();
    eprintln!("{told} and {fresh} fresh over {} handoffs", chain.handoffs());
    assert!(fresh > HANDOFFS, "{fresh}");
    let begins = [format!("client={}:", balancers::CLIENT), format!("balancer={BALANCER}:")];
    for line in all_tell_the_same(&told, &application, &chain, fresh) {
        assert!(begins.iter().all(|begin| line.contains(begin)), "{line}");
    }
    // Errors and repetitions of connections to elbows, and health checks that failed.
    for column in ["econ", "wretr", "wredis", "chkfail", "chkdown"] {
        assert_eq!(balancer.column(column), "0", "{column}");
    }
}
