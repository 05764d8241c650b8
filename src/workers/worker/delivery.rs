//! Tunnels that are over but for their last bytes: how long those have to arrive.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::Worker;

/// How long the last bytes have to arrive before the reset that follows them.
///
/// A reset (`SO_LINGER` 0) throws away what is in the send queue, and one that overtakes lost data
/// makes it lost for good; some systems drop unread data when one arrives. Whether all has been
/// acknowledged cannot be asked without `unsafe` (`SIOCOUTQ`), so that every reset that is passed on
/// waits. A FIN would not lose anything, but it would call a stream complete that was cut. One
/// second covers one retransmission on a long way (RFC 6298 starts with 1 s, Linux with 200 ms above
/// the round trip), and nobody waits for a reset. It is cut short where the other side is reset, too.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// The slot may have ended early and been filled again: it is meant if it has the same number.
pub(super) struct Delivery {
    until: Instant,
    key: usize,
    number: NonZeroU32,
}

impl Worker {
    pub(super) fn begin_delivery(&mut self, key: usize) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        self.deliveries_begun = self.deliveries_begun.checked_add(1).unwrap_or(NonZeroU32::MIN);
        slot.delivery = Some(self.deliveries_begun);
        self.deliveries.push_back(Delivery {
            until: Instant::now() + LAST_BYTES,
            key,
            number: self.deliveries_begun,
        });
    }

    /// Ends those whose time has come; the time to the next one. Without any, no clock is asked.
    pub(super) fn end_deliveries(&mut self) -> Option<Duration> {
        self.deliveries.front()?;
        let now = Instant::now();
        while let Some(&Delivery { until, key, number }) = self.deliveries.front() {
            if now < until {
                return Some(until - now);
            }
            self.deliveries.pop_front();
            let slot = self.slots.get(key);
            if slot.is_some_and(|slot| slot.delivery == Some(number)) {
                self.end(key);
            }
        }
        None
    }
}
