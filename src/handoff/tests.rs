//! Both machines side by side, and each process killed, stopped or made to stand still at any moment: every tunnel has
//! exactly one owner, or was lost with a dead one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::message::{
    Batch, Hello, MOST_IN_BATCH, Message, Offer, PROTOCOL, Places, RefuseWhy, Release,
};
use super::predecessor::Predecessor;
use super::successor::Successor;
use super::{Action, Machine, Outcome, Why};

/// The two processes, and two places of an array.
const OLD: usize = 0;
const NEW: usize = 1;

type Id = u32;

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The next message arrives at one of them.
    Deliver(usize),
    /// So many milliseconds pass.
    Wait(u16),
    Kill(usize),
    Stop(usize),
    /// What arrives at one of them is no message.
    Garbage(usize),
    /// A handshake becomes a tunnel in the old one.
    Open,
    /// Whether the kernel has room for batches.
    Room(bool),
}

/// What is on its way: a message, with the tunnels of a batch beside it.
type Wire = VecDeque<(Message, Vec<Id>)>;

struct Process {
    machine: Box<dyn Machine>,
    is_alive: bool,
    /// Tunnels on its workers, and those of them that stay.
    tunnels: BTreeSet<Id>,
    staying: BTreeSet<Id>,
    /// Taken out, by the number of the batch.
    collected: BTreeMap<u32, Vec<Id>>,
    /// Of the other, by the number of the batch, without what was refused.
    held: BTreeMap<u32, Vec<Id>>,
    listens: bool,
    outcome: Option<Outcome>,
    is_told_to_stop: bool,
}

struct World {
    now: Instant,
    processes: [Process; 2],
    /// To each of them.
    wires: [Wire; 2],
    /// Whose each tunnel is, as its giver sees it.
    owners: BTreeMap<Id, usize>,
    /// Those that may be lost.
    lost: BTreeSet<Id>,
    /// One of this many is refused.
    refuses: u32,
    garbage: bool,
    has_room: bool,
}

fn hello() -> Hello {
    Hello {
        oldest: PROTOCOL,
        newest: PROTOCOL,
        build: String::from("new"),
        release: Release { major: 1, minor: 0, patch: 0 },
        downgrade: false,
        free_descriptors: 20_000,
    }
}

fn offer(tunnels: u64) -> Offer {
    Offer {
        protocol: PROTOCOL,
        build: String::from("old"),
        tunnels,
        start: 0,
        places: Places::default(),
        drains_in: None,
    }
}

fn predecessor(tunnels: u64, refuses: Option<RefuseWhy>, now: Instant) -> Predecessor {
    let release = Release { major: 1, minor: 0, patch: 0 };
    Predecessor::new(offer(tunnels), release, refuses, Duration::from_secs(5), now)
}

impl World {
    fn new(tunnels: u32, refuses: u32) -> Self {
        let now = Instant::now();
        let process = |machine: Box<dyn Machine>, tunnels, listens| Process {
            machine,
            is_alive: true,
            tunnels,
            staying: BTreeSet::new(),
            collected: BTreeMap::new(),
            held: BTreeMap::new(),
            listens,
            outcome: None,
            is_told_to_stop: false,
        };
        let old = predecessor(tunnels.into(), None, now);
        let mut world = Self {
            now,
            processes: [
                process(Box::new(old), (0..tunnels).collect(), true),
                process(Box::new(Successor::new(hello(), now)), BTreeSet::new(), false),
            ],
            wires: Default::default(),
            owners: (0..tunnels).map(|id| (id, OLD)).collect(),
            lost: BTreeSet::new(),
            refuses,
            garbage: false,
            has_room: true,
        };
        world.carry_out(OLD);
        world.carry_out(NEW);
        world
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Deliver(to) => self.deliver(to),
            Step::Wait(milliseconds) => {
                self.now += Duration::from_millis(milliseconds.into());
                for one in [OLD, NEW] {
                    self.time(one);
                }
            }
            Step::Kill(one) => self.kill(one),
            Step::Stop(one) => {
                let process = &mut self.processes[one];
                process.is_told_to_stop = true;
                if process.is_alive {
                    process.machine.stop(self.now);
                    self.carry_out(one);
                }
            }
            Step::Garbage(one) => {
                self.garbage = true;
                let process = &mut self.processes[one];
                if process.is_alive && process.outcome.is_none() {
                    process.machine.malformed(self.now);
                    self.carry_out(one);
                }
            }
            Step::Room(has_room) => self.has_room = has_room,
            Step::Open => {
                if self.processes[OLD].is_alive {
                    let id = Id::try_from(self.owners.len()).unwrap();
                    self.owners.insert(id, OLD);
                    self.processes[OLD].tunnels.insert(id);
                }
            }
        }
        self.each_has_one_owner();
    }

    fn time(&mut self, one: usize) {
        let now = self.now;
        let process = &mut self.processes[one];
        if process.is_alive {
            process.machine.time(now);
            self.carry_out(one);
        }
    }

    /// The end of the connection comes behind what was sent.
    fn deliver(&mut self, to: usize) {
        let now = self.now;
        if !self.processes[to].is_alive || self.processes[to].outcome.is_some() {
            self.wires[to].clear();
            return;
        }
        let Some((message, ids)) = self.wires[to].pop_front() else {
            let other = &self.processes[1 - to];
            if !other.is_alive || other.outcome.is_some() {
                self.processes[to].machine.ended();
                self.carry_out(to);
            }
            return;
        };
        let process = &mut self.processes[to];
        if let Message::Batch(Batch { number, .. }) = message {
            process.held.insert(number, ids);
        }
        process.machine.received(message, now);
        self.carry_out(to);
    }

    fn kill(&mut self, one: usize) {
        if !std::mem::take(&mut self.processes[one].is_alive) {
            return;
        }
        // What was sent to the other and not taken back is the other's.
        let saved: BTreeSet<_> = match &self.processes {
            processes if processes[1 - one].is_alive => {
                let sent = self.wires[1 - one].iter().flat_map(|(_, ids)| ids.clone());
                let held = processes[1 - one].held.values().flatten().copied();
                let collected: Vec<_> = processes[one].collected.values().flatten().collect();
                sent.chain(held).filter(|id| collected.contains(&id)).collect()
            }
            _ => BTreeSet::new(),
        };
        let its = self.owners.iter().filter(|(_, owner)| **owner == one).map(|(id, _)| *id);
        self.lost.extend(its.filter(|id| !saved.contains(id)));
        self.owners.extend(saved.into_iter().map(|id| (id, 1 - one)));
        let process = &mut self.processes[one];
        process.tunnels.clear();
        process.collected.clear();
        process.held.clear();
        process.listens = false;
    }

    #[allow(clippy::too_many_lines)] // One arm an action.
    fn carry_out(&mut self, one: usize) {
        let now = self.now;
        loop {
            let process = &mut self.processes[one];
            let action = process.machine.next();
            let Some(action) = action else { return };
            match action {
                Action::Send(message) => self.send(one, message, Vec::new()),
                Action::Collect { number, most } => {
                    let mut movable: Vec<_> =
                        process.tunnels.difference(&process.staying).copied().collect();
                    let has_more = movable.len() > most;
                    movable.truncate(most);
                    process.tunnels.retain(|id| !movable.contains(id));
                    let count = movable.len();
                    if count > 0 {
                        process.collected.insert(number, movable);
                    }
                    process.machine.collected(number, count, has_more, now);
                }
                Action::SendBatch { number } if !self.has_room => {
                    process.machine.batch_not_sent(number, now);
                }
                Action::SendBatch { number } => {
                    let ids = process.collected[&number].clone();
                    let batch = Batch { number, frozen_at: 0, cookies: Vec::new() };
                    self.send(one, Message::Batch(batch), ids);
                }
                Action::Give { number, refused } => {
                    let ids = process.collected.remove(&number).unwrap();
                    self.send(one, Message::Yours { number }, Vec::new());
                    let is_other_alive = self.processes[1 - one].is_alive;
                    for (place, id) in (0_u16..).zip(ids) {
                        if refused.contains(&place) {
                            self.processes[one].tunnels.insert(id);
                            self.processes[one].staying.insert(id);
                        } else {
                            self.owners.insert(id, 1 - one);
                            if !is_other_alive {
                                self.lost.insert(id);
                            }
                        }
                    }
                }
                Action::PutBack { number } => {
                    let ids = process.collected.remove(&number).unwrap_or_default();
                    process.tunnels.extend(ids);
                }
                Action::Check { number } => {
                    let divisor = self.refuses;
                    let ids = process.held.get_mut(&number).unwrap();
                    let is_left = |id: Id| divisor > 0 && id.is_multiple_of(divisor);
                    let refused: Vec<_> = (0_u16..)
                        .zip(ids.iter())
                        .filter(|(_, id)| is_left(**id))
                        .map(|(place, _)| place)
                        .collect();
                    ids.retain(|id| !is_left(*id));
                    process.machine.checked(number, refused);
                }
                Action::Adopt { number } => {
                    let ids = process.held.remove(&number).unwrap();
                    process.tunnels.extend(ids);
                }
                Action::Forget { number } => drop(process.held.remove(&number).unwrap()),
                Action::StopListening => process.listens = false,
                Action::SendListeners => {
                    self.send(one, Message::Listeners(Places::default()), Vec::new());
                    self.send(one, Message::Counters(Vec::new()), Vec::new());
                    self.send(one, Message::Limits, Vec::new());
                }
                Action::ListenAgain => process.listens = true,
                Action::Announce | Action::Leave | Action::Count(_) | Action::Limit => {}
                Action::Look => {
                    process.machine.looked(0, now);
                }
                Action::SendCounters => self.send(one, Message::Counters(Vec::new()), Vec::new()),
                Action::Prepare(_) => {
                    process.machine.prepared();
                }
                Action::Listen(_) => {
                    process.listens = true;
                    process.machine.listening(Ok(()));
                }
                Action::Over(outcome) => {
                    assert_eq!(process.outcome, None, "it is over twice");
                    process.outcome = Some(outcome);
                    if outcome == (Outcome::Alone { has_listeners: false }) {
                        process.listens = true;
                    }
                }
            }
        }
    }

    fn send(&mut self, from: usize, message: Message, ids: Vec<Id>) {
        if self.processes[1 - from].is_alive {
            self.wires[1 - from].push_back((message, ids));
        }
    }

    fn each_has_one_owner(&self) {
        let [old, new] = &self.processes;
        let both: Vec<_> = old.tunnels.intersection(&new.tunnels).collect();
        assert!(both.is_empty(), "both have {both:?}");
    }

    /// Lets everything come to its end, and looks at what is left.
    fn finish(&mut self) {
        self.has_room = true;
        for _ in 0..2_000 {
            for one in [OLD, NEW] {
                while !self.wires[one].is_empty() {
                    self.deliver(one);
                    self.each_has_one_owner();
                }
                self.deliver(one);
            }
            if self.processes.iter().all(|one| !one.is_alive || one.outcome.is_some()) {
                break;
            }
            self.step(Step::Wait(25));
        }
        let [old, new] = &self.processes;
        for one in [old, new] {
            assert!(!one.is_alive || one.outcome.is_some(), "it never ends");
        }
        let there: BTreeSet<_> = old.tunnels.union(&new.tunnels).copied().collect();
        for id in self.owners.keys() {
            let is_refused = self.refuses > 0 && id.is_multiple_of(self.refuses);
            let is_any_dead = !(old.is_alive && new.is_alive);
            let may_be_lost = self.lost.contains(id)
                || (is_refused && !old.is_alive)
                || (self.garbage && is_any_dead);
            assert!(there.contains(id) || may_be_lost, "{id} is lost");
        }
        if let (true, Some(Outcome::Kept(_) | Outcome::Refused(_))) = (new.is_alive, new.outcome)
            && !self.garbage
            // Nobody takes them back in time: it ends them itself.
            && new.outcome != Some(Outcome::Kept(Why::Silence))
        {
            assert!(new.tunnels.is_empty(), "a process that ends has {:?}", new.tunnels);
            assert!(!new.listens);
        }
        let listening = [old, new].into_iter().filter(|one| one.is_alive && one.listens).count();
        let alive = [old, new].into_iter().filter(|one| one.is_alive).count();
        if !self.garbage {
            // A new one that was refused, or gave all back, ends itself.
            let ends = matches!(new.outcome, Some(Outcome::Kept(_) | Outcome::Refused(_)));
            let is_old_done = old.is_alive && old.outcome == Some(Outcome::Done);
            if alive == 2 || (alive == 1 && !is_old_done && (old.is_alive || !ends)) {
                assert_eq!(listening, 1, "{:?} {:?}", old.outcome, new.outcome);
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let one = prop_oneof![Just(OLD), Just(NEW)];
    prop_oneof![
        40 => one.clone().prop_map(Step::Deliver),
        8 => prop_oneof![1_u16..30, 400_u16..1_200, Just(31_000)].prop_map(Step::Wait),
        1 => one.clone().prop_map(Step::Kill),
        1 => one.prop_map(Step::Stop),
        2 => Just(Step::Open),
        2 => any::<bool>().prop_map(Step::Room),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn each_tunnel_has_one_owner_whatever_happens(
        tunnels in prop_oneof![0_u32..3, 0_u32..300],
        refuses in prop_oneof![4 => Just(0), 1 => 1_u32..30],
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new(tunnels, refuses);
        for step in steps {
            world.step(step);
        }
        world.finish();
    }

    /// What is no message ends the handoff, and no tunnel has two owners for it.
    #[test]
    fn garbage_gives_nobody_a_second_owner(
        tunnels in 0_u32..300,
        steps in prop::collection::vec(step(), 0..60),
        one in prop_oneof![Just(OLD), Just(NEW)],
        more in prop::collection::vec(step(), 0..60),
    ) {
        let mut world = World::new(tunnels, 0);
        for step in steps.into_iter().chain([Step::Garbage(one)]).chain(more) {
            world.step(step);
        }
        world.finish();
    }
}

#[test]
fn all_tunnels_move_and_the_late_ones_too() {
    let mut world = World::new(9_000, 0);
    for _ in 0..40 {
        world.step(Step::Deliver(OLD));
        world.step(Step::Deliver(NEW));
        world.step(Step::Open);
        world.step(Step::Wait(20));
    }
    world.finish();
    let [old, new] = &world.processes;
    assert_eq!((old.outcome, new.outcome), (Some(Outcome::Done), Some(Outcome::Done)));
    assert_eq!((old.tunnels.len(), new.tunnels.len()), (0, 9_040));
}

/// Kills each of them before each message that arrives at each, and looks at what that costs.
#[test]
fn a_death_costs_what_the_dead_had_and_no_more() {
    for dead in [OLD, NEW] {
        for after in 0..60 {
            let mut world = World::new(200, 0);
            for _ in 0..after {
                world.step(Step::Deliver(OLD));
                world.step(Step::Deliver(NEW));
                world.step(Step::Wait(60));
            }
            let before = world.processes[dead].tunnels.len();
            world.step(Step::Kill(dead));
            world.finish();
            let left = world.processes[1 - dead].tunnels.len();
            assert_eq!(left, 200 - world.lost.len());
            if dead == OLD {
                assert_eq!(world.lost.len(), before, "what was sent is the new one's");
            } else {
                assert!(
                    world.lost.len() <= before + 2 * MOST_IN_BATCH,
                    "no more than was given and not read"
                );
            }
        }
    }
}

#[test]
fn refusals_say_why_and_nothing_happens() {
    let now = Instant::now();
    let cases = [
        (hello(), Some(RefuseWhy::Busy), RefuseWhy::Busy),
        (Hello { oldest: 2, newest: 3, ..hello() }, None, RefuseWhy::Version),
        (Hello { release: Release::default(), ..hello() }, None, RefuseWhy::Downgrade),
        (Hello { free_descriptors: 455, ..hello() }, None, RefuseWhy::Descriptors),
    ];
    for (hello, refuses, why) in cases {
        let mut old = predecessor(100, refuses, now);
        old.received(Message::Hello(hello), now);
        assert_eq!(old.next(), Some(Action::Send(Message::Refuse(why))));
        assert_eq!(old.next(), Some(Action::Over(Outcome::Refused(why))));
        assert_eq!(old.next(), None);
    }
    let meant = Hello { release: Release::default(), downgrade: true, ..hello() };
    let mut old = predecessor(100, None, now);
    old.received(Message::Hello(meant), now);
    assert_eq!(old.next(), Some(Action::Send(Message::Offer(offer(100)))));
}

/// The table of what may come in place of a handoff has each word.
#[test]
fn words_of_handoffs_are_documented() {
    let operations = include_str!("../../docs/operations.md");
    for why in RefuseWhy::ALL.map(RefuseWhy::as_str) {
        assert!(operations.contains(&format!("refused why={why}`")), "{why}");
    }
    for why in Why::ALL.map(Why::as_str) {
        assert!(operations.contains(&format!("aborted why={why}`")), "{why}");
    }
}

/// Both machines where the old one finishes and the new one serves.
fn finishing() -> World {
    let mut world = World::new(20, 0);
    while !world.processes[NEW].listens || !world.wires[OLD].is_empty() {
        world.step(Step::Wait(60));
        world.step(Step::Deliver(NEW));
        world.step(Step::Deliver(OLD));
    }
    assert_eq!((world.processes[OLD].outcome, world.processes[OLD].listens), (None, false));
    world
}

/// Two tunnels, and both processes when each has read so many messages.
fn still_after(messages: usize) -> World {
    let mut world = World::new(2, 0);
    for _ in 0..messages {
        world.step(Step::Deliver(OLD));
        world.step(Step::Deliver(NEW));
    }
    world
}

#[test]
fn only_a_successor_that_was_given_nothing_is_not_waited_for() {
    for (messages, given) in [(1, false), (2, false), (3, true)] {
        let mut world = still_after(messages);
        let all: BTreeSet<_> = world.owners.values().copied().collect();
        assert_eq!(all.contains(&NEW), given, "after {messages}");
        for _ in 0..3 {
            // As long as any answer may take.
            world.step(Step::Wait(31_000));
        }
        let old = &world.processes[OLD];
        assert_eq!(old.outcome.is_some(), !given);
        assert_eq!(old.machine.waits(), given);
        assert_eq!(old.tunnels.len(), if given { 1 } else { 2 });
        world.finish();
    }
}

#[test]
fn listeners_that_were_handed_on_are_not_listened_on_again() {
    for (is_handed_on, outcome) in [(false, Outcome::Kept(Why::Ended)), (true, Outcome::Done)] {
        let mut world = finishing();
        if is_handed_on {
            world.processes[NEW].machine.hands_on();
            world.carry_out(NEW);
            world.step(Step::Deliver(OLD));
        }
        world.step(Step::Kill(NEW));
        world.step(Step::Deliver(OLD));
        let old = &world.processes[OLD];
        assert_eq!((old.outcome, old.listens), (Some(outcome), !is_handed_on));
    }
}

#[test]
fn a_successor_that_is_about_to_end_takes_nothing_more() {
    let mut world = finishing();
    world.step(Step::Open);
    world.processes[NEW].machine.leave();
    world.carry_out(NEW);
    // What was on its way already may still be given.
    world.step(Step::Deliver(OLD));
    world.step(Step::Open);
    world.finish();
    let [old, new] = &world.processes;
    assert_eq!((old.outcome, new.outcome), (Some(Outcome::Done), Some(Outcome::Done)));
    assert_eq!((old.listens, old.tunnels.len() + new.tunnels.len()), (false, 22));
    assert!(!old.tunnels.is_empty(), "nobody takes the last one");
}
