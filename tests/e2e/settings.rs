//! Settings: every fault is told at once and before anything is bound; flags, variables, `check`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::{Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::proxy::{Elbows, PATIENCE, free_port};
use crate::upstream::Upstream;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What a good configuration needs.
const GOOD: [(&str, &str); 3] =
    [("LISTEN_ON", "45400"), ("DESTINATION_HOSTNAME", "127.0.0.1"), ("DESTINATION_PORT", "45490")];

/// Runs elbows to its end. What it says fits into a pipe.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Elbows::command();
    command.args(arguments).envs(variables.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("elbows starts");
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("elbows {arguments:?} with {variables:?} serves instead of ending");
        }
        thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// One byte more than a UNIX socket's path may have.
const TOO_LONG: &str = "/run/elbows/0123456789012345678901234567890123456789012345678901234567890123456789\
                        01234567890123456789012345";

/// Bad values, and what the sentence about each says besides variable and value.
const BAD: &[(&str, &str, &str)] = &[
    ("LISTEN_ON", "45400x", "from 1 to 65535"),
    ("LISTEN_ON", "0", "from 1 to 65535"),
    ("LISTEN_ON", "70000", "from 1 to 65535"),
    ("LISTEN_ON", "+80", "from 1 to 65535"),
    ("LISTEN_ON", "-1", "from 1 to 65535"),
    ("LISTEN_ON", "", "give a port"),
    ("LISTEN_ON", " 45400", "give a port"),
    ("LISTEN_ON", "127.0.0.1", "give a port"),
    ("LISTEN_ON", "127.0.0.1:0", "give a port"),
    ("LISTEN_ON", "localhost:45400", "give a port"),
    ("LISTEN_ON", "::1:45400", "give a port"),
    ("DESTINATION_HOSTNAME", "", "give a host name"),
    ("DESTINATION_HOSTNAME", "http://app", "without scheme"),
    ("DESTINATION_HOSTNAME", "app:80", "without scheme"),
    ("DESTINATION_HOSTNAME", "app/path", "without scheme"),
    ("DESTINATION_HOSTNAME", "a b", "give a host name"),
    ("DESTINATION_HOSTNAME", "a..b", "give a host name"),
    ("DESTINATION_HOSTNAME", "127.0.0.256", "give a host name"),
    ("DESTINATION_HOSTNAME", "[::1", "give a host name"),
    ("DESTINATION_HOSTNAME", "srv+", "srv+ and the name of SRV records"),
    ("DESTINATION_HOSTNAME", "srv+10.0.0.1", "give a host name"),
    ("DESTINATION_PORT", "0", "from 1 to 65535"),
    ("DESTINATION_PORT", "65536", "from 1 to 65535"),
    ("DESTINATION_PORT", "http", "from 1 to 65535"),
    ("DESTINATION_PORT", "+80", "from 1 to 65535"),
    ("DESTINATION_PORT", "", "from 1 to 65535"),
    ("CONFIG_FILE", "", "give off, or the path of a file"),
    ("CONFIG_FILE", "/etc/", "give off, or the path of a file"),
    ("BALANCE", "least_conn", "least_tunnels, round_robin, random"),
    ("BALANCE", "", "least_tunnels, round_robin, random"),
    (
        "STICKY",
        "ip_hash",
        "must be off, cookie, cookie:NAME, client, header:NAME, query:NAME or path",
    ),
    ("STICKY", "", "must be off, cookie,"),
    ("STICKY", "cookie:", "the name of a cookie is 1 to 64"),
    ("STICKY", "cookie:a b", "the name of a cookie"),
    ("STICKY", "header:", "the name of a header field"),
    ("STICKY", "header:X:Y", "the name of a header field"),
    ("STICKY", "query:a=b", "without #, & and ="),
    ("DNS_MAX_TTL", "999ms", "must be from 1s to 1h"),
    ("DNS_MAX_TTL", "2h", "must be from 1s to 1h"),
    ("DNS_MAX_TTL", "off", "a time with its unit"),
    ("ENDPOINT_HOLD", "25h", "must be from 0s to 1day"),
    ("ENDPOINT_HOLD", "10", "a time with its unit"),
    ("ENDPOINT_GONE", "close", "must be one of keep, drain"),
    ("ENDPOINT_GONE_PERIOD", "25h", "must be from 0s to 1day"),
    ("ENDPOINT_GONE_PERIOD", "off", "a time with its unit"),
    ("REBALANCE", "on", "give off, or a share of all tunnels"),
    ("REBALANCE", "10%", "as 10%/min"),
    ("REBALANCE", "0%/min", "from 1% to 100%"),
    ("REBALANCE", "101%/min", "from 1% to 100%"),
    ("REBALANCE", "10/min", "from 1% to 100%"),
    ("UPSTREAM_CHECK", "http", "give off, or tcp, or http:"),
    ("UPSTREAM_CHECK", "", "give off, or tcp, or http:"),
    ("UPSTREAM_CHECK", "http://app/health", "a path with visible"),
    ("UPSTREAM_CHECK", "websocket:ws", "as http:/health or websocket:/ws?check=1"),
    ("UPSTREAM_CHECK", "http:/a b", "a path with visible"),
    ("UPSTREAM_CHECK", "http:/a#b", "a path with visible"),
    ("UPSTREAM_CHECK", "http:/a?%2", "a path with visible"),
    ("UPSTREAM_CHECK", "https:/", "a path with visible"),
    ("UPSTREAM_CHECK_INTERVAL", "99ms", "must be from 100ms to 1h"),
    ("UPSTREAM_CHECK_INTERVAL", "5", "a time with its unit"),
    ("UPSTREAM_CHECK_TIMEOUT", "2h", "must be from 100ms to 1h"),
    ("UPSTREAM_CHECK_RISE", "0", "a number from 1 to 1000"),
    ("UPSTREAM_CHECK_FALL", "1001", "a number from 1 to 1000"),
    ("UPSTREAM_EJECT", "0", "off, or a number from 1 to 1000"),
    ("UPSTREAM_EJECT", "on", "off, or a number from 1 to 1000"),
    ("UPSTREAM_TRIES", "0", "a number from 1 to 10"),
    ("UPSTREAM_TRIES", "11", "a number from 1 to 10"),
    ("SLOW_START", "25h", "must be from 0s to 1day"),
    ("SLOW_START", "off", "a time with its unit"),
    ("UPSTREAM_ALL_DOWN", "503", "must be one of try, refuse"),
    ("PROXY_PROTOCOL", "on", "required, optional, off"),
    ("PROXY_PROTOCOL", "", "required, optional, off"),
    ("PROXY_PROTOCOL", "Required", "required, optional, off"),
    ("TRUSTED_PROXIES", "10.0.0.0/33", "give networks"),
    ("TRUSTED_PROXIES", "10.0.0.1/8", "did you mean 10.0.0.0/8"),
    ("TRUSTED_PROXIES", "", "give networks"),
    ("TRUSTED_PROXIES", "balancer", "give networks"),
    ("TRUSTED_PROXIES", "::ffff:10.0.0.1", "write it as IPv4"),
    ("PROXY_TLV_HEADERS", "sni", "must be all, none, or some of alpn"),
    ("PROXY_TLV_HEADERS", "", "must be all, none, or some of alpn"),
    ("HEALTH_PATH", "ping", "begins with '/'"),
    ("HEALTH_PATH", "", "begins with '/'"),
    ("HEALTH_PATH", "/ping?x", "without '?'"),
    ("HEALTH_PATH", "/p ng", "visible ASCII"),
    ("HEALTH_PATH", "/ping#x", "without '?' and '#'"),
    ("HEALTH_PATH", "/a<b", "that a URI may hold"),
    ("HEALTH_PATH", "/a\\b", "that a URI may hold"),
    ("HEALTH_PATH", "/a\"b", "that a URI may hold"),
    ("HEALTH_PATH", "/{id}", "that a URI may hold"),
    ("HEALTH_PATH", "/a%2", "two hexadecimal digits behind each '%'"),
    ("HEALTH_PATH", "/a%zz", "two hexadecimal digits behind each '%'"),
    ("HEALTH_LISTEN_ON", "0", "from 1 to 65535"),
    ("HEALTH_LISTEN_ON", "", "give a port"),
    ("HEALTH_LISTEN_ON", "x", "give a port"),
    ("FORWARDED", "add", "set, append"),
    ("FORWARDED_HEADER", "yes", "on, off"),
    ("TRACE_CONTEXT", "on", "pass, make"),
    ("PROXY_HEADER_TIMEOUT", "0s", "must be from 10ms to 1day"),
    ("PROXY_HEADER_TIMEOUT", "10", "a time with its unit"),
    ("REQUEST_HEAD_TIMEOUT", "1ms", "must be from 10ms to 1day"),
    ("REQUEST_HEAD_TIMEOUT", "-5s", "a time with its unit"),
    ("CONNECT_TIMEOUT", "2days", "must be from 10ms to 1day"),
    ("CONNECT_TIMEOUT", "", "a time with its unit"),
    ("RESPONSE_HEAD_TIMEOUT", "soon", "a time with its unit"),
    ("MAX_CONNECTIONS", "0", "off, or a number from 1 to 10000000"),
    ("MAX_CONNECTIONS", "10000001", "off, or a number from 1 to 10000000"),
    ("MAX_CONNECTIONS", "-1", "off, or a number from 1 to 10000000"),
    ("MAX_CONNECTIONS", "+1", "off, or a number from 1 to 10000000"),
    ("MAX_CONNECTIONS", "99999999999999999999", "off, or a number from 1 to 10000000"),
    ("MAX_CONNECTIONS", "", "off, or a number from 1 to 10000000"),
    ("MAX_CONNECTIONS_PER_CLIENT", "0", "off, or a number from 1 to 10000000"),
    ("MAX_CONNECTIONS_PER_CLIENT", "many", "off, or a number from 1 to 10000000"),
    ("MAX_CONNECTIONS_PER_CLIENT", "10/s", "off, or a number from 1 to 10000000"),
    ("HANDSHAKE_RATE_PER_CLIENT", "10", "as 10/s or 100/min"),
    ("HANDSHAKE_RATE_PER_CLIENT", "0/s", "numbers from 1 to 1000000"),
    ("HANDSHAKE_RATE_PER_CLIENT", "1000001/s", "numbers from 1 to 1000000"),
    ("HANDSHAKE_RATE_PER_CLIENT", "10/day", "per s, min or h"),
    ("HANDSHAKE_RATE_PER_CLIENT", "10/s 50", "as 10/s burst=50"),
    ("HANDSHAKE_RATE_PER_CLIENT", "", "give off"),
    ("MAX_HEADER_SIZE", "8191", "must be from 8KiB to 1MiB"),
    ("MAX_HEADER_SIZE", "2MiB", "must be from 8KiB to 1MiB"),
    ("MAX_HEADER_SIZE", "off", "a size in bytes"),
    ("MAX_HEADERS", "19", "must be a number from 20 to 1000"),
    ("MAX_HEADERS", "1001", "must be a number from 20 to 1000"),
    ("MAX_HEADERS", "off", "must be a number from 20 to 1000"),
    ("MAX_BODY_SIZE", "0", "must be off, or from 1 to 1TiB"),
    ("MAX_BODY_SIZE", "1GB", "give off, or a size"),
    ("MIN_BODY_RATE", "0", "must be off, or from 1 to 1MiB"),
    ("MIN_BODY_RATE", "2MiB", "must be off, or from 1 to 1MiB"),
    ("MIN_BODY_RATE", "64/s", "give off, or a size"),
    ("ALLOWED_ORIGINS", "", "give any, or origins"),
    ("ALLOWED_ORIGINS", "*", "give any, or origins"),
    ("ALLOWED_ORIGINS", "https://app.example/", "no path"),
    ("ALLOWED_ORIGINS", "https://*", "give any, or origins"),
    ("ALLOWED_ORIGINS", "https://bücher.example", "xn--"),
    ("MISSING_ORIGIN", "deny", "allow, refuse"),
    ("PING_INTERVAL", "50", "a time with its unit"),
    ("PING_INTERVAL", "99ms", "must be off, or from 100ms to 1day"),
    ("PING_INTERVAL", "0s", "must be off, or from 100ms to 1day"),
    ("PING_INTERVAL", "none", "give off, or a time"),
    ("PING_INTERVAL", "", "give off, or a time"),
    ("PONG_TIMEOUT", "off", "a time with its unit"),
    ("PONG_TIMEOUT", "10ms", "must be from 100ms to 1h"),
    ("PING_UPSTREAM_INTERVAL", "-50s", "a time with its unit"),
    ("PING_UPSTREAM_INTERVAL", "25h", "must be off, or from 100ms to 1day"),
    ("FRAME_CHECK", "off", "observe, strict"),
    ("FRAME_CHECK", "", "observe, strict"),
    ("MAX_FRAME_SIZE", "64KB", "KiB, MiB"),
    ("MAX_FRAME_SIZE", "0", "off, or from 125 to 1TiB"),
    ("MAX_FRAME_SIZE", "124", "off, or from 125 to 1TiB"),
    ("MAX_FRAME_SIZE", "-1", "KiB, MiB"),
    ("MAX_MESSAGE_SIZE", "1.5MiB", "KiB, MiB"),
    ("MAX_MESSAGE_SIZE", "2TiB", "off, or from 125 to 1TiB"),
    ("MAX_MESSAGE_SIZE", "99999999999999999999", "KiB, MiB"),
    ("MAX_MESSAGE_SIZE", "", "KiB, MiB"),
    ("IDLE_TIMEOUT", "1ms", "must be off, or from 100ms to 1day"),
    ("MAX_LIFETIME", "31days", "must be off, or from 100ms to 30days"),
    ("MAX_LIFETIME", "never", "give off, or a time"),
    ("STALL_TIMEOUT", "off", "a time with its unit"),
    ("STALL_TIMEOUT", "0s", "must be from 100ms to 1day"),
    ("DRAIN_DELAY", "5", "a time with its unit"),
    ("DRAIN_DELAY", "-1s", "a time with its unit"),
    ("DRAIN_PERIOD", "25h", "must be from 0s to 1day"),
    ("DRAIN_PERIOD", "99999999999999999999s", "a time with its unit"),
    ("DRAIN_CLOSE_CODE", "1000", "1001, 1012, 1013, or a number from 4000 to 4999"),
    ("DRAIN_CLOSE_CODE", "1006", "1001, 1012, 1013, or a number from 4000 to 4999"),
    ("DRAIN_CLOSE_CODE", "3000", "1001, 1012, 1013, or a number from 4000 to 4999"),
    ("DRAIN_CLOSE_CODE", "5000", "1001, 1012, 1013, or a number from 4000 to 4999"),
    ("DRAIN_CLOSE_CODE", "+4000", "1001, 1012, 1013, or a number from 4000 to 4999"),
    ("DRAIN_CLOSE_CODE", "-1001", "1001, 1012, 1013, or a number from 4000 to 4999"),
    ("DRAIN_CLOSE_CODE", "70000", "1001, 1012, 1013, or a number from 4000 to 4999"),
    ("DRAIN_CLOSE_CODE", "away", "1001, 1012, 1013, or a number from 4000 to 4999"),
    ("DRAIN_GRACE", "2", "a time with its unit"),
    ("DRAIN_GRACE", "25h", "must be from 0s to 1day"),
    ("HANDOFF_SOCKET", "", "give off, or the absolute path"),
    ("HANDOFF_SOCKET", "handoff.sock", "give off, or the absolute path"),
    ("HANDOFF_SOCKET", "./run/handoff.sock", "give off, or the absolute path"),
    ("HANDOFF_SOCKET", "/run/elbows/", "give off, or the absolute path"),
    ("HANDOFF_SOCKET", "/run/elbows/..", "give off, or the absolute path"),
    ("HANDOFF_SOCKET", TOO_LONG, "of 107 bytes at most"),
    ("HANDOFF_SOCKET", "/nowhere/handoff.sock", "/nowhere: no directory for the socket"),
    ("HANDOFF_SOCKET", "/dev/null/handoff.sock", "/dev/null: no directory for the socket"),
    ("HANDOFF_SOCKET", "/tmp/handoff.sock", "others may write to this directory (mode 1777)"),
    ("HANDOFF_DOWNGRADE", "yes", "on, off"),
    ("HANDOFF_STAY", "always", "on, off"),
    ("ACCESS_LOG", "xml", "text, json, off"),
    ("ACCESS_LOG_OPEN", "yes", "on, off"),
    ("ACCESS_LOG_QUERY", "yes", "on, off"),
    ("ADMIN_LISTEN_ON", "", "give off, or a port"),
    ("ADMIN_LISTEN_ON", "0", "from 1 to 65535"),
    ("ADMIN_LISTEN_ON", "70000", "from 1 to 65535"),
    ("ADMIN_LISTEN_ON", "localhost:9145", "an IP address and a port"),
    ("ADMIN_LISTEN_ON", "127.0.0.1:0", "from 1 to 65535"),
    ("ADMIN_LISTEN_ON", "run/admin.sock", "the absolute path"),
    ("ADMIN_LISTEN_ON", "/run/elbows/", "give off, or the absolute path"),
    ("ADMIN_LISTEN_ON", TOO_LONG, "as /run/elbows/admin.sock, of 107 bytes at most"),
    ("ADMIN_LISTEN_ON", "/nowhere/admin.sock", "/nowhere: no directory for the socket"),
    ("ADMIN_LISTEN_ON", "/tmp/admin.sock", "others may write to this directory (mode 1777)"),
    ("ADMIN_HOSTS", "elbows.example.com:9145", "names of hosts"),
    ("ADMIN_HOSTS", "*.example.com", "names of hosts"),
    // What stands in the place of one: it is never shown.
    ("ADMIN_TOKEN", "(not shown)", "give off, or 16 to 256 letters"),
    ("LOG", "", "give error, warn"),
    ("LOG", "elbows=loud", "give error, warn"),
    ("LOG", "inf", "give error, warn"),
    ("LOG", "info,elbows", "give error, warn"),
    ("SANDBOX", "on", "auto, required, off"),
    ("SANDBOX", "", "auto, required, off"),
    ("THREADS", "0", "from 1 to 256"),
    ("THREADS", "257", "from 1 to 256"),
    ("THREADS", "-1", "from 1 to 256"),
    ("THREADS", "two", "from 1 to 256"),
];

#[test]
fn each_bad_value_is_named_with_its_variable_and_rule_and_ends_with_78() {
    for (variable, value, rule) in BAD {
        let mut variables = GOOD.to_vec();
        variables.push((variable, value));
        for arguments in [&[][..], &["check"]] {
            let output = run(arguments, &variables);
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(78), "{variable}={value}: {said}");
            assert_eq!(said.lines().count(), 1, "{variable}={value}: {said}");
            // Of a list, the item that is wrong is named.
            assert!(said.starts_with(&format!("elbows: {variable}={value:?}: ")), "{said}");
            assert!(said.contains(rule), "{variable}={value}: {said}");
            assert_eq!(stdout(&output), "");
        }
    }
}

#[test]
fn every_setting_has_a_bad_value_here() {
    let output = run(&["check"], &GOOD);
    for line in stdout(&output).lines().filter(|line| line.contains('=')) {
        let variable = line.split('=').next().unwrap();
        assert!(BAD.iter().any(|(bad, ..)| *bad == variable), "{variable}");
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let output = run(
        &[],
        &[
            ("LISTEN_ON", "45400x"),
            ("DESTINATION_PORT", "70000"),
            ("PROXY_PROTOCOL", "maybe"),
            ("TRUSTED_PROXIES", "10.0.0.0/8,nobody,10.0.0.1/8"),
            ("DRAIN_DELAY", "5"),
        ],
    );
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(said.lines().count(), 7, "{said}");
    for part in [
        "LISTEN_ON=\"45400x\"",
        "DESTINATION_HOSTNAME is not set",
        "DESTINATION_PORT=\"70000\"",
        "PROXY_PROTOCOL=\"maybe\"",
        "TRUSTED_PROXIES=\"nobody\"",
        "TRUSTED_PROXIES=\"10.0.0.1/8\"",
        "DRAIN_DELAY=\"5\"",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let missing = stderr(&run(&[], &[]));
    for variable in ["LISTEN_ON", "DESTINATION_HOSTNAME", "DESTINATION_PORT"] {
        assert!(missing.contains(&format!("elbows: {variable} is not set: ")), "{missing}");
    }
}

#[test]
fn contradictions_name_both_settings() {
    for (settings, rule) in [
        ([("PROXY_PROTOCOL", "optional"), ("TRUSTED_PROXIES", "everyone")], "list the load"),
        ([("PROXY_PROTOCOL", "off"), ("TRUSTED_PROXIES", "10.0.0.0/8")], "nobody is believed"),
        ([("PROXY_PROTOCOL", "off"), ("PROXY_TLV_HEADERS", "ssl")], "only in PROXY headers"),
        ([("MISSING_ORIGIN", "refuse"), ("ALLOWED_ORIGINS", "any")], "list yours"),
        ([("UPSTREAM_ALL_DOWN", "refuse"), ("UPSTREAM_CHECK", "off")], "nothing tells that all"),
        ([("MAX_FRAME_SIZE", "1025KiB"), ("MAX_MESSAGE_SIZE", "1MiB")], "part of a message"),
        ([("ACCESS_LOG", "off"), ("ACCESS_LOG_OPEN", "on")], "there is no log"),
        ([("LISTEN_ON", "45400"), ("HEALTH_LISTEN_ON", "127.0.0.1:45400")], "a port of its own"),
        ([("REBALANCE", "10%/min"), ("DESTINATION_HOSTNAME", "10.0.0.5")], "nothing can be evened"),
        ([("LISTEN_ON", "45490"), ("DESTINATION_HOSTNAME", "localhost")], "on to itself"),
        ([("LISTEN_ON", "[::1]:45490"), ("DESTINATION_HOSTNAME", "::1")], "on to itself"),
        ([("LISTEN_ON", "[::1]:45400"), ("HEALTH_LISTEN_ON", "[::1]:45400")], "a port of its own"),
    ] {
        let mut variables = GOOD.to_vec();
        variables.extend(settings);
        let output = run(&["check"], &variables);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("contradict") && said.contains(rule), "{said}");
        for (variable, value) in settings {
            assert!(said.contains(&format!("{variable}={value}")), "{said}");
        }
    }
    for balance in ["random", "round_robin"] {
        let names = [("DESTINATION_HOSTNAME", "app"), ("BALANCE", balance), ("REBALANCE", "1%/h")];
        let said = stderr(&run(&["check"], &[&GOOD[..], &names].concat()));
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(&format!("BALANCE={balance}")), "{said}");
        assert!(said.contains("REBALANCE=1%/h") && said.contains("give BALANCE=least_tunnels"));
    }
    let apart = [("LISTEN_ON", "127.0.0.1:45400"), ("HEALTH_LISTEN_ON", "127.0.0.2:45400")];
    assert_eq!(run(&["check"], &[&GOOD[1..], &apart].concat()).status.code(), Some(0));
}

#[test]
fn nothing_is_bound_before_the_check_has_passed() {
    // The port is taken, so that whoever tried to bind it would say so.
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let listen_on = taken.local_addr().unwrap().to_string();
    let output = run(&[], &[("LISTEN_ON", &listen_on), GOOD[1], ("DESTINATION_PORT", "0")]);
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
}

#[test]
fn port_in_use_is_a_clear_sentence() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = taken.local_addr().unwrap();
    let everywhere = at.port().to_string();
    for listen_on in [at.to_string(), everywhere] {
        let output = run(&[], &[("LISTEN_ON", &listen_on), GOOD[1], GOOD[2]]);
        assert_eq!(output.status.code(), Some(1));
        let said = stderr(&output);
        assert!(said.contains(&format!("elbows: LISTEN_ON={listen_on}: cannot listen")), "{said}");
        assert!(said.contains("in use"), "{said}");
    }
    let listen_on = format!("127.0.0.1:{}", free_port());
    let output = run(
        &[],
        &[("LISTEN_ON", &listen_on), GOOD[1], GOOD[2], ("HEALTH_LISTEN_ON", &at.to_string())],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("HEALTH_LISTEN_ON="), "{}", stderr(&output));
}

#[test]
fn address_of_another_machine_is_a_clear_sentence() {
    let output = run(&[], &[("LISTEN_ON", "192.0.2.1:45400"), GOOD[1], GOOD[2]]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("LISTEN_ON=192.0.2.1:45400: cannot listen"));
}

#[test]
fn check_prints_effective_settings_that_mean_the_same_again() {
    let given = [
        ("LISTEN_ON", "[::1]:45400"),
        ("DESTINATION_HOSTNAME", "localhost"),
        ("DESTINATION_PORT", "45490"),
        ("PROXY_PROTOCOL", "optional"),
        ("TRUSTED_PROXIES", "10.0.0.0/8, fd00::/8"),
        ("PROXY_TLV_HEADERS", "all"),
        ("HEALTH_LISTEN_ON", "45401"),
        ("UPSTREAM_CHECK", "websocket:/socket.io/?EIO=4&transport=websocket"),
        ("UPSTREAM_EJECT", "5"),
        ("CONNECT_TIMEOUT", "90s"),
        ("PING_INTERVAL", "off"),
        ("PING_UPSTREAM_INTERVAL", "100ms"),
        ("FRAME_CHECK", "strict"),
        ("MAX_FRAME_SIZE", "1024KiB"),
        ("MAX_MESSAGE_SIZE", "1048576"),
        ("MAX_LIFETIME", "30days"),
        ("MAX_CONNECTIONS", "20000"),
        ("HANDSHAKE_RATE_PER_CLIENT", "100/min burst=30"),
        ("MAX_HEADER_SIZE", "16384"),
        ("ADMIN_HOSTS", "Elbows.Example.Internal, metrics.example.com"),
        ("ALLOWED_ORIGINS", "HTTPS://App.Example, *.shop.example:8443"),
        ("DRAIN_PERIOD", "1500ms"),
        ("DRAIN_CLOSE_CODE", "4321"),
        ("THREADS", "3"),
    ];
    let first = run(&["check"], &given);
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    let text = stdout(&first);
    for line in [
        "LISTEN_ON=[::1]:45400",
        "TRUSTED_PROXIES=10.0.0.0/8,fd00::/8",
        "UPSTREAM_CHECK=websocket:/socket.io/?EIO=4&transport=websocket",
        "UPSTREAM_EJECT=5",
        "CONNECT_TIMEOUT=1m30s",
        "PING_INTERVAL=off",
        "PONG_TIMEOUT=20s",
        "PING_UPSTREAM_INTERVAL=100ms",
        "FRAME_CHECK=strict",
        "MAX_FRAME_SIZE=1MiB",
        "MAX_MESSAGE_SIZE=1MiB",
        "IDLE_TIMEOUT=off",
        "MAX_LIFETIME=30days",
        "MAX_CONNECTIONS=20000",
        "HANDSHAKE_RATE_PER_CLIENT=100/min burst=30",
        "MAX_HEADER_SIZE=16KiB",
        "ADMIN_HOSTS=elbows.example.internal,metrics.example.com",
        "ALLOWED_ORIGINS=https://app.example,*.shop.example:8443",
        "DRAIN_PERIOD=1s500ms",
        "DRAIN_CLOSE_CODE=4321",
        "DRAIN_GRACE=2s",
        "PROXY_HEADER_TIMEOUT=10s",
        "HEALTH_PATH=/ping",
    ] {
        assert!(text.lines().any(|printed| printed == line), "{line}: {text}");
    }
    assert!(text.contains("localhost:45490 resolves to "), "{text}");
    let again: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let second = run(&["check"], &again);
    assert_eq!(stdout(&second), text, "{}", stderr(&second));
    assert_eq!(stdout(&run(&["check"], &GOOD)).lines().filter(|l| l.contains('=')).count(), 66);
}

#[test]
fn each_name_of_a_list_is_read_by_itself() {
    for (value, wrong, rule) in [
        ("app,", "", "give a host name"),
        ("app,http://app", "http://app", "without scheme"),
        ("10.0.0.5,app,10.0.0.5", "10.0.0.5", "give each name and address once"),
    ] {
        let output = run(&["check"], &[GOOD[0], ("DESTINATION_HOSTNAME", value), GOOD[2]]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(78), "{value}: {said}");
        assert!(said.starts_with(&format!("elbows: DESTINATION_HOSTNAME={wrong:?}: ")), "{said}");
        assert!(said.contains(rule), "{said}");
    }
    let names = "127.0.0.1, [::1],srv+_ws._tcp.nowhere.invalid";
    let output = run(&["check"], &[GOOD[0], ("DESTINATION_HOSTNAME", names), GOOD[2]]);
    let text = stdout(&output);
    assert!(
        text.contains("DESTINATION_HOSTNAME=127.0.0.1,::1,srv+_ws._tcp.nowhere.invalid\n"),
        "{text}"
    );
    let resolved = "127.0.0.1:45490, [::1]:45490, srv+_ws._tcp.nowhere.invalid resolves to \
                    127.0.0.1:45490, [::1]:45490\n";
    assert!(text.contains(resolved), "{text}");
    let said = stderr(&output);
    let warning =
        "srv+_ws._tcp.nowhere.invalid does not resolve: there is no such name; other endpoints";
    assert!(said.contains(warning), "{said}");
}

#[test]
fn name_that_does_not_resolve_is_a_warning() {
    let variables = [GOOD[0], ("DESTINATION_HOSTNAME", "nowhere.invalid"), GOOD[2]];
    let output = run(&["check"], &variables);
    assert_eq!(output.status.code(), Some(0));
    let said = stderr(&output);
    assert!(said.contains("warning: nowhere.invalid does not resolve"), "{said}");
}

#[test]
fn check_for_a_place_says_what_must_be_set_there_and_what_does_not_fit() {
    // The defaults are for `docker stop`.
    let docker = run(&["check", "--for", "docker"], &GOOD);
    assert_eq!((docker.status.code(), stderr(&docker).as_str()), (Some(0), ""));
    assert!(stdout(&docker).contains("= 9.3 s; killed\nafter 10 s (docker stop --time)\n"));

    let slow = [&GOOD[..], &[("DRAIN_DELAY", "60s"), ("DRAIN_PERIOD", "300s")]].concat();
    let nlb = run(&["check", "--for", "nlb"], &slow);
    assert_eq!(nlb.status.code(), Some(78), "{}", stdout(&nlb));
    let termination =
        "set   target_health_state.unhealthy.connection_termination.enabled = false\n";
    assert!(stdout(&nlb).contains(termination), "{}", stdout(&nlb));
    let said = stderr(&nlb);
    assert!(
        said.starts_with("elbows: the drain takes 362.3 s, and TimeoutStopSec= kills"),
        "{said}"
    );
    let told = run(&["check", "--for", "nlb", "--killed-after", "400s"], &slow);
    assert_eq!((told.status.code(), stderr(&told).as_str()), (Some(0), ""));

    let rare = [&slow[..], &[("PING_INTERVAL", "400s")]].concat();
    let arguments = ["check", "--for=nlb", "--killed-after=400s"];
    assert_eq!(run(&arguments, &rare).status.code(), Some(78));
    let longer = [&arguments[..], &["--balancer-idle-timer=500s"]].concat();
    assert_eq!(run(&longer, &rare).status.code(), Some(0));

    // Settings that are wrong by themselves come first, and a place that is none is no command line.
    assert_eq!(run(&["check", "--for", "nlb"], &GOOD[1..]).status.code(), Some(78));
    for arguments in [&["check", "--for", "moon"][..], &["check", "--killed-after", "9s"]] {
        assert_eq!(run(arguments, &GOOD).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn flag_wins_over_variable() {
    let output = run(&["check", "--destination-port", "1234", "--drain-delay=7s"], &GOOD);
    let text = stdout(&output);
    assert!(text.contains("DESTINATION_PORT=1234\n"), "{text}");
    assert!(text.contains("DRAIN_DELAY=7s\n") && text.contains("LISTEN_ON=45400\n"), "{text}");
}

#[test]
fn flag_before_a_command_is_refused_and_variables_are_not() {
    let output = run(&["--listen-on", "1", "check"], &GOOD);
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    assert!(stderr(&output).contains("--listen-on"), "{}", stderr(&output));
    assert_eq!(run(&["check"], &GOOD).status.code(), Some(0));
}

#[test]
fn unknown_flags_and_commands_are_refused_and_variables_not_guessed() {
    for arguments in [&["--listen-in", "1"][..], &["chekc"], &["check", "extra"], &["-x"]] {
        assert_eq!(run(arguments, &GOOD).status.code(), Some(2), "{arguments:?}");
    }
    let misspelt = [GOOD[1], GOOD[2], ("LISTENON", "1"), ("ELBOWS_LISTEN_ON", "2")];
    let output = run(&["check"], &misspelt);
    assert!(stderr(&output).contains("LISTEN_ON is not set"), "{}", stderr(&output));
}

#[test]
fn help_and_version_need_no_settings() {
    let version = run(&["--version"], &[]);
    assert_eq!(stdout(&version), format!("elbows {}\n", env!("CARGO_PKG_VERSION")));
    let help = run(&["--help"], &[]);
    assert_eq!(help.status.code(), Some(0));
    for (variable, ..) in BAD {
        // A token is not shown, not even that there is none.
        let end = if *variable == "ADMIN_TOKEN" { ']' } else { '=' };
        assert!(stdout(&help).contains(&format!("[env: {variable}{end}")), "{variable}");
    }
}

#[test]
fn port_alone_listens_on_both_families_and_ipv4_stays_ipv4() {
    let upstream = Upstream::answering(OK);
    let port = free_port().to_string();
    let (command, _) = Elbows::prepare(
        Elbows::command(),
        upstream.address,
        &[("LISTEN_ON", &port), ("PROXY_PROTOCOL", "off")],
    );
    let four = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().unwrap()));
    let six = SocketAddr::from((Ipv6Addr::LOCALHOST, port.parse().unwrap()));
    let elbows = Elbows::spawn(command, four);
    assert_eq!(Client::plain(four).get("/").status, 200);
    assert!(upstream.seen().contains("127.0.0.1\r\n"));
    elbows.access_log.wait_for("client=127.0.0.1:");
    assert_eq!(Client::plain(six).get("/").status, 200);
    assert!(upstream.seen().contains("::1\r\n"));
    elbows.access_log.wait_for("client=[::1]:");
    assert!(elbows.access_log.all().iter().all(|line| !line.contains("ffff")));
}
