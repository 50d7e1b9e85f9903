//! A prober behind a model of a NAT, in virtual time.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BinaryHeap;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::behavior::{DeltaKind, Filtering, Mapping, Nat, NatKind};

const SERVER: &str = "192.0.2.10:3478";
const OTHER: &str = "192.0.2.11:3479";
const OUTSIDE: &str = "203.0.113.1";

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an endpoint")
}

/// The behavior of the box between the prober and the servers.
#[derive(Debug, Clone, Copy)]
struct Model {
    /// The mapping; `None` without NAT, with only the filter.
    mapping: Option<Mapping>,
    filtering: Filtering,
    delta: DeltaKind,
    hairpin: bool,
    blocked: bool,
    /// Lost datagrams out of 256.
    loss: u8,
}

const EASY: Model = Model {
    mapping: Some(Mapping::EndpointIndependent),
    filtering: Filtering::EndpointIndependent,
    delta: DeltaKind::Equal,
    hairpin: false,
    blocked: false,
    loss: 0,
};

/// The key of a mapping: a local endpoint and, depending on the kind of mapping, the destination.
type Key = (SocketAddr, Option<IpAddr>, Option<u16>);

/// A datagram on its way to the prober: time of arrival, a number for the order, socket, and source.
type Arrival = (Instant, u64, usize, SocketAddr, Vec<u8>);

struct World {
    model: Model,
    servers: Vec<SocketAddr>,
    /// True if the servers know RFC 5780.
    knows_behavior: bool,
    /// True if the servers have two ports at one address, as roots do.
    has_two_ports: bool,
    /// True if the server's other endpoints never answer.
    is_rest_dead: bool,
    /// True if the server answers from the endpoint that was asked, ignoring change requests.
    ignores_change: bool,
    /// The prefix if the prober has IPv6 only, and the box is a NAT64.
    nat64: Option<Nat64Prefix>,
    mappings: BTreeMap<Key, u16>,
    /// The destinations to which each mapped port has sent.
    sent: Vec<(u16, SocketAddr)>,
    last: (u16, u16),
    rng: ChaCha20Rng,
    under_way: BinaryHeap<Reverse<Arrival>>,
    number: u64,
}

impl World {
    fn new(model: Model, seed: u8) -> Self {
        Self {
            model,
            servers: vec![at(SERVER)],
            knows_behavior: true,
            has_two_ports: false,
            is_rest_dead: false,
            ignores_change: false,
            nat64: None,
            mappings: BTreeMap::new(),
            sent: Vec::new(),
            last: (20_000, 0),
            rng: ChaCha20Rng::from_seed([seed; 32]),
            under_way: BinaryHeap::new(),
            number: 0,
        }
    }

    /// Runs a probe to its end. Also returns its duration.
    fn probe(mut self) -> (Nat, Duration) {
        let host = at(if self.nat64.is_some() { "[2001:db8:1::2]:0" } else { "192.168.1.2:0" }).ip();
        let local: Vec<SocketAddr> = [50_123, 41_007, 7_777, 40_000, 40_001, 40_002, 9_100, 33_333, 51_777]
            .map(|port| SocketAddr::new(host, port))
            .to_vec();
        let settings = Settings { nat64: self.nat64, ..Settings::new(self.servers.clone()) };
        let start = Instant::now();
        let mut now = start;
        let mut prober = Prober::new(local.clone(), &settings, [9; 32], now);
        while !prober.is_finished() {
            while let Some(transmit) = prober.poll_transmit() {
                self.outgoing(now, local[transmit.socket], &transmit, &local);
            }
            let timeout = prober.poll_timeout().expect("it is not finished");
            match self.under_way.peek() {
                Some(Reverse((due, ..))) if *due <= timeout => {
                    let Reverse((due, _, socket, from, data)) = self.under_way.pop().expect("it was seen");
                    now = due;
                    prober.handle_datagram(now, socket, from, &data);
                }
                _ => {
                    assert!(timeout >= now, "time goes on");
                    now = timeout;
                    prober.handle_timeout(now);
                }
            }
        }
        assert_eq!(prober.poll_timeout(), None);
        (prober.into_observations().decide(), now - start)
    }

    fn outgoing(&mut self, now: Instant, from: SocketAddr, transmit: &Transmit, local: &[SocketAddr]) {
        if self.model.blocked || self.is_lost() {
            return;
        }
        let port = self.map(from, transmit.to);
        self.sent.push((port, transmit.to));
        let outside: IpAddr = OUTSIDE.parse().expect("an address");
        let mapped = SocketAddr::new(if self.model.mapping.is_some() { outside } else { from.ip() }, port);
        if transmit.to.ip() == outside {
            if self.model.hairpin {
                self.incoming(now, mapped, transmit.to.port(), transmit.data.clone(), local, true);
            }
            return;
        }
        let request = stun_types::message::Message::from_bytes(&transmit.data).expect("it is STUN");
        let flags = request
            .raw_attribute(stun_types::attribute::AttributeType::new(3))
            .map_or(0, |change| change.value[3]);
        let (asked, other) = (at(SERVER), at(OTHER));
        let other_port = other;
        let swap = |this: SocketAddr, ip: bool, port: bool| {
            let ip = if ip ^ (this.ip() == other.ip()) { other.ip() } else { asked.ip() };
            let port = if port ^ (this.port() == other.port()) { other.port() } else { asked.port() };
            SocketAddr::new(ip, port)
        };
        let is_main = self.servers.contains(&transmit.to);
        if !is_main && self.is_rest_dead {
            return;
        }
        let mut origin = transmit.to;
        if self.knows_behavior && !self.ignores_change {
            origin = swap(transmit.to, flags & 4 != 0, flags & 2 != 0);
            if self.is_rest_dead && origin != transmit.to {
                return;
            }
        }
        if self.has_two_ports && !self.knows_behavior && flags & 2 != 0 {
            origin = swap(transmit.to, false, true);
        }
        let other = self.knows_behavior.then(|| swap(transmit.to, true, true));
        let second_port = (self.has_two_ports && is_main).then(|| other_port.port());
        let id = request_id(&transmit.data).expect("it is a request");
        let answer = Answer { id, mapped, origin: other.map(|_| origin), other, second_port };
        self.incoming(now, origin, port, answer.emit(), local, false);
    }

    /// Handles a datagram that arrives at a mapped port.
    fn incoming(
        &mut self,
        now: Instant,
        from: SocketAddr,
        port: u16,
        data: Vec<u8>,
        local: &[SocketAddr],
        hairpin: bool,
    ) {
        if self.is_lost() {
            return;
        }
        let sent = || self.sent.iter().filter(|(mapped, _)| *mapped == port).map(|(_, to)| to);
        let passes = hairpin
            || match self.model.filtering {
                Filtering::EndpointIndependent => true,
                Filtering::AddressDependent => sent().any(|to| to.ip() == from.ip()),
                Filtering::AddressAndPortDependent => sent().any(|to| *to == from),
            };
        let inside = self.mappings.iter().find(|(_, mapped)| **mapped == port).map(|(key, _)| key.0);
        if let (true, Some(inside)) = (passes, inside) {
            let socket = local.iter().position(|own| *own == inside).expect("it is one of ours");
            self.number += 1;
            let due = now + Duration::from_millis(20);
            self.under_way.push(Reverse((due, self.number, socket, from, data)));
        }
    }

    fn map(&mut self, from: SocketAddr, to: SocketAddr) -> u16 {
        let key = match self.model.mapping {
            None | Some(Mapping::EndpointIndependent) => (from, None, None),
            Some(Mapping::AddressDependent) => (from, Some(to.ip()), None),
            Some(Mapping::AddressAndPortDependent) => (from, Some(to.ip()), Some(to.port())),
        };
        if let Some(port) = self.mappings.get(&key) {
            return *port;
        }
        let (last, last_local) = self.last;
        let free = |port: u16| !self.mappings.values().any(|taken| *taken == port);
        let wanted = match self.model.delta {
            _ if self.model.mapping.is_none() => from.port(),
            DeltaKind::Equal => from.port(),
            DeltaKind::Preserving => from.port().wrapping_add(1_234),
            DeltaKind::Independent => last.wrapping_add(3),
            DeltaKind::Dependent if from.port().wrapping_sub(last_local) == 1 => last.wrapping_add(3),
            DeltaKind::Dependent | DeltaKind::Random => 0,
        };
        let is_chosen = wanted != 0 && free(wanted);
        let mut port = wanted;
        while !is_chosen && (port == 0 || !free(port)) {
            port = 1_024 + u16::try_from(self.rng.next_u32() >> 16).expect("16 bits") % 60_000;
        }
        self.last = (port, from.port());
        self.mappings.insert(key, port);
        port
    }

    fn is_lost(&mut self) -> bool {
        self.rng.next_u32() >> 24 < u32::from(self.model.loss)
    }
}

#[test]
fn every_kind_of_nat_is_recognised() {
    use DeltaKind::{Dependent, Equal, Independent, Preserving, Random};
    let mappings =
        [Mapping::EndpointIndependent, Mapping::AddressDependent, Mapping::AddressAndPortDependent];
    let filters =
        [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent];
    for mapping in mappings {
        for filtering in filters {
            for delta in [Equal, Preserving, Independent, Dependent, Random] {
                for hairpin in [false, true] {
                    for seed in 0..10 {
                        let model = Model { mapping: Some(mapping), filtering, delta, hairpin, ..EASY };
                        let (nat, took) = World::new(model, seed).probe();
                        let seen =
                            (nat.mapping, nat.filtering, nat.delta.map(|delta| delta.kind), nat.hairpin);
                        let expected = (Some(mapping), Some(filtering), Some(delta), Some(hairpin));
                        assert_eq!(seen, expected, "{model:?}, seed {seed}");
                        assert_eq!((nat.udp, nat.translated), (Some(true), Some(true)));
                        assert_eq!(nat.rtt, Some(Duration::from_millis(20)));
                        assert!(took < Duration::from_millis(1700), "{took:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_value_of_a_delta_is_found() {
    for (kind, value) in
        [(DeltaKind::Preserving, 1_234), (DeltaKind::Independent, 3), (DeltaKind::Dependent, 3)]
    {
        let (nat, _) = World::new(Model { delta: kind, ..EASY }, 1).probe();
        assert_eq!(nat.delta.map(|delta| (delta.kind, delta.value)), Some((kind, value)));
    }
}

#[test]
fn a_firewall_without_nat_and_no_firewall_are_told_apart() {
    let none = Model { mapping: None, ..EASY };
    assert_eq!(World::new(none, 1).probe().0.kind(), Some(NatKind::Open));
    let firewall = Model { filtering: Filtering::AddressAndPortDependent, ..none };
    assert_eq!(World::new(firewall, 1).probe().0.kind(), Some(NatKind::Firewall));
}

#[test]
fn blocked_udp_is_seen_in_time() {
    let (nat, took) = World::new(Model { blocked: true, ..EASY }, 1).probe();
    assert_eq!(nat.kind(), Some(NatKind::Filtered));
    assert!(took <= Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_tenth_of_all_datagrams_lost_does_not_hide_the_mapping() {
    for mapping in [Mapping::EndpointIndependent, Mapping::AddressAndPortDependent] {
        for seed in 0..=u8::MAX {
            let model = Model { mapping: Some(mapping), loss: 26, ..EASY };
            let (nat, _) = World::new(model, seed).probe();
            assert_eq!(nat.mapping, Some(mapping), "seed {seed}: {nat:?}");
        }
    }
}

#[test]
fn without_rfc_5780_only_the_filter_stays_unknown() {
    for mapping in [Mapping::EndpointIndependent, Mapping::AddressAndPortDependent] {
        let mut world = World::new(Model { mapping: Some(mapping), hairpin: true, ..EASY }, 3);
        world.knows_behavior = false;
        world.servers = vec![at(SERVER), at("198.51.100.7:3478")];
        let (nat, took) = world.probe();
        assert_eq!((nat.mapping, nat.filtering, nat.hairpin), (Some(mapping), None, Some(true)));
        assert!(took < Duration::from_millis(200), "nothing is waited for: {took:?}");
    }
}

#[test]
fn one_root_with_two_ports_tells_the_kind() {
    use Filtering::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
    let both = Mapping::AddressAndPortDependent;
    for (mapping, filtering, kind) in [
        (Some(Mapping::EndpointIndependent), AddressAndPortDependent, Some(NatKind::RestrictPort)),
        (Some(both), AddressAndPortDependent, Some(NatKind::Symmetric)),
        (Some(both), EndpointIndependent, Some(NatKind::Symmetric)),
        (None, AddressAndPortDependent, Some(NatKind::Firewall)),
        // Only a second address could tell them apart.
        (Some(Mapping::EndpointIndependent), AddressDependent, None),
        (Some(Mapping::EndpointIndependent), EndpointIndependent, None),
    ] {
        let mut world = World::new(Model { mapping, filtering, ..EASY }, 5);
        (world.knows_behavior, world.has_two_ports) = (false, true);
        let (nat, took) = world.probe();
        assert_eq!(nat.kind(), kind, "{mapping:?} {filtering} {nat:?}");
        assert_eq!(nat.mapping, mapping.or(Some(Mapping::EndpointIndependent)));
        assert!(took < Duration::from_millis(1700), "{took:?}");
    }
}

#[test]
fn a_second_port_behind_a_firewall_costs_little_and_tells_nothing() {
    let mut world = World::new(Model { filtering: Filtering::AddressAndPortDependent, ..EASY }, 5);
    (world.knows_behavior, world.has_two_ports, world.is_rest_dead) = (false, true, true);
    let (nat, took) = world.probe();
    assert_eq!((nat.mapping, nat.filtering, nat.kind()), (None, None, None));
    assert!(took < Duration::from_millis(1700), "{took:?}");
}

#[test]
fn a_server_with_rfc_5780_tells_more_than_a_root_that_has_answered_before() {
    let filtering = Filtering::EndpointIndependent;
    let mut world = World::new(Model { filtering, ..EASY }, 5);
    world.has_two_ports = true;
    let (nat, _) = world.probe();
    assert_eq!((nat.filtering, nat.kind()), (Some(filtering), Some(NatKind::FullCone)));
    // The root's two answers arrive before the first one of the other server.
    let settings = Settings::new(vec![at("192.0.2.7:1"), at(SERVER)]);
    let local: Vec<_> = (1..=9).map(|port| SocketAddr::from(([192, 168, 1, 2], port))).collect();
    let now = Instant::now();
    let mut prober = Prober::new(local, &settings, [9; 32], now);
    let sent = |prober: &mut Prober| std::iter::from_fn(|| prober.poll_transmit()).collect::<Vec<_>>();
    let answer = |sent: &Transmit, other: Option<&str>, second_port| {
        let id = request_id(&sent.data).expect("a request");
        Answer { id, mapped: at("203.0.113.1:7"), origin: None, other: other.map(at), second_port }.emit()
    };
    let first = sent(&mut prober);
    let [root, server] = ["192.0.2.7:1", SERVER]
        .map(|to| first.iter().find(|one| one.to == at(to)).expect("it is asked").clone());
    prober.handle_datagram(now, MAIN, root.to, &answer(&root, None, Some(2)));
    let second = sent(&mut prober).into_iter().find(|one| one.to == at("192.0.2.7:2")).expect("it is asked");
    prober.handle_datagram(now, MAIN, second.to, &answer(&second, None, None));
    assert!(sent(&mut prober).iter().any(|one| (one.socket, one.to) == (FILTER, root.to)));
    prober.handle_datagram(now, MAIN, server.to, &answer(&server, Some(OTHER), None));
    assert!(sent(&mut prober).iter().any(|one| (one.socket, one.to) == (FILTER, server.to)));
}

#[test]
fn a_server_that_ignores_what_it_is_asked_for_does_not_tell_the_filter() {
    for filtering in [Filtering::EndpointIndependent, Filtering::AddressAndPortDependent] {
        let mut world = World::new(Model { filtering, ..EASY }, 1);
        world.ignores_change = true;
        assert_eq!(world.probe().0.filtering, None, "{filtering}");
    }
}

#[test]
fn a_server_whose_other_address_is_dead_does_not_tell_the_filter() {
    let mut world = World::new(Model { filtering: Filtering::AddressAndPortDependent, ..EASY }, 1);
    world.is_rest_dead = true;
    assert_eq!(world.probe().0.filtering, None);
}

#[test]
fn servers_of_the_other_family_are_not_asked() {
    let mut world = World::new(EASY, 1);
    world.servers = vec![at("[2001:db8::1]:3478")];
    let (nat, took) = world.probe();
    assert_eq!((nat.udp, took), (None, Duration::ZERO));
}

#[test]
fn a_nat64_is_probed_from_ipv6_as_a_nat_is_from_ipv4() {
    let prefix = Nat64Prefix::new("64:ff9b::".parse().expect("an address"), 96);
    let both = [Mapping::EndpointIndependent, Mapping::AddressAndPortDependent];
    let filters =
        [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent];
    for mapping in both {
        for filtering in filters {
            let model = Model { mapping: Some(mapping), filtering, hairpin: true, ..EASY };
            let probe = |nat64| World { nat64, ..World::new(model, 1) }.probe().0;
            let nat = probe(prefix);
            assert_eq!((nat.translated, nat.mapping), (Some(true), Some(mapping)), "{nat:?}");
            assert_eq!(nat.mapped.map(|mapped| mapped.ip().to_string()).as_deref(), Some(OUTSIDE));
            assert_eq!(nat, probe(None), "but for the way there it is the same");
        }
    }
    // The NAT64 translates neither IPv6 nor addresses that are meaningful in one network only.
    for server in ["[2001:db8::1]:3478", "10.0.0.1:3478"] {
        let world = World { nat64: prefix, servers: vec![at(server)], ..World::new(EASY, 1) };
        assert_eq!(world.probe().0.udp, None, "{server}");
    }
}

#[test]
fn who_wants_the_address_only_waits_for_one_answer() {
    let local = vec![at("192.168.1.2:1"), at("192.168.1.2:2"), at("192.168.1.2:3")];
    let servers = vec![at(SERVER), at(OTHER)];
    let now = Instant::now();
    let settings = Settings { address_only: true, ..Settings::new(servers) };
    let mut prober = Prober::new(local, &settings, [1; 32], now);
    let request = prober.poll_transmit().expect("it asks");
    let id = request_id(&request.data).expect("it is a request");
    let answer =
        Answer { id, mapped: at("203.0.113.1:7"), origin: None, other: Some(at(OTHER)), second_port: None };
    prober.handle_datagram(now, request.socket, request.to, &answer.emit());
    assert!(prober.is_finished());
    assert_eq!(prober.into_observations().decide().mapped, Some(at("203.0.113.1:7")));
}

/// Runs a probe in which only the server answers. It names another endpoint, and the mapped endpoint.
fn sent_to_others(other: &str, mapped: &str) -> BTreeMap<SocketAddr, usize> {
    let local: Vec<_> = (1..6).map(|port| SocketAddr::from(([192, 168, 1, 2], port))).collect();
    let mut now = Instant::now();
    let mut prober = Prober::new(local, &Settings::new(vec![at(SERVER)]), [1; 32], now);
    let mut sent = BTreeMap::new();
    while !prober.is_finished() {
        while let Some(request) = prober.poll_transmit() {
            *sent.entry(request.to).or_default() += request.data.len();
            let id = request_id(&request.data).expect("it is a request");
            if request.to == at(SERVER) {
                let answer = Answer {
                    id,
                    mapped: at(mapped),
                    origin: None,
                    other: Some(at(other)),
                    second_port: None,
                };
                prober.handle_datagram(now, request.socket, request.to, &answer.emit());
            }
        }
        now = prober.poll_timeout().unwrap_or(now);
        prober.handle_timeout(now);
    }
    sent.remove(&at(SERVER));
    sent
}

#[test]
fn a_server_aims_no_probes_at_networks_that_it_does_not_reach() {
    let nowhere = ["127.0.0.1:22", "192.168.1.1:80", "169.254.169.254:80", "224.0.0.251:5353", "10.0.0.1:0"];
    for named in nowhere {
        assert_eq!(sent_to_others(named, named), BTreeMap::new(), "{named}");
    }
}

#[test]
fn whom_a_server_names_gets_three_requests() {
    let sent = sent_to_others("198.51.100.7:22", "198.51.100.7:80");
    let request = binding_request(TransactionId::new(1), AnswerFrom::Same).len();
    let expected =
        [("198.51.100.7:22", 3), ("198.51.100.7:3478", 3), ("198.51.100.7:80", 3), ("192.0.2.10:22", 7)];
    assert_eq!(sent, expected.map(|(to, count)| (at(to), count * request)).into_iter().collect());
}

#[test]
fn no_more_servers_are_asked_than_allowed() {
    let servers = (0..50).map(|port| SocketAddr::from(([192, 0, 2, 1], 1000 + port))).collect();
    let local = vec![at("192.168.1.2:1"), at("192.168.1.2:2"), at("192.168.1.2:3")];
    let mut prober = Prober::new(local, &Settings::new(servers), [1; 32], Instant::now());
    let sent = std::iter::from_fn(|| prober.poll_transmit()).count();
    assert_eq!(sent, MAX_SERVERS);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn loss_hides_things_but_never_turns_the_mapping_round(seed: u8, loss in 0..128u8, symmetric: bool) {
        let dependent = Mapping::AddressAndPortDependent;
        let mapping = if symmetric { dependent } else { Mapping::EndpointIndependent };
        let (nat, took) = World::new(Model { mapping: Some(mapping), loss, ..EASY }, seed).probe();
        prop_assert!(took <= Duration::from_secs(4));
        if let Some(found) = nat.mapping {
            prop_assert_eq!(found == Mapping::EndpointIndependent, !symmetric);
        }
    }

    #[test]
    fn strangers_datagrams_change_nothing(
        data in proptest::collection::vec(any::<u8>(), 0..200),
        mapped: [u8; 4],
        id: u128,
        socket in 0..3usize,
    ) {
        let local = vec![at("192.168.1.2:1"), at("192.168.1.2:2"), at("192.168.1.2:3")];
        let now = Instant::now();
        let settings = Settings::new(vec![at(SERVER)]);
        let before = Prober::new(local.clone(), &settings, [1; 32], now).into_observations();
        let mut prober = Prober::new(local, &settings, [1; 32], now);
        let (id, other) = (TransactionId::new(id), Some(at(OTHER)));
        let forged = Answer { id, mapped: (mapped, 9).into(), origin: None, other, second_port: None };
        prober.handle_datagram(now, socket, at(SERVER), &data);
        prober.handle_datagram(now, socket, at(SERVER), &forged.emit());
        prop_assert_eq!(prober.into_observations(), before);
    }
}
