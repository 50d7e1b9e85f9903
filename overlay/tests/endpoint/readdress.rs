//! Peers whose addresses change while they live.

use std::net::IpAddr;

use peersock_overlay::{AddressError, Event, Lookup, NodeId, Prefix, Route};

use crate::net::Net;

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

#[test]
fn a_peer_gets_and_loses_addresses_and_keeps_the_certified_one() {
    let mut net = Net::acquainted_pair();
    let network = net.nodes[0].endpoint.networks()[0].index;
    let certified = net.address(0, network, 1);
    let own = net.nodes[0].endpoint.addresses(network)[0];
    let endpoint = &mut net.nodes[0].endpoint;
    let node = *endpoint.peers()[0].peer.id();
    let routes = endpoint.routes().clone();
    let block = Prefix::new(ip(0), 24).expect("at most 32 bits");

    endpoint.set_addresses(network, &node, &[ip(1).into(), block]).expect("nobody has them");
    while endpoint.poll_event().is_some_and(|event| !matches!(event, Event::AddressesChanged(..))) {}
    let generation = routes.generation();
    for address in [certified, ip(1), ip(77)] {
        let Lookup::Peer(peer) = endpoint.lookup(net.now, network, address) else { panic!("{address}") };
        assert!(peer.owns(address));
        assert!(matches!(routes.get(network, address), Some(Route::Peer(found)) if *found.id() == node));
    }
    endpoint.set_addresses(network, &node, &[ip(1).into(), block]).expect("it has them");
    assert!(endpoint.poll_event().is_none(), "nothing has changed");
    assert_eq!(routes.generation(), generation);

    endpoint.set_addresses(network, &node, &[block, ip(2).into()]).expect("nobody has them");
    let Some(Event::AddressesChanged(peer, lost)) = endpoint.poll_event() else { panic!("an event") };
    assert_eq!(*lost, [ip(1).into()]);
    assert!(peer.owns(ip(1)), "it lies in the block");
    assert_eq!(peer.addresses(), [certified, ip(2)]);

    endpoint.set_addresses(network, &node, &[]).expect("it may have none");
    assert!(matches!(endpoint.lookup(net.now, network, ip(2)), Lookup::NoRoute));
    assert_eq!(routes.len(), 2, "the certified addresses of both");
    endpoint.leave(net.now, network);
    assert!(routes.is_empty());

    let gone = endpoint.set_addresses(network, &node, &[]);
    assert_eq!(gone, Err(AddressError::NotAPeer(node)));
    assert!(own != certified);
}

#[test]
fn what_no_member_may_have_is_refused_and_changes_nothing() {
    let mut net = Net::acquainted_pair();
    let network = net.nodes[0].endpoint.networks()[0].index;
    let certified = net.address(0, network, 1);
    let endpoint = &mut net.nodes[0].endpoint;
    let node = *endpoint.peers()[0].peer.id();
    let own = endpoint.addresses(network)[0];
    let generation = endpoint.routes().generation();
    let IpAddr::V6(v6) = certified else { panic!("IPv6") };
    let forged = IpAddr::V6((v6.to_bits() ^ 1).into());
    for (prefix, error) in [
        (own.into(), AddressError::Unusable(own.into())),
        (forged.into(), AddressError::Unusable(forged.into())),
        (IpAddr::from([127, 0, 0, 1]).into(), AddressError::Unusable(IpAddr::from([127, 0, 0, 1]).into())),
        (IpAddr::from([0; 4]).into(), AddressError::Unusable(IpAddr::from([0; 4]).into())),
        (IpAddr::from([224, 0, 0, 1]).into(), AddressError::Unusable(IpAddr::from([224, 0, 0, 1]).into())),
    ] {
        assert_eq!(endpoint.set_addresses(network, &node, &[ip(1).into(), prefix]), Err(error));
    }
    let many: Vec<Prefix> = (0..=64).map(|last| ip(last).into()).collect();
    assert_eq!(endpoint.set_addresses(network, &node, &many), Err(AddressError::TooMany));
    let stranger = NodeId::from_bytes([9; 32]);
    assert_eq!(endpoint.set_addresses(network, &stranger, &[]), Err(AddressError::NotAPeer(stranger)));
    assert_eq!(endpoint.routes().generation(), generation);
    assert!(endpoint.poll_event().is_none());
}
