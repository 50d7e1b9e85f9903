//! Replacement of `tcp` in builds without the feature `streams`: the overlay does not try TCP, and attempts
//! of other nodes get no answer.

use std::net::SocketAddr;
use std::sync::Arc;

use peersock_datapath::Transmit;
use peersock_overlay::{SocketIndex, TcpAction};

use super::Driver;

/// Empty set of TCP connections to other nodes.
#[derive(Debug, Default)]
pub(crate) struct PeerStreams {}

impl PeerStreams {
    pub(super) fn attach(&self, _: &Arc<Driver>) {}

    pub(super) fn act(self: &Arc<Self>, _: TcpAction) {}

    pub(super) fn send(&self, _: &Transmit<'_>) {}

    pub(crate) fn remote(&self, _: SocketIndex) -> Option<SocketAddr> {
        None
    }

    pub(super) fn stop(&self) {}
}
