//! Credentials of the process at the other end of a Unix socket.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// Returns the user of the process that has made the other end.
pub(crate) fn user(socket: impl AsFd) -> io::Result<u32> {
    Ok(credentials(socket)?.uid)
}

/// Returns the process that has made the other end; `None` if it is in another PID namespace.
pub(crate) fn process(socket: impl AsFd) -> io::Result<Option<u32>> {
    Ok(u32::try_from(credentials(socket)?.pid).ok().filter(|process| *process > 0))
}

/// rustix refuses the credentials of a process in another PID namespace, because it has the ID 0.
fn credentials(socket: impl AsFd) -> io::Result<libc::ucred> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: both pointers are to live variables, of the given sizes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(credentials) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_end_of_a_pair_is_this_user_s_and_a_file_has_none() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        assert_eq!(user(&one).expect("a user"), rustix::process::geteuid().as_raw());
        assert_eq!(process(&one).expect("a process"), Some(std::process::id()));
        let file = std::fs::File::open("/dev/null").expect("a file");
        assert_eq!(user(&file).expect_err("no socket").raw_os_error(), Some(libc::ENOTSOCK));
    }
}
