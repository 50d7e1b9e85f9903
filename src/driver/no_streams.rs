//! Stands in for `streams` in builds without the feature of that name: no stream to a root is opened. Whoever
//! names such a way has been told so; those that lists or other roots name are said to need the feature.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, RwLock};

use peersock_datapath::Transmit;
use peersock_overlay::{NodeId, SocketIndex, WantedStream};

use super::Driver;
use crate::config::{Feature, RootAddress};
use crate::sync;

/// Has no streams to roots.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// These are the roots to which there are to be some.
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

    /// Says of a root that is to have a stream what is missing.
    pub(crate) fn error(&self, root: &NodeId) -> Option<String> {
        let is_wanted = sync::read(&self.wanted).contains(root);
        is_wanted.then(|| Feature::Streams.missing("a stream to a root").to_string())
    }

    pub(super) fn start(self: &Arc<Self>, _: &Arc<Driver>, _: &[&RootAddress]) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn stop(&self) {}
}
