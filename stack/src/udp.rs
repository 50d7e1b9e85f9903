//! skeleton
use std::any::Any;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use crate::{Error, InterfaceId, Ready};
/// A UDP socket.
pub struct UdpSocket { context: OnceLock<Arc<dyn Any + Send + Sync>> }
/// Where a datagram goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpRoute {
    /// The interface to send on.
    pub interface: InterfaceId,
    /// The own address.
    pub source: SocketAddr,
    /// The peer's address.
    pub destination: SocketAddr,
}
/// A datagram that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes written to the buffer.
    pub len: usize,
    /// Who sent it.
    pub source: SocketAddr,
    /// Which own address it was sent to.
    pub destination: SocketAddr,
    /// The interface it came in on.
    pub interface: InterfaceId,
    /// Whether the buffer was too short; the rest is gone.
    pub truncated: bool,
}
#[allow(unused_variables)]
impl UdpSocket {
    /// The interface, `None` for all.
    pub fn interface(&self) -> Option<InterfaceId> { todo!() }
    /// The own address.
    pub fn local(&self) -> SocketAddr { todo!() }
    /// The connected peer.
    pub fn peer(&self) -> Option<SocketAddr> { todo!() }
    /// Fixes the peer.
    pub fn connect(&self, remote: SocketAddr) -> Result<(), Error> { todo!() }
    /// Forgets the peer.
    pub fn disconnect(&self) -> Result<(), Error> { todo!() }
    /// Where a datagram to `remote` (`None`: the connected peer) goes out. Also gives a pending error.
    pub fn route(&self, remote: Option<SocketAddr>) -> Result<UdpRoute, Error> { todo!() }
    /// Writes a datagram as one IP packet of at most `mtu` bytes into `buf`; gives its length.
    pub fn send(&self, route: &UdpRoute, data: &[u8], mtu: usize, buf: &mut [u8]) -> Result<usize, Error> { todo!() }
    /// Takes a datagram.
    pub fn recv_from(&self, buf: &mut [u8]) -> Result<Received, Error> { todo!() }
    /// Copies a datagram without taking it.
    pub fn peek_from(&self, buf: &mut [u8]) -> Result<Received, Error> { todo!() }
    /// SO_ERROR.
    pub fn take_error(&self) -> Option<Error> { todo!() }
    /// What can be done now.
    pub fn readiness(&self) -> Ready { todo!() }
    /// Closes it.
    pub fn close(&self) { todo!() }
    /// The driver's own state.
    pub fn context(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> { &self.context }
}
