//! An application at several addresses of this machine, the same port at each: what it is sent comes back, message by message
//! where it is a WebSocket, and an answer says which instance gave it. Each of them can be made to do something else.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use socket2::SockRef;
use test_support::frames::{CLOSE, PING, PONG, decode, unmasked};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::client::field;
use crate::proxy::free_port;
use crate::upstream::{read_body, try_read_head};

/// Its instances are numbered from 1, by the last number of their address.
pub(crate) struct Application {
    instances: Vec<Instance>,
    /// Of all its instances.
    pub(crate) port: u16,
}

struct Instance {
    address: SocketAddr,
    tunnels: Arc<Mutex<Vec<TcpStream>>>,
    is_refusing: Arc<AtomicBool>,
    said: Arc<Said>,
}

/// What an instance does with requests and handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// It opens tunnels, and answers requests with 200.
    Well,
    /// It answers all with this status.
    Status(u16),
    /// It changes to a protocol that nobody asked for.
    Switches,
    /// It closes the connection when it has read a head.
    Closes,
    /// It says nothing.
    Hangs,
    /// It says what is no HTTP.
    Garbage,
    /// It sends its answer byte by byte, without an end.
    Drips,
    /// It sends a head without an end as fast as it can.
    Floods,
}

/// What an instance does, and what it was sent.
struct Said {
    does: Mutex<Does>,
    heads: Mutex<Vec<String>>,
}

/// Addresses of this machine that nobody else in this run has, numbered from 1 by their last number, and a port that is
/// free at all of them.
pub(crate) fn addresses(count: u8) -> (Vec<Ipv4Addr>, u16) {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let own = NEXT.fetch_add(1, Ordering::Relaxed);
    let addresses: Vec<_> = (1..=count).map(|last| Ipv4Addr::new(127, 1, own, last)).collect();
    let port = free_port_of(&addresses);
    (addresses, port)
}

/// A port that is free at all of these addresses.
fn free_port_of(addresses: &[Ipv4Addr]) -> u16 {
    loop {
        let port = free_port();
        if addresses.iter().all(|ip| TcpListener::bind((*ip, port)).is_ok()) {
            return port;
        }
    }
}

impl Application {
    pub(crate) fn start(instances: u8) -> Self {
        let (addresses, port) = addresses(instances);
        let start = |ip: &Ipv4Addr| Instance::start(SocketAddr::from((*ip, port)));
        Self { instances: addresses.iter().map(start).collect(), port }
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = std::net::IpAddr> + '_ {
        self.instances.iter().map(|instance| instance.address.ip())
    }

    /// Ends all tunnels of an instance, with a reset.
    pub(crate) fn close(&self, number: usize) {
        for socket in self.instances[number - 1].tunnels.lock().unwrap().drain(..) {
            SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
            // Whoever reads it lets go of it.
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    /// From now on an instance does this.
    pub(crate) fn lets(&self, number: usize, does: Does) {
        *self.instances[number - 1].said.does.lock().unwrap() = does;
    }

    /// The heads that an instance was sent: of checks, or of all others.
    pub(crate) fn heads(&self, number: usize, of_checks: bool) -> Vec<String> {
        let mut heads = self.instances[number - 1].said.heads.lock().unwrap().clone();
        heads.retain(|head| head.contains("User-Agent: elbows-check\r\n") == of_checks);
        heads
    }

    /// An instance that refuses takes connections again.
    pub(crate) fn listen_again(&mut self, number: usize) {
        let instance = &mut self.instances[number - 1];
        let said = Arc::clone(&instance.said);
        *instance = Instance::start_with(instance.address, said);
    }

    /// From now on an instance takes no connection and no request; its tunnels stay.
    pub(crate) fn refuse(&mut self, number: usize) {
        let instance = &self.instances[number - 1];
        instance.is_refusing.store(true, Ordering::Release);
        // It wakes up and is gone.
        drop(TcpStream::connect(instance.address));
        while TcpStream::connect(instance.address).is_ok() {
            thread::yield_now();
        }
    }
}

impl Instance {
    fn start(address: SocketAddr) -> Self {
        let said = Said { does: Mutex::new(Does::Well), heads: Mutex::default() };
        Self::start_with(address, Arc::new(said))
    }

    fn start_with(address: SocketAddr, said: Arc<Said>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let (tunnels, is_refusing) =
            (Arc::<Mutex<Vec<_>>>::default(), Arc::new(AtomicBool::new(false)));
        let instance = Self {
            address,
            tunnels: Arc::clone(&tunnels),
            is_refusing: Arc::clone(&is_refusing),
            said: Arc::clone(&said),
        };
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if is_refusing.load(Ordering::Acquire) {
                    return;
                }
                let (tunnels, said) = (Arc::clone(&tunnels), Arc::clone(&said));
                let is_refusing = Arc::clone(&is_refusing);
                thread::spawn(move || serve(socket, &tunnels, &said, &is_refusing, address));
            }
        });
        instance
    }
}

fn serve(
    mut socket: TcpStream,
    tunnels: &Mutex<Vec<TcpStream>>,
    said: &Said,
    is_refusing: &AtomicBool,
    address: SocketAddr,
) {
    let SocketAddr::V4(address) = address else { return };
    let instance = address.ip().octets()[3];
    let head = loop {
        let Some(head) = try_read_head(&mut socket) else { return };
        if is_refusing.load(Ordering::Acquire) {
            return;
        }
        said.heads.lock().unwrap().push(head.clone());
        let does = *said.does.lock().unwrap();
        if does != Does::Well {
            return answer(&mut socket, does);
        }
        if field(&head, "upgrade").is_some() {
            break head;
        }
        drop(read_body(&mut socket, &head));
        let answer =
            format!("HTTP/1.1 200 OK\r\nInstance: {instance}\r\nContent-Length: 0\r\n\r\n");
        if socket.write_all(answer.as_bytes()).is_err() {
            return;
        }
    };
    tunnels.lock().unwrap().push(socket.try_clone().unwrap());
    let switching = |protocol: &str| {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nInstance: {instance}\r\nConnection: Upgrade\r\n\
             Upgrade: {protocol}\r\n"
        )
    };
    if let Some(key) = field(&head, "sec-websocket-key")
        && field(&head, "upgrade") == Some("websocket")
    {
        let accept = derive_accept_key(key.as_bytes());
        let switching = switching("websocket") + &format!("Sec-WebSocket-Accept: {accept}\r\n\r\n");
        let _ = socket.write_all(switching.as_bytes()).and_then(|()| answer_messages(&mut socket));
        // There is another copy of it.
        let _ = socket.shutdown(Shutdown::Both);
        return;
    }
    if socket.write_all((switching("foo") + "\r\n").as_bytes()).is_err() {
        return;
    }
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = socket.read(&mut buffer) {
        if socket.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// Sends each message back, frame by frame, up to and with the Close.
fn answer_messages(socket: &mut TcpStream) -> io::Result<()> {
    let (mut unread, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        while let Some((frame, used)) = decode(&unread) {
            unread.drain(..used);
            let opcode = match frame.opcode {
                PING => PONG,
                PONG => continue,
                same => same,
            };
            let first = if frame.fin { 0x80 | opcode } else { opcode };
            socket.write_all(&unmasked(first, &frame.payload))?;
            if opcode == CLOSE {
                return Ok(());
            }
        }
        match socket.read(&mut buffer)? {
            0 => return Ok(()),
            count => unread.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Answers with what is no tunnel. Whoever has had enough of it closes.
fn answer(socket: &mut TcpStream, does: Does) {
    let (once, again): (String, &[u8]) = match does {
        Does::Well => return,
        Does::Status(number) => (status(number), b""),
        Does::Closes | Does::Hangs => (String::new(), b""),
        Does::Switches => (
            String::from(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
            ),
            b"",
        ),
        Does::Garbage => (String::from("\0\u{1}\u{7f} 220 smtp.example ready\r\n\r\n"), b""),
        Does::Drips => (String::from("HTTP/1.1 200 OK\r\nX: "), b"x"),
        Does::Floods => (String::from("HTTP/1.1 200 OK\r\n"), &[b'x'; 8 * 1024]),
    };
    if socket.write_all(once.as_bytes()).is_err() {
        return;
    }
    while !again.is_empty() {
        if socket.write_all(again).is_err() {
            return;
        }
        if does == Does::Drips {
            // A drip is slow.
            thread::sleep(Duration::from_millis(20));
        }
    }
    if does == Does::Hangs {
        // Until the other side has had enough.
        drop(socket.read(&mut [0; 64]));
    }
}

fn status(number: u16) -> String {
    format!("HTTP/1.1 {number} So\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}
