//! What a request asks for behind its `?`: which tunnels, in which order, how many. Pure.

#[cfg(any(test, fuzzing))]
mod written;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::fault::Fault;
use super::sorting::{Place, Sorting};
use super::view::{self, Moment};
use crate::tunnel::{Condition, Handshake, Identity, State};

/// The most tunnels that one answer lists.
const MOST: usize = 1_000;

/// How many it lists where nobody says.
const USUAL: usize = 100;

/// Which tunnels are asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Query {
    client: Option<Network>,
    upstream: Option<Network>,
    path: Option<String>,
    search: Option<Search>,
    older: Option<Duration>,
    idle: Option<Duration>,
    state: Option<Condition>,
    pub(crate) sorting: Sorting,
    pub(crate) limit: usize,
    pub(crate) behind: Option<Place>,
    /// The process that told this place.
    pub(crate) process: Option<u64>,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            client: None,
            upstream: None,
            path: None,
            search: None,
            older: None,
            idle: None,
            state: None,
            sorting: Sorting::BY_PLACE,
            limit: USUAL,
            behind: None,
            process: None,
        }
    }
}

/// Addresses that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Socket(SocketAddr),
    Net(IpNet),
}

impl Network {
    fn read(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Socket(address));
        }
        let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.ok().map(Self::Net)
    }

    fn contains(self, address: SocketAddr) -> bool {
        match self {
            Self::Socket(one) => one == address,
            Self::Net(net) => net.contains(&address.ip()),
        }
    }
}

/// Text that somebody looks for, wherever it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Search {
    text: String,
    /// It can be a part of an address. An address has to be written down to be looked at: for other texts none is.
    can_be_address: bool,
}

impl Search {
    fn new(text: &str) -> Self {
        let is_of_address = |byte: u8| byte.is_ascii_hexdigit() || b".:[]".contains(&byte);
        Self { text: text.to_owned(), can_be_address: text.bytes().all(is_of_address) }
    }

    fn is_in(&self, identity: &Identity, path: &str) -> bool {
        let Handshake { host, user_agent, subprotocol, trace_id: _ } = identity.handshake();
        let has = |text: &str| text.contains(&self.text);
        [path, host, user_agent, subprotocol].into_iter().any(has)
            || self.can_be_address
                && [identity.client(), identity.upstream()]
                    .iter()
                    .any(|address| has(&address.to_string()))
    }
}

/// Parameters of one query at most: more than there are. Each is compared with those before it.
const MOST_PARAMETERS: usize = 16;

/// The parameters of a query, their escapes undone. One that comes twice is a fault of its own, and so is one too many.
pub(crate) fn parameters(query: &str) -> Result<Vec<(String, String)>, Fault> {
    let mut all: Vec<(String, String)> = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if all.len() == MOST_PARAMETERS {
            return Err(Fault::parameter(&name, &value, "a query has 16 parameters at most"));
        }
        if all.iter().any(|(known, _)| *known == name) {
            return Err(Fault::parameter(&name, &value, "a parameter is given once"));
        }
        all.push((name.into_owned(), value.into_owned()));
    }
    Ok(all)
}

impl Query {
    /// Reads a query.
    pub(crate) fn read(query: &str) -> Result<Self, Fault> {
        let mut read = Self::default();
        for (name, value) in parameters(query)? {
            let wrong = |rule: &str| Fault::parameter(&name, &value, rule);
            let address = || {
                Network::read(&value).ok_or_else(|| {
                    wrong("give an address, as 203.0.113.7 or 203.0.113.7:51234, or a network, as 10.0.0.0/8")
                })
            };
            let time = || {
                humantime::parse_duration(&value)
                    .map_err(|_| wrong("give a time with its unit, as 500ms, 50s or 2h"))
            };
            match name.as_str() {
                "client" => read.client = Some(address()?),
                "upstream" => read.upstream = Some(address()?),
                "path" => read.path = Some(value.clone()),
                "search" => read.search = Some(Search::new(&value)),
                "older" => read.older = Some(time()?),
                "idle" => read.idle = Some(time()?),
                "state" => {
                    let state = Condition::ALL.into_iter().find(|one| one.as_str() == value);
                    let rule = "must be one of open, half_closed, closing";
                    read.state = Some(state.ok_or_else(|| wrong(rule))?);
                }
                "sort" => {
                    let rule = "must be one of id, client, upstream, path, subprotocol, state, age, idle, \
                                messages, messages_from_client, messages_from_upstream, bytes, from_client, \
                                from_upstream, waiting, waiting_for_client, waiting_for_upstream, ping_rtt, \
                                perhaps behind a '-'";
                    read.sorting = Sorting::read(&value).ok_or_else(|| wrong(rule))?;
                }
                "limit" => {
                    let number = value.parse().ok().filter(|number| (1..=MOST).contains(number));
                    read.limit = number.ok_or_else(|| wrong("must be a number from 1 to 1000"))?;
                }
                "cursor" => {
                    let rule =
                        "must be the `next` of the answer before, which this one goes on from";
                    let (process, place) = Place::read(&value).ok_or_else(|| wrong(rule))?;
                    (read.process, read.behind) = (Some(process), Some(place));
                }
                _ => {
                    return Err(wrong(
                        "no such parameter; there are client, upstream, path, search, older, idle, state, \
                         sort, limit and cursor",
                    ));
                }
            }
        }
        Ok(read)
    }

    /// Whether the addresses of each tunnel are written down to be looked at.
    pub(crate) fn compares_addresses(&self) -> bool {
        self.search.as_ref().is_some_and(|search| search.can_be_address)
    }

    /// Whether a tunnel is one of them.
    pub(crate) fn is_met(&self, state: &State, is_closing: bool, at: Moment) -> bool {
        let identity = &state.identity;
        self.client.is_none_or(|net| net.contains(identity.client()))
            && self.upstream.is_none_or(|net| net.contains(identity.upstream()))
            && self.older.is_none_or(|time| view::age(state, at) >= time)
            && self.idle.is_none_or(|time| view::idle(state, at) >= time)
            && self.state.is_none_or(|wanted| wanted == view::condition(state, is_closing))
            && self.path.as_ref().is_none_or(|part| view::path(state).contains(part.as_str()))
            && self.search.as_ref().is_none_or(|text| text.is_in(identity, view::path(state)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Now, Since};
    use crate::tunnel::{Pair, Protocol};

    fn read(query: &str) -> Query {
        Query::read(query).unwrap_or_else(|fault| panic!("{query}: {fault:?}"))
    }

    #[test]
    fn each_parameter_is_read_with_its_escapes_undone() {
        let query =
            read("client=2001%3Adb8%3A%3A%2F32&path=%2Fa+b%26c&older=2h&limit=7&sort=-idle");
        assert_eq!(query.client, Some(Network::Net("2001:db8::/32".parse().unwrap())));
        assert_eq!(query.path.as_deref(), Some("/a b&c"));
        assert_eq!(query.older, Some(Duration::from_secs(7_200)));
        assert_eq!((query.limit, query.sorting), (7, Sorting::read("-idle").unwrap()));
        assert_eq!(read(""), Query::default());
    }

    #[test]
    fn fault_names_parameter_value_and_rule() {
        for (query, parts) in [
            ("limit=0", ["limit=\"0\"", "from 1 to 1000"]),
            ("a&b&c&d&e&f&g&h&i&j&k&l&m&n&o&p&q=1", ["q=\"1\"", "16 parameters at most"]),
            ("limit=1001", ["limit=\"1001\"", "from 1 to 1000"]),
            ("older=5", ["older=\"5\"", "unit"]),
            ("client=example.com", ["client=\"example.com\"", "address"]),
            ("state=shut", ["state=\"shut\"", "half_closed"]),
            ("sort=size", ["sort=\"size\"", "messages"]),
            ("cursor=zz", ["cursor=\"zz\"", "next"]),
            ("order=age", ["order=\"age\"", "no such parameter"]),
            ("limit=1&limit=2", ["limit=\"2\"", "once"]),
        ] {
            let fault = Query::read(query).unwrap_err();
            assert_eq!(fault.status, 400);
            assert!(parts.iter().all(|part| fault.message.contains(part)), "{}", fault.message);
        }
    }

    #[test]
    fn tunnels_are_those_that_meet_all_that_is_asked() {
        let address = |text: &str| text.parse().unwrap();
        let identity = Identity::new(
            address("203.0.113.7:51234"),
            address("192.0.2.1:80"),
            address("10.0.0.5:45490"),
            "GET /chat/rooms?... HTTP/1.1",
            "id",
            Since::default(),
        );
        let state = State::new(Protocol::WebSocket, Pair::default(), identity);
        let elapsed = Duration::from_secs(100);
        let at = Moment { now: Now::at(elapsed), elapsed };
        let meets = |query: &str| read(query).is_met(&state, false, at);
        for query in [
            "",
            "client=203.0.113.7",
            "client=203.0.113.0/24&upstream=10.0.0.5:45490",
            "path=chat",
            "path=%2Fchat%2Frooms",
            "search=chat%2Fro",
            "search=203.0.113.7%3A5",
            "search=0.0.5",
            "search=",
            "older=100s",
            "state=open",
        ] {
            assert!(meets(query), "{query}");
        }
        for query in [
            "client=203.0.113.8",
            "client=203.0.113.7:1",
            "upstream=10.0.0.5:1",
            "path=Chat",
            "search=Chat",
            "search=203.0.113.8",
            "search=GET",
            "older=101s",
            "state=closing",
            "client=203.0.113.7&path=none",
        ] {
            assert!(!meets(query), "{query}");
        }
        assert!(read("state=closing").is_met(&state, true, at));
    }

    proptest! {
        #[test]
        fn any_query_is_read_or_refused(query in ".{0,80}") {
            if let Ok(read) = Query::read(&query) {
                prop_assert!((1..=MOST).contains(&read.limit));
                prop_assert_eq!(Query::read(&read.written()), Ok(read));
            }
        }
    }
}
