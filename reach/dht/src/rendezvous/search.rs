//! Search for the record of a node.

use std::time::{Duration, Instant};

use peersock_overlay::PublicIdentity;

use super::{Config, Event, MAX_RECORDS, Moment, Network, Purpose, Rendezvous, Target};
use crate::keys::{Location, NodeTail};
use crate::record::{Record, Refused};

/// Limit of the searches in one network.
const MAX_SEARCHES: usize = 64;

/// Longest time between two rounds.
const MAX_PAUSE: Duration = Duration::from_secs(8);

#[derive(Debug)]
pub(super) struct Search {
    identity: Option<PublicIdentity>,
    has_found: bool,
    /// Set once the place that only the node can write is read in this round.
    reads_own: bool,
    running: u32,
    pause: Duration,
    /// Start of the current round, or of the last one.
    began: Instant,
    due: Instant,
    until: Instant,
}

impl Search {
    fn new(now: Instant, identity: Option<PublicIdentity>, config: &Config) -> Self {
        Self {
            identity,
            has_found: false,
            reads_own: false,
            running: 0,
            pause: Duration::from_millis(500),
            began: now,
            due: now,
            until: now + config.search,
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        (self.running == 0).then_some(self.due)
    }

    /// Handles the end of one look-up of the round.
    pub(super) fn finished_one(&mut self, now: Instant) {
        self.running = self.running.saturating_sub(1);
        if self.running == 0 {
            self.pause = (self.pause * 2).min(MAX_PAUSE);
            self.due = if self.has_found { now } else { now.max(self.began + self.pause) };
        }
    }
}

impl Rendezvous {
    pub(super) fn start_search(&mut self, now: Moment, network: Network, target: Target) {
        let Some(membership) = self.networks.get_mut(&network) else { return };
        let node = target.tail();
        let identity = match target {
            Target::Node(identity) => Some(identity),
            // The identity is known from an earlier record, even an expired one.
            Target::Address(_) => membership.records.get(&node).map(|record| record.identity),
        };
        if membership.searches.len() >= MAX_SEARCHES && !membership.searches.contains_key(&node) {
            self.events.push_back(Event::NotFound { network, node });
            return;
        }
        if let Some(record) = membership.records.get(&node).filter(|r| r.check_age(now.unix).is_ok()) {
            self.events.push_back(Event::Found { network, record: record.clone() });
        }
        membership.mailbox.wake(now.instant, &self.config);
        let fresh = Search::new(now.instant, identity, &self.config);
        let search = membership.searches.entry(node).or_insert(fresh);
        search.until = now.instant + self.config.search;
        search.identity = search.identity.or(identity);
    }

    pub(super) fn drive_searches(&mut self, now: Moment, network: Network) {
        let Some(membership) = self.networks.get_mut(&network) else { return };
        let mut over = Vec::new();
        for (node, search) in &mut membership.searches {
            if search.running > 0 || search.due > now.instant {
                continue;
            }
            if search.has_found || search.until <= now.instant {
                over.push((*node, search.has_found));
                continue;
            }
            search.began = now.instant;
            search.reads_own = search.identity.is_some();
            let locations = [Some(Location::Open(*node)), search.identity.map(Location::Own)];
            for epoch in membership.keys.epochs(node, now.unix) {
                for location in locations.iter().flatten() {
                    self.operations.get(network, Purpose::Search(*node), &membership.keys, location, epoch);
                    search.running += 1;
                }
            }
        }
        for (node, has_found) in over {
            membership.searches.remove(&node);
            if !has_found {
                self.events.push_back(Event::NotFound { network, node });
            }
        }
    }

    /// Handles a text that a member has sealed as the record of `node`.
    pub(super) fn handle_record(
        &mut self,
        now: Moment,
        network: Network,
        node: NodeTail,
        plain: &[u8],
    ) -> Result<(), Refused> {
        let Some(membership) = self.networks.get_mut(&network) else { return Ok(()) };
        let record = Record::verify(&membership.keys, plain)?;
        if NodeTail::of(&record.identity.node_id()) != node {
            return Err(Refused::Node);
        }
        record.check_age(now.unix)?;
        // A record that was accepted while this node's clock was ahead is from the future now.
        let known = membership.records.get(&node).filter(|known| known.check_age(now.unix).is_ok());
        if known.is_some_and(|known| known.sequence > record.sequence) {
            return Err(Refused::Replay);
        }
        let is_new = known != Some(&record);
        if let Some(search) = membership.searches.get_mut(&node) {
            let was_told = std::mem::replace(&mut search.has_found, true);
            search.identity = Some(record.identity);
            // Read the place that only the node can write before the search ends, because a member can have
            // put an older record where every member can write.
            if !std::mem::replace(&mut search.reads_own, true) {
                let own = Location::Own(record.identity);
                for epoch in membership.keys.epochs(&node, now.unix) {
                    self.operations.get(network, Purpose::Search(node), &membership.keys, &own, epoch);
                    search.running += 1;
                }
            }
            if !is_new && was_told {
                return Ok(());
            }
        } else if !is_new {
            return Ok(());
        }
        if membership.records.len() >= MAX_RECORDS && !membership.records.contains_key(&node) {
            let oldest = membership.records.iter().min_by_key(|(_, record)| record.sequence);
            if let Some(oldest) = oldest.map(|(node, _)| *node) {
                membership.records.remove(&oldest);
            }
        }
        membership.records.insert(node, record.clone());
        self.events.push_back(Event::Found { network, record });
        Ok(())
    }
}
