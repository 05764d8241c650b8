//! Several applications behind one elbows, by `CONFIG_FILE`: who gets which request, and by which settings.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::NamedTempFile;
use test_support::frames::{BINARY, PING};

use crate::admin::{ask, json as parsed};
use crate::client::{Client, Response, handshake};
use crate::programs::python;
use crate::proxy::{Elbows, PATIENCE, free_port};
use crate::upstream::{Upstream, handed_over};
use crate::web_socket::{Peer, Tunnels, talk};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A file with this text.
fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::with_suffix(".toml").unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// The group of an application.
fn group(name: &str, address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!("[upstreams.{name}]\ndestination_hostname = \"{ip}\"\ndestination_port = {port}\n")
}

/// elbows with this file, and no application of the variables.
fn without_default(file: &NamedTempFile, settings: &[(&str, &str)]) -> Elbows {
    let path = file.path().to_str().unwrap();
    let settings = [&[("CONFIG_FILE", path)], settings].concat();
    let (mut command, address) = Elbows::prepare(Elbows::command(), Upstream::nobody(), &settings);
    command.env_remove("DESTINATION_HOSTNAME").env_remove("DESTINATION_PORT");
    Elbows::spawn(command, address)
}

/// The same, with an application of the variables.
fn with_default(file: &NamedTempFile, default: SocketAddr, settings: &[(&str, &str)]) -> Elbows {
    let path = file.path().to_str().unwrap();
    Elbows::start(default, &[&[("CONFIG_FILE", path)], settings].concat())
}

fn get(elbows: &Elbows, host: &str, target: &str, fields: &str) -> Response {
    let mut client = Client::behind_balancer(elbows.address);
    client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"));
    client.read_response()
}

fn check(file: &NamedTempFile, arguments: &[&str], has_default: bool) -> Output {
    let mut command: Command = Elbows::command();
    command.arg("check").args(arguments).env("LISTEN_ON", "45400").env("CONFIG_FILE", file.path());
    if has_default {
        command.env("DESTINATION_HOSTNAME", "127.0.0.1").env("DESTINATION_PORT", "45490");
    }
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn each_application_gets_its_own_and_nobody_the_rest() {
    let [chat, blue, files] = [(); 3].map(|()| Upstream::answering(OK));
    let routes = "
        [[routes]]
        name = \"chat\"
        host = [\"chat.example.com\", \"*.chat.example.com\"]
        upstream = \"chat\"
        [[routes]]
        name = \"blue\"
        host = \"chat.example.com\"
        headers = { x-tenant = \"blue\" }
        upstream = \"blue\"
        [[routes]]
        name = \"files\"
        path_prefix = \"/files\"
        upstream = \"files\"
    ";
    let groups =
        [group("chat", chat.address), group("blue", blue.address), group("files", files.address)];
    let elbows = without_default(&file(&(groups.concat() + routes)), &[]);
    for (host, target, fields, application) in [
        ("chat.example.com", "/files/a", "", &chat),
        ("CHAT.Example.com.:443", "/", "", &chat),
        ("eu.chat.example.com", "/?x=/files", "", &chat),
        ("chat.example.com", "/", "X-Tenant: blue\r\n", &blue),
        ("chat.example.com", "/", "X-Tenant: blue\r\nX-Tenant: red\r\n", &chat),
        ("other.example.com", "/files/a", "", &files),
        ("other.example.com", "/files", "", &files),
    ] {
        assert_eq!(get(&elbows, host, target, fields).status, 200, "{host} {target} {fields}");
        assert!(
            application.seen().starts_with(&format!("GET {target} ")),
            "{host} {target} {fields}"
        );
    }
    // The absolute form says the host, too, and `Host` does not count.
    assert_eq!(get(&elbows, "other.example.com", "http://chat.example.com/x", "").status, 200);
    assert!(chat.seen().starts_with("GET /x "));
    for (host, target) in
        [("other.example.com", "/"), ("example.com", "/filesystem"), ("[::1]", "/")]
    {
        let response = get(&elbows, host, target, "");
        assert_eq!(
            (response.status, response.text()),
            (404, String::from("no route\n")),
            "{host} {target}"
        );
    }
    // Whoever resolves the path reads another one.
    for target in ["/x/../files/a", "//files/a", "/%66iles/a", "/files/../a"] {
        assert_eq!(get(&elbows, "other.example.com", target, "").status, 400, "{target}");
    }
    assert!([&chat, &blue, &files].iter().all(|application| application.saw_nothing()));
    let line = elbows.access_log.wait_for("GET /filesystem ");
    assert!(!line.contains("route="), "{line}");
}

#[test]
fn lines_of_the_access_log_and_lists_name_the_route() {
    let [chat, default] = [(); 2].map(|()| Upstream::answering(OK));
    let tunnels = Tunnels::start();
    let routes = "
        [[routes]]
        name = \"chat\"
        path_prefix = \"/chat\"
        upstream = \"chat\"
        [[routes]]
        name = \"sockets\"
        upgrade = true
        upstream = \"sockets\"
        [[routes]]
        name = \"own\"
        path = \"/own\"
    ";
    let file = file(&(group("chat", chat.address) + &group("sockets", tunnels.address) + routes));
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let port = admin.port().to_string();
    let settings = [("ADMIN_LISTEN_ON", &*port), ("ACCESS_LOG_OPEN", "on")];
    let elbows = with_default(&file, default.address, &settings);
    for (target, application, route) in
        [("/chat/a", &chat, Some("chat")), ("/own", &default, Some("own")), ("/", &default, None)]
    {
        assert_eq!(get(&elbows, "h", target, "").status, 200);
        assert!(application.seen().starts_with(&format!("GET {target} ")));
        let line = elbows.access_log.wait_for(&format!("GET {target} HTTP"));
        let told = line.split(" route=").nth(1);
        assert_eq!(told, route, "{line}");
    }
    let (mut client, mut application) = tunnels.open(&elbows);
    let listed: Value = parsed(&ask(admin, "GET", "/api/tunnels", ""));
    assert_eq!(listed["tunnels"][0]["route"], "sockets", "{listed}");
    let endpoints: Value = parsed(&ask(admin, "GET", "/api/endpoints", ""));
    let of = |one: &Value| (one["upstream"].as_str().map(String::from), one["address"].clone());
    let endpoints: Vec<_> = endpoints["endpoints"].as_array().unwrap().iter().map(of).collect();
    let expected = [
        (None, default.address),
        (Some(String::from("chat")), chat.address),
        (Some(String::from("sockets")), tunnels.address),
    ];
    assert_eq!(endpoints, expected.map(|(name, address)| (name, Value::from(address.to_string()))));
    client.send_close(1000);
    application.expect_close(1000);
    application.send_close(1000);
    drop(application);
    client.expect_close(1000);
    let line = elbows.access_log.wait_for("close_code=1000");
    assert!(line.ends_with(" route=sockets"), "{line}");
    let line = elbows.access_log.wait_for("event=open");
    assert!(line.ends_with(" route=sockets"), "{line}");
}

#[test]
fn prefix_is_left_out_and_fields_are_set_and_removed() {
    let application = Upstream::answering(OK);
    let tunnels = Tunnels::start();
    let changes = "
        path_prefix = \"/app\"
        strip_prefix = true
        request_headers = { set = { X-Tenant = \"blue\", X-New = \"a b\" }, remove = [\"cookie\"] }
    ";
    let routes = format!(
        "[[routes]]\nname = \"plain\"\nupstream = \"plain\"\nupgrade = false\n{changes}\n\
         [[routes]]\nname = \"sockets\"\nupstream = \"sockets\"\nupgrade = true\n{changes}\n"
    );
    let groups = group("plain", application.address) + &group("sockets", tunnels.address);
    let elbows = without_default(&file(&(groups + &routes)), &[]);
    let said = "X-Tenant: red\r\nx_tenant: red\r\nCookie: a=b\r\nX-Other: stays\r\n";
    for (target, passed) in [
        ("/app/a?b=/app", "/a?b=/app"),
        ("/app", "/"),
        ("/app?x", "/?x"),
        ("/app/", "/"),
        ("http://h/app/b", "/b"),
    ] {
        assert_eq!(get(&elbows, "h", target, said).status, 200, "{target}");
        let head = application.seen();
        assert!(head.starts_with(&format!("GET {passed} HTTP/1.1\r\n")), "{target}: {head}");
        let lower = head.to_ascii_lowercase();
        assert_eq!(lower.matches("tenant: ").count(), 1, "{head}");
        assert!(head.contains("X-Tenant: blue\r\nX-New: a b\r\n"), "{head}");
        assert!(head.contains("X-Other: stays\r\n") && !lower.contains("cookie"), "{head}");
    }
    let mut client = Client::behind_balancer(elbows.address);
    client.send(handshake("/app/ws?token=1").replace("\r\n\r\n", &format!("\r\n{said}\r\n")));
    let asked = tunnels.asked();
    assert!(asked.head.starts_with("GET /ws?token=1 HTTP/1.1\r\n"), "{}", asked.head);
    assert!(asked.head.contains("X-Tenant: blue\r\n") && !asked.head.contains("a=b"));
    let application = asked.accept();
    assert_eq!(client.read_head().status, 101);
    talk(&mut (Peer::client(client), application), "hello");
}

#[test]
fn each_route_has_settings_of_its_own() {
    // Connections that are handed over and never answered.
    let (quick, _quick) = handed_over();
    let (slow, slow_requests) = handed_over();
    let tunnels = Tunnels::start();
    let routes = "
        [[routes]]
        name = \"quick\"
        host = \"quick\"
        upgrade = false
        upstream = \"quick\"
        response_head_timeout = \"100ms\"
        max_body_size = 4
        [[routes]]
        name = \"slow\"
        host = \"slow\"
        upgrade = false
        upstream = \"slow\"
        [[routes]]
        name = \"pinged\"
        host = \"pinged\"
        upstream = \"sockets\"
        ping_interval = \"200ms\"
        allowed_origins = [\"https://app.example.com\"]
        [[routes]]
        name = \"small\"
        host = \"small\"
        upstream = \"sockets\"
        max_message_size = 125
        drain_close_code = 4321
    ";
    let groups = [group("quick", quick), group("slow", slow), group("sockets", tunnels.address)];
    let elbows = without_default(&file(&(groups.concat() + routes)), &[]);
    let mut patient = Client::behind_balancer(elbows.address);
    patient.send("GET / HTTP/1.1\r\nHost: slow\r\n\r\n");
    let _waits = slow_requests.recv_timeout(PATIENCE).unwrap();
    assert_eq!(get(&elbows, "quick", "/", "").status, 504);
    let mut client = Client::behind_balancer(elbows.address);
    client.send("POST / HTTP/1.1\r\nHost: quick\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.read_response().status, 413);
    assert!(patient.unread().is_empty());

    let open = |host: &str, origin: &str| {
        let mut client = Client::behind_balancer(elbows.address);
        client.send(
            handshake("/ws")
                .replace("shop.example", host)
                .replace("\r\n\r\n", &format!("\r\n{origin}\r\n")),
        );
        client
    };
    let page = "Origin: https://app.example.com\r\n";
    assert_eq!(open("pinged", "Origin: https://other.example.com\r\n").read_response().status, 403);
    let mut pinged = open("pinged", page);
    let _application = tunnels.accept();
    assert_eq!(pinged.read_head().status, 101);
    assert_eq!(Peer::client(pinged).read_frame().opcode, PING);

    // Origins are no matter of this one.
    let mut small = open("small", "Origin: https://other.example.com\r\n");
    let mut application = tunnels.accept();
    assert_eq!(small.read_head().status, 101);
    let mut small = Peer::client(small);
    application.send_frame(BINARY, [0; 125]);
    small.expect(BINARY, [0; 125]);
    small.send_frame(BINARY, [0; 126]);
    small.expect_close(1009);
    elbows.drain();
}

#[test]
fn tunnel_keeps_its_route_in_another_process() {
    let tunnels = Tunnels::start();
    let routes = "
        [[routes]]
        name = \"small\"
        host = \"small\"
        upstream = \"sockets\"
        max_message_size = 125
    ";
    let text = group("sockets", tunnels.address) + routes;
    // The next one knows the route by its name, whatever stands before it.
    let other = format!(
        "[[routes]]\nname = \"first\"\npath = \"/first\"\nupstream = \"sockets\"\n{routes}"
    );
    let (with, behind) = (file(&text), file(&(group("sockets", tunnels.address) + &other)));
    let without = file(&group("sockets", tunnels.address));
    for (next, is_limited) in [(&behind, true), (&without, false)] {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("handoff.sock");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let listen_on = address.to_string();
        let settings = [("HANDOFF_SOCKET", socket.to_str().unwrap()), ("LISTEN_ON", &*listen_on)];
        let start = |file: &NamedTempFile| {
            let path = file.path().to_str().unwrap().to_owned();
            let all = [&[("CONFIG_FILE", &*path)], &settings[..]].concat();
            let (mut command, _) = Elbows::prepare(Elbows::command(), Upstream::nobody(), &all);
            command.env_remove("DESTINATION_HOSTNAME").env_remove("DESTINATION_PORT");
            Elbows::spawn(command, address)
        };
        let mut old = start(&with);
        let mut client = Client::behind_balancer(address);
        client.send(handshake("/ws").replace("shop.example", "small"));
        let mut application = tunnels.accept();
        assert_eq!(client.read_head().status, 101);
        let new = start(next);
        new.log.wait_for("handoff from=");
        assert_eq!(old.wait().code(), Some(0));
        let mut client = Peer::client(client);
        application.send_frame(BINARY, [0; 125]);
        client.expect(BINARY, [0; 125]);
        client.send_frame(BINARY, [0; 126]);
        if is_limited {
            client.expect_close(1009);
        } else {
            application.expect(BINARY, [0; 126]);
        }
        drop((client, application));
        let line = new.access_log.wait_for("GET /ws");
        assert!(line.contains(" handoffs=1 ") && line.ends_with(" route=small"), "{line}");
    }
}

#[test]
fn check_says_which_route_a_request_takes_and_why() {
    let file = file(
        "[upstreams.chat]\ndestination_hostname = \"127.0.0.1\"\ndestination_port = 8080\nping_interval = \"20s\"\n\
         [[routes]]\nname = \"blue\"\nhost = \"*.example.com\"\nheaders = { x-tenant = \"blue\" }\nupstream = \"chat\"\n\
         [[routes]]\nname = \"chat\"\nhost = \"chat.example.com\"\npath_prefix = \"/chat\"\nupgrade = true\n\
         upstream = \"chat\"\nstrip_prefix = true\npong_timeout = \"5s\"\n\
         [[routes]]\nname = \"all\"\nhost = \"*.example.com\"\n",
    );
    let explained = |arguments: &[&str], has_default| {
        let output = check(&file, &[&["--route"], arguments].concat(), has_default);
        (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, said) = explained(&["GET wss://Chat.Example.com:443/chat/room?x=1"], true);
    assert_eq!(
        said,
        "GET /chat/room of Chat.Example.com:443, which asks for an upgrade\n\
         route: chat\n  \
           host: it is chat.example.com\n  \
           path: it is /chat or behind it\n  \
           upgrade: it asks for one\n\
         not blue: host and path fit, but the request has not \"x-tenant: blue\" once\n\
         not all: it fits, too, and less closely\n\
         upstream: chat, 127.0.0.1:8080\n\
         changes: strip_prefix=true\n  \
           destination_port=8080\n  \
           ping_interval=20s\n  \
           pong_timeout=5s\n"
    );
    assert_eq!(code, 0);
    let (code, said) =
        explained(&["https://chat.example.com/chat", "--header", "X-Tenant: blue"], true);
    assert!(
        said.contains("\nroute: blue\n")
            && said.contains("not chat: host and path fit, but the request asks for no upgrade"),
        "{said}"
    );
    assert_eq!(code, 0);
    let (code, said) = explained(&["GET http://other.test/"], true);
    assert!(said.contains("route: default, that of the variables"), "{said}");
    assert!(said.ends_with("upstream: default, 127.0.0.1:45490\n"), "{said}");
    assert_eq!(code, 0);
    let (code, said) = explained(&["GET wss://chat.example.com/x/../chat"], true);
    assert!(said.contains("it is answered 400"), "{said}");
    assert_eq!(code, 78);
    for bad in ["chat.example.com/", "GET ftp://a/", "GET wss:///x", "GET wss://a b/"] {
        let (code, said) = explained(&[bad], true);
        assert!(said.starts_with(&format!("elbows: {bad:?}: ")), "{said}");
        assert_eq!(code, 78);
    }
}

#[test]
fn check_prints_routes_and_every_fault_of_variables_and_file() {
    let good = file(
        "[upstreams.chat]\ndestination_hostname = \"127.0.0.1\"\ndestination_port = 8080\n\
         [[routes]]\nname = \"chat\"\nhost = \"chat.example.com\"\nupstream = \"chat\"\nping_interval = \"off\"\n",
    );
    let output = check(&good, &[], false);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(!said.contains("DESTINATION_HOSTNAME="), "{said}");
    assert!(
        said.contains("\nupstream chat: destination_hostname=127.0.0.1 destination_port=8080\n"),
        "{said}"
    );
    assert!(
        said.contains("\nroute chat: host=chat.example.com upstream=chat ping_interval=off\n"),
        "{said}"
    );
    assert!(said.contains("127.0.0.1:8080 resolves to 127.0.0.1:8080"), "{said}");

    let bad = file("[[routes]]\nname = \"chat\"\npong_timeout = \"soon\"\nupstream = \"nobody\"\n");
    let output = check(&bad, &["--threads", "0"], true);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78));
    let path = bad.path().display();
    assert!(said.contains("elbows: THREADS=\"0\": "), "{said}");
    assert!(said.contains(&format!("--> {path}:3:16\n")), "{said}");
    assert!(said.contains("3 | pong_timeout = \"soon\"\n"), "{said}");
    assert!(said.contains(&format!("--> {path}:4:12\n")), "{said}");

    let missing = check(&good, &["--config-file", "/nowhere/elbows.toml"], true);
    assert_eq!(missing.status.code(), Some(78));
    assert!(
        text(&missing.stderr)
            .contains("elbows: CONFIG_FILE=\"/nowhere/elbows.toml\": it cannot be read: ")
    );
    let directory = check(&good, &["--config-file", "/tmp"], true);
    assert_eq!(directory.status.code(), Some(78));
    let half = check(&good, &["--destination-hostname", "app"], false);
    assert_eq!(half.status.code(), Some(78));
    assert!(
        text(&half.stderr).contains("without both there is no default route"),
        "{}",
        text(&half.stderr)
    );
}

/// What editors say of a file, by its JSON schema, fits to what elbows says.
#[test]
fn schema_takes_the_good_file_and_refuses_what_is_not_known() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = python("config_schema.py");
    command.arg(root.join("docs/schemas/config_file.json")).arg(root.join("tests/config_file"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let of =
        |what: &str| said.lines().filter_map(|line| line.strip_suffix(what)).collect::<Vec<_>>();
    // What a schema cannot tell: which values fit to each other, and which names there are.
    let valid = ["contradictions", "good", "never_taken"];
    assert_eq!(of(" is valid"), valid, "{said}");
    assert_eq!(of(" is no TOML"), ["duplicate_key", "syntax"], "{said}");
}
