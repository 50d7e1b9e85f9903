//! The stack in real time beside the Linux kernel's: a network namespace, a TUN device in it, and a [`Node`] that drives a
//! stack on the other side of the device.
//!
//! ```no_run
//! use std::net::TcpListener;
//! use peersock_stack_lab::kernel::{Namespace, Node, Options};
//!
//! let namespace = Namespace::new()?;
//! let node = Node::start(&namespace, &Options::default())?;
//! let listener = namespace.run(|| TcpListener::bind("10.77.0.1:80"))?;
//! let ours = node.connect(listener.local_addr()?)?;
//! let (theirs, _) = listener.accept()?;
//! # drop((ours, theirs));
//! # std::io::Result::Ok(())
//! ```

mod bridge;
mod namespace;
mod node;
mod road;
mod socket;
mod tun;

pub use bridge::Bridge;
pub use namespace::{Namespace, unavailable};
pub use node::{Node, Options};
pub use socket::{Acceptor, Socket};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kernel's address on the device.
pub fn kernel_address(ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1).into() } else { Ipv4Addr::new(10, 77, 0, 1).into() }
}

/// The stack's address on the device.
pub fn stack_address(ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2).into() } else { Ipv4Addr::new(10, 77, 0, 2).into() }
}
