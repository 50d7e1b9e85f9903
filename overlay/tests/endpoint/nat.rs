//! A NAT box for these tests: how it maps, how it filters, and which port comes next. Its mappings last.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use peersock_testnet::Random;

/// What a mapping or a filter depends on besides the inner address (RFC 4787, 4.1 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    Nothing,
    Address,
    Endpoint,
}

/// Which port a new mapping gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ports {
    /// So much more than the last one.
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
    /// Ports that are passed to somebody, whoever sends, and who has sent.
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

    /// The source outside of what `inner` sends to `remote`.
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
                Ports::Random => self.random.within(1024..=65_535) as u16,
            };
            self.mappings.push(Mapping { inner, scope, outer: self.last, allowed: BTreeSet::new() });
            self.mappings.len() - 1
        });
        self.mappings[at].allowed.insert(allowed);
        SocketAddr::new(self.external, self.mappings[at].outer)
    }

    /// Who gets what `remote` sends to a port outside, if anybody does.
    pub(crate) fn inbound(&mut self, remote: SocketAddr, port: u16) -> Option<SocketAddr> {
        let allowed = self.filtering.scope(remote);
        // It does not pass on what its own side sends to it.
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

    /// Passes what comes to a port outside to `inner`, from whomever.
    pub(crate) fn forward(&mut self, outer: u16, inner: SocketAddr) {
        self.forwarded.push((outer, inner, BTreeSet::new()));
    }

    /// Forgets its mappings, as after a restart.
    pub(crate) fn reboot(&mut self) {
        self.mappings.clear();
    }
}
