//! What a scrape tells: read by Prometheus' own parsers, and what the clients counted.

use std::collections::BTreeMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{Admin, talk};
use crate::client::Client;
use crate::programs::{Program, python, wait_until};
use crate::upstream::Upstream;
use crate::web_socket::Tunnels;
use elbows::metrics::families::{self, Kind};

/// Samples by their names and labels, as a parser of others has read them, and the families.
pub(crate) struct Scrape {
    pub(crate) samples: BTreeMap<String, f64>,
    pub(crate) families: Vec<Value>,
}

pub(crate) fn scrape(admin: &Admin, form: &str) -> Scrape {
    let accept = match form {
        "openmetrics" => "Accept: application/openmetrics-text;version=1.0.0\r\n",
        _ => "",
    };
    let response = admin.ask("GET", "/metrics", accept);
    let content_type = response.field("content-type").unwrap().to_owned();
    assert!(
        content_type.starts_with(match form {
            "openmetrics" => "application/openmetrics-text; version=1.0.0",
            _ => "text/plain; version=0.0.4",
        }),
        "{content_type}"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &response.body).unwrap();
    let mut command = python("metrics_parser.py");
    command.arg(form).arg(file.path());
    let families: Vec<Value> =
        serde_json::from_str(&Program::start(command).succeed("families")).unwrap();
    let samples = families.iter().flat_map(|family| family["samples"].as_array().unwrap());
    let samples = samples.map(|sample| {
        let labels: BTreeMap<String, String> =
            serde_json::from_value(sample["labels"].clone()).unwrap();
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let name = sample["name"].as_str().unwrap();
        (
            format!("{name} {}", labels.join(" ")).trim().to_owned(),
            sample["value"].as_f64().unwrap(),
        )
    });
    Scrape { samples: samples.collect(), families }
}

impl Scrape {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn number(&self, name: &str) -> u64 {
        *self.samples.get(name).unwrap_or_else(|| panic!("no {name} in {:#?}", self.samples)) as u64
    }
}

#[test]
fn scrape_is_what_prometheus_reads_and_has_each_metric_that_is_documented() {
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[]);
    let mut pair = application.open(&admin.elbows);
    talk(&mut pair, b"x");
    for form in ["openmetrics", "prometheus"] {
        let scrape = scrape(&admin, form);
        let told: Vec<_> = scrape
            .families
            .iter()
            .map(|family| ["name", "type", "help"].map(|key| family[key].as_str().unwrap()))
            .collect();
        let documented: Vec<_> = families::ALL
            .iter()
            .map(|family| {
                // The older form has no such type; its parser takes `_total` off a counter's name.
                let (name, kind) = match (form, family.kind) {
                    ("prometheus", Kind::Info) => (format!("{}_info", family.name), "gauge"),
                    _ => (family.name.to_owned(), family.kind.as_str()),
                };
                (name, kind, format!("{}.", family.help))
            })
            .collect();
        assert_eq!(told.len(), documented.len(), "{form}");
        for ([name, kind, help], (own_name, own_kind, own_help)) in told.iter().zip(&documented) {
            assert_eq!((*name, *kind, *help), (&**own_name, *own_kind, &**own_help), "{form}");
        }
        for (family, own) in scrape.families.iter().zip(families::ALL) {
            for sample in family["samples"].as_array().unwrap() {
                for label in sample["labels"].as_object().unwrap().keys() {
                    let is_range = label == "le" && own.kind == Kind::Histogram;
                    assert!(is_range || own.labels.contains(&label.as_str()), "{sample}");
                }
            }
            if form == "openmetrics" {
                assert_eq!(family["unit"], own.unit, "{family}");
            }
        }
        assert_eq!(scrape.number("elbows_tunnels_open"), 1);
        assert_eq!(
            scrape.number(&format!("elbows_build_info version={}", env!("CARGO_PKG_VERSION"))),
            1
        );
    }
}

/// What an alert asks for is there before it happens, and the whole stays small.
#[test]
fn series_that_alerts_are_about_are_there_from_the_start() {
    let admin = Admin::start(Upstream::nobody(), &[]);
    let scrape = scrape(&admin, "openmetrics");
    for name in [
        "elbows_requests_total code=502 method=GET",
        "elbows_tunnels_closed_total by=client during=relay why=timeout",
        "elbows_tunnels_closed_total by=elbows during=relay why=mistake",
        "elbows_rejected_total rule=over_connections",
        "elbows_rejected_total rule=proxy_headers_missing",
        "elbows_rejected_total rule=frame_faults.mask_missing",
        "elbows_upstream_connect_failures_total reason=unreachable",
    ] {
        assert_eq!(scrape.number(name), 0, "{name}");
    }
    assert_eq!(scrape.number("elbows_took_over"), 0);
    let size = admin.ask("GET", "/metrics", "").body.len();
    assert!(size <= 24 * 1024, "{size} bytes");
}

/// Of each kind so many, and as many are told, while tunnels live and when they have gone.
#[test]
fn numbers_are_what_the_clients_counted() {
    const SIZES: [(usize, &str); 6] = [
        (0, "125.0"),
        (125, "125.0"),
        (126, "1024.0"),
        (1_024, "1024.0"),
        (5_000, "16384.0"),
        (70_000, "262144.0"),
    ];
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[]);
    let mut pairs: Vec<_> = (0..3).map(|_| application.open(&admin.elbows)).collect();
    for pair in &mut pairs {
        for (size, _) in SIZES {
            talk(pair, vec![b'x'; size]);
        }
    }
    let sum: u64 = SIZES.iter().map(|(size, _)| *size as u64).sum();
    let check = |open: u64| {
        let scrape = scrape(&admin, "openmetrics");
        for from in ["client", "upstream"] {
            assert_eq!(scrape.number(&format!("elbows_messages_total from={from}")), 18);
            assert_eq!(scrape.number(&format!("elbows_payload_bytes_total from={from}")), 3 * sum);
            assert_eq!(
                scrape.number(&format!("elbows_message_size_bytes_sum from={from}")),
                3 * sum
            );
            assert_eq!(scrape.number(&format!("elbows_message_size_bytes_count from={from}")), 18);
            for bound in ["125.0", "1024.0", "4096.0", "16384.0", "65536.0", "262144.0", "+Inf"] {
                let limit: f64 = bound.parse().unwrap_or(f64::INFINITY);
                #[allow(clippy::cast_precision_loss)]
                let below = SIZES.iter().filter(|(size, _)| *size as f64 <= limit).count() as u64;
                let name = format!("elbows_message_size_bytes_bucket from={from} le={bound}");
                assert_eq!(scrape.number(&name), 3 * below, "{name}");
            }
        }
        assert_eq!(scrape.number("elbows_tunnels_open"), open);
        assert_eq!(scrape.number("elbows_tunnels_opened_total"), 3);
        assert_eq!(scrape.number("elbows_handshake_duration_seconds_count"), 3);
        assert_eq!(scrape.number("elbows_requests_total code=101 method=GET"), 3);
        assert_eq!(scrape.number("elbows_request_duration_seconds_count"), 0);
        scrape
    };
    check(3);
    for (client, application) in &mut pairs {
        client.send_close(4001);
        application.expect_close(4001);
        application.send_close(4001);
        client.expect_close(4001);
        application.finish();
        client.finish();
    }
    admin.elbows.wait_for_report("tunnels_open=0");
    let scrape = check(0);
    assert_eq!(scrape.number("elbows_closes_total by=client code=4xxx"), 3);
    let closed: u64 = scrape
        .samples
        .iter()
        .filter(|(name, number)| name.starts_with("elbows_tunnels_closed_total ") && **number > 0.0)
        .inspect(|(name, _)| assert!(name.ends_with(" during=relay why=closed"), "{name}"))
        .map(|(name, _)| scrape.number(name))
        .sum();
    assert_eq!(closed, 3);
    assert_eq!(scrape.number("elbows_tunnel_duration_seconds_count"), 3);
}

#[test]
fn requests_rules_and_failures_are_counted_by_closed_labels() {
    let upstream = Upstream::answering(b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n");
    let admin = Admin::start(upstream.address, &[]);
    let mut client = Client::behind_balancer(admin.elbows.address);
    for method in ["GET", "BREW", "BREW", "X-ANY-NAME-THAT-A-CLIENT-LIKES"] {
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(client.read_response().status, 418);
    }
    let mut bad = Client::behind_balancer(admin.elbows.address);
    bad.send("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n");
    assert_eq!(bad.read_response().status, 400);
    let scrape = scrape(&admin, "openmetrics");
    assert_eq!(scrape.number("elbows_requests_total code=4xx method=GET"), 1);
    assert_eq!(scrape.number("elbows_requests_total code=4xx method=other"), 3);
    assert_eq!(scrape.number("elbows_requests_total code=400 method=GET"), 1);
    assert_eq!(scrape.number("elbows_request_duration_seconds_count"), 5);
    let rules: Vec<_> = scrape
        .samples
        .iter()
        .filter(|(name, number)| name.starts_with("elbows_rejected_total ") && **number > 0.0)
        .collect();
    assert!(rules.len() == 1 && rules[0].0.contains("rule=http_faults."), "{rules:?}");
    assert!(scrape.number("elbows_upstream_connections_reused_total") >= 3);
    assert_eq!(scrape.number("elbows_pool_idle"), 1);

    let nobody = Admin::start(Upstream::nobody(), &[]);
    assert_eq!(Client::behind_balancer(nobody.elbows.address).get("/").status, 502);
    let scrape = super::metrics::scrape(&nobody, "openmetrics");
    assert_eq!(scrape.number("elbows_upstream_connect_failures_total reason=unreachable"), 1);
}

/// A handshake that is part of a trace is shown with it; others are not, and the older form has no place for it.
#[test]
fn handshakes_show_their_traces() {
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[]);
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let open = |traceparent: &str| {
        let mut client = Client::behind_balancer(admin.elbows.address);
        let handshake = crate::client::handshake("/ws");
        let (head, _) = handshake.rsplit_once("\r\n").unwrap();
        client.send(format!("{head}{traceparent}\r\n"));
        let upstream = application.accept();
        assert_eq!(client.read_head().status, 101);
        (client, upstream)
    };
    let exemplars = |form: &str| {
        let scrape = scrape(&admin, form);
        let samples = scrape.families.iter().flat_map(|one| one["samples"].as_array().unwrap());
        samples.filter(|one| !one["exemplar"].is_null()).cloned().collect::<Vec<_>>()
    };
    let without = open("");
    let broken = open(&format!("traceparent: 00-{id}-0000000000000000-01\r\n"));
    assert_eq!(exemplars("openmetrics"), Vec::<Value>::new());
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let with = open(&format!("traceparent: 00-{id}-00f067aa0ba902b7-01\r\n"));
    let found = exemplars("openmetrics");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["name"], "elbows_handshake_duration_seconds_bucket");
    let exemplar = &found[0]["exemplar"];
    assert_eq!(exemplar["labels"], serde_json::json!({ "trace_id": id }));
    let bound: f64 = found[0]["labels"]["le"].as_str().unwrap().parse().unwrap();
    let number = |name: &str| exemplar[name].as_f64().unwrap();
    assert!(number("value") > 0.0 && number("value") <= bound, "{exemplar}");
    let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    // It has milliseconds.
    assert!((before - 0.001..=after).contains(&number("timestamp")), "{exemplar}");
    assert_eq!(exemplars("prometheus"), Vec::<Value>::new());
    // In the log it is the same.
    drop((with, without, broken));
    admin.elbows.access_log.wait_for(&format!("trace_id={id}"));
}

#[test]
fn pings_are_timed_and_those_that_nobody_answers_counted() {
    let application = Tunnels::start();
    let settings = [("PING_INTERVAL", "200ms"), ("PONG_TIMEOUT", "500ms")];
    let admin = Admin::start(application.address, &settings);
    let (mut client, _application) = application.open(&admin.elbows);
    let ping = client.read_frame();
    client.send_frame(0xa, &ping.payload);
    wait_until("a round trip is counted", || {
        scrape(&admin, "openmetrics").number("elbows_ping_rtt_seconds_count") == 1
    });
    // The next one has no answer.
    wait_until("a Ping is unanswered", || {
        scrape(&admin, "openmetrics").number("elbows_pings_unanswered_total") == 1
    });
}
