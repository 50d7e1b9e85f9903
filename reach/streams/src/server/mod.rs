//! The server's end: many connections, one queue for all that arrives.

mod accept;
mod http;
mod inbox;
mod limits;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use peersock_primitives::sync::{self, AtomicBool, AtomicU64, Mutex, Ordering, RwLock};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub use http::UpgradeRequest;
pub use limits::Limits;

use crate::connection::{Closed, Counters, SendError};
use crate::pump::Timing;
use crate::queue::QueueLimits;
use crate::target::Transport;
use crate::tls::{CertificateError, ServerTls};
use inbox::Inbox;
use limits::{Ledger, Peer};

/// The number of a connection of a server. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// Returns the number itself: 0 for a server's first connection.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Options of a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Certificates. Without any, the server accepts only TCP and unencrypted WebSockets, because a proxy in
    /// front may do TLS.
    pub tls: Option<ServerTls>,
    /// Limits of the number of connections and their timeouts.
    pub limits: Limits,
    /// Keepalives.
    pub timing: Timing,
    /// Limits of the send queue of each connection.
    pub send_queue: QueueLimits,
    /// The text that a browser gets.
    pub page: String,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            tls: None,
            limits: Limits::default(),
            timing: Timing::default(),
            send_queue: QueueLimits::default(),
            page: PAGE.to_owned(),
        }
    }
}

const PAGE: &str = "\
This is a root of peersock. It helps programs find each other and passes on their encrypted packets, which it
cannot read. There is nothing here for a browser.
";

/// Events at a server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerEvent {
    /// A client has connected and speaks one of the transports. Its identity must be proven by its datagrams;
    /// then call [`ServerHandle::admit`].
    Opened {
        /// The connection.
        id: ConnectionId,
        /// The client's address; behind a proxy, the proxy's address.
        remote: SocketAddr,
        /// The transport of the datagrams.
        transport: Transport,
    },
    /// A datagram has arrived.
    Datagram {
        /// The connection.
        id: ConnectionId,
        /// The datagram, of 1 to [`MAX_DATAGRAM`](crate::MAX_DATAGRAM) bytes.
        datagram: Bytes,
    },
    /// A connection has ended. Each opened connection ends once.
    Closed {
        /// The connection.
        id: ConnectionId,
        /// The reason.
        reason: Closed,
    },
}

peersock_primitives::counters! {
    /// Fates of connections to a server.
    pub struct ServerCounters {
        /// Connections that TCP has accepted.
        pub accepted,
        /// Connections closed at once because there were too many in all.
        pub refused_total,
        /// Connections closed at once because there were too many of their source prefix.
        pub refused_prefix,
        /// Connections without a session closed for newer ones because there were too many.
        pub evicted,
        /// Connections closed at once because the events of earlier connections were not taken.
        pub refused_overrun,
        /// Connections whose TLS or first bytes were invalid.
        pub handshakes_failed,
        /// Connections whose TLS or first bytes took too long.
        pub handshakes_timed_out,
        /// HTTP requests answered with a page.
        pub pages,
        /// Connections that became usable.
        pub opened,
        /// Usable connections that began no session in time.
        pub not_admitted,
        /// Datagrams dropped because too many of their connection, or of all together, were waiting to be
        /// taken.
        pub inbox_dropped_full,
        /// Datagrams dropped because they were not taken in time.
        pub inbox_dropped_old,
    }
}

/// State shared by all tasks of a server.
pub(crate) struct Common {
    options: ServerOptions,
    ledger: Ledger,
    inbox: Inbox,
    peers: RwLock<HashMap<ConnectionId, Arc<Peer>>>,
    next: AtomicU64,
    counters: ServerCounters,
    traffic: Arc<Counters>,
    listeners: Mutex<Vec<AbortHandle>>,
    /// Set once the [`Server`] was dropped, because no task takes its events any more.
    gone: AtomicBool,
}

/// The server's end of many connections. It receives datagrams and events; everything else is in
/// [`ServerHandle`].
///
/// Dropping it ends all connections. See [`Connector`](crate::Connector) for an example.
pub struct Server {
    handle: ServerHandle,
}

/// Sends to the connections of a [`Server`], from any thread.
///
/// ```
/// use peersock_streams::{Server, ServerOptions};
///
/// let server = Server::new(ServerOptions::default());
/// let handle = server.handle();
/// assert_eq!((handle.connections(), handle.counters().accepted.get()), (0, 0));
/// ```
#[derive(Clone)]
pub struct ServerHandle {
    common: Arc<Common>,
}

impl Server {
    /// Makes a server that does not listen yet.
    pub fn new(options: ServerOptions) -> Self {
        let common = Common {
            ledger: Ledger::new(options.limits),
            inbox: Inbox::new(options.limits),
            options,
            peers: RwLock::default(),
            next: AtomicU64::new(0),
            counters: ServerCounters::default(),
            traffic: Arc::default(),
            listeners: Mutex::default(),
            gone: AtomicBool::new(false),
        };
        Self { handle: ServerHandle { common: Arc::new(common) } }
    }

    /// Adds a listener for all transports. Returns its address, with the port that the system chose if it was
    /// 0.
    ///
    /// Fails if the address is in use or does not belong to this machine.
    ///
    /// # Panics
    /// Outside a tokio runtime that has I/O and time.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        self.listen_on(TcpListener::bind(address).await?)
    }

    /// Adds a listening socket that the caller has made. Returns its address.
    /// Fails if the socket has no address.
    ///
    /// # Panics
    /// Outside a tokio runtime that has I/O and time.
    pub fn listen_on(&self, listener: TcpListener) -> io::Result<SocketAddr> {
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept::run(listener, self.handle.common.clone()));
        sync::lock(&self.handle.common.listeners).push(task.abort_handle());
        Ok(address)
    }

    /// Waits for the next event. Dropping the future while it waits loses no event.
    pub async fn recv(&mut self) -> ServerEvent {
        std::future::poll_fn(|cx| {
            let common = &self.handle.common;
            common.inbox.poll_pop(cx, Instant::now(), &common.counters)
        })
        .await
    }

    /// Waits for an event, then takes up to `limit` that are there and adds them to `into`. Returns the
    /// number taken.
    ///
    /// # Panics
    /// If `limit` is 0.
    pub async fn recv_many(&mut self, into: &mut Vec<ServerEvent>, limit: usize) -> usize {
        assert!(limit > 0, "nothing would ever be taken");
        into.push(self.recv().await);
        let common = &self.handle.common;
        let (mut cx, now) = (Context::from_waker(Waker::noop()), Instant::now());
        for taken in 1..limit {
            match common.inbox.poll_pop(&mut cx, now, &common.counters) {
                Poll::Ready(event) => into.push(event),
                Poll::Pending => return taken,
            }
        }
        limit
    }

    /// Returns a handle that sends to the connections.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.stop_listening();
        // Set this before the connections are listed: a connection that opens now is either listed, or sees
        // it.
        self.handle.common.gone.store(true, Ordering::SeqCst);
        for peer in sync::read(&self.handle.common.peers).values() {
            peer.shared.close(Closed::Here);
        }
    }
}

impl ServerHandle {
    /// Sends a datagram of 1 to [`MAX_DATAGRAM`](crate::MAX_DATAGRAM) bytes, without waiting. If the
    /// connection's queue is full, its oldest datagrams are dropped.
    /// Fails if the datagram is empty or too long, or the connection no longer exists.
    pub fn send(&self, id: ConnectionId, datagram: impl Into<Bytes>) -> Result<(), SendError> {
        let peer = self.peer(id).ok_or(SendError::Closed)?;
        peer.shared.send(datagram.into(), Instant::now())
    }

    /// Admits a connection whose client has proven its identity. Connections that are not admitted in time
    /// end, and get little memory until then. Returns true if the connection exists.
    pub fn admit(&self, id: ConnectionId) -> bool {
        self.peer(id).inspect(|peer| peer.admit()).is_some()
    }

    /// Ends a connection. Datagrams sent just before still leave within a second.
    pub fn close(&self, id: ConnectionId) {
        self.peer(id).inspect(|peer| peer.shared.close(Closed::Here));
    }

    /// Stops accepting connections. Existing ones continue.
    pub fn stop_listening(&self) {
        sync::lock(&self.common.listeners).drain(..).for_each(|task| task.abort());
    }

    /// Reads the certificate files again, as SIGHUP requests. The server also checks them every 10 s while
    /// clients connect.
    /// Fails if they cannot be used; the old certificate stays.
    pub fn reload_certificates(&self) -> Result<(), CertificateError> {
        self.common.options.tls.as_ref().map_or(Ok(()), ServerTls::reload)
    }

    /// Returns the number of open connections.
    pub fn connections(&self) -> usize {
        sync::read(&self.common.peers).len()
    }

    /// Returns the counters of connections.
    pub fn counters(&self) -> &ServerCounters {
        &self.common.counters
    }

    /// Returns the traffic counters of all connections together.
    pub fn traffic(&self) -> &Counters {
        &self.common.traffic
    }

    fn peer(&self, id: ConnectionId) -> Option<Arc<Peer>> {
        sync::read(&self.common.peers).get(&id).cloned()
    }
}

impl Common {
    fn open(&self, remote: SocketAddr, transport: Transport, peer: Arc<Peer>) -> ConnectionId {
        let id = ConnectionId(self.next.fetch_add(1, Ordering::Relaxed));
        self.counters.opened.increment();
        sync::write(&self.peers).insert(id, peer.clone());
        if self.gone.load(Ordering::SeqCst) {
            peer.shared.close(Closed::Here);
        }
        self.inbox.push_event(ServerEvent::Opened { id, remote, transport });
        id
    }

    fn close(&self, id: ConnectionId, reason: Closed) {
        sync::write(&self.peers).remove(&id);
        if reason == Closed::NotAdmitted {
            self.counters.not_admitted.increment();
        }
        self.inbox.push_event(ServerEvent::Closed { id, reason });
    }

    /// Returns the timeout until a connection is admitted.
    fn admission(&self) -> Duration {
        self.options.limits.admission_timeout
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.fmt(f)
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("connections", &self.connections()).finish_non_exhaustive()
    }
}
