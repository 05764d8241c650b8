//! The settings that elbows runs with, checked.
//!
//! [`settings`] is the one table of them. What was typed ([`Settings`], flags and environment variables) becomes what
//! is used ([`Config`]) in one place, [`Config::from_settings`]. It reports every fault at once, each
//! with the variable, the value and the rule. After it nothing is checked again.

mod admin;
mod check;
mod contradictions;
mod destination;
pub mod fault;
pub mod file;
mod kind;
mod origins;
pub(crate) mod pace;
pub(crate) mod rate;
pub mod routing;
pub mod settings;
mod size;
mod sticky;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use tracing_subscriber::filter::Targets;

pub use self::admin::{AdminHosts, AdminListenOn, AdminToken};
pub use self::check::UpstreamCheck;
pub use self::destination::{Destination, UpstreamName};
pub use self::fault::Fault;
pub use self::origins::Origins;
pub use self::pace::Pace;
pub use self::rate::Rate;
use self::settings::Readings;
pub use self::settings::{Config, Settings};
pub use self::sticky::Sticky;
use crate::words::words;

impl Config {
    /// Checks what was typed.
    ///
    /// # Errors
    /// All faults, in the order of the settings.
    pub fn from_settings(settings: &Settings) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let readings = Readings::of(settings, &mut faults);
        contradictions::check(settings, &readings, &mut faults);
        match readings.config() {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(faults),
        }
    }

    /// The defaults, for a given listener and upstream. For the demo and for tests.
    ///
    /// # Panics
    /// `host` is neither a name nor an address.
    #[must_use]
    #[allow(clippy::expect_used)]
    pub fn for_destination(listen_on: SocketAddr, host: &str, port: u16) -> Self {
        let mut readings = Readings::of(&Settings::default(), &mut Vec::new());
        // A port of 0 is for tests: no setting takes it.
        readings.listen_on =
            Some(ListenOn { address: Some(listen_on.ip()), port: listen_on.port() });
        readings.destination_hostname = UpstreamName::read(host).map(|name| vec![name]);
        readings.destination_port = Some(port);
        readings.config().expect("every default can be read")
    }

    /// The upstream.
    #[must_use]
    pub fn destination(&self) -> Destination {
        Destination { names: self.destination_hostname.clone(), port: self.destination_port }
    }

    /// Whether a PROXY header from `balancer` is believed.
    #[must_use]
    pub fn trusts(&self, balancer: IpAddr) -> bool {
        self.trusted_proxies.is_empty()
            || self.trusted_proxies.iter().any(|net| net.contains(&balancer))
    }
}

/// What a value of `LOG` lets through.
///
/// # Errors
/// The rule that `text` breaks.
pub fn log_targets(text: &str) -> Result<Targets, &'static str> {
    kind::Filter::targets(text).ok_or(kind::Filter::RULE)
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

words! {
    /// Whether connections begin with a PROXY header.
    pub enum ProxyProtocol {
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
    pub enum Forwarded {
        /// They are replaced: nothing in front of a layer-4 balancer can be believed.
        Set = "set",
        /// They are kept and added to: a trusted proxy further out has set them.
        Append = "append",
    }
}

words! {
    /// What becomes of handshakes without `Origin` where origins are listed.
    pub enum MissingOrigin {
        /// They pass: a program that is no browser sends none, and has no user's cookies to abuse.
        Allow = "allow",
        /// They get 403.
        Refuse = "refuse",
    }
}

words! {
    /// Which endpoint gets the next tunnel, or request.
    pub enum Balance {
        /// The one of two random ones that has fewer tunnels for its weight.
        LeastTunnels = "least_tunnels",
        /// One after the other, each as often as its weight says.
        RoundRobin = "round_robin",
        /// A random one, by weight.
        Random = "random",
    }
}

words! {
    /// What becomes of the tunnels of an endpoint that no answer has any more.
    pub enum EndpointGone {
        /// They stay.
        Keep = "keep",
        /// They are closed, spread over `ENDPOINT_GONE_PERIOD`.
        Drain = "drain",
    }
}

words! {
    /// What becomes of requests while the checks of all endpoints fail.
    pub enum AllDown {
        /// They are tried all the same: checks may be wrong.
        Try = "try",
        /// They get 503 at once.
        Refuse = "refuse",
    }
}

words! {
    /// Whether the process gives up what it does not need.
    pub enum Sandbox {
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
    pub enum FrameCheck {
        /// It is counted and passed on as it came.
        Observe = "observe",
        /// It is counted, and its tunnel ends with Close 1002.
        Strict = "strict",
    }
}

words! {
    /// What becomes of requests that are part of no trace (W3C Trace Context).
    pub enum TraceContext {
        /// They pass as they are.
        Pass = "pass",
        /// A trace begins with each.
        Make = "make",
    }
}

words! {
    /// The form of the access log.
    pub enum AccessLogFormat {
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
    pub enum TlvHeader {
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
