//! Settings and start of a node.

mod named;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use peersock_overlay::membership::MemberName;
use peersock_overlay::wire::DISCOVERY_PORT;
use peersock_overlay::{Endpoint, EndpointConfig, Identity, NoEntropy, Restricted, Suite, default_provider};
use peersock_stack::Stack;
use zeroize::Zeroizing;

use super::closing::Closing;
use super::machine::Machine;
use super::meeting::Meetings;
use super::root_list::RootLists;
use super::{Inner, Node, contact, probe, singleton, visit};
use crate::TurnServer;
use crate::config::{Dht, Feature, MissingFeature, RootSource, require_for_roots};
use crate::driver::{BusyPoll, Driver, Interfaces, UdpSockets};
use crate::interfaces::{Target, require_for_turn};
use crate::management::{END_MARK, ManagementServer, Request, STOPPED};
use crate::netcheck::Netcheck;
use crate::settings::{
    MAX_BUSY_POLL, VariableError, busy_poll_of_environment, dht_of_environment, roots_of_environment,
    stun_of_environment, turn_of_environment,
};
use crate::state::{StateDir, StateError};
use crate::sync;
use crate::sys::process::Process;

/// Source of a node's identity.
///
/// ```
/// use peersock::IdentitySource;
/// let kept = IdentitySource::StateDir("/var/lib/myprogram/peersock".into());
/// let forgotten_at_exit = IdentitySource::Ephemeral;
/// # let _ = (kept, forgotten_at_exit);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum IdentitySource {
    /// Default state directory, see [`StateDir::default_path`].
    Default,
    /// State directory: made if missing, and used by one node at a time.
    StateDir(PathBuf),
    /// Fresh identity that is never stored.
    Ephemeral,
    /// Identity of a secret seed. Keep the seed as secret as a private key.
    Seed(Seed),
    /// State directory that was opened before by [`StateDir::for_later`], for a program that drops its
    /// permission to open it before the node starts.
    Opened(StateDir),
}

/// Secret seed; it prints as `[redacted]`.
///
/// ```
/// use peersock::{IdentitySource, Seed};
/// assert_eq!(format!("{:?}", IdentitySource::Seed(Seed([7; 32]))), "Seed([redacted])");
/// ```
#[derive(Clone, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct Seed(pub [u8; 32]);

impl Seed {
    /// Generates a seed from the operating system's randomness.
    ///
    /// # Errors
    /// Fails if the system has no randomness.
    pub fn generate() -> io::Result<Seed> {
        random_seed().map(|seed| Seed(*seed))
    }

    /// Returns the public keys of the seed's identity.
    pub fn public_identity(&self) -> peersock_overlay::PublicIdentity {
        *Identity::from_seed(&self.0).public()
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // `NodeBuilder` derives `Debug`, and a log of it must not show the seed.
        f.write_str("[redacted]")
    }
}

/// Reason why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The state directory or its identity cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The chosen UDP port is taken.
    #[error("UDP port {port} is taken by another program; choose another, or 0 to let the system choose")]
    PortTaken {
        /// Port that is taken.
        port: u16,
    },
    /// The chosen UDP port needs a privilege that the process lacks.
    #[error(
        "UDP port {port} may not be used by this user; choose one from 1024 on, or 0 to let the system choose"
    )]
    PortForbidden {
        /// Port that is forbidden.
        port: u16,
    },
    /// The process already has a singleton node.
    #[error("this process has a node already; use peersock::node(), or start() for one more")]
    AlreadyInstalled,
    /// A variable of the environment is malformed, or a file that it names cannot be read.
    #[error(transparent)]
    Variable(#[from] VariableError),
    /// More TURN servers are named than a node uses.
    #[error("{named} TURN servers are named, but a node asks at most {MAX_TURN_SERVERS}")]
    TooManyTurnServers {
        /// Number of servers.
        named: usize,
    },
    /// This build of the library lacks the cipher that [`NodeBuilder::only_suite`] names.
    #[error("this build has no {0}; leave the choice of the cipher to the node")]
    NoSuite(Suite),
    /// The settings, or the environment, need a feature that this build of the library lacks.
    #[error(transparent)]
    MissingFeature(#[from] MissingFeature),
    /// The DHT cannot be used, for example because the node may only use the loopback interface.
    #[error("the DHT cannot be used: {0}")]
    Dht(#[source] io::Error),
    /// The system refused sockets, threads or randomness.
    #[error("the node cannot start: {0}")]
    Io(#[from] io::Error),
}

impl From<StartError> for io::Error {
    fn from(error: StartError) -> io::Error {
        match error {
            StartError::Io(error) => error,
            StartError::PortTaken { .. } => io::Error::new(io::ErrorKind::AddrInUse, error),
            StartError::PortForbidden { .. } => io::Error::new(io::ErrorKind::PermissionDenied, error),
            StartError::MissingFeature(error) => error.into(),
            other => io::Error::other(other),
        }
    }
}

/// Limit of TURN servers, because each needs separate threads and sockets.
const MAX_TURN_SERVERS: usize = 4;

/// Settings of a node before its start.
///
/// ```
/// use peersock::{IdentitySource, Interfaces, Node};
/// let node = Node::builder()
///     .identity(IdentitySource::Ephemeral)
///     .interfaces(Interfaces::Loopback)
///     .port(0)
///     .start()?;
/// # Ok::<(), peersock::StartError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct NodeBuilder {
    identity: IdentitySource,
    interfaces: Interfaces,
    port: u16,
    discovery_port: Option<u16>,
    introduce: bool,
    busy_poll: Option<Duration>,
    roots: Option<Vec<RootSource>>,
    dht: Option<Dht>,
    turn: Option<Vec<TurnServer>>,
    maps_ports: Option<bool>,
    stun: Option<Vec<Target>>,
    birthday: bool,
    tcp_punch: Option<bool>,
    suite: Option<Suite>,
    stack: peersock_stack::Config,
    beside: bool,
    label: Option<MemberName>,
}

impl Default for NodeBuilder {
    fn default() -> NodeBuilder {
        NodeBuilder {
            identity: IdentitySource::Default,
            interfaces: Interfaces::All,
            port: 0,
            discovery_port: Some(DISCOVERY_PORT),
            introduce: true,
            busy_poll: None,
            roots: None,
            dht: None,
            turn: None,
            maps_ports: None,
            stun: None,
            birthday: true,
            tcp_punch: None,
            suite: None,
            stack: peersock_stack::Config::default(),
            beside: false,
            label: None,
        }
    }
}

impl NodeBuilder {
    /// Sets the source of the identity. Default: the default state directory.
    pub fn identity(mut self, identity: IdentitySource) -> Self {
        self.identity = identity;
        self
    }

    /// Sets whether this node runs *beside* the machine's node if another process, or another node in this
    /// one, has the state directory. Otherwise the start fails then, and a [`label`](Self::label) counts no
    /// more. Default: no.
    ///
    /// Such a node has its own keys and address. It may join the managed and static networks in which the
    /// machine is a member, and is admitted there by a certificate of the machine's keys: under the machine's
    /// name and rights, without a controller, and no longer than the machine. It cannot join ad-hoc networks.
    ///
    /// ```no_run
    /// use peersock::{Network, Node};
    ///
    /// // Each of several processes of a machine may do this at the same time.
    /// let node = Node::builder().beside(true).start()?;
    /// let joined = node.join(Network::by_id("8056c2e21c000001".parse()?)?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn beside(mut self, on: bool) -> Self {
        self.beside = on;
        self.label = self.label.filter(|_| on);
        self
    }

    /// Makes this node one beside the machine's, see [`beside`](Self::beside), even if no other process has
    /// the state directory. It is reached as `label.machine`. Default: no label.
    ///
    /// ```no_run
    /// let node = peersock::Node::builder().label("web".parse()?).start()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn label(mut self, label: MemberName) -> Self {
        (self.label, self.beside) = (Some(label), true);
        self
    }

    /// Sets the network interfaces that the node may use, for everything. Default: all.
    pub fn interfaces(mut self, interfaces: Interfaces) -> Self {
        self.interfaces = interfaces;
        self
    }

    /// Sets the UDP port of the node; 0, the default, lets the system choose. A fixed port is needed if other
    /// nodes name this one as a static endpoint.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets whether the node finds, and is found by, peers on this machine and the local networks. Default:
    /// yes.
    pub fn discovery(mut self, on: bool) -> Self {
        self.discovery_port = on.then(|| self.discovery_port.unwrap_or(DISCOVERY_PORT));
        self
    }

    /// Sets the UDP port of beacons, the same on all nodes that should find each other. Default: 7473.
    pub fn discovery_port(mut self, port: u16) -> Self {
        self.discovery_port = Some(port);
        self
    }

    /// Sets how long a thread that waits for packets polls before it sleeps, at most 10 ms; longer times
    /// count as 10 ms. An answer that comes in that time is read at once, without the system's wake-up
    /// latency. Busy polling costs a processor while packets flow, and nothing while none do, like
    /// SO_BUSY_POLL of socket(7). Zero: never.
    ///
    /// Default: the environment's `PEERSOCK_BUSY_POLL`, in microseconds. Without it the node adapts. It polls
    /// while packets come within 50 microseconds on average, but not during bulk transfers, not while other
    /// programs want the processors, and never on a machine with a single processor.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use peersock::{IdentitySource, Interfaces, Node};
    /// # let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    /// let node = node.busy_poll(Duration::from_micros(50)).start()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn busy_poll(mut self, time: Duration) -> Self {
        self.busy_poll = Some(time);
        self
    }

    /// Sets whether discovery tells others who this node is. Otherwise the node learns of its peers, and
    /// stays unknown until it opens a connection or sends something. Default: yes.
    pub fn introduce(mut self, on: bool) -> Self {
        self.introduce = on;
        self
    }

    /// Sets the roots at which the node can be found, and which relay for it; at most eight are used, in this
    /// order. [`RootSource`] lists the sources besides the [`RootAddress`](crate::RootAddress) of one root.
    /// Default: the environment's `PEERSOCK_ROOTS`, as [`RootSource::load`] reads it.
    ///
    /// ```
    /// use peersock::overlay::Identity;
    /// use peersock::{Node, RootAddress, RootSource};
    ///
    /// let key = Identity::from_seed(&[7; 32]).public().to_string();
    /// let roots = RootAddress::parse_list(&format!("{key}@192.0.2.1:7420"))?;
    /// let settings = Node::builder().roots(roots);
    /// let from_the_dns = Node::builder().roots(RootSource::load("dns:example.org")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn roots(mut self, roots: impl IntoIterator<Item = impl Into<RootSource>>) -> Self {
        self.roots = Some(roots.into_iter().map(Into::into).collect());
        self
    }

    /// Uses the roots of the environment's `PEERSOCK_ROOTS`, which is the default.
    pub fn roots_of_environment(mut self) -> Self {
        self.roots = None;
        self
    }

    /// Sets whether this node can be found, and finds others, by the BitTorrent DHT, without any root.
    /// Default: the environment's `PEERSOCK_DHT`, and off without it. Nodes of the DHT learn the machine's
    /// address, as of any other DHT node, but neither the network nor the names of those that meet. The DHT
    /// needs IPv4. On a network with only IPv6, even with a NAT64, the node reports that in the log and in
    /// [`Status::dht`](crate::Status::dht), and enters the DHT as soon as IPv4 is available.
    ///
    /// ```
    /// use peersock::{Dht, Node};
    ///
    /// let settings = Node::builder().dht(Dht::Public);
    /// ```
    pub fn dht(mut self, dht: Dht) -> Self {
        self.dht = Some(dht);
        self
    }

    /// Sets TURN servers (RFC 8656) that relay to this node, at most four; more are an error at the start. If
    /// no direct path to a peer opens, a path over a TURN server is used, as one over a root is. Default: the
    /// servers in the environment's `PEERSOCK_TURN`, separated by white space. A node without roots and DHT
    /// asks none, because its peers would not learn of the relayed address.
    ///
    /// ```
    /// use peersock::{Node, TurnServer};
    ///
    /// let server: TurnServer = "turn:alice:sesame@turn.example.org:3478".parse()?;
    /// let settings = Node::builder().turn([server]);
    /// # Ok::<(), peersock::TurnServerError>(())
    /// ```
    pub fn turn(mut self, servers: impl IntoIterator<Item = TurnServer>) -> Self {
        self.turn = Some(servers.into_iter().collect());
        self
    }

    /// Uses the TURN servers of the environment's `PEERSOCK_TURN`, which is the default.
    pub fn turn_of_environment(mut self) -> Self {
        self.turn = None;
        self
    }

    /// Sets whether routers may be asked to forward a port to this node, by PCP, NAT-PMP or UPnP. Default:
    /// yes, if the feature `portmap` is enabled. A node without roots and DHT asks none.
    pub fn port_mapping(mut self, on: bool) -> Self {
        self.maps_ports = Some(on);
        self
    }

    /// Sets STUN servers (RFC 8489) that tell this node its address, so that peers behind other NATs learn of
    /// it: in place of roots and of nodes of the DHT, or beside them. Default: the servers in the
    /// environment's `PEERSOCK_STUN`. A node without roots and DHT asks none, because no peer would learn of
    /// the address.
    ///
    /// ```
    /// use peersock::{Node, interfaces::load_stun_servers};
    ///
    /// let settings = Node::builder().stun(load_stun_servers("stun.example.org:3478")?);
    /// # Ok::<(), peersock::interfaces::LoadStunError>(())
    /// ```
    pub fn stun(mut self, servers: impl IntoIterator<Item = Target>) -> Self {
        self.stun = Some(servers.into_iter().collect());
        self
    }

    /// Sets whether the node also searches for a direct path by many ports (the *birthday* attack on NATs).
    /// If this node's NAT maps each destination to another port, it opens 256 more sockets for some seconds.
    /// If a peer's does, it sends 1024 short packets to the peer's address, 200 a second. Some providers take
    /// that for a port scan. The search only runs if nothing else has led to a direct path, at most every few
    /// minutes. It turns itself off if that many sockets cannot be opened. Default: yes.
    ///
    /// ```
    /// let settings = peersock::Node::builder().birthday(false);
    /// ```
    pub fn birthday(mut self, on: bool) -> Self {
        self.birthday = on;
        self
    }

    /// Sets whether the node also searches for a direct path by TCP, if a root relays and no path by UDP
    /// exists. Both nodes connect to each other at once, from and to the port at which a root has seen them,
    /// which opens many NATs. The node listens on a TCP port for some seconds then. Default: yes, if the
    /// feature `streams` is enabled.
    ///
    /// ```
    /// let settings = peersock::Node::builder().tcp_punch(false);
    /// ```
    pub fn tcp_punch(mut self, on: bool) -> Self {
        self.tcp_punch = Some(on);
        self
    }

    /// Sets the only cipher for data to and from peers. A peer that lacks it cannot be reached; all nodes
    /// have both, unless they are restricted like this or were built without the feature `aws-lc`. Default:
    /// the faster one of each two nodes, AES-256-GCM if both processors have instructions for it and
    /// ChaCha20-Poly1305 otherwise.
    ///
    /// ```
    /// use peersock::overlay::Suite;
    ///
    /// # use peersock::{IdentitySource, Interfaces, Node};
    /// # let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    /// let node = node.only_suite(Suite::ChaCha20Poly1305).start()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn only_suite(mut self, suite: Suite) -> Self {
        self.suite = Some(suite);
        self
    }

    /// Sets the send and receive buffer of each TCP socket, bytes. Default: 64 MiB each. A socket uses memory
    /// only as far as it fills it.
    pub fn tcp_buffers(mut self, send: usize, receive: usize) -> Self {
        self.stack.send_buffer = send;
        self.stack.receive_buffer = receive;
        self
    }

    /// Returns a check of the network for a node with these settings: with its interfaces, roots, TURN
    /// servers and discovery port.
    ///
    /// ```
    /// use peersock::{Interfaces, Node};
    ///
    /// let settings = Node::builder().interfaces(Interfaces::Loopback);
    /// let report = settings.netcheck().run()?;
    /// println!("{}", report.to_json());
    /// # Ok::<(), peersock::netcheck::NetcheckError>(())
    /// ```
    pub fn netcheck(&self) -> Netcheck {
        let mut check = Netcheck::new().interfaces(self.interfaces.clone());
        if let Some(roots) = &self.roots {
            check = check.roots(roots.iter().cloned());
        }
        if let Some(turn) = &self.turn {
            check = check.turn(turn.iter().cloned());
        }
        match self.discovery_port {
            Some(port) => check.discovery_port(port),
            None => check,
        }
    }

    /// Starts the node.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(self) -> Result<Node, StartError> {
        // The environment comes first, so that a mistake in it leaves no trace.
        let roots = self.roots.clone().map_or_else(roots_of_environment, Ok)?;
        let dht = self.dht.clone().map_or_else(dht_of_environment, Ok)?;
        let turn = self.turn.clone().map_or_else(turn_of_environment, Ok)?;
        let stun = self.stun.clone().map_or_else(stun_of_environment, Ok)?;
        let busy_poll = self.busy_poll.map_or_else(busy_poll_of_environment, |time| Ok(Some(time)))?;
        let longest = Duration::from_micros(MAX_BUSY_POLL.into());
        let busy_poll = busy_poll.map_or(BusyPoll::Adaptive, |time| BusyPoll::For(time.min(longest)));
        if turn.len() > MAX_TURN_SERVERS {
            return Err(StartError::TooManyTurnServers { named: turn.len() });
        }
        if !turn.is_empty() && roots.is_empty() && !dht.is_on() {
            tracing::info!(
                "no TURN server is asked, because peers learn of the relayed address only by roots or a DHT"
            );
        }
        // Before anything is opened, so that a missing feature leaves no trace.
        let (maps_ports, tcp_punch) = self.check_features(&roots, &dht, &turn)?;
        let provider = match self.suite {
            None => default_provider(),
            Some(suite) => {
                let restricted = Restricted::new(default_provider(), suite);
                let missing = || match Feature::AwsLc.require(suite) {
                    Err(missing) => StartError::MissingFeature(missing),
                    Ok(()) => StartError::NoSuite(suite),
                };
                Arc::new(restricted.ok_or_else(missing)?)
            }
        };
        // A state directory in use fails here, before any socket is open.
        let Keys { identity, state, machine } = self.open_identity()?;
        let sockets =
            UdpSockets::bind(self.interfaces.clone(), self.port, self.discovery_port).map_err(|error| {
                match error.kind() {
                    io::ErrorKind::AddrInUse => StartError::PortTaken { port: self.port },
                    // Only privileged ports; for others a sandbox refuses.
                    io::ErrorKind::PermissionDenied if (1..1024).contains(&self.port) => {
                        StartError::PortForbidden { port: self.port }
                    }
                    _ => StartError::Io(error),
                }
            })?;
        let public = *identity.public();
        // Peers limit their bytes in flight to this size.
        let receive_buffer = u32::try_from(sockets.receive_buffer()).unwrap_or(u32::MAX);
        let identity = Arc::new(identity);
        let mut config = EndpointConfig::new(Arc::clone(&identity));
        config.provider = provider;
        config.receive_buffer = receive_buffer;
        config.introduce = self.introduce;
        config.birthday = self.birthday;
        config.tcp_punch = tcp_punch;
        config.entropy = Some(Arc::new(|out| getrandom::fill(out).map_err(|_| NoEntropy)));
        let now = Instant::now();
        let unix_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let endpoint = Endpoint::new(config, *random_seed()?, now, unix_time);
        let stack = Stack::new(self.stack, *random_seed()?, now);
        let driver = Driver::start(endpoint, stack, Arc::new(sockets), busy_poll)?;
        let settings = contact::Settings {
            allowed: self.interfaces.clone(),
            stun,
            turn,
            maps_ports,
            has_dht: dht.is_on(),
        };
        let node = Node {
            inner: Arc::new(Inner {
                process: Process::current(),
                driver,
                identity: public,
                closing: Closing::default(),
                sockets: Mutex::default(),
                membership: Mutex::default(),
                joined: Mutex::default(),
                local_names: Mutex::default(),
                visits: Mutex::default(),
                managed: Mutex::default(),
                down: Default::default(),
                started: now,
                management: Mutex::new(None),
                contact_settings: Mutex::new(Some(settings)),
                keeper: Default::default(),
                meetings: Default::default(),
                root_sources: Default::default(),
                root_lists: Mutex::default(),
                programs: Mutex::default(),
                waiting_until: Mutex::default(),
                ipv4_aliases: Mutex::default(),
                state,
                machine,
            }),
        };
        if dht.is_on() {
            let meetings = Meetings::start(&node.inner, identity, &dht, &self.interfaces);
            let _ = node.inner.meetings.set(meetings.map_err(StartError::Dht)?);
            // The DHT publishes the contact, so it is needed even without roots.
            node.inner.keep_contact();
        }
        // Roots start after the DHT, because publishing roots starts the contact search, which needs the
        // DHT's publisher.
        let _ = node.inner.root_sources.set(RootLists::new(&node.inner));
        node.add_roots(roots);
        // Last, so that a request finds the node complete.
        node.serve_management()?;
        Ok(node)
    }

    /// Starts the node and makes it the one that [`node()`](crate::node()) and sockets opened without a node
    /// use.
    ///
    /// # Errors
    /// Returns [`StartError::AlreadyInstalled`] if the process already has such a node, and the errors of
    /// [`NodeBuilder::start`].
    pub fn install(self) -> Result<Node, StartError> {
        singleton::install(self)
    }

    /// Fails if the settings need a feature that this build lacks. Returns whether ports are mapped, and
    /// whether TCP is tried between nodes.
    fn check_features(
        &self,
        roots: &[RootSource],
        dht: &Dht,
        turn: &[TurnServer],
    ) -> Result<(bool, bool), MissingFeature> {
        require_for_roots(roots)?;
        require_for_turn(turn)?;
        if dht.is_on() {
            Feature::Dht.require("the DHT")?;
        }
        let wanted = |switch: Option<bool>, feature: Feature, what| {
            if switch == Some(true) {
                feature.require(what)?;
            }
            Ok(switch.unwrap_or(feature.is_there()))
        };
        let maps_ports = wanted(self.maps_ports, Feature::Portmap, "mapping a port")?;
        Ok((maps_ports, wanted(self.tcp_punch, Feature::Streams, "TCP between nodes")?))
    }

    fn open_identity(&self) -> Result<Keys, StartError> {
        let path = match &self.identity {
            IdentitySource::Ephemeral => return Ok(Keys::of(Identity::from_seed(&*random_seed()?))),
            IdentitySource::Seed(seed) => return Ok(Keys::of(Identity::from_seed(&seed.0))),
            IdentitySource::Default => StateDir::default_path()?,
            IdentitySource::StateDir(path) => path.clone(),
            IdentitySource::Opened(state) => {
                return Ok(Keys { state: Some(state.clone()), ..Keys::of(state.identity()?) });
            }
        };
        let label = self.label.clone().filter(|_| self.beside);
        let in_use = match StateDir::open(&path) {
            Ok(state) => {
                let identity = state.identity()?;
                if label.is_none() {
                    return Ok(Keys { identity, state: Some(state), machine: None });
                }
                None
            }
            Err(in_use @ StateError::InUse { .. }) if self.beside => Some(in_use),
            Err(error) => return Err(error.into()),
        };
        let reason = in_use.as_ref().map_or_else(|| WITH_LABEL.to_owned(), StateError::to_string);
        match (Machine::open(path, label, reason, self)?, in_use) {
            (Some(machine), _) => {
                let identity = Identity::from_seed(&*random_seed()?);
                Ok(Keys { machine: Some(machine), ..Keys::of(identity) })
            }
            (None, Some(in_use)) => Err(in_use.into()),
            (None, None) => Err(io::Error::other("the identity was removed").into()),
        }
    }
}

/// Reason why a node with a label joins no ad-hoc networks.
const WITH_LABEL: &str = "a program with a label has a node beside its machine's";

/// Keys of a node, and their place.
struct Keys {
    identity: Identity,
    state: Option<StateDir>,
    /// Machine beside whose node this one runs.
    machine: Option<Machine>,
}

impl Keys {
    /// Returns keys that no place keeps.
    fn of(identity: Identity) -> Keys {
        Keys { identity, state: None, machine: None }
    }
}

impl Node {
    /// Serves `peersock status` over the state directory's management socket, if there is a state directory.
    fn serve_management(&self) -> io::Result<()> {
        let Some(state) = &self.inner.state else { return Ok(()) };
        // Weak, because the server must not keep the node running.
        let inner = self.downgrade();
        let server = ManagementServer::start(state, move |request, client| {
            let status = || inner.upgrade().map(|inner| Node { inner }.status()).ok_or(STOPPED);
            match request {
                Request::Status { peers } => {
                    let mut status = status()?;
                    status.limit_peers(peers);
                    serde_json::to_string(&status).map_err(|_| "the status cannot be written down".into())
                }
                Request::Prometheus { peers } => Ok(status()?.prometheus(peers) + END_MARK),
                Request::Probe(request) => {
                    let probed = probe::answer(&inner, &request, &|| client.has_left())?;
                    serde_json::to_string(&probed).map_err(|_| "the result cannot be written down".into())
                }
                Request::Join(request) => visit::serve(&inner, &request, client),
                Request::Leave(network) => visit::leave(&inner, network),
                Request::Effect(request) => visit::effect(&inner, &request),
            }
        })?;
        *sync::lock(&self.inner.management) = Some(server);
        Ok(())
    }
}

fn random_seed() -> io::Result<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(io::Error::other)?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RootAddress;

    /// Returns the feature that these settings need and the build lacks.
    fn missing(builder: &NodeBuilder, roots: &str, turn: &str) -> Option<&'static str> {
        let key = Seed([7; 32]).public_identity();
        let roots: Vec<RootSource> = match roots {
            "" => Vec::new(),
            domain if domain.starts_with("dns:") => vec![domain.parse().expect("a domain")],
            endpoints => {
                vec![format!("{key}@{endpoints}").parse::<RootAddress>().expect("a root").into()]
            }
        };
        let turn: Vec<TurnServer> =
            turn.split_whitespace().map(|text| text.parse().expect("a server")).collect();
        let dht = builder.dht.clone().unwrap_or_default();
        builder.check_features(&roots, &dht, &turn).err().map(|error| error.feature)
    }

    #[test]
    fn what_names_something_that_a_build_lacks_is_told_the_feature() {
        let plain = Node::builder();
        let lacks = |feature: Feature, name| (!feature.is_there()).then_some(name);
        assert_eq!(missing(&plain, "192.0.2.1:7420", ""), None);
        assert_eq!(missing(&plain.clone().port_mapping(false).tcp_punch(false).dht(Dht::Off), "", ""), None);
        assert_eq!(missing(&plain, "tcp:192.0.2.1:80", ""), lacks(Feature::Streams, "streams"));
        // Such a root is reached by its other endpoint.
        assert_eq!(missing(&plain, "192.0.2.1:7420,tcp:192.0.2.1:80,wss:192.0.2.1:443", ""), None);
        for endpoint in ["tls:192.0.2.1:443", "wss:192.0.2.1:443"] {
            assert_eq!(missing(&plain, endpoint, ""), lacks(Feature::Tls, "tls"), "{endpoint}");
        }
        assert_eq!(missing(&plain, "dns:example.org", ""), lacks(Feature::Dns, "dns"));
        assert_eq!(missing(&plain.clone().dht(Dht::Public), "", ""), lacks(Feature::Dht, "dht"));
        assert_eq!(missing(&plain.clone().port_mapping(true), "", ""), lacks(Feature::Portmap, "portmap"));
        assert_eq!(missing(&plain.clone().tcp_punch(true), "", ""), lacks(Feature::Streams, "streams"));
        assert_eq!(missing(&plain, "", "turn:a:b@192.0.2.1"), lacks(Feature::Turn, "turn"));
        let by_tls = lacks(Feature::Turn, "turn").or(lacks(Feature::Tls, "tls"));
        assert_eq!(missing(&plain, "", "turns:a:b@192.0.2.1"), by_tls);
    }

    #[test]
    fn a_node_that_lacks_something_does_not_start() {
        let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
        let started = builder.roots(Vec::<RootSource>::new()).port_mapping(true).start();
        assert_eq!(started.is_ok(), Feature::Portmap.is_there());
        if let Err(error) = started {
            assert!(error.to_string().contains("the feature `portmap`"), "{error}");
            assert_eq!(io::Error::from(error).kind(), io::ErrorKind::Unsupported);
        }
    }
}
