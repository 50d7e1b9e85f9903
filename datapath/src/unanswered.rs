//! Notifications of member addresses that do not answer, sent when a packet or flow has waited for one in
//! vain.

use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, SyncSender};

use peersock_overlay::NetworkId;
use peersock_primitives::sync;
use peersock_stack::InterfaceId;

use crate::Datapath;

/// Limit of unread addresses; further ones are dropped.
const QUEUE: usize = 64;

/// Address to which this node wanted to send, and from which no answer came: attempts to connect to it have
/// failed, and packets to it were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unanswered {
    /// The network.
    pub network: NetworkId,
    /// Address, which may have no owner.
    pub address: IpAddr,
}

/// Receiver of the notifications. At most one.
#[derive(Default)]
pub(super) struct UnansweredListener(Mutex<Option<SyncSender<Unanswered>>>);

impl Datapath {
    /// Returns a receiver of the addresses that do not answer from now on, one message for each time. The
    /// queue holds 64; further ones are dropped until some are read. A new receiver ends the earlier one.
    pub fn unanswered(&self) -> Receiver<Unanswered> {
        let (sender, receiver) = mpsc::sync_channel(QUEUE);
        *sync::lock(&self.unanswered.0) = Some(sender);
        receiver
    }

    /// Reports that a packet or flow has waited in vain for an address.
    pub(super) fn tell_unanswered(&self, interface: InterfaceId, address: IpAddr) {
        let mut listener = sync::lock(&self.unanswered.0);
        let Some(sender) = &*listener else { return };
        let network = self.networks().iter().find(|network| network.interface == interface).map(|it| it.id);
        let Some(network) = network else { return };
        if let Err(mpsc::TrySendError::Disconnected(_)) = sender.try_send(Unanswered { network, address }) {
            *listener = None;
        }
    }
}
