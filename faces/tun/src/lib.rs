//! Networks as interfaces of the machine: a TUN device carries a network's packets, so that all programs
//! reach the members with normal sockets.
//!
//! [`Tun::open`] makes the device and needs `CAP_NET_ADMIN`; later steps do not, and [`give_up_privileges`]
//! ensures that none can use it. [`Tun::serve`] forwards packets until the device is gone.
//!
//! [`ExitRoutes`] also sends Internet traffic to the device, except the packets of the [`User`] that the node
//! runs as.
//!
//! [`Upkeep`] restores settings of the device that other programs have removed.
//!
//! [`NameServer`] answers this machine's resolver with the members' names.
//!
//! The kernel leaves checksums and the segmentation of large TCP and UDP packets to the overlay, and accepts
//! merged ones (TSO, USO, GRO). virtio's header precedes each packet. So one system call moves up to 64 KiB.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use peersock::{IdentitySource, Network, Node};
//! use peersock_tun::{Settings, Tun};
//!
//! let network = Network::ad_hoc("ff0001ffff000000".parse()?);
//! let node = Node::builder().identity(IdentitySource::Ephemeral).start()?;
//! let addresses = network.addresses_of(&node.public_identity()).expect("anybody may join");
//! let tun = Arc::new(Tun::open(&Settings { addresses: vec![(addresses[0], 40)], ..Settings::new("peersock0") })?);
//! let joined = node.join_device(network, tun.clone())?;
//! let error = tun.serve(joined.device_sender().expect("it was joined for a device"));
//! eprintln!("{error}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod device;
mod exit;
mod filter;
mod header;
mod name_server;
mod names;
mod netlink;
mod nfnetlink;
mod nftables;
mod placing;
mod privileges;
mod reverse;
mod setup;
mod site;
mod udp;
mod upkeep;
mod user;

pub use device::Tun;
pub use exit::{EXIT_TABLE, ExitRoutes, has_exit_rules, remove_exit_rules};
pub use filter::Filter;
pub use name_server::NameServer;
pub use names::{DOMAIN, Found, Members, Names};
pub use privileges::{give_up_privileges, is_privileged_for_all, keep_network_privilege};
pub use reverse::zones;
pub use setup::{OpenError, Settings};
pub use upkeep::{Change, Upkeep};
pub use user::{Acting, User};
