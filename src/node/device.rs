//! Networks whose packets a device of the machine takes, beside this node's sockets.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use peersock_datapath::{Device, GsoBatch, JoinedNetwork, Offload};
use peersock_overlay::JoinError;
use peersock_stack::Batch;

use super::{Inner, Joined, Node};
use crate::config::Network;

impl Node {
    /// Joins a network for a device. `device` takes the packets that peers send to this node, or to a block
    /// of addresses behind it. [`Joined::device_sender`] sends packets of the device's IP stack.
    ///
    /// Sockets of this node are in the network, too. The packets of a connection, a listener or a datagram
    /// socket go there, and not to the device. Fragments, and packets with IP options or extension headers,
    /// go to the device. A socket and the device's IP stack do not reach each other at this node's own
    /// addresses, and they do not know each other's ports.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use peersock::device::{Device, Offload};
    /// use peersock::{IdentitySource, Interfaces, Network, Node};
    ///
    /// /// A TUN device would give them to the kernel.
    /// #[derive(Debug)]
    /// struct Printer;
    ///
    /// impl Device for Printer {
    ///     fn deliver(&self, packet: &[u8], _offload: &Offload) {
    ///         println!("{} bytes from a peer", packet.len());
    ///     }
    /// }
    ///
    /// let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback).start()?;
    /// let network = node.join_device(Network::ad_hoc("ff00500050000000".parse()?), Arc::new(Printer))?;
    /// assert!(network.device_sender().is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Fails with the errors of [`Node::join`].
    pub fn join_device(&self, network: Network, device: Arc<dyn Device>) -> Result<Joined, JoinError> {
        // A question of another program does not keep the network from the device.
        self.end_visit(network.id());
        self.join_for(network, Some(device), false)
    }
}

/// Sender of packets from a device's IP stack. Each thread uses a separate one.
///
/// Packets to one peer leave together, so call [`flush`](Self::flush) when no more are available. If a packet
/// cannot be sent, the [`Device`] gets an ICMP error, as from a router.
pub struct DeviceSender {
    node: Arc<Inner>,
    network: JoinedNetwork,
    gso: GsoBatch,
    batch: Batch,
}

impl DeviceSender {
    /// Returns the sender of a network that was joined for a device.
    pub(super) fn new(node: &Node, network: &JoinedNetwork) -> Option<DeviceSender> {
        network.device.as_ref()?;
        let (node, network) = (node.inner.clone(), network.clone());
        Some(DeviceSender { node, network, gso: GsoBatch::default(), batch: Batch::default() })
    }

    /// Sends an IP packet, or keeps it for [`flush`](Self::flush). Its bytes are undefined afterwards.
    ///
    /// Packets whose source is neither this node's nor in a block of addresses behind it are dropped.
    pub fn send(&mut self, packet: &mut [u8], offload: &Offload) {
        let (datapath, interface) = (&self.node.driver.datapath, self.network.interface);
        datapath.send_from_device(Instant::now(), interface, packet, offload, &mut self.gso, &mut self.batch);
    }

    /// Sends the kept packets.
    pub fn flush(&mut self) {
        let (datapath, now) = (&self.node.driver.datapath, Instant::now());
        datapath.send_gso(now, &mut self.gso, &mut self.batch);
        datapath.settle(now, &mut self.batch);
    }
}

impl Drop for DeviceSender {
    // Packets that wait would be lost otherwise.
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Debug for DeviceSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceSender").field("network", &self.network.id).finish_non_exhaustive()
    }
}
