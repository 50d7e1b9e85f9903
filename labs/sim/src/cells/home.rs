//! Connects a node of each kind to the simulated network.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use peersock_nat::nat64::Nat64Prefix;
use peersock_overlay::{Candidate, CandidateKind, Contact, Mapping, Nat as Found};

use crate::net::{
    Behaviour, Firewall, Gateway, HostId, LanId, Nat, NatConfig, Passes, Pipe, PortDelta, Prefixes, Stage,
};
use crate::world::World;
use crate::{Random, Violation};

use super::Kind;

/// Default lifetime of mappings (RFC 4787, REQ-5).
const TIMEOUT: Duration = Duration::from_secs(120);

/// Connects a new host in this way. Returns what STUN tells the driver of a node at that port. `number` (1 to
/// 200) determines the host's addresses.
pub(super) fn connect(
    world: &mut World,
    random: &mut Random,
    kind: Kind,
    (number, port): (u8, u16),
) -> Result<(HostId, Contact), Violation> {
    let access = Access::random(random);
    let [has_v4, has_v6] = kind.families();
    let is_open = matches!(kind, Kind::Open);
    let v4 = has_v4
        .then(|| if is_open { Ipv4Addr::new(203, 0, number, 0) } else { Ipv4Addr::new(192, 168, number, 0) });
    let net_v6 = if is_nat66(kind) { Ipv6Addr::new(0xfd00, 0x66, 0, 0, 0, 0, 0, 0) } else { PUBLIC_V6 };
    let v6 = has_v6.then(|| Ipv6Addr::from_bits(net_v6.to_bits() | u128::from(number) << 64));
    let lan = world.net.add_lan(Prefixes { ipv4: v4, ipv6: v6 });
    let public = Ipv4Addr::new(203, 0, 113, number);
    let apd = Behaviour::AddressAndPortDependent;
    let home = |external: Ipv4Addr, random: &mut Random| {
        let config =
            NatConfig { timeout: TIMEOUT, ports: any_ports(random), ..NatConfig::new(external.into()) };
        Nat::new(config, random.fork())
    };
    let mut gateway = access.gateway();
    let mut found = Found::default();
    let mut mapped = None;
    match kind {
        Kind::Open | Kind::Ipv6 => {}
        Kind::Nat { mapping, filtering, predictable } => {
            let ports = match (mapping, predictable) {
                (Behaviour::EndpointIndependent, _) => any_ports(random),
                (_, true) => PortDelta::Independent { step: *random.pick(&STEPS) },
                (_, false) => unpredictable_ports(random),
            };
            found = Found { mapping: as_found(mapping), ..found };
            if let (PortDelta::Independent { step }, true) = (ports, predictable) {
                found.port_delta = step;
            }
            let timeout = TIMEOUT;
            let config = NatConfig { mapping, filtering, timeout, ports, ..NatConfig::new(public.into()) };
            gateway.nat = Some(Nat::new(config, random.fork()));
        }
        Kind::ShortLived => {
            let timeout = Duration::from_secs(20);
            let config = NatConfig { timeout, ports: any_ports(random), ..NatConfig::new(public.into()) };
            gateway.nat = Some(Nat::new(config, random.fork()));
        }
        Kind::Double | Kind::Cgn | Kind::CgnDependent => {
            let (behaviour, ports) = match kind {
                Kind::Double => ((Behaviour::EndpointIndependent, apd), any_ports(random)),
                Kind::Cgn => {
                    ((Behaviour::EndpointIndependent, Behaviour::EndpointIndependent), any_ports(random))
                }
                _ => ((apd, apd), unpredictable_ports(random)),
            };
            found.mapping = as_found(behaviour.0);
            let carrier = NatConfig {
                mapping: behaviour.0,
                filtering: behaviour.1,
                timeout: TIMEOUT,
                ports,
                hairpinning: kind == Kind::Cgn,
                ..NatConfig::new(public.into())
            };
            let outer = add_carrier(world, random, carrier, number);
            // The home's box is a customer of the carrier.
            gateway.nat = Some(home(Ipv4Addr::new(100, 64, number, 2), random));
            gateway.upstream = Some(outer);
        }
        Kind::Nat64 | Kind::Nat64Dependent => {
            gateway.firewall = Some(Firewall::new(apd, TIMEOUT));
            gateway.nat64 = Nat64Prefix::new(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);
            let (mapping, filtering, ports) = match kind {
                Kind::Nat64 => {
                    (Behaviour::EndpointIndependent, Behaviour::AddressDependent, any_ports(random))
                }
                _ => (apd, apd, unpredictable_ports(random)),
            };
            found.mapping = as_found(mapping);
            let timeout = TIMEOUT;
            let config = NatConfig { mapping, filtering, timeout, ports, ..NatConfig::new(public.into()) };
            let mut nat = Nat::new(config, random.fork());
            // Roots are reached by IPv6. An IPv4 STUN request makes a different mapping.
            let inner = v6.map(|net| SocketAddr::from((with_host(net), port)));
            mapped = inner.and_then(|inner| nat.outbound(world.now(), inner, STUN_SERVER));
            gateway.nat = Some(nat);
        }
        Kind::UdpBlocked | Kind::Only443 => {
            gateway.passes = if kind == Kind::Only443 { Passes::TcpTo443 } else { Passes::Tcp };
            gateway.nat = Some(home(public, random));
        }
        // The node infers the NAT66's mapping behaviour from what roots see.
        Kind::Nat66 | Kind::Nat66Dependent => {
            let (mapping, ports) = match kind {
                Kind::Nat66 => (Behaviour::EndpointIndependent, any_ports(random)),
                _ => (apd, unpredictable_ports(random)),
            };
            let external = PUBLIC_V6.to_bits() | u128::from(number) << 64 | 1;
            let external = Ipv6Addr::from_bits(external).into();
            let config = NatConfig { mapping, timeout: TIMEOUT, ports, ..NatConfig::new(external) };
            gateway.nat = Some(Nat::new(config, random.fork()));
        }
        Kind::Ipv6Firewall => gateway.firewall = Some(Firewall::new(apd, TIMEOUT)),
        Kind::DualStack => {
            gateway.firewall = Some(Firewall::new(apd, TIMEOUT));
            let ports = unpredictable_ports(random);
            let config = NatConfig { mapping: apd, timeout: TIMEOUT, ports, ..NatConfig::new(public.into()) };
            let mut nat = Nat::new(config, random.fork());
            // See the NAT64 above.
            mapped =
                nat.outbound(world.now(), SocketAddr::from(([192, 168, number, HOST], port)), STUN_SERVER);
            gateway.nat = Some(nat);
        }
    }
    world.net.set_gateway(lan, Some(gateway));
    let host = world.net.add_host();
    let addresses = (v4.map(|net| last(net, HOST)), v6.map(with_host));
    world.attach(host, lan, addresses, (wire(), wire()))?;
    let mapped = mapped.map(|address| Candidate { kind: CandidateKind::Mapped, address });
    Ok((host, Contact::new(found, mapped)))
}

fn is_nat66(kind: Kind) -> bool {
    matches!(kind, Kind::Nat66 | Kind::Nat66Dependent)
}

/// Prefix of the homes' public IPv6 networks.
const PUBLIC_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);

pub(super) fn as_found(mapping: Behaviour) -> Mapping {
    match mapping {
        Behaviour::EndpointIndependent => Mapping::EndpointIndependent,
        Behaviour::AddressDependent => Mapping::AddressDependent,
        Behaviour::AddressAndPortDependent => Mapping::AddressAndPortDependent,
    }
}

/// Last byte of a host's addresses.
const HOST: u8 = 10;

const STUN_SERVER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(198, 51, 1, 1), 7420));

/// Adds a carrier's LAN behind a box of this kind. Homes connect to that LAN.
pub(super) fn add_carrier(world: &mut World, random: &mut Random, nat: NatConfig, number: u8) -> LanId {
    let prefixes = Prefixes { ipv4: Some(Ipv4Addr::new(100, 64, number, 0)), ipv6: None };
    let lan = world.net.add_lan(prefixes);
    put_behind(world, random, lan, nat);
    lan
}

/// Puts a LAN behind a box that leads to the core.
pub(super) fn put_behind(world: &mut World, random: &mut Random, lan: LanId, nat: NatConfig) {
    let nat = Some(Nat::new(nat, random.fork()));
    world.net.set_gateway(lan, Some(Gateway { nat, ..Access::random(random).gateway() }));
}

/// Adds the LAN of a carrier's customer, behind a usual home router.
pub(super) fn add_customer(world: &mut World, random: &mut Random, carrier: LanId, number: u8) -> LanId {
    let prefixes = Prefixes { ipv4: Some(Ipv4Addr::new(192, 168, number, 0)), ipv6: None };
    let lan = world.net.add_lan(prefixes);
    let external = Ipv4Addr::new(100, 64, 0, number + 1);
    let config = NatConfig { ports: any_ports(random), ..NatConfig::new(external.into()) };
    let nat = Some(Nat::new(config, random.fork()));
    let gateway = Gateway { nat, upstream: Some(carrier), ..Access::random(random).gateway() };
    world.net.set_gateway(lan, Some(gateway));
    lan
}

/// Adds a host with this address to a LAN.
pub(super) fn add_host(world: &mut World, lan: LanId, address: Ipv4Addr) -> Result<HostId, Violation> {
    let host = world.net.add_host();
    world.attach(host, lan, (Some(address), None), (wire(), wire()))?;
    Ok(host)
}

/// Connects a root's host without any box, and returns the host and its addresses.
pub(super) fn connect_root(
    world: &mut World,
    random: &mut Random,
    number: u8,
) -> Result<(HostId, Ipv4Addr, Ipv6Addr), Violation> {
    let v4 = Ipv4Addr::new(198, 51, number, 0);
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 1, number.into(), 0, 0, 0, 0);
    let lan = world.net.add_lan(Prefixes { ipv4: Some(v4), ipv6: Some(v6) });
    world.net.set_gateway(lan, Some(Access::random(random).gateway()));
    let host = world.net.add_host();
    let (v4, v6) = (last(v4, 1), Ipv6Addr::from_bits(v6.to_bits() | 1));
    world.attach(host, lan, (Some(v4), Some(v6)), (wire(), wire()))?;
    Ok((host, v4, v6))
}

fn last(net: Ipv4Addr, host: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(net.to_bits() | u32::from(host))
}

fn with_host(net: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(net.to_bits() | u128::from(HOST))
}

/// Line to the core.
struct Access {
    delay: Duration,
    jitter: Duration,
    bytes_per_second: u64,
}

impl Access {
    fn random(random: &mut Random) -> Self {
        let delay = random.duration(Duration::from_millis(2)..=Duration::from_millis(40));
        let jitter = random.duration(Duration::ZERO..=delay / 10);
        Self { delay, jitter, bytes_per_second: random.size(1_000_000..=50_000_000) }
    }

    fn pipe(&self) -> Pipe {
        let queue = (self.bytes_per_second / 20).max(64_000);
        Pipe::new([
            Stage::Mtu(1500),
            Stage::Rate { bytes_per_second: self.bytes_per_second, queue },
            Stage::Delay { base: self.delay, jitter: self.jitter },
        ])
    }

    fn gateway(&self) -> Gateway {
        Gateway { out: self.pipe(), into: self.pipe(), ..Gateway::default() }
    }
}

/// Makes the link between a host and its switch.
fn wire() -> Pipe {
    Pipe::new([
        Stage::Mtu(1500),
        Stage::Delay { base: Duration::from_micros(300), jitter: Duration::from_micros(50) },
    ])
}

const STEPS: [i16; 5] = [1, 1, 2, 3, -1];

/// Draws a port rule that does not help a single socket whose mapping depends on the destination.
fn unpredictable_ports(random: &mut Random) -> PortDelta {
    let offset = random.within(1..=30_000) as u16;
    *random.pick(&[
        PortDelta::Equal,
        PortDelta::Preserving { offset },
        PortDelta::Dependent { step: 1 },
        PortDelta::Random,
    ])
}

/// Draws a port rule for boxes with this mapping behaviour.
pub(super) fn ports(mapping: Behaviour, random: &mut Random) -> PortDelta {
    match mapping {
        Behaviour::EndpointIndependent => any_ports(random),
        _ => unpredictable_ports(random),
    }
}

pub(super) fn any_ports(random: &mut Random) -> PortDelta {
    if random.chance(0.2) {
        return PortDelta::Independent { step: *random.pick(&STEPS) };
    }
    unpredictable_ports(random)
}
