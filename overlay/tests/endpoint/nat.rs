//! A NAT box for these tests, with its mapping, its filtering, and its choice of ports. Its mappings last.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use peersock_testnet::Random;

/// Dependence of a mapping or a filter, besides the inner address (RFC 4787, 4.1 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    Nothing,
    Address,
    Endpoint,
}

/// Choice of the port of a new mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ports {
    /// Last port plus this difference.
    Delta(u16),
    Random,
}

#[derive(Debug)]
pub(crate) struct NatBox {
    pub(crate) external: IpAddr,
    pub(crate) mapping: On,
    pub(crate) filtering: On,
    pub(crate) ports: Ports,
    last: u16,
    random: Random,
    mappings: Vec<Mapping>,
    /// Forwarded ports with their inner address, open to all senders, and the senders so far.
    forwarded: Vec<(u16, SocketAddr, BTreeSet<SocketAddr>)>,
}

#[derive(Debug)]
struct Mapping {
    inner: SocketAddr,
    scope: Scope,
    outer: u16,
    allowed: BTreeSet<Scope>,
}

type Scope = (Option<IpAddr>, Option<u16>);

impl On {
    fn scope(self, remote: SocketAddr) -> Scope {
        match self {
            Self::Nothing => (None, None),
            Self::Address => (Some(remote.ip()), None),
            Self::Endpoint => (Some(remote.ip()), Some(remote.port())),
        }
    }
}

impl NatBox {
    pub(crate) fn new(external: IpAddr, mapping: On, filtering: On, ports: Ports) -> Self {
        let IpAddr::V4(v4) = external else { panic!("an IPv4 box") };
        let random = Random::from_seed(v4.to_bits().into());
        let (mappings, forwarded) = (Vec::new(), Vec::new());
        Self { external, mapping, filtering, ports, last: 20_000, random, mappings, forwarded }
    }

    /// Returns the external source of packets from `inner` to `remote`.
    pub(crate) fn outbound(&mut self, inner: SocketAddr, remote: SocketAddr) -> SocketAddr {
        let is_forwarded = |(_, to, senders): &&(u16, SocketAddr, BTreeSet<SocketAddr>)| {
            *to == inner && senders.contains(&remote)
        };
        if let Some((outer, ..)) = self.forwarded.iter().find(is_forwarded) {
            return SocketAddr::new(self.external, *outer);
        }
        let (scope, allowed) = (self.mapping.scope(remote), self.filtering.scope(remote));
        let known = self.mappings.iter().position(|one| one.inner == inner && one.scope == scope);
        let at = known.unwrap_or_else(|| {
            self.last = match self.ports {
                Ports::Delta(delta) => self.last.wrapping_add(delta),
                // NAT boxes assign no port below 1024 (RFC 4787, REQ-3).
                Ports::Random => self.random.within(1024..=65_535) as u16,
            };
            self.mappings.push(Mapping { inner, scope, outer: self.last, allowed: BTreeSet::new() });
            self.mappings.len() - 1
        });
        self.mappings[at].allowed.insert(allowed);
        SocketAddr::new(self.external, self.mappings[at].outer)
    }

    /// Returns the receiver of packets from `remote` to an external port, if any.
    pub(crate) fn inbound(&mut self, remote: SocketAddr, port: u16) -> Option<SocketAddr> {
        let allowed = self.filtering.scope(remote);
        // The box does not hairpin packets from inside.
        if remote.ip() == self.external {
            return None;
        }
        if let Some((_, inner, senders)) = self.forwarded.iter_mut().find(|(outer, ..)| *outer == port) {
            senders.insert(remote);
            return Some(*inner);
        }
        let to = self.mappings.iter().find(|one| one.outer == port && one.allowed.contains(&allowed));
        Some(to?.inner)
    }

    /// Forwards packets from any source to an external port to `inner`.
    pub(crate) fn forward(&mut self, outer: u16, inner: SocketAddr) {
        self.forwarded.push((outer, inner, BTreeSet::new()));
    }

    /// Forgets its mappings, as after a restart.
    pub(crate) fn reboot(&mut self) {
        self.mappings.clear();
    }
}
