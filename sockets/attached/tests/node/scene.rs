//! A node in another process, an attachment to it, and a peer in this process.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use peersock::blocking;
use peersock::state::StateDir;
use peersock::{IdentitySource, Interfaces, Joined, Network, Node};
use peersock_attach::{Ask, Attached, Connection, Reply, Wish};
use peersock_attached::{Member, TcpStream};
use peersock_socket_server::FdServer;

use crate::process::Process;

/// Timeout of anything; tests do not depend on speed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// File with the node's token.
const ENVIRONMENT: &str = "environment";

pub(crate) struct Scene {
    pub(crate) member: Member,
    pub(crate) node: Process,
    place: tempfile::TempDir,
    listener: blocking::TcpListener,
    _peer: Node,
}

impl Scene {
    pub(crate) fn start() -> Scene {
        let place = tempfile::tempdir().expect("room");
        let random = RandomState::new().hash_one(std::process::id());
        let network = format!("ff{:04x}ffff000000", 1 + random as u16 % 8000);
        let order = format!("{network} {}", place.path().display());
        let node = Process::start("node_of_another_process", &order);
        let member = Member::new(attach(place.path())).expect("it answers");
        let (peer, joined) = join(&network);
        joined.wait_peer(node.address.ip(), PATIENCE).expect("they find each other");
        let address = SocketAddr::new(joined.address().into(), 0);
        let listener = blocking::TcpListener::bind_on(&peer, address).expect("a port");
        Scene { member, node, place, listener, _peer: peer }
    }

    /// Returns another attachment.
    pub(crate) fn attached(&self) -> Arc<Attached> {
        attach(self.place.path())
    }

    /// Returns the address at which the peer listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("it is bound")
    }

    /// Returns both ends of a connection with the peer.
    pub(crate) fn connect(&self) -> (TcpStream, blocking::TcpStream) {
        let stream = TcpStream::connect(&self.member, self.address(), PATIENCE).expect("it listens");
        let (peer, _) = self.listener.accept().expect("a connection");
        peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        (stream, peer)
    }
}

/// Attaches to the node of another process. The attachment ends with its program, even if the node ends.
fn attach(place: &Path) -> Arc<Attached> {
    let environment = fs::read_to_string(place.join(ENVIRONMENT)).expect("the node runs");
    let path = StateDir::node_socket(place);
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(path).expect("a free name");
    thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        let connection = Connection::new(stream).expect("a program of this user");
        connection.wish().expect("the first message");
        let attached =
            Reply::Attached { environment, process: 0, public_key: String::new(), networks: Vec::new() };
        connection.send(&attached).expect("room");
        while !matches!(connection.ask(), Ok(None | Some(Ask::Detach)) | Err(_)) {}
    });
    Arc::new(Attached::open(place, None, Wish::new("test"), |_| {}).expect("it is offered"))
}

/// Starts the node by the order of [`Scene::start`]. Returns it with an address.
pub(crate) fn serve(order: &str) -> ((Node, FdServer), SocketAddr) {
    let (network, place) = order.split_once(' ').expect("two words");
    let (node, joined) = join(network);
    let server = FdServer::start(&node).expect("descriptors");
    fs::write(Path::new(place).join(ENVIRONMENT), server.environment()).expect("room");
    let address = SocketAddr::new(joined.address().into(), 0);
    ((node, server), address)
}

fn join(network: &str) -> (Node, Joined) {
    let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let node = node.start().expect("a node on loopback");
    let joined = node.join(Network::ad_hoc(network.parse().expect("an ID"))).expect("a new network");
    (node, joined)
}
