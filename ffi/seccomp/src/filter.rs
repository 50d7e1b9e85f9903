//! Choice of the notified system calls: the socket calls that the kernel cannot answer for an overlay socket.
//!
//! All other calls run without notification, for example `read`, `write`, `poll`, `epoll_wait` and `close`.
//! So do `send` and `recv`, which are sendto(2) and recvfrom(2) without an address.

use std::mem::offset_of;

use libc::{BPF_JEQ, BPF_JSET, SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF, c_long, seccomp_data};
use peersock_bsd::filter::{
    ARCHITECTURE, LOCAL_FAMILIES, begin, fail, give, load, refuse_taking, skip_unless,
};
use peersock_bsd::interface_requests;
use seccompiler::{BpfProgram, sock_filter};

/// Calls that are notified for all arguments.
const ALWAYS: [c_long; 12] = [
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_shutdown,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
];

/// Option calls, which are always notified too, because AF_UNIX sockets lack TCP's options.
const OPTIONS: [c_long; 2] = [libc::SYS_setsockopt, libc::SYS_getsockopt];

/// Calls that are notified if they pass an address, or have one of the first flags. One of the second flags,
/// which AF_UNIX sockets interpret differently from TCP, has the same effect unless MSG_WAITALL is set, which
/// the kernel handles alone.
const WITH_ADDRESS: [(c_long, i32, i32); 2] = [
    (libc::SYS_sendto, libc::MSG_OOB | libc::MSG_FASTOPEN, 0),
    (libc::SYS_recvfrom, libc::MSG_OOB | libc::MSG_ERRQUEUE, libc::MSG_TRUNC),
];

/// Returns the filter, or `None` on architectures whose calls are not known. With `only` there are no
/// Internet sockets of the kernel.
///
/// The io_uring calls fail as in kernels without them, because they would bypass the filter.
pub(crate) fn program(only: bool) -> Option<BpfProgram> {
    let mut program = begin(ARCHITECTURE?, only);
    if only {
        program.extend(refuse_taking());
    }
    for number in ALWAYS.into_iter().chain(OPTIONS) {
        program.extend([skip_unless(BPF_JEQ, number as u32, 0, 1), give(SECCOMP_RET_USER_NOTIF)]);
    }
    for (number, flags, partly) in WITH_ADDRESS {
        let rest = with_address(flags as u32, partly as u32);
        program.push(skip_unless(BPF_JEQ, number as u32, 0, rest.len() as u8));
        program.extend(rest);
    }
    let rest = request();
    program.push(skip_unless(BPF_JEQ, libc::SYS_ioctl as u32, 0, rest.len() as u8));
    program.extend(rest);
    let rest = socket(only);
    program.push(skip_unless(BPF_JEQ, libc::SYS_socket as u32, 0, rest.len() as u8));
    program.extend(rest);
    program.push(give(SECCOMP_RET_ALLOW));
    Some(program)
}

/// Returns the verdict on sendto(2) and recvfrom(2): the fourth argument contains flags, the fifth is the
/// address.
fn with_address(flags: u32, partly: u32) -> Vec<sock_filter> {
    vec![
        load(argument(3)),
        skip_unless(BPF_JSET, flags, 6, 0),
        skip_unless(BPF_JSET, partly, 0, 1),
        skip_unless(BPF_JSET, libc::MSG_WAITALL as u32, 0, 4),
        load(argument(4)),
        skip_unless(BPF_JEQ, 0, 0, 2),
        load(argument(4) + 4),
        skip_unless(BPF_JEQ, 0, 1, 0),
        give(SECCOMP_RET_USER_NOTIF),
        give(SECCOMP_RET_ALLOW),
    ]
}

/// Returns the verdict on ioctl(2). Notified are SIOCOUTQ, which AF_UNIX sockets answer differently from TCP,
/// and requests about interfaces.
fn request() -> Vec<sock_filter> {
    let mut program = vec![load(argument(1))];
    for request in interface_requests::all().chain([libc::TIOCOUTQ]) {
        program.extend([skip_unless(BPF_JEQ, request as u32, 0, 1), give(SECCOMP_RET_USER_NOTIF)]);
    }
    program.push(give(SECCOMP_RET_ALLOW));
    program
}

/// Returns the verdict on socket(2).
fn socket(only: bool) -> Vec<sock_filter> {
    let mut program = vec![load(argument(0))];
    if only {
        for family in LOCAL_FAMILIES {
            program.extend([skip_unless(BPF_JEQ, family as u32, 0, 1), give(SECCOMP_RET_ALLOW)]);
        }
    }
    // Kernel sockets become overlay sockets when they are bound or connected. ICMP and raw sockets are
    // notified here, because the kernel may deny them.
    program.extend([
        skip_unless(BPF_JEQ, libc::AF_INET as u32, 2, 0),
        skip_unless(BPF_JEQ, libc::AF_INET6 as u32, 1, 0),
        give(if only { fail(libc::EAFNOSUPPORT) } else { SECCOMP_RET_ALLOW }),
    ]);
    if !only {
        program.push(load(argument(2)));
        for protocol in [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
            program.extend([skip_unless(BPF_JEQ, protocol as u32, 0, 1), give(SECCOMP_RET_ALLOW)]);
        }
    }
    program.push(give(SECCOMP_RET_USER_NOTIF));
    program
}

/// Returns the offset of an argument's low half: all supported architectures are little-endian.
fn argument(index: usize) -> usize {
    offset_of!(seccomp_data, args) + index * size_of::<u64>()
}

#[cfg(test)]
mod tests {
    use libc::c_int;
    use peersock_bsd::filter::{self, X32};

    use super::*;

    /// Returns the filter's verdict on a call.
    fn verdict(program: &[sock_filter], number: c_long, arguments: [u64; 6]) -> u32 {
        filter::verdict(program, ARCHITECTURE.expect("tests run where it is known"), number, arguments)
    }

    fn named(family: c_int, protocol: c_int) -> [u64; 6] {
        [family as u64, 0, protocol as u64, 0, 0, 0]
    }

    #[test]
    fn calls_that_move_data_are_not_notified() {
        let program = program(false).unwrap();
        let of = |number, arguments| verdict(&program, number, arguments);
        for number in [libc::SYS_read, libc::SYS_write, libc::SYS_close, libc::SYS_epoll_ctl] {
            assert_eq!(of(number, [7; 6]), SECCOMP_RET_ALLOW);
        }
        for number in [libc::SYS_sendto, libc::SYS_recvfrom] {
            assert_eq!(of(number, [3, 4096, 10, 0, 0, 0]), SECCOMP_RET_ALLOW);
            assert_eq!(of(number, [3, 4096, 10, libc::MSG_NOSIGNAL as u64, 0, 0]), SECCOMP_RET_ALLOW);
            assert_eq!(of(number, [3, 4096, 10, libc::MSG_OOB as u64, 0, 0]), SECCOMP_RET_USER_NOTIF);
            assert_eq!(of(number, [3, 4096, 10, 0, 4096, 16]), SECCOMP_RET_USER_NOTIF);
            // An address whose low half is zero.
            assert_eq!(of(number, [3, 4096, 10, 0, 7 << 32, 16]), SECCOMP_RET_USER_NOTIF);
        }
        for (flags, wanted) in [
            (libc::MSG_TRUNC, SECCOMP_RET_USER_NOTIF),
            (libc::MSG_TRUNC | libc::MSG_PEEK, SECCOMP_RET_USER_NOTIF),
            (libc::MSG_TRUNC | libc::MSG_WAITALL, SECCOMP_RET_ALLOW),
            (libc::MSG_PEEK | libc::MSG_WAITALL, SECCOMP_RET_ALLOW),
        ] {
            assert_eq!(of(libc::SYS_recvfrom, [3, 4096, 10, flags as u64, 0, 0]), wanted, "{flags:x}");
            assert_eq!(of(libc::SYS_sendto, [3, 4096, 10, flags as u64, 0, 0]), SECCOMP_RET_ALLOW);
        }
        for number in ALWAYS.into_iter().chain(OPTIONS) {
            assert_eq!(of(number, [0; 6]), SECCOMP_RET_USER_NOTIF);
        }
        assert_eq!(of(libc::SYS_ioctl, [3, libc::FIONREAD, 4096, 0, 0, 0]), SECCOMP_RET_ALLOW);
        assert_eq!(of(libc::SYS_ioctl, [3, libc::TIOCOUTQ, 4096, 0, 0, 0]), SECCOMP_RET_USER_NOTIF);
        assert_eq!(of(libc::SYS_ioctl, [3, libc::SIOCGIFINDEX, 4096, 0, 0, 0]), SECCOMP_RET_USER_NOTIF);
        assert_eq!(of(libc::SYS_io_uring_setup, [0; 6]), fail(libc::ENOSYS));
        assert_eq!(of(c_long::from(X32) + 41, [0; 6]), fail(libc::ENOSYS));
    }

    #[test]
    fn sockets_are_notified_where_the_kernel_may_deny_them_or_the_overlay_is_all_that_is_allowed() {
        for only in [false, true] {
            let program = program(only).unwrap();
            let of = |family, protocol| verdict(&program, libc::SYS_socket, named(family, protocol));
            for family in [libc::AF_INET, libc::AF_INET6] {
                let usual = if only { SECCOMP_RET_USER_NOTIF } else { SECCOMP_RET_ALLOW };
                assert_eq!(of(family, 0), usual);
                assert_eq!(of(family, libc::IPPROTO_UDP), usual);
                assert_eq!(of(family, libc::IPPROTO_ICMPV6), SECCOMP_RET_USER_NOTIF);
            }
            assert_eq!(of(libc::AF_UNIX, 0), SECCOMP_RET_ALLOW);
            assert_eq!(of(libc::AF_NETLINK, 0), SECCOMP_RET_ALLOW);
            let others = if only { fail(libc::EAFNOSUPPORT) } else { SECCOMP_RET_ALLOW };
            assert_eq!(of(libc::AF_PACKET, 0), others);
        }
    }
}
