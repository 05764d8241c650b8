//! Simulated prices: invented symbols, each on a random walk.
//!
//! One market for all clients, so that two windows show the same prices. A client that is too slow
//! misses prices and is never the reason that they pile up in memory.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::broadcast;
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::now;

/// The symbols, and where they start, in cents.
const SYMBOLS: [(&str, i32); 5] =
    [("ELBO", 12_850), ("FRAME", 4_215), ("PING", 1_000), ("PONG", 1_000), ("SOCK", 31_400)];

/// The time between two prices. With five symbols in turn, each changes every 250 ms.
const PERIOD: Duration = Duration::from_millis(50);

/// How many prices a client may fall behind before it misses some: about three seconds.
const BEHIND: usize = 64;

/// A price falls no lower than this, in cents.
const FLOOR: i32 = 100;

/// The market: clients subscribe to it, and [`Market::trade`] moves it.
#[derive(Clone)]
pub(super) struct Market(broadcast::Sender<Utf8Bytes>);

impl Market {
    pub(super) fn new() -> Self {
        Self(broadcast::Sender::new(BEHIND))
    }

    /// Prices from now on, each a JSON object.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Utf8Bytes> {
        self.0.subscribe()
    }

    /// Moves one price after another. Never returns.
    pub(super) async fn trade(&self) {
        let mut walks = SYMBOLS.map(|(symbol, cents)| Walk::new(symbol, cents));
        let mut dice = Dice(RandomState::new().hash_one(0_u8));
        let mut clock = tokio::time::interval(PERIOD);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sequence = 0_u64;
        loop {
            for walk in &mut walks {
                clock.tick().await;
                walk.step(&mut dice);
                sequence += 1;
                if self.0.receiver_count() == 0 {
                    continue;
                }
                let quote = walk.quote(sequence);
                if let Ok(json) = serde_json::to_string(&quote) {
                    // Fails only if the last client has just gone.
                    let _ = self.0.send(json.into());
                }
            }
        }
    }
}

/// One message of the ticker.
#[derive(Serialize)]
struct Quote {
    /// Counts all prices; a gap means that the client was too slow for some.
    sequence: u64,
    symbol: &'static str,
    price: f64,
    /// Since the application started.
    change: f64,
    /// The application's clock, in milliseconds since 1970.
    sent: f64,
}

struct Walk {
    symbol: &'static str,
    start: i32,
    cents: i32,
}

impl Walk {
    const fn new(symbol: &'static str, cents: i32) -> Self {
        Self { symbol, start: cents, cents }
    }

    /// Up or down by up to 0.2 %, and by a cent at least sometimes.
    fn step(&mut self, dice: &mut Dice) {
        let reach = (self.cents / 500).max(1);
        self.cents = (self.cents + dice.roll(reach)).clamp(FLOOR, self.start.saturating_mul(10));
    }

    fn quote(&self, sequence: u64) -> Quote {
        Quote {
            sequence,
            symbol: self.symbol,
            price: f64::from(self.cents) / 100.0,
            change: f64::from(self.cents - self.start) / 100.0,
            sent: now(),
        }
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): small, and good enough for prices that nobody pays.
struct Dice(u64);

impl Dice {
    /// A number from `-reach` to `reach`. `reach` is positive.
    fn roll(&mut self, reach: i32) -> i32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let sides = i64::from(reach) * 2 + 1;
        let [a, b, c, d, ..] = (mixed ^ (mixed >> 31)).to_ne_bytes();
        let side = i64::from(u32::from_ne_bytes([a, b, c, d])) % sides;
        i32::try_from(side - i64::from(reach)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_show_every_side_and_no_other() {
        let mut dice = Dice(1);
        let mut seen = [0_u32; 5];
        for _ in 0..10_000 {
            let roll = usize::try_from(dice.roll(2) + 2).unwrap_or(usize::MAX);
            if let Some(count) = seen.get_mut(roll) {
                *count += 1;
            }
        }
        assert_eq!(seen.iter().sum::<u32>(), 10_000);
        assert!(seen.iter().all(|&count| count > 1_500), "{seen:?}");
    }

    #[test]
    fn walk_stays_between_its_bounds() {
        let mut dice = Dice(2);
        let mut low = Walk::new("LOW", FLOOR);
        let mut moved = false;
        for _ in 0..10_000 {
            low.step(&mut dice);
            moved |= low.cents != FLOOR;
            assert!((FLOOR..=FLOOR * 10).contains(&low.cents));
        }
        assert!(moved);
    }
}
