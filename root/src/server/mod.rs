//! Driver of a root: UDP sockets, stream connections, time, metrics.
//!
//! One task owns the state machine and the sockets, so the path of a relayed frame has no lock. It waits for
//! the first of these events: a readable socket, a datagram of a stream connection, a deadline. It hands each
//! received batch of GRO trains to the state machine frame by frame. Frames to the same node leave in one GSO
//! train again, if possible from the buffer they came in. Up to 512 waiting datagrams of a socket are read
//! before the resulting frames leave, so that single datagrams of many nodes become few trains, and few
//! system calls.
//!
//! Each stream connection has separate tasks, which read and write whole datagrams. Bounded queues lie
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

/// Addresses of a root's services, and its time to drain.
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
    /// Addresses of UDP sockets. An unspecified one means all of its family; port 0 lets the system choose.
    pub udp: Vec<SocketAddr>,
    /// Second UDP port, at which the root answers STUN requests alone. With it one root shows whether a NAT
    /// is symmetric.
    pub second_port: SecondPort,
    /// Stream listeners, for nodes whose networks block UDP; none if `None`.
    pub streams: Option<StreamListen>,
    /// Address of `/metrics` and `/health` over HTTP; none if `None`. It is for the operator, because it has
    /// no access control.
    pub metrics: Option<SocketAddr>,
    /// Time that nodes have to go elsewhere before the end.
    pub drain: Duration,
}

/// Second UDP port of each address. A port in use is no error: see [`Server::second_port_error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecondPort {
    /// No second port.
    #[default]
    None,
    /// The port after the first one.
    Next,
    /// This port; 0 lets the system choose.
    Number(u16),
}

impl Listen {
    /// Returns a configuration with UDP at this address and nothing else; nodes have ten seconds to go
    /// elsewhere.
    pub fn on(udp: SocketAddr) -> Self {
        Self {
            udp: vec![udp],
            second_port: SecondPort::None,
            streams: None,
            metrics: None,
            drain: Duration::from_secs(10),
        }
    }
}

/// Root on its sockets, ready to run.
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
    second_port_error: Option<io::Error>,
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
    pub struct Traffic {
        /// System calls that receive.
        pub receive_calls,
        /// Datagrams received.
        pub received,
        /// System calls that send.
        pub send_calls,
        /// Datagrams sent.
        pub sent,
        /// Datagrams that the system did not accept; they are lost.
        pub send_failed,
        /// Datagrams for a stream connection that was full or gone; they are lost.
        pub stream_dropped,
    }
}

/// Current values for the metrics.
#[derive(Debug, Default)]
struct Gauges {
    counters: Arc<Counters>,
    traffic: Arc<Traffic>,
    nodes: AtomicU64,
    registered: AtomicU64,
    nicknames: AtomicU64,
    /// Handle of the stream connections; `None` without any.
    streams: Option<ServerHandle>,
    draining: AtomicU64,
    directory: OnceLock<Arc<directory::Shared>>,
}

impl Server {
    /// Opens the sockets. Sets `config`'s entropy and receive buffer to the system's.
    /// Fails with the system's error, with the address that it is about; `InvalidInput` without an address.
    pub async fn bind(mut config: Config, listen: Listen) -> io::Result<Self> {
        let mut sockets = Sockets::bind(&listen.udp)?;
        let second_port_error = sockets.bind_second(listen.second_port).err();
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
        Ok(Self {
            root,
            sockets,
            second_port_error,
            streams,
            metrics,
            announcer,
            gathering,
            gauges,
            drain,
            keeper,
        })
    }

    /// Returns the addresses of the UDP sockets, with the ports that the system chose.
    pub fn udp_addresses(&self) -> Vec<SocketAddr> {
        self.sockets.addresses()
    }

    /// Returns the addresses of the second UDP ports, at which the root answers STUN requests alone.
    pub fn second_addresses(&self) -> Vec<SocketAddr> {
        self.sockets.second_addresses()
    }

    /// Returns the reason why an address has no second port, with that address.
    pub fn second_port_error(&self) -> Option<&io::Error> {
        self.second_port_error.as_ref()
    }

    /// Returns the addresses of the stream listeners, with the ports that the system chose.
    pub fn stream_addresses(&self) -> &[SocketAddr] {
        self.streams.as_ref().map_or(&[], Streams::addresses)
    }

    /// Returns the reasons why addresses have no stream listener, with those addresses.
    pub fn stream_errors(&self) -> &[io::Error] {
        self.streams.as_ref().map_or(&[], Streams::errors)
    }

    /// Returns the handle of the stream connections, which reloads their certificate, also while the server
    /// runs. `None` without streams.
    pub fn streams(&self) -> Option<ServerHandle> {
        self.gauges.streams.clone()
    }

    /// Returns the address of the metrics.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref()?.local_addr().ok()
    }

    /// Returns the counters of the sockets, which stay valid while the server runs.
    pub fn traffic(&self) -> Arc<Traffic> {
        self.gauges.traffic.clone()
    }

    /// Makes the root announce itself on the local networks while it runs, every 5 s, at this UDP port. Nodes
    /// that listen there find it. The usual port is
    /// [`DISCOVERY_PORT`](peersock_overlay::wire::DISCOVERY_PORT).
    /// Fails with the system's error if a socket may not broadcast.
    pub fn announce(&mut self, port: u16) -> io::Result<()> {
        let announcement = Announcement { identity: *self.root.identity() };
        self.announcer = Some(Announcer::new(&self.sockets, &announcement, port)?);
        Ok(())
    }

    /// Returns the state machine, to give it a directory.
    pub fn root_mut(&mut self) -> &mut Root {
        &mut self.root
    }

    /// Shares its directory with other roots through Redis. It names itself there with `endpoints`, written
    /// as behind the `@` of the text by which nodes know the root. Returns at once: while Redis is away the
    /// root goes on with its own nodes.
    /// Returns `InvalidInput` if the endpoints are longer than 600 bytes, or the system's error.
    pub fn share(&mut self, redis: RedisConfig, endpoints: &str) -> io::Result<()> {
        let (plug, keeper) = redis::start(redis, self.root.config.identity.clone(), endpoints)?;
        self.root.set_directory(Box::new(plug));
        // Each server calls this at most once, so the cell is empty.
        let _ = self.gauges.directory.set(keeper.shared.clone());
        self.keeper = Some(keeper);
        Ok(())
    }

    /// Returns the traffic counters of the shared directory, if any.
    pub fn directory_traffic(&self) -> Option<Arc<DirectoryTraffic>> {
        Some(self.gauges.directory.get()?.traffic.clone())
    }

    /// Serves until `shutdown` is ready; then notifies all nodes, goes on for the drain time, and ends.
    /// Returns an error if a socket cannot be polled any more.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let Self { root, sockets, streams, metrics, announcer, gathering, gauges, drain, keeper, .. } = self;
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
            // The thread removes this root from the directory. It ends soon, because the state machine's end
            // of its channel is gone.
            let _ = peersock_primitives::blocking(|| thread.join()).await;
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

/// Returns the monotonic and the wall clock. Only the driver reads clocks.
#[expect(clippy::disallowed_methods, reason = "the driver is where time comes from")]
fn clocks() -> (Instant, Duration) {
    let unix_time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (Instant::now(), unix_time)
}

/// Adds the address to an error.
fn at(address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{address}: {error}"))
}
