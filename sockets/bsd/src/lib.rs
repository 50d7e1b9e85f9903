//! The BSD socket calls on overlay descriptors, in C's form: pointers, lengths and `errno` values.
//!
//! The C library `libpeersock` and the preloaded library are built on them. Each call takes a [`Socket`],
//! which shows that the descriptor is an overlay socket, and returns the call's result or its `errno`. System
//! calls are made directly, so that a library that replaces the C library's functions may use this crate.
//!
//! # Safety
//! Every pointer must be valid for the POSIX call of the same name: null where that allows null, otherwise
//! valid for the given length.
#![allow(unsafe_code)]

pub mod address_list;
pub mod alongside;
mod ancillary;
mod calls;
mod convert;
pub mod copies;
pub mod either;
pub mod elf;
pub mod ephemeral;
pub mod epoll_sets;
mod extension_headers;
pub mod filter;
pub mod interface;
pub mod interface_requests;
pub mod kernel;
mod many_messages;
pub mod member_names;
mod message_pieces;
mod messages;
pub mod name_index;
pub mod netlink;
mod option_hints;
mod options;
mod peek;
mod privilege;
pub mod replaced;
mod room;
mod rules;
mod sent_ancillary;
mod sides;
mod sockaddr;
mod time_limit;
mod wait_all;

pub use calls::{
    accept4, bind, close, connect, connect_to, getpeername, getsockname, listen, read_remote, shutdown,
    shutdown_with, socket, unacknowledged,
};
pub use convert::{
    convert, counterpart, dissolve, ends_attempt, has_failed, last_error, make_private, receiving, renew,
    replace, reset_on_close,
};
pub use epoll_sets::EpollSets;
pub use many_messages::{keep_for_next_call, may_receive_more};
pub use messages::{recvfrom, recvmmsg, recvmsg, sendmmsg, sendmsg, sendto};
pub use option_hints::{lingers, may_be_too_long};
pub use options::{getsockopt, is_refused_early, setsockopt};
pub use peek::is_patient_peek;
pub use peersock_fd::{Client, Errno, Socket};
pub use rules::{Rules, Side};
pub use sides::{Chosen, Sides, bound, is_any, is_candidate, overlay};
pub use sockaddr::{read as read_address, write as write_address};
pub use time_limit::TimeLimit;
pub use wait_all::{await_readable, receive_all, takes_all, waits};

/// Result of a call: its return value, or the `errno` that it fails with.
pub type Result<T> = std::result::Result<T, Errno>;
