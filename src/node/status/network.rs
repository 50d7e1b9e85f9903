//! State of a joined network.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use peersock_overlay::{Membership, NetworkId, NetworkIndex, NetworkInfo, NetworkSummary};
use serde::{Deserialize, Serialize};

use super::{PeerStatus, Presence, Traffic, text};
use crate::node::Inner;
use crate::node::managed::Shared;

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
    /// so yet), `removed` or `denied` by a controller, `copied` (another machine runs with this identity, so
    /// a controller gives this one no certificate). None in other networks.
    #[serde(default)]
    pub standing: Option<Cow<'static, str>>,
    /// True while a controller serves a managed network at this node: members' questions are answered.
    #[serde(default)]
    pub serves: bool,
    /// True if this node renews certificates of a managed network while no controller answers.
    #[serde(default)]
    pub spare: bool,
    /// Seconds since a controller of a managed network has answered this node, or has issued its certificate
    /// before the node started. None at the controller itself.
    #[serde(default)]
    pub heard_s: Option<f64>,
    /// Seconds until the end of this node's certificate in a managed network, by the controllers' clocks; 0
    /// after the end.
    #[serde(default)]
    pub certificate_left_s: Option<f64>,
    /// Seconds by which this machine's clock is behind the controllers' of a managed network, by the last
    /// answer; negative if it is ahead. 0 while they agree within 2 s, and before an answer. None in other
    /// networks.
    #[serde(default)]
    pub clock_behind_s: Option<f64>,
    /// Seconds until the end of the right by which a controller has issued that certificate; 0 after the end.
    #[serde(default)]
    pub issuer_left_s: Option<f64>,
    /// True if somebody has to renew that right at the controller soon: 60 days are left at most, and less
    /// than half of its lifetime.
    #[serde(default)]
    pub issuer_ending: bool,
    /// This node's name, if the network's file gives it one.
    pub name: Option<String>,
    /// Epoch of the newest removals that this node has signed, as a controller of the network; it grows with
    /// each.
    #[serde(default)]
    pub signed_epoch: Option<u64>,
    /// Version of the access rules that this node enforces, if the network has any: the milliseconds of the
    /// Unix time at which they were applied, or a little more.
    #[serde(default)]
    pub rules: Option<u64>,
    /// True if those rules have a form that this version cannot read. Then it refuses all flows.
    #[serde(default)]
    pub rules_unreadable: bool,
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

/// State that only a managed network has.
#[derive(Default)]
pub(super) struct ManagedState {
    standing: Option<&'static str>,
    serves: bool,
    is_spare: bool,
    heard: Option<Duration>,
    certificate_left: Option<Duration>,
    issuer_left: Option<Duration>,
    /// Milliseconds.
    clock_behind: Option<i64>,
    is_issuer_ending: bool,
    has_unreadable_rules: bool,
}

impl ManagedState {
    pub(super) fn of(node: &Inner, index: NetworkIndex, shared: &Shared) -> ManagedState {
        let unix_time = node.driver.datapath.unix_time(Instant::now());
        let read = |known: &Membership| {
            let own = known.credentials().cloned();
            (known.clock_offset(), (known.spare().is_some(), own.map(|own| (known.time(unix_time), own))))
        };
        let (clock_behind, own) = node.driver.datapath.membership(index, read).unzip();
        let (is_spare, own) = own.unwrap_or_default();
        let own = own.as_ref().map(|(now, own)| (*now, own));
        // The certificate may be of an earlier run.
        let issued = own.and_then(|(now, own)| Some(now.since(own.heard()?)));
        ManagedState {
            standing: Some(shared.word()),
            serves: shared.seat.is_there(),
            is_spare,
            heard: shared.heard().into_iter().chain(issued).min(),
            certificate_left: own.map(|(now, own)| own.certificate().end().since(now)),
            clock_behind,
            issuer_left: own.map(|(now, own)| own.delegation().end().since(now)),
            has_unreadable_rules: node.driver.datapath.refuses_unreadable_rules(index).unwrap_or(false),
            is_issuer_ending: own.is_some_and(|(now, own)| own.delegation().is_ending(now)),
        }
    }
}

pub(super) fn network(info: NetworkInfo, managed: &ManagedState, peers: &[PeerStatus]) -> NetworkStatus {
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
        standing: managed.standing.map(Cow::Borrowed),
        serves: managed.serves,
        spare: managed.is_spare,
        heard_s: managed.heard.map(|time| time.as_secs_f64()),
        certificate_left_s: managed.certificate_left.map(|time| time.as_secs_f64()),
        clock_behind_s: managed.clock_behind.map(|millis| millis as f64 / 1e3),
        issuer_left_s: managed.issuer_left.map(|time| time.as_secs_f64()),
        issuer_ending: managed.is_issuer_ending,
        name: info.name,
        signed_epoch: info.signed_epoch,
        rules: info.rules,
        rules_unreadable: managed.has_unreadable_rules,
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
