//! The state machine: decides what to read and write, and when, and which answers to believe.

mod knocking;
mod mailbox;
mod operations;
mod publishing;
mod search;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::{Contact, DiscoveryKey, Identity, PublicIdentity};
use rand::rngs::ChaCha20Rng;
use rand::{Rng, SeedableRng};

use crate::item::Item;
use crate::keys::{MeetingKeys, NodeTail, SKEW};
use crate::record::{Record, Refused};
use crate::seal;

use knocking::Knocking;
use mailbox::Mailbox;
use operations::{Operations, Pending, Purpose};
use publishing::Publications;
use search::Search;
pub use types::{Answer, Config, Counters, Event, Moment, Network, Operation, OperationId, Outcome, Target};

/// Interval of the check of the epochs when nothing else happens.
const CHECK: Duration = Duration::from_secs(30);

/// Limit of the records kept of one network.
const MAX_RECORDS: usize = 256;

/// The meetings of one node in all its networks. Performs no I/O, reads no clock.
///
/// After each call, poll [`Self::poll_operation`] and [`Self::poll_event`] until they return `None`, then
/// [`Self::poll_timeout`].
///
/// ```
/// use std::sync::Arc;
/// use std::time::{Duration, Instant};
/// use peersock_dht::{Config, Contact, Moment, Operation, Rendezvous};
/// use peersock_overlay::{DiscoveryKey, Identity, NetworkId};
///
/// let now = Moment { instant: Instant::now(), unix: Duration::from_secs(1_700_000_000) };
/// let mut node = Rendezvous::new(Arc::new(Identity::from_seed(&[1; 32])), Config::default(), [2; 32], now);
/// node.join(now, &DiscoveryKey::new(NetworkId::ad_hoc(80..=80)?, None, None));
/// node.publish(now, Contact::default());
/// assert!(matches!(node.poll_operation(), Some((_, Operation::Put(_)))));
/// # Ok::<(), peersock_overlay::ParseNetworkIdError>(())
/// ```
#[derive(Debug)]
pub struct Rendezvous {
    own: Arc<Identity>,
    config: Config,
    rng: ChaCha20Rng,
    contact: Option<Contact>,
    /// Number of contacts published so far.
    version: u64,
    /// The newest sequence of a record or knock.
    sequence: u64,
    networks: BTreeMap<Network, Membership>,
    next_network: u32,
    operations: Operations,
    events: VecDeque<Event>,
    counters: Counters,
    next_check: Instant,
}

#[derive(Debug)]
struct Membership {
    keys: MeetingKeys,
    publications: Publications,
    mailbox: Mailbox,
    searches: BTreeMap<NodeTail, Search>,
    knocking: BTreeMap<NodeTail, Knocking>,
    records: BTreeMap<NodeTail, Record>,
}

impl Rendezvous {
    /// Makes a node without networks. The seed serves nonces and jitter; no secret depends on the seed alone.
    pub fn new(own: Arc<Identity>, config: Config, seed: [u8; 32], now: Moment) -> Self {
        Self {
            own,
            config: config.within_limits(),
            rng: ChaCha20Rng::from_seed(seed),
            contact: None,
            version: 0,
            sequence: 0,
            networks: BTreeMap::new(),
            next_network: 0,
            operations: Operations::default(),
            events: VecDeque::new(),
            counters: Counters::default(),
            next_check: now.instant + CHECK,
        }
    }

    /// Joins a network.
    pub fn join(&mut self, now: Moment, key: &DiscoveryKey) -> Network {
        let network = Network(self.next_network);
        self.next_network += 1;
        let membership = Membership {
            keys: MeetingKeys::new(key),
            publications: Publications::default(),
            mailbox: Mailbox::new(now.instant, &self.config),
            searches: BTreeMap::new(),
            knocking: BTreeMap::new(),
            records: BTreeMap::new(),
        };
        self.networks.insert(network, membership);
        self.drive(now);
        network
    }

    /// Leaves a network. Records published there expire.
    pub fn leave(&mut self, network: Network) {
        self.networks.remove(&network);
        self.operations.forget(network);
    }

    /// Publishes this node's contact in all networks, until [`Self::withdraw`], and reads the mailboxes. Call
    /// this again when the contact changes.
    pub fn publish(&mut self, now: Moment, contact: Contact) {
        if self.contact.is_none() {
            // A node that has waited for this one knocks now.
            let memberships = self.networks.values_mut();
            memberships.for_each(|membership| membership.mailbox.wake(now.instant, &self.config));
        }
        if self.contact.as_ref() != Some(&contact) {
            self.contact = Some(contact);
            self.version += 1;
        }
        self.drive(now);
    }

    /// Stops publishing and reading mailboxes. Published records expire.
    pub fn withdraw(&mut self) {
        self.contact = None;
    }

    /// Searches for a node's record, until [`Event::Found`] or [`Event::NotFound`]. A known, valid record is
    /// reported at once, and the search still runs. Beyond 64 searches in a network, further ones end with
    /// [`Event::NotFound`] at once.
    pub fn find(&mut self, now: Moment, network: Network, target: Target) {
        self.start_search(now, network, target);
        self.drive(now);
    }

    /// Knocks at a node: leaves this node's contact in its mailbox, repeatedly if necessary, until
    /// [`Self::met`] or [`Event::KnockFailed`]. The node need not have been found before: to meet it soon,
    /// call [`Self::find`] and this at once. Waits until this node has a contact. At most 64 nodes in a
    /// network.
    pub fn knock(&mut self, now: Moment, network: Network, peer: NodeTail) {
        self.start_knocking(now, network, peer);
        self.drive(now);
    }

    /// Ends the search for a node and the knocking, because a session exists or is no longer wanted.
    pub fn met(&mut self, network: Network, peer: &NodeTail) {
        if let Some(membership) = self.networks.get_mut(&network) {
            membership.searches.remove(peer);
            membership.knocking.remove(peer);
        }
    }

    /// Reads, in addition to the slots that every member can write, the place where only that node can knock.
    /// No other node can suppress knocks there. At most eight nodes in a network; a further one replaces the
    /// oldest.
    pub fn watch(&mut self, network: Network, peer: PublicIdentity) {
        if let Some(membership) = self.networks.get_mut(&network) {
            membership.mailbox.watch(peer);
        }
    }

    /// Returns the newest record of a node that was found and is still valid.
    pub fn record(&self, now: Moment, network: Network, node: &NodeTail) -> Option<&Record> {
        let record = self.networks.get(&network)?.records.get(node)?;
        record.check_age(now.unix).is_ok().then_some(record)
    }

    /// Returns the numbers of refused items, by reason.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Takes a result of an operation.
    pub fn handle_answer(&mut self, now: Moment, id: OperationId, answer: Answer) {
        match answer {
            Answer::Value(item) => {
                if let Err(reason) = self.handle_value(now, id, &item) {
                    tracing::trace!(%reason, "an item of the DHT is not used");
                    self.counters.count(reason);
                }
            }
            Answer::Finished(outcome) => self.handle_finished(now, id, outcome),
        }
        self.drive(now);
    }

    /// Handles the timers that are due. Call this at [`Self::poll_timeout`] or later.
    pub fn handle_timeout(&mut self, now: Moment) {
        if now.instant >= self.next_check {
            self.next_check = now.instant + CHECK;
            for membership in self.networks.values_mut() {
                membership.records.retain(|_, record| record.check_age(now.unix).is_ok());
                membership.mailbox.forget(now.unix);
            }
        }
        self.drive(now);
    }

    /// Returns the next operation to begin, unless too many are running.
    pub fn poll_operation(&mut self) -> Option<(OperationId, Operation)> {
        self.operations.poll()
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns the time to call [`Self::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Instant {
        let has_contact = self.contact.is_some();
        let due = self.networks.values().flat_map(|membership| {
            let publishing = membership.publications.due().filter(|_| has_contact);
            let mailbox = membership.mailbox.due().filter(|_| has_contact);
            let searches = membership.searches.values().filter_map(Search::due);
            let knocking = membership.knocking.values().filter_map(Knocking::due).filter(|_| has_contact);
            publishing.into_iter().chain(mailbox).chain(searches).chain(knocking)
        });
        due.fold(self.next_check, Instant::min)
    }

    /// Begins everything that is due.
    fn drive(&mut self, now: Moment) {
        for network in self.networks.keys().copied().collect::<Vec<_>>() {
            self.drive_publishing(now, network);
            self.drive_mailbox(now, network);
            self.drive_searches(now, network);
            self.drive_knocking(now, network);
        }
    }

    fn handle_value(&mut self, now: Moment, id: OperationId, item: &Item) -> Result<(), Refused> {
        let Some(pending) = self.operations.running(id) else { return Ok(()) };
        if !pending.admit(item)? {
            return Ok(());
        }
        let plain = seal::open(&pending.seal, &pending.key, &item.value).ok_or(Refused::Sealed)?;
        let (network, purpose) = (pending.network, pending.purpose);
        match purpose {
            Purpose::Search(tail) => self.handle_record(now, network, tail, &plain),
            Purpose::Poll { watched } => self.handle_knock(now, network, &plain, watched),
            Purpose::Publish(..) | Purpose::Knock(_) => Ok(()),
        }
    }

    fn handle_finished(&mut self, now: Moment, id: OperationId, outcome: Outcome) {
        let Some(Pending { network, purpose, .. }) = self.operations.finish(id) else { return };
        let Some(membership) = self.networks.get_mut(&network) else { return };
        match purpose {
            Purpose::Publish(copy, epoch) => self.published(now, network, copy, epoch, outcome),
            Purpose::Search(tail) => {
                if let Some(search) = membership.searches.get_mut(&tail) {
                    search.finished_one(now.instant);
                }
            }
            Purpose::Poll { .. } => {
                let jitter = self.rng.next_u32();
                membership.mailbox.finished_one(now.instant, &self.config, jitter);
            }
            Purpose::Knock(peer) => self.knocked_at(now, network, peer, outcome),
        }
    }

    /// Returns a new sequence number for a record or knock: the time in milliseconds, but always larger than
    /// the last. After a clock far ahead is corrected, numbers restart from the correct time. Other nodes
    /// have refused the numbers from the future anyway.
    fn next_sequence(&mut self, now: Moment) -> u64 {
        let time = now.unix.as_millis() as u64;
        let furthest = now.unix.saturating_add(SKEW).as_millis() as u64;
        let following = self.sequence.saturating_add(1);
        self.sequence = if following > furthest { time } else { time.max(following) };
        self.sequence
    }

    fn random(&mut self) -> [u8; 32] {
        let mut random = [0; 32];
        self.rng.fill_bytes(&mut random);
        random
    }
}
