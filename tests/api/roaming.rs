//! A node whose machine changes its network while a stream leads to the node's root.
//!
//! ```text
//!  alpha 10.95.1.2 ---- 10.95.1.1  \
//!                                    10.95.0.1 root, beta
//!  alpha 10.95.2.2 ---- 10.95.2.1  /
//! ```
//!
//! There are two network namespaces, and alpha's lets no UDP out. Only one of the links exists at a time.
//! This needs root and `ip`; tests skip otherwise.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use peersock::blocking::{TcpListener, TcpStream};
use peersock::{Dht, IdentitySource, Interfaces, Joined, Network, NetworkId, Node, RootSource};
use peersock_testnet::LocalDht;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::common::{PATIENCE, network};
use crate::streams::Root;

/// Bound for the node to notice. Silence alone is noticed after 25 s, so this is less, but far more than
/// needed.
const NOTICED: Duration = Duration::from_secs(12);

#[test]
fn a_stream_to_a_root_follows_the_machine_to_another_network() {
    let Some(place) = Place::build("a_stream_to_a_root_follows_the_machine") else { return };
    place.roam(Interfaces::All);
}

#[test]
fn a_stream_may_leave_by_an_interface_that_was_not_there_at_the_start() {
    let Some(place) = Place::build("a_stream_may_leave_by_an_interface") else { return };
    place.roam(Interfaces::Named(vec!["first".into(), "second".into()]));
}

/// Without root and DHT, beacons find the peer, over the interface that did not exist before.
#[test]
fn an_interface_that_appears_later_is_used_and_so_is_one_that_comes_back() {
    let Some(place) = Place::build("an_interface_that_appears_later") else { return };
    // Remove the rule that keeps UDP in.
    assert!(ip(&["-n", &place.0[0], "rule", "del", "pref", "10"]));
    let network = network();
    let node = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let builder =
            Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Named(names));
        let node = builder.roots(Vec::<RootSource>::new()).start().expect("sockets");
        let joined = node.join(Network::ad_hoc(network)).expect("joined");
        (node, joined)
    };
    let (alpha, home) = place.within(0, || node(&["lo", "late"]));
    let before = alpha.status().endpoints.len();
    place.connect("late", "10.95.1");
    let (_beta, away) = place.within(1, || node(&["late"]));
    home.wait_peer(away.address().into(), PATIENCE).expect("it is found");
    assert_eq!(alpha.status().endpoints.len(), before * 2, "a pair of sockets more");

    assert!(ip(&["-n", &place.0[0], "link", "del", "late"]));
    place.connect("late", "10.95.1");
    let (_gamma, again) = place.within(1, || node(&["late"]));
    home.wait_peer(again.address().into(), PATIENCE).expect("it is found");
    assert_eq!(alpha.status().endpoints.len(), before * 2, "those of the old link are gone");
}

#[test]
fn the_dht_is_entered_from_the_address_that_the_machine_has_now() {
    let Some(place) = Place::build("the_dht_is_entered_from_the_address") else { return };
    place.connect("first", "10.95.1");
    let [alpha, others] = &place.0;
    // This socket is not a DHT node, and records who asks.
    let entry = place.within(1, || UdpSocket::bind("10.95.0.1:0")).expect("a port");
    entry.set_read_timeout(Some(Duration::from_millis(5))).expect("not zero");
    let entries = vec![entry.local_addr().expect("bound").to_string().parse().expect("IPv4")];
    let start = || {
        let builder = Node::builder().identity(IdentitySource::Ephemeral);
        let builder = builder.interfaces(Interfaces::Named(vec!["first".into()])).discovery(false);
        builder.roots(Vec::<peersock::RootAddress>::new()).dht(Dht::Nodes(entries)).start().expect("sockets")
    };
    assert!(ip(&["-n", alpha, "rule", "del", "pref", "10"]));
    let node = place.within(0, start);
    node.join(Network::ad_hoc(network())).expect("joined");
    // Ignore requests by the node's other sockets, which ask for their observed address and are bound to no
    // address.
    let own: Vec<_> = node.status().endpoints.iter().map(SocketAddr::port).collect();
    let asked_from = |address: &str| {
        let since = Instant::now();
        let mut buffer = [0; 1500];
        let is_it = |from: SocketAddr| from.ip().to_string() == address && !own.contains(&from.port());
        while !entry.recv_from(&mut buffer).is_ok_and(|(_, from)| is_it(from)) {
            assert!(since.elapsed() < PATIENCE, "nobody asks from {address}: {:?}", node.status().dht);
        }
    };
    asked_from("10.95.1.2");
    for words in ["addr del 10.95.1.2/24 dev first", "addr add 10.95.2.2/24 dev first"] {
        assert!(ip(&[vec!["-n", alpha], words.split(' ').collect()].concat()));
    }
    assert!(ip(&["-n", others, "addr", "add", "10.95.2.1/24", "dev", "first"]));
    assert!(ip(&["-n", alpha, "route", "add", "default", "via", "10.95.2.1"]));
    asked_from("10.95.2.2");
}

#[test]
fn a_node_without_a_network_says_that_it_cannot_enter_the_public_dht() {
    let Some(place) = Place::build("a_node_without_a_network_says") else { return };
    if place.within(0, || ("router.bittorrent.com", 6881).to_socket_addrs().is_ok()) {
        eprintln!("SKIP a_node_without_a_network_says: names are resolved without a network here");
        return;
    }
    let start = || {
        let builder = Node::builder().identity(IdentitySource::Ephemeral).discovery(false);
        builder.roots(Vec::<peersock::RootAddress>::new()).dht(Dht::Public).start().expect("sockets")
    };
    let node = place.within(0, start);
    node.join(Network::ad_hoc(network())).expect("joined");
    let since = Instant::now();
    loop {
        let dht = node.status().dht.expect("it is on");
        if let Some(error) = dht.error {
            assert!(error.contains("not resolved"), "{error}");
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{dht:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "cargo xtask test --only slow: it measures for six minutes"]
fn a_node_in_the_dht_costs_little_while_nothing_happens() {
    const NODES: u8 = 50;
    const MINUTES: u32 = 3;
    let Some(place) = Place::build("a_node_in_the_dht_costs_little") else { return };
    place.connect("first", "10.95.1");
    let [alpha, others] = &place.0;
    assert!(ip(&["-n", alpha, "rule", "del", "pref", "10"]));
    for host in 0..NODES {
        assert!(ip(&["-n", others, "addr", "add", &format!("10.95.0.{}/32", 100 + host), "dev", "lo"]));
    }
    let first = "10.95.0.100".parse().expect("an address");
    let swarm = place.within(1, || LocalDht::on_addresses(first, NODES.into()));
    let start = || {
        let builder =
            Node::builder().identity(IdentitySource::Ephemeral).discovery(false).port_mapping(false);
        let builder = builder.roots(Vec::<peersock::RootAddress>::new());
        builder.dht(Dht::Nodes(swarm.entries())).start().expect("sockets")
    };
    let node = place.within(0, start);
    node.join(Network::ad_hoc(network())).expect("joined");
    // A recently busy node reads its mailbox often.
    thread::sleep(Duration::from_secs(180));
    assert_eq!(node.status().dht.expect("it is used").published, 1);
    let before = place.within(0, traffic);
    thread::sleep(Duration::from_secs(60) * MINUTES);
    let after = place.within(0, traffic);
    let [received, packets_in, sent, packets_out] =
        std::array::from_fn(|i| (after[i] - before[i]) / u64::from(MINUTES));
    eprintln!("in a minute: {packets_out} packets, {sent} B out; {packets_in} packets, {received} B in");
    // For ten minutes in an hour it reads its mailbox in two epochs, which costs twice as much.
    assert!(packets_out < 900 && packets_in < 900, "{packets_out} packets out, {packets_in} in");
}

/// Returns bytes and packets received, bytes and packets sent, on the link of this thread's namespace.
fn traffic() -> [u64; 4] {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").expect("Linux");
    let line = text.lines().find_map(|line| line.trim().strip_prefix("first:")).expect("the link");
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    [numbers[0], numbers[1], numbers[8], numbers[9]]
}

/// Alpha's namespace, and the one of the others.
struct Place([String; 2]);

/// Number of places in this process, because tests may run in threads of one process.
static PLACES: AtomicU32 = AtomicU32::new(0);

impl Place {
    /// Builds the namespaces; `None`, with a printed reason, if that is not possible.
    fn build(test: &str) -> Option<Place> {
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let names = ["a", "r"].map(|which| format!("peersock-roam-{}-{number}{which}", std::process::id()));
        if !ip(&["netns", "add", &names[0]]) {
            eprintln!("SKIP {test}: network namespaces need root and the program ip");
            return None;
        }
        let place = Place(names);
        let [a, r] = &place.0;
        assert!(ip(&["netns", "add", r]));
        for at in [a, r] {
            assert!(ip(&["-n", at, "link", "set", "lo", "up"]));
        }
        assert!(ip(&["-n", r, "addr", "add", "10.95.0.1/32", "dev", "lo"]));
        assert!(ip(&["-n", a, "rule", "add", "pref", "10", "ipproto", "udp", "prohibit"]));
        Some(place)
    }

    fn connect(&self, link: &str, net: &str) {
        let [a, r] = &self.0;
        assert!(ip(&["link", "add", link, "netns", a, "type", "veth", "peer", "name", link, "netns", r]));
        for (at, host) in [(r, 1), (a, 2)] {
            assert!(ip(&["-n", at, "addr", "add", &format!("{net}.{host}/24"), "dev", link]));
            assert!(ip(&["-n", at, "link", "set", link, "up"]));
        }
        assert!(ip(&["-n", a, "route", "add", "default", "via", &format!("{net}.1")]));
    }

    /// Makes alpha talk to beta, change its network, and talk on.
    fn roam(&self, interfaces: Interfaces) {
        self.connect("first", "10.95.1");
        let inside = "10.95.0.1:0".parse().expect("an address");
        let root = self.within(1, || Root::listen(&[inside], inside));
        let text = |way: &str| format!("{}@{way}", root.identity());
        let network = network();
        let by_stream = text(&format!("wss:{}", root.stream()));
        let (alpha, home) = self.within(0, || node(&by_stream, network, interfaces));
        let by_udp = text(&root.udp()[0].to_string());
        let (beta, away) = self.within(1, || node(&by_udp, network, Interfaces::All));

        let listener = TcpListener::bind_on(&beta, "[::]:1500").expect("a free port");
        let echo = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut byte = [0];
            while stream.read(&mut byte).expect("no reset") > 0 {
                stream.write_all(&byte).expect("room");
            }
        });
        home.wait_peer(away.address().into(), PATIENCE).expect("it is found");
        let address = SocketAddr::new(away.address().into(), 1500);
        let mut stream = TcpStream::connect_on(&alpha, address).expect("connected");
        let mut ask = |byte: u8| {
            stream.write_all(&[byte]).expect("room");
            let mut back = [0];
            stream.read_exact(&mut back).expect("it answers");
            assert_eq!(back, [byte]);
        };
        ask(1);
        assert!(alpha.status().roots[0].stream.is_some());

        assert!(ip(&["-n", &self.0[0], "link", "del", "first"]));
        thread::sleep(Duration::from_millis(500));
        self.connect("second", "10.95.2");
        let since = Instant::now();
        ask(2);
        let took = since.elapsed();
        eprintln!("the first answer {took:?} after the network's return");
        assert!(took < NOTICED, "{took:?}");
        drop(stream);
        echo.join().expect("no panic");
    }

    /// Runs `work` inside a namespace. Threads that it starts stay there.
    fn within<T: Send>(&self, which: usize, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.0[which])).expect("it is there");
        let worker = || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind).expect("root may enter namespaces");
            work()
        };
        thread::scope(|scope| scope.spawn(worker).join().expect("no panic"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for name in &self.0 {
            ip(&["netns", "del", name]);
        }
    }
}

fn node(root: &str, network: NetworkId, interfaces: Interfaces) -> (Node, Joined) {
    let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(interfaces);
    let roots = RootSource::load(root).expect("a root");
    let node = builder.discovery(false).roots(roots).start().expect("sockets");
    let joined = node.join(Network::ad_hoc(network)).expect("joined");
    (node, joined)
}

fn ip(words: &[&str]) -> bool {
    Command::new("ip").args(words).output().is_ok_and(|output| output.status.success())
}
