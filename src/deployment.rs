//! Where elbows runs, and whether its drain and its Pings fit to that: the arithmetic behind `elbows check --for`.
//!
//! Each [`Deployment`] has facts (`docs/operations.md` has the same ones, and a test compares): what kills the process
//! after a signal, for how long new clients are still sent, and what forgets a silent connection. [`findings`] holds
//! the settings against them. Pure.
//!
//! ```text
//! SIGTERM ──DRAIN_DELAY──▶ the first Close ──DRAIN_PERIOD──▶ the last Close ──DRAIN_GRACE + 0.3 s──▶ over
//! ```

#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::config::{Config, ProxyProtocol};
use crate::words::words;

words! {
    /// A place to run in.
    pub enum Deployment {
        /// An instance that is a target of an AWS Network Load Balancer, under systemd.
        Nlb = "nlb",
        /// An instance behind a classic AWS load balancer, under systemd.
        Elb = "elb",
        /// A task of an AWS ECS service that is a target of an NLB.
        Ecs = "ecs",
        /// A pod.
        Kubernetes = "kubernetes",
        /// A container that `docker stop` stops.
        Docker = "docker",
    }
}

/// How long the last connections have behind the grace, until the process ends.
const LAST_BYTES: Duration = Duration::from_millis(300);

/// The longest time after a deregistration that AWS's balancers can be set to, of both kinds.
const LONGEST_DEREGISTRATION: Duration = Duration::from_secs(3600);

/// The longest line that is printed.
const COLUMNS: usize = 80;

/// What was changed in the place, where it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// From the signal until the process is killed.
    pub killed_after: Option<Duration>,
    /// After so much silence the balancer forgets a connection.
    pub idle_timer: Option<Duration>,
}

/// What a place is like unless it is told otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// From the signal until the process is killed.
    pub killed_after: Duration,
    /// What that is set with.
    killed_by: &'static str,
    /// The most that it can be set to.
    pub longest: Option<Duration>,
    /// For how long after the signal new clients are sent.
    pub sends_new_for: Duration,
    /// Why.
    sends_new: &'static str,
    /// After so much silence a connection is forgotten.
    pub idle_timer: Option<Duration>,
    /// By whom.
    idle_timer_of: &'static str,
}

impl Deployment {
    /// What it is like unless it is told otherwise.
    #[must_use]
    pub const fn facts(self) -> Facts {
        let seconds = Duration::from_secs;
        let docker = Facts {
            killed_after: seconds(10),
            killed_by: "docker stop --time",
            longest: None,
            sends_new_for: Duration::ZERO,
            sends_new: "",
            idle_timer: None,
            idle_timer_of: "whatever is on the way",
        };
        let systemd = Facts { killed_after: seconds(90), killed_by: "TimeoutStopSec=", ..docker };
        match self {
            Self::Nlb => Facts {
                sends_new_for: seconds(60),
                sends_new: "an NLB calls a target unhealthy after 20 s, with checks every 10 s, and \
                            sends new connections for 30 to 40 s more",
                idle_timer: Some(seconds(350)),
                idle_timer_of: "an NLB",
                ..systemd
            },
            Self::Elb => Facts {
                sends_new_for: seconds(20),
                sends_new: "a classic ELB calls an instance unhealthy after 20 s, with checks every \
                            10 s and 2 failures",
                idle_timer: Some(seconds(60)),
                idle_timer_of: "a classic ELB",
                ..systemd
            },
            Self::Ecs => Facts {
                killed_after: seconds(30),
                killed_by: "stopTimeout",
                longest: Some(seconds(120)),
                idle_timer: Some(seconds(350)),
                idle_timer_of: "an NLB",
                ..docker
            },
            Self::Kubernetes => Facts {
                killed_after: seconds(30),
                killed_by: "terminationGracePeriodSeconds",
                sends_new_for: seconds(10),
                sends_new: "the nodes hear only after some seconds that the pod is no endpoint any more",
                ..docker
            },
            Self::Docker => docker,
        }
    }
}

/// One thing to know, to set or to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// What was reckoned with.
    Sum(String),
    /// What must be set in the place.
    Set {
        /// The attribute, as the place calls it.
        name: &'static str,
        /// Its value; numbers are the least that will do.
        value: String,
        /// What it is for.
        why: &'static str,
    },
    /// What would be cut.
    Cut {
        /// When, in words.
        when: String,
        /// What.
        what: &'static str,
    },
    /// What is worth a look, and no fault.
    Note(String),
    /// Settings and place do not go together.
    Contradiction(String),
}

/// What there is to say of `config` in the place `deployment`.
#[must_use]
pub fn findings(deployment: Deployment, config: &Config, changed: Changed) -> Vec<Finding> {
    let facts = deployment.facts();
    let Config { drain_delay: delay, drain_period: period, drain_grace: grace, .. } = *config;
    let connections = delay.saturating_add(period).saturating_add(grace);
    let all = connections.saturating_add(LAST_BYTES);
    let killed_after = changed.killed_after.unwrap_or(facts.killed_after);
    let sum = format!(
        "DRAIN_DELAY {} + DRAIN_PERIOD {} + DRAIN_GRACE {} + {} = {}; killed after {} ({})",
        Seconds(delay),
        Seconds(period),
        Seconds(grace),
        Seconds(LAST_BYTES),
        Seconds(all),
        Seconds(killed_after),
        facts.killed_by,
    );
    let mut found = vec![Finding::Sum(sum)];
    found.extend(to_set(deployment, config, connections, all));
    found.extend([
        Finding::Cut {
            when: format!("at {}", Seconds(delay.saturating_add(period))),
            what: "tunnels that are no WebSockets, in both directions",
        },
        Finding::Cut {
            when: format!("at {}", Seconds(all)),
            what: "whatever is still open: requests under way, clients that do not answer their Close",
        },
    ]);
    if deployment == Deployment::Ecs {
        if !delay.is_zero() {
            found.push(Finding::Note(format!(
                "DRAIN_DELAY={}: a service sends SIGTERM when the deregistration is over and nobody new \
                 comes, so that 0s leaves this time to the Closes. A single task that is stopped \
                 (StopTask) gets its signal at once",
                Seconds(delay)
            )));
        }
        found.push(Finding::Note(String::from(
            "with Service Connect, set idleTimeoutSeconds and perRequestTimeoutSeconds to 0: else it \
             ends connections that are idle for 5 min, and requests that take 15 s",
        )));
    }
    if delay < facts.sends_new_for {
        found.push(Finding::Contradiction(format!(
            "DRAIN_DELAY={}: {}: give {} at least, or clients that still come find a closed port",
            Seconds(delay),
            facts.sends_new,
            Seconds(facts.sends_new_for),
        )));
    }
    found.extend(killed_too_early(&facts, config, all, killed_after));
    let has_deregistration =
        matches!(deployment, Deployment::Nlb | Deployment::Elb | Deployment::Ecs);
    if has_deregistration && connections > LONGEST_DEREGISTRATION {
        found.push(Finding::Contradiction(format!(
            "DRAIN_DELAY, DRAIN_PERIOD and DRAIN_GRACE are {} together, and a deregistration takes {} \
             at most: what is open then is cut",
            Seconds(connections),
            Seconds(LONGEST_DEREGISTRATION),
        )));
    }
    let idle_timer = changed.idle_timer.or(facts.idle_timer);
    found.extend(idle_timer.and_then(|timer| silent(facts.idle_timer_of, timer, config)));
    found
}

/// What must be set there: each by its name, so that docs/operations.md can be held against it.
fn to_set(
    deployment: Deployment,
    config: &Config,
    connections: Duration,
    all: Duration,
) -> Vec<Finding> {
    let set = |name, value: String, why| Finding::Set { name, value, why };
    let seconds = |time: Duration| whole_seconds(time).to_string();
    let with_header = (config.proxy_protocol != ProxyProtocol::Off).to_string();
    let who = if config.proxy_protocol == ProxyProtocol::Off {
        "PROXY_PROTOCOL=off: a header would be content, and who the client is is not known"
    } else {
        "who the client is"
    };
    // What is more than it can be set to is a contradiction, and nothing to be set.
    let least = |name, time: Duration, most: Duration, why| {
        (time <= most).then(|| set(name, seconds(time), why))
    };
    let target_group = |deregistration: Duration| {
        let all = [
            Some(set("proxy_protocol_v2.enabled", with_header.clone(), who)),
            Some(set(
                "target_health_state.unhealthy.connection_termination.enabled",
                String::from("false"),
                "by default (true) every open connection is reset when checks fail, which is how a \
                 drain begins",
            )),
            Some(set(
                "target_health_state.unhealthy.draining_interval_seconds",
                seconds(connections),
                "or more: for how long open connections of an unhealthy target go on",
            )),
            least(
                "deregistration_delay.timeout_seconds",
                deregistration,
                LONGEST_DEREGISTRATION,
                "or more: new connections come for 120 s after a deregistration; the default is 300",
            ),
            Some(set(
                "deregistration_delay.connection_termination.enabled",
                String::from("false"),
                "the default: open connections go on after that time",
            )),
        ];
        all.into_iter().flatten().collect::<Vec<_>>()
    };
    let most = deployment.facts().longest.unwrap_or(Duration::MAX);
    let killed = |name| least(name, all, most, "or more: the whole drain");
    match deployment {
        Deployment::Nlb => {
            let mut found = target_group(connections);
            found.extend(killed("TimeoutStopSec="));
            found
        }
        Deployment::Elb => {
            let policy = format!("ProxyProtocol={with_header}");
            let mut found = vec![
                set("ProxyProtocolPolicyType", policy, who),
                set(
                    "ConnectionDraining.Enabled",
                    String::from("true"),
                    "connections go on for a time",
                ),
            ];
            found.extend(least(
                "ConnectionDraining.Timeout",
                connections,
                LONGEST_DEREGISTRATION,
                "or more: it cuts what is left; the default is 300",
            ));
            found.extend(killed("TimeoutStopSec="));
            found
        }
        Deployment::Ecs => {
            let mut found = target_group(Duration::from_secs(120));
            found.extend(killed("stopTimeout"));
            found
        }
        Deployment::Kubernetes => killed("terminationGracePeriodSeconds").into_iter().collect(),
        Deployment::Docker => vec![set(
            "docker stop --time",
            seconds(all),
            "or more: the whole drain; stop_grace_period in Compose",
        )],
    }
}

/// What is lost where the process is killed before its drain is over.
fn killed_too_early(
    facts: &Facts,
    config: &Config,
    all: Duration,
    killed_after: Duration,
) -> Option<Finding> {
    let by = facts.killed_by;
    if let Some(longest) =
        facts.longest.filter(|longest| killed_after > *longest && all <= *longest)
    {
        return Some(Finding::Contradiction(format!(
            "--killed-after={}: {by} is {} at most",
            Seconds(killed_after),
            Seconds(longest),
        )));
    }
    if let Some(longest) = facts.longest.filter(|longest| all > *longest) {
        return Some(Finding::Contradiction(format!(
            "{by} is {} at most, and the drain takes {}: {}",
            Seconds(longest),
            Seconds(all),
            lost(config, longest.min(killed_after)),
        )));
    }
    (all > killed_after).then(|| {
        Finding::Contradiction(format!(
            "the drain takes {}, and {by} kills after {}: {}. Set {by} to {} or more, and say so with \
             --killed-after, or shorten DRAIN_PERIOD",
            Seconds(all),
            Seconds(killed_after),
            lost(config, killed_after),
            whole_seconds(all),
        ))
    })
}

/// What a process that is killed so long after its signal has not done.
fn lost(config: &Config, killed_after: Duration) -> String {
    let Config { drain_delay: delay, drain_period: period, drain_grace: grace, .. } = *config;
    let Some(closing) = killed_after.checked_sub(delay).filter(|closing| !closing.is_zero()) else {
        return String::from("no WebSocket gets its Close, and all end with 1006");
    };
    if closing < period {
        let left = 100.0 * (1.0 - closing.as_secs_f64() / period.as_secs_f64());
        return format!("{} % of the WebSockets get no Close, and end with 1006", left.ceil());
    }
    let left = closing.saturating_sub(period).min(grace.saturating_add(LAST_BYTES));
    format!("whoever gets the last Closes has {} to answer, and is cut then", Seconds(left))
}

/// What becomes of a client from which nothing comes.
fn silent(whose: &str, timer: Duration, config: &Config) -> Option<Finding> {
    let Some(interval) = config.ping_interval else {
        return Some(Finding::Cut {
            when: format!("after {} of silence", Seconds(timer)),
            what: "any client: PING_INTERVAL=off, and the idle timer ends what is silent, unless the \
                   application or the client pings",
        });
    };
    // A tenth is for the clock's ticks, and the way there and back.
    let longest = timer.mul_f64(0.9);
    (interval > longest).then(|| {
        Finding::Contradiction(format!(
            "PING_INTERVAL={}: {whose} forgets a connection that is silent for {}: give {} at most",
            Seconds(interval),
            Seconds(timer),
            Seconds(longest),
        ))
    })
}

/// Seconds, rounded up.
const fn whole_seconds(time: Duration) -> u64 {
    let rest = if time.subsec_nanos() > 0 { 1 } else { 0 };
    time.as_secs().saturating_add(rest)
}

/// A time as people read it: `9.3 s`.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.0.as_millis() / 100;
        if tenths.is_multiple_of(10) {
            write!(out, "{} s", tenths / 10)
        } else {
            write!(out, "{}.{} s", tenths / 10, tenths % 10)
        }
    }
}

/// The findings as they are printed, in lines of 80 columns, but for the contradictions.
#[must_use]
pub fn report(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        match finding {
            Finding::Sum(text) => wrap(&mut out, "", text),
            Finding::Set { name, value, why } => {
                let equals = if name.ends_with('=') { "" } else { " = " };
                wrap(&mut out, "set   ", &format!("{name}{equals}{value}"));
                wrap(&mut out, "        ", why);
            }
            Finding::Cut { when, what } => wrap(&mut out, "cut   ", &format!("{when}: {what}")),
            Finding::Note(text) => wrap(&mut out, "note  ", text),
            Finding::Contradiction(_) => {}
        }
    }
    out
}

/// The contradictions, in lines of 80 columns; empty if there is none.
#[must_use]
pub fn contradictions(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        if let Finding::Contradiction(text) = finding {
            wrap(&mut out, "elbows: ", text);
        }
    }
    out
}

/// Writes `text` behind `first`, and below it where it is longer than a line.
fn wrap(out: &mut String, first: &str, text: &str) {
    out.push_str(first);
    let mut column = first.len();
    for word in text.split(' ') {
        let is_first = column == first.len();
        if !is_first && column + 1 + word.len() > COLUMNS {
            // Writing to a string cannot fail.
            let _ = write!(out, "\n{:width$}", "", width = first.len());
            column = first.len();
        } else if !is_first {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
    out.push('\n');
}
