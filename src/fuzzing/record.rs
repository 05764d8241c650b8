//! Any bytes as the record of a tunnel: it is refused, or it is a state whose own record is that same state.

use std::time::Duration;

use crate::clock::Now;
use crate::tunnel::State;

/// The bytes are all that came.
pub fn record(bytes: &[u8]) {
    let now = Now::at(Duration::from_secs(3600));
    let elapsed = Duration::from_secs(5000);
    let Ok(state) = State::from_bytes(bytes, now, elapsed) else { return };
    takes_no_more_than_came(&state, bytes.len());
    can_be_asked(&state);

    let written = state.to_bytes(now, elapsed);
    // What was not known and what is a default is left out.
    assert!(written.len() <= bytes.len(), "{} of {}", written.len(), bytes.len());
    let again = State::from_bytes(&written, now, elapsed);
    assert_eq!(again.as_ref(), Ok(&state));
    // Another process, which counts other ticks, writes the same.
    let there = Now::at(Duration::from_secs(77));
    let other = State::from_bytes(&written, there, elapsed).unwrap();
    assert_eq!(other.to_bytes(there, elapsed), written);

    let last = written.len().saturating_sub(40);
    for cut in (0..written.len()).filter(|cut| *cut < 60 || *cut >= last || cut % 61 == 0) {
        assert!(State::from_bytes(&written[..cut], now, elapsed).is_err(), "cut at {cut}");
    }
}

fn takes_no_more_than_came(state: &State, came: usize) {
    let waiting: usize = state.flows.both().iter().map(|flow| flow.waiting.capacity()).sum();
    let identity = &state.identity;
    let handshake = identity.handshake();
    let said = handshake.host.len() + handshake.user_agent.len() + handshake.subprotocol.len();
    let text = identity.request_line().len() + identity.request_id().len() + said;
    assert!(waiting + text <= came, "{waiting} and {text} of {came}");
}

/// Whatever a state says of itself, it says without a panic.
fn can_be_asked(state: &State) {
    let _ = (state.end(), state.close(), state.is_over(), state.ping_round_trips());
    for flow in state.flows.both() {
        let _ = (flow.delivered(), flow.is_over(), flow.scanner.counts());
    }
    let identity = &state.identity;
    for address in [identity.client(), identity.balancer(), identity.upstream()] {
        assert!(address.to_string().len() > 2);
    }
}
