//! Inbox of the rendezvous thread.
//!
//! Senders never block, because the thread may hang in the system's resolver for minutes, and the senders are
//! applications that join a network, and the threads that move packets. So essential notes are never dropped;
//! their number is bounded by itself. A network that is joined and left again before the thread has looked is
//! forgotten, and only the newest contact is kept. Notes that are repeated anyway (wanted peers, and events
//! of the DHT) are kept up to [`MAX_NOTES`], and dropped beyond.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use peersock_dht::Event;
use peersock_overlay::{Contact, DiscoveryKey, NetworkIndex};

use crate::sync;
use peersock_datapath::{JoinedNetwork, Want};

/// Limit of notes that may be dropped.
pub(super) const MAX_NOTES: usize = 1024;

/// Note to the thread, in the order in which it handles them.
pub(super) enum Note {
    Stop,
    Leave(NetworkIndex),
    Join(JoinedNetwork, DiscoveryKey),
    Contact(Contact),
    /// Possible change of the machine's interfaces.
    Interfaces,
    /// Answer of a named DHT node; with the number of the service at the time of the question.
    Named(u64),
    Want(Want),
    /// Event of the DHT; with the number of the service that sent it.
    Dht(u64, Event),
}

/// Notes that wait for the thread.
#[derive(Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Default)]
struct Waiting {
    is_stopped: bool,
    /// Networks to leave, which the thread knows.
    left: VecDeque<NetworkIndex>,
    /// Networks to join, which the thread does not know yet.
    joined: BTreeMap<NetworkIndex, (JoinedNetwork, DiscoveryKey)>,
    contact: Option<Contact>,
    interfaces_changed: bool,
    named: Option<u64>,
    others: VecDeque<Note>,
}

impl Inbox {
    pub(super) fn join(&self, network: JoinedNetwork, key: DiscoveryKey) {
        self.put(|waiting| _ = waiting.joined.insert(network.index, (network, key)));
    }

    pub(super) fn leave(&self, network: NetworkIndex) {
        self.put(|waiting| {
            if waiting.joined.remove(&network).is_none() {
                waiting.left.push_back(network);
            }
        });
    }

    pub(super) fn set_contact(&self, contact: Contact) {
        self.put(|waiting| waiting.contact = Some(contact));
    }

    pub(super) fn note_interfaces(&self) {
        self.put(|waiting| waiting.interfaces_changed = true);
    }

    pub(super) fn note_named(&self, service: u64) {
        self.put(|waiting| waiting.named = Some(service));
    }

    /// Adds a wanted peer. A dropped note is harmless, because a program that still wants the peer repeats
    /// it.
    pub(super) fn want(&self, want: Want) {
        self.put(|waiting| waiting.add(Note::Want(want)));
    }

    /// Adds an event of the DHT. A dropped one comes again with the next search or knock.
    pub(super) fn add_event(&self, service: u64, event: Event) {
        self.put(|waiting| waiting.add(Note::Dht(service, event)));
    }

    /// Stops the thread; comes before all other notes, and stays.
    pub(super) fn stop(&self) {
        self.put(|waiting| waiting.is_stopped = true);
    }

    /// Returns the next note; waits for it until `until`.
    pub(super) fn next(&self, until: Instant) -> Option<Note> {
        let patience = until.saturating_duration_since(Instant::now()).min(MAX_INTERVAL);
        let waiting = sync::lock(&self.waiting);
        let mut waiting =
            sync::wait_timeout_while(&self.filled, waiting, patience, |waiting| waiting.is_empty());
        waiting.take()
    }

    fn put(&self, note: impl FnOnce(&mut Waiting)) {
        note(&mut sync::lock(&self.waiting));
        // Only the rendezvous thread waits.
        self.filled.notify_one();
    }
}

impl Waiting {
    fn add(&mut self, note: Note) {
        if self.others.len() < MAX_NOTES {
            self.others.push_back(note);
        }
    }

    fn is_empty(&self) -> bool {
        !self.is_stopped
            && self.left.is_empty()
            && self.joined.is_empty()
            && self.contact.is_none()
            && !self.interfaces_changed
            && self.named.is_none()
            && self.others.is_empty()
    }

    fn take(&mut self) -> Option<Note> {
        if self.is_stopped {
            return Some(Note::Stop);
        }
        let left = self.left.pop_front().map(Note::Leave);
        let join = |joined: &mut BTreeMap<_, _>| {
            joined.pop_first().map(|(_, (network, key))| Note::Join(network, key))
        };
        left.or_else(|| join(&mut self.joined))
            .or_else(|| self.contact.take().map(Note::Contact))
            .or_else(|| std::mem::take(&mut self.interfaces_changed).then_some(Note::Interfaces))
            .or_else(|| self.named.take().map(Note::Named))
            .or_else(|| self.others.pop_front())
    }
}

const MAX_INTERVAL: Duration = Duration::from_secs(3600);
