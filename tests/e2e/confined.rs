//! The process: what it gives up, who it may run as, and what it never says.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use test_support::left_out::left_out;

use crate::client::{Client, handshake};
use crate::programs::wait_until;
use crate::proxy::Elbows;
use crate::upstream::Upstream;

/// A field of each thread of a process, as in `/proc/PID/status`.
fn of_each_thread(elbows: &Elbows, field: &str) -> Vec<String> {
    let tasks = format!("/proc/{}/task", elbows.pid().as_raw_nonzero());
    let value = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap().to_owned();
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    fs::read_dir(tasks).unwrap().map(|task| value(task.unwrap())).collect()
}

#[test]
fn sandbox_is_every_threads_and_the_log_says_so() {
    let upstream = Upstream::echo();
    let elbows = Elbows::start(upstream.address, &[]);
    let line = elbows.log.wait_for("sandbox: ");
    if line.contains("not available") {
        left_out("this kernel has no Landlock");
        return;
    }
    assert!(line.contains("sandbox: on"), "{line}");
    // It says so before it has started all of them.
    wait_until("its threads are there", || of_each_thread(&elbows, "NoNewPrivs").len() > 3);
    assert!(of_each_thread(&elbows, "NoNewPrivs").iter().all(|value| value == "1"));

    // A name is resolved, and with Landlock as a condition too.
    let named = [("DESTINATION_HOSTNAME", "localhost"), ("SANDBOX", "required")];
    let elbows = Elbows::start(upstream.address, &named);
    let mut client = Client::behind_balancer(elbows.address);
    client.send(handshake("/ws"));
    assert_eq!(client.read_response().status, 101);

    let elbows = Elbows::start(upstream.address, &[("SANDBOX", "off")]);
    elbows.log.wait_for("sandbox: off");
    assert!(of_each_thread(&elbows, "NoNewPrivs").iter().all(|value| value == "0"));
}

#[test]
fn any_user_without_a_capability_serves() {
    let upstream = Upstream::echo();
    let mut command = Command::new("setpriv");
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args([
        "--reuid=54321",
        "--regid=54321",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
        "--no-new-privs",
    ]);
    // The binary may lie where only its owner gets to.
    let dir = tempfile::Builder::new().prefix("elbows").tempdir_in("/tmp").unwrap();
    let binary = dir.path().join("elbows");
    fs::copy(env!("CARGO_BIN_EXE_elbows"), &binary).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.path(), mode).unwrap();
    let allowed = Command::new(command.get_program())
        .args(command.get_args())
        .arg("true")
        .stderr(Stdio::null())
        .status();
    if !allowed.is_ok_and(|status| status.success()) {
        left_out("whoever runs this may not become another user");
        return;
    }
    command.arg(&binary).process_group(0);
    let (command, address) = Elbows::prepare(command, upstream.address, &[]);
    let elbows = Elbows::spawn(command, address);
    assert!(of_each_thread(&elbows, "Uid").iter().all(|uid| uid.starts_with("54321\t54321")));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let sets = of_each_thread(&elbows, set);
        assert!(sets.iter().all(|value| value.trim_matches('0').is_empty()), "{set} {sets:?}");
    }
    let mut client = Client::behind_balancer(elbows.address);
    client.send(handshake("/ws"));
    assert_eq!(client.read_response().status, 101);
    client.send(b"hello");
    assert_eq!(client.read_exact(5), b"hello");
}

#[test]
fn unit_of_the_security_document_is_one_that_systemd_takes() {
    let document = format!("{}/docs/security.md", env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(document).unwrap();
    let (_, rest) = document.split_once("```ini\n").expect("the unit");
    let (unit, _) = rest.split_once("```").unwrap();
    assert!(unit.contains("ExecStart=/usr/local/bin/elbows\n"));
    let unit = unit.replace("/usr/local/bin/elbows", env!("CARGO_BIN_EXE_elbows"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("elbows.service");
    fs::write(&file, unit).unwrap();
    let mut verify = Command::new("systemd-analyze");
    let output = verify.args(["verify", "--man=no"]).arg(&file).output();
    let output = output.expect("there is systemd-analyze; `cargo xtask test` installs it");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("elbows.service:"), "{said}");
}

/// Requests with secrets in every place that a client has, answered, refused and upgraded.
#[test]
fn no_secret_of_a_query_a_field_or_a_body_is_logged_at_any_level() {
    let secrets = "Authorization: Bearer s3cret-1\r\nCookie: session=s3cret-2\r\n\
                   Proxy-Authorization: Basic s3cret-3\r\nX-Api-Key: s3cret-4\r\n\
                   Sec-WebSocket-Protocol: bearer.s3cret-5\r\n";
    let answer =
        "HTTP/1.1 200 OK\r\nSet-Cookie: session=s3cret-6\r\nContent-Length: 8\r\n\r\ns3cret-7";
    let upstream = Upstream::answering(answer);
    let websocket = Upstream::echo();
    for settings in [&[("LOG", "trace")][..], &[("LOG", "trace"), ("ACCESS_LOG", "json")]] {
        let elbows = Elbows::start(upstream.address, settings);
        let body = "s3cret-8";
        for request in [
            format!("GET /?token=s3cret-c HTTP/1.1\r\nHost: a\r\n{secrets}\r\n"),
            format!("POST / HTTP/1.1\r\nHost: a\r\n{secrets}Content-Length: 8\r\n\r\n{body}"),
            // Refused, by us and by hyper.
            format!("GET / HTTP/1.1\r\n{secrets}\r\n"),
            format!("GET / HTTP/1.1\r\nHost: a\r\n{secrets}no colon s3cret-9\r\n\r\n"),
            handshake("/ws?token=s3cret-b").replace("Host:", &format!("{secrets}Host:")),
        ] {
            let mut client = Client::behind_balancer(elbows.address);
            client.send(&request);
            client.read_head();
        }
        let elbows_websocket = Elbows::start(websocket.address, settings);
        let mut client = Client::behind_balancer(elbows_websocket.address);
        client.send(handshake("/ws?token=s3cret-b").replace("Host:", &format!("{secrets}Host:")));
        client.read_response();
        client.send(b"s3cret-a");
        assert_eq!(client.read_exact(8), b"s3cret-a");
        drop(client);
        elbows_websocket.access_log.wait_for("/ws");
        elbows.access_log.wait_until("5 lines", |lines| (lines.len() == 5).then_some(()));
        for elbows in [&elbows, &elbows_websocket] {
            elbows.report();
            for line in elbows.log.all().iter().chain(&elbows.access_log.all()) {
                assert!(!line.contains("s3cret"), "{line}");
            }
        }
    }
}
