//! Reads and writes that wait or are under way.

use std::collections::{BTreeMap, VecDeque};

use zeroize::Zeroizing;

use super::publishing::Copy as Published;
use super::{Network, Operation, OperationId};
use crate::item::Item;
use crate::keys::{Epoch, Location, MeetingKeys, NodeTail};
use crate::record::Refused;

/// How many are under way at once. Each is some tens of packets.
const MAX_RUNNING: usize = 16;

/// How many different values of one look-up are looked at: members can make up any number.
const MAX_VALUES: usize = 24;

/// What an operation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Publish(Published, Epoch),
    Search(NodeTail),
    /// Reading the mailbox; `watched` where only one node that is watched can write.
    Poll {
        watched: bool,
    },
    Knock(NodeTail),
}

/// An operation whose end is awaited.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) network: Network,
    pub(super) purpose: Purpose,
    pub(super) key: [u8; 32],
    pub(super) seal: Zeroizing<[u8; 32]>,
    /// The items that were looked at.
    seen: Vec<Item>,
}

impl Pending {
    /// Whether an item is to be looked at: `false` if it was, since every node of the DHT that has it sends
    /// it.
    ///
    /// # Errors
    /// It is not what was asked for, or members have put too many different ones there.
    pub(super) fn admit(&mut self, item: &Item) -> Result<bool, Refused> {
        // As a whole: who answers first with the true item's signature and another value hides nothing.
        if self.seen.contains(item) {
            return Ok(false);
        }
        // Before it is counted, so that nodes of the DHT cannot use up what members may put there.
        if item.key != self.key || !item.is_authentic() {
            return Err(Refused::Signature);
        }
        if self.seen.len() >= MAX_VALUES {
            return Err(Refused::Rate);
        }
        self.seen.push(item.clone());
        Ok(true)
    }
}

#[derive(Debug, Default)]
pub(super) struct Operations {
    next: u64,
    waiting: VecDeque<(OperationId, Operation)>,
    /// Those that wait as well.
    pending: BTreeMap<OperationId, Pending>,
}

impl Operations {
    /// Reads what is at a location.
    pub(super) fn get(
        &mut self,
        network: Network,
        purpose: Purpose,
        keys: &MeetingKeys,
        location: &Location,
        epoch: Epoch,
    ) {
        let key = keys.public(location, epoch);
        let seal = keys.seal_key(&location.owner(), epoch);
        self.add(Pending { network, purpose, key, seal, seen: Vec::new() }, Operation::Get { key });
    }

    /// Writes an item.
    pub(super) fn put(&mut self, network: Network, purpose: Purpose, item: Item) {
        let seal = Zeroizing::new([0; 32]);
        let pending = Pending { network, purpose, key: item.key, seal, seen: Vec::new() };
        self.add(pending, Operation::Put(item));
    }

    fn add(&mut self, pending: Pending, operation: Operation) {
        let id = OperationId(self.next);
        self.next += 1;
        self.pending.insert(id, pending);
        self.waiting.push_back((id, operation));
    }

    pub(super) fn poll(&mut self) -> Option<(OperationId, Operation)> {
        let running = self.pending.len() - self.waiting.len();
        if running < MAX_RUNNING { self.waiting.pop_front() } else { None }
    }

    pub(super) fn running(&mut self, id: OperationId) -> Option<&mut Pending> {
        self.pending.get_mut(&id)
    }

    pub(super) fn finish(&mut self, id: OperationId) -> Option<Pending> {
        self.pending.remove(&id)
    }

    /// Drops what waits for a network; answers to what is under way mean nothing any more.
    pub(super) fn forget(&mut self, network: Network) {
        let pending = &self.pending;
        self.waiting.retain(|(id, _)| pending.get(id).is_none_or(|pending| pending.network != network));
        self.pending.retain(|_, pending| pending.network != network);
    }
}
