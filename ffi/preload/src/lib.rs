//! The library that `peersock run` preloads (LD_PRELOAD); it replaces the C library's socket calls.
//!
//! A program's sockets start as kernel sockets. An overlay address turns a socket into an overlay socket,
//! under the same descriptor ([`peersock_bsd::convert`]); for other addresses it stays a kernel socket. The
//! rules decide on which network a listener is reached ([`Rules`]). Calls on other descriptors go straight to
//! the kernel.
//!
//! Reading and writing are C library calls, except for the meaning of errors. Polling is not replaced,
//! duplicating is noted, and closing is not affected unless a socket has SO_LINGER. Started programs have the
//! library, too, regardless of the environment passed to them.
#![allow(unsafe_code)]

mod accept;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
mod by_number;
mod convert;
mod duplicates;
mod empty_receive;
mod ephemeral;
mod epoll;
mod exec;
mod fork_lock;
mod groups;
mod hooks;
mod hostent;
mod inherit;
mod interfaces;
mod kernel;
mod messages;
mod names;
mod netlink;
mod reach;
mod read_write;
mod spawn;
mod supervise;
mod waits;

use std::sync::OnceLock;

use peersock_bsd::Rules;

/// The launcher's rules, read before the program can overwrite its environment.
static RULES: OnceLock<Option<Rules>> = OnceLock::new();

/// The locks of this library, in the order in which a fork takes them.
static LOCKS: &[&dyn fork_lock::Lock] =
    &[&epoll::REGISTRATIONS, &groups::MEMBERSHIPS, &ephemeral::ANY_PORT_SOCKETS, &netlink::PENDING_ANSWERS];

/// Returns the rules, or `None` if this process was not started by `peersock run`.
fn rules() -> Option<&'static Rules> {
    RULES.get_or_init(Rules::from_environment).as_ref()
}

/// Initializes the library when it is loaded.
extern "C" fn initialize() {
    exec::find_originals();
    spawn::find_originals();
    read_write::find_originals();
    duplicates::find_originals();
    waits::find_originals();
    if let Some(rules) = rules() {
        fork_lock::survive_forks(LOCKS);
        inherit::remember();
        supervise::prepare();
        // This request also shows the launcher that the library is active.
        rules.refresh();
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static INITIALIZE: extern "C" fn() = initialize;
