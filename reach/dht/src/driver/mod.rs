//! A [`Rendezvous`] on the library `mainline`, in a separate thread.

mod bootstrap;
mod engine;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mainline::async_dht::AsyncDht;
use mainline::{Dht, DhtBuilder};
use peersock_overlay::{Contact, DiscoveryKey, Identity, PublicIdentity};
use thiserror::Error;

use crate::keys::NodeTail;
use crate::record::Record;
use crate::rendezvous::{Config, Counters, Event, Moment, Network, Rendezvous, Target};

pub use bootstrap::answers_any;
use engine::Bell;

/// The nodes by which a node enters the DHT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bootstrap {
    /// These nodes, at least one, for a private DHT.
    Nodes(Vec<SocketAddrV4>),
    /// The public DHT's well-known nodes, whose names are resolved when the service starts.
    Public,
}

/// Settings of a [`Service`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The bootstrap nodes of the DHT.
    pub bootstrap: Bootstrap,
    /// Nodes known from earlier runs, used as well because those in [`Self::bootstrap`] may be away. They
    /// never replace bootstrap nodes that answer, because they may belong to a forged DHT. Default: none.
    pub known: Vec<SocketAddrV4>,
    /// Local address of the DHT socket. Default 0.0.0.0: any.
    pub bind: Ipv4Addr,
    /// UDP port of that socket. Default `None`: 6881 if it is free, else any.
    pub port: Option<u16>,
    /// True if this node serves the DHT from the start. Default false: `mainline` then serves after a quarter
    /// of an hour, if others can reach the node.
    pub serve: bool,
    /// Timeout of a request to a node of the DHT. Default 1 s: a look-up ends that much later than its last
    /// answer, because some nodes are always gone.
    pub request_timeout: Duration,
    /// Intervals and limits of the rendezvous.
    pub config: Config,
}

impl Settings {
    /// Makes settings with the defaults.
    pub fn new(bootstrap: Bootstrap) -> Self {
        Self {
            bootstrap,
            known: Vec::new(),
            bind: Ipv4Addr::UNSPECIFIED,
            port: None,
            serve: false,
            request_timeout: Duration::from_secs(1),
            config: Config::default(),
        }
    }
}

/// Reasons why a [`Service`] did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// [`Bootstrap::Nodes`] is empty.
    #[error("no node for entering the DHT is named")]
    NoBootstrap,
    /// No name of [`Bootstrap::Public`] resolves now: the machine may be without a network.
    #[error("the names of the nodes for entering the DHT are not resolved")]
    Unresolved,
    /// The system provides no randomness.
    #[error("the system gives no randomness")]
    NoEntropy,
    /// A socket or thread could not be created.
    #[error("the node of the DHT cannot start: {0}")]
    Io(#[from] io::Error),
}

/// Publishes this node, finds others, and exchanges knocks, in a separate thread.
///
/// That thread calls a function with each event, which must return soon. Dropping the service ends the thread
/// and leaves the DHT; published records expire.
///
/// ```no_run
/// use std::sync::Arc;
/// use peersock_dht::{Bootstrap, Contact, Event, NodeTail, Service, Settings, Target};
/// use peersock_overlay::{DiscoveryKey, Identity, NetworkId};
///
/// let network = NetworkId::ad_hoc(80..=80)?;
/// let own = Arc::new(Identity::from_seed(&[1; 32]));
/// let service = Service::start(own, Settings::new(Bootstrap::Public), |event| {
///     if let Event::Found { record, .. } = event {
///         println!("it is at {:?}", record.contact.candidates());
///     }
/// })?;
/// let joined = service.join(&DiscoveryKey::new(network, None, None));
/// service.publish(Contact::default());
/// let address = "fd6b:12ef:2be5:686:3158:4010:c99a:de4c".parse()?;
/// service.find(joined, Target::Address(NodeTail::of_address(&address)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Service {
    shared: Arc<Shared>,
    dht: AsyncDht,
    /// The nodes of [`Settings::bootstrap`] that were used to enter the DHT.
    entries: Vec<SocketAddrV4>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    rendezvous: Mutex<Rendezvous>,
    bell: Arc<Bell>,
}

impl Shared {
    /// Locks the machine. Poisoning is ignored, because every step leaves the machine consistent.
    fn lock(&self) -> MutexGuard<'_, Rendezvous> {
        self.rendezvous.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    /// Starts the node of the DHT and the thread. With [`Bootstrap::Public`] this first resolves names, which
    /// may take seconds; at most three if other nodes are known.
    /// Errors: see [`StartError`].
    pub fn start(
        own: Arc<Identity>,
        settings: Settings,
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, StartError> {
        let mut builder = DhtBuilder::default();
        if settings.bootstrap == Bootstrap::Nodes(Vec::new()) {
            return Err(StartError::NoBootstrap);
        }
        let entries = bootstrap::resolve(&settings.bootstrap, !settings.known.is_empty());
        let known = settings.known.iter().filter(|node| !entries.contains(node));
        let all: Vec<SocketAddrV4> = entries.iter().chain(known).copied().collect();
        if all.is_empty() {
            // `mainline` would wait forever to be found by others.
            return Err(StartError::Unresolved);
        }
        builder.bootstrap(&all).bind_address(settings.bind).request_timeout(settings.request_timeout);
        if let Some(port) = settings.port {
            builder.port(port);
        }
        if settings.serve {
            builder.server_mode();
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| StartError::NoEntropy)?;
        let rendezvous = Mutex::new(Rendezvous::new(own, settings.config, seed, moment()));
        let dht: AsyncDht = Dht::as_async(builder.build()?);
        let shared = Arc::new(Shared { rendezvous, bell: Arc::default() });
        let (for_thread, its_dht) = (shared.clone(), dht.clone());
        let thread = std::thread::Builder::new()
            .name("peersock dht".into())
            .spawn(move || engine::run(&for_thread, &its_dht, on_event))?;
        Ok(Self { shared, dht, entries, thread: Some(thread) })
    }

    /// Joins a network.
    pub fn join(&self, key: &DiscoveryKey) -> Network {
        self.call(|rendezvous, now| rendezvous.join(now, key))
    }

    /// Leaves a network.
    pub fn leave(&self, network: Network) {
        self.call(|rendezvous, _| rendezvous.leave(network));
    }

    /// See [`Rendezvous::publish`].
    pub fn publish(&self, contact: Contact) {
        self.call(|rendezvous, now| rendezvous.publish(now, contact));
    }

    /// See [`Rendezvous::withdraw`].
    pub fn withdraw(&self) {
        self.call(|rendezvous, _| rendezvous.withdraw());
    }

    /// See [`Rendezvous::find`].
    pub fn find(&self, network: Network, target: Target) {
        self.call(|rendezvous, now| rendezvous.find(now, network, target));
    }

    /// See [`Rendezvous::knock`].
    pub fn knock(&self, network: Network, peer: NodeTail) {
        self.call(|rendezvous, now| rendezvous.knock(now, network, peer));
    }

    /// See [`Rendezvous::met`].
    pub fn met(&self, network: Network, peer: &NodeTail) {
        self.call(|rendezvous, _| rendezvous.met(network, peer));
    }

    /// See [`Rendezvous::watch`].
    pub fn watch(&self, network: Network, peer: PublicIdentity) {
        self.call(|rendezvous, _| rendezvous.watch(network, peer));
    }

    /// See [`Rendezvous::record`].
    pub fn record(&self, network: Network, node: &NodeTail) -> Option<Record> {
        self.shared.lock().record(moment(), network, node).cloned()
    }

    /// Returns the numbers of refused items, by reason.
    pub fn counters(&self) -> Counters {
        *self.shared.lock().counters()
    }

    /// Returns the nodes of [`Settings::bootstrap`] that were used to enter the DHT. The slice is empty if no
    /// name resolved in time and only the known nodes were used.
    pub fn entries(&self) -> &[SocketAddrV4] {
        &self.entries
    }

    /// Returns nodes of the DHT that have answered lately. Store them, and pass them as known nodes at the
    /// next start.
    pub fn known_nodes(&self) -> Vec<SocketAddrV4> {
        let nodes = futures_lite::future::block_on(self.dht.to_bootstrap());
        nodes.iter().filter_map(|node| node.parse().ok()).collect()
    }

    fn call<T>(&self, step: impl FnOnce(&mut Rendezvous, Moment) -> T) -> T {
        let result = step(&mut self.shared.lock(), moment());
        self.shared.bell.ring();
        result
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.bell.stop();
        if let Some(thread) = self.thread.take() {
            // Do not join from the thread itself, because the event function may own the service.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("the thread that met others by the DHT has panicked");
            }
        }
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

fn moment() -> Moment {
    // A clock before 1970 gives records of 1970, which other nodes refuse as expired.
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment { instant: Instant::now(), unix }
}
