//! Two nodes behind one box.

use std::fmt;
use std::net::Ipv4Addr;

use peersock_overlay::{Contact, Nat as Found};

use crate::net::{Behaviour, HostId, LanId, NatConfig, Prefixes};
use crate::world::World;
use crate::{Random, Violation};

use super::{Expected, home};

/// The box or network that two nodes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shared {
    /// The LAN behind a usual home router, where the nodes hear each other's beacons.
    Home,
    /// The same, but the LAN's hosts reach only the router, like guests of an access point.
    Guests(SharedBox),
    /// A carrier's box in front of two homes, each with a usual home router.
    Carrier(SharedBox),
}

/// Behaviour of the box that both nodes are behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SharedBox {
    /// The rule for both the mapping and the filter.
    pub behaviour: Behaviour,
    /// True if packets from one node to the other's outer address come back in (RFC 4787, REQ-9).
    pub hairpinning: bool,
}

impl Shared {
    /// Returns all shared places, in the order of the table.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::Home];
        for make in [Self::Guests, Self::Carrier] {
            for behaviour in Behaviour::ALL {
                all.extend([true, false].map(|hairpinning| make(SharedBox { behaviour, hairpinning })));
            }
        }
        all
    }

    /// Returns the kind of connection that the two nodes must have in the end.
    ///
    /// Without hairpinning, a root relays. With it, the nodes use the outer addresses. If the outer ports are
    /// fixed, both nodes know them and send at the same time. If they depend on the destination, the result
    /// is as between two such boxes.
    pub fn expected(self) -> Expected {
        match self {
            Self::Home => Expected::Direct,
            Self::Guests(one) | Self::Carrier(one) => match (one.hairpinning, one.behaviour) {
                (false, _) => Expected::Relay,
                (true, Behaviour::EndpointIndependent) => Expected::Direct,
                (true, _) => Expected::Either,
            },
        }
    }

    /// Returns the description in the table.
    pub fn description(self) -> String {
        let with = |one: SharedBox| {
            let depends = match one.behaviour {
                Behaviour::EndpointIndependent => "`ei-ei`",
                Behaviour::AddressDependent => "`ad-ad`",
                Behaviour::AddressAndPortDependent => "`apd-apd`",
            };
            format!("{depends} that {}", if one.hairpinning { "hairpins" } else { "does not hairpin" })
        };
        match self {
            Self::Home => "one LAN behind `ei-apd`".into(),
            Self::Guests(one) => format!("one LAN whose hosts reach the router alone, behind {}", with(one)),
            Self::Carrier(one) => format!("each behind `ei-apd`, and both behind a carrier's {}", with(one)),
        }
    }

    /// Connects both hosts. Returns what STUN tells the drivers of nodes at these ports.
    pub(super) fn connect(
        self,
        world: &mut World,
        random: &mut Random,
    ) -> Result<[(HostId, Contact); 2], Violation> {
        let public = Ipv4Addr::new(203, 0, 113, 1);
        let config = |one: SharedBox, random: &mut Random| NatConfig {
            mapping: one.behaviour,
            filtering: one.behaviour,
            hairpinning: one.hairpinning,
            ports: home::ports(one.behaviour, random),
            ..NatConfig::new(public.into())
        };
        let found = |one: SharedBox| Found { mapping: home::as_found(one.behaviour), ..Found::default() };
        let (lans, found) = match self {
            Self::Home => {
                let ports = home::any_ports(random);
                let lan = home_lan(world, random, NatConfig { ports, ..NatConfig::new(public.into()) });
                ([lan; 2], Found::default())
            }
            Self::Guests(one) => {
                let config = config(one, random);
                let lan = home_lan(world, random, config);
                world.net.isolate(lan);
                ([lan; 2], found(one))
            }
            Self::Carrier(one) => {
                let config = config(one, random);
                let carrier = home::add_carrier(world, random, config, 0);
                ([1, 2].map(|number| home::add_customer(world, random, carrier, number)), found(one))
            }
        };
        let mut add = |at: usize| {
            let net = if lans[0] == lans[1] { 1 } else { at as u8 + 1 };
            let host = home::add_host(world, lans[at], Ipv4Addr::new(192, 168, net, at as u8 + 1))?;
            Ok((host, Contact::new(found, [])))
        };
        Ok([add(0)?, add(1)?])
    }
}

/// Adds a LAN behind one box.
fn home_lan(world: &mut World, random: &mut Random, nat: NatConfig) -> LanId {
    let lan = world.net.add_lan(Prefixes { ipv4: Some(Ipv4Addr::new(192, 168, 1, 0)), ipv6: None });
    home::put_behind(world, random, lan, nat);
    lan
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, one) = match self {
            Self::Home => return f.write_str("one home"),
            Self::Guests(one) => ("guests", one),
            Self::Carrier(one) => ("one carrier", one),
        };
        let behaviour = match one.behaviour {
            Behaviour::EndpointIndependent => "ei",
            Behaviour::AddressDependent => "ad",
            Behaviour::AddressAndPortDependent => "apd",
        };
        write!(f, "{place}, {behaviour}, {}hairpin", if one.hairpinning { "" } else { "no " })
    }
}
