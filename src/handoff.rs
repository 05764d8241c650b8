//! Handoff: live tunnels move to a new process.
//!
//! The old process and the new one speak over a UNIX socket whose path is `HANDOFF_SOCKET`. Its messages carry records
//! of tunnels, and the descriptors of their sockets beside them.

pub mod socket;
