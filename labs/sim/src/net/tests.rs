//! Tests that the network keeps the promises of its links, NAT boxes and addresses.

use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::{Random, Time};

const PORT: u16 = 4000;

#[test]
fn datagrams_take_the_time_of_every_link_they_pass() {
    let mut net = Office::new();
    net.send(net.a, "192.168.1.2:4000");
    assert_eq!(net.arrivals(), [(millis(2), net.b)]);
    net.send(net.a, "198.51.100.9:4000");
    assert_eq!(net.arrivals(), [(millis(1 + 10 + 10 + 1), net.server)]);
}

#[test]
fn multicast_and_broadcast_reach_the_whole_lan_and_nobody_else() {
    for group in ["239.255.0.1:7777", "192.168.1.255:7777"] {
        let mut net = Office::new();
        net.send(net.a, group);
        let hosts: Vec<HostId> = net.arrivals().into_iter().map(|(_, host)| host).collect();
        assert_eq!(hosts, [net.a, net.b]);
    }
}

#[test]
fn strangers_cannot_get_behind_a_nat_until_they_are_asked() {
    let mut net = Office::new();
    net.send(net.server, "203.0.113.1:4000");
    assert_eq!(net.arrivals(), []);
    net.send(net.a, "198.51.100.9:4000");
    assert_eq!(net.arrivals().len(), 1);
    net.send(net.server, "203.0.113.1:4000");
    assert_eq!(net.arrivals(), [(millis(22), net.a)]);
}

#[test]
fn hairpinning_works_where_the_box_can() {
    for able in [false, true] {
        let mut net = Office::new();
        let config =
            NatConfig { hairpinning: able, ..net.net.nat_mut(net.lan).expect("a NAT").config().clone() };
        let config = NatConfig { filtering: Behaviour::EndpointIndependent, ..config };
        *net.net.nat_mut(net.lan).expect("a NAT") = Nat::new(config, Random::from_seed(1));
        net.send(net.b, "198.51.100.9:4000");
        net.send(net.a, "203.0.113.1:4000");
        let to_b = net.arrivals().into_iter().filter(|(_, host)| *host == net.b).count();
        assert_eq!(to_b, usize::from(able));
    }
}

#[test]
fn own_addresses_need_no_wire() {
    let mut net = Office::new();
    let up = LinkId::Up(net.a, net.lan);
    net.net.link_mut(up).expect("a link").break_with(FaultId(1), Stage::Cut);
    net.send(net.a, "192.168.1.1:4001");
    assert_eq!(net.arrivals(), [(Duration::from_micros(20), net.a)]);
}

#[test]
fn a_cut_is_one_way_and_ends_with_its_repair() {
    let mut net = Office::new();
    let down = LinkId::Down(net.b, net.lan);
    net.net.link_mut(down).expect("a link").break_with(FaultId(7), Stage::Cut);
    net.send(net.a, "192.168.1.2:4000");
    assert_eq!(net.arrivals(), []);
    net.send(net.b, "192.168.1.1:4000");
    assert_eq!(net.arrivals().len(), 1);
    net.net.link_mut(down).expect("a link").repair(FaultId(7));
    net.send(net.a, "192.168.1.2:4000");
    assert_eq!(net.arrivals().len(), 1);
}

#[test]
fn a_rate_queues_and_drops_the_tail() {
    // 1000-byte packets at 1 MB/s take 1 ms each. Two fit into the queue beside the one on the line.
    let mut pipe = Pipe::new([Stage::Rate { bytes_per_second: 1_000_000, queue: 3000 }]);
    let passed: Vec<Time> = (0..5).flat_map(|_| pass(&mut pipe, 972)).map(|(at, _)| at).collect();
    assert_eq!(passed, [millis(1), millis(2), millis(3)]);
}

#[test]
fn black_holes_swallow_large_packets_only() {
    let mut pipe = Pipe::new([Stage::Mtu(1280)]);
    assert_eq!(pass(&mut pipe, 1280 - 28).len(), 1);
    assert_eq!(pass(&mut pipe, 1281 - 28).len(), 0);
}

#[test]
fn random_stages_do_what_they_say_about_as_often_as_they_say() {
    let count = |stage: Stage| {
        let mut pipe = Pipe::new([stage]);
        let mut random = Random::from_seed(3);
        let passed = (0..1000).flat_map(|_| pipe.pass(&mut random, Time::ZERO, datagram(100)));
        passed.fold((0, 0, 0), |(n, changed, late), (at, d)| {
            (n + 1, changed + usize::from(d != datagram(100)), late + usize::from(at > Time::ZERO))
        })
    };
    assert!((850..950).contains(&count(Stage::Loss(0.1)).0));
    assert!((1050..1150).contains(&count(Stage::Duplicate(0.1)).0));
    assert!((50..150).contains(&count(Stage::Corrupt(0.1)).1));
    assert!((50..150).contains(&count(Stage::Reorder { probability: 0.1, delay: millis(5) }).2));
}

#[test]
fn jitter_keeps_the_order_and_reordering_does_not() {
    let order = |stage: Stage| {
        let mut pipe = Pipe::new([stage]);
        let mut random = Random::from_seed(4);
        let at: Vec<Time> = (0..100)
            .flat_map(|i| pipe.pass(&mut random, Duration::from_micros(100 * i), datagram(100)))
            .map(|(at, _)| at)
            .collect();
        at.is_sorted()
    };
    assert!(order(Stage::Delay { base: millis(1), jitter: millis(10) }));
    assert!(!order(Stage::Reorder { probability: 0.2, delay: millis(10) }));
}

/// Two hosts behind a NAT, and a server with a public address.
struct Office {
    net: Net,
    lan: LanId,
    a: HostId,
    b: HostId,
    server: HostId,
    now: Time,
}

impl Office {
    fn new() -> Self {
        let mut net = Net::new(Random::from_seed(1));
        let lan = net.add_lan(Prefixes { ipv4: Some([192, 168, 1, 0].into()), ipv6: None });
        let far = net.add_lan(Prefixes { ipv4: Some([198, 51, 100, 0].into()), ipv6: None });
        let nat = Nat::new(NatConfig::new([203, 0, 113, 1].into()), Random::from_seed(2));
        net.set_gateway(
            lan,
            Some(Gateway { nat: Some(nat), out: wire(10), into: wire(10), ..Gateway::default() }),
        );
        net.set_gateway(
            far,
            Some(Gateway { nat: None, out: wire(10), into: wire(10), ..Gateway::default() }),
        );
        let [a, b, server] = [(lan, [192, 168, 1, 1]), (lan, [192, 168, 1, 2]), (far, [198, 51, 100, 9])]
            .map(|(lan, address)| {
                let host = net.add_host();
                net.attach(host, lan, Some(address.into()), None, wire(1), wire(1));
                host
            });
        // Two links of 1 ms on each LAN, two of 10 ms between the LANs.
        Self { net, lan, a, b, server, now: Time::ZERO }
    }

    fn send(&mut self, from: HostId, to: &str) {
        self.net.send(self.now, from, PORT, to.parse().expect("an endpoint"), vec![1, 2, 3]);
    }

    /// Returns all arrivals and the time each took.
    fn arrivals(&mut self) -> Vec<(Time, HostId)> {
        let started = self.now;
        let mut arrivals = Vec::new();
        while let Some(at) = self.net.next_arrival() {
            self.now = at;
            let delivered = self.net.poll(at);
            arrivals.extend(delivered.into_iter().map(|delivery| (at - started, delivery.host)));
        }
        arrivals
    }
}

fn wire(ms: u64) -> Pipe {
    Pipe::new([Stage::Delay { base: millis(ms), jitter: Time::ZERO }])
}

fn pass(pipe: &mut Pipe, len: usize) -> Vec<(Time, Datagram)> {
    pipe.pass(&mut Random::from_seed(1), Time::ZERO, datagram(len))
}

fn datagram(len: usize) -> Datagram {
    let endpoint = SocketAddr::from(([192, 0, 2, 1], 1));
    Datagram { from: endpoint, to: endpoint, payload: vec![0; len], sent: Time::ZERO }
}

fn millis(ms: u64) -> Time {
    Duration::from_millis(ms)
}
