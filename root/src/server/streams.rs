//! Stream connections (TCP, TLS, WebSocket) as sources of datagrams.
//!
//! `peersock_streams` accepts them and tells the transports apart. A client has a few seconds to begin a
//! session. Until then its connection has little memory, and without a session it ends.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use peersock_overlay::Identity;
use peersock_streams::{
    CertificateFiles, ConnectionId, Limits, RootKey, Server, ServerEvent, ServerHandle, ServerOptions,
    ServerTls,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::at;
use crate::Source;

/// Limit of events handled before UDP gets its turn.
const EVENTS: usize = 64;

/// Backlog of accept(2), for each address.
const BACKLOG: i32 = 1024;

/// Stream listeners of a root: TCP, TLS and WebSocket, all of them at each address.
#[derive(Debug, Clone, Default)]
pub struct StreamListen {
    /// Addresses to listen on. Port 0 lets the system choose, the same port for all of them if it is free.
    pub addresses: Vec<SocketAddr>,
    /// Addresses for the case that none of the former can be used. If this is there, even if it is empty, an
    /// address that cannot be used is no error: see [`Server::stream_errors`](super::Server::stream_errors).
    pub instead: Option<Vec<SocketAddr>>,
    /// Certificate for clients that name a host. Others, and all clients if there is none, get one that the
    /// root makes with its identity's key.
    pub certificate: Option<CertificateFiles>,
    /// Limits of connections, in all and of one source prefix, and their timeouts.
    pub limits: Limits,
}

/// All stream connections of a root.
#[derive(Debug)]
pub(super) struct Streams {
    server: Server,
    handle: ServerHandle,
    addresses: Vec<SocketAddr>,
    errors: Vec<io::Error>,
    open: HashMap<u64, Open>,
    events: Vec<ServerEvent>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    id: ConnectionId,
    remote: SocketAddr,
    is_admitted: bool,
}

/// Event of a stream.
#[derive(Debug)]
pub(super) enum Arrived {
    Datagram(Source, Vec<u8>),
    /// End of the connection.
    Closed(Source),
}

impl Streams {
    /// Opens the listeners.
    pub(super) fn bind(listen: StreamListen, identity: &Arc<Identity>) -> io::Result<Self> {
        // The streams crate only signs, so it does not get the secret key itself.
        let signer = Arc::clone(identity);
        let key = RootKey::new(*identity.public().ed25519(), move |message: &[u8]| signer.sign(message));
        let tls = ServerTls::new(Some(key), listen.certificate)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        let options = ServerOptions { tls: Some(tls), limits: listen.limits, ..ServerOptions::default() };
        let server = Server::new(options);
        let (mut addresses, mut errors) = (Vec::<SocketAddr>::new(), Vec::new());
        let instead = listen.instead.clone().unwrap_or_default();
        for wanted in listen.addresses {
            // Where one cannot be used, another of the same IP address is, because families differ in that.
            let others = instead.iter().copied().filter(|other| other.ip() == wanted.ip());
            for address in [wanted].into_iter().chain(others) {
                // The port that the system chose for the first address is used for all, if it is free there.
                let chosen = addresses.first().map(SocketAddr::port).filter(|_| address.port() == 0);
                let again = chosen.and_then(|port| listener(SocketAddr::new(address.ip(), port)).ok());
                let listening = match again {
                    Some(listening) => Ok(listening),
                    None => listener(address),
                };
                match listening.and_then(|listening| server.listen_on(listening)) {
                    Ok(bound) => {
                        addresses.push(bound);
                        break;
                    }
                    Err(error) if listen.instead.is_some() => errors.push(at(address, &error)),
                    Err(error) => return Err(at(address, &error)),
                }
            }
        }
        let handle = server.handle();
        Ok(Self { server, handle, addresses, errors, open: HashMap::new(), events: Vec::new() })
    }

    pub(super) fn errors(&self) -> &[io::Error] {
        &self.errors
    }

    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(super) fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    /// Waits for events, and takes some of them. Nothing is lost if the future is dropped while it waits.
    pub(super) async fn recv(&mut self) -> Vec<Arrived> {
        self.server.recv_many(&mut self.events, EVENTS).await;
        let mut arrived = Vec::with_capacity(self.events.len());
        for event in self.events.drain(..) {
            match event {
                ServerEvent::Opened { id, remote, transport } => {
                    tracing::debug!(%id, %remote, %transport, "a stream is open");
                    self.open.insert(id.number(), Open { id, remote, is_admitted: false });
                }
                ServerEvent::Datagram { id, datagram } => {
                    let source = self.open.get(&id.number()).map(Open::source);
                    arrived.extend(source.map(|source| Arrived::Datagram(source, datagram.into())));
                }
                ServerEvent::Closed { id, .. } => {
                    let open = self.open.remove(&id.number());
                    arrived.extend(open.map(|open| Arrived::Closed(open.source())));
                }
                _ => {}
            }
        }
        arrived
    }

    /// Sends without waiting; returns false if the connection is gone.
    pub(super) fn send(&self, number: u64, datagram: Vec<u8>) -> bool {
        self.open.get(&number).is_some_and(|open| self.handle.send(open.id, datagram).is_ok())
    }

    /// Admits the connection if `is_client` confirms that a client has shown that it receives.
    pub(super) fn admit_if(&mut self, number: u64, is_client: impl FnOnce() -> bool) {
        let Some(open) = self.open.get_mut(&number) else { return };
        if !open.is_admitted && is_client() {
            open.is_admitted = self.handle.admit(open.id);
        }
    }
}

impl Open {
    fn source(&self) -> Source {
        Source::Stream { number: self.id.number(), remote: self.remote }
    }
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // IPv4 has a separate socket.
        socket.set_only_v6(true)?;
    }
    // A restarted root must not wait until the connections of its predecessor have left TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
