//! Handoff: live tunnels move to a new process.
//!
//! The old process and the new one speak over a UNIX socket whose path is `HANDOFF_SOCKET`. Its messages carry records
//! of tunnels, and the descriptors of their sockets beside them.

pub mod socket;

use crate::config::{Config, Fault};

/// Checks what the settings alone cannot tell of the handoff: whether a socket may be bound at `HANDOFF_SOCKET`.
///
/// # Errors
/// What is wrong with its directory.
pub fn check(config: &Config) -> Result<(), Fault> {
    let Some(path) = &config.handoff_socket else { return Ok(()) };
    socket::check(path).map_err(|fault| Fault::Invalid {
        variable: "HANDOFF_SOCKET",
        value: path.display().to_string(),
        rule: fault.to_string(),
    })
}
