//! An application at several addresses of this machine, the same port at each: what it is sent comes back, message by message
//! where it is a WebSocket, and an answer says which instance gave it.

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
use crate::upstream::try_read_head;

/// Its instances are numbered from 1, by the last number of their address.
pub(super) struct Application {
    instances: Vec<Instance>,
    /// Of all its instances.
    pub(super) port: u16,
}

struct Instance {
    address: SocketAddr,
    tunnels: Arc<Mutex<Vec<TcpStream>>>,
    is_refusing: Arc<AtomicBool>,
}

/// Addresses of this machine that nobody else in this run has, numbered from 1 by their last number, and a port that is
/// free at all of them.
pub(super) fn addresses(count: u8) -> (Vec<Ipv4Addr>, u16) {
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
    pub(super) fn start(instances: u8) -> Self {
        let (addresses, port) = addresses(instances);
        let start = |ip: &Ipv4Addr| Instance::start(SocketAddr::from((*ip, port)));
        Self { instances: addresses.iter().map(start).collect(), port }
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = std::net::IpAddr> + '_ {
        self.instances.iter().map(|instance| instance.address.ip())
    }

    /// Ends all tunnels of an instance, with a reset.
    pub(super) fn close(&self, number: usize) {
        for socket in self.instances[number - 1].tunnels.lock().unwrap().drain(..) {
            SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
            // Whoever reads it lets go of it.
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    /// From now on an instance takes no connection and no request; its tunnels stay.
    pub(super) fn refuse(&mut self, number: usize) {
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
        let listener = TcpListener::bind(address).unwrap();
        let (tunnels, is_refusing) =
            (Arc::<Mutex<Vec<_>>>::default(), Arc::new(AtomicBool::new(false)));
        let instance =
            Self { address, tunnels: Arc::clone(&tunnels), is_refusing: Arc::clone(&is_refusing) };
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if is_refusing.load(Ordering::Acquire) {
                    return;
                }
                let (tunnels, is_refusing) = (Arc::clone(&tunnels), Arc::clone(&is_refusing));
                thread::spawn(move || serve(socket, &tunnels, &is_refusing, address));
            }
        });
        instance
    }
}

fn serve(
    mut socket: TcpStream,
    tunnels: &Mutex<Vec<TcpStream>>,
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
        if field(&head, "upgrade").is_some() {
            break head;
        }
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
