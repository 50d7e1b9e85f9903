//! System calls by direct instructions.
//!
//! The preloaded library replaces syscall(2). Neither that library nor its dependencies may call the C
//! library's function of that name, because the call would come back to them.
#![allow(unsafe_code)]

use libc::c_long;

/// Makes a system call with up to six arguments, numbers or pointers. Returns the result of syscall(2): -1,
/// with `errno` set, if the call has failed.
///
/// ```
/// // SAFETY: the call takes nothing.
/// let process = unsafe { peersock_fd::syscall!(libc::SYS_getpid) };
/// assert_eq!(process as u32, std::process::id());
/// ```
#[macro_export]
macro_rules! syscall {
    ($number:expr $(, $argument:expr)* $(,)?) => {
        $crate::system_call($number, [$($argument as ::std::ffi::c_long),*])
    };
}

/// Makes a system call, see [`syscall!`](crate::syscall).
///
/// # Safety
/// The arguments must be valid for the call of this number.
pub unsafe fn system_call<const COUNT: usize>(number: c_long, arguments: [c_long; COUNT]) -> c_long {
    const { assert!(COUNT <= 6, "no call takes more") };
    let mut all = [0; 6];
    all[..COUNT].copy_from_slice(&arguments);
    // SAFETY: the caller's.
    let returned = unsafe { enter_kernel(number, all) };
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
    if let Ok(error @ 1..=LAST_ERRNO) = returned.checked_neg().unwrap_or(0).try_into() {
        // SAFETY: the C library's variable of this thread.
        unsafe { *libc::__errno_location() = error };
        return -1;
    }
    returned
}

/// The largest error number of Linux.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
const LAST_ERRNO: i32 = 4095;

/// # Safety
/// Like [`system_call`].
#[cfg(target_arch = "x86_64")]
unsafe fn enter_kernel(number: c_long, arguments: [c_long; 6]) -> c_long {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    let returned;
    // SAFETY: the caller's; the kernel changes only the named registers.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => returned,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            in("r9") sixth,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    returned
}

/// # Safety
/// Like [`system_call`].
#[cfg(target_arch = "aarch64")]
unsafe fn enter_kernel(number: c_long, arguments: [c_long; 6]) -> c_long {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    let returned;
    // SAFETY: the caller's; the kernel changes only the register of the result.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") first => returned,
            in("x1") second,
            in("x2") third,
            in("x3") fourth,
            in("x4") fifth,
            in("x5") sixth,
            options(nostack)
        );
    }
    returned
}

/// # Safety
/// Like [`system_call`].
#[cfg(target_arch = "riscv64")]
unsafe fn enter_kernel(number: c_long, arguments: [c_long; 6]) -> c_long {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    let returned;
    // SAFETY: the caller's; the kernel changes only the register of the result.
    unsafe {
        std::arch::asm!(
            "ecall",
            in("a7") number,
            inlateout("a0") first => returned,
            in("a1") second,
            in("a2") third,
            in("a3") fourth,
            in("a4") fifth,
            in("a5") sixth,
            options(nostack)
        );
    }
    returned
}

/// Calls the C library's function. On such architectures the preloaded library does not replace it.
///
/// # Safety
/// Like [`system_call`].
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
unsafe fn enter_kernel(number: c_long, arguments: [c_long; 6]) -> c_long {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    // SAFETY: the caller's.
    unsafe { libc::syscall(number, first, second, third, fourth, fifth, sixth) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_fails_sets_errno_and_what_succeeds_leaves_it() {
        // SAFETY: no pointers.
        let failed = unsafe { syscall!(libc::SYS_close, -1) };
        let error = std::io::Error::last_os_error().raw_os_error();
        assert_eq!((failed, error), (-1, Some(libc::EBADF)));
        let mut bytes = [0_u8; 4];
        let (reader, writer) = std::io::pipe().expect("a pipe");
        use std::os::fd::AsRawFd as _;
        // SAFETY: both buffers have at least the given lengths.
        let (written, read) = unsafe {
            let written = syscall!(libc::SYS_write, writer.as_raw_fd(), c"four".as_ptr(), 4_usize);
            (written, syscall!(libc::SYS_read, reader.as_raw_fd(), bytes.as_mut_ptr(), bytes.len()))
        };
        assert_eq!((written, read, &bytes), (4, 4, b"four"));
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EBADF));
        // The largest number of arguments.
        let length = 4096_usize;
        let (access, kind) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new private mapping, which is unmapped again.
        unsafe {
            let pages = syscall!(libc::SYS_mmap, 0, length, access, kind, -1, 0);
            assert_ne!(pages, -1);
            assert_eq!(syscall!(libc::SYS_munmap, pages, length), 0);
        }
    }
}
