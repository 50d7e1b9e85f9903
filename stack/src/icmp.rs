//! skeleton
use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use crate::{Error, InterfaceId, Ready};
/// A "ping socket".
pub struct IcmpSocket { context: OnceLock<Arc<dyn Any + Send + Sync>> }
/// An echo request to send.
#[derive(Debug, Clone, Copy)]
pub struct EchoRequest<'a> {
    /// Who is asked.
    pub destination: IpAddr,
    /// The sequence number.
    pub sequence: u16,
    /// What comes back.
    pub payload: &'a [u8],
    /// 1 to 255.
    pub hop_limit: u8,
}
/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EchoReply {
    /// Who answered.
    pub source: IpAddr,
    /// The request's sequence number.
    pub sequence: u16,
    /// Payload bytes written to the buffer.
    pub len: usize,
    /// The hop limit left when it arrived.
    pub hop_limit: u8,
    /// `None` for an echo reply, else what an ICMP error says.
    pub error: Option<Error>,
}
#[allow(unused_variables)]
impl IcmpSocket {
    /// The interface.
    pub fn interface(&self) -> InterfaceId { todo!() }
    /// The own address, with the identifier as port.
    pub fn local(&self) -> SocketAddr { todo!() }
    /// Writes the request as an IP packet of at most `mtu` bytes into `buf`.
    pub fn send(&self, request: &EchoRequest<'_>, mtu: usize, buf: &mut [u8]) -> Result<usize, Error> { todo!() }
    /// Takes a reply.
    pub fn recv(&self, buf: &mut [u8]) -> Result<EchoReply, Error> { todo!() }
    /// What can be done now.
    pub fn readiness(&self) -> Ready { todo!() }
    /// Closes it.
    pub fn close(&self) { todo!() }
    /// The driver's own state.
    pub fn context(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> { &self.context }
}
