//! Two or more nodes and a DHT that is one map, in virtual time.

mod clocks;
mod disorder;
mod idle;
mod meeting;
mod poisoning;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::{DiscoveryKey, Identity, NetworkId, Psk};

use super::*;
use crate::keys::{Epoch, Location};
use crate::record::Knock;
use crate::testing::contact;

/// Duration of an operation.
const LATENCY: Duration = Duration::from_millis(700);

/// The machines, and a DHT that behaves as in BEP 44, with items that others have stored.
struct World {
    start: Instant,
    /// Time since the start.
    elapsed: Duration,
    items: BTreeMap<[u8; 32], Item>,
    /// Time of the last write of each item.
    written: BTreeMap<[u8; 32], Duration>,
    /// Further answers to reads, which lying nodes give.
    lies: BTreeMap<[u8; 32], Vec<Item>>,
    nodes: Vec<Node>,
    /// Running operations, by time of completion and a counter: node, operation, and its request.
    under_way: BTreeMap<(Duration, u64), (usize, OperationId, Operation)>,
    count: u64,
    reads: usize,
    /// Each operation: its start, its node, and true if it reads.
    begun: Vec<(Duration, usize, bool)>,
    /// The DHT loses every n-th operation; 0 loses none.
    loss: u64,
}

struct Node {
    rendezvous: Rendezvous,
    identity: Arc<Identity>,
    network: Network,
    /// The node's clock at the start, as time since the Unix epoch.
    clock: Duration,
    /// Time that its machine has slept, during which the clock for deadlines stood still.
    slept: Duration,
    events: Vec<(Duration, Event)>,
}

/// Time for which nodes of the DHT keep an item (BEP 44).
const KEPT: Duration = Duration::from_secs(2 * 3600);

const CLOCK: Duration = Duration::from_secs(1_700_000_000);

fn discovery_key() -> DiscoveryKey {
    let network = NetworkId::ad_hoc(80..=80).expect("a port range");
    DiscoveryKey::new(network, Some(&Psk::new([3; 32])), None)
}

fn keys() -> MeetingKeys {
    MeetingKeys::new(&discovery_key())
}

impl World {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            elapsed: Duration::ZERO,
            items: BTreeMap::new(),
            written: BTreeMap::new(),
            lies: BTreeMap::new(),
            nodes: Vec::new(),
            under_way: BTreeMap::new(),
            count: 0,
            reads: 0,
            begun: Vec::new(),
            loss: 0,
        }
    }

    /// Adds a node whose clock differs by this number of seconds.
    fn add(&mut self, clock_off: i64) -> usize {
        let clock = Duration::from_secs(CLOCK.as_secs().saturating_add_signed(clock_off));
        let seed = self.nodes.len() as u8 + 1;
        let identity = Arc::new(Identity::from_seed(&[seed; 32]));
        let now = Moment { instant: self.start + self.elapsed, unix: clock + self.elapsed };
        let mut rendezvous = Rendezvous::new(identity.clone(), Config::default(), [seed; 32], now);
        let network = rendezvous.join(now, &discovery_key());
        let (slept, events) = (Duration::ZERO, Vec::new());
        self.nodes.push(Node { rendezvous, identity, network, clock, slept, events });
        self.nodes.len() - 1
    }

    fn now(&self, node: usize) -> Moment {
        let Node { clock, slept, .. } = self.nodes[node];
        Moment { instant: self.start + self.elapsed - slept, unix: clock + self.elapsed }
    }

    /// Lets all machines sleep for this time; the nodes of the DHT stay awake.
    fn sleep(&mut self, duration: Duration) {
        self.elapsed += duration;
        self.nodes.iter_mut().for_each(|node| node.slept += duration);
    }

    /// Makes a node's clock jump by this number of seconds while the node runs.
    fn jump(&mut self, node: usize, seconds: i64) {
        let clock = &mut self.nodes[node].clock;
        *clock = Duration::from_secs(clock.as_secs().saturating_add_signed(seconds));
    }

    fn identity(&self, node: usize) -> PublicIdentity {
        *self.nodes[node].identity.public()
    }

    fn tail(&self, node: usize) -> NodeTail {
        NodeTail::of(&self.nodes[node].identity.node_id())
    }

    fn publish(&mut self, node: usize, address: &str) {
        let now = self.now(node);
        self.nodes[node].rendezvous.publish(now, contact(&[address]));
    }

    fn find(&mut self, node: usize, target: Target) {
        let (now, network) = (self.now(node), self.nodes[node].network);
        self.nodes[node].rendezvous.find(now, network, target);
    }

    fn knock(&mut self, node: usize, peer: usize) {
        let (now, network, peer) = (self.now(node), self.nodes[node].network, self.tail(peer));
        self.nodes[node].rendezvous.knock(now, network, peer);
    }

    /// Runs for this time.
    fn run(&mut self, duration: Duration) {
        let end = self.elapsed + duration;
        loop {
            self.collect();
            let timeout = |node: &Node| node.rendezvous.poll_timeout() - self.start + node.slept;
            let timeouts = self.nodes.iter().map(timeout);
            let answers = self.under_way.keys().map(|(at, _)| *at).take(1);
            let next = timeouts.chain(answers).min().expect("there is a node");
            if next > end {
                break;
            }
            self.elapsed = self.elapsed.max(next);
            self.answer();
            for node in 0..self.nodes.len() {
                let now = self.now(node);
                let rendezvous = &mut self.nodes[node].rendezvous;
                if rendezvous.poll_timeout() <= now.instant {
                    rendezvous.handle_timeout(now);
                    assert!(rendezvous.poll_timeout() > now.instant, "it would spin");
                }
            }
        }
        self.elapsed = end;
    }

    fn collect(&mut self) {
        for (index, node) in self.nodes.iter_mut().enumerate() {
            while let Some((id, operation)) = node.rendezvous.poll_operation() {
                let is_read = matches!(operation, Operation::Get { .. });
                self.reads += usize::from(is_read);
                self.begun.push((self.elapsed, index, is_read));
                let running = self.under_way.values().filter(|(node, ..)| *node == index).count();
                assert!(running < 2 * 16, "no more than 16 at once, and those of a network that was left");
                self.under_way.insert((self.elapsed + LATENCY, self.count), (index, id, operation));
                self.count += 1;
            }
            while let Some(event) = node.rendezvous.poll_event() {
                node.events.push((self.elapsed, event));
            }
        }
    }

    fn answer(&mut self) {
        while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= self.elapsed) {
            let (node, id, operation) = entry.remove();
            let mut answers = Vec::new();
            let outcome = match operation {
                _ if self.loss > 0 && id.0.is_multiple_of(self.loss) => Outcome::Failed,
                Operation::Get { key } => {
                    answers.extend(self.lies.get(&key).into_iter().flatten().cloned());
                    answers.extend(self.item(&key).cloned());
                    Outcome::Done
                }
                Operation::Put(item) => self.put(item),
            };
            let now = self.now(node);
            for item in answers {
                self.nodes[node].rendezvous.handle_answer(now, id, Answer::Value(item));
            }
            self.nodes[node].rendezvous.handle_answer(now, id, Answer::Finished(outcome));
        }
    }

    /// Stores an item as a node of the DHT does.
    fn put(&mut self, item: Item) -> Outcome {
        assert!(item.is_authentic());
        assert_eq!(item.value.len(), seal::SEALED_LEN);
        if self.item(&item.key).is_some_and(|there| there.sequence >= item.sequence) {
            return Outcome::Taken;
        }
        self.written.insert(item.key, self.elapsed);
        self.items.insert(item.key, item);
        Outcome::Done
    }

    /// Returns the item of the DHT under a key, unless it was written too long ago.
    fn item(&self, key: &[u8; 32]) -> Option<&Item> {
        // A test may have stored it directly.
        let written = self.written.get(key).copied().unwrap_or(self.elapsed);
        self.items.get(key).filter(|_| self.elapsed < written + KEPT)
    }

    fn epoch(&self, node: usize) -> Epoch {
        keys().epoch(&self.tail(node), self.now(node).unix)
    }

    /// Seals a text as the member `writer`.
    fn forge(
        &self,
        location: &Location,
        epoch: Epoch,
        writer: &Identity,
        plain: &[u8; 600],
        seq: i64,
    ) -> Item {
        keys().seal(location, epoch, writer, seq, plain, &[9; 32]).expect("it may write there")
    }

    fn found(&self, node: usize) -> Vec<&Record> {
        let events = self.nodes[node].events.iter();
        events
            .filter_map(
                |(_, event)| if let Event::Found { record, .. } = event { Some(record) } else { None },
            )
            .collect()
    }

    fn knocks(&self, node: usize) -> Vec<(Duration, &Knock)> {
        let events = self.nodes[node].events.iter();
        events
            .filter_map(|(at, event)| match event {
                Event::Knocked { knock, .. } => Some((*at, knock)),
                _ => None,
            })
            .collect()
    }

    fn counters(&self, node: usize) -> Counters {
        *self.nodes[node].rendezvous.counters()
    }
}

const SECOND: Duration = Duration::from_secs(1);
