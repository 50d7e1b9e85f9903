//! A node that is cut off for a while.

use peersock_sim::net::{FaultId, LinkId, Stage};

use crate::lab::Lab;

impl Lab {
    /// Cuts node 0 off, or reconnects it.
    pub(crate) fn set_cut(&mut self, cut: bool) {
        for link in [LinkId::Up(self.hosts[0], self.lan), LinkId::Down(self.hosts[0], self.lan)] {
            let pipe = self.world.net.link_mut(link).expect("a link");
            if cut {
                pipe.break_with(FaultId(0), Stage::Cut);
            } else {
                pipe.repair(FaultId(0));
            }
        }
    }
}
