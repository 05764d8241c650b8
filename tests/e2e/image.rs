//! The container image, started by the very lines of the README.
//!
//! `ELBOWS_TEST_IMAGE` names the image; `cargo xtask test` builds it and sets that where a Docker engine
//! answers. Without it these tests are left out, and the run says so. Names and ports are changed so that nothing of
//! whoever runs the tests is touched, and each container is removed with the value that stands for it.

mod handoff;
mod systemd;

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, id};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tempfile::TempDir;
use test_support::left_out::left_out;

use crate::client::{CLIENT, Client, handshake};
use crate::programs::wait_until;
use crate::proxy::PATIENCE;

/// The most that the image may have, in bytes.
const MAX_BYTES: u64 = 15_000_000;

/// The image to test, or a word about why there is none.
fn image() -> Option<String> {
    let image = env::var("ELBOWS_TEST_IMAGE").ok();
    if image.is_none() {
        left_out("there is no image: `cargo xtask test` builds it where a Docker engine answers");
    }
    image
}

/// A container. It is removed with the value.
struct Container {
    name: String,
}

impl Container {
    /// Runs a `docker run` line, with a container and an image of our own in place of those it names.
    fn run(line: &str, image: &str, others: &[(&str, &Self)]) -> Self {
        let container = Self { name: unique() };
        let mut words = Vec::new();
        let mut before = "";
        for word in line.split_whitespace() {
            words.push(match (before, word) {
                ("--name", _) => container.name.clone(),
                ("--link", names) => {
                    let (name, alias) = names.split_once(':').expect("name:alias");
                    let other = others.iter().find(|(other, _)| *other == name).expect("it runs");
                    format!("{}:{alias}", other.1.name)
                }
                ("-p", ports) => {
                    let (_, inside) = ports.split_once(':').expect("outside:inside");
                    format!("127.0.0.1::{inside}")
                }
                (_, "elbows") => image.to_owned(),
                _ => word.to_owned(),
            });
            before = word;
        }
        assert_eq!(words[0], "docker", "{line}");
        succeed(Command::new("docker").args(&words[1..]));
        container
    }

    /// Where this machine reaches a port of the container.
    fn published(&self, port: u16) -> SocketAddr {
        let said = docker(&["port", &self.name, &port.to_string()]);
        said.lines().next().unwrap().parse().expect("an address")
    }

    fn inspect(&self, format: &str) -> String {
        docker(&["inspect", "--format", format, &self.name])
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(logs) = Command::new("docker").args(["logs", &self.name]).output()
        {
            eprintln!("{} wrote:\n{}", self.name, String::from_utf8_lossy(&logs.stdout));
            eprintln!("and to standard error:\n{}", String::from_utf8_lossy(&logs.stderr));
        }
        let _ = Command::new("docker").args(["rm", "--force", "--volumes", &self.name]).output();
    }
}

/// The application and elbows, by the README's lines, ready to serve; and where elbows is reached.
fn start_by_readme(image: &str) -> (Container, Container, SocketAddr) {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let lines: Vec<_> = readme.lines().filter(|line| line.starts_with("docker run ")).collect();
    let [application, elbows] = lines[..] else {
        panic!(
            "the README has other `docker run` lines than the application's and elbows': {lines:?}"
        );
    };
    let application = Container::run(application, image, &[]);
    let elbows = Container::run(elbows, image, &[("app", &application)]);
    let address = elbows.published(45400);
    wait_until_it_answers(address, "GET /ping");
    (application, elbows, address)
}

/// Waits for a 200. A published port takes connections before the container does.
fn wait_until_it_answers(address: SocketAddr, request: &str) {
    wait_until(&format!("{request} is answered with 200"), || {
        let Ok(mut socket) = TcpStream::connect(address) else {
            return false;
        };
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("{request} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n");
        let mut answer = Vec::new();
        let _ = socket.write_all(request.as_bytes());
        let _ = socket.read_to_end(&mut answer);
        answer.starts_with(b"HTTP/1.1 200 ")
    });
}

/// A WebSocket on the demo's echo, after one message there and back.
fn echoed(mut client: Client) -> Client {
    client.send(handshake("/ws/echo"));
    assert_eq!(client.read_response().status, 101);
    // Masked with zeros (RFC 6455, section 5.3).
    client.send(b"\x81\x82\0\0\0\0hi");
    assert_eq!(client.read_exact(4), b"\x81\x02hi");
    client
}

#[test]
fn readme_lines_carry_a_websocket_and_stop_within_ten_seconds() {
    let Some(image) = image() else { return };
    let (_application, elbows, address) = start_by_readme(&image);
    let who: Value =
        serde_json::from_slice(&Client::behind_balancer(address).get("/whoami").body).unwrap();
    assert_eq!(who["client"], CLIENT);

    let mut open = echoed(Client::behind_balancer(address));
    docker(&["stop", &elbows.name]);
    // 137 is what a process leaves that was killed, as it is after ten seconds.
    assert_eq!(elbows.inspect("{{.State.ExitCode}}"), "0");
    let _ = open.read_to_end();
}

#[test]
fn process_of_the_image_is_not_root() {
    let Some(image) = image() else { return };
    let (application, elbows, _) = start_by_readme(&image);
    for container in [&application, &elbows] {
        assert_eq!(container.inspect("{{.Config.User}}"), "65532:65532");
        let processes = docker(&["top", &container.name, "-eo", "pid,uid,gid,comm"]);
        let processes: Vec<Vec<_>> = processes
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().skip(1).collect())
            .collect();
        assert_eq!(processes, [["65532", "65532", "elbows"]]);
    }
}

/// The line of docs/security.md: no file to write, no capability, no new privilege, few threads.
#[test]
fn image_serves_with_every_hardening_flag() {
    let Some(image) = image() else { return };
    let security = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let line = security.lines().find(|line| line.starts_with("docker run ")).expect("a line");
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let app = readme.lines().find(|line| line.starts_with("docker run ")).expect("a line");
    let application = Container::run(app, &image, &[]);
    let elbows = Container::run(line, &image, &[("app", &application)]);
    let inspected = elbows.inspect(
        "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} \
         {{.HostConfig.PidsLimit}}",
    );
    assert_eq!(inspected, "true [ALL] [no-new-privileges] 64");
    let address = elbows.published(45400);
    wait_until_it_answers(address, "GET /ping");
    let open = echoed(Client::behind_balancer(address));
    drop(open);
    docker(&["stop", &elbows.name]);
    assert_eq!(elbows.inspect("{{.State.ExitCode}}"), "0");
}

#[test]
fn image_is_small_and_holds_one_file() {
    let Some(image) = image() else { return };
    let size = docker(&["image", "inspect", "--format", "{{.Size}}", &image]);
    assert!(size.parse::<u64>().unwrap() < MAX_BYTES, "{size}");

    let container = Container { name: unique() };
    docker(&["create", "--name", &container.name, &image]);
    let dir = TempDir::new().unwrap();
    let archive = dir.path().join("image.tar");
    succeed(Command::new("docker").args(["export", "--output"]).arg(&archive).arg(&container.name));
    let files = succeed(Command::new("tar").arg("--list").arg("--file").arg(&archive));
    // What Docker itself puts into each container.
    let dockers =
        [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"];
    let ours: Vec<_> =
        files.lines().filter(|file| !file.ends_with('/') && !dockers.contains(file)).collect();
    assert_eq!(ours, ["elbows"]);
}

#[test]
fn container_with_a_wrong_setting_does_not_start() {
    let Some(image) = image() else { return };
    let container = Container { name: unique() };
    let mut command = Command::new("docker");
    command.args(["run", "--name", &container.name, "-e", "LISTEN_ON=45400x"]);
    let output = command.arg(&image).output().expect("there is `docker`");
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("LISTEN_ON=\"45400x\""), "{output:?}");
}

/// What `docker-compose` started. It is taken down with the value.
struct Composition {
    name: String,
    file: PathBuf,
}

impl Composition {
    fn command(&self) -> Command {
        let mut command = Command::new("docker-compose");
        command.args(["--project-name", &self.name, "--file"]).arg(&self.file);
        command
    }
}

impl Drop for Composition {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(logs) = self.command().args(["logs", "--no-color"]).output()
        {
            eprintln!("{}", String::from_utf8_lossy(&logs.stdout));
        }
        let _ = self.command().args(["down", "--volumes", "--timeout", "1"]).output();
    }
}

/// An image of Debian's `HAProxy`, in place of the one that Docker would fetch. It is removed with the value.
struct HaproxyImage {
    tag: String,
}

impl HaproxyImage {
    fn build(dir: &Path) -> Self {
        let context = dir.join("haproxy");
        let program = "/usr/sbin/haproxy";
        let libraries = succeed(Command::new("ldd").arg(program));
        let files = libraries.split_whitespace().filter(|word| word.starts_with('/'));
        for file in files.chain([program]) {
            let copy = context.join("root").join(file.trim_start_matches('/'));
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(file, copy).unwrap();
        }
        // Started as the image that it stands for starts it.
        let dockerfile = "FROM scratch\nCOPY root/ /\nCMD [\"/usr/sbin/haproxy\", \"-W\", \"-db\", \
                          \"-f\", \"/usr/local/etc/haproxy/haproxy.cfg\"]\n";
        fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        let image = Self { tag: unique() };
        succeed(Command::new("docker").args(["build", "--tag", &image.tag]).arg(&context));
        image
    }
}

impl Drop for HaproxyImage {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["image", "rm", &self.tag]).output();
    }
}

#[test]
fn composition_carries_a_websocket_through_haproxy() {
    let Some(image) = image() else { return };
    if Command::new("docker-compose").arg("version").output().is_err() {
        left_out("there is no docker-compose");
        return;
    }
    let dir = TempDir::new().unwrap();
    let haproxy = HaproxyImage::build(dir.path());
    let mut composition = fs::read_to_string(root().join("compose.yaml")).unwrap();
    for (theirs, ours) in [
        ("image: haproxy:lts", format!("image: {}", haproxy.tag)),
        ("image: elbows\n    build: .", format!("image: {image}")),
        ("45400:45400", "127.0.0.1::45400".to_owned()),
        ("./compose/", format!("{}/compose/", root().display())),
    ] {
        assert!(composition.contains(theirs), "no {theirs:?} in compose.yaml");
        composition = composition.replace(theirs, &ours);
    }
    let file = dir.path().join("compose.yaml");
    fs::write(&file, composition).unwrap();
    let composition = Composition { name: unique(), file };
    succeed(composition.command().args(["up", "--detach", "--no-build"]));
    let published = succeed(composition.command().args(["port", "balancer", "45400"]));
    let address = published.trim().parse().expect("an address");

    wait_until_it_answers(address, "GET /whoami");
    let who: Value = serde_json::from_slice(&Client::plain(address).get("/whoami").body).unwrap();
    // HAProxy sees this machine at the network's gateway; elbows sees HAProxy.
    let gateway = "{{(index .IPAM.Config 0).Gateway}}";
    let network = format!("{}_default", composition.name);
    assert_eq!(who["client"], docker(&["network", "inspect", "--format", gateway, &network]));
    echoed(Client::plain(address));
}

/// A name that nothing else has.
fn unique() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("elbows-test-{}-{}", id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn docker(arguments: &[&str]) -> String {
    succeed(Command::new("docker").args(arguments))
}

/// Runs `command` to its good end, and returns what it wrote to standard output.
fn succeed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?} ended with {status}: {errors}");
    String::from_utf8_lossy(&stdout).trim().to_owned()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
