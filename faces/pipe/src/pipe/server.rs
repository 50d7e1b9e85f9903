//! Servers of connections.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use peersock::overlay::NodeId;
use peersock_net::{SocketError, TcpConn, TcpListener};
use peersock_primitives::sync;
use tokio::sync::Notify;

use super::inner::{Inner, Kind, Phase};
use super::tcp;
use super::{Pipe, User};
use crate::{Options, PipeError, Proto, callbacks};

/// Pause of a server when the system lacks resources for a connection.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_secs(1);

/// The clients of a server.
#[derive(Default)]
pub(crate) struct Server {
    clients: Mutex<Clients>,
    /// Notified when a client has come, or when no more clients will come.
    arrived: Notify,
    /// Notified when a client is gone.
    left: Notify,
}

#[derive(Default)]
struct Clients {
    /// Clients by the address of their shared state, each with the member that has connected.
    live: HashMap<usize, (Client, Option<NodeId>)>,
    /// The last client of each address and port; with several local addresses there may be more.
    by_addr: HashMap<SocketAddr, usize>,
    /// Clients that are not accepted yet. They may have ended, with messages in their queues.
    arrived: VecDeque<Pipe>,
}

/// A connected client.
enum Client {
    /// The server has callbacks or subscriptions for it.
    Kept(Pipe),
    /// The program that accepts it owns it.
    Lent(Weak<User>),
}

impl Clients {
    /// Returns the ended clients that are not accepted yet; each still occupies a place.
    fn over(&self) -> impl Iterator<Item = &Pipe> {
        self.arrived.iter().filter(|pipe| !self.live.contains_key(&key(pipe.inner())))
    }
}

/// Returns true if a server keeps the pipes of its clients until they end, because it has callbacks or
/// subscriptions for them. The program need not accept these clients.
fn keeps_clients(server: &Inner) -> bool {
    tcp::has_outlets(server) || !sync::lock(&server.state).up_cbs.is_empty()
}

impl Client {
    fn pipe(&self) -> Option<Pipe> {
        match self {
            Client::Kept(pipe) => Some(pipe.clone()),
            Client::Lent(user) => user.upgrade().map(Pipe),
        }
    }
}

fn key(inner: &Arc<Inner>) -> usize {
    Arc::as_ptr(inner).addr()
}

impl Server {
    /// Returns the pipes of the connected clients.
    pub(crate) fn clients(&self) -> Vec<Pipe> {
        sync::lock(&self.clients).live.values().filter_map(|(client, _)| client.pipe()).collect()
    }

    pub(crate) fn client_at(&self, addr: SocketAddr) -> Option<Pipe> {
        let clients = sync::lock(&self.clients);
        clients.live.get(clients.by_addr.get(&addr)?)?.0.pipe()
    }

    /// Waits for the next client.
    pub(crate) async fn accept(&self, inner: &Inner) -> Result<Pipe, PipeError> {
        loop {
            let mut again = pin!(self.arrived.notified());
            again.as_mut().enable();
            let client = sync::lock(&self.clients).arrived.pop_front();
            if let Some(client) = client {
                self.left.notify_one();
                return Ok(client);
            }
            if inner.phase() != Phase::Open {
                return Err(inner.closed());
            }
            again.await;
        }
    }

    /// Removes a client that has ended.
    pub(crate) fn forget(&self, client: &Arc<Inner>) {
        let Some(parent) = &client.parent else { return };
        let is_served = keeps_clients(parent);
        let mut clients = sync::lock(&self.clients);
        let gone = clients.live.remove(&key(client));
        if let Some(addr) = client.remote.filter(|addr| clients.by_addr.get(addr) == Some(&key(client))) {
            clients.by_addr.remove(&addr);
        }
        let at = clients.arrived.iter().position(|pipe| Arc::ptr_eq(pipe.inner(), client));
        // It would occupy a place until the program accepts it.
        let waiting = at.filter(|_| is_served).and_then(|at| clients.arrived.remove(at));
        drop(clients);
        drop((gone, waiting));
        self.left.notify_one();
    }

    fn add(&self, inner: &Arc<Inner>, client: &Pipe) {
        let held = match keeps_clients(inner) {
            true => Client::Kept(client.clone()),
            false => Client::Lent(Arc::downgrade(&client.0)),
        };
        let mut clients = sync::lock(&self.clients);
        clients.live.insert(key(client.inner()), (held, client.inner().member()));
        clients.by_addr.extend(client.remote_addr().map(|addr| (addr, key(client.inner()))));
        clients.arrived.push_back(client.clone());
        drop(clients);
        self.arrived.notify_one();
    }

    /// Notifies tasks waiting for clients that no more will come.
    pub(crate) fn wake(&self) {
        self.arrived.notify_waiters();
    }

    /// Drops the clients that can no longer be accepted, because they would keep the server alive.
    pub(crate) fn abandon(&self) {
        let abandoned = std::mem::take(&mut sync::lock(&self.clients).arrived);
        drop(abandoned);
    }

    /// Closes the clients in parallel.
    async fn close_clients(&self) {
        let clients = self.clients();
        clients.iter().for_each(|client| client.inner().shut());
        for client in &clients {
            client.inner().reached(Phase::Gone).await;
        }
    }

    fn is_crowded(&self, most: usize) -> bool {
        let clients = sync::lock(&self.clients);
        clients.live.len() + clients.over().count() >= most
    }

    /// Returns true if a member has reached its limit of places.
    fn has_share(&self, member: &NodeId, most: usize) -> bool {
        let clients = sync::lock(&self.clients);
        let live = clients.live.values().filter(|(_, of)| of.as_ref() == Some(member)).count();
        live + clients.over().filter(|pipe| pipe.inner().member().as_ref() == Some(member)).count() >= most
    }

    async fn room(&self, most: usize) {
        while self.is_crowded(most) {
            self.left.notified().await;
        }
    }
}

/// Makes a pipe of a listener: `prepare` adds callbacks and queues before the first client.
pub(crate) fn start(
    listener: TcpListener,
    options: Options,
    prepare: impl FnOnce(&Arc<Inner>),
) -> Result<Pipe, PipeError> {
    let local = listener.addr().to_socket_addr().map_err(SocketError::from)?;
    let inner = Inner::new(Proto::Tcp, options, Kind::Server(Server::default()), local, None, None, None);
    let pipe = inner.handle();
    prepare(&inner);
    tokio::spawn(drive(inner, listener));
    Ok(pipe)
}

async fn drive(inner: Arc<Inner>, listener: TcpListener) {
    let Kind::Server(server) = &inner.kind else { return };
    let why = tokio::select! {
        error = accept_all(&inner, server, &listener) => {
            tracing::warn!(%error, "the server accepts no more connections");
            PipeError::Failed(error)
        }
        () = inner.reached(Phase::Closing) => PipeError::Closed,
    };
    listener.close();
    server.close_clients().await;
    inner.finish(why).await;
    if !inner.has_handle() {
        // The last handle was dropped while a client was being accepted; it can no longer be accepted.
        server.abandon();
    }
}

/// Accepts connections; surplus ones wait in the system's queue. Returns the listener's error.
async fn accept_all(inner: &Arc<Inner>, server: &Server, listener: &TcpListener) -> SocketError {
    loop {
        server.room(inner.options.max_clients).await;
        match listener.accept().await {
            Ok(conn) => open(inner, server, conn),
            Err(error) if is_of_server(&error) => return error,
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_ERROR_PAUSE).await;
            }
        }
    }
}

/// Makes the pipe of a client's connection.
fn open(inner: &Arc<Inner>, server: &Server, conn: TcpConn) {
    let addresses = (conn.local_addr().to_socket_addr(), conn.remote_addr().to_socket_addr());
    // The connection ended before it was accepted.
    let (Ok(local), Ok(remote)) = addresses else { return };
    // The node's own connections are no other member's.
    let member = conn.peer().filter(|_| local.ip() != remote.ip()).map(|peer| peer.machine);
    if member.is_some_and(|member| server.has_share(&member, inner.options.max_clients_of_member)) {
        tracing::debug!(client = %remote, "a member has all the places that it may have");
        // Reset, so that the client does not take the close for the end of an answer.
        let _ = conn.set_linger(Duration::ZERO);
        return;
    }
    tcp::start(conn.into(), local, remote, inner.options.clone(), Some(Arc::clone(inner)), |client| {
        if !tcp::has_outlets(inner) {
            sync::lock(&client.state).queue_by_default(&client.options);
        }
        server.add(inner, &client.handle());
        let up = sync::lock(&inner.state).up_cbs.iter().map(|(_, callback)| Arc::clone(callback)).collect();
        let later = client.call_state(up);
        if !later.is_empty() {
            tokio::spawn(callbacks::finish(later));
        }
    });
}

/// Returns true if the error concerns a connection that ended before it was accepted.
fn is_of_client(error: &SocketError) -> bool {
    // EPERM, EINTR, EPROTO, ECONNABORTED, ECONNRESET.
    error.raw_os_error().is_some_and(|errno| [1, 4, 71, 103, 104].contains(&errno))
}

/// Returns true if the error concerns the listening socket.
fn is_of_server(error: &SocketError) -> bool {
    // EBADF, EINVAL, ENOTSOCK, EOPNOTSUPP, ENETDOWN.
    error.raw_os_error().is_some_and(|errno| [9, 22, 88, 95, 100].contains(&errno))
}
