//! Envoy: one worker thread, HTTP/1.1. Its limits and idle timers are out of the way, all else as by default.

use std::net::SocketAddr;
use std::path::Path;

use super::{installed, write};
use crate::Fallible;
use crate::process::Program;

const BINARY: &str = "envoy/_bin/envoy";

pub(super) fn program(
    own: &Path,
    cores: &[usize],
    scratch: &Path,
    addresses: [SocketAddr; 2],
) -> Fallible<Program> {
    let file = write(scratch, "envoy.yaml", &configuration(addresses))?;
    Ok(Program::new("Envoy", cores, &installed(own, BINARY)?)
        .argument("--config-path")
        .argument(file)
        .argument("--concurrency")
        .argument("1")
        // It would have shared memory, and one of it for all that run on this machine.
        .argument("--disable-hot-restart")
        .argument("--log-level")
        .argument("error"))
}

/// The words that make it say its version.
pub(super) fn version(own: &Path) -> Fallible<[String; 2]> {
    Ok([installed(own, BINARY)?.display().to_string(), "--version".to_owned()])
}

pub(super) fn configuration([listen, application]: [SocketAddr; 2]) -> String {
    let address = |address: SocketAddr| {
        format!(
            "{{ socket_address: {{ address: {}, port_value: {} }} }}",
            address.ip(),
            address.port()
        )
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
    type: STATIC
    connect_timeout: 5s
    circuit_breakers:
      thresholds:
      - max_connections: 20000
        max_pending_requests: 20000
        max_requests: 20000
    load_assignment:
      cluster_name: application
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: {application}
"#,
        listen = address(listen),
        application = address(application)
    )
}
