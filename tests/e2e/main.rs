//! elbows from outside: the binary between clients and applications, each topic a module.
//!
//! Peers of our own speak bytes ([`client`], [`upstream`]); other people's programs are in the
//! modules that name them. Every test starts what it needs on free ports and ends it.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::must_use_candidate
)]

/// In one piece and byte by byte.
#[macro_use]
mod pieces;

mod client;
mod proxy;
mod upstream;
mod web_socket;

/// Other people's programs: found, started, ended.
mod programs;
/// Other people's clients that hold a tunnel and answer.
mod real_clients;

/// What the older container did wrong, each fault by name.
mod older_container;

/// The one path that elbows answers itself.
mod handoff;
mod health;
/// Who is believed to be the client.
mod proxy_header;

/// What one client, or all together, may have.
mod admission;
/// Answers that come early, in pieces, unasked or in part: each goes to whoever asked, as far as it came.
mod answers;
/// Requests that must not pass, each with its status.
mod bad_requests;
/// Bodies both ways: framing, streaming, expectations, connections kept.
mod bodies;
/// Many endpoints: from names to a choice.
mod endpoints;
/// What passes between client and upstream besides bodies: lines, fields, identity.
mod forwarding;
/// The upstream's name, a resolver that fails, and what the log says of a dead application.
mod names;
/// Several applications, by a file.
mod routes;
/// One meaning or none: every rule of HTTP/1.1, and what nginx and `HAProxy` do.
mod strictness;
/// Whose trace a request is part of.
mod trace_context;
/// Upgrades and the tunnels that they open.
mod upgrade;
/// Upstreams that refuse, hang, break off or answer nonsense.
mod upstream_faults;

/// Clients and upstreams that do anything at any time.
mod chaos;

/// The machine's clock is set.
mod clock;
/// Sides that vanish without a word, and a machine without ports.
mod cut_off;

/// Frames as they pass: untouched, counted, checked.
mod frames;
/// Sizes, silence, age, a side that takes nothing.
mod limits;
/// Tunnels of every kind at once, each byte of which both ends check.
mod load;
/// Slow and greedy clients and upstreams of plain requests, floods, half-open handshakes.
mod slow_peers;

/// Pings of ours and everybody else's.
mod pings;
/// Tunnels at the end of a process: each is told, in turn.
mod tunnel_drain;
/// elbows under that load, and whether the load would notice.
mod under_load;

/// The port for operators: what it tells, what it does, and what comes to it.
mod admin;
/// The files for Prometheus and Grafana, and the document for the night, each against a running elbows.
mod observability;
/// The same in a terminal.
mod top;

/// Mistakes of elbows itself.
mod mistakes;

/// What the access log says, and what its reader can do to elbows.
mod access_log;
/// What the process gives up, who it runs as, and what it never says.
mod confined;
/// The way to zero: signals, what goes on, what is cut, exit codes.
mod drain;
/// The process: descriptors, memory, signals, PID 1.
mod process;
/// Settings: faults, precedence, `elbows check`.
mod settings;
/// What it tells of itself when it is asked.
mod summary;
/// What starts it and watches it, and the files for that.
mod supervisor;
/// What it tells of what is wrong around it.
mod warnings;

/// Other people's applications and clients, every client through every balancer.
mod applications;
/// Other people's load balancers, and their health checks.
mod balancers;
/// A real browser, on the demo's page and elsewhere.
mod browser;
/// The container image, by the README's own words.
mod image;
