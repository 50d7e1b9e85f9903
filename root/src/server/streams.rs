//! Stream connections (TCP, TLS, WebSocket) as sources of datagrams.
//!
//! `peersock_streams` accepts them and tells the transports apart. A client has a few seconds to begin a
//! session; until then its connection has little memory, and it ends if there is no session.

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

/// Events taken in one go before UDP gets its turn.
const EVENTS: usize = 64;

/// Connections that wait for accept(2), for each address.
const BACKLOG: i32 = 1024;

/// Where and how a root takes streams: TCP, TLS and WebSocket, all of them at each address.
///
/// ```
/// use peersock_root::server::StreamListen;
///
/// let listen = StreamListen { addresses: vec!["127.0.0.1:443".parse()?], ..StreamListen::default() };
/// assert!(listen.certificate.is_none(), "it makes one with the root's key");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct StreamListen {
    /// Addresses to listen on. Port 0 lets the system choose, for all of them the same port if it is free.
    pub addresses: Vec<SocketAddr>,
    /// A certificate for clients that name a host. The others, and all if there is none, get one that the
    /// root makes with the key of its identity.
    pub certificate: Option<CertificateFiles>,
    /// How many connections there may be in all and of one source prefix, and how long they may take.
    pub limits: Limits,
}

/// All stream connections of a root.
#[derive(Debug)]
pub(super) struct Streams {
    server: Server,
    handle: ServerHandle,
    addresses: Vec<SocketAddr>,
    open: HashMap<u64, Open>,
    events: Vec<ServerEvent>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    id: ConnectionId,
    remote: SocketAddr,
    is_admitted: bool,
}

/// What has come from streams.
#[derive(Debug)]
pub(super) enum Arrived {
    Datagram(Source, Vec<u8>),
    /// The connection has ended.
    Closed(Source),
}

impl Streams {
    /// Listens.
    pub(super) fn bind(listen: StreamListen, identity: &Arc<Identity>) -> io::Result<Self> {
        let signer = Arc::clone(identity);
        let key = RootKey::new(*identity.public().ed25519(), move |message: &[u8]| signer.sign(message));
        let tls = ServerTls::new(Some(key), listen.certificate)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        let options = ServerOptions { tls: Some(tls), limits: listen.limits, ..ServerOptions::default() };
        let server = Server::new(options);
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in listen.addresses {
            // The port that the system has chosen for the first is good for all, if it is free there.
            let chosen = addresses.first().map(SocketAddr::port).filter(|_| address.port() == 0);
            let again = chosen.and_then(|port| listener(SocketAddr::new(address.ip(), port)).ok());
            let listening = match again {
                Some(listening) => Ok(listening),
                None => listener(address),
            };
            let listening = listening.and_then(|listening| server.listen_on(listening));
            addresses.push(listening.map_err(|error| at(address, &error))?);
        }
        let handle = server.handle();
        Ok(Self { server, handle, addresses, open: HashMap::new(), events: Vec::new() })
    }

    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(super) fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    /// Waits for what happens, and takes some of it. If this is dropped while it waits, nothing is lost.
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

    /// Sends without waiting; false if the connection is gone.
    pub(super) fn send(&self, number: u64, datagram: Vec<u8>) -> bool {
        self.open.get(&number).is_some_and(|open| self.handle.send(open.id, datagram).is_ok())
    }

    /// Lets the connection live if `is_client` says that a client has shown that it is there.
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
        // IPv4 has a socket of its own.
        socket.set_only_v6(true)?;
    }
    // A root that is started again must not wait until the connections of the last one are forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
