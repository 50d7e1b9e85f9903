//! Blocking calls are made by the C library, so they remain the cancellation points that programs expect
//! (pthread_cancel(3)). A thread that is cancelled there holds no lock and no descriptor of this library.
//!
//! The calling functions are `extern "C-unwind"`, and have nothing to drop during a call, because cancelling
//! unwinds through them.

use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::ptr;
use std::time::Duration;

use libc::{
    c_int, c_uint, c_void, mmsghdr, msghdr, nfds_t, pollfd, sigset_t, size_t, sockaddr, socklen_t, ssize_t,
    timespec,
};
use peersock_bsd::{Errno, Socket};

use crate::kernel::{borrow, errno, hooked, set_errno};
use crate::messages::meaning;
use crate::names::next;

pub(crate) type Accept4 = unsafe extern "C-unwind" fn(RawFd, *mut sockaddr, *mut socklen_t, c_int) -> c_int;
pub(crate) type Connect = unsafe extern "C-unwind" fn(RawFd, *const sockaddr, socklen_t) -> c_int;
pub(crate) type Send = unsafe extern "C-unwind" fn(RawFd, *const c_void, size_t, c_int) -> ssize_t;
pub(crate) type Recv = unsafe extern "C-unwind" fn(RawFd, *mut c_void, size_t, c_int) -> ssize_t;
pub(crate) type SendTo =
    unsafe extern "C-unwind" fn(RawFd, *const c_void, size_t, c_int, *const sockaddr, socklen_t) -> ssize_t;
pub(crate) type RecvFrom =
    unsafe extern "C-unwind" fn(RawFd, *mut c_void, size_t, c_int, *mut sockaddr, *mut socklen_t) -> ssize_t;
pub(crate) type SendMsg = unsafe extern "C-unwind" fn(RawFd, *const msghdr, c_int) -> ssize_t;
pub(crate) type RecvMsg = unsafe extern "C-unwind" fn(RawFd, *mut msghdr, c_int) -> ssize_t;
pub(crate) type SendMmsg = unsafe extern "C-unwind" fn(RawFd, *mut mmsghdr, c_uint, c_int) -> c_int;
pub(crate) type RecvMmsg =
    unsafe extern "C-unwind" fn(RawFd, *mut mmsghdr, c_uint, c_int, *mut timespec) -> c_int;
type PPoll = unsafe extern "C-unwind" fn(*mut pollfd, nfds_t, *const timespec, *const sigset_t) -> c_int;
type TestCancel = unsafe extern "C-unwind" fn();

/// Finds the C library's functions. A child of `fork` must not do that, because another thread may have held
/// the loader's lock.
pub(crate) fn find_originals() {
    let _ = (next_accept4(), next_connect(), next_send(), next_recv(), next_sendto(), next_recvfrom());
    let _ =
        (next_sendmsg(), next_recvmsg(), next_sendmmsg(), next_recvmmsg(), next_ppoll(), next_test_cancel());
}

macro_rules! originals {
    ($($name:ident: $type:ty = $original:literal;)*) => {$(
        pub(crate) fn $name() -> Option<$type> {
            next!($type, $original)
        }
    )*};
}

originals! {
    next_accept4: Accept4 = c"accept4";
    next_connect: Connect = c"connect";
    next_send: Send = c"send";
    next_recv: Recv = c"recv";
    next_sendto: SendTo = c"sendto";
    next_recvfrom: RecvFrom = c"recvfrom";
    next_sendmsg: SendMsg = c"sendmsg";
    next_recvmsg: RecvMsg = c"recvmsg";
    next_sendmmsg: SendMmsg = c"sendmmsg";
    next_recvmmsg: RecvMmsg = c"recvmmsg";
    next_ppoll: PPoll = c"ppoll";
    next_test_cancel: TestCancel = c"pthread_testcancel";
}

/// Cancellation point for calls that this library makes itself, and that do not block for long.
pub(crate) extern "C-unwind" fn test_cancel() {
    if let Some(test) = next_test_cancel() {
        // SAFETY: it takes nothing.
        unsafe { test() };
    }
}

/// Makes a call on the chosen side. A kernel call is a cancellation point while it blocks, an overlay call
/// only at its start.
///
/// Values captured by either closure must not need dropping.
pub(crate) fn by_side<T: From<i8>>(
    chosen: Result<Option<Socket<'_>>, Errno>,
    kernels: impl FnOnce() -> T,
    overlays: impl FnOnce(&Socket<'_>) -> Result<T, Errno>,
) -> T {
    match chosen {
        Ok(None) => kernels(),
        Ok(Some(socket)) => {
            test_cancel();
            hooked(|| overlays(&socket))
        }
        Err(error) => hooked(|| Err(error)),
    }
}

/// Repeats a receiving call on an overlay socket, without blocking in it, until it receives something.
/// Between two tries it waits for data, if the call would. `receive` gets the flags.
///
/// Values captured by `receive` must not need dropping.
pub(crate) fn receive(fd: RawFd, flags: c_int, receive: impl Fn(c_int) -> ssize_t) -> ssize_t {
    let Some(next) = next_recv() else { return missing() };
    loop {
        let received = receive(flags | libc::MSG_DONTWAIT);
        if received != -1 || errno() != libc::EAGAIN || !waits(fd, flags) {
            return received;
        }
        let mut byte = 0_u8;
        // SAFETY: there is room for the byte.
        let peeked = unsafe { next(fd, (&raw mut byte).cast(), 1, libc::MSG_PEEK) };
        if peeked == -1 {
            set_errno(meaning(fd, Errno::from_raw_os_error(errno())).raw_os_error());
            return -1;
        }
        // An empty result here is the end; a further try may return its cause.
        if peeked == 0 {
            return receive(flags);
        }
    }
}

/// Like [`bsd::receive_all`](peersock_bsd::receive_all), with waits that are cancellation points.
///
/// Values captured by `receive` must not need dropping.
pub(crate) fn receive_all(
    socket: &Socket<'_>,
    flags: c_int,
    size: size_t,
    receive: impl FnMut(usize, c_int) -> Result<ssize_t, Errno>,
) -> Result<ssize_t, Errno> {
    let wait = |fd: BorrowedFd<'_>, time: Option<Duration>| {
        let Some(next) = next_ppoll() else { return Err(Errno::NOSYS) };
        let mut wanted = pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let time = time.map(|time| timespec {
            tv_sec: time.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: time.subsec_nanos().into(),
        });
        let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: the pointers are to live variables, or null where that means forever and no signals.
        match unsafe { next(&raw mut wanted, 1, time, ptr::null()) } {
            -1 => Err(Errno::from_raw_os_error(errno())),
            _ => Ok(()),
        }
    };
    peersock_bsd::receive_all(socket, flags, size, wait, receive)
}

/// Returns true if a call with these flags blocks.
fn waits(fd: RawFd, flags: c_int) -> bool {
    let waits = || borrow(fd).is_some_and(|fd| peersock_bsd::waits(fd, flags).unwrap_or(false));
    flags & libc::MSG_ERRQUEUE == 0 && waits()
}

pub(crate) fn missing<T: From<i8>>() -> T {
    set_errno(libc::ENOSYS);
    T::from(-1)
}

/// Null pointers for no address.
pub(crate) const NO_ADDRESS: (*mut sockaddr, *mut socklen_t) = (ptr::null_mut(), ptr::null_mut());
