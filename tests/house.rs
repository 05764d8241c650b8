//! Rules of the house that the compiler does not know (docs/architecture.md).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

/// Files and folders whose code takes bytes and time and returns values.
const PURE: &[&str] = &[
    "access_log/line.rs",
    "admin.rs",
    "admin",
    "client.rs",
    "clock.rs",
    "config",
    "config.rs",
    "connection.rs",
    "connection",
    "deployment.rs",
    "encoding.rs",
    "encoding",
    "end.rs",
    "exchange.rs",
    "exchange",
    "http.rs",
    "http",
    "limits/network.rs",
    "limits/rate.rs",
    "limits/table.rs",
    "metrics/exemplars.rs",
    "metrics/exposition.rs",
    "metrics/families.rs",
    "metrics/labels.rs",
    "metrics/own.rs",
    "metrics/sizes.rs",
    "metrics/text.rs",
    "metrics/traffic.rs",
    "metrics/tunnels.rs",
    "metrics/worker.rs",
    "outgoing.rs",
    "peer.rs",
    "proxy_protocol.rs",
    "proxy_protocol",
    "routes/input.rs",
    "routes/clear_path.rs",
    "routes/explain.rs",
    "routes/table.rs",
    "routes/texts.rs",
    "workers/wheel.rs",
    "../top/src/answers.rs",
    "../top/src/close.rs",
    "../top/src/columns.rs",
    "../top/src/filters.rs",
    "../top/src/model.rs",
    "../top/src/model",
    "../top/src/place.rs",
    "../top/src/plain.rs",
    "../top/src/text.rs",
    "../top/src/units.rs",
    "../top/src/view.rs",
    "../top/src/view",
    "tunnel/close_handshake.rs",
    "tunnel/encoding.rs",
    "tunnel/flow.rs",
    "tunnel/identity.rs",
    "tunnel/rules.rs",
    "tunnel/state.rs",
    "tunnel/times.rs",
    "tunnel/waiting.rs",
    "upstream/addresses/answers.rs",
    "upstream/addresses/members.rs",
    "upstream/balance.rs",
    "upstream/candidates.rs",
    "upstream/sticky.rs",
    "upstream/sticky",
    "upstream/departures.rs",
    "upstream/rebalance.rs",
    "upstream/check_times.rs",
    "upstream/health.rs",
    "websocket.rs",
    "websocket",
];

/// Code that reads and writes through traits: whoever calls it has the sockets.
const GENERIC: &[&str] = &["tunnel/flow", "tunnel/moment.rs"];

/// A word that pure code must not have, and what it would bring in.
type Ban = (&'static str, &'static str);

/// What pure code must not name.
const BANS: &[Ban] = &[
    ("tokio::", "a runtime"),
    ("mio::", "a poll"),
    ("hyper::", "somebody else's HTTP"),
    ("socket2::", "sockets"),
    ("rustix::", "system calls"),
    ("std::net::Tcp", "sockets"),
    ("TcpStream", "sockets"),
    ("TcpListener", "sockets"),
    ("UdpSocket", "sockets"),
    ("std::os::fd", "descriptors"),
    ("std::io", "reading and writing"),
    ("std::fs", "files"),
    ("std::env", "the environment"),
    ("std::thread", "threads"),
    ("thread_local!", "a global"),
    ("static mut", "a global"),
    ("OnceLock", "a global"),
    ("LazyLock", "a global"),
    ("Instant::now", "a clock"),
    (".elapsed()", "a clock"),
    ("SystemTime", "a clock that jumps"),
    ("RandomState", "random numbers"),
    // The start of the count is one for the process: what came when is told as time since then.
    ("crate::workers", "threads, and a global"),
    ("async fn", "a runtime"),
];

/// What generic code may name all the same.
const OF_GENERIC: &[&str] = &["std::io"];

/// Pure files that still break a ban: the file and the word. A line that is no longer true fails, so that the list
/// can only become shorter; it is to become empty.
const KNOWN: &[(&str, &str)] = &[
    // It asks how many cores there are.
    ("config", "std::thread"),
    // What nobody may guess is to come in as an argument.
    ("limits/rate.rs", "RandomState"),
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

/// The files of production code: the proxy's, the demonstration's and those of `elbows top`.
fn everything() -> Vec<PathBuf> {
    ["", "../demo/src", "../top/src"]
        .into_iter()
        .flat_map(|folder| rust_files(&source(folder)))
        .collect()
}

/// The lines of a file that are code, numbered. Tests may use whatever they like.
fn code(file: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().take_while(|line| line.trim_start() != "#[cfg(test)]");
    let lines = lines.enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    lines.map(|(number, line)| (number + 1, line.to_owned())).collect()
}

/// Every place where the files break a ban: where, which word, and what it brings in.
fn broken<'b>(paths: &[&'static str], bans: &[&'b Ban]) -> Vec<(&'static str, &'b str, String)> {
    let mut broken = Vec::new();
    for path in paths {
        for file in rust_files(&source(path)) {
            // Long tests of a file lie beside it.
            if file.file_stem().is_some_and(|stem| stem == "tests") {
                continue;
            }
            for (number, line) in code(&file) {
                for (word, brings) in bans {
                    if line.contains(word) {
                        let place = format!("{}:{number} brings in {brings}", file.display());
                        broken.push((*path, *word, format!("{place}: {}", line.trim())));
                    }
                }
            }
        }
    }
    broken
}

#[test]
fn pure_code_knows_no_sockets_no_clock_and_no_chance() {
    let bans: Vec<_> = BANS.iter().collect();
    let of_generic: Vec<_> = BANS.iter().filter(|(word, _)| !OF_GENERIC.contains(word)).collect();
    let broken = [broken(PURE, &bans), broken(GENERIC, &of_generic)].concat();
    let known = |path: &str, word: &str| KNOWN.contains(&(path, word));
    let new: Vec<_> = broken.iter().filter(|(path, word, _)| !known(path, word)).collect();
    assert!(new.is_empty(), "{new:#?}");
    for known in KNOWN {
        let is_there = broken.iter().any(|(path, word, _)| (*path, *word) == *known);
        assert!(is_there, "{known:?} is mended: take it from the list");
    }
}

/// `.cargo/config.toml` gives one to each run of cargo, `cargo xtask test --long` another.
#[test]
fn property_tests_have_a_seed_that_is_known() {
    let seed = std::env::var("PROPTEST_RNG_SEED").expect("cargo sets it");
    assert!(seed.parse::<u64>().is_ok(), "{seed}");
}

/// The topics of tests/e2e that are about heads: each test runs in one piece and byte by byte, or says why not.
const TOPICS_OF_HEADS: &[&str] = &[
    "access_log",
    "admission",
    "answers",
    "bad_requests",
    "bodies",
    "forwarding",
    "health",
    "older_container",
    "proxy_header",
    "trace_context",
    "upgrade",
    "upstream_faults",
];

#[test]
fn tests_of_heads_run_in_one_piece_and_byte_by_byte() {
    for topic in TOPICS_OF_HEADS {
        let file = source(&format!("../tests/e2e/{topic}.rs"));
        let text = fs::read_to_string(&file).unwrap();
        let (tests, list) = text.split_once("\nbyte_by_byte!({").expect("the list of the topic");
        let named: Vec<_> =
            list.split(|letter: char| !letter.is_alphanumeric() && letter != '_').collect();
        let lines: Vec<_> = tests.lines().collect();
        let mut all = 0;
        for pair in lines.windows(2).filter(|pair| pair[0].trim() == "#[test]") {
            let name = pair[1].strip_prefix("fn ").and_then(|rest| rest.split('(').next());
            let name = name.unwrap_or_else(|| panic!("{topic}: what is {:?}?", pair[1]));
            assert!(named.contains(&name), "{topic}::{name} is not in its list `byte_by_byte!`");
            all += 1;
        }
        assert!(all > 3, "{topic}: {all} tests");
    }
}

/// What dates a line may ask what time it is. Everything else counts with the monotonic clock: a wall
/// clock jumps when it is set.
#[test]
fn time_limits_know_no_wall_clock() {
    for file in rust_files(&source("")) {
        // A scrape tells when the process started, as the rest of the world counts.
        if file.ends_with("access_log.rs") || file.ends_with("metrics/process.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("SystemTime"), "{}", file.display());
    }
}

#[test]
fn each_file_says_what_lives_there() {
    for file in everything() {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//! "), "{} has no opening", file.display());
    }
}

#[test]
fn the_story_of_a_connection_stays_short() {
    let story = fs::read_to_string(source("connection.rs")).unwrap();
    assert!(story.lines().count() < 200);
}

/// Long tests of a file lie beside it, and the bodies of fuzz targets are no production code.
#[test]
fn no_file_of_production_code_is_over_500_lines() {
    for file in everything() {
        let path = file.to_string_lossy().into_owned();
        if path.contains("tests") || path.contains("/fuzzing") || path.contains("/schedule") {
            continue;
        }
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 500, "{path} has {lines}");
    }
}

#[test]
fn module_files_stand_beside_their_folders() {
    for file in everything() {
        assert_ne!(file.file_name().unwrap(), "mod.rs", "{}", file.display());
    }
}

/// A test waits for conditions, with a deadline, and never for time. Where it has to, it says why.
#[test]
fn each_sleep_of_a_test_has_its_reason_or_its_deadline() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = ["tests", "demo", "bench"]
        .iter()
        .flat_map(|folder| rust_files(&root.join(folder)))
        .collect();
    let sources = rust_files(&source(""));
    files.extend(sources.into_iter().filter(|file| file.to_string_lossy().contains("tests")));
    let mut sleeps = 0;
    let mut without = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            if line.starts_with("//") || line.contains('"') || !line.contains("sleep(") {
                continue;
            }
            sleeps += 1;
            let has_deadline = lines[at.saturating_sub(8)..at]
                .iter()
                .any(|line| line.contains("deadline") || line.contains("elapsed()"));
            if !lines[at - 1].starts_with("//") && !has_deadline {
                without.push(format!("{}:{}", file.display(), at + 1));
            }
        }
    }
    assert!(sleeps > 40, "{sleeps}: it no longer knows a sleep when it sees one");
    assert!(without.is_empty(), "neither a reason in the line above nor a deadline: {without:#?}");
}
