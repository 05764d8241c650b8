//! Envoy: one worker thread, HTTP/1.1. Its limits and idle timers are out of the way, all else as by default.

use std::net::SocketAddr;
use std::path::Path;

use super::{Replacement, Setup, installed, write};
use crate::Fallible;
use crate::process::Program;

const BINARY: &str = "envoy/_bin/envoy";

pub(super) fn program(
    own: &Path,
    cores: &[usize],
    scratch: &Path,
    addresses: [SocketAddr; 2],
    setup: &Setup,
) -> Fallible<Program> {
    let file = write(scratch, "envoy.yaml", &configuration(addresses, setup))?;
    let program = Program::new("Envoy", cores, &installed(own, BINARY)?)
        .argument("--config-path")
        .argument(file)
        .argument("--concurrency")
        .argument("1")
        .argument("--log-level")
        .argument("error");
    let Some(Replacement { stays, epoch }) = setup.replacement else {
        // It would have shared memory, and one of it for all that run on this machine.
        return Ok(program.argument("--disable-hot-restart"));
    };
    let program = program
        .argument("--base-id")
        .argument(base().to_string())
        .argument("--restart-epoch")
        .argument(epoch.to_string());
    Ok(match stays {
        None => program,
        // The listeners' connections are told to go over the first half of it.
        Some(stays) => program
            .argument("--drain-time-s")
            .argument((stays.as_secs() / 2).to_string())
            .argument("--parent-shutdown-time-s")
            .argument(stays.as_secs().to_string()),
    })
}

/// What tells the processes that replace each other from others on this machine.
fn base() -> u32 {
    std::process::id() % 100_000 + 1
}

/// Removes what processes that replace each other leave behind: the memory that they share (`shm_open(3)`).
pub(crate) fn clean_up() {
    // There is none where it never ran.
    let _ = std::fs::remove_file(format!("/dev/shm/envoy_shared_memory_{}", base() * 10));
}

/// The words that make it say its version.
pub(super) fn version(own: &Path) -> Fallible<[String; 2]> {
    Ok([installed(own, BINARY)?.display().to_string(), "--version".to_owned()])
}

pub(super) fn configuration([listen, application]: [SocketAddr; 2], setup: &Setup) -> String {
    let address = |address: SocketAddr| {
        format!(
            "{{ socket_address: {{ address: {}, port_value: {} }} }}",
            address.ip(),
            address.port()
        )
    };
    let endpoint =
        |at: SocketAddr| format!("\n        - endpoint:\n            address: {}", address(at));
    let (policy, endpoints) = match setup.endpoints {
        None => (String::new(), endpoint(application)),
        Some(endpoints) => {
            let policy = "
    lb_policy: LEAST_REQUEST
    health_checks:
    - { timeout: 1s, interval: 0.5s, no_traffic_interval: 0.5s, unhealthy_threshold: 1, healthy_threshold: 1,
        tcp_health_check: {} }";
            (policy.to_owned(), endpoints.addresses().map(endpoint).collect())
        }
    };
    format!(
        r#"static_resources:
  listeners:
  - name: clients
    address: {listen}
    tcp_backlog_size: 4096
    listener_filters:
    - name: envoy.filters.listener.proxy_protocol
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: clients
          codec_type: HTTP1
          use_remote_address: true
          generate_request_id: false
          stream_idle_timeout: 0s
          upgrade_configs:
          - upgrade_type: websocket
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              suppress_envoy_headers: true
          route_config:
            request_headers_to_add:
            - header: {{ key: x-real-ip, value: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%" }}
              append_action: OVERWRITE_IF_EXISTS_OR_ADD
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{ prefix: / }}
                route: {{ cluster: application, timeout: 0s }}
  clusters:
  - name: application
    type: STATIC{policy}
    connect_timeout: 5s
    circuit_breakers:
      thresholds:
      - max_connections: 20000
        max_pending_requests: 20000
        max_requests: 20000
    load_assignment:
      cluster_name: application
      endpoints:
      - lb_endpoints:{endpoints}
"#,
        listen = address(listen)
    )
}
