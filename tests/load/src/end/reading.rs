//! What comes at one end of a tunnel: messages are checked and, where the plan says so, sent back; control frames are
//! answered.

use std::time::Duration;

use test_support::frames::{CLOSE, PONG};
use tokio::time::Instant;

use super::{End, NORMAL, OWN_PING};
use crate::content::{Fault, Side, stamp};
use crate::frames::{Part, frame, frame_head};
use crate::plan::BARE_SIZE;

impl End {
    /// The end of the stream.
    pub(super) fn take_end(&mut self) -> Result<(), String> {
        self.is_all_read = true;
        let is_expected = if self.plan.is_bare {
            // The application hears late that it is time; that nothing is missing show the hashes.
            let is_time = self.side == Side::Application || self.is_to_finish;
            let enough = self.plan.peer_ends_after.unwrap_or(u64::MAX);
            self.bare == 0 && (is_time || self.verifier.messages() == enough)
        } else {
            self.has_ended && self.peer_ended.is_some()
        };
        self.peer_ended.get_or_insert_with(Instant::now);
        if is_expected { Ok(()) } else { Err("end".to_owned()) }
    }

    /// Bytes that came.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.outcome.wire_received += bytes.len() as u64;
        if let (Some(stall), false) = (self.plan.stall, self.is_to_finish) {
            self.budget = self.budget.saturating_sub(bytes.len());
            if self.budget == 0 {
                self.stalls_until = Some(Instant::now() + Duration::from_millis(stall.time));
            }
        }
        let taken = if self.plan.is_bare { self.take_bare(bytes) } else { self.take_frames(bytes) };
        taken.map_err(|fault| {
            // A Close of somebody else is no fault of a byte.
            let how = if fault.what == "close" { "close" } else { "fault" };
            self.outcome.fault = Some(fault);
            how.to_owned()
        })
    }

    fn take_bare(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(BARE_SIZE - self.bare));
            bytes = rest;
            self.verifier.feed(part)?;
            self.bare += part.len();
            if self.bare == BARE_SIZE {
                self.bare = 0;
                let made = self.verifier.end_message()?;
                self.note(made);
            }
        }
        Ok(())
    }

    fn take_frames(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        loop {
            let part = self.parser.next(&mut bytes);
            let part = part.map_err(|rule| self.verifier.fault("framing", &rule))?;
            let Some(part) = part else { return Ok(()) };
            if self.peer_ended.is_some() {
                return Err(self.verifier.fault("framing", "a frame behind a Close"));
            }
            match part {
                Part::Begin { fin, opcode, length } if self.plan.echoes => {
                    self.out.extend(frame_head(self.side, fin, opcode, length));
                    self.is_in_frame = true;
                }
                Part::Begin { .. } => {}
                Part::Payload(payload) => {
                    self.verifier.feed(payload)?;
                    if self.plan.echoes {
                        self.writer.add(payload);
                        self.out.extend_from_slice(payload);
                    }
                }
                Part::End { fin } => {
                    if self.plan.echoes {
                        self.is_in_frame = false;
                        self.out.append(&mut self.controls);
                    }
                    if fin {
                        self.take_message()?;
                    }
                }
                Part::Control(opcode, payload) => self.take_control(opcode, &payload)?,
            }
        }
    }

    fn take_message(&mut self) -> Result<(), Fault> {
        let made = self.verifier.end_message()?;
        if self.plan.echoes {
            self.writer.end_message();
        } else if !self.plan.awaits_echo {
            self.note(made);
        } else if let Some(sent) = self.echoes.pop_front() {
            self.note(sent);
        }
        Ok(())
    }

    fn take_control(&mut self, opcode: u8, payload: &[u8]) -> Result<(), Fault> {
        match opcode {
            CLOSE if payload != NORMAL.to_be_bytes() => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                let text = format!("a Close with {code:?} instead of {NORMAL}");
                return Err(self.verifier.fault("close", &text));
            }
            CLOSE => self.peer_ended = Some(Instant::now()),
            PONG => {
                let number = payload.strip_prefix(OWN_PING).and_then(|rest| rest.first_chunk());
                let number = number.map(|bytes| u64::from_be_bytes(*bytes));
                match (number, self.pongs.pop_front()) {
                    (Some(number), Some((awaited, sent))) if number == awaited => {
                        self.outcome.pongs += 1;
                        if self.plan.times_pings {
                            self.delay(sent);
                        }
                    }
                    (_, awaited) => {
                        let text = format!("Pong {number:?} came, awaited was {awaited:?}");
                        return Err(self.verifier.fault("control", &text));
                    }
                }
            }
            _ => {
                let number = payload.strip_prefix(OWN_PING).and_then(|rest| rest.first_chunk());
                match number.map(|bytes| u64::from_be_bytes(*bytes)) {
                    None => self.outcome.proxy_pings += 1,
                    Some(number) if number == self.peer_ping => self.peer_ping += 1,
                    Some(number) => {
                        let text = format!("Ping {number} came, awaited was {}", self.peer_ping);
                        return Err(self.verifier.fault("control", &text));
                    }
                }
                if !self.has_ended {
                    self.controls.extend(frame(self.side, true, PONG, payload));
                    if !self.is_in_frame {
                        self.out.append(&mut self.controls);
                    }
                }
            }
        }
        Ok(())
    }

    /// A message, or its echo, took from then until now. Behind full buffers that says nothing.
    fn note(&mut self, then: u64) {
        if self.plan.stall.is_none() {
            self.delay(then);
        }
    }

    fn delay(&mut self, then: u64) {
        // When all tunnels end at once, each takes longer.
        if self.is_to_finish {
            return;
        }
        let now = stamp();
        let delay = u32::try_from(now.saturating_sub(then) / 1_000).unwrap_or(u32::MAX);
        self.outcome.delays.push(delay);
        self.outcome.gap = self.outcome.gap.max(Some((delay, now)));
    }
}
