use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use peersock_overlay::NetworkId;
use peersock_overlay::{
    Candidate, CandidateKind, Contact, Identity, NetworkConfig, NodeId, RootConfig, SocketIndex, SocketInfo,
};
use peersock_stack::Batch;

use super::processor::Work;
use super::{Violation, World};
use crate::net::{Attachment, HostId, LanId, Pipe};
use crate::wire::Sender;
use crate::{Node, NodeConfig, Time};

/// Beacon port on every host.
pub const DISCOVERY_PORT: u16 = 7777;

/// A place where a node runs, is killed, and is restarted.
pub struct Machine {
    pub(super) config: MachineConfig,
    pub(super) node: Option<Node>,
    pub(super) starts: u32,
    /// Time of the node's next alarm.
    pub(super) alarm: Option<Time>,
    /// True if the node is about to read its sockets.
    pub(super) receives: bool,
    pub(super) work: Work,
    number: usize,
}

/// Settings that persist over restarts of a node, unless a caller changes them.
#[derive(Debug, Clone)]
pub struct MachineConfig {
    /// The node's host.
    pub host: HostId,
    /// Its UDP port.
    pub port: u16,
    /// Configuration of the node. The world sets seed and wall clock at each start.
    pub node: NodeConfig,
    /// Offset of the node's wall clock.
    pub clock: Duration,
    /// Networks joined at the start, with the ports to listen on.
    pub networks: Vec<(NetworkConfig, Vec<u16>)>,
    /// Roots used from the start on.
    pub roots: Vec<RootConfig>,
    /// Facts the driver has found out besides the cards' addresses: the box in front of the node, and the
    /// node's addresses as STUN servers see them.
    pub contact: Contact,
}

impl Machine {
    /// Returns the node, if it is running.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Returns the configuration.
    pub fn config(&self) -> &MachineConfig {
        &self.config
    }

    /// Returns the node's ID.
    pub fn node_id(&self) -> NodeId {
        Identity::from_seed(&self.config.node.identity).node_id()
    }

    /// Returns true if the node is running and in that network.
    pub fn is_in(&self, network: NetworkId) -> bool {
        self.node.as_ref().is_some_and(|node| node.network(network).is_some())
    }

    pub(super) fn sender(&self) -> Sender {
        Sender { node: self.number, start: self.starts }
    }
}

impl World {
    /// Adds a node that does not run yet, and returns its number.
    pub fn add_machine(&mut self, config: MachineConfig) -> usize {
        let number = self.machines.len();
        self.sockets.insert((config.host, config.port), number);
        self.machines.push(Machine {
            config,
            node: None,
            starts: 0,
            alarm: None,
            receives: false,
            work: Work::default(),
            number,
        });
        number
    }

    /// Changes a node's configuration for its next start.
    pub fn reconfigure(&mut self, number: usize, change: impl FnOnce(&mut MachineConfig)) {
        let before = self.machines[number].config.node.identity;
        let config = &mut self.machines[number].config;
        change(config);
        if config.node.identity != before {
            // Connections to the old address fail.
            self.ledger.disturb(number, None);
        }
    }

    /// Starts a node, which joins its networks at once.
    /// Fails if a program on the node has observed a violation.
    pub fn start(&mut self, number: usize) -> Result<(), Violation> {
        let at = self.instant();
        let seed = self.random.bytes();
        let sockets = self.socket_infos(number);
        let contact = self.contact(number);
        self.note_endpoints(number);
        let machine = &mut self.machines[number];
        machine.starts += 1;
        machine.alarm = None;
        machine.receives = false;
        machine.work = Work { processor: machine.work.processor, ..Work::default() };
        let config = &machine.config;
        let unix_time = config.clock + self.now;
        let node_config = NodeConfig { seed, unix_time, ..config.node.clone() };
        let mut node = Node::start(number, &node_config, at, sockets);
        for (network, ports) in &config.networks {
            node.join(at, network.clone(), ports).expect("scenarios have sound networks");
        }
        node.datapath().set_contact(at, contact, &mut Batch::default());
        node.datapath().set_roots(at, config.roots.clone(), &mut Batch::default());
        machine.node = Some(node);
        self.trace.note(self.now, format_args!("{number} starts"), &[]);
        self.settle(number)
    }

    /// Kills a node without notice to its peers.
    pub fn crash(&mut self, number: usize) {
        self.machines[number].node = None;
        self.end_streams_of(number);
        self.ledger.disturb(number, None);
        self.trace.note(self.now, format_args!("{number} crashes"), &[]);
    }

    /// Makes a running node join a network, now and after each restart.
    /// Fails if a program on the node has observed a violation.
    pub fn join(&mut self, number: usize, network: NetworkConfig, ports: Vec<u16>) -> Result<(), Violation> {
        let at = self.instant();
        let machine = &mut self.machines[number];
        self.trace.note(self.now, format_args!("{number} joins {}", network.id()), &[]);
        machine.config.networks.push((network.clone(), ports.clone()));
        if let Some(node) = &mut machine.node {
            node.join(at, network, &ports).expect("scenarios have sound networks");
        }
        self.settle(number)
    }

    /// Makes a node leave a network for good.
    /// Fails if a program on the node has observed a violation.
    pub fn leave(&mut self, number: usize, network: NetworkId) -> Result<(), Violation> {
        let at = self.instant();
        self.trace.note(self.now, format_args!("{number} leaves {network}"), &[]);
        self.ledger.disturb(number, Some(network));
        let machine = &mut self.machines[number];
        machine.config.networks.retain(|(config, _)| config.id() != network);
        if let Some(node) = &mut machine.node {
            node.leave(at, network);
        }
        self.settle(number)
    }

    /// Plugs a host into a LAN with these links, or changes its addresses there. The host's nodes notice.
    /// Fails if a program has observed a violation.
    pub fn attach(
        &mut self,
        host: HostId,
        lan: LanId,
        (ipv4, ipv6): (Option<Ipv4Addr>, Option<Ipv6Addr>),
        (up, down): (Pipe, Pipe),
    ) -> Result<(), Violation> {
        self.net.attach(host, lan, ipv4, ipv6, up, down);
        self.trace.note(self.now, format_args!("{host:?} gets {ipv4:?} {ipv6:?} on {lan:?}"), &[]);
        let concerned: Vec<usize> =
            (0..self.machines.len()).filter(|&number| self.machines[number].config.host == host).collect();
        concerned.into_iter().try_for_each(|number| self.refresh_sockets(number))
    }

    /// Moves a node to another UDP port, as if a NAT box had forgotten its mapping.
    /// Fails if a program has observed a violation.
    pub fn change_port(&mut self, number: usize, port: u16) -> Result<(), Violation> {
        let config = &mut self.machines[number].config;
        self.sockets.remove(&(config.host, config.port));
        config.port = port;
        self.sockets.insert((config.host, port), number);
        self.trace.note(self.now, format_args!("{number} goes on with port {port}"), &[]);
        self.refresh_sockets(number)
    }

    /// Wakes a machine that was suspended for this long, while no time passed for the others. The node
    /// handles now what is due by the clock that counts suspended time, as the driver's timer does.
    /// Fails if a program has observed a violation.
    pub fn wake_up(&mut self, number: usize, suspended: Duration) -> Result<(), Violation> {
        let at = self.instant();
        self.trace.note(self.now, format_args!("{number} was suspended for {suspended:?}"), &[]);
        if let Some(node) = &mut self.machines[number].node {
            node.datapath().note_suspended(suspended);
            node.handle_timeout(at);
        }
        self.settle(number)
    }

    /// Returns a node's endpoints on its LANs.
    pub fn endpoints(&self, number: usize) -> Vec<SocketAddr> {
        let config = &self.machines[number].config;
        let cards = self.net.attachments(config.host);
        let addresses = cards.iter().flat_map(|card| {
            card.ipv4.map(std::net::IpAddr::V4).into_iter().chain(card.ipv6.map(std::net::IpAddr::V6))
        });
        addresses.map(|address| SocketAddr::new(address, config.port)).collect()
    }

    fn refresh_sockets(&mut self, number: usize) -> Result<(), Violation> {
        let at = self.instant();
        let sockets = self.socket_infos(number);
        let contact = self.contact(number);
        self.note_endpoints(number);
        if let Some(node) = &mut self.machines[number].node {
            node.set_sockets(at, sockets);
            node.datapath().set_contact(at, contact, &mut Batch::default());
        }
        self.settle(number)
    }

    /// Returns the driver's knowledge of the node's endpoints.
    fn contact(&self, number: usize) -> Contact {
        let interface = |address| Candidate { kind: CandidateKind::Interface, address };
        let found = &self.machines[number].config.contact;
        let interfaces = self.endpoints(number).into_iter().map(interface);
        Contact::new(found.nat, found.candidates().iter().copied().chain(interfaces))
    }

    fn note_endpoints(&mut self, number: usize) {
        for endpoint in self.endpoints(number) {
            self.owners.insert(endpoint, number);
        }
    }

    /// Returns one socket per family that any card of the host has, or that a NAT64 leads to. Beacons go to
    /// the group and to each broadcast address.
    fn socket_infos(&self, number: usize) -> Vec<SocketInfo> {
        let host = self.machines[number].config.host;
        let cards = self.net.attachments(host);
        let info = |index, ipv4, beacon_targets| SocketInfo {
            index: SocketIndex(index),
            ipv4,
            loopback: false,
            max_datagram: 65_507,
            beacon_targets,
        };
        let endpoint = |address: std::net::IpAddr| SocketAddr::new(address, DISCOVERY_PORT);
        let mut infos = Vec::new();
        if cards.iter().any(|card| card.ipv4.is_some()) {
            let broadcast = |card: &Attachment| Some(Ipv4Addr::from(card.ipv4?.to_bits() | 0xff));
            let mut targets: Vec<_> =
                cards.iter().filter_map(broadcast).map(|ip| endpoint(ip.into())).collect();
            targets.push(endpoint(GROUP_V4.into()));
            infos.push(info(0, true, targets));
        } else if self.net.nat64(host).is_some() {
            infos.push(info(0, true, Vec::new()));
        }
        if cards.iter().any(|card| card.ipv6.is_some()) {
            infos.push(info(1, false, vec![endpoint(GROUP_V6.into())]));
        }
        infos
    }
}

const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 112, 115);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x7065, 0x6572);
