//! Reads and writes that wait or are running.

use std::collections::{BTreeMap, VecDeque};

use zeroize::Zeroizing;

use super::publishing::Copy as Published;
use super::{Network, Operation, OperationId};
use crate::item::Item;
use crate::keys::{Epoch, Location, MeetingKeys, NodeTail};
use crate::record::Refused;

/// Limit of concurrent operations. Each costs some tens of packets.
const MAX_RUNNING: usize = 16;

/// Limit of different values that one look-up examines, because members can make up any number.
const MAX_VALUES: usize = 24;

/// The purpose of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Publish(Published, Epoch),
    Search(NodeTail),
    /// Read of the mailbox; `watched` marks a place that only one watched node can write.
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
    /// The items that were already examined.
    seen: Vec<Item>,
}

impl Pending {
    /// Returns true if an item must be examined; false for a repetition, because every node of the DHT that
    /// has the item sends it.
    /// Fails if the item is not the requested one, or members have stored too many different ones there.
    pub(super) fn admit(&mut self, item: &Item) -> Result<bool, Refused> {
        // Compare whole items, so that a forger who answers first with the true signature and another value
        // hides nothing.
        if self.seen.contains(item) {
            return Ok(false);
        }
        // Check this before counting, so that nodes of the DHT cannot use up the members' share.
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
    /// All operations, including those in `waiting`.
    pending: BTreeMap<OperationId, Pending>,
}

impl Operations {
    /// Reads the items of a location.
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

    /// Drops a network's waiting operations; answers to running ones are ignored from now on.
    pub(super) fn forget(&mut self, network: Network) {
        let pending = &self.pending;
        self.waiting.retain(|(id, _)| pending.get(id).is_none_or(|pending| pending.network != network));
        self.pending.retain(|_, pending| pending.network != network);
    }
}
