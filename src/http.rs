//! HTTP/1.1 (RFC 9110, RFC 9112): how messages are read, and how they are written.
//!
//! Everything here is pure. What a peer sends is read once and strictly ([`head`], [`framing`]): a message that two
//! readers could read differently goes no further. It is written on from what was read, line for line (`write`),
//! and its body is framed anew as its receiver needs it (`body`). What elbows says itself is written in one place
//! (`own`), and its statuses are chosen in one place (`reject`). [`trace_context`] says which trace a request is part of.

pub mod framing;
pub mod head;
pub mod trace_context;

pub(crate) mod affinity;
pub(crate) mod body;
pub(crate) mod changes;
pub(crate) mod forwarded;
pub(crate) mod health;
pub(crate) mod hop;
pub(crate) mod max_forwards;
pub(crate) mod own;
pub(crate) mod reject;
pub(crate) mod request_id;
pub(crate) mod upgrade;
pub(crate) mod write;
