//! The library that `peersock run` preloads (LD_PRELOAD): it takes the place of the C library's socket calls.
//!
//! A program's sockets are the kernel's until it says where to: an address of the overlay turns a socket into
//! one of the overlay's, under the same descriptor ([`peersock_bsd::convert`]); all others stay what they
//! are. Where a program that listens is to be reached is the rule's matter ([`Rules`]). Calls on descriptors
//! that are no overlay sockets go straight to the kernel.
//!
//! Reading and writing are the C library's, but for what an error means; polling is not touched, duplicating
//! is noted, and closing is not touched unless a socket has SO_LINGER. What a program starts has the library,
//! too, whatever environment it is given.
#![allow(unsafe_code)]

mod accept;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
mod by_number;
mod convert;
mod duplicates;
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
mod nothing;
mod reach;
mod read_write;
mod spawn;
mod supervise;
mod waits;

use std::sync::OnceLock;

use peersock_bsd::Rules;

/// What the launcher has told us, read before the program can overwrite its environment.
static RULES: OnceLock<Option<Rules>> = OnceLock::new();

/// The locks of this library, in the order in which a fork takes them.
static LOCKS: &[&dyn fork_lock::Lock] =
    &[&epoll::KNOWN, &groups::KNOWN, &ephemeral::KNOWN, &netlink::PENDING];

/// The rules; `None` if this process was not started by `peersock run`.
fn rules() -> Option<&'static Rules> {
    RULES.get_or_init(Rules::from_environment).as_ref()
}

/// Runs when the library is loaded.
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
        // The launcher sees by this that the library took hold.
        rules.refresh();
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static INITIALIZE: extern "C" fn() = initialize;
