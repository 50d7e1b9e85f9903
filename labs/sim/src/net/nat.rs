//! A NAT box as RFC 4787 describes it, with independent rules for mapping and filtering.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::{Random, Time};

/// The part of a remote endpoint on which a mapping or a filter depends (RFC 4787 sections 4.1 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Behaviour {
    /// Nothing: one mapping for all destinations, and every endpoint may send to it.
    EndpointIndependent,
    /// The remote address.
    AddressDependent,
    /// The remote address and port.
    AddressAndPortDependent,
}

impl Behaviour {
    /// All behaviours.
    pub const ALL: [Self; 3] =
        [Self::EndpointIndependent, Self::AddressDependent, Self::AddressAndPortDependent];

    /// Returns the part of `remote` that matters.
    pub(super) fn scope(self, remote: SocketAddr) -> Scope {
        match self {
            Self::EndpointIndependent => Scope::Anyone,
            Self::AddressDependent => Scope::Address(remote.ip()),
            Self::AddressAndPortDependent => Scope::Endpoint(remote),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    Anyone,
    Address(IpAddr),
    Endpoint(SocketAddr),
}

/// Rule for the outer port of a new mapping. If that port is taken, the mapping gets any port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortDelta {
    /// The inner port.
    Equal,
    /// The inner port plus a constant, so that outer ports are as far apart as inner ports.
    Preserving {
        /// The constant, added to the inner port modulo the number of ports.
        offset: u16,
    },
    /// The last mapping's outer port plus a constant, whatever the inner port is.
    Independent {
        /// The constant.
        step: i16,
    },
    /// The last mapping's outer port plus a constant if the inner port follows the last one's, else any port.
    Dependent {
        /// The constant.
        step: i16,
    },
    /// Any port.
    Random,
}

/// Behaviour of a [`Nat`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatConfig {
    /// The box's outer address. The box drops packets of the other family without translation.
    pub external: IpAddr,
    /// Rule that decides if an inner endpoint gets another outer port.
    pub mapping: Behaviour,
    /// Rule that decides who may send to a mapping: remotes the inner endpoint has sent to, taken this wide.
    pub filtering: Behaviour,
    /// Lifetime of a mapping after the last outbound packet (RFC 4787 REQ-5: at least 2 minutes).
    pub timeout: Duration,
    /// True if inbound packets refresh a mapping too (REQ-6 leaves it open).
    pub inbound_refresh: bool,
    /// Rule for outer ports.
    pub ports: PortDelta,
    /// True if inner endpoints reach each other by outer addresses (REQ-9).
    pub hairpinning: bool,
}

impl NatConfig {
    /// Returns the usual home router: endpoint-independent mapping, address-and-port-dependent filtering, a
    /// timeout of two minutes.
    pub fn new(external: IpAddr) -> Self {
        Self {
            external,
            mapping: Behaviour::EndpointIndependent,
            filtering: Behaviour::AddressAndPortDependent,
            timeout: Duration::from_secs(120),
            inbound_refresh: false,
            ports: PortDelta::Equal,
            hairpinning: false,
        }
    }
}

/// A NAT box, which translates outbound packets and permitted inbound packets.
#[derive(Debug)]
pub struct Nat {
    config: NatConfig,
    random: Random,
    /// Outer port by inner endpoint and mapping scope.
    ports: BTreeMap<(SocketAddr, Scope), u16>,
    mappings: BTreeMap<u16, Mapping>,
    /// The inner and the outer port of the last mapping made.
    last: Option<(u16, u16)>,
}

#[derive(Debug, Clone)]
struct Mapping {
    inner: SocketAddr,
    scope: Scope,
    /// Remote scopes the inner endpoint has sent to by this mapping, as wide as the filter looks, and when
    /// last.
    allowed: BTreeMap<Scope, Time>,
    used: Time,
}

impl Nat {
    /// Makes a box without any mapping.
    pub fn new(config: NatConfig, random: Random) -> Self {
        Self { config, random, ports: BTreeMap::new(), mappings: BTreeMap::new(), last: None }
    }

    /// Returns the configuration.
    pub fn config(&self) -> &NatConfig {
        &self.config
    }

    /// Returns the number of mappings that have not expired.
    pub fn live_mappings(&self, now: Time) -> usize {
        self.mappings.values().filter(|mapping| !self.is_expired(mapping.used, now)).count()
    }

    /// Forgets everything, as a reboot does.
    pub fn reboot(&mut self) {
        self.ports.clear();
        self.mappings.clear();
        self.last = None;
    }

    /// Returns the outer source of a packet from `inner` to `remote`, or `None` if it cannot pass. For a
    /// NAT64, `inner` is IPv6 and `remote` is IPv4.
    pub fn outbound(&mut self, now: Time, inner: SocketAddr, remote: SocketAddr) -> Option<SocketAddr> {
        if remote.is_ipv4() != self.config.external.is_ipv4() {
            return None;
        }
        let key = (inner, self.config.mapping.scope(remote));
        let port = self.ports.get(&key).copied().filter(|port| self.is_live(*port, now));
        let port = match port {
            Some(port) => port,
            None => self.open(now, key)?,
        };
        let mapping = self.mappings.get_mut(&port)?;
        mapping.used = now;
        mapping.allowed.insert(self.config.filtering.scope(remote), now);
        Some(SocketAddr::new(self.config.external, port))
    }

    /// Returns the inner destination of a packet from `remote` to the outer `port`, or `None` if it is
    /// filtered.
    pub fn inbound(&mut self, now: Time, remote: SocketAddr, port: u16) -> Option<SocketAddr> {
        if !self.is_live(port, now) {
            return None;
        }
        let refresh = self.config.inbound_refresh;
        let timeout = self.config.timeout;
        let scope = self.config.filtering.scope(remote);
        let mapping = self.mappings.get_mut(&port)?;
        let allowed = mapping.allowed.get_mut(&scope).filter(|at| now.saturating_sub(**at) < timeout)?;
        if refresh {
            *allowed = now;
            mapping.used = now;
        }
        Some(mapping.inner)
    }

    fn open(&mut self, now: Time, key: (SocketAddr, Scope)) -> Option<u16> {
        self.expire(now);
        let (inner, scope) = key;
        let wanted = self.wanted_port(inner.port());
        let port = wanted.filter(|port| *port >= FIRST_PORT && !self.mappings.contains_key(port));
        let port = port.or_else(|| {
            (0..MAX_DRAWS)
                .map(|_| self.random.within(u64::from(FIRST_PORT)..=65535) as u16)
                .find(|port| !self.mappings.contains_key(port))
        })?;
        self.last = Some((inner.port(), port));
        self.ports.insert(key, port);
        self.mappings.insert(port, Mapping { inner, scope, allowed: BTreeMap::new(), used: now });
        Some(port)
    }

    /// Returns the outer port for the next mapping of an inner port, if the box has a rule for it.
    fn wanted_port(&self, inner: u16) -> Option<u16> {
        match (self.config.ports, self.last) {
            (PortDelta::Equal, _) => Some(inner),
            (PortDelta::Preserving { offset }, _) => Some(inner.wrapping_add(offset)),
            (PortDelta::Independent { step }, Some((_, outer))) => Some(outer.wrapping_add_signed(step)),
            (PortDelta::Dependent { step }, Some((before, outer))) if inner == before.wrapping_add(1) => {
                Some(outer.wrapping_add_signed(step))
            }
            _ => None,
        }
    }

    fn expire(&mut self, now: Time) {
        let timeout = self.config.timeout;
        let dead = self.mappings.extract_if(.., |_, mapping| now.saturating_sub(mapping.used) >= timeout);
        for (_, mapping) in dead {
            self.ports.remove(&(mapping.inner, mapping.scope));
        }
    }

    fn is_live(&self, port: u16, now: Time) -> bool {
        self.mappings.get(&port).is_some_and(|mapping| !self.is_expired(mapping.used, now))
    }

    fn is_expired(&self, used: Time, now: Time) -> bool {
        now.saturating_sub(used) >= self.config.timeout
    }
}

/// Lowest port given to programs. Lower ports belong to services (RFC 4787, REQ-3).
const FIRST_PORT: u16 = 1024;

/// Maximum number of random draws for a free port. After that, the box counts as full.
const MAX_DRAWS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const INNER: &str = "192.168.1.10:4000";
    const OTHER_INNER: &str = "192.168.1.11:4000";
    const SERVER: &str = "198.51.100.1:1000";
    const SERVER_OTHER_PORT: &str = "198.51.100.1:1001";
    const STRANGER: &str = "198.51.100.2:1000";

    fn endpoint(text: &str) -> SocketAddr {
        text.parse().expect("an endpoint")
    }

    fn nat(mapping: Behaviour, filtering: Behaviour) -> Nat {
        let config = NatConfig { mapping, filtering, ..NatConfig::new([203, 0, 113, 1].into()) };
        Nat::new(config, Random::from_seed(1))
    }

    #[test]
    fn each_mapping_kind_gives_new_ports_when_it_should() {
        // Same outer port for another port of the same server; for another server.
        let table = [
            (Behaviour::EndpointIndependent, [true, true]),
            (Behaviour::AddressDependent, [true, false]),
            (Behaviour::AddressAndPortDependent, [false, false]),
        ];
        for (mapping, same) in table {
            let mut nat = nat(mapping, Behaviour::EndpointIndependent);
            let mut outer =
                |remote| nat.outbound(Time::ZERO, endpoint(INNER), endpoint(remote)).expect("a port");
            let first = outer(SERVER);
            assert_eq!(first.ip().to_string(), "203.0.113.1");
            assert_eq!([outer(SERVER_OTHER_PORT) == first, outer(STRANGER) == first], same, "{mapping:?}");
            assert_eq!(outer(SERVER), first, "a mapping is kept");
        }
    }

    #[test]
    fn each_filtering_kind_lets_in_whom_it_should() {
        // Columns: from the server itself, from another port of the server, from a stranger.
        let table = [
            (Behaviour::EndpointIndependent, [true, true, true]),
            (Behaviour::AddressDependent, [true, true, false]),
            (Behaviour::AddressAndPortDependent, [true, false, false]),
        ];
        for (filtering, allowed) in table {
            let mut nat = nat(Behaviour::EndpointIndependent, filtering);
            let port = nat.outbound(Time::ZERO, endpoint(INNER), endpoint(SERVER)).expect("a port").port();
            let passes = [SERVER, SERVER_OTHER_PORT, STRANGER]
                .map(|remote| nat.inbound(Time::ZERO, endpoint(remote), port) == Some(endpoint(INNER)));
            assert_eq!(passes, allowed, "{filtering:?}");
        }
    }

    #[test]
    fn mappings_expire_and_traffic_renews_them() {
        let seconds = Duration::from_secs;
        let mut nat = nat(Behaviour::EndpointIndependent, Behaviour::EndpointIndependent);
        let port = nat.outbound(seconds(0), endpoint(INNER), endpoint(SERVER)).expect("a port").port();
        nat.outbound(seconds(100), endpoint(INNER), endpoint(SERVER));
        assert!(nat.inbound(seconds(219), endpoint(SERVER), port).is_some());
        assert_eq!(nat.inbound(seconds(220), endpoint(SERVER), port), None, "inbound traffic renews nothing");
        assert_eq!(nat.live_mappings(seconds(220)), 0);
        nat.config.inbound_refresh = true;
        nat.outbound(seconds(300), endpoint(INNER), endpoint(SERVER));
        for at in [400, 500, 600] {
            assert!(nat.inbound(seconds(at), endpoint(SERVER), port).is_some());
        }
    }

    #[test]
    fn ports_are_preserved_unless_taken() {
        let mut nat = nat(Behaviour::EndpointIndependent, Behaviour::EndpointIndependent);
        let first = nat.outbound(Time::ZERO, endpoint(INNER), endpoint(SERVER)).expect("a port");
        let second = nat.outbound(Time::ZERO, endpoint(OTHER_INNER), endpoint(SERVER)).expect("a port");
        assert_eq!(first.port(), 4000);
        assert_ne!(second.port(), 4000);
        nat.reboot();
        assert_eq!(nat.inbound(Time::ZERO, endpoint(SERVER), 4000), None);
    }

    #[test]
    fn no_port_of_services_is_given_to_a_program() {
        let mut nat = nat(Behaviour::AddressAndPortDependent, Behaviour::AddressAndPortDependent);
        nat.config.ports = PortDelta::Preserving { offset: 30_000 };
        for inner in 35_000..37_000 {
            let from = SocketAddr::from(([192, 168, 1, 10], inner));
            let outer = nat.outbound(Time::ZERO, from, endpoint(SERVER)).expect("a port");
            assert!(outer.port() >= FIRST_PORT, "{inner} is {outer}");
        }
    }

    #[test]
    fn each_kind_of_delta_gives_the_ports_that_it_says() {
        // Outer ports of the mappings for these inner ports, as distances from the first.
        let inner = [4000u16, 4001, 4010, 4011];
        let table: [(PortDelta, [Option<u16>; 3]); 5] = [
            (PortDelta::Equal, [Some(1), Some(10), Some(11)]),
            (PortDelta::Preserving { offset: 30_000 }, [Some(1), Some(10), Some(11)]),
            (PortDelta::Independent { step: 3 }, [Some(3), Some(6), Some(9)]),
            // If two inner ports follow each other, so do their outer ports.
            (PortDelta::Dependent { step: 2 }, [Some(2), None, None]),
            (PortDelta::Random, [None; 3]),
        ];
        for (ports, expected) in table {
            let mut nat = nat(Behaviour::EndpointIndependent, Behaviour::EndpointIndependent);
            nat.config.ports = ports;
            let outer = inner.map(|port| {
                let from = SocketAddr::from(([192, 168, 1, 10], port));
                nat.outbound(Time::ZERO, from, endpoint(SERVER)).expect("a port").port()
            });
            match ports {
                PortDelta::Equal => assert_eq!(outer[0], 4000),
                PortDelta::Preserving { offset } => assert_eq!(outer[0], 4000 + offset),
                _ => {}
            }
            for (port, expected) in outer[1..].iter().zip(expected) {
                let distance = port.wrapping_sub(outer[0]);
                match expected {
                    Some(expected) => assert_eq!(distance, expected, "{ports:?}"),
                    // A random port has none of the small distances that a rule would give.
                    None => assert!((32..65_500).contains(&distance), "{ports:?}: {distance}"),
                }
            }
            if let PortDelta::Dependent { step } = ports {
                assert_eq!(outer[3].wrapping_sub(outer[2]), step as u16, "these follow each other again");
            }
        }
    }

    #[test]
    fn the_other_family_does_not_pass() {
        let mut nat = nat(Behaviour::EndpointIndependent, Behaviour::EndpointIndependent);
        assert_eq!(nat.outbound(Time::ZERO, endpoint("[fe80::1]:1"), endpoint("[2001:db8::1]:1")), None);
    }
}
