//! syscall(2): libraries make calls by number if the C library lacked a function for them when they were
//! written, for example libuv 1.44 recvmmsg(2). Each call that this library replaces by name is also replaced
//! by number; all others go to the kernel.
//!
//! Only for architectures where variadic arguments, up to seven numbers and pointers, are passed like fixed
//! ones. A seventh argument that the caller has not passed is read but not used.

use libc::{c_int, c_long, c_uint, c_ulong, size_t, socklen_t};

use crate::{accept, duplicates, exec, hooks, messages, read_write};

/// # Safety
/// As syscall(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    let fd = a as c_int;
    // SAFETY: the program's arguments, as it must pass them to the call of this number.
    unsafe {
        match number {
            libc::SYS_socket => hooks::socket(a as c_int, b as c_int, c as c_int).into(),
            libc::SYS_connect => hooks::connect(fd, b as *const _, c as socklen_t).into(),
            libc::SYS_bind => hooks::bind(fd, b as *const _, c as socklen_t).into(),
            libc::SYS_listen => hooks::listen(fd, b as c_int).into(),
            libc::SYS_accept => accept::accept(fd, b as *mut _, c as *mut _).into(),
            libc::SYS_accept4 => accept::accept4(fd, b as *mut _, c as *mut _, d as c_int).into(),
            libc::SYS_getsockname => hooks::getsockname(fd, b as *mut _, c as *mut _).into(),
            libc::SYS_getpeername => hooks::getpeername(fd, b as *mut _, c as *mut _).into(),
            libc::SYS_getsockopt => {
                hooks::getsockopt(fd, b as c_int, c as c_int, d as *mut _, e as *mut _).into()
            }
            libc::SYS_setsockopt => {
                hooks::setsockopt(fd, b as c_int, c as c_int, d as *const _, e as socklen_t).into()
            }
            libc::SYS_shutdown => hooks::shutdown(fd, b as c_int).into(),
            libc::SYS_close => hooks::close(fd).into(),
            libc::SYS_ioctl => hooks::ioctl(fd, b as c_ulong, c as *mut _).into(),
            libc::SYS_epoll_ctl => hooks::epoll_ctl(fd, b as c_int, c as c_int, d as *mut _).into(),
            libc::SYS_sendto => {
                let (size, flags) = (c as size_t, d as c_int);
                messages::sendto(fd, b as *const _, size, flags, e as *const _, f as socklen_t) as c_long
            }
            libc::SYS_recvfrom => {
                let (size, flags) = (c as size_t, d as c_int);
                messages::recvfrom(fd, b as *mut _, size, flags, e as *mut _, f as *mut _) as c_long
            }
            libc::SYS_sendmsg => messages::sendmsg(fd, b as *const _, c as c_int) as c_long,
            libc::SYS_recvmsg => messages::recvmsg(fd, b as *mut _, c as c_int) as c_long,
            libc::SYS_sendmmsg => messages::sendmmsg(fd, b as *mut _, c as c_uint, d as c_int).into(),
            libc::SYS_recvmmsg => {
                messages::recvmmsg(fd, b as *mut _, c as c_uint, d as c_int, e as *mut _).into()
            }
            libc::SYS_read => read_write::read(fd, b as *mut _, c as size_t) as c_long,
            libc::SYS_write => read_write::write(fd, b as *const _, c as size_t) as c_long,
            libc::SYS_readv => read_write::readv(fd, b as *const _, c as c_int) as c_long,
            libc::SYS_writev => read_write::writev(fd, b as *const _, c as c_int) as c_long,
            libc::SYS_sendfile => read_write::sendfile(fd, b as c_int, c as *mut _, d as size_t) as c_long,
            libc::SYS_dup => duplicates::dup(fd).into(),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_dup2 => duplicates::dup2(fd, b as c_int).into(),
            libc::SYS_dup3 => duplicates::dup3(fd, b as c_int, c as c_int).into(),
            libc::SYS_fcntl => duplicates::fcntl(fd, b as c_int, c).into(),
            libc::SYS_execve => exec::execve(a as *const _, b as *const _, c as *const _).into(),
            libc::SYS_execveat => {
                let (path, arguments, environment) = (b as *const _, c as *const _, d as *const _);
                exec::execveat(fd, path, arguments, environment, e as c_int).into()
            }
            _ => peersock_fd::syscall!(number, a, b, c, d, e, f),
        }
    }
}
