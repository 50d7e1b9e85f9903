//! skeleton
use std::any::Any;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use crate::{Error, InterfaceId, Ready, State, SuperSegment};

/// One TCP connection.
pub struct Flow { context: OnceLock<Arc<dyn Any + Send + Sync>> }

/// What the path takes, given to [`Flow::egress`].
#[derive(Debug, Clone, Copy)]
pub struct Egress {
    /// Most TCP payload bytes of one wire packet.
    pub segment: usize,
    /// Most unacknowledged bytes.
    pub in_flight_cap: usize,
    /// Whether to make checksums.
    pub checksums: bool,
}

#[allow(unused_variables)]
impl Flow {
    /// The interface.
    pub fn interface(&self) -> InterfaceId { todo!() }
    /// The own address.
    pub fn local(&self) -> SocketAddr { todo!() }
    /// The peer's address.
    pub fn remote(&self) -> SocketAddr { todo!() }
    /// Queues data. `Err(WouldBlock)` when full or still connecting.
    pub fn write(&self, now: Instant, data: &[u8]) -> Result<usize, Error> { todo!() }
    /// Takes data; `Ok(0)` is the end.
    pub fn read(&self, now: Instant, buf: &mut [u8]) -> Result<usize, Error> { todo!() }
    /// Copies data without taking it.
    pub fn peek(&self, now: Instant, buf: &mut [u8]) -> Result<usize, Error> { todo!() }
    /// FIN after the queue.
    pub fn shutdown_write(&self, now: Instant) -> Result<(), Error> { todo!() }
    /// Reads end.
    pub fn shutdown_read(&self, now: Instant) -> Result<(), Error> { todo!() }
    /// RST.
    pub fn abort(&self, now: Instant) { todo!() }
    /// The application lets go.
    pub fn close(&self, now: Instant) { todo!() }
    /// An error from below.
    pub fn fail(&self, now: Instant, error: Error) { todo!() }
    /// What can be done now.
    pub fn readiness(&self) -> Ready { todo!() }
    /// SO_ERROR.
    pub fn take_error(&self) -> Option<Error> { todo!() }
    /// The state.
    pub fn state(&self) -> State { todo!() }
    /// Bytes queued that were never sent.
    pub fn unsent(&self) -> usize { todo!() }
    /// Bytes queued in all: unsent and unacknowledged (SIOCOUTQ).
    pub fn unacked(&self) -> usize { todo!() }
    /// Bytes that can be read.
    pub fn readable(&self) -> usize { todo!() }
    /// Emits at most one super-segment.
    pub fn egress(&self, now: Instant, limits: &Egress, buf: &mut [u8]) -> Option<SuperSegment> { todo!() }
    /// Whether egress has something now.
    pub fn has_output(&self, now: Instant) -> bool { todo!() }
    /// TCP_NODELAY.
    pub fn set_nodelay(&self, on: bool) { todo!() }
    /// TCP_NODELAY.
    pub fn nodelay(&self) -> bool { todo!() }
    /// SO_KEEPALIVE.
    pub fn set_keepalive(&self, now: Instant, interval: Option<std::time::Duration>) { todo!() }
    /// SO_LINGER 0.
    pub fn set_reset_on_close(&self, on: bool) { todo!() }
    /// The driver's own state.
    pub fn context(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> { &self.context }
}
