//! User agents that tunnels of a worker share: thousands of clients have the same few, of one or two hundred bytes each,
//! and an idle tunnel keeps no more of its own than a pointer.

use std::collections::HashSet;

use crate::tunnel::UserAgent;

/// So many are known at the most, of whatever length they may have: somebody who sends others all the time has each tunnel
/// keep its own.
const MOST: usize = 1_024;

/// The ones that are known.
#[derive(Debug, Default)]
pub(super) struct UserAgents {
    known: HashSet<UserAgent>,
    /// How many found no room since it was last looked at which of them are still used.
    missed: usize,
}

impl UserAgents {
    /// Has `agent` be the one that others have.
    pub(super) fn share(&mut self, agent: &mut UserAgent) {
        if let Some(known) = self.known.get(agent.as_str()) {
            *agent = known.clone();
            return;
        }
        if self.known.len() >= MOST {
            // To look at all of them takes some 50 microseconds, and is not done for each.
            if self.missed > 0 {
                self.missed -= 1;
                return;
            }
            self.missed = MOST;
            self.known.retain(|known| !known.is_unshared());
            if self.known.len() >= MOST {
                return;
            }
        }
        self.known.insert(agent.clone());
    }

    /// The last tunnel has gone.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::SocketAddr;

    use super::*;
    use crate::tunnel::{Handshake, Identity, Since};

    /// An identity with this agent.
    fn identity(user_agent: &str) -> Identity {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let identity = Identity::new(address, address, address, "", "", Since::default());
        identity.with(&Handshake { user_agent, ..Handshake::default() })
    }

    fn share(agents: &mut UserAgents, text: &str) -> Identity {
        let mut identity = identity(text);
        agents.share(identity.user_agent().unwrap());
        assert_eq!(identity.handshake().user_agent, text);
        identity
    }

    #[test]
    fn equal_ones_are_one() {
        let mut agents = UserAgents::default();
        let mut all = [share(&mut agents, "a"), share(&mut agents, "b"), share(&mut agents, "a")];
        let [a, b, again] = all.each_mut().map(|identity| identity.user_agent().unwrap());
        assert!(a.is_same(again) && !a.is_same(b));
    }

    #[test]
    fn others_all_the_time_cost_no_more_than_their_own_and_are_forgotten() {
        let mut agents = UserAgents::default();
        let first = share(&mut agents, "first");
        for number in 0..10 * MOST {
            drop(share(&mut agents, &number.to_string()));
        }
        assert!(agents.known.len() <= MOST, "{}", agents.known.len());
        let mut again = share(&mut agents, "first");
        let mut first = first;
        let is_same = first.user_agent().unwrap().is_same(again.user_agent().unwrap());
        assert!(is_same, "it was used all the time");
        agents.clear();
        assert_eq!(agents.known.capacity(), 0);
    }

    #[test]
    fn where_all_are_used_another_one_is_not_shared_and_later_is() {
        let mut agents = UserAgents::default();
        let used: Vec<_> = (0..MOST).map(|n| share(&mut agents, &n.to_string())).collect();
        let two = [share(&mut agents, "x"), share(&mut agents, "x")];
        assert_eq!(agents.known.len(), MOST);
        drop((used, two));
        for _ in 0..=MOST {
            drop(share(&mut agents, "x"));
        }
        assert_eq!(agents.known.len(), 1);
    }
}
