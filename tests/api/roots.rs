//! Nodes that know nothing of each other but a root.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use peersock::overlay::Identity;
use peersock::overlay::wire::Announcement;
use peersock::{Event, IdentitySource, Interfaces, Network, Node, RootAddress, RootSource, RootState};
use peersock_testnet::{Random, RealRoot};

/// Only keeps a hang from lasting.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn two_nodes_meet_at_a_root_and_go_on_directly() {
    let (root, text) = Root::start();
    let node = || {
        let roots = RootAddress::parse_list(&text).expect("a root");
        let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
        builder.discovery(false).roots(roots).start().expect("loopback sockets")
    };
    let (alpha, beta) = (node(), node());
    let network = || Network::ad_hoc("ff00000fff000000".parse().expect("an ID"));
    let home = alpha.join(network()).expect("joined");
    let target = beta.join(network()).expect("joined").address();
    let listener = peersock::blocking::TcpListener::bind_on(&beta, "[::]:5").expect("a free port");
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("all of it");
        stream.write_all(&all).expect("room");
    });
    home.wait_peer(target.into(), PATIENCE).expect("it is found at the root");
    let address = SocketAddr::new(target.into(), 5);
    let mut stream = peersock::blocking::TcpStream::connect_on(&alpha, address).expect("connected");
    let data: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    stream.write_all(&data).expect("room");
    stream.shutdown(std::net::Shutdown::Write).expect("connected");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("all of it");
    assert!(back == data, "{} of {} bytes", back.len(), data.len());
    echo.join().expect("no panic");

    let status = alpha.status();
    let at_root = &status.roots[0];
    assert_eq!((at_root.state, at_root.path), (RootState::Registered, Some(root.address)));
    assert!(status.endpoints.contains(&at_root.observed.expect("a voucher")));
    // What the root has seen, or an interface has, is where they reach each other, as soon as both have been told.
    let there = beta.status().endpoints;
    let since = Instant::now();
    let mut path = status.peers[0].path;
    while !path.is_some_and(|path| there.contains(&path)) {
        assert!(path == Some(root.address) && since.elapsed() < PATIENCE, "{path:?}");
        thread::sleep(Duration::from_millis(5));
        path = alpha.status().peers[0].path;
    }
    let status = alpha.status();
    assert_eq!((status.peers[0].root, status.roots[0].relayed_peers), (None, 0));
    assert_eq!(status.networks.len(), 1, "the network of the roots is hidden");
}

#[test]
fn a_root_with_a_host_name_is_used() {
    let (root, _) = Root::start();
    let text = format!("{}@localhost:{}", root.identity, root.address.port());
    let roots = RootAddress::parse_list(&text).expect("a root");
    let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let node = builder.discovery(false).roots(roots).start().expect("loopback sockets");
    let since = Instant::now();
    while node.status().roots[0].state != RootState::Registered {
        assert!(since.elapsed() < PATIENCE, "{:?}", node.status().roots);
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_root_that_announces_itself_is_used_by_those_who_want_that() {
    let (root, _) = Root::start();
    // A port for discovery that nobody else has: it is kept until the nodes share it.
    let kept = UdpSocket::bind("0.0.0.0:0").expect("a port");
    let port = kept.local_addr().expect("its address").port();
    drop(kept);
    let builder = || {
        let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
        builder.discovery_port(port)
    };
    let willing = builder().roots([RootSource::Lan]).start().expect("loopback sockets");
    let others = builder().roots(Vec::<RootSource>::new()).start().expect("loopback sockets");
    let since = Instant::now();
    while willing.status().roots.first().is_none_or(|root| root.state != RootState::Registered) {
        assert!(since.elapsed() < PATIENCE, "{:?}", willing.status().roots);
        root.announce(port);
        thread::sleep(Duration::from_millis(20));
    }
    let used = &willing.status().roots[0];
    assert_eq!((used.id, used.path), (root.identity.node_id(), Some(root.address)));
    assert!(others.status().roots.is_empty());
}

#[test]
fn events_say_that_a_path_is_direct() {
    let (_root, text) = Root::start();
    let node = || {
        let roots = RootAddress::parse_list(&text).expect("a root");
        let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
        builder.discovery(false).roots(roots).start().expect("loopback sockets")
    };
    let (alpha, beta) = (node(), node());
    let network = || Network::ad_hoc("ff00000fff000000".parse().expect("an ID"));
    let events = alpha.events();
    let home = alpha.join(network()).expect("joined");
    let target = beta.join(network()).expect("joined").address();
    home.wait_peer(target.into(), PATIENCE).expect("it is found at the root");
    let ping = peersock::blocking::Ping::open_on(&alpha, target.into()).expect("a socket");
    let is_direct = |event: &Event| match event {
        Event::PeerReachable { id, relayed } | Event::PathChanged { id, relayed } => {
            *id == beta.id() && !relayed
        }
        _ => false,
    };
    // The direct path is looked for while packets flow.
    let since = Instant::now();
    for sequence in 0.. {
        let _ = ping.ping(sequence, b"", Duration::from_millis(50));
        if std::iter::from_fn(|| events.next_timeout(Duration::from_millis(50)))
            .any(|event| is_direct(&event))
        {
            break;
        }
        assert!(since.elapsed() < PATIENCE, "{:?}", alpha.status().peers);
    }
    assert_eq!(alpha.status().peers[0].root, None);
}

/// A root on the loopback interface.
struct Root {
    identity: peersock::PublicIdentity,
    address: SocketAddr,
    announcer: UdpSocket,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Root {
    /// Starts one; gives the text that names it, too.
    fn start() -> (Root, String) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a time");
        let address = socket.local_addr().expect("its address");
        let identity = Identity::from_seed(&[0x99; 32]);
        let public = *identity.public();
        let clock = Duration::from_secs(1_800_000_000);
        let mut root = RealRoot::new(identity, Instant::now(), clock, Random::from_seed(1));
        let announcer = socket.try_clone().expect("one more descriptor");
        announcer.set_broadcast(true).expect("it may");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut buf = vec![0; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                let mut sent = match socket.recv_from(&mut buf) {
                    Ok((len, from)) => root.handle(Instant::now(), from, &buf[..len]),
                    Err(_) => Vec::new(),
                };
                sent.extend(root.handle_timeout(Instant::now()));
                for (to, datagram) in sent {
                    let _ = socket.send_to(&datagram, to);
                }
            }
        });
        (
            Root { identity: public, address, announcer, stop, thread: Some(thread) },
            format!("{public}@{address}"),
        )
    }
}

impl Root {
    /// Announces it on the loopback interface.
    fn announce(&self, port: u16) {
        let mut datagram = Vec::new();
        Announcement { identity: self.identity }.emit(&mut datagram);
        self.announcer.send_to(&datagram, ("127.255.255.255", port)).expect("room");
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is joined once");
        thread.join().expect("no panic");
    }
}
