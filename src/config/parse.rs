//! From text to values: one function a kind of setting, and the rules between settings.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::{
    AccessLogFormat, Config, Destination, Fault, Forwarded, FrameCheck, ListenOn, MissingOrigin,
    Origins, ProxyProtocol, Rate, Sandbox, Settings, TlvHeader, origins, rate, size,
};

/// A time limit is never zero, since nothing can be done in no time; shorter than this is a spin,
/// longer than a day a typing error.
const LIMITS: RangeInclusive<Duration> = times(10, DAY);

/// The thread of a tunnel looks at the clock by ticks, which are a fraction of the least of these.
const TUNNEL_TIMES: RangeInclusive<Duration> = times(100, DAY);

/// The stamps of pings wrap around after 71 minutes: what is answered later could not be told.
const PONG_TIMES: RangeInclusive<Duration> = times(100, HOUR);

/// A tunnel may live longer than anybody waits for anything.
const LIFETIMES: RangeInclusive<Duration> = times(100, 30 * DAY);

/// Nothing need be waited for in a drain.
const DRAIN_TIMES: RangeInclusive<Duration> = times(0, DAY);

/// In milliseconds.
const HOUR: u64 = 60 * 60 * 1000;
const DAY: u64 = 24 * 60 * 60 * 1000;

const fn times(least: u64, most: u64) -> RangeInclusive<Duration> {
    RangeInclusive::new(Duration::from_millis(least), Duration::from_millis(most))
}

/// A limit that a control frame would pass is a typing error (RFC 6455, section 5.5), and so is
/// one that no message comes near.
const SMALLEST_SIZE: u64 = 125;
const LARGEST_SIZE: u64 = 1 << 40;

/// A head that a browser with a few cookies would not fit into is a typing error (RFC 9110, section 4.1,
/// wants 8,000 bytes for the target alone, and hyper reads as much), and so is one of a megabyte.
const HEADER_SIZES: RangeInclusive<u64> = RangeInclusive::new(8 << 10, 1 << 20);

/// A browser sends some 20 fields.
const HEADERS: RangeInclusive<u64> = RangeInclusive::new(20, 1_000);

/// A body may be as short as you like.
const BODY_SIZES: RangeInclusive<u64> = RangeInclusive::new(1, LARGEST_SIZE);

/// Each connection takes a descriptor, and a process has a million at most on common systems.
const MOST_CONNECTIONS: u32 = 10_000_000;

/// More threads than this per process help nobody.
const MOST_THREADS: usize = 256;

/// RFC 1035, section 2.3.4, as text without the root's dot.
const LONGEST_HOST: usize = 253;
const LONGEST_LABEL: usize = 63;

const PORT_RULE: &str = "a port is a number from 1 to 65535";

#[allow(clippy::too_many_lines)] // A line a setting.
pub(super) fn config(settings: &Settings) -> Result<Config, Vec<Fault>> {
    let mut check = Check { faults: Vec::new() };
    let listen_on = check.listen_on("LISTEN_ON", settings.listen_on.as_deref());
    let host = check.host("DESTINATION_HOSTNAME", settings.destination_hostname.as_deref());
    let port = check.port("DESTINATION_PORT", settings.destination_port.as_deref());
    let proxy_protocol = check.word(
        "PROXY_PROTOCOL",
        &settings.proxy_protocol,
        ProxyProtocol::ALL,
        ProxyProtocol::as_str,
    );
    let trusted_proxies = check.networks("TRUSTED_PROXIES", &settings.trusted_proxies);
    let proxy_tlv_headers = check.tlv_headers("PROXY_TLV_HEADERS", &settings.proxy_tlv_headers);
    let health_path = check.path("HEALTH_PATH", &settings.health_path);
    let health_listen_on = match settings.health_listen_on.as_str() {
        "none" => Some(None),
        text => check.listen_on("HEALTH_LISTEN_ON", Some(text)).map(Some),
    };
    let forwarded = check.word("FORWARDED", &settings.forwarded, Forwarded::ALL, Forwarded::as_str);
    let forwarded_header = check.on_or_off("FORWARDED_HEADER", &settings.forwarded_header);
    let proxy_header_timeout =
        check.time("PROXY_HEADER_TIMEOUT", &settings.proxy_header_timeout, &LIMITS);
    let request_head_timeout =
        check.time("REQUEST_HEAD_TIMEOUT", &settings.request_head_timeout, &LIMITS);
    let connect_timeout = check.time("CONNECT_TIMEOUT", &settings.connect_timeout, &LIMITS);
    let response_head_timeout =
        check.time("RESPONSE_HEAD_TIMEOUT", &settings.response_head_timeout, &LIMITS);
    let max_connections = check.number_or_off("MAX_CONNECTIONS", &settings.max_connections);
    let max_connections_per_client =
        check.number_or_off("MAX_CONNECTIONS_PER_CLIENT", &settings.max_connections_per_client);
    let handshake_rate_per_client =
        check.rate_or_off("HANDSHAKE_RATE_PER_CLIENT", &settings.handshake_rate_per_client);
    let max_header_size =
        check.size("MAX_HEADER_SIZE", &settings.max_header_size, &HEADER_SIZES, "");
    let max_headers = check.number("MAX_HEADERS", &settings.max_headers, &HEADERS);
    let max_body_size = check.body_size_or_off("MAX_BODY_SIZE", &settings.max_body_size);
    let allowed_origins = check.origins("ALLOWED_ORIGINS", &settings.allowed_origins);
    let missing_origin = check.word(
        "MISSING_ORIGIN",
        &settings.missing_origin,
        MissingOrigin::ALL,
        MissingOrigin::as_str,
    );
    let ping_interval = check.time_or_off("PING_INTERVAL", &settings.ping_interval, &TUNNEL_TIMES);
    let pong_timeout = check.time("PONG_TIMEOUT", &settings.pong_timeout, &PONG_TIMES);
    let ping_upstream = settings.ping_upstream_interval.as_str();
    let ping_upstream_interval =
        check.time_or_off("PING_UPSTREAM_INTERVAL", ping_upstream, &TUNNEL_TIMES);
    let frame_check =
        check.word("FRAME_CHECK", &settings.frame_check, FrameCheck::ALL, FrameCheck::as_str);
    let max_frame_size = check.size_or_off("MAX_FRAME_SIZE", &settings.max_frame_size);
    let max_message_size = check.size_or_off("MAX_MESSAGE_SIZE", &settings.max_message_size);
    let idle_timeout = check.time_or_off("IDLE_TIMEOUT", &settings.idle_timeout, &TUNNEL_TIMES);
    let max_lifetime = check.time_or_off("MAX_LIFETIME", &settings.max_lifetime, &LIFETIMES);
    let stall_timeout = check.time("STALL_TIMEOUT", &settings.stall_timeout, &TUNNEL_TIMES);
    let drain_delay = check.time("DRAIN_DELAY", &settings.drain_delay, &DRAIN_TIMES);
    let drain_period = check.time("DRAIN_PERIOD", &settings.drain_period, &DRAIN_TIMES);
    let drain_close_code = check.close_code("DRAIN_CLOSE_CODE", &settings.drain_close_code);
    let drain_grace = check.time("DRAIN_GRACE", &settings.drain_grace, &DRAIN_TIMES);
    let access_log = check.word(
        "ACCESS_LOG",
        &settings.access_log,
        AccessLogFormat::ALL,
        AccessLogFormat::as_str,
    );
    let access_log_query = check.on_or_off("ACCESS_LOG_QUERY", &settings.access_log_query);
    let log = check.log("LOG", &settings.log);
    let sandbox = check.word("SANDBOX", &settings.sandbox, Sandbox::ALL, Sandbox::as_str);
    let threads = check.threads("THREADS", &settings.threads);

    check.contradictions(
        settings,
        listen_on.as_ref(),
        health_listen_on.as_ref().and_then(Option::as_ref),
        max_frame_size,
        max_message_size,
    );
    if let (Some(listen_on), Some(host), Some(port)) = (&listen_on, &host, port) {
        check.own_listener(listen_on, host, port);
    }

    // Every value is there, or its fault is.
    let config = (|| {
        Some(Config {
            listen_on: listen_on?,
            destination: Destination { host: host?, port: port? },
            proxy_protocol: proxy_protocol?,
            trusted_proxies: trusted_proxies?,
            proxy_tlv_headers: proxy_tlv_headers?,
            health_path: health_path?,
            health_listen_on: health_listen_on?,
            forwarded: forwarded?,
            forwarded_header: forwarded_header?,
            proxy_header_timeout: proxy_header_timeout?,
            request_head_timeout: request_head_timeout?,
            connect_timeout: connect_timeout?,
            response_head_timeout: response_head_timeout?,
            max_connections: max_connections.and_then(|most| NonZeroUsize::try_from(most).ok()),
            max_connections_per_client,
            handshake_rate_per_client,
            max_header_size: usize::try_from(max_header_size?).ok()?,
            max_headers: usize::try_from(max_headers?).ok()?,
            max_body_size,
            allowed_origins,
            missing_origin: missing_origin?,
            ping_interval,
            pong_timeout: pong_timeout?,
            ping_upstream_interval,
            frame_check: frame_check?,
            max_frame_size,
            max_message_size,
            idle_timeout,
            max_lifetime,
            stall_timeout: stall_timeout?,
            drain_delay: drain_delay?,
            drain_period: drain_period?,
            drain_close_code: drain_close_code?,
            drain_grace: drain_grace?,
            access_log: access_log?,
            access_log_query: access_log_query?,
            log: log?,
            sandbox: sandbox?,
            threads: threads?,
        })
    })();
    match config {
        Some(config) if check.faults.is_empty() => Ok(config),
        _ => Err(check.faults),
    }
}

/// One thread per core that this process may use.
pub(super) fn available_threads() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// The faults found so far.
struct Check {
    faults: Vec<Fault>,
}

impl Check {
    fn missing(&mut self, variable: &'static str, rule: &'static str) {
        self.faults.push(Fault::Missing { variable, rule });
    }

    fn invalid(&mut self, variable: &'static str, value: &str, rule: impl Into<String>) {
        self.faults.push(Fault::Invalid { variable, value: value.to_owned(), rule: rule.into() });
    }

    fn listen_on(&mut self, variable: &'static str, text: Option<&str>) -> Option<ListenOn> {
        let Some(text) = text else {
            self.missing(variable, "give a port, as 45400, or an address and a port");
            return None;
        };
        let parsed = match text.parse::<SocketAddr>() {
            Ok(address) => Some((Some(address.ip()), address.port())),
            Err(_) => parse_number(text).map(|port| (None, port)),
        };
        match parsed {
            Some((address, port)) if port != 0 => Some(ListenOn { address, port }),
            _ => {
                self.invalid(
                    variable,
                    text,
                    format!(
                        "give a port, or an IP address and a port, as 45400, 127.0.0.1:45400 \
                         or [::1]:45400; {PORT_RULE}"
                    ),
                );
                None
            }
        }
    }

    fn port(&mut self, variable: &'static str, text: Option<&str>) -> Option<u16> {
        let Some(text) = text else {
            self.missing(variable, "give the port that the application listens on");
            return None;
        };
        let port = parse_number(text).filter(|port: &u16| *port != 0);
        if port.is_none() {
            self.invalid(variable, text, PORT_RULE);
        }
        port
    }

    fn host(&mut self, variable: &'static str, text: Option<&str>) -> Option<String> {
        let Some(text) = text else {
            self.missing(variable, "give the application's host name or IP address");
            return None;
        };
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if bare.parse::<IpAddr>().is_ok() {
            return Some(bare.to_owned());
        }
        if !is_host_name(text) {
            self.invalid(
                variable,
                text,
                "give a host name (letters, digits, '-', '_' and '.') or an IP address, without \
                 scheme, port or path",
            );
            return None;
        }
        Some(text.to_owned())
    }

    fn word<T: Copy>(
        &mut self,
        variable: &'static str,
        text: &str,
        all: &[T],
        as_str: impl Fn(T) -> &'static str,
    ) -> Option<T> {
        let found = all.iter().copied().find(|value| as_str(*value) == text);
        if found.is_none() {
            let words: Vec<_> = all.iter().map(|value| as_str(*value)).collect();
            self.invalid(variable, text, format!("must be one of {}", words.join(", ")));
        }
        found
    }

    fn on_or_off(&mut self, variable: &'static str, text: &str) -> Option<bool> {
        self.word(variable, text, &[true, false], |on| if on { "on" } else { "off" })
    }

    fn networks(&mut self, variable: &'static str, text: &str) -> Option<Vec<IpNet>> {
        if text == "everyone" {
            return Some(Vec::new());
        }
        let before = self.faults.len();
        let mut networks = Vec::new();
        for item in text.split(',').map(str::trim) {
            let network =
                item.parse::<IpNet>().or_else(|_| item.parse::<IpAddr>().map(IpNet::from)).ok();
            match network {
                Some(network) if network.addr().to_canonical() != network.addr() => self.invalid(
                    variable,
                    item,
                    "is an IPv4 network in the spelling of IPv6; write it as IPv4",
                ),
                Some(network) if network == network.trunc() => networks.push(network),
                Some(network) => self.invalid(
                    variable,
                    item,
                    format!("has bits beyond its prefix; did you mean {}", network.trunc()),
                ),
                None => self.invalid(
                    variable,
                    item,
                    "give networks or addresses, comma separated, as 10.0.0.0/8,fd00::/8, or \
                     everyone",
                ),
            }
        }
        (self.faults.len() == before).then_some(networks)
    }

    fn tlv_headers(&mut self, variable: &'static str, text: &str) -> Option<Vec<TlvHeader>> {
        match text {
            "none" => return Some(Vec::new()),
            "all" => return Some(TlvHeader::ALL.to_vec()),
            _ => {}
        }
        let before = self.faults.len();
        let mut tlvs = Vec::new();
        for item in text.split(',').map(str::trim) {
            match TlvHeader::ALL.iter().find(|tlv| tlv.as_str() == item) {
                Some(tlv) if tlvs.contains(tlv) => {}
                Some(tlv) => tlvs.push(*tlv),
                None => {
                    let words: Vec<_> = TlvHeader::ALL.iter().map(|tlv| tlv.as_str()).collect();
                    self.invalid(
                        variable,
                        item,
                        format!("must be all, none, or some of {}", words.join(", ")),
                    );
                }
            }
        }
        (self.faults.len() == before).then_some(tlvs)
    }

    fn path(&mut self, variable: &'static str, text: &str) -> Option<String> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.starts_with('/') && visible && !text.contains(['?', '#']) {
            return Some(text.to_owned());
        }
        self.invalid(
            variable,
            text,
            "a path begins with '/' and has visible ASCII characters without '?' and '#'",
        );
        None
    }

    fn time(
        &mut self,
        variable: &'static str,
        text: &str,
        bounds: &RangeInclusive<Duration>,
    ) -> Option<Duration> {
        self.time_or(variable, text, bounds, "")
    }

    /// `None` for `off`, or for a fault.
    fn time_or_off(
        &mut self,
        variable: &'static str,
        text: &str,
        bounds: &RangeInclusive<Duration>,
    ) -> Option<Duration> {
        if text == "off" { None } else { self.time_or(variable, text, bounds, "off, or ") }
    }

    /// `or` is what else could be given, for the sentence about a fault.
    fn time_or(
        &mut self,
        variable: &'static str,
        text: &str,
        bounds: &RangeInclusive<Duration>,
        or: &str,
    ) -> Option<Duration> {
        let format = |time: &Duration| humantime::format_duration(*time).to_string();
        let rule = match humantime::parse_duration(text) {
            Ok(time) if bounds.contains(&time) => return Some(time),
            Ok(_) => {
                format!("must be {or}from {} to {}", format(bounds.start()), format(bounds.end()))
            }
            Err(_) => format!("give {or}a time with its unit, as 500ms, 50s or 2m"),
        };
        self.invalid(variable, text, rule);
        None
    }

    /// `None` for `off`, or for a fault.
    fn size_or_off(&mut self, variable: &'static str, text: &str) -> Option<u64> {
        if text == "off" {
            return None;
        }
        self.size(variable, text, &(SMALLEST_SIZE..=LARGEST_SIZE), "off, or ")
    }

    /// `None` for `off`, or for a fault.
    fn body_size_or_off(&mut self, variable: &'static str, text: &str) -> Option<u64> {
        if text == "off" { None } else { self.size(variable, text, &BODY_SIZES, "off, or ") }
    }

    /// `or` is what else could be given, for the sentence about a fault.
    fn size(
        &mut self,
        variable: &'static str,
        text: &str,
        bounds: &RangeInclusive<u64>,
        or: &str,
    ) -> Option<u64> {
        let rule = match size::parse(text) {
            Some(size) if bounds.contains(&size) => return Some(size),
            Some(_) => format!(
                "must be {or}from {} to {}",
                size::format(*bounds.start()),
                size::format(*bounds.end())
            ),
            None => {
                format!("give {or}a size in bytes, KiB, MiB, GiB or TiB, as 65536, 64KiB or 1MiB")
            }
        };
        self.invalid(variable, text, rule);
        None
    }

    fn number(
        &mut self,
        variable: &'static str,
        text: &str,
        bounds: &RangeInclusive<u64>,
    ) -> Option<u64> {
        let number = parse_number(text).filter(|number| bounds.contains(number));
        if number.is_none() {
            let rule = format!("must be a number from {} to {}", bounds.start(), bounds.end());
            self.invalid(variable, text, rule);
        }
        number
    }

    /// `None` for `off`, or for a fault.
    fn number_or_off(&mut self, variable: &'static str, text: &str) -> Option<NonZeroU32> {
        if text == "off" {
            return None;
        }
        let number = parse_number::<u32>(text).filter(|number| *number <= MOST_CONNECTIONS);
        let number = number.and_then(NonZeroU32::new);
        if number.is_none() {
            let rule = format!("must be off, or a number from 1 to {MOST_CONNECTIONS}");
            self.invalid(variable, text, rule);
        }
        number
    }

    /// `None` for `off`, or for a fault.
    fn rate_or_off(&mut self, variable: &'static str, text: &str) -> Option<Rate> {
        if text == "off" {
            return None;
        }
        let found = rate::parse(text);
        if found.is_none() {
            self.invalid(
                variable,
                text,
                format!(
                    "give off, or a number per s, min or h, as 10/s or 100/min, and perhaps how many at \
                     once, as 10/s burst=50; numbers from 1 to {}",
                    rate::MOST
                ),
            );
        }
        found
    }

    /// `None` for `any`, or for a fault.
    fn origins(&mut self, variable: &'static str, text: &str) -> Option<Origins> {
        if text == "any" {
            return None;
        }
        let items: Vec<_> = text.split(',').map(str::trim).collect();
        match origins::parse(&items) {
            Ok(origins) => Some(origins),
            Err(item) => {
                self.invalid(
                    variable,
                    &item,
                    "give any, or origins, comma separated, as https://app.example.com, \
                     https://*.example.com, *.example.com, http://localhost:3000 or null; no path, and \
                     names as browsers send them (xn--…)",
                );
                None
            }
        }
    }

    /// A code that says that the client did nothing wrong and may come back.
    ///
    /// 1001 is a server that goes away (RFC 6455, section 7.4.1), 1012 one that restarts and 1013 a
    /// state that will pass (IANA's registry). 4000 to 4999 are for applications to agree upon (section
    /// 7.4.2). 1000 would tell the client that all is said and done, the other codes below 3000
    /// have other meanings or may not be sent at all, and 3000 to 3999 belong to those who
    /// registered them.
    fn close_code(&mut self, variable: &'static str, text: &str) -> Option<u16> {
        let code =
            parse_number(text).filter(|code| matches!(code, 1001 | 1012 | 1013 | 4000..=4999));
        if code.is_none() {
            self.invalid(variable, text, "must be 1001, 1012, 1013, or a number from 4000 to 4999");
        }
        code
    }

    fn log(&mut self, variable: &'static str, text: &str) -> Option<String> {
        // A word alone that is no level would be the name of a target, and everything else be off.
        let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
        let items_are_clear = text.split(',').all(|item| item.contains('=') || is_level(item));
        if items_are_clear && text.parse::<Targets>().is_ok() {
            return Some(text.to_owned());
        }
        self.invalid(
            variable,
            text,
            "give error, warn, info, debug, trace or off, or target=level pairs, comma separated",
        );
        None
    }

    fn threads(&mut self, variable: &'static str, text: &str) -> Option<NonZeroUsize> {
        if text == "auto" {
            return Some(available_threads());
        }
        let number = text.parse::<NonZeroUsize>().ok().filter(|n| n.get() <= MOST_THREADS);
        if number.is_none() {
            self.invalid(
                variable,
                text,
                format!("give auto, or a number from 1 to {MOST_THREADS}"),
            );
        }
        number
    }

    /// A destination that is plainly this process would be a loop without end.
    fn own_listener(&mut self, listen_on: &ListenOn, host: &str, port: u16) {
        let here = match host.parse::<IpAddr>() {
            Ok(address) => match listen_on.address {
                Some(own) => own == address || (own.is_unspecified() && address.is_loopback()),
                None => address.is_loopback(),
            },
            Err(_) => {
                host == "localhost"
                    && listen_on.address.is_none_or(|own| own.is_unspecified() || own.is_loopback())
            }
        };
        if here && port == listen_on.port {
            self.faults.push(Fault::Contradiction {
                one: format!("LISTEN_ON={listen_on}"),
                other: format!("DESTINATION_HOSTNAME={host} DESTINATION_PORT={port}"),
                rule: "elbows would pass everything on to itself",
            });
        }
    }

    /// What each setting alone cannot know.
    fn contradictions(
        &mut self,
        settings: &Settings,
        listen_on: Option<&ListenOn>,
        health_listen_on: Option<&ListenOn>,
        max_frame_size: Option<u64>,
        max_message_size: Option<u64>,
    ) {
        let mut contradict = |one: (&str, &str), other: (&str, &str), rule| {
            self.faults.push(Fault::Contradiction {
                one: format!("{}={}", one.0, one.1),
                other: format!("{}={}", other.0, other.1),
                rule,
            });
        };
        let proxy_protocol = ("PROXY_PROTOCOL", settings.proxy_protocol.as_str());
        let trusted = ("TRUSTED_PROXIES", settings.trusted_proxies.as_str());
        let tlvs = ("PROXY_TLV_HEADERS", settings.proxy_tlv_headers.as_str());
        match proxy_protocol.1 {
            "optional" if trusted.1 == "everyone" => contradict(
                proxy_protocol,
                trusted,
                "where the header is optional any client could write its own; \
                 list the load balancer's networks",
            ),
            "off" if trusted.1 != "everyone" => {
                contradict(proxy_protocol, trusted, "no header is read, so nobody is believed");
            }
            _ => {}
        }
        if proxy_protocol.1 == "off" && tlvs.1 != "none" {
            contradict(proxy_protocol, tlvs, "TLVs come only in PROXY headers");
        }
        if settings.missing_origin == "refuse" && settings.allowed_origins == "any" {
            contradict(
                ("MISSING_ORIGIN", "refuse"),
                ("ALLOWED_ORIGINS", "any"),
                "where every origin is allowed nobody asks for one; list yours",
            );
        }
        if let (Some(frame), Some(message)) = (max_frame_size, max_message_size)
            && frame > message
        {
            contradict(
                ("MAX_FRAME_SIZE", &settings.max_frame_size),
                ("MAX_MESSAGE_SIZE", &settings.max_message_size),
                "a frame is part of a message, so that the frames' larger limit never counts",
            );
        }
        if let (Some(traffic), Some(health)) = (listen_on, health_listen_on)
            && traffic.overlaps(health)
        {
            contradict(
                ("LISTEN_ON", &traffic.to_string()),
                ("HEALTH_LISTEN_ON", &health.to_string()),
                "each listener needs a port of its own",
            );
        }
    }
}

/// Digits only: `str::parse` would take a sign.
fn parse_number<T: FromStr>(text: &str) -> Option<T> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    name.len() <= LONGEST_HOST
        && name.split('.').all(|label| {
            (1..=LONGEST_LABEL).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        })
        // All digits and dots is an address that did not parse, never a name (RFC 1123, 2.1).
        && !name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}
