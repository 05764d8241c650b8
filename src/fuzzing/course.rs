//! Drives a connection in memory through one course of events, with pieces, room and order of steps that chance picks,
//! or with none of that. What comes out is said in a form that does not depend on them.

use super::decode::{self, Ending, Message};
use super::shell::{Action, Logged, Shell};

/// Steps without a move after which all sides are given room.
const IDLE_STEPS: u32 = 12;

/// Picks, from a seed: the same seed picks the same.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        // Xorshift stays at 0.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    #[inline] // For a constant it takes no division then.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 16) % (end as u64)).unwrap()
    }

    /// How many bytes a call moves: mostly few.
    fn size(&mut self) -> usize {
        match self.below(4) {
            0 => 1,
            1 => 1 + self.below(16),
            2 => 1 + self.below(1_000),
            _ => 1 + self.below(200_000),
        }
    }

    /// How many bytes a side has room for.
    fn room(&mut self) -> usize {
        if self.below(3) == 0 { 0 } else { self.size() }
    }
}

/// What an upstream does with a request: these bytes are its answer, and then it may end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) then: Then,
    /// It answers before it has read the whole request.
    pub(crate) is_early: bool,
}

/// What an upstream does behind its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Then {
    /// It waits for the next request.
    #[default]
    Waits,
    Ends,
    Breaks,
}

/// Upstreams that answer the requests that they get, one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upstreams {
    pub(crate) answers: Vec<Answer>,
    /// Requests that were answered, over all links.
    answered: usize,
    /// Over each link, where in what it got its latest request begins, and whether that one was answered.
    latest: Vec<(usize, bool)>,
    /// The link that had no request to be answered when it had got so many bytes.
    has_none: Option<(usize, usize)>,
}

impl Upstreams {
    pub(crate) fn new(answers: Vec<Answer>) -> Self {
        Self { answers, ..Self::default() }
    }

    /// Answers what can be answered now. Whether there was something.
    fn react(&mut self, shell: &mut Shell) -> bool {
        let Some(link) = shell.linked() else { return false };
        let Some(answer) = self.answers.get(self.answered) else { return false };
        self.latest.resize(shell.links.len(), (0, false));
        let peer = &mut shell.links[link].peer;
        let got = Some((link, peer.received.len()));
        if self.has_none == got {
            return false;
        }
        let (start, is_answered) = &mut self.latest[link];
        if *is_answered
            && let Some((request, used)) = decode::request(&peer.received[*start..])
            && request.is_whole
        {
            (*start, *is_answered) = (*start + used, false);
        }
        let request = decode::request(&peer.received[*start..]);
        let is_due = request.is_some_and(|(request, _)| request.is_whole || answer.is_early);
        if *is_answered || !is_due {
            self.has_none = got;
            return false;
        }
        peer.sends(&answer.bytes);
        match answer.then {
            Then::Waits => {}
            Then::Ends => peer.ends(),
            Then::Breaks => peer.breaks(),
        }
        self.latest[link].1 = true;
        self.answered += 1;
        true
    }
}

/// Takes steps until nothing moves any more.
pub(crate) fn drive(shell: &mut Shell, upstreams: &mut Upstreams, chance: &mut Option<Chance>) {
    loop {
        if let Some(chance) = chance {
            steps_of_chance(shell, upstreams, chance);
        }
        let mut moved = false;
        for action in Action::ALL {
            give(shell, [usize::MAX; 2], [usize::MAX; 2]);
            moved |= shell.step(action);
            moved |= upstreams.react(shell);
        }
        if !moved {
            return;
        }
    }
}

/// Some steps, until no more move for a while.
pub(crate) fn steps_of_chance(shell: &mut Shell, upstreams: &mut Upstreams, chance: &mut Chance) {
    let mut idle = 0;
    while idle < IDLE_STEPS {
        let pieces = [chance.size(), chance.size()];
        let rooms = [chance.room(), chance.room()];
        give(shell, pieces, rooms);
        let action = Action::ALL[chance.below(Action::ALL.len())];
        let moved = shell.step(action) | upstreams.react(shell);
        idle = if moved { 0 } else { idle + 1 };
    }
}

/// Sets what each side's socket gives and takes, first the client's, then the upstream's.
fn give(shell: &mut Shell, pieces: [usize; 2], rooms: [usize; 2]) {
    let link = shell.linked().map(|link| &mut shell.links[link].peer);
    let sides = [Some(&mut shell.client), link];
    for (side, (piece, room)) in sides.into_iter().zip(pieces.into_iter().zip(rooms)) {
        if let Some(peer) = side {
            peer.piece = piece;
            peer.room = room;
        }
    }
}

/// All that both sides have seen, and what the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The requests over each link.
    pub(crate) requests: Vec<Vec<Message>>,
    pub(crate) responses: Vec<Message>,
    /// How the client's connection ended.
    pub(crate) ending: Ending,
    /// It is a tunnel, and this is what it gets from the client and from the upstream.
    pub(crate) early: Option<(Vec<u8>, Vec<u8>)>,
    pub(crate) log: Vec<Logged>,
}

impl Outcome {
    /// The lines of the requests over each link, and what of their bodies came.
    pub(crate) fn requests_in_short(&self) -> Vec<Vec<(&str, usize, bool)>> {
        fn in_short(message: &Message) -> (&str, usize, bool) {
            (&message.line, message.data.len(), message.is_whole)
        }
        self.requests.iter().map(|link| link.iter().map(in_short).collect()).collect()
    }

    /// `to_head` says of each request whether its method is HEAD.
    pub(crate) fn of(shell: &Shell, to_head: &[bool]) -> Self {
        let ending = match shell.over {
            Some(true) => Ending::Reset,
            _ if shell.client.is_told_end || shell.over.is_some() => Ending::End,
            _ => Ending::Open,
        };
        Self {
            requests: shell
                .links
                .iter()
                .map(|link| decode::requests(&link.peer.received))
                .collect(),
            responses: decode::responses(&shell.client.received, to_head, ending),
            ending,
            early: shell.tunnel.as_ref().map(|tunnel| {
                // What nobody has read yet the tunnel reads itself.
                let link = shell.linked().map(|link| shell.links[link].peer.unread());
                let upstream = link.unwrap_or_default();
                let client = [tunnel.client_early.clone(), shell.client.unread()].concat();
                (client, [tunnel.upstream_early.clone(), upstream].concat())
            }),
            log: shell.log(),
        }
    }
}
