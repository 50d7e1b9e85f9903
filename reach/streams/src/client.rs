//! The client's end: makes a connection to a target.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::carrier::{BoxedStream, Carrier, Framed, Framing, Role, WebSocket};
use crate::connection::{Connection, Counters, Ends, Shared};
use crate::dial::{self, Way};
use crate::error::ConnectError;
use crate::proxy::{Proxy, ProxySettings, Scheme, http_connect, socks5};
use crate::pump::{self, Timing};
use crate::queue::{Dropped, Queue, QueueLimits};
use crate::target::{Target, Transport, authority};
use crate::tls::{self, Expected};
use crate::turn_target::{TurnTarget, TurnTls};

/// The path at which a root accepts WebSockets.
pub const PATH: &str = "/peersock";

/// Options of a client's connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// The proxy for each host. Default: none.
    pub proxy: ProxySettings,
    /// The way out that TCP connections take.
    pub way: Way,
    /// Timeout of each step: resolving a name, connecting, the proxy's answer, TLS, WebSocket. Default: 10 s.
    pub step_timeout: Duration,
    /// Keepalives.
    pub timing: Timing,
    /// Limits of the queue of datagrams to send. Default: as in [`QueueLimits`].
    pub send_queue: QueueLimits,
    /// Limits of the queue of datagrams for [`Connection::recv`]. Default: 1 MiB and 1 s, because a program
    /// that was held up for a moment should still get what arrived meanwhile.
    pub receive_queue: QueueLimits,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            proxy: ProxySettings::none(),
            way: Way::default(),
            step_timeout: Duration::from_secs(10),
            timing: Timing::default(),
            send_queue: QueueLimits::default(),
            receive_queue: QueueLimits { bytes: 1 << 20, age: Duration::from_secs(1) },
        }
    }
}

/// Makes connections, all with the same options.
///
/// ```
/// use peersock_streams::{Connector, ConnectOptions, Server, ServerEvent, ServerOptions, Target, Transport};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let mut server = Server::new(ServerOptions::default());
/// let address = server.listen("127.0.0.1:0".parse()?).await?;
///
/// let connector = Connector::new(ConnectOptions::default());
/// let target = Target::new(Transport::Tcp, address.ip().to_string(), address.port());
/// let mut connection = connector.connect(&target).await?;
/// connection.send(&b"a datagram"[..])?;
///
/// let ServerEvent::Opened { id, .. } = server.recv().await else { panic!("a connection") };
/// let ServerEvent::Datagram { datagram, .. } = server.recv().await else { panic!("a datagram") };
/// server.handle().send(id, datagram)?;
/// assert_eq!(connection.recv().await?, &b"a datagram"[..]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Connector {
    options: ConnectOptions,
}

impl Connector {
    /// Makes a connector with these options.
    pub fn new(options: ConnectOptions) -> Self {
        Self { options }
    }

    /// Connects, and spawns a tokio task that runs the connection.
    ///
    /// Returns as soon as datagrams can be sent. With TCP and TLS the other end's protocol is still unknown
    /// then: if it is no root, the connection ends.
    /// Fails with the reason of the failure, with advice.
    ///
    /// # Panics
    /// Outside a tokio runtime that has I/O and time.
    pub async fn connect(&self, target: &Target) -> Result<Connection, ConnectError> {
        let reached = self.reach(&target.host, target.port).await?;
        let (ends, proxy) = (reached.ends, reached.proxy.clone());
        let carrier = self.carry(target, reached).await?;
        Ok(self.run(carrier, Role::Client, ends, proxy))
    }

    /// Connects to a TURN server. All messages sent and received are TURN messages; ChannelData that arrives
    /// keeps its padding. The connection sends nothing else, so its user must check by requests that the
    /// server is alive. If nothing arrives for [`Timing::dead_after`], the connection ends;
    /// [`Timing::keepalive`] has no effect.
    /// Fails with the reason of the failure, with advice.
    ///
    /// # Panics
    /// Outside a tokio runtime that has I/O and time.
    pub async fn connect_turn(&self, target: &TurnTarget) -> Result<Connection, ConnectError> {
        const HINT: &str =
            "check that a TURN server listens there, and that nothing on the way holds back its answers";
        let (host, port) = target.place();
        let Reached { mut stream, early, ends, proxy } = self.reach(&host, port).await?;
        if let Some(tls) = &target.tls {
            refuse_early(&target.host, &early)?;
            let expected = match tls {
                TurnTls::Names => Expected::TurnServer(None),
                TurnTls::Fingerprint(fingerprint) => Expected::TurnServer(Some(*fingerprint)),
            };
            let started = tls::client::start(stream, &target.host, expected);
            stream = self.step(format!("TLS with {}", target.host), HINT, started).await?;
        }
        let carrier = Carrier::Framed(Framed::new(stream, early, Framing::turn()));
        Ok(self.run(carrier, Role::TurnClient, ends, proxy))
    }

    fn run(&self, carrier: Carrier, role: Role, ends: Ends, proxy: Option<String>) -> Connection {
        start(&self.options, carrier, role, ends, proxy)
    }

    /// Makes a TCP connection to a host, directly or through a proxy.
    async fn reach(&self, host: &str, port: u16) -> Result<Reached, ConnectError> {
        let Some(proxy) = self.options.proxy.proxy_for(host, port) else {
            const HINT: &str = "if only a proxy leads out of this network, set HTTPS_PROXY to its address";
            let (stream, ends) = self.dial(host, port, authority(host, port), HINT).await?;
            return Ok(Reached { stream, early: Vec::new(), ends, proxy: None });
        };
        const HINT: &str = "check scheme, address and port of the proxy in HTTPS_PROXY or ALL_PROXY";
        let (mut stream, ends) = self.dial(&proxy.host, proxy.port, proxy.to_string(), HINT).await?;
        if proxy.scheme == Scheme::Https {
            let started = tls::client::start(stream, &proxy.host, Expected::Proxy);
            stream = self.step(format!("TLS with the proxy {proxy}"), HINT, started).await?;
        }
        let asked = ask(&mut stream, proxy, host, port);
        let early = self.step(format!("the answer of {proxy}"), HINT, asked).await?;
        Ok(Reached { stream, early, ends, proxy: Some(proxy.to_string()) })
    }

    async fn dial(
        &self,
        host: &str,
        port: u16,
        to: String,
        hint: &'static str,
    ) -> Result<(BoxedStream, Ends), ConnectError> {
        let resolving = async {
            let resolved = dial::resolve(host, port).await;
            resolved.map_err(|error| ConnectError::Resolve { host: host.to_owned(), error, hint })
        };
        let addresses = self.step(format!("resolving the name {host}"), hint, resolving).await?;
        let step = format!("connecting to {to}");
        let dialing = async {
            let dialed = dial::dial(&addresses, &self.options.way).await;
            let with_ends = dialed.and_then(|stream| {
                let ends = Ends { local: stream.local_addr()?, remote: stream.peer_addr()? };
                Ok((stream, ends))
            });
            with_ends.map_err(|error| ConnectError::Connect { to, error, hint })
        };
        let (stream, ends) = self.step(step, hint, dialing).await?;
        Ok((Box::new(stream), ends))
    }

    async fn carry(&self, target: &Target, reached: Reached) -> Result<Carrier, ConnectError> {
        let Reached { mut stream, early, .. } = reached;
        const HINT: &str =
            "check that a root listens there, and that nothing on the way holds back its answers";
        if target.transport != Transport::Tcp {
            refuse_early(&target.host, &early)?;
            let expected = Expected::Root { key: target.key, transport: target.transport };
            let started = tls::client::start(stream, &target.host, expected);
            stream = self.step(format!("TLS with {}", target.host), HINT, started).await?;
        }
        if target.transport != Transport::WebSocket {
            return Ok(Carrier::Framed(Framed::new(stream, early, Framing::lengths())));
        }
        let upgraded =
            self.step(format!("the answer of {}", target.host), HINT, WebSocket::connect(stream, target));
        Ok(Carrier::WebSocket(Box::new(upgraded.await?)))
    }

    /// Runs one step within the step timeout.
    async fn step<T>(
        &self,
        step: String,
        hint: &'static str,
        work: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        let limit = self.options.step_timeout;
        timeout(limit, work).await.unwrap_or(Err(ConnectError::TimedOut { step, limit, hint }))
    }
}

/// Spawns a task that runs a connection.
pub(crate) fn start(
    options: &ConnectOptions,
    carrier: Carrier,
    role: Role,
    ends: Ends,
    proxy: Option<String>,
) -> Connection {
    let shared = Arc::new(Shared::new(options.send_queue, Arc::new(Counters::default())));
    let incoming = Arc::new(Queue::new(options.receive_queue));
    tokio::spawn(run(carrier, role, shared.clone(), incoming.clone(), options.timing));
    Connection::new(shared, incoming, proxy, ends)
}

/// A stream to a host.
struct Reached {
    stream: BoxedStream,
    /// Bytes that were already read from it.
    early: Vec<u8>,
    ends: Ends,
    /// The proxy that made the connection.
    proxy: Option<String>,
}

async fn ask(
    stream: &mut BoxedStream,
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> Result<Vec<u8>, ConnectError> {
    match proxy.scheme {
        Scheme::Http | Scheme::Https => http_connect::connect(stream, proxy, &authority(host, port)).await,
        Scheme::Socks5 => socks5::connect(stream, proxy, host, port).await,
    }
}

/// Fails if the server has sent bytes before TLS, because the client speaks first in TLS.
fn refuse_early(host: &str, early: &[u8]) -> Result<(), ConnectError> {
    if early.is_empty() {
        return Ok(());
    }
    let error = io::Error::new(io::ErrorKind::InvalidData, "the server speaks before TLS begins");
    Err(ConnectError::Tls { host: host.to_owned(), error })
}

async fn run(carrier: Carrier, role: Role, shared: Arc<Shared>, incoming: Arc<Queue>, timing: Timing) {
    let counters = shared.counters.clone();
    let deliver = {
        let incoming = incoming.clone();
        move |datagram| {
            // Only this task closes the queue.
            if let Some(Dropped(dropped)) = incoming.push(datagram, Instant::now()) {
                counters.receive_dropped_full.add(dropped);
            }
        }
    };
    let reason = pump::run(carrier, role, shared, timing, deliver).await;
    tracing::debug!(%reason, "a connection has ended");
    incoming.close();
}
