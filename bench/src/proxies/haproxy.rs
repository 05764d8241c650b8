//! HAProxy: HTTP mode, one thread. Buffers and all else as by default.

use std::net::SocketAddr;
use std::path::Path;

use super::{ROOM, find, write};
use crate::Fallible;
use crate::process::Program;

pub(super) fn program(
    cores: &[usize],
    scratch: &Path,
    addresses: [SocketAddr; 2],
) -> Fallible<Program> {
    let file = write(scratch, "haproxy.cfg", &configuration(addresses))?;
    Ok(Program::new("HAProxy", cores, &find("haproxy")?)
        .argument("-db")
        .argument("-q")
        .argument("-f")
        .argument(file))
}

pub(super) fn configuration([listen, application]: [SocketAddr; 2]) -> String {
    format!(
        "global
    nbthread 1
    maxconn {ROOM}
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
    option forwardfor
frontend clients
    bind {listen} accept-proxy backlog 4096
    maxconn {ROOM}
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Real-IP %[src]
    default_backend applications
backend applications
    server application {application}
"
    )
}
