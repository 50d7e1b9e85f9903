//! The driver on real sockets: trains stay trains, streams plug in, the end is the end.
#![cfg(feature = "server")]

use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::Identity;
use peersock_overlay::wire::Relayed;
use peersock_root::server::{Listen, Server};
use peersock_root::{Config, RelayPolicy, Root, Source};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use tokio::sync::oneshot;

#[expect(dead_code, reason = "the crate's own tests use all of it")]
#[path = "../src/tests/node.rs"]
mod node;

use node::Node;

/// Enough for the slowest machine under the heaviest load.
const PATIENCE: Duration = Duration::from_secs(60);

fn config() -> Config {
    let mut config = Config::new(Arc::new(Identity::from_seed(&[200; 32])));
    config.relay = RelayPolicy::Unlimited;
    config
}

/// The state machine before it serves: handshakes need no socket.
struct World<'a> {
    root: &'a mut Root,
    now: Instant,
}

impl World<'_> {
    fn send(&mut self, from: Source, datagram: &[u8]) -> Vec<(Source, Vec<u8>)> {
        self.root.handle_datagram(self.now, from, datagram);
        let mut out = Vec::new();
        std::iter::from_fn(|| Some((self.root.poll_transmit(&mut out)?, out.clone()))).collect()
    }
}

/// A socket with GSO and GRO.
struct Client {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Client {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).expect("its state");
        // The state has made it non-blocking.
        Self { socket, state }
    }

    fn source(&self) -> Source {
        Source::Udp { socket: 0, remote: self.socket.local_addr().expect("an address") }
    }

    fn send(&self, to: SocketAddr, train: &[u8], segment: usize) {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: train,
            segment_size: Some(segment),
            src_ip: None,
        };
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit).expect("sent");
    }

    /// Waits for so many frames; all that comes in one call is of one train.
    fn frames(&self, count: usize) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        let (mut memory, mut frames) = (vec![0; 1 << 16], Vec::new());
        while frames.len() < count {
            assert!(Instant::now() < deadline, "{} of {count} frames came", frames.len());
            let mut metas = [RecvMeta::default()];
            let mut buffers = [IoSliceMut::new(&mut memory)];
            match self.state.recv(UdpSockRef::from(&self.socket), &mut buffers, &mut metas) {
                Ok(_) => {
                    let meta = metas[0];
                    frames.extend(memory[..meta.len].chunks(meta.stride).map(<[u8]>::to_vec));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        frames
    }
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a test of the driver needs the time")]
    Instant::now()
}

/// A root with nodes that are registered at these sources, running; what is returned ends it.
struct Serving {
    address: SocketAddr,
    nodes: Vec<Node>,
    traffic: Arc<peersock_root::server::Traffic>,
    end: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<std::io::Result<()>>,
}

fn serve(sources: &[Source], plug: impl FnOnce(&Server) + Send + 'static) -> Serving {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let listen = Listen {
        udp: vec!["127.0.0.1:0".parse().expect("an address")],
        metrics: None,
        drain: Duration::ZERO,
    };
    let mut server = runtime.block_on(Server::bind(config(), listen)).expect("a server");
    let mut world = World { root: server.root_mut(), now: now() };
    let register = |(number, source): (usize, &Source)| {
        let mut node = Node::new(number as u8 + 1, *source);
        node.connect(&mut world);
        node.register(&mut world, 600);
        node
    };
    let nodes = sources.iter().enumerate().map(register).collect();
    let (address, traffic) = (server.udp_addresses()[0], server.traffic());
    let (end, ended) = oneshot::channel();
    #[expect(clippy::disallowed_methods, reason = "the server has a thread of its own")]
    let thread = std::thread::spawn(move || {
        runtime.block_on(async {
            plug(&server);
            server.run(async { _ = ended.await }).await
        })
    });
    Serving { address, nodes, traffic, end, thread }
}

impl Serving {
    fn end(self) {
        self.end.send(()).expect("it runs");
        self.thread.join().expect("no panic").expect("no error");
    }
}

#[test]
fn a_train_for_one_node_leaves_as_one_and_a_mixed_one_is_taken_apart() {
    let (a, b, c) = (Client::new(), Client::new(), Client::new());
    let serving = serve(&[a.source(), b.source(), c.source()], |_| ());
    let [from, to_b, to_c] = &serving.nodes[..] else { panic!("three nodes") };

    // Twenty frames of 1000 bytes and a shorter one.
    let bodies: Vec<_> = (0..21).map(|n: u8| vec![n; if n < 20 { 988 } else { 300 }]).collect();
    let train: Vec<u8> = bodies.iter().flat_map(|body| from.frame(to_b.channel, body)).collect();
    a.send(serving.address, &train, 1000);
    let expect = |node: &Node, bodies: &[Vec<u8>]| -> Vec<Vec<u8>> {
        let header = Relayed { token: node.token, channel: from.channel };
        bodies.iter().map(|body| [&header.to_bytes()[..], body].concat()).collect()
    };
    assert_eq!(b.frames(21), expect(to_b, &bodies));
    if a.state.max_gso_segments() > 21 {
        assert_eq!((serving.traffic.sent.get(), serving.traffic.send_calls.get()), (21, 1));
    }

    // Every third is for another node: each gets its own, in order.
    let is_for_c = |n: usize| n % 3 == 2;
    let train: Vec<u8> = bodies
        .iter()
        .enumerate()
        .flat_map(|(n, body)| from.frame(if is_for_c(n) { to_c.channel } else { to_b.channel }, body))
        .collect();
    a.send(serving.address, &train, 1000);
    let part = |c: bool| -> Vec<Vec<u8>> {
        bodies.iter().enumerate().filter(|(n, _)| is_for_c(*n) == c).map(|(_, body)| body.clone()).collect()
    };
    assert_eq!(b.frames(14), expect(to_b, &part(false)));
    assert_eq!(c.frames(7), expect(to_c, &part(true)));
    assert_eq!(serving.traffic.sent.get(), 42);
    if a.state.max_gso_segments() > 21 {
        assert!(serving.traffic.send_calls.get() < 12, "{}", serving.traffic.send_calls.get());
    }
    assert_eq!(serving.traffic.send_failed.get(), 0);
    serving.end();
}

#[test]
fn a_stream_delivers_and_takes_datagrams() {
    let a = Client::new();
    // What the transport has seen of the root.
    let (seen, heard) = std::sync::mpsc::channel();
    let serving = serve(&[a.source()], move |server| {
        let connections = server.connections();
        tokio::spawn(async move {
            let connection = connections.open("127.0.0.1:9".parse().expect("an address")).expect("a root");
            let (to_root, mut from_root) = connection.split();
            let remote = "127.0.0.1:9".parse().expect("an address");
            let mut node = Node::new(100, Source::Stream { number: 0, remote });
            let begun = node.begin(now());
            assert!(to_root.send(begun.datagram.clone()).await);
            let response = from_root.recv().await.expect("a response");
            node.finish(&begun, &response);
            assert!(to_root.send(node.seal(&[0; 10])).await);
            let probe = peersock_overlay::wire::Control::Challenge { data: [7; 8], here: false };
            assert!(to_root.send(node.seal_control(probe)).await);
            let answer = from_root.recv().await.expect("an answer");
            seen.send(node.open(&answer)).expect("the test waits");
            while from_root.recv().await.is_some() {}
        });
    });
    let answer = heard.recv_timeout(PATIENCE).expect("the transport is done");
    assert_eq!(answer, Some([&[7][..], &[7; 8]].concat()));
    serving.end();
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = taken.local_addr().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bind = |udp| Server::bind(config(), Listen { udp, metrics: None, drain: Duration::ZERO });
    let error = runtime.block_on(bind(vec![address])).expect_err("it is taken");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(runtime.block_on(bind(Vec::new())).is_err());
}
