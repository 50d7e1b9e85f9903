//! ioctl(2) about interfaces (netdevice(7)): the kernel's answer, and the networks' where it knows none.

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use libc::{c_int, c_ulong, c_void, ifconf};
use peersock_bsd::interface_requests::{Ifreq, answer, entries, is_about_one};
use peersock_bsd::kernel::check;
use peersock_bsd::{Errno, Socket};
use peersock_fd::Family;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::hooks::overlay;
use crate::interfaces::interfaces;

/// Whether a request is about interfaces.
pub(crate) fn is_one(request: c_ulong) -> bool {
    request == libc::SIOCGIFCONF || is_about_one(request)
}

/// Makes such a request.
///
/// # Safety
/// As ioctl(2).
pub(crate) unsafe fn ioctl(fd: RawFd, request: c_ulong, argument: *mut c_void) -> Result<c_int, Errno> {
    let overlays = overlay(fd);
    let stand_in = overlays.as_ref().and_then(stand_in);
    let asked = stand_in.as_ref().map_or(fd, |stand_in| stand_in.as_raw_fd());
    // SAFETY: the program's argument goes to the kernel as it is.
    let kernels = || check(unsafe { libc::syscall(libc::SYS_ioctl, asked, request, argument) });
    let is_unknown = |error: Errno| error == Errno::NODEV || (overlays.is_some() && error == Errno::NOTTY);
    if argument.is_null() {
        return kernels().map(|done| done as c_int);
    }
    if request == libc::SIOCGIFCONF {
        // SAFETY: the program's pointer, as it must pass it to ioctl(2).
        return unsafe { list(argument.cast(), || kernels().map(drop), is_unknown) };
    }
    match kernels() {
        Err(error) if is_unknown(error) => {
            let place = argument.cast::<Ifreq>();
            // SAFETY: the kernel has read it.
            let mut request_of = unsafe { place.read() };
            answer(request, &mut request_of, &interfaces())
                .map_err(|ours| if ours == Errno::NODEV { error } else { ours })?;
            // SAFETY: as above.
            unsafe { place.write(request_of) };
            Ok(0)
        }
        answered => answered.map(|done| done as c_int),
    }
}

/// SIOCGIFCONF.
///
/// # Safety
/// `place` points to an `ifconf`, whose buffer is null or has as much room as it says.
unsafe fn list(
    place: *mut ifconf,
    kernels: impl FnOnce() -> Result<(), Errno>,
    is_unknown: impl FnOnce(Errno) -> bool,
) -> Result<c_int, Errno> {
    // SAFETY: the caller's.
    let before = unsafe { place.read_unaligned() };
    let asked = kernels();
    // SAFETY: as above.
    let mut list = unsafe { place.read_unaligned() };
    match asked {
        // Nothing is known of the machine's interfaces.
        Err(error) if is_unknown(error) => list.ifc_len = 0,
        asked => asked?,
    }
    // SAFETY: both members of the union are pointers to the same.
    let buffer = unsafe { list.ifc_ifcu.ifcu_buf }.cast::<Ifreq>();
    for entry in entries(&interfaces()) {
        let end = list.ifc_len.saturating_add(size_of::<Ifreq>() as c_int);
        if !buffer.is_null() {
            // What does not fit is left out, as the kernel does.
            if end > before.ifc_len {
                break;
            }
            // SAFETY: the caller says that there is so much room.
            unsafe { buffer.byte_add(list.ifc_len as usize).write(entry) };
        }
        list.ifc_len = end;
    }
    // SAFETY: as above.
    unsafe { place.write_unaligned(list) };
    Ok(0)
}

/// A socket of the kernel's in place of an overlay socket, whose AF_UNIX socket knows nothing of addresses.
/// `None` where nothing but the overlay is allowed.
fn stand_in(of: &Socket<'_>) -> Option<OwnedFd> {
    let family = match of.family() {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()
}
