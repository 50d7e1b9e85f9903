//! Nodes that know only a root in common.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use peersock::overlay::Identity;
use peersock::overlay::wire::Announcement;
use peersock::{Event, IdentitySource, Interfaces, Network, Node, RootAddress, RootSource, RootState};
use peersock_testnet::{Random, RealRoot};

use crate::common::{PATIENCE, exchange};
use crate::streams;

/// Starts two nodes that know only a root.
fn two_nodes(text: &str) -> [Node; 2] {
    [(), ()].map(|()| {
        let roots = RootAddress::parse_list(text).expect("a root");
        let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
        builder.discovery(false).roots(roots).start().expect("loopback sockets")
    })
}

#[test]
fn two_nodes_meet_at_a_root_and_go_on_directly() {
    let (root, text) = Root::start();
    let [alpha, beta] = two_nodes(&text);
    let network = || Network::ad_hoc("ff00000fff000000".parse().expect("an ID"));
    let home = alpha.join(network()).expect("joined");
    let away = beta.join(network()).expect("joined");
    exchange((&alpha, &home), (&beta, &away), 1_000_000);

    let status = alpha.status();
    let at_root = &status.roots[0];
    assert_eq!((at_root.state, at_root.path), (RootState::Registered, Some(root.address)));
    assert!(status.endpoints.contains(&at_root.observed.expect("a voucher")));
    // They reach each other at an endpoint that the root or an interface has seen, once both know it.
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
fn changes_of_roots_are_told_until_the_node_ends() {
    let (_root, text) = Root::start();
    let [node, _] = two_nodes(&text);
    let changes = node.root_changes();
    while node.roots()[0].state != RootState::Registered {
        assert!(changes.wait(), "the node runs");
    }
    let ended = node.root_changes();
    ended.end();
    assert!(!ended.wait());
    thread::scope(|scope| {
        scope.spawn(|| while changes.wait() {});
        node.shutdown(Duration::ZERO);
    });
}

#[test]
fn a_node_learns_its_address_in_each_family_in_which_it_has_a_root() {
    let [v4, v6] = ["127.0.0.1:0", "[::1]:0"].map(|text| text.parse().expect("an address"));
    if UdpSocket::bind(v6).is_err() {
        eprintln!(
            "SKIP a_node_learns_its_address_in_each_family_in_which_it_has_a_root: this machine has no IPv6"
        );
        return;
    }
    // The session uses one family, and so does the root's voucher.
    let root = streams::Root::listen(&[v4, v6], v4);
    let [v4, v6] = root.udp() else { panic!("two sockets") };
    let roots = RootAddress::parse_list(&format!("{}@{v4},{v6}", root.identity())).expect("a root");
    let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let node = builder.discovery(false).roots(roots).start().expect("loopback sockets");
    let since = Instant::now();
    loop {
        let status = node.status();
        let candidates = status.contact.map(|contact| contact.candidates).unwrap_or_default();
        let mapped: Vec<_> = candidates.iter().filter(|one| one.kind == "mapped").collect();
        if mapped.len() == 2 && mapped.iter().all(|one| status.endpoints.contains(&one.address)) {
            break;
        }
        assert!(since.elapsed() < PATIENCE, "{candidates:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_root_that_announces_itself_is_used_by_those_who_want_that() {
    let (root, _) = Root::start();
    // Reserve a discovery port that no other test has, until the nodes share it.
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
    let [alpha, beta] = two_nodes(&text);
    let network = || Network::ad_hoc("ff00000fff000000".parse().expect("an ID"));
    let events = alpha.events();
    let home = alpha.join(network()).expect("joined");
    let target = beta.join(network()).expect("joined").address();
    home.wait_peer(target.into(), PATIENCE).expect("it is found at the root");
    let ping = peersock::blocking::Ping::open_on(&alpha, target.into()).expect("a socket");
    let is_direct = |event: &Event| match event {
        Event::PeerReachable { id, relayed, .. } | Event::PathChanged { id, relayed, .. } => {
            *id == beta.id() && !relayed
        }
        _ => false,
    };
    // The node searches for the direct path while packets flow.
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
pub(super) struct Root {
    identity: peersock::PublicIdentity,
    address: SocketAddr,
    announcer: UdpSocket,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Root {
    /// Starts a root, and returns it with the text that names it.
    pub(super) fn start() -> (Root, String) {
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
    /// Announces the root on the loopback interface.
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
