//! Many peers of one node: all at once, and after the node was paused.

use std::sync::Arc;
use std::time::Duration;

use peersock_overlay::{Contact, Exit, Identity, NetworkConfig, NetworkId, StaticMember, StaticNetwork};
use peersock_sim::net::{Gateway, Pipe, Prefixes, Stage};
use peersock_sim::{
    Limits, MachineConfig, NodeConfig, Plan, Processor, Random, Reader, Script, Share, Step, Time, Trace,
    World,
};

use crate::SECOND;
use crate::lab::{PORT, wire};

/// Node 0 is the hub, on a separate LAN. The others know its endpoint, and it knows none of theirs.
struct Crowd {
    world: World,
    network: NetworkId,
    peers: usize,
}

/// Number of peers in one IPv4 /24.
const NEIGHBOURS: usize = 200;

impl Crowd {
    fn new(peers: usize) -> Self {
        let mut random = Random::from_seed(1);
        let limits = Limits { events_per_second: u64::MAX, ..Limits::default() };
        let trace = Trace::new(std::env::var_os("PEERSOCK_SIM_TRACE").is_some());
        let mut world = World::new(random.fork(), trace, limits);
        let network = NetworkId::new(0xfe << 56 | 1).expect("an ID");
        let member = |number: usize| StaticMember {
            identity: *Identity::from_seed(&seed(number)).public(),
            name: None,
            addresses: Vec::new(),
            endpoints: if number == 0 { vec![([192, 0, 2, 1], 4000).into()] } else { Vec::new() },
            routes: Vec::new(),
            exit: Exit::default(),
        };
        let members: Vec<_> = (0..=peers).map(member).collect();
        let listed = |members| {
            NetworkConfig::Static(StaticNetwork {
                id: network,
                psk: None,
                members,
                exit: None,
                program: None,
            })
        };
        let mut lans = Vec::new();
        for number in 0..=peers {
            let place = number.div_ceil(NEIGHBOURS) as u8;
            if usize::from(place) == lans.len() {
                let lan = world.net.add_lan(Prefixes { ipv4: Some([192, place, 2, 0].into()), ipv6: None });
                let way = || Pipe::new([Stage::Mtu(1500), Stage::Delay { base: WAY, jitter: WAY / 10 }]);
                world.net.set_gateway(lan, Some(Gateway { out: way(), into: way(), ..Gateway::default() }));
                world.net.isolate(lan);
                lans.push(lan);
            }
            let last = if number == 0 { 1 } else { (number - 1) % NEIGHBOURS + 1 } as u8;
            let host = world.net.add_host();
            let address = [192, place, 2, last].into();
            world.net.attach(host, lans[usize::from(place)], Some(address), None, wire(), wire());
            let own = match number {
                0 => members.clone(),
                _ => vec![members[0].clone(), members[number].clone()],
            };
            world.add_machine(MachineConfig {
                host,
                port: 4000,
                node: NodeConfig {
                    receive_buffer: 2 * 212_992,
                    backlog: 4096,
                    ..NodeConfig::usual(seed(number))
                },
                clock: Duration::from_secs(1_800_000_000),
                networks: vec![(listed(own), if number == 0 { vec![PORT] } else { Vec::new() })],
                roots: Vec::new(),
                contact: Contact::default(),
            });
        }
        for number in 0..=peers {
            world.set_processor(number, Processor::USUAL);
            world.start(number).expect("a start");
        }
        Self { world, network, peers }
    }

    fn run(&mut self, time: Duration) {
        let end = self.world.now() + time;
        self.world.run_until(end).expect("no violation");
    }

    /// Connects every peer now. Each sends a kilobyte a second for `seconds` seconds.
    fn connect_all(&mut self, seconds: usize) {
        for client in 1..=self.peers {
            let write = [Step::Write(1000), Step::Pause(SECOND)].repeat(seconds);
            let scripts = [Script(write), Script::default()];
            let greeting = Plan::greeting(self.network, (client, 0), PORT);
            let plan = Plan { scripts, readers: [Reader::EAGER; 2], ..greeting };
            self.world.converse(Arc::new(plan)).expect("an attempt");
        }
    }

    /// Returns the share of a second's data that arrives in the next second.
    fn share_of_a_second(&mut self) -> f64 {
        let before = self.world.ledger.bytes_checked;
        self.run(SECOND);
        (self.world.ledger.bytes_checked - before) as f64 / (self.peers * 1000) as f64
    }
}

/// One-way delay through the core, half of it at each end.
const WAY: Duration = Duration::from_millis(5);

fn seed(number: usize) -> [u8; 32] {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
    seed
}

#[test]
fn five_thousand_peers_that_start_together_are_connected_within_ten_seconds() {
    let mut crowd = Crowd::new(5000);
    crowd.connect_all(1);
    let begun: Time = crowd.world.now();
    while crowd.world.ledger.bytes_checked < 5_000_000 {
        crowd.run(SECOND / 10);
        let took = crowd.world.now() - begun;
        let came = crowd.world.ledger.bytes_checked;
        assert!(took <= 10 * SECOND, "{} of 5000 after 10 s", came / 1000);
    }
    eprintln!("all after {:?}", crowd.world.now() - begun);
}

#[test]
fn a_node_with_many_peers_that_stood_still_is_whole_again_within_three_seconds() {
    let mut crowd = Crowd::new(1800);
    crowd.connect_all(60);
    crowd.run(15 * SECOND);
    let before = crowd.world.counters(0)["handshake_x25519"];
    crowd.world.pause(0, 4 * SECOND);
    crowd.run(4 * SECOND);
    let shares: Vec<_> = (0..10).map(|_| crowd.share_of_a_second()).collect();
    let spent = crowd.world.counters(0)["handshake_x25519"] - before;
    eprintln!("{shares:.2?} and {spent} X25519 operations");
    assert!(shares[2..].iter().all(|share| *share >= 0.95), "{shares:.2?}");
}

/// Other processes leave the node a twelfth of its processor, ten of them on each.
#[test]
fn a_node_with_many_peers_on_a_busy_machine_is_whole_again_within_three_seconds() {
    let mut crowd = Crowd::new(1800);
    crowd.connect_all(60);
    crowd.run(15 * SECOND);
    let before = crowd.world.counters(0)["handshake_x25519"];
    let share = Share { slice: Duration::from_millis(5), period: Duration::from_millis(60) };
    crowd.world.crowd_out(0, 6 * SECOND, share);
    let busy: Vec<_> = (0..6).map(|_| crowd.share_of_a_second()).collect();
    let shares: Vec<_> = (0..10).map(|_| crowd.share_of_a_second()).collect();
    let spent = crowd.world.counters(0)["handshake_x25519"] - before;
    eprintln!("{busy:.2?}, then {shares:.2?} and {spent} X25519 operations");
    assert!(shares[2..].iter().all(|share| *share >= 0.95), "{shares:.2?}");
}
