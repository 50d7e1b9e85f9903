//! The kernel interface of seccomp user notification (seccomp_unotify(2)): requests to a filter's listener.

use std::fs;
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use libc::{c_int, c_void, seccomp_notif, seccomp_notif_addfd, seccomp_notif_resp, sock_fprog};
use peersock_bsd::kernel::check;
use peersock_bsd::{Errno, Result, filter};
use seccompiler::sock_filter;

/// Kernel name of a listener's file (proc(5), /proc/self/fd).
const NAME: &str = "anon_inode:seccomp notify";

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` of Linux 6.6.
const SYNC_WAKE_UP: libc::c_ulong = 1;

/// Receiver of the calls that a filter notifies.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

/// A call that waits for an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Notice {
    /// Kernel identifier of the call.
    pub(crate) id: u64,
    /// The thread that makes it.
    pub(crate) thread: i32,
    pub(crate) number: i64,
    pub(crate) arguments: [u64; 6],
}

impl Listener {
    /// Filters the system calls of the calling thread, and of all threads and processes it starts from now
    /// on. Returns the listener.
    ///
    /// # Errors
    /// EBUSY if there is a filter that notifies another process, ENOSYS or EINVAL if the kernel has no such
    /// filters, EACCES or EPERM where a container forbids them.
    pub(crate) fn install(program: &[sock_filter]) -> io::Result<Listener> {
        let program = sock_fprog {
            len: program.len() as u16,
            // It is the same structure, and only read.
            filter: program.as_ptr().cast_mut().cast(),
        };
        // SAFETY: the program is live, and as long as it says.
        Self::of(unsafe { filter::listen(&program) }?)
    }

    /// Wraps the descriptor of a listener.
    /// Errors: an error of the kind `Unsupported` if it is no listener, and before Linux 5.14.
    pub(crate) fn of(fd: OwnedFd) -> io::Result<Listener> {
        // Other files may answer the request below arbitrarily (FUSE), but have other names.
        let name = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let is_named_so = name.is_ok_and(|name| name.as_os_str() == NAME);
        let listener = Listener(fd);
        // Before Linux 5.14 the kernel cannot return a descriptor as an answer: EINVAL. No call has this
        // number.
        match listener.answer_with(u64::MAX, listener.as_fd(), true) {
            Err(Errno::NOENT) if is_named_so => {
                listener.answer_on_the_callers_processor();
                Ok(listener)
            }
            _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
        }
    }

    /// Makes the kernel run the thread that receives a call on the processor of the thread that makes it,
    /// which saves a quarter of the time of a call. Kernels before 6.6 refuse that.
    fn answer_on_the_callers_processor(&self) {
        let request = libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS;
        // SAFETY: the argument is a number.
        let _ = unsafe { libc::syscall(libc::SYS_ioctl, self.0.as_raw_fd(), request, SYNC_WAKE_UP) };
    }

    /// Receives the next call. Waits if there is none.
    /// Errors: ENOENT if the call was interrupted meanwhile, EINTR.
    pub(crate) fn receive(&self) -> Result<Notice> {
        // SAFETY: the kernel requires zeros here.
        let mut notice: seccomp_notif = unsafe { zeroed() };
        self.control(libc::SECCOMP_IOCTL_NOTIF_RECV, &mut notice)?;
        Ok(Notice {
            id: notice.id,
            thread: notice.pid.cast_signed(),
            number: notice.data.nr.into(),
            arguments: notice.data.args,
        })
    }

    /// Returns true if the call still waits, so that its thread has not changed.
    pub(crate) fn is_waiting(&self, mut id: u64) -> bool {
        self.control(libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &mut id).is_ok()
    }

    /// Sets the call's result. `errno` is a kernel number, possibly one that programs never see.
    /// Errors: ENOENT if the call was interrupted.
    pub(crate) fn answer(&self, id: u64, returned: std::result::Result<i64, c_int>) -> Result<()> {
        let (val, error) = match returned {
            Ok(value) => (value, 0),
            Err(errno) => (0, -errno),
        };
        self.control(libc::SECCOMP_IOCTL_NOTIF_SEND, &mut seccomp_notif_resp { id, val, error, flags: 0 })?;
        Ok(())
    }

    /// Makes the kernel execute the call as without a notification.
    /// Errors: ENOENT if the call was interrupted.
    pub(crate) fn go_on(&self, id: u64) -> Result<()> {
        let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        self.control(
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &mut seccomp_notif_resp { id, val: 0, error: 0, flags },
        )?;
        Ok(())
    }

    /// Makes the calling process's descriptor `number` refer to `fd` from now on.
    /// Errors: ENOENT if the call was interrupted, EBADF, EMFILE.
    pub(crate) fn put(&self, id: u64, fd: BorrowedFd<'_>, number: RawFd, close_on_exec: bool) -> Result<()> {
        let flags = libc::SECCOMP_ADDFD_FLAG_SETFD as u32;
        self.add(id, fd, flags, number as u32, close_on_exec)
    }

    /// Makes the call return a new descriptor of the calling process, which refers to `fd`. If the call was
    /// interrupted there is no such descriptor.
    /// Errors: ENOENT if the call was interrupted, EMFILE: it still waits.
    pub(crate) fn answer_with(&self, id: u64, fd: BorrowedFd<'_>, close_on_exec: bool) -> Result<()> {
        self.add(id, fd, libc::SECCOMP_ADDFD_FLAG_SEND as u32, 0, close_on_exec)
    }

    fn add(&self, id: u64, fd: BorrowedFd<'_>, flags: u32, newfd: u32, close_on_exec: bool) -> Result<()> {
        let newfd_flags = if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 };
        let srcfd = fd.as_raw_fd() as u32;
        let mut added = seccomp_notif_addfd { id, flags, srcfd, newfd, newfd_flags };
        self.control(libc::SECCOMP_IOCTL_NOTIF_ADDFD, &mut added)?;
        Ok(())
    }

    fn control<T>(&self, request: libc::Ioctl, argument: &mut T) -> Result<isize> {
        let argument = std::ptr::from_mut(argument).cast::<c_void>();
        // SAFETY: each request is made with a live variable of its type.
        check(unsafe { libc::syscall(libc::SYS_ioctl, self.0.as_raw_fd(), request, argument) })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::EventfdFlags;
    use rustix::fs::{MemfdFlags, Mode, OFlags};

    use super::*;

    #[test]
    fn what_is_no_listener_is_refused() {
        let open = |flags| rustix::fs::open("/proc/self/exe", flags, Mode::empty()).unwrap();
        let others = [
            open(OFlags::RDONLY | OFlags::CLOEXEC),
            // No ioctl(2) reaches it.
            open(OFlags::PATH | OFlags::CLOEXEC),
            rustix::fs::memfd_create(NAME, MemfdFlags::CLOEXEC).unwrap(),
            rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
            io::pipe().unwrap().0.into(),
        ];
        for fd in others {
            let shown = format!("{fd:?}");
            assert_eq!(Listener::of(fd).unwrap_err().kind(), io::ErrorKind::Unsupported, "{shown}");
        }
    }
}
