//! Echo requests: replies that another member has forged, and the check of a path without a reply.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use peersock::blocking::{Ping, UdpSocket};
use peersock::device::Offload;
use peersock::management::{self, Probe, ProbeOutcome};
use peersock::{IdentitySource, Interfaces, Joined, Network, Node};

use crate::common::{PATIENCE, member, network};
use crate::devices::{Host, ICMP, IP, ip};
use crate::process::{self, Process};

/// Types of ICMPv6 (RFC 4443, 4).
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

/// Payloads, whose lengths tell the replies apart.
const REQUEST: usize = 8;
const FORGED: usize = 1;
const TRUE: usize = 2;

/// A node that pings, the member that it pings, and another member. The members answer by hand.
struct Scene {
    node: Node,
    joined: Joined,
    /// Socket that tells what has come from the other member.
    socket: UdpSocket,
    target: Host,
    forger: Host,
    place: tempfile::TempDir,
}

impl Scene {
    fn start() -> Scene {
        let (id, place) = (network(), tempfile::tempdir().expect("room"));
        let identity = IdentitySource::StateDir(place.path().into());
        let node = Node::builder().identity(identity).interfaces(Interfaces::Loopback).start();
        let node = node.expect("a node on loopback");
        let joined = node.join(Network::ad_hoc(id)).expect("a new network");
        let [target, forger] = [(); 2].map(|()| Host::start(id));
        for host in [&target, &forger] {
            joined.wait_peer(host.joined.address().into(), PATIENCE).expect("it is found");
        }
        let socket = UdpSocket::bind_on(&node, (joined.address(), 1700)).expect("a port");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Scene { node, joined, socket, target, forger, place }
    }

    fn target(&self) -> IpAddr {
        self.target.joined.address().into()
    }

    /// Answers the next request: the other member first, and the right one once that has come.
    fn answer(&mut self) {
        let request = loop {
            let (packet, _) = self.target.next(ICMP);
            if packet[IP] == ECHO_REQUEST {
                break packet;
            }
        };
        let numbers = &request[IP + 4..IP + 8];
        let reply = |from: &Host, length: usize| {
            let echo = [&[ECHO_REPLY, 0, 0, 0], numbers, &request[IP + 8..][..length]].concat();
            ip(from.joined.address(), self.joined.address().into(), ICMP, &echo)
        };
        let (forged, right) = (reply(&self.forger, FORGED), reply(&self.target, TRUE));
        self.forger.send(&forged, Offload::default());
        let to: SocketAddr = self.socket.local_addr().expect("it is bound");
        let after = self.forger.datagram(40_900, to, b"after it");
        self.forger.send(&after, Offload::default());
        self.socket.recv(&mut [0; 100]).expect("what the other member has sent afterwards");
        self.target.send(&right, Offload::default());
    }
}

#[test]
fn a_reply_to_a_ping_comes_from_the_asked_member() {
    let mut scene = Scene::start();
    let ping = Ping::open_on(&scene.node, scene.target()).expect("a socket");
    let pinging = thread::spawn(move || ping.ping(1, &[7; REQUEST], PATIENCE));
    scene.answer();
    let pong = pinging.join().expect("no panic").expect("a reply");
    assert_eq!(pong.len, TRUE);
}

#[test]
fn a_reply_to_a_probe_comes_from_the_asked_member() {
    let mut scene = Scene::start();
    let probe = Probe::new(scene.joined.id(), scene.target(), PATIENCE / 2);
    let place = scene.place.path().to_owned();
    let check = Duration::ZERO;
    let pinging = thread::spawn(move || management::ping(&place, &probe, REQUEST as u16, check));
    scene.answer();
    let probed = pinging.join().expect("no panic").expect("an answer");
    assert_eq!((probed.outcome, probed.bytes), (ProbeOutcome::Answered, Some(TRUE)));
}

/// The check of a path takes up to a minute. The last handle of a node ends it in spite of that.
#[test]
fn the_check_of_a_path_does_not_keep_the_node() {
    let (id, place) = (network(), tempfile::tempdir().expect("room"));
    let identity = IdentitySource::StateDir(place.path().into());
    let node = Node::builder().identity(identity).interfaces(Interfaces::Loopback).start();
    let node = node.expect("a node on loopback");
    let joined = node.join(Network::ad_hoc(id)).expect("a new network");
    let victim = Process::start("echoes::victim_that_is_stopped", &id.to_string());
    let target = victim.address.ip();
    joined.wait_peer(target, PATIENCE).expect("it is found");
    // A check begins at once only after the search for the size, which goes on in a new session.
    let passes = |begins| joined.continue_check(target, Duration::ZERO, begins).expect("no result");
    wait_until(|| !passes(true));
    joined.check_path(target, PATIENCE).expect("it passes");
    victim.stop();
    let probe = Probe::new(id, target, Duration::from_millis(100));
    let asked = place.path().to_owned();
    let asking = thread::spawn(move || management::ping(&asked, &probe, 8, PATIENCE));
    // There was no reply, so the path is in doubt for some time.
    wait_until(|| !passes(false));
    drop((joined, node));
    let ended = asking.join().expect("no panic").expect_err("the node has ended").to_string();
    assert!(ended.contains("the node has stopped"), "{ended}");
}

fn wait_until(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it does not come to that");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Runs a member that is stopped.
#[test]
fn victim_that_is_stopped() {
    let Some(id) = process::order() else { return };
    let (_node, joined) = member(id.parse().expect("a network ID"));
    process::say(SocketAddr::new(joined.address().into(), 0));
    process::wait_to_go_on();
}
