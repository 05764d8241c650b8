//! HAProxy: HTTP mode, one thread, a master where it is to be reloaded. Buffers and all else as by default.

use std::net::SocketAddr;
use std::path::Path;

use super::{ROOM, Setup, find, write};
use crate::Fallible;
use crate::process::Program;

pub(super) fn program(
    cores: &[usize],
    scratch: &Path,
    addresses: [SocketAddr; 2],
    setup: &Setup,
) -> Fallible<Program> {
    let file = write(scratch, "haproxy.cfg", &configuration(addresses, setup))?;
    Ok(Program::new("HAProxy", cores, &find("haproxy")?)
        .argument(if setup.replacement.is_some() { "-W" } else { "-db" })
        .argument("-q")
        .argument("-f")
        .argument(file))
}

pub(super) fn configuration([listen, application]: [SocketAddr; 2], setup: &Setup) -> String {
    let stays = setup.replacement.and_then(|replacement| replacement.stays);
    let stays = stays.map(|stays| format!("\n    hard-stop-after {}s", stays.as_secs()));
    let stays = stays.unwrap_or_default();
    let servers = match setup.endpoints {
        None => format!("    server application {application}"),
        Some(endpoints) => {
            let server = |(number, address)| {
                format!(
                    "\n    server application-{number} {address} check inter 500ms rise 1 fall 1"
                )
            };
            let servers: String = (1..).zip(endpoints.addresses()).map(server).collect();
            format!("    balance leastconn{servers}")
        }
    };
    format!(
        "global
    nbthread 1
    maxconn {ROOM}{stays}
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
{servers}
"
    )
}
