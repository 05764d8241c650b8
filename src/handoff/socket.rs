//! The UNIX socket of the handoff, and everything else that the handoff asks of the kernel: descriptors that go from
//! one process to another, sealed memory, the clock that both processes share.
//!
//! The socket is `SOCK_SEQPACKET`: messages stay whole and in order (unix(7)). [`bind`] and [`connect`] need no runtime
//! and come before the sandbox, which allows neither to create a socket's file nor to remove one. [`Listener`] and
//! [`Connection`] need tokio's runtime, and work inside of the sandbox.

mod path;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    sockopt,
};
use rustix::process::{Resource, getrlimit, getuid};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

pub use self::path::{BindError, MAX_PATH, bind, bind_stream, check};

/// The longest message, in bytes. What is larger goes in a [memfd](memfd_from).
pub const MAX_MESSAGE: usize = 64 * 1024;

/// The most descriptors that go with one message: `SCM_MAX_FD` of Linux.
pub const MAX_DESCRIPTORS: usize = 253;

/// Room for as many descriptors.
const ANCILLARY: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS));

/// Connects to the process that listens at `path`. None where nobody does: nothing is there, or what an earlier process
/// left.
///
/// # Errors
/// `WouldBlock` where so many wait already that there is no room for another: the process that listens stands still. Else
/// what connect(2) says: another kind of socket listens there, or the path may not be used.
pub fn connect(path: &Path) -> io::Result<Option<OwnedFd>> {
    let socket = new_socket(SocketType::SEQPACKET)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(Some(socket)),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(Errno::AGAIN) => Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            "the process that serves does not answer, and others wait for it already",
        )),
        Err(fault) => Err(fault.into()),
    }
}

fn new_socket(kind: SocketType) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?)
}

/// The listening end.
///
/// tokio's types for streams watch sockets of messages just as well; only their reads and writes are not to be used.
#[derive(Debug)]
pub struct Listener(UnixListener);

impl Listener {
    /// Takes over a socket that [`bind`] gave to this process or to another one.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        UnixListener::from_std(socket.into()).map(Self)
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// What accept(2) says. Where the process has no descriptor left it says so at once, over and over: whoever calls
    /// again is to pause.
    pub async fn accept(&self) -> io::Result<Connection> {
        let (socket, _) = self.0.accept().await?;
        Ok(Connection(socket))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One connection between an old process and a new one.
#[derive(Debug)]
pub struct Connection(UnixStream);

/// A message that came.
#[derive(Debug)]
pub struct Received {
    /// Its bytes: one at least.
    pub bytes: Vec<u8>,
    /// What was sent beside them, in its order. Each is closed on exec(2).
    pub descriptors: Vec<OwnedFd>,
    /// Part of it is lost: the message was too long, or this process may have no further descriptor.
    pub truncated: bool,
}

impl Connection {
    /// Takes over a socket of [`connect`].
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        UnixStream::from_std(socket.into()).map(Self)
    }

    /// Sends a message of 1 to [`MAX_MESSAGE`] bytes and up to [`MAX_DESCRIPTORS`] descriptors, whole; waits until there
    /// is room for it. The descriptors stay open here, too.
    ///
    /// # Errors
    /// `InvalidInput` where the message is none; `EPIPE` where the other process is gone; `ETOOMANYREFS` where too many
    /// descriptors of this user are under way (unix(7)).
    pub async fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.0.async_io(Interest::WRITABLE, || send(&self.0, bytes, descriptors)).await
    }

    /// The same, now or not at all.
    ///
    /// # Errors
    /// The same; `WouldBlock` where there is no room now.
    pub fn try_send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        // Not by the runtime's way, which says that there is no room until it has looked.
        send(&self.0, bytes, descriptors)
    }

    /// Waits for a message. None: the other process has closed its end, or is gone, and everything that it had sent has
    /// been received.
    ///
    /// # Errors
    /// What recvmsg(2) says: `ECONNRESET` where the other process went without reading all that it was sent.
    pub async fn receive(&self) -> io::Result<Option<Received>> {
        self.0.async_io(Interest::READABLE, || receive(&self.0)).await
    }

    /// The user that the other process ran as when it connected, or listened (`SO_PEERCRED`).
    ///
    /// # Errors
    /// What getsockopt(2) says.
    pub fn peer_uid(&self) -> io::Result<u32> {
        // The runtime's, since its process id is 0 where that is of another namespace, as between two containers, and
        // rustix takes none to be 0.
        Ok(self.0.peer_cred()?.uid())
    }

    /// The process that connected, as this process sees it. None: it is of another namespace, as in another container. Where this
    /// process has connected itself, it is the one that listened first.
    #[must_use]
    pub fn peer_pid(&self) -> Option<i32> {
        self.0.peer_cred().ok()?.pid().filter(|pid| *pid > 0)
    }

    /// Whether the other process is of the same user as this one.
    ///
    /// # Errors
    /// The same.
    pub fn is_same_user(&self) -> io::Result<bool> {
        Ok(self.peer_uid()? == getuid().as_raw())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn send(socket: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    // An empty one would look like the end of the stream.
    if bytes.is_empty() || bytes.len() > MAX_MESSAGE || descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a message of {} bytes and {} descriptors", bytes.len(), descriptors.len()),
        ));
    }
    let mut space = [MaybeUninit::uninit(); ANCILLARY];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("no room for the descriptors"));
    }
    let bytes = [io::IoSlice::new(bytes)];
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &bytes, &mut ancillary, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

fn receive(socket: &UnixStream) -> io::Result<Option<Received>> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); ANCILLARY];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        let mut into = [io::IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(socket, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut descriptors = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptors.extend(rights);
        }
    }
    if message.bytes == 0 {
        return Ok(None);
    }
    bytes.truncate(message.bytes);
    bytes.shrink_to_fit();
    let truncated = message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    Ok(Some(Received { bytes, descriptors, truncated }))
}

/// What names a socket, in every process that has it, until the machine restarts (`SO_COOKIE`).
///
/// # Errors
/// What getsockopt(2) says: `ENOTSOCK` where it is no socket.
pub fn cookie(socket: impl AsFd) -> io::Result<u64> {
    Ok(sockopt::socket_cookie(socket)?)
}

/// What a memfd must not do any more when it is sent.
const SEALED: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE);

/// Bytes as a descriptor that can be sent: sealed memory, which nobody can change any more (`memfd_create(2)`).
///
/// # Errors
/// The process has no descriptor left, or the machine no memory.
pub fn memfd_from(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("elbows handoff", flags)?);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SEALED | SealFlags::SEAL)?;
    Ok(file.into())
}

/// The bytes of a [memfd](memfd_from) of at most `most` bytes. Where it stands for other readers does not matter.
///
/// # Errors
/// `InvalidData` where it is longer, or is no sealed memory: a file might be cut while it is read, a pipe might wait.
pub fn read_memfd(memfd: impl AsFd, most: usize) -> io::Result<Vec<u8>> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    if !fcntl_get_seals(&memfd).is_ok_and(|seals| seals.contains(SEALED)) {
        return Err(invalid("a descriptor that is no sealed memory".to_owned()));
    }
    let file = File::from(memfd.as_fd().try_clone_to_owned()?);
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if length > most {
        return Err(invalid(format!("sealed memory of {length} bytes, where {most} may come")));
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// How many descriptors this process may open beside those that it has: the numbers below its soft limit
/// (`RLIMIT_NOFILE`), less those that `/proc/self/fd` lists.
///
/// Where there is no /proc, the lowest number that is free stands for how many are open. That is right while a process
/// has closed none of its lower ones, as at its start, and too optimistic after that.
#[must_use]
pub fn free_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    limit.saturating_sub(open_descriptors(limit).unwrap_or_else(|_| lowest_free_descriptor()))
}

/// Makes room for so many descriptors beside those that are open, as far as this process may have them.
///
/// The kernel doubles the table of a process's descriptors whenever it is full. With several threads it then waits until
/// every processor has noticed (`expand_fdtable` of `fs/file.c`), which takes 10 to 20 ms: a batch of tunnels would stand still
/// for as long.
///
/// # Errors
/// The machine has no memory for the table.
pub fn reserve_descriptors(more: u64) -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let open = open_descriptors(limit).unwrap_or_default();
    let highest = open.saturating_add(more).min(limit.saturating_sub(1));
    // The kernel has no higher numbers than this.
    let highest = i32::try_from(highest).unwrap_or(i32::MAX);
    // Taking a high number makes the table large enough, and it never gets smaller.
    drop(rustix::io::fcntl_dupfd_cloexec(new_socket(SocketType::SEQPACKET)?, highest)?);
    Ok(())
}

/// Those that are open and have a number below the limit.
pub(crate) fn open_descriptors(limit: u64) -> io::Result<u64> {
    let mut open = 0;
    for entry in fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
        open += u64::from(number.is_some_and(|number| number < limit));
    }
    // One of them is the reader's own.
    Ok(open.saturating_sub(1))
}

/// The highest number there is where none is free.
fn lowest_free_descriptor() -> u64 {
    new_socket(SocketType::SEQPACKET)
        .map_or(u64::MAX, |socket| u64::try_from(socket.as_raw_fd()).unwrap_or(u64::MAX))
}

/// The time of `CLOCK_MONOTONIC`, which all processes of a machine share.
#[must_use]
pub fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}
