//! Meets other nodes by the DHT: publishes where this one is, and finds and knocks at those that programs
//! want and that neither the local network nor a root knows.
//!
//! One thread does it. It is told what programs want, what the DHT says, which networks are joined, and where
//! this node can be reached; what is decided about a peer's place is the overlay's matter
//! ([`peersock_overlay::Endpoint::meet`]).

mod entry;
mod search;

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use peersock_dht::{Event, Service};
use peersock_overlay::{Contact, DiscoveryKey, Identity, NetworkIndex, PublicIdentity};

use super::Inner;
use crate::config::Dht;
use crate::datapath::{JoinedNetwork, Want};
use crate::driver::Interfaces;
use crate::sync;

use entry::Entry;
use search::{Searches, Step};

/// How long a connection attempt waits while its peer is looked for: two look-ups, a knock that is read after
/// 15 s, and the punching.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is not handled yet is kept up to this number; what is wanted is said again.
const MAX_NOTES: usize = 1024;

/// How often the nodes of the DHT that can be asked are listed: at first, and then, while there are fewer
/// than [`ENOUGH_NODES`]; and later.
const LIST_SOON: Duration = Duration::from_millis(250);
const LIST_AGAIN: Duration = Duration::from_secs(5);
const LIST_LATER: Duration = Duration::from_secs(60);
const ENOUGH_NODES: usize = 3;

/// How long after a failure the DHT is entered again: at first, and at most.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(120);

/// Nodes that were kept from before have so long to answer, then the DHT is entered by those that are named.
const KEPT_PATIENCE: Duration = Duration::from_secs(5);

/// The meetings of one node.
pub(super) struct Meetings {
    notes: SyncSender<Note>,
    state: Arc<Mutex<MeetingState>>,
}

/// How things stand, for the status.
#[derive(Debug, Clone, Default)]
pub(super) struct MeetingState {
    /// Nodes of the DHT that have answered lately.
    pub(super) nodes: usize,
    /// Networks in which this node can be found.
    pub(super) published: usize,
    /// Peers that are looked for now.
    pub(super) searches: usize,
    /// Why the DHT cannot be used.
    pub(super) error: Option<String>,
}

enum Note {
    Join(JoinedNetwork, DiscoveryKey),
    Leave(NetworkIndex),
    Contact(Contact),
    Want(Want),
    /// What the service says that was started as the so manieth.
    Dht(u64, Event),
    /// The machine's interfaces may have changed.
    Interfaces,
    Stop,
}

impl Meetings {
    /// Starts the thread. Nothing leaves before a network is joined.
    ///
    /// # Errors
    /// There are no threads left, or the node may use no interface that leads to the DHT.
    pub(super) fn start(
        node: &Arc<Inner>,
        identity: Arc<Identity>,
        dht: &Dht,
        allowed: &Interfaces,
    ) -> io::Result<Meetings> {
        let entry = Entry::new(dht, allowed, node.state.as_ref())?;
        let (notes, received) = sync_channel(MAX_NOTES);
        let state = Arc::new(Mutex::new(MeetingState::default()));
        let wanted = notes.clone();
        let told = move |want| {
            // Whoever still wants the peer says so again.
            let _ = wanted.try_send(Note::Want(want));
        };
        node.driver.datapath.seek_elsewhere(PATIENCE, Box::new(told));
        let watching = notes.clone();
        // If there is no room, the thread has enough to do; it looks at the interfaces when it enters anew.
        node.driver.on_interfaces_changed(Box::new(move || _ = watching.try_send(Note::Interfaces)));
        let meeter = Meeter {
            node: Arc::downgrade(node),
            identity,
            entry,
            notes: notes.clone(),
            state: Arc::clone(&state),
            networks: BTreeMap::new(),
            contact: None,
            searches: Searches::default(),
            service: None,
            bound: Ipv4Addr::UNSPECIFIED,
            entered: Instant::now(),
            entries: 0,
            enter_at: Instant::now(),
            pause: RETRY_MIN,
            list_at: Instant::now(),
        };
        thread::Builder::new().name("peersock-meet".into()).spawn(move || meeter.run(&received))?;
        Ok(Meetings { notes, state })
    }

    /// A network was joined.
    pub(super) fn join(&self, network: &JoinedNetwork, key: DiscoveryKey) {
        self.tell(Note::Join(network.clone(), key));
    }

    /// A network was left.
    pub(super) fn leave(&self, network: NetworkIndex) {
        self.tell(Note::Leave(network));
    }

    /// For whoever finds out where this node can be reached.
    pub(super) fn publisher(&self) -> impl Fn(&Contact) + Send + use<> {
        let notes = self.notes.clone();
        // The thread ends with the node; then nobody wants this any more.
        move |contact| _ = notes.send(Note::Contact(contact.clone()))
    }

    pub(super) fn state(&self) -> MeetingState {
        sync::lock(&self.state).clone()
    }

    /// Ends the thread, soon: it sees that the node is down whatever it is told.
    pub(super) fn stop(&self) {
        let _ = self.notes.try_send(Note::Stop);
    }

    fn tell(&self, note: Note) {
        let _ = self.notes.send(note);
    }
}

struct Meeter {
    node: Weak<Inner>,
    identity: Arc<Identity>,
    entry: Entry,
    notes: SyncSender<Note>,
    state: Arc<Mutex<MeetingState>>,
    networks: BTreeMap<NetworkIndex, Membership>,
    contact: Option<Contact>,
    searches: Searches,
    service: Option<Service>,
    /// From which address the service was started, and when.
    bound: Ipv4Addr,
    entered: Instant,
    /// How often the DHT was entered.
    entries: u64,
    enter_at: Instant,
    pause: Duration,
    list_at: Instant,
}

struct Membership {
    joined: JoinedNetwork,
    key: DiscoveryKey,
    network: Option<peersock_dht::Network>,
    is_published: bool,
}

impl Meeter {
    fn run(mut self, notes: &Receiver<Note>) {
        loop {
            let now = Instant::now();
            if !self.networks.is_empty() && self.service.is_none() && self.enter_at <= now {
                self.enter(now);
            }
            self.list_nodes(now);
            self.drive_searches(now);
            self.report();
            let next = self.next().saturating_duration_since(Instant::now());
            match notes.recv_timeout(next) {
                Ok(Note::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(note) => self.take(note),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.node.upgrade().is_none_or(|node| node.is_down()) {
                return;
            }
        }
    }

    fn next(&self) -> Instant {
        let enter = (self.service.is_none() && !self.networks.is_empty()).then_some(self.enter_at);
        let list = self.service.is_some().then_some(self.list_at);
        // Nothing is done about searches until the DHT is entered.
        let search = self.searches.next().filter(|_| self.service.is_some());
        let far = Instant::now() + LIST_LATER;
        [enter, list, search].into_iter().flatten().fold(far, Instant::min)
    }

    /// Enters the DHT. Names are resolved here, which may block.
    fn enter(&mut self, now: Instant) {
        let notes = self.notes.clone();
        self.entries += 1;
        let entries = self.entries;
        let told = move |event| {
            // What is lost is found again, or knocked again.
            let _ = notes.try_send(Note::Dht(entries, event));
        };
        let settings = self.entry.settings();
        let bound = settings.as_ref().map_or(Ipv4Addr::UNSPECIFIED, |settings| settings.bind);
        let own = Arc::clone(&self.identity);
        let started = settings.map_err(Into::into).and_then(|settings| Service::start(own, settings, told));
        match started {
            Ok(service) => {
                (self.bound, self.entered) = (bound, Instant::now());
                for membership in self.networks.values_mut() {
                    membership.network = Some(service.join(&membership.key));
                }
                if let Some(contact) = &self.contact {
                    service.publish(contact.clone());
                }
                self.service = Some(service);
                self.list_at = now;
                self.pause = RETRY_MIN;
                sync::lock(&self.state).error = None;
            }
            Err(error) => {
                tracing::warn!(%error, "the DHT cannot be used; trying again");
                sync::lock(&self.state).error = Some(error.to_string());
                self.enter_at = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(RETRY_MAX);
            }
        }
    }

    /// Says which nodes of the DHT can be asked as what they see this node.
    fn list_nodes(&mut self, now: Instant) {
        let Some(service) = &self.service else { return };
        if self.list_at > now {
            return;
        }
        let known = service.known_nodes();
        if known.is_empty() && self.entry.is_by_kept() && self.entered.elapsed() >= KEPT_PATIENCE {
            tracing::debug!("no node of the DHT that was known answers");
            self.entry.forget();
            return self.enter_anew(now);
        }
        let mut nodes = self.entry.named();
        for node in &known {
            if !nodes.contains(node) {
                nodes.push(*node);
            }
        }
        let wait = match known.len() < ENOUGH_NODES {
            true if self.entered.elapsed() < 2 * KEPT_PATIENCE => LIST_SOON,
            true => LIST_AGAIN,
            false => LIST_LATER,
        };
        self.list_at = Instant::now() + wait;
        sync::lock(&self.state).nodes = nodes.len();
        if let Some(node) = self.node.upgrade() {
            if known.len() >= ENOUGH_NODES {
                self.entry.keep(&known, node.state.as_ref(), now);
            }
            node.set_dht_nodes(nodes);
        }
    }

    /// Leaves the DHT, and enters it as soon as possible.
    fn enter_anew(&mut self, now: Instant) {
        self.service = None;
        (self.enter_at, self.pause) = (now, RETRY_MIN);
        // The networks have other numbers in the next service. What was published is published again.
        for membership in self.networks.values_mut() {
            membership.network = None;
            membership.is_published = false;
        }
        self.searches.restart(now);
    }

    /// The socket may be bound to an address that is gone, or there is one again.
    fn look_at_interfaces(&mut self) {
        let now = Instant::now();
        match self.service {
            Some(_) if self.entry.bind().is_ok_and(|address| address == self.bound) => {}
            Some(_) => {
                tracing::debug!("the address that the DHT was entered from is gone");
                self.enter_anew(now);
            }
            None => (self.enter_at, self.pause) = (now, RETRY_MIN),
        }
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::Join(joined, key) => {
                let network = self.service.as_ref().map(|service| service.join(&key));
                let membership = Membership { joined, key, network, is_published: false };
                self.networks.insert(membership.joined.index, membership);
            }
            Note::Leave(index) => {
                let left = self.networks.remove(&index).and_then(|membership| membership.network);
                if let (Some(network), Some(service)) = (left, &self.service) {
                    service.leave(network);
                }
                self.searches.leave(index);
            }
            Note::Contact(contact) => {
                if let Some(service) = &self.service {
                    service.publish(contact.clone());
                }
                self.contact = Some(contact);
            }
            Note::Want(want) => {
                if self.networks.contains_key(&want.network) {
                    self.searches.want(Instant::now(), want);
                }
            }
            // Its networks have other numbers than those of a later one.
            Note::Dht(entries, event) if entries == self.entries => self.take_event(event),
            Note::Dht(..) => {}
            Note::Interfaces => self.look_at_interfaces(),
            Note::Stop => {}
        }
    }

    fn take_event(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Published { network } => {
                if let Some(membership) = self.membership_mut(network) {
                    tracing::info!(network = %membership.joined.id, "this node can be found by the DHT");
                    membership.is_published = true;
                }
            }
            Event::Found { network, record } => {
                let Some(index) = self.index(network) else { return };
                if let Some(start) = self.searches.found(now, index, &record) {
                    self.meet(index, &record.identity, &record.contact, start);
                }
            }
            Event::NotFound { network, node } => {
                let Some(index) = self.index(network) else { return };
                self.searches.not_found(now, index, node);
            }
            Event::KnockSent { network, peer, start_in } => {
                let Some(index) = self.index(network) else { return };
                if let Some(record) = self.searches.knocked(now + start_in, index, peer) {
                    self.meet(index, &record.identity, &record.contact, now + start_in);
                }
            }
            Event::KnockFailed { network, peer } => {
                let Some(index) = self.index(network) else { return };
                self.searches.knock_failed(now, index, peer);
            }
            Event::Knocked { network, knock, start_in } => {
                let Some(index) = self.index(network) else { return };
                self.meet(index, &knock.identity, &knock.contact, now + start_in);
            }
            _ => {}
        }
    }

    fn meet(&self, index: NetworkIndex, identity: &PublicIdentity, contact: &Contact, start: Instant) {
        let (Some(membership), Some(node)) = (self.networks.get(&index), self.node.upgrade()) else { return };
        let network = &membership.joined.id;
        let places = contact.candidates().len();
        tracing::debug!(%network, node = %identity.node_id(), places, "met by the DHT");
        let (datapath, batch) = (&node.driver.datapath, &mut Default::default());
        datapath.meet(Instant::now(), network, identity, contact, start, batch);
        node.driver.kick();
    }

    fn drive_searches(&mut self, now: Instant) {
        let (Some(service), Some(node)) = (&self.service, self.node.upgrade()) else { return };
        let datapath = &node.driver.datapath;
        let steps =
            self.searches.drive(now, |network, address| datapath.has_session(network, address.into()));
        for step in steps {
            let (index, target, is_begun) = match step {
                Step::Begin(index, target) => (index, target, true),
                Step::End(index, target) => (index, target, false),
            };
            let Some(network) = self.networks.get(&index).and_then(|membership| membership.network) else {
                continue;
            };
            match is_begun {
                true => {
                    service.find(network, target);
                    service.knock(network, target.tail());
                }
                false => service.met(network, &target.tail()),
            }
        }
    }

    fn report(&self) {
        let mut state = sync::lock(&self.state);
        state.published = self.networks.values().filter(|membership| membership.is_published).count();
        state.searches = self.searches.len();
    }

    fn index(&self, network: peersock_dht::Network) -> Option<NetworkIndex> {
        let found = self.networks.iter().find(|(_, membership)| membership.network == Some(network));
        found.map(|(index, _)| *index)
    }

    fn membership_mut(&mut self, network: peersock_dht::Network) -> Option<&mut Membership> {
        self.networks.values_mut().find(|membership| membership.network == Some(network))
    }
}
