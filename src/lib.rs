//! elbows, a WebSocket reverse proxy for applications behind layer-4 load balancers that speak the
//! PROXY protocol.
//!
//! The path of a connection, and the order of the modules:
//!
//! ```text
//! listener → connection → proxy_protocol → http → upstream ──101──▶ tunnel → relay → end → access_log, metrics
//!                                                             ▲ the one door
//! ```
//!
//! Up to the 101 a connection belongs to the **front**, which runs on tokio and hyper. With the 101 it
//! becomes a [`tunnel::Tunnel`], plain data, and goes through one door, [`relay::Relay::adopt`], to the
//! **relay**, an engine of our own on mio. Where nothing is unusual, a handshake takes a shorter way
//! (`connection/direct.rs`), on the relay's thread from accept on. `docs/architecture.md` draws all of it and
//! says why.

pub mod config;
pub mod sandbox;
pub mod server;

mod client;
mod connection;
mod inbox;
mod limits;
mod listener;
mod socket;
mod stall;
mod words;

pub mod http;
pub mod proxy_protocol;
pub mod upstream;

pub mod relay;
pub mod tunnel;
mod websocket;

mod clock;
mod encoding;
mod peer;

pub mod access_log;
mod drain;
pub mod end;
pub mod line_writer;
pub mod log;
pub mod metrics;
pub mod panics;
mod summary;
#[allow(dead_code)] // The front still warns by itself.
mod warnings;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
