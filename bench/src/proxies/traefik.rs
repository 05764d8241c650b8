//! Traefik: one thread at a time that runs Go code. Its time limit for a request is out of the way, all else
//! as by default.

use std::net::SocketAddr;
use std::path::Path;

use super::{ONE_THREAD, Setup, installed, write};
use crate::Fallible;
use crate::process::Program;

const BINARY: &str = "bin/traefik";

pub(super) fn program(
    own: &Path,
    cores: &[usize],
    scratch: &Path,
    addresses: [SocketAddr; 2],
    setup: &Setup,
) -> Fallible<Program> {
    let routes = write(scratch, "traefik-routes.yml", &routes(addresses))?;
    let file = write(scratch, "traefik.yml", &entry(&routes, addresses, setup))?;
    Ok(Program::new("Traefik", cores, &installed(own, BINARY)?)
        .argument(format!("--configFile={file}"))
        .variable(ONE_THREAD, "1"))
}

/// The words that make it say its version.
pub(super) fn version(own: &Path) -> Fallible<[String; 2]> {
    Ok([installed(own, BINARY)?.display().to_string(), "version".to_owned()])
}

/// Both of its files.
pub(super) fn configuration(addresses: [SocketAddr; 2], setup: &Setup) -> String {
    format!("{}\n{}", entry("/tmp/bench/traefik-routes.yml", addresses, setup), routes(addresses))
}

fn entry(routes: &str, [listen, _]: [SocketAddr; 2], setup: &Setup) -> String {
    let grace = setup.drain_period.as_millis().max(1);
    format!(
        "global:
  checkNewVersion: false
  sendAnonymousUsage: false
log:
  level: ERROR
entryPoints:
  clients:
    address: {listen}
    proxyProtocol:
      trustedIPs: [127.0.0.0/8]
    transport:
      lifeCycle:
        graceTimeOut: {grace}ms
      respondingTimeouts:
        readTimeout: 0s
providers:
  file:
    filename: {routes}
    watch: false
"
    )
}

fn routes([_, application]: [SocketAddr; 2]) -> String {
    format!(
        "http:
  routers:
    all:
      entryPoints: [clients]
      rule: PathPrefix(`/`)
      service: application
  services:
    application:
      loadBalancer:
        servers:
        - url: http://{application}
"
    )
}
