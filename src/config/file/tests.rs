//! Files with every kind of fault, each with what is said of it: `tests/config_file`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::routing::{HostPattern, PathPattern};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config_file")
}

/// The files, without those whose name does not end so.
fn files() -> Vec<PathBuf> {
    let all = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> =
        all.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    all.sort();
    all
}

/// The variables with which the files are read: there is no application beside those of the file.
fn variables() -> (Settings, Config) {
    let mut settings = Settings::default();
    for (variable, text) in
        [("LISTEN_ON", "45400"), ("CONFIG_FILE", "elbows.toml"), ("THREADS", "1")]
    {
        settings.set(variable, String::from(text));
    }
    for setting in settings::all() {
        if let settings::Unset::Default(text) = setting.unset
            && settings.get(setting.variable).is_none()
        {
            settings.set(setting.variable, String::from(text));
        }
    }
    let config = Config::from_settings(&settings).unwrap();
    (settings, config)
}

/// With an application of the variables.
fn with_destination() -> (Settings, Config) {
    let (mut settings, _) = variables();
    settings.set("DESTINATION_HOSTNAME", String::from("app"));
    settings.set("DESTINATION_PORT", String::from("45490"));
    let config = Config::from_settings(&settings).unwrap();
    (settings, config)
}

/// What is said of a file: the faults, or that there is none.
fn said(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let (settings, config) =
        if name == "upstream_is_missing.toml" { variables() } else { with_destination() };
    match read(&text, &settings, Some(&config)) {
        Ok(routing) => routing.effective(&config),
        Err(faults) => rendered(&faults, name, &text),
    }
}

#[test]
fn each_fault_is_told_with_its_line_and_all_at_once() {
    let mut count = 0;
    for path in files() {
        let expected = fs::read_to_string(path.with_extension("txt")).unwrap_or_default();
        let said = said(&path);
        assert_eq!(said, expected, "{} is to be:\n{said}", path.with_extension("txt").display());
        count += 1;
    }
    assert!(count >= 13, "{count}");
}

/// What is said is to be read before it is believed.
#[test]
#[ignore = "writes what it is to be held against"]
fn write_what_is_said_of_each_file() {
    for path in files() {
        fs::write(path.with_extension("txt"), said(&path)).unwrap();
    }
}

/// The schema that editors read, as the table has it.
#[test]
#[ignore = "writes what it is to be held against"]
fn write_the_schema() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas/config_file.json");
    fs::write(path, serde_json::to_string_pretty(&schema()).unwrap() + "\n").unwrap();
}

fn good() -> Routing {
    let (settings, config) = with_destination();
    let text = fs::read_to_string(folder().join("good.toml")).unwrap();
    read(&text, &settings, Some(&config)).unwrap()
}

#[test]
fn settings_that_are_not_said_are_those_of_the_group_and_then_of_the_variables() {
    let routing = good();
    let [chat, files] = &routing.routes[..] else { panic!("{routing:?}") };
    let seconds = |config: &Config| config.ping_interval.map(|time| time.as_secs());
    assert_eq!(seconds(&routing.upstreams[0].config), Some(20));
    assert_eq!(seconds(&chat.config), Some(20));
    assert_eq!(seconds(&files.config), None);
    assert_eq!(chat.config.pong_timeout.as_secs(), 5);
    assert_eq!(files.config.pong_timeout.as_secs(), 20);
    assert_eq!(files.config.max_body_size, Some(65_536));
    assert_eq!((chat.upstream, files.upstream), (Some(0), None));
    assert_eq!(files.config.destination().to_string(), "app:45490");
    assert_eq!(chat.config.destination().to_string(), "chat-1:8080, chat-2:8080");
    assert!(chat.config.forwarded_header);
}

#[test]
fn conditions_and_changes_are_those_of_the_file() {
    let routing = good();
    let chat = &routing.routes[0];
    let hosts = ["chat.example.com", "chat.example.com"].map(String::from);
    let [exact, below] = hosts;
    assert_eq!(chat.conditions.hosts, [HostPattern::Exact(exact), HostPattern::Below(below)]);
    assert_eq!(chat.conditions.path, PathPattern::Prefix(String::from("/chat")));
    assert_eq!(chat.conditions.headers, [(String::from("x-tenant"), String::from("blue"))]);
    assert_eq!(chat.conditions.upgrade, Some(true));
    assert_eq!(chat.changes.strip, 5);
    assert_eq!(chat.changes.set, [(String::from("X-Route"), String::from("chat"))]);
    assert_eq!(chat.changes.remove, ["cookie"]);
    assert_eq!(routing.routes[1].conditions.path, PathPattern::Exact(String::from("/files.json")));
}

#[test]
fn faults_of_variables_are_not_told_as_those_of_the_file() {
    let text = "[[routes]]\nname = \"a\"\npong_timeout = \"x\"\n";
    let faults = read(text, &Settings::default(), None).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:?}");
}

/// Whatever a file holds, it is read or refused, and each fault stands somewhere in it.
mod any_file {
    use proptest::prelude::*;

    use super::*;

    fn piece() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "[[routes]]\n",
            "[upstreams.a]\n",
            "[routes]\n",
            "name = \"a\"\n",
            "name = \"b\"\n",
            "host = \"a\"\n",
            "host = [\"*.a\", \"b\"]\n",
            "path = \"/a\"\n",
            "path_prefix = \"/\"\n",
            "upstream = \"a\"\n",
            "strip_prefix = true\n",
            "upgrade = false\n",
            "headers = { x-a = \"1\" }\n",
            "ping_interval = \"1s\"\n",
            "max_frame_size = 1000\n",
            "max_message_size = 999\n",
            "destination_hostname = \"x\"\n",
            "destination_port = 1\n",
            "x = 1979-05-27\n",
            "é = \"ü\"\n",
            "request_headers = { remove = [\"a\"] }\n",
            "\u{feff}",
            "\"\"\"\n",
            "[",
            "= 5\n",
            "\r\n",
            "a.b.c = 1\n",
            "balance = \"random\"\n",
        ])
    }

    proptest! {
        #[test]
        fn is_read_or_refused(pieces in prop::collection::vec(piece(), 0..12)) {
            let text = pieces.concat();
            let (settings, config) = with_destination();
            if let Err(faults) = read(&text, &settings, Some(&config)) {
                prop_assert!(!faults.is_empty());
                for fault in &faults {
                    prop_assert!(fault.at.end <= text.len() && fault.at.start <= fault.at.end, "{:?}", fault);
                }
                prop_assert!(rendered(&faults, "a.toml", &text).contains("error: "));
            }
        }
    }
}
