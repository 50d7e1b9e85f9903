//! Interface to the operating system beyond what `std`, `socket2` and `quinn-udp` provide for every system. A
//! port to another system changes this folder; sockets that are descriptors (`sockets/`) are specific to
//! Linux.
//!
//! * [`poll`]: waiting for a few descriptors, and a descriptor that ends the wait;
//! * [`poller`]: the poller of the engine thread;
//! * [`interface_watch`]: changes of interfaces and addresses;
//! * `machine`: its name, and the system's;
//! * [`peer`]: the user at the other end of a Unix socket;
//! * [`icmp_errors`]: ICMP errors about datagrams that were sent;
//! * [`suspend`]: the time that the machine was suspended;
//! * [`socket_buffer`]: receive buffers;
//! * [`process`]: forks and exits.

pub(crate) mod icmp_errors;
pub(crate) mod interface_watch;
mod machine;
pub(crate) mod peer;
pub(crate) mod poll;
pub(crate) mod poller;
pub(crate) mod process;
pub(crate) mod socket_buffer;
pub(crate) mod suspend;

pub(crate) use machine::{description, host_name};
