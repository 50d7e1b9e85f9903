//! The library that `peersock run` preloads (LD_PRELOAD): it takes the place of the C library's socket calls.
//!
//! A program's sockets are the kernel's until it says where to: an address of the overlay turns a socket into
//! one of the overlay's, under the same descriptor ([`peersock_bsd::convert`]); all others stay what they
//! are. Where a program that listens is to be reached is the rule's matter ([`Rules`]). Calls on descriptors
//! that are no overlay sockets go straight to the kernel.
//!
//! Reading, writing, polling and duplicating are not touched; closing only once a socket has SO_LINGER.
#![allow(unsafe_code)]

mod alongside;
mod convert;
mod epoll;
mod fork_lock;
mod groups;
mod hooks;
mod hostent;
mod kernel;
mod messages;
mod names;

use std::sync::OnceLock;

use peersock_bsd::Rules;

/// What the launcher has told us, read before the program can overwrite its environment.
static RULES: OnceLock<Option<Rules>> = OnceLock::new();

/// The rules; `None` if this process was not started by `peersock run`.
fn rules() -> Option<&'static Rules> {
    RULES.get_or_init(Rules::from_environment).as_ref()
}

/// Runs when the library is loaded.
extern "C" fn initialize() {
    if let Some(rules) = rules() {
        fork_lock::survive_forks();
        // The launcher sees by this that the library took hold.
        rules.refresh();
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static INITIALIZE: extern "C" fn() = initialize;
