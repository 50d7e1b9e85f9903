//! Assignment of functions to the stages of a packet's path.

use std::fmt;

use super::samples::{Function, Sample};

/// A part of a packet's cost.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Stage {
    Cipher,
    Copy,
    Engine,
    Overlay,
    DataPath,
    Sockets,
    Allocator,
    Program,
    Send,
    Receive,
    Link,
    Wait,
    Faults,
    Kernel,
}

impl Stage {
    /// All stages, in the order of the table.
    pub(super) const ALL: [Stage; 14] = [
        Stage::Cipher,
        Stage::Copy,
        Stage::Engine,
        Stage::Overlay,
        Stage::DataPath,
        Stage::Sockets,
        Stage::Allocator,
        Stage::Program,
        Stage::Send,
        Stage::Receive,
        Stage::Link,
        Stage::Wait,
        Stage::Faults,
        Stage::Kernel,
    ];

    /// Returns the stage of a sample.
    pub(super) fn of(sample: &Sample) -> Stage {
        match sample.functions.first() {
            Some(function) if function.is_kernel => Stage::of_kernel(&sample.functions),
            Some(function) => Stage::of_program(&function.name),
            None => Stage::Program,
        }
    }

    /// Returns the stage of a kernel sample by its callers. The innermost known one counts, because packets
    /// may arrive within any of them.
    fn of_kernel(functions: &[Function]) -> Stage {
        const CALLS: [(&[&str], Stage); 5] = [
            (&["do_softirq", "__do_softirq", "handle_softirqs", "net_rx_action"], Stage::Link),
            (&["exc_page_fault", "asm_exc_page_fault", "do_user_addr_fault"], Stage::Faults),
            (&["sys_sendmsg", "sys_sendmmsg", "sys_sendto", "sys_write", "sys_writev"], Stage::Send),
            (&["sys_recvmsg", "sys_recvmmsg", "sys_recvfrom", "sys_read", "sys_readv"], Stage::Receive),
            (&["sys_futex", "sys_epoll", "sys_poll", "sys_ppoll", "sys_select", "schedule"], Stage::Wait),
        ];
        let known = |function: &Function| {
            let is = |name: &&str| match name.starts_with("sys_") {
                true => function.name.trim_start_matches('_').trim_start_matches("x64_").starts_with(name),
                false => function.name == *name,
            };
            CALLS.iter().find(|(names, _)| names.iter().any(is)).map(|(_, stage)| *stage)
        };
        functions.iter().take_while(|function| function.is_kernel).find_map(known).unwrap_or(Stage::Kernel)
    }

    fn of_program(name: &str) -> Stage {
        const PARTS: [(&[&str], Stage); 7] = [
            (&["aes", "gcm", "ghash", "chacha", "poly1305", "aead", "EVP_", "aws_lc"], Stage::Cipher),
            (&["memcpy", "memmove", "memset"], Stage::Copy),
            (&["peersock_stack"], Stage::Engine),
            (&["peersock_overlay"], Stage::Overlay),
            (&["peersock_datapath"], Stage::DataPath),
            (&["peersock_bench"], Stage::Program),
            (&["peersock"], Stage::Sockets),
        ];
        const ALLOCATOR: [&str; 7] = ["malloc", "free", "cfree", "realloc", "calloc", "_int_", "__rust_"];
        if ALLOCATOR.iter().any(|start| name.starts_with(start)) {
            return Stage::Allocator;
        }
        let found = PARTS.iter().find(|(words, _)| words.iter().any(|word| name.contains(word)));
        found.map_or(Stage::Program, |(_, stage)| *stage)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Stage::Cipher => "cipher",
            Stage::Copy => "copies",
            Stage::Engine => "TCP engine",
            Stage::Overlay => "overlay: sessions and paths",
            Stage::DataPath => "data path",
            Stage::Sockets => "sockets",
            Stage::Allocator => "allocator",
            Stage::Program => "the program, and what it calls",
            Stage::Send => "system calls that send",
            Stage::Receive => "system calls that receive",
            Stage::Link => "the receiving softirq of the kernel",
            Stage::Wait => "waiting and waking",
            Stage::Faults => "page faults",
            Stage::Kernel => "the kernel elsewhere",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: &str = "[kernel.kallsyms]";

    #[test]
    fn a_programs_functions_are_told_by_their_names() {
        for (name, stage) in [
            ("aws_lc_0_39_aes_gcm_enc_update_vaes_avx512", Stage::Cipher),
            ("__memmove_avx512_unaligned_erms", Stage::Copy),
            ("<peersock_stack::tcp::Flow>::send", Stage::Engine),
            ("peersock_overlay::session::Session::seal", Stage::Overlay),
            ("peersock_datapath::receive::batch", Stage::DataPath),
            ("peersock_bench::workload::bulk::send", Stage::Program),
            ("peersock::driver::tx::run", Stage::Sockets),
            ("_int_malloc", Stage::Allocator),
            ("[unknown]", Stage::Program),
        ] {
            assert_eq!(Stage::of(&Sample::of(1, &[(name, "/bin/x")])), stage, "{name}");
        }
    }

    #[test]
    fn the_kernels_functions_are_told_by_the_innermost_call_that_is_known() {
        for (names, stage) in [
            (&["copy_user_generic_string", "udp_sendmsg", "__x64_sys_sendmsg"][..], Stage::Send),
            (&["veth_poll", "net_rx_action", "__do_softirq", "__x64_sys_sendmmsg"], Stage::Link),
            (&["clear_page", "asm_exc_page_fault", "__x64_sys_recvmsg"], Stage::Faults),
            (&["skb_copy_datagram_iter", "__x64_sys_recvmmsg"], Stage::Receive),
            (&["_raw_spin_unlock", "__x64_sys_futex"], Stage::Wait),
            (&["__x64_sys_clock_gettime"], Stage::Kernel),
        ] {
            let functions: Vec<_> = names.iter().map(|name| (*name, KERNEL)).collect();
            assert_eq!(Stage::of(&Sample::of(1, &functions)), stage, "{names:?}");
        }
        // The caller of the kernel does not count, because callers within a program are uncertain.
        let called = [("entry_SYSCALL_64", KERNEL), ("sys_sendmsg", "/lib/libc.so.6")];
        assert_eq!(Stage::of(&Sample::of(1, &called)), Stage::Kernel);
    }
}
