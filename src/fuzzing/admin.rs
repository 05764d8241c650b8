//! What comes to the admin port, as any bytes: queries, orders to close, hosts, origins and tokens, ids, cursors, levels.
//!
//! What is read is written back and read again as the same, a guard lets through what a reference lets through that is
//! written as the documents say it, and no answer has a character in it that a terminal obeys.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str;
use std::time::Duration;

use serde_json::Value as Json;

use super::Script;
use crate::admin::close::Close;
use crate::admin::fault::Fault;
use crate::admin::guard::Asker;
use crate::admin::json;
use crate::admin::query::{Query, parameters};
use crate::admin::sorting::{Place, Value};
use crate::admin::view::{Id, Moment, View};
use crate::clock::{Now, Since};
use crate::config::{self, AdminHosts, AdminToken};
use crate::tunnel::{Handshake, Identity, Pair, Protocol, State};

const TOKEN: &str = "0123456789abcdef-token";
const HOSTS: [&str; 2] = ["elbows.example.internal", "metrics.example.com"];

/// The first byte says what the others are.
pub fn admin(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let kind = script.byte();
    match kind % 7 {
        0 => query(&text(script.rest())),
        1 => close(&text(script.rest())),
        2 => guard(script),
        3 => id(&text(script.rest())),
        4 => cursor(&text(script.rest())),
        5 => place(script),
        _ => level(&text(script.rest())),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An answer as it goes out, and what it says.
fn answered(answer: &str) -> Json {
    let obeyed = |char: char| {
        char.is_control()
            || ('\u{2028}'..='\u{202e}').contains(&char)
            || ('\u{2066}'..='\u{2069}').contains(&char)
    };
    assert!(!answer.contains(obeyed), "{answer:?}");
    serde_json::from_str(answer).unwrap()
}

fn refused(fault: &Fault) -> u16 {
    let answer = answered(&String::from_utf8(fault.json()).unwrap());
    assert_eq!(
        (&answer["status"], &answer["error"]),
        (&fault.status.into(), &fault.message.clone().into())
    );
    fault.status
}

/// The parameters of a query (URL Standard, section 5.1), one piece after the other.
fn reference_of_parameters(query: &str) -> Vec<(String, String)> {
    let undo = |piece: &str| {
        let mut bytes = piece.bytes().collect::<Vec<_>>();
        let mut out = Vec::new();
        bytes.reverse();
        while let Some(byte) = bytes.pop() {
            let digits = bytes.iter().rev().take(2).map(|digit| char::from(*digit).to_digit(16));
            let digits: Option<Vec<u32>> = digits.collect();
            match (byte, digits.as_deref()) {
                (b'+', _) => out.push(b' '),
                (b'%', Some([high, low])) => {
                    out.push((high * 16 + low) as u8);
                    bytes.truncate(bytes.len() - 2);
                }
                _ => out.push(byte),
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    };
    let pieces = query.split('&').filter(|piece| !piece.is_empty());
    let pairs = pieces.map(|piece| piece.split_once('=').unwrap_or((piece, "")));
    pairs.map(|(name, value)| (undo(name), undo(value))).collect()
}

/// What both queries and orders to close begin with. None where it is a fault, which is told as one.
fn read_parameters(query: &str) -> Option<Vec<(String, String)>> {
    let reference = reference_of_parameters(query);
    let is_known = |at: usize| reference[..at].iter().any(|(name, _)| *name == reference[at].0);
    match parameters(query) {
        Ok(read) => {
            assert_eq!(read, reference);
            assert!(read.len() <= 16 && !(0..read.len()).any(is_known));
            Some(read)
        }
        Err(fault) => {
            assert!(reference.len() > 16 || (0..reference.len()).any(is_known), "{fault:?}");
            assert_eq!(refused(&fault), 400);
            None
        }
    }
}

fn query(text: &str) {
    let parameters = read_parameters(text);
    let query = match Query::read(text) {
        Ok(query) => query,
        Err(fault) => return assert_eq!(refused(&fault), 400),
    };
    let parameters = parameters.unwrap();
    assert!((1..=1000).contains(&query.limit));
    let written = query.written();
    assert_eq!(Query::read(&written).as_ref(), Ok(&query), "{written}");

    let elapsed = Duration::from_secs(100);
    let at = Moment { now: Now::at(elapsed), elapsed };
    for (number, state) in states().iter().enumerate() {
        let id = Id { worker: 0, key: number, name: 7 };
        let is_closing = number == 1;
        let shown = answered(&json::write(&View::of(id, state, is_closing, at)).unwrap());
        let is_met = query.is_met(state, is_closing, at);
        let mut others = false;
        let meets = parameters.iter().all(|(name, value)| {
            let has = |field: &str| {
                shown[field].as_str().is_some_and(|text| text.contains(value.as_str()))
            };
            match name.as_str() {
                "path" => has("path"),
                "search" => ["path", "host", "user_agent", "subprotocol", "client", "upstream"]
                    .into_iter()
                    .any(has),
                "state" => shown["state"] == *value,
                "sort" | "limit" | "cursor" => true,
                // Its form has a meaning that is not told again here.
                _ => {
                    others = true;
                    true
                }
            }
        });
        assert!(!is_met || meets, "{shown} is no answer to {text:?}");
        assert!(is_met || others || !meets, "{shown} is an answer to {text:?}");
    }
}

/// Two tunnels, of clients that choose their words.
fn states() -> [State; 2] {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let identity = |client: &str, line: &str, said: &Handshake<'_>| {
        let (balancer, upstream) = (address("192.0.2.1:80"), address("10.0.0.5:45490"));
        Identity::new(address(client), balancer, upstream, line, "id", Since::default()).with(said)
    };
    let plain =
        Handshake { host: "app.example.com", user_agent: "Firefox/140", ..Handshake::default() };
    let hostile = Handshake {
        user_agent: "a\u{7f}\u{9b}2J\"&=",
        subprotocol: "chat",
        ..Handshake::default()
    };
    [
        identity("203.0.113.7:51234", "GET /chat/rooms?... HTTP/1.1", &plain),
        identity("[2001:db8::9]:443", "GET /\u{85}%20+\u{202e} HTTP/1.1", &hostile),
    ]
    .map(|identity| State::new(Protocol::WebSocket, Pair::default(), identity))
}

fn close(text: &str) {
    let parameters = read_parameters(text);
    let close = match Close::read(text, 1001) {
        Ok(close) => close,
        Err(fault) => return assert_eq!(refused(&fault), 400),
    };
    // RFC 6455, sections 7.4 and 5.5, and IANA's registry.
    let (first, is_named) = (close.code / 1000, ![1004, 1005, 1006].contains(&close.code));
    assert!(
        is_named && (first == 1 && close.code <= 1014 || first == 3 || first == 4),
        "{close:?}"
    );
    assert!(close.reason.len() <= 123);
    let given = |name: &str| parameters.as_ref().unwrap().iter().find(|(known, _)| known == name);
    assert_eq!(close.reason, given("reason").map_or("", |(_, reason)| reason));
    assert!(given("code").is_some() || close.code == 1001);
    let mut written = form_urlencoded::Serializer::new(String::new());
    written.append_pair("reason", &close.reason).append_pair("code", &close.code.to_string());
    assert_eq!(Close::read(&written.finish(), 4000).as_ref(), Ok(&close));
    assert_eq!(answered(&json::write(&close.reason).unwrap()), close.reason);
}

fn guard(mut script: Script<'_>) {
    let flags = script.byte();
    let is = |bit: u8| flags >> bit & 1 == 1;
    let mut field = |bit: u8| {
        let length = script.byte();
        let bytes = script.bytes(length.into());
        // A header field that is no text is none to the guard.
        str::from_utf8(bytes).ok().filter(|_| is(bit))
    };
    let [host, origin, fetch_site, authorization] = [0, 1, 2, 3].map(&mut field);
    let asker = Asker { host, origin, fetch_site, authorization, is_local: is(4) };
    let hosts = is(5).then(|| AdminHosts::read(&HOSTS.join(",")).unwrap());
    let token = is(6).then(|| AdminToken::new(TOKEN));
    let told = |name: &str, verdict: Result<(), Fault>, reference: bool| {
        if let Err(fault) = &verdict {
            assert!([401, 403].contains(&refused(fault)), "{fault:?}");
            // Nobody learns it who did not know it. What was said is told with escapes, which can end in its first digit.
            let said = [host, origin, fetch_site].into_iter().flatten();
            let knew = said.map(|it| format!("{it:?}")).any(|it| it.contains(TOKEN));
            assert!(knew || !fault.message.contains(TOKEN));
        }
        assert_eq!(verdict.is_ok(), reference, "{name} of {asker:?}");
    };
    told("may_ask", asker.may_ask(hosts.as_ref()), is(4) || is_a_host_that_may_ask(host, is(5)));
    let is_of_this_site = matches!(fetch_site, None | Some("same-origin" | "none"));
    told("is_of_this_site", asker.is_of_this_site(), is_of_this_site);
    let is_own = |origin: &str| {
        host.is_some_and(|host| {
            [format!("http://{host}"), format!("https://{host}")].contains(&origin.to_owned())
        })
    };
    let has_token = is(6)
        && authorization.is_some_and(|given| {
            let (scheme, rest) =
                (given.get(..7).unwrap_or_default(), given.get(7..).unwrap_or_default());
            scheme.eq_ignore_ascii_case("bearer ") && rest.trim() == TOKEN
        });
    let may_change = is_of_this_site && origin.is_none_or(is_own) && has_token;
    told("may_change", asker.may_change(token.as_ref()), may_change);
}

/// `Host` (RFC 9110, section 7.2): `uri-host [ ":" port ]`, where the host is an address, one label, or one of the list.
fn is_a_host_that_may_ask(host: Option<&str>, has_list: bool) -> bool {
    let Some(host) = host else { return false };
    let (host, port) = match host.rfind(':') {
        // That is inside of an address.
        Some(colon) if host[colon..].contains(']') => (host, ""),
        Some(colon) => (&host[..colon], &host[colon + 1..]),
        None => (host, ""),
    };
    if !port.chars().all(|digit| digit.is_ascii_digit()) {
        return false;
    }
    if let Some(address) = host.strip_prefix('[') {
        return address
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let is_label = !host.is_empty()
        && host.chars().all(|one| matches!(one, 'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_'));
    let is_listed = has_list && HOSTS.contains(&&*host.to_ascii_lowercase());
    is_label || is_listed || host.parse::<Ipv4Addr>().is_ok()
}

fn id(text: &str) {
    let parts: Vec<_> = text.split('-').collect();
    let is_hexadecimal = |part: &str| {
        !part.is_empty()
            && part.len() <= 16
            && part.chars().all(|digit| matches!(digit, '0'..='9' | 'a'..='f'))
    };
    let is_short = |part: &str| is_hexadecimal(part) && (part == "0" || !part.starts_with('0'));
    let is_one = match parts[..] {
        [worker, key, name] => {
            is_short(worker) && is_short(key) && is_hexadecimal(name) && name.len() == 16
        }
        _ => false,
    };
    let read = Id::read(text);
    assert_eq!(read.is_some(), is_one, "{text:?}");
    if let Some(id) = read {
        assert_eq!(id.to_string(), text);
        assert_eq!(answered(&json::write(&id).unwrap()), text);
    }
}

/// A text that is taken for a cursor.
fn cursor(text: &str) {
    if let Some((process, place)) = Place::read(text) {
        assert_eq!(place.cursor(process), text);
    }
}

/// The place of a tunnel: its cursor is read as the same place.
fn place(mut script: Script<'_>) {
    let kind = script.byte();
    let mut number = || {
        let mut bytes = [0; 8];
        let taken = script.bytes(8);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_be_bytes(bytes)
    };
    let id = Id { worker: number() as usize, key: number() as usize, name: number() };
    let (high, low) = (number(), number());
    let value = match kind % 4 {
        0 => Value::Number(high),
        1 => Value::Address(Ipv4Addr::from_bits(high as u32).into(), low as u16),
        2 => Value::Address(
            Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into(),
            kind.into(),
        ),
        _ => Value::Text(text(script.rest())),
    };
    let place = Place { value, id };
    let process = low.rotate_left(7);
    let cursor = place.cursor(process);
    assert!(cursor.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    let query = Query::read(&format!("cursor={cursor}")).unwrap();
    assert_eq!((query.behind.as_ref(), query.process), (Some(&place), Some(process)));
    assert_eq!(Query::read(&query.written()), Ok(query));
}

fn level(text: &str) {
    let written = json::write(&text).unwrap();
    assert_eq!(answered(&written), text);
    if let Ok(targets) = config::log_targets(text) {
        // Its directives: a level that another one took the place of is not forgotten for their maximum.
        let written = targets.to_string();
        let again = config::log_targets(&written).map(|targets| targets.to_string());
        assert_eq!(again, Ok(written), "{text:?}");
    }
}
