//! skeleton
use std::net::IpAddr;
use std::sync::Arc;
use crate::{Flow, IcmpSocket, InterfaceId, Listener, UdpSocket};

/// What one round of [`Stack::receive`](crate::Stack::receive) and
/// [`Stack::handle_timeout`](crate::Stack::handle_timeout) touched.
#[derive(Default)]
pub struct Batch {
    /// Flows with output or new readiness. Call [`Flow::egress`] on each until it returns `None`.
    pub flows: Vec<Arc<Flow>>,
    /// Listeners with connections to accept.
    pub listeners: Vec<Arc<Listener>>,
    /// UDP sockets with datagrams or errors.
    pub udp: Vec<Arc<UdpSocket>>,
    /// ICMP sockets with replies or errors.
    pub icmp: Vec<Arc<IcmpSocket>>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self { Self::default() }
    /// Packets to send that belong to no flow's output: resets, duplicate acknowledgements, ICMP.
    pub fn replies(&self) -> impl Iterator<Item = Reply<'_>> { std::iter::empty() }
    /// Empties it for the next round; capacity stays.
    pub fn clear(&mut self) { todo!() }
    /// Whether it is empty.
    pub fn is_empty(&self) -> bool { todo!() }
}

/// A packet that the stack answers with.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// The interface to send on.
    pub interface: InterfaceId,
    /// The inner destination address.
    pub destination: IpAddr,
    /// The IP packet.
    pub packet: &'a [u8],
}
