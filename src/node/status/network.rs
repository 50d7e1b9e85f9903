//! State of a joined network.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use peersock_overlay::{NetworkId, NetworkInfo, NetworkSummary};
use serde::{Deserialize, Serialize};

use super::{PeerStatus, Presence, Traffic, text};

/// State of a joined network.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NetworkStatus {
    /// The network's ID.
    #[serde(with = "text")]
    pub id: NetworkId,
    /// Kind of the network: `ad-hoc` or `static`.
    pub kind: Cow<'static, str>,
    /// True if a passphrase or pre-shared key is needed to take part.
    pub secret: bool,
    /// True if only certain nodes are admitted.
    pub closed: bool,
    /// TCP and UDP ports on which services may be offered and reached.
    pub ports: Ports,
    /// Prefixes of the network's addresses, as `ADDRESS/LENGTH`; the self-certifying prefix first.
    pub prefixes: Vec<String>,
    /// Standing of this node in a managed network: `member`, `asking` (no controller has answered), `pending`
    /// (a person has to approve it), `refused` (a member says that it was revoked, and no controller has said
    /// so yet), `removed` or `denied` by a controller. None in other networks.
    #[serde(default)]
    pub standing: Option<Cow<'static, str>>,
    /// True while a controller serves a managed network at this node: members' questions are answered.
    #[serde(default)]
    pub serves: bool,
    /// This node's name, if the network's file gives it one.
    pub name: Option<String>,
    /// Epoch of the newest removals that this node has signed, as a controller of the network; it grows with
    /// each.
    #[serde(default)]
    pub signed_epoch: Option<u64>,
    /// True once somebody has shown another successor of a key of the network than the one that this node
    /// has learned. Then somebody else has that key.
    #[serde(default)]
    pub key_contested: bool,
    /// This node's addresses in the network, the self-certifying one first.
    pub addresses: Vec<IpAddr>,
    /// Members known, without this node: the sum of the three fields below.
    pub peers: usize,
    /// Members in state [`Presence::Connected`].
    pub connected: usize,
    /// Members in state [`Presence::Known`].
    pub known: usize,
    /// Members in state [`Presence::Gone`].
    pub gone: usize,
    /// Members forgotten since the network was joined; no other field counts them.
    pub forgotten: u64,
    /// Traffic of the sessions with all members since the network was joined, forgotten ones included.
    pub traffic: Traffic,
}

/// Range of ports, as JSON has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ports {
    /// First port. No service has port 0.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl From<&RangeInclusive<u16>> for Ports {
    fn from(ports: &RangeInclusive<u16>) -> Ports {
        // Port 0 cannot be offered.
        Ports { first: (*ports.start()).max(1), last: *ports.end() }
    }
}

pub(super) fn network(
    info: NetworkInfo,
    (standing, serves): (Option<&'static str>, bool),
    peers: &[PeerStatus],
) -> NetworkStatus {
    let count = |state| peers.iter().filter(|peer| peer.network == info.id && peer.state == state).count();
    let [connected, known, gone] = [Presence::Connected, Presence::Known, Presence::Gone].map(count);
    let NetworkSummary { kind, secret, closed, ports, prefixes, .. } = info.summary;
    NetworkStatus {
        id: info.id,
        kind: kind.into(),
        secret,
        closed,
        ports: Ports::from(&ports),
        prefixes: prefixes.iter().map(ToString::to_string).collect(),
        standing: standing.map(Cow::Borrowed),
        serves,
        name: info.name,
        signed_epoch: info.signed_epoch,
        key_contested: info.is_key_contested,
        addresses: info.addresses,
        // Summed here, because the overlay's numbers may have changed since the peers were listed.
        peers: connected + known + gone,
        connected,
        known,
        gone,
        forgotten: info.forgotten,
        traffic: info.traffic.into(),
    }
}
