//! Caddy: one thread at a time that runs Go code. HTTP/1.1 without TLS; all else as by default.

use std::net::SocketAddr;
use std::path::Path;

use super::{ONE_THREAD, Setup, installed, write};
use crate::Fallible;
use crate::process::Program;

const BINARY: &str = "bin/caddy";

pub(super) fn program(
    own: &Path,
    cores: &[usize],
    scratch: &Path,
    addresses: [SocketAddr; 2],
    setup: &Setup,
) -> Fallible<Program> {
    let file = write(scratch, "Caddyfile", &configuration(addresses, setup))?;
    let home = scratch.display().to_string();
    Ok(Program::new("Caddy", cores, &installed(own, BINARY)?)
        .argument("run")
        .argument("--adapter")
        .argument("caddyfile")
        .argument("--config")
        .argument(file)
        .variable(ONE_THREAD, "1")
        .variable("XDG_CONFIG_HOME", &home)
        .variable("XDG_DATA_HOME", &home))
}

/// The words that make it say its version.
pub(super) fn version(own: &Path) -> Fallible<[String; 2]> {
    Ok([installed(own, BINARY)?.display().to_string(), "version".to_owned()])
}

pub(super) fn configuration([listen, application]: [SocketAddr; 2], setup: &Setup) -> String {
    format!(
        "{{
    admin off
    persist_config off
    auto_https off
    grace_period {grace}ms
    log {{
        level ERROR
    }}
    servers {{
        protocols h1
        listener_wrappers {{
            proxy_protocol {{
                timeout 5s
                allow 127.0.0.0/8
            }}
        }}
    }}
}}
http://:{port} {{
    bind {address}
    reverse_proxy {application} {{
        header_up X-Real-IP {{remote_host}}
        transport http {{
            compression off
            keepalive_idle_conns_per_host 64
        }}
    }}
}}
",
        // Zero would be for ever.
        grace = setup.drain_period.as_millis().max(1),
        port = listen.port(),
        address = listen.ip()
    )
}
