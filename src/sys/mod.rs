//! All that the driver needs of the operating system beyond what `std`, `socket2` and `quinn-udp` have for
//! every system. A port to another system is this folder; sockets that are descriptors (`descriptors/`)
//! are Linux's alone.
//!
//! * [`poll`]: waiting for a few descriptors, and a descriptor that ends that;
//! * [`poller`]: what the engine thread sleeps on;
//! * [`interface_watch`]: interfaces and addresses that come and go;
//! * [`icmp_errors`]: what the kernel has learned about datagrams that were sent;
//! * [`suspend`]: how long the machine was suspended;
//! * [`socket_buffer`]: room for what arrives;
//! * [`process`]: forks and exits.

pub(crate) mod icmp_errors;
pub(crate) mod interface_watch;
pub(crate) mod poll;
pub(crate) mod poller;
pub(crate) mod process;
pub(crate) mod socket_buffer;
pub(crate) mod suspend;
