use std::collections::BTreeMap;

use peersock_overlay::RecvMeta;

use super::{Violation, World};

impl World {
    /// Gives a running node datagrams as if they had just arrived, in that order and in no time.
    /// Fails if a program has observed a violation.
    pub fn strike<'a>(
        &mut self,
        number: usize,
        meta: RecvMeta,
        datagrams: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), Violation> {
        let at = self.instant();
        if let Some(node) = &mut self.machines[number].node {
            datagrams.into_iter().for_each(|datagram| node.take_in(at, meta, datagram));
            node.receive(at);
        }
        self.settle(number)
    }

    /// Returns every counter of a running node by name: of the overlay, of the stack, and of the data path
    /// between them.
    pub fn counters(&self, number: usize) -> BTreeMap<&'static str, u64> {
        let Some(node) = self.machines[number].node() else { return BTreeMap::new() };
        let datapath = node.datapath();
        let all = [
            datapath.overlay_counters(),
            datapath.counters().snapshot(),
            datapath.stack().counters().snapshot(),
        ];
        all.into_iter().flatten().collect()
    }
}
