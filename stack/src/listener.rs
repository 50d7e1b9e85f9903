//! skeleton
use std::any::Any;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use crate::{Error, Flow, InterfaceId, Ready};
/// A listening TCP socket.
pub struct Listener { context: OnceLock<Arc<dyn Any + Send + Sync>> }
#[allow(unused_variables)]
impl Listener {
    /// The interface, `None` for all.
    pub fn interface(&self) -> Option<InterfaceId> { todo!() }
    /// The own address.
    pub fn local(&self) -> SocketAddr { todo!() }
    /// Takes the oldest connection.
    pub fn accept(&self, now: Instant) -> Result<Arc<Flow>, Error> { todo!() }
    /// Changes the backlog.
    pub fn set_backlog(&self, backlog: usize) { todo!() }
    /// Stops; queued connections are reset.
    pub fn close(&self, now: Instant) { todo!() }
    /// What can be done now.
    pub fn readiness(&self) -> Ready { todo!() }
    /// The driver's own state.
    pub fn context(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> { &self.context }
}
