//! Reading this node's mailbox.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use peersock_overlay::{NodeId, PublicIdentity};

use super::{Config, Event, Moment, Network, Purpose, Rendezvous};
use crate::keys::{Location, NodeTail, SKEW};
use crate::record::{Knock, Refused};

/// Limit of the nodes whose separate place for knocks is read too.
const MAX_WATCHED: usize = 8;

/// Limit of the nodes whose last knock is remembered.
const MAX_KNOWN_KNOCKERS: usize = 256;

/// Time for which a knock is remembered, longer than it is valid on any clock.
const KNOCK_MEMORY: Duration = Duration::from_secs(60 + 2 * SKEW.as_secs());

/// Rate limit of all knocks: this burst at once, then one in each [`RATE`].
const KNOCK_BURST: u32 = 8;
const RATE: Duration = Duration::from_secs(2);

/// Minimum interval between two knocks of one node.
const NODE_KNOCK_INTERVAL: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Mailbox {
    due: Instant,
    /// Start of the current reading, or of the last one.
    began: Instant,
    running: u32,
    interval: Duration,
    active_until: Instant,
    watched: VecDeque<PublicIdentity>,
    /// The newest knock of each node, and the time at which it was read.
    seen: BTreeMap<NodeId, (u64, Duration)>,
    /// The time at which the token bucket of knocks will be full.
    full_at: Instant,
}

impl Mailbox {
    pub(super) fn new(now: Instant, config: &Config) -> Self {
        Self {
            due: now,
            began: now,
            running: 0,
            interval: config.poll_active,
            active_until: now + config.active,
            watched: VecDeque::new(),
            seen: BTreeMap::new(),
            full_at: now,
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        (self.running == 0).then_some(self.due)
    }

    pub(super) fn watch(&mut self, peer: PublicIdentity) {
        if !self.watched.contains(&peer) {
            self.watched.push_back(peer);
        }
        if self.watched.len() > MAX_WATCHED {
            self.watched.pop_front();
        }
    }

    /// Reads the mailbox often from now on, because something happens.
    pub(super) fn wake(&mut self, now: Instant, config: &Config) {
        self.active_until = now + config.active;
        self.interval = config.poll_active;
        self.due = self.due.min(now + config.poll_active);
    }

    /// Handles the end of one look-up of this reading.
    pub(super) fn finished_one(&mut self, now: Instant, config: &Config, jitter: u32) {
        self.running = self.running.saturating_sub(1);
        if self.running > 0 {
            return;
        }
        self.interval = match now < self.active_until {
            true => config.poll_active,
            false => (self.interval * 2).min(config.poll_idle),
        };
        // Shorten by at most a quarter, so that observers of the DHT cannot tell nodes apart by their rhythm.
        let jitter = f64::from(jitter) / f64::from(u32::MAX);
        self.due = now.max(self.began + self.interval.mul_f64(1.0 - jitter / 4.0));
    }

    /// Forgets knocks that are too old to be replayed.
    pub(super) fn forget(&mut self, unix: Duration) {
        self.seen.retain(|_, (_, read)| unix < *read + KNOCK_MEMORY && *read < unix + KNOCK_MEMORY);
    }

    /// Accepts a knock if it is new and within the rate limits.
    fn admit(&mut self, now: Moment, knock: &Knock, is_watched: bool) -> Result<(), Refused> {
        let node = knock.identity.node_id();
        if let Some((sequence, read)) = self.seen.get(&node) {
            if *sequence >= knock.sequence {
                return Err(Refused::Replay);
            }
            if now.unix.abs_diff(*read) < NODE_KNOCK_INTERVAL {
                return Err(Refused::Rate);
            }
        }
        // Watched nodes bypass the common limit, because members can multiply and would otherwise crowd them
        // out.
        if !is_watched {
            let missing = self.full_at.saturating_duration_since(now.instant);
            if missing > RATE * (KNOCK_BURST - 1) {
                return Err(Refused::Rate);
            }
            self.full_at = now.instant.max(self.full_at) + RATE;
        }
        if self.seen.len() >= MAX_KNOWN_KNOCKERS && !self.seen.contains_key(&node) {
            let oldest = self.seen.iter().min_by_key(|(_, (_, read))| *read).map(|(node, _)| *node);
            oldest.map(|oldest| self.seen.remove(&oldest));
        }
        self.seen.insert(node, (knock.sequence, now.unix));
        Ok(())
    }
}

impl Rendezvous {
    pub(super) fn drive_mailbox(&mut self, now: Moment, network: Network) {
        let Some(membership) = self.networks.get_mut(&network) else { return };
        let mailbox = &mut membership.mailbox;
        if self.contact.is_none() || mailbox.running > 0 || mailbox.due > now.instant {
            return;
        }
        let own = NodeTail::of(&self.own.node_id());
        let slots = (0..self.config.slots).map(|index| Location::Slot { owner: own, index });
        let pairs = mailbox.watched.iter().map(|writer| Location::Pair { writer: *writer, reader: own });
        let locations: Vec<_> = slots.chain(pairs).collect();
        mailbox.began = now.instant;
        for epoch in membership.keys.epochs(&own, now.unix) {
            for location in &locations {
                let purpose = Purpose::Poll { watched: matches!(location, Location::Pair { .. }) };
                self.operations.get(network, purpose, &membership.keys, location, epoch);
                mailbox.running += 1;
            }
        }
    }

    /// Handles a text that a member has sealed for this node's mailbox.
    pub(super) fn handle_knock(
        &mut self,
        now: Moment,
        network: Network,
        plain: &[u8],
        is_watched: bool,
    ) -> Result<(), Refused> {
        let Some(membership) = self.networks.get_mut(&network) else { return Ok(()) };
        let knock = Knock::verify(&membership.keys, &NodeTail::of(&self.own.node_id()), plain)?;
        if knock.identity == *self.own.public() {
            return Err(Refused::Node);
        }
        knock.check_age(now.unix)?;
        membership.mailbox.admit(now, &knock, is_watched)?;
        membership.mailbox.wake(now.instant, &self.config);
        let start_in = knock.start_in(now.unix);
        self.events.push_back(Event::Knocked { network, knock, start_in });
        Ok(())
    }
}
