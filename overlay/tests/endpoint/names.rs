//! Members of static networks: their names, which are the same for every caller while the network is joined,
//! and the room for their sessions.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use peersock_overlay::{
    Endpoint, EndpointConfig, Identity, JoinError, NetworkConfig, NetworkId, StaticMember, StaticNetwork,
};

use crate::net::instant;

fn member(seed: u8, name: Option<&str>) -> StaticMember {
    StaticMember {
        identity: *Identity::from_seed(&[seed; 32]).public(),
        name: name.map(str::to_owned),
        addresses: vec![IpAddr::from([10, 7, 0, seed])],
        endpoints: Vec::new(),
        routes: Vec::new(),
        exit: peersock_overlay::Exit::default(),
    }
}

fn id() -> NetworkId {
    "fe00000000000001".parse().expect("an ID")
}

fn network(members: Vec<StaticMember>) -> NetworkConfig {
    NetworkConfig::Static(StaticNetwork { id: id(), psk: None, members, exit: None, program: None })
}

#[test]
fn members_and_this_node_are_known_by_name_and_address_until_the_network_is_left() {
    let now = instant();
    let config = EndpointConfig::new(Arc::new(Identity::from_seed(&[1; 32])));
    let mut endpoint = Endpoint::new(config, [7; 32], now, Duration::from_secs(1_800_000_000));
    let members = vec![member(1, Some("own")), member(2, Some("alpha")), member(3, None)];
    let listed = network(members.clone());
    let index = endpoint.join(now, listed).expect("it is a member");
    let open = NetworkId::ad_hoc(80..=80).expect("a range");
    endpoint.join(now, NetworkConfig::by_id(open).expect("ad-hoc")).expect("anyone may");

    for (which, name) in [(0, "own"), (1, "Alpha")] {
        let certified = IpAddr::from(id().address_of(&members[which].identity.node_id()));
        let addresses = [certified, members[which].addresses[0]];
        assert_eq!(endpoint.addresses_named(name, |_| true), addresses);
        for address in addresses {
            assert_eq!(endpoint.name_at(address, |_| true), Some(name.to_lowercase()));
        }
    }
    assert!(endpoint.addresses_named("beta", |_| true).is_empty());
    assert_eq!(endpoint.name_at(members[2].addresses[0], |_| true), None, "it has no name");
    assert_eq!(endpoint.name_at(open.address_of(&members[0].identity.node_id()).into(), |_| true), None);

    endpoint.leave(now, index);
    assert!(endpoint.addresses_named("alpha", |_| true).is_empty());
    assert_eq!(endpoint.name_at(members[1].addresses[0], |_| true), None);
}

#[test]
fn a_name_means_the_addresses_that_its_member_has_now() {
    let now = instant();
    let config = EndpointConfig::new(Arc::new(Identity::from_seed(&[1; 32])));
    let mut endpoint = Endpoint::new(config, [7; 32], now, Duration::from_secs(1_800_000_000));
    let members = vec![member(1, Some("own")), member(2, Some("alpha")), member(3, Some("beta"))];
    let listed = network(members.clone());
    let index = endpoint.join(now, listed.clone()).expect("it is a member");
    let [_, alpha, beta] = [0, 1, 2].map(|which| members[which].identity.node_id());
    let certified = |node| IpAddr::from(id().address_of(&node));
    let listed_alpha = members[1].addresses[0];

    // Beta now has alpha's former address.
    endpoint.set_addresses(index, &alpha, &[IpAddr::from([10, 7, 0, 77]).into()]).expect("nobody has it");
    endpoint.set_addresses(index, &beta, &[listed_alpha.into()]).expect("nobody has it now");
    assert_eq!(endpoint.addresses_named("alpha", |_| true), [certified(alpha), IpAddr::from([10, 7, 0, 77])]);
    assert_eq!(endpoint.addresses_named("beta", |_| true), [certified(beta), listed_alpha]);
    for name in ["own", "alpha", "beta"] {
        for address in endpoint.addresses_named(name, |_| true) {
            assert_eq!(endpoint.name_at(address, |_| true), Some(name.to_owned()));
        }
    }
    let again = endpoint.join(now, listed);
    assert!(matches!(again, Err(JoinError::AlreadyJoined(_))), "the description is the same: {again:?}");
}

#[test]
fn all_listed_members_can_have_sessions_together() {
    let now = instant();
    let config = EndpointConfig::new(Arc::new(Identity::from_seed(&[1; 32])));
    let least = 2 * config.limits.peers_per_network;
    let mut endpoint = Endpoint::new(config, [7; 32], now, Duration::from_secs(1_800_000_000));
    let others = (0..least as u32).map(|number| {
        let mut seed = [9; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        let identity = *Identity::from_seed(&seed).public();
        StaticMember { identity, addresses: Vec::new(), ..member(2, None) }
    });
    let members = std::iter::once(member(1, None)).chain(others).collect();
    let before = endpoint.sessions().limit();
    let listed = network(members);
    let index = endpoint.join(now, listed).expect("it is a member");
    let during = endpoint.sessions().limit();
    // While a session is renewed there are two, and handshakes that both sides have begun.
    assert!(during >= before + 4 * least, "{before}, then {during}");
    endpoint.leave(now, index);
    assert_eq!(endpoint.sessions().limit(), before);
}
