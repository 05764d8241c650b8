//! The machine's clock is set while elbows runs: only what dates a line follows. Tunnels, pings, time limits
//! and rates go by the monotonic clock, which nobody can set.
//!
//! The library of Debian's `libfaketime` stands between elbows and the clock and reads from a file how far it is
//! off, at each look; the monotonic clock it leaves alone.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

use crate::client::{Client, handshake};
use crate::proxy::{Elbows, PATIENCE};
use crate::web_socket::{PING, PONG, TEXT, Tunnels, value};

/// A clock that can be set.
struct Clock {
    dir: TempDir,
}

impl Clock {
    fn new() -> Self {
        let clock = Self { dir: TempDir::new().unwrap() };
        clock.set("+0");
        clock
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("offset")
    }

    /// From now on it is off by so much.
    fn set(&self, offset: &str) {
        // At no moment is there half a file.
        let new = self.dir.path().join("new");
        fs::write(&new, offset).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    fn library() -> &'static Path {
        let library = Path::new(if cfg!(target_arch = "aarch64") {
            "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"
        } else {
            "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
        });
        assert!(library.exists(), "there is no libfaketime; `cargo xtask test` installs it");
        library
    }

    /// elbows with this clock.
    fn start(&self, upstream: SocketAddr, settings: &[(&str, &str)]) -> Elbows {
        let (mut command, address) = Elbows::prepare(Elbows::command(), upstream, settings);
        command
            .env("LD_PRELOAD", Self::library())
            .env("FAKETIME_TIMESTAMP_FILE", self.file())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1")
            // The file is read at each look, and Landlock would not let it.
            .env("SANDBOX", "off");
        Elbows::spawn(command, address)
    }
}

/// The date, so many days from now.
fn date(days: i64) -> String {
    let now = SystemTime::now();
    let by = Duration::from_secs(days.unsigned_abs() * 86_400);
    let then = if days < 0 { now - by } else { now + by };
    humantime::format_rfc3339_seconds(then).to_string()[..10].to_owned()
}

#[test]
fn clock_that_jumps_moves_the_dates_of_lines_and_nothing_else() {
    let tunnels = Tunnels::start();
    let clock = Clock::new();
    let settings = [
        ("PING_INTERVAL", "500ms"),
        ("PONG_TIMEOUT", "30s"),
        ("IDLE_TIMEOUT", "1h"),
        ("MAX_LIFETIME", "2h"),
        ("STALL_TIMEOUT", "1h"),
        ("REQUEST_HEAD_TIMEOUT", "2s"),
        // One more in 10 min.
        ("HANDSHAKE_RATE_PER_CLIENT", "6/h burst=1"),
    ];
    let elbows = clock.start(tunnels.address, &settings);
    let began = Instant::now();
    let (mut client, mut upstream) = tunnels.open(&elbows);
    for (offset, days) in [("+365d", 365), ("-1d", -1), ("+0", 0)] {
        // While a head is half there, a Ping is unanswered, and a frame is half through.
        let mut slow = Client::behind_balancer(elbows.address);
        let asked = Instant::now();
        slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n");
        let ping = client.read_frame();
        assert_eq!(ping.opcode, PING);
        let half = client.frame(0x80 | TEXT, "in two");
        client.send(&half[..3]);
        let line =
            |lines: &[String], path: &str| lines.iter().find(|line| line.contains(path)).cloned();

        clock.set(offset);

        // Dates follow: of the access log, and of the log.
        let path = format!("/at{offset}");
        assert_eq!(refused(&elbows, &path), 429);
        let dated = elbows.access_log.wait_until("its line", |lines| line(lines, &path));
        assert!(dated.starts_with(&date(days)), "{offset}: {dated}");
        let report = elbows.report();
        assert!(report.starts_with(&date(days)), "{offset}: {report}");
        // What the rates of the summary are of is no year, and no day back.
        let over: f64 = value(&report, "rates_over").parse().unwrap();
        assert!((0.0..60.0).contains(&over), "{report}");

        // The tunnel goes on, with its Pings at their pace.
        client.send(&half[3..]);
        let mut answered = Instant::now();
        client.send_frame(PONG, ping.payload);
        upstream.expect(TEXT, "in two");
        for _ in 0..3 {
            let ping = client.read_frame();
            assert_eq!(ping.opcode, PING);
            let after = answered.elapsed();
            assert!(after > Duration::from_millis(400), "{offset}: a Ping after {after:?}");
            assert!(after < Duration::from_secs(20), "{offset}: a Ping after {after:?}");
            answered = Instant::now();
            client.send_frame(PONG, ping.payload);
        }
        // The slow head has all of its time and no more.
        assert_eq!(slow.read_response().status, 408);
        let after = asked.elapsed();
        assert!(after > Duration::from_millis(1_900) && after < PATIENCE, "{offset}: {after:?}");
    }
    drop((client, upstream));
    let line = elbows.access_log.wait_for("status=101");
    let lasted: f64 = value(&line, "duration").parse().unwrap();
    assert!(lasted <= began.elapsed().as_secs_f64(), "{line}");
    let slowest: f64 = value(&line, "ping_rtt_worst").parse().unwrap();
    assert!(slowest < lasted, "{line}");
}

/// A second handshake of the same client: still one too many, whatever the clock says, and not for longer.
fn refused(elbows: &Elbows, path: &str) -> u16 {
    let mut client = Client::behind_balancer(elbows.address);
    client.send(handshake(path));
    let response = client.read_response();
    let wait: u64 = response.field("retry-after").map_or(0, |wait| wait.parse().unwrap());
    assert!((1..=600).contains(&wait), "{}", response.head);
    response.status
}
