//! Rules between settings: what each one alone cannot know. Pure.

use super::settings::Readings;
use super::{
    AccessLogFormat, AdminListenOn, AllDown, Balance, Fault, ListenOn, MissingOrigin,
    ProxyProtocol, Settings, Sticky, UpstreamName,
};

/// Adds the contradictions between `settings`, as far as these could be read, to `faults`.
pub(super) fn check(settings: &Settings, readings: &Readings, faults: &mut Vec<Fault>) {
    // As they were typed.
    let typed =
        |variable: &str| format!("{variable}={}", settings.get(variable).unwrap_or_default());
    faults.extend(half_a_destination(settings, readings));
    let mut contradict = |one, other, rule| faults.push(Fault::Contradiction { one, other, rule });

    let everyone = readings.trusted_proxies.as_ref().map(Vec::is_empty);
    match (readings.proxy_protocol, everyone) {
        (Some(ProxyProtocol::Optional), Some(true)) => contradict(
            typed("PROXY_PROTOCOL"),
            typed("TRUSTED_PROXIES"),
            "where the header is optional any client could write its own; \
             list the load balancer's networks",
        ),
        (Some(ProxyProtocol::Off), Some(false)) => contradict(
            typed("PROXY_PROTOCOL"),
            typed("TRUSTED_PROXIES"),
            "no header is read, so nobody is believed",
        ),
        _ => {}
    }
    if readings.proxy_protocol == Some(ProxyProtocol::Off)
        && readings.proxy_tlv_headers.as_ref().is_some_and(|tlvs| !tlvs.is_empty())
    {
        let rule = "TLVs come only in PROXY headers";
        contradict(typed("PROXY_PROTOCOL"), typed("PROXY_TLV_HEADERS"), rule);
    }
    if readings.missing_origin == Some(MissingOrigin::Refuse)
        && matches!(readings.allowed_origins, Some(None))
    {
        contradict(
            typed("MISSING_ORIGIN"),
            typed("ALLOWED_ORIGINS"),
            "where every origin is allowed nobody asks for one; list yours",
        );
    }
    if let (Some(Some(frame)), Some(Some(message))) =
        (readings.max_frame_size, readings.max_message_size)
        && frame > message
    {
        contradict(
            typed("MAX_FRAME_SIZE"),
            typed("MAX_MESSAGE_SIZE"),
            "a frame is part of a message, so that the frames' larger limit never counts",
        );
    }
    if readings.access_log == Some(AccessLogFormat::Off) && readings.access_log_open == Some(true) {
        contradict(
            typed("ACCESS_LOG"),
            typed("ACCESS_LOG_OPEN"),
            "there is no log in which a line could be",
        );
    }
    rebalancing(readings, &typed, &mut contradict);
    checks(readings, &typed, &mut contradict);
    let admin = readings.admin_listen_on.iter().flatten().find_map(AdminListenOn::tcp);
    let listeners = [
        ("LISTEN_ON", readings.listen_on.as_ref()),
        ("HEALTH_LISTEN_ON", readings.health_listen_on.iter().flatten().next()),
        ("ADMIN_LISTEN_ON", admin.as_ref()),
    ];
    for (number, (one, at)) in listeners.iter().enumerate() {
        for (other, there) in listeners.iter().skip(number + 1) {
            if let (Some(at), Some(there)) = (at, there)
                && at.overlaps(there)
            {
                contradict(
                    format!("{one}={at}"),
                    format!("{other}={there}"),
                    "each listener needs a port of its own",
                );
            }
        }
    }
    if let (Some(Some(admin)), Some(Some(handoff))) =
        (&readings.admin_listen_on, &readings.handoff_socket)
        && admin.path() == Some(handoff)
    {
        contradict(
            typed("ADMIN_LISTEN_ON"),
            typed("HANDOFF_SOCKET"),
            "each listener needs a path of its own",
        );
    }
    if let (Some(listen_on), Some(names), Some(port)) =
        (&readings.listen_on, &readings.destination_hostname, readings.destination_port)
        && port == listen_on.port
        && let Some(name) = names.iter().find(|name| is_here(name, listen_on))
    {
        contradict(
            format!("LISTEN_ON={listen_on}"),
            format!("DESTINATION_HOSTNAME={name} DESTINATION_PORT={port}"),
            "elbows would pass everything on to itself",
        );
    }
}

/// Contradictions of checks.
fn checks(
    readings: &Readings,
    typed: &dyn Fn(&str) -> String,
    contradict: &mut dyn FnMut(String, String, &'static str),
) {
    if readings.upstream_all_down == Some(AllDown::Refuse)
        && matches!(readings.upstream_check, Some(None))
    {
        contradict(
            typed("UPSTREAM_ALL_DOWN"),
            typed("UPSTREAM_CHECK"),
            "without checks nothing tells that all endpoints are down, nor that one is back",
        );
    }
}

/// Contradictions of `REBALANCE`.
fn rebalancing(
    readings: &Readings,
    typed: &dyn Fn(&str) -> String,
    contradict: &mut dyn FnMut(String, String, &'static str),
) {
    let Some(Some(_)) = readings.rebalance else { return };
    if let Some(balance @ (Balance::RoundRobin | Balance::Random)) = readings.balance {
        contradict(
            typed("REBALANCE"),
            format!("BALANCE={}", balance.as_str()),
            "a tunnel that is closed could come back to where it was; give BALANCE=least_tunnels",
        );
    }
    if let Some(sticky) = readings.sticky.as_ref().filter(|sticky| **sticky != Sticky::Off) {
        contradict(
            typed("REBALANCE"),
            format!("STICKY={sticky}"),
            "a client whose tunnel is closed would come back to where it was; give STICKY=off",
        );
    }
    if let Some([UpstreamName::Address(_)]) = readings.destination_hostname.as_deref() {
        contradict(
            typed("REBALANCE"),
            typed("DESTINATION_HOSTNAME"),
            "one address is all that there is, and nothing can be evened out",
        );
    }
}

/// Half of a destination is none. Without a file each of them has to be there anyway.
fn half_a_destination(settings: &Settings, readings: &Readings) -> Option<Fault> {
    readings.config_file.as_ref()?.as_ref()?;
    let is_half =
        match (readings.destination_hostname.as_ref()?.is_empty(), readings.destination_port?) {
            (true, 1..) => true,
            (false, 0) => settings.get("DESTINATION_PORT").is_none(),
            _ => false,
        };
    let [one, other] = ["DESTINATION_HOSTNAME", "DESTINATION_PORT"]
        .map(|variable| format!("{variable}={}", settings.get(variable).unwrap_or_default()));
    let rule = "without both there is no default route; give both, or neither";
    is_half.then_some(Fault::Contradiction { one, other, rule })
}

/// Whether `name` is plainly where we listen.
fn is_here(name: &UpstreamName, listen_on: &ListenOn) -> bool {
    match name {
        UpstreamName::Address(address) => match listen_on.address {
            Some(own) => own == *address || (own.is_unspecified() && address.is_loopback()),
            None => address.is_loopback(),
        },
        UpstreamName::Host(host) => {
            host == "localhost"
                && listen_on.address.is_none_or(|own| own.is_unspecified() || own.is_loopback())
        }
        UpstreamName::Service(_) => false,
    }
}
