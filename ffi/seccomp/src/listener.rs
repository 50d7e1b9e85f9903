//! The kernel's side of seccomp user notification (seccomp_unotify(2)): what a filter's listener is asked
//! and told.

use std::fs;
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use libc::{c_int, c_void, seccomp_notif, seccomp_notif_addfd, seccomp_notif_resp, sock_fprog};
use peersock_bsd::kernel::check;
use peersock_bsd::{Errno, Result, filter};
use seccompiler::sock_filter;

/// What the kernel calls a listener's file (proc(5), /proc/self/fd).
const NAME: &str = "anon_inode:seccomp notify";

/// Who is told of the calls that a filter notifies.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

/// A call that waits for an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Notice {
    /// By which the kernel knows the call.
    pub(crate) id: u64,
    /// The thread that makes it.
    pub(crate) thread: i32,
    pub(crate) number: i64,
    pub(crate) arguments: [u64; 6],
}

impl Listener {
    /// Filters the calling thread's system calls and those of all that it starts from now on, and gives the
    /// listener.
    ///
    /// # Errors
    /// EBUSY if a filter that notifies another process is there, ENOSYS or EINVAL if the kernel has no such
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

    /// The listener that a descriptor is.
    ///
    /// # Errors
    /// Of the kind `Unsupported` if it is none, and before Linux 5.14.
    pub(crate) fn of(fd: OwnedFd) -> io::Result<Listener> {
        // Other files may answer the request below as they like (FUSE), but have other names.
        let name = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let is_named_so = name.is_ok_and(|name| name.as_os_str() == NAME);
        let listener = Listener(fd);
        // Before Linux 5.14 a descriptor cannot be given and the call answered at once: EINVAL. No call has
        // this number.
        match listener.answer_with(u64::MAX, listener.as_fd(), true) {
            Err(Errno::NOENT) if is_named_so => Ok(listener),
            _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
        }
    }

    /// The next call. Waits if there is none.
    ///
    /// # Errors
    /// ENOENT if the call was interrupted meanwhile, EINTR.
    pub(crate) fn receive(&self) -> Result<Notice> {
        // SAFETY: zeros are what the kernel wants here.
        let mut notice: seccomp_notif = unsafe { zeroed() };
        self.control(libc::SECCOMP_IOCTL_NOTIF_RECV, &mut notice)?;
        Ok(Notice {
            id: notice.id,
            thread: notice.pid.cast_signed(),
            number: notice.data.nr.into(),
            arguments: notice.data.args,
        })
    }

    /// Whether the call still waits: then its thread is who it was.
    pub(crate) fn is_waiting(&self, mut id: u64) -> bool {
        self.control(libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &mut id).is_ok()
    }

    /// What the call returns. `errno` is the kernel's own, also one that programs never see.
    ///
    /// # Errors
    /// ENOENT if the call was interrupted.
    pub(crate) fn answer(&self, id: u64, returned: std::result::Result<i64, c_int>) -> Result<()> {
        let (val, error) = match returned {
            Ok(value) => (value, 0),
            Err(errno) => (0, -errno),
        };
        self.control(libc::SECCOMP_IOCTL_NOTIF_SEND, &mut seccomp_notif_resp { id, val, error, flags: 0 })?;
        Ok(())
    }

    /// Has the kernel make the call, as if nobody had been asked.
    ///
    /// # Errors
    /// ENOENT if the call was interrupted.
    pub(crate) fn go_on(&self, id: u64) -> Result<()> {
        let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        self.control(
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &mut seccomp_notif_resp { id, val: 0, error: 0, flags },
        )?;
        Ok(())
    }

    /// Has the calling process's descriptor `number` stand for `fd` from now on.
    ///
    /// # Errors
    /// ENOENT if the call was interrupted, EBADF, EMFILE.
    pub(crate) fn put(&self, id: u64, fd: BorrowedFd<'_>, number: RawFd, close_on_exec: bool) -> Result<()> {
        let flags = libc::SECCOMP_ADDFD_FLAG_SETFD as u32;
        self.add(id, fd, flags, number as u32, close_on_exec)
    }

    /// Has the call return a new descriptor of the calling process, which stands for `fd`. If it was
    /// interrupted there is no such descriptor.
    ///
    /// # Errors
    /// ENOENT if the call was interrupted, EMFILE: it still waits.
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
        // SAFETY: each request is made with a live variable of the type that it is for.
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
            // Which no ioctl(2) reaches.
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
