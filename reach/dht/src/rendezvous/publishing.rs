//! Publishes this node's record where others look for it, in each epoch that a peer's clock may be in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::Rng;

use super::{Event, Moment, Network, Outcome, Purpose, Rendezvous};
use crate::keys::{Epoch, Location, NodeTail};
use crate::record::Record;

/// Minimum interval between two writes of the same place.
const MIN_GAP: Duration = Duration::from_secs(2);

/// Delays of the second and third write of each place. A node that has just entered the DHT knows few nodes,
/// and may write to other nodes than a searcher asks.
const EARLY_WRITE_DELAYS: [Duration; 2] = [Duration::from_secs(8), Duration::from_secs(60)];

/// Longest delay before a failed write is retried.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// One of the two copies of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Copy {
    /// The copy found by the node's address.
    Open,
    /// The copy found by the node's identity.
    Own,
}

#[derive(Debug, Default)]
pub(super) struct Publications {
    places: BTreeMap<(Copy, Epoch), Publication>,
    /// Version of the newest contact that was reported as published.
    told: u64,
}

impl Publications {
    pub(super) fn due(&self) -> Option<Instant> {
        self.places.values().filter(|place| !place.is_running).map(|place| place.due).min()
    }
}

#[derive(Debug)]
struct Publication {
    /// Time of the next write.
    due: Instant,
    is_running: bool,
    /// Version of the contact that was written last.
    version: u64,
    /// The item's sequence.
    sequence: i64,
    failures: u32,
    successes: usize,
    written: Instant,
}

impl Rendezvous {
    pub(super) fn drive_publishing(&mut self, now: Moment, network: Network) {
        let (Some(contact), Some(membership)) = (self.contact.clone(), self.networks.get_mut(&network))
        else {
            return;
        };
        let tail = NodeTail::of(&self.own.node_id());
        let epochs: Vec<_> = membership.keys.epochs(&tail, now.unix).collect();
        let places = &mut membership.publications.places;
        places.retain(|(_, epoch), _| epochs.contains(epoch));
        let mut due = Vec::new();
        for (copy, epoch) in epochs.iter().flat_map(|epoch| [(Copy::Open, *epoch), (Copy::Own, *epoch)]) {
            let place = places.entry((copy, epoch)).or_insert_with(|| Publication {
                due: now.instant,
                is_running: false,
                version: 0,
                sequence: 0,
                failures: 0,
                successes: 0,
                written: now.instant,
            });
            if place.version != self.version && place.version != 0 && !place.is_running {
                place.due = place.due.min(place.written + MIN_GAP);
            }
            if !place.is_running && place.due <= now.instant {
                place.is_running = true;
                if place.version != self.version {
                    // A node that has moved knows as few nodes of the DHT as one that has just entered.
                    place.successes = 0;
                }
                place.version = self.version;
                place.written = now.instant;
                // Use seconds, because a clock's offset in milliseconds would tell nodes apart.
                place.sequence = (now.unix.as_secs() as i64).max(place.sequence + 1);
                due.push((copy, epoch, place.sequence));
            }
        }
        if due.is_empty() {
            return;
        }
        let record = Record {
            identity: *self.own.public(),
            sequence: self.next_sequence(now),
            lifetime: self.config.lifetime.as_secs() as u16,
            slots: self.config.slots,
            poll: self.config.poll_idle.as_secs() as u8,
            contact,
        };
        for (copy, epoch, sequence) in due {
            let random = self.random();
            let Some(membership) = self.networks.get(&network) else { return };
            let location = match copy {
                Copy::Open => Location::Open(tail),
                Copy::Own => Location::Own(*self.own.public()),
            };
            let plain = record.sign(&membership.keys, &self.own);
            let item = membership.keys.seal(&location, epoch, &self.own, sequence, &plain, &random);
            let item = item.expect("it may write at its own place");
            self.operations.put(network, Purpose::Publish(copy, epoch), item);
        }
    }

    pub(super) fn published(
        &mut self,
        now: Moment,
        network: Network,
        copy: Copy,
        epoch: Epoch,
        outcome: Outcome,
    ) {
        let jitter = f64::from(self.rng.next_u32()) / f64::from(u32::MAX);
        let Some(membership) = self.networks.get_mut(&network) else { return };
        let publications = &mut membership.publications;
        let Some(place) = publications.places.get_mut(&(copy, epoch)) else { return };
        place.is_running = false;
        if outcome == Outcome::Done {
            place.failures = 0;
            let pause = EARLY_WRITE_DELAYS.get(place.successes).map_or(self.config.republish, |soon| *soon);
            place.successes = place.successes.saturating_add(1);
            // Publish a little earlier than configured, so that nodes that began together drift apart.
            place.due = now.instant + pause.min(self.config.republish).mul_f64(1.0 - jitter / 4.0);
            if publications.told < place.version {
                publications.told = place.version;
                self.events.push_back(Event::Published { network });
            }
            return;
        }
        if outcome == Outcome::Taken && copy == Copy::Open {
            tracing::warn!("another member has written where this node is looked for by its address");
        }
        place.failures += 1;
        let retry = MIN_GAP.saturating_mul(1 << place.failures.min(6));
        place.due = now.instant + retry.min(MAX_RETRY);
    }
}
