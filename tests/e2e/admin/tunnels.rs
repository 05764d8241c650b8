//! The list of tunnels, one of them, and its end.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use super::{Admin, json, number, talk, text};
use crate::client::{CLIENT, Client, handshake};
use crate::programs::wait_until;
use crate::upstream::Upstream;
use crate::web_socket::{CLOSE, TEXT, Tunnels};

/// elbows with echoing tunnels, one for each of these targets.
fn with_targets(targets: &[String]) -> (Upstream, Admin, Vec<Client>) {
    let upstream = Upstream::echo();
    let admin = Admin::start(upstream.address, &[]);
    let clients = targets.iter().map(|target| {
        let mut client = Client::behind_balancer(admin.elbows.address);
        client.send(handshake(target));
        assert_eq!(client.read_response().status, 101);
        client
    });
    let clients = clients.collect();
    (upstream, admin, clients)
}

#[test]
fn tunnel_is_told_with_all_that_is_known_of_it() {
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[("ACCESS_LOG", "off")]);
    let mut pair = application.open(&admin.elbows);
    for _ in 0..3 {
        talk(&mut pair, b"hello");
    }
    let tunnel = admin.only_tunnel();
    assert!(text(&tunnel, "client").starts_with(&format!("{CLIENT}:")), "{tunnel}");
    assert_eq!(text(&tunnel, "upstream"), application.address.to_string());
    assert!(text(&tunnel, "request").starts_with("GET /"), "{tunnel}");
    assert_eq!((text(&tunnel, "state"), text(&tunnel, "protocol")), ("open", "websocket"));
    for side in ["client", "upstream"] {
        assert_eq!(number(&tunnel, &format!("messages_from_{side}")), 3);
        assert_eq!(number(&tunnel, &format!("payload_from_{side}")), 15);
        assert_eq!(number(&tunnel, &format!("waiting_for_{side}")), 0);
    }
    assert!(tunnel["close_code"].is_null() && tunnel["ping_rtt"].is_null(), "{tunnel}");
    let same = admin.get(&format!("/api/tunnels/{}", text(&tunnel, "id")));
    assert_eq!(text(&same, "request_id"), text(&tunnel, "request_id"));
    pair.0.send_close(1000);
    pair.1.expect_close(1000);
    wait_until("it is closing", || text(&admin.only_tunnel(), "state") == "closing");
    let tunnel = admin.only_tunnel();
    assert_eq!((number(&tunnel, "close_code"), text(&tunnel, "close_by")), (1000, "client"));
}

#[test]
fn list_goes_on_and_leaves_out_and_repeats_nothing_while_others_come_and_go() {
    let targets: Vec<_> = (0..120).map(|number| format!("/room/{:03}", number * 7 % 120)).collect();
    let (_upstream, admin, mut clients) = with_targets(&targets);
    for sort in ["id", "path", "-path", "client", "age", "-age"] {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = admin.get(&format!("/api/tunnels?sort={sort}&limit=17&path=room{cursor}"));
            let tunnels = page["tunnels"].as_array().unwrap();
            seen.extend(tunnels.iter().map(|tunnel| text(tunnel, "path").to_owned()));
            // One comes and goes between two pages.
            let mut passing = Client::behind_balancer(admin.elbows.address);
            passing.send(handshake("/passing"));
            assert_eq!(passing.read_response().status, 101);
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
            assert_eq!(tunnels.len(), 17);
            assert!(seen.len() <= 120, "{sort}: it does not end");
        }
        let unique: HashSet<_> = seen.iter().collect();
        assert_eq!((seen.len(), unique.len()), (120, 120), "{sort}");
        if sort == "path" {
            assert!(seen.is_sorted(), "{seen:?}");
        }
        if sort == "-path" {
            assert!(seen.iter().rev().is_sorted(), "{seen:?}");
        }
    }
    let newest = admin.get("/api/tunnels?sort=age&limit=1&path=room");
    assert_eq!(text(&newest["tunnels"][0], "path"), targets[119]);
    assert_eq!((number(&newest, "matched"), newest["next"].is_null()), (120, false));
    clients.iter_mut().for_each(Client::echoes);
}

#[test]
fn filters_choose_and_faults_name_value_and_rule() {
    let targets = ["/chat/a", "/chat/b", "/news"].map(str::to_owned);
    let (upstream, admin, _clients) = with_targets(&targets);
    for (query, number) in [
        ("", 3),
        ("?path=chat", 2),
        ("?path=%2Fnews", 1),
        ("?path=CHAT", 0),
        ("?search=chat", 2),
        ("?search=shop.example", 3),
        (&*format!("?search={CLIENT}:"), 3),
        (&*format!("?search={}&path=news", upstream.address), 1),
        ("?search=GET", 0),
        (&*format!("?client={CLIENT}"), 3),
        ("?client=203.0.113.0%2F24&path=%2Fa", 1),
        ("?client=198.51.100.0/24", 0),
        (&*format!("?upstream={}", upstream.address), 3),
        ("?older=0s", 3),
        ("?older=1h", 0),
        ("?idle=1h", 0),
        ("?state=open", 3),
        ("?state=half_closed", 0),
    ] {
        assert_eq!(admin.tunnels(query).len(), number, "{query}");
    }
    for (query, parts) in [
        ("?limit=x", ["limit=\"x\"", "1 to 1000"]),
        ("?sort=colour", ["sort=\"colour\"", "must be one of"]),
        ("?idle=forever", ["idle=\"forever\"", "a time with its unit"]),
        ("?cursor=00", ["cursor=\"00\"", "`next`"]),
        (&*format!("?cursor={:016x}00", 7), ["cursor=\"000000000000000700\"", "`next`"]),
        ("?colour=red", ["colour=\"red\"", "no such parameter"]),
        ("?%00=%ff", ["\"\u{fffd}\"", "no such parameter"]),
    ] {
        let response = admin.ask("GET", &format!("/api/tunnels{query}"), "");
        assert_eq!(response.status, 400);
        let error = json(&response);
        assert!(parts.iter().all(|part| text(&error, "error").contains(part)), "{error}");
    }
}

#[test]
fn list_is_sorted_by_what_one_side_did_and_by_state() {
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[]);
    // The first client says most, the last application.
    let mut pairs: Vec<_> = (0..3).map(|_| application.open(&admin.elbows)).collect();
    for (number, (client, upstream)) in pairs.iter_mut().enumerate() {
        for _ in number..3 {
            client.send_frame(TEXT, "word");
            upstream.expect(TEXT, "word");
        }
        for _ in 0..=number {
            upstream.send_frame(TEXT, "a longer word");
            client.expect(TEXT, "a longer word");
        }
    }
    let sorted = |sort: &str, field: &str| -> Vec<u64> {
        admin.tunnels(&format!("?sort={sort}")).iter().map(|one| number(one, field)).collect()
    };
    for field in ["messages_from_client", "messages_from_upstream"] {
        assert_eq!(sorted(field, field), [1, 2, 3]);
        assert_eq!(sorted(&format!("-{field}"), field), [3, 2, 1]);
    }
    for field in ["from_client", "from_upstream"] {
        let bytes = sorted(field, field);
        assert!(bytes.is_sorted() && bytes[0] < bytes[2], "{field}: {bytes:?}");
    }
    pairs[1].0.send_close(1000);
    pairs[1].1.expect_close(1000);
    pairs[2].0.finish();
    let states = |sort: &str| -> Vec<String> {
        let tunnels = admin.tunnels(&format!("?sort={sort}"));
        tunnels.iter().map(|one| text(one, "state").to_owned()).collect()
    };
    wait_until("they are sorted by state", || {
        states("state") == ["open", "half_closed", "closing"]
    });
    assert_eq!(states("-state"), ["closing", "half_closed", "open"]);
}

/// What clients send is text in JSON strings, whatever it is.
#[test]
fn hostile_text_stays_inside_of_strings() {
    let targets = [
        "/<script>alert(1)</script>",
        "/\"},{\"id\":\"0\"}",
        "/%0d%0aevent:%20summary",
        "/\u{2028}\u{202e}\u{e9}",
        "/\\u0022\\",
    ]
    .map(str::to_owned);
    let (_upstream, admin, _clients) = with_targets(&targets);
    let response = admin.ask("GET", "/api/tunnels", "");
    assert_eq!(response.field("x-content-type-options"), Some("nosniff"));
    assert!(response.field("content-security-policy").unwrap().contains("default-src 'none'"));
    let tunnels = json(&response);
    let told: HashSet<_> =
        tunnels["tunnels"].as_array().unwrap().iter().map(|tunnel| text(tunnel, "path")).collect();
    assert_eq!(told, targets.iter().map(String::as_str).collect());
    let raw = response.text();
    assert!(!raw.bytes().any(|byte| byte < b' '), "a control character");
    let metrics = admin.ask("GET", "/metrics", "").text();
    assert!(!metrics.contains("<script") && !metrics.contains("event:"), "{metrics}");
}

#[test]
fn client_of_a_tunnel_that_is_closed_sees_just_that_close() {
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[]);
    let mut closed = application.open(&admin.elbows);
    let mut other = application.open(&admin.elbows);
    talk(&mut closed, b"hello");
    let id = admin
        .tunnels("?sort=-messages")
        .first()
        .map(|tunnel| text(tunnel, "id").to_owned())
        .unwrap();
    let response =
        admin.change(&format!("/api/tunnels/{id}/close?code=4000&reason=go+home%2C+%C3%BC"));
    assert_eq!(response.status, 202);
    let frame = closed.0.read_frame();
    assert_eq!(frame.opcode, CLOSE);
    assert_eq!(frame.payload, [&4000_u16.to_be_bytes()[..], "go home, ü".as_bytes()].concat());
    // What it says before its answer arrives.
    closed.0.send_frame(TEXT, "last words");
    closed.1.expect(TEXT, "last words");
    closed.0.send_frame(CLOSE, &frame.payload);
    let heard = closed.1.read_frame();
    assert_eq!(heard.payload, frame.payload);
    drop(closed);
    let line = admin.elbows.access_log.wait_for("why=ordered");
    assert!(line.contains("by=elbows during=relay why=ordered"), "{line}");
    assert!(line.contains("close_code=4000 close_by=elbows"), "{line}");
    talk(&mut other, b"still here");
    assert_eq!(admin.ask("GET", &format!("/api/tunnels/{id}"), "").status, 404);
    assert_eq!(admin.change(&format!("/api/tunnels/{id}/close")).status, 404);
    for query in
        ["?code=1005", "?code=999", "?code=x", &format!("?reason={}", "x".repeat(124)), "?wh=1"]
    {
        let id = text(&admin.only_tunnel(), "id").to_owned();
        let response = admin.change(&format!("/api/tunnels/{id}/close{query}"));
        assert_eq!(response.status, 400, "{query}");
    }
    talk(&mut other, b"still here");
}

/// The reason is the ordered Close's: no other Close of the tunnel says it.
#[test]
fn reason_goes_out_with_no_other_close() {
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[("MAX_MESSAGE_SIZE", "1000")]);
    let (mut client, mut upstream) = application.open(&admin.elbows);
    // The ordered Close waits for the end of a message.
    upstream.send(upstream.frame(TEXT, "begins"));
    assert_eq!(client.read_frame().payload, b"begins");
    let id = text(&admin.only_tunnel(), "id").to_owned();
    let order = format!("/api/tunnels/{id}/close?code=4000&reason=go+home");
    assert_eq!(admin.change(&order).status, 202);
    // Meanwhile the client breaks a limit.
    client.send_frame(crate::web_socket::BINARY, [1; 1_001]);
    for (peer, code) in [(&mut client, 1009_u16), (&mut upstream, 1001)] {
        let frame = peer.read_frame();
        assert_eq!((frame.opcode, frame.payload), (CLOSE, code.to_be_bytes().to_vec()));
    }
}

/// Another tunnel at the same place has another id: the first one's is gone for good.
#[test]
fn id_of_a_tunnel_that_ended_is_no_others() {
    let upstream = Upstream::echo();
    let admin = Admin::start(upstream.address, &[("THREADS", "1")]);
    let mut places: BTreeMap<String, HashSet<String>> = BTreeMap::new();
    let mut ended: Vec<String> = Vec::new();
    for _ in 0..5 {
        let tunnel = Client::tunnel(&admin.elbows);
        let id = text(&admin.only_tunnel(), "id").to_owned();
        let (place, name) = id.rsplit_once('-').unwrap();
        assert!(places.entry(place.to_owned()).or_default().insert(name.to_owned()), "{id} again");
        for old in &ended {
            assert_eq!(admin.ask("GET", &format!("/api/tunnels/{old}"), "").status, 404);
            assert_eq!(admin.change(&format!("/api/tunnels/{old}/close")).status, 404);
        }
        ended.push(id);
        drop(tunnel);
        wait_until("it has ended", || admin.tunnels("").is_empty());
    }
    assert_eq!(places.len(), 1, "all were at one place: {places:?}");
    for id in [
        "0-0-0000000000000000",
        "ffff-0-0000000000000000",
        "0-ffffffffffff-0000000000000000",
        "x",
        "..",
        "%2e",
    ] {
        let response = admin.ask("GET", &format!("/api/tunnels/{id}"), "");
        assert_eq!(response.status, 404, "{id}");
        assert!(matches!(json(&response)["error"], Value::String(_)));
    }
}

#[test]
fn tunnel_that_is_no_web_socket_is_closed_without_a_word() {
    let upstream = Upstream::other_echo();
    let admin = Admin::start(upstream.address, &[]);
    let mut client = Client::other_tunnel(&admin.elbows);
    let tunnel = admin.only_tunnel();
    assert_eq!(text(&tunnel, "protocol"), "other");
    let target = format!("/api/tunnels/{}/close?code=4000&reason=x", text(&tunnel, "id"));
    let response = admin.change(&target);
    assert_eq!(response.status, 202);
    // No Close goes out, and so none is told.
    let closed = json(&response);
    assert_eq!((&closed["code"], &closed["reason"]), (&Value::Null, &Value::from("")));
    assert_eq!(client.read_to_end().unwrap(), b"");
    admin.elbows.log.wait_for("ending a tunnel that is no WebSocket");
}
