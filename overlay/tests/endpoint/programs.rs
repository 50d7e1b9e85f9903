//! Programs of a machine in a managed network: separate nodes with credentials of the member beside them.

use std::time::Duration;

use peersock_overlay::membership::{MemberName, ProcessCertificate, Question, Refusal, Serial, UnixTime};
use peersock_overlay::wire::MembershipMessage;
use peersock_overlay::{Event, Identity, JoinError, ManagedNetwork, NetworkConfig};

use crate::managed::{
    Authority, CONTROLLER, DAY, SECOND, expelled, id, members, network, node_id, secret, separate,
};
use crate::net::{Net, UNIX_TIME};

const HOUR: Duration = Duration::from_secs(3600);

/// First bytes of an initiation and of the answer.
const INITIATION: u8 = 0xD1;
const RESPONSE: u8 = 0xD2;

fn name(text: &str) -> MemberName {
    text.parse().expect("a name")
}

/// Returns the description of the network for a program of a machine, signed `at` after the start.
fn description(
    authority: &Authority,
    machine: u8,
    program: u8,
    label: Option<&str>,
    at: Duration,
) -> ManagedNetwork {
    let serial = Serial::next(UnixTime::from(UNIX_TIME + at), None);
    let keys = Identity::from_seed(&[machine; 32]);
    let of_program = ProcessCertificate::sign(&keys, id(), &node_id(program), label.map(name), serial, HOUR);
    ManagedNetwork {
        key: Some(secret().public()),
        credentials: Some(authority.credentials(machine, Duration::ZERO).of_process(of_program)),
        controllers: vec![*Identity::from_seed(&[CONTROLLER; 32]).public()],
        is_program: true,
        ..ManagedNetwork::new(id())
    }
}

fn add(net: &mut Net, authority: &Authority, machine: u8, program: u8, label: Option<&str>) -> usize {
    let at = net.now - crate::net::instant();
    let node = net.add(program);
    net.join(node, &NetworkConfig::Managed(Box::new(description(authority, machine, program, label, at))));
    node
}

fn named(net: &Net, node: usize, text: &str) -> Vec<std::net::IpAddr> {
    net.nodes[node].endpoint.addresses_named(text, |_| true)
}

#[test]
fn programs_are_admitted_as_their_machine_and_ask_no_controller_for_credentials() {
    let authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1, 2]);
    let web = add(&mut net, &authority, 1, 11, Some("web"));
    net.send(web, 2, b"hello");
    net.send(2, web, b"hello");
    net.run(SECOND);
    assert_eq!((net.received(2), net.received(web)), (vec![b"hello".to_vec()], vec![b"hello".to_vec()]));
    // The name leads to the machine's node first, and the label to the program alone.
    let at = network(&net, 2);
    let own = net.address(2, at, web);
    assert_eq!(named(&net, 2, "web.node-1"), [own]);
    net.send(2, 1, b"hello");
    net.run(SECOND);
    let both = named(&net, 2, "NODE-1");
    assert_eq!((both.first(), both.last()), (Some(&net.address(2, at, 1)), Some(&own)));
    assert!(named(&net, 2, "other.node-1").is_empty());
    let (of_machine, of_program) = (net.peer(2, 1), net.peer(2, web));
    assert_eq!((of_machine.machine(), of_machine.member()), (None, node_id(1)));
    let keys = *Identity::from_seed(&[1; 32]).public();
    assert_eq!((of_program.machine(), of_program.member()), (Some(keys), node_id(1)));
    // The granted address stays the machine's.
    net.send_to(2, at, [10, 7, 0, 1].into(), b"granted");
    net.run(SECOND);
    assert!(net.received(1).contains(&b"granted".to_vec()));
    assert_eq!(net.nodes[web].endpoint.addresses(network(&net, web)), [own]);
    // It would be one more machine there.
    net.run(Duration::from_secs(100));
    assert_eq!(net.count(0, |event| matches!(event, Event::Asked(peer, ..) if *peer.id() == node_id(11))), 0);
}

#[test]
fn a_label_is_found_at_the_machine_without_any_controller() {
    let authority = Authority::new();
    let mut net = members(&authority, &[1, 2]);
    let web = add(&mut net, &authority, 1, 11, Some("web"));
    // The machine learns of it at once, although no program has sent anything.
    net.wait(SECOND, |net| !named(net, 0, "web.node-1").is_empty());
    net.send(1, 0, b"hello");
    net.run(SECOND);
    assert!(named(&net, 1, "web.node-1").is_empty());
    let at = network(&net, 1);
    let question = Question::FindProgram(name("web"), name("node-1"));
    assert!(net.nodes[1].endpoint.find_member(net.now, at, &question));
    let took = net.wait(SECOND, |net| !named(net, 1, "web.node-1").is_empty());
    assert!(took < SECOND / 4, "{took:?}");
    let to = named(&net, 1, "web.node-1")[0];
    net.send_to(1, at, to, b"found");
    net.run(SECOND);
    assert_eq!(net.received(web), [b"found".to_vec()]);
    assert!(net.received(0).iter().all(|text| text != b"found"));
}

/// Number of initiations that a node has sent until now.
fn initiations(net: &Net, node: usize) -> usize {
    let own = net.nodes[node].socket;
    net.sent.iter().filter(|sent| sent.from == own && sent.bytes.first() == Some(&INITIATION)).count()
}

/// Only a session shows a member's name. The question for it comes before the first node is found, at the
/// same time, and later.
#[test]
fn a_member_is_found_by_name_at_once_without_any_controller() {
    let authority = Authority::new();
    let mut net = members(&authority, &[1, 2]);
    for program in 11..31 {
        let own = add(&mut net, &authority, 1, program, None);
        net.run(SECOND / 1000 * u32::from(program - 11));
        let at = network(&net, own);
        assert!(net.nodes[own].endpoint.find_name(net.now, at, "node-2"));
        let took = net.wait(6 * SECOND, |net| !named(net, own, "node-2").is_empty());
        assert!(took < SECOND / 10, "{took:?} of program {program}");
    }
}

#[test]
fn a_name_that_nobody_has_leads_to_few_handshakes_at_a_time() {
    let authority = Authority::new();
    let identities: Vec<u8> = (20..60).collect();
    let mut net = members(&authority, &identities);
    let own = add(&mut net, &authority, 20, 11, None);
    let at = network(&net, own);
    // The members' answers are lost, so the program does not know their names.
    let socket = net.nodes[own].socket;
    net.filter = Box::new(move |sent| sent.to != socket || sent.bytes.first() != Some(&RESPONSE));
    assert!(net.nodes[own].endpoint.find_name(net.now, at, "nobody"));
    net.run(SECOND / 5);
    // Also to its machine's node.
    let sent = initiations(&net, own);
    assert!((8..=10).contains(&sent), "{sent} initiations");
}

/// A node that has shown another name makes room for the next one at once, and each is met once.
#[test]
fn a_member_among_many_unknown_ones_is_found_by_name_at_once() {
    let authority = Authority::new();
    let identities: Vec<u8> = (20..80).collect();
    let mut net = members(&authority, &identities);
    let own = add(&mut net, &authority, 20, 11, None);
    let at = network(&net, own);
    for last in ["node-79", "nobody"] {
        assert!(net.nodes[own].endpoint.find_name(net.now, at, last));
        if last != "nobody" {
            let took = net.wait(5 * SECOND, |net| !named(net, own, last).is_empty());
            assert!(took < SECOND / 5, "{took:?}");
        }
        net.run(5 * SECOND);
        let sent = initiations(&net, own);
        assert!(sent <= identities.len() + 5, "{sent} initiations");
    }
}

#[test]
fn a_label_is_found_at_a_controller_after_the_machine_s_node_has_ended() {
    let authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1, 2]);
    net.send(2, 1, b"hello");
    net.send(2, 0, b"hello");
    let web = add(&mut net, &authority, 1, 11, Some("web"));
    net.run(SECOND);
    let at = network(&net, 1);
    net.nodes[1].endpoint.leave(net.now, at);
    net.pump();
    net.run(SECOND);
    // 2 has not met it. The stranger's question is not answered, and the member's is.
    let stranger = net.add(5);
    separate(&mut net, &[(stranger, web)]);
    let mut config = ManagedNetwork::new(id());
    config.key = Some(secret().public());
    net.join(stranger, &NetworkConfig::Managed(Box::new(config)));
    net.run(SECOND);
    for (node, answered) in [(stranger, false), (2, true)] {
        let question = Question::FindProgram(name("web"), name("node-1"));
        let at = network(&net, node);
        assert!(net.nodes[node].endpoint.find_member(net.now, at, &question));
        net.run(6 * SECOND);
        assert_eq!(!named(&net, node, "web.node-1").is_empty(), answered, "{node}");
    }
    let to = named(&net, 2, "web.node-1")[0];
    net.send_to(2, network(&net, 2), to, b"found");
    net.run(SECOND);
    assert_eq!(net.received(web), [b"found".to_vec()]);
}

#[test]
fn a_label_that_two_programs_have_leads_to_the_one_that_is_there() {
    let authority = Authority::new();
    let mut net = members(&authority, &[1, 2]);
    let old = add(&mut net, &authority, 1, 11, Some("dup"));
    net.run(2 * SECOND);
    let new = add(&mut net, &authority, 1, 12, Some("dup"));
    net.send(1, 0, b"hello");
    net.run(SECOND);
    let at = network(&net, 0);
    assert_eq!(named(&net, 0, "dup.node-1")[0], net.address(0, at, new));
    assert_eq!(net.nodes[0].endpoint.label_in_doubt("dup.node-1", |_| true), None);
    net.nodes[new].up = false;
    net.wait(HOUR / 2, |net| net.peer(0, new).session().is_none() && net.peer(0, old).session().is_some());
    assert_eq!(named(&net, 0, "dup.node-1")[0], net.address(0, at, old));
    let at = network(&net, 1);
    let question = Question::FindProgram(name("dup"), name("node-1"));
    assert!(net.nodes[1].endpoint.find_member(net.now, at, &question));
    net.run(5 * SECOND);
    assert_eq!(named(&net, 1, "dup.node-1"), [net.address(1, at, old)]);
    // It has no session yet, and asks again.
    assert_eq!(net.nodes[1].endpoint.label_in_doubt("dup.node-1", |_| true), Some(at));
    net.send(1, old, b"found");
    net.run(SECOND);
    assert_eq!(net.received(old), [b"found".to_vec()]);
    assert_eq!(net.nodes[1].endpoint.label_in_doubt("dup.node-1", |_| true), None);
}

#[test]
fn the_revocation_of_a_machine_ends_all_its_programs() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1, 2]);
    let programs: Vec<usize> = (11..31).map(|program| add(&mut net, &authority, 1, program, None)).collect();
    for &program in &programs {
        net.send(2, program, b"hello");
    }
    net.send(2, 0, b"hello");
    net.run(SECOND);
    assert!(programs.iter().all(|&program| net.received(program).len() == 1));
    let (head, set) = authority.revoke(1, net.now - crate::net::instant());
    let at = network(&net, 0);
    net.nodes[0].endpoint.set_revocations(net.now, at, &head, &set).expect("signed by the issuer");
    let took = net.wait(5 * SECOND, |net| expelled(net, 2) == programs.len());
    assert!(took < SECOND, "{took:?}");
    for &program in &programs {
        net.send(program, 2, b"late");
        net.send(2, program, b"late");
    }
    net.run(5 * SECOND);
    assert!(net.received(2).iter().all(|text| text != b"late"));
    assert!(programs.iter().all(|&program| net.received(program).len() == 1));
    let told = |event: &Event| matches!(event, Event::RefusedBy(_, Refusal::Revoked));
    assert!(programs.iter().all(|&program| net.count(program, told) > 0), "each hears why");
    // Another certificate of the machine's key changes nothing.
    let again = add(&mut net, &authority, 1, 40, None);
    net.send(again, 2, b"late");
    net.run(5 * SECOND);
    assert!(net.received(2).iter().all(|text| text != b"late"));
}

#[test]
fn a_program_is_out_when_its_certificate_ends_and_goes_on_with_a_new_one() {
    let authority = Authority::new();
    let mut net = members(&authority, &[1, 2]);
    let [kept, left] = [11, 12].map(|program| add(&mut net, &authority, 1, program, None));
    for program in [kept, left] {
        net.send(1, program, b"hello");
    }
    net.run(HOUR / 2);
    let at = net.now - crate::net::instant();
    let renewed = description(&authority, 1, 11, None, at).credentials.expect("credentials");
    let of_network = network(&net, kept);
    net.nodes[kept].endpoint.set_credentials(net.now, of_network, &renewed).expect("its own");
    net.pump();
    net.run(HOUR / 2 + 2 * SECOND);
    for program in [kept, left] {
        net.send(1, program, b"again");
    }
    net.run(5 * SECOND);
    assert_eq!((net.received(kept).len(), net.received(left).len()), (2, 1));
}

#[test]
fn certificates_of_others_make_no_program() {
    let authority = Authority::new();
    let mut net = members(&authority, &[1, 2]);
    // A member signs for a program of another one, and a program shows another program's certificate.
    let thief = net.add(30);
    let own = description(&authority, 1, 11, None, Duration::ZERO);
    let refused = net.nodes[thief].endpoint.join(net.now, NetworkConfig::Managed(Box::new(own.clone())));
    assert!(matches!(refused, Err(JoinError::Credentials { .. })), "{refused:?}");
    let mut config = ManagedNetwork::new(id());
    config.key = Some(secret().public());
    config.is_program = true;
    net.join(thief, &NetworkConfig::Managed(Box::new(config)));
    net.run(4 * SECOND);
    net.send(thief, 0, b"knock");
    net.send(0, thief, b"knock");
    net.run(SECOND);
    let serial = Serial::next(UnixTime::from(UNIX_TIME), None);
    let keys = Identity::from_seed(&[2; 32]);
    let forged = ProcessCertificate::sign(&keys, id(), &node_id(30), Some(name("web")), serial, HOUR);
    for credentials in [
        own.credentials.clone().expect("credentials"),
        // The certificate of 1, and the signature of 2.
        own.credentials.expect("credentials").of_process(forged),
    ] {
        crate::managed::say(
            &mut net,
            thief,
            0,
            &MembershipMessage::Shown(&credentials.to_bytes()).to_bytes(),
        );
    }
    net.send(thief, 0, b"knock");
    net.run(5 * SECOND);
    assert!(net.received(0).is_empty() && named(&net, 0, "web.node-1").is_empty());
    assert!(net.counter(0, "credentials_refused") >= 2);
}

#[test]
fn an_earlier_certificate_of_a_program_does_not_replace_a_later_one() {
    let authority = Authority::new();
    let mut net = members(&authority, &[1]);
    let web = add(&mut net, &authority, 1, 11, Some("web"));
    net.send(0, web, b"hello");
    net.run(DAY / 100);
    let at = net.now - crate::net::instant();
    let renamed = description(&authority, 1, 11, Some("api"), at).credentials.expect("credentials");
    let of_network = network(&net, web);
    net.nodes[web].endpoint.set_credentials(net.now, of_network, &renamed).expect("its own");
    net.pump();
    net.run(SECOND);
    let old = description(&authority, 1, 11, Some("web"), at - SECOND).credentials.expect("credentials");
    crate::managed::say(&mut net, web, 0, &MembershipMessage::Shown(&old.to_bytes()).to_bytes());
    net.run(SECOND);
    assert_eq!((named(&net, 0, "api.node-1").len(), named(&net, 0, "web.node-1").len()), (1, 0));
}
