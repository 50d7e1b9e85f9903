use std::time::Duration;

use super::*;
use crate::id::{Identity, NodeId};
use crate::membership::{Refusal, Serial, UnixTime};

fn member(seed: u8, addresses: &[&str]) -> StaticMember {
    StaticMember {
        identity: *Identity::from_seed(&[seed; 32]).public(),
        name: None,
        addresses: addresses.iter().map(|a| a.parse().expect("an address")).collect(),
        endpoints: Vec::new(),
        routes: Vec::new(),
        exit: Exit::default(),
    }
}

fn named(seed: u8, name: &str) -> StaticMember {
    StaticMember { name: Some(name.into()), ..member(seed, &[]) }
}

fn network(id: &str, members: Vec<StaticMember>) -> NetworkConfig {
    NetworkConfig::Static(StaticNetwork {
        id: id.parse().expect("an ID"),
        psk: None,
        members,
        exit: None,
        program: None,
    })
}

fn node(seed: u8) -> NodeId {
    Identity::from_seed(&[seed; 32]).public().node_id()
}

const LISTED: &str = "fe00000000000001";

#[test]
fn contradictions_are_refused() {
    let own = LISTED.parse::<NetworkId>().expect("an ID").address_of(&NodeId::from_bytes([1; 32]));
    let good = network(LISTED, vec![member(1, &["10.0.0.1", "fd00::1"]), member(2, &["10.0.0.2"])]);
    assert_eq!(good.validate(), Ok(()));
    let twice = network(LISTED, vec![member(1, &[]), member(1, &[])]);
    assert!(matches!(twice.validate(), Err(NetworkConfigError::DuplicateMember(_))));
    let twins = network(LISTED, vec![named(1, "twin"), named(2, "Twin")]);
    assert!(matches!(twins.validate(), Err(NetworkConfigError::DuplicateName(_))));
    let shared = network(LISTED, vec![member(1, &["10.0.0.1"]), member(2, &["10.0.0.1"])]);
    assert!(matches!(shared.validate(), Err(NetworkConfigError::DuplicateAddress(_))));
    let loopback = network(LISTED, vec![member(1, &["127.0.0.1"])]);
    assert!(matches!(loopback.validate(), Err(NetworkConfigError::UnusableAddress(_))));
    let taken = network(LISTED, vec![member(1, &[&own.to_string()])]);
    assert!(matches!(taken.validate(), Err(NetworkConfigError::CertifiedAddress(_))));
    let id = "ff00160016000000".parse().expect("an ID");
    let open_key = NetworkConfig::AdHoc { id, psk: Some(Psk::open()) };
    assert_eq!(open_key.validate(), Err(NetworkConfigError::OpenKey));
    let kind = network("ff00160016000000", vec![]);
    assert!(matches!(kind.validate(), Err(NetworkConfigError::Kind(_))));
}

#[test]
fn an_endpoint_is_of_one_host() {
    for text in ["192.0.2.1:7", "[2001:db8::1]:7", "10.8.0.255:7", "127.0.0.1:7"] {
        assert!(is_endpoint(&text.parse().unwrap()), "{text}");
    }
    for text in [
        "0.0.0.0:7",
        "255.255.255.255:7",
        "239.9.9.9:7",
        "[::]:7",
        "[ff02::1]:7",
        "192.0.2.1:0",
        "[::ffff:255.255.255.255]:7",
    ] {
        let endpoint = text.parse().unwrap();
        assert!(!is_endpoint(&endpoint), "{text}");
        let listed = network(LISTED, vec![StaticMember { endpoints: vec![endpoint], ..member(1, &[]) }]);
        assert_eq!(listed.validate(), Err(NetworkConfigError::UnusableEndpoint(endpoint)));
    }
}

#[test]
fn each_kind_admits_whom_it_should() {
    let open = NetworkConfig::by_id(NetworkId::ad_hoc(1..=2).unwrap()).unwrap().policy();
    assert!(open.admits_anyone() && open.admits(&node(1)) && !open.keeps(&node(1)));
    assert!(open.members().is_empty());
    assert!(open.may_exist(open.id().address_of(&node(9)).into()));
    assert!(!open.may_exist("10.0.0.1".parse().unwrap()) && !open.may_exist("fd00::1".parse().unwrap()));

    let closed = network(LISTED, vec![member(1, &["10.0.0.1"]), member(2, &[])]).policy();
    assert!(!closed.admits_anyone() && closed.admits(&node(2)) && !closed.admits(&node(3)));
    assert!(closed.keeps(&node(2)) && !closed.keeps(&node(3)));
    assert_eq!(closed.members().len(), 2);
    assert!(!closed.may_exist(closed.id().address_of(&node(3)).into()), "all members are known");
    let certified: IpAddr = closed.id().address_of(&node(1)).into();
    assert_eq!(closed.addresses_of(&node(1)), [certified, "10.0.0.1".parse().unwrap()]);
}

/// Returns a network of two members, of which the first may be an exit.
fn with_exit(exit: NodeId) -> Result<NetworkConfig, NetworkConfigError> {
    let leads_out = StaticMember { exit: Exit { ipv4: true, ipv6: true }, ..member(1, &["10.7.0.1"]) };
    let eights = vec![Prefix::new("8.0.0.0".parse().unwrap(), 8).unwrap()];
    network(LISTED, vec![leads_out, StaticMember { routes: eights, ..member(2, &["10.7.0.2"]) }])
        .with_exit(exit)
}

#[test]
fn an_exit_counts_where_it_is_chosen_and_is_no_part_of_the_network() {
    let (chosen, unused) = (with_exit(node(1)).unwrap(), with_exit(node(1)).unwrap().without_exit());
    let leads_to = |config: &NetworkConfig, seed: u8, address: &str| {
        let address: IpAddr = address.parse().unwrap();
        config.policy().routes_of(&node(seed)).iter().any(|route| route.contains(address))
    };
    for address in ["198.51.100.1", "2001:db8::1"] {
        assert!(leads_to(&chosen, 1, address) && !leads_to(&chosen, 2, address), "{address}");
        assert!(!leads_to(&unused, 1, address), "{address}");
        // The overlay's own addresses do not include the Internet's.
        for config in [&chosen, &unused] {
            let prefixes = config.policy().prefixes();
            assert!(prefixes.iter().all(|prefix| !prefix.contains(address.parse().unwrap())), "{address}");
            assert_eq!(config.policy().summary().prefixes, prefixes);
        }
    }
    // A block behind another member stays with that member, and the exit's blocks belong to no other.
    let all: Vec<_> = [1, 2].iter().flat_map(|seed| chosen.policy().routes_of(&node(*seed))).collect();
    assert!(all.iter().enumerate().all(|(at, route)| !all[..at].contains(route)), "{all:?}");
    assert!(leads_to(&chosen, 2, "8.8.8.8"));
    assert!(!chosen.policy().is_described_by(&unused) && chosen.policy().is_described_by(&chosen));
}

#[test]
fn nobody_is_an_exit_whom_the_list_does_not_allow() {
    for seed in [2, 3] {
        assert_eq!(with_exit(node(seed)).unwrap_err(), NetworkConfigError::NotAnExit(node(seed)));
    }
    let open = NetworkConfig::by_id(NetworkId::ad_hoc(1..=2).unwrap()).unwrap();
    assert!(matches!(open.with_exit(node(1)), Err(NetworkConfigError::NoExits(_))));
}

#[test]
fn a_managed_network_with_a_secret_is_refused() {
    let id: NetworkId = "0123456789abcdef".parse().unwrap();
    let open = NetworkConfig::by_id(id).unwrap();
    assert_eq!(open.validate(), Ok(()));
    assert_eq!(open.with_psk(Psk::new([7; 32])).validate(), Err(NetworkConfigError::NoSecret(id)));
}

#[test]
fn names_are_those_of_the_list_in_any_case() {
    let policy = network(LISTED, vec![named(1, "alpha"), member(2, &[])]).policy();
    assert_eq!(policy.nodes_named("Alpha"), [node(1)]);
    assert_eq!(policy.nodes_named("beta"), []);
    assert_eq!((policy.name_of(&node(1)), policy.name_of(&node(2))), (Some("alpha"), None));
}

#[test]
fn prefixes_hold_the_members_and_not_the_whole_internet() {
    let members = vec![
        member(1, &["10.7.0.1", "192.168.4.1", "2001:db8::1"]),
        member(2, &["10.7.0.2", "2001:db8:0:ffff::1"]),
        member(3, &["192.168.4.3", "fd00::1"]),
    ];
    let policy = network(LISTED, members).policy();
    let shown: Vec<_> = policy.prefixes().iter().skip(1).map(ToString::to_string).collect();
    assert_eq!(shown, ["10.7.0.0/30", "192.168.4.0/30", "2001:db8::/48", "fd00::1/128"]);
    let certified = policy.prefixes()[0];
    assert_eq!(certified.length(), 48);
    for seed in 1..=3 {
        let its = policy.addresses_of(&node(seed));
        assert!(its.iter().all(|ip| policy.prefixes().iter().any(|prefix| prefix.contains(*ip))));
        assert!(certified.contains(its[0]));
    }
}

#[test]
fn the_same_description_is_known_again_and_another_one_is_not() {
    let (one, two) = (named(1, "one"), member(2, &["10.0.0.2"]));
    let policy = network(LISTED, vec![one.clone(), two.clone()]).policy();
    assert!(policy.is_described_by(&network(LISTED, vec![two.clone(), one.clone()])), "in any order");
    let config = |members| network(LISTED, members);
    assert!(!policy.is_described_by(&config(vec![one.clone()])));
    assert!(!policy.is_described_by(&config(vec![one.clone(), member(2, &["10.0.0.3"])])));
    assert!(!policy.is_described_by(&config(vec![one, two]).with_psk(Psk::new([1; 32]))));

    let open = NetworkConfig::by_id(NetworkId::ad_hoc(1..=2).unwrap()).unwrap();
    assert!(open.policy().is_described_by(&open));
    assert!(!open.policy().is_described_by(&open.clone().with_psk(Psk::new([1; 32]))));
}

#[test]
fn an_id_alone_is_enough_for_an_ad_hoc_network_only() {
    let by_id = |id: &str| NetworkConfig::by_id(id.parse().unwrap());
    assert!(by_id("ff00160016000000").is_ok_and(|config| config.validate().is_ok()));
    assert!(matches!(by_id(LISTED), Err(NetworkIdError::NeedsFile(_))));
    assert!(matches!(by_id("8056c2e21c000001"), Ok(NetworkConfig::Managed(_))));
}

#[test]
fn a_summary_says_what_the_policy_does() {
    let listed = network(LISTED, vec![member(1, &["10.7.0.1"])]).with_psk(Psk::new([3; 32]));
    for policy in [listed.policy(), NetworkConfig::by_id(NetworkId::ad_hoc(5..=6).unwrap()).unwrap().policy()]
    {
        let summary = policy.summary();
        assert_eq!(summary.closed, !policy.admits_anyone());
        assert_eq!(summary.secret, policy.psk().is_some());
        assert_eq!(summary.ports, policy.ports());
        assert_eq!(summary.prefixes, policy.prefixes());
        assert_eq!(summary.by_file, NetworkConfig::by_id(policy.id()).is_err());
    }
    assert_eq!(listed.policy().summary().kind, "static");
}

mod look_ups {
    use std::time::Duration;

    use super::node;
    use crate::id::{Identity, NetworkId};
    use crate::membership::{
        Answer, Certificate, Credentials, Delegation, Grant, NetworkSecret, ProcessCertificate, Refusal,
        Rights, Serial, UnixTime,
    };
    use crate::network::{ManagedNetwork, Membership};

    const DAY: Duration = Duration::from_secs(86_400);
    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn keys(seed: u8) -> Identity {
        Identity::from_seed(&[seed; 32])
    }

    /// Returns the credentials of the member with this seed.
    fn credentials(seed: u8) -> Credentials {
        let (id, secret) = (network(), NetworkSecret::from_seed(&[77; 32]));
        let serial = Serial::next(UnixTime::from(NOW), None);
        let delegation = Delegation::sign(&secret, id, *keys(9).public(), serial, DAY, Rights::ALL);
        let grant = Grant::new(node(seed), format!("node-{seed}").parse().expect("a name"));
        let certificate = Certificate::sign(&keys(9), id, grant, serial, DAY).expect("a good grant");
        Credentials::new(secret.public(), delegation, certificate)
    }

    fn network() -> NetworkId {
        "8056c2e21c000001".parse().expect("an ID")
    }

    #[test]
    fn a_member_answers_for_the_programs_beside_it_and_for_nothing_else() {
        let mut known = Membership::new(&ManagedNetwork {
            key: Some(NetworkSecret::from_seed(&[77; 32]).public()),
            ..ManagedNetwork::new(network())
        });
        known.judge(&node(1), &credentials(1).to_bytes(), NOW).expect("a member");
        let program = |machine: u8| {
            let serial = Serial::next(UnixTime::from(NOW), None);
            let signed = ProcessCertificate::sign(&keys(machine), network(), &node(3), None, serial, DAY);
            credentials(machine).of_process(signed)
        };
        let mut said = |by: u8, credentials: Credentials| {
            let answer = Answer::Found { identity: *keys(3).public(), credentials: Box::new(credentials) };
            known.hear(&node(by), &node(5), &answer, NOW)
        };
        assert_eq!(said(1, program(1)), Ok(()));
        // A member answers neither for a member nor for another machine's program, and before its admission
        // for no program.
        assert_eq!(said(1, credentials(3)), Err(Refusal::Issuer));
        assert_eq!(said(1, program(2)), Err(Refusal::Issuer));
        assert_eq!(said(2, program(2)), Err(Refusal::Issuer));
        assert_eq!(said(9, credentials(3)), Ok(()), "a controller answers for all");
        assert_eq!(known.hear(&node(1), &node(5), &Answer::Absent, NOW), Err(Refusal::Issuer));
    }

    /// A member can sign a process certificate for any node, and answer with it.
    #[test]
    fn a_claim_about_another_member_s_node_replaces_nothing() {
        let mut config = ManagedNetwork::new(network());
        config.key = Some(NetworkSecret::from_seed(&[77; 32]).public());
        let serial = Serial::next(UnixTime::from(NOW), None);
        let label = "web".parse().ok();
        let signed = ProcessCertificate::sign(&keys(1), network(), &node(3), label, serial, DAY);
        let (claim, word) = (credentials(1).of_process(signed), credentials(3));
        for order in [[&claim, &word], [&word, &claim]] {
            let mut policy = super::NetworkConfig::Managed(Box::new(config.clone())).policy();
            let known = policy.membership_mut().expect("managed");
            for credentials in order {
                known.note_found(&node(3), credentials, NOW).expect("signed");
            }
            assert_eq!(policy.name_of(&node(3)), Some("node-3"));
            assert_eq!(policy.nodes_named("node-3"), [node(3)]);
            assert_eq!(policy.machine_of(&node(3)), None);
            // What it shows itself counts alone.
            let known = policy.membership_mut().expect("managed");
            known.judge(&node(3), &word.to_bytes(), NOW).expect("a member");
            assert!(policy.nodes_named("web.node-1").is_empty());
        }
    }
}

#[test]
fn a_member_signs_for_no_other_member_and_takes_no_program_of_another_one() {
    let keys = |seed: u8| Identity::from_seed(&[seed; 32]);
    let id: NetworkId = LISTED.parse().expect("an ID");
    let mut policy = network(LISTED, vec![named(1, "node-1"), named(2, "node-2")]).policy();
    let now = Duration::from_secs(1_800_000_000);
    let sign = |machine: u8, program: u8, second: u64| {
        let serial = Serial::next(UnixTime::from(now + Duration::from_secs(second)), None);
        let lifetime = ProcessCertificate::MAX_LIFETIME;
        ProcessCertificate::sign(&keys(machine), id, &node(program), None, serial, lifetime)
    };
    for (is_shown, seed) in [(true, 1), (false, 1), (true, 2), (false, 2)] {
        let refused = policy.introduce(&node(seed), sign(2, seed, 0), is_shown, now);
        assert_eq!(refused, Err(Refusal::Holder));
    }
    assert_eq!(policy.name_of(&node(1)), Some("node-1"));
    let program = node(11);
    // Named by its machine, then by another member, then shown with the other's certificate.
    for (machine, second, is_shown, name) in
        [(1, 0, false, "node-1"), (2, 5, false, "node-1"), (2, 5, true, "node-2"), (1, 1, true, "node-1")]
    {
        policy.introduce(&program, sign(machine, 11, second), is_shown, now).expect("signed by a member");
        assert_eq!(policy.name_of(&program), Some(name), "{machine} {second} {is_shown}");
    }
    // An earlier certificate of the same machine changes nothing, and no other key's counts.
    policy.introduce(&program, sign(1, 11, 0), true, now).expect("signed by a member");
    assert_eq!(policy.programs().and_then(|known| known.get(&program)), Some(&sign(1, 11, 1)));
    assert_eq!(policy.introduce(&program, sign(3, 11, 9), true, now), Err(Refusal::Issuer));
    assert_eq!(policy.introduce(&program, sign(1, 12, 9), true, now), Err(Refusal::Unauthentic));
    let late = now + ProcessCertificate::MAX_LIFETIME + Duration::from_secs(10);
    assert_eq!(policy.introduce(&program, sign(1, 11, 2), true, late), Err(Refusal::Expired));
    // Of a clock that is an hour behind, and of one that is days behind.
    policy.introduce(&program, sign(1, 11, 3600), true, now).expect("a clock may be behind");
    assert_eq!(policy.introduce(&program, sign(1, 11, 3 * 86_400), true, now), Err(Refusal::NotYetValid));
}
