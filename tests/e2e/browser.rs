//! A real browser: headless Chromium on the demo's page, and in conversation with other applications.
//!
//! It is driven by WebDriver (W3C, "WebDriver"), which is JSON over HTTP: the few commands that are needed
//! fit into [`Browser`]. A browser takes seconds to start, so that each test does all it can with one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use data_encoding::BASE64;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::applications::{Application, three_tunnels_are_logged};
use crate::balancers::{BALANCER, Balancer, TRUST};
use crate::client::Client;
use crate::programs::{Program, peer, wait_until};
use crate::proxy::{Elbows, free_port};

/// How long a browser may take to start or to run a script: longer than anything else here.
const BROWSER_PATIENCE: Duration = Duration::from_secs(120);

/// Where a browser connects from.
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A running browser with one page. It is ended with the value.
pub struct Browser {
    driver: SocketAddr,
    session: String,
    process_group: Pid,
    _program: Program,
    _files: TempDir,
}

impl Browser {
    /// Starts a browser that shows nothing on a screen and leaves nothing behind.
    pub fn start() -> Self {
        let files = TempDir::new().unwrap();
        // Left to itself it takes a port that is free for IPv6, and ends if IPv4's is in use.
        let driver = SocketAddr::new(LOCALHOST, free_port());
        let mut command = Command::new("/usr/bin/chromedriver");
        // What it starts is in its process group, which can be ended whole.
        command
            .arg(format!("--port={}", driver.port()))
            .process_group(0)
            .env("HOME", files.path())
            .env("TMPDIR", files.path());
        let program = Program::start(command);
        let process_group = program.pid();
        program.output.wait_for("started successfully on port");
        let mut browser = Self {
            driver,
            session: String::new(),
            process_group,
            _program: program,
            _files: files,
        };
        // Root may not use its sandbox, and /dev/shm is small in containers.
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--no-proxy-server",
        ];
        let options = json!({ "binary": "/usr/bin/chromium", "args": arguments });
        let wanted = json!({ "browserName": "chrome", "goog:chromeOptions": options });
        let session = browser.command(
            "POST",
            "/session",
            &json!({ "capabilities": { "alwaysMatch": wanted } }),
        );
        let id = session["sessionId"].as_str().expect("a session");
        browser.session = format!("/session/{id}");
        browser.session_command("/timeouts", &json!({ "script": 110_000 }));
        browser
    }

    /// Opens a page.
    pub fn open(&self, url: &str) {
        self.session_command("/url", &json!({ "url": url }));
    }

    /// Opens another tab, and goes there: its handle.
    pub fn new_tab(&self) -> String {
        let tab = self.session_command("/window/new", &json!({ "type": "tab" }));
        let handle = tab["handle"].as_str().expect("a tab").to_owned();
        self.go_to(&handle);
        handle
    }

    /// The handle of the tab that is seen.
    pub fn tab(&self) -> String {
        let tab = self.command("GET", &format!("{}/window", self.session), &json!({}));
        tab.as_str().expect("a tab").to_owned()
    }

    /// Goes to the tab with this handle.
    pub fn go_to(&self, handle: &str) {
        self.session_command("/window", &json!({ "handle": handle }));
    }

    /// The value of an expression in the page.
    pub fn value(&self, expression: &str) -> Value {
        let script = format!("return {expression};");
        self.session_command("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// What `script` calls its last argument with.
    pub fn run(&self, script: &str, arguments: &[&str]) -> Value {
        self.session_command("/execute/async", &json!({ "script": script, "args": arguments }))
    }

    /// What Chromium's own protocol (CDP) answers to a command.
    pub fn chromium(&self, name: &str, parameters: &Value) -> Value {
        let body = json!({ "cmd": name, "params": parameters });
        self.session_command("/goog/cdp/execute", &body)
    }

    /// Shows pages as somebody sees them who likes `theme`, `light` or `dark`.
    pub fn prefer(&self, theme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": theme });
        self.chromium("Emulation.setEmulatedMedia", &json!({ "features": [feature] }));
    }

    /// Shows pages in a window of this size, in CSS pixels.
    pub fn resize(&self, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.chromium("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Presses keys, one after the other, wherever the focus is.
    pub fn press(&self, keys: &str) {
        let actions: Vec<_> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|what| json!({ "type": what, "value": key })))
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.session_command("/actions", &json!({ "actions": [keyboard] }));
    }

    /// What the window shows, as PNG.
    pub fn screenshot(&self) -> Vec<u8> {
        let picture = self.command("GET", &format!("{}/screenshot", self.session), &json!({}));
        BASE64.decode(picture.as_str().expect("a picture").as_bytes()).expect("Base64")
    }

    fn session_command(&self, path: &str, body: &Value) -> Value {
        self.command("POST", &format!("{}{path}", self.session), body)
    }

    /// Gives a command: the answer's `value`.
    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut client = Client::plain(self.driver);
        client.socket.set_read_timeout(Some(BROWSER_PATIENCE)).unwrap();
        let body = body.to_string();
        client.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.driver,
            body.len()
        ));
        let response = client.read_response();
        assert_eq!(response.status, 200, "{method} {path}: {}", response.text());
        serde_json::from_slice::<Value>(&response.body).unwrap()["value"].take()
    }

    /// What the demo's page shows, once it shows prices that move, an echo's time and a client address
    /// that `is_client` likes.
    pub fn sees_the_demo(&self, client: impl Fn(&str) -> bool) {
        let text = |id: &str| {
            let text = self.value(&format!("document.getElementById('{id}').textContent"));
            text.as_str().unwrap_or_default().trim().to_owned()
        };
        wait_until("the page shows the client's address", || client(&text("client-address")));
        wait_until("the page shows a time there and back", || {
            text("echo-rtt").contains(|char: char| char.is_ascii_digit())
        });
        wait_until("the page shows prices", || {
            text("ticker-rows").contains(|char: char| char.is_ascii_digit())
        });
        let first = text("ticker-rows");
        wait_until("the prices move", || text("ticker-rows") != first);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Also what a driver that hangs would leave running.
        let _ = kill_process_group(self.process_group, Signal::KILL);
    }
}

#[test]
fn page_through_haproxy_is_live_and_knows_the_client() {
    let application = Application::demo();
    let elbows = Elbows::start(application.address, &[TRUST]);
    let balancer = Balancer::haproxy(elbows.address, "send-proxy-v2");
    let browser = Browser::start();
    browser.open(&format!("http://{}/", balancer.address));
    // The application's own connections come from the same address, and elbows' from the balancer's.
    browser.sees_the_demo(|address| address.starts_with("127.0.0.1"));
    for path in ["/", "/whoami"] {
        let line =
            elbows.access_log.wait_for(&format!("request=\"GET {path} HTTP/1.1\" status=200"));
        assert!(line.contains("client=127.0.0.1:"), "{line}");
        assert!(line.contains(&format!("balancer={BALANCER}:")), "{line}");
    }
    // The tunnels of a page that was left are logged.
    browser.open("about:blank");
    for path in ["/ws/echo", "/ws/ticker"] {
        elbows.access_log.wait_for(&format!("request=\"GET {path} HTTP/1.1\" status=101"));
    }
}

#[test]
fn page_of_the_demo_is_live_and_knows_the_client() {
    let mut command = Elbows::command();
    command.args(["demo", "--listen", "127.0.0.1:0"]);
    let demo = Program::start(command);
    let line = demo.output.wait_for("http://");
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
    let browser = Browser::start();
    browser.open(url);
    browser.sees_the_demo(|address| address.starts_with("203.0.113."));
    // It links to the page of its elbows, as the terminal does.
    let own_page = browser.value("document.getElementById('live').href");
    let own_page = own_page.as_str().unwrap();
    assert!(demo.output.wait_for("live page").contains(own_page), "{own_page}");
    browser.open(own_page);
    wait_until("elbows' page is live", || {
        browser.value("document.getElementById('status').textContent") == "live"
    });
    // Those of the page before have ended, or do just now.
    wait_until("they are counted", || {
        let ends = browser.value("document.getElementById('ends').textContent");
        ends.as_str().is_some_and(|ends| ends.contains("closed"))
    });
}

#[test]
fn demo_checks_itself() {
    let mut command = Elbows::command();
    command.args(["demo", "--check"]);
    let last = Program::start(command).succeed("ok, ");
    assert!(last.ends_with("ms"), "{last}");
}

/// The conversation by Chromium, which is silent for `pause` milliseconds now and then.
pub fn chromium(balancer: SocketAddr, pause: &str) -> Value {
    let script = std::fs::read_to_string(peer("conversation.js")).unwrap();
    let browser = Browser::start();
    // A page of another origin may not connect to this machine; what it shows does not matter.
    browser.open(&format!("http://{balancer}/"));
    browser.run(&script, &[&format!("ws://{balancer}"), pause])
}

#[test]
fn browser_converses_with_each_application_through_each_balancer() {
    let script = std::fs::read_to_string(peer("conversation.js")).unwrap();
    let browser = Browser::start();
    let balancers: [fn(SocketAddr) -> Balancer; 3] = [
        |elbows| Balancer::haproxy(elbows, "send-proxy"),
        |elbows| Balancer::haproxy(elbows, "send-proxy-v2"),
        Balancer::nginx,
    ];
    for application in [Application::websockets, Application::node_ws] {
        for balancer in balancers {
            let application = application();
            let elbows = Elbows::start(application.address, &[TRUST]);
            let balancer = balancer(elbows.address);
            // A page of another origin may not connect to this machine; what it shows does not matter.
            browser.open(&format!("http://{}/", balancer.address));
            let who = browser.run(&script, &[&format!("ws://{}", balancer.address), "0"]);
            assert_eq!(who["x-forwarded-for"], "127.0.0.1", "{who}");
            assert_eq!(who["host"], balancer.address.to_string());
            for (path, code, reason) in [
                ("/echo", 4002, "the client ends it"),
                ("/close-4001", 4001, "the application ends it"),
            ] {
                let ended = application.ended(path, code, reason);
                assert!(ended.contains("extensions=permessage-deflate"), "{ended}");
            }
            three_tunnels_are_logged(elbows, "127.0.0.1", &application);
        }
    }
}
