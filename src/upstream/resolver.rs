//! Asks for names as the system's files say: `/etc/hosts` first, then the name servers of `/etc/resolv.conf`, with its
//! search domains, times and attempts. hickory-resolver speaks DNS: by UDP, and by TCP where an answer is truncated.
//!
//! Both files are read for each question, which comes once in a TTL, so that a change of either is followed. What an
//! answer says is used for as long as it may be; nothing is kept here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ServerOrderingStrategy};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Fault;
use super::addresses::{Answer, Found, MOST_FOUND};
use crate::config::{Destination, UpstreamName};
use crate::socket;

/// What `/etc/hosts` says has no end.
const FOREVER: Duration = Duration::from_secs(86_400);

/// So many hosts of one service are asked for.
const MOST_HOSTS: usize = 128;

/// Asks name servers.
#[derive(Default)]
pub(super) struct Resolver {
    /// The one for what the file said last: it knows which servers answer.
    last: Mutex<Option<(Vec<u8>, Arc<TokioResolver>)>>,
}

/// One question, with the files as they are.
#[derive(Clone)]
struct Asking {
    hosts: Arc<Hosts>,
    servers: Arc<TokioResolver>,
}

impl Resolver {
    /// The addresses of `name`, and for how long they may be used. At least one.
    pub(super) async fn ask(&self, name: &UpstreamName, port: u16) -> io::Result<Answer> {
        let answer = match name {
            UpstreamName::Address(ip) => {
                let found = vec![Found::plain(SocketAddr::new(*ip, port))];
                return Ok(Answer { found, ttl: FOREVER });
            }
            UpstreamName::Host(host) => self.asking()?.host(host, port).await,
            UpstreamName::Service(service) => self.asking()?.service(service).await,
        };
        let Answer { mut found, ttl } = answer.map_err(named)?;
        keep_routable(&mut found);
        if found.len() > MOST_FOUND {
            tracing::warn!("{name} has {} addresses; {MOST_FOUND} of them are used", found.len());
            found.truncate(MOST_FOUND);
        }
        if found.is_empty() { Err(no_address()) } else { Ok(Answer { found, ttl }) }
    }

    /// What the files say now.
    fn asking(&self) -> io::Result<Asking> {
        let mut hosts = Hosts::default();
        match std::fs::read("/etc/hosts") {
            Ok(text) => hosts.read_hosts_conf(text.as_slice())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let text = match std::fs::read("/etc/resolv.conf") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            text => text?,
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = match &*last {
            Some((before, servers)) if *before == text => Arc::clone(servers),
            _ => {
                let servers = Arc::new(servers(&text)?);
                *last = Some((text, Arc::clone(&servers)));
                servers
            }
        };
        // Answers are kept elsewhere, where it is known how long they are to be used.
        servers.clear_cache();
        Ok(Asking { hosts: Arc::new(hosts), servers })
    }
}

impl Asking {
    /// The addresses of a host, each with this port.
    async fn host(&self, host: &str, port: u16) -> io::Result<Answer> {
        let name = Name::from_ascii(host).map_err(io::Error::other)?;
        let plain = |ip| Found::plain(SocketAddr::new(ip, port));
        let known: Vec<_> = [RecordType::AAAA, RecordType::A]
            .into_iter()
            .filter_map(|kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind)))
            .flat_map(|lookup| addresses(&lookup))
            .map(plain)
            .collect();
        if !known.is_empty() {
            return Ok(Answer { found: known, ttl: FOREVER });
        }
        let answer = self.servers.lookup_ip(name).await.map_err(plainly)?;
        let mut found: Vec<_> = addresses(answer.as_lookup()).into_iter().map(plain).collect();
        // As RFC 6724 has it where both can be reached; otherwise as the server had them.
        found.sort_by_key(|found| found.address.is_ipv4());
        Ok(Answer { found, ttl: ttl(answer.as_lookup()) })
    }

    /// The endpoints of a service (RFC 2782).
    async fn service(&self, service: &str) -> io::Result<Answer> {
        let name = Name::from_ascii(service).map_err(io::Error::other)?;
        let answer = self.servers.lookup(name, RecordType::SRV).await.map_err(plainly)?;
        let mut ttl = ttl(&answer);
        let mut hosts = JoinSet::new();
        let records = answer.answers().iter().filter_map(|record| match &record.data {
            // A root says that there is no such service, and port 0 is none.
            RData::SRV(record) if record.port != 0 && !record.target.is_root() => Some(record),
            _ => None,
        });
        for (place, record) in records.take(MOST_HOSTS).cloned().enumerate() {
            let asking = self.clone();
            hosts.spawn(async move {
                let SRV { target, port, .. } = &record;
                let answer = asking.host(&target.to_ascii(), *port).await;
                (place, record, answer)
            });
        }
        let (mut all, mut fault) = (Vec::new(), None);
        while let Some(host) = hosts.join_next().await {
            match host.map_err(io::Error::other)? {
                (place, record, Ok(answer)) => {
                    ttl = ttl.min(answer.ttl);
                    all.push((place, record, answer.found));
                }
                (_, record, Err(error)) => {
                    fault =
                        Some(io::Error::new(error.kind(), format!("{}: {error}", record.target)));
                }
            }
        }
        match fault {
            // Some of the hosts are not all of them: the last good answer is better.
            Some(fault) => Err(fault),
            None => Ok(Answer { found: in_order(all), ttl }),
        }
    }
}

/// The addresses of the hosts of a service, in the order of its records.
fn in_order(mut hosts: Vec<(usize, SRV, Vec<Found>)>) -> Vec<Found> {
    hosts.sort_by_key(|(place, ..)| *place);
    let of_host = |(_, record, found): (usize, SRV, Vec<Found>)| {
        let SRV { priority, weight, .. } = record;
        found.into_iter().map(move |found| Found { priority, weight, ..found })
    };
    hosts.into_iter().flat_map(of_host).collect()
}

fn addresses(lookup: &Lookup) -> Vec<IpAddr> {
    lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect()
}

/// The shortest of its records.
fn ttl(lookup: &Lookup) -> Duration {
    let seconds = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
    Duration::from_secs(seconds.into())
}

/// Who is asked, by the text of a resolv.conf(5).
fn servers(text: &[u8]) -> io::Result<TokioResolver> {
    let (config, mut options) = parse_resolv_conf(text)
        // Without a name server in it, the one of this machine is asked.
        .or_else(|_| parse_resolv_conf([text, b"\nnameserver 127.0.0.1\n"].concat()))
        .map_err(plainly)?;
    // That a name has no address of the other family is no fault to tell.
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    // One after the other, as they are written: the second may know less than the first.
    options.num_concurrent_reqs = 1;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options.cache_size = 64;
    let servers = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    servers.with_options(options).build().map_err(plainly)
}

/// Drops addresses of a family that this machine has no way to, unless there are no others.
fn keep_routable(found: &mut Vec<Found>) {
    let has_route = |found: &Found| {
        let any: IpAddr = match found.address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // Nothing is sent: the kernel looks for a way.
        UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(found.address)).is_ok()
    };
    let ways = |is_ipv4| found.iter().filter(move |found| found.address.is_ipv4() == is_ipv4);
    let (has_ipv4, has_ipv6) = (ways(true).next().is_some(), ways(false).next().is_some());
    if !(has_ipv4 && has_ipv6) {
        return;
    }
    match (ways(true).any(has_route), ways(false).any(has_route)) {
        (true, false) => found.retain(|found| found.address.is_ipv4()),
        (false, true) => found.retain(|found| found.address.is_ipv6()),
        _ => {}
    }
}

/// The endpoints of `destination` now, within `limit`, and what is wrong with each name that has none.
pub(super) async fn once(
    destination: &Destination,
    limit: Duration,
) -> (Vec<SocketAddr>, Vec<Fault>) {
    let resolver = Resolver::default();
    let (mut addresses, mut faults) = (Vec::new(), Vec::new());
    let asked = destination.names.iter().map(|name| (name, resolver.ask(name, destination.port)));
    for (name, question) in asked {
        let outcome = timeout(limit, question).await.unwrap_or_else(|_| Err(no_answer()));
        match outcome {
            Ok(answer) => addresses.extend(answer.found.iter().map(|found| found.address)),
            Err(error) => faults.push(fault(&name.to_string(), error)),
        }
    }
    (addresses, faults)
}

/// The fault of a question that came to `error`. That this machine has too little of something says nothing of the name.
pub(super) fn fault(name: &str, error: io::Error) -> Fault {
    let (host, source) = (name.to_owned(), Arc::new(error));
    if socket::is_no_room(&source) {
        Fault::NoRoomToAsk { host, source }
    } else {
        Fault::Unresolved { host, source }
    }
}

/// No answer came in time.
pub(super) fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the resolver did not answer")
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "it has no address")
}

/// What is wrong, in plain words.
fn plainly(error: NetError) -> io::Error {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => {
                io::Error::new(io::ErrorKind::NotFound, "there is no such name")
            }
            ResponseCode::NoError => no_address(),
            code => io::Error::other(format!("the name server answered {code}")),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => {
            io::Error::other(format!("the name server answered {code}"))
        }
        NetError::Timeout => no_answer(),
        NetError::Io(error) => match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::other(error),
        },
        error => io::Error::other(error),
    }
}

/// The kernel's fault behind one of the resolver's, which does not always tell that it found no descriptor for a
/// socket. So the kernel is asked for one then.
fn named(error: io::Error) -> io::Error {
    if error.raw_os_error().is_some() {
        return error;
    }
    match UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
        Err(refusal) if socket::is_no_room(&refusal) => refusal,
        _ => error,
    }
}
