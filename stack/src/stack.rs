//! skeleton
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;
use crate::{Batch, Cidr, Config, Counters, Error, Flow, IcmpSocket, InterfaceConfig, InterfaceId, Listener, TcpOptions, UdpOptions, UdpSocket};
/// The stack.
pub struct Stack {}
#[allow(unused_variables)]
impl Stack {
    /// An empty stack.
    pub fn new(config: Config, seed: [u8; 32], now: Instant) -> Self { todo!() }
    /// Adds an interface.
    pub fn add_interface(&self, config: InterfaceConfig) -> InterfaceId { todo!() }
    /// Removes it; its flows fail with `NetworkDown`.
    pub fn remove_interface(&self, now: Instant, interface: InterfaceId) { todo!() }
    /// Replaces its addresses; flows of an address that is gone fail with `AddrNotAvailable`.
    pub fn set_addresses(&self, now: Instant, interface: InterfaceId, addresses: &[Cidr]) { todo!() }
    /// Whether `address` is the node's own there.
    pub fn is_local(&self, interface: InterfaceId, address: IpAddr) -> bool { todo!() }
    /// The interface whose network holds `remote`.
    pub fn route(&self, remote: IpAddr) -> Option<InterfaceId> { todo!() }
    /// The own address to reach `remote` from.
    pub fn source_address(&self, interface: InterfaceId, remote: IpAddr) -> Option<IpAddr> { todo!() }
    /// Opens a connection.
    pub fn tcp_connect(&self, now: Instant, interface: InterfaceId, local: Option<SocketAddr>, remote: SocketAddr, options: TcpOptions) -> Result<Arc<Flow>, Error> { todo!() }
    /// Listens.
    pub fn tcp_listen(&self, now: Instant, interface: Option<InterfaceId>, local: SocketAddr, backlog: usize, options: TcpOptions) -> Result<Arc<Listener>, Error> { todo!() }
    /// Binds a UDP socket.
    pub fn udp_bind(&self, interface: Option<InterfaceId>, local: SocketAddr, options: UdpOptions) -> Result<Arc<UdpSocket>, Error> { todo!() }
    /// Opens a ping socket.
    pub fn icmp_open(&self, interface: InterfaceId, ipv6: bool) -> Result<Arc<IcmpSocket>, Error> { todo!() }
    /// Takes one inner IP packet or one super-segment made by a `Coalescer`; its header may be rewritten.
    pub fn receive(&self, now: Instant, interface: InterfaceId, packet: &mut [u8], batch: &mut Batch) { todo!() }
    /// When `handle_timeout` is due.
    pub fn poll_timeout(&self) -> Option<Instant> { todo!() }
    /// Lets due timers fire.
    pub fn handle_timeout(&self, now: Instant, batch: &mut Batch) { todo!() }
    /// Counters.
    pub fn counters(&self) -> &Arc<Counters> { todo!() }
    /// How many TCP flows there are, in any state.
    pub fn flows(&self) -> usize { todo!() }
}
