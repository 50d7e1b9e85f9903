//! Changes between two reports of a node, per second.

use std::borrow::Cow;
use std::collections::HashMap;

use peersock::{NetworkId, NodeId, ProgramStatus, Traffic};

use crate::status::Look;

/// Bytes per second, and the share of lost packets.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rate {
    pub(super) received: f64,
    pub(super) sent: f64,
    /// Share from 0 to 1; `None` if no packet is known to have been sent to this node.
    pub(super) loss: Option<f64>,
}

/// The rates at one report. Unknown rates are `None`: at the first report, after a restart of the node, and
/// for entries missing in the previous report.
#[derive(Default)]
pub(super) struct Rates {
    pub(super) node: Option<Rate>,
    networks: HashMap<NetworkId, Rate>,
    peers: HashMap<(NetworkId, NodeId), Rate>,
    programs: HashMap<(String, u32), Rate>,
    counters: HashMap<Cow<'static, str>, f64>,
}

impl Rates {
    pub(super) fn between(before: &Look, now: &Look) -> Rates {
        let Some(seconds) = now.since(before).filter(|seconds| *seconds > 0.0) else {
            return Rates::default();
        };
        let (before, now) = (&before.answer, &now.answer);
        let networks: HashMap<_, _> =
            before.networks.iter().map(|network| (network.id, network.traffic)).collect();
        let peers: HashMap<_, _> =
            before.peers.iter().map(|peer| ((peer.network, peer.id), peer.total_traffic)).collect();
        Rates {
            node: rate(&before.traffic, &now.traffic, seconds),
            networks: now
                .networks
                .iter()
                .filter_map(|now| Some((now.id, rate(networks.get(&now.id)?, &now.traffic, seconds)?)))
                .collect(),
            peers: now
                .peers
                .iter()
                .filter_map(|peer| {
                    let key = (peer.network, peer.id);
                    Some((key, rate(peers.get(&key)?, &peer.total_traffic, seconds)?))
                })
                .collect(),
            programs: now
                .programs
                .iter()
                .filter_map(|program| {
                    let before = before.programs.iter().find(|one| key(one) == key(program))?;
                    let moved = |now: u64, before: u64| Some(now.checked_sub(before)? as f64 / seconds);
                    let received = moved(program.received_bytes, before.received_bytes)?;
                    let sent = moved(program.sent_bytes, before.sent_bytes)?;
                    Some((key(program), Rate { received, sent, loss: None }))
                })
                .collect(),
            counters: now
                .counters
                .iter()
                .filter_map(|(name, value)| {
                    let gained = value.checked_sub(*before.counters.get(name)?)?;
                    Some((name.clone(), gained as f64 / seconds))
                })
                .collect(),
        }
    }

    pub(super) fn network(&self, id: NetworkId) -> Option<Rate> {
        self.networks.get(&id).copied()
    }

    pub(super) fn peer(&self, network: NetworkId, id: NodeId) -> Option<Rate> {
        self.peers.get(&(network, id)).copied()
    }

    pub(super) fn program(&self, program: &ProgramStatus) -> Option<Rate> {
        self.programs.get(&key(program)).copied()
    }

    /// Returns the growth per second of one or several counters.
    pub(super) fn counters(&self, names: &[&str]) -> Option<f64> {
        names.iter().map(|name| self.counters.get(*name)).sum()
    }
}

/// Returns what tells a program from others. A process may have attached twice.
fn key(program: &ProgramStatus) -> (String, u32) {
    (program.name.clone(), program.process)
}

/// Returns the rate, or `None` if a counter went back, as for a peer that was forgotten and found again.
fn rate(before: &Traffic, now: &Traffic, seconds: f64) -> Option<Rate> {
    let received = now.received_packets.saturating_sub(before.received_packets) as f64;
    // Packets that were late have arrived and no longer count as lost.
    let lost = now.lost_packets.saturating_sub(before.lost_packets) as f64;
    Some(Rate {
        received: now.received_bytes.checked_sub(before.received_bytes)? as f64 / seconds,
        sent: now.sent_bytes.checked_sub(before.sent_bytes)? as f64 / seconds,
        loss: (received + lost > 0.0).then(|| lost / (received + lost)),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, Instant};

    use serde_json::{Value, json};

    use super::*;
    use crate::status::fixtures;

    fn network(short: &str) -> NetworkId {
        format!("{short}00ffff000000").parse().unwrap()
    }

    fn node(short: &str) -> NodeId {
        format!("{short:0<64}").parse().unwrap()
    }

    #[test]
    fn rates_are_of_the_node_s_own_time() {
        let begin = Instant::now();
        let before = look(begin, status(10.0, 1000));
        // The answer was slow, so that 3 s have passed here and 2 s at the node.
        let mut now = look(begin + Duration::from_secs(2), status(12.0, 5000));
        now.answered += Duration::from_secs(1);
        let rates = Rates::between(&before, &now);
        let rate = Some(Rate { received: 2000.0, sent: 1000.0, loss: Some(10.0 / 50.0) });
        assert_eq!(
            (rates.node, rates.network(network("ff01")), rates.peer(network("ff01"), node("bb"))),
            (rate, rate, rate)
        );
        assert_eq!(rates.counters(&["tcp_retransmits"]), Some(2000.0));
        assert_eq!(rates.counters(&["tcp_retransmits", "new"]), None);
        assert_eq!((rates.network(network("ff02")), rates.peer(network("ff01"), node("cc"))), (None, None));
    }

    #[test]
    fn a_node_that_was_restarted_has_no_rates_until_the_next_look() {
        let begin = Instant::now();
        let before = look(begin, status(0.5, 1000));
        // This is another run, although its uptime and counters are larger than before.
        let restarted = look(begin + Duration::from_secs(1), status(0.7, 9000));
        let rates = Rates::between(&before, &restarted);
        assert_eq!((rates.node, rates.peer(network("ff01"), node("bb"))), (None, None));
        assert_eq!(rates.counters(&["tcp_retransmits"]), None);
        let next = look(begin + Duration::from_secs(2), status(1.7, 9000));
        assert_eq!(Rates::between(&restarted, &next).node, Some(Rate::default()));

        // The earlier run had a larger uptime and larger counters.
        let before = look(begin, status(500.0, 1_000_000));
        assert_eq!(Rates::between(&before, &restarted).node, None);
        // Another node uses the directory now.
        let mut other = look(begin + Duration::from_secs(1), status(501.0, 2_000_000));
        other.answer.node_id = node("ee");
        assert_eq!(Rates::between(&before, &other).node, None);
    }

    #[test]
    fn a_peer_that_was_forgotten_in_between_has_no_rate() {
        let begin = Instant::now();
        let before = look(begin, status(10.0, 1000));
        let mut now = status(11.0, 2000);
        now["peers"][0]["total_traffic"]["received_bytes"] = 5.into();
        let now = look(begin + Duration::from_secs(1), now);
        let rates = Rates::between(&before, &now);
        assert_eq!(rates.peer(network("ff01"), node("bb")), None);
        assert_eq!(rates.node, Some(Rate { received: 1000.0, sent: 500.0, loss: Some(3.0 / 13.0) }));
    }

    pub(in crate::top) fn look(at: Instant, status: Value) -> Look {
        Look { answer: fixtures::status(status), asked: at, answered: at }
    }

    pub(in crate::top) fn status(uptime: f64, received: u64) -> Value {
        let traffic = json!({
            "sent_packets": 1, "sent_bytes": received / 2, "received_packets": received / 100,
            "received_bytes": received, "lost_packets": received / 400
        });
        json!({
            "version": "0.1.0", "node_id": "aabbccddee", "uptime_s": uptime, "endpoints": [],
            "flows": {"total": 1}, "traffic": traffic, "counters": {"tcp_retransmits": received},
            "networks": [{"id": "ff01", "kind": "ad-hoc", "addresses": [], "peers": 1, "connected": 1,
                          "known": 0, "traffic": traffic}],
            "peers": [{"id": "bb", "network": "ff01", "addresses": ["fd00::2"], "connected": true,
                       "state": "connected", "path": "127.0.0.1:6", "rtt_ms": 1.5, "session_age_s": 61,
                       "total_traffic": traffic}]
        })
    }
}
