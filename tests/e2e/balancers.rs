//! Real load balancers in front of elbows: what they send arrives, and their health checks work.
//!
//! Every address here is this machine's, so each side gets one of its own: the client connects from
//! [`CLIENT`], the balancer connects to elbows from [`BALANCER`]. An application that is told the former
//! has been told what was in the PROXY header, and nothing else.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::applications::Application;
use crate::client::Client;
use crate::programs::{Program, python, wait_until};
use crate::proxy::{Elbows, PATIENCE, free_port};
use crate::upstream::Upstream;

/// Where clients connect from.
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Where balancers connect to elbows from.
pub const BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

/// elbows believes [`BALANCER`] and nobody else.
pub const TRUST: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.9");

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A running load balancer.
pub struct Balancer {
    /// Where clients connect.
    pub address: SocketAddr,
    program: Program,
    dir: TempDir,
}

impl Balancer {
    /// `HAProxy` in TCP mode; `server` are the words behind the server's address, such as `send-proxy`.
    pub fn haproxy(elbows: SocketAddr, server: &str) -> Self {
        Self::haproxy_with(elbows, server, "", "")
    }

    /// `HAProxy` with words behind the address that it binds and with further lines.
    pub fn haproxy_with(elbows: SocketAddr, server: &str, bind: &str, lines: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let (address, files) = (free_address(), dir.path().display());
        let config = format!(
            "global\n\
             \x20 maxconn 1000\n\
             \x20 stats socket {files}/stats level operator\n\
             listen clients\n\
             \x20 mode tcp\n\
             \x20 timeout connect 5s\n\
             \x20 timeout client 60s\n\
             \x20 timeout server 60s\n\
             \x20 timeout check 60s\n\
             \x20 unique-id-format %ci:%cp-%Ts-%rt\n\
             \x20 bind {address} {bind}\n\
             \x20 server elbows {elbows} source {BALANCER} {server}\n\
             {lines}\n"
        );
        let mut command = Command::new("/usr/sbin/haproxy");
        command.arg("-db").arg("-f").arg(config_file(&dir, &config));
        Self { address, program: Program::start(command).listening(address), dir }
    }

    /// nginx's stream module, which speaks version 1.
    pub fn nginx(elbows: SocketAddr) -> Self {
        let dir = TempDir::new().unwrap();
        let (address, files) = (free_address(), dir.path().display());
        // One process, so that nothing is left when it is ended.
        let config = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
             daemon off;\n\
             master_process off;\n\
             pid {files}/pid;\n\
             error_log stderr info;\n\
             events {{ worker_connections 500; }}\n\
             stream {{\n\
             \x20 server {{\n\
             \x20   listen {address};\n\
             \x20   proxy_bind {BALANCER};\n\
             \x20   proxy_protocol on;\n\
             \x20   proxy_pass {elbows};\n\
             \x20 }}\n\
             }}\n"
        );
        let mut command = Command::new("/usr/sbin/nginx");
        command.args(["-e", "stderr", "-p"]).arg(dir.path()).arg("-c");
        command.arg(config_file(&dir, &config));
        Self { address, program: Program::start(command).listening(address), dir }
    }

    /// A column of `HAProxy`'s statistics about elbows (its management guide, section 9.1).
    pub fn column(&self, name: &str) -> String {
        // It listens at its address a little before this socket has its name.
        let mut socket = None;
        wait_until("HAProxy tells its statistics", || {
            socket = UnixStream::connect(self.dir.path().join("stats")).ok();
            socket.is_some()
        });
        let mut socket = socket.unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(b"show stat\n").unwrap();
        let mut table = String::new();
        socket.read_to_string(&mut table).unwrap();
        let columns = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<_>>();
        let mut lines = table.lines();
        let names = columns(lines.next().unwrap().trim_start_matches("# "));
        let row = lines.find(|line| line.starts_with("clients,elbows,")).expect("its line");
        columns(row)[names.iter().position(|column| column == name).unwrap()].clone()
    }

    /// Waits until a health check ended so: `L4OK` is a connection, `L7OK` the right status.
    pub fn wait_for_check(&self, status: &str) {
        wait_until(&format!("a check with {status}"), || self.column("check_status") == status);
    }
}

/// A port of this machine's that nobody listens on now.
fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

fn config_file(dir: &TempDir, text: &str) -> PathBuf {
    let file = dir.path().join("config");
    fs::write(&file, text).unwrap();
    file
}

/// A key and a certificate of its own signing, in one file.
fn certificate(dir: &Path, name: &str) -> PathBuf {
    let (key, certificate) = (dir.join("key"), dir.join("certificate"));
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "2", "-subj", &format!("/CN={name}")])
        .args(["-addext", &format!("subjectAltName=DNS:{name}"), "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate);
    let mut openssl = Program::start(command);
    assert!(openssl.wait(PATIENCE).success(), "openssl makes a certificate");
    let both = fs::read_to_string(&certificate).unwrap() + &fs::read_to_string(&key).unwrap();
    let file = dir.join(format!("{name}.pem"));
    fs::write(&file, both).unwrap();
    file
}

/// The request headers that the application got through `HAProxy` with TLS and `server`.
fn headers_behind_tls(server: &str) -> Value {
    let application = Application::websockets();
    let settings = [TRUST, ("PROXY_TLV_HEADERS", "all")];
    let elbows = Elbows::start(application.address, &settings);
    let dir = TempDir::new().unwrap();
    let ours = certificate(dir.path(), "shop.example");
    let client = certificate(dir.path(), "device-7");
    let bind = format!(
        "ssl crt {} alpn http/1.1 ca-file {} verify required",
        ours.display(),
        client.display()
    );
    let balancer = Balancer::haproxy_with(elbows.address, server, &bind, "");
    let url = format!("wss://shop.example:{}", balancer.address.port());
    let mut command = python("websockets_client.py");
    command.args([url, CLIENT.to_string()]).arg(ours).arg(client);
    let headers: Value = serde_json::from_str(&Program::start(command).succeed("done")).unwrap();
    assert_eq!(headers["x-forwarded-for"], CLIENT.to_string());
    assert_eq!(headers["x-forwarded-proto"], "https");
    assert_eq!(headers["x-forwarded-port"], balancer.address.port().to_string());
    headers
}

#[test]
fn tlvs_of_haproxy_become_headers() {
    let headers = headers_behind_tls(
        "send-proxy-v2 \
         proxy-v2-options crc32c,unique-id,ssl,ssl-cipher,cert-cn,authority",
    );
    let text = |name: &str| headers[name].as_str().unwrap_or_default();
    assert_eq!(text("x-proxy-authority"), "shop.example");
    assert_eq!(text("x-proxy-alpn"), "http/1.1");
    assert_eq!(text("x-proxy-ssl-version"), "TLSv1.3");
    assert!(text("x-proxy-ssl-cipher").starts_with("TLS_"), "{headers}");
    assert_eq!(text("x-proxy-ssl-cn"), "device-7");
    assert!(text("x-proxy-unique-id").starts_with("127.0.0.2:"), "{headers}");
}

#[test]
fn tlvs_that_haproxy_does_not_send_become_no_headers() {
    let headers = headers_behind_tls("send-proxy-v2 proxy-v2-options crc32c,unique-id,ssl");
    assert_eq!(headers["x-proxy-ssl-version"], "TLSv1.3");
    assert!(headers["x-proxy-unique-id"].is_string(), "{headers}");
    for name in ["x-proxy-authority", "x-proxy-ssl-cipher", "x-proxy-ssl-cn"] {
        assert_eq!(headers[name], Value::Null, "{name}");
    }
}

/// elbows passes `HAProxy`'s checks, writes nothing about them, and fails them when it drains. `check` may
/// name the port of `LISTEN_ON` or `HEALTH_LISTEN_ON`.
fn http_checks_follow_the_drain(check: &str) {
    let upstream = Upstream::answering(OK);
    let health = free_address();
    let place = health.to_string();
    // Longer than a test: it is the second signal that ends it.
    let settings = [TRUST, ("DRAIN_DELAY", "1h"), ("HEALTH_LISTEN_ON", place.as_str())];
    let elbows = Elbows::start(upstream.address, &settings);
    let check = check
        .replace("HEALTH_LISTEN_ON", &health.port().to_string())
        .replace("LISTEN_ON", &elbows.address.port().to_string());
    let server = format!("send-proxy-v2 inter 200ms fall 2 rise 1 {check}");
    let lines = "  option httpchk GET /ping";
    let balancer = Balancer::haproxy_with(elbows.address, &server, "", lines);
    balancer.wait_for_check("L7OK");
    assert_eq!(balancer.column("check_code"), "200");
    assert_eq!(Client::plain(balancer.address).get("/").status, 200);
    elbows.access_log.wait_for("request=\"GET / HTTP/1.1\"");

    let down = end_by_drain(elbows, &balancer);
    assert!(down.contains("503"), "{down}");
}

/// Sends SIGTERM, waits until `HAProxy` takes elbows out, ends elbows, and looks at its access log: one
/// line, which is of the one request that was no check. Returns what `HAProxy` said.
fn end_by_drain(mut elbows: Elbows, balancer: &Balancer) -> String {
    elbows.signal(Signal::TERM);
    let down = balancer.program.errors.wait_for("is DOWN");
    assert!(elbows.hurry().success());
    let lines = elbows.access_log.all();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    down
}

#[test]
fn http_checks_with_proxy_header_follow_the_drain() {
    http_checks_follow_the_drain("check check-send-proxy");
}

// A check with a port of its own carries no PROXY header (HAProxy's configuration manual, 5.2).

#[test]
fn http_checks_without_proxy_header_follow_the_drain() {
    http_checks_follow_the_drain("check port LISTEN_ON");
}

#[test]
fn http_checks_on_the_health_port_follow_the_drain() {
    http_checks_follow_the_drain("check port HEALTH_LISTEN_ON");
}

/// The same for checks that only connect: they fail when the listener closes, and what is open goes on.
fn tcp_checks_follow_the_drain(check: &str) {
    let application = Application::websockets();
    let mut elbows = Elbows::start(application.address, &[TRUST, ("DRAIN_PERIOD", "1h")]);
    let check = check.replace("PORT", &elbows.address.port().to_string());
    let server = format!("send-proxy-v2 inter 200ms fall 2 rise 1 {check}");
    let balancer = Balancer::haproxy(elbows.address, &server);
    balancer.wait_for_check("L4OK");
    let mut client = Client::plain(balancer.address);
    client.send(crate::client::handshake("/echo"));
    assert_eq!(client.read_response().status, 101);

    elbows.signal(Signal::TERM);
    balancer.program.errors.wait_for("is DOWN");
    // A text frame and a Close frame, masked with zeros, and their echoes (RFC 6455, section 5.2).
    client.send(b"\x81\x82\0\0\0\0hi");
    assert_eq!(client.read_exact(4), b"\x81\x02hi");
    client.send(b"\x88\x80\0\0\0\0");
    assert_eq!(client.read_exact(2), b"\x88\x00");
    drop(client);
    assert!(elbows.wait().success());
    elbows.access_log.wait_for("status=101");
    let lines = elbows.access_log.all();
    assert_eq!(lines.len(), 1, "{lines:#?}");
}

#[test]
fn tcp_checks_with_proxy_header_follow_the_drain() {
    tcp_checks_follow_the_drain("check check-send-proxy");
}

#[test]
fn tcp_checks_without_proxy_header_follow_the_drain() {
    tcp_checks_follow_the_drain("check port PORT");
}
