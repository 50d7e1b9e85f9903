//! Streams to roots (TCP, TLS, WebSocket), if UDP does not reach them.
//!
//! The endpoint wants streams to certain roots, and the thread opens them and keeps them open. It tries all
//! stream endpoints of the root's text, with a delay between them, and uses the first one on which the root
//! answers. Sending queues datagrams without blocking; the queue drops datagrams that are too many or too
//! old, like a router. Received datagrams go to the data path on this thread, like datagrams of UDP sockets
//! on other threads.
//!
//! When the machine's network changes, or after a suspension, connections may be dead, which TCP would notice
//! only after minutes. So open streams are probed, attempts start again, and waits end.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use peersock_nat::nat64::Nat64Prefix;
use peersock_overlay::wire::{StreamKind, StreamWay};
use peersock_overlay::{NodeId, SocketIndex, WantedStream};
use peersock_stack::Batch;
use peersock_streams::{
    ConnectOptions, Connection, Connector, ProxySettings, Sender, Target, Transport, Way,
};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, sleep_until, timeout};

use super::{Driver, stream_io};
use crate::config::{RootAddress, RootTransport};
use crate::sync;
use peersock_datapath::Transmit;

/// Time that one attempt has before the next one starts beside it.
const ATTEMPT_HEAD_START: Duration = Duration::from_millis(500);

/// Timeout of a root's first answer on an established connection.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// Minimum and maximum backoff before a root is tried again.
const BACKOFF_BOUNDS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(30)];

/// First backoff if another root has named the endpoints, because anybody can forge a record that names
/// others.
const REFERRED_MIN_BACKOFF: Duration = Duration::from_secs(2);

/// Lifetime of a stream that resets the backoff.
const BACKOFF_RESET_AGE: Duration = Duration::from_secs(10);

/// Timeout of a probe after a network change. An attempt younger than this continues; the limit doubles with
/// each further change, up to the second value.
const PROBE_TIMEOUT_BOUNDS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(16)];

/// Limit of simultaneous look-ups of root names. The system's resolver may block each one's thread for long,
/// and the author of the root list must not be able to create unbounded threads.
const MAX_RESOLVERS: usize = 16;

/// Open streams, as senders see them.
#[derive(Debug)]
pub(crate) struct Streams {
    open: RwLock<BTreeMap<SocketIndex, Open>>,
    /// Reasons why roots have no stream although one is wanted.
    errors: RwLock<BTreeMap<NodeId, String>>,
    /// Endpoints of the roots; the list may change.
    config: RwLock<StreamConfig>,
    /// Wanted streams; `None` ends the thread.
    wanted: watch::Sender<Option<Vec<WantedStream>>>,
    /// Number of network changes.
    network: watch::Sender<u64>,
    /// Driver, set by [`Streams::start`]. The thread starts when the first stream is wanted.
    driver: OnceLock<Weak<Driver>>,
    thread: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    thread: Option<JoinHandle<()>>,
    is_stopped: bool,
}

#[derive(Debug)]
struct Open {
    sender: Sender,
    name: String,
    /// Local port, if no proxy is in between.
    port: Option<u16>,
}

/// Stream endpoints of a node's roots.
#[derive(Debug, Clone)]
struct StreamConfig {
    /// Endpoints of each root, in the order of its text.
    targets: BTreeMap<NodeId, Vec<Target>>,
    /// Proxy of the environment, or the error in its variable.
    proxy: Result<ProxySettings, String>,
}

impl StreamConfig {
    /// Returns a configuration without roots.
    fn none() -> Self {
        Self { targets: BTreeMap::new(), proxy: Err(NO_WAY.to_owned()) }
    }

    /// Collects the stream endpoints of these roots, and the proxy of the environment.
    fn of(roots: &[&RootAddress]) -> Self {
        let mut targets: BTreeMap<NodeId, Vec<Target>> = BTreeMap::new();
        for root in roots {
            for endpoint in root.endpoints() {
                let transport = match endpoint.transport {
                    RootTransport::Udp => continue,
                    RootTransport::Tcp => Transport::Tcp,
                    RootTransport::Tls => Transport::Tls,
                    RootTransport::WebSocket => Transport::WebSocket,
                };
                let target = Target::new(transport, endpoint.host(), endpoint.port());
                let known = targets.entry(root.identity().node_id()).or_default();
                known.push(target.with_key(*root.identity().ed25519()));
            }
        }
        let proxy = ProxySettings::from_environment().map_err(|error| error.to_string());
        Self { targets, proxy }
    }
}

impl Streams {
    pub(super) fn new() -> Self {
        let (wanted, _) = watch::channel(Some(Vec::new()));
        Self {
            open: RwLock::default(),
            errors: RwLock::default(),
            config: RwLock::new(StreamConfig::none()),
            wanted,
            network: watch::channel(0).0,
            driver: OnceLock::new(),
            thread: Mutex::default(),
        }
    }

    /// Queues datagrams; never blocks.
    pub(super) fn send(&self, transmit: &Transmit<'_>) {
        let open = sync::read(&self.open);
        if let Some(Open { sender, .. }) = open.get(&transmit.socket) {
            stream_io::send(sender, transmit);
        }
    }

    /// Sets the list of wanted streams.
    pub(super) fn want(self: &Arc<Self>, wanted: Vec<WantedStream>) {
        let is_any = !wanted.is_empty();
        self.wanted.send_replace(Some(wanted));
        // Without a thread no stream opens, and the root stays unreachable by one.
        if is_any && let Err(error) = self.run() {
            tracing::warn!(%error, "no thread for streams to roots");
        }
    }

    /// Reports that the machine's interfaces or addresses have changed, or that it was suspended.
    pub(super) fn network_changed(&self) {
        self.network.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Returns the endpoint and proxy of a stream, in words.
    pub(crate) fn name(&self, socket: SocketIndex) -> Option<String> {
        sync::read(&self.open).get(&socket).map(|open| open.name.clone())
    }

    /// Returns the reason why a root has no stream although one is wanted.
    pub(crate) fn error(&self, root: &NodeId) -> Option<String> {
        sync::read(&self.errors).get(root).cloned()
    }

    /// Sets the roots, and starts the thread that opens streams unless it runs. If none of the roots has a
    /// stream endpoint, the first [`Streams::want`] that is not empty starts the thread, because other roots
    /// may name some.
    pub(super) fn start(self: &Arc<Self>, driver: &Arc<Driver>, roots: &[&RootAddress]) -> io::Result<()> {
        let config = StreamConfig::of(roots);
        let is_needed = !config.targets.is_empty();
        *sync::write(&self.config) = config;
        let _ = self.driver.set(Arc::downgrade(driver));
        if is_needed { self.run() } else { Ok(()) }
    }

    fn run(self: &Arc<Self>) -> io::Result<()> {
        let mut running = sync::lock(&self.thread);
        let Some(driver) = self.driver.get().filter(|_| !running.is_stopped) else { return Ok(()) };
        if running.thread.is_some() {
            return Ok(());
        }
        let mut runtime = Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(MAX_RESOLVERS).build()?;
        let (driver, streams, wanted) = (Weak::clone(driver), Arc::clone(self), self.wanted.subscribe());
        let keeper = Keeper { driver, streams };
        let thread = thread::Builder::new().name("peersock-streams".into()).spawn(move || {
            runtime.block_on(keeper.run(wanted));
            // A look-up of a name may hang in the system's resolver.
            runtime.shutdown_background();
        })?;
        running.thread = Some(thread);
        Ok(())
    }

    /// Closes all streams after their queues are empty or a timeout, and ends the thread.
    pub(super) fn stop(&self) {
        self.wanted.send_replace(None);
        let mut running = sync::lock(&self.thread);
        running.is_stopped = true;
        let thread = running.thread.take();
        drop(running);
        stream_io::join(thread);
    }
}

/// Task that opens streams and keeps them open.
#[derive(Clone)]
struct Keeper {
    driver: Weak<Driver>,
    streams: Arc<Streams>,
}

impl Keeper {
    async fn run(self, mut wanted: watch::Receiver<Option<Vec<WantedStream>>>) {
        let mut kept: BTreeMap<SocketIndex, (NodeId, AbortHandle)> = BTreeMap::new();
        let mut closed: Vec<Sender> = Vec::new();
        loop {
            let now_wanted = wanted.borrow_and_update().clone();
            let list = now_wanted.as_deref().unwrap_or_default();
            let gone = kept.extract_if(.., |socket, _| list.iter().all(|one| one.socket != *socket));
            for (socket, (root, task)) in gone.collect::<Vec<_>>() {
                // Its queue still leaves within a second.
                task.abort();
                closed.extend(self.set_open(&root, socket, None));
                sync::write(&self.streams.errors).remove(&root);
            }
            if now_wanted.is_none() {
                break;
            }
            for one in list {
                kept.entry(one.socket).or_insert_with(|| {
                    let task = tokio::spawn(self.clone().keep(one.root, one.socket, targets_of(one)));
                    (one.root, task.abort_handle())
                });
            }
            closed.retain(|sender| sender.queued() > 0);
            if wanted.changed().await.is_err() {
                return;
            }
        }
        stream_io::drain(&closed).await;
    }

    /// Keeps one stream open until the task is aborted; uses `named` endpoints, if there are any.
    async fn keep(self, root: NodeId, socket: SocketIndex, named: Vec<Target>) {
        let first = if named.is_empty() { BACKOFF_BOUNDS[0] } else { REFERRED_MIN_BACKOFF };
        let (mut wait, mut network) = (first, self.streams.network.subscribe());
        loop {
            match self.connect_anew(&root, &named, &mut network).await {
                Ok((connection, target)) => {
                    let by =
                        connection.proxy().map(|proxy| format!(" by way of {proxy}")).unwrap_or_default();
                    let name = format!("{target}{by}");
                    let port = connection.proxy().is_none().then(|| connection.local_addr().port());
                    tracing::debug!(%root, way = %name, "a root is reached by a stream");
                    sync::write(&self.streams.errors).remove(&root);
                    let (since, (sender, receiver)) = (Instant::now(), connection.split());
                    self.set_open(&root, socket, Some(Open { sender: sender.clone(), name, port }));
                    let reason = tokio::select! {
                        reason = stream_io::receive(&self.driver, socket, receiver) => {
                            reason.map(|reason| reason.to_string()).unwrap_or_default()
                        }
                        () = doubt(&sender, &mut network) => String::new(),
                    };
                    tracing::debug!(%root, %reason, "the stream to a root has ended");
                    sync::write(&self.streams.errors).insert(root, reason);
                    self.set_open(&root, socket, None);
                    if since.elapsed() >= BACKOFF_RESET_AGE {
                        wait = first;
                    }
                }
                Err(error) => {
                    tracing::debug!(%root, %error, "no stream to a root");
                    sync::write(&self.streams.errors).insert(root, error);
                }
            }
            wait = pause(wait, &mut network).await;
        }
    }

    /// Connects like [`Self::connect`], but starts again after a network change.
    async fn connect_anew(
        &self,
        root: &NodeId,
        named: &[Target],
        network: &mut watch::Receiver<u64>,
    ) -> Result<(Connection, Target), String> {
        // The source address or the route of an older attempt may be gone.
        let mut least = PROBE_TIMEOUT_BOUNDS[0];
        loop {
            let begun = tokio::time::Instant::now();
            let is_over = async {
                changed(network).await;
                sleep_until(begun + least).await;
            };
            tokio::select! {
                connected = self.connect(root, named) => return connected,
                () = is_over => least = (least * 2).min(PROBE_TIMEOUT_BOUNDS[1]),
            }
        }
    }

    /// Reports to senders and the endpoint whether the stream is open. Returns the sender of the previous
    /// stream.
    fn set_open(&self, root: &NodeId, socket: SocketIndex, open: Option<Open>) -> Option<Sender> {
        let (is_open, port) = (open.is_some(), open.as_ref().and_then(|open| open.port));
        let before = match open {
            Some(open) => sync::write(&self.streams.open).insert(socket, open),
            None => sync::write(&self.streams.open).remove(&socket),
        };
        if is_open || before.is_some() {
            let driver = self.driver.upgrade()?;
            driver.datapath.set_stream(driver.now(), root, is_open, port, &mut Batch::default());
        }
        before.map(|open| open.sender)
    }

    /// Tries all endpoints of a root, and returns the first connection on which it answers.
    async fn connect(&self, root: &NodeId, named: &[Target]) -> Result<(Connection, Target), String> {
        // A copy, so that no lock is held while connecting.
        let StreamConfig { targets, proxy } = sync::read(&self.streams.config).clone();
        let proxy = proxy?;
        let around =
            self.driver.upgrade().map(|driver| (driver.sockets.devices(), driver.sockets.nat64.prefix()));
        let (devices, nat64) = around.unwrap_or_default();
        if devices.is_empty() {
            return Err("no network interface that may be used is up".to_owned());
        }
        let leave_by: Vec<_> = devices.into_iter().map(|interface| Way { interface }).collect();
        let mut targets = match named {
            [] => targets.get(root).cloned().unwrap_or_default(),
            named => named.to_vec(),
        };
        // HTTPS comes first through a proxy, because proxies pass it most often.
        let is_last = |target: &Target| {
            target.transport != Transport::WebSocket && proxy.proxy_for(&target.host, target.port).is_some()
        };
        targets.sort_by_key(is_last);
        let ways = targets.into_iter().flat_map(|target| {
            leave_by.iter().map(move |way| (target.clone(), way.clone())).collect::<Vec<_>>()
        });
        let mut waiting = ways.collect::<Vec<_>>().into_iter();
        let (mut tries, mut errors) = (JoinSet::new(), Vec::new());
        loop {
            if let Some((target, way)) = waiting.next() {
                let options = ConnectOptions { proxy: proxy.clone(), way, ..ConnectOptions::default() };
                let reached_at = reached_at(&target, nat64, &proxy);
                tries.spawn(async move {
                    let answered = attempt(&Connector::new(options), &reached_at).await;
                    answered.map(|connection| (connection, target))
                });
            }
            let next = async {
                match waiting.len() {
                    0 => std::future::pending().await,
                    _ => sleep(ATTEMPT_HEAD_START).await,
                }
            };
            tokio::select! {
                tried = tries.join_next() => match tried {
                    Some(Ok(Ok(connected))) => return Ok(connected),
                    Some(Ok(Err(error))) => errors.push(error),
                    Some(Err(_)) => {}
                    None => return Err(errors.into_iter().next().unwrap_or_else(|| NO_WAY.to_owned())),
                },
                () = next => {}
            }
        }
    }
}

/// Returns the endpoints of a root that another root has named.
fn targets_of(wanted: &WantedStream) -> Vec<Target> {
    let target = |way: &StreamWay| {
        let transport = match way.kind {
            StreamKind::Tcp => Transport::Tcp,
            StreamKind::Tls => Transport::Tls,
            StreamKind::WebSocket => Transport::WebSocket,
            _ => return None,
        };
        let target = Target::new(transport, way.address.ip().to_string(), way.address.port());
        Some(target.with_key(*wanted.identity.ed25519()))
    };
    wanted.ways.iter().filter_map(target).collect()
}

/// Returns the target as this machine reaches it: an IPv4 address behind the NAT64, unless a proxy connects
/// to it.
fn reached_at(target: &Target, nat64: Option<Nat64Prefix>, proxy: &ProxySettings) -> Target {
    let address = target.host.parse().ok().filter(|_| proxy.proxy_for(&target.host, target.port).is_none());
    let outer = address.zip(nat64).map(|(ip, prefix)| prefix.synthesize(SocketAddr::new(ip, target.port)));
    let host = outer.map_or_else(|| target.host.clone(), |outer| outer.ip().to_string());
    Target { host, ..target.clone() }
}

/// Probes the stream whenever the network changes.
async fn doubt(stream: &Sender, network: &mut watch::Receiver<u64>) {
    loop {
        changed(network).await;
        stream.probe(PROBE_TIMEOUT_BOUNDS[0]);
    }
}

/// Waits before a root is tried again, and returns the next backoff. A network change ends the wait.
async fn pause(wait: Duration, network: &mut watch::Receiver<u64>) -> Duration {
    // A network change may have removed the obstacle.
    let least = tokio::time::Instant::now() + jittered(BACKOFF_BOUNDS[0]);
    tokio::select! {
        () = sleep(jittered(wait)) => (wait * 2).min(BACKOFF_BOUNDS[1]),
        () = changed(network) => {
            sleep_until(least).await;
            BACKOFF_BOUNDS[0]
        }
    }
}

/// Waits until the network changes.
async fn changed(network: &mut watch::Receiver<u64>) {
    if network.changed().await.is_err() {
        // The sender of changes is gone, so none will come.
        std::future::pending().await
    }
}

const NO_WAY: &str = "the root's text names no way by a stream";

/// Connects, and waits for the first answer.
async fn attempt(connector: &Connector, target: &Target) -> Result<Connection, String> {
    // Any server may accept the TCP connection, so only an answer counts.
    let mut connection = connector.connect(target).await.map_err(|error| error.to_string())?;
    match timeout(FIRST_ANSWER, connection.answered()).await {
        Ok(Ok(())) => Ok(connection),
        Ok(Err(reason)) => Err(format!("{target}: {reason}")),
        Err(_) => Err(format!(
            "{target} takes the connection and says nothing: no root is there, or its answers are held back"
        )),
    }
}

/// Varies a wait by up to a quarter, so that the nodes of a restarted root do not all come at once.
fn jittered(wait: Duration) -> Duration {
    let mut random = [128];
    // Without randomness they come at once.
    let _ = getrandom::fill(&mut random);
    wait.mul_f64(0.75 + f64::from(random[0]) / 512.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_the_network_changes_and_the_next_one_is_short() {
        let streams = Streams::new();
        let mut network = streams.network.subscribe();
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            streams.network_changed();
            // Half an hour would exceed the maximum wait of half a minute.
            let waited = timeout(BACKOFF_BOUNDS[1], pause(60 * BACKOFF_BOUNDS[1], &mut network)).await;
            assert_eq!(waited.expect("the change ends it"), BACKOFF_BOUNDS[0]);
            assert_eq!(
                pause(BACKOFF_BOUNDS[0], &mut network).await,
                2 * BACKOFF_BOUNDS[0],
                "it has changed once"
            );
        });
    }
}
