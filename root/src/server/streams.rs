//! Where stream transports plug in: a connection delivers datagrams and takes datagrams.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::Source;

/// Datagrams that wait for a connection to write them; further ones are dropped, as on a slow link.
const OUTGOING: usize = 256;
/// Datagrams of all connections that wait for the root; then connections are read no further.
const INCOMING: usize = 1024;

/// Takes the connections of stream transports to the root.
///
/// ```
/// # async fn accepted(connections: peersock_root::server::Connections, remote: std::net::SocketAddr) {
/// // In the task of a connection, when its handshake is done:
/// let Some(connection) = connections.open(remote) else { return }; // the root is gone
/// let (to_root, mut from_root) = connection.split();
/// to_root.send(b"a datagram that was read".to_vec()).await;
/// while let Some(datagram) = from_root.recv().await {
///     // Write it to the connection, behind its length.
///     drop(datagram);
/// }
/// // Dropping both halves is the end of the connection.
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Connections {
    events: mpsc::UnboundedSender<Event>,
    datagrams: mpsc::Sender<(Source, Vec<u8>)>,
    next: Arc<AtomicU64>,
}

/// One stream connection, as the root sees it. See [`Connections`] for an example.
#[derive(Debug)]
pub struct Connection {
    to_root: ToRoot,
    from_root: FromRoot,
}

/// What a connection brings to the root. See [`Connections`] for an example.
#[derive(Debug)]
pub struct ToRoot {
    source: Source,
    datagrams: mpsc::Sender<(Source, Vec<u8>)>,
    events: mpsc::UnboundedSender<Event>,
}

/// What the root has for a connection. See [`Connections`] for an example.
#[derive(Debug)]
pub struct FromRoot {
    datagrams: mpsc::Receiver<Vec<u8>>,
}

/// The root's end of all of this.
#[derive(Debug)]
pub(super) struct Inbound {
    events: mpsc::UnboundedReceiver<Event>,
    datagrams: mpsc::Receiver<(Source, Vec<u8>)>,
    open: HashMap<u64, mpsc::Sender<Vec<u8>>>,
}

/// As many as there are connections, twice, so their channel needs no bound of its own.
#[derive(Debug)]
enum Event {
    Opened(u64, mpsc::Sender<Vec<u8>>),
    Closed(Source),
}

/// What has come from streams.
#[derive(Debug)]
pub(super) enum Arrived {
    Datagram(Source, Vec<u8>),
    /// The connection has ended.
    Closed(Source),
}

pub(super) fn channels() -> (Connections, Inbound) {
    let (events, events_out) = mpsc::unbounded_channel();
    let (datagrams, datagrams_out) = mpsc::channel(INCOMING);
    let connections = Connections { events, datagrams, next: Arc::default() };
    (connections, Inbound { events: events_out, datagrams: datagrams_out, open: HashMap::new() })
}

impl Connections {
    /// A new connection, whose other end is at `remote`. `None` if the root is not there any more. How many
    /// there may be is the transport's matter.
    pub fn open(&self, remote: SocketAddr) -> Option<Connection> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (outgoing, from_root) = mpsc::channel(OUTGOING);
        self.events.send(Event::Opened(number, outgoing)).ok()?;
        let source = Source::Stream { number, remote };
        let to_root = ToRoot { source, datagrams: self.datagrams.clone(), events: self.events.clone() };
        Some(Connection { to_root, from_root: FromRoot { datagrams: from_root } })
    }
}

impl Connection {
    /// Its two directions, for two tasks or one.
    pub fn split(self) -> (ToRoot, FromRoot) {
        (self.to_root, self.from_root)
    }
}

impl ToRoot {
    /// Brings one datagram; waits while the root has too many. False if the root is not there any more.
    pub async fn send(&self, datagram: Vec<u8>) -> bool {
        self.datagrams.send((self.source, datagram)).await.is_ok()
    }
}

impl Drop for ToRoot {
    fn drop(&mut self) {
        // Without a root nobody needs to know.
        let _ = self.events.send(Event::Closed(self.source));
    }
}

impl FromRoot {
    /// The next datagram to write; `None` when the root ends.
    pub async fn recv(&mut self) -> Option<Vec<u8>> {
        self.datagrams.recv().await
    }
}

impl Inbound {
    /// What comes next from any connection; `None` if there will be none any more.
    pub(super) async fn recv(&mut self) -> Option<Arrived> {
        loop {
            tokio::select! {
                // A connection is announced before its first datagram.
                biased;
                Some(event) = self.events.recv() => match event {
                    Event::Opened(number, outgoing) => _ = self.open.insert(number, outgoing),
                    Event::Closed(source) => {
                        if let Source::Stream { number, .. } = source {
                            self.open.remove(&number);
                        }
                        return Some(Arrived::Closed(source));
                    }
                },
                Some((source, datagram)) = self.datagrams.recv() => {
                    return Some(Arrived::Datagram(source, datagram));
                }
                else => return None,
            }
        }
    }

    /// Gives a datagram to a connection; false if it is full or gone.
    pub(super) fn send(&self, number: u64, datagram: Vec<u8>) -> bool {
        self.open.get(&number).is_some_and(|outgoing| outgoing.try_send(datagram).is_ok())
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}
