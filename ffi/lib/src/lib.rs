//! `libpeersock`: the node and its sockets for C. The header, which is generated from this crate, describes
//! the functions.
//!
//! Two families of functions:
//!
//! * *node calls* return a [`peersock_result`](result::peersock_result) and their values through pointers;
//!   the text of the last failure is kept per thread;
//! * *socket calls* are POSIX's: -1 and `errno`.
//!
//! The node lives in threads with a separate descriptor table ([`peersock_socket_server::Host`]). No panic
//! crosses into C, and pointers and lengths are checked first.
#![allow(unsafe_code)]
#![allow(non_camel_case_types, reason = "names as C has them")]

pub mod boundary;
pub mod bsd;
pub mod config;
pub mod dial;
pub mod events;
pub mod identity;
pub mod interfaces;
pub mod log;
pub mod names;
pub mod netcheck;
pub mod networks;
pub mod node;
pub mod open;
pub mod peer_identity;
pub mod peers;
pub mod registry;
pub mod result;
pub mod text;
