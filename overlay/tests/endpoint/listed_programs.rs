//! Programs of listed members in a static network: nodes that no list names, certified by a member's key.

use std::net::IpAddr;
use std::time::Duration;

use peersock_overlay::membership::{MemberName, ProcessCertificate, Question, Serial, UnixTime};
use peersock_overlay::{
    Event, Exit, Identity, JoinError, NetworkConfig, NetworkId, NetworkIndex, NodeId, StaticMember,
    StaticNetwork,
};

use crate::net::{Net, UNIX_TIME, instant};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn id() -> NetworkId {
    "fe00000000000001".parse().expect("an ID")
}

fn keys(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

fn node_id(seed: u8) -> NodeId {
    keys(seed).node_id()
}

/// Returns the certificate of a program, signed by a machine `at` after the start.
fn certificate(machine: u8, program: u8, label: Option<&str>, at: Duration) -> ProcessCertificate {
    let label = label.map(|label| label.parse::<MemberName>().expect("a label"));
    let serial = Serial::next(UnixTime::from(UNIX_TIME + at), None);
    ProcessCertificate::sign(&keys(machine), id(), &node_id(program), label, serial, HOUR)
}

/// Returns the network of the members 1 to 3: `node-1` to `node-3`.
fn listed(program: Option<ProcessCertificate>) -> NetworkConfig {
    let member = |seed: u8| StaticMember {
        identity: *keys(seed).public(),
        name: Some(format!("node-{seed}")),
        addresses: vec![IpAddr::from([10, 7, 0, seed])],
        endpoints: Vec::new(),
        routes: Vec::new(),
        exit: Exit::default(),
    };
    NetworkConfig::Static(StaticNetwork {
        id: id(),
        psk: None,
        members: (1..=3).map(member).collect(),
        exit: None,
        program: program.map(Box::new),
    })
}

/// Returns a net of these members.
fn members(seeds: &[u8]) -> Net {
    let mut net = Net::new();
    for &seed in seeds {
        let node = net.add(seed);
        net.join(node, &listed(None));
    }
    net.run(SECOND);
    net
}

fn add(net: &mut Net, machine: u8, program: u8, label: Option<&str>) -> usize {
    let node = net.add(program);
    let own = certificate(machine, program, label, net.now - instant());
    net.join(node, &listed(Some(own)));
    node
}

fn network(net: &Net, node: usize) -> NetworkIndex {
    net.nodes[node].endpoint.networks()[0].index
}

fn named(net: &Net, node: usize, text: &str) -> Vec<IpAddr> {
    net.nodes[node].endpoint.addresses_named(text, |_| true)
}

fn peers(net: &Net, node: usize) -> usize {
    net.nodes[node].endpoint.peers().len()
}

fn has_gone(event: &Event) -> bool {
    matches!(event, Event::PeerGone(..))
}

#[test]
fn a_program_needs_no_entry_in_the_list() {
    let mut net = members(&[1, 2]);
    let program = add(&mut net, 1, 11, None);
    net.send(program, 1, b"hello");
    net.run(SECOND);
    net.send(1, program, b"answer");
    net.run(SECOND);
    assert_eq!((net.received(1), net.received(program)), (vec![b"hello".to_vec()], vec![b"answer".to_vec()]));
    let members = [net.peer(1, 0).member(), net.peer(1, program).member(), net.peer(0, program).member()];
    assert_eq!(members, [node_id(1); 3]);
    // The machine's name leads to its own node first, and its addresses stay with that.
    let at = network(&net, 1);
    let own = net.address(1, at, program);
    let listed = [net.address(1, at, 0), [10, 7, 0, 1].into(), own];
    assert_eq!(named(&net, 1, "NODE-1"), listed);
    assert_eq!(net.nodes[program].endpoint.addresses(network(&net, program)), [own]);
    assert_eq!(net.nodes[1].endpoint.name_at(own, |_| true), Some("node-1".to_owned()));
    // Its machine's node meets it without a word of anybody.
    assert_eq!(named(&net, 0, "node-1").len(), 3);
}

#[test]
fn a_label_that_two_programs_have_leads_to_the_one_that_is_there() {
    let mut net = members(&[1, 2]);
    let old = add(&mut net, 1, 11, Some("dup"));
    net.run(2 * SECOND);
    let new = add(&mut net, 1, 12, Some("dup"));
    net.run(SECOND);
    net.nodes[new].up = false;
    net.wait(HOUR / 2, |net| net.peer(0, new).session().is_none() && net.peer(0, old).session().is_some());
    net.send(1, 0, b"hello");
    net.run(SECOND);
    let at = network(&net, 1);
    let question = Question::FindProgram("dup".parse().expect("a label"), "node-1".parse().expect("a name"));
    assert!(net.nodes[1].endpoint.find_member(net.now, at, &question));
    net.run(5 * SECOND);
    assert_eq!(named(&net, 1, "dup.node-1"), [net.address(1, at, old)]);
}

#[test]
fn programs_of_two_members_talk() {
    let mut net = members(&[1, 2]);
    let web = add(&mut net, 1, 11, Some("web"));
    let client = add(&mut net, 2, 12, None);
    net.run(SECOND);
    assert!(named(&net, client, "web.node-1").is_empty());
    let at = network(&net, client);
    assert!(net.nodes[client].endpoint.find_name(net.now, at, "web.node-1"));
    net.pump();
    let took = net.wait(5 * SECOND, |net| !named(net, client, "Web.node-1").is_empty());
    assert!(took < SECOND, "{took:?}");
    let to = named(&net, client, "web.node-1")[0];
    net.send_to(client, at, to, b"hello");
    net.run(2 * SECOND);
    assert_eq!(net.received(web), [b"hello".to_vec()]);
    net.send(web, client, b"answer");
    net.run(SECOND);
    assert_eq!(net.received(client), [b"answer".to_vec()]);
}

#[test]
fn a_label_is_asked_for_at_its_machine_alone() {
    let mut net = members(&[1, 2, 3]);
    let web = add(&mut net, 1, 11, Some("web"));
    net.run(SECOND);
    let at = network(&net, 2);
    // No member is asked for other members, and no machine that the list does not name is.
    assert!(!net.nodes[2].endpoint.find_name(net.now, at, "example"));
    assert!(!net.nodes[2].endpoint.find_name(net.now, at, "www.example"));
    let question = Question::FindName("node-1".parse().expect("a name"));
    assert!(!net.nodes[2].endpoint.find_member(net.now, at, &question));
    assert!(net.nodes[2].endpoint.find_name(net.now, at, "web.node-1"));
    net.pump();
    net.run(2 * SECOND);
    assert_eq!(named(&net, 2, "web.node-1"), [net.address(2, at, web)]);
    assert!(named(&net, 1, "web.node-1").is_empty(), "2 was not asked");
    // For a moment, the machine is not asked again for a label that it does not know.
    assert!(net.nodes[2].endpoint.find_name(net.now, at, "api.node-1"));
    net.pump();
    net.run(SECOND);
    assert!(!net.nodes[2].endpoint.find_name(net.now, at, "api.node-1"));
}

#[test]
fn a_program_is_out_when_its_certificate_ends_and_goes_on_with_a_new_one() {
    let mut net = members(&[1, 2]);
    let [kept, left] = [11, 12].map(|program| add(&mut net, 1, program, None));
    for program in [kept, left] {
        net.send(program, 1, b"hello");
    }
    net.run(HOUR / 2);
    assert_eq!((peers(&net, 1), net.count(1, has_gone)), (4, 0));
    let renewed = certificate(1, 11, None, net.now - instant());
    let at = network(&net, kept);
    net.nodes[kept].endpoint.set_program(net.now, at, renewed).expect("its own");
    net.pump();
    net.run(HOUR / 2 + 2 * SECOND);
    // The machine's node has heard of it. The other one has no session, and hears it with the next one.
    assert_eq!((peers(&net, 0), net.count(0, has_gone)), (3, 1));
    assert_eq!((peers(&net, 1), net.count(1, has_gone)), (2, 2));
    for program in [kept, left] {
        net.send(program, 1, b"again");
    }
    net.run(5 * SECOND);
    assert_eq!(net.received(1), [b"hello".to_vec(), b"hello".to_vec(), b"again".to_vec()]);
    net.send(1, kept, b"answer");
    net.run(SECOND);
    assert_eq!(net.received(kept), [b"answer".to_vec()]);
}

#[test]
fn certificates_of_others_make_no_program() {
    let mut net = members(&[1, 2]);
    let day = 24 * HOUR;
    let good = certificate(1, 30, None, day);
    // Of a stranger's key, of another program, and for another network.
    let serial = Serial::next(UnixTime::from(UNIX_TIME + day), None);
    let other = "fe00000000000002".parse().expect("an ID");
    let elsewhere = ProcessCertificate::sign(&keys(1), other, &node_id(30), None, serial, HOUR);
    net.run(day);
    for own in [certificate(9, 30, None, day), certificate(1, 31, None, day), elsewhere] {
        let node = net.add_copy(30, 7000);
        let refused = net.nodes[node].endpoint.join(net.now, listed(Some(own)));
        assert!(matches!(refused, Err(JoinError::Credentials { .. })), "{refused:?}");
    }
    // Signed yesterday, or for the day after tomorrow; the thief's own clock says so.
    for (at, port) in [(Duration::ZERO, 7001), (3 * day, 7002)] {
        let thief = net.add_copy(30, port);
        net.restart(thief, port, UNIX_TIME + at);
        net.join(thief, &listed(Some(certificate(1, 30, None, at))));
        net.send(thief, 1, b"knock");
        net.run(5 * SECOND);
        assert_eq!((net.received(1).len(), peers(&net, 1)), (0, 2), "{at:?}");
        net.nodes[thief].up = false;
    }
    let node = net.add_copy(30, 7003);
    net.join(node, &listed(Some(good)));
    net.send(node, 1, b"knock");
    net.run(5 * SECOND);
    assert_eq!(net.received(1), [b"knock".to_vec()]);
}

#[test]
fn an_earlier_certificate_does_not_replace_a_later_one() {
    let mut net = members(&[1, 2]);
    let web = add(&mut net, 1, 11, Some("web"));
    net.run(HOUR / 4);
    let at = network(&net, web);
    for (label, signed) in [("api", net.now - instant()), ("web", Duration::ZERO)] {
        let own = certificate(1, 11, Some(label), signed);
        net.nodes[web].endpoint.set_program(net.now, at, own).expect("its own");
        net.pump();
        net.run(5 * SECOND);
        assert_eq!((named(&net, 0, "api.node-1").len(), named(&net, 0, "web.node-1").len()), (1, 0));
    }
}

#[test]
fn programs_of_one_member_find_no_more_room_than_other_nodes() {
    let mut net = Net::new();
    net.limits.peers_per_network = 4;
    for seed in [1, 2] {
        let node = net.add(seed);
        net.join(node, &listed(None));
    }
    net.run(SECOND);
    for program in 20..34 {
        let node = add(&mut net, 1, program, None);
        net.send(node, 1, b"hello");
        net.run(SECOND / 4);
    }
    net.run(5 * SECOND);
    // Two listed ones besides.
    assert!(peers(&net, 1) <= 6, "{}", peers(&net, 1));
    assert!(named(&net, 1, "node-1").len() <= 6, "a certificate is forgotten with its peer");
    // The members themselves find each other.
    net.send(1, 0, b"member");
    net.run(SECOND);
    assert!(net.received(0).contains(&b"member".to_vec()));
}
