//! Replacement of `ports` in builds without the feature `portmap`: no router is asked to forward a port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peersock_nat::host::HostInterface;
use peersock_nat::portmap::Protocol;

/// Request to forward a port; the type has no value.
pub(super) enum Ask {}

/// Empty set of open ports.
#[derive(Default)]
pub(super) struct Ports;

/// Open port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) struct Forwarded {
    pub(in crate::node) external: SocketAddr,
    pub(in crate::node) by: Protocol,
}

impl Ports {
    pub(super) fn set(&self, _: Vec<Ask>, _: &Arc<dyn Fn() + Send + Sync>) {}

    pub(super) fn close(&self, _: Duration) {}

    pub(super) fn refresh(&self) {}

    pub(super) fn forwarded(&self) -> Vec<Forwarded> {
        Vec::new()
    }
}

/// Requests nothing.
pub(super) fn asks(_: &[HostInterface], _: impl Fn(&HostInterface, bool) -> Option<u16>) -> Vec<Ask> {
    Vec::new()
}
