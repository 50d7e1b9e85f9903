//! peersock as a [`Transport`]: the same work as kernel TCP, through the blocking sockets of a node in this
//! process.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::Duration;

use clap::{Args, ValueEnum};
use peersock::blocking::{TcpListener, TcpStream, UdpSocket};
use peersock::overlay::Suite;
use peersock::{IdentitySource, Interfaces, Joined, Network, NetworkId, Node, NodeBuilder, Seed};

use crate::workload::{self, Datagrams, Listener, Stream, Transport, User};

/// The node's options.
#[derive(Args)]
pub(crate) struct NodeOptions {
    /// Ad-hoc network of both sides; any that allows ports from 1024 on
    #[arg(long, default_value = "ff0400ffff000000")]
    network: NetworkId,
    /// Derive the identity, and so the address, from this number, so that a restart keeps it
    #[arg(long)]
    seed: Option<u8>,
    /// Use only the loopback interface
    #[arg(long)]
    loopback: bool,
    /// Poll for packets for MICROSECONDS before each sleep [default: only where it pays]
    #[arg(long, value_name = "MICROSECONDS")]
    busy_poll: Option<u64>,
    /// Use only this cipher [default: the faster one]
    #[arg(long)]
    cipher: Option<Cipher>,
}

/// A cipher of data.
#[derive(Clone, Copy, ValueEnum)]
enum Cipher {
    /// AES-256-GCM
    Aes,
    /// ChaCha20-Poly1305
    Chacha,
}

impl Cipher {
    fn suite(self) -> Suite {
        match self {
            Cipher::Aes => Suite::Aes256Gcm,
            Cipher::Chacha => Suite::ChaCha20Poly1305,
        }
    }
}

impl NodeOptions {
    /// Returns the builder of the node that these options describe.
    pub(crate) fn builder(&self) -> NodeBuilder {
        let identity = match self.seed {
            Some(seed) => IdentitySource::Seed(Seed([seed; 32])),
            None => IdentitySource::Ephemeral,
        };
        let interfaces = if self.loopback { Interfaces::Loopback } else { Interfaces::All };
        let node = Node::builder().identity(identity).interfaces(interfaces);
        let node = match self.busy_poll {
            Some(microseconds) => node.busy_poll(Duration::from_micros(microseconds)),
            None => node,
        };
        match self.cipher {
            Some(cipher) => node.only_suite(cipher.suite()),
            None => node,
        }
    }

    /// Returns the network to join.
    pub(crate) fn network(&self) -> NetworkId {
        self.network
    }
}

/// A node that has joined the network.
pub(crate) struct Overlay {
    node: Node,
    joined: Joined,
}

impl Overlay {
    /// Starts the node and joins.
    /// Fails if the node cannot start or the network cannot be joined.
    pub(crate) fn start(options: &NodeOptions) -> io::Result<Overlay> {
        let node = options.builder().start()?;
        let joined = node.join(Network::ad_hoc(options.network)).map_err(io::Error::other)?;
        Ok(Overlay { node, joined })
    }

    fn address(&self) -> IpAddr {
        self.joined.address().into()
    }
}

impl Transport for Overlay {
    type Stream = TcpStream;
    type Listener = OverlayListener;
    type Datagrams = UdpSocket;

    fn connect(&self, address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        TcpStream::connect_timeout_on(&self.node, &address, timeout)
    }

    fn listen(&self, address: SocketAddr) -> io::Result<OverlayListener> {
        let listener = TcpListener::bind_on(&self.node, address)?;
        let address = SocketAddr::new(self.address(), listener.local_addr()?.port());
        Ok(OverlayListener { listener, address })
    }

    fn bind(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        UdpSocket::bind_on(&self.node, address)
    }

    fn swallow(&self, address: SocketAddr, user: User<TcpStream>) -> io::Result<()> {
        workload::runtime()?.block_on(async {
            let listener = peersock::TcpListener::bind_on(&self.node, address).await?;
            user.serve(async || listener.accept().await.map(|(stream, _)| stream)).await
        })
    }
}

/// A listener on all of the node's addresses, and the address that clients use.
pub(crate) struct OverlayListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener for OverlayListener {
    type Stream = TcpStream;

    fn accept(&self) -> io::Result<TcpStream> {
        self.listener.accept().map(|(stream, _)| stream)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Stream for TcpStream {
    fn set_nodelay(&self, on: bool) -> io::Result<()> {
        TcpStream::set_nodelay(self, on)
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        TcpStream::set_read_timeout(self, timeout)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Datagrams for UdpSocket {
    fn send_to(&self, datagram: &[u8], address: SocketAddr) -> io::Result<()> {
        UdpSocket::send_to(self, datagram, address).map(drop)
    }

    fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        UdpSocket::recv_from(self, buf)
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        UdpSocket::set_read_timeout(self, timeout)
    }
}
