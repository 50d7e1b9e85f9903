//! Changes of a node between two status reports.
//!
//! The library's `Event` is not streamed instead, because it names no network, root, address or earlier path.
//! Reports would still be compared for these.

use std::collections::BTreeMap;
use std::fmt;

use peersock::{NetworkId, NodeId, PeerStatus, Presence, RootStatus, Status};
use serde::Serialize;

use crate::status::Look;

/// An event with its known details. Fields have the names of `peersock status --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Change {
    event: What,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<Path>,
    /// Path before the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    /// State of the root.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    /// Address at which another node with the same identity was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    NodeStarted,
    NodeStopped,
    NetworkJoined,
    NetworkLeft,
    PeerFound,
    PeerConnected,
    PeerDisconnected,
    PeerGone,
    PeerForgotten,
    PathChanged,
    RootReached,
    RootLost,
    IdentityConflict,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Named {
    id: String,
    name: Option<String>,
    address: Option<String>,
}

/// A path, in the words of `peersock status --prometheus`.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Path {
    kind: &'static str,
    /// Address that packets are sent to; none if the relaying root is reached by a stream.
    address: Option<String>,
    stream: Option<String>,
    root: Option<String>,
}

/// Returns the changes between two reports. `None` is a node that does not run.
pub(super) fn changes(before: Option<&Look>, now: Option<&Look>) -> Vec<Change> {
    let is_same_run = match (before, now) {
        (Some(before), Some(now)) => now.since(before).is_some(),
        (None, None) => return Vec::new(),
        _ => false,
    };
    let (before, now) = (before.map(|look| &look.answer), now.map(|look| &look.answer));
    let mut changes = Vec::new();
    if !is_same_run {
        if let Some(before) = before {
            changes
                .push(Change { node_id: Some(before.node_id.to_string()), ..Change::new(What::NodeStopped) });
        }
        let Some(now) = now else { return changes };
        changes.push(Change { node_id: Some(now.node_id.to_string()), ..Change::new(What::NodeStarted) });
    }
    let (before, Some(now)) = (before.filter(|_| is_same_run), now) else { return changes };
    networks(before, now, &mut changes);
    roots(before, now, &mut changes);
    peers(before, now, &mut changes);
    if let Some(conflict) = &now.conflict
        && before.is_none_or(|before| before.conflict.is_none())
    {
        let remote = Some(conflict.remote.to_string());
        changes.push(Change { remote, ..Change::new(What::IdentityConflict) });
    }
    changes
}

fn networks(before: Option<&Status>, now: &Status, changes: &mut Vec<Change>) {
    let ids = |answer: &Status| -> Vec<_> { answer.networks.iter().map(|network| network.id).collect() };
    let (old, new) = (before.map(ids).unwrap_or_default(), ids(now));
    let change =
        |what, network: &NetworkId| Change { network: Some(network.to_string()), ..Change::new(what) };
    changes.extend(new.iter().filter(|id| !old.contains(id)).map(|id| change(What::NetworkJoined, id)));
    changes.extend(old.iter().filter(|id| !new.contains(id)).map(|id| change(What::NetworkLeft, id)));
}

/// Compares roots. A root counts as reached while the node is registered there.
fn roots(before: Option<&Status>, now: &Status, changes: &mut Vec<Change>) {
    let roots = |answer: &Status| -> BTreeMap<NodeId, (bool, String)> {
        let state = |root: &RootStatus| (root.id, (root.registered_s.is_some(), root.state.to_string()));
        answer.roots.iter().map(state).collect()
    };
    let (old, new) = (before.map(roots).unwrap_or_default(), roots(now));
    let change = |what, id: &NodeId, state: Option<&String>| Change {
        root: Some(id.to_string()),
        state: state.cloned(),
        ..Change::new(what)
    };
    for (id, (is_reached, state)) in &new {
        let was_reached = old.get(id).is_some_and(|(was_reached, _)| *was_reached);
        match (was_reached, is_reached) {
            (false, true) => changes.push(change(What::RootReached, id, Some(state))),
            (true, false) => changes.push(change(What::RootLost, id, Some(state))),
            _ => {}
        }
    }
    let gone = old.iter().filter(|(id, (was_reached, _))| *was_reached && !new.contains_key(*id));
    changes.extend(gone.map(|(id, _)| change(What::RootLost, id, None)));
}

fn peers(before: Option<&Status>, now: &Status, changes: &mut Vec<Change>) {
    fn peers(answer: &Status) -> BTreeMap<(NetworkId, NodeId), &PeerStatus> {
        answer.peers.iter().map(|peer| ((peer.network, peer.id), peer)).collect()
    }
    let (old, new) = (before.map(peers).unwrap_or_default(), peers(now));
    for (key, peer) in &new {
        let was = old.get(key).copied();
        let change = |what| Change {
            network: Some(peer.network.to_string()),
            peer: Some(Named::new(peer)),
            path: Path::new(peer),
            ..Change::new(what)
        };
        let was_there = was.map_or(Presence::Gone, |was| was.state);
        // Static members are known from the start, so they count as found at the first sign of them.
        let is_found = !was.is_some_and(has_shown_itself) && peer.state != Presence::Gone;
        if is_found && has_shown_itself(peer) {
            changes.push(Change { path: None, ..change(What::PeerFound) });
        }
        match (was_there, peer.state) {
            (Presence::Connected, Presence::Connected) => {
                let before = was.and_then(Path::new);
                if before != Path::new(peer) {
                    changes.push(Change { before, ..change(What::PathChanged) });
                }
            }
            (_, Presence::Connected) => changes.push(change(What::PeerConnected)),
            (Presence::Connected, Presence::Known) => changes.push(change(What::PeerDisconnected)),
            (Presence::Connected, Presence::Gone) => {
                changes.extend([What::PeerDisconnected, What::PeerGone].map(change));
            }
            (Presence::Known, Presence::Gone) => changes.push(change(What::PeerGone)),
            // The peer is heard again.
            (Presence::Gone, Presence::Known) if was.is_some() && !is_found => {
                changes.push(change(What::PeerFound));
            }
            _ => {}
        }
    }
    let forgotten = old.iter().filter(|(key, _)| !new.contains_key(*key));
    changes.extend(forgotten.map(|(_, peer)| Change {
        network: Some(peer.network.to_string()),
        peer: Some(Named::new(peer)),
        ..Change::new(What::PeerForgotten)
    }));
}

/// Returns true if there was ever a sign of the peer.
fn has_shown_itself(peer: &PeerStatus) -> bool {
    peer.state == Presence::Connected || peer.last_seen_s.is_some() || peer.last_heard_s.is_some()
}

impl Change {
    fn new(event: What) -> Change {
        Change {
            event,
            node_id: None,
            network: None,
            peer: None,
            path: None,
            before: None,
            root: None,
            state: None,
            remote: None,
        }
    }
}

impl Named {
    fn new(peer: &PeerStatus) -> Named {
        let address = peer.addresses.first().map(ToString::to_string);
        Named { id: peer.id.to_string(), name: peer.name.clone(), address }
    }
}

impl Path {
    fn new(peer: &PeerStatus) -> Option<Path> {
        Some(Path {
            kind: peer.path_kind()?,
            address: peer.path.map(|path| path.to_string()),
            stream: peer.stream.clone(),
            root: peer.root.map(|root| root.to_string()),
        })
    }
}

/// Formats the event for people, in one line.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.event {
            What::NodeStarted => "node started",
            What::NodeStopped => "node stopped",
            What::NetworkJoined => "network joined",
            What::NetworkLeft => "network left",
            What::PeerFound => "peer found",
            What::PeerConnected => "peer connected",
            What::PeerDisconnected => "peer disconnected",
            What::PeerGone => "peer gone",
            What::PeerForgotten => "peer forgotten",
            What::PathChanged => "path changed",
            What::RootReached => "root reached",
            What::RootLost => "root lost",
            What::IdentityConflict => "two nodes have this identity",
        })?;
        if let Some(node) = &self.node_id {
            write!(f, ": {node}")?;
        }
        if let Some(peer) = &self.peer {
            write!(f, ": {peer}")?;
        }
        if let Some(root) = &self.root {
            write!(f, ": {root}")?;
        }
        if let Some(state) = &self.state {
            write!(f, ", {state}")?;
        }
        if let Some(remote) = &self.remote {
            write!(f, ": the other was at {remote}")?;
        }
        if let Some(network) = &self.network {
            let before = if self.peer.is_some() { " in network" } else { ":" };
            write!(f, "{before} {network}")?;
        }
        match (&self.before, &self.path) {
            (Some(before), Some(path)) => write!(f, ", from {before} to {path}"),
            (_, Some(path)) => write!(f, ", {path}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, &self.name) {
            (Some(address), Some(name)) => write!(f, "{address} {name}"),
            (Some(address), None) => f.write_str(address),
            (None, _) => f.write_str(&self.id),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        for part in [&self.root, &self.address, &self.stream].into_iter().flatten() {
            write!(f, " {part}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;
    use std::time::Instant;

    use serde_json::{Value, json};

    use super::*;
    use crate::status::fixtures;

    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

    #[test]
    fn what_happens_to_a_peer_is_told_once() {
        let path = |path: &str| peer("connected", Some(path));
        let steps = [
            (vec![], vec![]),
            (vec![peer("known", None)], vec!["peer found: fd00::2 in network ff01"]),
            (vec![path("127.0.0.1:6")], vec!["peer connected: fd00::2 in network ff01, direct 127.0.0.1:6"]),
            (vec![path("127.0.0.1:6")], vec![]),
            (
                vec![path("127.0.0.1:7")],
                vec!["path changed: fd00::2 in network ff01, from direct 127.0.0.1:6 to direct 127.0.0.1:7"],
            ),
            (vec![peer("known", None)], vec!["peer disconnected: fd00::2 in network ff01"]),
            (vec![peer("gone", None)], vec!["peer gone: fd00::2 in network ff01"]),
            (vec![peer("known", None)], vec!["peer found: fd00::2 in network ff01"]),
            (vec![], vec!["peer forgotten: fd00::2 in network ff01"]),
            (
                vec![path("127.0.0.1:6")],
                vec![
                    "peer found: fd00::2 in network ff01",
                    "peer connected: fd00::2 in network ff01, direct 127.0.0.1:6",
                ],
            ),
            (
                vec![peer("gone", None)],
                vec!["peer disconnected: fd00::2 in network ff01", "peer gone: fd00::2 in network ff01"],
            ),
        ];
        let mut before = answer(1.0, &[], &[]);
        for (uptime, (peers, wanted)) in (2..).zip(steps) {
            let now = answer(f64::from(uptime), &peers, &[]);
            assert_eq!(lines(Some(&before), Some(&now)), wanted);
            before = now;
        }
    }

    #[test]
    fn a_relayed_path_names_its_root() {
        let mut relayed = peer("connected", Some("192.0.2.1:7420"));
        relayed["root"] = "a1".into();
        let before = answer(1.0, &[peer("connected", Some("127.0.0.1:6"))], &[]);
        let now = answer(2.0, &[relayed], &[]);
        let changes = changes(Some(&before), Some(&now));
        let text = serde_json::to_string(&changes[0]).unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&fixtures::shortened(&text)).unwrap(),
            json!({
                "event": "path-changed", "network": "ff01",
                "peer": {"id": "bb", "name": null, "address": "fd00::2"},
                "path": {"kind": "root", "address": "192.0.2.1:7420", "stream": null, "root": "a1"},
                "before": {"kind": "direct", "address": "127.0.0.1:6", "stream": null, "root": null}
            })
        );
    }

    #[test]
    fn members_of_a_static_network_are_found_with_the_first_sign_of_them() {
        let mut listed = peer("known", None);
        listed["last_heard_s"] = Value::Null;
        let now = answer(2.0, &[listed.clone()], &[]);
        assert_eq!(lines(Some(&answer(1.0, &[], &[])), Some(&now)), Vec::<String>::new());
        assert_eq!(lines(Some(&now), Some(&answer(3.0, &[listed], &[]))), Vec::<String>::new());
        let heard = answer(3.0, &[peer("known", None)], &[]);
        assert_eq!(lines(Some(&now), Some(&heard)), ["peer found: fd00::2 in network ff01"]);
        let connected = answer(4.0, &[peer("connected", Some("127.0.0.1:6"))], &[]);
        let is_connected = "peer connected: fd00::2 in network ff01, direct 127.0.0.1:6";
        assert_eq!(lines(Some(&heard), Some(&connected)), [is_connected]);
        let told = lines(Some(&now), Some(&connected));
        assert_eq!(told, ["peer found: fd00::2 in network ff01", is_connected]);
    }

    #[test]
    fn roots_are_reached_and_lost() {
        let root = |state: &str, registered: Option<u32>| json!({"id": "a1", "state": state, "registered_s": registered});
        let none = answer(1.0, &[], &[]);
        let trying = answer(2.0, &[], &[root("connecting", None)]);
        let there = answer(3.0, &[], &[root("registered", Some(1))]);
        let draining = answer(4.0, &[], &[root("draining", Some(2))]);
        let lost = answer(5.0, &[], &[root("unreachable", None)]);
        let told = |before, now| lines(Some(before), Some(now));
        assert_eq!(told(&none, &trying), Vec::<String>::new());
        assert_eq!(told(&trying, &there), ["root reached: a1, registered"]);
        assert_eq!(told(&there, &draining), Vec::<String>::new());
        assert_eq!(told(&draining, &lost), ["root lost: a1, unreachable"]);
        assert_eq!(told(&there, &answer(6.0, &[], &[])), ["root lost: a1"]);
    }

    #[test]
    fn a_restart_between_two_looks_is_told_and_all_is_new() {
        let peers = [peer("connected", Some("127.0.0.1:6"))];
        let (before, now) = (answer(9.0, &peers, &[]), answer(0.5, &peers, &[]));
        let begun = [
            "node started: aa",
            "network joined: ff01",
            "peer found: fd00::2 in network ff01",
            "peer connected: fd00::2 in network ff01, direct 127.0.0.1:6",
        ];
        let told = lines(Some(&before), Some(&now));
        assert_eq!((told[0].as_str(), &told[1..]), ("node stopped: aa", &begun.map(str::to_owned)[..]));
        assert_eq!(lines(Some(&before), None), ["node stopped: aa"]);
        assert_eq!(lines(None, None), Vec::<String>::new());
        assert_eq!(lines(None, Some(&now)), begun);
    }

    fn lines(before: Option<&Look>, now: Option<&Look>) -> Vec<String> {
        changes(before, now).iter().map(|change| fixtures::shortened(&change.to_string())).collect()
    }

    fn peer(state: &str, path: Option<&str>) -> Value {
        json!({"id": "bb", "network": "ff01", "addresses": ["fd00::2"], "connected": state == "connected",
               "state": state, "path": path, "last_heard_s": 1})
    }

    fn answer(uptime: f64, peers: &[Value], roots: &[Value]) -> Look {
        let status = json!({
            "node_id": "aa", "uptime_s": uptime, "endpoints": [], "flows": {"total": 0}, "counters": {},
            "networks": [{"id": "ff01", "addresses": [], "peers": 0, "connected": 0}],
            "peers": peers, "roots": roots
        });
        // The reports follow each other without delay.
        let at = *BEGIN;
        Look { answer: fixtures::status(status), asked: at, answered: at }
    }
}
