//! Calls of C that overlay descriptors and kernel descriptors take alike.
#![allow(unsafe_code)]

use std::mem::{size_of, zeroed};
use std::net::{SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};

use peersock_bsd::{Socket, either};
use peersock_fd::Errno;

/// Ancillary data: its level, its type, and its bytes.
pub(crate) type Control = (libc::c_int, libc::c_int, Vec<u8>);

/// A `msghdr` with room for one piece, one address and some ancillary data.
struct Room {
    bytes: Vec<u8>,
    control: [u64; 64],
}

impl Room {
    /// Calls with a message of these bytes and this length of ancillary data. Returns what the call returns,
    /// and the message.
    fn with<T>(&mut self, control: usize, call: impl FnOnce(&mut libc::msghdr) -> T) -> (T, libc::msghdr) {
        let mut piece = libc::iovec { iov_base: self.bytes.as_mut_ptr().cast(), iov_len: self.bytes.len() };
        // SAFETY: all its fields may be zero.
        let mut message: libc::msghdr = unsafe { zeroed() };
        (message.msg_iov, message.msg_iovlen) = (&raw mut piece, 1);
        if control > 0 {
            message.msg_control = self.control.as_mut_ptr().cast();
            message.msg_controllen = control as _;
        }
        let result = call(&mut message);
        message.msg_iov = std::ptr::null_mut();
        (result, message)
    }
}

/// Sends a datagram with ancillary data, as sendmsg(2) does.
pub(crate) fn send_with(
    fd: &OwnedFd,
    data: &[u8],
    to: SocketAddr,
    (level, kind, value): &Control,
) -> Result<isize, Errno> {
    let SocketAddr::V6(to) = to else { panic!("an IPv6 address") };
    let mut name = sockaddr(to);
    let mut room = Room { bytes: data.to_vec(), control: [0; 64] };
    // SAFETY: arithmetic.
    let space = unsafe { libc::CMSG_SPACE(value.len() as u32) } as usize;
    let sent = room.with(space, |message| {
        (message.msg_name, message.msg_namelen) = ((&raw mut name).cast(), size_of_val(&name) as u32);
        // SAFETY: the room is aligned and long enough for one header with the value, and lives.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(message);
            ((*header).cmsg_level, (*header).cmsg_type) = (*level, *kind);
            (*header).cmsg_len = libc::CMSG_LEN(value.len() as u32) as _;
            libc::CMSG_DATA(header).copy_from_nonoverlapping(value.as_ptr(), value.len());
            either::sendmsg(Socket::of(fd.as_fd()).as_ref(), fd.as_raw_fd(), message, 0)
        }
    });
    sent.0
}

fn sockaddr(address: SocketAddrV6) -> libc::sockaddr_in6 {
    // SAFETY: all its fields may be zero.
    let mut name: libc::sockaddr_in6 = unsafe { zeroed() };
    name.sin6_family = libc::AF_INET6 as _;
    (name.sin6_port, name.sin6_addr.s6_addr) = (address.port().to_be(), address.ip().octets());
    name
}

/// Receives a datagram or an error with ancillary data, as recvmsg(2) does.
pub(crate) fn receive_with(fd: &OwnedFd, flags: libc::c_int) -> Result<(Vec<u8>, Vec<Control>), Errno> {
    let mut room = Room { bytes: vec![0; 5000], control: [0; 64] };
    let (received, message) = room.with(size_of::<[u64; 64]>(), |message| {
        // SAFETY: the message's pointers are to live memory of the given lengths.
        unsafe { either::recvmsg(Socket::of(fd.as_fd()).as_ref(), fd.as_raw_fd(), message, flags) }
    });
    room.bytes.truncate(received? as usize);
    let mut control = Vec::new();
    // SAFETY: the headers are as recvmsg(2) has written them, in memory that lives.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while let Some(one) = header.as_ref() {
            let length = one.cmsg_len - libc::CMSG_LEN(0) as usize;
            let bytes = std::slice::from_raw_parts(libc::CMSG_DATA(header), length).to_vec();
            control.push((one.cmsg_level, one.cmsg_type, bytes));
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok((room.bytes, control))
}

/// Sets an `int` option.
pub(crate) fn set(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: i32) -> Result<(), Errno> {
    set_value(fd, level, name, &value)
}

/// Sets SO_LINGER.
pub(crate) fn set_linger(fd: &OwnedFd, seconds: i32) -> Result<(), Errno> {
    let linger = libc::linger { l_onoff: 1, l_linger: seconds };
    set_value(fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

fn set_value<T>(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> Result<(), Errno> {
    let (pointer, length) = ((&raw const *value).cast(), size_of::<T>() as u32);
    let socket = Socket::of(fd.as_fd());
    // SAFETY: the pointer is to a live value of the given size.
    unsafe { either::setsockopt(socket.as_ref(), fd.as_raw_fd(), level, name, pointer, length) }.map(drop)
}

/// Returns an `int` option.
pub(crate) fn get(fd: &OwnedFd, level: libc::c_int, name: libc::c_int) -> Result<i32, Errno> {
    let (mut value, mut length) = (0i32, size_of::<i32>() as u32);
    let (pointer, length) = ((&raw mut value).cast(), &raw mut length);
    let socket = Socket::of(fd.as_fd());
    // SAFETY: both pointers are to live variables of the given sizes.
    unsafe { either::getsockopt(socket.as_ref(), fd.as_raw_fd(), level, name, pointer, length) }?;
    Ok(value)
}

/// Closes a descriptor, as close(2) does.
pub(crate) fn close(fd: OwnedFd) -> Result<(), Errno> {
    peersock_bsd::close(fd.into_raw_fd()).map(drop)
}

/// Returns the number of bytes that are not acknowledged (SIOCOUTQ).
pub(crate) fn unacknowledged(fd: &OwnedFd) -> Result<i32, Errno> {
    if let Some(socket) = Socket::of(fd.as_fd()) {
        return peersock_bsd::unacknowledged(&socket);
    }
    let mut bytes = 0i32;
    // SAFETY: the pointer is to a live variable.
    match unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } {
        0 => Ok(bytes),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).expect("an error of the system")),
    }
}

/// Enters a new network namespace, as unshare(2) does.
pub(crate) fn leave_network() -> Result<(), Errno> {
    // SAFETY: no pointers.
    match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(Errno::PERM),
    }
}
