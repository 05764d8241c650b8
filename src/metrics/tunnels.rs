//! How the tunnels of the process ended: counted once a tunnel, by whichever thread tells its end. Pure.

use std::time::Duration;

use super::Counter;
use super::families::TUNNEL_TIMES;
use super::labels::CloseCode;
use super::own::Histogram;
use crate::end::{End, Phase, Reason, Side};

/// How tunnels ended.
#[derive(Debug)]
pub(crate) struct TunnelEnds {
    closed: [[[Counter; Reason::COUNT]; Phase::COUNT]; Side::COUNT],
    closes: [[Counter; Side::COUNT]; CloseCode::COUNT],
    pub(crate) durations: Histogram<{ TUNNEL_TIMES.len() }, Counter>,
}

impl Default for TunnelEnds {
    fn default() -> Self {
        use std::array::from_fn;
        Self {
            closed: from_fn(|_| from_fn(|_| from_fn(|_| Counter::default()))),
            closes: from_fn(|_| from_fn(|_| Counter::default())),
            durations: Histogram::default(),
        }
    }
}

impl TunnelEnds {
    /// A tunnel of this age ended so; `close` is its first Close.
    pub(crate) fn count(&self, end: End, close: Option<(u16, Side)>, age: Duration) {
        let counter = self
            .closed
            .get(end.by.index())
            .and_then(|phases| phases.get(end.during.index()))
            .and_then(|reasons| reasons.get(end.why.index()));
        if let Some(counter) = counter {
            counter.add(1);
        }
        if let Some((code, by)) = close
            && let Some(counter) =
                self.closes.get(CloseCode::of(code).index()).and_then(|sides| sides.get(by.index()))
        {
            counter.add(1);
        }
        self.durations.observe_time(age, &TUNNEL_TIMES);
    }

    /// How often there was each end.
    pub(crate) fn closed(&self) -> impl Iterator<Item = (End, u64)> {
        Side::ALL.into_iter().zip(&self.closed).flat_map(|(by, phases)| {
            Phase::ALL.into_iter().zip(phases).flat_map(move |(during, reasons)| {
                Reason::ALL
                    .into_iter()
                    .zip(reasons)
                    .map(move |(why, counter)| (End { by, during, why }, counter.here()))
            })
        })
    }

    /// The first Closes that there were, and how often.
    pub(crate) fn closes(&self) -> impl Iterator<Item = (CloseCode, Side, u64)> {
        CloseCode::all().zip(&self.closes).flat_map(|(code, sides)| {
            Side::ALL.into_iter().zip(sides).filter_map(move |(by, counter)| {
                let number = counter.here();
                (number > 0).then_some((code, by, number))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_a_number_of_its_own() {
        let ends = TunnelEnds::default();
        let all = Side::ALL.into_iter().flat_map(|by| {
            Phase::ALL
                .into_iter()
                .flat_map(move |during| Reason::ALL.map(|why| End { by, during, why }))
        });
        let mut expected = Vec::new();
        for (number, end) in (1..).zip(all) {
            (0..number).for_each(|_| ends.count(end, None, Duration::from_secs(1)));
            expected.push((end, number));
        }
        assert_eq!(ends.closed().collect::<Vec<_>>(), expected);
        assert_eq!(ends.closes().count(), 0);
    }

    #[test]
    fn closes_are_counted_by_code_and_sender() {
        let ends = TunnelEnds::default();
        let end = End::new(Side::Client, Phase::Relay, Reason::Closed);
        for close in [(4001, Side::Client), (4999, Side::Client), (1001, Side::Elbows)] {
            ends.count(end, Some(close), Duration::ZERO);
        }
        let closes: Vec<_> =
            ends.closes().map(|(code, by, number)| (code.text(), by, number)).collect();
        assert_eq!(
            closes,
            [("1001".to_owned(), Side::Elbows, 1), ("4xxx".to_owned(), Side::Client, 2)]
        );
    }
}
