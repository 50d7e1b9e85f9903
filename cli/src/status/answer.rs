//! A node's status answer, as far as this program shows it.
//!
//! The node's version may differ from this program's: newer fields may be missing, unknown ones are skipped.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome};

/// A node's status.
#[derive(Deserialize)]
pub(crate) struct Answer {
    #[serde(default)]
    pub(crate) version: String,
    pub(crate) node_id: String,
    pub(crate) uptime_s: f64,
    pub(crate) endpoints: Vec<SocketAddr>,
    #[serde(default)]
    pub(crate) roots: Vec<Root>,
    pub(crate) contact: Option<Contact>,
    #[serde(default)]
    pub(crate) turn: Vec<Turn>,
    pub(crate) dht: Option<Dht>,
    pub(crate) networks: Vec<NetworkAnswer>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) flows: Flows,
    pub(crate) traffic: Option<Traffic>,
    pub(crate) conflict: Option<Conflict>,
    pub(crate) counters: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
pub(crate) struct Root {
    pub(crate) id: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) endpoints: Vec<SocketAddr>,
    pub(crate) path: Option<SocketAddr>,
    pub(crate) stream: Option<String>,
    pub(crate) stream_error: Option<String>,
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) observed: Option<SocketAddr>,
    pub(crate) registered_s: Option<f64>,
    #[serde(default)]
    pub(crate) relayed_peers: usize,
    #[serde(default)]
    pub(crate) directory_away: bool,
}

/// Addresses and NAT of the node.
#[derive(Deserialize)]
pub(crate) struct Contact {
    pub(crate) nat: Option<String>,
    pub(crate) mapping: Option<String>,
    #[serde(default)]
    pub(crate) candidates: Vec<Candidate>,
}

#[derive(Deserialize)]
pub(crate) struct Candidate {
    pub(crate) address: SocketAddr,
    pub(crate) kind: String,
    pub(crate) by: Option<String>,
}

/// State of an allocation on a TURN server.
#[derive(Deserialize)]
pub(crate) struct Turn {
    pub(crate) server: String,
    pub(crate) family: String,
    pub(crate) relayed: Option<SocketAddr>,
    pub(crate) error: Option<String>,
}

/// State of the node in the DHT.
#[derive(Deserialize)]
pub(crate) struct Dht {
    pub(crate) nodes: usize,
    pub(crate) published: usize,
    #[serde(default)]
    pub(crate) searches: usize,
    pub(crate) error: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct NetworkAnswer {
    pub(crate) id: String,
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) closed: bool,
    pub(crate) name: Option<String>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) peers: usize,
    pub(crate) connected: usize,
    pub(crate) known: Option<usize>,
    #[serde(default)]
    pub(crate) gone: usize,
    #[serde(default)]
    pub(crate) forgotten: u64,
    pub(crate) traffic: Option<Traffic>,
}

#[derive(Deserialize)]
pub(crate) struct Peer {
    pub(crate) id: String,
    pub(crate) network: String,
    pub(crate) name: Option<String>,
    pub(crate) addresses: Vec<IpAddr>,
    connected: bool,
    state: Option<Presence>,
    pub(crate) last_seen_s: Option<f64>,
    pub(crate) last_heard_s: Option<f64>,
    pub(crate) path: Option<SocketAddr>,
    pub(crate) stream: Option<String>,
    pub(crate) root: Option<String>,
    #[serde(default)]
    pub(crate) turn: bool,
    #[serde(default)]
    pub(crate) tcp: bool,
    pub(crate) datagram_size: Option<usize>,
    pub(crate) cipher: Option<String>,
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) session_age_s: Option<f64>,
    pub(crate) total_traffic: Option<Traffic>,
    #[serde(default)]
    pub(crate) answer_unreadable: bool,
    pub(crate) conflict: Option<Conflict>,
    #[serde(default)]
    pub(crate) attempts: Vec<Attempt>,
}

/// An attempt of a direct path to a peer.
#[derive(Deserialize)]
pub(crate) struct Attempt {
    pub(crate) address: SocketAddr,
    pub(crate) kind: String,
    pub(crate) sent: u32,
    pub(crate) tried_s: Option<f64>,
    pub(crate) outcome: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.address, self.kind, self.outcome)?;
        match self.sent {
            0 => Ok(()),
            1 => f.write_str(", 1 packet sent"),
            sent => write!(f, ", {sent} packets sent"),
        }
    }
}

/// Another node with the same identity.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Conflict {
    pub(crate) remote: SocketAddr,
    pub(crate) seen_s: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Presence {
    Connected,
    Gone,
    /// Also covers states that later versions may add.
    #[serde(other)]
    Known,
}

#[derive(Deserialize)]
pub(crate) struct Flows {
    pub(crate) total: usize,
    #[serde(default)]
    pub(crate) time_wait: usize,
}

#[derive(Clone, Copy, Deserialize)]
pub(crate) struct Traffic {
    pub(crate) sent_packets: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_packets: u64,
    pub(crate) received_bytes: u64,
    /// Missing in earlier versions.
    #[serde(default)]
    pub(crate) lost_packets: u64,
}

impl Answer {
    pub(crate) fn parse(text: &str) -> Outcome<Answer> {
        serde_json::from_str(text).map_err(|error| {
            Failure::new(
                format_args!("the node's answer is not understood: {error}"),
                "use the same version of peersock for both, or `peersock status --json` to see the answer",
            )
        })
    }

    /// Returns a message if the versions of the node and this program differ.
    pub(crate) fn difference(&self) -> Option<String> {
        let own = env!("CARGO_PKG_VERSION");
        let lacks = self.traffic.is_none();
        (self.version != own || lacks).then(|| {
            let what = if lacks { "; it reports neither when peers were seen nor their traffic" } else { "" };
            format!("the running node is of version {}, this program of version {own}{what}", self.version)
        })
    }
}

impl NetworkAnswer {
    /// Returns the number of peers without a session that are not gone.
    pub(crate) fn known(&self) -> usize {
        self.known.unwrap_or(self.peers.saturating_sub(self.connected + self.gone))
    }
}

impl Peer {
    pub(crate) fn state(&self) -> Presence {
        self.state.unwrap_or(if self.connected { Presence::Connected } else { Presence::Known })
    }

    /// Returns the kind of the path, in the words of `peersock status --prometheus`; none without a session.
    pub(crate) fn path_kind(&self) -> Option<&'static str> {
        (self.state() == Presence::Connected).then_some(match self {
            Peer { root: Some(_), .. } => "root",
            Peer { turn: true, .. } => "turn",
            Peer { tcp: true, .. } => "tcp",
            _ => "direct",
        })
    }

    /// Returns the kind of the path, with the relaying root if there is one.
    pub(crate) fn path_words(&self) -> Option<String> {
        let kind = self.path_kind()?;
        Some(self.root.as_ref().map_or_else(|| kind.to_owned(), |root| format!("{kind} {}", short(root))))
    }

    /// Returns the address or stream that packets take.
    pub(crate) fn via(&self) -> Option<String> {
        self.path_kind()?;
        self.path.map(|path| path.to_string()).or_else(|| self.stream.clone())
    }

    /// Returns the name for people: the member's name, else the address to dial, else the ID.
    pub(crate) fn shown_name(&self) -> String {
        let address = || self.addresses.first().map(IpAddr::to_string);
        self.name.clone().or_else(address).unwrap_or_else(|| self.id.clone())
    }
}

impl Presence {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Presence::Connected => "connected",
            Presence::Gone => "gone",
            Presence::Known => "known",
        }
    }
}

/// Returns the beginning of an ID, which suffices for people.
pub(crate) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_of_the_first_version_is_understood() {
        let answer = Answer::parse(
            r#"{
                "version": "0.0.9", "node_id": "aa", "uptime_s": 1, "endpoints": [], "flows": {"total": 1},
                "networks": [{"id": "ff01", "addresses": [], "peers": 2, "connected": 1}],
                "peers": [
                    {"id": "bb", "network": "ff01", "addresses": [], "connected": true, "path": null},
                    {"id": "cc", "network": "ff01", "addresses": [], "connected": false, "path": null}
                ],
                "counters": {}
            }"#,
        );
        let answer = answer.unwrap_or_else(|failure| panic!("{failure}"));
        assert!(answer.peers[0].state() == Presence::Connected && answer.peers[1].state() == Presence::Known);
        assert_eq!((answer.networks[0].known(), answer.networks[0].gone), (1, 0));
        let difference = answer.difference().unwrap();
        assert!(difference.contains("0.0.9") && difference.contains("reports neither"), "{difference}");
    }

    #[test]
    fn what_a_later_node_adds_is_skipped() {
        let peer = r#"{"id": "bb", "network": "ff01", "addresses": [], "connected": false, "state": "asleep", "new": 1}"#;
        let peer: Peer = serde_json::from_str(peer).unwrap();
        assert!(peer.state() == Presence::Known);
        assert!(Answer::parse("{}").is_err_and(|failure| failure.to_string().contains("same version")));
    }
}
