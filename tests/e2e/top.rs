//! `elbows top`: in a terminal, which tmux plays, and as a command of scripts.

mod strangers;
mod terminal;

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use self::terminal::Terminal;
use crate::admin::ask;
use crate::client::{CLIENT, Client, handshake};
use crate::programs::wait_until;
use crate::proxy::{Elbows, free_port};
use crate::upstream::Upstream;
use crate::web_socket::{CLOSE, Peer, TEXT, Tunnels, talk};

const TOKEN: &str = "s3cret-token-0123456789";

/// The size that has to do.
const USUAL: (u16, u16) = (80, 24);

/// The order that labels are coloured by.
const COLOUR: &str = "\u{1b}[38;5;6m";

/// elbows with an admin port at an address that a next one can have too.
struct Watched {
    elbows: Elbows,
    admin: SocketAddr,
}

impl Watched {
    fn start(upstream: SocketAddr, settings: &[(&str, &str)]) -> Self {
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let own = [("ADMIN_LISTEN_ON", &*admin.to_string()), ("ADMIN_TOKEN", TOKEN)];
        let elbows = Elbows::start(upstream, &[&own, settings].concat());
        // The others are bound first.
        wait_until("the admin port listens", || TcpStream::connect(admin).is_ok());
        Self { elbows, admin }
    }

    /// `elbows top` in a terminal.
    fn top(&self, arguments: &[&str]) -> Terminal {
        let place = self.admin.to_string();
        Terminal::start(USUAL, &[("ADMIN_TOKEN", TOKEN)], &[&[&*place], arguments].concat())
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(&[&[&*self.admin.to_string()], arguments].concat(), &[])
    }
}

/// Runs `elbows top` to its end.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Elbows::command();
    command.arg("top").args(arguments).envs(variables.iter().copied());
    command.stdin(Stdio::null()).output().expect("elbows starts")
}

fn stdout(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A tunnel with this target, user agent and subprotocol.
fn open(application: &Tunnels, elbows: &Elbows, target: &str, fields: &str) -> (Peer, Peer) {
    let mut client = Client::behind_balancer(elbows.address);
    client.send(handshake(target).replace("\r\n\r\n", &format!("\r\n{fields}\r\n")));
    let upstream = application.accept();
    assert_eq!(client.read_head().status, 101);
    (Peer::client(client), upstream)
}

/// The paths of the table, from its first row on.
fn paths(screen: &str) -> Vec<&str> {
    let rows = screen.lines().filter(|line| line.starts_with(CLIENT));
    rows.filter_map(|row| row.split_whitespace().nth(1)).collect()
}

#[test]
fn table_is_filtered_and_sorted_and_one_tunnel_is_shown_whole() {
    let application = Tunnels::start();
    let watched = Watched::start(application.address, &[]);
    let mut pairs: Vec<_> = ["/chat/b", "/news", "/chat/a"]
        .into_iter()
        .map(|target| open(&application, &watched.elbows, target, "User-Agent: Browser/1.0\r\n"))
        .collect();
    for _ in 0..3 {
        talk(&mut pairs[1], b"hello");
    }
    let top = watched.top(&[]);
    let screen = top.wait_until("three tunnels", |screen| paths(screen).len() == 3);
    assert!(screen.starts_with(&format!("elbows 0.1.0 at {}  pid ", watched.admin)), "{screen}");
    assert!(screen.contains("\ntunnels   3 open"), "{screen}");
    assert!(screen.contains(&format!("endpoints {}\n", application.address)), "{screen}");
    assert!(screen.contains("q quit  / filter  s sort"), "{screen}");
    assert!(screen.lines().count() == 24 && screen.lines().all(|line| line.chars().count() <= 80));

    // id, client, upstream, path.
    for _ in 0..3 {
        top.press("s");
    }
    top.wait_until("by path", |screen| paths(screen) == ["/chat/a", "/chat/b", "/news"]);
    top.press("r");
    top.wait_until("by -path", |screen| paths(screen) == ["/news", "/chat/b", "/chat/a"]);
    top.press("/");
    top.wait_for("filter: _");
    top.type_text("chat state=open");
    top.press("Enter");
    let screen = top.wait_until("filtered", |screen| paths(screen) == ["/chat/b", "/chat/a"]);
    assert!(screen.contains("tunnels: 2 of 2 that match, 3 open, by -path"), "{screen}");
    // One that elbows refuses is taken back.
    top.press("/");
    top.wait_for("filter: path=chat state=open_");
    top.type_text(" idle=q");
    top.press("Enter");
    top.wait_for("idle=\"q\": give a time with its unit");
    top.wait_until("the filter before", |screen| paths(screen) == ["/chat/b", "/chat/a"]);

    top.press("Down");
    top.press("Enter");
    let screen = top.wait_for("request        GET /chat/a HTTP/1.1");
    assert!(screen.contains("user agent     Browser/1.0"), "{screen}");
    assert!(screen.contains(&format!("upstream       {}", application.address)), "{screen}");
    // What passes is seen.
    talk(&mut pairs[2], b"hello");
    top.wait_for("from client    1 messages");
    top.press("t");
    top.wait_for("ends of tunnels");
    top.press("?");
    top.wait_for("close the chosen tunnel");
    top.press("q");
    top.expect_end(0);
}

#[test]
fn client_of_a_tunnel_that_is_closed_sees_just_that_close() {
    let application = Tunnels::start();
    let watched = Watched::start(application.address, &[]);
    let mut other = open(&application, &watched.elbows, "/other", "");
    let mut closed = open(&application, &watched.elbows, "/closed", "");
    let top = watched.top(&["--search", "/clos"]);
    top.wait_until("the tunnel", |screen| paths(screen) == ["/closed"]);
    let order = || {
        top.press("c");
        top.wait_for("code (none: DRAIN_CLOSE_CODE): _");
        top.type_text("4000");
        top.press("Enter");
        top.wait_for("with 4000: reason: _");
        top.type_text("go home, ü");
        top.press("Enter");
    };
    order();
    // It asks first.
    top.wait_for("with 4000 \"go home, ü\"? y or n");
    talk(&mut closed, b"still here");
    top.press("n");
    top.wait_for("stays open");
    talk(&mut closed, b"still here");
    order();
    top.wait_for("y or n");
    top.press("y");
    let frame = closed.0.read_frame();
    assert_eq!(frame.opcode, CLOSE);
    assert_eq!(frame.payload, [&4000_u16.to_be_bytes()[..], "go home, ü".as_bytes()].concat());
    top.wait_for("/closed gets its Close");
    closed.0.send_frame(CLOSE, &frame.payload);
    assert_eq!(closed.1.read_frame().payload, frame.payload);
    drop(closed);
    top.wait_for("ends      elbows/relay/ordered 1");
    let line = watched.elbows.access_log.wait_for("why=ordered");
    assert!(line.contains("close_code=4000 close_by=elbows"), "{line}");
    talk(&mut other, b"still here");
}

#[test]
fn without_the_token_nothing_is_closed_and_a_wrong_one_is_told() {
    let application = Tunnels::start();
    let watched = Watched::start(application.address, &[]);
    let mut pair = open(&application, &watched.elbows, "/one", "");
    let place = watched.admin.to_string();
    let top = Terminal::start(USUAL, &[("ADMIN_LISTEN_ON", &place)], &[]);
    top.wait_until("the tunnel", |screen| paths(screen) == ["/one"]);
    top.press("c");
    top.wait_for("ADMIN_TOKEN is not set here");
    drop(top);
    let top = Terminal::start(USUAL, &[("ADMIN_TOKEN", "another-token-0123456789")], &[&place]);
    top.wait_until("the tunnel", |screen| paths(screen) == ["/one"]);
    for key in ["c", "Enter", "Enter", "y"] {
        top.press(key);
    }
    top.wait_for("Authorization: this is not the token that ADMIN_TOKEN has");
    talk(&mut pair, b"still here");
}

#[test]
fn elbows_that_is_killed_and_started_again_is_seen_again() {
    let application = Tunnels::start();
    let mut watched = Watched::start(application.address, &[]);
    let pair = open(&application, &watched.elbows, "/before", "");
    let top = watched.top(&[]);
    top.wait_until("the tunnel", |screen| paths(screen) == ["/before"]);
    watched.elbows.signal(Signal::KILL);
    watched.elbows.wait();
    let gone = format!("no answer from {}: connection refused; asking again for", watched.admin);
    let screen = top.wait_for(&gone);
    assert!(screen.lines().next().unwrap().ends_with("NO ANSWER"), "{screen}");
    drop(pair);
    let address = watched.elbows.address;
    let (mut command, _) = Elbows::prepare(Elbows::command(), application.address, &[]);
    command.env("LISTEN_ON", address.to_string()).env("ADMIN_LISTEN_ON", watched.admin.to_string());
    let again = Elbows::spawn(command, address);
    let pid = again.pid().as_raw_nonzero();
    top.wait_for(&format!("pid {pid} answers now; before, it was pid "));
    let _pair = open(&application, &again, "/after", "");
    top.wait_until("the new tunnel", |screen| paths(screen) == ["/after"]);
    assert!(!top.screen().contains("NO ANSWER"));
}

#[test]
fn tunnel_is_followed_into_the_process_that_takes_over() {
    let application = Tunnels::start();
    let directory = crate::handoff::directory();
    let [handoff, admin] = ["handoff.sock", "admin.sock"].map(|name| directory.path().join(name));
    let main = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let start = || {
        let (mut command, _) = Elbows::prepare(Elbows::command(), application.address, &[]);
        command.env("LISTEN_ON", main.to_string()).env("HANDOFF_SOCKET", &handoff);
        command.env("ADMIN_LISTEN_ON", &admin).env("THREADS", "1");
        Elbows::spawn(command, main)
    };
    let mut old = start();
    wait_until("the admin port listens", || UnixStream::connect(&admin).is_ok());
    // It has the second place there, and the first one in the next process: another id.
    let passing = open(&application, &old, "/passing", "");
    let mut pair = open(&application, &old, "/stays", "");
    drop(passing);
    old.access_log.wait_for("/passing");
    talk(&mut pair, b"before");
    let top = Terminal::start(USUAL, &[], &[admin.to_str().unwrap()]);
    top.wait_until("the tunnel", |screen| paths(screen) == ["/stays"]);
    top.press("Enter");
    let id = |screen: &str| screen.lines().find(|line| line.starts_with("id ")).map(str::to_owned);
    let before = id(&top.wait_for("handed over    never"));
    let new = start();
    new.log.wait_for("handoff from=");
    assert_eq!(old.wait().code(), Some(0));
    let pid = new.pid().as_raw_nonzero();
    let screen = top.wait_for("handed over    once");
    assert!(before.is_some() && before != id(&screen), "the id is the same: {before:?}");
    assert!(
        screen.contains(&format!("pid {pid} answers now and took over 1 tunnel; before")),
        "{screen}"
    );
    talk(&mut pair, b"after");
    top.wait_for("from client    2 messages");
}

#[test]
fn drain_is_seen_to_its_end() {
    let application = Tunnels::start();
    let settings = [("DRAIN_PERIOD", "2s"), ("DRAIN_GRACE", "30s")];
    let mut watched = Watched::start(application.address, &settings);
    let mut answers = open(&application, &watched.elbows, "/answers", "");
    let silent = open(&application, &watched.elbows, "/silent", "");
    let top = watched.top(&[]);
    top.wait_until("the tunnels", |screen| paths(screen).len() == 2);
    watched.elbows.drain();
    let screen = top.wait_for("\ndrain     [");
    assert!(screen.lines().next().unwrap().ends_with("DRAINING"), "{screen}");
    answers.1.send_frame(TEXT, "more");
    let frame = loop {
        let frame = answers.0.read_frame();
        if frame.opcode == CLOSE {
            break frame;
        }
    };
    answers.0.send_frame(CLOSE, &frame.payload);
    drop(answers);
    top.wait_for("] 50%  1 open  1 answered  0 unanswered  0 cut");
    watched.elbows.hurry();
    top.wait_for("NO ANSWER");
    drop(silent);
}

/// What HTTP lets a client send: bytes from 0x80 on, which can be C1 and what turns the direction of text.
#[test]
fn hostile_clients_do_nothing_to_a_terminal() {
    let application = Tunnels::start();
    let watched = Watched::start(application.address, &[]);
    let fields = "User-Agent: \u{9b}31mred\u{202e}\r\nSec-WebSocket-Protocol: chat\r\n";
    let _pair = open(&application, &watched.elbows, "/\u{9b}2J\u{202e}\u{9d}2;owned\u{9c}", fields);
    let shown = "/\u{fffd}2J\u{fffd}\u{fffd}2;owned\u{fffd}";
    let top = watched.top(&[]);
    top.wait_until("the tunnel", |screen| paths(screen) == [shown]);
    let written = top.record();
    top.press("Enter");
    let screen = top.wait_for(&format!("GET {shown} HTTP/1.1"));
    assert!(screen.contains("user agent     \u{fffd}31mred\u{fffd}"), "{screen}");
    assert_ne!(top.state("pane_title"), "owned");
    let written = fs::read(written).unwrap();
    let written = String::from_utf8_lossy(&written);
    assert!(written.contains(shown), "{written:?}");
    assert!(!written.contains(['\u{9b}', '\u{9c}', '\u{9d}', '\u{202e}']), "{written:?}");
    let once = stdout(&watched.run(&["--once"]));
    assert!(once.contains(shown) && !once.contains(['\u{9b}', '\u{202e}']), "{once:?}");
}

#[test]
fn no_size_of_a_terminal_is_too_small_and_it_comes_back_from_each() {
    let application = Tunnels::start();
    let watched = Watched::start(application.address, &[]);
    let _pair = open(&application, &watched.elbows, "/one", "");
    let top = watched.top(&[]);
    top.wait_until("the tunnel", |screen| paths(screen) == ["/one"]);
    for (wide, high) in [(20, 5), (1, 1), (5, 2), (300, 100), (40, 3)] {
        top.resize(wide, high);
        for key in ["Enter", "Escape", "t", "?", "Escape", "/", "x", "Escape"] {
            top.press(key);
        }
    }
    top.resize(80, 24);
    top.press("C-c");
    top.expect_end(0);
}

#[test]
fn terminal_is_as_before_after_a_signal_and_without_colours_there_are_none() {
    let watched = Watched::start(Upstream::nobody(), &[]);
    let place = watched.admin.to_string();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let top = Terminal::start(USUAL, &[], &[&place]);
        top.wait_for("q quit");
        assert_eq!(top.state("alternate_on"), "1");
        assert!(top.screen_with_styles().contains(COLOUR), "{:?}", top.screen_with_styles());
        top.signal(signal);
        top.expect_end(0);
    }
    let top = Terminal::start(USUAL, &[("NO_COLOR", "1")], &[&place]);
    top.wait_for("q quit");
    assert!(!top.screen_with_styles().contains(COLOUR));
}

#[test]
fn once_is_a_table_and_json_is_what_the_admin_port_tells() {
    let application = Tunnels::start();
    let watched = Watched::start(application.address, &[]);
    let place = &*watched.admin.to_string();
    let mut pairs: Vec<_> = [("/a", ""), ("/b", "User-Agent: Fire fox 9\r\n"), ("/b/c", "")]
        .into_iter()
        .map(|(target, fields)| open(&application, &watched.elbows, target, fields))
        .collect();
    talk(&mut pairs[2], b"hello");
    // The address comes from the environment, as elbows itself has it.
    let look = |arguments: &[&str]| stdout(&run(arguments, &[("ADMIN_LISTEN_ON", place)]));
    let table = |arguments: &[&str]| -> Vec<Vec<String>> {
        let text = look(&[&["--once"], arguments].concat());
        let (summary, rows) = text.split_once("\n\n").unwrap();
        assert!(summary.starts_with(&format!("elbows     0.1.0 at {place}, pid ")), "{summary}");
        assert!(summary.contains("\ntunnels    3 open"), "{summary}");
        let (rows, _) = rows.split_once("\n\n").unwrap_or((rows, ""));
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        rows.lines().map(words).collect()
    };
    let column = |arguments: &[&str], head: &str| -> Vec<String> {
        let rows = table(arguments);
        let at = rows[0].iter().position(|known| known == head).unwrap();
        rows[1..].iter().map(|row| row[at].clone()).collect()
    };
    // Of ends that there were not nothing is said.
    assert!(look(&["--once"]).contains("\nends       -\n"), "{}", look(&["--once"]));
    assert_eq!(column(&["--sort=-path"], "PATH"), ["/b/c", "/b", "/a"]);
    assert_eq!(column(&["--sort", "-messages", "--limit", "1"], "MSG_C"), ["1"]);
    assert!(
        look(&["--once", "--limit=1"]).ends_with("\nmore than these 1: --limit takes up to 1000\n")
    );
    for (arguments, number) in [
        (&["--path=/b"][..], 2),
        (&["--search=/b"], 2),
        (&["--search", "Fire fox", "--path=/b"], 1),
        (&["--search=203.0.113"], 3),
        (&["--search=nobody"], 0),
        (&["--client=203.0.113.0/24", "--state", "open"], 3),
        (&["--client", "198.51.100.0/24"], 0),
        (&["--upstream", &application.address.to_string()], 3),
        (&["--older", "1h"], 0),
        (&["--idle=1h"], 0),
    ] {
        assert_eq!(column(arguments, "ID").len(), number, "{arguments:?}");
    }

    let text = look(&["--json", "--search=Fire fox"]);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["tunnels"]["tunnels"][0]["path"], "/b");
    assert_eq!(value["tunnels"]["matched"], 1);

    let text = look(&["--json", "--sort=path", "--limit=2"]);
    assert_eq!(text.lines().count(), 1);
    let value: Value = serde_json::from_str(&text).unwrap();
    let listed: Vec<_> =
        value["tunnels"]["tunnels"].as_array().unwrap().iter().map(|one| &one["path"]).collect();
    assert_eq!(listed, ["/a", "/b"]);
    let told = |target: &str| -> Value {
        serde_json::from_slice(&ask(watched.admin, "GET", target, "").body).unwrap()
    };
    let names = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(value["endpoints"], told("/api/endpoints"));
    assert_eq!(names(&value["summary"]), names(&told("/api/summary")));
    let tunnels = told("/api/tunnels?sort=path&limit=2");
    assert_eq!(names(&value["tunnels"]), names(&tunnels));
    assert_eq!(value["tunnels"]["next"], tunnels["next"]);
    assert_eq!(names(&value["tunnels"]["tunnels"][1]), names(&tunnels["tunnels"][1]));
}

#[test]
fn reader_that_has_seen_enough_is_no_fault() {
    let watched = Watched::start(Upstream::nobody(), &[]);
    for flag in ["--once", "--json"] {
        let mut command = Elbows::command();
        command.args(["top", flag, &watched.admin.to_string()]);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
    }
}

#[test]
fn exit_code_is_2_for_what_was_asked_and_1_where_nobody_answers() {
    let watched = Watched::start(Upstream::nobody(), &[]);
    let place = watched.admin.to_string();
    let nobody = format!("127.0.0.1:{}", free_port());
    for (arguments, code, sentence) in [
        (&[][..], 2, "<ADDRESS>"),
        (&["off"], 2, "the admin port of that elbows is off"),
        (&["here"], 2, "give a port, as 9145"),
        (&[&*place, "--limit=0"], 2, "1..=1000"),
        (&[&*place, "--sort=colour"], 2, "must be one of id, client"),
        (&[&*place, "--state=gone"], 2, "half_closed"),
        // It is no terminal.
        (&[&*place], 2, "standard output is no terminal; --once prints one table"),
        // elbows says what is wrong.
        (&[&*place, "--once", "--client=x"], 2, "client=\"x\": give an address"),
        (&[&*place, "--json", "--idle=x"], 2, "idle=\"x\": give a time with its unit"),
        (&[&*nobody, "--once"], 1, "connection refused"),
        (&["/nowhere/admin.sock", "--json"], 1, "no answer from /nowhere/admin.sock: no such file"),
    ] {
        let output = run(arguments, &[]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(sentence), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty() && !said.contains("panicked"), "{said}");
    }
    // In a terminal too, which is not even touched.
    let top = Terminal::start(USUAL, &[], &[&nobody]);
    top.expect_end(1);
    assert!(top.screen().contains("connection refused"), "{}", top.screen());
}
