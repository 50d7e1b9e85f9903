//! The path to a peer.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use peersock::{AttemptStatus, Node, PeerStatus};
use serde_json::{Value, json};

/// The current path of packets to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    /// Address that packets are sent to: the relaying root's, or none if the root is reached by a stream.
    remote: Option<SocketAddr>,
    /// Stream to the root, if it is reached by one.
    stream: Option<String>,
    /// Node ID of the relaying root.
    root: Option<String>,
    /// True if a TURN server relays.
    turn: bool,
    /// True if the path is a TCP connection to the peer.
    tcp: bool,
}

/// Returns the member with this address, if it is known.
pub(crate) fn peer_at(node: &Node, address: IpAddr) -> Option<PeerStatus> {
    node.peers().into_iter().find(|peer| peer.addresses.contains(&address))
}

/// Returns the [way] of the packets to the member with this address.
pub(crate) fn way_to(node: &Node, address: IpAddr) -> Option<&'static str> {
    way(&peer_at(node, address)?)
}

/// Returns the way of the packets to a member in a word or two; `None` without a session.
pub(crate) fn way(peer: &PeerStatus) -> Option<&'static str> {
    Some(match peer.path_kind()? {
        "root" => "relayed by a root",
        "turn" => "relayed by TURN",
        "tcp" => "direct by TCP",
        _ => "direct",
    })
}

/// Returns the reasons why the path to a peer is not direct, a line for each address that was tried.
pub(crate) fn reasons(peer: &PeerStatus) -> Vec<String> {
    match peer.attempts.as_slice() {
        _ if peer.root.is_none() && !peer.turn => Vec::new(),
        [] => vec!["no address for a direct path to it is known".to_owned()],
        attempts => attempts.iter().map(reason).collect(),
    }
}

/// Returns the result of an attempt of a direct path.
pub(crate) fn reason(attempt: &AttemptStatus) -> String {
    let AttemptStatus { address, kind, outcome, .. } = attempt;
    format!("tried {address} ({kind}): {outcome}")
}

impl Path {
    /// Returns the path to a peer; `None` without a session.
    pub(crate) fn of(peer: &PeerStatus) -> Option<Path> {
        let (remote, stream) = (peer.path, peer.stream.clone());
        // A stream leads to a root, which relays. Without the root, the stream has just ended.
        let is_known = peer.connected && (remote.is_some() || peer.root.is_some());
        let root = peer.root.map(|root| root.to_string());
        is_known.then_some(Path { remote, stream, root, turn: peer.turn, tcp: peer.tcp })
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.root.is_none() && !self.turn
    }

    /// Returns the path as JSON.
    pub(crate) fn json(&self) -> Value {
        json!({
            "direct": self.is_direct(),
            "remote": self.remote,
            "stream": self.stream,
            "root": self.root,
            "turn": self.turn,
            "tcp": self.tcp,
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            None if self.turn => f.write_str("by TURN")?,
            None if self.tcp => f.write_str("direct by TCP")?,
            None => f.write_str("direct")?,
            Some(root) => write!(f, "relayed by root {root}")?,
        }
        match (&self.remote, &self.stream) {
            (Some(remote), _) => write!(f, " {} {remote}", if self.root.is_some() { "at" } else { "to" }),
            (None, Some(stream)) => write!(f, " at {stream}"),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_direct_or_a_root_relays() {
        let remote = Some("192.0.2.1:7420".parse().expect("an address"));
        let direct = Path { remote, stream: None, root: None, turn: false, tcp: false };
        assert_eq!(direct.to_string(), "direct to 192.0.2.1:7420");
        assert_eq!(
            direct.json(),
            json!({
                "direct": true, "remote": "192.0.2.1:7420", "stream": null, "root": null, "turn": false,
                "tcp": false
            })
        );
        let relayed = Path { root: Some("a1".into()), ..direct.clone() };
        assert_eq!(relayed.to_string(), "relayed by root a1 at 192.0.2.1:7420");
        assert!(!relayed.is_direct() && relayed.json()["root"] == "a1");
        let by_tcp = Path { tcp: true, ..direct.clone() };
        assert_eq!(by_tcp.to_string(), "direct by TCP to 192.0.2.1:7420");
        assert!(by_tcp.is_direct() && by_tcp.json()["tcp"] == true);
        let by_turn = Path { turn: true, ..direct };
        assert_eq!(by_turn.to_string(), "by TURN to 192.0.2.1:7420");
        assert!(!by_turn.is_direct() && by_turn.json()["turn"] == true);
        let stream = Some("wss:a.b:443".to_owned());
        let by_stream = Path { remote: None, stream, ..relayed };
        assert_eq!(by_stream.to_string(), "relayed by root a1 at wss:a.b:443");
        assert!(!by_stream.is_direct() && by_stream.json()["stream"] == "wss:a.b:443");
    }
}
