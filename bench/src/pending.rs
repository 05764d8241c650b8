//! What a socket did not take yet: the application, the load and the limit keep it, and write it when there is room.

use std::io::{self, Write as _};
use std::net::TcpStream;

use crate::poll::would_block;

/// Bytes that wait for one socket.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    bytes: Vec<u8>,
    /// So many of them are out.
    out: usize,
}

impl Pending {
    /// Bytes that are to be written first.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self { bytes, out: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.out == self.bytes.len()
    }

    /// All of them, to be written by others.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.drain(..std::mem::take(&mut self.out));
        bytes
    }

    /// Writes `bytes`, unless others wait before them, and keeps what the socket does not take.
    pub(crate) fn write(&mut self, mut socket: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        if self.is_empty() && !rest.is_empty() {
            let length = match socket.write(rest) {
                Ok(length) => length,
                Err(fault) if would_block(&fault) => 0,
                Err(fault) => return Err(fault),
            };
            rest = rest.get(length..).unwrap_or_default();
        }
        self.bytes.extend_from_slice(rest);
        Ok(())
    }

    /// Writes what waits, as far as the socket takes it.
    pub(crate) fn flush(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        match socket.write(self.bytes.get(self.out..).unwrap_or_default()) {
            Ok(length) => self.out += length,
            Err(fault) if would_block(&fault) => {}
            Err(fault) => return Err(fault),
        }
        if self.is_empty() {
            self.bytes.clear();
            self.out = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};

    use super::Pending;

    #[test]
    fn all_bytes_come_in_their_order() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut reader = listener.accept().unwrap().0;
        let sent: Vec<u8> = (0..16_u32 << 20).map(|number| number.to_le_bytes()[1]).collect();
        let mut pending = Pending::default();
        // More than a socket takes at once.
        let (first, second) = sent.split_at(12 << 20);
        pending.write(&socket, first).unwrap();
        assert!(!pending.is_empty());
        // Now there is room, and the others go first all the same.
        let mut read = vec![0; 1 << 20];
        reader.read_exact(&mut read).unwrap();
        pending.write(&socket, second).unwrap();
        let reading = std::thread::spawn(move || {
            reader.read_to_end(&mut read).unwrap();
            read
        });
        while !pending.is_empty() {
            pending.flush(&socket).unwrap();
        }
        drop(socket);
        assert!(reading.join().unwrap() == sent);
    }
}
