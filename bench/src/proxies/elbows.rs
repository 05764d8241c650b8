//! elbows with its defaults: frames followed, pings armed, counters on.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::Setup;
use crate::Fallible;
use crate::process::Program;

pub(super) fn program(
    own: &Path,
    cores: &[usize],
    scratch: &Path,
    addresses: [SocketAddr; 2],
    setup: &Setup,
) -> Fallible<Program> {
    let program = Program::new("elbows", cores, &binary(own)?);
    let mut settings = settings(addresses, setup);
    if setup.replacement.is_some() {
        settings.push(("HANDOFF_SOCKET", scratch.join("handoff.sock").display().to_string()));
        settings.push(("LOG", "info".to_owned()));
    }
    Ok(settings.iter().fold(program, |program, (name, value)| program.variable(name, value)))
}

pub(super) fn settings(
    [listen, application]: [SocketAddr; 2],
    setup: &Setup,
) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("LISTEN_ON", listen.to_string()),
        ("DESTINATION_HOSTNAME", application.ip().to_string()),
        ("DESTINATION_PORT", application.port().to_string()),
        ("THREADS", setup.threads.to_string()),
        ("ACCESS_LOG", "off".to_owned()),
        ("LOG", "warn".to_owned()),
        ("PING_INTERVAL", format!("{}ms", setup.ping_interval.as_millis())),
        ("DRAIN_DELAY", "0s".to_owned()),
        ("DRAIN_PERIOD", format!("{}ms", setup.drain_period.as_millis())),
    ];
    if let Some(endpoints) = setup.endpoints {
        let all: Vec<_> = endpoints.addresses().map(|address| address.ip().to_string()).collect();
        settings.push(("DESTINATION_HOSTNAME", all.join(",")));
    }
    settings.extend(setup.admin.map(|address| ("ADMIN_LISTEN_ON", address.to_string())));
    settings.extend(setup.more.iter().map(|(name, value)| (*name, (*value).to_owned())));
    settings
}

/// The binary, built beside ours.
pub(super) fn binary(own: &Path) -> Fallible<PathBuf> {
    let binary = own.with_file_name("elbows");
    if binary.is_file() {
        return Ok(binary);
    }
    Err(format!("there is no {}; `cargo build --release --bin elbows` builds it", binary.display()))
}
