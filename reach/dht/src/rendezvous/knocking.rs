//! Knocking at other nodes.

use std::time::{Duration, Instant};

use super::{Config, Event, Moment, Network, Outcome, Purpose, Rendezvous};
use crate::keys::{Location, NodeTail};
use crate::record::{Knock, Record};

/// Limit of the nodes to knock at in one network.
const MAX_KNOCKING: usize = 64;

/// Number of attempts at one node.
const ATTEMPTS: u8 = 5;

/// Time from a knock until both sides begin to punch, about as long as a knock takes to arrive.
const PUNCH_DELAY: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Knocking {
    attempt: u8,
    running: u32,
    due: Instant,
    /// Set once one of this attempt's writes has succeeded.
    was_sent: bool,
    /// The time at which both sides of this attempt begin to punch.
    start: Instant,
}

impl Knocking {
    pub(super) fn due(&self) -> Option<Instant> {
        (self.running == 0).then_some(self.due)
    }
}

impl Rendezvous {
    pub(super) fn start_knocking(&mut self, now: Moment, network: Network, node: NodeTail) {
        let Some(membership) = self.networks.get_mut(&network) else { return };
        if node == NodeTail::of(&self.own.node_id()) || membership.knocking.contains_key(&node) {
            return;
        }
        if membership.knocking.len() >= MAX_KNOCKING {
            self.events.push_back(Event::KnockFailed { network, peer: node });
            return;
        }
        let knocking =
            Knocking { attempt: 0, running: 0, due: now.instant, was_sent: false, start: now.instant };
        membership.knocking.insert(node, knocking);
        membership.mailbox.wake(now.instant, &self.config);
    }

    pub(super) fn drive_knocking(&mut self, now: Moment, network: Network) {
        if self.contact.is_none() {
            return;
        }
        let Some(membership) = self.networks.get_mut(&network) else { return };
        let is_over = |knocking: &Knocking| knocking.attempt >= ATTEMPTS;
        let is_due = |knocking: &Knocking| knocking.running == 0 && knocking.due <= now.instant;
        let due = membership.knocking.iter().filter(|(_, knocking)| is_due(knocking));
        let (over, begin): (Vec<_>, Vec<_>) =
            due.map(|(node, knocking)| (*node, is_over(knocking))).partition(|(_, is_over)| *is_over);
        for (peer, _) in over {
            membership.knocking.remove(&peer);
            self.events.push_back(Event::KnockFailed { network, peer });
        }
        for (peer, _) in begin {
            self.knock_once(now, network, peer);
        }
    }

    fn knock_once(&mut self, now: Moment, network: Network, node: NodeTail) {
        let sequence = self.next_sequence(now);
        let randoms = [self.random(), self.random()];
        let Some(contact) = self.contact.clone() else { return };
        let Some(membership) = self.networks.get_mut(&network) else { return };
        let Some(knocking) = membership.knocking.get_mut(&node) else { return };
        let keys = &membership.keys;
        let record = membership.records.get(&node);
        let slots = record.map_or(Record::MIN_SLOTS, |record| record.slots);
        let knock = Knock {
            identity: *self.own.public(),
            sequence,
            start: sequence.saturating_add(PUNCH_DELAY.as_millis() as u64),
            contact,
        };
        let plain = knock.sign(keys, &self.own, &node);
        let epoch = keys.epoch(&node, now.unix);
        let index = keys.slot(&self.own.node_id(), &node, knocking.attempt, slots);
        let locations = [
            // A node with no slots reads no mailbox; then only this node punches.
            (slots > 0).then_some(Location::Slot { owner: node, index }),
            Some(Location::Pair { writer: *self.own.public(), reader: node }),
        ];
        knocking.start = now.instant + PUNCH_DELAY;
        knocking.was_sent = false;
        for (location, random) in locations.iter().flatten().zip(randoms) {
            let sequence = now.unix.as_secs() as i64;
            let item = keys.seal(location, epoch, &self.own, sequence, &plain, &random);
            let item = item.expect("slots are everybody's, the pair is its own");
            self.operations.put(network, Purpose::Knock(node), item);
            knocking.running += 1;
        }
        knocking.attempt += 1;
        // Its owner probably reads the mailbox often at first; later the pauses grow to the owner's interval.
        let poll =
            record.map_or(Config::default().poll_idle, |record| Duration::from_secs(record.poll.into()));
        let patience = Duration::from_secs(4) * u32::from(knocking.attempt);
        knocking.due = now.instant + patience.min(poll.max(Duration::from_secs(4)));
    }

    /// Handles the end of one of a knock's two writes.
    pub(super) fn knocked_at(&mut self, now: Moment, network: Network, peer: NodeTail, outcome: Outcome) {
        let Some(membership) = self.networks.get_mut(&network) else { return };
        let Some(knocking) = membership.knocking.get_mut(&peer) else { return };
        knocking.running = knocking.running.saturating_sub(1);
        if outcome == Outcome::Done && !std::mem::replace(&mut knocking.was_sent, true) {
            let start_in = knocking.start.saturating_duration_since(now.instant);
            self.events.push_back(Event::KnockSent { network, peer, start_in });
        }
        // If another member has the slot, try the next slot after 1 s. Each try counts as an attempt.
        if outcome == Outcome::Taken && knocking.attempt < ATTEMPTS {
            knocking.due = knocking.due.min(now.instant + Duration::from_secs(1));
        }
    }
}
