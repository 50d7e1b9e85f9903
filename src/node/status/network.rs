//! What is known of a joined network.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use peersock_overlay::{NetworkId, NetworkInfo, NetworkSummary};
use serde::Serialize;

use super::{PeerStatus, Presence, Traffic, display};

/// A joined network's state.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct NetworkStatus {
    /// The network's ID.
    #[serde(serialize_with = "display")]
    pub id: NetworkId,
    /// What kind it is of: `ad-hoc` or `static`.
    pub kind: &'static str,
    /// Whether a passphrase or pre-shared key is needed to take part.
    pub secret: bool,
    /// Whether only certain nodes are admitted.
    pub closed: bool,
    /// The TCP and UDP ports on which services may be offered and reached.
    pub ports: Ports,
    /// The addresses that lie in it, as `ADDRESS/LENGTH`; the self-certifying prefix first.
    pub prefixes: Vec<String>,
    /// This node's name, if the network's file gives it one.
    pub name: Option<String>,
    /// This node's addresses in it, the self-certifying one first.
    pub addresses: Vec<IpAddr>,
    /// Members known, without this node: the sum of the three that follow.
    pub peers: usize,
    /// Members in state [`Presence::Connected`].
    pub connected: usize,
    /// Members in state [`Presence::Known`].
    pub known: usize,
    /// Members in state [`Presence::Gone`].
    pub gone: usize,
    /// Members forgotten since the network was joined; they are in no other number.
    pub forgotten: u64,
    /// What the sessions with all members have carried since the network was joined, forgotten ones included.
    pub traffic: Traffic,
}

/// A range of ports, as JSON has it.
///
/// ```
/// let ports = peersock::Ports::from(&(0..=90));
/// assert_eq!((ports.first, ports.last), (1, 90));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Ports {
    /// The first one. No service has port 0.
    pub first: u16,
    /// The last one.
    pub last: u16,
}

impl From<&RangeInclusive<u16>> for Ports {
    fn from(ports: &RangeInclusive<u16>) -> Ports {
        Ports { first: (*ports.start()).max(1), last: *ports.end() }
    }
}

pub(super) fn network(info: NetworkInfo, peers: &[PeerStatus]) -> NetworkStatus {
    let count = |state| peers.iter().filter(|peer| peer.network == info.id && peer.state == state).count();
    let [connected, known, gone] = [Presence::Connected, Presence::Known, Presence::Gone].map(count);
    let NetworkSummary { kind, secret, closed, ports, prefixes, .. } = info.summary;
    NetworkStatus {
        id: info.id,
        kind,
        secret,
        closed,
        ports: Ports::from(&ports),
        prefixes: prefixes.iter().map(ToString::to_string).collect(),
        name: info.name,
        addresses: info.addresses,
        // Not those of the overlay, which may have changed since the peers were listed.
        peers: connected + known + gone,
        connected,
        known,
        gone,
        forgotten: info.forgotten,
        traffic: info.traffic.into(),
    }
}
