//! The driver: UDP sockets, stream connections, time, metrics.
//!
//! One task owns the state machine and the sockets, so no lock lies on the way of a relayed frame. It waits
//! for whatever comes first: a socket that can be read, a datagram of a stream connection, a deadline. What
//! it receives in one go (a batch of GRO trains) it hands to the state machine frame by frame; frames that go
//! to the same node leave in one GSO train again, from the buffer they came in where that is possible. Up to
//! 512 datagrams that wait in a socket are read before what they bring leaves, so that single datagrams of
//! many nodes become few trains, and few system calls.
//!
//! Stream connections have tasks of their own, which read and write whole datagrams; bounded queues lie
//! between them and the root.

mod address;
mod announce;
mod batch;
mod directory;
mod messages;
mod metrics;
mod redis;
mod run;
mod streams;
mod udp;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use peersock_overlay::NoEntropy;
use peersock_overlay::wire::Announcement;
use tokio::net::TcpListener;

pub use address::{advertised, interface_addresses};
pub use directory::DirectoryTraffic;
pub use peersock_streams::{CertificateFiles, Limits as StreamLimits, ServerHandle};
#[doc(hidden)]
pub use redis::fuzzing as directory_fuzzing;
pub use redis::{RedisConfig, RedisUrlError};
pub use streams::StreamListen;

use crate::{Config, Counters, Root};
use announce::Announcer;
use batch::Gathering;
use streams::Streams;
use udp::Sockets;

/// Where and how a root serves.
///
/// ```
/// use std::time::Duration;
/// use peersock_root::server::Listen;
///
/// let listen = Listen { drain: Duration::from_secs(60), ..Listen::on("127.0.0.1:0".parse()?) };
/// assert!(listen.metrics.is_none() && listen.streams.is_none());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Listen {
    /// Addresses of UDP sockets. An unspecified one stands for all of its family; port 0 lets the system
    /// choose.
    pub udp: Vec<SocketAddr>,
    /// Where streams are taken, for nodes whose networks let no UDP pass; nowhere if `None`.
    pub streams: Option<StreamListen>,
    /// Where `/metrics` and `/health` are served over HTTP; nowhere if `None`. It is for the operator:
    /// whoever reaches it can read it.
    pub metrics: Option<SocketAddr>,
    /// How long nodes have to go elsewhere before the end.
    pub drain: Duration,
}

impl Listen {
    /// UDP at this address and nothing else; ten seconds for nodes to go elsewhere.
    pub fn on(udp: SocketAddr) -> Self {
        Self { udp: vec![udp], streams: None, metrics: None, drain: Duration::from_secs(10) }
    }
}

/// A root on its sockets, ready to run.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use peersock_overlay::Identity;
/// use peersock_root::Config;
/// use peersock_root::server::{Listen, Server};
///
/// # fn main() -> std::io::Result<()> {
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// runtime.block_on(async {
///     let config = Config::new(Arc::new(Identity::from_seed(&[7; 32])));
///     let server = Server::bind(config, Listen::on("127.0.0.1:0".parse().expect("an address"))).await?;
///     assert_ne!(server.udp_addresses()[0].port(), 0);
///     // As soon as this future is ready, the root drains and ends.
///     server.run(std::future::ready(())).await
/// })
/// # }
/// ```
pub struct Server {
    root: Root,
    sockets: Sockets,
    streams: Option<Streams>,
    metrics: Option<TcpListener>,
    announcer: Option<Announcer>,
    gathering: Gathering,
    gauges: Arc<Gauges>,
    drain: Duration,
    keeper: Option<redis::Keeper>,
}

peersock_primitives::counters! {
    /// System calls and datagrams of a [`Server`].
    ///
    /// ```
    /// assert_eq!(peersock_root::server::Traffic::default().send_failed.get(), 0);
    /// ```
    pub struct Traffic {
        /// Calls that receive.
        pub receive_calls,
        /// Datagrams received.
        pub received,
        /// Calls that send.
        pub send_calls,
        /// Datagrams sent.
        pub sent,
        /// Datagrams that the system did not take: they are lost.
        pub send_failed,
        /// Datagrams for a stream connection that was full or gone: they are lost.
        pub stream_dropped,
    }
}

/// What there is now, for the metrics.
#[derive(Debug, Default)]
struct Gauges {
    counters: Arc<Counters>,
    traffic: Arc<Traffic>,
    nodes: AtomicU64,
    registered: AtomicU64,
    nicknames: AtomicU64,
    /// Of the stream connections; `None` without any.
    streams: Option<ServerHandle>,
    draining: AtomicU64,
    directory: OnceLock<Arc<directory::Shared>>,
}

impl Server {
    /// Opens the sockets. `config`'s entropy and receive buffer are set here: the system's.
    ///
    /// # Errors
    /// What the system says, with the address that it says it of; `InvalidInput` without an address.
    pub async fn bind(mut config: Config, listen: Listen) -> io::Result<Self> {
        let sockets = Sockets::bind(&listen.udp)?;
        let streams = listen.streams.map(|streams| Streams::bind(streams, &config.identity));
        config.entropy = Some(Arc::new(|out: &mut [u8; 32]| getrandom::fill(out).map_err(|_| NoEntropy)));
        config.receive_buffer = sockets.receive_buffer();
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
        let (now, unix_time) = clocks();
        let root = Root::new(config, &seed, now, unix_time);
        let metrics = match listen.metrics {
            Some(address) => Some(TcpListener::bind(address).await.map_err(|error| at(address, &error))?),
            None => None,
        };
        let streams = streams.transpose()?;
        let gauges = Arc::new(Gauges {
            counters: root.counters().clone(),
            streams: streams.as_ref().map(|streams| streams.handle().clone()),
            ..Gauges::default()
        });
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
        let gathering = Gathering::new(&seed);
        let (announcer, keeper, drain) = (None, None, listen.drain);
        Ok(Self { root, sockets, streams, metrics, announcer, gathering, gauges, drain, keeper })
    }

    /// The addresses of the UDP sockets, with the ports that the system chose.
    pub fn udp_addresses(&self) -> Vec<SocketAddr> {
        self.sockets.addresses()
    }

    /// The addresses at which streams are taken, with the ports that the system chose.
    pub fn stream_addresses(&self) -> &[SocketAddr] {
        self.streams.as_ref().map_or(&[], Streams::addresses)
    }

    /// The stream connections, to have their certificate read again, also while the server runs. `None`
    /// where no streams are taken.
    pub fn streams(&self) -> Option<ServerHandle> {
        self.gauges.streams.clone()
    }

    /// Where the metrics are.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref()?.local_addr().ok()
    }

    /// What goes through the sockets, also while the server runs.
    pub fn traffic(&self) -> Arc<Traffic> {
        self.gauges.traffic.clone()
    }

    /// Has the root announce itself on the local networks while it runs, every 5 s, at this UDP port: nodes
    /// that were told to look there find it. The usual port is
    /// [`DISCOVERY_PORT`](peersock_overlay::wire::DISCOVERY_PORT).
    ///
    /// # Errors
    /// When the system does not let the sockets broadcast.
    pub fn announce(&mut self, port: u16) -> io::Result<()> {
        let announcement = Announcement { identity: *self.root.identity() };
        self.announcer = Some(Announcer::new(&self.sockets, &announcement, port)?);
        Ok(())
    }

    /// The state machine, to give it a directory.
    pub fn root_mut(&mut self) -> &mut Root {
        &mut self.root
    }

    /// Shares its directory with other roots through Redis, and names itself there as listening at
    /// `endpoints`, written as behind the `@` of the text by which nodes know it. It returns at once: as long
    /// as Redis is away the root goes on with its own nodes.
    ///
    /// # Errors
    /// `InvalidInput` if the endpoints are longer than 600 bytes, or what the system says.
    pub fn share(&mut self, redis: RedisConfig, endpoints: &str) -> io::Result<()> {
        let (plug, keeper) = redis::start(redis, self.root.config.identity.clone(), endpoints)?;
        self.root.set_directory(Box::new(plug));
        // There is one for each server, set once.
        let _ = self.gauges.directory.set(keeper.shared.clone());
        self.keeper = Some(keeper);
        Ok(())
    }

    /// What goes to and from the shared directory, if there is one.
    pub fn directory_traffic(&self) -> Option<Arc<DirectoryTraffic>> {
        Some(self.gauges.directory.get()?.traffic.clone())
    }

    /// Serves until `shutdown` is ready; then tells all nodes, goes on for the time that they have, and ends.
    ///
    /// # Errors
    /// When a socket cannot be waited for any more.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let Self { root, sockets, streams, metrics, announcer, gathering, gauges, drain, keeper } = self;
        let serving = async {
            match metrics {
                Some(listener) => metrics::serve(listener, gauges.clone()).await,
                None => std::future::pending().await,
            }
        };
        let announcing = async {
            match announcer {
                Some(announcer) => announcer.run().await,
                None => std::future::pending().await,
            }
        };
        let (heard, thread) = keeper.map(|keeper| (keeper.heard, keeper.thread)).unzip();
        let run =
            run::Run::new(root, sockets, streams, gathering, gauges.clone(), heard).until(shutdown, drain);
        let result = tokio::select! {
            result = run => result,
            result = serving => result,
            never = announcing => match never {},
        };
        if let Some(thread) = thread {
            // It takes this root out of the directory; the state machine's end is gone, so it ends soon.
            let _ = tokio::task::spawn_blocking(|| thread.join()).await;
        }
        result
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("root", &self.root)
            .field("sockets", &self.sockets)
            .finish_non_exhaustive()
    }
}

/// Both clocks. The driver is where time comes from.
#[expect(clippy::disallowed_methods, reason = "the driver is where time comes from")]
fn clocks() -> (Instant, Duration) {
    let unix_time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (Instant::now(), unix_time)
}

/// The error, with the address that it is about.
fn at(address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{address}: {error}"))
}
