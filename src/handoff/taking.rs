//! Taking tunnels from the other process, batch by batch.
//!
//! ```text
//!           checked: TAKEN            YOURS, or the other process is dead
//! Checking ────────────────▶ Held ──────────────────────────────────────▶ adopted
//!                             │ ABORT
//!                             ▼
//!                         forgotten
//! ```

use std::collections::VecDeque;

use super::Action;
use super::giving::Malformed;
use super::message::{Message, Taken};

#[derive(Debug, Default)]
pub(crate) struct Taking {
    next: u32,
    batches: VecDeque<Batch>,
}

#[derive(Debug)]
struct Batch {
    number: u32,
    is_checked: bool,
}

impl Taking {
    /// BATCH came.
    pub(crate) fn batch(
        &mut self,
        number: u32,
        actions: &mut VecDeque<Action>,
    ) -> Result<(), Malformed> {
        // One for which there was no tunnel left is not sent.
        if number < self.next {
            return Err(Malformed);
        }
        self.next = number.saturating_add(1);
        self.batches.push_back(Batch { number, is_checked: false });
        actions.push_back(Action::Check { number });
        Ok(())
    }

    /// The batch can be gone on with, but for those at these places.
    pub(crate) fn checked(
        &mut self,
        number: u32,
        refused: Vec<u16>,
        actions: &mut VecDeque<Action>,
    ) {
        if let Some(batch) = self.batches.iter_mut().find(|batch| batch.number == number) {
            batch.is_checked = true;
            actions.push_back(Action::Send(Message::Taken(Taken { number, refused })));
        }
    }

    /// YOURS came.
    pub(crate) fn yours(
        &mut self,
        number: u32,
        actions: &mut VecDeque<Action>,
    ) -> Result<(), Malformed> {
        match self.batches.front() {
            Some(first) if first.number == number && first.is_checked => {
                self.batches.pop_front();
                actions.push_back(Action::Adopt { number });
                Ok(())
            }
            _ => Err(Malformed),
        }
    }

    /// ABORT came: what is held is the other's.
    pub(crate) fn abandon(&mut self, actions: &mut VecDeque<Action>) {
        let forget = |batch: Batch| Action::Forget { number: batch.number };
        actions.extend(self.batches.drain(..).map(forget));
    }

    /// The other process is dead: nobody else has what is held. All of it was checked, for that takes no message.
    pub(crate) fn inherit(&mut self, actions: &mut VecDeque<Action>) {
        let adopt = |batch: Batch| Action::Adopt { number: batch.number };
        actions.extend(self.batches.drain(..).map(adopt));
    }
}
