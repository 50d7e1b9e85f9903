//! Rules of a managed network at both ends of flows: what they refuse is answered at once, and what they
//! allow goes on.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peersock_datapath::{Device, GsoBatch, Offload};
use peersock_overlay::membership::{
    Certificate, Credentials, Delegation, Grant, NetworkSecret, Rights, RulesHead, Serial, SignedRules,
    UnixTime,
};
use peersock_overlay::{Identity, ManagedNetwork, NetworkConfig, NetworkId};
use peersock_rules::RuleFile;
use peersock_stack::{Batch, Error, Flow, Listener, Ready, TcpOptions, UdpOptions, UdpSocket};

use crate::net::{Net, Node, UNIX_TIME, identity};

const DAY: Duration = Duration::from_secs(86_400);
const TENTH: Duration = Duration::from_millis(100);

fn id() -> NetworkId {
    "8056c2e21c000001".parse().expect("a managed ID")
}

/// Issuer of the network.
struct Authority {
    identity: Identity,
    delegation: Delegation,
    version: RefCell<u64>,
}

impl Authority {
    fn new() -> Self {
        let identity = Identity::from_seed(&[99; 32]);
        let serial = Serial::next(UnixTime::from(UNIX_TIME), None);
        let secret = NetworkSecret::from_seed(&[77; 32]);
        let delegation = Delegation::sign(&secret, id(), *identity.public(), serial, 365 * DAY, Rights::ALL);
        Self { identity, delegation, version: RefCell::new(0) }
    }

    fn credentials(&self, node: usize, name: &str, tags: &[&str]) -> Credentials {
        *self.version.borrow_mut() += 1;
        let mut grant = Grant::new(identity(node).node_id(), name.parse().expect("a name"));
        grant.tags = tags.iter().map(|tag| tag.parse().expect("a tag")).collect();
        (grant.ipv4, grant.ipv4_length) = (Some([10, 7, 0, node as u8 + 1].into()), 24);
        let time = UnixTime::from(UNIX_TIME + Duration::from_millis(*self.version.borrow()));
        let serial = Serial::next(time, None);
        let signed = Certificate::sign(&self.identity, id(), grant, serial, DAY).expect("a good grant");
        let key = NetworkSecret::from_seed(&[77; 32]).public();
        Credentials::new(key, self.delegation.clone(), signed)
    }

    fn sign(&self, text: &str) -> SignedRules {
        *self.version.borrow_mut() += 1;
        let rules = RuleFile::parse(text.as_bytes()).expect("a valid file").rules.encode();
        self.sign_bytes(&rules)
    }

    fn sign_bytes(&self, rules: &[u8]) -> SignedRules {
        let time = UnixTime::from(UNIX_TIME + Duration::from_millis(*self.version.borrow()));
        let delegation = self.delegation.clone();
        let head = RulesHead::sign(&self.identity, delegation, id(), time.as_millis(), time, rules);
        SignedRules::new(head, rules)
    }
}

/// Nodes 0 (`db`), 1 (`web`, a tag that its name does not say) and 2 (`other`).
fn three(authority: &Authority) -> Net {
    let net = Net::managed(3, |node| {
        let (name, tag) = [("db", "db"), ("front", "web"), ("other", "misc")][node];
        let mut config = ManagedNetwork::new(id());
        config.key = Some(NetworkSecret::from_seed(&[77; 32]).public());
        config.credentials = Some(authority.credentials(node, name, &[tag]));
        NetworkConfig::Managed(Box::new(config))
    });
    for node in &net.nodes {
        assert_eq!(node.overlay_counter("peers_admitted"), 2, "all know each other");
    }
    net
}

fn apply(net: &mut Net, signed: &SignedRules) {
    let Node { datapath, network, .. } = &net.nodes[0];
    datapath.set_rules(net.now, network.index, signed.clone(), &mut Batch::default()).expect("it counts");
    net.run(TENTH, |_| false);
    for node in &net.nodes {
        let known = node.datapath.membership(node.network.index, |known| known.rules().cloned()).flatten();
        assert_eq!(known.as_ref(), Some(signed));
    }
}

fn listen(net: &Net, node: usize, port: u16) -> Arc<Listener> {
    let local = SocketAddr::new(net.address(node), port);
    let stack = net.nodes[node].datapath.stack();
    stack.tcp_listen(net.now, None, local, 8, TcpOptions::default()).expect("a free port")
}

fn connect(net: &Net, from: usize, to: usize, port: u16) -> Arc<Flow> {
    let Node { datapath, network, .. } = &net.nodes[from];
    let remote = SocketAddr::new(net.address(to), port);
    let flow = datapath.stack().tcp_connect(net.now, network.interface, None, remote, TcpOptions::default());
    let flow = flow.expect("a route");
    datapath.pump(net.now, &flow, &mut Batch::default());
    flow
}

/// Returns the outcome of a connection attempt, which has to come within a tenth of a second.
fn outcome(net: &mut Net, from: usize, to: usize, port: u16) -> Result<Arc<Flow>, Error> {
    let flow = connect(net, from, to, port);
    net.run(TENTH, |_| flow.readiness().intersects(Ready::CONNECTED | Ready::ERROR));
    match flow.take_error() {
        Some(error) => Err(error),
        None => {
            assert!(flow.readiness().contains(Ready::CONNECTED), "there is no answer");
            Ok(flow)
        }
    }
}

fn bind(net: &Net, node: usize, port: u16) -> Arc<UdpSocket> {
    let local = SocketAddr::new(net.address(node), port);
    net.nodes[node].datapath.stack().udp_bind(None, local, UdpOptions::default()).expect("a free port")
}

fn send(net: &mut Net, from: usize, socket: &UdpSocket, to: SocketAddr) -> Result<(), Error> {
    let sent = net.nodes[from].datapath.send_udp(net.now, socket, Some(to), b"datagram");
    net.run(TENTH, |_| false);
    sent
}

fn received(socket: &UdpSocket) -> usize {
    let mut count = 0;
    let mut buffer = [0; 100];
    while socket.recv_from(&mut buffer).is_ok() {
        count += 1;
    }
    count
}

const WEB_TO_DB: &str = r#"
    default = "deny"
    [[rule]]
    action = "allow"
    from = "tag:web"
    to = "member:db"
    protocol = ["tcp", "udp"]
    ports = 5432
"#;

const ALL: &str = r#"default = "allow""#;

#[test]
fn connections_are_judged_at_both_ends_and_a_refusal_comes_at_once() {
    let authority = Authority::new();
    let mut net = three(&authority);
    let _listeners = [listen(&net, 0, 5432), listen(&net, 0, 22), listen(&net, 1, 5432)];
    outcome(&mut net, 2, 0, 22).expect("there are no rules yet");
    apply(&mut net, &authority.sign(WEB_TO_DB));
    outcome(&mut net, 1, 0, 5432).expect("a rule allows it");
    assert_eq!(outcome(&mut net, 1, 0, 22).unwrap_err(), Error::PermissionDenied, "another port");
    assert_eq!(outcome(&mut net, 2, 0, 5432).unwrap_err(), Error::PermissionDenied, "another tag");
    assert_eq!(outcome(&mut net, 0, 1, 5432).unwrap_err(), Error::PermissionDenied, "the other direction");
    assert!(net.nodes[0].counter("rules_refused_in") == 0, "who obeys sends nothing");
    apply(&mut net, &authority.sign(ALL));
    outcome(&mut net, 0, 1, 5432).expect("there are no rules any more");
}

/// A member with valid keys that has dropped its rules.
#[test]
fn who_ignores_the_rules_is_refused_at_the_other_end_and_has_its_answer_at_once() {
    let authority = Authority::new();
    let mut net = three(&authority);
    let listener = listen(&net, 0, 5432);
    let server = bind(&net, 0, 53);
    apply(&mut net, &authority.sign(WEB_TO_DB));
    net.nodes[2].datapath.ignore_rules(net.nodes[2].network.index);
    assert_eq!(outcome(&mut net, 2, 0, 5432).unwrap_err(), Error::ConnectionRefused, "a reset");
    assert!(listener.accept(net.now).is_err());
    let client = bind(&net, 2, 4000);
    client.connect(SocketAddr::new(net.address(0), 53)).expect("a route");
    let to = SocketAddr::new(net.address(0), 53);
    send(&mut net, 2, &client, to).expect("its own end lets it");
    assert_eq!((received(&server), client.take_error()), (0, Some(Error::PermissionDenied)));
    assert_eq!(net.nodes[0].counter("rules_refused_in"), 2);
}

#[test]
fn answers_of_datagrams_need_no_rule_and_nothing_else_passes_by_that() {
    let authority = Authority::new();
    let mut net = three(&authority);
    let (server, client) = (bind(&net, 0, 5432), bind(&net, 1, 4000));
    let (at_server, at_client) =
        (SocketAddr::new(net.address(0), 5432), SocketAddr::new(net.address(1), 4000));
    apply(&mut net, &authority.sign(WEB_TO_DB));
    assert_eq!(send(&mut net, 0, &server, at_client), Err(Error::PermissionDenied), "nobody has asked");
    send(&mut net, 1, &client, at_server).expect("a rule allows it");
    assert_eq!(received(&server), 1);
    send(&mut net, 0, &server, at_client).expect("an answer");
    assert_eq!(received(&client), 1);
    let elsewhere = SocketAddr::new(net.address(1), 4001);
    assert_eq!(send(&mut net, 0, &server, elsewhere), Err(Error::PermissionDenied));
    // The flow ends with a change of the rules that refuses it, and at both ends.
    let nothing = authority.sign(r#"default = "deny""#);
    apply(&mut net, &nothing);
    assert_eq!(send(&mut net, 0, &server, at_client), Err(Error::PermissionDenied));
    assert_eq!(send(&mut net, 1, &client, at_server), Err(Error::PermissionDenied));
}

#[test]
fn a_change_ends_the_open_connections_that_it_refuses_and_no_other() {
    let authority = Authority::new();
    let mut net = three(&authority);
    let (ours, others) = (listen(&net, 0, 5432), listen(&net, 0, 22));
    let web = outcome(&mut net, 1, 0, 5432).expect("no rules");
    let bystander = outcome(&mut net, 2, 0, 22).expect("no rules");
    let accepted = [ours.accept(net.now).expect("web"), others.accept(net.now).expect("bystander")];
    let rules = r#"
        default = "allow"
        [[rule]]
        action = "deny"
        from = "tag:web"
        to = "tag:db"
        protocol = "tcp"
        ports = "*"
    "#;
    let set = RuleFile::parse(rules.as_bytes()).expect("a valid file").rules;
    let index = net.nodes[0].network.index;
    let effect = net.nodes[0].datapath.effect_of(net.now, index, &set.encode()).expect("its own encoding");
    assert_eq!((effect.flows, effect.ended.len()), (2, 1));
    assert_eq!(effect.ended[0].peer.name.as_deref(), Some("front"));
    assert!(!effect.ended[0].is_ours);
    apply(&mut net, &authority.sign(rules));
    assert_eq!(web.take_error(), Some(Error::ConnectionReset));
    assert_eq!(accepted[0].take_error(), Some(Error::ConnectionReset));
    assert_eq!((bystander.take_error(), accepted[1].take_error()), (None, None));
    bystander.write(net.now, b"still").expect("room");
    net.nodes[2].datapath.pump(net.now, &bystander, &mut Batch::default());
    net.run(TENTH, |_| false);
    assert_eq!(accepted[1].read(net.now, &mut [0; 10]), Ok(5));
}

#[test]
fn lost_tags_end_what_they_have_allowed() {
    let authority = Authority::new();
    let mut net = three(&authority);
    let listener = listen(&net, 0, 5432);
    apply(&mut net, &authority.sign(WEB_TO_DB));
    let web = outcome(&mut net, 1, 0, 5432).expect("a rule allows it");
    let accepted = listener.accept(net.now).expect("web");
    let renewed = authority.credentials(1, "front", &["web"]);
    let Node { datapath, network, .. } = &net.nodes[1];
    datapath.set_credentials(net.now, network.index, &renewed, &mut Batch::default()).expect("its own");
    net.run(TENTH, |_| false);
    assert_eq!((web.take_error(), accepted.take_error()), (None, None), "the same tags");
    let renewed = authority.credentials(1, "front", &["retired"]);
    let Node { datapath, network, .. } = &net.nodes[1];
    datapath.set_credentials(net.now, network.index, &renewed, &mut Batch::default()).expect("its own");
    net.run(TENTH, |_| false);
    assert_eq!(web.take_error(), Some(Error::ConnectionReset));
    assert_eq!(accepted.take_error(), Some(Error::ConnectionReset));
    assert_eq!(outcome(&mut net, 1, 0, 5432).unwrap_err(), Error::PermissionDenied);
}

#[test]
fn rules_that_cannot_be_read_refuse_everything() {
    let authority = Authority::new();
    let mut net = three(&authority);
    let _listener = listen(&net, 0, 5432);
    *authority.version.borrow_mut() += 1;
    apply(&mut net, &authority.sign_bytes(&[200, 1, 2]));
    assert_eq!(outcome(&mut net, 1, 0, 5432).unwrap_err(), Error::PermissionDenied);
    let index = net.nodes[1].network.index;
    assert_eq!(net.nodes[1].datapath.refuses_unreadable_rules(index), Some(true));
    apply(&mut net, &authority.sign(ALL));
    outcome(&mut net, 1, 0, 5432).expect("they can be read again");
}

/// Packets that a device has got.
#[derive(Debug, Default)]
struct Taken(Mutex<Vec<Vec<u8>>>);

impl Device for Taken {
    fn deliver(&self, packet: &[u8], _: &Offload) {
        self.0.lock().expect("one thread").push(packet.to_vec());
    }
}

fn segment(from: IpAddr, to: IpAddr, ports: (u16, u16), flags: u8) -> Vec<u8> {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) else { panic!("IPv6") };
    let mut packet = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
    packet.extend([from.octets(), to.octets()].concat());
    packet.extend([ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat());
    packet.extend([0, 0, 0, 7, 0, 0, 0, 9, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    packet
}

#[test]
fn a_device_s_host_is_refused_with_a_reset_and_its_open_connections_end() {
    let authority = Authority::new();
    let mut net = three(&authority);
    let device = Arc::new(Taken::default());
    // Node 1 has its packets in a kernel from now on.
    let credentials = authority.credentials(1, "front", &["web"]);
    net.nodes[1].leave(net.now);
    net.run(TENTH, |_| false);
    let mut config = ManagedNetwork::new(id());
    config.key = Some(NetworkSecret::from_seed(&[77; 32]).public());
    config.credentials = Some(credentials);
    let config = NetworkConfig::Managed(Box::new(config));
    let joined = net.nodes[1].datapath.join_device(net.now, config, device.clone(), &mut Batch::default());
    net.nodes[1].network = joined.expect("it has left");
    net.meet(1, 0);
    apply_at(&mut net, &authority.sign(WEB_TO_DB), &[0, 1]);
    let (own, other) = (net.address(1), net.address(0));
    let out = |net: &mut Net, packet: Vec<u8>| {
        let before = device.0.lock().expect("one thread").len();
        let (mut packet, mut gso, mut batch) = (packet, GsoBatch::default(), Batch::default());
        let Node { datapath, network, .. } = &net.nodes[1];
        let offload = Offload::default();
        datapath.send_from_device(net.now, network.interface, &mut packet, &offload, &mut gso, &mut batch);
        datapath.send_gso(net.now, &mut gso, &mut batch);
        datapath.settle(net.now, &mut batch);
        net.run(TENTH, |_| false);
        let taken = device.0.lock().expect("one thread");
        taken[before..].iter().map(|packet| packet[40 + 13]).collect::<Vec<u8>>()
    };
    let _listener = listen(&net, 0, 5432);
    let (syn, ack, reset) = (2, 0x10, 4);
    let answers = out(&mut net, segment(own, other, (999, 5432), syn));
    assert_eq!(answers, [0x12], "the listener answers, and its answer needs no rule");
    let answers = out(&mut net, segment(own, other, (999, 22), syn));
    assert!(answers.len() == 1 && answers[0] & reset != 0, "{answers:?}");
    apply_at(&mut net, &authority.sign(r#"default = "deny""#), &[0, 1]);
    let answers = out(&mut net, segment(own, other, (999, 5432), ack));
    assert!(answers.iter().all(|flags| flags & reset != 0) && !answers.is_empty(), "{answers:?}");
}

fn apply_at(net: &mut Net, signed: &SignedRules, nodes: &[usize]) {
    for &node in nodes {
        let Node { datapath, network, .. } = &net.nodes[node];
        datapath.set_rules(net.now, network.index, signed.clone(), &mut Batch::default()).expect("it counts");
    }
    net.run(TENTH, |_| false);
}
