//! The table of all settings: each is a flag and an environment variable of one definition.
//!
//! A row has what the setting is of ([`Scope`]), the field of [`Config`] with its type, the variable, how help calls the
//! value, what holds where it is not given, and its kind (`kind.rs`), which knows the bounds. From the table come the
//! flags, the variables, help, the check, what `elbows check` prints, and what the documents are held against.
//!
//! What was typed stays text ([`Settings`]) until all of it is read, so that every fault is told at once.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use ipnet::IpNet;

use super::kind::{
    AdminPlace, BODY_RATES, BODY_SIZES, CHECK_TIMES, CloseCode, DRAIN_TIMES, FilePath, Filter,
    HEADER_SIZES, HEADERS, HostNames, Kind, LIFETIMES, LIMITS, Networks, Number, OnOff, Or,
    OriginList, PAYLOAD_SIZES, PONG_TIMES, PaceOf, Path, Port, RateOf, SocketPath,
    SocketToListenOn, StickyBy, TTLS, TUNNEL_TIMES, Threads, TlvHeaders, Token, UpstreamChecks,
    UpstreamNames, WordOf, Wrong,
};
use super::{
    AccessLogFormat, AdminHosts, AdminListenOn, AdminToken, AllDown, Balance, EndpointGone, Fault,
    Forwarded, FrameCheck, ListenOn, MissingOrigin, Origins, Pace, ProxyProtocol, Rate, Sandbox,
    Sticky, TlvHeader, TraceContext, UpstreamCheck, UpstreamName,
};

/// What holds where a setting is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unset {
    /// This value.
    Default(&'static str),
    /// Nothing: it must be given, and this says what.
    Missing(&'static str),
    /// Nothing: it must be given unless there is a `CONFIG_FILE`, and this says what.
    MissingWithoutFile(&'static str),
}

/// What a setting is of. A setting of the process has one value; the others can have one for each upstream group, or for
/// each route, and the variable's value is that of whatever does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The process: it counts before a request has a route, or for all of them together.
    Process,
    /// An upstream group: where the application is, and which of its endpoints is chosen.
    Upstream,
    /// A route: what requests and tunnels of it may do, and what becomes of them.
    Route,
}

/// One row, as help and the documents show it.
#[derive(Clone, Debug)]
pub struct Setting {
    /// What it is of.
    pub scope: Scope,
    /// The environment variable.
    pub variable: &'static str,
    /// The long flag, without dashes.
    pub flag: String,
    /// What help calls the value.
    pub value: &'static str,
    /// What holds where it is not given.
    pub unset: Unset,
    /// What it does, in a line.
    pub help: String,
    /// Which values it takes, as docs/configuration.md writes it.
    pub bounds: String,
    /// The JSON schema of its value in a file, for editors.
    pub schema: serde_json::Value,
}

/// The settings as they were given: text by variable.
#[derive(Clone, Debug, Default)]
pub struct Settings(BTreeMap<&'static str, String>);

impl Settings {
    /// What was given for `variable`.
    pub(super) fn get(&self, variable: &str) -> Option<&str> {
        self.0.get(variable).map(String::as_str)
    }

    /// Puts a value in the place of what was given for `variable`.
    pub(super) fn set(&mut self, variable: &'static str, text: String) {
        self.0.insert(variable, text);
    }

    /// `CONFIG_FILE`, as it was given, if there is one.
    #[must_use]
    pub fn config_file(&self) -> Option<&str> {
        self.get("CONFIG_FILE").filter(|path| !matches!(*path, "" | "off"))
    }

    /// What a setting came to; `None` where its faults were told.
    fn read<K: Kind>(
        &self,
        variable: &'static str,
        unset: Unset,
        kind: &K,
        faults: &mut Vec<Fault>,
    ) -> Option<K::Value> {
        let text = match (self.get(variable), unset) {
            (Some(text), _) | (None, Unset::Default(text)) => text,
            (None, Unset::MissingWithoutFile(_)) if self.config_file().is_some() => {
                return kind.absent();
            }
            (None, Unset::Missing(rule) | Unset::MissingWithoutFile(rule)) => {
                faults.push(Fault::Missing { variable, rule });
                return None;
            }
        };
        match kind.read(text, "") {
            Ok(value) => Some(value),
            Err(wrong) => {
                let fault = |(value, rule)| Fault::Invalid { variable, value, rule };
                faults.extend(wrong.into_iter().map(fault));
                None
            }
        }
    }
}

/// Reads a value of a kind that is read into a `T`.
fn read<T, K: Kind<Value = T>>(kind: &K, text: &str) -> Result<T, Vec<Wrong>> {
    kind.read(text, "")
}

/// The schema of such a kind.
fn schema<T, K: Kind<Value = T>>(kind: &K) -> serde_json::Value {
    kind.schema()
}

/// The bounds of a kind that is read into a `T`.
fn bounds<T, K: Kind<Value = T>>(kind: &K) -> String {
    kind.bounds()
}

macro_rules! settings {
    ($(
        $(#[doc = $help:literal])+
        $scope:ident $field:ident: $type:ty = $variable:literal, $value:literal, $unset:expr, $kind:expr;
    )+) => {
        /// Settings that hold together.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $(
                #[doc = concat!("`", $variable, "`:")]
                $(#[doc = $help])+
                pub $field: $type,
            )+
        }

        /// What each setting came to; `None` where its faults were told.
        pub(super) struct Readings {
            $(pub(super) $field: Option<$type>,)+
        }

        impl Readings {
            /// Reads every setting, and adds what is wrong with each to `faults`.
            pub(super) fn of(settings: &Settings, faults: &mut Vec<Fault>) -> Self {
                Self { $($field: settings.read($variable, $unset, &$kind, faults),)+ }
            }

            /// All of them, if all could be read.
            pub(super) fn config(self) -> Option<Config> {
                Some(Config { $($field: self.$field?,)+ })
            }
        }

        impl From<Config> for Readings {
            fn from(config: Config) -> Self {
                Self { $($field: Some(config.$field),)+ }
            }
        }

        impl Config {
            /// What a setting is of, if there is one of this variable.
            pub(super) fn scope(variable: &str) -> Option<Scope> {
                match variable {
                    $($variable => Some(Scope::$scope),)+
                    _ => None,
                }
            }

            /// Reads a value of `variable` and takes it in the place of the one that was there; says what is wrong
            /// with it. `None`: there is no such setting.
            pub(super) fn set(
                &mut self,
                variable: &str,
                text: &str,
            ) -> Option<(&'static str, Result<(), Vec<Wrong>>)> {
                match variable {
                    $($variable => {
                        let read = read::<$type, _>(&$kind, text).map(|value| self.$field = value);
                        Some(($variable, read))
                    })+
                    _ => None,
                }
            }

            /// The settings in effect, by variable, in the order of the documentation.
            #[must_use]
            pub fn effective(&self) -> Vec<(&'static str, String)> {
                vec![$(($variable, $kind.write(&self.$field)),)+]
            }
        }

        /// Every setting, in the order of the documentation.
        #[must_use]
        pub fn all() -> Vec<Setting> {
            vec![$(Setting {
                scope: Scope::$scope,
                variable: $variable,
                flag: $variable.to_lowercase().replace('_', "-"),
                value: $value,
                unset: $unset,
                help: concat!($($help),+).trim().to_owned(),
                bounds: bounds::<$type, _>(&$kind),
                schema: schema::<$type, _>(&$kind),
            },)+]
        }
    };
}

settings! {
    /// Where load balancers connect: a port, or an address and a port
    Process listen_on: ListenOn = "LISTEN_ON", "[ADDRESS:]PORT",
        Unset::Missing("give a port, as 45400, or an address and a port"),
        SocketToListenOn { bounds: "ports 1 to 65535, as `45400`, `127.0.0.1:45400`, `[::1]:45400`" };
    /// The application's host names and IP addresses, comma separated, or names of SRV records as
    /// srv+_ws._tcp.app.internal
    Upstream destination_hostname: Vec<UpstreamName> = "DESTINATION_HOSTNAME", "HOST,...",
        Unset::MissingWithoutFile("give the application's host name or IP address"), UpstreamNames;
    /// The application's port
    Upstream destination_port: u16 = "DESTINATION_PORT", "PORT",
        Unset::MissingWithoutFile("give the port that the application listens on"), Port;
    /// A file with upstream groups and routes (TOML); or off
    Process config_file: Option<PathBuf> = "CONFIG_FILE", "PATH", Unset::Default("off"), Or("off", FilePath);
    /// Which endpoint gets the next tunnel: one that has fewer, the next in turn, or a random one
    Upstream balance: Balance = "BALANCE", "WAY", Unset::Default("least_tunnels"), WordOf::new();
    /// What keeps a client at the endpoint where it was: off, a cookie that elbows sets (cookie, cookie:NAME), its address
    /// (client), header:NAME, query:NAME or path
    Upstream sticky: Sticky = "STICKY", "WAY", Unset::Default("off"), StickyBy;
    /// The longest that an answer of a name server is used, whatever its TTL
    Upstream dns_max_ttl: Duration = "DNS_MAX_TTL", "TIME", Unset::Default("5s"), TTLS;
    /// How long an endpoint that is missing from its name's answers still gets new tunnels
    Upstream endpoint_hold: Duration = "ENDPOINT_HOLD", "TIME", Unset::Default("0s"), DRAIN_TIMES;
    /// Tunnels of an endpoint that is gone: keep or drain (they get a Close)
    Upstream endpoint_gone: EndpointGone = "ENDPOINT_GONE", "keep|drain", Unset::Default("keep"), WordOf::new();
    /// Over how long those Closes of one endpoint go out; they go out evenly
    Upstream endpoint_gone_period: Duration =
        "ENDPOINT_GONE_PERIOD", "TIME", Unset::Default("1m"), DRAIN_TIMES;
    /// The share of all tunnels that may be closed to even them out over the endpoints, as 10%/min; or off
    Upstream rebalance: Option<Pace> = "REBALANCE", "SHARE", Unset::Default("off"), Or("off", PaceOf);
    /// How endpoints are checked: off, tcp, or http or websocket, a colon and a path (a GET, or a handshake)
    Upstream upstream_check: Option<UpstreamCheck> =
        "UPSTREAM_CHECK", "CHECK", Unset::Default("off"), Or("off", UpstreamChecks);
    /// From the end of a check to the next one of the same endpoint; a fifth of it while that is changing
    Upstream upstream_check_interval: Duration =
        "UPSTREAM_CHECK_INTERVAL", "TIME", Unset::Default("5s"), CHECK_TIMES;
    /// For one check, from the connection to the whole answer
    Upstream upstream_check_timeout: Duration =
        "UPSTREAM_CHECK_TIMEOUT", "TIME", Unset::Default("2s"), CHECK_TIMES;
    /// So many checks in a row have to pass until an endpoint that was down is up
    Upstream upstream_check_rise: u32 =
        "UPSTREAM_CHECK_RISE", "NUMBER", Unset::Default("2"), Number::IN_A_ROW;
    /// So many checks in a row have to fail until an endpoint is down
    Upstream upstream_check_fall: u32 =
        "UPSTREAM_CHECK_FALL", "NUMBER", Unset::Default("3"), Number::IN_A_ROW;
    /// So many handshakes and requests in a row that fail at an endpoint eject it for a time; or off
    Upstream upstream_eject: Option<u32> =
        "UPSTREAM_EJECT", "NUMBER", Unset::Default("off"), Or("off", Number::IN_A_ROW);
    /// To so many endpoints at most a handshake or a safe request is sent, where one closes without an answer
    Upstream upstream_tries: u32 = "UPSTREAM_TRIES", "NUMBER", Unset::Default("2"), Number::TRIES;
    /// Over this time the share of an endpoint that comes grows from a tenth to the whole; 0s: it has the whole at once
    Upstream slow_start: Duration = "SLOW_START", "TIME", Unset::Default("0s"), DRAIN_TIMES;
    /// While the checks of all endpoints fail: try them all the same, or refuse with 503
    Upstream upstream_all_down: AllDown =
        "UPSTREAM_ALL_DOWN", "MODE", Unset::Default("try"), WordOf::new();
    /// Whether connections begin with a PROXY header: required, optional or off
    Process proxy_protocol: ProxyProtocol = "PROXY_PROTOCOL", "MODE", Unset::Default("required"), WordOf::new();
    /// Whose PROXY headers are believed: networks or addresses, comma separated, or everyone
    Process trusted_proxies: Vec<IpNet> = "TRUSTED_PROXIES", "CIDR,...", Unset::Default("everyone"), Networks;
    /// TLVs that become request headers: alpn, authority, unique-id, ssl, aws-vpce-id, azure-link-id, gcp-psc-id, all
    /// or none
    Route proxy_tlv_headers: Vec<TlvHeader> =
        "PROXY_TLV_HEADERS", "TLV,...", Unset::Default("none"), TlvHeaders;
    /// The path that elbows answers itself, for health checks
    Process health_path: String = "HEALTH_PATH", "PATH", Unset::Default("/ping"), Path;
    /// A further port for health checks alone, without PROXY header, or none
    Process health_listen_on: Option<ListenOn> = "HEALTH_LISTEN_ON", "[ADDRESS:]PORT",
        Unset::Default("none"), Or("none", SocketToListenOn { bounds: "as `LISTEN_ON` but another port: `45401`" });
    /// Forwarded headers from the client: set (replace them) or append (keep them and add)
    Route forwarded: Forwarded = "FORWARDED", "MODE", Unset::Default("set"), WordOf::new();
    /// Send Forwarded (RFC 7239) as well as X-Forwarded-*: on or off
    Route forwarded_header: bool = "FORWARDED_HEADER", "on|off", Unset::Default("off"), OnOff;
    /// Requests without a valid traceparent (W3C Trace Context): pass (as they are) or make (they get one)
    Route trace_context: TraceContext = "TRACE_CONTEXT", "MODE", Unset::Default("pass"), WordOf::new();
    /// From accept until the PROXY header is complete
    Process proxy_header_timeout: Duration = "PROXY_HEADER_TIMEOUT", "TIME", Unset::Default("10s"), LIMITS;
    /// For a request head, the wait for it on an idle connection included
    Process request_head_timeout: Duration = "REQUEST_HEAD_TIMEOUT", "TIME", Unset::Default("60s"), LIMITS;
    /// For a connection to the application, its name and all its addresses together
    Route connect_timeout: Duration = "CONNECT_TIMEOUT", "TIME", Unset::Default("5s"), LIMITS;
    /// For a response head, counted from the last byte of the request
    Route response_head_timeout: Duration = "RESPONSE_HEAD_TIMEOUT", "TIME", Unset::Default("60s"), LIMITS;
    /// Connections of clients at once, tunnels among them; or off
    Process max_connections: Option<NonZeroUsize> =
        "MAX_CONNECTIONS", "NUMBER", Unset::Default("off"), Or("off", Number::CONNECTIONS);
    /// Connections at once of one client, an IPv4 address or an IPv6 /64; or off
    Process max_connections_per_client: Option<NonZeroU32> =
        "MAX_CONNECTIONS_PER_CLIENT", "NUMBER", Unset::Default("off"), Or("off", Number::CONNECTIONS);
    /// How often one client may ask for an upgrade, as 10/s, 100/min or 10/s burst=50; or off
    Process handshake_rate_per_client: Option<Rate> =
        "HANDSHAKE_RATE_PER_CLIENT", "RATE", Unset::Default("off"), Or("off", RateOf);
    /// The largest request head
    Process max_header_size: usize = "MAX_HEADER_SIZE", "SIZE", Unset::Default("64KiB"), HEADER_SIZES;
    /// The most fields of a request head
    Process max_headers: usize = "MAX_HEADERS", "NUMBER", Unset::Default("100"), HEADERS;
    /// The largest request body; or off
    Route max_body_size: Option<u64> =
        "MAX_BODY_SIZE", "SIZE", Unset::Default("off"), Or("off", BODY_SIZES);
    /// Bytes a second that a request body has to come with, on average and after 10 s; or off
    Route min_body_rate: Option<u64> =
        "MIN_BODY_RATE", "SIZE", Unset::Default("64"), Or("off", BODY_RATES);
    /// Pages that may open WebSockets: origins, comma separated, as app.example.com or *.example.com, or any
    Route allowed_origins: Option<Origins> =
        "ALLOWED_ORIGINS", "ORIGIN,...", Unset::Default("any"), Or("any", OriginList);
    /// Handshakes without Origin, where origins are listed: allow or refuse
    Route missing_origin: MissingOrigin = "MISSING_ORIGIN", "MODE", Unset::Default("allow"), WordOf::new();
    /// After so much silence a client is sent a Ping; or off
    Route ping_interval: Option<Duration> =
        "PING_INTERVAL", "TIME", Unset::Default("50s"), Or("off", TUNNEL_TIMES);
    /// From a Ping until its side must have sent anything
    Route pong_timeout: Duration = "PONG_TIMEOUT", "TIME", Unset::Default("20s"), PONG_TIMES;
    /// After so much silence the application is sent a Ping; or off
    Route ping_upstream_interval: Option<Duration> =
        "PING_UPSTREAM_INTERVAL", "TIME", Unset::Default("off"), Or("off", TUNNEL_TIMES);
    /// WebSocket streams that break the rules of framing: observe (count and pass on) or strict (end with 1002)
    Route frame_check: FrameCheck = "FRAME_CHECK", "MODE", Unset::Default("observe"), WordOf::new();
    /// The largest payload of one data frame, as on the wire; or off
    Route max_frame_size: Option<u64> =
        "MAX_FRAME_SIZE", "SIZE", Unset::Default("off"), Or("off", PAYLOAD_SIZES);
    /// The largest payload of one message, all its frames together, as on the wire; or off
    Route max_message_size: Option<u64> =
        "MAX_MESSAGE_SIZE", "SIZE", Unset::Default("off"), Or("off", PAYLOAD_SIZES);
    /// How long a tunnel may go without data of either side; or off
    Route idle_timeout: Option<Duration> =
        "IDLE_TIMEOUT", "TIME", Unset::Default("off"), Or("off", TUNNEL_TIMES);
    /// How old a tunnel may become; or off
    Route max_lifetime: Option<Duration> =
        "MAX_LIFETIME", "TIME", Unset::Default("off"), Or("off", LIFETIMES);
    /// How long a side may take no byte while bytes wait for it
    Route stall_timeout: Duration = "STALL_TIMEOUT", "TIME", Unset::Default("60s"), TUNNEL_TIMES;
    /// From SIGTERM until new connections are no longer taken
    Process drain_delay: Duration = "DRAIN_DELAY", "TIME", Unset::Default("2s"), DRAIN_TIMES;
    /// From then until the last WebSocket is sent its Close; they go out evenly
    Process drain_period: Duration = "DRAIN_PERIOD", "TIME", Unset::Default("5s"), DRAIN_TIMES;
    /// The code in those: 1001, 1012, 1013, or one of your own, 4000 to 4999
    Route drain_close_code: u16 = "DRAIN_CLOSE_CODE", "CODE", Unset::Default("1001"), CloseCode;
    /// How long an unfinished message has to end, and a client to answer its Close
    Process drain_grace: Duration = "DRAIN_GRACE", "TIME", Unset::Default("2s"), DRAIN_TIMES;
    /// The UNIX socket over which a new process takes over the live tunnels of this one; or off
    Process handoff_socket: Option<PathBuf> =
        "HANDOFF_SOCKET", "PATH", Unset::Default("off"), Or("off", SocketPath);
    /// Whether an older version may take over from a newer one: on or off
    Process handoff_downgrade: bool = "HANDOFF_DOWNGRADE", "on|off", Unset::Default("off"), OnOff;
    /// Whether a process that has handed over stays, idle, until it is told to stop: on or off
    Process handoff_stay: bool = "HANDOFF_STAY", "on|off", Unset::Default("off"), OnOff;
    /// The access log on standard output: text, json or off
    Process access_log: AccessLogFormat = "ACCESS_LOG", "FORMAT", Unset::Default("text"), WordOf::new();
    /// A line in the access log when a tunnel opens, too: on or off
    Process access_log_open: bool = "ACCESS_LOG_OPEN", "on|off", Unset::Default("off"), OnOff;
    /// Queries (behind the ?) in the access log, where they may be secrets: on or off
    Process access_log_query: bool = "ACCESS_LOG_QUERY", "on|off", Unset::Default("off"), OnOff;
    /// Where metrics are scraped, tunnels listed and closed: a port of this machine's own address, an address and a
    /// port, or the path of a UNIX socket; or off
    Process admin_listen_on: Option<AdminListenOn> =
        "ADMIN_LISTEN_ON", "[ADDRESS:]PORT|PATH", Unset::Default("off"), Or("off", AdminPlace);
    /// Names with dots by which the admin port may be asked, besides addresses and names without; or off
    Process admin_hosts: Option<AdminHosts> = "ADMIN_HOSTS", "NAMES", Unset::Default("off"), Or("off", HostNames);
    /// What whoever changes something there has to have; with off nothing can be changed
    Process admin_token: Option<AdminToken> = "ADMIN_TOKEN", "TOKEN", Unset::Default("off"), Or("off", Token);
    /// What is logged to standard error: error, warn, info, debug, trace, off, or target=level pairs
    Process log: String = "LOG", "FILTER", Unset::Default("info"), Filter;
    /// Give up writing files and starting programs: auto (where the kernel has Landlock), required or off
    Process sandbox: Sandbox = "SANDBOX", "MODE", Unset::Default("auto"), WordOf::new();
    /// Threads, or auto for one per core
    Process threads: NonZeroUsize = "THREADS", "NUMBER", Unset::Default("auto"), Threads;
}

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        let arguments = all().into_iter().map(|setting| {
            let argument = Arg::new(setting.variable)
                .long(setting.flag)
                .env(setting.variable)
                .value_name(setting.value)
                .help(setting.help)
                // Help shows what is set, and a token is nobody's to see.
                .hide_env_values(setting.variable == "ADMIN_TOKEN")
                // A value that begins with a dash is a fault that the check tells.
                .allow_hyphen_values(true);
            match setting.unset {
                Unset::Default(value) => argument.default_value(value),
                Unset::Missing(_) | Unset::MissingWithoutFile(_) => argument,
            }
        });
        command.next_help_heading("Settings (each is also an environment variable)").args(arguments)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut settings = Self::default();
        settings.update_from_arg_matches(matches)?;
        Ok(settings)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for Setting { variable, .. } in all() {
            if let Some(text) = matches.get_one::<String>(variable) {
                self.0.insert(variable, text.clone());
            }
        }
        Ok(())
    }
}
