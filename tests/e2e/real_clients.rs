//! Other people's clients that hold a tunnel: each echoes what comes and tells how it was closed.
//!
//! None speaks by itself, and each answers Pings below anything that its user sees, as RFC 6455,
//! section 5.5.2, says. The tests of pings and of the drain are held with each of them.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread::{self, JoinHandle};

use tokio_tungstenite::tungstenite::{self, Message};

use crate::browser::Browser;
use crate::programs::{Program, peer, python};
use crate::proxy::PATIENCE;

/// How a WebSocket was closed, as `CloseEvent` tells it.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed {
    pub code: u16,
    pub was_clean: bool,
}

/// Connects to a URL, echoes, and returns how it ended.
pub type Start = fn(SocketAddr) -> JoinHandle<Closed>;

/// Python's `websockets`.
pub fn websockets(address: SocketAddr) -> JoinHandle<Closed> {
    program(python("echoing_client.py"), address)
}

/// Debian's `node-ws`.
pub fn node_ws(address: SocketAddr) -> JoinHandle<Closed> {
    let mut command = Command::new("/usr/bin/node");
    command.arg(peer("echoing_client.js")).env("NODE_PATH", "/usr/share/nodejs");
    program(command, address)
}

fn program(mut command: Command, address: SocketAddr) -> JoinHandle<Closed> {
    command.arg(url(address));
    let program = Program::start(command);
    thread::spawn(move || {
        let told = program.succeed("closed ");
        let (code, was_clean) = told.split_once(' ').expect("two words");
        Closed { code: code.parse().unwrap(), was_clean: was_clean.to_lowercase() == "true" }
    })
}

/// tungstenite.
pub fn tungstenite(address: SocketAddr) -> JoinHandle<Closed> {
    thread::spawn(move || {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(3 * PATIENCE)).unwrap();
        let (mut socket, _) = tungstenite::client(url(address), socket).expect("a WebSocket");
        let mut code = 1006;
        loop {
            match socket.read() {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                    socket.send(message).expect("it is open");
                }
                Ok(Message::Close(frame)) => code = frame.map_or(1005, |frame| frame.code.into()),
                Ok(_) => {}
                // Its word for a closing handshake that is complete.
                Err(tungstenite::Error::ConnectionClosed) => {
                    return Closed { code, was_clean: true };
                }
                Err(error) => {
                    eprintln!("tungstenite: {error}");
                    return Closed { code, was_clean: false };
                }
            }
        }
    })
}

/// Chromium.
pub fn chromium(address: SocketAddr) -> JoinHandle<Closed> {
    let browser = Browser::start();
    // A page of another origin may not connect to this machine.
    browser.open(&format!("http://{address}/ping"));
    thread::spawn(move || {
        let script = std::fs::read_to_string(peer("echoing_browser.js")).unwrap();
        let closed = browser.run(&script, &[&url(address)]);
        Closed {
            code: u16::try_from(closed["code"].as_u64().expect("a code")).unwrap(),
            was_clean: closed["wasClean"].as_bool().expect("a truth"),
        }
    })
}

fn url(address: SocketAddr) -> String {
    format!("ws://{address}/ws")
}
