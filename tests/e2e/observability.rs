//! The files for Prometheus and Grafana (`deploy/observability`), held against a running elbows and a real Prometheus.

mod night;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::admin::metrics::scrape;
use crate::admin::{Admin, ask, text};
use crate::client::{Client, handshake};
use crate::programs::{Program, python, wait_until};
use crate::proxy::free_port;
use crate::upstream::Upstream;
use crate::web_socket::{Tunnels, talk};
use elbows::metrics::families::{self, Kind};

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/observability").join(file)
}

fn operations() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap()
}

/// A Prometheus with the configuration of this repository, which asks each second.
struct Prometheus {
    _program: Program,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    fn of(admin: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut text = fs::read_to_string(deploy("prometheus.yaml")).unwrap();
        for (theirs, ours) in [
            ("scrape_interval: 15s", "scrape_interval: 1s"),
            ("evaluation_interval: 15s", "evaluation_interval: 1s"),
            ("- alerts.yaml", &format!("- {}", deploy("alerts.yaml").display())),
            ("\"localhost:9145\"]", &format!("\"{admin}\"]")),
        ] {
            assert!(text.contains(theirs), "{theirs} in {text}");
            text = text.replacen(theirs, ours, 1);
        }
        let configuration = directory.path().join("prometheus.yaml");
        fs::write(&configuration, text).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--log.level=warn", "--enable-feature=exemplar-storage"]);
        let program = Program::start(command).listening(address);
        let prometheus = Self { _program: program, address, _directory: directory };
        wait_until("Prometheus has a scrape", || prometheus.number("up", None) == Some(1.0));
        prometheus
    }

    fn get(&self, target: &str) -> Option<Value> {
        let response = ask(self.address, "GET", target, "");
        // At its start it says 503 for a moment.
        if response.status == 503 {
            return None;
        }
        assert_eq!(response.status, 200, "{target}: {}", response.text());
        let value: Value = serde_json::from_slice(&response.body).unwrap();
        Some(value["data"].clone())
    }

    /// What it finds: its labels and its number, now or at a time.
    fn find(&self, query: &str, time: Option<f64>) -> Vec<(Value, f64)> {
        let mut encoded = form_urlencoded::Serializer::new(String::new());
        encoded.append_pair("query", query);
        if let Some(time) = time {
            encoded.append_pair("time", &time.to_string());
        }
        let found = self.get(&format!("/api/v1/query?{}", encoded.finish())).unwrap_or_default();
        let found = found["result"].as_array().cloned().unwrap_or_default();
        let number = |one: &Value| one["value"][1].as_str().unwrap().parse().unwrap();
        found.into_iter().map(|one| (one["metric"].clone(), number(&one))).collect()
    }

    /// The one number that it finds.
    fn number(&self, query: &str, time: Option<f64>) -> Option<f64> {
        let found = self.find(query, time);
        assert!(found.len() <= 1, "{query}: {found:?}");
        found.first().map(|(_, number)| *number)
    }

    /// The alerts that fire.
    fn firing(&self) -> BTreeSet<String> {
        let alerts = self.get("/api/v1/alerts").unwrap_or_default();
        let alerts = alerts["alerts"].as_array().cloned().unwrap_or_default();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| text(&alert["labels"], "alertname").to_owned()).collect()
    }

    /// The rules that it has read, once each was evaluated.
    fn rules(&self) -> Vec<Value> {
        let mut rules = Vec::new();
        wait_until("each rule was evaluated", || {
            let groups = self.get("/api/v1/rules").unwrap_or_default();
            let group = groups["groups"][0]["rules"].as_array().cloned();
            rules = group.unwrap_or_default();
            !rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown")
        });
        rules
    }
}

/// What a query asks for.
struct Asked {
    selectors: Vec<Value>,
    grouped_by: Vec<String>,
}

/// Queries as a parser of others reads them.
fn parse(queries: &[String]) -> Vec<Asked> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), queries.join("\n")).unwrap();
    let mut command = python("promql.py");
    command.arg(file.path());
    let parsed: Vec<Value> =
        serde_json::from_str(&Program::start(command).succeed("parsed")).unwrap();
    assert_eq!(parsed.len(), queries.len());
    let asked = parsed.iter().map(|one| Asked {
        selectors: one["selectors"].as_array().unwrap().clone(),
        grouped_by: serde_json::from_value(one["grouped_by"].clone()).unwrap(),
    });
    asked.collect()
}

/// Each metric of the queries is in a scrape, and each label is one that it has, with a value that it can have.
fn assert_all_there(queries: &[String]) {
    let admin = Admin::start(Upstream::nobody(), &[]);
    let scrape = scrape(&admin, "prometheus");
    // By the names of samples: the labels, and the values that they have at the start.
    let mut there = BTreeMap::<String, BTreeSet<String>>::new();
    for family in families::ALL {
        let suffixes: &[&str] = match family.kind {
            Kind::Histogram => &["_bucket", "_sum", "_count"],
            kind => &[kind.suffix()],
        };
        for suffix in suffixes {
            let name = format!("{}{suffix}", family.name);
            let mut labels: BTreeSet<String> =
                family.labels.iter().map(|&label| label.to_owned()).collect();
            if *suffix == "_bucket" {
                labels.insert("le".to_owned());
            }
            let is_told =
                scrape.samples.keys().any(|sample| sample.split(' ').next() == Some(&name));
            // Of these nothing is there before something happened.
            assert!(is_told || name == "elbows_closes_total", "{name} is in no scrape");
            there.insert(name, labels);
        }
    }
    there.insert("up".to_owned(), BTreeSet::new());
    for (query, asked) in queries.iter().zip(parse(queries)) {
        assert!(!asked.selectors.is_empty(), "{query} asks for nothing");
        let mut known = BTreeSet::from(["job".to_owned(), "instance".to_owned()]);
        for selector in &asked.selectors {
            let metric = text(selector, "metric");
            let labels =
                there.get(metric).unwrap_or_else(|| panic!("there is no {metric} for {query}"));
            known.extend(labels.iter().cloned());
            for label in selector["labels"].as_array().unwrap() {
                let label = label.as_str().unwrap();
                let is_known = labels.contains(label) || ["job", "instance"].contains(&label);
                assert!(is_known, "{metric} has no label {label}: {query}");
            }
        }
        for label in &asked.grouped_by {
            assert!(known.contains(label), "nothing has a label {label}: {query}");
        }
    }
}

fn promtool(words: &[&str], input: Stdio) -> Output {
    Command::new("promtool")
        .args(words)
        .stdin(input)
        .current_dir(deploy(""))
        .output()
        .expect("there is promtool; `cargo xtask test` installs it")
}

fn assert_content(output: &Output) {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{out}{err}");
}

/// Of each alert, a case in which it fires and one in which it does not, and no other alert fires there.
#[test]
fn alerts_fire_where_they_should_and_nowhere_else() {
    assert_content(&promtool(&["check", "config", "prometheus.yaml"], Stdio::null()));
    assert_content(&promtool(&["check", "rules", "alerts.yaml"], Stdio::null()));
    assert_content(&promtool(&["test", "rules", "alerts-test.yaml"], Stdio::null()));
    let alerts = fs::read_to_string(deploy("alerts.yaml")).unwrap();
    let tests = fs::read_to_string(deploy("alerts-test.yaml")).unwrap();
    let cases: Vec<_> = tests.split("\n  - name: ").skip(1).collect();
    let alerts: Vec<_> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        let is_its = |case: &&&str| case.contains(&format!("alertname: {alert}\n"));
        let its: Vec<_> = cases.iter().filter(is_its).collect();
        let fires =
            its.iter().any(|case| case.contains("exp_labels: {") && case.contains("instance: bad"));
        let is_silent = its
            .iter()
            .any(|case| case.contains("instance=\"good\"") && !case.contains("instance: good"));
        assert!(fires && is_silent, "{alert}: it fires: {fires}, and it is silent: {is_silent}");
    }
}

/// Prometheus' own lints have nothing to say.
#[test]
fn scrape_is_as_prometheus_advises() {
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[]);
    let mut pair = application.open(&admin.elbows);
    talk(&mut pair, b"x");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), admin.ask("GET", "/metrics", "").body).unwrap();
    let output = promtool(&["check", "metrics"], fs::File::open(file.path()).unwrap().into());
    assert_content(&output);
    let said = [output.stdout, output.stderr].concat();
    assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn each_query_of_the_dashboard_is_one_and_asks_for_what_is_there() {
    let text = fs::read_to_string(deploy("dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    assert!(dashboard["schemaVersion"].as_u64() >= Some(36));
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
    let (mut queries, mut titles) = (Vec::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(titles.insert(title), "two panels are called {title}");
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title}");
        let unit = &panel["fieldConfig"]["defaults"]["unit"];
        assert!(unit.as_str().is_some_and(|unit| !unit.is_empty()), "{title} has no unit");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        // The number of such a metric is 1: what it tells is in its labels.
        let first = panel["targets"][0]["expr"].as_str().unwrap();
        let is_info = first.starts_with("elbows_build_info{");
        let (text, graph) = (&panel["options"]["textMode"], &panel["options"]["graphMode"]);
        assert!(!is_info || text == "name" && graph == "none", "{title} shows {text} and {graph}");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let query = target["expr"].as_str().unwrap();
            assert!(query.contains("{job=~\"$job\", instance=~\"$instance\""), "{query}");
            // A fixed range would leave out samples, or be shorter than a scrape.
            assert_eq!(query.contains('['), query.contains("[$__rate_interval]"), "{query}");
            let query = query
                .replace("$__rate_interval", "1m")
                .replace("$job", ".*")
                .replace("$instance", ".*");
            assert!(!query.contains('$'), "{query}");
            queries.push(query);
        }
    }
    assert!(queries.len() > 30, "{}", queries.len());
    assert_all_there(&queries);
    // And each metric that there is has its place.
    let shown = queries.join("\n");
    for family in families::ALL {
        let name = format!("{}{}", family.name, family.kind.suffix());
        assert!(shown.contains(&name), "{name} is nowhere on the dashboard");
    }
}

/// The anchor that a renderer of Markdown makes of a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|one| one.is_alphanumeric() || " -_".contains(*one));
    kept.collect::<String>().replace(' ', "-")
}

#[test]
fn each_alert_asks_for_what_is_there_and_has_a_page_to_read() {
    let admin = Admin::start(Upstream::nobody(), &[]);
    let prometheus = Prometheus::of(admin.address);
    let rules = prometheus.rules();
    let operations = operations();
    let anchors: Vec<_> =
        operations.lines().filter(|line| line.starts_with("### ")).map(anchor).collect();
    let mut queries = Vec::new();
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        let name = text(rule, "name");
        assert!(["critical", "warning"].contains(&text(&rule["labels"], "severity")), "{name}");
        let notes = &rule["annotations"];
        assert!(text(notes, "summary").contains("{{ $labels.instance }}"), "{name}");
        if name != "ElbowsDown" {
            assert!(text(notes, "description").contains("{{ $value"), "{name}");
        }
        let runbook = text(notes, "runbook").strip_prefix("docs/operations.md#").unwrap();
        assert!(anchors.iter().any(|anchor| anchor == runbook), "{name}: no heading {runbook}");
        queries.push(text(rule, "query").to_owned());
    }
    assert!(queries.len() > 10, "{}", queries.len());
    assert_all_there(&queries);
    // What an alert asks for is there before anything happened, so that the first of it is an increase.
    for selector in parse(&queries).iter().flat_map(|asked| &asked.selectors) {
        let series = text(selector, "text");
        assert!(!prometheus.find(series, None).is_empty(), "nothing is {series}");
    }
    assert_eq!(prometheus.firing(), BTreeSet::new());
}

/// Rates are what the clients counted: no message more, none less.
#[test]
fn prometheus_adds_up_what_the_clients_counted() {
    const ROUNDS: usize = 40;
    const TUNNELS: usize = 25;
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[("PING_INTERVAL", "off")]);
    let prometheus = Prometheus::of(admin.address);
    let last = |metric: &str| prometheus.number(metric, None).unwrap_or_default();
    wait_until("there is a sample before the load", || {
        prometheus.number("count_over_time(elbows_tunnels_opened_total[1m])", None) >= Some(2.0)
    });

    // Prometheus asks while it goes on.
    let (mut messages, mut payload, mut requests) = (0_u32, 0_u32, 0_u32);
    let mut pairs = Vec::new();
    let mut round = 0;
    while round < ROUNDS || last("elbows_messages_total{from=\"client\"}") < 100.0 {
        if pairs.len() < TUNNELS {
            pairs.push(application.open(&admin.elbows));
        }
        for (place, pair) in pairs.iter_mut().enumerate() {
            let length = 100 * place + round % 100;
            talk(pair, vec![b'x'; length]);
            messages += 1;
            payload += u32::try_from(length).unwrap();
        }
        // What is refused is counted, too.
        let mut client = Client::plain(admin.elbows.address);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().status, 400);
        requests += 1;
        round += 1;
    }
    for (client, application) in &mut pairs {
        client.send_close(4001);
        application.expect_close(4001);
        application.send_close(4001);
        client.expect_close(4001);
    }
    drop(pairs);
    admin.elbows.wait_for_report("tunnels_open=0");

    let tunnels = f64::from(u32::try_from(TUNNELS).unwrap());
    let counted = [
        ("elbows_messages_total{from=\"client\"}", f64::from(messages)),
        ("elbows_messages_total{from=\"upstream\"}", f64::from(messages)),
        ("elbows_payload_bytes_total{from=\"client\"}", f64::from(payload)),
        ("elbows_payload_bytes_total{from=\"upstream\"}", f64::from(payload)),
        ("elbows_message_size_bytes_count{from=\"client\"}", f64::from(messages)),
        ("elbows_message_size_bytes_sum{from=\"client\"}", f64::from(payload)),
        ("elbows_tunnels_opened_total", tunnels),
        ("elbows_handshake_duration_seconds_count", tunnels),
        ("elbows_requests_total{method=\"GET\",code=\"101\"}", tunnels),
        ("elbows_rejected_total{rule=\"proxy_headers_missing\"}", f64::from(requests)),
    ];
    wait_until("Prometheus has the last of it", || {
        counted.iter().all(|(metric, number)| last(metric) >= *number)
            && last("elbows_tunnels_open") == 0.0
    });
    for (metric, number) in counted {
        assert!((last(metric) - number).abs() < 0.5, "{metric}: {} and not {number}", last(metric));
        // At the time of a sample, from 0 on, nothing is extrapolated.
        let time = prometheus.number(&format!("timestamp({metric})"), None).unwrap();
        let found = prometheus.number(&format!("increase({metric}[10m])"), Some(time)).unwrap();
        assert!((found - number).abs() < 1e-6 * number, "{metric}: {found} and not {number}");
        let found = prometheus.number(&format!("rate({metric}[10m]) * 600"), Some(time)).unwrap();
        assert!((found - number).abs() < 1e-6 * number, "{metric}: {found} and not {number}");
        assert_eq!(prometheus.number(&format!("resets({metric}[10m])"), Some(time)), Some(0.0));
    }
    // The first of a series of which there was none before is seen where it was there from the start.
    let closed =
        "sum(increase(elbows_tunnels_closed_total{by=\"client\",why=\"closed\"}[10m])) > 0";
    assert!(prometheus.number(closed, None).is_some());
}

/// The trace of a handshake is found beside its duration.
#[test]
fn prometheus_keeps_the_traces_of_handshakes() {
    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[]);
    let prometheus = Prometheus::of(admin.address);
    let traces = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let target = format!(
            "/api/v1/query_exemplars?query=elbows_handshake_duration_seconds_bucket&start={}&end={}",
            now - 600,
            now + 1
        );
        let series = prometheus.get(&target).unwrap_or_default();
        let series = series.as_array().cloned().unwrap_or_default();
        let all = series.iter().flat_map(|one| one["exemplars"].as_array().unwrap());
        all.map(|one| text(&one["labels"], "trace_id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(traces(), Vec::<String>::new());
    let mut client = Client::behind_balancer(admin.elbows.address);
    let traceparent = format!("traceparent: 00-{ID}-00f067aa0ba902b7-01\r\nHost:");
    client.send(handshake("/ws").replace("Host:", &traceparent));
    let _upstream = application.accept();
    assert_eq!(client.read_head().status, 101);
    wait_until("Prometheus has its trace", || traces() == [ID]);
}
