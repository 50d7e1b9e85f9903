//! A few nodes on one LAN, for tests.

use std::time::Duration;

use peersock_overlay::{Contact, NetworkConfig, NetworkId};
use peersock_sim::net::{HostId, LanId, Pipe, Prefixes, Stage};
use peersock_sim::{Limits, MachineConfig, NodeConfig, Plan, Random, Trace, World};

/// Port of the programs.
pub(crate) const PORT: u16 = 2000;

/// Nodes 0, 1, 2, … with the addresses 192.0.2.1, .2, .3, …, all in the same networks.
pub(crate) struct Lab {
    pub(crate) world: World,
    pub(crate) lan: LanId,
    pub(crate) hosts: Vec<HostId>,
    pub(crate) networks: Vec<NetworkConfig>,
}

impl Lab {
    pub(crate) fn new(nodes: u8, networks: &[NetworkConfig]) -> Self {
        let mut random = Random::from_seed(1);
        let mut world = World::new(
            random.fork(),
            Trace::new(std::env::var_os("PEERSOCK_SIM_TRACE").is_some()),
            Limits::default(),
        );
        let lan = world.net.add_lan(Prefixes { ipv4: Some([192, 0, 2, 0].into()), ipv6: None });
        let mut hosts = Vec::new();
        for number in 1..=nodes {
            let host = world.net.add_host();
            let address = [192, 0, 2, number].into();
            world.net.attach(host, lan, Some(address), None, wire(), wire());
            hosts.push(host);
            let machine = world.add_machine(MachineConfig {
                host,
                port: 4000,
                node: node_config(number),
                clock: Duration::from_secs(1_800_000_000),
                networks: networks.iter().map(|network| (network.clone(), vec![PORT])).collect(),
                roots: Vec::new(),
                contact: Contact::default(),
            });
            world.start(machine).expect("a start");
        }
        Self { world, lan, hosts, networks: networks.to_vec() }
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.world.now() + time;
        self.world.run_until(end).expect("no violation");
    }

    pub(crate) fn greeting(&self, client: usize, server: usize) -> Plan {
        Plan::greeting(self.networks[0].id(), (client, server), PORT)
    }
}

pub(crate) fn node_config(identity: u8) -> NodeConfig {
    NodeConfig::usual([identity; 32])
}

pub(crate) fn open_network() -> NetworkConfig {
    NetworkConfig::AdHoc { id: NetworkId::ad_hoc(1000..=3000).expect("a range"), psk: None }
}

/// Makes a link with 100 Mbit/s and half a millisecond of delay.
pub(crate) fn wire() -> Pipe {
    Pipe::new([
        Stage::Mtu(1500),
        Stage::Rate { bytes_per_second: 12_500_000, queue: 500_000 },
        Stage::Delay { base: Duration::from_micros(500), jitter: Duration::from_micros(50) },
    ])
}
