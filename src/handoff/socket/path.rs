//! The path of the handoff's socket: what its directory must be like, and how the socket comes to be there.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FlockOperation, access, flock};
use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, SocketType};
use rustix::process::getuid;

use super::{connect, new_socket};

/// The longest path, in bytes: `sun_path` has 108, of which one is the NUL (unix(7)).
pub const MAX_PATH: usize = 107;

/// Connections that wait to be accepted. One new process at a time is served, and the next one hears so.
const BACKLOG: i32 = 8;

/// Those who may write to a directory beside its owner.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why no socket can listen at a path.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The kernel takes no longer one.
    #[error("{path}: a path of {length} bytes, and a UNIX socket's has at most {MAX_PATH}")]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its bytes.
        length: usize,
    },
    /// There is no directory for it, or it cannot be looked at.
    #[error("{directory}: no directory for the socket: {source}")]
    NoDirectory {
        /// The directory.
        directory: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else could put a socket of his own in its place.
    #[error(
        "{directory}: others may write to this directory (mode {mode:04o}); it needs 0700 or 0755"
    )]
    DirectoryOfOthers {
        /// The directory.
        directory: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The same.
    #[error("{directory}: this directory belongs to uid {owner}, neither to uid {own} nor to root")]
    DirectoryOwner {
        /// The directory.
        directory: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who this process is.
        own: u32,
    },
    /// This process's user may not make a socket in it.
    #[error("{directory}: uid {own} may not write to this directory: {source}")]
    DirectoryNotWritable {
        /// The directory.
        directory: PathBuf,
        /// Who this process is.
        own: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something else has that name, and is not removed.
    #[error("{path}: this is there and is no socket")]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// Another process listens there, or is about to.
    #[error("{path}: another process listens there")]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("{path}: {step}: {source}")]
    Refused {
        /// The path.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Checks whether a socket may be bound at `path`, as far as that can be said without doing it: the length of the
/// path, and its directory, which this process's user may write to, and nobody else but root.
///
/// # Errors
/// The first of [`BindError`] that is true, of those that name a directory or a length.
pub fn check(path: &Path) -> Result<(), BindError> {
    let length = path.as_os_str().len();
    if length > MAX_PATH {
        return Err(BindError::PathTooLong { path: path.to_owned(), length });
    }
    let directory = directory_of(path);
    let found = fs::metadata(directory)
        .and_then(|found| found.is_dir().then_some(found).ok_or_else(|| Errno::NOTDIR.into()));
    let own = getuid().as_raw();
    match found {
        Ok(found) => check_directory(directory, &found, own)?,
        Err(source) => {
            return Err(BindError::NoDirectory { directory: directory.to_owned(), source });
        }
    }
    access(directory, Access::WRITE_OK | Access::EXEC_OK).map_err(|fault| {
        let directory = directory.to_owned();
        BindError::DirectoryNotWritable { directory, own, source: fault.into() }
    })
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn check_directory(directory: &Path, found: &Metadata, own: u32) -> Result<(), BindError> {
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    let directory = || directory.to_owned();
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(BindError::DirectoryOfOthers { directory: directory(), mode });
    }
    if owner != own && owner != 0 {
        return Err(BindError::DirectoryOwner { directory: directory(), owner, own });
    }
    Ok(())
}

/// Listens at `path`, for this user alone. What an earlier process left there is removed; anything else is not.
///
/// # Errors
/// See [`BindError`]. Of two processes that do this at once one gets [`BindError::InUse`], and can connect to the other
/// a moment later.
pub fn bind(path: &Path) -> Result<OwnedFd, BindError> {
    bind_as(path, SocketType::SEQPACKET)
}

/// The same for a stream, as HTTP has one.
///
/// # Errors
/// See [`bind`].
pub fn bind_stream(path: &Path) -> Result<OwnedFd, BindError> {
    bind_as(path, SocketType::STREAM)
}

fn bind_as(path: &Path, kind: SocketType) -> Result<OwnedFd, BindError> {
    check(path)?;
    let refused = |step| {
        let path = path.to_owned();
        move |source| BindError::Refused { path, step, source }
    };
    // Until it is closed nobody else removes a socket there and binds one.
    let directory = File::open(directory_of(path)).map_err(refused("its directory"))?;
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(BindError::InUse { path: path.to_owned() }),
        Err(fault) => return Err(refused("flock")(fault.into())),
    }
    remove_stale(path)?;
    let address = SocketAddrUnix::new(path).map_err(|fault| refused("name")(fault.into()))?;
    let socket = new_socket(kind).map_err(refused("socket"))?;
    rustix::net::bind(&socket, &address).map_err(|fault| refused("bind")(fault.into()))?;
    // Nobody can connect before it listens.
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(path, mode).map_err(refused("chmod"))?;
    rustix::net::listen(&socket, BACKLOG).map_err(|fault| refused("listen")(fault.into()))?;
    Ok(socket)
}

/// Removes a socket on which nobody listens.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let refused = |step, source| BindError::Refused { path: path.to_owned(), step, source };
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return Err(BindError::NoSocket { path: path.to_owned() }),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(fault) => return Err(refused("look", fault)),
    }
    match connect(path) {
        Ok(None) => {}
        Ok(Some(_)) => return Err(BindError::InUse { path: path.to_owned() }),
        // Its queue is full: somebody listens, and does not keep up. Or it is another kind of socket that listens.
        Err(fault)
            if fault.kind() == io::ErrorKind::WouldBlock
                || Errno::from_io_error(&fault) == Some(Errno::PROTOTYPE) =>
        {
            return Err(BindError::InUse { path: path.to_owned() });
        }
        Err(fault) => return Err(refused("connect", fault)),
    }
    match fs::remove_file(path) {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => Err(refused("unlink", fault)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    fn path() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("handoff.sock");
        (directory, path)
    }

    #[test]
    fn nobody_is_where_nothing_is_and_where_somebody_was() {
        let (_directory, path) = path();
        assert!(connect(&path).unwrap().is_none());
        let listening = bind(&path).unwrap();
        assert!(connect(&path).unwrap().is_some());
        drop(listening);
        assert!(path.exists());
        assert!(connect(&path).unwrap().is_none());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let (_directory, path) = path();
        drop(bind(&path).unwrap());
        let listening = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(BindError::InUse { .. })));
        assert!(connect(&path).unwrap().is_some());
        drop(listening);
        bind(&path).unwrap();
    }

    #[test]
    fn a_process_that_does_not_accept_is_told_and_its_socket_stays() {
        let (_directory, path) = path();
        let _listening = bind(&path).unwrap();
        let mut waiting = Vec::new();
        let fault = loop {
            match connect(&path) {
                Ok(socket) => waiting.push(socket.unwrap()),
                Err(fault) => break fault,
            }
        };
        assert_eq!(fault.kind(), io::ErrorKind::WouldBlock);
        assert!(fault.to_string().contains("does not answer"), "{fault}");
        assert!(matches!(bind(&path), Err(BindError::InUse { .. })));
    }

    #[test]
    fn the_socket_is_its_users_alone() {
        let (_directory, path) = path();
        let _listening = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn what_is_no_socket_of_ours_is_not_removed() {
        let (directory, path) = path();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path), Err(BindError::NoSocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(directory.path().join("elsewhere"), &path).unwrap();
        assert!(matches!(bind(&path), Err(BindError::NoSocket { .. })));
        fs::remove_file(&path).unwrap();
        let stream = UnixListener::bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(BindError::InUse { .. })));
        drop(stream);
        fs::remove_file(&path).unwrap();
        let datagram = UnixDatagram::bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(BindError::InUse { .. })));
        drop(datagram);
    }

    #[test]
    fn two_that_bind_at_once_do_not_remove_each_others_socket() {
        let (directory, path) = path();
        let other = File::open(directory.path()).unwrap();
        flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(matches!(bind(&path), Err(BindError::InUse { .. })));
        drop(other);
        bind(&path).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        for mode in [0o777, 0o1777, 0o770, 0o720, 0o702] {
            let (directory, path) = path();
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
            match bind(&path) {
                Err(fault @ BindError::DirectoryOfOthers { mode: told, .. }) => {
                    assert_eq!(told, mode);
                    assert!(fault.to_string().contains(&format!("{mode:04o}")), "{fault}");
                }
                other => panic!("{mode:o}: {other:?}"),
            }
            assert!(!path.exists());
        }
        for mode in [0o700, 0o755] {
            let (directory, path) = path();
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
            bind(&path).unwrap();
        }
    }

    #[test]
    fn a_directory_is_this_users_or_roots() {
        let directory = tempfile::tempdir().unwrap();
        let found = fs::metadata(directory.path()).unwrap();
        let of_another = check_directory(directory.path(), &found, found.uid() + 1);
        if found.uid() == 0 {
            assert!(of_another.is_ok(), "root's is everybody's");
        } else {
            assert!(matches!(of_another, Err(BindError::DirectoryOwner { .. })));
        }
        assert!(check_directory(directory.path(), &found, found.uid()).is_ok());
    }

    #[test]
    fn a_directory_that_is_not_there_and_one_that_is_none_are_named() {
        let (directory, path) = path();
        let missing = directory.path().join("missing");
        let fault = bind(&missing.join("handoff.sock")).unwrap_err();
        assert!(fault.to_string().starts_with(&missing.display().to_string()), "{fault}");
        fs::write(&path, "").unwrap();
        let fault = bind(&path.join("handoff.sock")).unwrap_err();
        assert!(matches!(fault, BindError::NoDirectory { .. }), "{fault}");
    }

    #[test]
    fn the_longest_path_works_and_one_more_byte_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let room = MAX_PATH - directory.path().as_os_str().len() - 1;
        let longest = directory.path().join("x".repeat(room));
        let listening = bind(&longest).unwrap();
        assert!(connect(&longest).unwrap().is_some());
        drop(listening);
        let fault = bind(&directory.path().join("x".repeat(room + 1))).unwrap_err();
        assert!(fault.to_string().contains("108 bytes"), "{fault}");
    }
}
