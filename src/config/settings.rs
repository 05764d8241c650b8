//! What was typed: each setting is a flag and an environment variable of one definition.
//!
//! Values are text here, so that [`Config::from_settings`](super::Config::from_settings) can report
//! every fault at once instead of stopping at the first.

use clap::Args;

/// The settings as they were given.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Settings (each is also an environment variable)")]
pub struct Settings {
    /// Where load balancers connect: a port, or an address and a port
    #[arg(long, env, value_name = "[ADDRESS:]PORT", allow_hyphen_values = true)]
    pub listen_on: Option<String>,
    /// The application's host name or IP address
    #[arg(long, env, value_name = "HOST", allow_hyphen_values = true)]
    pub destination_hostname: Option<String>,
    /// The application's port
    #[arg(long, env, value_name = "PORT", allow_hyphen_values = true)]
    pub destination_port: Option<String>,
    /// Whether connections begin with a PROXY header: required, optional or off
    #[arg(long, env, value_name = "MODE", default_value = "required")]
    pub proxy_protocol: String,
    /// Whose PROXY headers are believed: networks or addresses, comma separated, or everyone
    #[arg(long, env, value_name = "CIDR,...", default_value = "everyone")]
    pub trusted_proxies: String,
    /// TLVs that become request headers: alpn, authority, unique-id, ssl, aws-vpce-id, azure-link-id, gcp-psc-id, all or none
    #[arg(long, env, value_name = "TLV,...", default_value = "none")]
    pub proxy_tlv_headers: String,
    /// The path that elbows answers itself, for health checks
    #[arg(long, env, value_name = "PATH", default_value = "/ping")]
    pub health_path: String,
    /// A further port for health checks alone, without PROXY header, or none
    #[arg(long, env, value_name = "[ADDRESS:]PORT", default_value = "none")]
    pub health_listen_on: String,
    /// Forwarded headers from the client: set (replace them) or append (keep them and add)
    #[arg(long, env, value_name = "MODE", default_value = "set")]
    pub forwarded: String,
    /// Send Forwarded (RFC 7239) as well as X-Forwarded-*: on or off
    #[arg(long, env, value_name = "on|off", default_value = "off")]
    pub forwarded_header: String,
    /// From accept until the PROXY header is complete
    #[arg(long, env, value_name = "TIME", default_value = "10s", allow_hyphen_values = true)]
    pub proxy_header_timeout: String,
    /// For a request head, the wait for it on an idle connection included
    #[arg(long, env, value_name = "TIME", default_value = "60s", allow_hyphen_values = true)]
    pub request_head_timeout: String,
    /// For a connection to the application, its name and all its addresses together
    #[arg(long, env, value_name = "TIME", default_value = "5s", allow_hyphen_values = true)]
    pub connect_timeout: String,
    /// For a response head, counted from the last byte of the request
    #[arg(long, env, value_name = "TIME", default_value = "60s", allow_hyphen_values = true)]
    pub response_head_timeout: String,
    /// Connections of clients at once, tunnels among them; or off
    #[arg(long, env, value_name = "NUMBER", default_value = "off", allow_hyphen_values = true)]
    pub max_connections: String,
    /// Connections at once of one client, an IPv4 address or an IPv6 /64; or off
    #[arg(long, env, value_name = "NUMBER", default_value = "off", allow_hyphen_values = true)]
    pub max_connections_per_client: String,
    /// How often one client may ask for an upgrade, as 10/s, 100/min or 10/s burst=50; or off
    #[arg(long, env, value_name = "RATE", default_value = "off", allow_hyphen_values = true)]
    pub handshake_rate_per_client: String,
    /// The largest request head
    #[arg(long, env, value_name = "SIZE", default_value = "64KiB", allow_hyphen_values = true)]
    pub max_header_size: String,
    /// The most fields of a request head
    #[arg(long, env, value_name = "NUMBER", default_value = "100", allow_hyphen_values = true)]
    pub max_headers: String,
    /// The largest request body; or off
    #[arg(long, env, value_name = "SIZE", default_value = "off", allow_hyphen_values = true)]
    pub max_body_size: String,
    /// Pages that may open WebSockets: origins, comma separated, as app.example.com or *.example.com, or any
    #[arg(long, env, value_name = "ORIGIN,...", default_value = "any", allow_hyphen_values = true)]
    pub allowed_origins: String,
    /// Handshakes without Origin, where origins are listed: allow or refuse
    #[arg(long, env, value_name = "MODE", default_value = "allow")]
    pub missing_origin: String,
    /// After so much silence a client is sent a Ping; or off
    #[arg(long, env, value_name = "TIME", default_value = "50s", allow_hyphen_values = true)]
    pub ping_interval: String,
    /// From a Ping until its side must have sent anything
    #[arg(long, env, value_name = "TIME", default_value = "20s", allow_hyphen_values = true)]
    pub pong_timeout: String,
    /// After so much silence the application is sent a Ping; or off
    #[arg(long, env, value_name = "TIME", default_value = "off", allow_hyphen_values = true)]
    pub ping_upstream_interval: String,
    /// WebSocket streams that break the rules of framing: observe (count and pass on) or strict (end with 1002)
    #[arg(long, env, value_name = "MODE", default_value = "observe")]
    pub frame_check: String,
    /// The largest payload of one data frame, as on the wire; or off
    #[arg(long, env, value_name = "SIZE", default_value = "off", allow_hyphen_values = true)]
    pub max_frame_size: String,
    /// The largest payload of one message, all its frames together, as on the wire; or off
    #[arg(long, env, value_name = "SIZE", default_value = "off", allow_hyphen_values = true)]
    pub max_message_size: String,
    /// How long a tunnel may go without data of either side; or off
    #[arg(long, env, value_name = "TIME", default_value = "off", allow_hyphen_values = true)]
    pub idle_timeout: String,
    /// How old a tunnel may become; or off
    #[arg(long, env, value_name = "TIME", default_value = "off", allow_hyphen_values = true)]
    pub max_lifetime: String,
    /// How long a side may take no byte while bytes wait for it
    #[arg(long, env, value_name = "TIME", default_value = "60s", allow_hyphen_values = true)]
    pub stall_timeout: String,
    /// From SIGTERM until new connections are no longer taken
    #[arg(long, env, value_name = "TIME", default_value = "2s", allow_hyphen_values = true)]
    pub drain_delay: String,
    /// From then until the last WebSocket is sent its Close; they go out evenly
    #[arg(long, env, value_name = "TIME", default_value = "5s", allow_hyphen_values = true)]
    pub drain_period: String,
    /// The code in those: 1001, 1012, 1013, or one of your own, 4000 to 4999
    #[arg(long, env, value_name = "CODE", default_value = "1001", allow_hyphen_values = true)]
    pub drain_close_code: String,
    /// How long an unfinished message has to end, and a client to answer its Close
    #[arg(long, env, value_name = "TIME", default_value = "2s", allow_hyphen_values = true)]
    pub drain_grace: String,
    /// The access log on standard output: text, json or off
    #[arg(long, env, value_name = "FORMAT", default_value = "text")]
    pub access_log: String,
    /// Queries (behind the ?) in the access log, where they may be secrets: on or off
    #[arg(long, env, value_name = "on|off", default_value = "off")]
    pub access_log_query: String,
    /// What is logged to standard error: error, warn, info, debug, trace, off, or target=level pairs
    #[arg(long, env, value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// Give up writing files and starting programs: auto (where the kernel has Landlock), required or off
    #[arg(long, env, value_name = "MODE", default_value = "auto")]
    pub sandbox: String,
    /// Threads, or auto for one per core
    #[arg(long, env, value_name = "NUMBER", default_value = "auto", allow_hyphen_values = true)]
    pub threads: String,
}
