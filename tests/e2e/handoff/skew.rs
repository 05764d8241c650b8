//! Two releases: this build takes over from the release before, and that one takes over from this build where somebody
//! goes back.
//!
//! `ELBOWS_TEST_RELEASE` is the binary of the release before. `cargo xtask test --long` builds it from its tag, where there is
//! one; without it these tests are left out, and the run says so.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use test_support::left_out::left_out;

use super::states::{Half, cuts};
use super::{Place, number, talk};
use crate::client::{Client, other_handshake};
use crate::proxy::Elbows;
use crate::upstream::Upstream;
use crate::web_socket::{PING, PONG, Tunnels, value};

/// The older one may take over.
const BACK: (&str, &str) = ("HANDOFF_DOWNGRADE", "on");

/// Whose binary a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Build {
    Before,
    This,
}

/// Upgrades, and ways back.
const WAYS: [[Build; 2]; 2] = [[Build::Before, Build::This], [Build::This, Build::Before]];

/// The release before, and this build.
struct Releases {
    before: PathBuf,
}

impl Releases {
    /// None where there is no release before.
    fn find() -> Option<Self> {
        let before = env::var_os("ELBOWS_TEST_RELEASE").map(PathBuf::from);
        if before.is_none() {
            left_out(
                "there is no binary of the release before: `cargo xtask test --long` builds it where a tag v* can hand over",
            );
        }
        Some(Self { before: before? })
    }

    fn command(&self, build: Build) -> Command {
        let mut command = Elbows::command();
        if build == Build::Before {
            command = Command::new(&self.before);
            command.env_clear();
        }
        command
    }

    /// What it says that it is: major, minor and patch.
    fn version(&self, build: Build) -> [u32; 3] {
        let said = self.command(build).arg("--version").output().expect("it starts").stdout;
        let said = String::from_utf8(said).unwrap();
        let version = said.trim().strip_prefix("elbows ").expect("its name");
        let numbers: Vec<_> = version.split('.').map(|part| part.parse().unwrap()).collect();
        numbers.try_into().expect("three numbers")
    }

    /// A process with `settings` and the one that takes over from it, which may be the older one.
    fn hand_over(
        &self,
        place: &Place,
        old: &mut Elbows,
        build: Build,
        settings: &[(&str, &str)],
    ) -> Elbows {
        let settings = [settings, &[BACK]].concat();
        let new = Elbows::spawn(place.command_of(self.command(build), &settings), place.address);
        new.log.wait_for("listening on");
        assert_eq!(old.wait().code(), Some(0), "{build:?}");
        let line = new.log.wait_for("handoff from=");
        assert_eq!(number(&line, "refused"), 0, "{line}");
        new
    }

    fn start(&self, place: &Place, build: Build, settings: &[(&str, &str)]) -> Elbows {
        Elbows::spawn(place.command_of(self.command(build), settings), place.address)
    }
}

#[test]
fn a_tunnel_that_is_cut_anywhere_in_its_frames_goes_on_in_the_other_release() {
    let Some(releases) = Releases::find() else { return };
    for settings in super::states::CHECKS {
        for [first, second] in WAYS {
            let application = Tunnels::start();
            let place = Place::new(application.address);
            let mut old = releases.start(&place, first, settings);
            let (client, upstream) = application.open(&old);
            let mut tunnels = Vec::new();
            for cut in cuts(&client) {
                let (client, upstream) = application.open(&old);
                tunnels.push(("client", Half::new(client, upstream, cut)));
            }
            for cut in cuts(&upstream) {
                let (client, upstream) = application.open(&old);
                tunnels.push(("upstream", Half::new(upstream, client, cut)));
            }
            let new = releases.hand_over(&place, &mut old, second, settings);
            let line = new.log.wait_for("handoff from=");
            assert_eq!(number(&line, "moved"), tunnels.len() as u64 + 1, "{line}");
            for (who, tunnel) in tunnels {
                tunnel.goes_on(&format!("{first:?} to {second:?}: {who}"));
            }
        }
    }
}

#[test]
fn a_ping_that_is_under_way_is_known_to_the_other_release() {
    let Some(releases) = Releases::find() else { return };
    let settings = [("PING_INTERVAL", "200ms"), ("PONG_TIMEOUT", "1h"), ("STALL_TIMEOUT", "1h")];
    for [first, second] in WAYS {
        let application = Tunnels::start();
        let place = Place::new(application.address);
        let mut old = releases.start(&place, first, &settings);
        let (mut client, mut upstream) = application.open(&old);
        let ping = client.read_frame();
        assert_eq!(ping.opcode, PING);
        let new = releases.hand_over(&place, &mut old, second, &settings);
        client.send_frame(PONG, ping.payload);
        client.send_close(4009);
        // The Pong is for elbows.
        upstream.expect_close(4009);
        drop((client, upstream));
        let line = new.access_log.wait_for("close_code=4009");
        let trip = value(&line, "ping_rtt").parse::<f64>();
        assert!(trip.is_ok_and(|trip| trip > 0.0), "{first:?} to {second:?}: {line}");
    }
}

#[test]
fn a_close_handshake_that_is_under_way_is_finished_by_the_other_release() {
    let Some(releases) = Releases::find() else { return };
    for [first, second] in WAYS {
        let application = Tunnels::start();
        let place = Place::new(application.address);
        let mut old = releases.start(&place, first, &[]);
        let (mut client, mut upstream) = application.open(&old);
        client.send_close(4007);
        upstream.expect_close(4007);
        let new = releases.hand_over(&place, &mut old, second, &[]);
        upstream.send_close(4008);
        client.expect_close(4008);
        client.finish();
        upstream.finish();
        let line = new.access_log.wait_for("close_code=4007");
        let told = ["close_by", "handoffs"].map(|key| value(&line, key));
        assert_eq!(told, ["client", "1"], "{first:?} to {second:?}: {line}");
    }
}

#[test]
fn tunnels_go_to_and_fro_between_the_releases() {
    const HANDOFFS: usize = 6;
    const TUNNELS: usize = 50;
    let Some(releases) = Releases::find() else { return };
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let mut old = releases.start(&place, Build::Before, &[]);
    let mut tunnels: Vec<_> = (0..TUNNELS).map(|_| application.open(&old)).collect();
    for handoff in 0..HANDOFFS {
        for tunnel in &mut tunnels {
            talk(tunnel, handoff.to_string());
        }
        let build = if handoff % 2 == 0 { Build::This } else { Build::Before };
        old = releases.hand_over(&place, &mut old, build, &[]);
    }
    for (mut client, mut upstream) in tunnels {
        client.send_close(4001);
        upstream.expect_close(4001);
        upstream.send_close(4001);
        client.expect_close(4001);
    }
    let lines = old
        .access_log
        .wait_until("all lines", |lines| (lines.len() == TUNNELS).then(|| lines.to_vec()));
    for line in lines {
        let counts = ["handoffs", "messages_from_client", "messages_from_upstream", "close_code"];
        let expected = [HANDOFFS, HANDOFFS, HANDOFFS, 4001].map(|number| number as u64);
        assert_eq!(counts.map(|name| number(&line, name)), expected, "{line}");
    }
}

#[test]
fn a_tunnel_of_another_protocol_goes_to_and_fro() {
    let Some(releases) = Releases::find() else { return };
    let application = Upstream::other_echo();
    let place = Place::new(application.address);
    let mut old = releases.start(&place, Build::Before, &[]);
    let mut client = Client::behind_balancer(place.address);
    client.send(other_handshake("/other"));
    assert_eq!(client.read_head().status, 101);
    for build in [Build::This, Build::Before] {
        client.send("before");
        assert_eq!(client.read_exact(6), b"before");
        old = releases.hand_over(&place, &mut old, build, &[]);
        client.send("after");
        assert_eq!(client.read_exact(5), b"after");
    }
    client.finish();
    assert_eq!(client.read_to_end().unwrap(), b"");
}

#[test]
fn the_release_before_is_refused_where_nobody_meant_to_go_back() {
    let Some(releases) = Releases::find() else { return };
    if releases.version(Build::Before) == releases.version(Build::This) {
        left_out("the release before has the version of this build, which is not raised yet");
        return;
    }
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let old = releases.start(&place, Build::This, &[]);
    let mut tunnel = application.open(&old);
    let command = place.command_of(releases.command(Build::Before), &[]);
    let mut new = Elbows::spawn_unready(command, place.address);
    assert_eq!(new.wait().code(), Some(1));
    old.log.wait_for("refused why=downgrade");
    talk(&mut tunnel, "as if nothing had been");
}
