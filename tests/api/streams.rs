//! Nodes whose datagrams get no answer. They reach their root by TCP, TLS or a WebSocket.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use peersock::overlay::Identity;
use peersock::{
    IdentitySource, Interfaces, Joined, Network, NetworkId, Node, RootSource, RootState, RootStatus,
};
use peersock_root::Config;
use peersock_root::server::{Listen, Server, StreamListen};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::common::{PATIENCE, exchange, network};

#[test]
fn two_nodes_meet_by_streams_where_udp_has_no_answer() {
    let root = Root::start(None);
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let udp = silent.local_addr().expect("its address");
    let network = network();
    for (at_alpha, at_beta) in [("wss", "tcp"), ("tls", "wss")] {
        let at = |way: &str| format!("{udp},{way}:{}", root.stream);
        let (alpha, home) = root.node(&at(at_alpha), network);
        let (beta, away) = root.node(&at(at_beta), network);
        exchange((&alpha, &home), (&beta, &away), 300_000);
        for (node, way) in [(&alpha, at_alpha), (&beta, at_beta)] {
            let status = node.status();
            let at_root = &status.roots[0];
            assert_eq!((at_root.state, at_root.path, at_root.observed), (RootState::Registered, None, None));
            assert_eq!(at_root.stream, Some(format!("{way}:{}", root.stream)));
            assert_eq!((at_root.endpoints.clone(), at_root.relayed_peers), (vec![udp], 1));
            assert_eq!((status.peers[0].path, status.peers[0].root), (None, Some(at_root.id)));
        }
    }
    // The node asked there first, and got no answer.
    silent.set_read_timeout(Some(Duration::from_millis(1))).expect("a time");
    assert!(silent.recv(&mut [0; 2000]).is_ok());
}

#[test]
fn one_node_by_udp_and_one_by_a_stream_talk() {
    let root = Root::start(None);
    let network = network();
    let (alpha, home) = root.node(&root.udp[0].to_string(), network);
    let (beta, away) = root.node(&format!("wss:{}", root.stream), network);
    exchange((&alpha, &home), (&beta, &away), 300_000);
    exchange((&beta, &away), (&alpha, &home), 300_000);
    assert_eq!(alpha.status().roots[0].path, Some(root.udp[0]));
    assert!(beta.status().roots[0].stream.is_some());
}

#[test]
fn a_stream_is_left_for_udp_when_that_answers() {
    let root = Root::start(None);
    let gate = Gate::start(root.udp[0]);
    let (node, _) = root.node(&format!("{},wss:{}", gate.address, root.stream), network());
    let at_root = wait(&node, |root| root.state == RootState::Registered);
    assert!(at_root.stream.is_some() && at_root.path.is_none(), "{at_root:?}");
    gate.open.store(true, Ordering::SeqCst);
    let at_root = wait(&node, |root| root.path == Some(gate.address) && root.observed.is_some());
    assert_eq!((at_root.stream, at_root.state), (None, RootState::Registered));
    let since = Instant::now();
    while root.streams() > 0 {
        assert!(since.elapsed() < PATIENCE, "the stream stays open");
        thread::sleep(Duration::from_millis(5));
    }
    // And back, when the datagrams get no answer any more.
    gate.open.store(false, Ordering::SeqCst);
    wait(&node, |root| {
        root.stream.is_some() && root.state == RootState::Registered && root.observed.is_none()
    });
}

#[test]
fn a_root_that_was_killed_and_started_again_gets_its_streams_back() {
    let root = Root::start(None);
    let network = network();
    let way = format!("wss:{}", root.stream);
    let (alpha, home) = root.node(&way, network);
    let (beta, away) = root.node(&way, network);
    exchange((&alpha, &home), (&beta, &away), 300_000);
    let (udp, stream) = (root.udp[0], root.stream);
    drop(root);
    wait(&alpha, |root| root.stream.is_none());
    assert!(alpha.status().roots[0].stream_error.is_some());
    let root = Root::start(Some((udp, stream)));
    for node in [&alpha, &beta] {
        wait(node, |root| root.stream.is_some() && root.state == RootState::Registered);
    }
    exchange((&alpha, &home), (&beta, &away), 300_000);
    assert_eq!(root.streams(), 2);
}

#[test]
fn what_is_wrong_with_a_way_is_said() {
    let root = Root::start(None);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let closed = taken.local_addr().expect("its address");
    drop(taken);
    let (node, _) = root.node(&format!("tls:{closed}"), network());
    let at_root = wait(&node, |root| root.stream_error.is_some());
    assert!(at_root.stream_error.expect("waited for").contains("HTTPS_PROXY"), "what to do");
    assert_eq!(at_root.stream, None);
}

/// Waits until a node's only root is in the wanted state.
fn wait(node: &Node, is_right: impl Fn(&RootStatus) -> bool) -> RootStatus {
    let since = Instant::now();
    loop {
        let root = node.status().roots.remove(0);
        if is_right(&root) {
            return root;
        }
        assert!(since.elapsed() < PATIENCE, "{root:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A root on the loopback interface. Dropping it has the effect of a kill.
pub(crate) struct Root {
    identity: peersock::PublicIdentity,
    udp: Vec<SocketAddr>,
    stream: SocketAddr,
    count: Box<dyn Fn() -> usize + Send>,
    kill: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Root {
    /// Starts a root at these addresses for UDP and streams, or at any.
    fn start(at: Option<(SocketAddr, SocketAddr)>) -> Root {
        let any = "127.0.0.1:0".parse().expect("an address");
        let (udp, stream) = at.unwrap_or((any, any));
        Root::listen(&[udp], stream)
    }

    pub(crate) fn listen(udp: &[SocketAddr], stream: SocketAddr) -> Root {
        let identity = Identity::from_seed(&[0x99; 32]);
        let public = *identity.public();
        let config = Config::new(Arc::new(identity));
        let streams = StreamListen { addresses: vec![stream], ..StreamListen::default() };
        let listen = Listen { udp: udp.to_vec(), streams: Some(streams), ..Listen::on(stream) };
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let server = runtime.block_on(Server::bind(config, listen)).expect("free ports");
        let (udp, stream) = (server.udp_addresses().to_vec(), server.stream_addresses()[0]);
        let handle = server.streams().expect("it takes streams");
        let (kill, killed) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    ended = server.run(std::future::pending()) => ended.expect("it serves"),
                    _ = killed => {}
                }
            });
        });
        let count = Box::new(move || handle.connections());
        Root { identity: public, udp, stream, count, kill: Some(kill), thread: Some(thread) }
    }

    pub(crate) fn identity(&self) -> &peersock::PublicIdentity {
        &self.identity
    }

    pub(crate) fn udp(&self) -> &[SocketAddr] {
        &self.udp
    }

    pub(crate) fn stream(&self) -> SocketAddr {
        self.stream
    }

    /// Starts a node in a network. The node knows these endpoints of the root.
    fn node(&self, endpoints: &str, network: NetworkId) -> (Node, Joined) {
        let roots = RootSource::load(&format!("{}@{endpoints}", self.identity)).expect("a root");
        let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
        // With TCP punching the nodes would soon connect to each other, but this tests the root.
        let node = builder.discovery(false).tcp_punch(false).roots(roots).start().expect("loopback sockets");
        let joined = node.join(Network::ad_hoc(network)).expect("joined");
        (node, joined)
    }

    /// Returns the number of open stream connections.
    fn streams(&self) -> usize {
        (self.count)()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // After a failure there is one thread less to wait for.
        let _ = self.kill.take().map(|kill| kill.send(()));
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// Relay of one node's datagrams to a root and back, while it is open.
struct Gate {
    address: SocketAddr,
    open: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Gate {
    fn start(root: SocketAddr) -> Gate {
        let [outside, inside] = [(); 2].map(|()| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
            socket.set_read_timeout(Some(Duration::from_millis(2))).expect("a time");
            socket
        });
        inside.connect(root).expect("an address");
        let address = outside.local_addr().expect("its address");
        let [open, stop] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (is_open, stopped) = (Arc::clone(&open), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let (mut buf, mut node) = (vec![0; 65_536], None);
            while !stopped.load(Ordering::SeqCst) {
                let passes = is_open.load(Ordering::SeqCst);
                if let Ok((length, from)) = outside.recv_from(&mut buf) {
                    node = Some(from);
                    let _ = passes.then(|| inside.send(&buf[..length]));
                }
                if let (Ok(length), Some(node)) = (inside.recv(&mut buf), node) {
                    let _ = passes.then(|| outside.send_to(&buf[..length], node));
                }
            }
        });
        Gate { address, open, stop, thread: Some(thread) }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}
