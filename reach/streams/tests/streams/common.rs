//! A server and its clients, on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use peersock_overlay::Identity;
use peersock_streams::{
    Closed, ConnectOptions, Connection, ConnectionId, Connector, Limits, QueueLimits, RootKey, Server,
    ServerEvent, ServerOptions, ServerTls, Target, Transport,
};
use tokio::time::timeout;

/// Timeout against hangs, longer than anything takes.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn transports() -> [Transport; 3] {
    [Transport::Tcp, Transport::Tls, Transport::WebSocket]
}

pub(crate) fn identity() -> Identity {
    Identity::from_seed(&[7; 32])
}

pub(crate) fn root_key() -> RootKey {
    let identity = identity();
    RootKey::new(*identity.public().ed25519(), move |message: &[u8]| identity.sign(message))
}

/// Returns options with which no datagram gets too old, so that a busy machine makes no difference.
pub(crate) fn patient_server(options: ServerOptions) -> ServerOptions {
    let limits = Limits { inbox_age: TEST_TIMEOUT, ..options.limits };
    ServerOptions { limits, send_queue: patient(options.send_queue), ..options }
}

/// Returns the same for a client.
pub(crate) fn patient_client(options: ConnectOptions) -> ConnectOptions {
    let (send_queue, receive_queue) = (patient(options.send_queue), patient(options.receive_queue));
    ConnectOptions { send_queue, receive_queue, ..options }
}

fn patient(limits: QueueLimits) -> QueueLimits {
    QueueLimits { age: TEST_TIMEOUT, ..limits }
}

pub(crate) struct Bench {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    pub(crate) options: ConnectOptions,
}

impl Bench {
    /// Starts a server with the certificate of its key, unless the options have another.
    pub(crate) async fn start(options: ServerOptions) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), options).await
    }

    pub(crate) async fn start_at(address: SocketAddr, options: ServerOptions) -> Self {
        let own = || ServerTls::new(Some(root_key()), None).expect("a certificate");
        let tls = Some(options.tls.clone().unwrap_or_else(own));
        let server = Server::new(patient_server(ServerOptions { tls, ..options }));
        let address = server.listen(address).await.expect("a free port");
        Self { server, address, options: patient_client(ConnectOptions::default()) }
    }

    pub(crate) fn target(&self, transport: Transport) -> Target {
        let target = Target::new(transport, self.address.ip().to_string(), self.address.port());
        target.with_key(*identity().public().ed25519())
    }

    pub(crate) fn connector(&self) -> Connector {
        Connector::new(self.options.clone())
    }

    /// Makes an admitted connection. Returns it with its number at the server.
    pub(crate) async fn connect(&mut self, transport: Transport) -> (Connection, ConnectionId) {
        let (connection, id) = self.connect_stranger(transport).await;
        assert!(self.server.handle().admit(id));
        (connection, id)
    }

    /// Makes a connection. Returns it with its number at the server.
    pub(crate) async fn connect_stranger(&mut self, transport: Transport) -> (Connection, ConnectionId) {
        let (connector, target) = (self.connector(), self.target(transport));
        let connection =
            timeout(TEST_TIMEOUT, connector.connect(&target)).await.expect("in time").expect("connected");
        match self.event().await {
            ServerEvent::Opened { id, transport: found, .. } if found == transport => (connection, id),
            event => panic!("{event:?} instead of a connection by {transport}"),
        }
    }

    /// Ends a connection and waits until the server knows.
    pub(crate) async fn end(&mut self, connection: Connection, id: ConnectionId) {
        drop(connection);
        assert_eq!(self.closed(id).await, Closed::There);
    }

    pub(crate) async fn event(&mut self) -> ServerEvent {
        timeout(TEST_TIMEOUT, self.server.recv()).await.expect("in time")
    }

    pub(crate) async fn datagram(&mut self, from: ConnectionId) -> Vec<u8> {
        match self.event().await {
            ServerEvent::Datagram { id, datagram } if id == from => datagram.to_vec(),
            event => panic!("{event:?} instead of a datagram from {from}"),
        }
    }

    pub(crate) async fn closed(&mut self, connection: ConnectionId) -> Closed {
        match self.event().await {
            ServerEvent::Closed { id, reason } if id == connection => reason,
            event => panic!("{event:?} instead of the end of {connection}"),
        }
    }
}
