//! Rules of the house that the compiler does not know (docs/architecture.md).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

/// Files and folders whose code takes bytes and time and returns values.
const PURE: &[&str] = &[
    "proxy_protocol.rs",
    "proxy_protocol",
    "http/head.rs",
    "http/head",
    "http/framing.rs",
    "end.rs",
    "access_log/line.rs",
    "config",
    "config.rs",
    "clock.rs",
    "encoding.rs",
    "peer.rs",
    "websocket.rs",
    "websocket",
    "tunnel/close_handshake.rs",
    "tunnel/encoding.rs",
    "tunnel/flow.rs",
    "tunnel/identity.rs",
    "tunnel/rules.rs",
    "tunnel/state.rs",
    "tunnel/times.rs",
    "tunnel/waiting.rs",
    "relay/wheel.rs",
    "limits/network.rs",
    "limits/rate.rs",
    "limits/table.rs",
];

/// What such code must not name.
const SOCKETS: &[&str] = &[
    "tokio::",
    "mio::",
    "hyper::",
    "socket2::",
    "TcpStream",
    "TcpListener",
    "std::io",
    "async fn",
];

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(path)
}

fn rust_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut files: Vec<_> = entries.flat_map(|entry| rust_files(&entry.unwrap().path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    files
}

/// Code that reads and writes through traits: whoever calls it has the sockets.
const GENERIC: &[&str] = &["tunnel/flow", "tunnel/moment.rs"];

/// Folders and files of the above whose time and random numbers come in as arguments.
const CLOCKLESS: &[&str] = &[
    "clock.rs",
    "encoding.rs",
    "websocket.rs",
    "websocket",
    "tunnel/close_handshake.rs",
    "tunnel/encoding.rs",
    "tunnel/flow.rs",
    "tunnel/flow",
    "tunnel/identity.rs",
    "tunnel/moment.rs",
    "tunnel/rules.rs",
    "tunnel/state.rs",
    "tunnel/times.rs",
    "relay/wheel.rs",
];

/// What gives time and random numbers.
const CLOCKS: &[&str] =
    &["Instant::now", "SystemTime", ".elapsed()", "clock_gettime", "RandomState"];

fn names_none_of(words: &[&str], paths: &[&str]) {
    let files = paths.iter().flat_map(|path| rust_files(&source(path)));
    for file in files.filter(|file| !file.ends_with("tests.rs")) {
        let text = fs::read_to_string(&file).unwrap();
        // Tests may compare with whatever they like.
        let code = text
            .lines()
            .take_while(|line| *line != "#[cfg(test)]")
            .filter(|line| !line.trim_start().starts_with("//"));
        for (number, line) in code.enumerate() {
            for word in words {
                assert!(!line.contains(word), "{}: {number}: {line}", file.display());
            }
        }
    }
}

#[test]
fn pure_code_knows_no_sockets() {
    names_none_of(SOCKETS, PURE);
    let sockets: Vec<_> = SOCKETS.iter().copied().filter(|word| *word != "std::io").collect();
    names_none_of(&sockets, GENERIC);
}

#[test]
fn pure_code_asks_for_no_time_and_no_random_numbers() {
    names_none_of(CLOCKS, CLOCKLESS);
}

/// What dates a line may ask what time it is. Everything else counts with the monotonic clock: a wall
/// clock jumps when it is set.
#[test]
fn time_limits_know_no_wall_clock() {
    let dates = |file: &Path| {
        file.ends_with("access_log/line.rs") || file.starts_with(source("demo/application.rs"))
    };
    for file in rust_files(&source("")).into_iter().filter(|file| !dates(file)) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("SystemTime"), "{}", file.display());
    }
}

#[test]
fn each_file_says_what_lives_there() {
    for file in rust_files(&source("")) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//! "), "{} has no opening", file.display());
    }
}

#[test]
fn the_story_of_a_connection_stays_short() {
    let story = fs::read_to_string(source("connection.rs")).unwrap();
    assert!(story.lines().count() < 200);
}

#[test]
fn module_files_stand_beside_their_folders() {
    for file in rust_files(&source("")) {
        assert_ne!(file.file_name().unwrap(), "mod.rs", "{}", file.display());
    }
}
