//! How many connections each client has open. Pure.
//!
//! A client has an entry only while it has a connection, so that there are never more entries than
//! connections, and those are bounded by descriptors and `MAX_CONNECTIONS`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU32;

use super::network::Network;

/// Memory is given back when fewer than one place in so many is taken.
const SPARSE: usize = 8;

/// Fewer places than this are not worth giving back.
const KEPT: usize = 1_024;

/// Connections by client. The hash is keyed at random, so that nobody can choose addresses that
/// collide.
#[derive(Debug)]
pub(crate) struct Table {
    open: HashMap<Network, u32>,
    most: NonZeroU32,
}

impl Table {
    /// A table in which each client may have `most` connections.
    pub(crate) fn new(most: NonZeroU32) -> Self {
        Self { open: HashMap::new(), most }
    }

    /// Counts one in, unless its client has all that it may have. Each that was counted in is to be
    /// counted [out](Table::leave) once.
    #[must_use]
    pub(crate) fn enter(&mut self, client: Network) -> bool {
        let open = self.open.entry(client).or_insert(0);
        let has_room = *open < self.most.get();
        if has_room {
            *open += 1;
        }
        has_room
    }

    /// Counts one in that is there already, however many its client may have.
    pub(crate) fn adopt(&mut self, client: Network) {
        *self.open.entry(client).or_insert(0) += 1;
    }

    /// Counts one out.
    pub(crate) fn leave(&mut self, client: Network) {
        let Entry::Occupied(mut entry) = self.open.entry(client) else { return };
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
            if self.open.capacity() > KEPT && self.open.len() < self.open.capacity() / SPARSE {
                self.open.shrink_to(self.open.len() * 2);
            }
        }
    }

    /// Clients with a connection.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn client(number: u32) -> Network {
        std::net::IpAddr::from(Ipv4Addr::from_bits(number)).into()
    }

    fn table(most: u32) -> Table {
        Table::new(NonZeroU32::new(most).unwrap())
    }

    #[test]
    fn a_client_has_as_many_as_it_may_have_and_not_one_more() {
        let mut table = table(2);
        assert!(table.enter(client(1)) && table.enter(client(1)));
        assert!(!table.enter(client(1)));
        assert!(table.enter(client(2)), "another client has its own");
        table.leave(client(1));
        assert!(table.enter(client(1)));
        assert!(!table.enter(client(1)), "a refusal counts nothing");
    }

    #[test]
    fn one_that_is_there_already_counts_and_is_never_refused() {
        let mut table = table(1);
        assert!(table.enter(client(1)));
        table.adopt(client(1));
        table.adopt(client(2));
        assert!(!table.enter(client(1)) && !table.enter(client(2)));
        table.leave(client(1));
        assert!(!table.enter(client(1)), "one is as many as it may have");
        table.leave(client(1));
        table.leave(client(2));
        assert_eq!(table.len(), 0);
        assert!(table.enter(client(1)));
    }

    #[test]
    fn a_client_without_connection_has_no_entry() {
        let mut table = table(3);
        for number in 0..100_000 {
            assert!(table.enter(client(number)));
            table.leave(client(number));
        }
        assert_eq!(table.len(), 0);
        assert!(table.open.capacity() <= KEPT);
    }

    #[test]
    fn memory_is_given_back_after_a_crowd() {
        let mut table = table(1);
        for number in 0..100_000 {
            assert!(table.enter(client(number)));
        }
        for number in 0..99_990 {
            table.leave(client(number));
        }
        assert_eq!(table.len(), 10);
        assert!(table.open.capacity() <= KEPT, "{}", table.open.capacity());
        assert!((99_990..100_000).all(|number| !table.enter(client(number))));
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_plain_model(steps: Vec<(bool, u8)>, most in 1_u32..5) {
            let mut table = table(most);
            let mut model = BTreeMap::<u8, u32>::new();
            for (enters, number) in steps {
                let number = number % 8;
                let open = model.entry(number).or_default();
                if enters {
                    prop_assert_eq!(table.enter(client(number.into())), *open < most);
                    *open = (*open + 1).min(most);
                } else if *open > 0 {
                    table.leave(client(number.into()));
                    *open -= 1;
                }
                prop_assert_eq!(table.len(), model.values().filter(|open| **open > 0).count());
            }
        }
    }
}
