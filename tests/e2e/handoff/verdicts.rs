//! The cases of what passes and what is refused, while the proxy is handed over several times a second: the verdicts are
//! the same.

use std::sync::Arc;

use super::chain::Chain;
use crate::frames::{Breach, good_frames_pass};
use crate::strictness::{self, answering_with, wrong_requests, wrong_responses};
use crate::web_socket::Tunnels;

/// How many handoffs come while the cases are tried, at least.
const HANDOFFS: usize = 5;

const CHECKS: [&str; 2] = ["observe", "strict"];

/// What each side says on tunnels that all were opened before any of it.
fn breaches(tunnels: &Tunnels, chain: &Chain) -> Vec<Breach> {
    let mut all = Breach::by_client(tunnels, chain.address);
    all.extend(Breach::by_upstream(tunnels, chain.address));
    all
}

#[test]
fn frames_pass_as_they_came() {
    let tunnels = Tunnels::start();
    for check in CHECKS {
        let chain = Chain::start(tunnels.address, &[("FRAME_CHECK", check)]);
        let mut rounds = 0;
        while chain.handoffs() < HANDOFFS {
            good_frames_pass(&tunnels, chain.address);
            rounds += 1;
        }
        eprintln!("{check}: {rounds} rounds over {} handoffs", chain.handoffs());
    }
}

#[test]
fn broken_rules_are_observed_or_refused_at_any_moment() {
    let tunnels = Tunnels::start();
    for check in CHECKS {
        let verdict = if check == "strict" { Breach::ends_with_1002 } else { Breach::passes };
        let chain = Chain::start(tunnels.address, &[("FRAME_CHECK", check)]);
        let mut rounds = 0;
        while chain.handoffs() < HANDOFFS {
            breaches(&tunnels, &chain).into_iter().for_each(verdict);
            rounds += 1;
        }
        eprintln!("{check}: {rounds} rounds over {} handoffs", chain.handoffs());
    }
}

/// The process that sees the rule broken is not the one that saw how the message, or the frame, began.
#[test]
fn broken_rules_are_observed_or_refused_by_a_process_that_did_not_see_them_begin() {
    let tunnels = Tunnels::start();
    for check in CHECKS {
        let verdict = if check == "strict" { Breach::ends_with_1002 } else { Breach::passes };
        let chain = Chain::start(tunnels.address, &[("FRAME_CHECK", check)]);
        let mut all = breaches(&tunnels, &chain);
        // In the frame before, between the two, in the head, and one byte before the end: where that is refused, it is by then.
        let cuts = |[before, all]: [usize; 2]| [before - 1, before, before + 1, all - 1];
        for step in 0..if check == "strict" { 3 } else { 4 } {
            for breach in &mut all {
                breach.send_up_to(cuts(breach.lengths())[step]);
            }
            chain.wait_for(1);
        }
        all.into_iter().for_each(verdict);
    }
}

#[test]
fn requests_have_one_meaning_or_are_refused() {
    let application = strictness::Application::start();
    let chain = Chain::start(application.address, &[]);
    let mut rounds = 0;
    while chain.handoffs() < HANDOFFS {
        let wrong = wrong_requests(chain.address, &application);
        assert!(wrong.is_empty(), "round {rounds}: {wrong}");
        rounds += 1;
    }
    eprintln!("{rounds} rounds over {} handoffs", chain.handoffs());
}

#[test]
fn responses_have_one_meaning_or_are_502() {
    let answer = Arc::default();
    let chain = Chain::start(answering_with(&answer), &[]);
    let mut rounds = 0;
    while chain.handoffs() < HANDOFFS {
        let wrong = wrong_responses(|bytes| {
            bytes.clone_into(&mut answer.lock().unwrap());
            (chain.address, ())
        });
        assert!(wrong.is_empty(), "round {rounds}: {wrong}");
        rounds += 1;
    }
    eprintln!("{rounds} rounds over {} handoffs", chain.handoffs());
}
