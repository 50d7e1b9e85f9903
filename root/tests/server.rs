//! Tests of the driver on real sockets: trains stay trains, streams are accepted, and the root ends in order.
#![cfg(feature = "server")]
#![expect(clippy::disallowed_methods, reason = "the driver has clocks and threads, and so have its tests")]

use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::Identity;
use peersock_overlay::wire::{MessageType, Relayed, RootMessage};
use peersock_root::server::{Listen, SecondPort, Server, StreamListen};
use peersock_root::{Config, RelayPolicy, Root, Source};
use peersock_streams::{ConnectOptions, Connector, Target, Transport};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use tokio::sync::oneshot;
use tokio::time::timeout;

#[expect(dead_code, reason = "the crate's own tests use all of it")]
#[path = "../src/tests/node.rs"]
mod node;

use node::Node;

/// Long enough for the slowest machine under the heaviest load.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

fn config() -> Config {
    let mut config = Config::new(Arc::new(Identity::from_seed(&[200; 32])));
    config.relay = RelayPolicy::Unlimited;
    config
}

/// State machine before it serves: handshakes need no socket.
struct World<'a> {
    root: &'a mut Root,
    now: Instant,
    /// Processor time spent in the state machine.
    spent: Duration,
}

impl World<'_> {
    fn send(&mut self, from: Source, datagram: &[u8]) -> Vec<(Source, Vec<u8>)> {
        let start = processor_time();
        self.root.handle_datagram(self.now, from, datagram);
        self.spent += processor_time() - start;
        let mut out = Vec::new();
        std::iter::from_fn(|| Some((self.root.poll_transmit(&mut out)?, out.clone()))).collect()
    }
}

/// Socket with GSO and GRO.
struct Client {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Client {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).expect("its state");
        // The state has made the socket non-blocking.
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

    /// Waits for `count` frames; all frames of one call belong to one train.
    fn frames(&self, count: usize) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + TEST_TIMEOUT;
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

/// Returns the processor time of this thread.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn now() -> Instant {
    Instant::now()
}

/// Running root with nodes registered at these sources.
struct Serving {
    address: SocketAddr,
    /// Address of its stream listener.
    stream: SocketAddr,
    nodes: Vec<Node>,
    traffic: Arc<peersock_root::server::Traffic>,
    end: oneshot::Sender<()>,
    /// Thread of the root, which returns its processor time.
    thread: std::thread::JoinHandle<std::io::Result<Duration>>,
}

fn serve(sources: &[Source]) -> Serving {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let loopback = "127.0.0.1:0".parse().expect("an address");
    let streams = Some(StreamListen { addresses: vec![loopback], ..StreamListen::default() });
    let listen = Listen { streams, drain: Duration::ZERO, ..Listen::on(loopback) };
    let mut server = runtime.block_on(Server::bind(config(), listen)).expect("a server");
    let mut world = World { root: server.root_mut(), now: now(), spent: Duration::ZERO };
    let register = |(number, source): (usize, &Source)| {
        let mut node = Node::new(number as u8 + 1, *source);
        node.connect(&mut world);
        node.register(&mut world, 600);
        node
    };
    let nodes = sources.iter().enumerate().map(register).collect();
    let (address, stream) = (server.udp_addresses()[0], server.stream_addresses()[0]);
    let traffic = server.traffic();
    let (end, ended) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        runtime.block_on(async { server.run(async { _ = ended.await }).await })?;
        Ok(processor_time())
    });
    Serving { address, stream, nodes, traffic, end, thread }
}

impl Serving {
    /// Waits until `count` datagrams have been counted, and no more, because a receiver may be faster than
    /// the counter.
    fn wait_until_sent(&self, count: u64) {
        let deadline = Instant::now() + TEST_TIMEOUT;
        while self.traffic.sent.get() < count && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(self.traffic.sent.get(), count);
    }

    fn end(self) -> Duration {
        self.end.send(()).expect("it runs");
        self.thread.join().expect("no panic").expect("no error")
    }
}

#[test]
fn a_train_for_one_node_leaves_as_one_and_a_mixed_one_is_taken_apart() {
    let (a, b, c) = (Client::new(), Client::new(), Client::new());
    let serving = serve(&[a.source(), b.source(), c.source()]);
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
        serving.wait_until_sent(21);
        assert_eq!(serving.traffic.send_calls.get(), 1);
    }

    // Every third frame is for another node: each node gets its frames in order.
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
    serving.wait_until_sent(42);
    if a.state.max_gso_segments() > 21 {
        assert!(serving.traffic.send_calls.get() < 12, "{}", serving.traffic.send_calls.get());
    }
    assert_eq!(serving.traffic.send_failed.get(), 0);
    serving.end();
}

#[test]
fn frames_for_many_nodes_leave_in_one_call_and_each_node_has_its_own_in_order() {
    const NODES: usize = 20;
    let (a, others) = (Client::new(), [(); NODES].map(|()| Client::new()));
    let sources: Vec<_> = [&a].into_iter().chain(&others).map(Client::source).collect();
    let serving = serve(&sources);
    let (from, nodes) = serving.nodes.split_first().expect("there are some");
    let body = |n: usize| vec![n as u8; 488];
    // Two frames for each node, interleaved: none of them are adjacent.
    let train: Vec<u8> =
        (0..2 * NODES).flat_map(|n| from.frame(nodes[n % NODES].channel, &body(n))).collect();
    a.send(serving.address, &train, 500);
    for (n, (node, client)) in nodes.iter().zip(&others).enumerate() {
        let header = Relayed { token: node.token, channel: from.channel }.to_bytes();
        assert_eq!(client.frames(2), [n, n + NODES].map(|n| [&header[..], &body(n)].concat()));
    }
    serving.wait_until_sent(2 * NODES as u64);
    if a.state.max_gso_segments() >= 2 * NODES {
        assert_eq!(serving.traffic.send_calls.get(), 1);
    }
    assert_eq!(serving.traffic.send_failed.get(), 0);
    serving.end();
}

#[test]
fn nodes_reach_each_other_by_each_kind_of_stream() {
    let udp = Client::new();
    let serving = serve(&[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let connector = Connector::new(ConnectOptions::default());
        let mut nodes = Vec::new();
        for (number, transport) in
            [Transport::Tcp, Transport::Tls, Transport::WebSocket].into_iter().enumerate()
        {
            let target = Target::new(transport, "127.0.0.1", serving.stream.port());
            let target = target.with_key(*config().identity.public().ed25519());
            let mut connection = connector.connect(&target).await.expect("connected");
            let mut node = Node::new(50 + number as u8, udp.source());
            // Streams drop datagrams that wait too long, so each is sent again.
            let (begun, response) = repeat(async || {
                let begun = node.begin(now());
                connection.send(begun.datagram.clone()).expect("open");
                let response = connection.recv().await.expect("open");
                (MessageType::of(&response) == Some(MessageType::Response)).then_some((begun, response))
            })
            .await;
            node.finish(&begun, &response);
            let answer = repeat(async || {
                let message = node.registration(600);
                connection.send(node.seal_message(&message)).expect("open");
                let answer = node.open(&connection.recv().await.expect("open"))?;
                RootMessage::parse(&answer).ok()
            })
            .await;
            let RootMessage::Registered(answer) = answer else { panic!("registered, not {answer:?}") };
            assert_eq!(answer.voucher.address.port(), 0, "what TCP sees says nothing of UDP");
            (node.token, node.channel) = (answer.token, answer.channel);
            nodes.push((node, connection));
        }
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            let frame = nodes[from].0.frame(nodes[to].0.channel, b"inside");
            let arrived = repeat(async || {
                nodes[from].1.send(frame.clone()).expect("open");
                Some(nodes[to].1.recv().await.expect("open"))
            })
            .await;
            let header = Relayed { token: nodes[to].0.token, channel: nodes[from].0.channel };
            assert_eq!(arrived, [&header.to_bytes()[..], b"inside"].concat());
        }
    });
    serving.end();
}

/// Builds a binding request of 48 bytes, with CHANGE-REQUEST for the other port or a SOFTWARE of that length.
fn stun_request(changes_port: bool) -> Vec<u8> {
    let kind: [u8; 2] = if changes_port { [0, 3] } else { [0x80, 0x22] };
    let head = [&[0, 1, 0, 28][..], &[0x21, 0x12, 0xa4, 0x42], &[7; 12], &kind, &[0, 4, 0, 0, 0, 2]];
    [&head.concat()[..], &[0x80, 0x22, 0, 16], &[b' '; 16]].concat()
}

#[test]
fn a_second_port_answers_stun_alone_and_for_the_first_one() {
    let listen = Listen {
        udp: vec!["127.0.0.1:0".parse().unwrap(), "127.0.0.2:0".parse().unwrap()],
        second_port: SecondPort::Number(0),
        drain: Duration::ZERO,
        ..Listen::on("127.0.0.1:0".parse().unwrap())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let server = runtime.block_on(Server::bind(config(), listen)).expect("free ports");
    assert!(server.second_port_error().is_none());
    let (first, second) = (server.udp_addresses(), server.second_addresses());
    assert_eq!(
        first.iter().map(SocketAddr::ip).collect::<Vec<_>>(),
        second.iter().map(SocketAddr::ip).collect::<Vec<_>>()
    );
    let (end, ended) = oneshot::channel::<()>();
    let root = std::thread::spawn(move || runtime.block_on(server.run(async { drop(ended.await) })));

    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.set_read_timeout(Some(TEST_TIMEOUT)).expect("a socket");
    let ask = |to: SocketAddr, request: &[u8]| {
        client.send_to(request, to).expect("sent");
        let mut room = [0; 100];
        let (len, from) = client.recv_from(&mut room).expect("an answer");
        (from, room[..len].to_vec())
    };
    for (first, second) in first.iter().zip(&second) {
        let (from, answer) = ask(*first, &stun_request(false));
        let port = [&[0xd9, 0x5e, 0, 2][..], &second.port().to_be_bytes(), &[0, 0]].concat();
        assert_eq!((from, answer.len()), (*first, 40));
        assert!(answer[..2] == [1, 1] && answer.ends_with(&port), "{answer:?}");
        let (from, changed) = ask(*first, &stun_request(true));
        assert_eq!((from, &changed), (*second, &answer));
        // The second port has no other one itself.
        let (from, answer) = ask(*second, &stun_request(false));
        assert_eq!((from, answer.len()), (*second, 32));
        assert_eq!(ask(*second, &stun_request(true)).1[..2], [1, 0x11], "an error");
    }
    // Other messages get no answer there: an initiation from a stranger would have one, sent before this.
    let initiation = Node::new(9, Source::Udp { socket: 0, remote: first[0] }).begin(now()).datagram;
    client.send_to(&initiation, second[0]).expect("sent");
    assert_eq!(ask(second[0], &stun_request(false)).1[..2], [1, 1]);
    assert_ne!(ask(first[0], &initiation).1[..2], [1, 1]);
    end.send(()).expect("it runs");
    root.join().expect("no panic").expect("it ends");
}

#[test]
fn a_second_port_in_use_is_left_out() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let port = taken.local_addr().expect("an address").port();
    let udp = vec!["127.0.0.2:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
    let listen =
        Listen { udp, second_port: SecondPort::Number(port), ..Listen::on("127.0.0.1:0".parse().unwrap()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let server = runtime.block_on(Server::bind(config(), listen)).expect("the first ports are free");
    let error = server.second_port_error().expect("one is taken");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    assert_eq!(server.second_addresses(), [SocketAddr::from(([127, 0, 0, 2], port))]);
}

/// Tries until the attempt returns a value.
async fn repeat<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..TEST_TIMEOUT.as_secs() {
        if let Ok(Some(value)) = timeout(Duration::from_secs(1), attempt()).await {
            return value;
        }
    }
    panic!("no answer");
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = taken.local_addr().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let error = runtime.block_on(Server::bind(config(), Listen::on(address))).expect_err("it is taken");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");

    let free = "127.0.0.1:0".parse().expect("an address");
    let nowhere = Listen { udp: Vec::new(), ..Listen::on(free) };
    assert!(runtime.block_on(Server::bind(config(), nowhere)).is_err());

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = taken.local_addr().expect("an address");
    let streams = Some(StreamListen { addresses: vec![address], ..StreamListen::default() });
    let error = runtime.block_on(Server::bind(config(), Listen { streams, ..Listen::on(free) }));
    assert!(error.expect_err("it is taken").to_string().contains(&address.to_string()));
}

/// Measures, for docs/use/ROOT.md:
/// `cargo test --release -p peersock-root --test server -- --ignored --nocapture`.
#[test]
#[ignore = "cargo xtask test --only slow: it measures"]
fn processor_time_of_a_relayed_frame() {
    const TIME: Duration = Duration::from_secs(3);
    for (what, segments) in [("in trains of 40", 40), ("one by one", 1)] {
        let (a, b) = (Client::new(), Client::new());
        let serving = serve(&[a.source(), b.source()]);
        let [from, to] = &serving.nodes[..] else { panic!("two nodes") };
        let train = from.frame(to.channel, &[0xd4; 1388]).repeat(segments);
        let transmit = Transmit {
            destination: serving.address,
            ecn: None,
            contents: &train,
            segment_size: Some(1400),
            src_ip: None,
        };
        let start = Instant::now();
        while start.elapsed() < TIME {
            // Frames that find no buffer space are lost, as on any link; only sent ones count.
            let _ = a.state.try_send(UdpSockRef::from(&a.socket), &transmit);
        }
        let (sent, received) = (serving.traffic.sent.get(), serving.traffic.received.get());
        let calls = serving.traffic.send_calls.get();
        let used = serving.end();
        let each = used / u32::try_from(sent.max(1)).unwrap_or(u32::MAX);
        eprintln!(
            "1400-byte frames {what}: {sent} relayed of {received} in {TIME:?}, {calls} calls, {each:?} of one processor each: \
             {:.2} Mpackets/s, {:.1} Gbit/s per core",
            1e-6 / each.as_secs_f64(),
            1400.0 * 8e-9 / each.as_secs_f64(),
        );
        assert!(sent > 0);
    }
}

/// Measures, as above.
#[test]
#[ignore = "cargo xtask test --only slow: it measures"]
fn time_of_a_session_and_a_registration() {
    const NODES: u32 = 500;
    let mut root = Root::new(config(), &[1; 32], now(), Duration::ZERO);
    let mut world = World { root: &mut root, now: now(), spent: Duration::ZERO };
    let (mut sessions, mut registrations) = (Duration::ZERO, Duration::ZERO);
    for number in 0..NODES {
        world.now += Duration::from_millis(100);
        let [.., a, b] = number.to_be_bytes();
        let mut seed = [3; 32];
        (seed[0], seed[1]) = (a, b);
        let source = Source::Udp { socket: 0, remote: SocketAddr::from(([10, a, b, 1], 4000)) };
        let mut node = Node::of(Identity::from_seed(&seed), source);
        node.connect(&mut world);
        sessions += std::mem::take(&mut world.spent);
        node.register(&mut world, 600);
        registrations += std::mem::take(&mut world.spent);
    }
    eprintln!("a session takes {:?}, a registration {:?}", sessions / NODES, registrations / NODES);
    assert_eq!(root.registered(), NODES as usize);
}
