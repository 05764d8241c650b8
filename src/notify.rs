//! What systemd, or who else has started the process, is told of it (`sd_notify(3)`).

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The variable that says where it listens.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// The supervisor's socket, or nothing where there is none. It is connected before the sandbox closes, which takes
/// sockets without a path away.
#[derive(Debug, Default)]
pub struct Notify(Option<UnixDatagram>);

impl Notify {
    /// Connects to what `NOTIFY_SOCKET` names: a path, or `@` and a name without one.
    ///
    /// # Errors
    /// It is set and nobody listens there.
    pub fn from_environment() -> io::Result<Self> {
        match env::var_os(VARIABLE) {
            Some(address) if !address.is_empty() => Self::connect(&address).map(Some).map(Self),
            _ => Ok(Self(None)),
        }
    }

    fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
        let address = match address.as_bytes().split_first() {
            Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // A supervisor that does not read is not waited for.
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// It serves.
    pub fn ready(&self) {
        self.tell("READY=1\nSTATUS=serving");
    }

    /// It is about to end, and how.
    pub fn stopping(&self, status: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS={status}"));
    }

    /// A line for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.tell(&format!("STATUS={status}"));
    }

    fn tell(&self, text: &str) {
        if let Some(socket) = &self.0
            && let Err(error) = socket.send(text.as_bytes())
        {
            tracing::debug!(%error, "the supervisor was not told: {text}");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut room = [0; 200];
        let count = socket.recv(&mut room).unwrap();
        String::from_utf8(room[..count].to_vec()).unwrap()
    }

    #[test]
    fn supervisor_hears_at_a_path_and_at_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let supervisor = UnixDatagram::bind(&path).unwrap();
        let notify = Notify(Some(Notify::connect(path.as_os_str()).unwrap()));
        notify.ready();
        notify.stopping("draining");
        assert_eq!(heard(&supervisor), "READY=1\nSTATUS=serving");
        assert_eq!(heard(&supervisor), "STOPPING=1\nSTATUS=draining");

        let name = format!("elbows-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let supervisor = UnixDatagram::bind_addr(&address).unwrap();
        let notify = Notify(Some(Notify::connect(OsStr::new(&format!("@{name}"))).unwrap()));
        notify.status("handing over");
        assert_eq!(heard(&supervisor), "STATUS=handing over");
    }

    #[test]
    fn nobody_is_told_where_nobody_asked() {
        Notify::default().ready();
        let nowhere = OsStr::new("/nowhere/notify");
        assert_eq!(Notify::connect(nowhere).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
