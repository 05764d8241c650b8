//! Handoffs where the kernel has little room: for descriptors that are under way, and for what is said.

use std::fs::{self, File, Permissions};
use std::io::{IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType, sendmsg,
    sockopt,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Uid, pidfd_getfd, pidfd_open};
use rustix::thread::set_thread_res_uid;
use tempfile::TempDir;
use test_support::process::open_descriptors;

use super::refusals::{SOMEBODY, as_somebody};
use super::relay::{OFFER, Relay, Verdict};
use super::{Place, number, talk};
use crate::programs::wait_until;
use crate::proxy::Elbows;
use crate::web_socket::{BINARY, Peer, Tunnels};

/// How many files the processes may open, and so how many descriptors of their user may be under way.
const MAY_OPEN: usize = 1_024;

/// What is under way is counted for the user, who is the same in each of these tests.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Processes of a user who has no privilege, and their tunnels.
struct Unprivileged {
    _alone: MutexGuard<'static, ()>,
    application: Tunnels,
    place: Place,
    old: Elbows,
    tunnels: Vec<(Peer, Peer)>,
    /// What they run.
    binary: TempDir,
}

impl Unprivileged {
    /// None: whoever runs this may not become another user.
    fn start(tunnels: usize) -> Option<Self> {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let binary = tempfile::Builder::new().prefix("elbows").tempdir_in("/tmp").unwrap();
        fs::set_permissions(binary.path(), Permissions::from_mode(0o755)).unwrap();
        let application = Tunnels::start();
        let place = Place::new(application.address);
        as_somebody(binary.path())?;
        chown(place.directory.path(), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
        let mut old = Self::process(&place, &binary);
        old.wait_until_listening();
        let tunnels = (0..tunnels).map(|_| application.open(&old)).collect();
        Some(Self { _alone: alone, application, place, old, tunnels, binary })
    }

    fn process(place: &Place, binary: &TempDir) -> Elbows {
        let somebody = as_somebody(binary.path()).expect("as before");
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", &format!("ulimit -n {MAY_OPEN}; exec \"$0\" \"$@\"")])
            .arg(somebody.get_program())
            .args(somebody.get_args())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        Elbows::spawn_unready(place.command_of(command, &[]), place.address)
    }

    fn successor(&self) -> Elbows {
        Self::process(&self.place, &self.binary)
    }

    fn goes_on(&mut self) {
        for tunnel in &mut self.tunnels {
            talk(tunnel, "as if nothing had been");
        }
        talk(&mut self.application.open_at(self.place.address), "new");
    }

    /// Another process takes over everything.
    fn hands_over(&mut self) {
        let new = self.successor();
        assert_eq!(self.old.wait().code(), Some(0));
        let line = new.log.wait_for("handoff from=");
        assert_eq!(number(&line, "moved"), self.tunnels.len() as u64, "{line}");
        self.old = new;
        self.goes_on();
    }
}

/// Sends descriptors to a socket that nobody reads, more of them than may be under way. They are until this is dropped.
fn fill() -> [UnixStream; 2] {
    let filler = thread::spawn(|| {
        // This thread's alone: the kernel counts by user.
        let user = Uid::from_raw(SOMEBODY);
        set_thread_res_uid(user, user, user).unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        let many = [null.as_fd(); 253];
        for _ in 0..=MAY_OPEN / many.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&many)));
            sendmsg(&near, &[IoSlice::new(b"x")], &mut ancillary, SendFlags::empty()).unwrap();
        }
        [near, far]
    });
    filler.join().unwrap()
}

const TOO_MANY: &str =
    "tunnels cannot be sent to the other process, and go on here error=Too many references";

#[test]
fn no_descriptor_may_be_sent_and_nothing_moves() {
    let Some(mut served) = Unprivileged::start(20) else { return };
    let full = fill();
    let mut new = served.successor();
    served.old.log.wait_for(TOO_MANY);
    served.old.log.wait_for("aborted why=no_room given=0 back=0");
    assert_eq!(new.wait().code(), Some(1));
    new.log.wait_for("aborted why=no_room came=0 back=0");
    served.goes_on();
    drop(full);
    served.hands_over();
}

/// The new one has some already, and may not send them back either.
#[test]
fn no_descriptor_may_be_sent_any_more_and_what_has_moved_goes_on_until_it_comes_back() {
    let Some(mut served) = Unprivileged::start(40) else { return };
    let mut new = served.successor();
    // One tunnel, then sixteen; now the new one is watched for half a second.
    new.log.wait_for("Yours { number: 1 }");
    let full = fill();
    served.old.log.wait_for(TOO_MANY);
    new.log.wait_for(TOO_MANY);
    let report = new.wait_for_report("tunnels_open=17");
    assert_eq!(number(&report, "handed_in"), 17, "{report}");
    served.goes_on();
    assert!(!new.has_ended());
    drop(full);
    served.old.log.wait_for("aborted why=no_room given=17 back=17");
    assert_eq!(new.wait().code(), Some(1));
    let told = |line: &String| line.contains(TOO_MANY);
    assert_eq!(new.log.all().iter().filter(|line| told(line)).count(), 1, "told once");
    served.goes_on();
    served.hands_over();
}

/// The sockets of a process that are of this kind.
fn sockets_of(pid: Pid, domain: AddressFamily, kind: SocketType) -> Vec<OwnedFd> {
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    open_descriptors(pid)
        .into_iter()
        // It may be closed by now.
        .filter_map(|number| {
            let number = i32::try_from(number).unwrap();
            pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()
        })
        .filter(|socket| {
            sockopt::socket_domain(socket).is_ok_and(|its| its == domain)
                && sockopt::socket_type(socket).is_ok_and(|its| its == kind)
        })
        .collect()
}

/// The kernel makes as much of it as the least that it allows (socket(7)).
fn make_small(socket: impl AsFd) {
    sockopt::set_socket_send_buffer_size(&socket, 1).unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, 1).unwrap();
    let [sends, receives] =
        [sockopt::socket_send_buffer_size(&socket), sockopt::socket_recv_buffer_size(&socket)];
    assert!(sends.unwrap() < 8_192 && receives.unwrap() < 8_192);
}

/// Of the connection between the two, of both sides of tunnels, and of those who have them.
#[test]
fn buffers_are_as_small_as_can_be_and_no_byte_is_lost() {
    const LENGTH: usize = 8 << 10;
    let application = Tunnels::start();
    let place = Place::new(application.address);
    let mut old = place.start(&[]);
    let mut tunnels: Vec<_> = (0..300).map(|_| application.open(&old)).collect();
    for socket in sockets_of(old.pid(), AddressFamily::INET, SocketType::STREAM) {
        make_small(socket);
    }
    for (client, application) in &tunnels[..4] {
        make_small(&client.socket);
        make_small(&application.socket);
    }
    let old_pid = old.pid();
    let new_pid: Arc<Mutex<Option<Pid>>> = Arc::default();
    let known = Arc::clone(&new_pid);
    let relay = Relay::start(place.socket(), move |moment| {
        if moment == (OFFER, 1) {
            wait_until("the new process", || known.lock().unwrap().is_some());
            let new_pid = known.lock().unwrap().unwrap();
            for pid in [old_pid, new_pid] {
                let sockets = sockets_of(pid, AddressFamily::UNIX, SocketType::SEQPACKET);
                assert!(!sockets.is_empty());
                sockets.into_iter().for_each(make_small);
            }
        }
        Verdict::Pass
    });
    // They are under way while tunnels move.
    let busy: Vec<_> = tunnels.drain(..4).collect();
    let senders: Vec<_> = busy
        .iter()
        .flat_map(|(client, application)| [client, application])
        .map(|peer| {
            let bytes = peer.frame(0x80 | BINARY, payload(LENGTH));
            let mut socket = peer.socket.try_clone().unwrap();
            thread::spawn(move || socket.write_all(&bytes).unwrap())
        })
        .collect();
    let path = relay.path.to_str().unwrap();
    let new = Elbows::spawn_unready(place.command(&[("HANDOFF_SOCKET", path)]), place.address);
    *new_pid.lock().unwrap() = Some(new.pid());
    let line = new.log.wait_for("handoff from=");
    assert_eq!((number(&line, "moved"), number(&line, "refused")), (300, 0), "{line}");
    assert_eq!(old.wait().code(), Some(0));
    let counted = new.wait_for_report("tunnels=300");
    assert_eq!(number(&counted, "handed_in"), 300, "{counted}");
    for (mut client, mut application) in busy {
        client.expect(BINARY, payload(LENGTH));
        application.expect(BINARY, payload(LENGTH));
    }
    for sender in senders {
        sender.join().unwrap();
    }
    for tunnel in &mut tunnels {
        talk(tunnel, "as if nothing had been");
    }
}

fn payload(length: usize) -> Vec<u8> {
    (0..251).cycle().take(length).collect()
}
