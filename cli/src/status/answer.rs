//! A node's status as read from its answer, and words for its peers.

use std::net::IpAddr;

use peersock::{PeerStatus, Status};

use crate::failure::{Failure, Outcome};

/// Reads a node's answer. The node's version may differ from this program's.
pub(crate) fn parse(text: &str) -> Outcome<Status> {
    serde_json::from_str(text).map_err(|error| {
        Failure::new(
            format_args!("the node's answer is not understood: {error}"),
            "use the same version of peersock for both, or `peersock status --json` to see the answer",
        )
    })
}

/// Returns a message if the versions of the node and this program differ.
pub(crate) fn difference(status: &Status) -> Option<String> {
    let (version, own) = (&status.version, env!("CARGO_PKG_VERSION"));
    (version != own)
        .then(|| format!("the running node is of version {version}, this program of version {own}"))
}

/// Returns the kind of the path, with the relaying root if there is one.
pub(crate) fn path_words(peer: &PeerStatus) -> Option<String> {
    let kind = peer.path_kind()?;
    // The beginning of an ID suffices for people.
    Some(peer.root.map_or_else(|| kind.to_owned(), |root| format!("{kind} {root:.8}")))
}

/// Returns the address or stream that packets take.
pub(crate) fn via(peer: &PeerStatus) -> Option<String> {
    peer.path_kind()?;
    peer.path.map(|path| path.to_string()).or_else(|| peer.stream.clone())
}

/// Returns the name of a peer: the member's. A program has its label before that of its machine, or shows
/// whose it is.
pub(crate) fn name(peer: &PeerStatus) -> Option<String> {
    let name = peer.name.as_ref()?;
    Some(match (peer.machine, &peer.label) {
        (None, _) => name.clone(),
        (Some(_), Some(label)) => format!("{label}.{name}"),
        (Some(_), None) => format!("program of {name}"),
    })
}

/// Returns the name for people: the peer's name, else the address to dial, else the ID.
pub(crate) fn shown_name(peer: &PeerStatus) -> String {
    let address = || peer.addresses.first().map(IpAddr::to_string);
    name(peer).or_else(address).unwrap_or_else(|| peer.id.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use peersock::{Presence, RootState};
    use serde_json::{Value, json};

    use super::*;

    /// The digits behind the short IDs of nodes and networks.
    const NODE: &str = "00000000000000000000000000000000000000000000000000000000000000";
    const NETWORK: &str = "00ffff000000";

    /// Reads JSON in which IDs are short, and only the fields are given that a test is about.
    pub(crate) fn status(mut json: Value) -> Status {
        complete("status", &mut json);
        parse(&json.to_string()).unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// Shortens the IDs in a text again.
    pub(crate) fn shortened(text: &str) -> String {
        text.replace(NODE, "").replace(NETWORK, "")
    }

    fn complete(name: &str, json: &mut Value) {
        let missing = match name {
            "status" => {
                json!({"version": env!("CARGO_PKG_VERSION"), "public_key": "", "udp_receive_buffer": 0,
                               "roots": [], "turn": [], "traffic": {}})
            }
            "roots" => {
                json!({"guest": false, "endpoints": [], "relays": false, "rate": 0, "relayed_peers": 0,
                              "directory_away": false})
            }
            "networks" => {
                json!({"kind": "ad-hoc", "secret": false, "closed": false, "prefixes": [], "gone": 0,
                                 "ports": {"first": 1, "last": 65535}, "known": 0, "forgotten": 0, "traffic": {}})
            }
            "peers" => {
                json!({"root": null, "turn": false, "tcp": false, "total_traffic": {}, "candidates": [],
                              "attempts": [], "answer_unreadable": false, "at_roots": 0})
            }
            "flows" => json!({"time_wait": 0}),
            "traffic" | "total_traffic" => json!({"sent_packets": 0, "sent_bytes": 0, "received_packets": 0,
                                                  "received_bytes": 0, "lost_packets": 0}),
            _ => json!({}),
        };
        match (name, json) {
            (_, Value::Array(all)) => all.iter_mut().for_each(|one| complete(name, one)),
            (_, Value::Object(fields)) => {
                for (name, value) in missing.as_object().expect("an object") {
                    fields.entry(name).or_insert_with(|| value.clone());
                }
                fields.iter_mut().for_each(|(name, value)| complete(name, value));
            }
            ("id" | "network", Value::String(id)) if id.len() == 4 => *id += NETWORK,
            ("id" | "node_id" | "root", Value::String(id)) => *id = format!("{id:0<64}"),
            _ => {}
        }
    }

    fn one() -> Value {
        json!({
            "node_id": "aa", "uptime_s": 1, "endpoints": [], "flows": {"total": 1}, "counters": {}, "later": 1,
            "networks": [{"id": "ff01", "addresses": [], "peers": 1, "connected": 0, "known": 1}],
            "roots": [{"id": "a1", "state": "asleep"}],
            "peers": [{"id": "bb", "network": "ff01", "addresses": [], "connected": false, "state": "asleep",
                       "path": null, "new": 1}],
        })
    }

    #[test]
    fn a_node_of_another_version_is_said() {
        assert_eq!(difference(&status(one())), None);
        let mut other = one();
        other["version"] = "0.0.9".into();
        let difference = difference(&status(other)).unwrap();
        assert!(difference.contains("node is of version 0.0.9, this program of"), "{difference}");
    }

    #[test]
    fn what_a_later_node_adds_is_skipped() {
        let status = status(one());
        assert_eq!((status.peers[0].state, status.roots[0].state), (Presence::Known, RootState::Connecting));
        assert!(parse("{}").is_err_and(|failure| failure.to_string().contains("same version")));
    }

    #[test]
    fn a_path_has_its_kind_the_root_that_relays_and_its_address() {
        let mut json = one();
        let shown = |json: &Value| {
            let status = status(json.clone());
            (path_words(&status.peers[0]), via(&status.peers[0]))
        };
        json["peers"][0]["path"] = "192.0.2.1:7".into();
        assert_eq!(shown(&json), (None, None), "without a session there is none");
        json["peers"][0]["connected"] = true.into();
        assert_eq!(shown(&json), (Some("direct".into()), Some("192.0.2.1:7".into())));
        json["peers"][0]["root"] = "a1b2c3d4e5".into();
        json["peers"][0]["path"] = Value::Null;
        json["peers"][0]["stream"] = "wss:a.b:443".into();
        assert_eq!(shown(&json), (Some("root a1b2c3d4".into()), Some("wss:a.b:443".into())));
    }
}
