//! The endpoints that the next handshakes go to while tunnels are evened out, one for each: as many as were closed for it.
//!
//! Whoever is closed opens another tunnel, and by chance it would come back to one of the full ones as often as not. So a
//! handshake takes a vacancy, whoever it is of, and all others are chosen for as ever.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Room for one tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vacancy {
    pub(crate) address: SocketAddr,
    /// Where the endpoint was among those that new tunnels are spread over: it is looked for there first.
    pub(crate) place: usize,
}

/// Those that are left.
#[derive(Debug, Default)]
pub(crate) struct Vacancies {
    /// How many: mostly none, and then no lock is taken.
    number: AtomicUsize,
    left: Mutex<VecDeque<Vacancy>>,
}

impl Vacancies {
    /// From now on it is these.
    pub(crate) fn set(&self, vacancies: Vec<Vacancy>) {
        if vacancies.is_empty() && self.number.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = vacancies.into();
        self.number.store(left.len(), Ordering::Relaxed);
    }

    /// Takes one, where there is one.
    pub(crate) fn take(&self) -> Option<Vacancy> {
        if self.number.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let vacancy = left.pop_front();
        self.number.store(left.len(), Ordering::Relaxed);
        vacancy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_taken_once() {
        let vacancies = Vacancies::default();
        assert_eq!(vacancies.take(), None);
        let [one, other] = [1, 2].map(|port| Vacancy {
            address: SocketAddr::from(([10, 0, 0, 1], port)),
            place: port.into(),
        });
        vacancies.set(vec![one, other, one]);
        assert_eq!([(); 3].map(|()| vacancies.take()), [Some(one), Some(other), Some(one)]);
        assert_eq!(vacancies.take(), None);
        vacancies.set(vec![one]);
        vacancies.set(Vec::new());
        assert_eq!(vacancies.take(), None);
    }
}
