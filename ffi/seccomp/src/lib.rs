//! The supervisor of programs that no preloaded library reaches because they make system calls directly,
//! based on seccomp user notification (seccomp_unotify(2)).
//!
//! ```text
//! program ---- socket call ----> kernel ---- notice ----> supervisor
//!    ^                             |   <---- answer ----      |  peersock-bsd, on a descriptor like
//!    |                             |   <---- descriptor ---   |  the program's (pidfd_getfd)
//!    +------ result ---------------+                          +---- requests ----> node
//! ```
//!
//! The thread that starts the program installs a [`Filter`], which the program and its descendants inherit.
//! From then on the kernel stops a thread that makes one of the filter's calls, and notifies the
//! [`Supervisor`]. The supervisor makes the call for the thread, with the same functions as the preloaded
//! library. It uses a copied descriptor of the same open file, and copies of the arguments. A socket that
//! becomes an overlay socket replaces the program's under the same number (SECCOMP_IOCTL_NOTIF_ADDFD).
//! Reading, writing and polling are plain kernel calls, and not notified.
//!
//! # No security boundary
//! If a call concerns the kernel, the supervisor lets the kernel make it. The kernel reads the arguments
//! again, and another thread may have changed them, so a malicious program can bypass the overlay. Where only
//! the overlay is allowed, such a program gets no kernel socket to use.
//!
//! # Waiting
//! A few threads answer calls. They wait only for the node's answer, so no call waits for another. One more
//! thread keeps calls that must wait (accept, connect, receive), up to 4096. It regularly checks if they were
//! interrupted: it drops a call that is gone, and returns a call whose thread has a signal to handle.
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

/// State shared by all calls.
struct Context {
    rules: Rules,
    images: images::Images,
    sets: sets::Sets,
    waiting: Arc<waiting::Waiting>,
    /// UDP sockets of all programs that may become servers.
    any_ports: Mutex<AnyPorts>,
    /// Pending answers of routing sockets, which must include the networks.
    answers: Mutex<PendingAnswers>,
}
