//! The units of `deploy/systemd` with a real systemd, as process 1 of a container: two instances take over from each other.
//!
//! It is this machine's systemd and this test's elbows, copied into an image. What a container cannot give a unit is taken
//! out of the units, and nothing else.

use std::os::unix::fs::symlink;

use super::*;

/// Of the sandbox of the units what a container does not allow: user namespaces.
const IN_A_CONTAINER: &str = "[Service]\nPrivateUsers=no\n";

/// What is started at its start.
const DEFAULT: &str = "[Unit]\nWants=basic.target systemd-journald.service\n\
                       After=basic.target systemd-journald.service\n";

/// What runs the tests' application.
const APPLICATION: &str = "[Service]\nExecStart=/usr/local/bin/elbows demo --app-on 45490\n";

const ELBOWS: &str = env!("CARGO_BIN_EXE_elbows");

/// An image with systemd. It is removed with the value.
struct Image {
    tag: String,
}

impl Image {
    fn build() -> Self {
        let context = TempDir::new().unwrap();
        let root = context.path().join("root");
        // Where programs look for it, whatever links lead there.
        let put = |from: &Path, to: &str| {
            let to =
                to.strip_prefix("/lib").map_or(to.to_owned(), |rest| format!("/usr/lib{rest}"));
            let copy = root.join(to.trim_start_matches('/'));
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(from, copy).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        };
        let programs = ["systemd/systemd", "systemd/systemd-journald"]
            .map(|program| format!("/usr/lib/{program}"))
            .into_iter()
            .chain(["systemctl", "journalctl"].map(|program| format!("/usr/bin/{program}")));
        for (program, place) in programs
            .map(|program| (program.clone(), program))
            .chain([(ELBOWS.to_owned(), "/usr/local/bin/elbows".to_owned())])
        {
            put(Path::new(&program), &place);
            let libraries = succeed(Command::new("ldd").arg(&program));
            for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
                put(Path::new(library), library);
            }
        }
        for link in ["lib", "lib64"] {
            symlink(format!("usr/{link}"), root.join(link)).unwrap();
        }
        let units = "/usr/lib/systemd/system";
        for entry in fs::read_dir(units).unwrap() {
            let path = entry.unwrap().path();
            // A unit that is a link to nowhere is switched off.
            if path.is_file() {
                put(&path, path.to_str().unwrap());
            }
        }
        let deploy = |name: &str| super::root().join("deploy/systemd").join(name);
        put(&deploy("elbows@.service"), "/etc/systemd/system/elbows@.service");
        put(&deploy("elbows.env"), "/etc/elbows/elbows.env");
        put(&deploy("elbows.socket"), "/root/elbows.socket");
        put(&deploy("elbows@.service.d/socket.conf"), "/root/socket.conf");
        let write = |place: &str, text: &str| {
            let file = root.join(place);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("etc/systemd/system/elbows@.service.d/container.conf", IN_A_CONTAINER);
        write("etc/systemd/system/app.service", APPLICATION);
        write("etc/passwd", "root:x:0:0::/:/bin/false\nelbows:x:998:998::/:/bin/false\n");
        write("etc/group", "root:x:0:\nelbows:x:998:\n");
        write("etc/machine-id", "");
        write("etc/systemd/system/default.target", DEFAULT);
        let dockerfile = "FROM scratch\nCOPY root/ /\nENV container=docker\n\
                          ENTRYPOINT [\"/usr/lib/systemd/systemd\"]\n";
        fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
        let image = Self { tag: unique() };
        succeed(Command::new("docker").args(["build", "--tag", &image.tag]).arg(context.path()));
        image
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["image", "rm", &self.tag]).output();
    }
}

/// A running systemd.
struct Machine {
    container: Container,
    _image: Image,
}

impl Machine {
    /// One that has started, or nothing where a container cannot have one.
    fn start() -> Option<Self> {
        let image = Image::build();
        let container = Container { name: unique() };
        let run = "run -d --cap-add SYS_ADMIN --security-opt seccomp=unconfined \
                   --security-opt apparmor=unconfined --volume /sys/fs/cgroup:/sys/fs/cgroup \
                   --tmpfs /run --tmpfs /tmp -p 127.0.0.1::45400";
        let mut command = Command::new("docker");
        command.args(run.split_whitespace()).args(["--name", &container.name, &image.tag]);
        let output = command.output().expect("there is `docker`");
        let machine = Self { container, _image: image };
        let is_up = output.status.success() && machine.is_up();
        is_up.then_some(machine)
    }

    fn is_up(&self) -> bool {
        // Parts of it fail in a container; `degraded` is what it says then.
        let is_up = || {
            let (_, said) = self.try_systemctl(&["is-system-running"]);
            said == "running" || said == "degraded"
        };
        let is_gone = || self.container.inspect("{{.State.Running}}") != "true";
        wait_until("systemd has started, or has not", || is_up() || is_gone());
        is_up()
    }

    fn try_systemctl(&self, words: &[&str]) -> (bool, String) {
        let mut command = Command::new("docker");
        command.args(["exec", &self.container.name, "/usr/bin/systemctl", "--no-pager"]);
        let output = command.args(words).output().expect("there is `docker`");
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success(), said)
    }

    fn systemctl(&self, words: &[&str]) -> String {
        let (is_good, said) = self.try_systemctl(words);
        assert!(is_good, "systemctl {words:?}: {said}\n{}", self.journal());
        said
    }

    /// What both instances have written.
    fn journal(&self) -> String {
        let mut words = vec!["exec", &self.container.name, "/usr/bin/journalctl", "--no-pager"];
        words.extend(["--output=cat", "--unit=elbows@a.service", "--unit=elbows@b.service"]);
        docker(&words)
    }

    /// Waits until the journal, which is written beside all else, has a text so often.
    fn says(&self, text: &str, times: usize) {
        wait_until(&format!("{text:?} is in the journal"), || {
            self.journal().matches(text).count() == times
        });
    }

    /// Waits until an instance has ended well.
    fn ended(&self, unit: &str) {
        let show = ["show", unit, "--value", "--property", "ActiveState,Result,ExecMainStatus"];
        let mut said = String::new();
        wait_until(&format!("{unit} has ended"), || {
            said = self.systemctl(&show);
            said.lines().any(|line| line == "inactive" || line == "failed")
        });
        let mut said: Vec<_> = said.lines().collect();
        said.sort_unstable();
        assert_eq!(said, ["0", "inactive", "success"], "{}", self.journal());
    }

    fn is_active(&self, unit: &str) -> bool {
        self.try_systemctl(&["is-active", unit]).0
    }
}

fn echoes(client: &mut Client) {
    client.send(b"\x81\x82\0\0\0\0hi");
    assert_eq!(client.read_exact(4), b"\x81\x02hi");
}

#[test]
fn instances_of_systemd_take_over_from_each_other() {
    if image().is_none() {
        return;
    }
    let Some(machine) = Machine::start() else {
        left_out("no systemd runs in a container here");
        return;
    };
    machine.systemctl(&["start", "app.service", "elbows@a.service"]);
    let address = machine.container.published(45400);
    let mut client = echoed(Client::behind_balancer(address));

    machine.systemctl(&["start", "elbows@b.service"]);
    machine.ended("elbows@a.service");
    echoes(&mut client);
    machine.systemctl(&["start", "elbows@a.service"]);
    machine.ended("elbows@b.service");
    echoes(&mut client);
    machine.says("handoff from=", 2);
    machine.says(" moved=1 refused=0 ", 4);
    drop(client);
    machine.systemctl(&["stop", "elbows@a.service"]);
    machine.ended("elbows@a.service");

    // With systemd's own listener, of which both know, a connection starts the first, and no other one later.
    let name = &machine.container.name;
    for (from, to) in
        [("elbows.socket", "elbows.socket"), ("socket.conf", "elbows@.service.d/socket.conf")]
    {
        let dir = TempDir::new().unwrap();
        let copy = dir.path().join(from);
        docker(&["cp", &format!("{name}:/root/{from}"), copy.to_str().unwrap()]);
        docker(&["cp", copy.to_str().unwrap(), &format!("{name}:/etc/systemd/system/{to}")]);
    }
    machine.systemctl(&["daemon-reload"]);
    machine.systemctl(&["start", "elbows.socket"]);
    assert!(!machine.is_active("elbows@a.service"));
    let mut client = echoed(Client::behind_balancer(address));
    wait_until("systemd knows that it serves", || machine.is_active("elbows@a.service"));
    machine.systemctl(&["start", "elbows@b.service"]);
    machine.ended("elbows@a.service");
    echoes(&mut client);
    echoed(Client::behind_balancer(address));
    assert!(!machine.is_active("elbows@a.service"), "{}", machine.journal());
    machine.says("was passed (LISTEN_FDS)", 2);
}
