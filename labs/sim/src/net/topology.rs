use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use peersock_nat::nat64::Nat64Prefix;
use peersock_testnet::Queue;

use super::{Attachment, Datagram, Firewall, HostId, Nat, Passes, Pipe};
use crate::{Random, Time};

/// Identifier of a LAN of a [`Net`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LanId(pub u32);

/// The addresses of one LAN: an IPv4 /24 and an IPv6 /64, either or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefixes {
    /// The IPv4 network address, whose last byte is 0.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 network address, whose last eight bytes are 0.
    pub ipv6: Option<Ipv6Addr>,
}

/// A LAN's connection to the core, or to another LAN.
#[derive(Debug, Default)]
pub struct Gateway {
    /// The NAT box, which translates the family of its outer address. Without it, every host can reach the
    /// LAN's addresses.
    pub nat: Option<Nat>,
    /// Set if the NAT box is a NAT64. It translates the LAN's IPv6 packets to this prefix.
    pub nat64: Option<Nat64Prefix>,
    /// The filter for packets that are not translated. With a NAT box but no firewall, the other family does
    /// not pass.
    pub firewall: Option<Firewall>,
    /// The protocols that the gateway lets out of the LAN, with the answers to them.
    pub passes: Passes,
    /// The LAN that the gateway leads to, in which the NAT box has its outer address. If `None`, the core.
    pub upstream: Option<LanId>,
    /// Link from the LAN to the core.
    pub out: Pipe,
    /// Link from the core to the LAN.
    pub into: Pipe,
}

/// One direction of one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkId {
    /// From a host to its LAN's switch.
    Up(HostId, LanId),
    /// From the switch to a host.
    Down(HostId, LanId),
    /// From a LAN to the core.
    Out(LanId),
    /// From the core to a LAN.
    In(LanId),
}

/// A datagram that has arrived at a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The host.
    pub host: HostId,
    /// The datagram.
    pub datagram: Datagram,
    /// True for a group or broadcast address: every node on the host gets the datagram.
    pub multicast: bool,
}

/// Statistics of the datagrams so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetStats {
    /// Datagrams sent by hosts.
    pub sent: u64,
    /// Datagrams delivered to hosts. Multicast and duplication can make this exceed `sent`.
    pub delivered: u64,
    /// Datagrams without a host, route or mapping.
    pub unroutable: u64,
}

/// Hosts, LANs and the core between them.
///
/// ```
/// use std::time::Duration;
/// use peersock_sim::net::{Net, Pipe, Prefixes, Stage};
/// use peersock_sim::Random;
///
/// let mut net = Net::new(Random::from_seed(1));
/// let lan = net.add_lan(Prefixes { ipv4: Some([192, 0, 2, 0].into()), ipv6: None });
/// let wire = || Pipe::new([Stage::Delay { base: Duration::from_millis(1), jitter: Duration::ZERO }]);
/// let [a, b] = [1, 2].map(|number| {
///     let host = net.add_host();
///     net.attach(host, lan, Some([192, 0, 2, number].into()), None, wire(), wire());
///     host
/// });
/// net.send(Duration::ZERO, a, 4000, "192.0.2.2:4000".parse().unwrap(), b"hello".to_vec());
/// assert!(net.poll(Duration::from_millis(1)).is_empty()); // at the switch
/// assert_eq!(net.next_arrival(), Some(Duration::from_millis(2)));
/// assert_eq!(net.poll(Duration::from_millis(2))[0].host, b);
/// ```
#[derive(Debug)]
pub struct Net {
    pub(super) lans: BTreeMap<LanId, Lan>,
    pub(super) hosts: BTreeMap<HostId, Vec<Card>>,
    moving: Queue<Time, (Place, Datagram)>,
    /// Pairs of LANs (from, to) between which the core passes nothing.
    pub(super) blocked: BTreeSet<(LanId, LanId)>,
    random: Random,
    stats: NetStats,
}

#[derive(Debug)]
pub(super) struct Lan {
    pub(super) prefixes: Prefixes,
    pub(super) gateway: Option<Gateway>,
    /// True if the LAN's hosts cannot reach each other.
    is_isolated: bool,
}

#[derive(Debug)]
pub(super) struct Card {
    pub(super) attachment: Attachment,
    pub(super) up: Pipe,
    pub(super) down: Pipe,
}

/// Position of a datagram after it has passed a pipe.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// At the switch, from a host or from the gateway.
    Switch(LanId),
    /// In the core, from that LAN.
    Core(LanId),
    /// At the core's side of the gateway, behind its inbound link.
    Door(LanId),
    Host {
        host: HostId,
        multicast: bool,
    },
}

impl Net {
    /// Makes an empty network.
    pub fn new(random: Random) -> Self {
        Self {
            lans: BTreeMap::new(),
            hosts: BTreeMap::new(),
            moving: Queue::default(),
            blocked: BTreeSet::new(),
            random,
            stats: NetStats::default(),
        }
    }

    /// Adds a LAN without a gateway.
    pub fn add_lan(&mut self, prefixes: Prefixes) -> LanId {
        let id = LanId(self.lans.len() as u32);
        self.lans.insert(id, Lan { prefixes, gateway: None, is_isolated: false });
        id
    }

    /// Joins a LAN to the core, or changes its gateway.
    pub fn set_gateway(&mut self, lan: LanId, gateway: Option<Gateway>) {
        if let Some(lan) = self.lans.get_mut(&lan) {
            lan.gateway = gateway;
        }
    }

    /// Changes the protocols that a LAN's gateway passes, if it has one.
    pub fn set_passes(&mut self, lan: LanId, passes: Passes) {
        if let Some(gateway) = self.lans.get_mut(&lan).and_then(|lan| lan.gateway.as_mut()) {
            gateway.passes = passes;
        }
    }

    /// Isolates the hosts of a LAN from each other, as guest access points do. They reach only the gateway.
    pub fn isolate(&mut self, lan: LanId) {
        if let Some(lan) = self.lans.get_mut(&lan) {
            lan.is_isolated = true;
        }
    }

    /// Returns a LAN's NAT box, if it has one.
    pub fn nat_mut(&mut self, lan: LanId) -> Option<&mut Nat> {
        self.lans.get_mut(&lan)?.gateway.as_mut()?.nat.as_mut()
    }

    /// Blocks the core from passing anything from one LAN to another, or unblocks it. The core must lead to
    /// both.
    pub fn block(&mut self, from: LanId, to: LanId, blocked: bool) {
        match blocked {
            true => self.blocked.insert((from, to)),
            false => self.blocked.remove(&(from, to)),
        };
    }

    /// Returns a LAN's firewall, if it has one.
    pub fn firewall_mut(&mut self, lan: LanId) -> Option<&mut Firewall> {
        self.lans.get_mut(&lan)?.gateway.as_mut()?.firewall.as_mut()
    }

    /// Adds a host without a card.
    pub fn add_host(&mut self) -> HostId {
        let id = HostId(self.hosts.len() as u32);
        self.hosts.insert(id, Vec::new());
        id
    }

    /// Plugs a host into a LAN. If it is plugged in already, its addresses and links change.
    pub fn attach(
        &mut self,
        host: HostId,
        lan: LanId,
        ipv4: Option<Ipv4Addr>,
        ipv6: Option<Ipv6Addr>,
        up: Pipe,
        down: Pipe,
    ) {
        self.detach(host, lan);
        if let Some(cards) = self.hosts.get_mut(&host) {
            cards.push(Card { attachment: Attachment { lan, ipv4, ipv6 }, up, down });
        }
    }

    /// Unplugs a host from a LAN.
    pub fn detach(&mut self, host: HostId, lan: LanId) {
        if let Some(cards) = self.hosts.get_mut(&host) {
            cards.retain(|card| card.attachment.lan != lan);
        }
    }

    /// Returns the host's cards and their LANs.
    pub fn attachments(&self, host: HostId) -> Vec<Attachment> {
        self.hosts.get(&host).into_iter().flatten().map(|card| card.attachment).collect()
    }

    /// Returns the prefix that a host without IPv4 finds by DNS, that of its network's NAT64 (RFC 7050).
    pub fn nat64(&self, host: HostId) -> Option<Nat64Prefix> {
        let cards = self.hosts.get(&host)?;
        if cards.iter().any(|card| card.attachment.ipv4.is_some()) {
            return None;
        }
        cards.iter().find_map(|card| self.lans.get(&card.attachment.lan)?.gateway.as_ref()?.nat64)
    }

    /// Returns a link, which the caller can break or repair.
    pub fn link_mut(&mut self, link: LinkId) -> Option<&mut Pipe> {
        match link {
            LinkId::Up(host, lan) => self.card_mut(host, lan).map(|card| &mut card.up),
            LinkId::Down(host, lan) => self.card_mut(host, lan).map(|card| &mut card.down),
            LinkId::Out(lan) => self.lans.get_mut(&lan)?.gateway.as_mut().map(|gateway| &mut gateway.out),
            LinkId::In(lan) => self.lans.get_mut(&lan)?.gateway.as_mut().map(|gateway| &mut gateway.into),
        }
    }

    /// Returns the statistics of the datagrams so far.
    pub fn stats(&self) -> NetStats {
        self.stats
    }

    /// Returns the number of datagrams under way.
    pub fn in_flight(&self) -> usize {
        self.moving.len()
    }

    /// Sends a datagram from a host's port. The source address is that of the card that leads to `to`.
    pub fn send(&mut self, now: Time, host: HostId, port: u16, to: SocketAddr, payload: Vec<u8>) {
        self.stats.sent += 1;
        let Some(cards) = self.hosts.get_mut(&host) else { return };
        if to.ip().is_loopback() || cards.iter().any(|card| card.attachment.owns(to.ip())) {
            let datagram = Datagram { from: SocketAddr::new(to.ip(), port), to, payload, sent: now };
            return self
                .moving
                .push(now + LOOPBACK_DELAY, (Place::Host { host, multicast: false }, datagram));
        }
        let lans = &self.lans;
        let is_near = |card: &Card| lans[&card.attachment.lan].prefixes.contain(to.ip());
        let leads_out = |card: &Card| lans[&card.attachment.lan].gateway.is_some();
        let usable = |card: &Card| card.attachment.address_for(&to).is_some();
        let everywhere = to.ip().is_multicast();
        let near: Vec<usize> = positions(cards, |card| usable(card) && (everywhere || is_near(card)));
        let way = match near.is_empty() {
            true => positions(cards, |card| usable(card) && leads_out(card)).into_iter().take(1).collect(),
            false => near,
        };
        if way.is_empty() {
            self.stats.unroutable += 1;
        }
        for at in way {
            let card = &mut cards[at];
            let Some(address) = card.attachment.address_for(&to) else { continue };
            let from = SocketAddr::new(address, port);
            let datagram = Datagram { from, to, payload: payload.clone(), sent: now };
            let lan = card.attachment.lan;
            for (at, datagram) in card.up.pass(&mut self.random, now, datagram) {
                self.moving.push(at, (Place::Switch(lan), datagram));
            }
        }
    }

    /// Injects a datagram with any source into a LAN, as an attacker there can.
    pub fn inject(&mut self, now: Time, lan: LanId, from: SocketAddr, to: SocketAddr, payload: Vec<u8>) {
        self.moving.push(now, (Place::Switch(lan), Datagram { from, to, payload, sent: now }));
    }

    /// Returns the time of the next movement.
    pub fn next_arrival(&self) -> Option<Time> {
        self.moving.next_at()
    }

    /// Moves everything due by `now`, and returns the datagrams that reached hosts.
    pub fn poll(&mut self, now: Time) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        while let Some((at, (place, datagram))) = self.moving.pop_due(now) {
            match place {
                Place::Switch(lan) => self.at_switch(at, lan, datagram),
                Place::Core(from) => self.inwards(at, None, from, datagram),
                Place::Door(lan) => self.at_door(at, lan, datagram),
                Place::Host { host, multicast } => {
                    self.stats.delivered += 1;
                    deliveries.push(Delivery { host, datagram, multicast });
                }
            }
        }
        deliveries
    }

    fn at_switch(&mut self, at: Time, lan: LanId, datagram: Datagram) {
        let Some(place) = self.lans.get(&lan) else { return };
        let to = datagram.to.ip();
        let multicast = to.is_multicast() || place.prefixes.is_broadcast(to);
        if place.is_isolated
            && place.prefixes.contain(datagram.from.ip())
            && (multicast || place.prefixes.contain(to))
        {
            return self.stats.unroutable += 1;
        }
        let mut found = false;
        for (&host, cards) in &mut self.hosts {
            for card in cards.iter_mut().filter(|card| card.attachment.lan == lan) {
                if multicast && card.attachment.address_for(&datagram.to).is_some()
                    || card.attachment.owns(to)
                {
                    found = true;
                    for (at, datagram) in card.down.pass(&mut self.random, at, datagram.clone()) {
                        self.moving.push(at, (Place::Host { host, multicast }, datagram));
                    }
                }
            }
        }
        let leads_out = !place.prefixes.contain(to) && place.gateway.is_some();
        if found || multicast {
            self.stats.unroutable += u64::from(!found);
        } else if leads_out {
            self.at_gateway(at, lan, datagram);
        } else {
            self.inwards(at, Some(lan), lan, datagram);
        }
    }

    fn at_gateway(&mut self, at: Time, lan: LanId, mut datagram: Datagram) {
        let Some(gateway) = self.lans.get_mut(&lan).and_then(|lan| lan.gateway.as_mut()) else { return };
        if !gateway.passes.udp() {
            return self.stats.unroutable += 1;
        }
        if let Some(prefix) = gateway.nat64 {
            datagram.to = prefix.restore(datagram.to);
        }
        let translates = gateway.translates(datagram.to.ip());
        match (&mut gateway.nat, &mut gateway.firewall) {
            (Some(nat), _) if translates => {
                match nat.outbound(at, datagram.from, datagram.to) {
                    Some(outer) => datagram.from = outer,
                    None => return self.stats.unroutable += 1,
                }
                if datagram.to.ip() == nat.config().external {
                    return match nat.config().hairpinning {
                        true => self.at_door(at, lan, datagram),
                        false => self.stats.unroutable += 1,
                    };
                }
            }
            (_, Some(firewall)) => firewall.note_outbound(at, datagram.from, datagram.to),
            (Some(_), None) => return self.stats.unroutable += 1,
            (None, None) => {}
        }
        let next = gateway.upstream.map_or(Place::Core(lan), Place::Switch);
        for (at, datagram) in gateway.out.pass(&mut self.random, at, datagram) {
            self.moving.push(at, (next, datagram));
        }
    }

    /// Passes a datagram from the LAN `from` to the LAN that has its destination. That LAN's gateway leads to
    /// `upstream`, which is a LAN or the core.
    fn inwards(&mut self, at: Time, upstream: Option<LanId>, from: LanId, datagram: Datagram) {
        let to = datagram.to.ip();
        let lan = self.lans.iter_mut().find_map(|(&id, lan)| {
            let gateway = lan.gateway.as_mut().filter(|gateway| gateway.upstream == upstream)?;
            let leads = match &gateway.nat {
                Some(nat) if gateway.translates(to) => nat.config().external == to,
                _ => lan.prefixes.contain(to),
            };
            leads.then_some((id, gateway))
        });
        let passes = |lan: &LanId| upstream.is_some() || !self.blocked.contains(&(from, *lan));
        let Some((lan, gateway)) = lan.filter(|(lan, _)| passes(lan)) else {
            return self.stats.unroutable += 1;
        };
        for (at, datagram) in gateway.into.pass(&mut self.random, at, datagram) {
            self.moving.push(at, (Place::Door(lan), datagram));
        }
    }

    fn at_door(&mut self, at: Time, lan: LanId, mut datagram: Datagram) {
        let Some(gateway) = self.lans.get_mut(&lan).and_then(|lan| lan.gateway.as_mut()) else { return };
        if !gateway.passes.udp() {
            return self.stats.unroutable += 1;
        }
        let translates = gateway.translates(datagram.to.ip());
        match (&mut gateway.nat, &mut gateway.firewall) {
            (Some(nat), _) if translates => match nat.inbound(at, datagram.from, datagram.to.port()) {
                Some(inner) => {
                    datagram.to = inner;
                    if let Some(prefix) = gateway.nat64 {
                        datagram.from = prefix.synthesize(datagram.from);
                    }
                }
                None => return self.stats.unroutable += 1,
            },
            (_, Some(firewall)) if firewall.lets_in(at, datagram.from, datagram.to) => {}
            (None, None) => {}
            _ => return self.stats.unroutable += 1,
        }
        self.at_switch(at, lan, datagram);
    }

    fn card_mut(&mut self, host: HostId, lan: LanId) -> Option<&mut Card> {
        self.hosts.get_mut(&host)?.iter_mut().find(|card| card.attachment.lan == lan)
    }
}

impl Gateway {
    pub(super) fn translates(&self, to: IpAddr) -> bool {
        self.nat.as_ref().is_some_and(|nat| nat.config().external.is_ipv4() == to.is_ipv4())
    }
}

impl Prefixes {
    pub(super) fn contain(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.ipv4.is_some_and(|net| net.octets()[..3] == v4.octets()[..3]),
            IpAddr::V6(v6) => self.ipv6.is_some_and(|net| net.octets()[..8] == v6.octets()[..8]),
        }
    }

    fn is_broadcast(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(v4) if v4.octets()[3] == 255) && self.contain(address)
    }

    /// Returns the IPv4 broadcast address.
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        self.ipv4.map(|net| Ipv4Addr::from(net.to_bits() | 0xff))
    }
}

fn positions(cards: &[Card], wanted: impl Fn(&Card) -> bool) -> Vec<usize> {
    (0..cards.len()).filter(|&at| wanted(&cards[at])).collect()
}

/// Delay from one socket of a host to another.
const LOOPBACK_DELAY: Duration = Duration::from_micros(20);
