//! Each place with the defaults, with settings that fit, and with those that do not.

#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;

/// The defaults, but for these times of the drain, in seconds.
fn config(delay: u64, period: u64, grace: u64) -> Config {
    let listen_on = "127.0.0.1:45400".parse().unwrap();
    Config {
        drain_delay: Duration::from_secs(delay),
        drain_period: Duration::from_secs(period),
        drain_grace: Duration::from_secs(grace),
        ..Config::for_destination(listen_on, "app", 45490)
    }
}

fn killed_after(seconds: u64) -> Changed {
    Changed { killed_after: Some(Duration::from_secs(seconds)), ..Changed::default() }
}

/// What is wrong, in one line each.
fn wrong(deployment: Deployment, config: &Config, changed: Changed) -> Vec<String> {
    let found = findings(deployment, config, changed);
    let texts = found.into_iter().filter_map(|finding| match finding {
        Finding::Contradiction(text) => Some(text),
        _ => None,
    });
    texts.collect()
}

/// The place, the times, what was changed in the place, and a part of each contradiction.
type Case = (Deployment, (u64, u64, u64), Changed, &'static [&'static str]);

const NONE: Changed = Changed { killed_after: None, idle_timer: None };

#[test]
fn each_place_with_its_defaults_and_with_contradictions() {
    use Deployment::{Docker, Ecs, Elb, Kubernetes, Nlb};
    const DEFAULTS: (u64, u64, u64) = (2, 5, 2);
    let cases: &[Case] = &[
        // The defaults are those of `docker stop`.
        (Docker, DEFAULTS, NONE, &[]),
        (Ecs, DEFAULTS, NONE, &[]),
        (Nlb, DEFAULTS, NONE, &["DRAIN_DELAY=2 s: an NLB calls"]),
        (Elb, DEFAULTS, NONE, &["DRAIN_DELAY=2 s: a classic ELB calls"]),
        (Kubernetes, DEFAULTS, NONE, &["DRAIN_DELAY=2 s: the nodes hear"]),
        // What would be lost depends on how far the drain has come.
        (
            Docker,
            (2, 6, 2),
            NONE,
            &[
                "takes 10.3 s, and docker stop --time kills after 10 s: whoever gets the last Closes has \
               2 s to answer, and is cut then. Set docker stop --time to 11 or more",
            ],
        ),
        (Docker, (2, 6, 2), killed_after(11), &[]),
        (Docker, (2, 16, 2), NONE, &["50 % of the WebSockets get no Close"]),
        (Docker, (10, 5, 2), NONE, &["no WebSocket gets its Close"]),
        (Docker, (0, 0, 10), NONE, &["the last Closes has 10 s to answer"]),
        (Kubernetes, (10, 15, 3), NONE, &[]),
        (Kubernetes, (10, 17, 3), NONE, &["terminationGracePeriodSeconds kills after 30 s"]),
        (Kubernetes, (30, 300, 10), killed_after(360), &[]),
        (Kubernetes, (9, 15, 3), NONE, &["give 10 s at least"]),
        (Ecs, (0, 25, 3), NONE, &[]),
        (
            Ecs,
            (0, 110, 5),
            NONE,
            &["the drain takes 115.3 s, and stopTimeout kills after 30 s: 73 %"],
        ),
        (Ecs, (0, 110, 5), killed_after(120), &[]),
        (Ecs, (0, 110, 5), killed_after(121), &["stopTimeout is 120 s at most"]),
        (
            Ecs,
            (0, 116, 5),
            killed_after(120),
            &["stopTimeout is 120 s at most, and the drain takes 121.3 s"],
        ),
        (Nlb, (60, 20, 5), NONE, &[]),
        (Nlb, (59, 20, 5), NONE, &["give 60 s at least"]),
        (Nlb, (60, 30, 5), NONE, &["takes 95.3 s, and TimeoutStopSec= kills after 90 s"]),
        (Nlb, (60, 300, 10), killed_after(400), &[]),
        (Nlb, (60, 3600, 10), killed_after(4000), &["are 3670 s together"]),
        (Elb, (20, 60, 5), NONE, &[]),
        (Elb, (19, 60, 5), NONE, &["give 20 s at least"]),
        (Elb, (20, 3600, 5), killed_after(4000), &["a deregistration takes 3600 s at most"]),
        (
            Nlb,
            (2, 100, 5),
            NONE,
            &["DRAIN_DELAY=2 s", "takes 107.3 s, and TimeoutStopSec= kills after 90 s: 12 % of"],
        ),
    ];
    for (deployment, (delay, period, grace), changed, expected) in cases {
        let what = format!("{} {delay} {period} {grace} {changed:?}", deployment.as_str());
        let found = wrong(*deployment, &config(*delay, *period, *grace), *changed);
        assert_eq!(found.len(), expected.len(), "{what}: {found:#?}");
        for (found, expected) in found.iter().zip(*expected) {
            assert!(found.contains(expected), "{what}: {found}");
        }
    }
}

/// What it can be set to the contradiction says.
#[test]
fn nothing_is_to_be_set_to_more_than_it_can_be() {
    for (deployment, (delay, period, grace), name) in [
        (Deployment::Ecs, (0, 118, 5), "stopTimeout"),
        (Deployment::Nlb, (60, 3600, 10), "deregistration_delay.timeout_seconds"),
        (Deployment::Elb, (20, 3600, 5), "ConnectionDraining.Timeout"),
    ] {
        let is_set = |config: &Config| {
            let found = findings(deployment, config, NONE);
            found
                .iter()
                .any(|one| matches!(one, Finding::Set { name: other, .. } if *other == name))
        };
        assert!(!is_set(&config(delay, period, grace)), "{name}");
        assert!(is_set(&config(delay, 100, grace)), "{name}");
        assert!(!wrong(deployment, &config(delay, period, grace), NONE).is_empty(), "{name}");
    }
}

#[test]
fn a_ping_comes_before_the_idle_timer_is_over_with_a_tenth_to_spare() {
    let seconds = Duration::from_secs;
    for (deployment, interval, timer, expected) in [
        (Deployment::Nlb, 315, None, None),
        (
            Deployment::Nlb,
            316,
            None,
            Some("an NLB forgets a connection that is silent for 350 s: give 315 s"),
        ),
        (Deployment::Nlb, 316, Some(6000), None),
        (Deployment::Ecs, 350, None, Some("give 315 s at most")),
        (Deployment::Elb, 54, None, None),
        (Deployment::Elb, 55, None, Some("PING_INTERVAL=55 s: a classic ELB forgets")),
        (Deployment::Docker, 3600, None, None),
        (Deployment::Kubernetes, 50, Some(50), Some("whatever is on the way forgets")),
    ] {
        let fitting = config(60, 5, 2);
        let config = Config { ping_interval: Some(seconds(interval)), ..fitting };
        let idle_timer = timer.map(seconds);
        let changed = Changed { killed_after: Some(seconds(100)), idle_timer };
        let found = wrong(deployment, &config, changed);
        assert_eq!(found.len(), usize::from(expected.is_some()), "{deployment:?}: {found:?}");
        if let Some(expected) = expected {
            assert!(found.concat().contains(expected), "{found:?}");
        }
    }
    let off = Config { ping_interval: None, ..config(60, 5, 2) };
    let found = findings(Deployment::Nlb, &off, NONE);
    let is_told = |finding: &Finding| {
        matches!(finding, Finding::Cut { when, what }
            if when == "after 350 s of silence" && what.contains("PING_INTERVAL=off"))
    };
    assert!(found.iter().any(is_told), "{found:#?}");
}

#[test]
fn attributes_have_the_values_that_the_drain_needs() {
    let value = |deployment, config: &Config, wanted: &str| {
        let found = findings(deployment, config, NONE);
        let value = found.into_iter().find_map(|finding| match finding {
            Finding::Set { name, value, .. } if name == wanted => Some(value),
            _ => None,
        });
        value.unwrap_or_else(|| panic!("{wanted}"))
    };
    let nlb = config(60, 20, 5);
    for (name, expected) in [
        ("proxy_protocol_v2.enabled", "true"),
        ("target_health_state.unhealthy.connection_termination.enabled", "false"),
        ("target_health_state.unhealthy.draining_interval_seconds", "85"),
        ("deregistration_delay.timeout_seconds", "85"),
        ("deregistration_delay.connection_termination.enabled", "false"),
        ("TimeoutStopSec=", "86"),
    ] {
        assert_eq!(value(Deployment::Nlb, &nlb, name), expected, "{name}");
    }
    assert_eq!(value(Deployment::Ecs, &nlb, "deregistration_delay.timeout_seconds"), "120");
    let without = Config { proxy_protocol: ProxyProtocol::Off, ..nlb };
    assert_eq!(value(Deployment::Nlb, &without, "proxy_protocol_v2.enabled"), "false");
    let policy = "ProxyProtocolPolicyType";
    assert_eq!(value(Deployment::Elb, &without, policy), "ProxyProtocol=false");
}

#[test]
fn each_report_is_80_columns_wide_at_most() {
    for deployment in Deployment::ALL {
        for (delay, period) in [(2, 5), (0, 86_400), (86_400, 86_400)] {
            let config = Config { ping_interval: None, ..config(delay, period, 2) };
            let found = findings(deployment, &config, NONE);
            let text = report(&found) + &contradictions(&found);
            assert!(text.lines().count() > 4, "{text}");
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{line}");
                assert_eq!(line, line.trim_end());
            }
        }
    }
}
