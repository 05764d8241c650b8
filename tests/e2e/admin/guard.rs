//! Who may ask and who may change something: tokens, other sites, names that are made to resolve here.

use std::fs;

use super::{Admin, TOKEN, ask, json, text};
use crate::client::Client;
use crate::web_socket::Tunnels;

#[test]
fn change_needs_the_token_and_no_other_site() {
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[]);
    let mut pair = application.open(&admin.elbows);
    let id = text(&admin.only_tunnel(), "id").to_owned();
    let host = admin.address;
    let good = format!("Authorization: Bearer {TOKEN}\r\n");
    for target in [format!("/api/tunnels/{id}/close"), String::from("/api/log?level=trace")] {
        for (fields, status) in [
            (String::new(), 401),
            (format!("Authorization: Bearer {TOKEN}x\r\n"), 401),
            (format!("Authorization: Bearer {}\r\n", &TOKEN[1..]), 401),
            (format!("Authorization: Basic {TOKEN}\r\n"), 401),
            (String::from("Authorization: Bearer \u{e9}\r\n"), 401),
            (format!("{good}Origin: https://attacker.example\r\n"), 403),
            (format!("{good}Origin: null\r\n"), 403),
            (format!("{good}Origin: \u{e9}\r\n"), 403),
            (format!("{good}Origin: http://{host}.attacker.example\r\n"), 403),
            (format!("{good}Sec-Fetch-Site: cross-site\r\n"), 403),
        ] {
            let response = admin.ask("POST", &target, &fields);
            assert_eq!(response.status, status, "{target} {fields}");
            let challenge = (status == 401).then_some("Bearer");
            assert_eq!(response.field("www-authenticate"), challenge);
            assert!(!response.text().contains(TOKEN), "{}", response.text());
        }
        for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
            let response = admin.ask(method, &target, &good);
            assert_eq!((response.status, response.field("allow")), (405, Some("POST")), "{method}");
            assert_eq!(response.field("access-control-allow-origin"), None);
        }
    }
    super::talk(&mut pair, b"it is still there");
    let own = format!("{good}Origin: http://{host}\r\nSec-Fetch-Site: same-origin\r\n");
    assert_eq!(admin.ask("POST", &format!("/api/tunnels/{id}/close"), &own).status, 202);
    let said = admin.elbows.log.all().join("\n");
    assert!(!said.contains(TOKEN), "the token is in the log");
}

#[test]
fn without_a_token_nothing_can_be_changed() {
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[("ADMIN_TOKEN", "off")]);
    for authorization in ["", "Authorization: Bearer off\r\n", "Authorization: Bearer \r\n"] {
        let response = admin.ask("POST", "/api/log?level=debug", authorization);
        assert_eq!(response.status, 403);
        assert!(text(&json(&response), "error").contains("ADMIN_TOKEN is not set"));
    }
}

#[test]
fn name_that_is_made_to_resolve_here_is_refused() {
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[]);
    for target in ["/metrics", "/live", "/api/tunnels", "/api/events", "/nothing"] {
        for host in
            ["rebind.attacker.example", "rebind.attacker.example:9145", "127.0.0.1.nip.io", ""]
        {
            let mut client = Client::plain(admin.address);
            client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            let response = client.read_response();
            assert_eq!(response.status, 403, "{target} {host}");
            assert!(text(&json(&response), "error").contains(&format!("{host:?}")));
        }
    }
    for host in ["localhost", "elbows:9145", "[::1]:9145"] {
        let mut client = Client::plain(admin.address);
        client.send(format!("GET /live HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.read_response().status, 200, "{host}");
    }
    for target in ["/api/events", "/api/tunnels", "/api/summary"] {
        for site in ["cross-site", "same-site"] {
            let response = admin.ask("GET", target, &format!("Sec-Fetch-Site: {site}\r\n"));
            assert_eq!(response.status, 403, "{target} {site}");
        }
        let mut client = Client::plain(admin.address);
        client.send(format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\n\r\n"
        ));
        assert_eq!(client.read_head().status, 200, "{target}");
    }
    let mut client = Client::plain(admin.address);
    client.send("GET /live HTTP/1.1\r\n\r\n");
    assert_eq!(client.read_response().status, 403, "no Host at all");
}

#[test]
fn method_that_a_place_does_not_take_is_told_which_it_takes() {
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[]);
    let _tunnel = application.open(&admin.elbows);
    let tunnel = format!("/api/tunnels/{}", text(&admin.only_tunnel(), "id"));
    for (method, target, allowed) in [
        ("HEAD", "/api/events", "GET"),
        ("POST", "/api/events", "GET"),
        ("POST", "/api/tunnels", "GET, HEAD"),
        ("DELETE", &tunnel, "GET, HEAD"),
        ("POST", "/api/tunnels/0-0-0000000000000000", "GET, HEAD"),
        ("GET", &format!("{tunnel}/close"), "POST"),
    ] {
        let response = admin.ask(method, target, "");
        assert_eq!(response.status, 405, "{method} {target}");
        assert_eq!(response.field("allow"), Some(allowed), "{method} {target}");
    }
    assert_eq!(admin.ask("POST", "/api/tunnels/", "").status, 404);
}

#[test]
fn token_is_shown_nowhere() {
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[("LOG", "trace")]);
    admin.change("/api/log?level=trace");
    for target in ["/metrics", "/api/summary", "/api/tunnels", "/live"] {
        assert!(!ask(admin.address, "GET", target, "").text().contains(TOKEN), "{target}");
    }
    let variables = [
        ("LISTEN_ON", "1"),
        ("DESTINATION_HOSTNAME", "127.0.0.1"),
        ("DESTINATION_PORT", "2"),
        ("ADMIN_TOKEN", TOKEN),
    ];
    let mut elbows = crate::proxy::Elbows::command();
    elbows.envs(variables);
    let short = crate::proxy::Elbows::command()
        .envs(variables)
        .env("ADMIN_TOKEN", "short s3cret")
        .arg("check")
        .output()
        .unwrap();
    assert_eq!(short.status.code(), Some(78));
    for output in
        [elbows.arg("check").output().unwrap(), elbows.arg("--help").output().unwrap(), short]
    {
        let said = [output.stdout, output.stderr].concat();
        assert!(!String::from_utf8(said).unwrap().contains("s3cret"));
    }
    assert!(!admin.elbows.log.all().join("\n").contains(TOKEN));
    // What stands in the process's own environment nobody else's user can read.
    let environment = format!("/proc/{}/environ", admin.elbows.pid().as_raw_nonzero());
    assert!(fs::read_to_string(environment).is_ok_and(|text| text.contains(TOKEN)));
}
