//! An adversary on a separate host: a network member who sends any message from any address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use peersock_overlay::{Identity, NetworkConfig, PublicIdentity};
use peersock_testnet::{Adversary, Credit};

use super::{Event, Violation, World};
use crate::Random;
use crate::net::{HostId, LanId};

/// Place and target of the adversary.
#[derive(Debug, Clone)]
pub struct IntruderConfig {
    /// The adversary's host, on which no node runs.
    pub host: HostId,
    /// The LAN of the host. The adversary attacks the nodes there.
    pub lan: LanId,
    /// The network that the adversary is a member of, which is not static.
    pub network: NetworkConfig,
    /// Mean time between two of the adversary's messages.
    pub interval: Duration,
}

/// The adversary in a world.
pub(super) struct Intruder {
    config: IntruderConfig,
    identity: Arc<Identity>,
    /// The adversary's state towards each node.
    faces: BTreeMap<usize, Adversary>,
    /// Bytes each node may still send to forged addresses.
    pub(super) credit: BTreeMap<usize, Credit>,
    active: bool,
    messages: u64,
    random: Random,
}

impl World {
    /// Starts an adversary.
    pub fn admit(&mut self, config: IntruderConfig) {
        let mut random = self.random.fork();
        let identity = Arc::new(Identity::from_seed(&random.bytes()));
        self.trace.note(self.now, format_args!("an adversary comes to {:?}", config.lan), &[]);
        self.intruder = Some(Intruder {
            config,
            identity,
            faces: BTreeMap::new(),
            credit: BTreeMap::new(),
            active: true,
            messages: 0,
            random,
        });
        self.queue.push(self.now, Event::Intrude);
    }

    /// Stops the adversary's messages. The nodes stay responsible for reactions to the earlier ones.
    pub fn calm_intruder(&mut self) {
        if let Some(intruder) = &mut self.intruder {
            intruder.active = false;
        }
    }

    /// Returns the number of messages that an adversary has sent.
    pub fn intrusions(&self) -> u64 {
        self.intruder.as_ref().map_or(0, |intruder| intruder.messages)
    }

    /// Sends one of the adversary's messages and schedules the next one.
    pub(super) fn intrude(&mut self) {
        let Some(mut intruder) = self.intruder.take() else { return };
        if intruder.active {
            if let Some((from, to, payload)) = self.think(&mut intruder) {
                intruder.messages += 1;
                let what = super::describe(&payload);
                let note = format_args!("the adversary sends {what} to {to} from {from}");
                self.trace.note(self.now, note, &payload);
                self.net.inject(self.now, intruder.config.lan, from, to, payload);
            }
            let pause = intruder.random.duration(Duration::ZERO..=intruder.config.interval * 2);
            self.queue.push(self.now + pause, Event::Intrude);
        }
        self.intruder = Some(intruder);
    }

    /// Returns the adversary's next datagram, with source and destination.
    fn think(&self, intruder: &mut Intruder) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
        let IntruderConfig { host, lan, network, .. } = &intruder.config;
        let there: Vec<(usize, SocketAddr)> = (0..self.machines.len())
            .filter(|&number| self.machines[number].is_in(network.id()))
            .flat_map(|number| self.endpoints_on(number, *lan).into_iter().map(move |at| (number, at)))
            .collect();
        if there.is_empty() {
            return None;
        }
        let &(target, to) = intruder.random.pick(&there);
        let keys = |number: usize| -> PublicIdentity {
            *Identity::from_seed(&self.machines[number].config.node.identity).public()
        };
        let face = intruder.faces.entry(target).or_insert_with(|| {
            let random = intruder.random.fork();
            Adversary::new(intruder.identity.clone(), network, keys(target), CLOCK, random)
        });
        if *face.target() != keys(target) {
            let random = intruder.random.fork();
            *face = Adversary::new(intruder.identity.clone(), network, keys(target), CLOCK, random);
        }
        let victim = victim(to.is_ipv4(), intruder.random.below(4) as u8);
        let (other, other_at) = *intruder.random.pick(&there);
        let message = face.improvise(self.instant(), &[keys(other)], victim)?;
        let home = self.net.attachments(*host).first()?.address_for(&to)?;
        let from = match intruder.random.below(3) {
            0 => SocketAddr::new(home, PORT),
            1 if other_at.is_ipv4() == to.is_ipv4() => other_at,
            _ => victim,
        };
        Some((from, to, message))
    }

    /// Returns a node's endpoints on one LAN.
    fn endpoints_on(&self, number: usize, lan: LanId) -> Vec<SocketAddr> {
        let config = &self.machines[number].config;
        let cards = self.net.attachments(config.host);
        let card = cards.into_iter().find(|card| card.lan == lan);
        let addresses = card
            .into_iter()
            .flat_map(|card| card.ipv4.map(IpAddr::V4).into_iter().chain(card.ipv6.map(IpAddr::V6)));
        addresses.map(|address| SocketAddr::new(address, config.port)).collect()
    }

    /// Checks that no path leads to an address that never received anything, or from an honest node to the
    /// adversary.
    pub(super) fn check_paths(&self) -> Result<(), Violation> {
        let Some(intruder) = &self.intruder else { return Ok(()) };
        let own = intruder.identity.node_id();
        let homes: Vec<IpAddr> = self
            .net
            .attachments(intruder.config.host)
            .into_iter()
            .flat_map(|card| card.ipv4.map(IpAddr::V4).into_iter().chain(card.ipv6.map(IpAddr::V6)))
            .collect();
        for (number, machine) in self.machines.iter().enumerate() {
            let peers = machine.node().map(|node| node.datapath().peers()).unwrap_or_default();
            for info in peers {
                let Some(path) = info.path else { continue };
                let astray = *info.peer.id() != own && homes.contains(&path.remote().ip());
                if is_victim(path.remote().ip()) || astray {
                    return Err(Violation(format!(
                        "node {number} sends what is for {:?} to {}",
                        info.peer.id(),
                        path.remote()
                    )));
                }
            }
        }
        Ok(())
    }
}

impl Intruder {
    /// Records a datagram that came to the adversary's host, from that node if it is known.
    pub(super) fn hear(&mut self, node: Option<usize>, payload: &[u8]) {
        if let Some(face) = node.and_then(|node| self.faces.get_mut(&node)) {
            face.hear(payload);
        }
    }

    pub(super) fn is_at(&self, host: HostId) -> bool {
        self.config.host == host
    }

    /// Records a datagram that a node receives.
    pub(super) fn note_received(&mut self, node: usize, from: SocketAddr, bytes: usize) {
        if is_victim(from.ip()) {
            self.credit.entry(node).or_default().forge(from, bytes);
        }
    }

    /// Records a datagram that a node sends.
    pub(super) fn note_sent(&mut self, node: usize, to: SocketAddr, bytes: usize) -> Result<(), Violation> {
        let Some(credit) = self.credit.get_mut(&node) else { return Ok(()) };
        credit.spend(to, bytes).map_err(|overdrawn| Violation(format!("node {node}: {overdrawn}")))
    }
}

/// Returns an address that no host has.
fn victim(ipv4: bool, number: u8) -> SocketAddr {
    match ipv4 {
        true => SocketAddr::from((Ipv4Addr::new(198, 18, 0, number), PORT)),
        false => SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, number.into()), PORT)),
    }
}

fn is_victim(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..2] == [198, 18],
        IpAddr::V6(address) => address.segments()[..3] == [0x2001, 0xdb8, 0xffff],
    }
}

/// UDP port of the adversary and of the addresses it forges.
const PORT: u16 = 666;
/// Clock of the adversary. It is constant, because the messages' order needs no clock.
const CLOCK: Duration = Duration::from_secs(1_800_000_000);
