//! Which way leads to a peer.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use peersock::{AttemptStatus, Node, PeerStatus};
use serde_json::{Value, json};

/// The path that packets to a peer take now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    /// Where they are sent: to the root, if one relays.
    remote: SocketAddr,
    /// The node ID of the root that relays.
    root: Option<String>,
    /// Whether a TURN server relays.
    turn: bool,
}

/// The member with this address, if it is known.
pub(crate) fn peer_at(node: &Node, address: IpAddr) -> Option<PeerStatus> {
    node.peers().into_iter().find(|peer| peer.addresses.contains(&address))
}

/// Why the path to a peer is not direct, a line for each address that was tried.
pub(crate) fn reasons(peer: &PeerStatus) -> Vec<String> {
    match peer.attempts.as_slice() {
        _ if peer.root.is_none() && !peer.turn => Vec::new(),
        [] => vec!["no address of it is known where a direct path could be tried".to_owned()],
        attempts => attempts.iter().map(reason).collect(),
    }
}

fn reason(attempt: &AttemptStatus) -> String {
    let AttemptStatus { address, kind, outcome, .. } = attempt;
    format!("tried {address} ({kind}): {outcome}")
}

impl Path {
    /// The path to a peer; `None` without a session.
    pub(crate) fn of(peer: &PeerStatus) -> Option<Path> {
        Some(Path { remote: peer.path?, root: peer.root.map(|root| root.to_string()), turn: peer.turn })
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.root.is_none() && !self.turn
    }

    /// For programs to read.
    pub(crate) fn json(&self) -> Value {
        json!({ "direct": self.is_direct(), "remote": self.remote, "root": self.root, "turn": self.turn })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            None if self.turn => write!(f, "by TURN to {}", self.remote),
            None => write!(f, "direct to {}", self.remote),
            Some(root) => write!(f, "relayed by root {root} at {}", self.remote),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_direct_or_a_root_relays() {
        let remote = "192.0.2.1:7420".parse().expect("an address");
        let direct = Path { remote, root: None, turn: false };
        assert_eq!(direct.to_string(), "direct to 192.0.2.1:7420");
        assert_eq!(
            direct.json(),
            json!({"direct": true, "remote": "192.0.2.1:7420", "root": null, "turn": false})
        );
        let relayed = Path { remote, root: Some("a1".into()), turn: false };
        assert_eq!(relayed.to_string(), "relayed by root a1 at 192.0.2.1:7420");
        assert!(!relayed.is_direct() && relayed.json()["root"] == "a1");
        let by_turn = Path { remote, root: None, turn: true };
        assert_eq!(by_turn.to_string(), "by TURN to 192.0.2.1:7420");
        assert!(!by_turn.is_direct() && by_turn.json()["turn"] == true);
    }
}
