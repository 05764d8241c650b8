//! The Docker recipe of docs/operations.md, by its very lines: a holder owns the network, and one container takes over from
//! another while a client and the demo's page in a browser stay connected through the published port.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use super::*;
use crate::browser::Browser;

/// What upgrade.sh has started. All of it is removed with the value, and the volume.
struct Deployment {
    holder: String,
    volume: String,
}

impl Deployment {
    /// upgrade.sh with words for `docker run`, to be run.
    fn upgrade(&self, words: &[&str], image: &str) -> Command {
        let mut command = Command::new(deploy("upgrade.sh"));
        command.args(words.iter().map(|word| if *word == "elbows" { image } else { word }));
        command.env("HOLDER", &self.holder).env("VOLUME", &self.volume);
        command
    }

    /// The containers, those that have ended among them.
    fn all(&self) -> Vec<String> {
        let filter = format!("label=elbows={}", self.volume);
        let ids = docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]);
        ids.lines().map(str::to_owned).collect()
    }

    /// The one container that there is.
    fn only(&self) -> String {
        let [one] = &self.all()[..] else { panic!("{:?}", self.all()) };
        one.clone()
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        for container in self.all() {
            if std::thread::panicking() {
                eprintln!("{container} wrote:\n{}", logs(&container));
            }
            let _ = Command::new("docker").args(["rm", "--force", &container]).output();
        }
        let _ = Command::new("docker").args(["volume", "rm", &self.volume]).output();
    }
}

/// upgrade.sh fails, and says this.
fn fails(upgrade: &mut Command, why: &str) {
    let output = upgrade.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(why), "{output:?}");
}

fn deploy(file: &str) -> PathBuf {
    root().join("deploy/docker").join(file)
}

/// What a container has written, the log first.
fn logs(container: &str) -> String {
    let logs = Command::new("docker").args(["logs", container]).output().expect("there is docker");
    [logs.stderr, logs.stdout].map(|part| String::from_utf8_lossy(&part).into_owned()).concat()
}

/// Counts the WebSockets that the page opens from now on.
const COUNT_OPENED: &str = "(window.opened = 0, window.WebSocket = class extends WebSocket {
    constructor(...all) { super(...all); window.opened += 1; }
}, true)";

/// Asks when a container is started again.
const POLICY: [&str; 3] = ["inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}"];

fn is_address(text: &str) -> bool {
    text.contains(|char: char| char.is_ascii_digit())
}

fn echoes(client: &mut Client) {
    client.send(b"\x81\x82\0\0\0\0hi");
    assert_eq!(client.read_exact(4), b"\x81\x02hi");
}

#[test]
fn websocket_stays_open_while_its_container_is_replaced() {
    let Some(image) = image() else { return };
    let operations = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let (_, recipe) = operations.split_once("\n### Docker\n").expect("the recipe");
    let (recipe, _) = recipe.split_once("\n### ").expect("what follows it");
    let (_, recipe) = recipe.split_once("```sh\n").expect("its lines");
    let (recipe, _) = recipe.split_once("```").unwrap();
    let [application, holder, upgrade] = recipe.lines().collect::<Vec<_>>()[..] else {
        panic!("the recipe has other lines: {recipe}");
    };
    // Any image that waits will do, and ours can be made to.
    let pause = "registry.k8s.io/pause:3.10";
    assert!(holder.ends_with(pause), "{holder}");
    let holder = holder.replace(pause, "elbows demo --app-on 45499");
    let application = Container::run(application, &image, &[]);
    let holder = Container::run(&holder, &image, &[("app", &application)]);
    let address = holder.published(45400);
    let deployment = Deployment { holder: holder.name.clone(), volume: unique() };
    let words: Vec<_> = upgrade.split_whitespace().collect();
    assert_eq!(words[0], "deploy/docker/upgrade.sh");

    // The first one does not start: that is told, and nothing is left.
    let wrong = [&["-e", "PING_INTERVAL=nonsense"], &words[1..]].concat();
    fails(&mut deployment.upgrade(&wrong, &image), "PING_INTERVAL=\"nonsense\"");
    assert!(deployment.all().is_empty());

    succeed(&mut deployment.upgrade(&words[1..], &image));
    wait_until_it_answers(address, "GET /ping");
    assert_eq!(docker(&[&POLICY[..], &[&deployment.only()]].concat()), "on-failure");
    // Whoever else has the volume, for the socket of the admin port perhaps, does not serve.
    let other = Container { name: unique() };
    let volume = format!("{}:/run/elbows", deployment.volume);
    let run = ["run", "-d", "--name", &other.name, "--volume", &volume];
    docker(&[&run[..], &[&*image, "demo", "--app-on", "45499"]].concat());
    let mut client = echoed(Client::plain(address));
    let browser = Browser::start();
    browser.open(&format!("http://{address}/"));
    browser.sees_the_demo(is_address);
    assert_eq!(browser.value(COUNT_OPENED), true);
    let old = deployment.only();

    let mut waiting = Command::new("docker");
    let waiting = waiting.args(["wait", &old]).stdout(Stdio::piped()).spawn().unwrap();
    succeed(&mut deployment.upgrade(&words[1..], &image));
    let ended = waiting.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stdout).trim(), "0");
    let new = deployment.only();
    assert_ne!(new, old);
    echoes(&mut client);
    // "prices go on, nothing reconnects"
    browser.sees_the_demo(is_address);
    assert_eq!(browser.value("window.opened"), 0);
    echoed(Client::plain(address));
    let log = logs(&new);
    let line = log.lines().find(|line| line.contains("handoff from=")).expect("it is told");
    // The client's, and the page's two: prices and echo.
    assert!(line.contains(" moved=3 refused=0 "), "{line}");
    assert_eq!(docker(&[&POLICY[..], &[&new]].concat()), "on-failure");

    // One that does not start: its log is printed, and nothing happens.
    let wrong = [&["-e", "DRAIN_GRACE=soon"], &words[1..]].concat();
    fails(&mut deployment.upgrade(&wrong, &image), "DRAIN_GRACE=\"soon\"");
    assert_eq!(deployment.only(), new);
    echoes(&mut client);

    // One that serves, and is killed before it would be started again: nobody serves, and that is told.
    let dir = TempDir::new().unwrap();
    let kills = dir.path().join("docker");
    let real = succeed(Command::new("sh").args(["-c", "command -v docker"]));
    let script = format!(
        "#!/bin/sh\n[ \"$1\" != update ] || {real} kill \"$4\" >/dev/null\nexec {real} \"$@\"\n"
    );
    fs::write(&kills, script).unwrap();
    fs::set_permissions(&kills, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", dir.path().display(), env::var("PATH").unwrap());
    let mut upgrade = deployment.upgrade(&words[1..], &image);
    fails(upgrade.env("PATH", path), "nobody serves at ");
    drop(client);
    // The one before it has handed over.
    docker(&["wait", &new]);
    assert_eq!(deployment.only(), new);

    // An old one that stays: both are left, and the new one is started again where it fails.
    let stays = [&["-e", "HANDOFF_STAY=on"], &words[1..]].concat();
    succeed(&mut deployment.upgrade(&stays, &image));
    let mut upgrade = deployment.upgrade(&stays, &image);
    fails(upgrade.env("WAIT", "3"), "has not ended; both are left");
    let last = deployment.all().remove(0);
    assert_eq!(docker(&[&POLICY[..], &[&last]].concat()), "on-failure");
    docker(&["stop", &last]);
    assert_eq!(docker(&["inspect", "--format", "{{.State.ExitCode}}", &last]), "0");
}
