//! Table of all clients, with several indexes. Each index leads to a slot; a removed client leaves no entry
//! behind.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hashbrown::HashTable;
use peersock_overlay::wire::{Channel, LookUpKey};
use peersock_overlay::{NodeId, SessionIndex};
use peersock_primitives::Key;

use crate::Source;
use crate::budget::Nanos;
use crate::client::Client;
use crate::eviction::{Prefix, Room};

/// Position in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(u32);

impl Slot {
    pub(crate) const FIRST: Self = Self(0);
}

/// Table of clients. No iteration follows the order of a hash, so the same inputs give the same outputs.
///
/// `by_source` holds only slots, and the client at the slot holds the source. As the key of a map a source
/// would take ten times as much memory, and a map that has just grown has room for twice as many.
pub(crate) struct Clients {
    slots: Vec<Option<Box<Client>>>,
    free: Vec<Slot>,
    /// Slots sorted by ID, for the look-up by the first bytes.
    by_id: BTreeMap<NodeId, Slot>,
    by_index: HashMap<[u8; 3], Slot, Key>,
    by_source: HashTable<Slot>,
    source_key: Key,
    by_channel: HashMap<u64, Slot, Key>,
    pub(crate) room: Room,
    deadlines: BTreeSet<(Nanos, Slot)>,
    proven: usize,
}

impl Clients {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_id: BTreeMap::new(),
            by_index: HashMap::with_hasher(Key::new(seed, "by_index")),
            by_source: HashTable::new(),
            source_key: Key::new(seed, "by_source"),
            by_channel: HashMap::with_hasher(Key::new(seed, "by_channel")),
            room: Room::new(seed),
            deadlines: BTreeSet::new(),
            proven: 0,
        }
    }

    /// Returns the number of nodes at a place where they have shown that they receive.
    pub(crate) fn proven(&self) -> usize {
        self.proven
    }

    /// Returns the number of clients that have used no session yet: they got answers, and nothing else.
    pub(crate) fn unproven(&self) -> usize {
        self.by_id.len() - self.room.nodes()
    }

    /// Returns the number of registered nodes.
    pub(crate) fn registered(&self) -> usize {
        self.by_channel.len()
    }

    pub(crate) fn insert(&mut self, client: Client) -> Slot {
        let id = client.id;
        // Slots are reused, so the table grows only with the peak of clients.
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            Slot(u32::try_from(self.slots.len() - 1).expect("the limits are far below 2^32"))
        });
        self.slots[slot.0 as usize] = Some(Box::new(client));
        self.by_id.insert(id, slot);
        slot
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Client> {
        self.slots.get(slot.0 as usize)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Client> {
        self.slots.get_mut(slot.0 as usize)?.as_deref_mut()
    }

    /// Returns the sender of a frame and the sender's prefix.
    pub(crate) fn sender(&mut self, slot: Slot) -> Option<(&mut Client, Option<&mut Prefix>)> {
        let client = self.slots.get_mut(slot.0 as usize)?.as_deref_mut()?;
        let prefix = client.path().and_then(|path| self.room.prefix(path.ip()));
        Some((client, prefix))
    }

    pub(crate) fn by_id(&self, id: &NodeId) -> Option<Slot> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn by_key(&self, key: &LookUpKey) -> Option<Slot> {
        match key {
            LookUpKey::Id(id) => self.by_id(id),
            LookUpKey::Prefix(prefix) => {
                // The smallest ID with this prefix; only the next ID in order can match.
                let mut first = [0; 32];
                first[..prefix.len()].copy_from_slice(prefix);
                let (id, slot) = self.by_id.range(NodeId::from_bytes(first)..).next()?;
                key.matches(id).then_some(*slot)
            }
        }
    }

    pub(crate) fn by_index(&self, index: SessionIndex) -> Option<Slot> {
        self.by_index.get(&index.to_be_bytes()).copied()
    }

    pub(crate) fn by_source(&self, source: &Source) -> Option<Slot> {
        let is_there =
            |slot: &Slot| self.get(*slot).is_some_and(|client| client.path().as_ref() == Some(source));
        self.by_source.find(self.source_key.digest(source), is_there).copied()
    }

    pub(crate) fn by_channel(&self, channel: Channel) -> Option<Slot> {
        self.by_channel.get(&channel.0).copied()
    }

    pub(crate) fn set_index(&mut self, index: SessionIndex, slot: Slot) {
        self.by_index.insert(index.to_be_bytes(), slot);
    }

    pub(crate) fn free_indices(&mut self, indices: impl IntoIterator<Item = SessionIndex>) {
        for index in indices {
            self.by_index.remove(&index.to_be_bytes());
        }
    }

    pub(crate) fn set_channel(&mut self, channel: Channel, slot: Slot) {
        self.by_channel.insert(channel.0, slot);
    }

    pub(crate) fn free_channel(&mut self, channel: Channel) {
        self.by_channel.remove(&channel.0);
    }

    #[cfg(test)]
    pub(crate) fn by_index_is_empty(&self) -> bool {
        self.by_index.is_empty()
    }

    /// Sets the place where the node has shown that it receives. Returns the node that was at that place
    /// before, which no longer is.
    pub(crate) fn set_path(&mut self, slot: Slot, path: Source) -> Option<Slot> {
        if self.get(slot).is_none_or(|client| client.path() == Some(path)) {
            return None;
        }
        let before = self.by_source(&path);
        if let Some(before) = before {
            self.clear_path(before);
        }
        self.clear_path(slot);
        // The node must count at its new address only.
        self.give_back(slot);
        if let Some(client) = self.get_mut(slot) {
            (client.place, client.is_away) = (Some(path), false);
        }
        let Self { slots, source_key, by_source, .. } = self;
        let hash_of = |slot: &Slot| {
            let client = slots[slot.0 as usize].as_deref();
            source_key.digest(client.and_then(Client::path).expect("who is in the table has a path"))
        };
        by_source.insert_unique(source_key.digest(path), slot, hash_of);
        self.room.take(path.ip());
        self.proven += 1;
        self.file(slot);
        before
    }

    /// Clears the place of a node that is gone. A registered node still counts.
    pub(crate) fn clear_path(&mut self, slot: Slot) {
        let Some(path) = self.get(slot).and_then(Client::path) else { return };
        self.proven -= 1;
        if let Ok(entry) = self.by_source.find_entry(self.source_key.digest(path), |other| *other == slot) {
            entry.remove();
        }
        // The eviction order is sorted by worth, which changes with the place.
        self.unfile(slot);
        if let Some(client) = self.get_mut(slot) {
            client.is_away = true;
        }
        self.file(slot);
    }

    /// Applies a change to the node's registration.
    pub(crate) fn update<T>(&mut self, slot: Slot, change: impl FnOnce(&mut Client) -> T) -> Option<T> {
        self.unfile(slot);
        let changed = self.get_mut(slot).map(change);
        self.file(slot);
        changed
    }

    /// Inserts a node into the eviction order. A node that is neither registered nor reachable is a stranger
    /// again.
    fn file(&mut self, slot: Slot) {
        let Some(client) = self.slots.get_mut(slot.0 as usize).and_then(Option::as_deref_mut) else { return };
        if client.is_away && client.registered.is_none() {
            return self.give_back(slot);
        }
        if let (Some(place), Some(worth)) = (client.place, client.worth()) {
            client.filed = client.heard_at_path;
            self.room.file(place.ip(), worth, client.filed, slot);
        }
    }

    fn unfile(&mut self, slot: Slot) {
        let Some(client) = self.slots.get(slot.0 as usize).and_then(Option::as_deref) else { return };
        if let (Some(place), Some(worth)) = (client.place, client.worth()) {
            self.room.unfile(place.ip(), worth, client.filed, slot);
        }
    }

    /// Stops counting the node.
    fn give_back(&mut self, slot: Slot) {
        self.unfile(slot);
        let place = self.get_mut(slot).and_then(|client| {
            client.is_away = false;
            client.place.take()
        });
        if let Some(place) = place {
            self.room.give_back(place.ip());
        }
    }

    /// Sets the client's deadline to its next expiry. Returns false if nothing of the client is left.
    pub(crate) fn schedule(&mut self, slot: Slot) -> bool {
        let Some(client) = self.slots.get_mut(slot.0 as usize).and_then(Option::as_deref_mut) else {
            return true;
        };
        let Some(next) = client.next_deadline() else { return false };
        // Most packets change no deadline.
        if next != client.deadline {
            self.deadlines.remove(&(client.deadline, slot));
            self.deadlines.insert((next, slot));
            client.deadline = next;
        }
        true
    }

    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Returns the client with the first expired deadline.
    pub(crate) fn due(&self, now: Nanos) -> Option<Slot> {
        self.deadlines.first().filter(|(at, _)| *at <= now).map(|(_, slot)| *slot)
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Box<Client>> {
        self.clear_path(slot);
        self.give_back(slot);
        let client = self.slots.get_mut(slot.0 as usize)?.take()?;
        self.free.push(slot);
        self.by_id.remove(&client.id);
        self.deadlines.remove(&(client.deadline, slot));
        self.free_indices(client.indices());
        if let Some(registered) = &client.registered {
            self.free_channel(registered.channel);
        }
        Some(client)
    }

    /// Returns the next used slot from `from` on, and the position to continue at.
    pub(crate) fn next_from(&self, from: usize) -> Option<(usize, Slot)> {
        (from..self.slots.len()).find_map(|at| {
            self.slots[at].as_ref()?;
            Some((at + 1, Slot(at as u32)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::LazyLock;
    use std::time::Duration;

    use peersock_overlay::noise::Timestamp;
    use peersock_overlay::{Identity, PublicIdentity};
    use proptest::prelude::*;

    use super::*;

    /// More identities than a table initially has room for.
    static IDENTITIES: LazyLock<Vec<PublicIdentity>> =
        LazyLock::new(|| (0..100).map(|seed| *Identity::from_seed(&[seed; 32]).public()).collect());

    proptest! {
        #[test]
        fn a_source_leads_to_the_client_that_was_last_proven_there(
            steps in prop::collection::vec((0usize..100, 0u16..120, 0u8..8), 1..400)
        ) {
            let mut clients = Clients::new(&[1; 32]);
            let newest = Timestamp::from_unix(Duration::from_secs(1));
            let slots: Vec<_> =
                IDENTITIES.iter().map(|identity| clients.insert(Client::new(*identity, newest))).collect();
            let mut expected: BTreeMap<Source, Slot> = BTreeMap::new();
            let source =
                |port| Source::Udp { socket: 0, remote: SocketAddr::from(([10, 0, 0, 1], port)) };
            for (at, port, what) in steps {
                let slot = slots[at];
                expected.retain(|_, other| *other != slot);
                if what == 0 {
                    clients.clear_path(slot);
                } else {
                    clients.set_path(slot, source(port));
                    expected.insert(source(port), slot);
                }
            }
            for port in 0..120 {
                prop_assert_eq!(clients.by_source(&source(port)), expected.get(&source(port)).copied());
            }
            prop_assert_eq!(clients.by_source.len(), expected.len());
            prop_assert_eq!(clients.proven(), expected.len());
        }
    }
}
