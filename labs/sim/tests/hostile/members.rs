//! A hostile member of the network, who sends authentic packets.

use std::net::{IpAddr, Ipv6Addr};

use peersock_overlay::{DATA_OVERHEAD, Lookup, RecvMeta, Session, SocketIndex};
use peersock_sim::World;

use crate::SCALE;
use crate::lab::PORT;
use crate::siege::{SECOND, Siege, endpoint};

/// The stack's counters of packets that belong to nothing.
const DROPS: &[&str] = &[
    "ip_malformed",
    "ip_fragments",
    "ip_extension_headers",
    "ip_unknown_protocol",
    "ip_not_local",
    "ip_bad_source",
    "port_not_allowed",
    "tcp_malformed",
    "tcp_no_socket",
    "udp_malformed",
    "udp_no_socket",
    "icmp_malformed",
    "icmp_echo_requests",
    "icmp_ignored",
    "icmp_strangers",
];

#[test]
fn packets_in_the_name_of_others_go_no_further() {
    let mut member = Member::new();
    let (own, target) = (member.address(0, 0), member.address(1, 0));
    let others: [Ipv6Addr; 5] = [
        member.address(2, 0),
        // Its own and the target's in the other network, an unused one, and the target's own.
        member.address(0, 1),
        member.address(1, 1),
        Ipv6Addr::LOCALHOST,
        target,
    ];
    for _ in 0..20 * SCALE {
        let packets: Vec<Vec<u8>> = (0..500)
            .map(|_| {
                let mut source = *member.siege.random.pick(&others);
                if member.siege.random.chance(0.5) {
                    // One bit away from the member's own address.
                    let bit = member.siege.random.below(128);
                    source = Ipv6Addr::from_bits(own.to_bits() ^ 1 << bit);
                }
                tcp(source, target, 1000, PORT, 0x02, &[])
            })
            .collect();
        let grown = member.send(&packets);
        assert_eq!(grown("inner_source_not_owned"), 500);
        assert_eq!(grown("ip_received"), 0);
    }
    member.siege.conclude("foreign source addresses");
}

#[test]
fn malformed_packets_are_counted_and_answered_by_nothing_that_matters() {
    let mut member = Member::new();
    let (own, target) = (member.address(0, 0), member.address(1, 0));
    for _ in 0..40 * SCALE {
        let mut shorts = 0;
        let packets: Vec<Vec<u8>> = (0..500)
            .map(|_| {
                let random = &mut member.siege.random;
                let mut packet = vec![0; 1 + random.below(200)];
                random.fill(&mut packet);
                // Leave out control messages, which have a separate test.
                packet[0] = packet[0].max(0x10);
                if random.chance(0.8) {
                    packet[0] = 0x60;
                }
                if packet.len() >= 40 && packet[0] >> 4 == 6 {
                    packet[8..24].copy_from_slice(&own.octets());
                    if random.chance(0.9) {
                        packet[24..40].copy_from_slice(&target.octets());
                        packet[6] = *random.pick(&[6, 17, 58, 58, 0, 43, 44, 51, 89]);
                    }
                    if random.chance(0.9) {
                        let len = (packet.len() - 40) as u16;
                        packet[4..6].copy_from_slice(&len.to_be_bytes());
                    }
                } else if packet[0] >> 4 != 4 || packet.len() < 16 {
                    shorts += u64::from(packet[0] >> 4 != 6 || packet.len() < 24);
                }
                packet
            })
            .collect();
        let grown = member.send(&packets);
        assert_eq!(grown("inner_malformed"), shorts);
        assert_eq!(grown("inner_malformed") + grown("inner_source_not_owned") + grown("ip_received"), 500);
        let dropped: u64 = DROPS.iter().map(|name| grown(name)).sum();
        assert_eq!(dropped, grown("ip_received"), "{:?}", DROPS.map_grown(&grown));
        assert_eq!(grown("tcp_accepts") + grown("udp_received") + grown("tcp_established"), 0);
        member.siege.lab.run(SECOND / 100);
    }
    member.siege.conclude("malformed inner packets");
}

#[test]
fn a_syn_flood_is_bounded_and_passes() {
    let mut member = Member::new();
    let (own, target) = (member.address(0, 0), member.address(1, 0));
    let flows = |world: &World| world.machines()[1].node().expect("it runs").datapath().stack().flows();
    let before = flows(&member.siege.lab.world);
    for round in 0..20 * SCALE as u16 {
        let packets: Vec<Vec<u8>> = (0..500)
            .map(|number| tcp(own, target, 1024 + (round * 500 + number) % 60_000, PORT, 0x02, &[]))
            .collect();
        let grown = member.send(&packets);
        assert_eq!(grown("ip_received"), 500);
        assert_eq!(grown("tcp_accepts"), 0);
        let now = flows(&member.siege.lab.world);
        assert!(now <= before + BACKLOG, "{now} flows, {before} before the flood");
        assert!(
            grown("tcp_cookies_sent") >= 500 - BACKLOG as u64,
            "what has no place is answered without memory"
        );
    }
    member.siege.lab.run(130 * SECOND);
    assert!(flows(&member.siege.lab.world) <= before, "half-open connections are forgotten");
    member.siege.conclude("SYN flood");
}

#[test]
fn control_messages_of_every_kind_do_no_harm() {
    let mut member = Member::new();
    for _ in 0..10 * SCALE {
        let packets: Vec<Vec<u8>> = (0..200)
            .map(|_| {
                let random = &mut member.siege.random;
                let mut message = vec![0; 1 + random.below(60)];
                random.fill(&mut message);
                // All but "close", which a member may send.
                message[0] = *random.pick(&[0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
                message
            })
            .collect();
        let grown = member.send(&packets);
        assert_eq!(grown("ip_received") + grown("inner_malformed"), 0);
        assert!(grown("control_unknown") > 100);
        member.siege.lab.run(SECOND / 100);
    }
    member.siege.conclude("control messages");
}

/// Backlog of the lab's listeners.
const BACKLOG: usize = 32;

/// Node 0 of three attacks node 1.
struct Member {
    siege: Siege,
}

impl Member {
    fn new() -> Self {
        Self { siege: Siege::of_acquainted(3) }
    }

    fn address(&self, node: usize, network: usize) -> Ipv6Addr {
        match self.siege.lab.world.address_of(node, self.siege.lab.networks[network].id()) {
            IpAddr::V6(address) => address,
            IpAddr::V4(_) => unreachable!("self-certifying addresses are IPv6"),
        }
    }

    /// Seals packets on the present session and delivers them. Returns the growth of each of the target's
    /// counters.
    fn send(&mut self, packets: &[Vec<u8>]) -> impl Fn(&str) -> u64 + use<> {
        let session = self.session();
        self.siege.note("sent by a member", packets.len());
        let world = &mut self.siege.lab.world;
        let sealed: Vec<Vec<u8>> = packets
            .iter()
            .map(|packet| {
                let mut datagram = vec![0; packet.len() + DATA_OVERHEAD];
                session.seal(packet, &mut datagram).expect("the session stands");
                datagram
            })
            .collect();
        let before = world.counters(1);
        let meta = RecvMeta { remote: endpoint(0), socket: SocketIndex(0), multicast: false, relay: None };
        world.strike(1, meta, sealed.iter().map(Vec::as_slice)).expect("no violation");
        let after = world.counters(1);
        move |name| after[name] - before[name]
    }

    fn session(&self) -> std::sync::Arc<Session> {
        let world = &self.siege.lab.world;
        let node = world.machines()[0].node().expect("it runs");
        let network = node.network(self.siege.lab.networks[0].id()).expect("it has joined");
        let target = IpAddr::V6(self.address(1, 0));
        match node.datapath().find(world.instant(), &network, target) {
            Lookup::Peer(peer) => peer.session().expect("they have talked"),
            other => panic!("node 1 is {other:?}"),
        }
    }
}

trait MapGrown {
    fn map_grown(&self, grown: &dyn Fn(&str) -> u64) -> Vec<(String, u64)>;
}

impl MapGrown for [&str] {
    fn map_grown(&self, grown: &dyn Fn(&str) -> u64) -> Vec<(String, u64)> {
        self.iter().map(|name| ((*name).to_owned(), grown(name))).filter(|(_, n)| *n > 0).collect()
    }
}

/// Makes an IPv6 packet with a TCP segment. There are no checksums inside the tunnel.
fn tcp(source: Ipv6Addr, target: Ipv6Addr, from: u16, to: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 60];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    (packet[6], packet[7]) = (6, 64);
    packet[8..24].copy_from_slice(&source.octets());
    packet[24..40].copy_from_slice(&target.octets());
    packet[40..42].copy_from_slice(&from.to_be_bytes());
    packet[42..44].copy_from_slice(&to.to_be_bytes());
    packet[44..48].copy_from_slice(&[1, 2, 3, 4]);
    (packet[52], packet[53]) = (5 << 4, flags);
    packet[54..56].copy_from_slice(&1000u16.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}
