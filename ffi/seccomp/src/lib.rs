//! The supervisor of programs that no preloaded library reaches because they make system calls themselves:
//! seccomp user notification (seccomp_unotify(2)).
//!
//! ```text
//! program ---- socket call ----> kernel ---- notice ----> supervisor
//!    ^                             |   <---- answer ----      |  peersock-bsd, on a descriptor like
//!    |                             |   <---- descriptor ---   |  the program's (pidfd_getfd)
//!    +------ result ---------------+                          +---- requests ----> node
//! ```
//!
//! A [`Filter`] is installed by the thread that starts the program; all that the program starts has it too.
//! From then on the kernel stops the thread that makes one of the calls that the filter names, and tells the
//! [`Supervisor`]. That makes the call in the thread's place, with the same functions as the preloaded
//! library, on a descriptor of its own for the same open file, with copies of what the thread has passed. A
//! socket that becomes the overlay's takes the place of the program's under the same number
//! (SECCOMP_IOCTL_NOTIF_ADDFD). Reading, writing and polling are the kernel's own, and not notified.
//!
//! # No security boundary
//! Where the supervisor finds that a call is the kernel's matter, it has the kernel go on with it, which
//! reads the arguments again: another thread may have changed them, so a program that means to get past the
//! overlay can. Where nothing but the overlay is allowed it gets no socket of the kernel's to do so with.
//!
//! # Waiting
//! A few threads answer calls; none waits for anything but the node's answer, so no call waits for another.
//! Calls that have to wait (accept, connect, receive) are kept by one more thread, up to 4096 of them. It
//! looks every now and then whether they were interrupted: a call that is gone leaves nothing, and one whose
//! thread has a signal to handle is given back for that.
#![allow(unsafe_code)]

mod address;
mod admission;
mod call;
mod filter;
mod images;
mod interfaces;
mod listener;
mod message;
mod sets;
mod supervisor;
mod target;
mod transfer;
mod waiting;

use std::sync::{Arc, Mutex};

use peersock_bsd::Rules;
use peersock_bsd::ephemeral::AnyPorts;
use peersock_bsd::netlink::PendingAnswers;

pub use supervisor::{Filter, Supervised, Supervisor};

/// What every call needs.
struct Context {
    rules: Rules,
    images: images::Images,
    sets: sets::Sets,
    waiting: Arc<waiting::Waiting>,
    /// UDP sockets of all programs that may become servers.
    any_ports: Mutex<AnyPorts>,
    /// Of routing sockets, into which the networks belong.
    answers: Mutex<PendingAnswers>,
}
