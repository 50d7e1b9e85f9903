//! Members that know of a change, as the node of the controller shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use peersock::overlay::NodeId;
use peersock::{NetworkId, Status};
use peersock_controller::{Controller, Member};

use super::super::now;
use super::{Here, OfNetwork, refused, served};
use crate::failure::Outcome;

/// Longest wait for the members that are connected.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Pauses between two looks, the first and the longest. A look at a large network takes long.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Members that know of the newest removals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    /// No controller that runs here has signed them.
    Unsigned,
    /// The node or the controller here does not answer; for people.
    Silent(String),
    /// Some members know them, of those that are connected, of all.
    Members { know: usize, connected: usize, all: usize },
}

impl Reach {
    /// Returns true if all members know them.
    pub(super) fn is_everybody(&self) -> bool {
        matches!(self, Reach::Members { know, all, .. } if know == all)
    }

    /// Says it for people, for the network `name`, with the time after which members knew it.
    fn words(&self, name: &str, time: &str) -> String {
        match self {
            Reach::Unsigned => {
                format!(
                    "no controller runs here: no member knows it until `peersock controller -n {name}` does"
                )
            }
            Reach::Silent(said) => format!("{said}: no member knows it until it goes on"),
            Reach::Members { all: 0, .. } => "there is no other member".to_owned(),
            Reach::Members { connected: 0, .. } => {
                "no member is connected now: they hear it from the controller or from each other".to_owned()
            }
            Reach::Members { know: 1, all: 1, .. } => format!("the other member knows it{time}"),
            Reach::Members { know, all, .. } if know == all => {
                format!("all {all} other members know it{time}")
            }
            Reach::Members { know, connected, .. } => {
                let connected = match *connected {
                    1 => format!("1 connected member knows it{time}"),
                    _ => format!("{connected} connected members know it{time}"),
                };
                format!("{know} of {connected}; the others hear it from them")
            }
        }
    }
}

/// Names of the node's counters of connections that a removal has ended, and that a peer has reset. The
/// former count among the latter.
const ENDED: &str = "tcp_barred";
const RESET: &str = "tcp_resets_received";

/// Connections of the node of this machine that have ended since its start, or meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    /// By removals.
    pub(super) by_removals: u64,
    /// By resets of peers. A removed machine resets its connections if it hears of its removal first.
    pub(super) by_peers: u64,
}

impl Ended {
    fn of(status: &Status) -> Ended {
        let count = |name| status.counters.get(name).copied().unwrap_or(0);
        let by_removals = count(ENDED);
        Ended { by_removals, by_peers: count(RESET).saturating_sub(by_removals) }
    }

    /// Returns what has ended after `before`.
    pub(super) fn after(self, before: Ended) -> Ended {
        Ended {
            by_removals: self.by_removals.saturating_sub(before.by_removals),
            by_peers: self.by_peers.saturating_sub(before.by_peers),
        }
    }
}

/// Returns the connections that have ended at the node of this machine, if it serves.
pub(super) fn ended(of: &OfNetwork, controller: &Controller) -> Outcome<Option<Ended>> {
    Ok(match served(of, controller)? {
        Here::Runs(status) => Some(Ended::of(&status)),
        _ => None,
    })
}

/// Effect of a change on the members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Effect {
    pub(super) reach: Reach,
    /// Time until the members knew it that do, or until the end of the wait.
    pub(super) after: Duration,
    /// Connections that have ended at the node of this machine since its start.
    pub(super) ended: Option<Ended>,
}

impl Effect {
    /// Says who knows it, and after which time, for people.
    pub(super) fn words(&self, network: &str) -> String {
        let time = match self.reach {
            Reach::Members { know: 1.., .. } => format!(" ({:.1} s)", self.after.as_secs_f64()),
            _ => String::new(),
        };
        self.reach.words(network, &time)
    }
}

/// Statement of the controller that members are to know.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    /// Removals of an epoch.
    Removals(u64),
    /// Access rules of a version.
    Rules(u64),
}

/// Waits until all connected members know the rules of a version, for a while at most.
pub(super) fn wait_rules(of: &OfNetwork, controller: &mut Controller, version: u64) -> Outcome<Effect> {
    wait_for(of, controller, Wanted::Rules(version), &[])
}

/// Waits until all connected members know the newest removals, for a while at most. The members that were
/// just removed do not count.
pub(super) fn wait(of: &OfNetwork, controller: &mut Controller, removed: &[Member]) -> Outcome<Effect> {
    let epoch = controller.status(now()).map_err(refused)?.epoch;
    wait_for(of, controller, Wanted::Removals(epoch), removed)
}

fn wait_for(
    of: &OfNetwork,
    controller: &mut Controller,
    wanted: Wanted,
    removed: &[Member],
) -> Outcome<Effect> {
    let (members, own) = (controller.members().map_err(refused)?, of.own()?);
    let is_other = |member: &&Member| member.is_member() && own != Some(member.grant.node);
    let all = members.iter().filter(is_other).count();
    let removed = removed.iter().map(|member| member.grant.node).collect();
    let (begun, mut pause) = (Instant::now(), PAUSE);
    let unheard = |reach| Effect { reach, after: begun.elapsed(), ended: None };
    loop {
        let status = match served(of, controller)? {
            Here::Runs(status) => status,
            Here::Silent(said) => return Ok(unheard(Reach::Silent(said))),
            Here::Nobody => return Ok(unheard(Reach::Unsigned)),
        };
        let reach = look(&status, controller.network(), wanted, &removed, all);
        let is_done = matches!(reach, Reach::Members { know, connected, .. } if know == connected);
        if is_done || begun.elapsed() >= LONGEST_WAIT {
            let reach = match reach {
                Reach::Unsigned => Reach::Silent("the controller is busy".to_owned()),
                reach => reach,
            };
            return Ok(Effect { reach, after: begun.elapsed(), ended: Some(Ended::of(&status)) });
        }
        thread::sleep(pause);
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

/// Returns which members know a statement, by the status of the controller's node.
fn look(
    status: &Status,
    network: NetworkId,
    wanted: Wanted,
    removed: &BTreeSet<NodeId>,
    all: usize,
) -> Reach {
    let joined = status.networks.iter().find(|joined| joined.id == network);
    let is_signed = joined.is_some_and(|joined| match wanted {
        Wanted::Removals(epoch) => joined.signed_epoch >= Some(epoch),
        Wanted::Rules(version) => joined.rules >= Some(version),
    });
    if !is_signed {
        return Reach::Unsigned;
    }
    let mut members: BTreeMap<NodeId, bool> = BTreeMap::new();
    let is_member = |standing: &Option<std::borrow::Cow<'_, str>>| standing.as_deref() == Some("member");
    for peer in &status.peers {
        let member = peer.machine.unwrap_or(peer.id);
        let counts = peer.network == network && peer.connected && is_member(&peer.standing);
        if counts && !removed.contains(&member) {
            // A member knows it when its programs with their own keys do, too.
            let knows = match wanted {
                Wanted::Removals(epoch) => peer.known_epoch >= Some(epoch),
                Wanted::Rules(version) => peer.known_rules >= Some(version),
            };
            *members.entry(member).or_insert(true) &= knows;
        }
    }
    let know = members.values().filter(|knows| **knows).count();
    Reach::Members { know, connected: members.len(), all: all.max(members.len()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::status::fixtures;

    fn status(signed: Option<u64>, known: &[Option<u64>]) -> Status {
        let peer = |at: usize, known: &Option<u64>| {
            json!({"id": format!("b{at}"), "network": "ff01", "addresses": [], "connected": true,
                   "state": "connected", "path": null, "standing": "member", "known_epoch": known})
        };
        let mut peers: Vec<_> = known.iter().enumerate().map(|(at, known)| peer(at, known)).collect();
        // A program of the last one, one that is away, one that is removed, and a stranger.
        let mut others: Vec<_> = (10..14).map(|at| peer(at, &None)).collect();
        let machine = format!("{:0<64}", format!("b{}", known.len().saturating_sub(1)));
        others[0]["machine"] = machine.into();
        others[1]["connected"] = false.into();
        others[2]["standing"] = "removed".into();
        others[3]["standing"] = serde_json::Value::Null;
        peers.extend(others.into_iter().skip(usize::from(known.is_empty())));
        fixtures::status(json!({
            "node_id": "aa", "uptime_s": 1, "endpoints": [], "flows": {"total": 0}, "counters": {},
            "networks": [{"id": "ff01", "addresses": [], "peers": 1, "connected": 0, "known": 1,
                          "signed_epoch": signed}],
            "peers": peers,
        }))
    }

    #[test]
    fn members_count_that_are_connected_and_know_the_epoch_with_all_their_programs() {
        let network = "ff0100ffff000000".parse().expect("an ID");
        let look = |status: &Status, removed: &BTreeSet<NodeId>| {
            look(status, network, Wanted::Removals(7), removed, 5)
        };
        let none = BTreeSet::new();
        let of = |know, connected| Reach::Members { know, connected, all: 5 };
        assert_eq!(look(&status(None, &[Some(7)]), &none), Reach::Unsigned);
        assert_eq!(look(&status(Some(6), &[Some(7)]), &none), Reach::Unsigned);
        assert_eq!(look(&status(Some(7), &[]), &none), of(0, 0));
        let some = status(Some(7), &[Some(7), Some(8), Some(6), None, Some(7)]);
        assert_eq!(look(&some, &none), of(2, 5), "the program of the last one does not know it");
        let removed = some.peers.iter().take(1).map(|peer| peer.id).collect();
        assert_eq!(look(&some, &removed), of(1, 4));
    }

    #[test]
    fn the_words_name_who_does_not_know_it_yet() {
        let words = |know, connected, all| Reach::Members { know, connected, all }.words("team", "");
        assert_eq!(words(14, 16, 20), "14 of 16 connected members know it; the others hear it from them");
        assert_eq!(words(0, 1, 1), "0 of 1 connected member knows it; the others hear it from them");
        assert_eq!(words(16, 16, 20), "16 of 16 connected members know it; the others hear it from them");
        assert_eq!(words(16, 16, 16), "all 16 other members know it");
        assert_eq!(words(1, 1, 1), "the other member knows it");
        assert!(words(0, 0, 3).starts_with("no member is connected now"));
        assert!(Reach::Unsigned.words("team", "").contains("`peersock controller -n team`"));
        let silent = Reach::Silent("the node with process 7 is stopped".to_owned()).words("team", "");
        assert_eq!(silent, "the node with process 7 is stopped: no member knows it until it goes on");
    }
}
