//! What answers at the address and is no elbows, and what it must not do to a terminal.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};

use super::terminal::Terminal;
use super::{TOKEN, run, stderr};
use crate::programs::wait_until;

/// Answers each connection's first bytes with what `answer` makes of them, and closes it.
fn stranger(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let _ = serve(socket, &answer);
        }
    });
    address
}

fn serve(mut socket: TcpStream, answer: &impl Fn(&str) -> Vec<u8>) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let read = socket.read(&mut request)?;
    socket.write_all(&answer(&String::from_utf8_lossy(&request[..read])))?;
    socket.shutdown(std::net::Shutdown::Write)?;
    // What it says is read to the end before the connection goes.
    while socket.read(&mut request)? > 0 {}
    Ok(())
}

fn http(status: u16, content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Whatever\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

#[test]
fn answer_that_is_no_elbows_is_one_sentence_and_exit_code_1() {
    let banner = |_: &str| b"SSH-2.0-OpenSSH_9.2\r\n".to_vec();
    let html = |_: &str| http(404, "text/html", "<h1>\u{1b}[31mnot found</h1>");
    let other_json = |_: &str| http(200, "application/json", "{\"status\":\"\u{202e}up\"}");
    let half = |_: &str| b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec();
    let nothing = |_: &str| Vec::new();
    let long_head =
        |_: &str| format!("HTTP/1.1 200 OK\r\nA: {}\r\n", "x".repeat(100_000)).into_bytes();
    let large = |_: &str| http(200, "application/json", &"[".repeat(17 * 1024 * 1024));
    let refused =
        |_: &str| http(503, "application/json", "{\"status\":503,\"error\":\"no\\u001b[2J\"}");
    for (address, sentence) in [
        (stranger(banner), "is no admin port of an elbows: it does not speak HTTP"),
        (stranger(html), "is no admin port of an elbows: it answers 404 to /api/summary"),
        (stranger(other_json), "what it answers to /api/summary is not understood"),
        (stranger(half), "the answer broke off"),
        (stranger(nothing), "the connection ended without an answer"),
        (stranger(long_head), "is no admin port of an elbows: it does not speak HTTP"),
        (stranger(large), "it answers more than 16 MiB to /api/summary"),
        (stranger(refused), "no\u{fffd}[2J"),
    ] {
        for flag in ["--once", "--json"] {
            let output = run(&[flag, &address.to_string()], &[]);
            let said = stderr(&output);
            assert!(said.contains(sentence), "{said:?} is not about {sentence:?}");
            assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
            assert!(output.stdout.is_empty());
            assert!(
                !said.trim_end().chars().any(|one| one.is_control() || one == '\u{202e}'),
                "{said:?}"
            );
        }
    }
}

/// Nothing comes, and it does not wait for ever.
#[test]
fn silence_is_told_after_five_seconds() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let output = run(&["--once", &address.to_string()], &[]);
    let sentence = format!("elbows: no answer from {address}: nothing came within 5 s\n");
    assert_eq!((output.status.code(), stderr(&output)), (Some(1), sentence));
}

/// Orders to a terminal of every kind, as JSON can carry them.
const HOSTILE: &str = "/\u{1b}]2;owned\u{7}\u{1b}[2J\u{1b}[31m\u{9b}2J\u{90}x\u{7f}\u{8}\r\n\t\u{202e}abc\u{2066}\u{2069}\u{0}";

/// An elbows as a hostile server would play it: each text is an attack.
fn hostile(target: &str) -> Value {
    let tunnel = json!({
        "id": "0-1-00000000000000ab", "client": HOSTILE, "balancer": HOSTILE, "upstream": HOSTILE,
        "request": HOSTILE, "path": HOSTILE, "request_id": HOSTILE, "host": HOSTILE, "user_agent": HOSTILE,
        "subprotocol": HOSTILE, "protocol": HOSTILE, "state": HOSTILE, "age": 1e300, "idle": -1.0,
        "from_client": u64::MAX, "from_upstream": 1, "messages_from_client": 1, "messages_from_upstream": 1,
        "payload_from_client": 1, "payload_from_upstream": 1, "waiting_for_client": 1, "waiting_for_upstream": 1,
        "ping_rtt": 1e300, "ping_rtt_worst": 0.0, "close_code": 1, "close_by": HOSTILE, "handoffs": 1,
    });
    match target {
        "/api/summary" => json!({
            "version": HOSTILE, "pid": 1, "started": 0.5, "uptime": 1e300, "draining": true, "workers": 1,
            "connections_open": 1, "tunnels_open": u64::MAX, "tunnels_opened": 1, "tunnels_closed": 1,
            "messages_from_client": 1, "messages_from_upstream": 1, "payload_from_client": 1,
            "payload_from_upstream": u64::MAX, "handed_in": 1, "handed_out": 1,
            "drain": { "answered": 1, "unanswered": 1, "cut": 1 },
            "ends": [{ "by": HOSTILE, "during": HOSTILE, "why": HOSTILE, "number": 1 }],
            "closes": [{ "code": HOSTILE, "by": HOSTILE, "number": 1 }],
            "cpu_seconds": -1e300, "resident_memory_bytes": u64::MAX, "open_fds": 1, "max_fds": null,
        }),
        "/api/endpoints" => {
            json!({ "endpoints": [{ "address": HOSTILE, "state": HOSTILE }], "fault": HOSTILE })
        }
        _ if target.starts_with("/api/tunnels?") => {
            json!({ "tunnels": [tunnel], "matched": 1, "open": 1, "next": HOSTILE })
        }
        _ if target.contains("/close") => json!({ "status": 409, "error": HOSTILE }),
        _ => tunnel,
    }
}

#[test]
fn no_text_of_a_server_is_an_order_to_the_terminal() {
    let address = stranger(|request| {
        let target = request.split(' ').nth(1).unwrap_or_default();
        let status = if target.contains("/close") { 409 } else { 200 };
        // serde_json writes C0 as escapes and the rest as it is: both are read.
        http(status, "application/json", &hostile(target).to_string())
    });
    let address = address.to_string();
    let variables = [("ADMIN_TOKEN", TOKEN), ("NO_COLOR", "1")];
    let terminal = Terminal::start((200, 40), &variables, &[&address]);
    terminal.wait_for("DRAINING");
    let written = terminal.record();
    terminal.resize(201, 40);
    let shown = "/\u{fffd}]2;owned\u{fffd}\u{fffd}[2J";
    terminal.wait_for(shown);
    for keys in [&["Enter"][..], &["t"], &["Escape"], &["c", "Enter", "Enter", "y"]] {
        for key in keys {
            terminal.press(key);
        }
        terminal.wait_for(shown);
    }
    // The fault that the order to close got.
    let foot = |screen: &str| screen.lines().nth(38).is_some_and(|line| line.starts_with(shown));
    terminal.wait_until("the fault is told", foot);
    assert_ne!(terminal.state("pane_title"), "owned");
    let bytes = std::fs::read(&written).unwrap();
    let bytes = String::from_utf8_lossy(&bytes);
    assert!(bytes.contains(shown), "nothing was recorded");
    for order in
        ["\u{1b}]", "\u{1b}[31m", "\u{9b}", "\u{90}", "\u{7f}", "\u{7}", "\u{202e}", "\u{2066}"]
    {
        assert!(!bytes.contains(order), "{order:?} was written: {bytes:?}");
    }
    terminal.press("q");
    terminal.expect_end(0);

    let once = run(&["--once", &address], &[]);
    let text = String::from_utf8(once.stdout).unwrap();
    assert!(text.contains(shown), "{text:?}");
    assert!(!text.chars().any(|one| one != '\n' && one.is_control()), "{text:?}");
    assert!(!text.contains('\u{202e}'), "{text:?}");
    // Programs get the texts as they are, escaped.
    let json = run(&["--json", &address], &[]);
    let text = String::from_utf8(json.stdout).unwrap();
    assert!(
        text.contains("\\u001b]2;owned\\u0007")
            && text.contains("\\u009b2J")
            && text.contains("\\u202e")
    );
    assert!(!text.trim_end().chars().any(char::is_control), "{text:?}");
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["tunnels"]["tunnels"][0]["path"], HOSTILE);
}

/// It was elbows, and now it is something else: that is said, and it goes on once elbows is there again.
#[test]
fn what_stops_being_elbows_is_told_of_while_it_lasts() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    let is_elbows = Arc::new(AtomicBool::new(true));
    let address = stranger({
        let is_elbows = Arc::clone(&is_elbows);
        move |request| {
            let target = request.split(' ').nth(1).unwrap_or_default();
            if is_elbows.load(Ordering::Relaxed) {
                http(200, "application/json", &hostile(target).to_string())
            } else {
                http(404, "text/plain", "nothing here")
            }
        }
    });
    let terminal = Terminal::start((120, 24), &[], &[&address.to_string()]);
    terminal.wait_for("DRAINING");
    is_elbows.store(false, Ordering::Relaxed);
    terminal.wait_for(
        "is no admin port of an elbows: it answers 404 to /api/summary; asking again for",
    );
    is_elbows.store(true, Ordering::Relaxed);
    wait_until("it goes on", || !terminal.screen().contains("asking again"));
}
