//! Replacement of `meeting` in builds without the feature `dht`: a node configured for the DHT does not
//! start, so no node has meetings.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use peersock_datapath::JoinedNetwork;
use peersock_overlay::{DiscoveryKey, Identity, NetworkIndex};

use super::contact::Publish;
use super::{DhtStatus, Inner};
use crate::config::{Dht, Feature};
use crate::driver::Interfaces;

/// Meetings of one node; the type has no value.
pub(super) enum Meetings {}

impl Meetings {
    /// Fails in any case.
    pub(super) fn start(_: &Arc<Inner>, _: Arc<Identity>, _: &Dht, _: &Interfaces) -> io::Result<Meetings> {
        Err(Feature::Dht.missing("the DHT").into())
    }

    pub(super) fn join(&self, _: &JoinedNetwork, _: DiscoveryKey) {
        match *self {}
    }

    pub(super) fn leave(&self, _: NetworkIndex) {
        match *self {}
    }

    pub(super) fn publisher(&self) -> Publish {
        match *self {}
    }

    pub(super) fn status(&self) -> DhtStatus {
        match *self {}
    }

    pub(super) fn stop(&self) {
        match *self {}
    }
}

/// Returns an empty question, which is never sent, because no node of the DHT is known.
pub(super) fn ping_question(_: [u8; 4], _: [u8; 20]) -> Vec<u8> {
    Vec::new()
}

/// Never accepts a datagram as an answer.
pub(super) fn ping_answer(_: &[u8]) -> Option<([u8; 4], SocketAddr)> {
    None
}
