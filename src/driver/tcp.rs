//! TCP connections to other nodes, for pairs of nodes without a UDP path.
//!
//! The overlay chooses the time, the port and the addresses. The thread listens on that port and connects
//! from it, so that the SYN packets of both sides open the NAT boxes for each other. It carries the datagrams
//! of the resulting connections. Only the data received on a connection shows which peer it belongs to. The
//! overlay closes connections without a peer or a path.
//!
//! The thread starts with the first round, which most nodes never have.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use peersock_datapath::Transmit;
use peersock_overlay::{SocketIndex, TcpAction, TcpPunch, TcpTarget};
use peersock_stack::Batch;
use peersock_streams::{Connection, PeerPort, Receiver, Sender, Way};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{Driver, stream_io};
use crate::sync;

/// Delay of the next attempt after a refused connection.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// Limit of interfaces for connections, if they are restricted to some.
const MAX_WAYS: usize = 4;

/// TCP connections to other nodes.
#[derive(Debug, Default)]
pub(crate) struct PeerStreams {
    driver: OnceLock<Weak<Driver>>,
    open: RwLock<BTreeMap<SocketIndex, Open>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Open {
    sender: Sender,
    /// Remote address.
    remote: SocketAddr,
    /// Task that reads the connection.
    task: Option<AbortHandle>,
}

#[derive(Debug, Default)]
struct State {
    /// Queue of the thread; `None` before it starts.
    actions: Option<UnboundedSender<(Instant, TcpAction)>>,
    thread: Option<JoinHandle<()>>,
    is_stopped: bool,
    /// Number of the next connection.
    next: u16,
}

impl PeerStreams {
    /// Sets the driver of the connections. Call it once.
    pub(super) fn attach(&self, driver: &Arc<Driver>) {
        let _ = self.driver.set(Arc::downgrade(driver));
    }

    /// Passes an action to the thread. Runs under the control lock, so it must not block.
    pub(super) fn act(self: &Arc<Self>, action: TcpAction) {
        // The action is only queued, because blocking here would block control.
        let mut state = sync::lock(&self.state);
        if state.is_stopped {
            return;
        }
        if state.actions.is_none() {
            let (actions, taken) = unbounded_channel();
            let streams = Arc::clone(self);
            let run = move || match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(streams.run(taken)),
                Err(error) => tracing::debug!(%error, "no TCP connections to other nodes"),
            };
            match thread::Builder::new().name("peersock-tcp".into()).spawn(run) {
                Ok(thread) => (state.thread, state.actions) = (Some(thread), Some(actions)),
                // Without a thread no connection opens, which the overlay handles like a failed round.
                Err(error) => return tracing::debug!(%error, "no thread"),
            }
        }
        if let Some(actions) = &state.actions {
            // The overlay bounds the number of actions. A thread that has ended takes none.
            let _ = actions.send((Instant::now(), action));
        }
    }

    /// Queues datagrams; never blocks.
    pub(super) fn send(&self, transmit: &Transmit<'_>) {
        let open = sync::read(&self.open);
        if let Some(Open { sender, .. }) = open.get(&transmit.socket) {
            stream_io::send(sender, transmit);
        }
    }

    /// Returns the remote address of a connection.
    pub(crate) fn remote(&self, socket: SocketIndex) -> Option<SocketAddr> {
        sync::read(&self.open).get(&socket).map(|open| open.remote)
    }

    /// Closes all connections after their queues are empty or a timeout, and ends the thread.
    pub(super) fn stop(&self) {
        let thread = {
            let mut state = sync::lock(&self.state);
            (state.is_stopped, state.actions) = (true, None);
            state.thread.take()
        };
        stream_io::join(thread);
    }

    async fn run(self: Arc<Self>, mut actions: UnboundedReceiver<(Instant, TcpAction)>) {
        let mut rounds = JoinSet::new();
        loop {
            tokio::select! {
                action = actions.recv() => match action {
                    Some((at, TcpAction::Punch(punch))) => _ = rounds.spawn(Arc::clone(&self).punch(punch, at)),
                    Some((_, TcpAction::Close(socket))) => self.close(socket),
                    Some(_) => {}
                    None => break,
                },
                _ = rounds.join_next(), if !rounds.is_empty() => {}
            }
        }
        rounds.abort_all();
        let senders: Vec<_> = sync::read(&self.open).values().map(|open| open.sender.clone()).collect();
        if !senders.is_empty() {
            stream_io::drain(&senders).await;
        }
        sync::write(&self.open).clear();
    }

    /// Runs one round: listens, and connects to all addresses of a node.
    async fn punch(self: Arc<Self>, punch: TcpPunch, begun: Instant) {
        let TcpPunch { id, port, targets, after, lasts, .. } = punch;
        let Some(driver) = self.driver.get().and_then(Weak::upgrade) else { return };
        let devices = driver.sockets.devices();
        // The node must be able to end during the round.
        drop(driver);
        let ways = devices.into_iter().take(MAX_WAYS).map(|interface| Way { interface });
        let ports: Vec<_> = ways.map(|way| PeerPort::new(port, way)).collect();
        let (start, until) = (begun + after, begun + after + lasts);
        let mut tasks = JoinSet::new();
        for port in &ports {
            for is_ipv4 in [true, false] {
                match port.listen(is_ipv4) {
                    Ok(listener) => {
                        let streams = Arc::clone(&self);
                        tasks.spawn(async move {
                            loop {
                                match timeout_at(until, listener.accept()).await {
                                    Ok(Ok(connection)) => streams.take(None, connection),
                                    // The connection has ended already, or file descriptors ran out.
                                    Ok(Err(_)) => sleep(RETRY_DELAY).await,
                                    Err(_) => return,
                                }
                            }
                        });
                    }
                    Err(error) => tracing::debug!(%error, is_ipv4, "a port for TCP cannot be listened on"),
                }
            }
        }
        sleep_until(start).await;
        for target in targets {
            for (port, tries) in ports.iter().zip(shares(target.tries, ports.len())) {
                let (streams, port) = (Arc::clone(&self), port.clone());
                let target = TcpTarget { tries, ..target };
                tasks.spawn(async move {
                    let reached = timeout_at(until, reach(&port, target)).await;
                    if let Ok(Some(connection)) = reached {
                        streams.take(Some(id), connection);
                    }
                });
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Registers a new connection.
    fn take(self: &Arc<Self>, id: Option<u32>, connection: Connection) {
        let Some(driver) = self.driver.get().and_then(Weak::upgrade) else { return };
        let remote = connection.remote_addr();
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let (sender, receiver) = connection.split();
        let socket = {
            let mut open = sync::write(&self.open);
            let mut state = sync::lock(&self.state);
            let mut numbers = (0..=u16::MAX).map(|n| SocketIndex::peer_stream(state.next.wrapping_add(n)));
            let Some(socket) = numbers.find(|socket| !open.contains_key(socket)) else { return };
            state.next = socket.0.wrapping_add(1);
            // Inserted before the overlay learns of it, because the overlay sends at once.
            open.insert(socket, Open { sender, remote, task: None });
            socket
        };
        if !driver.datapath.tcp_opened(driver.now(), id, socket, remote, &mut Batch::default()) {
            sync::write(&self.open).remove(&socket);
            return;
        }
        let task = tokio::spawn(Arc::clone(self).receive(socket, receiver)).abort_handle();
        match sync::write(&self.open).get_mut(&socket) {
            Some(open) => open.task = Some(task),
            // The connection was closed meanwhile.
            None => task.abort(),
        }
    }

    fn close(&self, socket: SocketIndex) {
        let closed = sync::write(&self.open).remove(&socket);
        if let Some(task) = closed.and_then(|open| open.task) {
            task.abort();
        }
    }

    /// Passes received datagrams to the data path until the connection ends.
    async fn receive(self: Arc<Self>, socket: SocketIndex, receiver: Receiver) {
        let Some(driver) = self.driver.get() else { return };
        let Some(reason) = stream_io::receive(driver, socket, receiver).await else { return };
        tracing::debug!(%reason, "a TCP connection to a node has ended");
        let was_open = sync::write(&self.open).remove(&socket).is_some();
        if let Some(driver) = driver.upgrade().filter(|_| was_open) {
            driver.datapath.tcp_closed(driver.now(), socket, &mut Batch::default());
        }
    }
}

/// Connects to an address, and retries after a refusal.
async fn reach(port: &PeerPort, target: TcpTarget) -> Option<Connection> {
    // The other side's NAT may not have been open yet.
    for _ in 0..target.tries {
        match port.connect(target.address).await {
            Ok(connection) => return Some(connection),
            Err(error) => tracing::debug!(to = %target.address, %error, "no TCP connection to a node"),
        }
        sleep(RETRY_DELAY).await;
    }
    None
}

/// Divides the attempts for one address among several interfaces.
fn shares(tries: u32, ways: usize) -> impl Iterator<Item = u32> {
    let ways = u32::try_from(ways).unwrap_or(u32::MAX).max(1);
    (0..ways).map(move |way| (tries + ways - 1 - way) / ways)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_together_have_the_tries_of_one() {
        for (tries, ways, expected) in [(1, 1, vec![1]), (1, 3, vec![1, 0, 0]), (6, 4, vec![2, 2, 1, 1])] {
            assert_eq!(shares(tries, ways).collect::<Vec<_>>(), expected);
        }
    }
}
