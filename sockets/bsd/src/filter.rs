//! System calls that the kernel denies a program and its descendants (seccomp(2)), because no preloaded
//! library sees them.
//!
//! io_uring_setup(2) fails as in kernels without it, so that programs make the ordinary calls instead. Where
//! only the overlay is allowed, socket(2) fails for the Internet families. So nothing bypasses the library:
//! neither the C library's resolver, nor a static program, nor one with a clean environment. Nor can a
//! program take the launcher's own sockets, as far as system calls can be refused.

use std::mem::offset_of;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, c_int, c_long, c_ulong, seccomp_data, sock_fprog,
};
use peersock_fd::Errno;
use seccompiler::{BpfProgram, sock_filter};

use crate::kernel::check;

/// Kernel constant for this architecture (AUDIT_ARCH_*); `None` for an unknown one.
pub const ARCHITECTURE: Option<u32> = match () {
    _ if cfg!(target_arch = "x86_64") => Some(0xc000_003e),
    _ if cfg!(target_arch = "aarch64") => Some(0xc000_00b7),
    _ if cfg!(target_arch = "riscv64") => Some(0xc000_00f3),
    _ => None,
};

/// Bit that marks system calls of the x32 ABI.
pub const X32: u32 = 0x4000_0000;

/// Socket families that do not leave the machine. AF_NETLINK lists interfaces and addresses.
pub const LOCAL_FAMILIES: [c_int; 3] = [libc::AF_UNIX, libc::AF_NETLINK, libc::AF_ALG];

/// Calls by which a program takes another one's descriptors or controls it, because the launcher has kernel
/// sockets.
const TAKING: [c_long; 4] =
    [libc::SYS_pidfd_getfd, libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev];

/// Filters the system calls of the calling thread, and of all threads and processes it starts from now on.
/// They cannot gain privileges any more (PR_SET_NO_NEW_PRIVS), which the kernel requires. With `only` they
/// get no Internet sockets, and cannot take descriptors of other processes, because the launcher with the
/// node has such sockets.
///
/// # Errors
/// The kernel does not filter, or the system calls of this architecture are not known here; a text describes
/// the cause.
pub fn apply(only: bool) -> Result<(), String> {
    match ARCHITECTURE {
        Some(architecture) => {
            seccompiler::apply_filter(&program(architecture, only)).map_err(|error| error.to_string())
        }
        None => Err("its system calls are not known on this architecture".to_owned()),
    }
}

/// Returns the filter in the instructions of the Berkeley packet filter.
fn program(architecture: u32, only: bool) -> BpfProgram {
    let mut program = begin(architecture, only);
    if only {
        program.extend(refuse_taking());
        program.push(skip_unless(BPF_JEQ, libc::SYS_socket as u32, 1, 0));
        program.push(give(SECCOMP_RET_ALLOW));
        // The first argument's low half: all supported architectures are little-endian.
        program.push(load(offset_of!(seccomp_data, args)));
        for family in LOCAL_FAMILIES {
            program.push(skip_unless(BPF_JEQ, family as u32, 0, 1));
            program.push(give(SECCOMP_RET_ALLOW));
        }
        program.push(give(fail(libc::EAFNOSUPPORT)));
    }
    program.push(give(SECCOMP_RET_ALLOW));
    program
}

/// Filters system calls as above, and returns the filter's listener, which receives the notified calls. Uses
/// no heap memory.
///
/// # Errors
/// EBUSY if there is a filter that notifies another process, ENOSYS or EINVAL if the kernel has no such
/// filters, EACCES or EPERM where a container forbids them.
///
/// # Safety
/// The program is live, and as long as it says.
pub unsafe fn listen(program: &sock_fprog) -> Result<OwnedFd, Errno> {
    // The kernel requires this for filters of unprivileged processes.
    rustix::thread::set_no_new_privs(true)?;
    let load = |flags: c_ulong| {
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        // SAFETY: the caller's.
        check(unsafe { peersock_fd::syscall!(libc::SYS_seccomp, mode, flags, &raw const *program) })
    };
    let listens = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // Since Linux 5.19 only fatal signals interrupt a received call, so its work is not wasted.
    let fd = match load(listens | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(Errno::INVAL) => load(listens),
        fd => fd,
    }?;
    // SAFETY: the kernel has made the descriptor just now, for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Returns the beginning of each filter: it handles calls of other ABIs, and io_uring, which fails as in
/// kernels without it. The call's number is loaded behind it.
pub fn begin(architecture: u32, only: bool) -> BpfProgram {
    // Other ABIs' calls have other numbers. Their programs cannot be reached; they run as without a filter,
    // or are killed.
    let foreign = if only { SECCOMP_RET_KILL_PROCESS } else { SECCOMP_RET_ALLOW };
    vec![
        load(offset_of!(seccomp_data, arch)),
        skip_unless(BPF_JEQ, architecture, 1, 0),
        give(foreign),
        load(offset_of!(seccomp_data, nr)),
        skip_unless(BPF_JGE, X32, 0, 1),
        give(fail(libc::ENOSYS)),
        skip_unless(BPF_JEQ, libc::SYS_io_uring_setup as u32, 0, 1),
        give(fail(libc::ENOSYS)),
    ]
}

/// Returns the part that refuses calls which take another process's descriptors or memory, so debuggers no
/// longer work. It follows [`begin`].
pub fn refuse_taking() -> impl Iterator<Item = sock_filter> {
    let refuse = |number: c_long| [skip_unless(BPF_JEQ, number as u32, 0, 1), give(fail(libc::EPERM))];
    TAKING.into_iter().flat_map(refuse)
}

/// Loads four bytes of `seccomp_data`.
pub fn load(offset: usize) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset as u32)
}

/// Skips `yes` instructions if the comparison holds, otherwise `no`.
pub fn skip_unless(comparison: u32, value: u32, yes: u8, no: u8) -> sock_filter {
    instruction(BPF_JMP | comparison | BPF_K, yes, no, value)
}

/// Ends the filter with a verdict (SECCOMP_RET_*).
pub fn give(verdict: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, 0, 0, verdict)
}

/// Returns the verdict that fails the call.
pub fn fail(errno: c_int) -> u32 {
    SECCOMP_RET_ERRNO | errno as u32
}

/// Returns the verdict of a filter, made of the instructions above, on a call; for tests of filters.
///
/// # Panics
/// If the filter loads anything but the number, the architecture or a part of an argument, or has no end.
///
/// ```
/// use peersock_bsd::filter::{begin, fail, give, verdict};
///
/// const X86_64: u32 = 0xc000_003e;
/// let mut program = begin(X86_64, false);
/// program.push(give(libc::SECCOMP_RET_ALLOW));
/// assert_eq!(verdict(&program, X86_64, libc::SYS_io_uring_setup, [0; 6]), fail(libc::ENOSYS));
/// assert_eq!(verdict(&program, X86_64, libc::SYS_read, [0; 6]), libc::SECCOMP_RET_ALLOW);
/// ```
pub fn verdict(program: &[sock_filter], architecture: u32, number: c_long, arguments: [u64; 6]) -> u32 {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at].clone();
        at += 1;
        let jump = |holds: bool| usize::from(if holds { jt } else { jf });
        match u32::from(code) {
            code if code == BPF_LD | BPF_W | BPF_ABS => {
                accumulator = match k {
                    0 => number as u32,
                    4 => architecture,
                    16.. => (arguments[(k as usize - 16) / 8] >> (8 * (k % 8))) as u32,
                    other => panic!("nothing is read at {other}"),
                }
            }
            code if code == BPF_JMP | BPF_JEQ | BPF_K => at += jump(accumulator == k),
            code if code == BPF_JMP | BPF_JGE | BPF_K => at += jump(accumulator >= k),
            code if code == BPF_JMP | BPF_JSET | BPF_K => at += jump(accumulator & k != 0),
            _ => return k,
        }
    }
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_call(architecture: u32, number: c_long, argument: c_int, program: &[sock_filter]) -> u32 {
        verdict(program, architecture, number, [argument as u64, 0, 0, 0, 0, 0])
    }

    #[test]
    fn io_uring_fails_always_and_sockets_of_the_internet_where_only_the_overlay_is_allowed() {
        const HERE: u32 = 0xc000_003e;
        for only in [false, true] {
            let program = program(HERE, only);
            let of = |number, argument| of_call(HERE, number, argument, &program);
            assert_eq!(of(libc::SYS_io_uring_setup, 8), fail(libc::ENOSYS));
            assert_eq!(of(i64::from(X32) + 41, 1), fail(libc::ENOSYS));
            assert_eq!(of(libc::SYS_read, libc::AF_INET), SECCOMP_RET_ALLOW);
            assert_eq!(of(libc::SYS_socket, libc::AF_UNIX), SECCOMP_RET_ALLOW);
            assert_eq!(of(libc::SYS_socket, libc::AF_NETLINK), SECCOMP_RET_ALLOW);
            let takes = if only { fail(libc::EPERM) } else { SECCOMP_RET_ALLOW };
            for number in TAKING {
                assert_eq!(of(number, 0), takes);
            }
            let internet = if only { fail(libc::EAFNOSUPPORT) } else { SECCOMP_RET_ALLOW };
            for family in [libc::AF_INET, libc::AF_INET6, libc::AF_PACKET, libc::AF_VSOCK] {
                assert_eq!(of(libc::SYS_socket, family), internet);
            }
            let foreign = if only { SECCOMP_RET_KILL_PROCESS } else { SECCOMP_RET_ALLOW };
            assert_eq!(of_call(0x4000_0003, 359, libc::AF_INET, &program), foreign);
        }
    }
}
