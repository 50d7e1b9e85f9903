//! Datagrams to multicast groups, between all members of a network.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use peersock_overlay::{NetworkConfig, NetworkId};
use peersock_stack::{IpOptions, UdpOptions, UdpSocket};

use crate::lab::{Lab, open_network};

const SECOND: Duration = Duration::from_secs(1);
const PORT: u16 = 2500;

/// Opens a socket that listens to a group, on one node.
fn member(lab: &Lab, node: usize, network: usize, group: &str) -> Arc<UdpSocket> {
    let node = lab.world.machines()[node].node().expect("it runs");
    let network = node.network(lab.networks[network].id()).expect("it has joined");
    let options = UdpOptions { reuse_address: true, ..UdpOptions::default() };
    let any = SocketAddr::new("::".parse().expect("an address"), PORT);
    let socket = node.datapath().stack().udp_bind(Some(network.interface), any, options).expect("a port");
    socket.join(None, group.parse().expect("a group")).expect("a group");
    socket
}

fn send(lab: &mut Lab, node: usize, group: &str, data: &[u8], options: IpOptions) {
    let machine = lab.world.machines()[node].node().expect("it runs");
    let network = machine.network(lab.networks[0].id()).expect("it has joined");
    let any = SocketAddr::new("::".parse().expect("an address"), 0);
    let stack = machine.datapath().stack();
    let socket = stack.udp_bind(Some(network.interface), any, UdpOptions::default()).expect("a port");
    socket.set_ip_options(options).expect("sound options");
    let to = SocketAddr::new(group.parse().expect("a group"), PORT);
    lab.world.send_udp(node, &socket, to, data).expect("a route");
    socket.close();
    lab.run(2 * SECOND);
}

/// Returns the received datagrams with their senders.
fn received(socket: &UdpSocket) -> Vec<(IpAddr, Vec<u8>)> {
    let mut buf = vec![0; 65_535];
    let next = || socket.recv_from(&mut buf).ok().map(|got| (got.source.ip(), buf[..got.len].to_vec()));
    std::iter::from_fn(next).collect()
}

#[test]
fn every_member_gets_one_copy_and_nobody_else_any() {
    let other = NetworkConfig::AdHoc { id: NetworkId::ad_hoc(1000..=3001).expect("a range"), psk: None };
    let mut lab = Lab::new(5, &[open_network(), other]);
    lab.run(3 * SECOND);
    for group in ["ff02::1234", "ff05::1234", "ff08::1234", "ff0e::1234"] {
        let members: Vec<_> = (0..4).map(|node| member(&lab, node, 0, group)).collect();
        let elsewhere = member(&lab, 2, 1, group);
        let deaf = member(&lab, 4, 0, "ff02::9999");
        let sender = lab.world.address_of(0, lab.networks[0].id());
        // The first datagram makes the sessions, and waits for them.
        for text in [&b"first"[..], b"second"] {
            send(&mut lab, 0, group, text, IpOptions::default());
            for member in &members {
                assert_eq!(received(member), [(sender, text.to_vec())], "{group}");
            }
        }
        assert_eq!((received(&deaf), received(&elsewhere)), (vec![], vec![]));
        members.iter().chain([&elsewhere, &deaf]).for_each(|socket| socket.close());
    }
}

#[test]
fn the_hop_limit_the_loop_and_the_scope_keep_datagrams_at_home_or_away_from_it() {
    let mut lab = Lab::new(2, &[open_network()]);
    lab.run(3 * SECOND);
    let group = "ff05::5";
    let (here, there) = (member(&lab, 0, 0, group), member(&lab, 1, 0, group));
    let counts = || [received(&here).len(), received(&there).len()];
    send(&mut lab, 0, group, b"x", IpOptions { multicast_hop_limit: 0, ..IpOptions::default() });
    assert_eq!(counts(), [1, 0]);
    send(&mut lab, 0, group, b"x", IpOptions { multicast_loop: false, ..IpOptions::default() });
    assert_eq!(counts(), [0, 1]);
    let (here, there) = (member(&lab, 0, 0, "ff01::5"), member(&lab, 1, 0, "ff01::5"));
    send(&mut lab, 0, "ff01::5", b"x", IpOptions { multicast_hop_limit: 9, ..IpOptions::default() });
    assert_eq!((received(&here).len(), received(&there).len()), (1, 0));
}

#[test]
fn large_datagrams_reach_groups_in_fragments() {
    let mut lab = Lab::new(3, &[open_network()]);
    lab.run(3 * SECOND);
    let members = [1, 2].map(|node| member(&lab, node, 0, "ff08::7"));
    let data: Vec<u8> = (0..9000u32).map(|at| at as u8).collect();
    send(&mut lab, 0, "ff08::7", &data, IpOptions::default());
    for member in members {
        let got = received(&member);
        assert!(got.len() == 1 && got[0].1 == data, "{} datagrams", got.len());
    }
}

#[test]
fn a_peer_that_is_away_is_given_up_and_asked_again_later() {
    let mut lab = Lab::new(2, &[open_network()]);
    lab.run(3 * SECOND);
    lab.world.crash(1);
    let asked = |lab: &Lab| lab.world.counters(0)["initiations_sent"];
    send(&mut lab, 0, "ff02::1:1", b"anybody?", IpOptions::default());
    lab.run(180 * SECOND);
    let before = asked(&lab);
    lab.run(60 * SECOND);
    assert_eq!(asked(&lab), before, "it is still tried");
    send(&mut lab, 0, "ff02::1:1", b"anybody?", IpOptions::default());
    assert!(asked(&lab) > before);
}
