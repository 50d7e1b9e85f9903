use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::load::{HandshakeLoad, Limiter, Rate, Recent};
use peersock_overlay::noise::CookieJar;
use peersock_overlay::wire::{Control, MessageType, NoticeCode, RootMessage};
use peersock_overlay::{KeySource, Limits as HandshakeLimits, NodeId, PublicIdentity, is_endpoint};
use rand::rngs::ChaCha20Rng;
use rand::{Rng, SeedableRng};

use crate::budget::{Budget, Nanos};
use crate::client::Client;
use crate::clients::{Clients, Slot};
use crate::draining::Draining;
use crate::lookup::Questions;
use crate::nicknames::Nicknames;
use crate::outbox::Outbox;
use crate::registration::Registrations;
use crate::relay::Budgets;
use crate::{Config, Counters, Directory, Source, stun};

/// Root: all of its state, without I/O, clock or threads.
///
/// After each call that takes a time, drain [`Self::poll_transmit`], then poll [`Self::poll_timeout`].
///
/// ```
/// use std::sync::Arc;
/// use std::time::{Duration, Instant};
/// use peersock_overlay::Identity;
/// use peersock_root::{Config, Root, Source};
///
/// # fn now() -> Instant { Instant::now() }
/// let config = Config::new(Arc::new(Identity::from_seed(&[7; 32])));
/// let (now, unix_time) = (now(), Duration::from_secs(1_800_000_000));
/// let mut root = Root::new(config, &[1; 32], now, unix_time);
///
/// let source = Source::Udp { socket: 0, remote: "192.0.2.1:4000".parse()? };
/// root.handle_datagram(now, source, b"neither ours nor STUN");
/// assert_eq!(root.poll_transmit(&mut Vec::new()), None);
/// assert_eq!(root.counters().unknown_message.get(), 1);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub struct Root {
    pub(crate) config: Config,
    pub(crate) id: NodeId,
    pub(crate) clients: Clients,
    pub(crate) counters: Arc<Counters>,
    pub(crate) outbox: Outbox,
    pub(crate) keys: KeySource,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) cookies: CookieJar,
    pub(crate) load: HandshakeLoad,
    pub(crate) recent: Recent,
    pub(crate) instance: u64,
    pub(crate) limits: StrangerLimits,
    pub(crate) budgets: Budgets,
    pub(crate) registrations: Registrations,
    pub(crate) nicknames: Nicknames,
    pub(crate) directory: Option<Box<dyn Directory>>,
    pub(crate) questions: Questions,
    /// Progress of writing all nodes again to the directory: the next slot, and when.
    pub(crate) retelling: Option<(usize, Nanos)>,
    pub(crate) draining: Option<Draining>,
    /// Buffer for plaintexts.
    pub(crate) scratch: Vec<u8>,
    base: Instant,
    /// Unix time at `base`.
    unix_time: Duration,
}

/// Limits on answers to senders that the root does not know.
#[derive(Debug)]
pub(crate) struct StrangerLimits {
    pub(crate) unknown_session: Limiter,
    pub(crate) stun: Limiter,
    pub(crate) short_stun: Limiter,
}

/// Limit of clients whose deadlines are handled in one call; the next call continues at once.
const BATCH: usize = 256;

impl Root {
    /// Returns a root without clients. `seed` is random; `unix_time` is the system's clock at `now`.
    pub fn new(config: Config, seed: &[u8; 32], now: Instant, unix_time: Duration) -> Self {
        let mut keys = KeySource::new(seed).with_entropy(config.entropy.clone());
        let mut rng = ChaCha20Rng::from_seed(*keys.draw_from_seed());
        let id = config.identity.node_id();
        let cookies = CookieJar::new(&id, *keys.draw_from_seed(), now);
        let handshakes = HandshakeLimits {
            handshakes_per_second: config.limits.handshakes_per_second,
            handshake_burst: config.limits.handshake_burst,
            ..HandshakeLimits::default()
        };
        // Secret, so that strangers cannot choose addresses that share a bucket.
        let key = rng.next_u64();
        let mut table_seed = [0; 32];
        rng.fill_bytes(&mut table_seed);
        let limiter = |all, source| {
            Limiter::new(Rate::per_second(all, all), Rate::per_second(source, source), key, now)
        };
        let limits = StrangerLimits {
            unknown_session: limiter(5000, 100),
            stun: limiter(20_000, 500),
            short_stun: limiter(5000, 20),
        };
        Self {
            load: HandshakeLoad::new(&handshakes, key, now),
            clients: Clients::new(&table_seed),
            instance: rng.next_u64(),
            budgets: Budgets::new(&config),
            counters: Arc::default(),
            outbox: Outbox::default(),
            recent: Recent::default(),
            registrations: Registrations::new(key, now),
            nicknames: Nicknames::new(key, now),
            directory: None,
            questions: Questions::new(key, now),
            retelling: None,
            draining: None,
            scratch: Vec::new(),
            base: now,
            config,
            id,
            keys,
            rng,
            cookies,
            limits,
            unix_time,
        }
    }

    /// Sets the directory for look-ups of nodes that are unknown here.
    pub fn set_directory(&mut self, directory: Box<dyn Directory>) {
        self.directory = Some(directory);
    }

    /// Sets the system's clock. It goes into vouchers for clients, and limits the validity of passes.
    pub fn set_unix_time(&mut self, now: Instant, unix_time: Duration) {
        self.unix_time = unix_time.saturating_sub(now.saturating_duration_since(self.base));
    }

    /// Handles a datagram from `source`.
    ///
    /// A driver hands frames that begin with 0xD9 to [`Self::relay`] first, which copies nothing.
    pub fn handle_datagram(&mut self, now: Instant, source: Source, datagram: &[u8]) {
        // No socket has such a source, so it is forged.
        if !is_endpoint(&source.remote()) {
            return self.counters.bad_source.increment();
        }
        self.outbox.begin(source, datagram.len());
        match MessageType::of(datagram) {
            Some(MessageType::Initiation) => self.on_initiation(now, source, datagram),
            Some(MessageType::Data) => self.on_data(now, source, datagram),
            Some(MessageType::Relayed) => {
                // Only drivers that do not call `relay` first pay for this copy.
                let mut frame = datagram.to_vec();
                if let Some(to) = self.relay(now, source, &mut frame) {
                    self.outbox.send(&self.counters, to, frame);
                }
            }
            None if stun::is_stun(datagram) => self.handle_stun(now, source, None, datagram),
            _ => self.counters.unknown_message.increment(),
        }
        self.outbox.end();
    }

    /// Clears `out`, writes the next datagram to it and returns its destination; `None` if there is nothing
    /// to send. Call it until then after each call that takes a time.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Option<Source> {
        out.clear();
        let (to, datagram) = self.outbox.take()?;
        *out = datagram;
        Some(to)
    }

    /// Returns the time at which [`Self::handle_timeout`] is due. Every call that takes a time changes it.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = [
            self.clients.next_deadline(),
            self.questions.deadline(),
            self.draining.as_ref().and_then(Draining::next),
            self.retelling.map(|(_, at)| at),
            self.nicknames.next(),
        ];
        next.into_iter().flatten().min().map(|at| self.base + Duration::from_nanos(at))
    }

    /// Runs expired timers. The work is bounded; if more is due, [`Self::poll_timeout`] returns a past time.
    pub fn handle_timeout(&mut self, now: Instant) {
        let at = self.nanos(now);
        for _ in 0..BATCH {
            let Some(slot) = self.clients.due(at) else { break };
            self.expire(slot, at);
        }
        self.expire_questions(now);
        self.expire_nicknames(now);
        self.retell_some(now);
        self.drain_some(now);
    }

    /// Handles the end of a stream connection: its node is unreachable until it is heard from elsewhere.
    pub fn handle_disconnect(&mut self, source: Source) {
        if let Some(slot) = self.clients.by_source(&source) {
            self.clients.clear_path(slot);
            self.let_go(slot);
        }
    }

    /// Returns true if a node has shown that it receives at this source. A driver uses this to tell which
    /// stream connections belong to nodes.
    pub fn is_used(&self, source: &Source) -> bool {
        self.clients.by_source(source).is_some()
    }

    /// Returns the counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Returns the number of nodes with a session or a registration, at a place where they have shown that
    /// they receive.
    pub fn nodes(&self) -> usize {
        self.clients.proven()
    }

    /// Returns the number of registered nodes.
    pub fn registered(&self) -> usize {
        self.clients.registered()
    }

    /// Returns the number of claimed nicknames.
    pub fn nicknames(&self) -> usize {
        self.nicknames.len()
    }

    /// Returns this root's public keys.
    pub fn identity(&self) -> &PublicIdentity {
        self.config.identity.public()
    }

    /// Returns the nanoseconds since the start, never negative.
    pub(crate) fn nanos(&self, now: Instant) -> Nanos {
        u64::try_from(now.saturating_duration_since(self.base).as_nanos()).unwrap_or(Nanos::MAX)
    }

    pub(crate) fn unix_seconds(&self, now: Instant) -> u64 {
        (self.unix_time + now.saturating_duration_since(self.base)).as_secs()
    }

    /// Returns unpredictable random bytes; `None` if the system has none.
    pub(crate) fn random<const N: usize>(&mut self) -> Option<[u8; N]> {
        let drawn = self.keys.nonce();
        drawn.inspect_err(|_| self.counters.entropy_failures.increment()).ok()
    }

    /// Seals a message in the node's session; returns `None` if it has none.
    pub(crate) fn seal(&mut self, slot: Slot, plaintext: &[u8]) -> Option<Vec<u8>> {
        let provider = self.config.provider.clone();
        self.clients.get_mut(slot)?.current.as_mut()?.seal(&*provider, plaintext)
    }

    /// Sends a message to the place where the node has shown that it receives.
    pub(crate) fn tell(&mut self, slot: Slot, message: &RootMessage) {
        let mut plaintext = Vec::new();
        message.emit(&mut plaintext);
        let path = self.clients.get(slot).and_then(Client::path);
        if let Some((path, datagram)) = path.zip(self.seal(slot, &plaintext)) {
            self.outbox.send(&self.counters, path, datagram);
        }
    }

    /// Sends the node a notice that it did not ask for, at most ten times a second.
    pub(crate) fn notice(&mut self, slot: Slot, code: NoticeCode, about: u64, at: Nanos) {
        const NOTICES: Budget = Budget::new(10, 20);
        let Some(client) = self.clients.get_mut(slot) else { return };
        if NOTICES.take(&mut client.buckets.notices, 1, at) {
            self.tell(slot, &RootMessage::Notice { code, channel: peersock_overlay::wire::Channel(about) });
        }
    }

    /// Sends a control message to an unproven place of a node, paid by the datagram that came from there.
    pub(crate) fn answer(&mut self, slot: Slot, to: Source, message: Control) -> bool {
        let mut plaintext = Vec::new();
        message.emit(&mut plaintext);
        self.answer_sealed(slot, to, &plaintext)
    }

    /// Sends a root's message like [`Self::answer`].
    pub(crate) fn answer_there(&mut self, slot: Slot, to: Source, message: &RootMessage) -> bool {
        let mut plaintext = Vec::new();
        message.emit(&mut plaintext);
        self.answer_sealed(slot, to, &plaintext)
    }

    fn answer_sealed(&mut self, slot: Slot, to: Source, plaintext: &[u8]) -> bool {
        let Some(datagram) = self.seal(slot, plaintext) else { return false };
        // A proven place needs no credit.
        if self.clients.get(slot).is_some_and(|client| client.path() == Some(to)) {
            self.outbox.send(&self.counters, to, datagram);
            return true;
        }
        self.outbox.answer(&self.counters, to, datagram)
    }

    /// Handles an expired deadline of the client.
    fn expire(&mut self, slot: Slot, at: Nanos) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let gone = client.take_expired(at);
        let is_over = client.registered.is_some_and(|registered| at >= registered.expires);
        let id = client.id;
        self.clients.free_indices(gone);
        let ended = is_over.then(|| self.clients.update(slot, |client| client.registered.take()));
        if let Some(registered) = ended.flatten().flatten() {
            self.clients.free_channel(registered.channel);
            self.counters.registrations_expired.increment();
            self.tell_gone(&id);
            self.let_go(slot);
        }
        if !self.clients.schedule(slot) {
            self.clients.remove(slot);
        }
    }

    /// Drops all of a node that is gone and not registered, except handshakes that it has not used yet.
    pub(crate) fn let_go(&mut self, slot: Slot) {
        let Some(client) = self.clients.get_mut(slot).filter(|client| !client.is_node()) else { return };
        let used = [client.current.take(), client.previous.take()];
        client.challenge = None;
        self.clients.free_indices(used.into_iter().flatten().map(|session| session.index));
        if !self.clients.schedule(slot) {
            self.clients.remove(slot);
        }
    }

    /// Forgets a client completely.
    pub(crate) fn forget(&mut self, slot: Slot) {
        if let Some(client) = self.clients.remove(slot)
            && client.registered.is_some()
        {
            self.tell_gone(&client.id);
        }
    }

    pub(crate) fn tell_gone(&mut self, id: &NodeId) {
        if let Some(directory) = &mut self.directory {
            directory.gone(id);
        }
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root")
            .field("id", &self.id)
            .field("nodes", &self.nodes())
            .field("registered", &self.registered())
            .finish_non_exhaustive()
    }
}
