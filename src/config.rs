//! The settings that elbows runs with, checked.
//!
//! What was typed ([`Settings`], flags and environment variables of one definition) becomes what
//! is used ([`Config`]) in one place, [`Config::from_settings`]. It reports every fault at once, each
//! with the variable, the value and the rule. After it nothing is checked again.

pub mod fault;
mod origins;
mod parse;
pub(crate) mod rate;
pub mod settings;
mod size;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use ipnet::IpNet;

pub use self::fault::Fault;
pub use self::origins::Origins;
pub use self::rate::Rate;
pub use self::settings::Settings;

/// Settings that hold together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `LISTEN_ON`: where load balancers connect.
    pub listen_on: ListenOn,
    /// `DESTINATION_HOSTNAME` and `DESTINATION_PORT`: the upstream.
    pub destination: Destination,
    /// `PROXY_PROTOCOL`: whether connections begin with a PROXY header.
    pub proxy_protocol: ProxyProtocol,
    /// `TRUSTED_PROXIES`: whose PROXY headers are believed; empty means everyone's.
    pub trusted_proxies: Vec<IpNet>,
    /// `PROXY_TLV_HEADERS`: which TLVs become request headers.
    pub proxy_tlv_headers: Vec<TlvHeader>,
    /// `HEALTH_PATH`: the path that elbows answers itself.
    pub health_path: String,
    /// `HEALTH_LISTEN_ON`: a further port for health checks alone.
    pub health_listen_on: Option<ListenOn>,
    /// `FORWARDED`: what becomes of forwarded headers that the client sent.
    pub forwarded: Forwarded,
    /// `FORWARDED_HEADER`: whether `Forwarded` (RFC 7239) is sent too.
    pub forwarded_header: bool,
    /// `PROXY_HEADER_TIMEOUT`: from accept until the PROXY header is complete.
    pub proxy_header_timeout: Duration,
    /// `REQUEST_HEAD_TIMEOUT`: for one request head, the wait for it included.
    pub request_head_timeout: Duration,
    /// `CONNECT_TIMEOUT`: for name, and all addresses of the upstream together.
    pub connect_timeout: Duration,
    /// `RESPONSE_HEAD_TIMEOUT`: from the request, or the last byte of it that moved.
    pub response_head_timeout: Duration,
    /// `MAX_CONNECTIONS`: connections of clients at once, tunnels among them.
    pub max_connections: Option<NonZeroUsize>,
    /// `MAX_CONNECTIONS_PER_CLIENT`: the same of one client, an IPv4 address or an IPv6 /64.
    pub max_connections_per_client: Option<NonZeroU32>,
    /// `HANDSHAKE_RATE_PER_CLIENT`: how often one client may ask for an upgrade.
    pub handshake_rate_per_client: Option<Rate>,
    /// `MAX_HEADER_SIZE`: bytes of a request head.
    pub max_header_size: usize,
    /// `MAX_HEADERS`: fields of a request head.
    pub max_headers: usize,
    /// `MAX_BODY_SIZE`: bytes of a request body.
    pub max_body_size: Option<u64>,
    /// `ALLOWED_ORIGINS`: pages that may open WebSockets; `None` means any.
    pub allowed_origins: Option<Origins>,
    /// `MISSING_ORIGIN`: what becomes of handshakes without `Origin` where origins are listed.
    pub missing_origin: MissingOrigin,
    /// `PING_INTERVAL`: after so much silence of a client it is sent a Ping; `None` means never.
    pub ping_interval: Option<Duration>,
    /// `PONG_TIMEOUT`: from a Ping of ours until its side must have sent anything, and from one side's end
    /// until the other's.
    pub pong_timeout: Duration,
    /// `PING_UPSTREAM_INTERVAL`: the same as `ping_interval`, towards the upstream.
    pub ping_upstream_interval: Option<Duration>,
    /// `FRAME_CHECK`: what becomes of a stream that breaks the rules of framing.
    pub frame_check: FrameCheck,
    /// `MAX_FRAME_SIZE`: payload bytes of a data frame, as on the wire.
    pub max_frame_size: Option<u64>,
    /// `MAX_MESSAGE_SIZE`: payload bytes of all frames of a message, as on the wire.
    pub max_message_size: Option<u64>,
    /// `IDLE_TIMEOUT`: how long a tunnel may go without data of either side.
    pub idle_timeout: Option<Duration>,
    /// `MAX_LIFETIME`: how old a tunnel may become.
    pub max_lifetime: Option<Duration>,
    /// `STALL_TIMEOUT`: how long a side may take no byte while bytes wait for it.
    pub stall_timeout: Duration,
    /// `DRAIN_DELAY`: from the signal until the listeners close.
    pub drain_delay: Duration,
    /// `DRAIN_PERIOD`: from then until every WebSocket has been sent a Close.
    pub drain_period: Duration,
    /// `DRAIN_CLOSE_CODE`: the code in those (RFC 6455, section 7.4).
    pub drain_close_code: u16,
    /// `DRAIN_GRACE`: how long a message has to end, and a client to answer a Close.
    pub drain_grace: Duration,
    /// `ACCESS_LOG`: the form of the access log on standard output.
    pub access_log: AccessLogFormat,
    /// `ACCESS_LOG_QUERY`: whether the access log has queries.
    pub access_log_query: bool,
    /// `LOG`: what is logged to standard error.
    pub log: String,
    /// `SANDBOX`: whether the process gives up what it does not need.
    pub sandbox: Sandbox,
    /// `THREADS`: relay threads, and threads of the front.
    pub threads: NonZeroUsize,
}

impl Config {
    /// Checks what was typed.
    ///
    /// # Errors
    /// All faults, in the order of the settings.
    pub fn from_settings(settings: &Settings) -> Result<Self, Vec<Fault>> {
        parse::config(settings)
    }

    /// The defaults, for a given listener and upstream. For the demo and for tests.
    #[must_use]
    pub fn for_destination(listen_on: SocketAddr, host: &str, port: u16) -> Self {
        Self {
            listen_on: ListenOn { address: Some(listen_on.ip()), port: listen_on.port() },
            destination: Destination { host: host.to_owned(), port },
            proxy_protocol: ProxyProtocol::Required,
            trusted_proxies: Vec::new(),
            proxy_tlv_headers: Vec::new(),
            health_path: String::from("/ping"),
            health_listen_on: None,
            forwarded: Forwarded::Set,
            forwarded_header: false,
            proxy_header_timeout: Duration::from_secs(10),
            request_head_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            response_head_timeout: Duration::from_secs(60),
            max_connections: None,
            max_connections_per_client: None,
            handshake_rate_per_client: None,
            max_header_size: 64 * 1024,
            max_headers: 100,
            max_body_size: None,
            allowed_origins: None,
            missing_origin: MissingOrigin::Allow,
            ping_interval: Some(Duration::from_secs(50)),
            pong_timeout: Duration::from_secs(20),
            ping_upstream_interval: None,
            frame_check: FrameCheck::Observe,
            max_frame_size: None,
            max_message_size: None,
            idle_timeout: None,
            max_lifetime: None,
            stall_timeout: Duration::from_secs(60),
            drain_delay: Duration::from_secs(2),
            drain_period: Duration::from_secs(5),
            drain_close_code: 1001,
            drain_grace: Duration::from_secs(2),
            access_log: AccessLogFormat::Text,
            access_log_query: false,
            log: String::from("info"),
            sandbox: Sandbox::Auto,
            threads: parse::available_threads(),
        }
    }

    /// Whether a PROXY header from `balancer` is believed.
    #[must_use]
    pub fn trusts(&self, balancer: IpAddr) -> bool {
        self.trusted_proxies.is_empty()
            || self.trusted_proxies.iter().any(|net| net.contains(&balancer))
    }

    /// The settings in effect, by variable, in the order of the documentation.
    #[must_use]
    pub fn effective(&self) -> Vec<(&'static str, String)> {
        let list = |items: Vec<String>, none: &str| {
            if items.is_empty() { none.to_owned() } else { items.join(",") }
        };
        let duration =
            |time: Duration| humantime::format_duration(time).to_string().replace(' ', "");
        let or_off = |value: Option<String>| value.unwrap_or_else(|| String::from("off"));
        vec![
            ("LISTEN_ON", self.listen_on.to_string()),
            ("DESTINATION_HOSTNAME", self.destination.host.clone()),
            ("DESTINATION_PORT", self.destination.port.to_string()),
            ("PROXY_PROTOCOL", self.proxy_protocol.as_str().to_owned()),
            (
                "TRUSTED_PROXIES",
                list(self.trusted_proxies.iter().map(ToString::to_string).collect(), "everyone"),
            ),
            (
                "PROXY_TLV_HEADERS",
                list(
                    self.proxy_tlv_headers.iter().map(|tlv| tlv.as_str().to_owned()).collect(),
                    "none",
                ),
            ),
            ("HEALTH_PATH", self.health_path.clone()),
            (
                "HEALTH_LISTEN_ON",
                self.health_listen_on
                    .as_ref()
                    .map_or_else(|| String::from("none"), ToString::to_string),
            ),
            ("FORWARDED", self.forwarded.as_str().to_owned()),
            ("FORWARDED_HEADER", String::from(if self.forwarded_header { "on" } else { "off" })),
            ("PROXY_HEADER_TIMEOUT", duration(self.proxy_header_timeout)),
            ("REQUEST_HEAD_TIMEOUT", duration(self.request_head_timeout)),
            ("CONNECT_TIMEOUT", duration(self.connect_timeout)),
            ("RESPONSE_HEAD_TIMEOUT", duration(self.response_head_timeout)),
            ("MAX_CONNECTIONS", or_off(self.max_connections.map(|most| most.to_string()))),
            (
                "MAX_CONNECTIONS_PER_CLIENT",
                or_off(self.max_connections_per_client.map(|most| most.to_string())),
            ),
            (
                "HANDSHAKE_RATE_PER_CLIENT",
                or_off(self.handshake_rate_per_client.map(|rate| rate.to_string())),
            ),
            ("MAX_HEADER_SIZE", size::format(self.max_header_size as u64)),
            ("MAX_HEADERS", self.max_headers.to_string()),
            ("MAX_BODY_SIZE", or_off(self.max_body_size.map(size::format))),
            (
                "ALLOWED_ORIGINS",
                self.allowed_origins
                    .as_ref()
                    .map_or_else(|| String::from("any"), ToString::to_string),
            ),
            ("MISSING_ORIGIN", self.missing_origin.as_str().to_owned()),
            ("PING_INTERVAL", or_off(self.ping_interval.map(duration))),
            ("PONG_TIMEOUT", duration(self.pong_timeout)),
            ("PING_UPSTREAM_INTERVAL", or_off(self.ping_upstream_interval.map(duration))),
            ("FRAME_CHECK", self.frame_check.as_str().to_owned()),
            ("MAX_FRAME_SIZE", or_off(self.max_frame_size.map(size::format))),
            ("MAX_MESSAGE_SIZE", or_off(self.max_message_size.map(size::format))),
            ("IDLE_TIMEOUT", or_off(self.idle_timeout.map(duration))),
            ("MAX_LIFETIME", or_off(self.max_lifetime.map(duration))),
            ("STALL_TIMEOUT", duration(self.stall_timeout)),
            ("DRAIN_DELAY", duration(self.drain_delay)),
            ("DRAIN_PERIOD", duration(self.drain_period)),
            ("DRAIN_CLOSE_CODE", self.drain_close_code.to_string()),
            ("DRAIN_GRACE", duration(self.drain_grace)),
            ("ACCESS_LOG", self.access_log.as_str().to_owned()),
            ("ACCESS_LOG_QUERY", String::from(if self.access_log_query { "on" } else { "off" })),
            ("LOG", self.log.clone()),
            ("SANDBOX", self.sandbox.as_str().to_owned()),
            ("THREADS", self.threads.to_string()),
        ]
    }
}

/// A port to listen on, and perhaps the one address to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOn {
    /// `None`: every address, IPv6 and IPv4.
    pub address: Option<IpAddr>,
    /// The port, never 0 when it comes from settings.
    pub port: u16,
}

impl ListenOn {
    /// The address for `bind(2)`; every address is `[::]`, which takes IPv4 as well.
    #[must_use]
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(self.address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), self.port)
    }

    /// Whether both would take connections at the same address and port.
    fn overlaps(&self, other: &Self) -> bool {
        let everywhere = |at: &Self| at.address.is_none_or(|address| address.is_unspecified());
        self.port == other.port
            && (self.address == other.address || everywhere(self) || everywhere(other))
    }
}

impl fmt::Display for ListenOn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => write!(out, "{}", self.port),
            Some(_) => write!(out, "{}", self.socket_addr()),
        }
    }
}

/// The upstream as the settings name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// A host name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Destination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(out, "[{}]:{}", self.host, self.port)
        } else {
            write!(out, "{}:{}", self.host, self.port)
        }
    }
}

/// An enum whose values are words of a setting.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word in the settings.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

words! {
    /// Whether connections begin with a PROXY header.
    ProxyProtocol {
        /// Each one must; only the health path is answered without.
        Required = "required",
        /// It is believed from trusted proxies; without it the socket's address is the client's.
        Optional = "optional",
        /// A PROXY header is content like any other.
        Off = "off",
    }
}

words! {
    /// What becomes of forwarded headers that the client sent.
    Forwarded {
        /// They are replaced: nothing in front of a layer-4 balancer can be believed.
        Set = "set",
        /// They are kept and added to: a trusted proxy further out has set them.
        Append = "append",
    }
}

words! {
    /// What becomes of handshakes without `Origin` where origins are listed.
    MissingOrigin {
        /// They pass: a program that is no browser sends none, and has no user's cookies to abuse.
        Allow = "allow",
        /// They get 403.
        Refuse = "refuse",
    }
}

words! {
    /// Whether the process gives up what it does not need.
    Sandbox {
        /// As far as the kernel has it.
        Auto = "auto",
        /// It must, or it does not start.
        Required = "required",
        /// Nothing is given up.
        Off = "off",
    }
}

words! {
    /// What becomes of a stream that breaks the rules of framing (RFC 6455, section 5).
    FrameCheck {
        /// It is counted and passed on as it came.
        Observe = "observe",
        /// It is counted, and its tunnel ends with Close 1002.
        Strict = "strict",
    }
}

words! {
    /// The form of the access log.
    AccessLogFormat {
        /// `key=value` pairs, one line each.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
        /// None.
        Off = "off",
    }
}

words! {
    /// A TLV of a PROXY v2 header that can become a request header.
    TlvHeader {
        /// `X-Proxy-Alpn`: the protocol that was negotiated with the balancer.
        Alpn = "alpn",
        /// `X-Proxy-Authority`: the host name that the client asked for (SNI).
        Authority = "authority",
        /// `X-Proxy-Unique-Id`: the balancer's id of the connection.
        UniqueId = "unique-id",
        /// `X-Proxy-Ssl-Version`, `X-Proxy-Ssl-Cn`, `X-Proxy-Ssl-Cipher`.
        Ssl = "ssl",
        /// `X-Proxy-Aws-Vpce-Id`: the AWS VPC endpoint.
        AwsVpceId = "aws-vpce-id",
        /// `X-Proxy-Azure-Link-Id`: the Azure private link.
        AzureLinkId = "azure-link-id",
        /// `X-Proxy-Gcp-Psc-Id`: the Google Private Service Connect connection.
        GcpPscId = "gcp-psc-id",
    }
}
