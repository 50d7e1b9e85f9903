//! Native calls of the Python package: a node in this process, and sockets on descriptors.
//!
//! `peersock/socket.py` builds CPython's `socket` module on them, and `peersock/session.py` builds the node.
//! This crate has only what Python cannot do itself: the overlay descriptors and the node's
//! [`peersock_socket_server::Host`]. Descriptors alone identify sockets, so `dup`, `fork` and `close` need no
//! notification.
//!
//! While a call waits, the interpreter's lock is released, and signals run their handlers in between as in
//! PEP 475.
#![allow(unsafe_code)]

mod address;
mod calls;
mod config;
mod datagrams;
mod epoll;
mod errors;
mod interfaces;
mod messages;
mod names;
mod nicknames;
mod node;
mod options;
mod process;
mod sides;
mod wait;

use pyo3::prelude::*;

/// The native part of the package.
#[pymodule]
mod _peersock {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::calls::{
        accept, bind, close, connect, getpeername, getsockname, is_overlay, listen, open_socket, shutdown,
        socket_of, stream_error,
    };
    #[pymodule_export]
    use crate::config::{
        Config, address_of, default_state, generate_seed, node_id, public_key, setting_names,
    };
    #[pymodule_export]
    use crate::datagrams::{recv, recvfrom, send, sender_of, sendto};
    #[pymodule_export]
    use crate::errors::text;
    #[pymodule_export]
    use crate::interfaces::{interface_names, load_interface, load_nat};
    #[pymodule_export]
    use crate::messages::{recvmsg, sendmsg};
    #[pymodule_export]
    use crate::names::{interfaces, is_overlays, name_of, own_addresses, resolve};
    #[pymodule_export]
    use crate::node::Node;
    #[pymodule_export]
    use crate::options::{getsockopt, is_refused_early, setsockopt};
    #[pymodule_export]
    use crate::process::{adopt_orphans, filter_calls, forbid_dumps, provide_library};
    #[pymodule_export]
    use crate::sides::{
        choose_by_listen, choose_by_local, choose_by_remote, clear_rules, has_rules, set_rules, share,
        stays_kernels, vacate,
    };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
