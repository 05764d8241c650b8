//! A client beside the one that is measured: it sends frames to an application that looks at none of them, as fast as
//! they are taken, with what is left of the core.
//!
//! Where its tunnel is ended it opens another one.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::connection::{self, Connection, Opening};
use super::{Job, OPEN, Outcome, Window};
use crate::frames::{self, Sender};
use crate::heads::{Path, WEBSOCKET};
use crate::poll::{Interest, Poll, would_block};

/// The token of standard input, and that of the connection.
const INPUT: usize = 0;
const CONNECTION: usize = 1;

/// Bytes that are sent again and again, or a few less: whole frames.
const BLOCK: usize = 256 * 1024;

/// Bytes that one write(2) takes at most: whoever is measured on this core does not wait long for it.
const PIECE: usize = 8 * 1024;

/// The frames that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Frames {
    /// Whole messages with a payload of 64 KiB, by the rules.
    Valid,
    /// `82 00`: no payload, and not masked, as a client's frames must be.
    Unmasked,
    /// No payload, and an opcode that RFC 6455, section 5.2, reserves.
    UnknownOpcode,
}

impl Frames {
    /// What is sent again and again: whole frames.
    fn block(self) -> Vec<u8> {
        let one = match self {
            Self::Valid => {
                frames::frame(Sender::Client, frames::BINARY, &vec![b'n'; BLOCK / 4 - 8])
            }
            Self::Unmasked => frames::frame(Sender::Application, frames::BINARY, &[]),
            Self::UnknownOpcode => frames::frame(Sender::Client, frames::RESERVED, &[]),
        };
        one.repeat(BLOCK / one.len())
    }
}

/// The tunnel of this client.
struct Tunnel {
    connection: Connection,
    /// Bytes of the block that are out.
    out: usize,
}

/// Sends until standard input ends. What is counted are blocks.
pub(super) fn run(job: &Job, frames: Frames) -> io::Result<Outcome> {
    let mut poll = Poll::new()?;
    poll.add(io::stdin(), INPUT, Interest::Read)?;
    let block = frames.block();
    let mut tunnel = Tunnel::open(job, &poll)?;
    println!("{OPEN}");
    let mut window = Window::new(job);
    window.is_over()?;
    let mut ready = Vec::new();
    let mut buffer = vec![0; BLOCK];
    loop {
        // It keeps its core awake.
        poll.wait(&mut ready, Some(Duration::ZERO))?;
        for event in &ready {
            if event.token == INPUT {
                return window.close();
            }
            match tunnel.advance(&block, &mut buffer) {
                Ok(Some(true)) => window.add(),
                Ok(Some(false)) => {}
                Ok(None) | Err(_) => tunnel = Tunnel::open(job, &poll)?,
            }
        }
    }
}

impl Tunnel {
    fn open(job: &Job, poll: &Poll) -> io::Result<Self> {
        let opened = connection::open(job, Opening::Upgrade(Path::Sink, WEBSOCKET))?;
        let connection = opened.into_iter().next();
        let connection =
            connection.ok_or_else(|| io::Error::other("no connection was asked for"))?;
        poll.add(&connection.socket, CONNECTION, Interest::ReadWrite)?;
        Ok(Self { connection, out: 0 })
    }

    /// Reads once, and writes once. None where the tunnel has ended, true when a block is out.
    fn advance(&mut self, block: &[u8], buffer: &mut [u8]) -> io::Result<Option<bool>> {
        match self.connection.socket.read(buffer) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(fault) if would_block(&fault) => {}
            Err(fault) => return Err(fault),
        }
        let piece = block.get(self.out..).unwrap_or_default();
        let piece = piece.get(..PIECE).unwrap_or(piece);
        match self.connection.socket.write(piece) {
            Ok(length) => self.out += length,
            Err(fault) if would_block(&fault) => {}
            Err(fault) => return Err(fault),
        }
        let is_out = self.out == block.len();
        if is_out {
            self.out = 0;
        }
        Ok(Some(is_out))
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Frames};

    #[test]
    fn blocks_are_whole_frames_of_their_kind() {
        let valid = Frames::Valid.block();
        assert_eq!((valid.len(), &valid[..4]), (BLOCK, [0x82, 0xfe, 0xff, 0xf8].as_slice()));
        let unmasked = Frames::Unmasked.block();
        assert_eq!((unmasked.len(), &unmasked[BLOCK - 2..]), (BLOCK, [0x82, 0].as_slice()));
        let unknown = Frames::UnknownOpcode.block();
        assert_eq!((unknown.len() % 6, &unknown[..6]), (0, [0x83, 0x80, 0, 0, 0, 0].as_slice()));
    }
}
