//! Socket names to which only the node can connect.
//!
//! Every user of the machine sees abstract names (`/proc/net/unix`) and may connect to them, which could fill
//! the backlog of a listening application. So the node binds the application's socket to a file in a private
//! folder, keeps a descriptor of the file, and removes both at once. A removed file has no path that others
//! could open, and nothing is left when the node is killed. The text that getsockname(2) returns stays and
//! identifies the socket.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use peersock_fd::{Errno, Name};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, sockopt};

use crate::unix::unix;

/// Flags for opening a folder in which others are made.
const FOLDER_FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A file to which an application's socket is bound, and which no longer has a name.
#[derive(Debug)]
pub(crate) struct PrivateName {
    file: OwnedFd,
    /// Inode of the application's descriptor.
    inode: u64,
}

impl PrivateName {
    /// Binds an application's new socket.
    ///
    /// # Errors
    /// EINVAL if it is not a new AF_UNIX stream socket; if no folder can be used, the error of the last one
    /// tried.
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
            // No folder helps if the socket is bound already.
            if matches!(result, Ok(_) | Err(Errno::INVAL)) {
                break;
            }
        }
        result
    }

    /// Returns the address that the node connects to.
    ///
    /// # Errors
    /// None known, because every descriptor number fits.
    pub(crate) fn address(&self) -> Result<SocketAddrUnix, Errno> {
        // Use thread-self because the node's threads may have a separate descriptor table.
        SocketAddrUnix::new(format!("/proc/thread-self/fd/{}", self.file.as_raw_fd()))
    }

    /// Returns true if `socket` is the one that was bound.
    pub(crate) fn is_of(&self, socket: BorrowedFd<'_>) -> bool {
        rustix::fs::fstat(socket).is_ok_and(|stat| stat.st_ino == self.inode)
    }

    /// Returns true if any process still has the socket open.
    pub(crate) fn is_open(&self) -> bool {
        // A probe of another type fails because this is a stream, and never reaches the application.
        let probe = unix(SocketType::DGRAM).and_then(|probe| Ok((probe, self.address()?)));
        // Without a descriptor for the probe the answer is unknown, so assume that the socket is open.
        probe.map_or(true, |(probe, address)| {
            rustix::net::connect(&probe, &address) != Err(Errno::CONNREFUSED)
        })
    }
}

/// Returns folders in which sockets can be made, those in memory first.
fn folders() -> impl Iterator<Item = PathBuf> {
    let own = rustix::process::geteuid().as_raw();
    let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let usual = [PathBuf::from(format!("/run/user/{own}")), "/dev/shm".into(), std::env::temp_dir()];
    given.into_iter().chain(usual).chain(["/var/tmp".into()])
}

/// Binds a socket to a file in a folder within `folder`, and removes both. Returns the file.
fn bind_in(folder: &PathBuf, socket: BorrowedFd<'_>, name: &Name) -> Result<OwnedFd, Errno> {
    let folder = rustix::fs::open(folder, FOLDER_FLAGS, Mode::empty())?;
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
    let inner = rustix::fs::openat(folder, inner, FOLDER_FLAGS | OFlags::NOFOLLOW, Mode::empty())?;
    let stat = rustix::fs::fstat(&inner)?;
    // The owner of the outer folder may have replaced the inner one.
    if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o077 != 0 {
        return Err(Errno::ACCESS);
    }
    let path = format!("/proc/thread-self/fd/{}/{file}", inner.as_raw_fd());
    rustix::net::bind(socket, &SocketAddrUnix::new(path)?)?;
    let opened = (|| {
        // The umask determines the file's mode, and connecting requires write permission.
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
