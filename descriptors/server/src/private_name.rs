//! Names of sockets that nobody but the node can connect to.
//!
//! An abstract name is known to all users of the machine (`/proc/net/unix`), and each of them may connect to
//! it: who does so often enough fills the backlog of an application that listens. So the node binds the
//! application's socket to a file in a folder of its own, keeps a descriptor of the file, and removes both at
//! once. What was removed has no path that others could open, and nothing is left when the node is killed.
//! The text that getsockname(2) gives stays, and says which socket it is.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use peersock_fd::{Errno, Name};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, sockopt};

use crate::unix::unix;

/// How a folder is opened in which others are to be made.
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A file to which an application's socket is bound, and which has no name any more.
#[derive(Debug)]
pub(crate) struct PrivateName {
    file: OwnedFd,
    /// The inode of the application's descriptor.
    inode: u64,
}

impl PrivateName {
    /// Binds an application's new socket.
    ///
    /// # Errors
    /// EINVAL if it is no new AF_UNIX stream socket, and the error of the last of the folders that were tried
    /// if none can be used.
    pub(crate) fn bind(socket: BorrowedFd<'_>, name: &Name) -> Result<Self, Errno> {
        if sockopt::socket_domain(socket)? != AddressFamily::UNIX
            || sockopt::socket_type(socket)? != SocketType::STREAM
        {
            return Err(Errno::INVAL);
        }
        let inode = rustix::fs::fstat(socket)?.st_ino;
        let mut result = Err(Errno::NOENT);
        for folder in folders() {
            result = bind_in(&folder, socket, name).map(|file| Self { file, inode });
            // Of a socket that is bound already no folder helps.
            if matches!(result, Ok(_) | Err(Errno::INVAL)) {
                break;
            }
        }
        result
    }

    /// Where the node connects to.
    ///
    /// # Errors
    /// None that are known: any number fits.
    pub(crate) fn address(&self) -> Result<SocketAddrUnix, Errno> {
        // The node's threads may have descriptors of their own.
        SocketAddrUnix::new(format!("/proc/thread-self/fd/{}", self.file.as_raw_fd()))
    }

    /// Whether this is the socket that was bound.
    pub(crate) fn is_of(&self, socket: BorrowedFd<'_>) -> bool {
        rustix::fs::fstat(socket).is_ok_and(|stat| stat.st_ino == self.inode)
    }

    /// Whether anybody still has the socket open.
    pub(crate) fn is_open(&self) -> bool {
        // A socket of another type is told that this is a stream, and never gets through to it.
        let probe = unix(SocketType::DGRAM).and_then(|probe| Ok((probe, self.address()?)));
        // Without a descriptor to ask with, nobody knows: then it is not taken for closed.
        probe.map_or(true, |(probe, address)| {
            rustix::net::connect(&probe, &address) != Err(Errno::CONNREFUSED)
        })
    }
}

/// Folders in which sockets can be made, those in memory first.
fn folders() -> impl Iterator<Item = PathBuf> {
    let own = rustix::process::geteuid().as_raw();
    let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let usual = [PathBuf::from(format!("/run/user/{own}")), "/dev/shm".into(), std::env::temp_dir()];
    given.into_iter().chain(usual).chain(["/var/tmp".into()])
}

/// Binds a socket to a file in a folder within `folder`, and removes both. Gives the file.
fn bind_in(folder: &PathBuf, socket: BorrowedFd<'_>, name: &Name) -> Result<OwnedFd, Errno> {
    let folder = rustix::fs::open(folder, FOLDER, Mode::empty())?;
    let bits = getrandom::u64().map_err(|_| Errno::IO)?;
    let inner = format!(".peersock-{bits:016x}");
    rustix::fs::mkdirat(&folder, &inner, Mode::RWXU)?;
    let bound = bind_inside(folder.as_fd(), &inner, socket, &name.file_name());
    let _ = rustix::fs::unlinkat(&folder, &inner, AtFlags::REMOVEDIR);
    bound
}

fn bind_inside(
    folder: BorrowedFd<'_>,
    inner: &str,
    socket: BorrowedFd<'_>,
    file: &str,
) -> Result<OwnedFd, Errno> {
    let inner = rustix::fs::openat(folder, inner, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
    let stat = rustix::fs::fstat(&inner)?;
    // Whoever owns the outer folder may have put another one there.
    if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o077 != 0 {
        return Err(Errno::ACCESS);
    }
    let path = format!("/proc/thread-self/fd/{}/{file}", inner.as_raw_fd());
    rustix::net::bind(socket, &SocketAddrUnix::new(path)?)?;
    let opened = (|| {
        // The file mode is as the umask has it, and to connect takes the right to write.
        rustix::fs::chmodat(&inner, file, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        rustix::fs::openat(&inner, file, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    })();
    let _ = rustix::fs::unlinkat(&inner, file, AtFlags::empty());
    opened
}

#[cfg(test)]
mod tests {
    use peersock_fd::{Family, Kind, NodeTag, Opened, SocketId, name_of};

    use super::*;

    fn name() -> Name {
        let id = SocketId::new(getrandom::u64().unwrap());
        Name::Opened(NodeTag(1), Opened { family: Family::V6, kind: Kind::Stream, id })
    }

    #[test]
    fn a_socket_has_its_name_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, name) = (unix(SocketType::STREAM).unwrap(), name());
        let file = bind_in(&folder.path().to_owned(), socket.as_fd(), &name).unwrap();
        assert_eq!(name_of(rustix::net::getsockname(&socket).unwrap()), Some(name));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let bound = PrivateName { file, inode: rustix::fs::fstat(&socket).unwrap().st_ino };
        assert!(bound.is_open() && bound.is_of(socket.as_fd()));
        rustix::net::listen(&socket, 1).unwrap();
        assert!(bound.is_open());
        let connect = || {
            let client = unix(SocketType::STREAM).unwrap();
            rustix::net::connect(&client, &bound.address().unwrap()).map(|()| client)
        };
        let _client = connect().unwrap();
        let _accepted = rustix::net::accept(&socket).unwrap();
        drop(socket);
        assert!(!bound.is_open(), "a connection is taken for the listener");
        assert_eq!(connect().err(), Some(Errno::CONNREFUSED));
    }

    #[test]
    fn only_new_stream_sockets_are_bound() {
        let datagram = unix(SocketType::DGRAM).unwrap();
        assert_eq!(PrivateName::bind(datagram.as_fd(), &name()).err(), Some(Errno::INVAL));
        let socket = unix(SocketType::STREAM).unwrap();
        PrivateName::bind(socket.as_fd(), &name()).unwrap();
        assert_eq!(PrivateName::bind(socket.as_fd(), &name()).err(), Some(Errno::INVAL));
    }
}
