//! System calls for which rustix has no safe function.
#![allow(unsafe_code)]

use std::io::IoSliceMut;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::RecvFlags;

/// Time at which the kernel took a datagram over from the node: SO_TIMESTAMP, SO_TIMESTAMPNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    /// The time of day, since 1970.
    pub time: Duration,
    /// True for SO_TIMESTAMPNS, false for SO_TIMESTAMP.
    pub is_precise: bool,
}

/// The process and the user at the other end of a connected AF_UNIX socket, at the time it connected or
/// listened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// The process; 0 if it is invisible from here.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
}

/// Constants of fcntl(2) that libc lacks.
const F_SETSIG: libc::c_int = 10;
const F_GETSIG: libc::c_int = 11;
const F_SETOWN_EX: libc::c_int = 15;
const F_GETOWN_EX: libc::c_int = 16;

/// Identity of an open file: its device and its inode.
pub type Identity = (u64, u64);

/// Returns the identity of an open file.
///
/// # Errors
/// Errors of fstat(2).
pub fn identity(fd: BorrowedFd<'_>) -> Result<Identity, Errno> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Returns SO_PEERCRED. Uses a direct system call, so that a library that replaces getsockopt(3) does not see
/// it, and because a process in another PID namespace has the ID 0.
///
/// # Errors
/// Errors of getsockopt(2).
pub fn peer_credentials(fd: BorrowedFd<'_>) -> Result<Credentials, Errno> {
    let mut credentials = MaybeUninit::<libc::ucred>::zeroed();
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: both pointers are to live variables, of the given sizes.
    let result = unsafe {
        crate::syscall!(
            libc::SYS_getsockopt,
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            credentials.as_mut_ptr(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(last_error());
    }
    // SAFETY: every bit pattern is a `ucred`, and the kernel has written one over the zeros.
    let credentials = unsafe { credentials.assume_init() };
    Ok(Credentials { pid: credentials.pid, uid: credentials.uid })
}

/// Returns an `int` option of SOL_SOCKET.
///
/// # Errors
/// Errors of getsockopt(2).
pub fn int_option(fd: BorrowedFd<'_>, option: libc::c_int) -> Result<i32, Errno> {
    let (fd, level) = (fd.as_raw_fd(), libc::SOL_SOCKET);
    let (mut value, mut length) = (0 as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: both pointers are to live variables, of the given sizes.
    let result =
        unsafe { crate::syscall!(libc::SYS_getsockopt, fd, level, option, &raw mut value, &raw mut length) };
    if result == 0 { Ok(value) } else { Err(last_error()) }
}

/// Sets an `int` option of SOL_SOCKET.
///
/// # Errors
/// Errors of setsockopt(2).
pub fn set_int_option(fd: BorrowedFd<'_>, option: libc::c_int, value: i32) -> Result<(), Errno> {
    let (fd, level, length) = (fd.as_raw_fd(), libc::SOL_SOCKET, size_of::<libc::c_int>());
    // SAFETY: the pointer is to a live variable, of the given size.
    let result =
        unsafe { crate::syscall!(libc::SYS_setsockopt, fd, level, option, &raw const value, length) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// Copies the receiver of SIGIO and the signal's number from one descriptor to another: F_SETOWN_EX,
/// F_SETSIG.
///
/// # Errors
/// Errors of fcntl(2).
pub(crate) fn inherit_owner(old: BorrowedFd<'_>, new: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut owner = MaybeUninit::<[libc::c_int; 2]>::zeroed();
    // SAFETY: the kernel writes and reads a `f_owner_ex`, which is two numbers, to and from a live variable.
    unsafe {
        if crate::syscall!(libc::SYS_fcntl, old.as_raw_fd(), F_GETOWN_EX, owner.as_mut_ptr()) != 0 {
            return Err(last_error());
        }
        let has_owner = owner.assume_init()[1] != 0;
        if has_owner && crate::syscall!(libc::SYS_fcntl, new.as_raw_fd(), F_SETOWN_EX, owner.as_ptr()) != 0 {
            return Err(last_error());
        }
    }
    // SAFETY: these take numbers.
    unsafe {
        match crate::syscall!(libc::SYS_fcntl, old.as_raw_fd(), F_GETSIG, 0) {
            signal @ 1.. if crate::syscall!(libc::SYS_fcntl, new.as_raw_fd(), F_SETSIG, signal) != 0 => {
                Err(last_error())
            }
            _ => Ok(()),
        }
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// A datagram with its ancillary data.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) length: usize,
    pub(crate) truncated: bool,
    /// The abstract name of its sender.
    pub(crate) name: Option<Vec<u8>>,
    /// Credentials of its sender.
    pub(crate) sender: Option<Credentials>,
    /// The first descriptor that came along.
    pub(crate) fd: Option<OwnedFd>,
    pub(crate) timestamp: Option<Timestamp>,
}

/// Buffer for a process's credentials, a descriptor and a time; for more descriptors, if no time was
/// requested.
#[repr(C, align(8))]
struct Ancillary([u8; 96]);

/// Length of a control message's header with the padding before its data, bytes.
const CONTROL_HEADER_BYTES: usize = {
    // SAFETY: it only computes.
    (unsafe { libc::CMSG_LEN(0) }) as usize
};

/// Receives an AF_UNIX datagram by recvmsg(2), with SCM_CREDENTIALS, SCM_RIGHTS and SCM_TIMESTAMP. Uses a
/// direct system call, see [`peer_credentials`].
///
/// # Errors
/// Errors of recvmsg(2).
pub(crate) fn receive_datagram(
    fd: BorrowedFd<'_>,
    pieces: &mut [IoSliceMut<'_>],
    flags: RecvFlags,
) -> Result<Datagram, Errno> {
    // SAFETY: both are plain kernel structures, for which zeros are valid.
    let (mut address, mut message): (libc::sockaddr_un, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
    let mut ancillary = Ancillary([0; 96]);
    message.msg_name = (&raw mut address).cast();
    message.msg_namelen = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // `IoSliceMut` is guaranteed to be an `iovec`.
    message.msg_iov = pieces.as_mut_ptr().cast();
    message.msg_iovlen = pieces.len() as _;
    message.msg_control = ancillary.0.as_mut_ptr().cast();
    message.msg_controllen = ancillary.0.len() as _;
    let flags = flags.bits() as i32 | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: everything that the message points to is live, borrowed mutably, and of the given length.
    let length = unsafe { crate::syscall!(libc::SYS_recvmsg, fd.as_raw_fd(), &raw mut message, flags) };
    if length < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    let (mut sender, mut along, mut timestamp) = (None, None, None);
    // SAFETY: the kernel has filled in the message, whose control buffer is still there.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !control.is_null() {
        // SAFETY: these functions return headers within the control buffer, which is aligned for them.
        let (header, data) = unsafe { (*control, libc::CMSG_DATA(control)) };
        match (header.cmsg_level, header.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                // SAFETY: behind such a header the kernel writes a `ucred`.
                let ucred = unsafe { data.cast::<libc::ucred>().read_unaligned() };
                sender = Some(Credentials { pid: ucred.pid, uid: ucred.uid });
            }
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                // The field's type differs between C libraries.
                #[allow(clippy::unnecessary_cast)]
                let bytes = (header.cmsg_len as usize).saturating_sub(CONTROL_HEADER_BYTES);
                // Any program can send to an abstract name, with as many descriptors as fit; unwanted ones
                // are closed.
                for at in 0..bytes / size_of::<i32>() {
                    // SAFETY: this many descriptors are behind the header, and this process owns each now.
                    let fd = unsafe { OwnedFd::from_raw_fd(data.cast::<i32>().add(at).read_unaligned()) };
                    along.get_or_insert(fd);
                }
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMP) => {
                // SAFETY: behind such a header the kernel writes a `timeval`.
                let time = unsafe { data.cast::<libc::timeval>().read_unaligned() };
                timestamp = Some(Timestamp {
                    time: Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000),
                    is_precise: false,
                });
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                // SAFETY: behind such a header the kernel writes a `timespec`.
                let time = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                timestamp = Some(Timestamp {
                    time: Duration::new(time.tv_sec as u64, time.tv_nsec as u32),
                    is_precise: true,
                });
            }
            _ => {}
        }
        // SAFETY: as above.
        control = unsafe { libc::CMSG_NXTHDR(&raw const message, control) };
    }
    let named = (message.msg_namelen as usize).saturating_sub(size_of::<libc::sa_family_t>());
    // An abstract name begins with a zero, which is not part of it.
    let path: Vec<u8> = address.sun_path.iter().take(named).map(|&byte| byte as u8).collect();
    let name = path.split_first().filter(|(first, _)| **first == 0).map(|(_, name)| name.to_vec());
    Ok(Datagram {
        length: length as usize,
        truncated: message.msg_flags & libc::MSG_TRUNC != 0,
        name,
        sender,
        fd: along,
        timestamp,
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use rustix::net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    };

    /// A pipe ends as soon as neither the sender nor the receiver has its other end open.
    #[test]
    fn of_the_descriptors_that_come_along_none_is_left_open_unseen() {
        let (kind, flags) = (SocketType::DGRAM, SocketFlags::CLOEXEC);
        let (to, from) = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None).expect("a pair");
        rustix::net::sockopt::set_socket_passcred(&to, true).expect("an option");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let many = [writer.as_fd(); 12];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(12))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&many)));
        let data = [std::io::IoSlice::new(b"x")];
        rustix::net::sendmsg(&from, &data, &mut ancillary, SendFlags::empty()).expect("room");
        drop(writer);
        let datagram = receive_datagram(to.as_fd(), &mut [], RecvFlags::empty()).expect("a datagram");
        assert!(datagram.fd.is_some() && datagram.sender.is_some_and(|sender| sender.pid > 0));
        drop(datagram);
        rustix::io::ioctl_fionbio(&reader, true).expect("an option");
        assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0), "somebody has the other end open");
    }
}
