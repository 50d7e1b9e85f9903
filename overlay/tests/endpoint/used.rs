//! Members that a node has used: their names and pool addresses lead to them through a root alone while no
//! controller answers, and prove nothing.

use std::net::IpAddr;
use std::time::Duration;

use peersock_overlay::membership::{Answer, Credentials, Grant, Question, Serial, UnixTime};
use peersock_overlay::{Event, Identity, ManagedNetwork, NetworkConfig, UsedMember};

use crate::managed::{Authority, CONTROLLER, SECOND, id, network, node_id, secret};
use crate::net::{Net, UNIX_TIME};
use crate::roots::{add_root, through_roots, use_roots};

/// Longest time that a program waits for a name.
pub(super) const NAME_WAIT: Duration = Duration::from_millis(800);

/// Time after which a question is given up.
pub(super) const GIVEN_UP: Duration = Duration::from_secs(6);

const HOUR: Duration = Duration::from_secs(3600);

/// Places of the nodes in [`apart`].
pub(super) const OWN: usize = 1;
pub(super) const OTHER: usize = 2;
pub(super) const THIRD: usize = 3;

/// Creates the controller and the nodes 1 to 3, which only a root leads to each other.
pub(super) fn apart(authority: &Authority) -> Net {
    let mut net = Net::new();
    net.filter = through_roots();
    add_root(&mut net, 1);
    for identity in [CONTROLLER, 1, 2, 3] {
        let node = net.add(identity);
        let credentials = authority.credentials(identity, Duration::ZERO);
        net.join(node, &description(identity == CONTROLLER, credentials, &[]));
        use_roots(&mut net, node);
    }
    net.run(4 * SECOND);
    net
}

pub(super) fn description(
    is_controller: bool,
    credentials: Credentials,
    used: &[UsedMember],
) -> NetworkConfig {
    NetworkConfig::Managed(Box::new(ManagedNetwork {
        key: Some(secret().public()),
        credentials: Some(credentials),
        is_controller,
        used: used.to_vec(),
        ..ManagedNetwork::new(id())
    }))
}

/// Restarts a node with credentials that are signed now, and with members that it has used.
pub(super) fn restart(net: &mut Net, authority: &Authority, node: usize, used: &[UsedMember]) {
    let since = net.now - crate::net::instant();
    net.restart(node, 4000, UNIX_TIME + since);
    net.join(node, &description(false, authority.credentials(node as u8, since), used));
    use_roots(net, node);
}

/// Returns an entry that says that a node has this name.
pub(super) fn entry(name: &str, identity: u8) -> UsedMember {
    UsedMember {
        name: name.parse().expect("a name"),
        identity: *Identity::from_seed(&[identity; 32]).public(),
        ipv4: None,
        ipv6: None,
        serial: Serial::next(UnixTime::from(UNIX_TIME), None),
    }
}

fn used(net: &Net, node: usize) -> Vec<UsedMember> {
    net.nodes[node].endpoint.membership(network(net, node)).expect("managed").used().cloned().collect()
}

fn names(net: &Net, node: usize) -> Vec<String> {
    used(net, node).iter().map(|one| one.name.to_string()).collect()
}

pub(super) fn named(net: &Net, node: usize, name: &str) -> Vec<IpAddr> {
    net.nodes[node].endpoint.addresses_named(name, |_| true)
}

/// Looks for a name as a program does.
pub(super) fn find(net: &mut Net, node: usize, name: &str) -> bool {
    let at = network(net, node);
    let asked = net.nodes[node].endpoint.find_name(net.now, at, name);
    net.pump();
    asked
}

/// Answers look-ups at the controller, as one that knows these members by their names.
fn serve(net: &mut Net, named: &[(&str, u8, Credentials)]) {
    let asked: Vec<_> =
        net.nodes[0].events.extract_if(.., |(_, event)| matches!(event, Event::Asked(..))).collect();
    for (_, event) in asked {
        let Event::Asked(peer, number, question) = event else { unreachable!() };
        let Question::FindName(name) = *question else { continue };
        let found = named.iter().find(|(known, ..)| *known == name.as_str());
        let answer = found.map_or(Answer::Absent, |(_, identity, credentials)| Answer::Found {
            identity: *Identity::from_seed(&[*identity; 32]).public(),
            credentials: Box::new(credentials.clone()),
        });
        net.nodes[0].endpoint.answer(net.now, &peer, number, &answer);
    }
    net.pump();
}

/// Lets node 1 use node 2, and returns what it keeps of that. Then the controller is off, and node 2, which
/// was restarted, knows no other.
fn use_other(net: &mut Net, authority: &Authority) -> Vec<UsedMember> {
    let at = network(net, OWN);
    assert!(!net.nodes[OWN].endpoint.note_used(at), "it has used no member");
    net.send(OWN, OTHER, b"hello");
    net.run(2 * SECOND);
    assert_eq!(net.received(OTHER), [b"hello".to_vec()]);
    assert!(net.nodes[OWN].endpoint.note_used(at));
    assert!(!net.nodes[OWN].endpoint.note_used(at), "each is told once");
    assert_eq!(names(net, OWN), ["node-2"]);
    net.nodes[0].up = false;
    let used = used(net, OWN);
    net.nodes[OWN].up = false;
    restart(net, authority, OTHER, &[]);
    net.run(SECOND);
    used
}

#[test]
fn a_used_member_is_found_by_name_through_a_root_alone_after_a_restart() {
    let authority = Authority::new();
    let mut net = apart(&authority);
    let kept = use_other(&mut net, &authority);
    for used in [&kept[..], &[]] {
        restart(&mut net, &authority, OWN, used);
        net.run(SECOND / 5);
        assert!(named(&net, OWN, "node-2").is_empty(), "an entry alone is no answer");
        assert!(find(&mut net, OWN, "node-2"));
        let begun = net.now;
        net.run(NAME_WAIT);
        assert_eq!(!named(&net, OWN, "node-2").is_empty(), !used.is_empty(), "{:?}", net.now - begun);
    }
    // Also while the node has just started, and is not registered at the root yet.
    restart(&mut net, &authority, OWN, &kept);
    assert!(find(&mut net, OWN, "node-2"));
    let took = net.wait(NAME_WAIT, |net| !named(net, OWN, "node-2").is_empty());
    assert!(took < NAME_WAIT / 4, "{took:?}");
    let to = named(&net, OWN, "node-2");
    assert!(to.contains(&[10, 7, 0, 2].into()), "{to:?}");
    net.send_to(OWN, network(&net, OWN), to[0], b"by name");
    net.run(SECOND);
    assert!(net.received(OTHER).contains(&b"by name".to_vec()));
}

#[test]
fn a_used_member_is_found_by_its_pool_address_through_a_root_alone_after_a_restart() {
    let authority = Authority::new();
    let mut net = apart(&authority);
    let kept = use_other(&mut net, &authority);
    restart(&mut net, &authority, OWN, &kept);
    net.send_to(OWN, network(&net, OWN), [10, 7, 0, 2].into(), b"by address");
    net.wait(NAME_WAIT, |net| net.received(OTHER).contains(&b"by address".to_vec()));
}

/// The name with a dot is one of the DNS for a node that does not know the machine.
#[test]
fn a_used_machine_leads_to_its_programs_long_after_the_restart() {
    let authority = Authority::new();
    let mut net = apart(&authority);
    let kept = use_other(&mut net, &authority);
    restart(&mut net, &authority, OWN, &kept);
    net.run(60 * SECOND);
    assert!(!find(&mut net, OWN, "web.node-3"));
    assert!(find(&mut net, OWN, "web.node-2"));
    net.wait(NAME_WAIT, |net| !named(net, OWN, "node-2").is_empty());
}

#[test]
fn an_entry_leads_on_after_its_certificate_has_ended() {
    let authority = Authority::new().lasting(HOUR);
    let mut net = apart(&authority);
    let kept = use_other(&mut net, &authority);
    net.run(3 * HOUR);
    for node in [OWN, OTHER] {
        restart(&mut net, &authority, node, if node == OWN { &kept } else { &[] });
    }
    net.run(SECOND);
    assert!(find(&mut net, OWN, "node-2"));
    net.wait(NAME_WAIT, |net| !named(net, OWN, "node-2").is_empty());
    let serial = used(&net, OWN)[0].serial;
    assert!(serial > kept[0].serial, "it is renewed by what the member has shown");
}

#[test]
fn an_entry_that_names_another_node_leads_to_no_other_member() {
    let authority = Authority::new();
    let mut net = apart(&authority);
    net.nodes[0].up = false;
    restart(&mut net, &authority, OWN, &[entry("node-2", 3)]);
    net.run(SECOND);
    assert!(find(&mut net, OWN, "node-2"));
    net.run(GIVEN_UP);
    // Node 3 was met, and has another name.
    assert!(named(&net, OWN, "node-2").is_empty());
    assert!(net.peer(OWN, THIRD).is_admitted());
    assert_eq!(names(&net, OWN), ["node-3"]);
    // A node that is no member does not become one, nor does one that does not exist.
    let stranger = net.add(5);
    net.join(stranger, &crate::managed::config(None));
    use_roots(&mut net, stranger);
    restart(&mut net, &authority, OWN, &[entry("evil", 5), entry("none", 6), entry("own", 1)]);
    net.run(SECOND);
    for name in ["evil", "none", "own"] {
        assert!(find(&mut net, OWN, name));
    }
    net.run(GIVEN_UP);
    assert!(["evil", "none", "own"].iter().all(|name| named(&net, OWN, name).is_empty()));
    assert_eq!(net.counter(OWN, "peers_admitted"), 0);
}

#[test]
fn a_removed_member_is_not_looked_for_and_one_whose_certificate_has_ended_has_no_name() {
    let mut authority = Authority::new().lasting(HOUR);
    let mut net = apart(&authority);
    let kept = use_other(&mut net, &authority);
    let (head, set) = authority.revoke(2, net.now - crate::net::instant());
    // The removal is kept, too.
    let since = net.now - crate::net::instant();
    net.restart(OWN, 4000, UNIX_TIME + since);
    let NetworkConfig::Managed(mut known) = description(false, authority.credentials(1, since), &kept) else {
        unreachable!()
    };
    known.revocations = vec![(head, set.to_bytes().into())];
    net.join(OWN, &NetworkConfig::Managed(known));
    use_roots(&mut net, OWN);
    assert_eq!(used(&net, OWN), []);
    net.run(SECOND);
    assert!(find(&mut net, OWN, "node-2"));
    net.run(GIVEN_UP);
    assert!(named(&net, OWN, "node-2").is_empty());
    let peers = net.nodes[OWN].endpoint.peers();
    assert!(peers.iter().all(|peer| *peer.peer.id() != node_id(2)), "it is not looked for");

    // The removal is not known here, but the member has got no certificate since.
    net.run(2 * HOUR);
    restart(&mut net, &authority, OWN, &kept);
    net.run(SECOND);
    assert!(find(&mut net, OWN, "node-2"));
    net.run(GIVEN_UP);
    assert!(named(&net, OWN, "node-2").is_empty());
    assert!(net.counter(OWN, "credentials_refused") > 0);
}

#[test]
fn a_removal_that_is_heard_takes_the_entry() {
    let mut authority = Authority::new();
    let mut net = apart(&authority);
    let kept = use_other(&mut net, &authority);
    net.nodes[0].up = true;
    restart(&mut net, &authority, OWN, &kept);
    net.run(5 * SECOND);
    assert_eq!(names(&net, OWN), ["node-2"]);
    let (head, set) = authority.revoke(2, net.now - crate::net::instant());
    let at = network(&net, 0);
    net.nodes[0].endpoint.set_revocations(net.now, at, &head, &set).expect("signed by the issuer");
    net.pump();
    net.wait(5 * SECOND, |net| names(net, OWN).is_empty());
}

#[test]
fn of_a_renamed_member_the_newest_certificate_counts() {
    let authority = Authority::new();
    let mut net = apart(&authority);
    let kept = use_other(&mut net, &authority);
    restart(&mut net, &authority, OWN, &kept);
    let at = net.now - crate::net::instant();
    let mut grant = Grant::new(node_id(2), "other".parse().expect("a name"));
    (grant.ipv4, grant.ipv4_length) = (Some([10, 7, 0, 22].into()), 24);
    let of_other = network(&net, OTHER);
    let renamed = authority.sign(grant, at);
    net.nodes[OTHER].endpoint.set_credentials(net.now, of_other, &renamed).expect("its own");
    net.run(SECOND);
    assert!(find(&mut net, OWN, "node-2"));
    net.run(GIVEN_UP);
    assert!(named(&net, OWN, "node-2").is_empty());
    assert_eq!(names(&net, OWN), ["other"]);
    let at = network(&net, OWN);
    assert!(net.nodes[OWN].endpoint.note_used(at), "that is to be kept");
    // The next start knows it by the new name.
    let kept = used(&net, OWN);
    restart(&mut net, &authority, OWN, &kept);
    assert!(find(&mut net, OWN, "other"));
    net.wait(NAME_WAIT, |net| !named(net, OWN, "other").is_empty());
}

#[test]
fn what_a_controller_says_goes_before_an_entry() {
    let authority = Authority::new();
    let mut net = apart(&authority);
    let kept = use_other(&mut net, &authority);
    net.nodes[0].up = true;
    // The name was given to node 3, and node 2 is off.
    net.nodes[OTHER].up = false;
    let at = net.now - crate::net::instant();
    let successor = authority.sign(Grant::new(node_id(3), "node-2".parse().expect("a name")), at);
    restart(&mut net, &authority, OWN, &kept);
    net.run(3 * SECOND);
    assert!(find(&mut net, OWN, "node-2"));
    for _ in 0..20 {
        serve(&mut net, &[("node-2", 3, successor.clone())]);
        net.run(SECOND / 10);
    }
    let third = net.address(OWN, network(&net, OWN), THIRD);
    assert_eq!(named(&net, OWN, "node-2"), [third]);
    assert!(names(&net, OWN).is_empty(), "the entry has lost its name");
    // There is no such member, says the controller.
    restart(&mut net, &authority, OWN, &kept);
    net.run(3 * SECOND);
    assert!(find(&mut net, OWN, "node-2"));
    for _ in 0..20 {
        serve(&mut net, &[]);
        net.run(SECOND / 10);
    }
    assert!(named(&net, OWN, "node-2").is_empty() && names(&net, OWN).is_empty());
    let at = network(&net, OWN);
    assert!(net.nodes[OWN].endpoint.note_used(at), "that is to be kept");
}

/// A member that only has a session, or gets answers, is not used.
#[test]
fn only_members_that_this_node_sends_data_to_are_used() {
    let authority = Authority::new();
    let mut net = apart(&authority);
    net.send(OTHER, OWN, b"hello");
    net.run(2 * SECOND);
    assert_eq!(net.received(OWN), [b"hello".to_vec()]);
    let peer = net.peer(OWN, OTHER);
    net.reply(OWN, &peer, b"answer");
    net.run(SECOND);
    let at = network(&net, OWN);
    assert!(!net.nodes[OWN].endpoint.note_used(at));
    assert_eq!(used(&net, OWN), []);
}
