//! The places that there are for connections of the admin port, and who loses one.
//!
//! Idle ones must keep nobody out: where all places are taken, whoever has done nothing for the longest time loses its
//! own. So a thousand that say nothing cost a health check nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use tokio::time::sleep;

/// The most connections at once.
pub(super) const MOST: usize = 64;

/// The most of them that follow events, which stay.
const MOST_FOLLOWERS: usize = 16;

/// How long a connection may be idle, and a request take, its answer included.
const LONGEST: Duration = Duration::from_secs(30);

/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Places(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    next: u64,
    open: BTreeMap<u64, Place>,
}

#[derive(Debug)]
struct Place {
    task: Option<AbortHandle>,
    does: Does,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Nothing,
    Answers,
    Follows,
}

/// A connection has its place, until this is dropped: with its task, whatever ends that.
#[derive(Debug)]
pub(super) struct Seat {
    places: Arc<Places>,
    number: u64,
}

/// A request of a connection is answered, until this is dropped.
#[derive(Debug)]
pub(super) struct Busy {
    places: Weak<Places>,
    number: u64,
}

impl Places {
    pub(super) fn start() -> Arc<Self> {
        let places = Arc::<Self>::default();
        tokio::spawn(watch(Arc::downgrade(&places)));
        places
    }

    fn all(&self) -> MutexGuard<'_, All> {
        // No invariant spans the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place; none where all are of those who are being answered.
    pub(super) fn take(&self) -> Option<u64> {
        let mut all = self.all();
        if all.open.len() >= MOST {
            let idle = all.open.iter().filter(|(_, place)| place.does == Does::Nothing);
            let longest = idle.min_by_key(|(_, place)| place.since).map(|(number, _)| *number)?;
            all.end(longest);
        }
        all.next += 1;
        let number = all.next;
        all.open.insert(number, Place { task: None, does: Does::Nothing, since: Instant::now() });
        Some(number)
    }

    /// The connection with this place is served by this task.
    pub(super) fn sits(&self, number: u64, task: AbortHandle) {
        if let Some(place) = self.all().open.get_mut(&number) {
            place.task = Some(task);
        }
    }

    /// The place, for the task that serves the connection.
    pub(super) fn seat(self: &Arc<Self>, number: u64) -> Seat {
        Seat { places: Arc::clone(self), number }
    }

    /// A request of it came.
    pub(super) fn busy(self: &Arc<Self>, number: u64) -> Busy {
        self.does(number, Does::Answers);
        Busy { places: Arc::downgrade(self), number }
    }

    fn does(&self, number: u64, does: Does) {
        if let Some(place) = self.all().open.get_mut(&number) {
            place.does = does;
            place.since = Instant::now();
        }
    }
}

impl All {
    fn end(&mut self, number: u64) {
        if let Some(task) = self.open.remove(&number).and_then(|place| place.task) {
            task.abort();
        }
    }
}

impl Busy {
    /// It follows events from now on; false where too many do.
    pub(super) fn follows(&self) -> bool {
        let Some(places) = self.places.upgrade() else { return false };
        let mut all = places.all();
        let followers = all.open.values().filter(|place| place.does == Does::Follows).count();
        match all.open.get_mut(&self.number) {
            Some(place) if followers < MOST_FOLLOWERS => {
                place.does = Does::Follows;
                true
            }
            _ => false,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.places.all().open.remove(&self.number);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(places) = self.places.upgrade() {
            places.does(self.number, Does::Nothing);
        }
    }
}

/// Ends connections that have been idle, or have been answered, for too long.
async fn watch(places: Weak<Places>) {
    loop {
        sleep(LOOK).await;
        let Some(places) = places.upgrade() else { return };
        let mut all = places.all();
        let is_over =
            |place: &Place| place.does != Does::Follows && place.since.elapsed() > LONGEST;
        let over: Vec<_> = all
            .open
            .iter()
            .filter(|(_, place)| is_over(place))
            .map(|(number, _)| *number)
            .collect();
        for number in over {
            all.end(number);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn whoever_is_idle_for_longest_loses_its_place_and_nobody_who_is_answered() {
        let places = Places::start();
        let numbers: Vec<_> = (0..MOST).map(|_| places.take().unwrap()).collect();
        let mut busy = vec![places.busy(numbers[0])];
        let newest = places.take().unwrap();
        let open: Vec<_> = places.all().open.keys().copied().collect();
        assert_eq!(open.len(), MOST);
        assert!(
            open.contains(&numbers[0]) && !open.contains(&numbers[1]) && open.contains(&newest)
        );
        busy.extend(open.iter().skip(1).map(|number| places.busy(*number)));
        assert_eq!(places.take(), None);
        busy.pop();
        assert!(places.take().is_some());
    }

    #[tokio::test]
    async fn followers_are_few() {
        let places = Places::start();
        let busy: Vec<_> =
            (0..=MOST_FOLLOWERS).map(|_| places.busy(places.take().unwrap())).collect();
        assert!(busy[..MOST_FOLLOWERS].iter().all(Busy::follows));
        assert!(!busy[MOST_FOLLOWERS].follows());
        drop(busy);
        assert!(places.busy(places.take().unwrap()).follows());
    }

    #[tokio::test]
    async fn place_ends_with_its_task_by_a_mistake_as_well() {
        let places = Places::start();
        let seat = places.seat(places.take().unwrap());
        let task = tokio::spawn(async move {
            let _seat = seat;
            panic!("made on purpose by a test");
        });
        assert!(task.await.unwrap_err().is_panic());
        assert!(places.all().open.is_empty());
    }

    #[tokio::test]
    async fn task_ends_with_its_place() {
        let places = Places::start();
        let number = places.take().unwrap();
        let task = tokio::spawn(std::future::pending::<()>());
        places.sits(number, task.abort_handle());
        for _ in 1..MOST {
            places.take().unwrap();
        }
        assert!(!task.is_finished());
        places.take().unwrap();
        assert!(task.await.unwrap_err().is_cancelled());
    }
}
