//! The documents, held against the code: what they say of settings, ends and commands is so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use elbows::config::settings::{self, Scope, Unset};
use elbows::config::{Config, Settings, file};
use elbows::deployment::{self, Changed, Deployment, Facts, Finding};
use elbows::end::{Phase, Reason, Side};
use elbows::metrics::families::{self, Family};

fn document(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of the table whose first head cell is `head`, cell by cell.
fn table(text: &str, head: &str) -> Vec<Vec<String>> {
    let start = format!("| {head} |");
    let rows: Vec<_> = text
        .lines()
        .skip_while(|line| !line.starts_with(&start))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect();
    assert!(!rows.is_empty(), "no table that begins with {start}");
    rows
}

fn code_words(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn command() -> Command {
    Settings::augment_args(Command::new("elbows"))
}

/// The settings table of docs/configuration.md, by variable.
fn rows() -> BTreeMap<String, Vec<String>> {
    table(&document("docs/configuration.md"), "variable")
        .into_iter()
        .map(|row| (row[0].trim_matches('`').to_owned(), row))
        .collect()
}

/// Settings in which `variable` has `value` and everything else fits to it.
fn with(variable: &str, value: &str) -> Result<Config, String> {
    let mut given = BTreeMap::from([
        ("LISTEN_ON", "45400"),
        ("DESTINATION_HOSTNAME", "app"),
        ("DESTINATION_PORT", "45490"),
    ]);
    if value == "optional" {
        given.insert("TRUSTED_PROXIES", "10.0.0.0/8");
    }
    if value == "refuse" {
        given.insert("ALLOWED_ORIGINS", "https://app.example");
        given.insert("UPSTREAM_CHECK", "tcp");
    }
    given.insert(variable, value);
    let words = given.iter().map(|(variable, value)| {
        format!("--{}={value}", variable.to_lowercase().replace('_', "-"))
    });
    let matches = command().no_binary_name(true).get_matches_from(words);
    let settings = Settings::from_arg_matches(&matches).unwrap();
    Config::from_settings(&settings)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

#[test]
fn every_setting_is_documented_with_its_flag_default_and_bounds() {
    let mut rows = rows();
    for setting in settings::all() {
        let variable = setting.variable;
        let row = rows.remove(variable).unwrap_or_else(|| panic!("{variable} is not documented"));
        assert_eq!(row[1], format!("`--{}`", setting.flag), "{variable}");
        let default = match setting.unset {
            Unset::Default(value) => format!("`{value}`"),
            Unset::Missing(_) => String::from("must be set"),
            Unset::MissingWithoutFile(_) => String::from("must be set, or `CONFIG_FILE`"),
        };
        assert_eq!(row[3], default, "{variable}");
        assert_eq!(row[4], setting.bounds, "{variable}");
        assert!(row[2].len() > 10, "{variable} has a meaning");
    }
    assert!(rows.is_empty(), "documented and not there: {rows:?}");
}

/// `docs/schemas/config_file.json` is what the table says, key by key, so that editors know each.
#[test]
fn schema_of_the_file_has_every_key() {
    let schema = file::schema();
    let written = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    let documented = document("docs/schemas/config_file.json");
    assert!(documented == written, "docs/schemas/config_file.json is to be:\n{written}");
    let keys = |of: &str| schema.pointer(of).unwrap().as_object().unwrap();
    let upstream = keys("/properties/upstreams/additionalProperties/properties");
    let route = keys("/properties/routes/items/properties");
    for setting in settings::all() {
        let key = setting.variable.to_lowercase();
        let is_known = (upstream.contains_key(&key), route.contains_key(&key));
        let expected = match setting.scope {
            Scope::Process => (false, false),
            Scope::Upstream => (true, false),
            Scope::Route => (true, true),
        };
        assert_eq!(is_known, expected, "{key}");
    }
    assert!(file::ROUTE_KEYS.iter().all(|key| route.contains_key(*key)));
}

/// The lists of keys in docs/routes.md are those of the table.
#[test]
fn keys_of_the_file_are_documented() {
    let text = document("docs/routes.md");
    for (head, scope) in
        [("key of an upstream", Scope::Upstream), ("key of a route or an upstream", Scope::Route)]
    {
        let all = settings::all().into_iter().filter(|setting| setting.scope == scope);
        let keys: Vec<_> = all.map(|setting| setting.variable.to_lowercase()).collect();
        let rows = table(&text, head);
        let documented: Vec<_> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
        assert_eq!(documented, keys, "{head}");
    }
    let rows = table(&text, "key");
    let documented: Vec<_> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    assert_eq!(documented, file::ROUTE_KEYS);
}

/// The example of docs/routes.md is a good file.
#[test]
fn documented_file_is_read() {
    let text = document("docs/routes.md");
    let example = text.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let config = with("THREADS", "1").unwrap();
    let routing = file::read(example, &Settings::default(), Some(&config)).unwrap();
    assert!(routing.routes.len() >= 2);
}

/// What the command line takes is the table, whole and in its order.
#[test]
fn every_setting_is_a_flag_and_a_variable() {
    let command = command();
    let taken: Vec<_> = command
        .get_arguments()
        .map(|arg| (arg.get_env().unwrap().to_str().unwrap(), arg.get_long().unwrap()))
        .collect();
    let all = settings::all();
    let defined: Vec<_> =
        all.iter().map(|setting| (setting.variable, setting.flag.as_str())).collect();
    assert_eq!(taken, defined);
}

#[test]
fn documented_values_are_taken() {
    for (variable, row) in rows() {
        for value in code_words(&row[4]) {
            if value != "LISTEN_ON" {
                with(&variable, value)
                    .unwrap_or_else(|fault| panic!("{variable}={value}: {fault}"));
            }
        }
    }
}

#[test]
fn documented_bounds_are_the_bounds() {
    let beyond = |value: &str| match value {
        "0s" | "auto" => None,
        "10ms" => Some("9ms"),
        "100ms" => Some("99ms"),
        "1s" => Some("999ms"),
        "1h" => Some("3601s"),
        "1day" => Some("86401s"),
        "30days" => Some("2592001s"),
        "125" => Some("124"),
        "1TiB" => Some("1025GiB"),
        "8KiB" => Some("8191"),
        "1MiB" => Some("1025KiB"),
        "20" => Some("19"),
        "1000" => Some("1001"),
        "10000000" => Some("10000001"),
        "4000" => Some("3999"),
        "4999" => Some("5000"),
        "1" => Some("0"),
        "10" => Some("11"),
        "256" => Some("257"),
        "65535" => Some("65536"),
        other => panic!("what is beyond {other}?"),
    };
    let mut checked = 0;
    for (variable, row) in rows() {
        let Some((_, bounds)) = row[4].split_once("from ") else { continue };
        for value in code_words(bounds).into_iter().filter_map(beyond) {
            let fault = with(&variable, value).expect_err(value);
            assert!(fault.starts_with(&format!("{variable}={value:?}: ")), "{fault}");
            checked += 1;
        }
    }
    assert!(checked >= 33, "{checked}");
}

#[test]
fn effective_settings_are_all_settings_in_their_order() {
    let config = with("THREADS", "2").unwrap();
    let effective: Vec<_> = config.effective().into_iter().map(|(variable, _)| variable).collect();
    let defined: Vec<_> = settings::all().iter().map(|setting| setting.variable).collect();
    assert_eq!(effective, defined);
    for (variable, value) in config.effective() {
        assert_eq!(with(variable, &value).map(|_| ()), Ok(()), "{variable}={value} is taken back");
    }
}

#[test]
fn defaults_for_tests_are_the_defaults() {
    let from_settings = with("LISTEN_ON", "127.0.0.1:45400").unwrap();
    let listen_on = "127.0.0.1:45400".parse().unwrap();
    assert_eq!(Config::for_destination(listen_on, "app", 45490), from_settings);
}

/// The table of docs/admin.md is the table of the code, row by row.
#[test]
fn every_metric_is_documented_with_its_type_labels_and_ranges() {
    let rows: Vec<_> = families::ALL
        .iter()
        .map(|family| {
            let Family { name, kind, unit, labels, ranges, help } = family;
            let range = |bound: &u64| match *unit {
                "seconds" => {
                    let time = Duration::from_micros(*bound);
                    humantime::format_duration(time).to_string().replace(' ', "")
                }
                _ => bound.to_string(),
            };
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            [
                format!("`{name}{}`", kind.suffix()),
                kind.as_str().to_owned(),
                labels.join(", "),
                ranges.iter().map(range).collect::<Vec<_>>().join(", "),
                (*help).to_owned(),
            ]
        })
        .collect();
    let documented = table(&document("docs/admin.md"), "metric");
    let should_be: Vec<_> = rows.iter().map(|row| format!("| {} |", row.join(" | "))).collect();
    assert_eq!(documented, rows, "the table is to be:\n{}", should_be.join("\n"));
}

#[test]
fn words_of_ends_are_documented() {
    let operations = document("docs/operations.md");
    let words = |head: &str| -> Vec<String> {
        table(&operations, head).into_iter().map(|row| row[0].trim_matches('`').into()).collect()
    };
    assert_eq!(words("`by`"), Side::ALL.map(Side::as_str));
    assert_eq!(words("`during`"), Phase::ALL.map(Phase::as_str));
    assert_eq!(words("`why`"), Reason::ALL.map(Reason::as_str));
}

/// The default settings, with these times of the drain as a document writes them (`60s`).
fn draining(delay: &str, period: &str, grace: &str) -> Config {
    let [drain_delay, drain_period, drain_grace] =
        [delay, period, grace].map(|time| humantime::parse_duration(time).unwrap());
    let listen_on = "127.0.0.1:45400".parse().unwrap();
    let config = Config::for_destination(listen_on, "app", 45490);
    Config { drain_delay, drain_period, drain_grace, ..config }
}

/// `90 s (TimeoutStopSec=)` is 90 seconds.
fn first_seconds(cell: &str) -> Duration {
    humantime::parse_duration(&cell.split_whitespace().take(2).collect::<String>()).unwrap()
}

#[test]
fn documented_drains_fit_to_their_places() {
    let rows = table(&document("docs/operations.md"), "where");
    for row in &rows {
        let place = match row[0].as_str() {
            place if place.starts_with("`docker stop`") => Deployment::Docker,
            place if place.starts_with("ECS") => Deployment::Ecs,
            place if place.starts_with("instance behind an NLB") => Deployment::Nlb,
            place if place.starts_with("instance behind a classic ELB") => Deployment::Elb,
            place if place.starts_with("Kubernetes") => Deployment::Kubernetes,
            other => panic!("what is {other}?"),
        };
        let times = [&row[2], &row[3], &row[4]].map(|cell| cell.trim_matches('`'));
        let config = draining(times[0], times[1], times[2]);
        let killed_after = Some(first_seconds(&row[1]));
        let found =
            deployment::findings(place, &config, Changed { killed_after, idle_timer: None });
        assert_eq!(deployment::contradictions(&found), "", "{row:?}");
        let in_all = row[5].split(" (").next().unwrap();
        let Some(Finding::Sum(sum)) = found.first() else { panic!("{found:?}") };
        assert!(sum.contains(&format!(" = {in_all};")), "{row:?}: {sum}");
    }
    assert_eq!(rows.len(), 9);
}

#[test]
fn facts_of_places_and_what_must_be_set_there_are_documented() {
    let operations = document("docs/operations.md");
    let rows = table(&operations, "`--for`");
    let config = draining("60s", "20s", "5s");
    let names = |place| {
        let found = deployment::findings(place, &config, Changed::default());
        let names = found.into_iter().filter_map(|finding| match finding {
            Finding::Set { name, .. } => Some(name),
            _ => None,
        });
        names.collect::<Vec<_>>()
    };
    assert_eq!(rows.len(), Deployment::COUNT);
    for (row, place) in rows.iter().zip(Deployment::ALL) {
        assert_eq!(row[0], format!("`{}`", place.as_str()));
        let Facts { killed_after, longest, sends_new_for, idle_timer, .. } = place.facts();
        let seconds = |time: Duration| format!("{} s", time.as_secs());
        let most = longest.map(|time| format!(", {} at most", seconds(time))).unwrap_or_default();
        assert_eq!(row[1], seconds(killed_after) + &most);
        assert_eq!(row[2], seconds(sends_new_for));
        assert_eq!(row[3], idle_timer.map(seconds).unwrap_or_default());
        assert_eq!(code_words(&row[4]), names(place));
    }
    // The attributes of a target group have their values and reasons in a table of their own.
    let attributes: Vec<_> = table(&operations, "attribute")
        .into_iter()
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect();
    let mut of_nlb = names(Deployment::Nlb);
    assert_eq!(of_nlb.pop(), Some("TimeoutStopSec="));
    assert_eq!(attributes, of_nlb);
    // The example is what it prints.
    let found = deployment::findings(
        Deployment::Kubernetes,
        &draining("2s", "5s", "2s"),
        Changed::default(),
    );
    let printed = deployment::report(&found) + &deployment::contradictions(&found);
    assert!(
        operations.contains(&format!("$ elbows check --for kubernetes\n{printed}```")),
        "{printed}"
    );
}
