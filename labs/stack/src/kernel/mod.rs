//! The stack in real time beside the Linux kernel's TCP. A network namespace contains a TUN device, and a
//! [`Node`] drives a stack on the other side of the device.
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
pub use road::Punctuality;
pub use socket::{Acceptor, Socket};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Returns the address of the kernel on the device, in [`Options::subnet`] 0.
pub fn kernel_address(ipv6: bool) -> IpAddr {
    address(0, Side::Kernel, ipv6)
}

/// Returns the stack's address on the device, in [`Options::subnet`] 0.
pub fn stack_address(ipv6: bool) -> IpAddr {
    address(0, Side::Stack, ipv6)
}

/// Ends of a link.
#[derive(Debug, Clone, Copy)]
enum Side {
    Kernel = 1,
    /// The end of the stack, or of the far kernel of a [`Bridge`].
    Stack,
}

fn address(subnet: u8, side: Side, ipv6: bool) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0xfd77, 0, 0, subnet.into(), 0, 0, 0, side as u16).into()
    } else {
        Ipv4Addr::new(10, 77, subnet, side as u8).into()
    }
}
