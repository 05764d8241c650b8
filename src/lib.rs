//! elbows, a WebSocket reverse proxy for applications behind layer-4 load balancers that speak the
//! PROXY protocol.
//!
//! The path of a connection, and the order of the modules:
//!
//! ```text
//! accept → connection (identify → request → route → admission) ─┬─ own response ────────────┐
//!                                                               ├─ exchange ⇄ upstream ─────┼─→ next request, or the end
//!                                                               └─ exchange ⇄ upstream ─101─┴─→ tunnel ─→ the end
//! ```
//!
//! There is one engine. [`workers`] are threads, one per core, each with a poll, its sockets, its clock and its buffers. A
//! connection is accepted there and stays on one worker: `connection` says what becomes of it, reading what the client
//! sends by [`proxy_protocol`] and [`http`]; [`routes`] says by which settings a request passes, and to which upstream;
//! `exchange` is one request and its response; [`tunnel`] is what follows a 101, whose frames `websocket` follows. These
//! are machines without sockets, clocks and random numbers: bytes, readiness and time come in as arguments, what to
//! write, connect or end comes out. Its end is an [`end::End`], which one line of the [`access_log`] and the counters of
//! [`metrics`] tell.
//!
//! Beside the workers, [`control`] has one thread on tokio: signals, name resolution and checks of endpoints
//! ([`upstream`]), health checks on their own port, and the port for operators, whose questions and answers are in
//! `admin`. It never touches a client's byte. It also conducts the [`handoff`]: a new process takes over the tunnels and the listeners.
//! `docs/architecture.md` draws all of it and says why.

mod words;

pub mod config;
pub mod deployment;
pub mod sandbox;

pub mod control;

pub mod workers;

mod clock;
mod limits;
mod listener;
mod outgoing;
mod peer;
mod proxy;
pub mod routes;
mod socket;

mod connection;

mod client;
pub mod proxy_protocol;

pub mod http;

mod exchange;

pub mod upstream;

mod encoding;
pub mod tunnel;
mod websocket;

mod drain;
pub mod end;
mod feed;
pub mod handoff;

pub mod access_log;
mod admin;
pub mod line_writer;
pub mod log;
pub mod metrics;
pub mod notify;
pub mod panics;
mod summary;
mod warnings;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
