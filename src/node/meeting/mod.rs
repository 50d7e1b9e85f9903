//! Meetings by the DHT: publishes this node's contact, and finds and knocks at peers that programs want and
//! that neither the local network nor a root knows.
//!
//! One thread does the work. Its inbox gets wanted peers, events of the DHT, joined networks, and this node's
//! contact. The overlay decides about a peer's endpoints ([`peersock_overlay::Endpoint::meet`]).

mod entry;
mod inbox;
mod ping;
mod search;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use peersock_dht::{Event, Service};
use peersock_overlay::{Contact, DiscoveryKey, Identity, NetworkIndex, PublicIdentity};

use super::contact::Publish;
use super::{DhtStatus, Inner};
use crate::config::Dht;
use crate::driver::Interfaces;
use crate::sync;
use peersock_datapath::JoinedNetwork;

use entry::Entry;
use inbox::{Inbox, Note};
pub(super) use ping::{ping_answer, ping_question};
use search::{Searches, Step};

/// Time that a connection attempt waits while its peer is searched for: two look-ups, a knock that is read
/// after 15 s, and the punching.
const SEARCH_WAIT: Duration = Duration::from_secs(60);

/// Intervals of listing the DHT nodes that can be asked: at first, and then, while there are fewer than
/// [`ENOUGH_NODES`]; and later.
const LIST_SOON: Duration = Duration::from_millis(250);
const LIST_INTERVAL: Duration = Duration::from_secs(5);
const LIST_LATER: Duration = Duration::from_secs(60);
const ENOUGH_NODES: usize = 3;

/// Minimum and maximum of the backoff before the DHT is entered again after a failure.
const MIN_BACKOFF: Duration = Duration::from_secs(2);
const MAX_BACKOFF: Duration = Duration::from_secs(120);

/// Time for kept nodes to answer; then the DHT is entered by the named ones alone.
const KEPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Minimum and maximum interval of pinging the named nodes while only kept nodes answer.
const NAMED_PING_BOUNDS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(600)];

/// Meetings of one node.
pub(super) struct Meetings {
    inbox: Arc<Inbox>,
    state: Arc<Mutex<MeetingState>>,
}

/// State for the status.
#[derive(Debug, Clone, Default)]
struct MeetingState {
    /// Number of DHT nodes that have answered lately.
    nodes: usize,
    /// Number of networks in which this node can be found.
    published: usize,
    /// Number of current searches.
    searches: usize,
    /// Reason why the DHT cannot be used.
    error: Option<String>,
}

impl Meetings {
    /// Starts the thread. It sends nothing before a network is joined.
    ///
    /// # Errors
    /// Fails if no thread can be started, or if the node may not use any interface that leads to the DHT.
    pub(super) fn start(
        node: &Arc<Inner>,
        identity: Arc<Identity>,
        dht: &Dht,
        allowed: &Interfaces,
    ) -> io::Result<Meetings> {
        let entry = Entry::new(dht, allowed, node.state.as_ref())?;
        let (inbox, state) = (Arc::new(Inbox::default()), Arc::new(Mutex::new(MeetingState::default())));
        let wanted = Arc::clone(&inbox);
        node.driver.datapath.seek_elsewhere(SEARCH_WAIT, Box::new(move |want| wanted.want(want)));
        let watching = Arc::clone(&inbox);
        node.driver.on_interfaces_changed(Box::new(move || watching.note_interfaces()));
        let meeter = Meeter {
            node: Arc::downgrade(node),
            identity,
            entry,
            inbox: Arc::clone(&inbox),
            state: Arc::clone(&state),
            networks: BTreeMap::new(),
            contact: None,
            searches: Searches::default(),
            service: None,
            bound: Ipv4Addr::UNSPECIFIED,
            entered: Instant::now(),
            entries: 0,
            enter_at: Instant::now(),
            pause: MIN_BACKOFF,
            list_at: Instant::now(),
            is_confirmed: false,
            asking: None,
            named_at: Instant::now(),
            named_pause: NAMED_PING_BOUNDS[0],
        };
        thread::Builder::new().name("peersock-meet".into()).spawn(move || meeter.run())?;
        Ok(Meetings { inbox, state })
    }

    /// Reports a joined network. Does not block.
    pub(super) fn join(&self, network: &JoinedNetwork, key: DiscoveryKey) {
        self.inbox.join(network.clone(), key);
    }

    /// Reports a network that was left. Does not block.
    pub(super) fn leave(&self, network: NetworkIndex) {
        self.inbox.leave(network);
    }

    /// Returns a callback for new contacts of this node.
    pub(super) fn publisher(&self) -> Publish {
        let inbox = Arc::clone(&self.inbox);
        Box::new(move |contact| inbox.set_contact(contact.clone()))
    }

    pub(super) fn status(&self) -> DhtStatus {
        let MeetingState { nodes, published, searches, error } = sync::lock(&self.state).clone();
        DhtStatus { nodes, published, searches, error }
    }

    /// Ends the thread after its current work.
    pub(super) fn stop(&self) {
        self.inbox.stop();
    }
}

struct Meeter {
    node: Weak<Inner>,
    identity: Arc<Identity>,
    entry: Entry,
    inbox: Arc<Inbox>,
    state: Arc<Mutex<MeetingState>>,
    networks: BTreeMap<NetworkIndex, Membership>,
    contact: Option<Contact>,
    searches: Searches,
    service: Option<Service>,
    /// Local address of the service, and when it was started.
    bound: Ipv4Addr,
    entered: Instant,
    /// Number of entries into the DHT.
    entries: u64,
    enter_at: Instant,
    pause: Duration,
    list_at: Instant,
    /// True once a named node has answered in this service, which proves that it is the intended DHT.
    is_confirmed: bool,
    /// Thread that pings the named nodes.
    asking: Option<thread::JoinHandle<()>>,
    /// Time of the next ping, and the pause after it.
    named_at: Instant,
    named_pause: Duration,
}

struct Membership {
    joined: JoinedNetwork,
    key: DiscoveryKey,
    network: Option<peersock_dht::Network>,
    is_published: bool,
}

impl Meeter {
    fn run(mut self) {
        loop {
            let now = Instant::now();
            if !self.networks.is_empty() && self.service.is_none() && self.enter_at <= now {
                self.enter(now);
            }
            self.list_nodes(now);
            self.drive_searches(now);
            self.report();
            match self.inbox.next(self.next()) {
                Some(Note::Stop) => return,
                Some(note) => self.take(note),
                None => {}
            }
            // The node may have ended without a call of `stop`.
            if self.node.upgrade().is_none_or(|node| node.is_down()) {
                return;
            }
        }
    }

    fn next(&self) -> Instant {
        let enter = (self.service.is_none() && !self.networks.is_empty()).then_some(self.enter_at);
        let list = self.service.is_some().then_some(self.list_at);
        // Searches wait until the DHT is entered.
        let search = self.searches.next().filter(|_| self.service.is_some());
        let far = Instant::now() + LIST_LATER;
        [enter, list, search].into_iter().flatten().fold(far, Instant::min)
    }

    /// Enters the DHT. This resolves names, which may block.
    fn enter(&mut self, now: Instant) {
        let inbox = Arc::clone(&self.inbox);
        self.entries += 1;
        let entries = self.entries;
        // The number tells late events of an earlier service apart.
        let told = move |event| inbox.add_event(entries, event);
        let settings = self.entry.settings();
        let bound = settings.as_ref().map_or(Ipv4Addr::UNSPECIFIED, |settings| settings.bind);
        let own = Arc::clone(&self.identity);
        let started = settings.map_err(Into::into).and_then(|settings| Service::start(own, settings, told));
        match started {
            Ok(service) => {
                // Not `now`, because resolving names may have taken long.
                (self.bound, self.entered, self.is_confirmed) = (bound, Instant::now(), false);
                self.named_at = self.entered + KEPT_TIMEOUT;
                for membership in self.networks.values_mut() {
                    membership.network = Some(service.join(&membership.key));
                }
                if let Some(contact) = &self.contact {
                    service.publish(contact.clone());
                }
                self.service = Some(service);
                self.list_at = now;
                self.pause = MIN_BACKOFF;
                sync::lock(&self.state).error = None;
            }
            Err(error) => {
                let text = Some(error.to_string());
                // The same error is logged as a warning only once.
                let before = std::mem::replace(&mut sync::lock(&self.state).error, text.clone());
                if before == text {
                    tracing::debug!(%error, "the DHT cannot be used yet");
                } else {
                    tracing::warn!(%error, "the DHT cannot be used; trying again");
                }
                self.enter_at = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(MAX_BACKOFF);
            }
        }
    }

    /// Passes the DHT nodes that can be asked to the contact search.
    fn list_nodes(&mut self, now: Instant) {
        let Some(service) = &self.service else { return };
        if self.list_at > now {
            return;
        }
        let known = service.known_nodes();
        self.is_confirmed |= known.iter().any(|node| service.entries().contains(node));
        if known.is_empty() && self.entry.is_by_kept() && self.entered.elapsed() >= KEPT_TIMEOUT {
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
            true if self.entered.elapsed() < 2 * KEPT_TIMEOUT => LIST_SOON,
            true => LIST_INTERVAL,
            false if self.is_doubtful() => LIST_INTERVAL,
            false => LIST_LATER,
        };
        self.list_at = Instant::now() + wait;
        sync::lock(&self.state).nodes = nodes.len();
        if let Some(node) = self.node.upgrade() {
            // Nodes of an unconfirmed DHT may be an attacker's.
            if known.len() >= ENOUGH_NODES && self.is_confirmed {
                self.entry.keep(&known, node.state.as_ref(), now);
            }
            if let Some(keeper) = node.keeper.get() {
                keeper.set_dht_nodes(nodes);
            }
        }
        self.ask_named(now);
    }

    /// Returns true if only kept nodes, or nodes named by them, have answered. An attacker may have made them
    /// up.
    fn is_doubtful(&self) -> bool {
        !self.is_confirmed && self.entry.is_by_kept()
    }

    /// Pings the named nodes now and then while none of them has answered, because `mainline` itself does not
    /// once it knows others.
    fn ask_named(&mut self, now: Instant) {
        if self.is_confirmed {
            self.named_pause = NAMED_PING_BOUNDS[0];
        }
        let is_busy = self.asking.as_ref().is_some_and(|thread| !thread.is_finished());
        if !self.is_doubtful() || now < self.named_at || is_busy {
            return;
        }
        match self.entry.ask_named(&self.inbox, self.entries) {
            Ok(thread) => self.asking = Some(thread),
            Err(error) => tracing::debug!(%error, "the nodes by which the DHT is entered are not asked"),
        }
        self.named_at = now + self.named_pause;
        self.named_pause = (self.named_pause * 2).min(NAMED_PING_BOUNDS[1]);
    }

    /// Enters the DHT again, because a named node answers, which leads to the intended DHT.
    fn take_named(&mut self, service: u64) {
        if service == self.entries && self.service.is_some() && !self.is_confirmed {
            tracing::debug!("a named node of the DHT answers again");
            self.enter_anew(Instant::now());
        }
    }

    /// Leaves the DHT, and enters it as soon as possible.
    fn enter_anew(&mut self, now: Instant) {
        self.service = None;
        (self.enter_at, self.pause) = (now, MIN_BACKOFF);
        // The next service numbers the networks anew, and publishes everything again.
        for membership in self.networks.values_mut() {
            membership.network = None;
            membership.is_published = false;
        }
        self.searches.restart(now);
    }

    /// Reacts to a change of interfaces: the socket's address may be gone, or an address may be available
    /// again.
    fn look_at_interfaces(&mut self) {
        let now = Instant::now();
        match self.service {
            Some(_) if self.entry.bind().is_ok_and(|address| address == self.bound) => {}
            Some(_) => {
                tracing::debug!("the address that the DHT was entered from is gone");
                self.enter_anew(now);
            }
            None => (self.enter_at, self.pause) = (now, MIN_BACKOFF),
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
                // The network may have been left meanwhile.
                if self.networks.contains_key(&want.network) {
                    self.searches.want(Instant::now(), want);
                }
            }
            // An event of an earlier service is ignored, because its network numbers are different.
            Note::Dht(entries, event) if entries == self.entries => self.take_event(event),
            Note::Dht(..) => {}
            Note::Interfaces => self.look_at_interfaces(),
            Note::Named(service) => self.take_named(service),
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
