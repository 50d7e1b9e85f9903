//! Replacement of `streams` in builds without that feature: no stream to a root is opened. A named stream
//! endpoint was already refused earlier; roots of lists or other roots report that they need the feature.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, RwLock};

use peersock_datapath::Transmit;
use peersock_overlay::{NodeId, SocketIndex, WantedStream};

use super::Driver;
use crate::config::{Feature, RootAddress};
use crate::sync;

/// Empty set of streams to roots.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// Roots to which streams are wanted.
    wanted: RwLock<BTreeSet<NodeId>>,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn send(&self, _: &Transmit<'_>) {}

    pub(super) fn want(self: &Arc<Self>, wanted: Vec<WantedStream>) {
        *sync::write(&self.wanted) = wanted.into_iter().map(|one| one.root).collect();
    }

    pub(super) fn network_changed(&self) {}

    pub(crate) fn name(&self, _: SocketIndex) -> Option<String> {
        None
    }

    /// Returns the missing feature for a root to which a stream is wanted.
    pub(crate) fn error(&self, root: &NodeId) -> Option<String> {
        // Roots that are reached by UDP have no error.
        let is_wanted = sync::read(&self.wanted).contains(root);
        is_wanted.then(|| Feature::Streams.missing("a stream to a root").to_string())
    }

    pub(super) fn start(self: &Arc<Self>, _: &Arc<Driver>, _: &[&RootAddress]) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn stop(&self) {}
}
